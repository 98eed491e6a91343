/* SPDX-License-Identifier: Apache-2.0 */
#include "train/trainer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/machine.h"
#include "plan/epoch.h"
#include "plan/plan_check.h"
#include "train/checkpoint_rules.h"
#include "train/checkpoint_writer.h"
#include "train/copies.h"

lks_trainer_config lks_trainer_config_default(void)
{
    return (lks_trainer_config){
        .optimizer = lks_optimizer_config_default(LKS_SGD),
        .threads = 1,
        .metrics_every_steps = 10,
        .hashes_every_steps = 100,
        .bucket_bytes = LKS__BUCKET_BYTES,
        .checkpoint_keep = 3,
    };
}

static lks_status check_config(const lks_trainer_config *c)
{
    if (c->group == NULL || c->plan == NULL || c->graph == NULL || c->train_set == NULL)
        return lks__fail(LKS_E_ARG, "a trainer needs a group, a plan, a graph and a training set");
    lks_status status = lks__plan_check(c->plan);
    if (status != LKS_OK)
        return status;
    if (c->plan->processes != lks_group_size(c->group))
        return lks__fail(LKS_E_ARG, "the plan is for %lld processes, the group has %d members",
                         (long long)c->plan->processes, lks_group_size(c->group));
    lks_dataset_info info;
    lks_dataset_get_info(c->train_set, &info);
    if (info.n_samples != c->plan->n_samples)
        return lks__fail(LKS_E_ARG, "the plan is for %lld samples, the training set has %lld",
                         (long long)c->plan->n_samples, (long long)info.n_samples);
    if (c->threads < 1 || c->metrics_every_steps < 1 || c->hashes_every_steps < 1 || c->bucket_bytes < 1)
        return lks__fail(LKS_E_ARG,
                         "threads is %d, metrics_every_steps %lld, hashes_every_steps %lld and bucket_bytes "
                         "%lld; all must "
                         "be >= 1",
                         c->threads, (long long)c->metrics_every_steps, (long long)c->hashes_every_steps,
                         (long long)c->bucket_bytes);
    if ((status = lks__checkpoint_check_config(c)) != LKS_OK)
        return status;
    if (!(c->max_seconds >= 0))
        return lks__fail(LKS_E_ARG, "max_seconds is %g; a number >= 0 is needed", c->max_seconds);
    if (c->init_path != NULL && c->resume_path != NULL)
        return lks__fail(LKS_E_ARG, "a run begins with init_path or goes on from resume_path, not both");
    if (!(c->clip_norm >= 0 && c->clip_value >= 0))
        return lks__fail(LKS_E_ARG, "clip_norm is %g and clip_value %g; numbers >= 0 are needed",
                         c->clip_norm, c->clip_value);
    if (c->clip_value > 0 && c->plan->lr_rule == LKS_LR_ADASCALE)
        return lks__fail(LKS_E_ARG,
                         "clip.value can't be used with lr.rule adascale, which compares the norms of "
                         "gradients; clip.norm can");
    return lks_optimizer_config_check(&c->optimizer);
}

lks_status lks__check_dataset(const lks__network *network, const lks_dataset *dataset, const char *which)
{
    lks_dataset_info info;
    lks_dataset_get_info(dataset, &info);
    if (info.n_features != lks__network_n_features(network))
        return lks__fail(LKS_E_ARG, "the model takes %lld values per sample, the %s set has %lld",
                         (long long)lks__network_n_features(network), which, (long long)info.n_features);
    if (info.n_classes > lks__network_n_classes(network))
        return lks__fail(LKS_E_ARG, "the model tells %lld classes apart, the %s set has %lld",
                         (long long)lks__network_n_classes(network), which, (long long)info.n_classes);
    return LKS_OK;
}

/* Adds a size to the batch sizes to compile, unless it is 0 or there already. */
static void add_batch(int64_t *batches, int *n, int64_t size)
{
    for (int i = 0; i < *n; i++)
        if (batches[i] == size)
            return;
    if (size > 0)
        batches[(*n)++] = size;
}

int lks__list_batches(const lks_plan *plan, int64_t n_test, int64_t batches[LKS__MAX_BATCHES])
{
    int n = 0;
    const lks__epochs epochs = lks__plan_epochs(plan);
    const int64_t last_steps[] = {epochs.whole.last_step_samples, epochs.first.last_step_samples};
    if (plan->steps_per_epoch > 1 || n_test >= plan->local_batch)
        add_batch(batches, &n, plan->local_batch);
    /* leaves of the last steps of epochs, and the last leaf of the test set */
    for (int i = 0; i < 2; i++) {
        add_batch(batches, &n, lks__divide_up(last_steps[i], plan->leaves));
        add_batch(batches, &n, last_steps[i] / plan->leaves);
    }
    add_batch(batches, &n, n_test % plan->local_batch);
    return n;
}

/* Everything that the run will meet is compiled before its first step. */
static lks_status compile(lks_trainer *t)
{
    int64_t batches[LKS__MAX_BATCHES], n_test = 0;
    if (t->config.test_set != NULL) {
        lks_dataset_info info;
        lks_dataset_get_info(t->config.test_set, &info);
        n_test = info.n_samples;
    }
    int n = lks__list_batches(t->config.plan, n_test, batches);
    lks__network_config config = {
        .graph = t->config.graph, .n_batches = n, .batches = batches, .threads = t->config.threads};
    lks_status status = lks__network_create(&config, &t->network);
    if (status == LKS_OK)
        status = lks__check_dataset(t->network, t->config.train_set, "training");
    if (status == LKS_OK && t->config.test_set != NULL)
        status = lks__check_dataset(t->network, t->config.test_set, "test");
    return status;
}

/* What only adascale measures. */
static lks_status allocate_gain(lks_trainer *t)
{
    int64_t most_blocks = 0;
    for (int i = 0; i < lks__network_n_params(t->network); i++) {
        int64_t blocks = lks__divide_up(lks__network_param(t->network, i)->arena_elems, LKS__BLOCK_ELEMS);
        most_blocks = blocks > most_blocks ? blocks : most_blocks;
    }
    t->leaf_norm2 = lks__alloc_array(t->config.plan->leaves_per_process, sizeof *t->leaf_norm2,
                                     LKS__MEM_MISC);
    t->block_norm2 = lks__alloc_array(most_blocks, sizeof *t->block_norm2, LKS__MEM_MISC);
    return t->leaf_norm2 != NULL && t->block_norm2 != NULL ? LKS_OK : LKS_E_NOMEM;
}

static lks_status allocate(lks_trainer *t)
{
    int64_t m = t->config.plan->leaves_per_process;
    int64_t n_eval = t->config.test_set == NULL
                         ? 0
                         : lks__eval_n_leaves(t->config.test_set, t->config.plan->local_batch);
    int n_params = lks__network_n_params(t->network);

    t->indices = lks__alloc_array(t->config.plan->local_batch, sizeof *t->indices, LKS__MEM_DATA);
    t->leaf_loss = lks__alloc_array(m, sizeof *t->leaf_loss, LKS__MEM_MISC);
    t->leaf_correct = lks__alloc_array(m, sizeof *t->leaf_correct, LKS__MEM_MISC);
    t->tensor_values[0] = lks__alloc_array((int64_t)LKS__BLOCK_VALUES * n_params, sizeof **t->tensor_values,
                                           LKS__MEM_MISC);
    t->tensor_steps = lks__alloc_array(n_params, sizeof *t->tensor_steps, LKS__MEM_MISC);
    t->eval_loss = lks__alloc_array(2 * n_eval, sizeof *t->eval_loss, LKS__MEM_MISC);
    t->plain = lks__alloc_array(lks__network_largest_param_elems(t->network), sizeof *t->plain,
                                LKS__MEM_MISC);
    if (t->indices == NULL || t->leaf_loss == NULL || t->leaf_correct == NULL ||
        t->tensor_values[0] == NULL || t->tensor_steps == NULL || t->eval_loss == NULL || t->plain == NULL)
        return LKS_E_NOMEM;
    t->eval_correct = t->eval_loss + n_eval;
    for (int k = 1; k < LKS__BLOCK_VALUES; k++)
        t->tensor_values[k] = t->tensor_values[0] + (int64_t)k * n_params;
    return t->config.plan->lr_rule == LKS_LR_ADASCALE ? allocate_gain(t) : LKS_OK;
}

/* Where the run begins. Rank 0's doing. Collective. */
static lks_status set_start(lks_trainer *t)
{
    lks_status status = LKS_OK;
    if (t->rank == 0)
        status = t->config.resume_path != NULL ? lks__checkpoint_load(t) : lks__params_init(t);
    status = lks__agree(t->config.group, status);
    if (status == LKS_OK)
        status = lks__copies_share(t, t->config.resume_path != NULL);
    if (status != LKS_OK)
        return status;
    return lks_group_broadcast(t->config.group, &t->start, sizeof t->start, LKS_U8, 0);
}

/* Everything of this member alone. */
static lks_status create_local(lks_trainer *t)
{
    lks_status status = check_config(&t->config);
    if (status == LKS_OK)
        status = compile(t);
    if (status == LKS_OK)
        status = allocate(t);
    if (status == LKS_OK) {
        lks_sampler_config sampler = lks_sampler_config_from_plan(t->config.plan, t->config.seed);
        status = lks_sampler_create(&sampler, &t->sampler);
    }
    if (status == LKS_OK && t->rank == 0 && t->config.output_path != NULL) {
        status = lks__snapshot_create(t, &t->snapshot);
        if (status == LKS_OK)
            status = lks__checkpoint_writer_start(t, &t->writer);
    }
    return status;
}

/* What members must have in common to train the same thing, and with kernels that compute the same bits. */
enum { N_COMMON = 9 };

static const char *const common_names[N_COMMON] = {
    "plan",
    "seed",
    "optimizer",
    "clipping or on_divergence",
    "training set or its normalisation",
    "test set or its normalisation",
    "metrics_every_steps, hashes_every_steps or bucket_bytes",
    "times of checkpoints, or which is the best",
    "model, processor or kernel library",
};

static uint64_t hash_of_text(const char *text)
{
    return XXH64(text, strlen(text), 0);
}

static uint64_t hash_of_optimizer(const lks_optimizer_config *c)
{
    char text[256];
    snprintf(text, sizeof text, "%d %a %d %a %a %a %a %a %d", (int)c->kind, c->momentum, c->nesterov,
             c->weight_decay, c->beta1, c->beta2, c->epsilon, c->trust_coefficient, c->exclude_biases);
    return hash_of_text(text);
}

static uint64_t hash_of_intervals(const lks_trainer_config *c)
{
    char text[96];
    snprintf(text, sizeof text, "%lld %lld %lld", (long long)c->metrics_every_steps,
             (long long)c->hashes_every_steps, (long long)c->bucket_bytes);
    return hash_of_text(text);
}

static uint64_t hash_of_guards(const lks_trainer_config *c)
{
    char text[128];
    snprintf(text, sizeof text, "%a %a %d", c->clip_norm, c->clip_value, (int)c->on_divergence);
    return hash_of_text(text);
}

lks_status lks__dataset_hash(const lks_dataset *dataset, int64_t *out)
{
    *out = 0;
    if (dataset == NULL)
        return LKS_OK;
    lks_dataset_info info;
    lks_dataset_get_info(dataset, &info);
    float *x = lks__alloc_array(2 * info.n_features, sizeof *x, LKS__MEM_DATA);
    if (x == NULL)
        return LKS_E_NOMEM;
    int32_t labels[2];
    lks_dataset_read(dataset, 2, (const int64_t[]){0, info.n_samples - 1}, x, labels);
    const int64_t sizes[] = {info.n_samples, info.n_features, info.n_classes, labels[0], labels[1]};
    uint64_t hash = XXH64(x, 2 * (size_t)info.n_features * sizeof *x, 0);
    hash = XXH64(info.shape, (size_t)info.n_dims * sizeof info.shape[0], hash);
    *out = (int64_t)XXH64(sizes, sizeof sizes, hash);
    lks__free(x);
    return LKS_OK;
}

static lks_status list_common(const lks_trainer *t, int64_t out[N_COMMON])
{
    char *plan = NULL;
    int64_t train_set, test_set;
    lks_status status = lks__dataset_hash(t->config.train_set, &train_set);
    if (status == LKS_OK)
        status = lks__dataset_hash(t->config.test_set, &test_set);
    if (status == LKS_OK)
        status = lks_plan_to_json(t->config.plan, &plan);
    if (status != LKS_OK)
        return status;
    const int64_t values[N_COMMON] = {
        (int64_t)hash_of_text(plan),
        t->config.seed,
        (int64_t)hash_of_optimizer(&t->config.optimizer),
        (int64_t)hash_of_guards(&t->config),
        train_set,
        test_set,
        (int64_t)hash_of_intervals(&t->config),
        (int64_t)lks__checkpoint_config_hash(&t->config),
        (int64_t)lks__network_fingerprint(t->network),
    };
    free(plan);
    memcpy(out, values, sizeof values);
    return LKS_OK;
}

/* Collective. */
static lks_status check_common(const lks_trainer *t)
{
    int64_t own[N_COMMON], first[N_COMMON];
    lks_status status = lks__agree(t->config.group, list_common(t, own));
    if (status != LKS_OK)
        return status;
    memcpy(first, own, sizeof first);
    status = lks_group_broadcast(t->config.group, first, N_COMMON, LKS_I64, 0);
    if (status != LKS_OK)
        return status;
    for (int i = 0; status == LKS_OK && i < N_COMMON; i++)
        if (first[i] != own[i])
            status = lks__fail(LKS_E_ARG, "rank %d and rank 0 do not agree on the %s", t->rank,
                               common_names[i]);
    return lks__agree(t->config.group, status);
}

/* Parameters and optimizer state, once per machine, in its first member's region. Collective. */
static lks_status create_shared(lks_trainer *t)
{
    int n_states = lks__optim_n_states(&t->config.optimizer);
    int64_t elems = lks__network_arena_elems(t->network);
    bool first = lks_group_rank(t->node) == 0;
    size_t bytes = first ? (size_t)elems * sizeof(float) * (size_t)(1 + n_states) : 0;
    lks_status status = lks_group_memory_create(t->node, bytes, &t->shared);
    if (t->machines > 1) /* one machine alone may be short of memory */
        status = lks__agree(t->config.group, status);
    if (status != LKS_OK)
        return status;
    t->params = lks_group_memory_at(t->shared, 0);
    t->params_bytes = first ? elems * (int64_t)sizeof(float) : 0;
    t->states_bytes = n_states * t->params_bytes;
    lks__alloc_recount(t->params_bytes, LKS__MEM_COMM, LKS__MEM_PARAMS);
    lks__alloc_recount(t->states_bytes, LKS__MEM_COMM, LKS__MEM_OPTIMIZER);
    for (int s = 0; s < n_states; s++)
        t->states[s] = t->params + (1 + s) * elems;
    return LKS_OK;
}

static lks_status create_reducer(lks_trainer *t)
{
    int n = lks__network_n_params(t->network);
    lks__span *tensors = lks__alloc_array(n, sizeof *tensors, LKS__MEM_MISC);
    lks_status status = lks__agree(t->config.group, tensors == NULL ? LKS_E_NOMEM : LKS_OK);
    if (status == LKS_OK) {
        for (int i = 0; i < n; i++) {
            const lks__param *param = lks__network_param(t->network, i);
            tensors[i] = (lks__span){param->offset_elems, param->arena_elems};
        }
        lks__reducer_config config = {.group = t->config.group,
                                      .arena_elems = lks__network_arena_elems(t->network),
                                      .n_tensors = n,
                                      .tensors = tensors,
                                      .leaves = t->config.plan->leaves_per_process,
                                      .bucket_bytes = t->config.bucket_bytes};
        status = lks__reducer_create(&config, &t->reducer);
        t->grads_bytes = status == LKS_OK ? config.arena_elems * (int64_t)sizeof(float) : 0;
        lks__alloc_recount(t->grads_bytes, LKS__MEM_COMM, LKS__MEM_GRADS);
    }
    lks__free(tensors);
    return status;
}

lks_status lks_trainer_create(const lks_trainer_config *config, lks_trainer **out)
{
    *out = NULL;
    if (config->group == NULL)
        return lks__fail(LKS_E_ARG, "a trainer needs a group");
    lks_group *group = config->group;
    int64_t now = lks__now_ns();
    lks_trainer *t = lks__alloc(sizeof *t, LKS__MEM_MISC);
    lks_status status = lks__agree(group, t == NULL ? LKS_E_NOMEM : LKS_OK);
    if (status != LKS_OK)
        goto fail;
    t->config = *config;
    t->created_ns = now;
    t->rank = lks_group_rank(group);

    if ((status = lks__agree(group, create_local(t))) != LKS_OK)
        goto fail;
    if ((status = check_common(t)) != LKS_OK)
        goto fail;
    if ((status = lks__copies_init(t)) != LKS_OK)
        goto fail;
    if ((status = create_shared(t)) != LKS_OK)
        goto fail;
    if ((status = create_reducer(t)) != LKS_OK)
        goto fail;
    if ((status = set_start(t)) != LKS_OK)
        goto fail;
    *out = t;
    return LKS_OK;

fail:
    lks_trainer_destroy(t);
    return status;
}

void lks_trainer_destroy(lks_trainer *t)
{
    if (t == NULL)
        return;
    lks__checkpoint_writer_stop(t->writer);
    lks__run_dir_close(t->run_dir);
    lks__snapshot_destroy(t->snapshot);
    lks__alloc_recount(t->grads_bytes, LKS__MEM_GRADS, LKS__MEM_COMM);
    lks__alloc_recount(t->states_bytes, LKS__MEM_OPTIMIZER, LKS__MEM_COMM);
    lks__alloc_recount(t->params_bytes, LKS__MEM_PARAMS, LKS__MEM_COMM);
    lks__reducer_destroy(t->reducer);
    lks_group_memory_destroy(t->shared);
    lks__copies_deinit(t);
    lks_sampler_destroy(t->sampler);
    lks__network_destroy(t->network);
    lks__free(t->indices);
    lks__free(t->leaf_loss);
    lks__free(t->leaf_correct);
    lks__free(t->leaf_norm2);
    lks__free(t->block_norm2);
    lks__free(t->tensor_values[0]);
    lks__free(t->tensor_steps);
    lks__free(t->eval_loss);
    lks__free(t->plain);
    lks__free(t);
}
