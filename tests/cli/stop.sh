#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A run that goes on for hours is stopped by a signal: it says so, leaves a checkpoint that another run can start from, and
# ends with 128 + the signal's number. Where there is no terminal, its progress is a line every few seconds.
. "$(dirname "$0")/cli_test.sh"

# start NAME PROCESSES [COMMAND ...]: a run in the background, behind that command; leaves $pid and $run, its folder
start() {
    run=$work/$1
    processes=$2
    shift 2
    # shellcheck disable=SC2086 # words, or none
    "$@" "$lockstep" train examples/digits.yaml -n "$processes" epochs=auto steps=1000000000 --output "$run" \
        ${settings:-} >"$run.out" 2>"$run.err" &
    pid=$!
}

is_training() {
    [ -s "$run/metrics.jsonl" ]
}

# A plain line every few seconds.
has_line() {
    grep -q '^step [0-9]*/1000000000  loss [0-9.]*  lr [0-9.e-]*  [0-9,]* samples/s$' "$run.err"
}

# stop WHEN SIGNAL CODE: once WHEN has come true, the signal ends the run with that exit code and a usable checkpoint
stop() {
    until "$1"; do sleep 0.05; done
    kill -"$2" $pid
    code=0
    wait $pid || code=$?
    [ $code = "$3" ] || fail "$run, SIG$2: exit code $code, not $3"

    steps=$(sed -n 's/^lockstep: stopped by a signal after \([0-9]*\) of 1000000000 steps$/\1/p' "$run.err")
    [ -n "$steps" ] || fail "$run does not say where it stopped"
    checkpoint=$run/checkpoints/step-$(printf %08d "$steps").safetensors
    [ "$run/checkpoints/$(ls "$run/checkpoints")" = "$checkpoint" ] || fail "no $checkpoint"
    grep -qF "$checkpoint" "$run.err" || fail "$run does not name the checkpoint"
    [ ! -e "$run/model.safetensors" ] || fail "$run has a model, though it was stopped"
    grep -q '^result after ' "$run.out" || fail "$run: no result"
    # shellcheck disable=SC2086
    "$lockstep" train examples/digits.yaml -n 2 epochs=1 --init "$checkpoint" --output "$run-on" ${settings:-} >"$run-on.out" \
        2>"$run-on.err" || fail "$checkpoint is no start for another run: exit code $?"
}

# Shells start background jobs with SIGINT ignored; env gives it back.
start two-term 2 env
stop has_line TERM 143
start two-int 2 env --default-signal=INT
stop is_training INT 130
start one-term 1 env
stop is_training TERM 143
start one-int 1 env --default-signal=INT
stop is_training INT 130

# A signal may come at any moment, also within a matrix product, whose stack is not the thread's: when the handler used it,
# half of such runs ended with a damaged heap.
settings='model.hidden=[1024,1024]'
for again in 1 2 3; do
    start products-$again 3 env
    stop is_training TERM 143
done
settings=

# When its time is over a run ends the same way, and well. Going on takes it from there.
for n in 1 2; do
    run=$work/time-$n
    before=0
    for on in "" --resume; do
        "$lockstep" train examples/digits.yaml -n $n epochs=auto steps=1000000000 --output "$run" --max-time 1s --json $on \
            >"$run.json" 2>"$run.err" || fail "a run whose time is over: exit code $?"
        steps=$(member steps "$run.json")
        [ "$(member stopped "$run.json")" = time ] || fail "$run was stopped by: $(member stopped "$run.json")"
        grep -q "^lockstep: stopped by --max-time after $steps of 1000000000 steps$" "$run.err" || fail "$run does not say so"
        grep -q "^hint: --resume goes on from $run/checkpoints/step-$(printf %08d "$steps")" "$run.err" || fail "no hint"
        [ ! -e "$run/model.safetensors" ] || fail "$run has a model, though it was stopped"
        [ "$steps" -gt $before ] || fail "$steps steps, after $before before"
        before=$steps
    done
done

# The time counts from when the user called, also in processes that were started, or started again, later: here by a clock
# that has gone on since the machine was started.
RANK=0 WORLD_SIZE=1 LOCKSTEP_STOP=gentle LOCKSTEP_STARTED_NS=1 "$lockstep" train examples/digits.yaml --output "$work/late" \
    epochs=auto steps=1000000000 --max-time 1s --json >"$work/late.json" 2>"$work/late.err" || fail "late: exit code $?"
[ "$(member steps "$work/late.json")" = 1 ] || fail "a run whose time was over has made $(member steps "$work/late.json") steps"

# A process that still waits for the others has nothing to end gently.
for signal in TERM INT; do
    env --default-signal=INT RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29517 LOCAL_WORLD_SIZE=2 \
        "$lockstep" train examples/digits.yaml --output "$work/alone" comm.timeout=20 >"$work/alone.out" 2>"$work/alone.err" &
    pid=$!
    sleep 0.5
    kill -$signal $pid
    code=0
    wait $pid || code=$?
    [ $code = 143 ] || [ $code = 130 ] || fail "SIG$signal while waiting for others: exit code $code"
    [ ! -e "$work/alone" ] || fail "a run directory was made"
done

# What is ignored stays ignored, as behind nohup.
for n in 1 2; do
    start nohup-$n $n env --ignore-signal=HUP
    until is_training; do sleep 0.05; done
    kill -HUP $pid
    kill -INT $pid
    stop is_training TERM 143
done

# Shared memory that is not allowed is told once: by the one that found out.
code=0
(ulimit -f 100 && "$lockstep" train examples/digits.yaml -n 4 --output "$work/none") 2>"$work/none.err" || code=$?
[ $code = 1 ] || fail "no shared memory: exit code $code, not 1"
[ "$(grep -c '^lockstep: rank [0-3] cannot join: .*ulimit -f' "$work/none.err")" = 1 ] || fail "not told once"
[ "$(wc -l <"$work/none.err")" = 1 ] || fail "more is told than that: $(cat "$work/none.err")"

# A file that may not grow any more is told once, and ends nobody by a signal. (The processes' shared memory needs 2.2 MB
# of what may be written.)
code=0
(ulimit -f 4600 && "$lockstep" train examples/digits.yaml -n 2 epochs=auto steps=1000000000 metrics.every_steps=1 \
    --output "$work/small" >/dev/null) 2>"$work/small.err" || code=$?
[ $code = 1 ] || fail "a file that may not grow: exit code $code, not 1"
[ "$(grep -c '^lockstep: ' "$work/small.err")" = 1 ] || fail "not told once: $(cat "$work/small.err")"
grep -q 'metrics.jsonl: File too large$' "$work/small.err" || fail "not told: $(cat "$work/small.err")"
