#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Nothing is left over: no words of unfinished work, no paths of one machine, no untidy text.
. "$(dirname "$0")/lint.sh"

texts=$(files . '*.[ch]' '*.awk' '*.cmake' '*.in' '*.md' '*.py' '*.sh' '*.yaml' '*.json' CMakeLists.txt
    files .ci '*' && files scripts '*')

# shellcheck disable=SC2086 # a list of files
{
    # written so that this file does not match
    grep -nE '(^|[^A-Za-z])(T[O]DO|F[I]XME|X[X]X|H[A]CK|W[I]P)([^A-Za-z]|$)' $texts | sed 's/$/ <- unfinished/'
    grep -nE '(^|[^A-Za-z0-9_.$}/-])/(home|root|opt|mnt|srv|work|Users)/' $texts | sed 's/$/ <- a path of one machine/'
    grep -nE '[[:space:]]$' $texts | sed 's/$/ <- blanks at the end of the line/'
    grep -n "$(printf '\t')" $texts | sed 's/$/ <- a tab/'
    for file in $texts; do
        if [ -n "$(tail -c 1 "$file")" ]; then echo "$file: the last line has no end"; fi
    done
} | finish leftovers
