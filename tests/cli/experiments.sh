#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The experiments of examples/ in a tiny form: their configs give the plans that they are there to show, their scripts
# run on the digits and print every row, and a run that fails is told, not averaged.
. "$(dirname "$0")/cli_test.sh"
export LOCKSTEP_BINARY="$lockstep"

digits='data.kind=idx data.path=data/digits data.normalize.mean=0.0192 data.normalize.std=0.0236'

# experiment NAME SETTINGS ...: runs its script; the table is in $work/NAME.out
experiment() {
    name=$1
    shift
    # shellcheck disable=SC2086 # a list
    "examples/$name/$name.sh" --output "$work/$name" "$@" $digits model.hidden=[16] >"$work/$name.out" \
        2>"$work/$name.err" || fail "$name.sh: exit code $?"
}

# column NUMBER FILE: of the table's rows, without blanks around and with one between
column() {
    awk -F '|' -v column="$1" '/^\| / && ++line > 1 { gsub(/^ +| +$/, "", $(column + 1)); print $(column + 1) }' "$2" |
        paste -s -d ,
}

# expect COLUMN FILE TEXT
expect() {
    found=$(column "$1" "$2")
    [ "$found" = "$3" ] || fail "column $1 of $2 is $found, not $3"
}

# plan CONFIG KEY VALUE: the config's plan says so, on whatever data
plan() {
    "$lockstep" plan "examples/$1.yaml" -n 2 --json data.path=data/digits data.kind=idx data.limit=1000 \
        >"$work/plan.json" 2>"$work/plan.err" || fail "plan $1: exit code $?"
    [ "$(member "$2" "$work/plan.json")" = "$3" ] ||
        fail "$1: $2 is $(member "$2" "$work/plan.json"), not $3"
}
plan goyal/goyal effective_batch 64
plan chimera/workers_4_sum effective_batch 128
plan chimera/workers_4_sum scaled_lr 0.04
plan chimera/workers_16_sum effective_batch 512
plan chimera/workers_16_sum reduction sum
plan chimera/workers_16_mean scaled_lr 0.04
plan chimera/workers_16_mean reduction mean
plan chimera/workers_16_linear scaled_lr 0.64

# 1,438 samples: 23 steps of 64, 3 of 512; warm-up of one epoch
experiment goyal --seeds '0 1' --kappas 8 epochs=2
expect 1 "$work/goyal.out" "reference,x 8, rate not scaled,x 8, sqrt,x 8, linear, no warm-up,x 8, linear, constant \
warm-up,x 8, linear, gradual warm-up,x 8, adascale"
expect 2 "$work/goyal.out" 64,512,512,512,512,512,512
column 4 "$work/goyal.out" | grep -q '^46,6,6,6,6,6,[0-9]*$' || fail "steps: $(column 4 "$work/goyal.out")"
expect 5 "$work/goyal.out" '0.02,0.02,0.05657,0.16,0.16,0.16,x gain'
expect 6 "$work/goyal.out" 0,0,3,0,3,3,0
column 7 "$work/goyal.out" | grep -qE '^([0-9]+\.[0-9][0-9] \+- [0-9]+\.[0-9][0-9],?){7}$' ||
    fail "errors: $(column 7 "$work/goyal.out")"

# The printed mean is that of the runs.
awk -v a="$(member test_accuracy "$work/goyal/reference-seed-0.json")" \
    -v b="$(member test_accuracy "$work/goyal/reference-seed-1.json")" \
    -v printed="$(column 7 "$work/goyal.out" | sed 's/ .*//')" \
    'BEGIN { d = 100 - 50 * (a + b) - printed; exit !(d < 0.011 && d > -0.011) }' || # two roundings to 0.01
    fail "the reference's mean error is $(column 7 "$work/goyal.out" | sed 's/ .*//')"

# Any run fails at this rate, on 4 workers as on 16: the script goes on, and shows what lockstep says.
experiment chimera optimizer.lr=1e30
expect 1 "$work/chimera.out" workers_4_sum,workers_16_sum,workers_16_mean,workers_16_linear
expect 10 "$work/chimera.out" "failed, exit code 1,failed, exit code 1,failed, exit code 1,failed, exit code 1"
[ "$(grep -c 'is not finite' "$work/chimera.out")" = 4 ] || fail "the messages are not shown"
grep -q 'likely cause   gradients are summed over the 16 leaves' "$work/chimera.out" || fail "the sum is not blamed"

experiment chimera epochs=2 optimizer.lr=0.001
expect 10 "$work/chimera.out" finished,finished,finished,finished

# A mistake ends the experiment with lockstep's own message and exit code.
code=0
examples/chimera/chimera.sh --output "$work/mistake" data.path="$work/nothing" >"$work/mistake.out" \
    2>"$work/mistake.err" || code=$?
[ $code = 2 ] || fail "a wrong path: exit code $code"
grep -q "^lockstep: .*$work/nothing" "$work/mistake.err" || fail "a wrong path is not told"
code=0
examples/goyal/goyal.sh --seeds x 2>"$work/usage.err" || code=$?
[ $code = 2 ] || fail "--seeds x: exit code $code"
