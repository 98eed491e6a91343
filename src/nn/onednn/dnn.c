/* SPDX-License-Identifier: Apache-2.0 */
#include <oneapi/dnnl/dnnl_debug.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/error.h"
#include "nn/onednn/dnn_handles.h"

enum { MAX_ARGS = 6 };

struct lks__primitive {
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t primitive;
    int n_operands;
    int n_args;                     /* operands, and scratch memory if it needs any */
    dnnl_exec_arg_t args[MAX_ARGS]; /* the memory objects are owned */
    const void *bound[MAX_ARGS];    /* what each memory object points to */
};

lks_status lks__dnn_check(dnnl_status_t status, const char *what)
{
    if (status == dnnl_success)
        return LKS_OK;
    lks_status code = status == dnnl_out_of_memory ? LKS_E_NOMEM : LKS_E_KERNEL;
    return lks__fail(code, "oneDNN: %s: %s", what, dnnl_status2str(status));
}

static lks_status make_attr(dnnl_primitive_attr_t *attr)
{
    dnnl_status_t status = dnnl_primitive_attr_create(attr);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
    if (status == dnnl_success) /* whatever DNNL_DEFAULT_FPMATH_MODE says */
        status = dnnl_primitive_attr_set_fpmath_mode(*attr, dnnl_fpmath_mode_strict);
    return lks__dnn_check(status, "primitive attributes");
}

lks_status lks__dnn_create(bool sizes_only, lks__dnn **out)
{
    *out = NULL;
    lks__dnn *dnn = lks__alloc(sizeof *dnn, LKS__MEM_MISC);
    if (dnn == NULL)
        return LKS_E_NOMEM;
    dnn->sizes_only = sizes_only;
    lks_status status = lks__dnn_check(dnnl_engine_create(&dnn->engine, dnnl_cpu, 0), "engine");
    if (status == LKS_OK)
        status = lks__dnn_check(dnnl_stream_create(&dnn->stream, dnn->engine, dnnl_stream_default_flags),
                                "stream");
    if (status == LKS_OK)
        status = make_attr(&dnn->attr);
    if (status == LKS_OK)
        *out = dnn;
    else
        lks__dnn_destroy(dnn);
    return status;
}

/* oneDNN's destroy functions fail for NULL only, and do nothing then. */
void lks__dnn_destroy(lks__dnn *dnn)
{
    if (dnn == NULL)
        return;
    lks__free(dnn->scratch);
    (void)dnnl_primitive_attr_destroy(dnn->attr);
    (void)dnnl_stream_destroy(dnn->stream);
    (void)dnnl_engine_destroy(dnn->engine);
    lks__free(dnn);
}

lks_status lks__dnn_alloc_scratch(lks__dnn *dnn)
{
    if (dnn->sizes_only)
        return LKS_OK;
    dnn->scratch = lks__alloc(dnn->scratch_bytes, LKS__MEM_ACTIVATIONS);
    return dnn->scratch != NULL ? LKS_OK : LKS_E_NOMEM;
}

size_t lks__dnn_scratch_bytes(const lks__dnn *dnn)
{
    return dnn->scratch_bytes;
}

void lks__dnn_describe(size_t bytes, char *out)
{
    const dnnl_version_t *v = dnnl_version();
    snprintf(out, bytes, "oneDNN %d.%d.%d %s isa 0x%x", v->major, v->minor, v->patch, v->hash,
             (unsigned)dnnl_get_effective_cpu_isa());
}

const_dnnl_primitive_desc_t lks__primitive_desc(const lks__primitive *primitive)
{
    return primitive->desc;
}

const dnnl_memory_desc_t *lks__primitive_operand_desc(const lks__primitive *primitive, int arg)
{
    return dnnl_primitive_desc_query_md(primitive->desc, dnnl_query_exec_arg_md, arg);
}

/* Adds an argument that points nowhere yet. */
static dnnl_status_t add_arg(lks__dnn *dnn, lks__primitive *p, int arg)
{
    dnnl_exec_arg_t *a = &p->args[p->n_args];
    a->arg = arg;
    dnnl_status_t status = dnnl_memory_create(&a->memory, lks__primitive_operand_desc(p, arg), dnn->engine,
                                              DNNL_MEMORY_NONE);
    if (status == dnnl_success)
        p->n_args++;
    return status;
}

static size_t scratch_bytes(const lks__primitive *p)
{
    return dnnl_memory_desc_get_size(lks__primitive_operand_desc(p, DNNL_ARG_SCRATCHPAD));
}

/* Makes the chosen kernel and its arguments. */
static dnnl_status_t make(lks__dnn *dnn, lks__primitive *p, const lks__primitive_config *config)
{
    dnnl_status_t status = dnnl_primitive_create(&p->primitive, p->desc);
    for (int i = 0; status == dnnl_success && i < config->n_operands; i++)
        status = add_arg(dnn, p, config->args[i]);
    p->n_operands = config->n_operands;

    if (status == dnnl_success && scratch_bytes(p) > 0)
        status = add_arg(dnn, p, DNNL_ARG_SCRATCHPAD);
    return status;
}

lks_status lks__primitive_create(lks__dnn *dnn, const lks__primitive_config *config, lks__primitive **out)
{
    *out = NULL;
    lks__primitive *p = lks__alloc(sizeof *p, LKS__MEM_MISC);
    if (p == NULL)
        return LKS_E_NOMEM;
    dnnl_status_t status = dnnl_primitive_desc_create(&p->desc, config->op, dnn->attr, dnn->engine,
                                                      config->hint);
    if (status == dnnl_success && scratch_bytes(p) > dnn->scratch_bytes)
        dnn->scratch_bytes = scratch_bytes(p);
    if (status == dnnl_success && !dnn->sizes_only)
        status = make(dnn, p, config);
    if (status == dnnl_success)
        *out = p;
    else
        lks__primitive_destroy(p);
    return lks__dnn_check(status, config->what);
}

void lks__primitive_destroy(lks__primitive *primitive)
{
    if (primitive == NULL)
        return;
    for (int i = 0; i < primitive->n_args; i++)
        (void)dnnl_memory_destroy(primitive->args[i].memory);
    (void)dnnl_primitive_destroy(primitive->primitive);
    (void)dnnl_primitive_desc_destroy(primitive->desc);
    lks__free(primitive);
}

const char *lks__primitive_detail(const lks__primitive *primitive)
{
    const char *text = "";
    (void)dnnl_primitive_desc_query(primitive->desc, dnnl_query_impl_info_str, 0, &text);
    return text;
}

/* Setting a handle also zeroes the padding behind it, so it is done only when the pointer is another one. */
static dnnl_status_t bind(lks__primitive *p, int i, const void *data)
{
    if (p->bound[i] == data)
        return dnnl_success;
    dnnl_status_t status = dnnl_memory_set_data_handle(p->args[i].memory, (void *)data);
    p->bound[i] = status == dnnl_success ? data : NULL;
    return status;
}

lks_status lks__primitive_run(lks__dnn *dnn, lks__primitive *primitive, const void *const *operands)
{
    dnnl_status_t status = dnnl_success;
    for (int i = 0; status == dnnl_success && i < primitive->n_args; i++)
        status = bind(primitive, i, i < primitive->n_operands ? operands[i] : dnn->scratch);
    if (status == dnnl_success)
        status = dnnl_primitive_execute(primitive->primitive, dnn->stream, primitive->n_args,
                                        primitive->args);
    if (status == dnnl_success)
        status = dnnl_stream_wait(dnn->stream);
    return lks__dnn_check(status, "running a primitive");
}
