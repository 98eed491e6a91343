/* SPDX-License-Identifier: Apache-2.0 */
/** What is made of plans: JSON, the table, warnings, several worlds side by side. */
#include "check.h"
#include "plans.h"

#include <jansson.h>
#include <stdlib.h>

#include "plan/plan_warnings.h"

/* Where the arithmetic would divide by what is not there. */
static void plans_made_by_hand_are_refused(void **state)
{
    (void)state;
    char *text;
    lks_plan plan = {0};
    CHECK_FAILS(lks_plan_to_text(&plan, &text), LKS_E_ARG, "the plan is none of lks_plan_create");
    CHECK_FAILS(lks_plan_curve_to_text(&plan, &text), LKS_E_ARG, "the plan is none of lks_plan_create");
    assert_null(text);

    const lks_plan whole = plan_of(mnist());
    const size_t counts[] = {
        offsetof(lks_plan, n_samples),
        offsetof(lks_plan, processes),
        offsetof(lks_plan, world),
        offsetof(lks_plan, local_batch),
        offsetof(lks_plan, accumulate),
        offsetof(lks_plan, global_batch),
        offsetof(lks_plan, leaves),
        offsetof(lks_plan, leaves_per_process),
        offsetof(lks_plan, samples_per_epoch),
        offsetof(lks_plan, steps_per_epoch),
        offsetof(lks_plan, total_steps),
        offsetof(lks_plan, samples),
        offsetof(lks_plan, last_step_samples),
    };
    static const int64_t odd[] = {0, -1, 1000, INT64_MAX};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        for (size_t k = 0; k < sizeof odd / sizeof odd[0]; k++) {
            plan = whole;
            memcpy((char *)&plan + counts[i], &odd[k], sizeof odd[k]);
            CHECK_FAILS(lks_plan_to_text(&plan, &text), LKS_E_ARG, "the plan is none of lks_plan_create");
        }
    plan = whole;
    plan.schedule = (lks_schedule){.kind = LKS_SCHEDULE_STEP, .gamma = 0.1};
    CHECK_FAILS(lks_plan_curve_to_text(&plan, &text), LKS_E_ARG, "step_epochs is 0");
}

static void json_holds_the_plan(void **state)
{
    (void)state;
    lks_plan plan = plan_of(mnist());
    char *text;
    CHECK_OK(lks_plan_to_json(&plan, &text));
    json_t *object = json_loads(text, 0, NULL);
    assert_non_null(object);
    static const struct {
        const char *key;
        int64_t value;
    } integers[] = {{"world", 2},
                    {"local_batch", 64},
                    {"accumulate", 1},
                    {"effective_batch", 128},
                    {"samples", 300000},
                    {"steps_per_epoch", 469},
                    {"total_steps", 2345},
                    {"last_step_samples", 96},
                    {"warmup_steps", 469},
                    {"processes", 2},
                    {"samples_per_epoch", 60000}};
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++)
        CHECK_INT(json_integer_value(json_object_get(object, integers[i].key)), integers[i].value);
    CHECK_NEAR(json_real_value(json_object_get(object, "base_lr")), 0.02, 0);
    CHECK_NEAR(json_real_value(json_object_get(object, "scaled_lr")), 0.04, 0);
    assert_true(json_is_true(json_object_get(object, "same_bits")));
    assert_string_equal(json_string_value(json_object_get(object, "tail")), "exact");
    CHECK_INT(json_array_size(json_object_get(object, "warnings")), 0);
    json_decref(object);
    free(text);
}

static char *text_of(lks_plan_config c)
{
    lks_plan plan = plan_of(c);
    char *text;
    CHECK_OK(lks_plan_to_text(&plan, &text));
    return text;
}

/* Exactly these warnings, each known by a part of its sentence, in their order. */
static void check_warnings(lks_plan_config c, int n, const char *const *parts)
{
    lks_plan plan = plan_of(c);
    for (int i = 0; i < n; i++) {
        char warning[LKS__WARNING_BYTES] = "none";
        if (!lks__plan_warning(&plan, i, warning) || strstr(warning, parts[i]) == NULL)
            fail_msg("warning %d is \"%s\", not \"... %s ...\"", i, warning, parts[i]);
    }
    char further[LKS__WARNING_BYTES];
    if (lks__plan_warning(&plan, n, further))
        fail_msg("a warning too many: %s", further);
}

#define CHECK_WARNINGS(config, ...)                                                                          \
    check_warnings(config, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *),                           \
                   (const char *[]){__VA_ARGS__})

static void plans_of_sound_runs_have_no_warnings(void **state)
{
    (void)state;
    lks_plan_config c = mnist();
    check_warnings(c, 0, NULL);
    c.lr_rule = LKS_LR_NONE;
    c.reference_batch = 0; /* nothing is said to be tuned for another batch */
    c.warmup_epochs = 0;
    check_warnings(c, 0, NULL);
    c.reference_batch = 128; /* or for this one */
    c.lr_rule = LKS_LR_LINEAR;
    c.reduction = LKS_REDUCTION_SUM;
    c.processes = 1;
    c.local_batch = 128; /* one leaf: its sum is its mean */
    check_warnings(c, 0, NULL);
}

static void rates_that_do_not_fit_the_batch_are_warned_of(void **state)
{
    (void)state;
    lks_plan_config twice = mnist(), ignored = mnist(), at_once = mnist(), adam = mnist(), endless = mnist();
    twice.reduction = LKS_REDUCTION_SUM;
    CHECK_WARNINGS(twice, "scales them twice");
    twice.lr_rule = LKS_LR_NONE; /* the sum grows with the batch, so the rate does not lag behind */
    CHECK_WARNINGS(twice, "every further worker makes updates larger");
    ignored.lr_rule = LKS_LR_NONE;
    CHECK_WARNINGS(ignored, "the effective batch is 2 times the reference batch, but the rate is not scaled");
    ignored.reference_batch = 96;
    CHECK_WARNINGS(ignored, "is 1.333 times the reference batch");
    at_once.warmup = LKS_WARMUP_NONE;
    CHECK_WARNINGS(at_once, "scaled up without a warm-up");
    adam.optimizer = lks_optimizer_config_default(LKS_ADAM);
    CHECK_WARNINGS(adam, "the rule linear is for SGD");
    adam.optimizer = lks_optimizer_config_default(LKS_ADAMW);
    CHECK_WARNINGS(adam, "the rule linear is for SGD");
    adam.optimizer = lks_optimizer_config_default(LKS_LAMB);
    CHECK_WARNINGS(adam, "LAMB gives every tensor's update a size of its own");
    adam.lr_rule = LKS_LR_SQRT;
    check_warnings(adam, 0, NULL);
    adam.optimizer = lks_optimizer_config_default(LKS_LARS);
    adam.lr_rule = LKS_LR_LINEAR;
    check_warnings(adam, 0, NULL);
    endless.warmup_epochs = 5;
    CHECK_WARNINGS(endless, "never reached");
}

static void batches_that_do_not_fit_the_data_are_warned_of(void **state)
{
    (void)state;
    lks_plan_config c = mnist();
    c.lr_rule = LKS_LR_NONE;
    c.reference_batch = 0;
    c.n_samples = 1280; /* the effective batch is 128 */
    check_warnings(c, 0, NULL);
    c.n_samples = 1279;
    CHECK_WARNINGS(c, "more than a tenth of the training set");
    c.n_samples = 127;
    CHECK_WARNINGS(c, "more than an epoch has samples");
    c.n_samples = 12800 + 13;
    check_warnings(c, 0, NULL);
    c.n_samples = 12800 + 12; /* of 128: 12.8 are a tenth */
    CHECK_WARNINGS(c, "less than a tenth of the effective batch");
    c.tail = LKS_TAIL_DROP;
    check_warnings(c, 0, NULL);

    lks_plan_config few = mnist();
    few.epochs = 0;
    few.steps = 1000;
    check_warnings(few, 0, NULL);
    few.steps = 999;
    CHECK_WARNINGS(few, "fewer than a thousand updates");
    few.reference_batch = 128; /* as few as were tuned for */
    check_warnings(few, 0, NULL);
}

static void other_bits_are_warned_of(void **state)
{
    (void)state;
    lks_plan_config c = mnist();
    c.epochs = 10;
    c.accumulate = 3;
    CHECK_WARNINGS(c, "rounding only");
}

static void warnings_are_shown(void **state)
{
    (void)state;
    lks_plan_config c = mnist();
    char *text = text_of(c);
    assert_null(strstr(text, "warning"));
    free(text);
    c.reduction = LKS_REDUCTION_SUM;
    c.accumulate = 3;
    text = text_of(c);
    assert_non_null(strstr(text, "\n\nwarning: with reduction sum"));
    assert_non_null(strstr(text, "\nwarning: on this number of processes"));
    free(text);
}

/* --- the curve --- */

enum { CURVE_WIDTH = 72, CURVE_HEIGHT = 12 };

/* The row, from 0 at the bottom, of the mark in each column of a drawing. */
static void read_marks(const char *text, int rows[CURVE_WIDTH])
{
    for (int x = 0; x < CURVE_WIDTH; x++)
        rows[x] = -1;
    const char *line = text + strcspn(text, "\n") + 1; /* behind the title */
    for (int y = CURVE_HEIGHT - 1; y >= 0; y--, line += strcspn(line, "\n") + 1) {
        const char *axis = strchr(line, '|');
        assert_non_null(axis);
        for (int x = 0; x < (int)strcspn(axis + 1, "\n"); x++)
            if (axis[1 + x] == '*') {
                CHECK_INT(rows[x], -1); /* one mark in a column */
                rows[x] = y;
            }
    }
}

static void the_curve_is_that_of_the_rate(void **state)
{
    (void)state;
    lks_plan_config constant = mnist(), jump = mnist(), falling = mnist(), endless = mnist();
    jump.warmup = LKS_WARMUP_CONSTANT;
    falling.warmup_epochs = 3;
    falling.schedule.kind = LKS_SCHEDULE_EXPONENTIAL; /* has fallen when the warm-up ends */
    endless.warmup_epochs = 10;
    constant.schedule.kind = LKS_SCHEDULE_CONSTANT;
    const struct {
        lks_plan_config config;
        double top;
    } cases[] = {{mnist(), 0.04}, {constant, 0.04}, {jump, 0.04}, {falling, 0.04}, {endless, 0.03}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lks_plan plan = plan_of(cases[i].config);
        char *text;
        int rows[CURVE_WIDTH];
        CHECK_OK(lks_plan_curve_to_text(&plan, &text));
        read_marks(text, rows);
        double height = cases[i].top / CURVE_HEIGHT;
        for (int x = 0; x < CURVE_WIDTH; x++) {
            double rate = lks_plan_lr(&plan, (int64_t)(300000 * (x + 0.5) / CURVE_WIDTH));
            /* a thousandth of a row more than half of one: the top is that of a sample beside the peak */
            CHECK_NEAR(rate, (rows[x] + 0.5) * height, (0.5 + 1e-3) * height);
        }
        free(text);
    }
}

/* --- several worlds --- */

static void holding_the_local_batch_makes_the_effective_one_grow(void **state)
{
    (void)state;
    lks_plan_config c = mnist();
    c.processes = 0;
    c.accumulate = 3;
    for (int64_t world = 1; world <= 16; world++) {
        lks_plan plan;
        CHECK_OK(lks_plan_create_at(&c, world, LKS_HOLD_LOCAL, &plan));
        CHECK_INT(plan.processes, world);
        CHECK_INT(plan.local_batch, 64);
        CHECK_INT(plan.accumulate, 3);
        CHECK_INT(plan.global_batch, 192 * world);
    }
}

static void holding_the_effective_batch_changes_how_it_is_shared(void **state)
{
    (void)state;
    static const struct {
        int64_t world, local, accumulate;
    } cases[] = {{1, 64, 12}, {2, 64, 6}, {3, 64, 4}, {8, 48, 2}, {12, 64, 1}, {16, 48, 1}, {256, 3, 1}};
    lks_plan_config c = mnist();
    c.processes = 0;
    c.accumulate = 12;
    lks_plan plan;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_OK(lks_plan_create_at(&c, cases[i].world, LKS_HOLD_GLOBAL, &plan));
        CHECK_INT(plan.local_batch, cases[i].local);
        CHECK_INT(plan.accumulate, cases[i].accumulate);
        CHECK_INT(plan.global_batch, 768);
    }
    CHECK_FAILS(lks_plan_create_at(&c, 5, LKS_HOLD_GLOBAL, &plan), LKS_E_ARG,
                "5 workers can't share an effective batch of 768 evenly");
    CHECK_FAILS(lks_plan_create_at(&c, 0, LKS_HOLD_LOCAL, &plan), LKS_E_ARG, "the world is 0");
    c.local_batch = 7; /* 84 samples of one worker stay 84 of two: 42 each, in passes of 7 */
    CHECK_OK(lks_plan_create_at(&c, 2, LKS_HOLD_GLOBAL, &plan));
    CHECK_INT(plan.local_batch, 7);
    CHECK_INT(plan.accumulate, 6);
}

static void plans_stand_side_by_side(void **state)
{
    (void)state;
    lks_plan_config c = mnist();
    lks_plan plans[2];
    char *text;
    c.processes = 0;
    CHECK_OK(lks_plan_create_at(&c, 2, LKS_HOLD_LOCAL, &plans[0]));
    CHECK_OK(lks_plan_create_at(&c, 16, LKS_HOLD_LOCAL, &plans[1]));
    CHECK_OK(lks_plans_to_text(2, plans, &text));
    assert_non_null(strstr(text, "effective batch        128  1024\n"));
    assert_non_null(strstr(text, "\n\nwarning, world 16: the larger batch leaves fewer"));
    free(text);
    CHECK_OK(lks_plans_to_json(2, plans, &text));
    json_t *object = json_loads(text, 0, NULL), *list = json_object_get(object, "plans");
    CHECK_INT(json_array_size(list), 2);
    CHECK_INT(json_integer_value(json_object_get(json_array_get(list, 1), "world")), 16);
    json_decref(object);
    free(text);
}

static void the_table_fits_a_terminal(void **state)
{
    (void)state;
    lks_plan_config c = mnist(), wide = mnist();
    wide.world = 4096;
    wide.accumulate = 64;
    wide.tail = LKS_TAIL_PAD;
    wide.lr_rule = LKS_LR_SQRT;
    wide.epochs = 1000;
    wide.n_samples = 123456789;
    lks_plan_config twice = c, ignored = c;
    twice.reduction = LKS_REDUCTION_SUM;
    ignored.lr_rule = LKS_LR_NONE;
    ignored.warmup_from = LKS_WARMUP_FROM_ZERO;
    ignored.warmup_epochs = 100;
    const lks_plan_config configs[] = {c, wide, twice, ignored};
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++) {
        char *text = text_of(configs[i]);
        for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1)
            if (strcspn(line, "\n") > 100)
                fail_msg("a line is longer than 100: %.*s", (int)strcspn(line, "\n"), line);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_made_by_hand_are_refused),
        cmocka_unit_test(json_holds_the_plan),
        cmocka_unit_test(plans_of_sound_runs_have_no_warnings),
        cmocka_unit_test(rates_that_do_not_fit_the_batch_are_warned_of),
        cmocka_unit_test(batches_that_do_not_fit_the_data_are_warned_of),
        cmocka_unit_test(other_bits_are_warned_of),
        cmocka_unit_test(warnings_are_shown),
        cmocka_unit_test(the_curve_is_that_of_the_rate),
        cmocka_unit_test(holding_the_local_batch_makes_the_effective_one_grow),
        cmocka_unit_test(holding_the_effective_batch_changes_how_it_is_shared),
        cmocka_unit_test(plans_stand_side_by_side),
        cmocka_unit_test(the_table_fits_a_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
