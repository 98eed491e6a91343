#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Compares what the command line prints with what was recorded.
#
#   sh tests/cli/run_cases.sh [--record] [CASE ...]      cases: tests/cli/cases/*.txt, all by default
#
# A case is a transcript of shell commands, in which `lockstep` is the program under test (LOCKSTEP_BINARY, else
# build/lockstep). A line "$ COMMAND" is run; what it printed follows, lines of stderr marked with "! ", and, unless it
# is 0, the exit code as "[2]". Lines before the first command are comments. --record writes the transcripts anew.
#
# Sizes of memory depend on the processor, whose kernels want their layouts; they are shown as "#".
#
# The commands of a case share a fresh folder, in which examples/ and data/ are those of the source tree.

set -u
source=$(cd "$(dirname "$0")/../.." && pwd)
binary=${LOCKSTEP_BINARY:-$source/build/lockstep}
record=false
if [ "${1:-}" = --record ]; then
    record=true
    shift
fi
[ $# -gt 0 ] || set -- "$source"/tests/cli/cases/*.txt

if [ ! -x "$binary" ]; then
    echo "$binary is not there: build first, or set LOCKSTEP_BINARY"
    exit 2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
ln -s "$binary" "$work/bin/lockstep"
PATH=$work/bin:$PATH
LC_ALL=C
export PATH LC_ALL
unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT

# hide_sizes: a filter
hide_sizes() {
    sed -E '/^(! )?  (memory, |reduced )/s/ +[0-9.]+ ([kMGT]?B)/ # \1/g
        s/("(memory_[a-z]+_bytes|parameters|optimizer|gradients|activations)": )[0-9]+(,?)$/\1#\3/'
}

# run_line COMMAND: its part of a transcript
run_line() {
    printf '$ %s\n' "$1"
    sh -c "$1" >"$work/stdout" 2>"$work/stderr" </dev/null
    code=$?
    hide_sizes <"$work/stdout"
    sed 's/^/! /' "$work/stderr" | hide_sizes
    if [ $code -ne 0 ]; then echo "[$code]"; fi
}

# run_case FILE: the whole transcript
run_case() {
    sed '/^\$ /,$d' "$1"
    rm -rf "$work/here"
    mkdir "$work/here"
    ln -s "$source/examples" "$source/data" "$work/here"
    sed -n 's/^\$ //p' "$1" >"$work/commands"
    (
        cd "$work/here" || exit 1
        while IFS= read -r line; do run_line "$line"; done <"$work/commands"
    )
}

failures=0
for case in "$@"; do
    run_case "$case" >"$work/transcript"
    if $record; then
        cp "$work/transcript" "$case"
    elif ! diff -u "$case" "$work/transcript"; then
        echo "$case: differs; if the new output is right: sh tests/cli/run_cases.sh --record $case"
        failures=$((failures + 1))
    fi
done
[ $failures -eq 0 ]
