#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What `lockstep train` says as a job of each MPI that is here: a config that one process cannot read ends the job, with
# one line; and a run that goes well leaves MPI nothing to complain of.
. "$(dirname "$0")/cli_test.sh"
OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 # tests may be run by root
OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM OMPI_MCA_rmaps_base_oversubscribe
[ -z "$LOCKSTEP_SANITIZE" ] || skip "MPI libraries and sanitizers do not go together"

# one_without PROGRAM: rank 1 is given a config that does not exist
cat >"$work/one_without" <<'EOF2'
#!/bin/sh
config=examples/digits.yaml
[ "${OMPI_COMM_WORLD_RANK:-$PMI_RANK}" != 1 ] || config=missing.yaml
exec "$1" train $config epochs=1 "output=$2"
EOF2
chmod +x "$work/one_without"

tried=0
for mpi in openmpi mpich; do
    if ! command -v mpirun.$mpi >/dev/null || [ ! -f "$LOCKSTEP_BUILD/liblockstep_$mpi.so" ]; then continue; fi
    for LOCKSTEP_RANKS_PER_NODE in 1 3; do
        export LOCKSTEP_RANKS_PER_NODE
        code=0
        timeout 60 mpirun.$mpi -n 3 "$work/one_without" "$lockstep" "$work/run" >"$work/out" 2>"$work/one.err" || code=$?
        [ $code = 2 ] || fail "$mpi: exit code $code, not 2"
        [ "$(grep '^lockstep:' "$work/one.err")" = \
            "lockstep: cannot read the config missing.yaml: No such file or directory" ] || fail "$mpi: other words"
        [ ! -e "$work/run" ] || fail "$mpi: a run directory was made"
    done
    for attempt in 1 2 3 4; do
        LOCKSTEP_RANKS_PER_NODE=$((attempt % 2 + 1)) timeout 60 mpirun.$mpi -n 4 "$lockstep" train examples/digits.yaml \
            epochs=1 lr.warmup_epochs=0 lr.rule=none --json --overwrite --output "$work/run" \
            >"$work/out" 2>"$work/run.err" || fail "$mpi: $?"
        ! grep -q WARN "$work/out" "$work/run.err" || fail "$mpi complains: $(grep -h WARN "$work/out" "$work/run.err")"
    done
    rm -rf "$work/run"
    tried=$((tried + 1))
done
[ $tried -gt 0 ] || skip "there is neither mpirun.openmpi nor mpirun.mpich with its plug-in"
