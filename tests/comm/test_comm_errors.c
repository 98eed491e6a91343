/* SPDX-License-Identifier: Apache-2.0 */
/* Arguments that are refused, members that leave, or don't come. */
#define _GNU_SOURCE /* memfd_create */

#include "check.h"

#include <sys/mman.h>
#include <unistd.h>

#include <lockstep/group.h>

#include "comm/members.h"

/* ---- arguments ---- */

static void bad_arguments_change_nothing(member *self)
{
    lks_group *g = self->group;
    float x[4] = {1, 1, 1, 1};
    EXPECT_FAILS(self, lks_group_all_reduce(g, x, 4, (lks_dtype)9, LKS_SUM), LKS_E_ARG,
                 "9 is no element type");
    EXPECT_FAILS(self, lks_group_all_reduce(g, x, 4, LKS_F32, (lks_op)-1), LKS_E_ARG, "-1 is no operation");
    EXPECT_FAILS(self, lks_group_all_reduce(g, x, 1, LKS_I32, LKS_MEAN), LKS_E_ARG,
                 "mean of i32 is not defined");
    EXPECT_FAILS(self, lks_group_all_reduce(g, NULL, 4, LKS_F32, LKS_SUM), LKS_E_ARG, "input is NULL");
    EXPECT_FAILS(self, lks_group_all_reduce(g, x, SIZE_MAX, LKS_F32, LKS_SUM), LKS_E_ARG, "do not fit");
    EXPECT_FAILS(self, lks_group_broadcast(g, x, 4, LKS_F32, self->size), LKS_E_ARG, "is not in 0..");
    EXPECT_FAILS(self, lks_group_broadcast(g, x, 4, LKS_F32, -1), LKS_E_ARG, "root -1");
    EXPECT_FAILS(self, lks_group_run(g, &(lks_operation){.collective = (lks_collective)77}), LKS_E_ARG,
                 "77 is no collective");
    EXPECT_FAILS(self, lks_group_all_gather(g, x, NULL, 4, LKS_F32), LKS_E_ARG, "output is NULL");
    EXPECT_FAILS(self, lks_group_reduce(g, x, 1, LKS_U8, LKS_MEAN, 0), LKS_E_ARG, "mean of u8");
    EXPECT_FAILS(self, lks_group_gather(g, x, x, 1, LKS_U8, 99), LKS_E_ARG, "root 99");
    if (self->rank == 0) {
        EXPECT_FAILS(self, lks_group_gather(g, x, NULL, 1, LKS_F32, 0), LKS_E_ARG, "output is NULL");
        EXPECT_FAILS(self, lks_group_scatter(g, NULL, x, 1, LKS_F32, 0), LKS_E_ARG, "input is NULL");
    }
    EXPECT_OK(self, lks_group_all_reduce(g, x, 4, LKS_F32, LKS_SUM));
    EXPECT(self, x[0] == (float)self->size, "the sum is %g", (double)x[0]);
}

static void bad_arguments_are_refused_without_harm(void **state)
{
    (void)state;
    for (int size = 1; size <= 3; size++)
        members_run(AS_THREADS, size, bad_arguments_change_nothing, NULL);
}

static void bad_configs_are_refused(void **state)
{
    (void)state;
    lks_group *group = (lks_group *)state; /* anything but NULL */
    lks_group *members[2];
    lks_group_config good = lks_group_config_default(), bad;
    bad = good, bad.size = 0;
    CHECK_FAILS(lks_group_create(&bad, &group), LKS_E_ARG, "0 members");
    assert_null(group);
    bad = good, bad.rank = 1;
    CHECK_FAILS(lks_group_create(&bad, &group), LKS_E_ARG, "rank 1 is not in 0..0");
    bad = good, bad.timeout_s = NAN;
    CHECK_FAILS(lks_group_create(&bad, &group), LKS_E_ARG, "timeout");
    bad = good, bad.size = 2;
    CHECK_FAILS(lks_group_create(&bad, &group), LKS_E_ARG, "an address to meet at");
    bad = good, bad.size = 2, bad.fd = 987;
    CHECK_FAILS(lks_group_create(&bad, &group), LKS_E_ARG, "number 987, is not open");
    bad = good, bad.size = 2;
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    bad.fd = pipes[1];
    CHECK_FAILS(lks_group_create(&bad, &group), LKS_E_ARG, "is not a memory file");
    close(pipes[0]), close(pipes[1]);
    CHECK_FAILS(lks_group_create_threads(-3, 1, members), LKS_E_ARG, "-3 members");
    CHECK_FAILS(lks_group_create_threads(2, 0, members), LKS_E_ARG, "timeout");
    lks_group_destroy(NULL);
    lks_group_memory_destroy(NULL);
}

static double buffer_of_rank[8][8 * 1000];

static lks_status ask(lks_group *g, lks_operation operation)
{
    operation.in = operation.out = buffer_of_rank[lks_group_rank(g)];
    return lks_group_run(g, &operation);
}

static lks_status ask_sum(lks_group *g)
{
    return ask(g, (lks_operation){LKS_ALL_REDUCE, LKS_F32, LKS_SUM, 0, 1000, NULL, NULL});
}

/* ---- leaving ---- */

/* Rank 1 leaves at once, the others come to a barrier before or after that. */
static void others_need_rank_1(member *self)
{
    const bool *late = self->context;
    EXPECT_OK(self, lks_group_barrier(self->group));
    if ((self->rank == 1) == *late)
        usleep(20 * 1000);
    if (self->rank == 1)
        return; /* the harness destroys the group */
    EXPECT_FAILS(self, lks_group_barrier(self->group), LKS_E_PEER, "rank 1 ");
    EXPECT(self, strstr(lks_error_message(), "left the group") != NULL, "%s", lks_error_message());
    EXPECT_FAILS(self, ask_sum(self->group), LKS_E_PEER, "left the group");
}

static void a_member_that_left_is_named(void **state)
{
    (void)state;
    for (int kind = AS_THREADS; kind <= EACH_ALONE; kind++)
        for (int late = 0; late < 2; late++)
            members_run((member_kind)kind, 3, others_need_rank_1, &(const bool){late != 0});
}

/* Who is done may leave while others still wake up from the last barrier. */
static void leaves_after_barrier(member *self)
{
    EXPECT_OK(self, lks_group_barrier(self->group));
}

static void leaving_after_the_last_operation_is_fine(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++)
        members_run(AS_THREADS, 5, leaves_after_barrier, NULL);
}

/* ---- deadlines ---- */

static void a_late_member_is_named(void **state)
{
    (void)state;
    lks_group *members[2];
    CHECK_OK(lks_group_create_threads(2, 0.05, members));
    CHECK_FAILS(ask_sum(members[1]), LKS_E_TIMEOUT,
                "rank 1 waited 0.05 s in all_reduce(sum, f32, 1000) (collective 1) for rank 0, which has "
                "finished no operation");
    CHECK_FAILS(lks_group_barrier(members[0]), LKS_E_TIMEOUT, "rank 1 waited 0.05 s");
    CHECK_INT(lks_group_failed_by(members[1]), 1);
    CHECK_INT(lks_group_failed_by(members[0]), 1);
    lks_group_destroy(members[0]);
    lks_group_destroy(members[1]);
}

static void a_member_that_never_joins_is_named(void **state)
{
    (void)state;
    lks_group *group;
    lks_group_config config = lks_group_config_default();
    config.size = 3;
    config.rank = 1;
    config.timeout_s = 0.05;
    config.fd = memfd_create("test", 0);
    CHECK_FAILS(lks_group_create(&config, &group), LKS_E_TIMEOUT,
                "in group_create for rank 0, which has not joined");
    assert_non_null(strstr(lks_error_message(), "rank 2, which has not joined"));
    assert_null(group);
    /* who comes too late is told why there is no group */
    config.rank = 2;
    CHECK_FAILS(lks_group_create(&config, &group), LKS_E_TIMEOUT, "rank 1 (process ");
    close(config.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_arguments_are_refused_without_harm),
        cmocka_unit_test(bad_configs_are_refused),
        cmocka_unit_test(a_member_that_left_is_named),
        cmocka_unit_test(leaving_after_the_last_operation_is_fine),
        cmocka_unit_test(a_late_member_is_named),
        cmocka_unit_test(a_member_that_never_joins_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
