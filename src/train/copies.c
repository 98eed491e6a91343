/* SPDX-License-Identifier: Apache-2.0 */
#include "train/copies.h"

#include <string.h>

#include <xxhash.h>

#include "base/alloc.h"
#include "base/error.h"

static bool is_first(const lks_trainer *t)
{
    return lks_group_rank(t->node) == 0;
}

lks_status lks__copies_init(lks_trainer *t)
{
    lks_group *group = t->config.group;
    t->node = lks_group_node(group);
    int64_t machines = is_first(t);
    lks_status status = lks_group_all_reduce(group, &machines, 1, LKS_I64, LKS_SUM);
    t->machines = (int)machines;
    t->compared_step = -1;
    if (status != LKS_OK || machines == 1)
        return status;
    t->hashes = lks__alloc_array(2 * (int64_t)lks__network_n_params(t->network), sizeof *t->hashes,
                                 LKS__MEM_MISC);
    return lks__agree(group, t->hashes == NULL ? LKS_E_NOMEM : LKS_OK);
}

void lks__copies_deinit(lks_trainer *t)
{
    lks__free(t->hashes);
}

/* Everybody takes part; what comes to a machine's other members goes nowhere. */
lks_status lks__copies_share(lks_trainer *t, bool with_states)
{
    int64_t sets = with_states ? 1 + lks__optim_n_states(&t->config.optimizer) : 1;
    int64_t elems = sets * lks__network_arena_elems(t->network);
    int64_t most = lks__network_largest_param_elems(t->network); /* of t->plain */
    lks_status status = LKS_OK;
    if (t->machines == 1) /* what rank 0 has done before the last exchange all can see */
        return LKS_OK;
    for (int64_t at = 0; at < elems && status == LKS_OK; at += most) {
        int64_t n = elems - at < most ? elems - at : most;
        status = lks_group_broadcast(t->config.group, is_first(t) ? t->params + at : t->plain, (size_t)n,
                                     LKS_F32, 0);
    }
    return status == LKS_OK ? lks_group_barrier(t->node) : status;
}

/* The layouts are the same: members agree on that at their start. */
static void hash_params(const lks_trainer *t, uint64_t *out)
{
    for (int i = 0; i < lks__network_n_params(t->network); i++) {
        const lks__param *param = lks__network_param(t->network, i);
        out[i] = XXH3_64bits(t->params + param->offset_elems, (size_t)param->arena_elems * sizeof(float));
    }
}

static lks_status compare(const lks_trainer *t, int64_t step, const uint64_t *own, const uint64_t *rank_0)
{
    for (int i = 0; i < lks__network_n_params(t->network); i++) {
        if (own[i] == rank_0[i])
            continue;
        lks_status status = lks__fail(LKS_E_MISMATCH,
                                      "after step %lld the copies of the parameters differ: \"%s\" on the "
                                      "machine of rank %d is not what "
                                      "it is on rank 0's",
                                      (long long)step, lks__network_param(t->network, i)->name, t->rank);
        return lks__error_hint(status, "the machines have computed the same, so memory, a processor or the "
                                       "network may be at fault; --resume goes on from the last checkpoint");
    }
    return LKS_OK;
}

lks_status lks__copies_compare(lks_trainer *t, int64_t step)
{
    size_t n = (size_t)lks__network_n_params(t->network);
    if (t->machines == 1 || t->compared_step == step)
        return LKS_OK;
    uint64_t *own = t->hashes, *rank_0 = own + n;
    t->compared_step = step;
    t->comparisons++;
    if (is_first(t)) {
        hash_params(t, own);
        memcpy(rank_0, own, n * sizeof *own);
    }
    lks_status status = lks_group_broadcast(t->config.group, rank_0, n, LKS_I64, 0);
    if (status != LKS_OK)
        return status;
    return lks__agree(t->config.group, is_first(t) ? compare(t, step, own, rank_0) : LKS_OK);
}
