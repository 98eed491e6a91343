/* SPDX-License-Identifier: Apache-2.0 */
/* Random programs (comm_program.h): a few of them; with arguments any of them, for long runs.
 *
 *     test_comm_random PROGRAMS [FIRST_SEED]      that many, over all kinds of members
 *     mpirun -n 4 test_comm_random mpi PROGRAMS [FIRST_SEED]      the members are the processes of the job
 */
#define _DEFAULT_SOURCE /* setenv */

#include "check.h"

#include <pthread.h>
#include <stdlib.h>

#include "comm/comm_program.h"
#include "comm/machines.h"
#include "comm/members.h"
#include "comm/naive.h"

enum { MOST_MEMBERS = 6, STEPS = 40, MOST_BYTES = 700000 }; /* rows of up to three staging areas, all told */

static void *run(void *argument)
{
    member *self = argument;
    comm_program_run(self);
    lks_group_destroy(self->group);
    return NULL;
}

/* Threads on machines that the seed picks; wires that delay their messages in every other program. */
static void on_random_machines(uint64_t seed)
{
    int size = 2 + (int)(naive_hash(seed, 1, 0) % (MOST_MEMBERS - 1)), machine_of[MOST_MEMBERS],
        n_machines = 2;
    n_machines += (int)(naive_hash(seed, 2, 0) % 3);
    for (int r = 0; r < size; r++)
        machine_of[r] = (int)(naive_hash(seed, 3, (uint64_t)r) % (uint64_t)n_machines);
    machine_of[size - 1] = machine_of[0] + 1; /* there are two */
    lks_group *groups[MOST_MEMBERS];
    machines_create_delayed(size, machine_of, 60, seed % 2 * seed, groups);
    comm_program what = {.seed = seed, .n_steps = STEPS, .most_bytes = MOST_BYTES};
    char failures[MOST_MEMBERS][MEMBER_TEXT_BYTES] = {""};
    member members[MOST_MEMBERS];
    pthread_t threads[MOST_MEMBERS];
    for (int r = 0; r < size; r++) {
        members[r] = (member){groups[r], r, size, EACH_ALONE, &what, failures[r]};
        assert_int_equal(pthread_create(&threads[r], NULL, run, &members[r]), 0);
    }
    for (int r = 0; r < size; r++)
        pthread_join(threads[r], NULL);
    for (int r = 0; r < size; r++)
        if (failures[r][0] != '\0')
            fail_msg("seed %llu, rank %d of %d: %s", (unsigned long long)seed, r, size, failures[r]);
}

static void programs(uint64_t first, int n)
{
    for (uint64_t seed = first; seed < first + (uint64_t)n; seed++) {
        on_random_machines(seed);
        comm_program what = {.seed = seed, .n_steps = STEPS, .most_bytes = MOST_BYTES};
        int size = 1 + (int)(naive_hash(seed, 4, 0) % MOST_MEMBERS);
        members_run(seed % 2 == 0 ? AS_THREADS : AS_PROCESSES, size, comm_program_run, &what);
    }
}

static uint64_t first_seed = 1;
static int n_programs = 3;

static void random_programs_give_what_they_should(void **state)
{
    (void)state;
    programs(first_seed, n_programs);
}

/* As a member of the job that mpirun has started; a group for each program. */
static int run_in_job(void)
{
    char failure[MEMBER_TEXT_BYTES] = "";
    for (uint64_t seed = first_seed; seed < first_seed + (uint64_t)n_programs; seed++) {
        lks_group_config config = lks_group_config_default();
        lks_group *group = NULL;
        lks_status status = lks_group_config_from_env(&config);
        config.timeout_s = 60;
        if (status == LKS_OK)
            status = lks_group_create(&config, &group);
        if (status != LKS_OK) {
            fprintf(stderr, "create: %s: %s\n", lks_status_name(status), lks_error_message());
            return 1;
        }
        comm_program what = {.seed = seed, .n_steps = STEPS, .most_bytes = MOST_BYTES};
        member self = {group, lks_group_rank(group), lks_group_size(group), EACH_ALONE, &what, failure};
        comm_program_run(&self);
        lks_group_destroy(group);
        if (failure[0] != '\0') {
            fprintf(stderr, "seed %llu, rank %d of %d: %s\n", (unsigned long long)seed, self.rank, self.size,
                    failure);
            return 1;
        }
    }
    return 0;
}

int main(int n_arguments, char **arguments)
{
    bool job = n_arguments > 1 && strcmp(arguments[1], "mpi") == 0;
    arguments += job;
    n_arguments -= job;
    if (n_arguments > 1)
        n_programs = (int)strtol(arguments[1], NULL, 10);
    if (n_arguments > 2)
        first_seed = strtoull(arguments[2], NULL, 10);
    if (job)
        return run_in_job();
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_programs_give_what_they_should)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
