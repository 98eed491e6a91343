/* SPDX-License-Identifier: Apache-2.0 */
/* y = max(x, 0)    dx = dy where y > 0, else 0
 *
 * Not a post-op of the product before it: the library's ReLU turns NaN into 0, so a network with NaN in its
 * data or parameters would train on without a word. Here, as in PyTorch, NaN passes (both comparisons are
 * false for it). */
#include <string.h>

#include "nn/op.h"

static lks_status infer(lks__node *node, const lks__node *x)
{
    node->n_dims = x->n_dims;
    memcpy(node->shape, x->shape, sizeof node->shape);
    node->n_elems = x->n_elems;
    return LKS_OK;
}

static lks_status forward(const lks__run *run, const lks__unit *unit)
{
    (void)run;
    int64_t n = unit->batch * unit->node->n_elems;
    float *y = unit->y;
    if (y != unit->x)
        memcpy(y, unit->x, (size_t)n * sizeof *y);
    for (int64_t i = 0; i < n; i++)
        y[i] = 0.0f > y[i] ? 0.0f : y[i];
    return LKS_OK;
}

static lks_status backward_data(const lks__run *run, const lks__unit *unit)
{
    (void)run;
    int64_t n = unit->batch * unit->node->n_elems;
    const float *restrict y = unit->y;
    float *restrict d = unit->dx;
    if (d != unit->dy)
        memcpy(d, unit->dy, (size_t)n * sizeof *d);
    for (int64_t i = 0; i < n; i++)
        d[i] = y[i] <= 0.0f ? 0.0f : d[i];
    return LKS_OK;
}

const lks__op lks__op_relu = {
    .name = "relu",
    .in_place = true,
    .keeps_output = true,
    .infer = infer,
    .run = {forward, NULL, backward_data},
};
