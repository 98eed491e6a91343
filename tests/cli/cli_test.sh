# SPDX-License-Identifier: Apache-2.0
# What the shell tests of the command line share. Sourced: . "$(dirname "$0")/cli_test.sh"
#
# Sets $lockstep, the program (LOCKSTEP_BINARY, else build/lockstep), and $work, a folder that goes with the test; the
# current folder is that of the source tree, where tests are started.
set -eu
lockstep=${LOCKSTEP_BINARY:-$PWD/build/lockstep}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# fail MESSAGE: ends the test, with what the program said last
fail() {
    echo "$0: $*"
    for log in "$work"/*.err; do
        if [ -s "$log" ]; then echo "$log:" && tail -n 5 "$log"; fi
    done
    exit 1
}

# skip REASON: a test that can't be made here
skip() {
    echo "$0: skipped: $*"
    exit 77
}

# member KEY FILE: a number, or a text without its quotes, from an object that --json has printed
member() {
    sed -n 's/^  "'"$1"'": "\{0,1\}\([^",]*\)"\{0,1\},\{0,1\}$/\1/p' "$2"
}

# same KEY FILE FILE: both objects have that member with the same value
same() {
    one=$(member "$1" "$2")
    other=$(member "$1" "$3")
    [ -n "$one" ] || fail "$2 has no $1"
    [ "$one" = "$other" ] || fail "$1 is $one in $2, but $other in $3"
}
