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

/* Over several machines only. */
static lks_status init_firsts(lks_trainer *t)
{
    lks_status status = lks_group_split(t->config.group, is_first(t) ? 0 : -1, 0, &t->firsts);
    if (status != LKS_OK)
        return status;
    if (is_first(t))
        t->hashes = lks__alloc_array(2 * (int64_t)lks__network_n_params(t->network), sizeof *t->hashes,
                                     LKS__MEM_MISC);
    return lks__agree(t->config.group, is_first(t) && t->hashes == NULL ? LKS_E_NOMEM : LKS_OK);
}

lks_status lks__copies_init(lks_trainer *t)
{
    lks_group *group = t->config.group;
    t->node = lks_group_node(group);
    int64_t machines = is_first(t);
    lks_status status = lks_group_all_reduce(group, &machines, 1, LKS_I64, LKS_SUM);
    t->machines = (int)machines;
    t->compared_step = -1;
    return status == LKS_OK && machines > 1 ? init_firsts(t) : status;
}

void lks__copies_deinit(lks_trainer *t)
{
    lks__free(t->hashes);
    lks_group_destroy(t->firsts);
}

lks_status lks__copies_share(lks_trainer *t, bool with_states)
{
    size_t sets = with_states ? 1 + (size_t)lks__optim_n_states(&t->config.optimizer) : 1;
    lks_status status = LKS_OK;
    if (t->machines == 1) /* what rank 0 has done before the last exchange all can see */
        return LKS_OK;
    if (is_first(t))
        status = lks_group_broadcast(t->firsts, t->params,
                                     sets * (size_t)lks__network_arena_elems(t->network), LKS_F32, 0);
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

static lks_status compare_with_rank_0(lks_trainer *t, int64_t step)
{
    int n = lks__network_n_params(t->network);
    uint64_t *own = t->hashes, *rank_0 = t->hashes + n;
    hash_params(t, own);
    memcpy(rank_0, own, (size_t)n * sizeof *own);
    lks_status status = lks_group_broadcast(t->firsts, rank_0, (size_t)n, LKS_I64, 0);
    for (int i = 0; status == LKS_OK && i < n; i++) {
        if (own[i] == rank_0[i])
            continue;
        status = lks__fail(LKS_E_MISMATCH,
                           "after step %lld the copies of the parameters differ: \"%s\" on the machine of "
                           "rank %d is not what it is on rank 0's",
                           (long long)step, lks__network_param(t->network, i)->name, t->rank);
        return lks__error_hint(status, "the machines have computed the same, so memory, a processor or the "
                                       "network may be at fault; --resume goes on from the last checkpoint");
    }
    return status;
}

lks_status lks__copies_compare(lks_trainer *t, int64_t step)
{
    if (t->machines == 1 || t->compared_step == step)
        return LKS_OK;
    t->compared_step = step;
    t->comparisons++;
    return lks__agree(t->config.group, is_first(t) ? compare_with_rank_0(t, step) : LKS_OK);
}
