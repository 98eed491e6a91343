#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Processes that another launcher has started, one per rank with RANK and its companions set: they find each other, the
# result is that of -n 2, and no meeting place is left.
. "$(dirname "$0")/cli_test.sh"
unset LOCKSTEP_GROUP_FD 2>/dev/null || true
XDG_RUNTIME_DIR=$work/meet # the meeting place: this test's own
mkdir -m 700 "$XDG_RUNTIME_DIR"
export XDG_RUNTIME_DIR

# start RANK NAME SETTINGS ...: a process of two, in the background
start() {
    rank=$1
    name=$2
    shift 2
    RANK=$rank LOCAL_RANK=$rank WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 MASTER_ADDR=localhost MASTER_PORT=29500 \
        "$lockstep" train examples/digits.yaml --json --output "$work/$name" "$@" >"$work/$name-$rank.json" \
        2>"$work/$name-$rank.err" &
}

# finish PID CODE: that process ends with that exit code
finish() {
    code=0
    wait "$1" || code=$?
    [ "$code" = "$2" ] || fail "exit code $code, not $2"
}

nobody_left() {
    left=$(find "$XDG_RUNTIME_DIR" ! -type d)
    [ -z "$left" ] || fail "left at the meeting place: $left"
}

"$lockstep" train examples/digits.yaml -n 2 --json --output "$work/launched" >"$work/launched.json" \
    2>"$work/launched.err" || fail "lockstep train -n 2: exit code $?"

# The one who waits may be either.
for first in 0 1; do
    second=$((1 - first))
    start $first met-$first
    first_pid=$!
    sleep 0.1
    start $second met-$first
    finish $! 0
    finish $first_pid 0
    same parameters_hash "$work/launched.json" "$work/met-$first-0.json"
    same test_loss "$work/launched.json" "$work/met-$first-0.json"
    [ ! -s "$work/met-$first-1.json" ] || fail "rank 1 has printed a result too"
    nobody_left
done

# A mistake that both make is told once, and nothing is written.
start 0 mistake data.tail=drop batch.local=1000
pid=$!
start 1 mistake data.tail=drop batch.local=1000
finish $! 2
finish $pid 2
[ "$(cat "$work"/mistake-?.err | grep -c '^lockstep: no step would be taken')" = 1 ] || fail "not told once"
[ ! -e "$work/mistake" ] || fail "something was written"

# One is killed: the other ends by itself and names it.
start 0 killed epochs=1000000
pid=$!
start 1 killed epochs=1000000
victim=$!
until [ -s "$work/killed/metrics.jsonl" ]; do sleep 0.05; done
kill -KILL $victim
finish $pid 1
wait $victim || true
grep -q "rank 1 (process $victim) died" "$work/killed-0.err" || fail "rank 0 does not name rank 1"
nobody_left
