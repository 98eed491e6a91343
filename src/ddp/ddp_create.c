/* SPDX-License-Identifier: Apache-2.0 */
/* Making and ending a handle. Whatever fails on one member fails on all: after each step that can, they
 * agree. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"
#include "comm/agree.h"
#include "ddp/ddp_parts.h"

/* On shared memory a bucket should still be in a near cache when it is reduced, and large against what its
 * barriers cost: adding up 1 MiB takes a tenth of a millisecond or more, two barriers of crowded processes
 * 20 us. */
enum { BUCKET_BYTES = 1 << 20, CHECK_EVERY = 100 };

lks_ddp_config lks_ddp_config_default(void)
{
    return (lks_ddp_config){.bucket_bytes = BUCKET_BYTES, .check_every = CHECK_EVERY};
}

/* ---- what is refused ---- */

static lks_status check_settings(const lks_ddp_config *config)
{
    if (config->n_tensors < 0 || config->n_buffers < 0)
        return lks__fail(LKS_E_ARG, "lks_ddp: %d tensors and %d buffers; 0 is the least", config->n_tensors,
                         config->n_buffers);
    if (config->gradients != LKS_DDP_SUMS && config->gradients != LKS_DDP_MEANS)
        return lks__fail(LKS_E_ARG, "lks_ddp: gradients is %d; LKS_DDP_SUMS and LKS_DDP_MEANS are allowed",
                         (int)config->gradients);
    if (config->unused != LKS_DDP_UNUSED_REFUSED && config->unused != LKS_DDP_UNUSED_ZERO)
        return lks__fail(LKS_E_ARG,
                         "lks_ddp: unused is %d; LKS_DDP_UNUSED_REFUSED and LKS_DDP_UNUSED_ZERO are allowed",
                         (int)config->unused);
    if (config->bucket_bytes < 1)
        return lks__fail(LKS_E_ARG, "lks_ddp: bucket_bytes is %lld; it must be at least 1",
                         (long long)config->bucket_bytes);
    if (config->check_every < 0)
        return lks__fail(LKS_E_ARG, "lks_ddp: check_every is %lld; 0 (never) is the least",
                         (long long)config->check_every);
    return LKS_OK;
}

static lks_status check_tensor(const lks_ddp_config *config, int i)
{
    const lks_ddp_tensor *tensor = &config->tensors[i];
    if (tensor->name == NULL)
        return lks__fail(LKS_E_ARG, "lks_ddp: tensor %d has no name", i);
    if (tensor->n_elems < 0 || tensor->n_elems > PTRDIFF_MAX / 8)
        return lks__fail(LKS_E_ARG, "lks_ddp: tensor %d (%s) has %lld elements", i, tensor->name,
                         (long long)tensor->n_elems);
    if (tensor->param == NULL && tensor->n_elems > 0)
        return lks__fail(LKS_E_ARG, "lks_ddp: tensor %d (%s) has no parameters: param is NULL", i,
                         tensor->name);
    if ((tensor->grad == NULL) != (config->tensors[0].grad == NULL))
        return lks__fail(LKS_E_ARG,
                         "lks_ddp: grad is NULL for tensor %d (%s) and not for tensor 0, or the other way "
                         "round; either all bring gradients, or none",
                         i, tensor->name);
    return LKS_OK;
}

/* One gradient under two names would be reduced twice. */
static lks_status check_apart(const lks_ddp_config *config, int i)
{
    const lks_ddp_tensor *a = &config->tensors[i];
    uintptr_t start = (uintptr_t)a->grad, end = (uintptr_t)(a->grad + a->n_elems);
    for (int j = 0; j < i && a->n_elems > 0; j++) {
        const lks_ddp_tensor *b = &config->tensors[j];
        if ((uintptr_t)b->grad < end && start < (uintptr_t)(b->grad + b->n_elems))
            return lks__fail(LKS_E_ARG, "lks_ddp: the gradients of tensor %d (%s) and tensor %d (%s) overlap",
                             j, b->name, i, a->name);
    }
    return LKS_OK;
}

static lks_status check_config(const lks_ddp_config *config)
{
    lks_status status = check_settings(config);
    for (int i = 0; i < config->n_tensors && status == LKS_OK; i++) {
        status = check_tensor(config, i);
        if (status == LKS_OK && config->tensors[0].grad != NULL)
            status = check_apart(config, i);
    }
    for (int i = 0; i < config->n_buffers && status == LKS_OK; i++) {
        const lks_ddp_buffer *buffer = &config->buffers[i];
        if (buffer->name == NULL || (buffer->data == NULL && buffer->n_bytes > 0))
            status = lks__fail(LKS_E_ARG, "lks_ddp: buffer %d has no %s", i,
                               buffer->name == NULL ? "name" : "data");
    }
    return status;
}

/* ---- create ---- */

static lks_status copy_names(lks_ddp *ddp, const lks_ddp_config *config)
{
    for (int i = 0; i < ddp->n_tensors; i++) {
        ddp->tensors[i].is = config->tensors[i];
        if ((ddp->tensors[i].is.name = lks__strdup(config->tensors[i].name)) == NULL)
            return LKS_E_NOMEM;
    }
    for (int i = 0; i < ddp->n_buffers; i++) {
        ddp->buffers[i] = config->buffers[i];
        if ((ddp->buffers[i].name = lks__strdup(config->buffers[i].name)) == NULL)
            return LKS_E_NOMEM;
    }
    return LKS_OK;
}

/* All that steps will need, but for memory of the group. */
static lks_status allocate(lks_ddp *ddp, const lks_ddp_config *config)
{
    int n = config->n_tensors;
    ddp->tensors = lks__alloc_array(n, sizeof *ddp->tensors, LKS__MEM_GRADS);
    ddp->buffers = lks__alloc_array(config->n_buffers, sizeof *ddp->buffers, LKS__MEM_GRADS);
    ddp->buckets = lks__alloc_array(n, sizeof *ddp->buckets, LKS__MEM_GRADS);
    ddp->order = lks__alloc_array(n, sizeof *ddp->order, LKS__MEM_GRADS);
    ddp->placed = lks__alloc_array(n, sizeof *ddp->placed, LKS__MEM_GRADS);
    ddp->observed = lks__alloc_array(n, sizeof *ddp->observed, LKS__MEM_GRADS);
    ddp->words = lks__alloc_array(LKS__DDP_WORDS + (int64_t)n, sizeof *ddp->words, LKS__MEM_GRADS);
    ddp->hashes = lks__alloc_array(2 * (int64_t)n, sizeof *ddp->hashes, LKS__MEM_GRADS);
    if (!ddp->tensors || !ddp->buffers || !ddp->buckets || !ddp->order || !ddp->placed || !ddp->observed ||
        !ddp->words || !ddp->hashes)
        return LKS_E_NOMEM;
    /* zeroed arrays: from here on destroy finds NULL names where none has been copied */
    ddp->n_tensors = n;
    ddp->n_buffers = config->n_buffers;
    return copy_names(ddp, config);
}

static lks_status new_handle(const lks_ddp_config *config, lks_ddp **out)
{
    lks_ddp *ddp = *out = lks__alloc(sizeof *ddp, LKS__MEM_GRADS);
    if (ddp == NULL)
        return LKS_E_NOMEM;
    ddp->group = config->group;
    ddp->rank = lks_group_rank(config->group);
    ddp->size = lks_group_size(config->group);
    ddp->gradients = config->gradients;
    ddp->unused = config->unused;
    ddp->bucket_bytes = config->bucket_bytes;
    ddp->check_every = config->check_every;
    ddp->has_hook = config->hook != NULL;
    /* This one needs not be called: what it does is known, so its buckets can be posted like others. */
    ddp->is_bf16 = config->hook == lks_ddp_bf16_hook && ddp->size > 1;
    ddp->hook = config->hook == lks_ddp_bf16_hook ? NULL : config->hook;
    ddp->hook_context = config->hook_context;
    return allocate(ddp, config);
}

/* Gradients in the group's memory, one behind the other, where the caller has none. */
static lks_status lend_grads(lks_ddp *ddp)
{
    if (ddp->n_tensors == 0 || ddp->tensors[0].is.grad != NULL)
        return LKS_OK;
    size_t n_elems = 0;
    for (int i = 0; i < ddp->n_tensors; i++)
        n_elems += (size_t)ddp->tensors[i].is.n_elems;
    lks_status status = lks_group_memory_create(ddp->group, n_elems * sizeof(float), &ddp->own_grads);
    if (status != LKS_OK)
        return status;
    float *at = lks_group_memory_at(ddp->own_grads, ddp->rank);
    for (int i = 0; i < ddp->n_tensors && at != NULL; i++) {
        ddp->tensors[i].is.grad = at;
        at += ddp->tensors[i].is.n_elems;
    }
    return LKS_OK;
}

static lks_status broadcast_params(lks_ddp *ddp)
{
    lks_status status = LKS_OK;
    for (int i = 0; i < ddp->n_tensors && status == LKS_OK; i++)
        status = lks_group_broadcast(ddp->group, ddp->tensors[i].is.param, (size_t)ddp->tensors[i].is.n_elems,
                                     LKS_F32, 0);
    return status;
}

lks_status lks_ddp_broadcast_buffers(lks_ddp *ddp)
{
    lks_status status = lks__ddp_between_passes(ddp, "lks_ddp_broadcast_buffers");
    for (int i = 0; i < ddp->n_buffers && status == LKS_OK; i++)
        status = lks_group_broadcast(ddp->group, ddp->buffers[i].data, ddp->buffers[i].n_bytes, LKS_U8, 0);
    return status;
}

static lks_status start(lks_ddp *ddp)
{
    lks_status status = lks__ddp_verify(ddp);
    if (status == LKS_OK)
        status = lend_grads(ddp);
    if (status != LKS_OK)
        return status;
    for (int i = 0; i < ddp->n_tensors; i++)
        ddp->order[i] = ddp->n_tensors - 1 - i;
    status = lks__ddp_build_buckets(ddp);
    if (status == LKS_OK)
        status = broadcast_params(ddp);
    return status == LKS_OK ? lks_ddp_broadcast_buffers(ddp) : status;
}

lks_status lks_ddp_create(const lks_ddp_config *config, lks_ddp **out)
{
    *out = NULL;
    if (config->group == NULL)
        return lks__fail(LKS_E_ARG, "lks_ddp: group is NULL");
    lks_ddp *ddp = NULL;
    lks_status status = lks__agree(config->group, check_config(config));
    if (status == LKS_OK)
        status = lks__agree(config->group, new_handle(config, &ddp));
    if (status == LKS_OK)
        status = start(ddp);
    if (status != LKS_OK) {
        lks_ddp_destroy(ddp);
        return status;
    }
    *out = ddp;
    return LKS_OK;
}

void lks_ddp_destroy(lks_ddp *ddp)
{
    if (ddp == NULL)
        return;
    lks__ddp_destroy_requests(ddp);
    lks_group_memory_destroy(ddp->staging);
    lks_group_memory_destroy(ddp->own_grads);
    for (int i = 0; i < ddp->n_tensors; i++)
        lks__free((char *)ddp->tensors[i].is.name);
    for (int i = 0; i < ddp->n_buffers; i++)
        lks__free((char *)ddp->buffers[i].name);
    lks__free(ddp->tensors);
    lks__free(ddp->buffers);
    lks__free(ddp->buckets);
    lks__free(ddp->order);
    lks__free(ddp->placed);
    lks__free(ddp->observed);
    lks__free(ddp->words);
    lks__free(ddp->hashes);
    lks__free(ddp);
}

/* ---- failures, and what can be asked ---- */

lks_status lks__ddp_end(lks_ddp *ddp, lks_status status)
{
    if (status != LKS_OK && ddp->failure == LKS_OK) {
        ddp->failure = status;
        snprintf(ddp->failure_text, sizeof ddp->failure_text, "%s", lks_error_message());
    }
    return status;
}

lks_status lks__ddp_alive(const lks_ddp *ddp)
{
    return ddp->failure == LKS_OK ? LKS_OK : lks__fail(ddp->failure, "%s", ddp->failure_text);
}

lks_status lks__ddp_between_passes(const lks_ddp *ddp, const char *call)
{
    lks_status status = lks__ddp_alive(ddp);
    if (status == LKS_OK && ddp->n_observed > 0)
        status = lks__fail(LKS_E_ARG, "%s: within a pass: %d of %d gradients have been reported", call,
                           ddp->n_observed, ddp->n_tensors);
    return status;
}

const char *lks__ddp_tensor_text(const lks_ddp *ddp, int tensor, char out[LKS__TENSOR_TEXT_BYTES])
{
    snprintf(out, LKS__TENSOR_TEXT_BYTES, "tensor %d (%.100s)", tensor, ddp->tensors[tensor].is.name);
    return out;
}

static bool exists(const lks_ddp *ddp, int tensor)
{
    return tensor >= 0 && tensor < ddp->n_tensors;
}

float *lks_ddp_grad(const lks_ddp *ddp, int tensor)
{
    return exists(ddp, tensor) ? ddp->tensors[tensor].is.grad : NULL;
}

bool lks_ddp_used(const lks_ddp *ddp, int tensor)
{
    return exists(ddp, tensor) && ddp->tensors[tensor].used;
}

int lks_ddp_bucket_of(const lks_ddp *ddp, int tensor)
{
    return exists(ddp, tensor) ? ddp->tensors[tensor].bucket : -1;
}

void lks_ddp_get_info(const lks_ddp *ddp, lks_ddp_info *out)
{
    *out = ddp->info;
    out->n_buckets = ddp->n_buckets;
    for (int b = 0; b < ddp->n_buckets; b++) {
        out->grad_elems += ddp->buckets[b].is.n_elems;
        out->copied_elems += ddp->buckets[b].is_view ? 0 : ddp->buckets[b].is.n_elems;
    }
}
