/* SPDX-License-Identifier: Apache-2.0 */
/* The backend of a group of one: every collective copies the input to the output. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/alloc.h"
#include "base/error.h"
#include "comm/available.h"
#include "comm/backend.h"

typedef struct solo_memory {
    size_t bytes;
    lks_group_memory memory; /* last: ends in an array */
} solo_memory;

static const lks__backend solo;

/* Rows are one row, and the own one; a reduction over one member is its value. */
static lks_status solo_run(lks_group *group, const lks_operation *operation)
{
    (void)group;
    size_t bytes = operation->count * lks__dtype_bytes(operation->dtype);
    bool moves = operation->collective != LKS_BARRIER && operation->collective != LKS_BROADCAST;
    if (moves && bytes > 0 && operation->in != operation->out)
        memcpy(operation->out, operation->in, bytes);
    return LKS_OK;
}

/* All is done in post. */
static lks_status solo_post(lks_group *group, const lks_operation *operation, void *task)
{
    (void)task;
    return solo_run(group, operation);
}

static lks_status solo_done(lks_group *group, void *task)
{
    (void)group, (void)task;
    return LKS_OK;
}

static lks_status solo_memory_create(lks_group *group, size_t bytes, lks_group_memory **out)
{
    (void)group;
    lks_status status = lks__check_available(bytes);
    if (status != LKS_OK)
        return status;
    solo_memory *self = lks__alloc(sizeof *self + sizeof self->memory.regions[0], LKS__MEM_COMM);
    if (self == NULL)
        return LKS_E_NOMEM;
    self->bytes = bytes;
    self->memory.backend = &solo;
    self->memory.size = 1;
    if (bytes > 0) {
        void *region = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (region == MAP_FAILED) {
            lks__free(self);
            return lks__fail_errno(LKS_E_NOMEM, errno, "out of memory: %zu bytes for a group", bytes);
        }
        self->memory.regions[0] = region;
        lks__alloc_note((int64_t)bytes, LKS__MEM_COMM);
    }
    *out = &self->memory;
    return LKS_OK;
}

static void solo_memory_destroy(lks_group_memory *memory)
{
    solo_memory *self = (solo_memory *)((char *)memory - offsetof(solo_memory, memory));
    if (self->bytes > 0)
        munmap(memory->regions[0], self->bytes);
    lks__alloc_note(-(int64_t)self->bytes, LKS__MEM_COMM);
    lks__free(self);
}

static lks_status solo_split(lks_group *group, int colour, int key, lks_group **out)
{
    (void)group, (void)key;
    return colour < 0 ? LKS_OK : lks__solo_create(out);
}

static void solo_destroy(lks_group *group)
{
    lks__free(group);
}

static const lks__backend solo = {
    .run = solo_run,
    .post = solo_post,
    .test = solo_done,
    .wait = solo_done,
    .split = solo_split,
    .memory_create = solo_memory_create,
    .memory_destroy = solo_memory_destroy,
    .destroy = solo_destroy,
};

lks_status lks__solo_create(lks_group **out)
{
    lks_group *group = lks__alloc(sizeof *group, LKS__MEM_COMM);
    if (group == NULL)
        return LKS_E_NOMEM;
    group->backend = &solo;
    group->size = 1;
    *out = group;
    return LKS_OK;
}
