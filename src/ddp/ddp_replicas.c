/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the copies of the parameters are still copies. */
#include <string.h>
#include <xxhash.h>

#include "base/error.h"
#include "comm/agree.h"
#include "ddp/ddp_parts.h"

static lks_status compare(const lks_ddp *ddp, const uint64_t *own, const uint64_t *rank_0)
{
    for (int i = 0; i < ddp->n_tensors; i++) {
        if (own[i] == rank_0[i])
            continue;
        char text[LKS__TENSOR_TEXT_BYTES];
        lks_status status = lks__fail(LKS_E_MISMATCH,
                                      "lks_ddp: parameters differ: %s on rank %d is not what it is on rank 0 "
                                      "(checked at step %lld)",
                                      lks__ddp_tensor_text(ddp, i, text), ddp->rank,
                                      (long long)ddp->info.steps);
        return lks__error_hint(status, "every member must make the same update from the same gradients");
    }
    return LKS_OK;
}

lks_status lks__ddp_compare_replicas(lks_ddp *ddp)
{
    size_t n = (size_t)ddp->n_tensors;
    uint64_t *own = ddp->hashes, *rank_0 = ddp->hashes + n;
    for (size_t i = 0; i < n; i++) {
        const lks_ddp_tensor *tensor = &ddp->tensors[i].is;
        own[i] = XXH3_64bits(tensor->param, (size_t)tensor->n_elems * sizeof(float));
    }
    memcpy(rank_0, own, n * sizeof *own);
    lks_status status = lks_group_broadcast(ddp->group, rank_0, n, LKS_I64, 0);
    return status == LKS_OK ? lks__agree(ddp->group, compare(ddp, own, rank_0)) : status;
}

lks_status lks_ddp_check_replicas(lks_ddp *ddp)
{
    lks_status status = lks__ddp_between_passes(ddp, "lks_ddp_check_replicas");
    return status == LKS_OK ? lks__ddp_compare_replicas(ddp) : status;
}
