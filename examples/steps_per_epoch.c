/* SPDX-License-Identifier: Apache-2.0 */
/* Trains on samples in memory: 1,000 random ones, local batch 32, two epochs. On two ranks an epoch has
 * ceil(1000 / 64) = 16 steps, 32 in all; each rank gets its part of every step from the shuffled order of the
 * epoch.
 *
 *     lockstep run -n 2 build/examples/steps_per_epoch
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <lockstep/lockstep.h>

enum { N_SAMPLES = 1000, N_FEATURES = 20, N_CLASSES = 2, LOCAL_BATCH = 32, EPOCHS = 2 };

static float features[N_SAMPLES][N_FEATURES];
static int32_t labels[N_SAMPLES];

/* Every rank makes the same samples: uniform in -1 .. 1, labelled by the sign of their sum. */
static void make_samples(void)
{
    uint32_t state = 1;
    for (int i = 0; i < N_SAMPLES; i++) {
        float sum = 0;
        for (int j = 0; j < N_FEATURES; j++) {
            state = state * 1664525u + 1013904223u;
            features[i][j] = (float)(state >> 8) * 0x1p-23f - 1.0f;
            sum += features[i][j];
        }
        labels[i] = sum > 0;
    }
}

static void print_epoch(void *context, const lks_train_progress *progress)
{
    const lks_plan *plan = context;
    if (progress->epoch_end)
        printf("epoch %" PRId64 ": %" PRId64 " steps per epoch, %" PRId64 " steps in all, %" PRId64
               " samples, train loss %.3f\n",
               progress->epoch + 1, plan->steps_per_epoch, progress->step, progress->samples,
               progress->train_loss);
}

/* Everything that the trainer works with; what is NULL was not reached. */
typedef struct parts {
    lks_group *group;
    lks_plan plan;
    lks_dataset *samples;
    lks_graph *graph;
    lks_trainer *trainer;
} parts;

static lks_status build(parts *p)
{
    lks_group_config where;
    lks_status status = lks_group_config_from_env(&where);
    if (status == LKS_OK)
        status = lks_group_create(&where, &p->group);
    if (status != LKS_OK)
        return status;

    make_samples();
    int64_t shape = N_FEATURES, hidden = 16;
    status = lks_dataset_from_arrays(N_SAMPLES, 1, &shape, LKS_F32, features, labels, &p->samples);
    if (status == LKS_OK)
        status = lks_graph_create_mlp(N_FEATURES, 1, &hidden, 0, N_CLASSES, &p->graph);
    if (status != LKS_OK)
        return status;

    lks_plan_config wanted = lks_plan_config_default();
    wanted.n_samples = N_SAMPLES;
    wanted.processes = lks_group_size(p->group);
    wanted.local_batch = LOCAL_BATCH;
    wanted.epochs = EPOCHS;
    wanted.base_lr = 0.1;
    return lks_plan_create(&wanted, &p->plan);
}

static lks_status train(parts *p, lks_train_result *out)
{
    lks_trainer_config config = lks_trainer_config_default();
    config.group = p->group;
    config.plan = &p->plan;
    config.graph = p->graph;
    config.train_set = p->samples;
    if (lks_group_rank(p->group) == 0) {
        config.progress = print_epoch;
        config.progress_context = &p->plan;
    }
    lks_status status = lks_trainer_create(&config, &p->trainer);
    return status == LKS_OK ? lks_trainer_run(p->trainer, out) : status;
}

int main(void)
{
    parts p = {0};
    lks_train_result result;
    lks_status status = build(&p);
    if (status == LKS_OK)
        status = train(&p, &result);
    if (status != LKS_OK)
        fprintf(stderr, "steps_per_epoch: %s\n", lks_error_message());
    else if (lks_group_rank(p.group) == 0)
        printf("trained: %" PRId64 " steps on %d ranks\n", result.steps, lks_group_size(p.group));
    lks_trainer_destroy(p.trainer);
    lks_graph_destroy(p.graph);
    lks_dataset_destroy(p.samples);
    lks_group_destroy(p.group);
    return lks_status_exit_code(status);
}
