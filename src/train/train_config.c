/* SPDX-License-Identifier: Apache-2.0 */
/** From a config to a run. */
#include <stdlib.h>

#include "base/error.h"
#include "conf/settings.h"
#include "data/dataset_files.h"
#include "plan/plan_config.h"
#include "record/safetensors.h"
#include "train/trainer.h"

/* What a plan is computed from; reads the headers of the data set. */
static lks_status plan_config(const lks_config *config, int processes, lks_plan_config *out)
{
    const lks__settings *settings = lks__config_settings(config);
    lks_dataset_info info;
    lks_status status = lks__dataset_probe(settings, &info);
    if (status == LKS_OK)
        *out = lks__plan_config_from_settings(settings, info.n_samples, processes);
    return status;
}

lks_status lks_train_plan(const lks_config *config, int processes, lks_plan *out)
{
    lks_plan_config plan;
    lks_status status = plan_config(config, processes, &plan);
    return status == LKS_OK ? lks_plan_create(&plan, out) : status;
}

lks_status lks_train_plan_at(const lks_config *config, int processes, int64_t world, lks_hold hold,
                             lks_plan *out)
{
    lks_plan_config plan;
    lks_status status = plan_config(config, processes, &plan);
    return status == LKS_OK ? lks_plan_create_at(&plan, world, hold, out) : status;
}

lks_status lks_train_join(const lks_config *config, lks_group **out)
{
    *out = NULL;
    lks_group_config group;
    lks_status status = lks_group_config_from_env(&group);
    if (status != LKS_OK)
        return status;
    group.timeout_s = lks__config_settings(config)->comm_timeout_s;
    return lks_group_create(&group, out);
}

/* Can these processes be started and form a group? */
static lks_status check_processes(int64_t processes)
{
    lks_group_config ignored;
    if (processes > LKS_GROUP_MAX_SIZE)
        return lks__fail(LKS_E_ARG, "%lld processes are more than can work together; %d can",
                         (long long)processes, LKS_GROUP_MAX_SIZE);
    return lks_group_config_from_env(&ignored); /* refuses processes of an MPI launcher */
}

lks_status lks_train_check(const lks_config *config, int processes, const lks_train_options *options,
                           lks_plan *out)
{
    lks_plan plan;
    lks_status status = lks_train_plan(config, processes, &plan);
    if (status == LKS_OK)
        status = check_processes(plan.processes);
    if (status == LKS_OK)
        status = lks__run_dir_check(lks__config_settings(config)->output, options->overwrite);
    if (status == LKS_OK && options->init_path != NULL) {
        lks__safetensors *file;
        status = lks__safetensors_open(options->init_path, &file);
        lks__safetensors_close(file);
    }
    if (status == LKS_OK)
        *out = plan;
    return status;
}

/* Everything that a trainer borrows, as a config describes it. */
typedef struct job {
    lks_dataset *train_set, *test_set;
    lks_graph *graph;
    lks_plan plan;
    char *yaml;
} job;

static void job_deinit(job *j)
{
    lks_graph_destroy(j->graph);
    lks_dataset_destroy(j->train_set);
    lks_dataset_destroy(j->test_set);
    free(j->yaml);
}

static lks_status create_graph(const lks__settings *settings, const lks_dataset *train_set, lks_graph **out)
{
    lks_dataset_info info;
    lks_dataset_get_info(train_set, &info);
    return lks_graph_create_mlp(info.n_features, (int)settings->n_hidden, settings->hidden, info.n_classes,
                                out);
}

/* This member's part; the caller deinits j also after a failure. */
static lks_status job_init(job *j, const lks_config *config, const lks_group *group, bool overwrite)
{
    const lks__settings *settings = lks__config_settings(config);
    int processes = lks_group_size(group);
    *j = (job){0};
    lks_status status = LKS_OK;
    if (lks_group_rank(group) == 0) /* the only one that will create it */
        status = lks__run_dir_check(settings->output, overwrite);
    if (status == LKS_OK)
        status = lks__dataset_open(settings, &j->train_set, &j->test_set);
    if (status != LKS_OK)
        return status;
    lks_dataset_info info;
    lks_dataset_get_info(j->train_set, &info);
    lks_plan_config plan = lks__plan_config_from_settings(settings, info.n_samples, processes);
    if ((status = lks_plan_create(&plan, &j->plan)) != LKS_OK)
        return status;
    if ((status = create_graph(settings, j->train_set, &j->graph)) != LKS_OK)
        return status;
    /* for the run directory: with the world fixed, so that the file means this run on any number of processes
     */
    lks__settings resolved = *settings;
    resolved.world = j->plan.world;
    return lks__settings_to_yaml(&resolved, &j->yaml);
}

lks_status lks_train(const lks_config *config, lks_group *group, const lks_train_options *options,
                     lks_train_result *out)
{
    static const lks_train_options none;
    if (options == NULL)
        options = &none;
    const lks__settings *settings = lks__config_settings(config);
    lks_trainer *trainer = NULL;
    job j;
    lks_status status = lks__agree(group, job_init(&j, config, group, options->overwrite));
    if (status == LKS_OK) {
        lks_trainer_config trainer_config = {
            .group = group,
            .plan = &j.plan,
            .graph = j.graph,
            .train_set = j.train_set,
            .test_set = j.test_set,
            .optimizer = j.plan.optimizer,
            .seed = settings->seed,
            .threads = (int)settings->threads,
            .init_path = options->init_path,
            .output_path = settings->output,
            .overwrite = options->overwrite,
            .config_yaml = j.yaml,
            .metrics_every_steps = settings->metrics_every_steps,
            .stop_signal = options->stop_signal,
            .progress = options->progress,
            .progress_context = options->context,
        };
        status = lks_trainer_create(&trainer_config, &trainer);
    }
    if (status == LKS_OK && options->started != NULL)
        options->started(options->context, &j.plan);
    if (status == LKS_OK)
        status = lks_trainer_run(trainer, out);
    lks_trainer_destroy(trainer);
    job_deinit(&j);
    return status;
}
