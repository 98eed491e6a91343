/* SPDX-License-Identifier: Apache-2.0 */
/* The gain of rule adascale against its formulas worked out by hand. */
#include "check.h"

#include "plan/gain.h"
#include "plans.h"

/* A step that measures exactly what is to be expected of this variance and norm. */
static lks__gain_sample expected_of(double variance, double norm2, int64_t samples, int64_t leaves)
{
    double sum = 0;
    for (int64_t k = 0; k < leaves; k++) {
        int64_t n = samples / leaves + (k < samples % leaves);
        if (n > 0)
            sum += norm2 + variance / (double)n;
    }
    return (lks__gain_sample){samples, leaves, sum, norm2 + variance / (double)samples};
}

/* Twenty or so operations on numbers of the size of the largest: 1e-13 of it is ample. */
static void what_is_expected_is_found(void **state)
{
    (void)state;
    static const int64_t shapes[][2] = {{8, 2}, {64, 8}, {65, 8}, {71, 8}, {2, 2}, {5, 3}, {2, 8}, {7, 8}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        lks__gain_averages averages = {0};
        lks__gain_sample sample = expected_of(48, 3, shapes[i][0], shapes[i][1]);
        lks__gain_add(&averages, &sample);
        double weight = (double)shapes[i][1] / 1000; /* of the newest */
        CHECK_NEAR(averages.variance, 48 * weight, 1e-13 * 48);
        CHECK_NEAR(averages.norm2, 3 * weight, 1e-13 * 48);
        CHECK_NEAR(lks__noise_scale(&averages), 16, 1e-11);
        /* a reference batch of 4 has the variance 12: (12 + 3) / (12 / 2 + 3) */
        CHECK_NEAR(lks__gain(&averages, 8, 4), 15.0 / 9, 1e-11);
    }
}

/* Johnson et al. 2020, section 3.3, for S equal leaves of the size of the reference batch, as it is written
 * there. */
static void equal_leaves_follow_the_paper(void **state)
{
    (void)state;
    enum { S = 4, REFERENCE = 16 };
    double leaf_norm2s = 11 + 9 + 12.5 + 10, norm2 = 4.25;
    double variance = leaf_norm2s / (S - 1) - S * norm2 / (S - 1), mean = norm2 - variance / S;
    lks__gain_averages averages = {0};
    lks__gain_add(&averages, &(lks__gain_sample){S * REFERENCE, S, leaf_norm2s, norm2});
    CHECK_NEAR(averages.variance, REFERENCE * variance * S / 1000, 1e-13);
    CHECK_NEAR(averages.norm2, mean * S / 1000, 1e-14);
    CHECK_NEAR(lks__gain(&averages, S * REFERENCE, REFERENCE), (variance + mean) / (variance / S + mean),
               1e-14);
}

static void averages_forget(void **state)
{
    (void)state;
    lks__gain_averages averages = {1, 1};
    lks__gain_sample sample = expected_of(50, 5, 1000, 100);
    lks__gain_add(&averages, &sample); /* weight 0.1 for the newest */
    CHECK_NEAR(averages.variance, 0.9 + 5, 1e-12);
    CHECK_NEAR(averages.norm2, 0.9 + 0.5, 1e-12);
    sample = expected_of(50, 5, 4000, 2000);
    lks__gain_add(&averages, &sample); /* only the newest */
    CHECK_NEAR(averages.variance, 50, 1e-11);
}

static void gains_stay_in_their_range(void **state)
{
    (void)state;
    CHECK_NEAR(lks__gain(&(lks__gain_averages){0, 0}, 64, 8), 1, 0);
    CHECK_NEAR(lks__gain(&(lks__gain_averages){0, 2}, 64, 8), 1, 0); /* no noise: a larger batch is no help */
    CHECK_NEAR(lks__gain(&(lks__gain_averages){2, 0}, 64, 8), 8, 0); /* noise alone: all help */
    for (int exponent = -20; exponent <= 20; exponent++) {
        double gain = lks__gain(&(lks__gain_averages){ldexp(1, exponent), 1}, 64, 8);
        assert_true(gain >= 1 && gain <= 8);
        gain = lks__gain(&(lks__gain_averages){ldexp(1, exponent), 1}, 2, 8); /* a short last step */
        assert_true(gain >= 0.25 && gain <= 1);
    }
}

static void what_tells_nothing_changes_nothing(void **state)
{
    (void)state;
    lks__gain_averages averages = {3, 4};
    lks__gain_add(&averages, &(lks__gain_sample){1, 8, 5, 5}); /* one leaf with a sample */
    CHECK_NEAR(averages.variance, 3, 0);
    CHECK_NEAR(averages.norm2, 4, 0);
    /* estimates below 0 count as 0 */
    averages = (lks__gain_averages){0};
    lks__gain_add(&averages, &(lks__gain_sample){8, 2, 2, 4});
    CHECK_NEAR(averages.variance, 0, 0);
    assert_true(averages.norm2 > 0);
}

/* --- the plan of a run whose gains are not known --- */

static lks_plan_config adascale(int64_t n_samples, int64_t world, int64_t reference_batch)
{
    lks_plan_config c = mnist();
    c.lr_rule = LKS_LR_ADASCALE;
    c.n_samples = n_samples;
    c.processes = 1;
    c.world = world;
    c.local_batch = 8;
    c.reference_batch = reference_batch;
    return c;
}

/* Steps until the clock has come to its end, when each gain is as small as it can be. */
static int64_t walk(const lks_plan *plan)
{
    int64_t clock = 0, steps = 0;
    for (; clock < plan->samples; steps++) {
        int64_t n = lks_plan_step_samples(plan, steps / plan->steps_per_epoch, steps % plan->steps_per_epoch);
        clock += n < plan->reference_batch ? n : plan->reference_batch;
    }
    return steps;
}

static void steps_are_bounded_by_the_smallest_gains(void **state)
{
    (void)state;
    static const int64_t samples[] = {64, 100, 128, 129, 1000}, references[] = {1, 3, 8, 16, 64, 65, 500};
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++)
        for (size_t j = 0; j < sizeof references / sizeof references[0]; j++)
            for (int tail = LKS_TAIL_EXACT; tail <= LKS_TAIL_PAD; tail++) {
                lks_plan_config c = adascale(samples[i], 8, references[j]);
                c.tail = (lks_tail)tail;
                lks_plan plan = plan_of(c);
                CHECK_INT(plan.samples, 5 * plan.samples_per_epoch);
                CHECK_INT(plan.total_steps, walk(&plan));
            }
}

static void the_rate_is_that_of_the_reference_batch(void **state)
{
    (void)state;
    lks_plan plan = plan_of(adascale(1024, 8, 16));
    CHECK_NEAR(plan.scaled_lr, 0.02, 0);
    CHECK_NEAR(plan.kappa, 4, 0);
    CHECK_INT(plan.warmup_steps, 0);
    CHECK_NEAR(lks_plan_lr(&plan, 0), 0.02, 0);
    CHECK_NEAR(lks_plan_lr(&plan, 2560), 0.01, 1e-17); /* half of 5120 */
}

static void what_adascale_cannot_measure_is_refused(void **state)
{
    (void)state;
    lks_plan plan;
    lks_plan_config c = adascale(1024, 1, 16);
    CHECK_FAILS(lks_plan_create(&c, &plan), LKS_E_ARG, "this step has one: 2 or more workers");
    c = adascale(1024, 8, 16);
    c.epochs = 0;
    c.steps = 10;
    CHECK_FAILS(lks_plan_create(&c, &plan), LKS_E_ARG, "given by epochs or samples, not by steps");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_expected_is_found),
        cmocka_unit_test(equal_leaves_follow_the_paper),
        cmocka_unit_test(averages_forget),
        cmocka_unit_test(gains_stay_in_their_range),
        cmocka_unit_test(what_tells_nothing_changes_nothing),
        cmocka_unit_test(steps_are_bounded_by_the_smallest_gains),
        cmocka_unit_test(the_rate_is_that_of_the_reference_batch),
        cmocka_unit_test(what_adascale_cannot_measure_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
