/* SPDX-License-Identifier: Apache-2.0 */
#include <lockstep/group.h>

#include <stdio.h>

#include "base/alloc.h"
#include "base/error.h"
#include "comm/backend.h"
#include "comm/mpi/mpi_group.h"

enum { DEFAULT_TIMEOUT_S = 300 };

static _Thread_local int create_failed_by = -1;

lks_group_config lks_group_config_default(void)
{
    return (lks_group_config){.size = 1, .fd = -1, .timeout_s = DEFAULT_TIMEOUT_S};
}

static lks_status check_timeout(double timeout_s)
{
    if (!(timeout_s > 0))
        return lks__fail(LKS_E_ARG, "the timeout of a group is %g s; it must be above 0", timeout_s);
    return LKS_OK;
}

static lks_status check_size(int size, double timeout_s)
{
    if (size < 1 || size > LKS_GROUP_MAX_SIZE)
        return lks__fail(LKS_E_ARG, "a group of %d members is not possible; 1 to %d are", size,
                         LKS_GROUP_MAX_SIZE);
    return check_timeout(timeout_s);
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
    create_failed_by = -1;
    bool mpi = config->backend == LKS_BACKEND_MPI; /* which knows rank and size */
    lks_status status = mpi ? check_timeout(config->timeout_s) : check_config(config);
    if (status != LKS_OK)
        return status;
    if (mpi)
        return lks__mpi_create(config, out);
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
    if (group == NULL)
        return;
    lks__wire *wire = group->wire;
    bool failed = wire != NULL && group->size > 1 && lks__shm_has_failed(group);
    group->backend->destroy(group);
    if (wire != NULL)
        wire->backend->close(wire, failed);
}

int lks_group_rank(const lks_group *group)
{
    return group->rank;
}

int lks_group_size(const lks_group *group)
{
    return group->size;
}

lks_group *lks_group_node(lks_group *group)
{
    return group->backend->node != NULL ? group->backend->node(group) : group;
}

void lks__group_create_failed(int rank)
{
    create_failed_by = rank;
}

int lks_group_failed_by(const lks_group *group)
{
    if (group == NULL)
        return create_failed_by;
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

lks_status lks_group_send(lks_group *group, const void *data, size_t count, lks_dtype dtype, int to)
{
    return lks_group_run(group, &(lks_operation){LKS_SEND, dtype, LKS_SUM, to, count, data, NULL});
}

lks_status lks_group_recv(lks_group *group, void *data, size_t count, lks_dtype dtype, int from)
{
    return lks_group_run(group, &(lks_operation){LKS_RECV, dtype, LKS_SUM, from, count, NULL, data});
}

/* ---- requests ---- */

struct lks_request {
    lks_group *group;
    lks_operation operation;
    bool posted;
    _Alignas(max_align_t) char task[]; /* the backend's */
};

lks_status lks_request_create(lks_group *group, const lks_operation *operation, lks_request **out)
{
    *out = NULL;
    lks_operation checked;
    lks_status status = lks__operation_check(operation, group->rank, group->size, &checked);
    if (status != LKS_OK)
        return status;
    lks_request *request = lks__alloc(sizeof *request + group->backend->task_bytes, LKS__MEM_COMM);
    if (request == NULL)
        return LKS_E_NOMEM;
    request->group = group;
    request->operation = checked;
    *out = request;
    return LKS_OK;
}

void lks_request_destroy(lks_request *request)
{
    if (request == NULL)
        return;
    lks_status status = lks_request_wait(request);
    (void)status; /* a failure is the group's: its next call tells */
    lks__free(request);
}

lks_status lks_request_post(lks_request *request)
{
    lks_group *group = request->group;
    if (group->failure != LKS_OK)
        return lks__fail(group->failure, "%s", group->failure_text);
    if (request->posted)
        return lks__fail(LKS_E_ARG, "the request has been posted already, and not been waited for");
    lks_status status = group->backend->post(group, &request->operation, request->task);
    request->posted = status == LKS_OK;
    return keep_failure(group, status);
}

static lks_status proceed(lks_request *request, lks_status (*step)(lks_group *group, void *task))
{
    lks_group *group = request->group;
    if (group->failure != LKS_OK) { /* it has ended all requests */
        request->posted = false;
        return lks__fail(group->failure, "%s", group->failure_text);
    }
    if (!request->posted)
        return LKS_OK;
    lks_status status = step(group, request->task);
    request->posted = status == LKS_IN_PROGRESS;
    return keep_failure(group, status);
}

lks_status lks_request_test(lks_request *request)
{
    return proceed(request, request->group->backend->test);
}

lks_status lks_request_wait(lks_request *request)
{
    return proceed(request, request->group->backend->wait);
}

/* ---- parts, and memory ---- */

lks_status lks_group_split(lks_group *group, int colour, int key, lks_group **out)
{
    *out = NULL;
    if (group->failure != LKS_OK)
        return lks__fail(group->failure, "%s", group->failure_text);
    return keep_failure(group, group->backend->split(group, colour, key, out));
}

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
