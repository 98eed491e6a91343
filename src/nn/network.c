/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/network.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>

#include "base/error.h"
#include "base/text.h"
#include "nn/network_parts.h"

int lks__network_enter(const lks__network *network)
{
    int before = omp_get_max_threads();
    omp_set_num_threads(network->threads);
    return before;
}

void lks__network_leave(int threads_before)
{
    omp_set_num_threads(threads_before);
}

int lks__network_n_params(const lks__network *network)
{
    return network->n_params;
}

const lks__param *lks__network_param(const lks__network *network, int index)
{
    return &network->params[index];
}

int64_t lks__network_arena_elems(const lks__network *network)
{
    return network->arena_elems;
}

int64_t lks__network_activation_bytes(const lks__network *network)
{
    return network->activation_bytes;
}

int64_t lks__network_n_features(const lks__network *network)
{
    return network->nodes[0].n_elems;
}

/* The loss is the last node of a chain, and reads the logits. */
static const lks__unit *loss_unit(const lks__network *network)
{
    return &network->units[network->n_nodes - 1];
}

int64_t lks__network_n_classes(const lks__network *network)
{
    return loss_unit(network)->n_inputs;
}

float *lks__network_input(lks__network *network)
{
    return network->units[0].y;
}

int32_t *lks__network_labels(lks__network *network)
{
    return network->labels;
}

const float *lks__network_logits(const lks__network *network)
{
    return loss_unit(network)->x;
}

uint64_t lks__network_fingerprint(const lks__network *network)
{
    return network->fingerprint;
}

static const lks__unit *find_units(const lks__network *network, int64_t batch)
{
    if (network->sizes_only)
        return NULL;
    for (int i = 0; i < network->n_batches; i++)
        if (lks__network_units(network, i)->batch == batch)
            return lks__network_units(network, i);
    return NULL;
}

static lks_status fail_batch(const lks__network *network, int64_t batch)
{
    char sizes[128] = "";
    if (network->sizes_only)
        return lks__fail(LKS_E_ARG, "the network is compiled for its sizes only: it can't be run");
    for (int i = 0; i < network->n_batches; i++)
        lks__append(sizes, sizeof sizes, "%s%lld", i > 0 ? ", " : "",
                    (long long)lks__network_units(network, i)->batch);
    return lks__fail(LKS_E_ARG, "the network is not compiled for batch size %lld, but for %s",
                     (long long)batch, sizes);
}

static lks_status run_phase(const lks__run *run, const lks__unit *unit, lks__phase phase)
{
    return unit->node->op->run[phase] != NULL ? unit->node->op->run[phase](run, unit) : LKS_OK;
}

static bool is_finite(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* Forward through all nodes, or, when *bad is wanted (not NULL), up to the first one whose value is not
 * finite; *bad: its index, or n_nodes. */
static lks_status run_forward(lks__network *network, int64_t batch, const lks__run *run, int *bad)
{
    const lks__unit *units = find_units(network, batch);
    if (units == NULL)
        return fail_batch(network, batch);
    lks_status status = LKS_OK;
    bool good = true;
    int i = 0, before = lks__network_enter(network);
    for (; status == LKS_OK && good && i < network->n_nodes; i++) {
        status = run_phase(run, &units[i], LKS__FORWARD);
        if (bad != NULL)
            good = units[i].y != NULL ? is_finite(units[i].y, batch * network->nodes[i].n_elems)
                                      : isfinite(run->loss->loss_sum);
    }
    lks__network_leave(before);
    if (bad != NULL)
        *bad = good ? network->n_nodes : i - 1;
    return status;
}

lks_status lks__network_forward(lks__network *network, int64_t batch, const float *params,
                                const lks__draw *draw, lks__loss *out)
{
    lks__loss loss = {0};
    const lks__run run = {
        .dnn = network->dnn, .params = params, .draw = draw, .labels = network->labels, .loss = &loss};
    lks_status status = run_forward(network, batch, &run, NULL);
    network->forwarded = status == LKS_OK ? batch : 0;
    network->drew = draw != NULL;
    if (draw != NULL)
        network->draw = *draw;
    if (status == LKS_OK)
        *out = loss;
    return status;
}

/* In words; operations without parameters are told by the layer that they follow. */
static void name_value(const lks__network *network, int index, char out[LKS__VALUE_NAME_BYTES])
{
    const lks__node *node = &network->nodes[index];
    int layer = index;
    while (layer > 0 && network->nodes[layer].name[0] == '\0')
        layer--;
    if (index == 0)
        snprintf(out, LKS__VALUE_NAME_BYTES, "the input");
    else if (node->op->ends_graph)
        snprintf(out, LKS__VALUE_NAME_BYTES, "the loss");
    else if (layer == index)
        snprintf(out, LKS__VALUE_NAME_BYTES, "the output of %s \"%s\"", node->op->name, node->name);
    else
        snprintf(out, LKS__VALUE_NAME_BYTES, "the output of %s after \"%s\"", node->op->name,
                 network->nodes[layer].name);
}

lks_status lks__network_find_not_finite(lks__network *network, int64_t batch, const float *params,
                                        const lks__draw *draw, char out[LKS__VALUE_NAME_BYTES])
{
    lks__loss loss = {0};
    const lks__run run = {
        .dnn = network->dnn, .params = params, .draw = draw, .labels = network->labels, .loss = &loss};
    int bad;
    lks_status status = run_forward(network, batch, &run, &bad);
    network->forwarded = 0; /* there may be no whole forward to go back from */
    if (status != LKS_OK)
        return status;
    out[0] = '\0';
    if (bad < network->n_nodes)
        name_value(network, bad, out);
    return LKS_OK;
}

/* Who hears of gradients. */
typedef struct listener {
    lks__grad_ready_fn *ready; /* NULL: nobody */
    void *context;
} listener;

/* Indices descend over the whole of backward. */
static void report(const lks__network *network, const lks__unit *unit, const listener *to)
{
    for (int i = unit->node->n_params - 1; to->ready != NULL && i >= 0; i--)
        to->ready(to->context, (int)(unit->params - network->params) + i);
}

/* Gradients of parameters come first, and are reported at once: they can be on their way while the input's is
 * computed. */
static lks_status backward_unit(const lks__network *network, const lks__run *run, const lks__unit *unit,
                                const listener *to)
{
    lks_status status = LKS_OK;
    if (unit->node->n_params > 0)
        status = run_phase(run, unit, LKS__BACKWARD_PARAMS);
    if (status == LKS_OK)
        report(network, unit, to);
    if (status == LKS_OK && unit->wants_dx)
        status = run_phase(run, unit, LKS__BACKWARD_DATA);
    return status;
}

lks_status lks__network_backward(lks__network *network, int64_t batch, const float *params, float *grads,
                                 lks__grad_ready_fn *ready, void *ready_context)
{
    const lks__unit *units = find_units(network, batch);
    if (units == NULL)
        return fail_batch(network, batch);
    if (network->forwarded != batch)
        return lks__fail(LKS_E_ARG, "backward of batch size %lld without a forward of that size before it",
                         (long long)batch);

    const lks__run run = {
        .dnn = network->dnn, .params = params, .grads = grads, .draw = network->drew ? &network->draw : NULL};
    const listener to = {ready, ready_context};
    lks_status status = LKS_OK;
    int before = lks__network_enter(network);
    for (int i = network->n_nodes - 1; status == LKS_OK && i >= 0; i--)
        status = backward_unit(network, &run, &units[i], &to);
    lks__network_leave(before);
    return status;
}

/* ---- kernels ---- */

/* The order of a step: forward of all nodes, then of each node, last first, both backward phases. */
static int n_turns(const lks__network *network)
{
    return network->n_nodes * LKS__PHASES;
}

static const lks__unit *turn(const lks__network *network, const lks__unit *units, int index,
                             lks__phase *phase)
{
    int n = network->n_nodes, backward = index - n;
    if (backward < 0) {
        *phase = LKS__FORWARD;
        return &units[index];
    }
    *phase = backward % 2 == 0 ? LKS__BACKWARD_PARAMS : LKS__BACKWARD_DATA;
    return &units[n - 1 - backward / 2];
}

/* The step's index-th unit and phase that is a primitive. Returns how many there were up to it: index + 1, or
 * all of them when there are fewer (unit is NULL then). */
static int find_kernel(const lks__network *network, const lks__unit *units, int index, const lks__unit **unit,
                       lks__phase *phase)
{
    int found = 0;
    for (int i = 0; i < n_turns(network); i++) {
        *unit = turn(network, units, i, phase);
        if ((*unit)->primitives[*phase] != NULL && found++ == index)
            return found;
    }
    *unit = NULL;
    return found;
}

int lks__network_n_kernels(const lks__network *network, int64_t batch)
{
    const lks__unit *units = find_units(network, batch), *unit;
    lks__phase phase;
    return units != NULL ? find_kernel(network, units, -1, &unit, &phase) : 0;
}

int64_t lks__network_flops(const lks__network *network, int64_t batch)
{
    int64_t flops = 0;
    lks__kernel kernel;
    for (int i = 0; i < lks__network_n_kernels(network, batch); i++)
        if (lks__network_kernel(network, batch, i, &kernel) == LKS_OK)
            flops += kernel.flops;
    return flops;
}

static lks_status get_kernel(const lks__network *network, int64_t batch, int index, const lks__unit **unit,
                             lks__phase *phase)
{
    const lks__unit *units = find_units(network, batch);
    if (units == NULL)
        return fail_batch(network, batch);
    int found = find_kernel(network, units, index, unit, phase);
    if (*unit == NULL)
        return lks__fail(LKS_E_ARG, "kernel %d; a step has %d", index, found);
    return LKS_OK;
}

lks_status lks__network_kernel(const lks__network *network, int64_t batch, int index, lks__kernel *out)
{
    const lks__unit *unit;
    lks__phase phase;
    lks_status status = get_kernel(network, batch, index, &unit, &phase);
    if (status == LKS_OK)
        *out = (lks__kernel){.name = unit->kernel_names[phase],
                             .detail = lks__primitive_detail(unit->primitives[phase]),
                             .flops = unit->node->op->flops(unit)};
    return status;
}

lks_status lks__network_run_kernel(lks__network *network, int64_t batch, int index, const float *params,
                                   float *grads)
{
    const lks__unit *unit;
    lks__phase phase;
    lks_status status = get_kernel(network, batch, index, &unit, &phase);
    if (status != LKS_OK)
        return status;
    const lks__run run = {.dnn = network->dnn, .params = params, .grads = grads};
    int before = lks__network_enter(network);
    status = run_phase(&run, unit, phase);
    lks__network_leave(before);
    network->forwarded = 0; /* the activations are of no one forward any more */
    return status;
}
