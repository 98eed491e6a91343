#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The classic story of a run that is fine on 4 workers and falls apart on 16, because gradients are added up and the
# rate is left alone; and its two ways out. Trains four configs on two processes, which play 4 and 16 workers.
# docs/experiments.md shows what came out.
name=chimera
usage='usage: examples/chimera/chimera.sh [--seeds LIST] [--output FOLDER] [key=value ...]
    --seeds LIST      each config once per seed (default: 0)
    --output FOLDER   where the runs go (default: runs/chimera)
    key=value         a setting for all four configs, as for lockstep train'
. "$(dirname "$0")/../experiment.sh"

seeds=0
output=runs/chimera
read_flags seeds "$@"
shift $n_flags

# first_accuracy RUN: on the test set after the first epoch
first_accuracy() {
    sed -n 's/.*"test_accuracy": \([0-9.]*\).*/\1/p' "$1/metrics.jsonl" | head -n 1
}

# percent NUMBER
percent() {
    awk -v number="$1" 'BEGIN { printf "%.2f %%\n", 100 * number }'
}

# row CONFIG SEED SETTING ...: trains it and prints its line of the table
row() {
    config=$1 seed=$2
    shift 2
    file=examples/chimera/$config.yaml
    "$lockstep" plan -n 2 --json -- "$file" "$@" >"$work/plan.json"
    loss=- first=- last=- what='finished'
    if train "$output/$config-seed-$seed" "$file" "$@" seed="$seed"; then
        loss=$(short "$(member train_loss "$run.json")")
        first=$(percent "$(first_accuracy "$run")")
        last=$(percent "$(member test_accuracy "$run.json")")
    else
        what="failed, exit code $code"
        { echo "$config, seed $seed:" && message "$run" && echo; } >>"$work/messages"
    fi
    printf '| %-17s | %4s | %5s | %5s | %5s | %7s | %10s | %7s | %8s | %-19s |\n' "$config" "$seed" \
        "$(member effective_batch "$work/plan.json")" "$(member total_steps "$work/plan.json")" \
        "$(short "$(member scaled_lr "$work/plan.json")")" "$(member warmup_steps "$work/plan.json")" "$loss" "$first" \
        "$last" "$what"
}

has_mnist "$@"
: >"$work/messages"
cat <<'TABLE'
Train loss of the last epoch; accuracy on the test set after the first epoch and at the end.

| config            | seed | batch | steps |  rate | warm-up | train loss | epoch 1 | accuracy | what happened       |
|-------------------|-----:|------:|------:|------:|--------:|-----------:|--------:|---------:|---------------------|
TABLE
for config in workers_4_sum workers_16_sum workers_16_mean workers_16_linear; do
    for seed in $seeds; do row $config "$seed" "$@"; done
done
if [ -s "$work/messages" ]; then
    echo
    echo 'What lockstep said:'
    echo
    sed '$d' "$work/messages"
fi
