/* SPDX-License-Identifier: Apache-2.0 */
/* Creating a reducer: what is refused, what is allocated. Groups of one, so that nobody waits for a member
 * that fails. */
#include "check.h"

#include "base/alloc.h"
#include "ddp/reducer.h"

enum { ARENA = 36032, N_TENSORS = 2 };

static const lks__span tensors[N_TENSORS] = {{0, 5}, {16, 36000}};

/* Groups of one, so that no other member waits for the one that fails. */
static void a_failed_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    lks_group *group;
    lks_group_config alone = lks_group_config_default();
    CHECK_OK(lks_group_create(&alone, &group));
    int64_t grads = lks__alloc_bytes(LKS__MEM_GRADS), comm = lks__alloc_bytes(LKS__MEM_COMM);
    lks__reducer_config config = {
        .group = group, .arena_elems = ARENA, .n_tensors = N_TENSORS, .tensors = tensors, .leaves = 4};
    lks_status status = LKS_E_NOMEM;
    int n = 0;
    while (status != LKS_OK) {
        lks__reducer *reducer = (lks__reducer *)&config; /* anything but NULL */
        lks__alloc_fail_nth(++n);
        status = lks__reducer_create(&config, &reducer);
        lks__alloc_fail_nth(0);
        if (status == LKS_OK) {
            lks__reducer_destroy(reducer);
        } else {
            CHECK_INT(status, LKS_E_NOMEM);
            assert_null(reducer);
        }
        CHECK_INT(lks__alloc_bytes(LKS__MEM_GRADS), grads);
        CHECK_INT(lks__alloc_bytes(LKS__MEM_COMM), comm);
    }
    assert_true(n > 10); /* the reducer, its lists, two arenas, the tree's three parts */
    lks_group_destroy(group);
}

static void arenas_are_as_many_as_the_counter_has_digits(void **state)
{
    (void)state;
    lks_group *group;
    lks_group_config alone = lks_group_config_default();
    CHECK_OK(lks_group_create(&alone, &group));
    static const int private_arenas[] = {-1, 0, 1, 1, 2, 2, 2, 2, 3};
    for (int m = 1; m <= 8; m++) {
        int64_t before = lks__alloc_bytes(LKS__MEM_GRADS);
        lks__reducer_config config = {.group = group, .arena_elems = 1 << 20, .leaves = m};
        lks__reducer *reducer;
        CHECK_OK(lks__reducer_create(&config, &reducer));
        CHECK_INT((lks__alloc_bytes(LKS__MEM_GRADS) - before) >> 22, private_arenas[m]);
        lks__reducer_destroy(reducer);
    }
    lks_group_destroy(group);
}

static void what_makes_no_sense_is_refused(void **state)
{
    (void)state;
    lks_group *group;
    lks_group_config alone = lks_group_config_default();
    CHECK_OK(lks_group_create(&alone, &group));
    lks__reducer *reducer;
    lks__reducer_config config = {.group = group, .arena_elems = 100, .leaves = 0};
    CHECK_FAILS(lks__reducer_create(&config, &reducer), LKS_E_ARG, "0 leaves per process");
    config.leaves = 2;
    config.n_tensors = 2;
    config.tensors = (lks__span[]){{0, 10}, {9, 10}};
    CHECK_FAILS(lks__reducer_create(&config, &reducer), LKS_E_ARG,
                "tensor 1 of 10 elements at 9 does not fit between 10 and 100");
    config.tensors = (lks__span[]){{0, 10}, {95, 6}};
    CHECK_FAILS(lks__reducer_create(&config, &reducer), LKS_E_ARG, "tensor 1 of 6 elements at 95");
    config.tensors = (lks__span[]){{0, 10}, {95, 5}};
    CHECK_OK(lks__reducer_create(&config, &reducer));
    CHECK_FAILS(lks__reducer_pass(reducer, &(lks__pass){0}), LKS_E_INTERNAL, "a pass outside of a step");
    lks__reducer_leaf_done(reducer, true);
    CHECK_FAILS(lks__reducer_begin(reducer, &(lks__step_io){{0}, 0, 0}), LKS_E_INTERNAL,
                "1 of 2 leaves done");
    lks__reducer_leaf_done(reducer, true);
    CHECK_OK(lks__reducer_begin(reducer, &(lks__step_io){{0}, 0, 0}));
    CHECK_OK(lks__reducer_pass(reducer, &(lks__pass){0}));
    CHECK_FAILS(lks__reducer_pass(reducer, &(lks__pass){0}), LKS_E_INTERNAL, "a pass outside of a step");
    lks__reducer_destroy(reducer);
    lks__reducer_destroy(NULL);
    lks_group_destroy(group);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_allocation_leaves_nothing_behind),
        cmocka_unit_test(arenas_are_as_many_as_the_counter_has_digits),
        cmocka_unit_test(what_makes_no_sense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
