#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# MNIST: 98 % in five epochs on two processes, and sixteen workers on two processes come within half a percent of it.
. "$(dirname "$0")/cli_test.sh"

[ -z "${LOCKSTEP_SANITIZE:-}" ] || skip "built with -fsanitize=$LOCKSTEP_SANITIZE, which is too slow for MNIST"
scripts/get-data mnist 2>"$work/get-data.err" || skip "MNIST is not in data/mnist and can't be fetched"

# accuracy NAME SETTINGS ...: the test accuracy of a run on two processes
accuracy() {
    name=$1
    shift
    "$lockstep" train examples/mnist.yaml -n 2 --json --output "$work/$name" "$@" >"$work/$name.json" \
        2>"$work/$name.err" || fail "$name: exit code $?"
    member test_accuracy "$work/$name.json"
}

two=$(accuracy two)
sixteen=$(accuracy sixteen world=16)
echo "test accuracy: 2 workers $two, 16 workers $sixteen"
[ "$(member epochs "$work/two.json")" = 5.0 ] || fail "not five epochs"
awk -v two="$two" 'BEGIN { exit !(two >= 0.98) }' || fail "2 workers reach $two only"
awk -v two="$two" -v sixteen="$sixteen" 'BEGIN { exit !(sixteen >= two - 0.005) }' || fail "16 workers reach $sixteen only"
