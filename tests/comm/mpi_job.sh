#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A test program as the processes of a real MPI job: as one machine, as two, and each process on a machine of its own.
# Usage: mpi_job.sh openmpi|mpich PROGRAM SIZE ...
set -eu

skip() {
    echo "mpi_job: skipped: $*"
    exit 77
}

. "$(dirname "$0")/../mpi_launch.sh"
mpi_choose "$1"
program=$2
shift 2
output=$(mktemp)
trap 'rm -f "$output"' EXIT

# run SIZE RANKS_PER_MACHINE
run() {
    LOCKSTEP_RANKS_PER_NODE=$2
    export LOCKSTEP_RANKS_PER_NODE
    code=0
    # shellcheck disable=SC2086 # words
    $mpirun -n "$1" "$program" >"$output" 2>&1 || code=$?
    if [ $code != 0 ]; then
        tail -n 100 "$output"
        echo "mpi_job: $program: exit code $code on $1 processes, $2 on each machine"
        exit 1
    fi
    # a program that took itself for one that runs alone has tested nothing of this
    [ "$(grep -c 'as processes of an MPI job' "$output")" = "$1" ] || { echo "mpi_job: no MPI job"; exit 1; }
}

for size in "$@"; do
    run "$size" "$size"
    if [ "$size" -gt 2 ]; then run "$size" $(((size + 1) / 2)); fi
    run "$size" 1
done
