#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# One run with dropout, accumulation and an uneven end of each epoch gives the same bytes on 1, 2, 4 and 8 processes, and
# when it is killed at a random step on 4 and goes on on 2: with every optimizer, with clipping, with adascale, under every
# rule, schedule and warm-up. Without arguments all rows of the table below are run, otherwise those that are named.
. "$(dirname "$0")/cli_test.sh"

# 8 workers with two passes of 3 samples each. 453 samples are 9 steps of 48 and one of 21, in which 5 of the 16 passes
# have two samples and 11 have one: a run has 60 steps. Two tensors have several blocks of 4,096 elements, which are shared
# out among processes.
cat >"$work/base.yaml" <<'END'
model: {kind: mlp, hidden: [150, 40], dropout: 0.2}
data: {kind: idx, path: data/digits, limit: 453, normalize: {mean: 0.0192, std: 0.0236}}
world: 8
batch: {local: 3, accumulate: 2}
epochs: 6
optimizer: {kind: sgd, lr: 0.05}
metrics: {every_steps: 1}
END

momentum='optimizer.momentum=0.9'
adam='optimizer.kind=adam optimizer.lr=0.003'
lars='optimizer.kind=lars optimizer.lr=2 optimizer.trust_coefficient=0.01 optimizer.weight_decay=0.001'
lamb='optimizer.kind=lamb optimizer.lr=0.01 optimizer.weight_decay=0.01'
rule='lr.reference_batch=16 lr.rule'
adascale="$rule=adascale"
short='data.limit=437' # the last step of an epoch has 5 samples: 11 passes have none

# NAME SETTINGS ...
cat >"$work/table" <<END
sgd
momentum $momentum
nesterov $momentum optimizer.nesterov=true
decay $momentum optimizer.weight_decay=0.01
decay-biases $momentum optimizer.weight_decay=0.01 optimizer.exclude_biases=false
adam $adam
adamw $adam optimizer.kind=adamw
lars $lars
lamb $lamb
lars-biases $lars optimizer.exclude_biases=false
lamb-biases $lamb optimizer.exclude_biases=false
clip-norm $momentum clip.norm=0.6
clip-value $momentum clip.value=0.02
clip-both $momentum clip.norm=0.6 clip.value=0.02
adam-clip $adam clip.norm=0.6 clip.value=0.02
lars-clip $lars clip.norm=0.6
lamb-clip $lamb clip.norm=0.6
adascale $adascale
adascale-momentum $adascale $momentum
adascale-clip $adascale clip.norm=0.6
adascale-cosine $adascale lr.schedule=cosine
adascale-step $adascale lr.schedule=step lr.step_epochs=2
short $momentum $short
short-lamb $lamb $short clip.norm=0.6
short-adascale $adascale $short
drop $momentum data.tail=drop
pad $momentum data.tail=pad
sum $momentum reduction=sum
step lr.schedule=step lr.step_epochs=2
multistep lr.schedule=multistep lr.milestones=[1,4]
cosine lr.schedule=cosine
linear lr.schedule=linear
polynomial lr.schedule=polynomial lr.power=2
exponential lr.schedule=exponential lr.gamma=0.7
rule-linear $rule=linear
rule-sqrt $rule=sqrt
rule-adam-sqrt $adam $rule=adam-sqrt
rule-legw $rule=legw lr.warmup_epochs=0.5
gradual $rule=linear lr.warmup_epochs=1.5
gradual-from-0 $rule=linear lr.warmup_epochs=1.5 lr.warmup_from=0
warmup-constant $rule=linear lr.warmup_epochs=1.5 lr.warmup=constant
warmup-none $rule=linear lr.warmup=none lr.schedule=cosine
END
rows=${*:-$(cut -d ' ' -f 1 "$work/table")}

# settings ROW
settings() {
    grep -q "^$1\( \|$\)" "$work/table" || fail "there is no row $1"
    sed -n "s/^$1\( \|$\)//p" "$work/table"
}

# start ROW NAME PROCESSES ARGUMENTS ...: becomes the run
start() {
    row=$1
    name=$2
    processes=$3
    shift 3
    # shellcheck disable=SC2046 # a list
    exec "$lockstep" train "$work/base.yaml" -n "$processes" --output "$work/$name" $(settings "$row") "$@" \
        >"$work/$name.out" 2>"$work/$name.err"
}

run() {
    (start "$@")
}

random() {
    od -An -N4 -tu4 /dev/urandom
}

# kill_at ROW STEP: kills the row's run on 4 processes soon after that step's checkpoint; false when it has ended before
kill_at() {
    rm -rf "$work/killed"
    file=$(printf '%s/killed/checkpoints/step-%08d.safetensors' "$work" "$2")
    start "$1" killed 4 checkpoint.every_steps=3 checkpoint.keep=100 &
    pid=$!
    until [ -e "$file" ]; do
        kill -0 $pid 2>/dev/null || break
        sleep 0.005
    done
    kill -KILL $pid 2>/dev/null || true
    wait $pid 2>/dev/null || true
    [ ! -e "$work/killed/model.safetensors" ]
}

# Its processes may hold the folder for a moment after the launcher is gone.
go_on() {
    until run "$1" killed 2 checkpoint.every_steps=3 --resume; do
        grep -q 'in use' "$work/killed.err" || fail "$1: a killed run does not go on"
        sleep 0.05
    done
}

# killed ROW: after a kill at a random step, and going on, the model is that of the undisturbed run
killed() {
    until kill_at "$1" $(($(random) % 17 * 3 + 3)); do true; done
    newest=$(find "$work/killed/checkpoints" -name 'step-*.safetensors' | sort | tail -n 1)
    go_on "$1"
    cmp "$work/$1-1/model.safetensors" "$work/killed/model.safetensors" ||
        fail "$1: killed after ${newest##*/} and resumed, another model"
}

# other ROW: what may not matter. More accumulation with fewer workers is the same run, but where repeats fill up the
# workers; looking at the gradient before updating, as clipping does, changes nothing by itself.
other() {
    settings='world=2 batch.accumulate=8 on_divergence=skip'
    [ "$1" != pad ] || settings='on_divergence=skip'
    # shellcheck disable=SC2086 # a list
    run "$1" other 2 $settings || fail "$1 with $settings: exit code $?"
    cmp "$work/$1-1/model.safetensors" "$work/other/model.safetensors" || fail "$1: another model with $settings"
}

# Gradients are clipped in most steps, and not in all.
clips() {
    sed -n 's/.*"grad_norm": \([^,}]*\).*/\1/p' "$work/clip-norm-1/metrics.jsonl" |
        awk '{ n++; above += $1 > 0.6 } END { exit !(n == 60 && above > 30 && above < 60) }'
}

for row in $rows; do
    for n in 1 2 4 8; do
        run "$row" "$row-$n" $n || fail "$row on $n processes: exit code $?"
        cmp "$work/$row-1/model.safetensors" "$work/$row-$n/model.safetensors" || fail "$row: 1 and $n processes differ"
    done
    killed "$row"
    other "$row"
    echo "$(cksum <"$work/$row-1/model.safetensors")  $row" >>"$work/sums"
    rm -r "$work/$row-2" "$work/$row-4" "$work/$row-8" "$work/other" "$work/killed"
done

# No row ignores its settings.
[ -z "$(cut -d ' ' -f 1,2 "$work/sums" | sort | uniq -d)" ] || fail "rows with the same model: $(sort "$work/sums" | uniq -D -w 10)"
case " $(echo $rows) " in *" clip-norm "*) clips || fail "clip-norm: not the steps that are meant are clipped" ;; esac
