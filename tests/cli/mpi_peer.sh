#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# bench/peers/mpi_peer.c, the MPI side of bench/vs_peers: with each MPI that is here it compiles, and measures every
# operation with no element wrong.
. "$(dirname "$0")/cli_test.sh"
OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 # tests may be run by root
export OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM
library=$LOCKSTEP_BUILD/src/liblockstep.a
[ -f "$library" ] || skip "$library is not built"
[ -z "$LOCKSTEP_SANITIZE" ] || skip "MPI libraries and sanitizers do not go together"

sources=bench/peers/mpi_peer.c
for part in values figures config output; do sources="$sources src/bench/bench_$part.c"; done
tried=0
for mpi in openmpi mpich; do
    if ! command -v mpicc.$mpi >/dev/null || ! command -v mpirun.$mpi >/dev/null; then continue; fi
    # shellcheck disable=SC2086 # a list of files
    mpicc.$mpi -std=c11 -O1 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Wno-missing-field-initializers -Iinclude -Isrc \
        $sources "$library" -ljansson -lpthread -lm -o "$work/peer" 2>"$work/compiler.err" || fail "mpicc.$mpi: $?"
    for operation in barrier all_reduce broadcast reduce all_gather reduce_scatter gather scatter all_to_all send_recv; do
        sizes="4 64K 256"
        [ $operation != barrier ] || sizes="- - 256"
        mpirun.$mpi -n 2 "$work/peer" $operation $sizes >"$work/out" 2>"$work/peer.err" || fail "$mpi $operation: $?"
        [ "$(member wrong_elements "$work/out")" = 0 ] || fail "$mpi $operation: wrong elements"
    done
    tried=$((tried + 1))
done
[ $tried -gt 0 ] || skip "there is neither mpicc.openmpi nor mpicc.mpich"
