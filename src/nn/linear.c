/* SPDX-License-Identifier: Apache-2.0 */
/* y = x W^T + b    dW = dy^T x, db = sum of dy over the batch    dx = dy W
 * x, dx: [batch, in]; W, dW: [out, in]; b, db: [out]; y, dy: [batch, out] */
#include <string.h>

#include "nn/onednn/inner_product.h"
#include "nn/op.h"

enum { WEIGHT, BIAS };

static void set_param(lks__node *node, int index, const char *suffix, int n_dims, int64_t fan_in)
{
    lks__param *param = &node->params[index];
    memcpy(param->name, node->name, sizeof param->name);
    strncat(param->name, suffix, sizeof param->name - strlen(param->name) - 1);
    param->n_dims = n_dims;
    param->shape[0] = node->linear.out_features;
    param->shape[1] = n_dims == 2 ? fan_in : 0;
    param->n_elems = node->linear.out_features * (n_dims == 2 ? fan_in : 1);
    param->fan_in = fan_in;
}

static lks_status infer(lks__node *node, const lks__node *x)
{
    node->n_dims = 1;
    node->shape[0] = node->n_elems = node->linear.out_features;
    node->n_params = node->linear.bias ? 2 : 1;
    set_param(node, WEIGHT, ".weight", 2, x->n_elems);
    if (node->linear.bias)
        set_param(node, BIAS, ".bias", 1, x->n_elems);
    return LKS_OK;
}

static lks_status compile(lks__dnn *dnn, lks__unit *unit)
{
    const lks__inner_product shape = {unit->batch, unit->n_inputs, unit->node->n_elems,
                                      unit->node->linear.bias};
    lks__layout **weights = &unit->layouts[WEIGHT];
    lks__primitive **forward = &unit->primitives[LKS__FORWARD];
    lks_status status = lks__inner_product_forward(dnn, &shape, weights, forward);
    if (status == LKS_OK)
        status = lks__inner_product_backward_params(dnn, &shape, *weights, *forward,
                                                    &unit->primitives[LKS__BACKWARD_PARAMS]);
    if (status == LKS_OK && unit->wants_dx)
        status = lks__inner_product_backward_data(dnn, &shape, *weights, *forward,
                                                  &unit->primitives[LKS__BACKWARD_DATA]);
    return status;
}

/* Bias is the last operand, so that without it there is one operand less. */
static lks_status forward(const lks__run *run, const lks__unit *unit)
{
    const float *w = run->params + unit->params[WEIGHT].offset_elems;
    const float *b = unit->node->linear.bias ? run->params + unit->params[BIAS].offset_elems : NULL;
    return lks__primitive_run(run->dnn, unit->primitives[LKS__FORWARD],
                              (const void *[]){unit->x, w, unit->y, b});
}

static lks_status backward_params(const lks__run *run, const lks__unit *unit)
{
    float *dw = run->grads + unit->params[WEIGHT].offset_elems;
    float *db = unit->node->linear.bias ? run->grads + unit->params[BIAS].offset_elems : NULL;
    return lks__primitive_run(run->dnn, unit->primitives[LKS__BACKWARD_PARAMS],
                              (const void *[]){unit->x, unit->dy, dw, db});
}

static lks_status backward_data(const lks__run *run, const lks__unit *unit)
{
    const float *w = run->params + unit->params[WEIGHT].offset_elems;
    return lks__primitive_run(run->dnn, unit->primitives[LKS__BACKWARD_DATA],
                              (const void *[]){unit->dy, w, unit->dx});
}

static int64_t flops(const lks__unit *unit)
{
    return 2 * unit->batch * unit->n_inputs * unit->node->n_elems;
}

const lks__op lks__op_linear = {
    .name = "linear",
    .infer = infer,
    .compile = compile,
    .run = {forward, backward_params, backward_data},
    .flops = flops,
};
