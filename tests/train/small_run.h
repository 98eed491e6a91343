/* SPDX-License-Identifier: Apache-2.0 */
/** Runs of a very small network, by the trainer on groups of threads, and what a definition of the same run
 * in double precision needs: the same start, the same samples in the same order. The including file defines
 * _GNU_SOURCE. */
#ifndef LKS_TESTS_SMALL_RUN_H
#define LKS_TESTS_SMALL_RUN_H

#include "thread_members.h"

#include <lockstep/lockstep.h>

#include "base/alloc.h"
#include "nn/oracle.h"
#include "record/safetensors.h"
#include "unit/temp_folder.h"

enum {
    FEATURES = 5,
    HIDDEN = 6,
    CLASSES = 3,
    TENSORS = 4,
    MAX_ELEMS = HIDDEN * HIDDEN, /* of a tensor */
    MAX_N = 64,
    MAX_STEPS = 64,
    SEED = 3
};

/* What the runs start from and learn: set by set_up. */
static float features[MAX_N][FEATURES];
static int32_t labels[MAX_N];
static float start_values[TENSORS][MAX_ELEMS];

static const struct {
    const char *name;
    int64_t shape[2];
    int n_dims;
} tensors[TENSORS] = {
    {"0.weight", {HIDDEN, FEATURES}, 2},
    {"0.bias", {HIDDEN, 1}, 1},
    {"2.weight", {CLASSES, HIDDEN}, 2},
    {"2.bias", {CLASSES, 1}, 1},
};

static inline int64_t elems_of(int tensor)
{
    return tensors[tensor].shape[0] * tensors[tensor].shape[1];
}

static inline float draw(void)
{
    static uint32_t state = 7;
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) * 0x1p-23f - 1.0f;
}

static inline const char *start_file(void)
{
    return in_temp_folder("start.safetensors");
}

/** Group setup. Labels follow from the features, so that samples differ in what they teach. */
static inline int set_up(void **state)
{
    if (make_temp_folder(state) != 0)
        return 1;
    for (int i = 0; i < MAX_N; i++) {
        for (int j = 0; j < FEATURES; j++)
            features[i][j] = 2 * draw();
        labels[i] = features[i][0] > 0.5f ? 0 : features[i][1] > 0 ? 1 : 2;
    }
    lks__tensor_view views[TENSORS];
    for (int t = 0; t < TENSORS; t++) {
        for (int i = 0; i < MAX_ELEMS; i++)
            start_values[t][i] = draw();
        views[t] = (lks__tensor_view){tensors[t].name, tensors[t].n_dims, tensors[t].shape, start_values[t]};
    }
    return lks__safetensors_write(start_file(), TENSORS, views, 0, NULL) != LKS_OK;
}

/** What a run comes to. */
typedef struct outcome {
    int64_t steps;
    double losses[MAX_STEPS], lrs[MAX_STEPS];
    double values[TENSORS][MAX_ELEMS]; /* parameters at the end */
    uint64_t hash;                     /* training only: of the parameters */
    int64_t allocations;               /* training only: from the end of step 2 to that of the last */
} outcome;

/* --- for a definition --- */

static inline void start_oracle(oracle *o)
{
    *o = (oracle){0};
    for (int l = 0; l < 2; l++) {
        const int64_t *shape = tensors[2 * l].shape;
        oracle_add(o, shape[1], shape[0], 1, l == 0);
        for (int64_t i = 0; i < shape[0] * shape[1]; i++)
            o->layers[l].w[i] = (double)start_values[2 * l][i];
        for (int64_t i = 0; i < shape[0]; i++)
            o->layers[l].b[i] = (double)start_values[2 * l + 1][i];
    }
}

static inline double *oracle_values(oracle *o, int tensor)
{
    return tensor % 2 == 0 ? o->layers[tensor / 2].w : o->layers[tensor / 2].b;
}

static inline const double *oracle_grads(const oracle *o, int tensor)
{
    return tensor % 2 == 0 ? o->layers[tensor / 2].dw : o->layers[tensor / 2].db;
}

static inline void take_oracle_values(oracle *o, outcome *out)
{
    for (int t = 0; t < TENSORS; t++)
        memcpy(out->values[t], oracle_values(o, t), (size_t)elems_of(t) * sizeof(double));
}

static inline int64_t global_batch_of(const lks_plan_config *c)
{
    return c->local_batch * c->world * c->accumulate;
}

/** The epoch's samples in their order; `pad` begins again. Returns how many positions there are. */
static inline int64_t list_order(const lks_plan_config *c, int64_t epoch, int64_t order[MAX_N])
{
    const lks_sampler_config config = {.n_samples = c->n_samples,
                                       .world = 1,
                                       .local_batch = c->n_samples,
                                       .accumulate = 1,
                                       .shuffle = true,
                                       .seed = SEED};
    int64_t batch = global_batch_of(c), n = c->n_samples;
    lks_sampler *sampler;
    CHECK_OK(lks_sampler_create(&config, &sampler));
    CHECK_INT(lks_sampler_leaf(sampler, epoch, 0, 0, order), n);
    lks_sampler_destroy(sampler);
    if (c->tail == LKS_TAIL_DROP)
        return n / batch * batch;
    for (; c->tail == LKS_TAIL_PAD && n % c->world != 0; n++)
        order[n] = order[n - c->n_samples];
    return n;
}

/** Sets the oracle's gradients to sums over these samples, adds `factor` times them to `total`. Returns the
 * sum of losses. */
static inline double add_gradient(oracle *o, int64_t n, const int64_t *samples, double factor,
                                  double total[TENSORS][MAX_ELEMS])
{
    float x[MAX_N * FEATURES];
    int32_t y[MAX_N];
    for (int64_t i = 0; i < n; i++) {
        memcpy(x + i * FEATURES, features[samples[i]], sizeof features[0]);
        y[i] = labels[samples[i]];
    }
    double loss = oracle_run(o, n, x, y, 1, NULL);
    for (int t = 0; t < TENSORS; t++)
        for (int64_t i = 0; i < elems_of(t); i++)
            total[t][i] += factor * oracle_grads(o, t)[i];
    return loss;
}

/** Of all parameters: the length of the difference, relative to that of b's. */
static inline double distance(const outcome *a, const outcome *b)
{
    double difference2 = 0, norm2 = 0;
    for (int t = 0; t < TENSORS; t++)
        for (int64_t i = 0; i < elems_of(t); i++) {
            difference2 += (a->values[t][i] - b->values[t][i]) * (a->values[t][i] - b->values[t][i]);
            norm2 += b->values[t][i] * b->values[t][i];
        }
    return sqrt(difference2 / norm2);
}

/* --- by training --- */

/** A run to train. */
typedef struct small_run {
    lks_plan_config plan; /* processes: how many threads */
    double clip_norm, clip_value;
    int64_t checkpoint_every_steps; /* 0: never */
    const char *resume_path;        /* NULL: begin; then nothing is written, and values are not set */
} small_run;

typedef struct member {
    seat seat;
    const small_run *run;
    const char *start, *output; /* paths; members are threads, in_temp_folder is for one */
    int64_t allocations_at_step_2;
    outcome seen;
} member;

static inline void on_progress(void *context, const lks_train_progress *progress)
{
    member *m = context;
    if (progress->step == 2)
        m->allocations_at_step_2 = lks__alloc_count();
    m->seen.allocations = lks__alloc_count() - m->allocations_at_step_2;
    m->seen.losses[progress->step - 1] = progress->loss;
    m->seen.lrs[progress->step - 1] = progress->lr;
    m->seen.steps = progress->step;
}

static inline lks_trainer_config trainer_config(member *m)
{
    const small_run *run = m->run;
    lks_trainer_config config = lks_trainer_config_default();
    config.group = m->seat.group;
    config.seed = SEED;
    config.clip_norm = run->clip_norm;
    config.clip_value = run->clip_value;
    config.checkpoint_keep = MAX_STEPS;
    config.checkpoint_every_steps = run->checkpoint_every_steps;
    config.metrics_every_steps = 1;
    config.overwrite = true;
    config.resume_path = run->resume_path;
    config.init_path = run->resume_path == NULL ? m->start : NULL;
    config.output_path = run->resume_path == NULL ? m->output : NULL;
    config.progress = on_progress;
    config.progress_context = m;
    return config;
}

static inline lks_status train(void *self)
{
    member *m = self;
    const small_run *run = m->run;
    const int64_t shape = FEATURES, hidden = HIDDEN;
    lks_dataset *set = NULL;
    lks_graph *graph = NULL;
    lks_trainer *trainer = NULL;
    lks_train_result result = {0};
    lks_plan plan;
    lks_status status = lks_dataset_from_arrays(run->plan.n_samples, 1, &shape, LKS_F32, features, labels,
                                                &set);
    if (status == LKS_OK)
        status = lks_graph_create_mlp(FEATURES, 1, &hidden, 0, CLASSES, &graph);
    if (status == LKS_OK)
        status = lks_plan_create(&run->plan, &plan);
    if (status == LKS_OK) {
        lks_trainer_config config = trainer_config(m);
        config.plan = &plan;
        config.graph = graph;
        config.train_set = set;
        config.optimizer = plan.optimizer;
        status = lks_trainer_create(&config, &trainer);
    }
    if (status == LKS_OK)
        status = lks_trainer_run(trainer, &result);
    m->seen.hash = result.parameters_hash;
    lks_trainer_destroy(trainer);
    lks_graph_destroy(graph);
    lks_dataset_destroy(set);
    return status;
}

static inline void read_model(outcome *out)
{
    float values[MAX_ELEMS];
    lks__safetensors *model;
    CHECK_OK(lks__safetensors_open(in_temp_folder("run/model.safetensors"), &model));
    for (int t = 0; t < TENSORS; t++) {
        CHECK_OK(lks__safetensors_read(model, tensors[t].name, tensors[t].n_dims, tensors[t].shape, values));
        for (int64_t i = 0; i < elems_of(t); i++)
            out->values[t][i] = (double)values[i];
    }
    lks__safetensors_close(model);
}

/** Trains, in the folder "run". out->allocations is meant for runs of one member: it counts the program's. */
static inline void run_by_training(const small_run *run, outcome *out)
{
    static member members[MAX_MEMBERS];
    int n = (int)run->plan.processes;
    for (int i = 0; i < n; i++)
        members[i] = (member){.run = run, .start = start_file(), .output = in_temp_folder("run")};
    run_members_well(n, train, sizeof *members, members);
    *out = members[0].seen;
    if (run->resume_path == NULL)
        read_model(out);
}

#endif
