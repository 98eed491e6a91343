/* SPDX-License-Identifier: Apache-2.0 */
/* Hooks that come with lockstep. */
#include <string.h>

#include <lockstep/ddp.h>

#include "base/simd.h"
#include "comm/kernels.h"
#include "ddp/ddp_parts.h"

enum { PART = 2048 }; /* elements converted at a time */

static size_t part_at(size_t start, size_t n)
{
    return n - start < PART ? n - start : PART;
}

/* Packs n numbers into the first half of their own memory. Going up, a part is written where only earlier
 * parts and this one, which has been read, were. */
void lks__ddp_pack(float *data, size_t n)
{
    uint16_t part[PART];
    char *packed = (char *)data;
    for (size_t start = 0; start < n; start += PART) {
        size_t n_part = part_at(start, n);
        lks__bf16_narrow(part, data + start, n_part, lks__simd_best());
        memcpy(packed + start * sizeof part[0], part, n_part * sizeof part[0]);
    }
}

/* The way back, going down for the same reason. */
void lks__ddp_unpack(float *data, size_t n)
{
    uint16_t part[PART];
    const char *packed = (const char *)data;
    for (size_t left = (n + PART - 1) / PART; left > 0; left--) {
        size_t start = (left - 1) * PART, n_part = part_at(start, n);
        memcpy(part, packed + start * sizeof part[0], n_part * sizeof part[0]);
        lks__bf16_widen(data + start, part, n_part, lks__simd_best());
    }
}

lks_status lks_ddp_bf16_hook(void *context, lks_group *group, const lks_ddp_bucket *bucket)
{
    (void)context;
    if (lks_group_size(group) == 1) /* nothing travels, so nothing is gained */
        return LKS_OK;
    size_t n = (size_t)bucket->n_elems;
    lks__ddp_pack(bucket->data, n);
    lks_status status = lks_group_all_reduce(group, bucket->data, n, LKS_BF16, LKS_SUM);
    if (status == LKS_OK)
        lks__ddp_unpack(bucket->data, n);
    return status;
}
