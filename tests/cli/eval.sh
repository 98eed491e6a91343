#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# lockstep eval says what training said at its end, on any number of processes, whatever the sizes; of a run, a checkpoint,
# an exported file; damaged and foreign files are refused.
. "$(dirname "$0")/cli_test.sh"

# train NAME SETTINGS ...
train() {
    name=$1
    shift
    "$lockstep" train examples/digits.yaml -n 2 --json --output "$work/$name" epochs=3 "$@" >"$work/$name.json" \
        2>"$work/$name.err" || fail "$name: exit code $?"
}

# digits KEY FILE: a number with the 15 digits that train prints
digits() {
    member "$1" "$2" | awk '{ printf "%.15g\n", $1 }'
}

# evaluate NAME ARGUMENTS ...: on 1, 2, 3, 4 and 8 processes, all with the same output, which is left in $work/NAME
evaluate() {
    into=$1
    shift
    "$lockstep" eval --json "$@" >"$work/$into" 2>"$work/eval.err" || fail "eval $*: exit code $?"
    for n in 1 2 3 4 8; do
        "$lockstep" eval --json -n $n "$@" >"$work/on-$n" 2>"$work/eval.err" || fail "eval -n $n $*: exit code $?"
        cmp "$work/$into" "$work/on-$n" || fail "eval $*: $n processes say something else"
    done
}

# as_trained NAME: the evaluation in $work/eval-NAME is that of the end of training
as_trained() {
    [ -n "$(digits loss "$work/eval-$1")" ] || fail "$1: no loss"
    [ "$(digits test_loss "$work/$1.json")" = "$(digits loss "$work/eval-$1")" ] || fail "$1: another loss"
    [ "$(digits test_accuracy "$work/$1.json")" = "$(digits accuracy "$work/eval-$1")" ] || fail "$1: another accuracy"
}

# 359 test samples: in 22 batches of 16 and 7 more; 7 divides neither set; 512 is more than there are
train plain checkpoint.every_steps=50
train seven batch.local=7
train large batch.local=512
train dropout model.dropout=0.3
for name in plain seven large dropout; do
    evaluate eval-$name --run "$work/$name"
    as_trained $name
done
[ "$(member samples "$work/eval-plain")" = 359 ] || fail "not 359 samples: $(member samples "$work/eval-plain")"

# By class: the samples of all classes are the set, the hits of all are the hits.
awk '/"class": / { n++ } /"samples": / { samples += $2 } /"correct": / { correct += $2 }
    END { exit !(n == 10 && samples == 2 * 359 && correct % 2 == 0) }' "$work/eval-plain" || fail "the classes do not add up"

# The training set too, also one with fewer samples than processes.
evaluate train --run "$work/plain" --split train
[ "$(member samples "$work/train")" = 1438 ] || fail "not 1438 training samples"
evaluate few --run "$work/plain" --split train data.limit=3
[ "$(member samples "$work/few")" = 3 ] || fail "not 3 samples"

# A config and a file: the run's model, a checkpoint and what was exported from it, with optimizer state or without.
checkpoint=$work/plain/checkpoints/step-00000100.safetensors
evaluate config examples/digits.yaml --model "$work/plain/model.safetensors"
sed '/"model"/d' "$work/config" >"$work/one"
sed '/"model"/d' "$work/eval-plain" | cmp - "$work/one" || fail "the config says something else than the run"
evaluate checkpoint --run "$work/plain" --model "$checkpoint"
"$lockstep" export "$checkpoint" "$work/file"
evaluate exported --run "$work/plain" --model "$work/file"
sed '/"model"/d' "$work/checkpoint" >"$work/one"
sed '/"model"/d' "$work/exported" | cmp - "$work/one" || fail "the exported file says something else"
sed '/"model"/d' "$work/eval-plain" | cmp -s - "$work/one" && fail "the checkpoint says what the model says"

# Without its model a run has its newest whole checkpoint.
rm "$work/plain/model.safetensors"
evaluate newest --run "$work/plain"
grep -q '"model": ".*/step-00000100.safetensors"' "$work/newest" || fail "not the newest checkpoint: $(cat "$work/newest")"
printf '\377' | dd of="$checkpoint" bs=1 seek=20000 conv=notrunc 2>/dev/null
evaluate older --run "$work/plain"
grep -q '"model": ".*/step-00000050.safetensors"' "$work/older" || fail "not the older checkpoint"

# refused TEXT ARGUMENTS ...: exit code 2 and one message
refused() {
    text=$1
    shift
    for n in 1 2; do
        code=0
        "$lockstep" eval -n $n "$@" >"$work/out" 2>"$work/eval.err" || code=$?
        [ $code = 2 ] || fail "eval $*: exit code $code, not 2"
        grep -qF -- "$text" "$work/eval.err" || fail "eval $*: the message is not: $text"
        [ "$(grep -c '^lockstep: ' "$work/eval.err")" = 1 ] || fail "eval $*: not one message"
    done
}
refused "is damaged" --run "$work/plain" --model "$checkpoint"
refused "tensor \"0.weight\"" examples/digits.yaml 'model.hidden=[32]' --model "$work/seven/model.safetensors"
refused "cannot open" examples/digits.yaml --model "$work/nothing"
