/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of a run whose steps go wrong: steps that are not taken, and runs that go back to a
 * checkpoint, alike on all members and on any number of them. */
#define _GNU_SOURCE /* nftw */
#include "train/wild_run.h"

#include "record/safetensors.h"
#include "train/watch.h"

/* --- skip --- */

/* One line of hashes.jsonl is a tensor after a step: two steps' lines are compared, but for the step. */
static void check_hashes_equal(const char *run, int a, int b)
{
    char command[512];
    snprintf(
        command, sizeof command,
        "cd %s && for s in %d %d; do grep '^{\"step\": '$s, hashes.jsonl | sed 's/.*\"tensor\"//' >$s.lines; "
        "done && [ -s %d.lines ] && cmp %d.lines %d.lines",
        in_temp_folder(run), a, b, a, a, b);
    CHECK_INT(system(command), 0);
}

/* Two bad samples, one of them in the last step of the epoch: 2 * 4 steps are not taken. Of each epoch the
 * others count. Mean: a dozen additions in double precision of numbers of about 1. */
static void steps_that_go_wrong_are_skipped(void **state)
{
    (void)state;
    trial t = default_trial(LKS_DIVERGENCE_SKIP);
    int64_t samples[LOCAL_BATCH], n_taken = 0;
    double sum = 0.0;
    spoil(3, 4, NAN);
    CHECK_INT(samples_of(6, 3, samples), 1);
    features[samples[0]][0] = INFINITY;
    int skipped = 0;
    end_alike(t, "", 8);
    for (int s = 0; s < t.plan.steps; s++) {
        int64_t n = 0;
        for (int leaf = 0; leaf < LEAVES; leaf++)
            n += samples_of(s, leaf, samples);
        if (!isfinite(one[0].losses[s]))
            skipped++;
        else if (s >= 3 * STEPS_PER_EPOCH) {
            sum += one[0].losses[s] * (double)n;
            n_taken += n;
        }
    }
    CHECK_INT(skipped, 8);
    CHECK_INT(one[0].n_notes, 8);
    assert_string_equal(one[0].notes[0], "step 4: the loss is not finite; the step is not taken");
    CHECK_NEAR(one[0].result.train_loss, sum / (double)n_taken, 1e-12);
    assert_true(one[0].result.train_loss < one[0].losses[0]);
}

static void a_skipped_step_changes_nothing_and_is_recorded(void **state)
{
    (void)state;
    trial t = default_trial(LKS_DIVERGENCE_SKIP);
    t.output = in_temp_folder("skip");
    t.plan.steps = STEPS_PER_EPOCH;
    spoil(3, 4, NAN);
    run_well(&t, one);
    check_hashes_equal("skip", 3, 4);
    CHECK_INT(count_lines("skip", "metrics.jsonl", "the loss is not finite"), 1);
    CHECK_INT(count_lines("skip", "metrics.jsonl", "\"step\": 4, \"samples\": 96, \"epoch\": 0"), 1);
    CHECK_INT(count_lines("skip", "metrics.jsonl", "the step is not taken"), 1);
}

static void a_gradient_that_overflows_is_skipped(void **state)
{
    (void)state;
    trial t = overflowing_trial(LKS_DIVERGENCE_SKIP, 0, 2, LOCAL_BATCH, wrong_label());
    t.plan.steps = 1;
    end_alike(t, "over", 1);
    assert_string_equal(one[0].notes[0], "step 1: the gradient is not finite; the step is not taken");
    check_hashes_equal("over-1", 0, 1);
    check_hashes_equal("over-8", 0, 1);
}

/* A parameter's elements from a file of parameters. Returns their number. */
static int64_t read_elems(const char *path, const char *tensor, int64_t n, float *out)
{
    lks__safetensors *file;
    char whole[128];
    snprintf(whole, sizeof whole, "%s/model.safetensors", path);
    CHECK_OK(lks__safetensors_open(in_temp_folder(whole), &file));
    int64_t shape[] = {n};
    CHECK_OK(lks__safetensors_read(file, tensor, 1, shape, out));
    lks__safetensors_close(file);
    return n;
}

/* The first update of adam is lr * g / (|g| + 1e-8), so lr but for tiny gradients: also when a step before it
 * was not taken. Would the skipped one count, it were 0.74 of that. Output biases: their gradients are means
 * of differences of probabilities, far from 1e-8. */
static void adam_corrects_by_the_updates_that_were_made(void **state)
{
    (void)state;
    float before[N_CLASSES], after[N_CLASSES];
    trial t = default_trial(LKS_DIVERGENCE_SKIP);
    t.optimizer = lks_optimizer_config_default(LKS_ADAM);
    t.plan.base_lr = 0.25;
    spoil(0, 4, NAN);
    for (t.plan.steps = 1; t.plan.steps <= 2; t.plan.steps++) {
        t.output = in_temp_folder(t.plan.steps == 1 ? "adam1" : "adam2");
        run_well(&t, one);
        CHECK_INT(one[0].result.skipped_steps, 1);
    }
    read_elems("adam1", "4.bias", N_CLASSES, before);
    read_elems("adam2", "4.bias", N_CLASSES, after);
    for (int i = 0; i < N_CLASSES; i++) /* 1e-8 / 1e-4, and roundings of f32 */
        CHECK_NEAR(fabs((double)after[i] - (double)before[i]), 0.25, 0.25e-3);
}

static void spoil_all(void)
{
    for (int i = 0; i < N_SAMPLES; i++)
        features[i][0] = NAN;
}

static void skipping_ends_after_twenty_in_a_row(void **state)
{
    (void)state;
    spoil_all();
    fail_alike(default_trial(LKS_DIVERGENCE_SKIP));
    check_says(one[0].seat.message, "step 20 ");
    check_says(one[0].seat.message, "for 20 steps in a row");
}

static void checkpoint_of(const char *run, int step, char out[400])
{
    char name[128];
    snprintf(name, sizeof name, "%s/checkpoints/step-%08d.safetensors", run, step);
    snprintf(out, 400, "%s", in_temp_folder(name));
}

/* The counts, the averages and the loss of the epoch so far are in the checkpoint. */
static void the_watch_goes_on_from_a_checkpoint(void **state)
{
    (void)state;
    char path[400], message[sizeof one[0].seat.message];
    trial t = default_trial(LKS_DIVERGENCE_SKIP);
    t.output = in_temp_folder("watch");
    t.checkpoint_every = 12;
    spoil_all();
    run_trial(&t, one);
    CHECK_INT(one[0].seat.status, LKS_E_NOT_FINITE);
    memcpy(message, one[0].seat.message, sizeof message);
    checkpoint_of("watch", 12, path);
    t.output = NULL;
    t.resume = path;
    t.checkpoint_every = 0;
    t.members = 4;
    run_trial(&t, many);
    assert_string_equal(many[3].seat.message, message);

    take_clean_samples(NULL);
    t = default_trial(LKS_DIVERGENCE_SKIP);
    t.optimizer = lks_optimizer_config_default(LKS_ADAM);
    t.plan.base_lr = 0.01;
    spoil(3, 4, NAN);
    t.output = in_temp_folder("watch2");
    t.checkpoint_every = 12;
    run_well(&t, one);
    checkpoint_of("watch2", 12, path);
    t.output = NULL;
    t.resume = path;
    t.checkpoint_every = 0;
    t.members = 2;
    run_well(&t, many);
    assert_true(one[0].result.parameters_hash == many[1].result.parameters_hash);
    assert_memory_equal(&one[0].result.train_loss, &many[1].result.train_loss, sizeof(double));
}

/* --- every optimizer, and the rule that measures --- */

static void any_optimizer_skips_and_goes_back_alike(void **state)
{
    (void)state;
    static const lks_optimizer_kind kinds[] = {LKS_SGD, LKS_ADAM, LKS_LARS, LKS_LAMB};
    for (int k = 0; k < 4; k++)
        for (int back = 0; back < 2; back++) {
            char name[32];
            trial t = default_trial(back ? LKS_DIVERGENCE_ROLLBACK : LKS_DIVERGENCE_SKIP);
            t.optimizer = lks_optimizer_config_default(kinds[k]);
            t.optimizer.exclude_biases = true;
            t.clip_norm = k % 2 == 1 ? 0.5 : 0.0;
            t.plan.base_lr = 0.01;
            t.checkpoint_every = 2;
            take_clean_samples(NULL);
            spoil(4, 1, NAN);
            snprintf(name, sizeof name, "optimizer%d%d", k, back);
            end_alike(t, name, 4);
            assert_true(one[0].result.train_loss < 2.0); /* finite */
        }
}

/* A step that is not taken has no gain: the clock goes on by the reference batch, as in a step of gain 1, and
 * the averages stay. A schedule of the clock shows it: exponential from the first step on. */
static void adascale_skips_and_goes_back_alike(void **state)
{
    (void)state;
    for (int back = 0; back < 2; back++) {
        trial t = default_trial(back ? LKS_DIVERGENCE_ROLLBACK : LKS_DIVERGENCE_SKIP);
        t.plan.steps = 0;
        t.plan.epochs = 6;
        t.plan.lr_rule = LKS_LR_ADASCALE;
        t.plan.reference_batch = 16;
        t.plan.warmup_epochs = 0;
        t.checkpoint_every = 2;
        take_clean_samples(NULL);
        spoil(4, 1, NAN);
        t.output = in_temp_folder(back ? "gain-back" : "gain");
        run_well(&t, one);
        end_alike(t, back ? "gain-back" : "gain", one[0].result.skipped_steps);
        assert_true(one[0].result.skipped_steps >= 2);
        CHECK_NEAR(one[0].rates[4], 0.05, 1e-15); /* the skipped step has none */
        assert_true(one[0].rates[5] > 0.05);
    }
}

/* --- rollback --- */

/* The same state: tensors, and what a checkpoint says of updates, averages and losses. */
static void check_same_state(const char *a, const char *b)
{
    static const char *const keys[] = {"updates",       "loss_mean",  "loss_variance", "loss_weight",
                                       "gain_variance", "gain_norm2", "high_steps",    "skipped_steps"};
    lks__safetensors *one_file, *other;
    static float x[512], y[512];
    CHECK_OK(lks__safetensors_open(a, &one_file));
    CHECK_OK(lks__safetensors_open(b, &other));
    int n = lks__safetensors_n_tensors(one_file);
    assert_true(n >= 6 * 2);
    CHECK_INT(lks__safetensors_n_tensors(other), n);
    for (int i = 0; i < n; i++) {
        lks__tensor_info info = lks__safetensors_tensor(one_file, i);
        CHECK_OK(lks__safetensors_read(one_file, info.name, info.n_dims, info.shape, x));
        CHECK_OK(lks__safetensors_read(other, info.name, info.n_dims, info.shape, y));
        assert_memory_equal(x, y, (size_t)info.bytes);
    }
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        assert_string_equal(lks__safetensors_metadata(one_file, keys[i]),
                            lks__safetensors_metadata(other, keys[i]));
    lks__safetensors_close(one_file);
    lks__safetensors_close(other);
}

/* Step 7 goes wrong, and the run is asked to stop there, so that its last checkpoint shows what it has gone
 * back to: parameters and momentum of step 4. */
static void going_back_restores_parameters_and_optimizer_state(void **state)
{
    (void)state;
    static const lks_optimizer_kind kinds[] = {LKS_SGD, LKS_ADAM, LKS_SGD};
    for (int k = 0; k < 3; k++)
        for (int members = 1; members <= 8; members *= 8) {
            char name[32], four[400], seven[400];
            trial t = default_trial(LKS_DIVERGENCE_ROLLBACK);
            t.optimizer = lks_optimizer_config_default(kinds[k]);
            t.optimizer.momentum = kinds[k] == LKS_SGD ? 0.9 : 0.0;
            t.plan.base_lr = 0.01;
            t.members = members;
            if (k == 2) {
                t.plan.steps = 0;
                t.plan.epochs = 6;
                t.plan.lr_rule = LKS_LR_ADASCALE;
                t.plan.reference_batch = 16;
            }
            t.checkpoint_every = 4;
            t.stop_step = 6;
            snprintf(name, sizeof name, "back%d%d", k, members);
            t.output = in_temp_folder(name);
            take_clean_samples(NULL);
            spoil(6, 1, NAN);
            run_well(&t, many);
            CHECK_INT(many[0].result.steps, 7);
            CHECK_INT(many[0].result.skipped_steps, 1);
            checkpoint_of(name, 4, four);
            checkpoint_of(name, 7, seven);
            check_same_state(four, seven);
            check_hashes_equal(name, 4, 7);
            CHECK_INT(
                count_lines(name, "metrics.jsonl", "parameters are those of the checkpoint of step 4 again"),
                1);
        }
}

static void the_run_goes_on_behind_the_samples_that_it_passes_over(void **state)
{
    (void)state;
    trial t = default_trial(LKS_DIVERGENCE_ROLLBACK);
    t.checkpoint_every = 3;
    spoil(4, 2, NAN);
    end_alike(t, "on", 4);
    CHECK_INT(one[0].result.steps, 28);
    CHECK_INT(one[0].n_notes, 4);
    assert_string_equal(one[0].notes[0],
                        "step 5: the loss is not finite; parameters are those of the checkpoint "
                        "of step 3 again");
    assert_true(one[0].result.train_loss < one[0].losses[0]);
}

/* Steps 3 to 6: the fourth time the checkpoint of step 2 is not gone back to. With a checkpoint at every
 * step, too, as one of parameters that have just been gone back to would be none but the old one. */
static void a_checkpoint_that_does_not_help_is_given_up(void **state)
{
    (void)state;
    for (int every = 1; every <= 2; every++) {
        char name[32];
        trial t = default_trial(LKS_DIVERGENCE_ROLLBACK);
        t.checkpoint_every = every;
        take_clean_samples(NULL);
        for (int step = 2; step < 6; step++) {
            int64_t samples[LOCAL_BATCH];
            samples_of(step, 0, samples);
            features[samples[0]][3] = NAN;
        }
        snprintf(name, sizeof name, "useless%d", every);
        t.output = in_temp_folder(name);
        t.members = 2;
        run_trial(&t, many);
        CHECK_INT(many[0].seat.status, LKS_E_NOT_FINITE);
        assert_string_equal(many[0].seat.message, many[1].seat.message);
        CHECK_INT(many[0].n_notes, 3);
        check_says(many[0].seat.message, "going back to the checkpoint of step 2 has not helped, 3 times");
        check_says(many[0].seat.message, "\n  first shows in the input\n");
    }
}

static void without_a_checkpoint_the_run_ends(void **state)
{
    (void)state;
    trial t = default_trial(LKS_DIVERGENCE_ROLLBACK);
    spoil(4, 2, NAN);
    fail_alike(t);
    check_says(one[0].seat.message, "step 5 ");
    check_says(one[0].seat.message, "there is no run directory with a checkpoint to go back to");
    t.output = in_temp_folder("none");
    t.checkpoint_every = 100;
    t.members = 2;
    run_trial(&t, many);
    CHECK_INT(many[1].seat.status, LKS_E_NOT_FINITE);
    assert_string_equal(many[0].seat.message, many[1].seat.message);
    check_says(many[1].seat.message, "there is no checkpoint to go back to");
}

/* The rate jumps when the warm-up is over, after 28 steps. Back to a checkpoint from before the loss went
 * high, which has stayed although only the newest one is kept. */
static void going_back_passes_over_checkpoints_of_a_high_loss(void **state)
{
    (void)state;
    trial t = diverging_trial(LKS_DIVERGENCE_ROLLBACK);
    t.plan.base_lr = 1.0; /* then 32 */
    t.plan.lr_rule = LKS_LR_LINEAR;
    t.plan.reference_batch = 1;
    t.plan.warmup = LKS_WARMUP_CONSTANT;
    t.plan.warmup_epochs = 4;
    t.plan.steps = 420;
    t.checkpoint_every = 5;
    t.checkpoint_keep = 1;
    t.members = 2;
    t.output = in_temp_folder("high");
    run_trial(&t, many);
    CHECK_INT(many[0].n_notes >= 1, 1);
    check_says(many[0].notes[0], "the run diverges; parameters are those of the checkpoint of step ");
    int step = 0;
    CHECK_INT(sscanf(strstr(many[0].notes[0], " of step "), " of step %d", &step), 1);
    assert_true(step >= 25 && step <= 30);
    /* counted anew from there on: once more some hundred and fifty steps later; at the end of the run a word
     */
    CHECK_INT(count_lines("high", "metrics.jsonl", "the run diverges"), 2);
    CHECK_INT(many[0].n_notes, 3);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, take_clean_samples)
    const struct CMUnitTest tests[] = {
        TEST(steps_that_go_wrong_are_skipped),
        TEST(a_skipped_step_changes_nothing_and_is_recorded),
        TEST(a_gradient_that_overflows_is_skipped),
        TEST(adam_corrects_by_the_updates_that_were_made),
        TEST(skipping_ends_after_twenty_in_a_row),
        TEST(the_watch_goes_on_from_a_checkpoint),
        TEST(any_optimizer_skips_and_goes_back_alike),
        TEST(adascale_skips_and_goes_back_alike),
        TEST(going_back_restores_parameters_and_optimizer_state),
        TEST(the_run_goes_on_behind_the_samples_that_it_passes_over),
        TEST(a_checkpoint_that_does_not_help_is_given_up),
        TEST(without_a_checkpoint_the_run_ends),
        TEST(going_back_passes_over_checkpoints_of_a_high_loss),
    };
    return cmocka_run_group_tests(tests, make_samples, remove_temp_folder);
}
