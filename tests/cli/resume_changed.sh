#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A run that goes on with another batch, rule or length, asked for on the command line, uses what is left of its epoch,
# says what has changed, ends with the same bytes on any number of processes, and can be cut off and go on again; what
# can't be changed, does not fit or would be over is refused before anything is written.
. "$(dirname "$0")/cli_test.sh"

# 1438 samples: 52 steps of 28 in an epoch, the last one of 10; 26 steps of 56, the last one of 38
config() {
    cat <<END
name: digits
model: {kind: mlp, hidden: [24]}
data: {kind: idx, path: data/digits, tail: $2, normalize: {mean: 0.0192, std: 0.0236}}
world: 4
batch: {local: 7}
epochs: 5
optimizer: {$1}
lr: {reference_batch: 28, rule: none, schedule: cosine}
checkpoint: {every_steps: 13, keep: 100}
metrics: {every_steps: 1}
END
}

# train NAME PROCESSES ARGUMENTS ...: the run of $config
train() {
    name=$1
    processes=$2
    shift 2
    "$lockstep" train "$config" -n "$processes" --json --output "$work/$name" "$@" >"$work/$name.json" 2>"$work/$name.err"
}

# cut NAME STEP: leaves of a run what it had right after that step's checkpoint
cut() {
    rm -f "$work/$1/model.safetensors"
    for checkpoint in "$work/$1"/checkpoints/step-*; do
        taken=${checkpoint##*/step-}
        taken=$(expr "${taken%.safetensors}" + 0)
        [ "$taken" -le "$2" ] || rm "$checkpoint"
    done
}

# copy FROM TO: as if the run had been there from the start
copy() {
    rm -rf "${work:?}/$2"
    cp -r "$work/$1" "$work/$2"
    sed -i "s|\"$work/$1\"|\"$work/$2\"|" "$work/$2"/config*.yaml
}

without_times() {
    sed 's/"samples_per_second": [^,]*, //; s/"seconds": [^}]*//' "$1"
}

# same_end ONE OTHER: the same model, results, metrics and plan but for the number of processes
same_end() {
    cmp "$work/$1/model.safetensors" "$work/$2/model.safetensors" || fail "$1 and $2 have written different models"
    for key in parameters_hash steps train_loss test_loss test_accuracy total_steps; do
        same $key "$work/$1.json" "$work/$2.json"
    done
    for name in "$1" "$2"; do
        without_times "$work/$name/metrics.jsonl" >"$work/$name.lines"
        grep -vE '"(processes|leaves_per_process|memory_[a-z]*_bytes|gradients|reduced_bytes)"' "$work/$name/plan.json" >"$work/$name.plan"
    done
    cmp "$work/$1.lines" "$work/$2.lines" || fail "$1 and $2 have logged different metrics"
    cmp "$work/$1/hashes.jsonl" "$work/$2/hashes.jsonl" || fail "$1 and $2 have logged different hashes"
    cmp "$work/$1.plan" "$work/$2.plan" || fail "$1 and $2 have different plans"
}

# tells NAME TEXT: the last run of that name has said so
tells() {
    grep -qF -- "$2" "$work/$1.err" || fail "$1 does not say: $2"
}

# is NAME KEY VALUE: in its result
is() {
    [ "$(member "$2" "$work/$1.json")" = "$3" ] || fail "$1: $2 is $(member "$2" "$work/$1.json"), not $3"
}

config=$work/run.yaml
config 'kind: sgd, lr: 0.05, momentum: 0.9' exact >"$config"
train begun 2 || fail "exit code $?"

# Twice the batch within epoch 3 (13 steps of 28 are taken) and at the end of epoch 2: on 1, 2 and 4 processes.
for step in 117 104; do
    for n in 1 2 4; do
        copy begun on-$n
        cut on-$n $step
        train on-$n $n --resume batch.local=14 lr.rule=linear || fail "step $step, $n processes: exit code $?"
        tells on-$n "batch.local 7 -> 14; lr.rule none -> linear; effective batch 28 -> 56; learning rate"
        [ $n = 1 ] || same_end on-1 on-$n
    done
    rest=$(((1438 - 364 + 55) / 56)) # left of epoch 3: 20 steps
    [ $step = 117 ] || rest=26
    is on-1 steps $((step + rest + 2 * 26))
    is on-1 samples $((5 * 1438))
    is on-1 epochs 5.0
done
[ "$(grep -c '"changed"' "$work/on-1/metrics.jsonl")" = 1 ] || fail "one line of metrics.jsonl should tell of the change"
grep -qF '{"step": 104, "samples": 2876, "epoch": 1, "changed": {"batch.local": [7, 14], "lr.rule": ["none", "linear"]}}' \
    "$work/on-1/metrics.jsonl" || fail "metrics.jsonl does not say what has changed"
grep -q '"epoch": 1, "epoch_samples": 1438' "$work/on-1/metrics.jsonl" || fail "the end of epoch 2 is not logged"
sed "s|$work/begun|$work/on-1|" "$work/begun/config.yaml" | cmp - "$work/on-1/config.1.yaml" || fail "the config before the change is not kept"
grep -q 'local: 14' "$work/on-1/config.yaml" || fail "the config is not that of the run"

# The changed run, cut off and going on: with the config file that it began with, with the overrides said once more, with
# its own config, and from before its first checkpoint.
copy begun on
cut on 117
train on 2 --resume batch.local=14 || fail "exit code $?"
copy on cut-off
for step in 156 182 117; do
    for how in file overrides own; do
        copy on cut-off
        cut cut-off $step
        case $how in
        file) train cut-off 4 --resume ;;
        overrides) train cut-off 1 --resume batch.local=14 ;;
        own)
            began_with=$config
            config=$work/cut-off/config.yaml
            train cut-off 2 --resume
            config=$began_with
            ;;
        esac || fail "$how, step $step: exit code $?"
        same_end on cut-off
        [ $step = 117 ] || ! grep -q 'changed settings' "$work/cut-off.err" || fail "nothing has changed at step $step"
        [ ! -e "$work/cut-off/config.2.yaml" ] || fail "a config is kept twice"
    done
done

# Once more another batch, in the same epoch, by other keys; and back to the first one.
copy on again
cut again 130
train again 2 --resume batch.local=auto batch.global=48 world=8 || fail "exit code $?"
tells again "from sample 3968 (epoch 3)"
tells again "world 4 -> 8; batch.local 14 -> not set; batch.global not set -> 48; effective batch 56 -> 48"
[ -e "$work/again/config.2.yaml" ] || fail "the second config is not kept"
copy again back
cut back 143
train back 1 --resume batch.local=7 batch.global=auto world=4 || fail "exit code $?"
is back samples $((5 * 1438))
copy back back-4
cut back-4 169
train back-4 4 --resume || fail "exit code $?"
same_end back back-4

# The values that the run has, said explicitly, are no change.
copy begun plain
cut plain 117
train plain 4 --resume world=4 batch.local=7 batch.global=28 epochs=5 lr.rule=none || code=$?
[ "${code:-0}" = 0 ] || fail "exit code $code"
tells plain "batch.global not set -> 28" # said now, and the same batch
cmp "$work/plain/model.safetensors" "$work/begun/model.safetensors" || fail "to say what was is a change"
copy begun plain
cut plain 117
train plain 4 --resume world=4 batch.local=7 epochs=5 lr.rule=none || fail "exit code $?"
same_end begun plain
! grep -q 'changed settings' "$work/plain.err" || fail "nothing has changed"
[ ! -e "$work/plain/config.1.yaml" ] || fail "nothing has changed, but a config is kept"

# Longer, shorter, other schedules, with every tail, and an optimizer whose averages the rule scales.
for tail in drop pad; do
    config 'kind: adam, lr: 0.005' $tail >"$config"
    train $tail 2 || fail "$tail: exit code $?"
    for n in 1 4; do
        copy $tail $tail-$n
        cut $tail-$n 117
        train $tail-$n $n --resume batch.local=10 batch.accumulate=2 lr.rule=adam-sqrt epochs=7 lr.schedule=step \
            lr.step_epochs=4 optimizer.weight_decay=0.001 lr.warmup=none || fail "$tail, $n processes: exit code $?"
        tells $tail-$n "epochs 5 -> 7; optimizer.weight_decay 0 -> 0.001; lr.rule none -> adam-sqrt"
    done
    same_end $tail-1 $tail-4
    is $tail-1 epochs 7.0
    copy $tail-1 $tail-4
    cut $tail-4 130
    train $tail-4 4 --resume || fail "$tail goes not on: exit code $?"
    same_end $tail-1 $tail-4
done

# A run that has ended goes on from its last checkpoint when more is asked for, and keeps the model that it had.
config 'kind: sgd, lr: 0.05, momentum: 0.9' exact >"$config"
copy begun longer
train longer 2 --resume || fail "exit code $?"
tells longer "is finished; there is nothing to go on with"
train longer 2 --resume epochs=6 || fail "exit code $?"
tells longer "after step 247, from sample 6844 (epoch 5): epochs 5 -> 6"
is longer steps $((6 * 52))
cmp "$work/begun/model.safetensors" "$work/longer/model.1.safetensors" || fail "the model of the shorter run is not kept"
train longer 2 --resume epochs=6 || fail "exit code $?"
tells longer "is finished; there is nothing to go on with"
train longer 1 --overwrite || fail "exit code $?"
[ ! -e "$work/longer/model.1.safetensors" ] && [ ! -e "$work/longer/config.1.yaml" ] || fail "what was there is still there"
same_end begun longer

# The rules and optimizers that measure gradients: the clock of a gain goes on, or gives way to that of samples.
for optimizer in 'kind: sgd, lr: 0.05, momentum: 0.9' 'kind: lars, lr: 0.5, momentum: 0.9' 'kind: lamb, lr: 0.01'; do
    config "$optimizer" exact >"$config"
    sed -i 's/rule: none/rule: adascale/; s/reference_batch: 28/reference_batch: 14/' "$config"
    case $optimizer in *sgd*) clip=clip.norm=1 ;; *) clip= ;; esac
    rm -rf "$work/gain"
    train gain 2 || fail "$optimizer: exit code $?"
    for rule in adascale linear; do
        for n in 1 4; do
            copy gain gain-$n
            cut gain-$n 65
            # shellcheck disable=SC2086 # perhaps nothing
            train gain-$n $n --resume batch.accumulate=2 lr.rule=$rule $clip || fail "$optimizer, $rule, $n: exit code $?"
            tells gain-$n "effective batch 28 -> 56"
        done
        same_end gain-1 gain-4
        copy gain-1 gain-4
        cut gain-4 91
        train gain-4 4 --resume || fail "$optimizer, $rule goes not on: exit code $?"
        same_end gain-1 gain-4
    done
    # by samples seen, the cosine is at its end; the clock of gains was behind, where more than a hundredth is left of it
    rate=$(sed -n 's/.*"lr": \([^,]*\),.*/\1/p' "$work/gain-1/metrics.jsonl" | tail -n 1)
    awk -v rate="$rate" -v scaled="$(member scaled_lr "$work/gain-1.json")" 'BEGIN { exit !(rate < 0.001 * scaled) }' ||
        fail "$optimizer: the last learning rate is $rate"
    is gain-1 samples $((5 * 1438))
done

# refused NAME TEXT ARGUMENTS ...: going on ends with exit code 2 and the message, and changes no file
refused() {
    name=$1
    text=$2
    shift 2
    find "$work/$name" -type f -exec cksum {} + | sort >"$work/before"
    code=0
    train "$name" 2 --resume "$@" || code=$?
    [ $code = 2 ] || fail "$*: exit code $code, not 2"
    tells "$name" "$text"
    find "$work/$name" -type f -exec cksum {} + | sort | cmp - "$work/before" || fail "$*: files have changed"
}
config 'kind: sgd, lr: 0.05, momentum: 0.9' exact >"$config"
copy begun stopped
cut stopped 117
refused stopped "data.tail is drop, the run has exact" data.tail=drop
refused stopped "optimizer.momentum is 0.5, the run has 0.9" optimizer.momentum=0.5
refused stopped "model.hidden is [24, 24], the run has [24]" model.hidden='[24, 24]' batch.local=14
refused stopped "global batch 30 is not local batch 7 x 4 workers x a whole number of accumulation steps; 28, 56 and 84 are" batch.global=30
tells stopped "hint: the run has world 4, batch.local 7; KEY=VALUE asks for another value, KEY=auto lets it follow from the others"
refused stopped "2 processes can't share 3 workers evenly" world=3
refused stopped "a run of 2 epochs would be over: it has taken 117 steps and seen 3240 samples, and goes on at position 364 of epoch 3" epochs=2
refused stopped "a run of 117 steps would be over" epochs=auto steps=117
refused stopped "epochs ($config:" steps=500
refused stopped "lr.schedule is step (the command line), which needs lr.step_epochs" lr.schedule=step
sed -i 's/local: 7/local: 16/' "$config"
refused stopped "batch.local is 16, the run has 7"
tells stopped "hint: batch.local=16 on the command line asks for the change"
