/* SPDX-License-Identifier: Apache-2.0 */
/* Graph -> network: primitives first (the first batch size decides layouts), then places of parameters, then
 * the plan of activations, then the fingerprint. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"
#include "nn/graph_nodes.h"
#include "nn/network_parts.h"

/* With at most 2^31 elements per sample every count of elements stays below 2^63. */
#define MAX_BATCH ((int64_t)1 << 24)

enum { CACHE_LINE_ELEMS = LKS__ALIGNMENT / (int)sizeof(float) };

static const char *const phase_names[LKS__PHASES] = {"forward", "backward weights", "backward data"};

static lks_status check_config(const lks__network_config *config)
{
    if (config->threads < 1)
        return lks__fail(LKS_E_ARG, "a network with %d threads; at least 1 is needed", config->threads);
    if (config->n_batches < 1)
        return lks__fail(LKS_E_ARG, "a network needs at least one batch size");
    for (int i = 0; i < config->n_batches; i++)
        if (config->batches[i] < 1 || config->batches[i] > MAX_BATCH)
            return lks__fail(LKS_E_ARG, "batch size %lld; 1 to %lld are allowed",
                             (long long)config->batches[i], (long long)MAX_BATCH);
    return lks_graph_check(config->graph);
}

/* ---- nodes and parameters ---- */

static lks_status copy_graph(lks__network *network, const lks_graph *graph)
{
    network->n_nodes = graph->n_nodes;
    network->nodes = lks__alloc_array(graph->n_nodes, sizeof *network->nodes, LKS__MEM_MISC);
    network->trains = lks__alloc_array(graph->n_nodes, sizeof *network->trains, LKS__MEM_MISC);
    if (network->nodes == NULL || network->trains == NULL)
        return LKS_E_NOMEM;
    memcpy(network->nodes, graph->nodes, (size_t)graph->n_nodes * sizeof *graph->nodes);
    for (int i = 0; i < graph->n_nodes; i++) {
        const lks__node *node = &network->nodes[i];
        network->trains[i] = node->n_params > 0 || (node->x >= 0 && network->trains[node->x]);
        network->n_params += node->n_params;
    }
    return LKS_OK;
}

static lks_status list_params(lks__network *network)
{
    network->params = lks__alloc_array(network->n_params, sizeof *network->params, LKS__MEM_MISC);
    network->layouts = lks__alloc_array(network->n_params, sizeof(lks__layout *), LKS__MEM_MISC);
    if (network->params == NULL || network->layouts == NULL)
        return LKS_E_NOMEM;
    lks__param *param = network->params;
    for (int i = 0; i < network->n_nodes; i++)
        for (int j = 0; j < network->nodes[i].n_params; j++)
            *param++ = network->nodes[i].params[j];
    return LKS_OK;
}

/* Takes whole cache lines, so that no two tensors share one. Returns where they start. */
static int64_t take(int64_t *end_elems, int64_t elems)
{
    int64_t start = *end_elems;
    *end_elems += (int64_t)lks__round_up((size_t)elems, CACHE_LINE_ELEMS);
    return start;
}

static void place_params(lks__network *network)
{
    for (int i = 0; i < network->n_params; i++) {
        lks__param *param = &network->params[i];
        const lks__layout *layout = network->layouts[i];
        param->arena_elems = layout != NULL ? lks__layout_elems(layout) : param->n_elems;
        param->offset_elems = take(&network->arena_elems, param->arena_elems);
    }
}

/* ---- units ---- */

static void name_kernels(lks__unit *unit)
{
    for (int phase = 0; phase < LKS__PHASES; phase++)
        snprintf(unit->kernel_names[phase], sizeof unit->kernel_names[phase], "%s %s", unit->node->name,
                 phase_names[phase]);
}

static lks_status compile_batch(lks__network *network, lks__unit *units, int64_t batch)
{
    int param = 0;
    lks_status status = LKS_OK;
    for (int i = 0; status == LKS_OK && i < network->n_nodes; i++) {
        const lks__node *node = &network->nodes[i];
        lks__unit *unit = &units[i];
        unit->node = node;
        unit->batch = batch;
        unit->n_inputs = node->x >= 0 ? network->nodes[node->x].n_elems : 0;
        unit->params = &network->params[param];
        unit->layouts = &network->layouts[param];
        unit->wants_dx = node->x >= 0 && network->trains[node->x];
        param += node->n_params;
        name_kernels(unit);
        if (node->op->compile != NULL)
            status = node->op->compile(network->dnn, unit);
    }
    return status;
}

static lks_status compile_units(lks__network *network, const lks__network_config *config)
{
    network->n_batches = config->n_batches;
    network->units = lks__alloc_array((int64_t)config->n_batches * network->n_nodes, sizeof *network->units,
                                      LKS__MEM_MISC);
    lks_status status = network->units != NULL ? LKS_OK : LKS_E_NOMEM;
    for (int i = 0; status == LKS_OK && i < config->n_batches; i++)
        status = compile_batch(network, lks__network_units(network, i), config->batches[i]);
    return status == LKS_OK ? lks__dnn_alloc_scratch(network->dnn) : status;
}

/* ---- activations ---- */

/* Where each value, its gradient and its mask start in the activations. */
typedef struct memory_plan {
    int64_t *values, *grads, *masks; /* [n_nodes]; -1: nowhere */
    int64_t end_elems;
} memory_plan;

/* Every value is kept until backward has used it. A value lies on the one before it where both allow that. */
static void plan_values(const lks__network *network, memory_plan *plan)
{
    for (int i = 0; i < network->n_nodes; i++) {
        const lks__node *node = &network->nodes[i];
        if (node->op->ends_graph)
            plan->values[i] = -1;
        else if (node->op->in_place && !network->nodes[node->x].op->keeps_output)
            plan->values[i] = plan->values[node->x];
        else
            plan->values[i] = take(&plan->end_elems, network->max_batch * node->n_elems);
    }
}

/* A byte per element. */
static void plan_masks(const lks__network *network, memory_plan *plan)
{
    const int64_t per_elem = sizeof(float);
    for (int i = 0; i < network->n_nodes; i++) {
        int64_t bytes = network->max_batch * network->nodes[i].n_elems;
        plan->masks[i] = network->nodes[i].op->keeps_mask
                             ? take(&plan->end_elems, (bytes + per_elem - 1) / per_elem)
                             : -1;
    }
}

/* In a chain a gradient is dead once the one below it is there: two slots take turns. The loss's own gradient
 * has a third, which nothing writes over, so that backward can be repeated. */
static void plan_grads(const lks__network *network, memory_plan *plan)
{
    int64_t largest = 0;
    for (int i = 0; i < network->n_nodes; i++)
        if (network->trains[i] && network->nodes[i].n_elems > largest)
            largest = network->nodes[i].n_elems;
    const int64_t slots[2] = {take(&plan->end_elems, network->max_batch * largest),
                              take(&plan->end_elems, network->max_batch * largest)};
    int turn = 0;
    int64_t of_loss = -1;
    for (int i = network->n_nodes - 1; i > 0; i--) {
        const lks__node *node = &network->nodes[i];
        if (node->op->ends_graph)
            plan->grads[node->x] = of_loss = take(&plan->end_elems,
                                                  network->max_batch * network->nodes[node->x].n_elems);
        else if (node->op->in_place && plan->grads[i] != of_loss)
            plan->grads[node->x] = plan->grads[i];
        else
            plan->grads[node->x] = network->trains[node->x] ? slots[turn++ % 2] : -1;
    }
    plan->grads[network->n_nodes - 1] = -1;
}

static void set_addresses(lks__network *network, const memory_plan *plan)
{
    for (int b = 0; b < network->n_batches; b++)
        for (int i = 0; i < network->n_nodes; i++) {
            lks__unit *unit = &lks__network_units(network, b)[i];
            int x = network->nodes[i].x;
            float *base = network->activations;
            unit->y = plan->values[i] >= 0 ? base + plan->values[i] : NULL;
            unit->dy = plan->grads[i] >= 0 ? base + plan->grads[i] : NULL;
            unit->kept = plan->masks[i] >= 0 ? (uint8_t *)(base + plan->masks[i]) : NULL;
            unit->x = x >= 0 ? base + plan->values[x] : NULL;
            unit->dx = x >= 0 && plan->grads[x] >= 0 ? base + plan->grads[x] : NULL;
        }
}

static lks_status alloc_activations(lks__network *network, const memory_plan *plan)
{
    network->activations = lks__alloc_array(plan->end_elems, sizeof(float), LKS__MEM_ACTIVATIONS);
    network->labels = lks__alloc_array(network->max_batch, sizeof(int32_t), LKS__MEM_ACTIVATIONS);
    if (network->activations == NULL || network->labels == NULL)
        return LKS_E_NOMEM;
    set_addresses(network, plan);
    return LKS_OK;
}

static lks_status place_activations(lks__network *network)
{
    lks_status status = LKS_E_NOMEM;
    memory_plan plan = {.values = lks__alloc_array(network->n_nodes, sizeof(int64_t), LKS__MEM_MISC),
                        .grads = lks__alloc_array(network->n_nodes, sizeof(int64_t), LKS__MEM_MISC),
                        .masks = lks__alloc_array(network->n_nodes, sizeof(int64_t), LKS__MEM_MISC)};
    if (plan.values != NULL && plan.grads != NULL && plan.masks != NULL) {
        plan_values(network, &plan);
        plan_masks(network, &plan);
        plan_grads(network, &plan);
        network->activation_bytes = plan.end_elems * (int64_t)sizeof(float) +
                                    network->max_batch * (int64_t)sizeof(int32_t) +
                                    (int64_t)lks__dnn_scratch_bytes(network->dnn);
        status = network->sizes_only ? LKS_OK : alloc_activations(network, &plan);
    }
    lks__free(plan.masks);
    lks__free(plan.grads);
    lks__free(plan.values);
    return status;
}

/* ---- fingerprint ---- */

void lks__network_library(size_t bytes, char *out)
{
    lks__dnn_describe(bytes, out);
}

/* expf and log are the C library's. */
static void describe_libraries(const lks__network *network, lks__text *text)
{
    char line[256], libc[64] = "";
    lks__dnn_describe(sizeof line, line);
#ifdef _CS_GNU_LIBC_VERSION
    (void)confstr(_CS_GNU_LIBC_VERSION, libc, sizeof libc);
#endif
    lks__text_add(text, "%s\n%s\nthreads %d\n", line, libc, network->threads);
}

static void describe_unit(const lks__unit *unit, lks__text *text)
{
    lks__text_add(text, "batch %lld %s [%lld]\n", (long long)unit->batch, unit->node->op->name,
                  (long long)unit->node->n_elems);
    if (unit->node->op->describe != NULL)
        unit->node->op->describe(unit->node, text);
    for (int phase = 0; phase < LKS__PHASES; phase++)
        if (unit->primitives[phase] != NULL)
            lks__text_add(text, "%s: %s\n", unit->kernel_names[phase],
                          lks__primitive_detail(unit->primitives[phase]));
}

static void describe_params(const lks__network *network, lks__text *text)
{
    char line[256];
    for (int i = 0; i < network->n_params; i++) {
        const lks__param *param = &network->params[i];
        line[0] = '\0';
        if (network->layouts[i] != NULL)
            lks__layout_describe(network->layouts[i], sizeof line, line);
        lks__text_add(text, "%s at %lld: %s\n", param->name, (long long)param->offset_elems, line);
    }
}

static lks_status take_fingerprint(lks__network *network)
{
    lks__text text = {0};
    describe_libraries(network, &text);
    for (int64_t i = 0; i < (int64_t)network->n_batches * network->n_nodes; i++)
        describe_unit(&network->units[i], &text);
    describe_params(network, &text);

    char *all;
    lks_status status = lks__text_take(&text, &all);
    if (status == LKS_OK) {
        network->fingerprint = XXH64(all, strlen(all), 0);
        free(all);
    }
    return status;
}

/* ---- create and destroy ---- */

static lks_status compile(lks__network *network, const lks__network_config *config)
{
    for (int i = 0; i < config->n_batches; i++)
        if (config->batches[i] > network->max_batch)
            network->max_batch = config->batches[i];
    lks_status status = lks__dnn_create(config->sizes_only, &network->dnn);
    if (status == LKS_OK)
        status = copy_graph(network, config->graph);
    if (status == LKS_OK)
        status = list_params(network);
    if (status == LKS_OK)
        status = compile_units(network, config);
    if (status != LKS_OK)
        return status;
    place_params(network);
    status = place_activations(network);
    return status == LKS_OK && !config->sizes_only ? take_fingerprint(network) : status;
}

lks_status lks__network_create(const lks__network_config *config, lks__network **out)
{
    *out = NULL;
    lks_status status = check_config(config);
    if (status != LKS_OK)
        return status;
    lks__network *network = lks__alloc(sizeof *network, LKS__MEM_MISC);
    if (network == NULL)
        return LKS_E_NOMEM;

    network->threads = config->threads;
    network->sizes_only = config->sizes_only;
    int before = lks__network_enter(network); /* kernels are made for a number of threads */
    status = compile(network, config);
    lks__network_leave(before);
    if (status == LKS_OK)
        *out = network;
    else
        lks__network_destroy(network);
    return status;
}

static void destroy_units(lks__network *network)
{
    for (int64_t i = 0; network->units != NULL && i < (int64_t)network->n_batches * network->n_nodes; i++)
        for (int phase = 0; phase < LKS__PHASES; phase++)
            lks__primitive_destroy(network->units[i].primitives[phase]);
    lks__free(network->units);
}

void lks__network_destroy(lks__network *network)
{
    if (network == NULL)
        return;
    destroy_units(network);
    for (int i = 0; network->layouts != NULL && i < network->n_params; i++)
        lks__layout_destroy(network->layouts[i]);
    lks__free(network->layouts);
    lks__free(network->params);
    lks__free(network->trains);
    lks__free(network->nodes);
    lks__free(network->labels);
    lks__free(network->activations);
    lks__dnn_destroy(network->dnn);
    lks__free(network);
}
