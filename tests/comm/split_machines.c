/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/split_machines.h"

#include <stddef.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "comm/backend.h"

typedef struct split_group {
    lks_group group; /* first */
    lks_group *flat, *node;
    int machines[LKS_GROUP_MAX_SIZE]; /* of the ranks */
} split_group;

typedef struct split_memory {
    lks_group_memory *whole;
    lks_group_memory memory; /* last: ends in an array */
} split_memory;

static split_group *of(lks_group *group)
{
    return (split_group *)group;
}

/* ---- forwarded; what fails poisons both ---- */

static lks_status run(lks_group *group, const lks_operation *operation)
{
    lks_group *flat = of(group)->flat;
    return flat->backend->run(flat, operation);
}

static lks_status post(lks_group *group, const lks_operation *operation, void *task)
{
    lks_group *flat = of(group)->flat;
    return flat->backend->post(flat, operation, task);
}

static lks_status test(lks_group *group, void *task)
{
    lks_group *flat = of(group)->flat;
    return flat->backend->test(flat, task);
}

static lks_status wait(lks_group *group, void *task)
{
    lks_group *flat = of(group)->flat;
    return flat->backend->wait(flat, task);
}

static int failed_by(const lks_group *group)
{
    const lks_group *flat = ((const split_group *)group)->flat;
    return flat->backend->failed_by != NULL ? flat->backend->failed_by(flat) : -1;
}

/* ---- what differs ---- */

static lks_group *node(lks_group *group)
{
    return of(group)->node;
}

static void memory_destroy(lks_group_memory *memory)
{
    split_memory *self = (split_memory *)((char *)memory - offsetof(split_memory, memory));
    lks_group_memory_destroy(self->whole);
    lks__free(self);
}

static lks_status memory_create(lks_group *group, size_t bytes, lks_group_memory **out)
{
    split_group *s = of(group);
    lks_group_memory *whole;
    lks_status status = s->flat->backend->memory_create(s->flat, bytes, &whole);
    if (status != LKS_OK)
        return status;
    split_memory *self = lks__alloc(sizeof *self + (size_t)group->size * sizeof self->memory.regions[0],
                                    LKS__MEM_COMM);
    if (self == NULL) { /* as a member that can't go on: the others see it leave */
        lks_group_memory_destroy(whole);
        return LKS_E_NOMEM;
    }
    self->whole = whole;
    self->memory.backend = group->backend;
    self->memory.size = group->size;
    for (int r = 0; r < group->size; r++)
        if (s->machines[r] == s->machines[group->rank])
            self->memory.regions[r] = lks_group_memory_at(whole, r);
    *out = &self->memory;
    return LKS_OK;
}

/* A part is over the machines of its members. */
static lks_status split(lks_group *group, int colour, int key, lks_group **out)
{
    split_group *s = of(group);
    int32_t own = s->machines[group->rank];
    int32_t machines[LKS_GROUP_MAX_SIZE];
    lks_group *part = NULL;
    lks_status status = s->flat->backend->split(s->flat, colour, key, &part);
    if (status == LKS_OK && part != NULL)
        status = lks_group_all_gather(part, &own, machines, 1, LKS_I32);
    if (status == LKS_OK && part != NULL)
        return split_machines(part, machines, out);
    lks_group_destroy(part);
    return status;
}

static void destroy(lks_group *group)
{
    split_group *s = of(group);
    lks_group_destroy(s->node);
    lks_group_destroy(s->flat);
    lks__free(s);
}

static const lks__backend split_backend = {
    .run = run,
    .post = post,
    .test = test,
    .wait = wait,
    .split = split,
    .memory_create = memory_create,
    .memory_destroy = memory_destroy,
    .node = node,
    .failed_by = failed_by,
    .destroy = destroy,
};

lks_status split_machines(lks_group *flat, const int *machines, lks_group **out)
{
    int rank = lks_group_rank(flat), size = lks_group_size(flat);
    bool several = false;
    *out = flat;
    for (int r = 1; r < size; r++)
        several = several || machines[r] != machines[0];
    if (!several)
        return LKS_OK;

    *out = NULL;
    lks_group *part = NULL;
    lks_status status = lks_group_split(flat, machines[rank], 0, &part);
    split_group *s = status == LKS_OK ? lks__alloc(sizeof *s + sizeof(lks__backend), LKS__MEM_COMM) : NULL;
    if (status == LKS_OK && s == NULL)
        status = LKS_E_NOMEM;
    if (status != LKS_OK) {
        lks_group_destroy(part);
        lks_group_destroy(flat);
        return status;
    }
    lks__backend *backend = (lks__backend *)(s + 1); /* its own, with the tasks of the group below */
    *backend = split_backend;
    backend->task_bytes = flat->backend->task_bytes;
    s->group = (lks_group){.backend = backend, .rank = rank, .size = size};
    s->flat = flat;
    s->node = part;
    memcpy(s->machines, machines, (size_t)size * sizeof *machines);
    *out = &s->group;
    return LKS_OK;
}
