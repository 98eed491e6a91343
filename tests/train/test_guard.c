/* SPDX-License-Identifier: Apache-2.0 */
/* What is said of a run whose steps go wrong or that diverges: by all members, and by any number of them, the
 * same. */
#define _GNU_SOURCE /* nftw */
#include "train/wild_run.h"

#include <float.h>

/* --- a loss that is not finite --- */

static void a_bad_sample_is_named_on_any_number_of_members(void **state)
{
    (void)state;
    static const float values[] = {NAN, INFINITY, -INFINITY};
    for (int v = 0; v < 3; v++) {
        int64_t samples[LOCAL_BATCH];
        char text[128];
        take_clean_samples(NULL);
        /* samples of one leaf and of a later one: the first leaf is told */
        int64_t leaf = v == 0 ? 0 : v == 1 ? 5 : 7;
        spoil(3, leaf, values[v]);
        spoil(3, 7, values[v]);
        CHECK_INT(samples_of(3, leaf, samples), LOCAL_BATCH);
        fail_alike(default_trial(LKS_DIVERGENCE_STOP));
        check_says(one[0].seat.message, "step 4 (epoch 1, sample 96): the loss is not finite (loss nan");
        snprintf(text, sizeof text, "\n  leaf           %d of 8\n", (int)leaf);
        check_says(one[0].seat.message, text);
        snprintf(text, sizeof text, "\n  its samples    %d, %d, %d, %d\n", (int)samples[0], (int)samples[1],
                 (int)samples[2], (int)samples[3]);
        check_says(one[0].seat.message, text);
        check_says(one[0].seat.message, "\n  first shows in the input\n");
        check_says(one[0].seat.message, "likely cause   the samples have values that are not finite");
    }
}

/* The last step of an epoch has 11 samples: leaf 3 has one. */
static void a_bad_sample_in_a_short_leaf_is_named(void **state)
{
    (void)state;
    int64_t samples[LOCAL_BATCH];
    char text[128];
    CHECK_INT(samples_of(6, 3, samples), 1);
    spoil(6, 3, NAN);
    fail_alike(default_trial(LKS_DIVERGENCE_STOP));
    snprintf(text, sizeof text,
             "\n  leaf           3 of 8\n  its samples    %d\n  first shows in the input\n", (int)samples[0]);
    check_says(one[0].seat.message, text);
}

/* Finite samples and parameters, but their product is not. */
static void the_layer_in_which_it_shows_first_is_named(void **state)
{
    (void)state;
    for (int i = 0; i < N_SAMPLES; i++)
        for (int j = 0; j < N_FEATURES; j++)
            features[i][j] = i % 2 == 0 ? FLT_MAX : -FLT_MAX;
    fail_alike(default_trial(LKS_DIVERGENCE_STOP));
    check_says(one[0].seat.message, "step 1 ");
    check_says(one[0].seat.message, "\n  first shows in the output of linear \"");
}

/* --- a gradient that is not finite, with a finite loss --- */

/* One pass takes the gradient while it adds it up: parameters are gone when it shows, and the leaf can be
 * told where a process has one only. Over several machines the sum over all leaves is what is left. */
static void a_gradient_that_overflows_is_told_from_what_is_left_of_it(void **state)
{
    (void)state;
    trial t = overflowing_trial(LKS_DIVERGENCE_STOP, 0, 2, LOCAL_BATCH, wrong_label());
    for (int i = 0; i < 8; i++) {
        char text[128];
        t.members = 1 << i / 2;
        t.clip_value = i % 2 == 0 ? 0.0 : 0.5;
        run_trial(&t, many);
        int summed = machines_of_members[t.members - 1] > 0 ? LEAVES : LEAVES / t.members;
        int first = 2 / summed * summed;
        if (summed == 1)
            snprintf(text, sizeof text, "\n  leaf           2 of 8\n  its samples ");
        else
            snprintf(text, sizeof text, "\n  leaf           one of %d to %d, of 8\n", first,
                     first + summed - 1);
        for (int k = 0; k < t.members; k++) {
            CHECK_INT(many[k].seat.status, LKS_E_NOT_FINITE);
            assert_string_equal(many[k].seat.message, many[0].seat.message);
        }
        check_says(many[0].seat.message, "step 1 (epoch 1, sample 0): the gradient is not finite");
        check_says(many[0].seat.message, text);
        check_says(many[0].seat.message, "\n  first shows in the gradient of \"0.weight\"");
        check_says(many[0].seat.message, "likely cause   the samples have values up to 1e+38");
    }
}

/* With a pass that measures first the leaf is told exactly: clipping, and optimizers that want norms. */
static void a_gradient_that_was_measured_first_is_found_in_its_leaf(void **state)
{
    (void)state;
    int label = wrong_label();
    for (int kind = 0; kind < 3; kind++) {
        trial t = overflowing_trial(LKS_DIVERGENCE_STOP, 0, 2, LOCAL_BATCH, label);
        t.clip_norm = kind == 1 ? 0.0 : 1.0;
        t.clip_value = kind == 2 ? 0.5 : 0.0; /* which infinity is not brought into */
        if (kind == 1) {
            t.optimizer = lks_optimizer_config_default(LKS_LARS);
            t.optimizer.exclude_biases = true;
        }
        fail_alike(t);
        check_says(one[0].seat.message, "step 1 (epoch 1, sample 0): the gradient is not finite");
        check_says(one[0].seat.message, "\n  leaf           2 of 8\n  its samples ");
        check_says(one[0].seat.message, "\n  first shows in the gradient of \"0.weight\"");
    }
}

/* One sample of 1e38 in each of four leaves: no leaf's gradient is too large. */
static void a_gradient_that_overflows_in_the_sum_only_is_told_so(void **state)
{
    (void)state;
    int label = wrong_label();
    trial t = default_trial(LKS_DIVERGENCE_STOP);
    for (int leaf = 0; leaf < 8; leaf += 2)
        t = overflowing_trial(LKS_DIVERGENCE_STOP, 0, leaf, 1, label);
    t.clip_norm = 1.0;
    fail_alike(t);
    check_says(one[0].seat.message, "the gradient is not finite");
    check_says(one[0].seat.message,
               "\n  leaf           none alone: their gradients are finite, the sum is not\n");
}

/* --- a loss that is finite and does not come down --- */

static void a_loss_that_stays_high_ends_the_run(void **state)
{
    (void)state;
    for (int skip = 0; skip < 2; skip++) {
        fail_alike(diverging_trial(skip ? LKS_DIVERGENCE_SKIP : LKS_DIVERGENCE_STOP));
        check_says(one[0].seat.message, "step 101 "); /* the first one's loss is a guess's */
        check_says(one[0].seat.message,
                   "the run diverges: for 100 steps or more, nearly all of them, the loss has been high");
        check_lacks(one[0].seat.message, "leaf");
        check_lacks(one[0].seat.message, "likely cause");
        check_says(one[0].seat.message, "hint: try a smaller learning rate");
    }
}

/* With hidden layers such a rate kills all units within a few steps: what is left are biases. */
static void a_model_that_has_fallen_apart_ends_the_run(void **state)
{
    (void)state;
    trial t = default_trial(LKS_DIVERGENCE_STOP);
    t.plan.steps = 400;
    t.plan.base_lr = 10.0;
    t.plan.schedule.kind = LKS_SCHEDULE_MULTISTEP;
    t.plan.schedule.n_milestones = 2;
    t.plan.schedule.milestones[0] = 1;
    t.plan.schedule.milestones[1] = 12;
    t.plan.schedule.gamma = 0.01;
    fail_alike(t);
    check_says(one[0].seat.message,
               "the run diverges: for 200 steps the model has been no better than a guess");
}

static void a_run_that_learns_slowly_goes_on(void **state)
{
    (void)state;
    trial t = default_trial(LKS_DIVERGENCE_STOP);
    t.plan.base_lr = 1e-6;
    t.plan.steps = 400;
    run_well(&t, one);
    CHECK_INT(one[0].n_notes, 1);
    check_says(one[0].notes[0], "the run has ended no better than a guess (train loss 1.");
    check_says(one[0].notes[0], "; a guess has 1.10)");
    check_lacks(one[0].notes[0], "likely cause");
}

/* Trained, then with a rate that is too large: measured against a guess, not against its small first loss. */
static void a_trained_model_that_diverges_ends_the_run(void **state)
{
    (void)state;
    trial t = default_trial(LKS_DIVERGENCE_STOP);
    t.n_hidden = 0;
    t.plan.base_lr = 0.1;
    t.plan.steps = 300;
    t.output = in_temp_folder("trained");
    run_well(&t, one);
    CHECK_INT(one[0].n_notes, 0);
    trial bad = diverging_trial(LKS_DIVERGENCE_STOP);
    char path[400];
    snprintf(path, sizeof path, "%s", in_temp_folder("trained/model.safetensors"));
    bad.init = path;
    run_trial(&bad, many);
    CHECK_INT(many[0].seat.status, LKS_E_NOT_FINITE);
    check_says(many[0].seat.message, "the loss has been high");
    bad.plan.base_lr = 0.1;
    run_well(&bad, many);
}

/* --- causes --- */

static trial exploding_trial(void)
{
    trial t = default_trial(LKS_DIVERGENCE_STOP);
    t.plan.base_lr = 1e30;
    return t;
}

static void the_classic_causes_are_named(void **state)
{
    (void)state;
    trial t = exploding_trial();
    t.plan.reduction = LKS_REDUCTION_SUM;
    fail_alike(t);
    check_says(one[0].seat.message,
               "likely cause   gradients are summed over the 8 leaves of a step: an update is 8 times");

    t = exploding_trial();
    t.plan.lr_rule = LKS_LR_LINEAR;
    t.plan.reference_batch = 4;
    fail_alike(t);
    check_says(one[0].seat.message, "likely cause   the learning rate is scaled by 8 from the first step on");
    trial slow = diverging_trial(LKS_DIVERGENCE_STOP); /* seen after many epochs, but it began in the first */
    slow.plan.lr_rule = LKS_LR_LINEAR;
    slow.plan.reference_batch = 4;
    fail_alike(slow);
    check_says(one[0].seat.message, "likely cause   the learning rate is scaled by 8 from the first step on");
    t.plan.warmup_epochs = 1;
    fail_alike(t);
    check_lacks(one[0].seat.message, "likely cause");
    check_says(one[0].seat.message, "warm-up going on");

    t = exploding_trial();
    t.plan.reference_batch = 128;
    fail_alike(t);
    check_says(one[0].seat.message,
               "likely cause   the learning rate was tuned for a batch of 128, and this one has 32: "
               "in proportion it would be 2.5e+29");

    t = exploding_trial();
    fail_alike(t);
    check_lacks(one[0].seat.message, "likely cause");
    check_says(one[0].seat.message,
               "hint: try a smaller learning rate, a warm-up (lr.warmup_epochs), or clip.norm");

    for (int i = 0; i < N_SAMPLES; i++)
        for (int j = 0; j < N_FEATURES; j++)
            features[i][j] *= 1e4f;
    t = default_trial(LKS_DIVERGENCE_STOP);
    t.plan.base_lr = 1e10;
    fail_alike(t);
    check_says(one[0].seat.message, "likely cause   the samples have values up to 1.");
    check_says(one[0].seat.message, "e+04, where values around 1 are usual (data.normalize)");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, take_clean_samples)
    const struct CMUnitTest tests[] = {
        TEST(a_bad_sample_is_named_on_any_number_of_members),
        TEST(a_bad_sample_in_a_short_leaf_is_named),
        TEST(the_layer_in_which_it_shows_first_is_named),
        TEST(a_gradient_that_overflows_is_told_from_what_is_left_of_it),
        TEST(a_gradient_that_was_measured_first_is_found_in_its_leaf),
        TEST(a_gradient_that_overflows_in_the_sum_only_is_told_so),
        TEST(a_loss_that_stays_high_ends_the_run),
        TEST(a_model_that_has_fallen_apart_ends_the_run),
        TEST(a_run_that_learns_slowly_goes_on),
        TEST(a_trained_model_that_diverges_ends_the_run),
        TEST(the_classic_causes_are_named),
    };
    return cmocka_run_group_tests(tests, make_samples, remove_temp_folder);
}
