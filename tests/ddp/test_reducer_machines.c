/* SPDX-License-Identifier: Apache-2.0 */
/* The reducer in groups over several machines: what one machine gives, whatever the machines and the buckets.
 */
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "ddp/reducer_run.h"

/* Ranks one machine after the other, dealt out in turn, evenly and not, and each on its own. */
static const struct {
    int size;
    int machines[MAX_SIZE];
} layouts[] = {
    {2, {0, 1}},       {3, {0, 0, 1}},       {4, {0, 0, 1, 1}},       {4, {0, 1, 0, 1}},
    {4, {0, 0, 0, 1}}, {5, {0, 1, 1, 2, 0}}, {8, {0, 0, 0, 1, 2, 0}}, {8, {0, 1, 2, 3, 4, 5, 6, 7}},
};
enum { N_LAYOUTS = sizeof layouts / sizeof layouts[0] };

static run *run_on(int layout, int64_t leaves, leaf_fn *leaf)
{
    run *r = new_run(layouts[layout].size, leaves, leaf);
    memcpy(r->machines, layouts[layout].machines, sizeof r->machines);
    return r;
}

/* A bucket for each tensor, some of several, and all in one. */
static const int64_t bucket_sizes[] = {1, 40000, 1 << 30};
enum { N_BUCKET_SIZES = sizeof bucket_sizes / sizeof bucket_sizes[0] };

static void every_layout_adds_in_tree_order(void **state)
{
    (void)state;
    static const int leaves[] = {1, 2, 3, 7, 8};
    for (int i = 0; i < N_LAYOUTS; i++)
        for (int l = 0; l < 5; l++) {
            run *r = run_on(i, leaves[l], ordered_leaf);
            r->bucket_bytes = bucket_sizes[(i + l) % N_BUCKET_SIZES];
            r->silent = (i + l) % 4 == 3;
            run_threads(r);
            check_run(r);
            end_run(r);
        }
}

/* The last leaf of a member among them, which then has no tensors to report. */
static void empty_leaves_count_as_zero(void **state)
{
    (void)state;
    static const int leaves[] = {1, 2, 4};
    for (int i = 0; i < N_LAYOUTS; i++)
        for (int l = 0; l < 3; l++) {
            run *r = run_on(i, leaves[l], zeros_leaf);
            r->empty = (i + l) % 4 == 3 ? all_empty : some_empty;
            r->bucket_bytes = bucket_sizes[(i + l) % N_BUCKET_SIZES];
            run_threads(r);
            check_run(r);
            end_run(r);
        }
}

static void machines_do_not_change_a_bit(void **state)
{
    (void)state;
    run *one = new_run(4, 2, ordered_leaf);
    run_threads(one);
    check_run(one);
    for (int i = 0; i < N_LAYOUTS; i++)
        for (int b = 0; b < N_BUCKET_SIZES && layouts[i].size == 4; b++) {
            run *r = run_on(i, 2, ordered_leaf);
            r->bucket_bytes = bucket_sizes[b];
            run_threads(r);
            check_run(r);
            assert_memory_equal(r->result[1], one->result[0], sizeof one->result[0]);
            assert_memory_equal(r->found[3].sums, one->found[0].sums, sizeof one->found[0].sums);
            assert_memory_equal(r->found[3].norm2, one->found[0].norm2, sizeof one->found[0].norm2);
            end_run(r);
        }
    end_run(one);
}

static void steps_follow_each_other(void **state)
{
    (void)state;
    for (int i = 0; i < N_LAYOUTS; i++) {
        run *r = run_on(i, i % 3 + 1, integer_leaf);
        r->steps = 20;
        r->passes = 0;
        r->check_each_step = true;
        r->bucket_bytes = bucket_sizes[i % N_BUCKET_SIZES];
        run_threads(r);
        check_members_agree(r);
        check_chunks(r);
        check_elements(r);
        end_run(r);
    }
}

/* Gradients are under way from the first report on, and what of that is left behind the leaves is waited for.
 */
static void time_under_way_is_measured(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        run *r = run_on(0, 1, integer_leaf);
        r->steps = 10;
        r->bucket_bytes = 1;
        r->silent = i == 1;
        run_threads(r);
        check_run(r);
        for (int rank = 0; rank < r->size; rank++) {
            const lks__reducer_times *t = &r->found[rank].times;
            assert_true(0 < t->exposed && t->exposed <= t->wait && t->exposed <= t->exchange);
        }
        end_run(r);
    }
}

/* Wherever memory runs out while a reducer is made, all are told, and nothing stays. */
static void a_failed_allocation_is_everybodys(void **state)
{
    (void)state;
    int64_t comm = lks__alloc_bytes(LKS__MEM_COMM), grads = lks__alloc_bytes(LKS__MEM_GRADS);
    run *r = run_on(2, 4, integer_leaf);
    r->fails_nth = 0;
    do {
        r->fails_nth++;
        run_threads(r);
        for (int rank = 1; rank < r->size; rank++)
            CHECK_INT(r->found[rank].status, r->found[0].status);
        assert_true(r->found[0].status == LKS_OK || r->found[0].status == LKS_E_NOMEM);
        CHECK_INT(lks__alloc_bytes(LKS__MEM_COMM), comm);
        CHECK_INT(lks__alloc_bytes(LKS__MEM_GRADS), grads);
    } while (r->found[0].status != LKS_OK);
    assert_true(r->fails_nth > 4 * 15); /* each member's reducer, lists, arenas, requests */
    end_run(r);
}

static void a_member_that_fails_alone_stops_the_others(void **state)
{
    (void)state;
    for (int i = 0; i < N_LAYOUTS; i++) {
        run *r = run_on(i, 2, integer_leaf);
        r->last_fails = true;
        run_threads(r);
        for (int rank = 0; rank < r->size; rank++)
            CHECK_INT(r->found[rank].status, LKS_E_ARG);
        end_run(r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layout_adds_in_tree_order),
        cmocka_unit_test(empty_leaves_count_as_zero),
        cmocka_unit_test(machines_do_not_change_a_bit),
        cmocka_unit_test(steps_follow_each_other),
        cmocka_unit_test(time_under_way_is_measured),
        cmocka_unit_test(a_failed_allocation_is_everybodys),
        cmocka_unit_test(a_member_that_fails_alone_stops_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
