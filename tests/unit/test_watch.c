/* SPDX-License-Identifier: Apache-2.0 */
/* The watch over losses and gradient norms, against what its words say, worked out anew from all values. */
#include "check.h"

#include "train/watch.h"

enum { N_CLASSES = 10, MAX_STEPS = 1000 };

static const double guess = 2.302585092994046; /* ln 10 */

/* The weight of value i (0-based) of n: of the first hundred all count alike, and each later one takes a
 * hundredth from all before it. */
static double weight_of(int i, int n)
{
    double weight = i < 100 ? 1.0 / (n < 100 ? n : 100) : 0.01;
    for (int later = i < 100 ? 100 : i + 1; later < n; later++)
        weight *= 0.99;
    return weight;
}

/* A few hundred additions of numbers of about 1 in double precision: 1e-12 is thousands of roundings. */
static void check_running(const lks__running *running, const double *values, int n)
{
    double mean = 0.0, variance = 0.0;
    for (int i = 0; i < n; i++)
        mean += weight_of(i, n) * values[i];
    for (int i = 0; i < n; i++)
        variance += weight_of(i, n) * (values[i] - mean) * (values[i] - mean);
    CHECK_NEAR(running->mean, mean, 1e-12);
    CHECK_NEAR(running->variance, variance, 1e-12);
    CHECK_NEAR(running->weight, n < 100 ? n : 100, 0);
}

static double noise(uint32_t *x)
{
    *x = *x * 1664525u + 1013904223u;
    return (double)(*x >> 8) * 0x1p-24;
}

static void mean_and_deviation_are_those_of_about_a_hundred_values(void **state)
{
    (void)state;
    double values[400];
    uint32_t x = 1;
    lks__running running = {0};
    for (int n = 1; n <= 400; n++) {
        values[n - 1] = 1.0 + noise(&x) + (n > 200 ? 3.0 : 0.0);
        lks__running_add(&running, values[n - 1]);
        check_running(&running, values, n);
    }
}

static bool is_high(const double *losses, int i)
{
    return losses[i] > 3.0 * losses[0] && losses[i] > 3.0 * guess;
}

/* Guesses: counted backwards from the newest loss. */
static void check_counts(const lks__watch *watch, const double *losses, int n)
{
    int high = 0, guesses = 0, left_at = n;
    for (int i = 0; i < n; i++)
        high = is_high(losses, i) ? high + 1 : high > 10 ? high - 10 : 0;
    for (int i = n - 1; i >= 0; i--)
        if (is_high(losses, i) || losses[i] < guess / 2)
            left_at = i;
    while (guesses < n - left_at && losses[n - 1 - guesses] >= 0.9 * guess)
        guesses++;
    CHECK_INT(watch->high_steps, high);
    CHECK_INT(watch->guess_steps, guesses);
    CHECK_INT(watch->left_guess, left_at < n);
    CHECK_INT(lks__watch_diverges(watch), high >= 100 || guesses >= 200);
    CHECK_NEAR(watch->first_loss, losses[0], 0);
}

/* Losses that stay for a while below, at, or far above a guess, in an order of chance. */
static void counts_are_those_of_the_steps_in_a_row(void **state)
{
    (void)state;
    static const double levels[] = {0.3, 0.95, 1.0, 2.9, 3.1, 50.0};
    int diverging = 0;
    for (uint32_t seed = 1; seed <= 20; seed++) {
        double losses[MAX_STEPS];
        uint32_t x = seed;
        lks__watch watch = {0};
        int left = 0;
        double level = seed % 2 == 0 ? 0.95 : 1.0;
        for (int n = 1; n <= MAX_STEPS; n++) {
            if (n > 1 && left-- <= 0) {
                level = levels[(int)(noise(&x) * 6)];
                left = (int)(noise(&x) * 250);
            }
            losses[n - 1] = level * guess * (1.0 + 0.02 * noise(&x));
            lks__watch_add(&watch, N_CLASSES, losses[n - 1], NAN);
            check_counts(&watch, losses, n);
            diverging += lks__watch_diverges(&watch);
        }
    }
    assert_true(diverging > 100 && diverging < 20 * MAX_STEPS); /* both have been met */
}

/* Adds n steps with one loss. Returns whether the run diverges. */
static bool add_steps(lks__watch *watch, int n, double loss)
{
    for (int i = 0; i < n; i++)
        lks__watch_add(watch, N_CLASSES, loss, NAN);
    return lks__watch_diverges(watch);
}

static void a_run_that_learns_slowly_does_not_diverge(void **state)
{
    (void)state;
    lks__watch watch = {0};
    assert_false(add_steps(&watch, 100000, guess));
    assert_false(add_steps(&watch, 1000, 0.95 * guess));
}

static void a_spike_that_recovers_does_not_diverge(void **state)
{
    (void)state;
    lks__watch watch = {0};
    add_steps(&watch, 10, guess);
    assert_false(add_steps(&watch, 99, 100.0));
    assert_false(add_steps(&watch, 100, 1.2 * guess)); /* with the high ones 199 no better than a guess */
    assert_false(add_steps(&watch, 10, 0.8 * guess));
    assert_false(add_steps(&watch, 99, 100.0)); /* counted anew */
    assert_true(add_steps(&watch, 1, 100.0));
}

/* With a small batch some steps of a model that is none any more are right by chance. */
static void a_high_loss_may_have_its_exceptions(void **state)
{
    (void)state;
    lks__watch often = {0}, seldom = {0};
    bool diverges = false;
    add_steps(&often, 10, guess);
    add_steps(&seldom, 10, guess);
    for (int i = 0; i < 100; i++) {
        assert_false(add_steps(&often, 10, 100.0) || add_steps(&often, 1, 0.4));
        diverges = diverges || add_steps(&seldom, 20, 100.0);
        (void)add_steps(&seldom, 1, 0.4);
    }
    assert_true(diverges);
}

static void a_model_that_falls_apart_diverges(void **state)
{
    (void)state;
    lks__watch watch = {0};
    add_steps(&watch, 10, guess);
    add_steps(&watch, 10, 0.4 * guess);
    assert_false(add_steps(&watch, 199, guess));
    assert_true(add_steps(&watch, 1, guess));
}

/* Ten times the loss that a trained model begins with is not yet more than a guess has. */
static void a_trained_model_may_rise_above_its_first_loss(void **state)
{
    (void)state;
    lks__watch watch = {0};
    assert_false(add_steps(&watch, 10, 0.1));
    assert_false(add_steps(&watch, 1000, 1.0));
    assert_false(add_steps(&watch, 199, 2.9 * guess));
    assert_true(add_steps(&watch, 1, 2.9 * guess)); /* but for 200 steps it guesses */
}

/* A bad beginning: what comes down from there is no divergence. */
static void a_high_first_loss_is_no_divergence(void **state)
{
    (void)state;
    lks__watch watch = {0};
    assert_false(add_steps(&watch, 1000, 500.0));
    assert_false(add_steps(&watch, 1000, 1400.0));
    assert_false(add_steps(&watch, 1000, guess));
}

static void without_classes_only_a_rise_counts(void **state)
{
    (void)state;
    lks__watch watch = {0};
    CHECK_NEAR(lks__loss_of_guess(1), 0, 0);
    CHECK_NEAR(lks__loss_of_guess(10), guess, 1e-15);
    for (int i = 0; i < 300; i++)
        lks__watch_add(&watch, 1, 0.0, NAN);
    assert_false(lks__watch_diverges(&watch));
}

static void only_measured_norms_count(void **state)
{
    (void)state;
    lks__watch watch = {0};
    lks__watch_add(&watch, N_CLASSES, 1.0, NAN);
    lks__watch_add(&watch, N_CLASSES, 1.0, 3.0);
    lks__watch_add(&watch, N_CLASSES, 1.0, NAN);
    lks__watch_add(&watch, N_CLASSES, 1.0, 5.0);
    check_running(&watch.grad_norm, (const double[]){3.0, 5.0}, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mean_and_deviation_are_those_of_about_a_hundred_values),
        cmocka_unit_test(counts_are_those_of_the_steps_in_a_row),
        cmocka_unit_test(a_run_that_learns_slowly_does_not_diverge),
        cmocka_unit_test(a_spike_that_recovers_does_not_diverge),
        cmocka_unit_test(a_high_loss_may_have_its_exceptions),
        cmocka_unit_test(a_model_that_falls_apart_diverges),
        cmocka_unit_test(a_trained_model_may_rise_above_its_first_loss),
        cmocka_unit_test(a_high_first_loss_is_no_divergence),
        cmocka_unit_test(without_classes_only_a_rise_counts),
        cmocka_unit_test(only_measured_norms_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
