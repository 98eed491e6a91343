/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <errno.h>

#include <lockstep/version.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/machine.h"
#include "base/random.h"
#include "base/text.h"
#include "base/tree.h"

static void statuses_have_names_and_exit_codes(void **state)
{
    (void)state;
    assert_string_equal(lks_status_name(LKS_E_ARG), "LKS_E_ARG");
    assert_string_equal(lks_status_name((lks_status)-999), "LKS_UNKNOWN");
    CHECK_INT(lks_status_exit_code(LKS_OK), 0);
    CHECK_INT(lks_status_exit_code(LKS_E_FORMAT), 2);
    CHECK_INT(lks_status_exit_code(LKS_E_PEER), 1);
    assert_string_equal(lks_version(), "0.1.0");
}

static void messages_grow_at_both_ends(void **state)
{
    (void)state;
    CHECK_INT(lks__fail(LKS_E_ARG, "local batch %d", 0), LKS_E_ARG);
    CHECK_INT(lks__error_prefix(LKS_E_ARG, "x.yaml:%d", 3), LKS_E_ARG);
    CHECK_INT(lks__error_hint(LKS_E_ARG, "use %d", 1), LKS_E_ARG);
    assert_string_equal(lks_error_message(), "x.yaml:3: local batch 0\nhint: use 1");
}

static void messages_hold_no_control_characters(void **state)
{
    (void)state;
    lks__fail(LKS_E_ARG, "%s", "a\x1b[31mred\a\ttab\x7f\rend, \xc3\xa9");
    assert_string_equal(lks_error_message(), "a?[31mred??tab??end, \xc3\xa9");
    lks__error_hint(LKS_E_ARG, "b\x1b");
    assert_string_equal(lks_error_message(), "a?[31mred??tab??end, \xc3\xa9\nhint: b?");
}

static void only_some_failures_to_open_are_the_paths(void **state)
{
    (void)state;
    CHECK_FAILS(lks__fail_open(ENOENT, "x"), LKS_E_NOT_FOUND, "cannot open x: No such file");
    CHECK_FAILS(lks__fail_open(ELOOP, "x"), LKS_E_NOT_FOUND, "cannot open x: ");
    CHECK_FAILS(lks__fail_open(EMFILE, "x"), LKS_E_SYSTEM, "cannot open x: Too many open files");
    CHECK_FAILS(lks__fail_open(EIO, "x"), LKS_E_IO, "cannot open x: ");
}

static void allocations_are_counted_aligned_and_zeroed(void **state)
{
    (void)state;
    int64_t before = lks__alloc_bytes(LKS__MEM_DATA), count = lks__alloc_count();
    unsigned char *p = lks__alloc(100, LKS__MEM_DATA);
    assert_non_null(p);
    CHECK_INT((uintptr_t)p % LKS__ALIGNMENT, 0);
    for (int i = 0; i < 100; i++)
        CHECK_INT(p[i], 0);
    p[99] = 7;
    p = lks__realloc(p, 200, LKS__MEM_DATA);
    CHECK_INT(p[99], 7);
    CHECK_INT(p[199], 0);
    CHECK_INT(lks__alloc_bytes(LKS__MEM_DATA), before + 200);
    CHECK_INT(lks__alloc_count(), count + 2);
    lks__free(p);
    CHECK_INT(lks__alloc_bytes(LKS__MEM_DATA), before);
}

static void an_allocation_can_be_made_to_fail(void **state)
{
    (void)state;
    lks__alloc_fail_nth(2);
    void *first = lks__alloc(8, LKS__MEM_MISC), *second = lks__alloc(8, LKS__MEM_MISC);
    void *third = lks__alloc(8, LKS__MEM_MISC);
    assert_non_null(first);
    assert_null(second);
    assert_non_null(third);
    lks__free(first);
    lks__free(third);
    assert_null(lks__alloc_array(INT64_MAX, 8, LKS__MEM_MISC));
    assert_null(lks__alloc(SIZE_MAX, LKS__MEM_MISC));
}

static void numbers_are_parsed_strictly(void **state)
{
    (void)state;
    int64_t i;
    double f;
    assert_true(lks__parse_i64("-12", &i) && i == -12);
    assert_false(lks__parse_i64("12x", &i) || lks__parse_i64("", &i) || lks__parse_i64(" 1", &i));
    assert_false(lks__parse_i64("1.5", &i) || lks__parse_i64("99999999999999999999", &i));
    assert_true(lks__parse_f64("1.0e-4", &f) && f == 1.0e-4);
    assert_true(lks__parse_f64(".inf", &f) && isinf(f));
    assert_true(lks__parse_f64("nan", &f) && isnan(f));
    assert_false(lks__parse_f64("1e999", &f) || lks__parse_f64("1,5", &f) || lks__parse_f64("", &f));
}

static void the_nearest_word_is_found_when_it_is_near(void **state)
{
    (void)state;
    static const char *const words[] = {"epochs", "optimizer.lr", "seed"};
    CHECK_INT(lks__nearest("epoch", 3, words), 0);
    CHECK_INT(lks__nearest("optimzer.lr", 3, words), 1);
    CHECK_INT(lks__nearest("sede", 3, words), 2);
    CHECK_INT(lks__nearest("banana", 3, words), -1);
    CHECK_INT(lks__nearest("x", 3, words), -1);
}

static void text_grows(void **state)
{
    (void)state;
    lks__text text = {0};
    for (int i = 0; i < 1000; i++)
        lks__text_add(&text, "%d,", i % 10);
    char *taken;
    CHECK_OK(lks__text_take(&text, &taken));
    CHECK_INT(strlen(taken), 2000);
    assert_memory_equal(taken, "0,1,2,", 6);
    free(taken);
}

static void a_full_buffer_keeps_what_fits(void **state)
{
    (void)state;
    char buffer[8] = "ab", list[40];
    lks__append(buffer, sizeof buffer, "%d", 12345);
    assert_string_equal(buffer, "ab12345");
    lks__append(buffer, sizeof buffer, "more");
    assert_string_equal(buffer, "ab12345");
    assert_string_equal(lks__list_text(2, (int64_t[]){512, 784}, sizeof list, list), "[512, 784]");
    assert_string_equal(lks__list_text(0, NULL, sizeof list, list), "[]");
    assert_string_equal(lks__list_text(1, (int64_t[]){INT64_MIN}, sizeof list, list),
                        "[-9223372036854775808]");
    assert_string_equal(lks__plural(1), "");
    assert_string_equal(lks__plural(0), "s");
}

/* Known answers: Random123's kat_vectors (zeros, ones, digits of pi); mt19937ar.out's generator with seed
 * 5489, whose 10,000th number the C++ standard gives ([rand.predef]). */
static void generators_give_their_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        uint32_t out[4];
        lks__philox(known[i].counter, known[i].key, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }

    lks__mt19937 mt;
    lks__mt19937_init(&mt, 5489);
    uint32_t x = 0;
    for (int i = 0; i < 10000; i++)
        x = lks__mt19937_next(&mt);
    CHECK_INT(x, 4123659995u);
}

static void the_tree_splits_at_the_largest_power_of_two(void **state)
{
    (void)state;
    CHECK_INT(lks__tree_split(2), 1);
    CHECK_INT(lks__tree_split(3), 2);
    CHECK_INT(lks__tree_split(4), 2);
    CHECK_INT(lks__tree_split(5), 4);
    CHECK_INT(lks__tree_split(1025), 1024);
    /* (1 + 1e16) + (-1e16 + 1): both ones are lost; in sequence one would be kept */
    assert_true(lks__tree_sum((double[]){1, 1e16, -1e16, 1}, 4) == 0.0);
    assert_true(lks__tree_sum((double[]){1, 2, 4}, 3) == 7.0);
    assert_true(lks__is_power_of_two(8) && !lks__is_power_of_two(6) && !lks__is_power_of_two(0));
}

static void the_machine_has_cores_memory_and_a_clock(void **state)
{
    (void)state;
    assert_true(lks__usable_cores() >= 1);
    assert_true(lks__peak_memory_bytes() > 100000);
    int64_t start = lks__now_ns();
    assert_true(lks__now_ns() >= start);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statuses_have_names_and_exit_codes),
        cmocka_unit_test(messages_grow_at_both_ends),
        cmocka_unit_test(messages_hold_no_control_characters),
        cmocka_unit_test(only_some_failures_to_open_are_the_paths),
        cmocka_unit_test(allocations_are_counted_aligned_and_zeroed),
        cmocka_unit_test(an_allocation_can_be_made_to_fail),
        cmocka_unit_test(numbers_are_parsed_strictly),
        cmocka_unit_test(the_nearest_word_is_found_when_it_is_near),
        cmocka_unit_test(text_grows),
        cmocka_unit_test(a_full_buffer_keeps_what_fits),
        cmocka_unit_test(generators_give_their_known_answers),
        cmocka_unit_test(the_tree_splits_at_the_largest_power_of_two),
        cmocka_unit_test(the_machine_has_cores_memory_and_a_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
