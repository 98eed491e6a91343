/* SPDX-License-Identifier: Apache-2.0 */
/* From the processes of a job to a group, over a wire between threads: all on one machine, and what goes
 * wrong. Groups over several machines are tested as the members of all comm tests. */
#include "check.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "comm/backend.h"
#include "comm/mpi/mpi_group.h"
#include "comm/thread_wire.h"

enum { MOST = 257 };

/* One process of the job, played by a thread. */
typedef struct process {
    pthread_t thread;
    lks__wire *wire;
    double timeout_s;
    lks_status status;
    char text[256];
    int rank, size, sum, wires; /* of the group: what its members have; wires: how many are closed with it */
} process;

static void note(process *p, lks_status status)
{
    p->status = status;
    snprintf(p->text, sizeof p->text, "%s", status != LKS_OK ? lks_error_message() : "");
}

static void *play(void *argument)
{
    process *p = argument;
    lks_group *group;
    lks_group_config config = {.backend = LKS_BACKEND_MPI, .timeout_s = p->timeout_s};
    lks_status status = lks__mpi_create_on(p->wire, &config, &group);
    if (status == LKS_OK) {
        int32_t sum = 1 << lks_group_rank(group);
        p->rank = lks_group_rank(group);
        p->size = lks_group_size(group);
        p->wires = group->wire != NULL;
        status = lks_group_all_reduce(group, &sum, 1, LKS_I32, LKS_SUM);
        p->sum = sum;
    }
    note(p, status);
    lks_group_destroy(group);
    return NULL;
}

/* Lets all play but `missing`, whose wires are closed in the end. */
static void run(int size, int machines, int missing, double timeout_s, process *processes)
{
    static const int one_machine[MOST];
    lks__wire *wires[MOST];
    thread_wires_create(size, machines == 1 ? one_machine : NULL, wires);
    thread_wires_delay(wires[0], 7, 3);
    memset(processes, 0, (size_t)size * sizeof *processes);
    for (int r = 0; r < size; r++) {
        processes[r].wire = wires[r];
        processes[r].timeout_s = timeout_s;
        if (r != missing)
            assert_int_equal(pthread_create(&processes[r].thread, NULL, play, &processes[r]), 0);
    }
    for (int r = 0; r < size; r++)
        if (r != missing)
            pthread_join(processes[r].thread, NULL);
    if (missing >= 0)
        wires[missing]->backend->close(wires[missing], true);
}

static void one_machine_is_a_group_over_shared_memory(void **state)
{
    (void)state;
    static const int sizes[] = {1, 2, 3, 8};
    for (int s = 0; s < 4; s++) {
        process p[8];
        run(sizes[s], 1, -1, 60, p);
        for (int r = 0; r < sizes[s]; r++) {
            if (p[r].status != LKS_OK)
                fail_msg("rank %d of %d: %s", r, sizes[s], p[r].text);
            CHECK_INT(p[r].rank, r);
            CHECK_INT(p[r].size, sizes[s]);
            CHECK_INT(p[r].sum, (1 << sizes[s]) - 1);
            CHECK_INT(p[r].wires, 1);
        }
    }
}

static void too_many_are_told_so(void **state)
{
    (void)state;
    static process p[MOST];
    run(MOST, 1, -1, 60, p);
    for (int r = 0; r < MOST; r++) {
        CHECK_INT(p[r].status, LKS_E_ARG);
        assert_string_equal(p[r].text, "the job has 257 processes; a group has at most 256");
    }
}

static void the_missing_one_is_named(void **state)
{
    (void)state;
    process p[3];
    run(3, 1, 1, 0.3, p);
    for (int r = 0; r < 3; r += 2) {
        CHECK_INT(p[r].status, LKS_E_TIMEOUT);
        assert_string_equal(p[r].text, "rank 0 waited 0.3 s for rank 1 in group_create");
    }
    run(3, 1, 0, 0.3, p);
    for (int r = 1; r < 3; r++) {
        CHECK_INT(p[r].status, LKS_E_TIMEOUT);
        assert_non_null(strstr(p[r].text, "for rank 0 in group_create"));
    }
}

static void a_setting_that_makes_no_sense_is_told_to_all(void **state)
{
    (void)state;
    process p[3];
    for (int machines = 1; machines <= 3; machines += 2) {
        setenv("LOCKSTEP_RANKS_PER_NODE", "0", 1);
        run(3, machines, -1, 60, p);
        unsetenv("LOCKSTEP_RANKS_PER_NODE");
        for (int r = 0; r < 3; r++) {
            CHECK_INT(p[r].status, LKS_E_ARG);
            assert_string_equal(p[r].text,
                                "LOCKSTEP_RANKS_PER_NODE is \"0\"; it must be a whole number above 0");
        }
    }
}

/* Where the machines' groups cannot be made, all are told by the second round. */
static void machines_without_a_meeting_place_are_told_to_all(void **state)
{
    (void)state;
    process p[4];
    char folder[] = "/tmp/test_mpi_create-XXXXXX", inner[64];
    assert_non_null(mkdtemp(folder));
    snprintf(inner, sizeof inner, "%s/lockstep", folder);
    CHECK_INT(mkdir(inner, 0755), 0); /* and not 0700 */
    setenv("XDG_RUNTIME_DIR", folder, 1);
    setenv("LOCKSTEP_RANKS_PER_NODE", "2", 1);
    run(4, 1, -1, 60, p);
    unsetenv("LOCKSTEP_RANKS_PER_NODE");
    unsetenv("XDG_RUNTIME_DIR");
    rmdir(inner);
    rmdir(folder);
    for (int r = 0; r < 4; r++) {
        CHECK_INT(p[r].status, LKS_E_ARG);
        assert_non_null(strstr(p[r].text, "must belong to this user and have mode 0700"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_machine_is_a_group_over_shared_memory),
        cmocka_unit_test(too_many_are_told_so),
        cmocka_unit_test(the_missing_one_is_named),
        cmocka_unit_test(a_setting_that_makes_no_sense_is_told_to_all),
        cmocka_unit_test(machines_without_a_meeting_place_are_told_to_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
