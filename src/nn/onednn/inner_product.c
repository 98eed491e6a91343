/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/onednn/inner_product.h"

#include "nn/onednn/dnn_handles.h"

/* Memory descriptors of one product. */
typedef struct descs {
    dnnl_memory_desc_t x, w, b, y;
    const dnnl_memory_desc_t *bias; /* &b, or NULL without bias */
} descs;

static lks_status init_descs(const lks__inner_product *shape, const lks__layout *weights, descs *out)
{
    lks_status status = lks__desc_init(2, (int64_t[]){shape->batch, shape->in}, dnnl_ab, &out->x);
    if (status == LKS_OK)
        status = lks__desc_init(2, (int64_t[]){shape->batch, shape->out}, dnnl_ab, &out->y);
    if (status == LKS_OK)
        status = lks__desc_init(1, &shape->out, dnnl_a, &out->b);
    if (status == LKS_OK)
        status = lks__desc_init(2, (int64_t[]){shape->out, shape->in}, dnnl_format_tag_any, &out->w);
    if (weights != NULL)
        out->w = weights->desc;
    out->bias = shape->bias ? &out->b : NULL;
    return status;
}

static lks_status keep_choice(const lks__inner_product *shape, const lks__primitive *forward,
                              lks__layout **weights)
{
    dnnl_memory_desc_t plain;
    lks_status status = lks__desc_init(2, (int64_t[]){shape->out, shape->in}, dnnl_ab, &plain);
    if (status == LKS_OK)
        status = lks__layout_create(lks__primitive_operand_desc(forward, DNNL_ARG_WEIGHTS), &plain, weights);
    return status;
}

lks_status lks__inner_product_forward(lks__dnn *dnn, const lks__inner_product *shape, lks__layout **weights,
                                      lks__primitive **out)
{
    static const int args[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS};
    dnnl_inner_product_desc_t op;
    const lks__primitive_config config = {"inner product forward", &op, NULL, shape->bias ? 4 : 3, args};
    descs d;
    lks_status status = init_descs(shape, *weights, &d);
    if (status == LKS_OK)
        status = lks__dnn_check(
            dnnl_inner_product_forward_desc_init(&op, dnnl_forward_training, &d.x, &d.w, d.bias, &d.y),
            config.what);
    if (status == LKS_OK)
        status = lks__primitive_create(dnn, &config, out);
    if (status == LKS_OK && *weights == NULL)
        status = keep_choice(shape, *out, weights);
    return status;
}

lks_status lks__inner_product_backward_params(lks__dnn *dnn, const lks__inner_product *shape,
                                              const lks__layout *weights, const lks__primitive *forward,
                                              lks__primitive **out)
{
    static const int args[] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_BIAS};
    dnnl_inner_product_desc_t op;
    const lks__primitive_config config = {"inner product backward weights", &op, lks__primitive_desc(forward),
                                          shape->bias ? 4 : 3, args};
    descs d;
    lks_status status = init_descs(shape, weights, &d);
    if (status == LKS_OK)
        status = lks__dnn_check(dnnl_inner_product_backward_weights_desc_init(&op, &d.x, &d.w, d.bias, &d.y),
                                config.what);
    return status == LKS_OK ? lks__primitive_create(dnn, &config, out) : status;
}

lks_status lks__inner_product_backward_data(lks__dnn *dnn, const lks__inner_product *shape,
                                            const lks__layout *weights, const lks__primitive *forward,
                                            lks__primitive **out)
{
    static const int args[] = {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC};
    dnnl_inner_product_desc_t op;
    const lks__primitive_config config = {"inner product backward data", &op, lks__primitive_desc(forward), 3,
                                          args};
    descs d;
    lks_status status = init_descs(shape, weights, &d);
    if (status == LKS_OK)
        status = lks__dnn_check(dnnl_inner_product_backward_data_desc_init(&op, &d.x, &d.w, &d.y),
                                config.what);
    return status == LKS_OK ? lks__primitive_create(dnn, &config, out) : status;
}
