/* SPDX-License-Identifier: Apache-2.0 */
/** A small run on members that are threads, for tests of what a run writes. */
#ifndef LKS_TESTS_RECORDED_RUN_H
#define LKS_TESTS_RECORDED_RUN_H

#include "thread_members.h"

#include <lockstep/lockstep.h>

enum {
    RECORDED_FEATURES = 5,
    RECORDED_CLASSES = 3,
    RECORDED_TRAIN = 203,
    RECORDED_TEST = 50,
    RECORDED_MEMBERS = 4
};

/** What to run; recorded_run_default() has 30 steps of 32 samples (7 in an epoch, the last one shorter). */
typedef struct recorded_run {
    int members;
    lks_plan_config plan;
    lks_trainer_config trainer; /* what the run itself does not set */
    bool without_test_set;
    int64_t stop_step; /* the first member is asked to stop after this one; 0: none is */
    void (*on_step)(void *context, int rank, const lks_train_progress *progress); /* NULL: none */
    void *context;
} recorded_run;

/** What a member saw of it. */
typedef struct recorded_member {
    seat seat;
    const recorded_run *run;
    lks_train_result result;
    int64_t steps; /* last one that was reported */
    volatile int stop_signal;
} recorded_member;

static float recorded_features[RECORDED_TRAIN][RECORDED_FEATURES];
static int32_t recorded_labels[RECORDED_TRAIN];

/** Group setup for cmocka. */
static inline int recorded_samples(void **state)
{
    (void)state;
    uint32_t x = 4321;
    for (int i = 0; i < RECORDED_TRAIN; i++) {
        recorded_labels[i] = i % RECORDED_CLASSES;
        for (int j = 0; j < RECORDED_FEATURES; j++) {
            x = x * 1664525u + 1013904223u;
            recorded_features[i][j] = (float)(x >> 8) * 0x1p-23f - 1.0f +
                                      (j == recorded_labels[i] ? 0.5f : 0.0f);
        }
    }
    return 0;
}

static inline recorded_run recorded_run_default(int members)
{
    recorded_run run = {
        .members = members, .plan = lks_plan_config_default(), .trainer = lks_trainer_config_default()};
    run.plan.n_samples = RECORDED_TRAIN;
    run.plan.processes = members;
    run.plan.world = 4;
    run.plan.local_batch = 8;
    run.plan.epochs = 0;
    run.plan.steps = 30;
    run.plan.base_lr = 0.05;
    run.trainer.optimizer = lks_optimizer_config_default(LKS_ADAM);
    return run;
}

static void recorded_progress(void *context, const lks_train_progress *progress)
{
    recorded_member *m = context;
    m->steps = progress->step;
    if (lks_group_rank(m->seat.group) == 0 && progress->step == m->run->stop_step)
        m->stop_signal = 15;
    if (m->run->on_step != NULL)
        m->run->on_step(m->run->context, lks_group_rank(m->seat.group), progress);
}

static lks_status recorded_train(void *self)
{
    recorded_member *m = self;
    const int64_t shape = RECORDED_FEATURES, hidden = 4;
    lks_dataset *set = NULL, *test = NULL;
    lks_graph *graph = NULL;
    lks_trainer *trainer = NULL;
    lks_plan plan;
    lks_status status = lks_dataset_from_arrays(RECORDED_TRAIN, 1, &shape, LKS_F32, recorded_features,
                                                recorded_labels, &set);
    if (status == LKS_OK)
        status = lks_dataset_from_arrays(RECORDED_TEST, 1, &shape, LKS_F32, recorded_features,
                                         recorded_labels, &test);
    if (status == LKS_OK)
        status = lks_graph_create_mlp(RECORDED_FEATURES, 1, &hidden, 0, RECORDED_CLASSES, &graph);
    if (status == LKS_OK)
        status = lks_plan_create(&m->run->plan, &plan);
    if (status == LKS_OK) {
        lks_trainer_config config = m->run->trainer;
        config.group = m->seat.group;
        config.plan = &plan;
        config.graph = graph;
        config.train_set = set;
        config.test_set = m->run->without_test_set ? NULL : test;
        config.stop_signal = &m->stop_signal;
        config.progress = recorded_progress;
        config.progress_context = m;
        status = lks_trainer_create(&config, &trainer);
    }
    if (status == LKS_OK)
        status = lks_trainer_run(trainer, &m->result);
    lks_trainer_destroy(trainer);
    lks_graph_destroy(graph);
    lks_dataset_destroy(test);
    lks_dataset_destroy(set);
    return status;
}

static inline void recorded_run_do(const recorded_run *run, recorded_member members[RECORDED_MEMBERS])
{
    for (int i = 0; i < run->members; i++)
        members[i] = (recorded_member){.run = run};
    run_members(run->members, recorded_train, sizeof *members, members);
}

static inline void recorded_run_well(const recorded_run *run, recorded_member members[RECORDED_MEMBERS])
{
    for (int i = 0; i < run->members; i++)
        members[i] = (recorded_member){.run = run};
    run_members_well(run->members, recorded_train, sizeof *members, members);
}

#endif
