/* SPDX-License-Identifier: Apache-2.0 */
/** From a config to a run. */
#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/machine.h"
#include "base/text.h"
#include "conf/settings.h"
#include "data/dataset_files.h"
#include "plan/plan_config.h"
#include "record/safetensors.h"
#include "train/resume.h"
#include "train/trainer.h"

/* The training and the test set of a config, in sizes. */
typedef struct sizes {
    lks_dataset_info train, test;
} sizes;

lks_status lks__create_graph(const lks__settings *settings, const lks_dataset_info *train, lks_graph **out)
{
    return lks_graph_create_mlp(train->n_features, (int)settings->n_hidden, settings->hidden,
                                settings->dropout, train->n_classes, out);
}

/* What a plan is computed from; reads the headers and the labels of the data set. */
static lks_status plan_config(const lks__settings *settings, int processes, sizes *data, lks_plan_config *out)
{
    lks_status status = lks__dataset_probe(settings, &data->train, &data->test);
    if (status == LKS_OK)
        *out = lks__plan_config_from_settings(settings, data->train.n_samples, processes);
    return status;
}

static lks_status add_memory(const lks__settings *settings, const sizes *data, lks_plan *plan)
{
    lks_graph *graph;
    lks_status status = lks__create_graph(settings, &data->train, &graph);
    if (status == LKS_OK)
        status = lks__predict_memory(graph, &data->train, &data->test, (int)settings->threads, plan);
    lks_graph_destroy(graph);
    return status;
}

static lks_status plan_of(const lks__settings *settings, int processes, lks_plan *out)
{
    lks_plan_config config;
    lks_plan plan;
    sizes data;
    lks_status status = plan_config(settings, processes, &data, &config);
    if (status == LKS_OK)
        status = lks_plan_create(&config, &plan);
    if (status == LKS_OK)
        status = add_memory(settings, &data, &plan);
    if (status == LKS_OK)
        *out = plan;
    return status;
}

lks_status lks_train_plan(const lks_config *config, int processes, lks_plan *out)
{
    return plan_of(lks__config_settings(config), processes, out);
}

lks_status lks_train_plans_at(const lks_config *config, int processes, int n, const int64_t *worlds,
                              lks_hold hold, lks_plan *out)
{
    const lks__settings *settings = lks__config_settings(config);
    lks_plan_config wanted;
    sizes data;
    lks_status status = plan_config(settings, processes, &data, &wanted);
    for (int i = 0; status == LKS_OK && i < n; i++) {
        status = lks_plan_create_at(&wanted, worlds[i], hold, &out[i]);
        if (status == LKS_OK)
            status = add_memory(settings, &data, &out[i]);
    }
    return status;
}

lks_status lks_train_plan_at(const lks_config *config, int processes, int64_t world, lks_hold hold,
                             lks_plan *out)
{
    lks_plan plan;
    lks_status status = lks_train_plans_at(config, processes, 1, &world, hold, &plan);
    if (status == LKS_OK)
        *out = plan;
    return status;
}

bool lks_train_is_finished(const lks_config *config)
{
    return lks__run_dir_has(lks__config_settings(config)->output, "model.safetensors") &&
           !lks__resume_asks(config);
}

lks_status lks_train_last_checkpoint(const lks_config *config, int64_t *out)
{
    char *path;
    lks_status status = lks__resume_find(lks__config_settings(config)->output, NULL, NULL, &path);
    if (status != LKS_OK && status != LKS_E_NOT_FOUND)
        return status;
    const char *step = status == LKS_OK ? strrchr(path, '-') + 1 : "0"; /* lks__checkpoint_name */
    *out = strtoll(step, NULL, 10);
    lks__free(path);
    return LKS_OK;
}

static lks_status check_options(const lks_train_options *options)
{
    if (options->resume && (options->overwrite || options->init_path != NULL))
        return lks__fail(LKS_E_ARG, "a run that goes on is not %s",
                         options->overwrite ? "overwritten: --resume or --overwrite"
                                            : "started from a file: --resume or --init");
    return LKS_OK;
}

/* The plan with which the config's run goes on. */
static lks_status plan_of_resumed(const lks_config *config, int processes, lks_plan *out)
{
    lks__resume resume;
    sizes data;
    lks_plan plan;
    lks_status status = lks__resume_init(&resume, config, NULL, NULL);
    if (status == LKS_OK)
        status = lks__dataset_probe(&resume.settings, &data.train, &data.test);
    if (status == LKS_OK)
        status = lks__resume_plan(&resume, data.train.n_samples, processes, &plan);
    if (status == LKS_OK)
        status = add_memory(&resume.settings, &data, &plan);
    if (status == LKS_OK)
        *out = plan;
    lks__resume_deinit(&resume);
    return status;
}

lks_status lks_train_join(const lks_config *config, lks_group **out)
{
    *out = NULL;
    lks_group_config group;
    lks_status status = lks_group_config_from_env(&group);
    if (status != LKS_OK)
        return status;
    group.timeout_s = lks__config_settings(config)->comm_timeout_s;
    group.fast = lks__config_settings(config)->comm_fast;
    return lks_group_create(&group, out);
}

lks_status lks__check_processes(int64_t processes)
{
    lks_group_config ignored;
    if (processes > LKS_GROUP_MAX_SIZE)
        return lks__fail(LKS_E_ARG, "%lld processes are more than can work together; %d can",
                         (long long)processes, LKS_GROUP_MAX_SIZE);
    return lks_group_config_from_env(&ignored); /* refuses processes of an MPI launcher */
}

/* A run that this machine can never hold: what is in use all the time in every step alone is more. The
 * processes of an MPI launcher may be spread over machines, of which each has one at least. */
static lks_status check_memory(const lks_plan *plan)
{
    const lks_plan_memory *m = &plan->memory;
    lks_group_config group;
    bool together = lks_group_config_from_env(&group) == LKS_OK && group.backend != LKS_BACKEND_MPI;
    int64_t processes = together ? plan->processes : 1, has = lks__machine_memory_bytes();
    double of_each = (double)m->gradients + (double)m->activations + (double)m->data;
    double needed = (double)m->parameters + (double)m->optimizer + (double)processes * of_each;
    char a[LKS__SIZE_BYTES], b[LKS__SIZE_BYTES], c[LKS__SIZE_BYTES], d[LKS__SIZE_BYTES];
    if (needed <= (double)has)
        return LKS_OK;
    return lks__error_hint(
        lks__fail(
            LKS_E_ARG,
            "the run needs more memory than this machine has, which is %s: %s for parameters, %s for the "
            "optimizer, %s for each of %lld process%s",
            lks__size_text(has, a), lks__size_text(m->parameters, b), lks__size_text(m->optimizer, c),
            lks__size_text((int64_t)of_each, d), (long long)processes, processes == 1 ? "" : "es"),
        "a smaller model, a smaller batch.local or fewer processes need less; lockstep plan tells how much");
}

lks_status lks_train_check(const lks_config *config, int processes, const lks_train_options *options,
                           lks_plan *out)
{
    lks_plan plan;
    const lks__settings *settings = lks__config_settings(config);
    lks_status status = check_options(options);
    if (status == LKS_OK)
        status = options->resume ? plan_of_resumed(config, processes, &plan)
                                 : plan_of(settings, processes, &plan);
    if (status == LKS_OK)
        status = lks__check_processes(plan.processes);
    if (status == LKS_OK)
        status = check_memory(&plan);
    if (status == LKS_OK && !options->resume)
        status = lks__run_dir_check(settings->output, options->overwrite);
    if (status == LKS_OK && options->init_path != NULL) {
        lks__safetensors *file;
        status = lks__model_open(options->init_path, &file);
        lks__safetensors_close(file);
    }
    if (status == LKS_OK)
        *out = plan;
    return status;
}

/* Everything that a trainer borrows, as a config describes it. */
typedef struct job {
    lks__resume resume;            /* of a run that goes on */
    const lks__settings *settings; /* its, or the config's */
    lks_dataset *train_set, *test_set;
    lks_graph *graph;
    lks_plan plan;
    char *yaml;
    char *changes, *changes_sentence; /* of a run that goes on with other settings; else NULL */
} job;

static void job_deinit(job *j)
{
    lks_graph_destroy(j->graph);
    lks_dataset_destroy(j->train_set);
    lks_dataset_destroy(j->test_set);
    free(j->yaml);
    free(j->changes);
    free(j->changes_sentence);
    lks__resume_deinit(&j->resume);
}

static lks_status job_plan(job *j, int processes, bool resumed)
{
    lks_dataset_info info;
    lks_dataset_get_info(j->train_set, &info);
    if (!resumed) {
        lks_plan_config plan = lks__plan_config_from_settings(j->settings, info.n_samples, processes);
        return lks_plan_create(&plan, &j->plan);
    }
    lks_status status = lks__resume_plan(&j->resume, info.n_samples, processes, &j->plan);
    if (status == LKS_OK)
        status = lks__resume_changes(&j->resume, &j->plan, &j->changes, &j->changes_sentence);
    return status;
}

static lks_status job_model(job *j)
{
    lks_dataset_info train, test;
    lks_dataset_get_info(j->train_set, &train);
    lks_dataset_get_info(j->test_set, &test);
    lks_status status = lks__create_graph(j->settings, &train, &j->graph);
    if (status == LKS_OK)
        status = lks__predict_memory(j->graph, &train, &test, (int)j->settings->threads, &j->plan);
    return status;
}

/* What rank 0 has found is what all go on from. Collective. */
static lks_status find_together(job *j, const lks_config *config, lks_group *group,
                                const lks_train_options *options)
{
    lks_status status = LKS_OK;
    if (lks_group_rank(group) == 0)
        status = lks__resume_init(&j->resume, config, options->note, options->context);
    status = lks__agree(group, status);
    return status == LKS_OK ? lks__resume_share(&j->resume, config, group) : status;
}

/* This member's part; the caller deinits j also after a failure. */
static lks_status job_init(job *j, const lks_config *config, const lks_group *group,
                           const lks_train_options *options)
{
    bool first = lks_group_rank(group) == 0;
    lks_status status = LKS_OK;
    j->settings = options->resume ? &j->resume.settings : lks__config_settings(config);
    if (first && !options->resume) /* the only one that will create it */
        status = lks__run_dir_check(j->settings->output, options->overwrite);
    if (status == LKS_OK)
        status = lks__dataset_open(j->settings, &j->train_set, &j->test_set);
    if (status == LKS_OK)
        status = job_plan(j, lks_group_size(group), options->resume);
    if (status == LKS_OK)
        status = job_model(j);
    if (status != LKS_OK)
        return status;
    /* for the run directory: with the world fixed, so that the file means this run on any number of processes
     */
    lks__settings resolved = *j->settings;
    resolved.world = j->plan.world;
    return lks__settings_to_yaml(&resolved, &j->yaml);
}

/* What is left of a limit; 0: there is none. */
static double left(double max_seconds, int64_t start_ns)
{
    if (max_seconds == 0)
        return 0;
    double seconds = max_seconds - lks__seconds_since(start_ns);
    return seconds > 0 ? seconds : DBL_MIN;
}

lks_status lks_train(const lks_config *config, lks_group *group, const lks_train_options *options,
                     lks_train_result *out)
{
    static const lks_train_options none;
    int64_t start_ns = lks__now_ns();
    if (options == NULL)
        options = &none;
    lks_trainer *trainer = NULL;
    job j = {0};
    lks_status status = lks__agree(group, check_options(options));
    if (status == LKS_OK && options->resume)
        status = find_together(&j, config, group, options);
    if (status == LKS_OK)
        status = lks__agree(group, job_init(&j, config, group, options));
    if (status == LKS_OK) {
        const lks__settings *settings = j.settings;
        lks_trainer_config trainer_config = {
            .group = group,
            .plan = &j.plan,
            .graph = j.graph,
            .train_set = j.train_set,
            .test_set = j.test_set,
            .optimizer = j.plan.optimizer,
            .clip_norm = settings->clip_norm,
            .clip_value = settings->clip_value,
            .on_divergence = settings->on_divergence,
            .seed = settings->seed,
            .threads = (int)settings->threads,
            .init_path = options->init_path,
            .resume_path = j.resume.path,
            .output_path = settings->output,
            .overwrite = options->overwrite,
            .config_yaml = j.yaml,
            .changes = j.changes,
            .metrics_every_steps = settings->metrics_every_steps,
            .hashes_every_steps = settings->hashes_every_steps,
            .bucket_bytes = settings->bucket_bytes,
            .checkpoint_every_steps = settings->checkpoint_every_steps,
            .checkpoint_every_seconds = settings->checkpoint_every_seconds,
            .checkpoint_every_epochs = settings->checkpoint_every_epochs,
            .checkpoint_keep = settings->checkpoint_keep,
            .checkpoint_best = settings->checkpoint_best,
            .stop_signal = options->stop_signal,
            .max_seconds = left(options->max_seconds, start_ns),
            .progress = options->progress,
            .note = options->note,
            .progress_context = options->context,
        };
        status = lks_trainer_create(&trainer_config, &trainer);
    }
    if (status == LKS_OK && j.changes_sentence != NULL && options->note != NULL && lks_group_rank(group) == 0)
        options->note(options->context, j.changes_sentence);
    if (status == LKS_OK && options->started != NULL)
        options->started(options->context, &j.plan);
    if (status == LKS_OK)
        status = lks_trainer_run(trainer, out);
    lks_trainer_destroy(trainer);
    job_deinit(&j);
    return status;
}
