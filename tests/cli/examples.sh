#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The example programs on two ranks print what their comments say.
. "$(dirname "$0")/cli_test.sh"
examples=${LOCKSTEP_BUILD:-$PWD/build}/examples

# run PROGRAM: on two ranks; its lines, sorted, in $work/out
run() {
    "$lockstep" run -n 2 "$examples/$1" >"$work/unsorted" 2>"$work/$1.err" || fail "$1: exit code $?"
    [ ! -s "$work/$1.err" ] || fail "$1 has written to stderr"
    sort "$work/unsorted" >"$work/out"
}

# expect LINE ...: exactly these
expect() {
    printf '%s\n' "$@" | diff -u - "$work/out" || fail "not what was expected"
}

run effective_batch
expect 'rank 0: local batch 32, effective batch 64 (added up over the ranks: 64)' \
    'rank 1: local batch 32, effective batch 64 (added up over the ranks: 64)'

run scaled_lr
expect 'Adam (betas 0.9, 0.999): base rate 0.001 tuned at batch 32, effective batch 64, adjusted rate 0.002'

# Trained: the loss has left ln 2, that of two classes told apart by chance, and goes down.
run steps_per_epoch
losses=$(sed -n 's/.*train loss \([0-9.]*\)$/\1/p' "$work/out")
sed -i 's/train loss [0-9.]*/train loss L/' "$work/out"
expect 'epoch 1: 16 steps per epoch, 16 steps in all, 1000 samples, train loss L' \
    'epoch 2: 16 steps per epoch, 32 steps in all, 2000 samples, train loss L' 'trained: 32 steps on 2 ranks'
echo "$losses" | awk 'NR == 1 { first = $1 } END { exit !(NR == 2 && $1 < first && $1 < 0.66) }' ||
    fail "train losses $losses"
