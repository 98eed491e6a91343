# SPDX-License-Identifier: Apache-2.0
# What the tests under real MPIs share. Sourced, after cli_test.sh or with a function skip REASON of one's own.

# mpi_choose openmpi|mpich: sets $mpirun, to be followed by -n N PROGRAM; skips the test where that MPI is missing
mpi_choose() {
    case ${LOCKSTEP_SANITIZE:-} in
    *thread*) skip "the MPI libraries are not built for ThreadSanitizer, which takes what they synchronise for races" ;;
    esac
    [ -f "${LOCKSTEP_BUILD:-build}/liblockstep_$1.so" ] || skip "lockstep is built without a plug-in for $1"
    case $1 in
    openmpi)
        # more processes than cores, and as root, which a container's user is
        mpirun="mpirun.openmpi --oversubscribe"
        OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
        export OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM
        ;;
    mpich) mpirun=mpiexec.mpich ;;
    esac
    command -v "${mpirun%% *}" >/dev/null || skip "there is no ${mpirun%% *}"
    LOCKSTEP_PLUGINS=${LOCKSTEP_BUILD:-build}
    export LOCKSTEP_PLUGINS
    unset RANK LOCKSTEP_RANKS_PER_NODE 2>/dev/null || true
    # whole stacks, although these libraries have no frame pointers: the suppressions name who called
    ASAN_OPTIONS=detect_leaks=1:fast_unwind_on_malloc=0
    LSAN_OPTIONS=suppressions=$PWD/tests/lsan_mpi.supp:print_suppressions=0
    export ASAN_OPTIONS LSAN_OPTIONS
}
