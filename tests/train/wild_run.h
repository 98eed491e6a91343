/* SPDX-License-Identifier: Apache-2.0 */
/** Runs in which steps go wrong, on groups of threads. The including file defines _GNU_SOURCE (nftw). */
#ifndef LKS_TESTS_WILD_RUN_H
#define LKS_TESTS_WILD_RUN_H

#include "thread_members.h"

#include <math.h>
#include <stdlib.h>

#include <lockstep/lockstep.h>

#include "unit/temp_folder.h"

enum {
    N_FEATURES = 13,
    N_CLASSES = 3,
    N_SAMPLES = 203, /* 6 steps of 32 and one of 11 */
    STEPS_PER_EPOCH = 7,
    LEAVES = 8,
    LOCAL_BATCH = 4,
    MAX_STEPS = 512,
    MAX_NOTES = 64,
    SEED = 7,
};

static float clean[N_SAMPLES][N_FEATURES], features[N_SAMPLES][N_FEATURES];
static int32_t labels[N_SAMPLES];

static inline int make_samples(void **state)
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

static inline int take_clean_samples(void **state)
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
    double clip_norm, clip_value;
    lks_on_divergence on_divergence;
    const char *output, *resume, *init;
    int64_t checkpoint_every, checkpoint_keep;
    int64_t stop_step; /* asks to stop after so many steps; 0: never */
} trial;

typedef struct member {
    seat seat;
    const trial *trial;
    lks_train_result result;
    double losses[MAX_STEPS], rates[MAX_STEPS];
    int n_notes;
    char notes[MAX_NOTES][256];
    volatile int stop_signal;
} member;

static member one[MAX_MEMBERS], many[MAX_MEMBERS];

static inline trial default_trial(lks_on_divergence on_divergence)
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

static inline void on_progress(void *context, const lks_train_progress *progress)
{
    member *m = context;
    if (progress->step <= MAX_STEPS) {
        m->losses[progress->step - 1] = progress->loss;
        m->rates[progress->step - 1] = progress->lr;
    }
    if (m->trial->stop_step == progress->step)
        m->stop_signal = 15;
}

static inline void on_note(void *context, const char *text)
{
    member *m = context;
    if (m->n_notes < MAX_NOTES)
        snprintf(m->notes[m->n_notes], sizeof m->notes[0], "%s", text);
    m->n_notes++;
}

static inline lks_trainer_config trainer_config(member *m)
{
    const trial *t = m->trial;
    lks_trainer_config config = lks_trainer_config_default();
    config.group = m->seat.group;
    config.optimizer = t->optimizer;
    config.clip_norm = t->clip_norm;
    config.clip_value = t->clip_value;
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

static inline lks_status train(void *self)
{
    member *m = self;
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

static inline void begin(const trial *t, member members[MAX_MEMBERS])
{
    for (int i = 0; i < t->members; i++)
        members[i] = (member){.trial = t};
}

static inline void run_trial(const trial *t, member members[MAX_MEMBERS])
{
    begin(t, members);
    run_members(t->members, train, sizeof *members, members);
}

static inline void run_well(const trial *t, member members[MAX_MEMBERS])
{
    begin(t, members);
    run_members_well(t->members, train, sizeof *members, members);
}

static inline void check_says(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("the message is \"%s\"\nand lacks \"%s\"", text, part);
}

static inline void check_lacks(const char *text, const char *part)
{
    if (strstr(text, part) != NULL)
        fail_msg("the message is \"%s\"\nand should not have \"%s\"", text, part);
}

/* The run fails with one message on all members, and with the same one on 1, 2, 4 and 8. Leaves it in
 * one[0].seat.message. */
static inline void fail_alike(trial t)
{
    t.members = 1;
    run_trial(&t, one);
    CHECK_INT(one[0].seat.status, LKS_E_NOT_FINITE);
    for (t.members = 2; t.members <= MAX_MEMBERS; t.members *= 2) {
        run_trial(&t, many);
        for (int i = 0; i < t.members; i++) {
            CHECK_INT(many[i].seat.status, LKS_E_NOT_FINITE);
            assert_string_equal(many[i].seat.message, one[0].seat.message);
        }
    }
}

/* The run ends on 1, 2, 4 and 8 members with the same bytes and the same count of steps not taken. Run
 * directories are "NAME-MEMBERS" in the temporary folder. Leaves one member's in one[0]. */
static inline void end_alike(trial t, const char *name, int64_t skipped)
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
static inline int64_t samples_of(int64_t step, int64_t leaf, int64_t out[LOCAL_BATCH])
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
static inline int64_t spoil(int64_t step, int64_t leaf, float value)
{
    int64_t samples[LOCAL_BATCH];
    assert_true(samples_of(step, leaf, samples) > 0);
    features[samples[0]][5] = value;
    return samples[0];
}

/* A linear model whose samples of one leaf of the first step have 1e38 in one feature and the same label:
 * its gradient for that feature is n * 1e38 unless that label is the model's guess, which it is for one label
 * of three. n samples have it; 4e38 is more than a float can hold. */
static inline trial overflowing_trial(lks_on_divergence on_divergence, int64_t step, int64_t leaf, int n,
                                      int label)
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
static inline int wrong_label(void)
{
    for (int label = 0; label < N_CLASSES; label++) {
        take_clean_samples(NULL);
        trial t = overflowing_trial(LKS_DIVERGENCE_STOP, 0, 2, LOCAL_BATCH, label);
        run_trial(&t, many);
        take_clean_samples(NULL);
        if (many[0].seat.status == LKS_E_NOT_FINITE && strstr(many[0].seat.message, "step 1 ") != NULL)
            return label;
    }
    fail_msg("no label of the three is wrong");
    return -1;
}

/* A linear model with a rate so large that its loss is some thousands. */
static inline trial diverging_trial(lks_on_divergence on_divergence)
{
    trial t = default_trial(on_divergence);
    t.n_hidden = 0;
    t.plan.base_lr = 1e4;
    t.plan.steps = 300;
    return t;
}

static inline int count_lines(const char *run, const char *file, const char *part)
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

#endif
