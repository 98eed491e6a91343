/* SPDX-License-Identifier: Apache-2.0 */
/** Schedules of the learning rate, against PyTorch's and by hand. */
#include "check.h"

#include <lockstep/plan.h>

#include "conf/options.h"

/* 8 epochs of 5 steps of 8 samples; rate 0.4. With a warm-up: from 0.1, tuned for a quarter of the batch. */
enum { EPOCHS = 8, STEPS = 5, BATCH = 8 };

static lks_plan_config run_of(lks_schedule schedule, int warmup_steps)
{
    lks_plan_config c = lks_plan_config_default();
    c.n_samples = STEPS * BATCH;
    c.local_batch = BATCH;
    c.processes = 1;
    c.epochs = EPOCHS;
    c.base_lr = 0.4;
    c.schedule = schedule;
    if (warmup_steps > 0) {
        c.base_lr = 0.1;
        c.lr_rule = LKS_LR_LINEAR;
        c.reference_batch = BATCH / 4;
        c.warmup_epochs = (double)warmup_steps / STEPS;
    }
    return c;
}

static lks_plan plan_of(lks_plan_config c)
{
    lks_plan plan = {0};
    CHECK_OK(lks_plan_create(&c, &plan));
    return plan;
}

static lks_schedule schedule_of(lks_schedule_kind kind)
{
    lks_schedule schedule = lks_plan_config_default().schedule;
    schedule.kind = kind;
    return schedule;
}

/* --- PyTorch's --- */

/* "lr.schedule=step;lr.step_epochs=3"; what is not said is as by default. */
static lks_schedule parse_settings(char *text)
{
    lks__settings settings = {.schedule = lks_plan_config_default().schedule};
    char *rest;
    for (char *word = strtok_r(text, ";", &rest); word != NULL; word = strtok_r(NULL, ";", &rest)) {
        char *equals = strchr(word, '=');
        assert_non_null(equals);
        *equals = '\0';
        CHECK_OK(lks__option_parse(lks__option_find(word), equals + 1, &settings));
    }
    return settings.schedule;
}

/* A line of lr_vectors.txt behind its first two fields. */
static void compare_rates(FILE *file, const lks_plan *plan, int n)
{
    CHECK_INT(n, plan->total_steps);
    for (int t = 0; t < n; t++) {
        double expected;
        CHECK_INT(fscanf(file, "%lf", &expected), 1);
        /* 1e-14: PyTorch computes each rate from the one before, 40 steps with a few roundings of 2^-53 each
         */
        CHECK_NEAR(lks_plan_lr(plan, t * BATCH), expected, 1e-14);
    }
}

static void rates_are_those_of_pytorch(void **state)
{
    (void)state;
    FILE *file = fopen(LKS_SOURCE_DIR "/tests/reference/lr_vectors.txt", "r");
    assert_non_null(file);
    unsigned kinds = 0;
    int warmup, n;
    char settings[100];
    CHECK_INT(fscanf(file, "#%*[^\n]"), 0);
    while (fscanf(file, "%99s %d %d", settings, &warmup, &n) == 3) {
        lks_plan plan = plan_of(run_of(parse_settings(settings), warmup));
        CHECK_INT(plan.warmup_steps, warmup);
        compare_rates(file, &plan, n);
        kinds |= 1u << plan.schedule.kind;
    }
    fclose(file);
    unsigned all = (2u << LKS_SCHEDULE_EXPONENTIAL) - 1;
    CHECK_INT(kinds, all & ~(1u << LKS_SCHEDULE_CONSTANT));
}

/* --- by hand --- */

/* Goyal et al. 2017, section 5.1: the epochs of a fall count from the start of the run, the warm-up's too. */
static void falls_count_epochs_from_the_start_of_the_run(void **state)
{
    (void)state;
    lks_schedule schedule = schedule_of(LKS_SCHEDULE_MULTISTEP);
    schedule.n_milestones = 2;
    schedule.milestones[0] = 3;
    schedule.milestones[1] = 6;
    lks_plan plan = plan_of(run_of(schedule, 2 * STEPS));
    const int epoch = STEPS * BATCH;
    CHECK_NEAR(lks_plan_lr(&plan, epoch), 0.25, 1e-15); /* half of the warm-up from 0.1 to 0.4 */
    CHECK_NEAR(lks_plan_lr(&plan, 3 * epoch - 1), 0.4, 1e-15);
    CHECK_NEAR(lks_plan_lr(&plan, 3 * epoch), 0.04, 1e-15);
    CHECK_NEAR(lks_plan_lr(&plan, 6 * epoch), 0.004, 1e-15);
    CHECK_NEAR(lks_plan_lr(&plan, 8 * epoch), 0.004, 1e-15);
}

/* A short last step: epochs end where their samples do, not after a number of whole batches. */
static void epochs_end_where_their_samples_do(void **state)
{
    (void)state;
    lks_schedule schedule = schedule_of(LKS_SCHEDULE_EXPONENTIAL);
    schedule.gamma = 0.5;
    lks_plan_config c = run_of(schedule, 0);
    c.n_samples = 33; /* four whole steps and one of a single sample */
    lks_plan plan = plan_of(c);
    CHECK_NEAR(lks_plan_lr(&plan, 32), 0.4, 1e-15);
    CHECK_NEAR(lks_plan_lr(&plan, 33), 0.2, 1e-15);
    CHECK_NEAR(lks_plan_lr(&plan, 65), 0.2, 1e-15);
    CHECK_NEAR(lks_plan_lr(&plan, 66), 0.1, 1e-15);
}

static void decays_end_at_their_end_factor(void **state)
{
    (void)state;
    static const lks_schedule_kind kinds[] = {LKS_SCHEDULE_COSINE, LKS_SCHEDULE_LINEAR};
    const int end = EPOCHS * STEPS * BATCH;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        lks_schedule schedule = schedule_of(kinds[i]);
        schedule.end_factor = 0.5;
        lks_plan plan = plan_of(run_of(schedule, STEPS));
        CHECK_NEAR(lks_plan_lr(&plan, end), 0.2, 1e-15);
        CHECK_NEAR(lks_plan_lr(&plan, 2 * end), 0.2, 1e-15);
    }
    lks_plan plan = plan_of(run_of(schedule_of(LKS_SCHEDULE_POLYNOMIAL), 0));
    CHECK_NEAR(lks_plan_lr(&plan, end), 0.0, 0);
    CHECK_NEAR(lks_plan_lr(&plan, 2 * end), 0.0, 0);
}

/* --- what is refused --- */

static void mistakes_are_refused(void **state)
{
    (void)state;
    lks_schedule end = schedule_of(LKS_SCHEDULE_COSINE), power = schedule_of(LKS_SCHEDULE_POLYNOMIAL);
    lks_schedule gamma = schedule_of(LKS_SCHEDULE_EXPONENTIAL), step = schedule_of(LKS_SCHEDULE_STEP);
    lks_schedule none = schedule_of(LKS_SCHEDULE_MULTISTEP), many = none, falling = none, zero = none;
    end.end_factor = 1.5;
    power.power = 0;
    gamma.gamma = NAN;
    many.n_milestones = LKS_MAX_MILESTONES + 1;
    falling.n_milestones = 2;
    falling.milestones[0] = falling.milestones[1] = 5;
    zero.n_milestones = 1;
    const struct {
        lks_schedule schedule;
        const char *message;
    } cases[] = {
        {end, "lr.end_factor is 1.5; a number from 0 to 1 is needed"},
        {power, "lr.power is 0; a number > 0 is needed"},
        {gamma, "lr.gamma is nan; a number > 0 and <= 1 is needed"},
        {step, "lr.step_epochs is 0; an integer >= 1 is needed"},
        {none, "lr.milestones has 0 epochs; from 1 to 32 are needed"},
        {many, "lr.milestones has 33 epochs; from 1 to 32 are needed"},
        {falling, "lr.milestones has 5 after 5; epochs >= 1 in rising order are needed"},
        {zero, "lr.milestones has 0 after 0; epochs >= 1 in rising order are needed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lks_plan_config c = run_of(cases[i].schedule, 0);
        lks_plan plan;
        CHECK_FAILS(lks_plan_create(&c, &plan), LKS_E_ARG, cases[i].message);
        c.schedule.kind = LKS_SCHEDULE_CONSTANT; /* which uses none of it */
        CHECK_OK(lks_plan_create(&c, &plan));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_are_those_of_pytorch),
        cmocka_unit_test(falls_count_epochs_from_the_start_of_the_run),
        cmocka_unit_test(epochs_end_where_their_samples_do),
        cmocka_unit_test(decays_end_at_their_end_factor),
        cmocka_unit_test(mistakes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
