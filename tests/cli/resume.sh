#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A run that was cut off at some step and goes on from its checkpoint, on another number of processes, ends with the bytes
# of one that was never cut off; a damaged checkpoint is passed over; other settings are refused.
. "$(dirname "$0")/cli_test.sh"

sgd='optimizer.momentum=0.9 lr.schedule=cosine model.dropout=0.2'
adam='optimizer.kind=adam optimizer.momentum=auto optimizer.lr=0.001'

# train NAME PROCESSES ARGUMENTS ...: the run, of 4 workers, with an uneven end of each epoch, that ends within one
train() {
    name=$1
    processes=$2
    shift 2
    "$lockstep" train examples/digits.yaml -n "$processes" --json --output "$work/$name" world=4 batch.local=7 \
        epochs=auto steps=500 "$@" >"$work/$name.json" 2>>"$work/$name.err"
}

# cut NAME STEP: leaves of a run what it had right after that step's checkpoint, but for what it has logged since
cut() {
    rm -f "$work/$1/model.safetensors"
    for file in "$work/$1"/checkpoints/step-*; do
        step=${file##*/step-}
        step=$(expr "${step%.safetensors}" + 0)
        [ "$step" -le "$2" ] || rm "$file"
    done
}

# step, samples, loss and the like of every line: all but the times
without_times() {
    sed 's/"samples_per_second": [^,]*, //; s/"seconds": [^}]*//' "$1"
}

# same_end ONE OTHER: the same model, results and metrics
same_end() {
    cmp "$work/$1/model.safetensors" "$work/$2/model.safetensors" || fail "$1 and $2 have written different models"
    for key in parameters_hash steps train_loss test_loss test_accuracy; do
        same $key "$work/$1.json" "$work/$2.json"
    done
    without_times "$work/$1/metrics.jsonl" >"$work/one"
    without_times "$work/$2/metrics.jsonl" >"$work/other"
    cmp "$work/one" "$work/other" || fail "$1 and $2 have logged different metrics"
    cmp "$work/$1/hashes.jsonl" "$work/$2/hashes.jsonl" || fail "$1 and $2 have logged different hashes"
    "$lockstep" compare "$work/$1" "$work/$2" >"$work/one" || fail "$1 and $2 differ: $(cat "$work/one")"
}

# An epoch has 52 steps (1438 samples in steps of 28: the last one of 10): step 104 ends one, the others lie within one.
all='checkpoint.every_steps=13 checkpoint.keep=100'
for optimizer in sgd adam; do
    settings=$sgd
    [ $optimizer = sgd ] || settings=$adam
    # shellcheck disable=SC2086 # a list
    train $optimizer 2 $settings || fail "$optimizer: exit code $?"
    # shellcheck disable=SC2086
    train $optimizer-on 4 $settings $all || fail "$optimizer-on: exit code $?"
    for step in 403 104 13; do
        cut $optimizer-on $step
        : >"$work/$optimizer-on.err"
        # shellcheck disable=SC2086
        train $optimizer-on $((step % 3 + 1 == 3 ? 4 : step % 3 + 1)) $settings $all --resume ||
            fail "$optimizer does not go on from step $step: exit code $?"
        same_end $optimizer $optimizer-on
    done
done

# Killed at any moment while it writes checkpoints all the time, by one process and by two, it goes on where it was.
# shellcheck disable=SC2086
for n in 1 2 2 1 4 2; do
    long="steps=100000 checkpoint.every_steps=7 metrics.every_steps=10000"
    [ -d "$work/killed" ] && on=--resume || on=
    "$lockstep" train examples/digits.yaml -n $n --output "$work/killed" world=4 batch.local=7 epochs=auto $long $on \
        >"$work/killed.out" 2>"$work/killed.err" &
    pid=$!
    until ls "$work"/killed/checkpoints/step-*.safetensors >"$work/list" 2>&1; do sleep 0.01; done
    sleep "0.$(($(od -An -N1 -tu1 /dev/urandom) % 25 + 10))"
    kill -KILL $pid || fail "the run on $n processes has ended before it was killed"
    wait $pid || true
    sleep 0.2
    [ "$(ls "$work"/killed/checkpoints/step-*.safetensors | wc -l)" -le 4 ] || fail "more than 3 checkpoints were kept"
done
# shellcheck disable=SC2086
for name in killed whole; do
    [ $name = killed ] && on=--resume || on=
    "$lockstep" train examples/digits.yaml -n 1 --output "$work/$name" world=4 batch.local=7 epochs=auto steps=100000 $on \
        metrics.every_steps=10000 >"$work/$name.out" 2>"$work/$name.err" || fail "$name: exit code $?"
    grep -q 'passed over' "$work/$name.err" && fail "a checkpoint was not whole"
done
cmp "$work/killed/model.safetensors" "$work/whole/model.safetensors" || fail "the killed run has come to another model"

# With a bit of the newest checkpoint changed the run goes on from the one before.
stopped=$work/sgd-on
rm "$stopped/model.safetensors"
newest=$(find "$stopped/checkpoints" -name 'step-*' | sort | tail -n 1)
printf '\377' | dd of="$newest" bs=1 seek=20000 conv=notrunc 2>/dev/null
: >"$work/sgd-on.err"
# shellcheck disable=SC2086
train sgd-on 2 $sgd --resume || fail "does not go on from the older checkpoint: exit code $?"
[ "$(grep -c "^lockstep: passed over: $newest is damaged" "$work/sgd-on.err")" = 1 ] || fail "$newest was not passed over"
same_end sgd sgd-on

# refused NAME CODE TEXT ARGUMENTS ...: going on ends with that exit code and message, and changes no file
refused() {
    name=$1
    code=$2
    text=$3
    shift 3
    find "$work/$name" -type f -exec cksum {} + 2>/dev/null | sort >"$work/before"
    : >"$work/$name.err"
    got=0
    train "$name" 2 --resume "$@" || got=$?
    [ $got = "$code" ] || fail "$*: exit code $got, not $code"
    grep -qF -- "$text" "$work/$name.err" || fail "$*: the message is not: $text"
    find "$work/$name" -type f -exec cksum {} + 2>/dev/null | sort | cmp - "$work/before" || fail "$*: files have changed"
}
# shellcheck disable=SC2086
refused sgd 0 "is finished" $sgd
rm "$work/sgd/model.safetensors"
# shellcheck disable=SC2086
refused sgd 2 "has no whole checkpoint to go on from" $sgd
refused nowhere 2 "there is no run to go on with in $work/nowhere"
rm "$stopped/model.safetensors"
# shellcheck disable=SC2086
refused sgd-on 2 "seed is 5, the run has 0; optimizer.momentum is 0.8, the run has 0.9" $sgd seed=5 optimizer.momentum=0.8
# shellcheck disable=SC2086
refused sgd-on 2 "--resume or --overwrite" $sgd --overwrite
# shellcheck disable=SC2086
refused sgd-on 2 "--resume or --init" $sgd --init "$work/sgd-on/plan.json"

# Lines of its files that are damaged are cut off with what follows them, and that is told once.
cut sgd-on 13
sed -i '1s/step/stop/' "$work/sgd-on/metrics.jsonl"
: >"$work/sgd-on.err"
# shellcheck disable=SC2086
train sgd-on 2 $sgd --resume || fail "does not go on with damaged metrics: exit code $?"
[ "$(grep '^lockstep: ' "$work/sgd-on.err")" = "lockstep: $work/sgd-on is damaged: cut off metrics.jsonl from line 1" ] ||
    fail "the damage is not told in one line"
