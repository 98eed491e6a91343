#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every header compiles alone: the public ones as C11 and as C++17, the others as C11.
. "$(dirname "$0")/lint.sh"

cc=${CC:-cc} cxx=${CXX:-c++}

# alone HEADER COMMAND ...: what the compiler says of a file that includes nothing else
alone() {
    header=$1
    shift
    printf '#include "%s"\nextern int not_empty;\n' "$header" |
        "$@" -fsyntax-only -pedantic -Wall -Wextra -Werror - 2>&1 | sed "s|^|$header: |"
}

{
    for header in $(cd include && files lockstep '*.h'); do
        alone "$header" "$cc" -x c -std=c11 -Iinclude
        if command -v "$cxx" >/dev/null; then alone "$header" "$cxx" -x c++ -std=c++17 -Iinclude; fi
    done
    for header in $(cd src && files . '*.h'); do
        alone "$header" "$cc" -x c -std=c11 -D_POSIX_C_SOURCE=200809L -Iinclude -Isrc
    done
} | finish headers
