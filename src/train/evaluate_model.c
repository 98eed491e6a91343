/* SPDX-License-Identifier: Apache-2.0 */
/* lks_evaluate: a trainer that has what an evaluation needs, and nothing else. */
#include <lockstep/evaluate.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"
#include "conf/settings.h"
#include "data/dataset_files.h"
#include "plan/plan_config.h"
#include "record/safetensors.h"
#include "record/write_file.h"
#include "train/resume.h"
#include "train/trainer.h"

/* What the trainer borrows. */
typedef struct evaluator {
    lks_dataset *train_set, *test_set;
    const lks_dataset *split;
    lks_graph *graph;
    lks_plan plan;
    lks_trainer trainer;
} evaluator;

static void evaluator_deinit(evaluator *e)
{
    lks_trainer *t = &e->trainer;
    lks__free(t->indices);
    lks__free(t->eval_loss);
    lks__free(t->class_counts);
    lks__free(t->plain);
    lks__free(t->params);
    lks__network_destroy(t->network);
    lks_graph_destroy(e->graph);
    lks_dataset_destroy(e->train_set);
    lks_dataset_destroy(e->test_set);
}

/* The network of a training run's evaluation, whose layouts and kernels the run's batches decide; behind them
 * come those that only this evaluation needs. */
static lks_status compile(evaluator *e, const lks__settings *settings)
{
    int64_t batches[LKS__MAX_BATCHES + 2], b = e->plan.local_batch;
    lks_dataset_info test, split;
    lks_dataset_get_info(e->test_set, &test);
    lks_dataset_get_info(e->split, &split);
    int n = lks__list_batches(&e->plan, test.n_samples, batches);
    const int64_t more[] = {split.n_samples >= b ? b : 0, split.n_samples % b};
    for (int i = 0; i < 2; i++) {
        bool listed = more[i] == 0;
        for (int k = 0; k < n; k++)
            listed = listed || batches[k] == more[i];
        if (!listed)
            batches[n++] = more[i];
    }
    lks__network_config config = {
        .graph = e->graph, .n_batches = n, .batches = batches, .threads = (int)settings->threads};
    lks_status status = lks__network_create(&config, &e->trainer.network);
    if (status == LKS_OK)
        status = lks__check_dataset(e->trainer.network, e->train_set, "training");
    return status == LKS_OK ? lks__check_dataset(e->trainer.network, e->test_set, "test") : status;
}

static lks_status allocate(lks_trainer *t)
{
    int64_t n = lks__eval_n_leaves(t->config.test_set, t->config.plan->local_batch);
    t->indices = lks__alloc_array(t->config.plan->local_batch, sizeof *t->indices, LKS__MEM_DATA);
    t->eval_loss = lks__alloc_array(2 * n, sizeof *t->eval_loss, LKS__MEM_MISC);
    t->class_counts = lks__alloc_array(2 * lks__network_n_classes(t->network), sizeof *t->class_counts,
                                       LKS__MEM_MISC);
    t->plain = lks__alloc_array(lks__network_largest_param_elems(t->network), sizeof *t->plain,
                                LKS__MEM_MISC);
    t->params = lks__alloc_array(lks__network_arena_elems(t->network), sizeof *t->params, LKS__MEM_PARAMS);
    if (t->indices == NULL || t->eval_loss == NULL || t->class_counts == NULL || t->plain == NULL ||
        t->params == NULL)
        return LKS_E_NOMEM;
    t->eval_correct = t->eval_loss + n;
    return LKS_OK;
}

/* Data, and the plan of one process: the local batch does not depend on how many evaluate. */
static lks_status open_data(evaluator *e, const lks__settings *settings, lks_split split)
{
    lks_dataset_info info;
    lks_status status = lks__dataset_open(settings, &e->train_set, &e->test_set);
    if (status != LKS_OK)
        return status;
    e->split = split == LKS_SPLIT_TRAIN ? e->train_set : e->test_set;
    lks_dataset_get_info(e->train_set, &info);
    lks_plan_config plan = lks__plan_config_from_settings(settings, info.n_samples, 1);
    status = lks_plan_create(&plan, &e->plan);
    return status == LKS_OK ? lks__create_graph(settings, &info, &e->graph) : status;
}

static lks_status check_file(const char *path)
{
    lks__safetensors *file;
    if (path == NULL)
        return lks__fail(LKS_E_ARG, "an evaluation needs the path of a model");
    lks_status status = lks__model_open(path, &file);
    lks__safetensors_close(file);
    return status;
}

/* This member's part; the caller deinits e also after a failure. */
static lks_status evaluator_init(evaluator *e, const lks__settings *settings, lks_group *group,
                                 const lks_evaluate_options *options)
{
    lks_trainer *t = &e->trainer;
    lks_status status = open_data(e, settings, options->split);
    if (status != LKS_OK)
        return status;
    t->config = (lks_trainer_config){.group = group,
                                     .plan = &e->plan,
                                     .graph = e->graph,
                                     .train_set = e->train_set,
                                     .test_set = e->split,
                                     .seed = settings->seed,
                                     .init_path = options->model_path};
    t->rank = lks_group_rank(group);
    if ((status = compile(e, settings)) != LKS_OK)
        return status;
    return allocate(t);
}

/* Rank 0 reads the file, so that all have the same parameters, whoever writes there meanwhile; and the same
 * kernels compute with them. Collective. */
static lks_status share_model(lks_trainer *t)
{
    lks_group *group = t->config.group;
    int64_t own = (int64_t)lks__network_fingerprint(t->network), first = own;
    lks_status status = lks_group_broadcast(group, &first, 1, LKS_I64, 0);
    if (status != LKS_OK)
        return status;
    if (first != own)
        status = lks__fail(
            LKS_E_ARG, "rank %d and rank 0 do not agree on the model, processor or kernel library", t->rank);
    else if (t->rank == 0 && (status = check_file(t->config.init_path)) == LKS_OK)
        status = lks__params_init(t);
    status = lks__agree(group, status);
    if (status != LKS_OK)
        return status;
    return lks_group_broadcast(group, t->params, (size_t)lks__network_arena_elems(t->network), LKS_F32, 0);
}

/* Takes the counts over. */
static void hand_over(evaluator *e, double loss, double accuracy, lks_evaluation *out)
{
    lks_dataset_info info;
    lks_dataset_get_info(e->split, &info);
    *out = (lks_evaluation){.samples = info.n_samples,
                            .loss = loss,
                            .accuracy = accuracy,
                            .n_classes = lks__network_n_classes(e->trainer.network),
                            .class_samples = e->trainer.class_counts};
    out->class_correct = out->class_samples + out->n_classes;
    for (int64_t c = 0; c < out->n_classes; c++)
        out->correct += out->class_correct[c];
    e->trainer.class_counts = NULL;
}

lks_status lks_evaluate(const lks_config *config, lks_group *group, const lks_evaluate_options *options,
                        lks_evaluation *out)
{
    evaluator e = {0};
    double loss, accuracy;
    lks_status status = lks__agree(group, evaluator_init(&e, lks__config_settings(config), group, options));
    if (status == LKS_OK)
        status = share_model(&e.trainer);
    if (status == LKS_OK)
        status = lks__evaluate(&e.trainer, &loss, &accuracy);
    if (status == LKS_OK)
        status = lks_group_all_reduce(group, e.trainer.class_counts,
                                      2 * (size_t)lks__network_n_classes(e.trainer.network), LKS_I64,
                                      LKS_SUM);
    if (status == LKS_OK)
        hand_over(&e, loss, accuracy, out);
    evaluator_deinit(&e);
    return status;
}

void lks_evaluation_deinit(lks_evaluation *evaluation)
{
    lks__free(evaluation->class_samples);
    evaluation->class_samples = evaluation->class_correct = NULL;
}

lks_status lks_evaluate_check(const lks_config *config, int processes, const lks_evaluate_options *options)
{
    const lks__settings *settings = lks__config_settings(config);
    lks_dataset_info train, test;
    lks_plan plan;
    lks_status status = lks__check_processes(processes);
    if (status == LKS_OK)
        status = check_file(options->model_path);
    if (status == LKS_OK)
        status = lks__dataset_probe(settings, &train, &test);
    if (status != LKS_OK)
        return status;
    lks_plan_config wanted = lks__plan_config_from_settings(settings, train.n_samples, 1);
    return lks_plan_create(&wanted, &plan);
}

/* Ownership: as lks__resume_find. */
static lks_status find_model(const char *run, char **out)
{
    if (!lks__run_dir_has(run, "plan.json"))
        return lks__fail(LKS_E_NOT_FOUND, "%s is no run directory: it has no plan.json", run);
    if (!lks__run_dir_has(run, "model.safetensors")) {
        lks_status status = lks__resume_find(run, NULL, NULL, out);
        if (status == LKS_E_NOT_FOUND)
            status = lks__fail(status, "%s has neither a model.safetensors nor a whole checkpoint", run);
        return status;
    }
    *out = lks__join_path(run, "model.safetensors");
    return *out != NULL ? LKS_OK : LKS_E_NOMEM;
}

lks_status lks_run_model(const char *run, char **out_path)
{
    char *path = NULL;
    lks__text text = {0}; /* which can be free()d */
    *out_path = NULL;
    lks_status status = find_model(run, &path);
    if (status != LKS_OK)
        return status;
    lks__text_add(&text, "%s", path);
    lks__free(path);
    return lks__text_take(&text, out_path);
}
