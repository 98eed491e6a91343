#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The number of processes changes nothing: the same global batch and local batch give the same bytes after 200 steps, with
# a last step of an epoch that is shared out unevenly, and with one that leaves some workers nothing.
. "$(dirname "$0")/cli_test.sh"

# train NAME PROCESSES SETTINGS ...: a run of 200 steps; leaves its result in $work/NAME.json
train() {
    name=$1
    processes=$2
    shift 2
    "$lockstep" train examples/digits.yaml -n "$processes" --json --output "$work/$name" epochs=auto steps=200 "$@" \
        >"$work/$name.json" 2>"$work/$name.err" || fail "$name: exit code $?"
}

# same_run ONE OTHER: both have come to the same numbers and to the same file
same_run() {
    same steps "$work/$1.json" "$work/$2.json"
    same parameters_hash "$work/$1.json" "$work/$2.json"
    same train_loss "$work/$1.json" "$work/$2.json"
    same test_loss "$work/$1.json" "$work/$2.json"
    cmp "$work/$1/model.safetensors" "$work/$2/model.safetensors" || fail "$1 and $2 have written different models"
}

# on_any_number NAME LAST_STEP_SAMPLES SETTINGS ...: eight workers on 1, 2, 4 and 8 processes
on_any_number() {
    runs=$1
    last=$2
    shift 2
    for n in 1 2 4 8; do
        train "$runs-$n" $n world=8 batch.local=7 "$@"
        [ "$(member last_step_samples "$work/$runs-$n.json")" = "$last" ] || fail "$runs: the last step is not of $last"
        [ "$(member same_bits "$work/$runs-$n.json")" = true ] || fail "$runs: the plan does not promise the same bits"
        same_run "$runs-1" "$runs-$n"
    done
}

adam='optimizer.kind=adam optimizer.momentum=auto optimizer.lr=0.001'
# 1438 samples are 25 steps of 56 and 38 more: 6 of the 8 workers get 5 of them, 2 get 4; of 1405 there are 5 left.
on_any_number sgd-uneven 38
on_any_number sgd-empty 5 data.limit=1405
# shellcheck disable=SC2086 # a list
on_any_number adam-uneven 38 $adam
# shellcheck disable=SC2086
on_any_number adam-empty 5 data.limit=1405 $adam

# More workers than processes, and accumulation in place of workers.
train sixteen-1 1 world=16
train sixteen-2 2 world=16
train accumulated 2 world=2 batch.accumulate=8
same_run sixteen-1 sixteen-2
same_run sixteen-1 accumulated

# Dropout, with accumulation and a last step of an epoch (1438 samples are 29 steps of 48 and 46 more) whose leaves have not
# all their samples. What is dropped belongs to a leaf, not to the process or worker that computes it.
on_any_number dropout 38 model.dropout=0.3
for n in 1 2 4 8; do
    train dropout-accumulated-$n $n world=8 batch.local=3 batch.accumulate=2 model.dropout=0.3
    same_run dropout-accumulated-1 dropout-accumulated-$n
done
[ "$(member last_step_samples "$work/dropout-accumulated-1.json")" = 46 ] || fail "dropout: the last step is not of 46"
train dropout-workers 2 world=16 batch.local=3 model.dropout=0.3
train dropout-alone 2 world=2 batch.accumulate=8 batch.local=3 model.dropout=0.3
same_run dropout-accumulated-1 dropout-workers
same_run dropout-accumulated-1 dropout-alone
[ "$(member parameters_hash "$work/dropout-1.json")" != "$(member parameters_hash "$work/sgd-uneven-1.json")" ] ||
    fail "dropout changes nothing"

# The config that a run leaves in its folder means that run, on any number of processes.
train two 2
"$lockstep" train "$work/two/config.yaml" -n 1 --json --output "$work/again" >"$work/again.json" 2>"$work/again.err" ||
    fail "again: exit code $?"
same_run two again

# What changes the run changes the hash: the comparisons above can fail.
train other 2 world=16 seed=1
[ "$(member parameters_hash "$work/other.json")" != "$(member parameters_hash "$work/sixteen-2.json")" ] ||
    fail "another seed has given the same parameters"
