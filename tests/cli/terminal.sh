#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# On a terminal progress is a bar that never wraps, and nothing of it is left at the end.
. "$(dirname "$0")/cli_test.sh"
command -v script >/dev/null || skip "script is not installed, which gives a program a terminal"

escape=$(printf '\033')
# watch COLUMNS: a run on such a terminal; what it writes, in $work/screen: a line for each time that a line is begun
watch() {
    # steps of a large model, so that an epoch takes longer than the 0.1 s between two bars
    command="stty cols $1; exec \"$lockstep\" train examples/digits.yaml -n 2 --output \"$work/run-$1\" --overwrite"
    command="$command data.limit=$samples epochs=1 batch.local=2 model.hidden='[2048, 1024]' lr.rule=none"
    script -qec "$command" /dev/null </dev/null >"$work/typed" || fail "$1 columns: exit code $?"
    tr -d '\n' <"$work/typed" | tr '\r' '\n' >"$work/screen"
    grep "^epoch 1/1 .*$escape\[K$" "$work/screen" >"$work/bars" || fail "$1 columns: no bar"
    widest=$(sed "s/$escape\[K//" "$work/bars" | awk '{ if (length > widest) widest = length } END { print widest }')
    [ "$widest" -lt "$1" ] || fail "$1 columns: a bar of $widest"
    # A bar is followed by a bar, or taken off by the end of the epoch.
    ! grep -A 1 "^epoch 1/1 .*$escape\[K$" "$work/screen" | grep -v "^epoch 1/1 \|^$escape\[Kepoch 1/1  train loss" ||
        fail "$1 columns: a bar is left"
}

samples=1438
[ -z "${LOCKSTEP_SANITIZE:-}" ] || samples=200
for columns in 200 50 20 80; do watch $columns; done
grep -q '^epoch 1/1 \[=*\.*\]  *loss [0-9.]*  lr [0-9.e-]*  [0-9,]* samples/s  [0-9]*:[0-9][0-9] left' "$work/bars" ||
    fail "80 columns: not all is told"
