/* SPDX-License-Identifier: Apache-2.0 */
#include <lockstep/group.h>

#include <stdio.h>

#include "base/error.h"
#include "comm/backend.h"

enum { DEFAULT_TIMEOUT_S = 300 };

lks_group_config lks_group_config_default(void)
{
    return (lks_group_config){.size = 1, .fd = -1, .timeout_s = DEFAULT_TIMEOUT_S};
}

static lks_status check_size(int size, double timeout_s)
{
    if (size < 1 || size > LKS_GROUP_MAX_SIZE)
        return lks__fail(LKS_E_ARG, "a group of %d members is not possible; 1 to %d are", size,
                         LKS_GROUP_MAX_SIZE);
    if (!(timeout_s > 0))
        return lks__fail(LKS_E_ARG, "the timeout of a group is %g s; it must be above 0", timeout_s);
    return LKS_OK;
}

static lks_status check_config(const lks_group_config *config)
{
    lks_status status = check_size(config->size, config->timeout_s);
    if (status != LKS_OK)
        return status;
    if (config->rank < 0 || config->rank >= config->size)
        return lks__fail(LKS_E_ARG, "rank %d is not in 0..%d", config->rank, config->size - 1);
    if (config->size > 1 && config->fd < 0 && config->address == NULL)
        return lks__fail(LKS_E_ARG, "a group of %d needs a shared memory file or an address to meet at",
                         config->size);
    return LKS_OK;
}

lks_status lks_group_create(const lks_group_config *config, lks_group **out)
{
    *out = NULL;
    lks_status status = check_config(config);
    if (status != LKS_OK)
        return status;
    return config->size == 1 ? lks__solo_create(out) : lks__shm_create(config, out);
}

lks_status lks_group_create_threads(int size, double timeout_s, lks_group **members)
{
    lks_status status = check_size(size, timeout_s);
    if (status != LKS_OK)
        return status;
    for (int r = 0; r < size; r++)
        members[r] = NULL;
    return size == 1 ? lks__solo_create(members) : lks__shm_create_threads(size, timeout_s, members);
}

void lks_group_destroy(lks_group *group)
{
    if (group != NULL)
        group->backend->destroy(group);
}

int lks_group_rank(const lks_group *group)
{
    return group->rank;
}

int lks_group_size(const lks_group *group)
{
    return group->size;
}

int lks_group_failed_by(const lks_group *group)
{
    bool told = group->failure != LKS_OK && group->backend->failed_by != NULL;
    return told ? group->backend->failed_by(group) : -1;
}

/* Keeps the first failure that the members share. After any other one (bad arguments, lack of memory, which
 * all are told alike) the group goes on. */
static lks_status keep_failure(lks_group *group, lks_status status)
{
    if (status != LKS_E_PEER && status != LKS_E_TIMEOUT && status != LKS_E_MISMATCH &&
        status != LKS_E_INTERNAL)
        return status;
    group->failure = status;
    snprintf(group->failure_text, sizeof group->failure_text, "%s", lks_error_message());
    return status;
}

lks_status lks_group_run(lks_group *group, const lks_operation *asked)
{
    lks_operation operation;
    lks_status status = lks__operation_check(asked, group->rank, group->size, &operation);
    if (status != LKS_OK)
        return status;
    if (group->failure != LKS_OK)
        return lks__fail(group->failure, "%s", group->failure_text);
    return keep_failure(group, group->backend->run(group, &operation));
}

/* ---- short forms ---- */

lks_status lks_group_all_reduce(lks_group *group, void *data, size_t count, lks_dtype dtype, lks_op op)
{
    return lks_group_run(group, &(lks_operation){LKS_ALL_REDUCE, dtype, op, 0, count, data, data});
}

lks_status lks_group_broadcast(lks_group *group, void *data, size_t count, lks_dtype dtype, int root)
{
    return lks_group_run(group, &(lks_operation){LKS_BROADCAST, dtype, LKS_SUM, root, count, data, data});
}

lks_status lks_group_barrier(lks_group *group)
{
    return lks_group_run(group, &(lks_operation){.collective = LKS_BARRIER});
}

lks_status lks_group_reduce(lks_group *group, void *data, size_t count, lks_dtype dtype, lks_op op, int root)
{
    return lks_group_run(group, &(lks_operation){LKS_REDUCE, dtype, op, root, count, data, data});
}

lks_status lks_group_all_gather(lks_group *group, const void *in, void *out, size_t count, lks_dtype dtype)
{
    return lks_group_run(group, &(lks_operation){LKS_ALL_GATHER, dtype, LKS_SUM, 0, count, in, out});
}

lks_status lks_group_reduce_scatter(lks_group *group, const void *in, void *out, size_t count,
                                    lks_dtype dtype, lks_op op)
{
    return lks_group_run(group, &(lks_operation){LKS_REDUCE_SCATTER, dtype, op, 0, count, in, out});
}

lks_status lks_group_gather(lks_group *group, const void *in, void *out, size_t count, lks_dtype dtype,
                            int root)
{
    return lks_group_run(group, &(lks_operation){LKS_GATHER, dtype, LKS_SUM, root, count, in, out});
}

lks_status lks_group_scatter(lks_group *group, const void *in, void *out, size_t count, lks_dtype dtype,
                             int root)
{
    return lks_group_run(group, &(lks_operation){LKS_SCATTER, dtype, LKS_SUM, root, count, in, out});
}

lks_status lks_group_all_to_all(lks_group *group, const void *in, void *out, size_t count, lks_dtype dtype)
{
    return lks_group_run(group, &(lks_operation){LKS_ALL_TO_ALL, dtype, LKS_SUM, 0, count, in, out});
}

/* ---- memory ---- */

lks_status lks_group_memory_create(lks_group *group, size_t bytes, lks_group_memory **out)
{
    *out = NULL;
    if (group->failure != LKS_OK)
        return lks__fail(group->failure, "%s", group->failure_text);
    return keep_failure(group, group->backend->memory_create(group, bytes, out));
}

void lks_group_memory_destroy(lks_group_memory *memory)
{
    if (memory != NULL)
        memory->backend->memory_destroy(memory);
}

void *lks_group_memory_at(const lks_group_memory *memory, int rank)
{
    return rank >= 0 && rank < memory->size ? memory->regions[rank] : NULL;
}
