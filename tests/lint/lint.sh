# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# What the lint tests share; each starts with `. "$(dirname "$0")/lint.sh"`. They run in the source folder, print one
# line per fault, "file:line: what is wrong", and exit with 1 when there is one, with 77 when they can't run here.

# files DIR NAME ...: the project's files under DIR whose name matches one of the patterns, without what builds, runs
# and downloads leave behind
files() {
    dir=$1
    shift
    names=
    for name; do names="$names${names:+ -o }-name $name"; done
    set -f # the patterns are for find
    find "$dir" \( -path './.git' -o -path './build*' -o -path ./runs -o -path ./data/mnist \) -prune \
        -o -type f \( $names \) -print | sed 's|^\./||' | sort
    set +f
}

# c_files DIR ...: C sources and headers
c_files() {
    for dir; do
        if [ -d "$dir" ]; then files "$dir" '*.[ch]'; fi
    done
}

# finish WHAT: reads faults from the standard input, prints them, and ends the test
finish() {
    if grep .; then
        echo "$1: failed"
        exit 1
    fi
    exit 0
}
