/* SPDX-License-Identifier: Apache-2.0 */
/* Runs in which steps go wrong, on groups of threads: what is said, what becomes of the run, and that all
 * members and any number of them do the same. */
#define _GNU_SOURCE /* nftw */
#include "check.h"

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#include <lockstep/lockstep.h>

#include "record/safetensors.h"
#include "train/watch.h"
#include "unit/temp_folder.h"

enum {
    N_FEATURES = 13,
    N_CLASSES = 3,
    N_SAMPLES = 203, /* 6 steps of 32 and one of 11 */
    STEPS_PER_EPOCH = 7,
    LEAVES = 8,
    LOCAL_BATCH = 4,
    MAX_MEMBERS = 8,
    MAX_STEPS = 512,
    MAX_NOTES = 64,
    SEED = 7,
};

static float clean[N_SAMPLES][N_FEATURES], features[N_SAMPLES][N_FEATURES];
static int32_t labels[N_SAMPLES];

static int make_samples(void **state)
{
    (void)state;
    uint32_t x = 12345;
    for (int i = 0; i < N_SAMPLES; i++) {
        labels[i] = i % N_CLASSES;
        for (int j = 0; j < N_FEATURES; j++) {
            x = x * 1664525u + 1013904223u;
            clean[i][j] = (float)(x >> 8) * 0x1p-23f - 1.0f + (j % N_CLASSES == labels[i] ? 0.5f : 0.0f);
        }
    }
    return make_temp_folder(NULL);
}

static int take_clean_samples(void **state)
{
    (void)state;
    memcpy(features, clean, sizeof features);
    for (int i = 0; i < N_SAMPLES; i++)
        labels[i] = i % N_CLASSES;
    return 0;
}

typedef struct trial {
    int members;
    int n_hidden;
    lks_plan_config plan;
    lks_optimizer_config optimizer;
    double clip_norm;
    lks_on_divergence on_divergence;
    const char *output, *resume, *init;
    int64_t checkpoint_every, checkpoint_keep;
    int64_t stop_step; /* asks to stop after so many steps; 0: never */
} trial;

typedef struct member {
    const trial *trial;
    lks_group *group;
    lks_status status;
    char message[2048];
    lks_train_result result;
    double losses[MAX_STEPS], rates[MAX_STEPS];
    int n_notes;
    char notes[MAX_NOTES][256];
    volatile int stop_signal;
} member;

static member one[MAX_MEMBERS], many[MAX_MEMBERS];

static trial default_trial(lks_on_divergence on_divergence)
{
    trial t = {.members = 1,
               .n_hidden = 2,
               .plan = lks_plan_config_default(),
               .optimizer = lks_optimizer_config_default(LKS_SGD),
               .on_divergence = on_divergence,
               .checkpoint_keep = 100};
    t.plan.n_samples = N_SAMPLES;
    t.plan.world = LEAVES;
    t.plan.local_batch = LOCAL_BATCH;
    t.plan.epochs = 0;
    t.plan.steps = 4 * STEPS_PER_EPOCH;
    t.plan.base_lr = 0.05;
    t.optimizer.momentum = 0.9;
    return t;
}

static void on_progress(void *context, const lks_train_progress *progress)
{
    member *m = context;
    if (progress->step <= MAX_STEPS) {
        m->losses[progress->step - 1] = progress->loss;
        m->rates[progress->step - 1] = progress->lr;
    }
    if (m->trial->stop_step == progress->step)
        m->stop_signal = 15;
}

static void on_note(void *context, const char *text)
{
    member *m = context;
    if (m->n_notes < MAX_NOTES)
        snprintf(m->notes[m->n_notes], sizeof m->notes[0], "%s", text);
    m->n_notes++;
}

static lks_trainer_config trainer_config(member *m)
{
    const trial *t = m->trial;
    lks_trainer_config config = lks_trainer_config_default();
    config.group = m->group;
    config.optimizer = t->optimizer;
    config.clip_norm = t->clip_norm;
    config.on_divergence = t->on_divergence;
    config.seed = SEED;
    config.output_path = t->output;
    config.resume_path = t->resume;
    config.init_path = t->init;
    config.hashes_every_steps = 1;
    config.checkpoint_every_steps = t->checkpoint_every;
    config.checkpoint_keep = t->checkpoint_keep;
    config.stop_signal = &m->stop_signal;
    config.progress = on_progress;
    config.note = on_note;
    config.progress_context = m;
    return config;
}

static lks_status train(member *m)
{
    const trial *t = m->trial;
    int64_t shape = N_FEATURES, hidden[] = {17, 9};
    lks_dataset *set = NULL;
    lks_graph *graph = NULL;
    lks_trainer *trainer = NULL;
    lks_plan plan;
    lks_plan_config wanted = t->plan;
    wanted.processes = t->members;
    lks_trainer_config config = trainer_config(m);

    lks_status status = lks_dataset_from_arrays(N_SAMPLES, 1, &shape, LKS_F32, features, labels, &set);
    if (status == LKS_OK)
        status = lks_graph_create_mlp(N_FEATURES, t->n_hidden, hidden, 0, N_CLASSES, &graph);
    if (status == LKS_OK)
        status = lks_plan_create(&wanted, &plan);
    config.plan = &plan;
    config.graph = graph;
    config.train_set = set;
    if (status == LKS_OK)
        status = lks_trainer_create(&config, &trainer);
    if (status == LKS_OK)
        status = lks_trainer_run(trainer, &m->result);
    lks_trainer_destroy(trainer);
    lks_graph_destroy(graph);
    lks_dataset_destroy(set);
    return status;
}

static void *member_main(void *argument)
{
    member *m = argument;
    m->status = train(m);
    if (m->status != LKS_OK)
        snprintf(m->message, sizeof m->message, "%s", lks_error_message());
    lks_group_destroy(m->group);
    return NULL;
}

static void run_trial(const trial *t, member members[MAX_MEMBERS])
{
    lks_group *groups[MAX_MEMBERS];
    pthread_t threads[MAX_MEMBERS];
    CHECK_OK(lks_group_create_threads(t->members, 60, groups));
    for (int i = 0; i < t->members; i++) {
        members[i] = (member){.trial = t, .group = groups[i]};
        CHECK_INT(pthread_create(&threads[i], NULL, member_main, &members[i]), 0);
    }
    for (int i = 0; i < t->members; i++)
        pthread_join(threads[i], NULL);
}

static void run_well(const trial *t, member members[MAX_MEMBERS])
{
    run_trial(t, members);
    for (int i = 0; i < t->members; i++)
        if (members[i].status != LKS_OK)
            fail_msg("member %d of %d: %s", i, t->members, members[i].message);
}

static void check_says(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("the message is \"%s\"\nand lacks \"%s\"", text, part);
}

static void check_lacks(const char *text, const char *part)
{
    if (strstr(text, part) != NULL)
        fail_msg("the message is \"%s\"\nand should not have \"%s\"", text, part);
}

/* The run fails with one message on all members, and with the same one on 1, 2, 4 and 8. Leaves it in
 * one[0].message. */
static void fail_alike(trial t)
{
    t.members = 1;
    run_trial(&t, one);
    CHECK_INT(one[0].status, LKS_E_NOT_FINITE);
    for (t.members = 2; t.members <= MAX_MEMBERS; t.members *= 2) {
        run_trial(&t, many);
        for (int i = 0; i < t.members; i++) {
            CHECK_INT(many[i].status, LKS_E_NOT_FINITE);
            assert_string_equal(many[i].message, one[0].message);
        }
    }
}

/* The run ends on 1, 2, 4 and 8 members with the same bytes and the same count of steps not taken. Run
 * directories are "NAME-MEMBERS" in the temporary folder. Leaves one member's in one[0]. */
static void end_alike(trial t, const char *name, int64_t skipped)
{
    for (t.members = 1; t.members <= MAX_MEMBERS; t.members *= 2) {
        char folder[64];
        snprintf(folder, sizeof folder, "%s-%d", name, t.members);
        t.output = name[0] != '\0' ? in_temp_folder(folder) : NULL;
        member *now = t.members == 1 ? one : many;
        run_well(&t, now);
        for (int i = 0; i < t.members; i++) {
            CHECK_INT(now[i].result.skipped_steps, skipped);
            if (now[i].result.parameters_hash != one[0].result.parameters_hash)
                fail_msg("%s: member %d of %d has other parameters", name, i, t.members);
            assert_memory_equal(now[i].losses, one[0].losses, sizeof now[i].losses);
            assert_memory_equal(&now[i].result.train_loss, &one[0].result.train_loss, sizeof(double));
            assert_true(i == 0 || now[i].n_notes == 0);
        }
        CHECK_INT(now[0].n_notes, one[0].n_notes);
    }
}

/* The samples of a leaf, by the sampler, which has its own tests. Returns their number. */
static int64_t samples_of(int64_t step, int64_t leaf, int64_t out[LOCAL_BATCH])
{
    lks_plan plan;
    lks_sampler *sampler;
    trial t = default_trial(LKS_DIVERGENCE_STOP);
    t.plan.processes = 1;
    CHECK_OK(lks_plan_create(&t.plan, &plan));
    lks_sampler_config config = lks_sampler_config_from_plan(&plan, SEED);
    CHECK_OK(lks_sampler_create(&config, &sampler));
    int64_t n = lks_sampler_leaf(sampler, step / STEPS_PER_EPOCH, step % STEPS_PER_EPOCH, leaf, out);
    lks_sampler_destroy(sampler);
    return n;
}

/* Puts a value into one feature of some sample of a step. Returns the sample. */
static int64_t spoil(int64_t step, int64_t leaf, float value)
{
    int64_t samples[LOCAL_BATCH];
    assert_true(samples_of(step, leaf, samples) > 0);
    features[samples[0]][5] = value;
    return samples[0];
}

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
        check_says(one[0].message, "step 4 (epoch 1, sample 96): the loss is not finite (loss nan");
        snprintf(text, sizeof text, "\n  leaf           %d of 8\n", (int)leaf);
        check_says(one[0].message, text);
        snprintf(text, sizeof text, "\n  its samples    %d, %d, %d, %d\n", (int)samples[0], (int)samples[1],
                 (int)samples[2], (int)samples[3]);
        check_says(one[0].message, text);
        check_says(one[0].message, "\n  first shows in the input\n");
        check_says(one[0].message, "likely cause   the samples have values that are not finite");
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
    check_says(one[0].message, text);
}

/* Finite samples and parameters, but their product is not. */
static void the_layer_in_which_it_shows_first_is_named(void **state)
{
    (void)state;
    for (int i = 0; i < N_SAMPLES; i++)
        for (int j = 0; j < N_FEATURES; j++)
            features[i][j] = i % 2 == 0 ? FLT_MAX : -FLT_MAX;
    fail_alike(default_trial(LKS_DIVERGENCE_STOP));
    check_says(one[0].message, "step 1 ");
    check_says(one[0].message, "\n  first shows in the output of linear \"");
}

/* --- a gradient that is not finite, with a finite loss --- */

/* A linear model whose samples of one leaf of the first step have 1e38 in one feature and the same label:
 * its gradient for that feature is n * 1e38 unless that label is the model's guess, which it is for one label
 * of three. n samples have it; 4e38 is more than a float can hold. */
static trial overflowing_trial(lks_on_divergence on_divergence, int64_t step, int64_t leaf, int n, int label)
{
    trial t = default_trial(on_divergence);
    int64_t samples[LOCAL_BATCH];
    t.n_hidden = 0;
    t.plan.steps = 2 * STEPS_PER_EPOCH;
    CHECK_INT(samples_of(step, leaf, samples), LOCAL_BATCH);
    for (int i = 0; i < n; i++) {
        features[samples[i]][5] = 1e38f;
        labels[samples[i]] = label;
    }
    return t;
}

/* A label that the new model does not give to a sample with such a feature. */
static int wrong_label(void)
{
    for (int label = 0; label < N_CLASSES; label++) {
        take_clean_samples(NULL);
        trial t = overflowing_trial(LKS_DIVERGENCE_STOP, 0, 2, LOCAL_BATCH, label);
        run_trial(&t, many);
        take_clean_samples(NULL);
        if (many[0].status == LKS_E_NOT_FINITE && strstr(many[0].message, "step 1 ") != NULL)
            return label;
    }
    fail_msg("no label of the three is wrong");
    return -1;
}

/* One pass takes the gradient while it adds it up: parameters are gone when it shows, and the leaf can be
 * told where a process has one only. */
static void a_gradient_that_overflows_is_told_from_what_is_left_of_it(void **state)
{
    (void)state;
    trial t = overflowing_trial(LKS_DIVERGENCE_STOP, 0, 2, LOCAL_BATCH, wrong_label());
    for (t.members = 1; t.members <= MAX_MEMBERS; t.members *= 2) {
        char text[128];
        run_trial(&t, many);
        int per_process = LEAVES / t.members, first = 2 / per_process * per_process;
        if (per_process == 1)
            snprintf(text, sizeof text, "\n  leaf           2 of 8\n  its samples ");
        else
            snprintf(text, sizeof text, "\n  leaf           one of %d to %d, of 8\n", first,
                     first + per_process - 1);
        for (int i = 0; i < t.members; i++) {
            CHECK_INT(many[i].status, LKS_E_NOT_FINITE);
            assert_string_equal(many[i].message, many[0].message);
        }
        check_says(many[0].message, "step 1 (epoch 1, sample 0): the gradient is not finite");
        check_says(many[0].message, text);
        check_says(many[0].message, "\n  first shows in the gradient of \"0.weight\"");
        check_says(many[0].message, "likely cause   the samples have values up to 1e+38");
    }
}

/* With a pass that measures first the leaf is told exactly: clipping, and optimizers that want norms. */
static void a_gradient_that_was_measured_first_is_found_in_its_leaf(void **state)
{
    (void)state;
    int label = wrong_label();
    for (int kind = 0; kind < 2; kind++) {
        trial t = overflowing_trial(LKS_DIVERGENCE_STOP, 0, 2, LOCAL_BATCH, label);
        t.clip_norm = kind == 0 ? 1.0 : 0.0;
        if (kind == 1) {
            t.optimizer = lks_optimizer_config_default(LKS_LARS);
            t.optimizer.exclude_biases = true;
        }
        fail_alike(t);
        check_says(one[0].message, "step 1 (epoch 1, sample 0): the gradient is not finite");
        check_says(one[0].message, "\n  leaf           2 of 8\n  its samples ");
        check_says(one[0].message, "\n  first shows in the gradient of \"0.weight\"");
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
    check_says(one[0].message, "the gradient is not finite");
    check_says(one[0].message, "\n  leaf           none alone: their gradients are finite, the sum is not\n");
}

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

static int count_lines(const char *run, const char *file, const char *part)
{
    static char text[1 << 20];
    char path[128];
    snprintf(path, sizeof path, "%s/%s", run, file);
    get_file(in_temp_folder(path), text, sizeof text);
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++)
        n++;
    return n;
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
    check_says(one[0].message, "step 20 ");
    check_says(one[0].message, "for 20 steps in a row");
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
    char path[400], message[sizeof one[0].message];
    trial t = default_trial(LKS_DIVERGENCE_SKIP);
    t.output = in_temp_folder("watch");
    t.checkpoint_every = 12;
    spoil_all();
    run_trial(&t, one);
    CHECK_INT(one[0].status, LKS_E_NOT_FINITE);
    memcpy(message, one[0].message, sizeof message);
    checkpoint_of("watch", 12, path);
    t.output = NULL;
    t.resume = path;
    t.checkpoint_every = 0;
    t.members = 4;
    run_trial(&t, many);
    assert_string_equal(many[3].message, message);

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
        CHECK_INT(many[0].status, LKS_E_NOT_FINITE);
        assert_string_equal(many[0].message, many[1].message);
        CHECK_INT(many[0].n_notes, 3);
        check_says(many[0].message, "going back to the checkpoint of step 2 has not helped, 3 times");
        check_says(many[0].message, "\n  first shows in the input\n");
    }
}

static void without_a_checkpoint_the_run_ends(void **state)
{
    (void)state;
    trial t = default_trial(LKS_DIVERGENCE_ROLLBACK);
    spoil(4, 2, NAN);
    fail_alike(t);
    check_says(one[0].message, "step 5 ");
    check_says(one[0].message, "there is no run directory with a checkpoint to go back to");
    t.output = in_temp_folder("none");
    t.checkpoint_every = 100;
    t.members = 2;
    run_trial(&t, many);
    CHECK_INT(many[1].status, LKS_E_NOT_FINITE);
    assert_string_equal(many[0].message, many[1].message);
    check_says(many[1].message, "there is no checkpoint to go back to");
}

/* --- a loss that is finite and does not come down --- */

/* A linear model with a rate so large that its loss is some thousands. */
static trial diverging_trial(lks_on_divergence on_divergence)
{
    trial t = default_trial(on_divergence);
    t.n_hidden = 0;
    t.plan.base_lr = 1e4;
    t.plan.steps = 300;
    return t;
}

static void a_loss_that_stays_high_ends_the_run(void **state)
{
    (void)state;
    for (int skip = 0; skip < 2; skip++) {
        fail_alike(diverging_trial(skip ? LKS_DIVERGENCE_SKIP : LKS_DIVERGENCE_STOP));
        check_says(one[0].message, "step 101 "); /* the first one's loss is a guess's */
        check_says(one[0].message,
                   "the run diverges: for 100 steps or more, nearly all of them, the loss has been high");
        check_lacks(one[0].message, "leaf");
        check_lacks(one[0].message, "likely cause");
        check_says(one[0].message, "hint: try a smaller learning rate");
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
    check_says(one[0].message, "the run diverges: for 200 steps the model has been no better than a guess");
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
    CHECK_INT(many[0].status, LKS_E_NOT_FINITE);
    check_says(many[0].message, "the loss has been high");
    bad.plan.base_lr = 0.1;
    run_well(&bad, many);
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
    check_says(one[0].message,
               "likely cause   gradients are summed over the 8 leaves of a step: an update is 8 times");

    t = exploding_trial();
    t.plan.lr_rule = LKS_LR_LINEAR;
    t.plan.reference_batch = 4;
    fail_alike(t);
    check_says(one[0].message, "likely cause   the learning rate is scaled by 8 from the first step on");
    trial slow = diverging_trial(LKS_DIVERGENCE_STOP); /* seen after many epochs, but it began in the first */
    slow.plan.lr_rule = LKS_LR_LINEAR;
    slow.plan.reference_batch = 4;
    fail_alike(slow);
    check_says(one[0].message, "likely cause   the learning rate is scaled by 8 from the first step on");
    t.plan.warmup_epochs = 1;
    fail_alike(t);
    check_lacks(one[0].message, "likely cause");
    check_says(one[0].message, "warm-up going on");

    t = exploding_trial();
    t.plan.reference_batch = 128;
    fail_alike(t);
    check_says(one[0].message,
               "likely cause   the learning rate was tuned for a batch of 128, and this one has 32: "
               "in proportion it would be 2.5e+29");

    t = exploding_trial();
    fail_alike(t);
    check_lacks(one[0].message, "likely cause");
    check_says(one[0].message,
               "hint: try a smaller learning rate, a warm-up (lr.warmup_epochs), or clip.norm");

    for (int i = 0; i < N_SAMPLES; i++)
        for (int j = 0; j < N_FEATURES; j++)
            features[i][j] *= 1e4f;
    t = default_trial(LKS_DIVERGENCE_STOP);
    t.plan.base_lr = 1e10;
    fail_alike(t);
    check_says(one[0].message, "likely cause   the samples have values up to 1.");
    check_says(one[0].message, "e+04, where values around 1 are usual (data.normalize)");
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
        TEST(a_loss_that_stays_high_ends_the_run),
        TEST(a_model_that_has_fallen_apart_ends_the_run),
        TEST(a_run_that_learns_slowly_goes_on),
        TEST(a_trained_model_that_diverges_ends_the_run),
        TEST(going_back_passes_over_checkpoints_of_a_high_loss),
        TEST(the_classic_causes_are_named),
    };
    return cmocka_run_group_tests(tests, make_samples, remove_temp_folder);
}
