/* SPDX-License-Identifier: Apache-2.0 */
/* What launchers set, as rows: the variables, and what comes of them. */
#define _GNU_SOURCE /* sched_setaffinity, memfd_create */

#include "check.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lockstep/group.h>

#include "base/machine.h"
#include "comm/shm/shm_member.h"

static const char *const names[] = {
    "RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "LOCKSTEP_GROUP_FD",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK",
    "PMI_SIZE",
    "PMI_RANK",
    "PMIX_RANK",
    "SLURM_STEP_NUM_TASKS",
    "LOCKSTEP_MPI",
};
enum {
    ADDRESS = 3,
    OMPI_SIZE = 6,
    OMPI_RANK,
    PMI_SIZE,
    PMI_RANK,
    PMIX_RANK,
    TASKS,
    MPI,
    N_NAMES = sizeof names / sizeof names[0]
};

typedef struct row {
    const char *values[N_NAMES]; /* in the order of the names; NULL: not set */
    const char *error;           /* part of the message; NULL: accepted */
    int rank, size, fd, port;
    lks_backend backend;
} row;

static const row rows[] = {
    {{NULL}, NULL, 0, 1, -1, 0},
    {{"0", "1"}, NULL, 0, 1, -1, 0},
    {{"1", "4", "4", "127.0.0.1", "29500"}, NULL, 1, 4, -1, 29500},
    {{"1", "4", NULL, "::1", "0"}, NULL, 1, 4, -1, 0},
    {{"3", "4", "4", "127.0.0.1", "29500", "17"}, NULL, 3, 4, 17, 29500},
    {{"3", "4", NULL, NULL, NULL, "17"}, NULL, 3, 4, 17, 0},
    {{"0"}, "WORLD_SIZE is not"},
    {{"0", "2"}, "MASTER_ADDR is not"},
    {{"0", "2", NULL, "h"}, "MASTER_PORT is not"},
    {{"0", "2", NULL, "h", "65536"}, "MASTER_PORT is \"65536\""},
    {{"0", "2", NULL, "h", "x"}, "MASTER_PORT is \"x\""},
    {{"2", "2", NULL, "h", "1"}, "RANK is \"2\"; it must be a whole number from 0 to 1"},
    {{"-1", "2", NULL, "h", "1"}, "RANK is \"-1\""},
    {{"", "2", NULL, "h", "1"}, "RANK is \"\""},
    {{"0", "0", NULL, "h", "1"}, "WORLD_SIZE is \"0\""},
    {{"0", "257", NULL, "h", "1"}, "WORLD_SIZE is \"257\"; it must be a whole number from 1 to 256"},
    {{"0", "two", NULL, "h", "1"}, "WORLD_SIZE is \"two\""},
    {{"0", "4", "2", "h", "1"}, "LOCAL_WORLD_SIZE is 2, but WORLD_SIZE is 4"},
    {{"0", "2", NULL, NULL, NULL, "none"}, "LOCKSTEP_GROUP_FD is \"none\""},
    {{[OMPI_SIZE] = "2", [OMPI_RANK] = "1"}, NULL, 1, 2, -1, 0, LKS_BACKEND_MPI},
    {{[OMPI_SIZE] = "1", [OMPI_RANK] = "0"}, NULL, 0, 1, -1, 0},
    {{[PMI_SIZE] = "3", [PMI_RANK] = "2"}, NULL, 2, 3, -1, 0, LKS_BACKEND_MPI},
    {{[PMIX_RANK] = "4", [TASKS] = "5"}, NULL, 4, 5, -1, 0, LKS_BACKEND_MPI},
    {{[PMI_SIZE] = "4", [PMI_RANK] = "3", [TASKS] = "4"}, NULL, 3, 4, -1, 0, LKS_BACKEND_MPI},
    {{"0", "1", [OMPI_SIZE] = "2"}, NULL, 0, 1, -1, 0}, /* RANK comes first */
    {{[TASKS] = "1"}, NULL, 0, 1, -1, 0},
    {{[TASKS] = "3"}, "one of 3 tasks that are not told of each other"},
    {{[OMPI_SIZE] = "0"}, "OMPI_COMM_WORLD_SIZE is \"0\"; it must be a whole number from 1 on"},
    {{[PMI_SIZE] = "2", [PMI_RANK] = "x"}, "PMI_RANK is \"x\""},
    {{[OMPI_SIZE] = "2", [MPI] = "lam"}, "LOCKSTEP_MPI is \"lam\"; openmpi and mpich are allowed"},
};

static void set_all(const row *r)
{
    for (int i = 0; i < N_NAMES; i++) {
        if (r->values[i] != NULL)
            setenv(names[i], r->values[i], 1);
        else
            unsetenv(names[i]);
    }
}

static void every_row(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const row *r = &rows[i];
        lks_group_config config = {.rank = 77};
        set_all(r);
        if (r->error != NULL) {
            CHECK_FAILS(lks_group_config_from_env(&config), LKS_E_ARG, r->error);
            CHECK_INT(config.rank, 77); /* outputs are written on success only */
            continue;
        }
        CHECK_OK(lks_group_config_from_env(&config));
        CHECK_INT(config.rank, r->rank);
        CHECK_INT(config.size, r->size);
        CHECK_INT(config.backend, r->backend);
        CHECK_INT(config.fd, r->fd);
        CHECK_INT(config.port, r->port);
        CHECK_NEAR(config.timeout_s, 300, 0);
        if (r->values[ADDRESS] != NULL)
            assert_string_equal(config.address, r->values[ADDRESS]);
    }
}

static bool first_member_has_core(int size)
{
    lks_group *members[LKS_GROUP_MAX_SIZE];
    CHECK_OK(lks_group_create_threads(size, 10, members));
    bool has_core = lks__shm_member_of(members[0])->has_core;
    for (int r = 0; r < size; r++)
        lks_group_destroy(members[r]);
    return has_core;
}

/* A pinned process may use one core, but so may each of the others. */
static void members_spin_where_each_has_a_core(void **state)
{
    (void)state;
    int cores = lks__usable_cores();
    unsetenv(LKS__PINNED_VARIABLE);
    if (cores >= LKS_GROUP_MAX_SIZE)
        skip();
    assert_false(first_member_has_core(cores + 1));
    if (cores > 1)
        assert_true(first_member_has_core(cores));
    setenv(LKS__PINNED_VARIABLE, "256", 1);
    assert_true(first_member_has_core(cores + 1));
    unsetenv(LKS__PINNED_VARIABLE);
}

/* A process of two that may use one core only: `cpu`. Ends with 0 when it waits as `spins` says. */
static _Noreturn void pinned_member(lks_group_config config, int cpu, bool spins)
{
    cpu_set_t one;
    lks_group *group;
    CPU_ZERO(&one);
    CPU_SET((size_t)cpu, &one);
    bool good = sched_setaffinity(0, sizeof one, &one) == 0 && lks_group_create(&config, &group) == LKS_OK &&
                lks__shm_member_of(group)->has_core == spins && lks_group_barrier(group) == LKS_OK;
    _exit(good ? 0 : 1);
}

static void check_pinned(const int cpus[2], bool spin)
{
    pid_t pids[2];
    lks_group_config config = {.size = 2, .timeout_s = 10, .fd = memfd_create("pinned", 0)};
    for (config.rank = 0; config.rank < 2; config.rank++) {
        fflush(NULL);
        pids[config.rank] = fork();
        if (pids[config.rank] == 0)
            pinned_member(config, cpus[config.rank], spin);
    }
    for (int r = 0; r < 2; r++) {
        int how;
        CHECK_INT(waitpid(pids[r], &how, 0), pids[r]);
        CHECK_INT(how, 0);
    }
    close(config.fd);
}

/* As mpirun does it, which says nothing of it to the processes. */
static void members_see_which_cores_the_others_have(void **state)
{
    (void)state;
    cpu_set_t all;
    int cpus[2], n = 0;
    CHECK_INT(sched_getaffinity(0, sizeof all, &all), 0);
    for (int cpu = 0; cpu < CPU_SETSIZE && n < 2; cpu++)
        if (CPU_ISSET((size_t)cpu, &all))
            cpus[n++] = cpu;
    check_pinned((const int[]){cpus[0], cpus[0]}, false);
    if (n == 2 && lks__usable_cores() > 1)
        check_pinned(cpus, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_row),
                                       cmocka_unit_test(members_see_which_cores_the_others_have),
                                       cmocka_unit_test(members_spin_where_each_has_a_core)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
