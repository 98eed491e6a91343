#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Random programs (tests/comm/test_comm_random.c) as jobs of each MPI that is here, with its processes taken for one
# machine and for several.
. "$(dirname "$0")/cli_test.sh"
OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 # tests may be run by root
OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM OMPI_MCA_rmaps_base_oversubscribe
[ -z "$LOCKSTEP_SANITIZE" ] || skip "MPI libraries and sanitizers do not go together"
LOCKSTEP_PLUGINS=$LOCKSTEP_BUILD
export LOCKSTEP_PLUGINS

tried=0
for mpi in openmpi mpich; do
    if ! command -v mpirun.$mpi >/dev/null || [ ! -f "$LOCKSTEP_BUILD/liblockstep_$mpi.so" ]; then continue; fi
    for layout in "4 4" "4 1" "5 2"; do
        export LOCKSTEP_RANKS_PER_NODE="${layout#* }"
        mpirun.$mpi -n "${layout% *}" "$LOCKSTEP_BUILD/tests/comm/test_comm_random" mpi 2 "$((tried + 1))" \
            >"$work/out" 2>"$work/random.err" || fail "$mpi, $layout: $?"
        tried=$((tried + 1))
    done
done
[ $tried -gt 0 ] || skip "there is neither mpirun.openmpi nor mpirun.mpich with its plug-in"
