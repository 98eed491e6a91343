/* SPDX-License-Identifier: Apache-2.0 */
/* The reducer against sums that are added by hand. Members are threads, where ThreadSanitizer sees races, and
 * processes. */
#define _GNU_SOURCE /* memfd_create, MAP_ANONYMOUS */
#include "ddp/reducer_run.h"

#include <sys/wait.h>
#include <unistd.h>

/* ---- members as processes ---- */

static void process_main(run *r, int rank, int fd)
{
    lks_group_config config = lks_group_config_default();
    config.rank = rank;
    config.size = r->size;
    config.fd = fd;
    config.timeout_s = timeout_s;
    lks_group *group;
    finding *found = &r->found[rank];
    found->status = lks_group_create(&config, &group);
    if (found->status != LKS_OK) {
        snprintf(found->message, sizeof found->message, "%s", lks_error_message());
        _exit(1);
    }
    play(r, group);
    lks_group_destroy(group);
    _exit(0);
}

static void run_processes(run *r)
{
    int fd = memfd_create("test_reducer", 0);
    assert_true(fd >= 0);
    pid_t pids[MAX_SIZE];
    for (int rank = 0; rank < r->size; rank++) {
        pids[rank] = fork();
        assert_true(pids[rank] >= 0);
        if (pids[rank] == 0)
            process_main(r, rank, fd);
    }
    for (int rank = 0; rank < r->size; rank++) {
        int status;
        CHECK_INT(waitpid(pids[rank], &status, 0), pids[rank]);
        CHECK_INT(status, 0);
    }
    close(fd);
}

/* ---- tests ---- */

static const int sizes[] = {1, 2, 3, 4, 5, 8};
static const int leaves[] = {1, 2, 3, 4, 6, 7, 8};
enum { N_SIZES = sizeof sizes / sizeof sizes[0], N_LEAVES = sizeof leaves / sizeof leaves[0] };

static void for_all_shapes(leaf_fn *leaf, empty_fn *empty)
{
    for (int s = 0; s < N_SIZES; s++)
        for (int l = 0; l < N_LEAVES; l++) {
            run *r = new_run(sizes[s], leaves[l], leaf);
            r->empty = empty;
            run_threads(r);
            check_run(r);
            end_run(r);
        }
}

static void integers_are_added(void **state)
{
    (void)state;
    run *r = new_run(3, 5, integer_leaf);
    run_threads(r);
    check_run(r);
    /* exact data: any order gives the sum */
    for (int64_t elem = 16; elem < 5016; elem++) {
        int sum = 0;
        for (int leaf = 0; leaf < 15; leaf++)
            sum += (int)integer_leaf(1, leaf, elem);
        CHECK_INT(r->result[0][elem], sum);
    }
    end_run(r);
}

static void every_shape_adds_in_tree_order(void **state)
{
    (void)state;
    for_all_shapes(ordered_leaf, none_empty);
}

static void empty_leaves_count_as_zero(void **state)
{
    (void)state;
    for_all_shapes(ordered_leaf, some_empty);
    for_all_shapes(zeros_leaf, some_empty);
    run *r = new_run(2, 4, ordered_leaf);
    r->empty = all_empty;
    run_threads(r);
    check_run(r);
    assert_true(r->result[0][0] == 0.0f && !signbit(r->result[0][0]));
    end_run(r);
}

static void what_is_not_finite_stays_so(void **state)
{
    (void)state;
    run *r = new_run(2, 2, special_leaf);
    run_threads(r);
    check_members_agree(r);
    check_elements(r);
    assert_true(isnan(r->result[0][20]) && isinf(r->result[0][21]) && isfinite(r->result[0][22]));
    assert_true(isnan(r->found[1].norm2[1]) && isfinite(r->found[1].norm2[2]));
    end_run(r);
}

/* Eight leaves of a step on 1, 2, 4 and 8 members. */
static void members_do_not_change_a_bit(void **state)
{
    (void)state;
    run *alone = new_run(1, 8, ordered_leaf);
    run_threads(alone);
    check_run(alone);
    for (int size = 2; size <= 8; size *= 2) {
        run *r = new_run(size, 8 / size, ordered_leaf);
        run_threads(r);
        check_members_agree(r);
        assert_memory_equal(r->result, alone->result, sizeof r->result);
        assert_memory_equal(r->found[0].sums, alone->found[0].sums, sizeof r->found[0].sums);
        assert_memory_equal(r->found[0].norm2, alone->found[0].norm2, sizeof r->found[0].norm2);
        end_run(r);
    }
    end_run(alone);
}

static void steps_follow_each_other(void **state)
{
    (void)state;
    static const int shapes[][2] = {{2, 1}, {3, 2}, {8, 1}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        run *r = new_run(shapes[i][0], shapes[i][1], integer_leaf);
        r->steps = 40;
        r->passes = 0;
        r->check_each_step = true;
        run_threads(r);
        check_members_agree(r);
        check_chunks(r);
        check_elements(r);
        end_run(r);
    }
}

static void later_passes_find_what_earlier_ones_leave(void **state)
{
    (void)state;
    for (int passes = 2; passes <= 4; passes++)
        for (int s = 0; s < N_SIZES; s++) {
            run *r = new_run(sizes[s], 2, ordered_leaf);
            r->passes = passes;
            run_threads(r);
            check_run(r);
            end_run(r);
        }
}

static void processes_do_as_threads(void **state)
{
    (void)state;
    static const int shapes[][2] = {{2, 1}, {2, 4}, {3, 3}, {8, 1}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        run *r = new_run(shapes[i][0], shapes[i][1], ordered_leaf);
        r->steps = 3;
        r->passes = 0;
        r->empty = some_empty;
        run_processes(r);
        check_run(r);
        end_run(r);
    }
}

static void a_member_that_fails_alone_stops_the_others(void **state)
{
    (void)state;
    run *r = new_run(3, 2, integer_leaf);
    r->last_fails = true;
    run_threads(r);
    for (int rank = 0; rank < r->size; rank++)
        CHECK_INT(r->found[rank].status, LKS_E_ARG);
    end_run(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_member_that_fails_alone_stops_the_others),
        cmocka_unit_test(integers_are_added),
        cmocka_unit_test(every_shape_adds_in_tree_order),
        cmocka_unit_test(empty_leaves_count_as_zero),
        cmocka_unit_test(what_is_not_finite_stays_so),
        cmocka_unit_test(members_do_not_change_a_bit),
        cmocka_unit_test(steps_follow_each_other),
        cmocka_unit_test(later_passes_find_what_earlier_ones_leave),
        cmocka_unit_test(processes_do_as_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
