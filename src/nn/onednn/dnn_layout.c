/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/text.h"
#include "nn/onednn/dnn_handles.h"

lks_status lks__desc_init(int n_dims, const int64_t *shape, dnnl_format_tag_t tag, dnnl_memory_desc_t *out)
{
    return lks__dnn_check(dnnl_memory_desc_init_by_tag(out, n_dims, shape, dnnl_f32, tag),
                          "memory descriptor");
}

lks_status lks__layout_create(const dnnl_memory_desc_t *desc, const dnnl_memory_desc_t *plain,
                              lks__layout **out)
{
    *out = lks__alloc(sizeof **out, LKS__MEM_MISC);
    if (*out == NULL)
        return LKS_E_NOMEM;
    (*out)->desc = *desc;
    (*out)->plain = *plain;
    return LKS_OK;
}

void lks__layout_destroy(lks__layout *layout)
{
    lks__free(layout);
}

int64_t lks__layout_elems(const lks__layout *layout)
{
    return (int64_t)(dnnl_memory_desc_get_size(&layout->desc) / sizeof(float));
}

void lks__layout_describe(const lks__layout *layout, size_t bytes, char *out)
{
    const dnnl_memory_desc_t *d = &layout->desc;
    const dnnl_blocking_desc_t *blocks = &d->format_desc.blocking;
    out[0] = '\0';
    for (int i = 0; i < d->ndims; i++)
        lks__append(out, bytes, "%lld(%lld):%lld ", (long long)d->dims[i], (long long)d->padded_dims[i],
                    (long long)blocks->strides[i]);
    for (int i = 0; i < blocks->inner_nblks; i++)
        lks__append(out, bytes, "%lld%c", (long long)blocks->inner_blks[i], 'a' + (int)blocks->inner_idxs[i]);
}

typedef struct conversion {
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t reorder;
    dnnl_memory_t from, to;
} conversion;

static dnnl_status_t convert(lks__dnn *dnn, conversion *c, const dnnl_memory_desc_t *from_desc,
                             const float *from, const dnnl_memory_desc_t *to_desc, float *to)
{
    dnnl_status_t status = dnnl_reorder_primitive_desc_create(&c->desc, from_desc, dnn->engine, to_desc,
                                                              dnn->engine, NULL);
    if (status == dnnl_success)
        status = dnnl_primitive_create(&c->reorder, c->desc);
    if (status == dnnl_success)
        status = dnnl_memory_create(&c->from, from_desc, dnn->engine, (void *)from);
    if (status == dnnl_success)
        status = dnnl_memory_create(&c->to, to_desc, dnn->engine, to);
    if (status != dnnl_success)
        return status;
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, c->from}, {DNNL_ARG_TO, c->to}};
    status = dnnl_primitive_execute(c->reorder, dnn->stream, 2, args);
    return status == dnnl_success ? dnnl_stream_wait(dnn->stream) : status;
}

/* Made for each call: conversions are for checkpoints and initial values, and oneDNN caches their code. */
static lks_status reorder(lks__dnn *dnn, const dnnl_memory_desc_t *from_desc, const float *from,
                          const dnnl_memory_desc_t *to_desc, float *to)
{
    conversion c = {0};
    dnnl_status_t status = convert(dnn, &c, from_desc, from, to_desc, to);
    (void)dnnl_memory_destroy(c.to);
    (void)dnnl_memory_destroy(c.from);
    (void)dnnl_primitive_destroy(c.reorder);
    (void)dnnl_primitive_desc_destroy(c.desc);
    return lks__dnn_check(status, "converting a layout");
}

lks_status lks__layout_export(lks__dnn *dnn, const lks__layout *layout, const float *arena, float *plain)
{
    return reorder(dnn, &layout->desc, arena, &layout->plain, plain);
}

lks_status lks__layout_import(lks__dnn *dnn, const lks__layout *layout, const float *plain, float *arena)
{
    return reorder(dnn, &layout->plain, plain, &layout->desc, arena);
}
