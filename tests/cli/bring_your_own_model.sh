#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The example whose network is written by hand: the same training on any number of processes, and the serial program
# that is left when the added lines are taken out.
. "$(dirname "$0")/cli_test.sh"
example=${LOCKSTEP_BUILD:-$PWD/build}/examples/bring_your_own_model

for n in 1 2 3 4; do
    "$lockstep" run -n $n "$example" >"$work/$n" || fail "$n processes: exit code $?"
done

# One process divides by the number of samples where the serial program does, and adds in its order: the same bits.
sed '/\/\* + \*\/$/d' examples/bring_your_own_model.c >"$work/serial.c"
if grep lockstep/ "$work/serial.c" || grep lks_ "$work/serial.c"; then fail "lockstep in the serial program"; fi
"${CC:-cc}" -std=c11 -O2 -ffp-contract=off -o "$work/program" "$work/serial.c" -lm || fail "the serial program"
"$work/program" >"$work/serial"
diff "$work/serial" "$work/1" || fail "one process is not the serial program"

# More processes add the same numbers in another order: rounding, 2^-24 of a gradient, which 460 steps may let grow a
# thousandfold. A wrong mean (of means, or of sums without the division) is off by percents.
for n in 2 3 4; do
    cat "$work/serial" "$work/$n" | awk '
    function near(a, b, relative) { return a - b <= relative * b && b - a <= relative * b }
    { loss[NR] = $3; accuracy[NR] = $6; squares[NR] = $11 }
    END { exit !(NR == 2 && loss[1] > 0 && near(loss[2], loss[1], 1e-3) && near(squares[2], squares[1], 1e-4) &&
        near(accuracy[2], accuracy[1], 0.003) && accuracy[1] > 95) }' || {
        cat "$work/serial" "$work/$n"
        fail "$n processes: not the training of one"
    }
done

# A file that is not there: every process says so, exit code 2.
code=0
"$lockstep" run -n 2 "$example" no/such/folder 2>"$work/err" || code=$?
[ $code -eq 2 ] || fail "a missing folder: exit code $code"
grep -q 'cannot read no/such/folder/train-images-idx3-ubyte' "$work/err" || fail "the missing folder is not named"
