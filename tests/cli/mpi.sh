#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# lockstep started by a real MPI's launcher, on this machine and on what it is told to take for several: the bytes are those
# of the processes that lockstep starts itself; what is refused, a signal, a death and a process that hangs. Usage: mpi.sh openmpi|mpich
. "$(dirname "$0")/cli_test.sh"
. "$(dirname "$0")/../mpi_launch.sh"
mpi_choose "$1"
digits="train examples/digits.yaml --json"

# shm NAME PROCESSES ARGUMENTS ...: lockstep starts the processes
shm() {
    name=$1 n=$2
    shift 2
    "$lockstep" "$@" -n "$n" --output "$work/$name" >"$work/$name.json" 2>"$work/$name.err" ||
        fail "$name: exit code $?"
}

# mpi NAME PROCESSES ARGUMENTS ...: the MPI's launcher does
mpi() {
    name=$1 n=$2
    shift 2
    # shellcheck disable=SC2086 # words
    $mpirun -n "$n" "$lockstep" "$@" --output "$work/$name" >"$work/$name.json" 2>"$work/$name.err" ||
        fail "$name: exit code $?"
}

# same_run ONE OTHER: both have come to the same numbers and to the same file
same_run() {
    for key in steps processes same_bits parameters_hash train_loss test_loss; do
        same $key "$work/$1.json" "$work/$2.json"
    done
    cmp "$work/$1/model.safetensors" "$work/$2/model.safetensors" || fail "$1 and $2 have written different models"
}

# shellcheck disable=SC2086 # words
for n in 2 4; do
    shm shm-$n $n $digits world=8 epochs=2
    for each in $n 1; do
        LOCKSTEP_RANKS_PER_NODE=$each mpi mpi-$n-$each $n $digits world=8 epochs=2
        same_run shm-$n mpi-$n-$each
    done
done
LOCKSTEP_RANKS_PER_NODE=3 mpi mpi-uneven 4 $digits world=8 epochs=2 # three processes and one
same_run shm-4 mpi-uneven
# sums as the MPI library takes them: of two numbers there is one order only
LOCKSTEP_RANKS_PER_NODE=1 mpi mpi-fast 2 $digits world=2 epochs=2 comm.fast=true
shm shm-fast 2 $digits world=2 epochs=2
same parameters_hash "$work/shm-fast.json" "$work/mpi-fast.json"
[ "$(member same_bits "$work/mpi-fast.json")" = false ] || fail "comm.fast: the plan promises the same bits"

if [ -z "${LOCKSTEP_SANITIZE:-}" ] && scripts/get-data mnist 2>"$work/get-data.err"; then
    mnist="train examples/mnist.yaml --json epochs=auto steps=60"
    # shellcheck disable=SC2086
    shm shm-mnist 2 $mnist
    # shellcheck disable=SC2086
    mpi mpi-mnist 2 $mnist
    same_run shm-mnist mpi-mnist
    # shellcheck disable=SC2086
    LOCKSTEP_RANKS_PER_NODE=1 mpi mpi-mnist-1 2 $mnist
    same_run shm-mnist mpi-mnist-1
else
    echo "without MNIST, which is not there or too slow under sanitizers"
fi

# A run that was stopped under one launcher goes on under another.
long="$digits world=8 epochs=auto steps=1000"
# shellcheck disable=SC2086
shm whole 2 $long
# shellcheck disable=SC2086
"$lockstep" $long -n 2 --output "$work/cut" >"$work/cut.out" 2>"$work/cut.err" &
pid=$!
until [ -s "$work/cut/metrics.jsonl" ]; do sleep 0.05; done
kill -TERM $pid
wait $pid || true
grep -q 'stopped by a signal' "$work/cut.err" || fail "cut: not stopped"
# shellcheck disable=SC2086
$mpirun -n 2 "$lockstep" $long --resume --output "$work/cut" >"$work/cut.json" 2>"$work/cut.err" ||
    fail "going on: exit code $?"
same parameters_hash "$work/whole.json" "$work/cut.json"

# refused CODE TEXT ARGUMENTS ...: both processes end so, and say why
refused() {
    code=0 wanted=$1 text=$2
    shift 2
    # shellcheck disable=SC2086
    $mpirun -n 2 "$lockstep" "$@" >"$work/refused.out" 2>"$work/refused.err" || code=$?
    [ $code = "$wanted" ] || fail "$*: exit code $code, not $wanted"
    grep -q "^lockstep: $text" "$work/refused.err" || fail "$*: not said: $text"
}
refused 2 "train: this is a process of an MPI job, so a launcher has started this process, and -n 2" \
    train examples/digits.yaml -n 2
refused 2 "no step would be taken" train examples/digits.yaml data.tail=drop batch.local=1000 --output "$work/none"
[ ! -e "$work/none" ] || fail "a run that is refused has written something"
if [ "$1" = openmpi ]; then other=mpich; else other=openmpi; fi
# not with sanitizers, which look for what a library leaves that has been started by the wrong launcher
if [ -z "${LOCKSTEP_SANITIZE:-}" ] && [ -f "$LOCKSTEP_PLUGINS/liblockstep_$other.so" ]; then
    LOCKSTEP_MPI=$other
    export LOCKSTEP_MPI
    refused 2 "the launcher has started 2 processes (.*), of which .* sees 1" train examples/digits.yaml
    unset LOCKSTEP_MPI
fi

# start NAME: a run without end, in the background; leaves $pid, the launcher's, and $run. Its epochs take a moment: while
# Open MPI's launcher waits for the processes to end it takes none of what they print.
start() {
    run=$work/$1
    # shellcheck disable=SC2086
    env --default-signal=INT $mpirun -n 3 "$lockstep" train examples/digits.yaml epochs=auto steps=1000000000 \
        model.hidden='[1024, 1024]' comm.timeout=3 --output "$run" >"$run.out" 2>"$run.err" &
    pid=$!
    until [ -s "$run/metrics.jsonl" ]; do sleep 0.05; done
}

# processes: the members of the run that was started last
processes() {
    pgrep -f "^$lockstep train .*$run" || true
}

# ended: the launcher has ended, with what exit code is up to it, and so have all members, within a second
ended() {
    if wait $pid; then fail "$run: the launcher says that all is well"; fi
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        if [ -z "$(processes)" ]; then return; fi
        sleep 0.1
    done
    fail "$run: left behind: $(processes)"
}

# Open MPI's launcher: so many seconds until SIGTERM, and again until SIGKILL; 1 is too short for a busy machine
OMPI_MCA_odls_base_sigkill_timeout=2
export OMPI_MCA_odls_base_sigkill_timeout
for signal in INT TERM; do
    start stopped-$signal
    kill -$signal $pid
    ended
    grep -q '^lockstep: stopped by a signal after' "$run.err" || fail "$run: not stopped"
    [ -n "$(ls "$run/checkpoints")" ] || fail "$run: no checkpoint"
done

start killed
victim=$(processes | tail -n 1)
kill -KILL "$victim"
ended

# The launcher sees nothing; the deadline does, and names the one that does not come.
start hung
victim=$(processes | tail -n 1)
kill -STOP "$victim"
ended
grep -q "waited 3 s in .* for rank . (process $victim), which is stopped" "$run.err" || fail "$run: not named"
