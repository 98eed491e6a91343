/* SPDX-License-Identifier: Apache-2.0 */
/* What a run takes: beforehand, from the plan and the sizes of a network that is not made; afterwards, from
 * the allocator's counts. docs/plan.md says what is counted where. */
#include "base/alloc.h"
#include "data/dataset_files.h"
#include "train/trainer.h"

/* What the reducer makes of m leaves: one arena for each digit of m. */
static int64_t n_gradient_arenas(int64_t leaves)
{
    return 64 - __builtin_clzll((uint64_t)leaves);
}

static int64_t n_values(const lks__network *network)
{
    int64_t n = 0;
    for (int i = 0; i < lks__network_n_params(network); i++)
        n += lks__network_param(network, i)->n_elems;
    return n;
}

static int64_t data_bytes(const lks_plan *plan, const lks_dataset_info *train, const lks_dataset_info *test)
{
    int64_t order = train->n_samples * (int64_t)sizeof(int32_t);
    int64_t indices = plan->local_batch * (int64_t)sizeof(int64_t);
    return lks__dataset_bytes(train) + (test != NULL ? lks__dataset_bytes(test) : 0) + order + indices;
}

lks_status lks__predict_memory(const lks_graph *graph, const lks_dataset_info *train,
                               const lks_dataset_info *test, int threads, lks_plan *plan)
{
    int64_t batches[LKS__MAX_BATCHES];
    lks__network_config config = {.graph = graph, .batches = batches, .threads = threads, .sizes_only = true};
    config.n_batches = lks__list_batches(plan, test != NULL ? test->n_samples : 0, batches);
    lks__network *network;
    lks_status status = lks__network_create(&config, &network);
    if (status != LKS_OK)
        return status;
    int64_t n_states = lks__optim_n_states(&plan->optimizer);
    int64_t arena_bytes = lks__network_arena_elems(network) * (int64_t)sizeof(float);
    plan->memory = (lks_plan_memory){
        .parameters = arena_bytes,
        .optimizer = n_states * arena_bytes,
        .checkpoint = (1 + n_states) * n_values(network) * (int64_t)sizeof(float),
        .gradients = n_gradient_arenas(plan->leaves_per_process) * arena_bytes,
        .activations = lks__network_activation_bytes(network),
        .data = data_bytes(plan, train, test),
        .other = lks__network_largest_param_elems(network) * (int64_t)sizeof(float), /* for conversions */
    };
    plan->reduced_bytes = plan->processes > 1 ? n_values(network) * (int64_t)sizeof(float) : 0;
    lks__network_destroy(network);
    return LKS_OK;
}

lks_plan_memory lks__measure_memory(void)
{
    return (lks_plan_memory){
        .parameters = lks__alloc_bytes(LKS__MEM_PARAMS),
        .optimizer = lks__alloc_bytes(LKS__MEM_OPTIMIZER),
        .checkpoint = lks__alloc_bytes(LKS__MEM_CHECKPOINT),
        .gradients = lks__alloc_bytes(LKS__MEM_GRADS),
        .activations = lks__alloc_bytes(LKS__MEM_ACTIVATIONS),
        .data = lks__alloc_bytes(LKS__MEM_DATA),
        .other = lks__alloc_bytes(LKS__MEM_COMM) + lks__alloc_bytes(LKS__MEM_MISC),
    };
}
