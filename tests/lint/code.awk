# SPDX-License-Identifier: Apache-2.0
# Prints C files as "file:line:code", with comments and the insides of literals left out.
FNR == 1 { inside = "" }
{
    code = ""
    for (i = 1; i <= length($0); i++) {
        c = substr($0, i, 1)
        two = substr($0, i, 2)
        if (inside == "*/") {
            if (two == "*/") {
                inside = ""
                i++
            }
        } else if (inside != "") { # a literal, until its quote
            if (c == "\\")
                i++
            else if (c == inside) {
                inside = ""
                code = code c
            }
        } else if (two == "//") {
            break
        } else if (two == "/*") {
            inside = "*/"
            i++
        } else {
            if (c == "\"" || c == "'")
                inside = c
            code = code c
        }
    }
    if (inside != "*/" && $0 !~ /\\$/)
        inside = "" # a literal ends with its line
    print FILENAME ":" FNR ":" code
}
