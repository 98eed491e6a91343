/* SPDX-License-Identifier: Apache-2.0 */
/* Buckets: which gradients are reduced together, and where they lie meanwhile. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "comm/agree.h"
#include "ddp/ddp_parts.h"

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Cuts the order into buckets. All that it looks at is equal on all members. */
static void cut_order(lks_ddp *ddp)
{
    int64_t most = ddp->bucket_bytes / (int64_t)sizeof(float);
    ddp->n_buckets = 0;
    for (int i = 0; i < ddp->n_tensors; i++) {
        int32_t tensor = ddp->placed[i] = ddp->order[i];
        int64_t n_elems = ddp->tensors[tensor].is.n_elems;
        lks__bucket *bucket = ddp->n_buckets > 0 ? &ddp->buckets[ddp->n_buckets - 1] : NULL;
        if (bucket == NULL || bucket->is.n_elems + n_elems > most) {
            bucket = &ddp->buckets[ddp->n_buckets];
            *bucket = (lks__bucket){.is = {.index = ddp->n_buckets++, .tensors = &ddp->placed[i]}};
        }
        bucket->is.n_elems += n_elems;
        bucket->is.n_tensors++;
        ddp->tensors[tensor].bucket = bucket->is.index;
    }
    /* Ascending within a bucket, so that gradients that lie one behind the other stay so. */
    for (int b = 0; b < ddp->n_buckets; b++) {
        ddp->buckets[b].is.n_buckets = ddp->n_buckets;
        qsort(ddp->placed + (ddp->buckets[b].is.tensors - ddp->placed), (size_t)ddp->buckets[b].is.n_tensors,
              sizeof ddp->placed[0], ascending);
    }
}

/* The gradients of a bucket, if they lie one behind the other, so that they can be reduced where they are;
 * else NULL. */
static float *adjacent_grads(const lks_ddp *ddp, const lks_ddp_bucket *bucket)
{
    float *first = NULL, *end = NULL;
    for (int i = 0; i < bucket->n_tensors; i++) {
        const lks_ddp_tensor *tensor = &ddp->tensors[bucket->tensors[i]].is;
        if (tensor->n_elems == 0)
            continue;
        if (first == NULL)
            first = tensor->grad;
        else if (tensor->grad != end)
            return NULL;
        end = tensor->grad + tensor->n_elems;
    }
    return first;
}

static size_t staged_bytes(const lks__bucket *bucket)
{
    return bucket->is_view ? 0 : lks__round_up((size_t)bucket->is.n_elems * sizeof(float), LKS__ALIGNMENT);
}

/* Makes more staging memory when any member needs more than it has. */
static lks_status reserve_staging(lks_ddp *ddp, size_t bytes)
{
    int64_t more = bytes > ddp->staging_bytes;
    lks_status status = lks_group_all_reduce(ddp->group, &more, 1, LKS_I64, LKS_MAX);
    if (status != LKS_OK || more == 0)
        return status;
    size_t wanted = bytes > ddp->staging_bytes ? bytes : ddp->staging_bytes;
    lks_group_memory *memory;
    status = lks_group_memory_create(ddp->group, wanted, &memory);
    if (status != LKS_OK)
        return status;
    lks_group_memory_destroy(ddp->staging);
    ddp->staging = memory;
    ddp->staging_bytes = wanted;
    return LKS_OK;
}

/* Finds buckets that need no place of their own. Returns the bytes of staging memory for the others. */
static size_t find_views(lks_ddp *ddp)
{
    size_t bytes = 0;
    for (int b = 0; b < ddp->n_buckets; b++) {
        lks__bucket *bucket = &ddp->buckets[b];
        bucket->is.data = adjacent_grads(ddp, &bucket->is);
        bucket->is_view = bucket->is.data != NULL || bucket->is.n_elems == 0;
        bytes += staged_bytes(bucket);
    }
    return bytes;
}

static void place_others(lks_ddp *ddp)
{
    char *at = ddp->staging != NULL ? lks_group_memory_at(ddp->staging, ddp->rank) : NULL;
    for (int b = 0; b < ddp->n_buckets; b++) {
        lks__bucket *bucket = &ddp->buckets[b];
        if (bucket->is_view)
            continue;
        bucket->is.data = (float *)(void *)at;
        at += staged_bytes(bucket);
    }
}

static lks_status make_requests(lks_ddp *ddp)
{
    lks_status status = LKS_OK;
    for (int b = 0; b < ddp->n_buckets && status == LKS_OK && ddp->hook == NULL; b++) {
        lks__bucket *bucket = &ddp->buckets[b];
        lks_operation sum = {.collective = LKS_ALL_REDUCE,
                             .dtype = ddp->is_bf16 ? LKS_BF16 : LKS_F32,
                             .op = LKS_SUM,
                             .count = (size_t)bucket->is.n_elems,
                             .in = bucket->is.data,
                             .out = bucket->is.data};
        status = lks_request_create(ddp->group, &sum, &bucket->request);
    }
    return status;
}

void lks__ddp_destroy_requests(lks_ddp *ddp)
{
    for (int b = 0; b < ddp->n_buckets; b++) {
        lks_request_destroy(ddp->buckets[b].request);
        ddp->buckets[b].request = NULL;
    }
}

lks_status lks__ddp_build_buckets(lks_ddp *ddp)
{
    lks__ddp_destroy_requests(ddp);
    cut_order(ddp);
    lks_status status = reserve_staging(ddp, find_views(ddp));
    if (status != LKS_OK)
        return status;
    place_others(ddp);
    lks__ddp_reset_buckets(ddp);
    return lks__agree(ddp->group, make_requests(ddp));
}

void lks__ddp_reset_buckets(lks_ddp *ddp)
{
    for (int b = 0; b < ddp->n_buckets; b++)
        ddp->buckets[b].n_missing = ddp->buckets[b].is.n_tensors;
    for (int i = 0; i < ddp->n_tensors; i++)
        ddp->tensors[i].reported = false;
    ddp->n_observed = 0;
    ddp->next_bucket = ddp->n_done = 0;
}

/* ---- in and out ---- */

/* Apart and in place: a loop that may be either would be compiled to look which, and be slow in place. */

static void multiply(float *restrict out, const float *restrict in, int64_t n, float factor)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = in[i] * factor;
}

static void multiply_in_place(float *data, int64_t n, float factor)
{
    for (int64_t i = 0; i < n; i++)
        data[i] *= factor;
}

/* A division per element: one rounding of the quotient, where a multiplication by 1 / divisor has two. */
static void divide(float *restrict out, const float *restrict in, int64_t n, float divisor)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = in[i] / divisor;
}

static void divide_in_place(float *data, int64_t n, float divisor)
{
    for (int64_t i = 0; i < n; i++)
        data[i] /= divisor;
}

static size_t bytes_of(int64_t n_elems)
{
    return (size_t)n_elems * sizeof(float);
}

static void weigh(const lks_ddp *ddp, const lks__bucket *bucket, float weight)
{
    float *at = bucket->is.data;
    if (bucket->is_view) {
        if (weight != 1)
            multiply_in_place(at, bucket->is.n_elems, weight);
        return;
    }
    for (int i = 0; i < bucket->is.n_tensors; i++) {
        const lks_ddp_tensor *tensor = &ddp->tensors[bucket->is.tensors[i]].is;
        multiply(at, tensor->grad, tensor->n_elems, weight); /* by 1: a copy, also of NaN */
        at += tensor->n_elems;
    }
}

void lks__ddp_fill_bucket(lks_ddp *ddp, const lks__bucket *bucket, float weight)
{
    if (bucket->is.n_elems == 0)
        return;
    if (weight == 0)
        memset(bucket->is.data, 0, bytes_of(bucket->is.n_elems));
    else
        weigh(ddp, bucket, weight);
    if (ddp->is_bf16)
        lks__ddp_pack(bucket->is.data, (size_t)bucket->is.n_elems);
}

void lks__ddp_empty_bucket(lks_ddp *ddp, const lks__bucket *bucket, float divisor)
{
    float *at = bucket->is.data;
    if (ddp->is_bf16)
        lks__ddp_unpack(at, (size_t)bucket->is.n_elems);
    if (bucket->is_view) {
        if (divisor != 1)
            divide_in_place(at, bucket->is.n_elems, divisor);
        return;
    }
    for (int i = 0; i < bucket->is.n_tensors; i++) {
        const lks_ddp_tensor *tensor = &ddp->tensors[bucket->is.tensors[i]].is;
        divide(tensor->grad, at, tensor->n_elems, divisor);
        at += tensor->n_elems;
    }
}
