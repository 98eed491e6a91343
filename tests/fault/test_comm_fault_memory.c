/* SPDX-License-Identifier: Apache-2.0 */
/* Allocations that fail, and a machine without enough memory: the right status on all members, no leak. */
#define _GNU_SOURCE /* memfd_create, MAP_ANONYMOUS */

#include "check.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lockstep/group.h>

#include "base/alloc.h"
#include "base/error.h"

enum { SIZE = 3, ALARM_S = 60, TEXT_BYTES = 512 };

static int64_t held_bytes(void)
{
    return lks__alloc_bytes(LKS__MEM_COMM) + lks__alloc_bytes(LKS__MEM_MISC);
}

static void creating_threads_fails_clean(void **state)
{
    (void)state;
    lks_group *members[SIZE];
    int64_t before = held_bytes(), n = 0;
    lks_status status;
    do {
        lks__alloc_fail_nth(++n);
        status = lks_group_create_threads(SIZE, 1, members);
        if (status != LKS_OK) {
            CHECK_INT(status, LKS_E_NOMEM);
            for (int r = 0; r < SIZE; r++)
                assert_null(members[r]);
            CHECK_INT(held_bytes(), before);
        }
    } while (status != LKS_OK);
    lks__alloc_fail_nth(0);
    assert_true(n > SIZE); /* each member needs at least one */
    for (int r = 0; r < SIZE; r++)
        lks_group_destroy(members[r]);
    CHECK_INT(held_bytes(), before);
}

static void *create_memory(void *group)
{
    lks_group_memory *memory;
    lks_status status = lks_group_memory_create(group, 5000, &memory);
    lks_group_memory_destroy(memory);
    return (void *)(intptr_t)status;
}

/* Whichever member's allocation fails, all are told, and the next attempt works. */
static void creating_memory_fails_on_all(void **state)
{
    (void)state;
    lks_group *members[SIZE];
    CHECK_OK(lks_group_create_threads(SIZE, 30, members));
    int64_t before = held_bytes(), n = 0;
    int failed;
    do {
        pthread_t threads[SIZE];
        failed = 0;
        lks__alloc_fail_nth(++n);
        for (int r = 0; r < SIZE; r++)
            assert_int_equal(pthread_create(&threads[r], NULL, create_memory, members[r]), 0);
        for (int r = 0; r < SIZE; r++) {
            void *status;
            pthread_join(threads[r], &status);
            assert_true((intptr_t)status == LKS_OK || (intptr_t)status == LKS_E_NOMEM);
            failed += (intptr_t)status == LKS_E_NOMEM;
        }
        assert_true(failed == 0 || failed == SIZE);
        CHECK_INT(held_bytes(), before);
    } while (failed > 0);
    lks__alloc_fail_nth(0);
    assert_true(n > SIZE);
    for (int r = 0; r < SIZE; r++)
        lks_group_destroy(members[r]);
}

typedef struct outcome {
    lks_status status;
    char text[TEXT_BYTES];
} outcome;

typedef lks_status process_fn(int rank, int argument, lks_group_config *config);

/* Two processes run the function; their statuses and messages go to outcomes (shared memory). */
static void run_two(process_fn *body, int argument, outcome outcomes[2])
{
    pid_t pids[2];
    lks_group_config config = {.size = 2, .timeout_s = 20, .fd = memfd_create("test", 0)};
    for (int r = 0; r < 2; r++) {
        fflush(NULL);
        pids[r] = fork();
        assert_true(pids[r] >= 0);
        if (pids[r] != 0)
            continue;
        alarm(ALARM_S);
        config.rank = r;
        outcomes[r].status = body(r, argument, &config);
        snprintf(outcomes[r].text, TEXT_BYTES, "%s", lks_error_message());
        _exit(0);
    }
    for (int r = 0; r < 2; r++) {
        int how = -1;
        assert_int_equal(waitpid(pids[r], &how, 0), pids[r]);
        CHECK_INT(how, 0);
    }
    close(config.fd);
}

/* Rank 1 fails at its nth allocation. Rank 0 gets to know when rank 1 had joined, else it has to wait. */
static lks_status join_without_memory(int rank, int n, lks_group_config *config)
{
    lks_group *group;
    config->timeout_s = rank == 0 ? 0.5 : 20;
    lks__alloc_fail_nth(rank == 1 ? n : 0);
    lks_status status = lks_group_create(config, &group);
    if (status != LKS_OK && held_bytes() != 0)
        status = LKS_E_INTERNAL; /* a leak */
    lks_group_destroy(group);
    return status;
}

static void joining_fails_clean(void **state)
{
    outcome *outcomes = *state;
    int n = 0;
    do {
        run_two(join_without_memory, ++n, outcomes);
        lks_status expected = outcomes[1].status == LKS_OK ? LKS_OK : LKS_E_NOMEM;
        CHECK_INT(outcomes[1].status, expected);
        if (expected != LKS_OK && outcomes[0].status != LKS_E_PEER && outcomes[0].status != LKS_E_TIMEOUT)
            fail_msg("rank 0: %s %s", lks_status_name(outcomes[0].status), outcomes[0].text);
    } while (outcomes[1].status != LKS_OK);
    assert_true(n > 3); /* segment, member, mapping at least */
    CHECK_INT(outcomes[0].status, LKS_OK);
}

/* A member counts the region that it has reserved, until it gives it back. */
static lks_status count_region(int rank, int bytes, lks_group_config *config)
{
    lks_group *group;
    lks_group_memory *memory = NULL;
    config->rank = rank;
    lks_status status = lks_group_create(config, &group);
    int64_t before = held_bytes();
    if (status == LKS_OK)
        status = lks_group_memory_create(group, (size_t)bytes, &memory);
    int64_t held = held_bytes() - before;
    lks_group_memory_destroy(memory);
    if (status == LKS_OK && (held < bytes || held > bytes + 3 * 4096 || held_bytes() != before))
        status = lks__fail(LKS_E_INTERNAL, "%lld bytes are counted, then %lld", (long long)held,
                           (long long)(held_bytes() - before));
    lks_group_destroy(group);
    return status;
}

static void group_memory_is_counted(void **state)
{
    outcome *outcomes = *state;
    lks_group_config alone = lks_group_config_default();
    CHECK_OK(count_region(0, 1 << 20, &alone));
    run_two(count_region, 1 << 20, outcomes);
    for (int r = 0; r < 2; r++)
        if (outcomes[r].status != LKS_OK)
            fail_msg("rank %d: %s", r, outcomes[r].text);
}

static void limit_file_size(rlim_t bytes)
{
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){.rlim_cur = bytes, .rlim_max = RLIM_INFINITY});
}

static lks_status join_beyond_limit(int rank, int bytes, lks_group_config *config)
{
    lks_group *group;
    if (rank == 1)
        limit_file_size((rlim_t)bytes);
    lks_status status = lks_group_create(config, &group);
    lks_group_destroy(group);
    return status;
}

/* Rank 0 is told, whether it came first or not, instead of waiting for the deadline. */
static void a_member_without_room_to_join_tells_the_others(void **state)
{
    outcome *outcomes = *state;
    run_two(join_beyond_limit, 1 << 16, outcomes); /* the group's file needs more for its staging areas */
    for (int r = 0; r < 2; r++) {
        CHECK_INT(outcomes[r].status, LKS_E_NOMEM);
        assert_non_null(strstr(outcomes[r].text, "rank 1 cannot join: out of memory: a group needs"));
    }
}

static lks_status memory_beyond_limit(int rank, int bytes, lks_group_config *config)
{
    lks_group *group;
    lks_group_memory *memory = NULL;
    lks_status status = lks_group_create(config, &group);
    if (rank == 1) /* the signal of this limit would end the process */
        limit_file_size(1 << 23);
    if (status == LKS_OK)
        status = lks_group_memory_create(group, (size_t)bytes, &memory);
    lks_group_memory_destroy(memory);
    lks_group_destroy(group);
    return status;
}

static void the_limit_of_file_sizes_is_an_error_on_all(void **state)
{
    outcome *outcomes = *state;
    run_two(memory_beyond_limit, 1 << 24, outcomes);
    CHECK_INT(outcomes[0].status, LKS_E_NOMEM);
    CHECK_INT(outcomes[1].status, LKS_E_NOMEM);
    assert_non_null(strstr(outcomes[0].text, "rank 1 could not get its part"));
    assert_non_null(strstr(outcomes[1].text, "the limit of file sizes"));
    run_two(memory_beyond_limit, 1 << 20, outcomes);
    CHECK_INT(outcomes[0].status, LKS_OK);
    CHECK_INT(outcomes[1].status, LKS_OK);
}

static int setup(void **state)
{
    *state = mmap(NULL, 2 * sizeof(outcome), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    alarm(ALARM_S);
    return *state == MAP_FAILED;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(creating_threads_fails_clean),
        cmocka_unit_test(creating_memory_fails_on_all),
        cmocka_unit_test(joining_fails_clean),
        cmocka_unit_test(group_memory_is_counted),
        cmocka_unit_test(a_member_without_room_to_join_tells_the_others),
        cmocka_unit_test(the_limit_of_file_sizes_is_an_error_on_all),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
