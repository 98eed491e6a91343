#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Calls that are not made: without bounds or error checks anywhere; output, exits and signal handlers in the library.
. "$(dirname "$0")/lint.sh"

here=$(dirname "$0")

# not_called WHY WORDS FILE ...: the words, separated by |, as function names in the files' code
not_called() {
    why=$1 words=$2
    shift 2
    if [ $# -gt 0 ]; then
        awk -f "$here/code.awk" "$@" |
            sed -nE "s/^([^:]*:[0-9]*):(.*[^A-Za-z0-9_])?($words)[[:space:]]*\(.*/\1: \3: $why/p"
    fi
}

# the library: not the launcher, which belongs to the program
library=$(c_files include src | grep -v '^src/launch/')

# shellcheck disable=SC2046,SC2086 # lists of files
{
    not_called "no bounds, or errors go unseen" \
        'strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atol|atoll|atof' $(c_files include src cli examples bench tests)
    not_called "the library does not print" 'printf|vprintf|puts|putchar' $library
    awk -f "$here/code.awk" $library /dev/null |
        sed -nE 's/^([^:]*:[0-9]*):.*[^A-Za-z0-9_]stdout([^A-Za-z0-9_].*)?$/\1: stdout: the library does not print/p'
    not_called "the library does not end the program" 'exit|_exit|_Exit|quick_exit|abort' $library
    not_called "the library installs no signal handlers" 'signal|sigaction' $library
    # realloc may lengthen what another library allocated
    not_called "memory comes from lks__alloc" 'malloc|calloc|aligned_alloc|posix_memalign|strdup|strndup' \
        $(echo "$library" | grep -v '^src/base/')
} | finish calls
