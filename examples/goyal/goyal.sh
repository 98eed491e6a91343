#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The shape of tables 1 and 2 of Goyal et al. 2017 (Accurate, Large Minibatch SGD, arXiv 1706.02677) on MNIST: what the
# learning rate must do when the batch grows. Trains all rows for all seeds on two processes, which play as many workers
# as a row has, and prints the test errors beside the published ones. docs/experiments.md shows what came out.
name=goyal
usage='usage: examples/goyal/goyal.sh [--seeds LIST] [--kappas LIST] [--output FOLDER] [key=value ...]
    --seeds LIST      one run of each row per seed (default: "0 1 2")
    --kappas LIST     large batches, as multiples of the reference batch of 64 (default: "8 16")
    --output FOLDER   where the runs go (default: runs/goyal)
    key=value         a setting for all rows, as for lockstep train'
. "$(dirname "$0")/../experiment.sh"

seeds='0 1 2'
kappas='8 16'
output=runs/goyal
read_flags 'seeds kappas' "$@"
shift $n_flags

# line LABEL ERROR PUBLISHED: of the table; the plan of the row is in $work/plan.json
line() {
    steps=$(member total_steps "$work/plan.json")
    epochs=$(member total_epochs "$work/plan.json")
    rate=$(short "$(member scaled_lr "$work/plan.json")")
    if [ "$(member lr_rule "$work/plan.json")" = adascale ]; then # measured while training
        steps=$(mean %.0f <"$work/steps")
        epochs=$(mean %.1f <"$work/epochs")
        rate="x gain"
    fi
    printf '| %-34s | %5s | %6s | %5s | %7s | %7s | %-22s | %-13s |\n' "$1" \
        "$(member effective_batch "$work/plan.json")" "$(short "$epochs")" "$steps" "$rate" \
        "$(member warmup_steps "$work/plan.json")" "$2" "$3"
}

# row LABEL PUBLISHED FOLDER SETTING ...: trains it for all seeds and prints its line
row() {
    label=$1 published=$2 folder=$3
    shift 3
    "$lockstep" plan -n 2 --json -- examples/goyal/goyal.yaml "$@" >"$work/plan.json"
    failed=0
    : >"$work/errors" >"$work/steps" >"$work/epochs"
    for seed in $seeds; do
        if train "$output/$folder-seed-$seed" examples/goyal/goyal.yaml "$@" seed="$seed"; then
            member test_accuracy "$run.json" | awk '{ printf "%.2f\n", 100 * (1 - $1) }' >>"$work/errors"
            member steps "$run.json" >>"$work/steps"
            member epochs "$run.json" >>"$work/epochs"
            say "$run: test error $(tail -n 1 "$work/errors") %"
        else
            failed=$((failed + 1))
            say "$run: failed"
            message "$run" >&2
        fi
    done
    result=$(mean_and_deviation <"$work/errors")
    [ $failed = 0 ] || result="$result, $failed failed"
    line "$label" "$result" "$published"
}

# large KAPPA SETTING ...: the rows of a batch that is so many times as large
large() {
    kappa=$1 world=world=$((2 * $1))
    shift
    row "x $kappa, rate not scaled" '41.67 +- 0.10' "x$kappa-none" "$world" "$@"
    row "x $kappa, sqrt" '26.22 +- 0.03' "x$kappa-sqrt" "$world" lr.rule=sqrt "$@"
    row "x $kappa, linear, no warm-up" '24.84 +- 0.37' "x$kappa-no-warmup" "$world" lr.rule=linear lr.warmup=none \
        lr.warmup_epochs=auto "$@"
    row "x $kappa, linear, constant warm-up" '25.88 +- 0.56' "x$kappa-constant" "$world" lr.rule=linear \
        lr.warmup=constant "$@"
    row "x $kappa, linear, gradual warm-up" '23.74 +- 0.09' "x$kappa-gradual" "$world" lr.rule=linear "$@"
    row "x $kappa, adascale" '' "x$kappa-adascale" "$world" lr.rule=adascale lr.warmup=none lr.warmup_epochs=auto "$@"
}

has_mnist "$@"
cat <<'TABLE'
Test error in %, mean +- standard deviation over the seeds. Published: Goyal et al. 2017, tables 1 and 2: ResNet-50 on
ImageNet, reference batch 256, large batch 8,192 (x 32), 90 epochs, the first 5 of them warm-up.

| batch, rule, warm-up               | batch | epochs | steps |    rate | warm-up | error                  | published     |
|------------------------------------|------:|-------:|------:|--------:|--------:|------------------------|---------------|
TABLE
row reference '23.60 +- 0.12' reference "$@"
for times in $kappas; do large "$times" "$@"; done
