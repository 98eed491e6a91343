/* SPDX-License-Identifier: Apache-2.0 */
/** What the files of this folder share: oneDNN's handles inside ours. */
#ifndef LKS_NN_ONEDNN_DNN_HANDLES_H
#define LKS_NN_ONEDNN_DNN_HANDLES_H

#include <oneapi/dnnl/dnnl.h>

#include "nn/onednn/dnn.h"

struct lks__dnn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_attr_t attr; /* of all primitives: scratch memory is ours, f32 is computed in f32 */
    void *scratch;
    size_t scratch_bytes; /* the largest that a primitive asked for */
    bool sizes_only;
};

struct lks__layout {
    dnnl_memory_desc_t desc, plain;
};

/** LKS_OK, or the failure "oneDNN: <what>: <its status>". */
lks_status lks__dnn_check(dnnl_status_t status, const char *what) LKS_MUST_USE;

/** What a primitive is made from. */
typedef struct lks__primitive_config {
    const char *what; /* for messages: "inner product forward" */
    const_dnnl_op_desc_t op;
    const_dnnl_primitive_desc_t hint; /* forward's, for a backward primitive; else NULL */
    int n_operands;
    const int *args; /* [n_operands]: DNNL_ARG_... */
} lks__primitive_config;

lks_status lks__primitive_create(lks__dnn *dnn, const lks__primitive_config *config,
                                 lks__primitive **out) LKS_MUST_USE;

const_dnnl_primitive_desc_t lks__primitive_desc(const lks__primitive *primitive);

/** The memory form that it uses for an operand (DNNL_ARG_...). Borrowed. */
const dnnl_memory_desc_t *lks__primitive_operand_desc(const lks__primitive *primitive, int arg);

/** A plain f32 tensor; with tag dnnl_format_tag_any one whose layout a primitive may choose. */
lks_status lks__desc_init(int n_dims, const int64_t *shape, dnnl_format_tag_t tag,
                          dnnl_memory_desc_t *out) LKS_MUST_USE;

lks_status lks__layout_create(const dnnl_memory_desc_t *desc, const dnnl_memory_desc_t *plain,
                              lks__layout **out) LKS_MUST_USE;

#endif
