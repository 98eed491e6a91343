/* SPDX-License-Identifier: Apache-2.0 */
/* Group memory: that of the node group, under the ranks of the group. */
#include "base/alloc.h"
#include "base/error.h"
#include "comm/mpi/mpi_member.h"

typedef struct lks__mpi_memory lks__mpi_memory;

struct lks__mpi_memory {
    lks__mpi_member *member;
    lks__mpi_memory *next;  /* of the member's; guarded by the engine's lock */
    lks_group_memory *node; /* NULL: not made */
    uint64_t number;        /* 1 + how many of the group came before it */
    size_t own_bytes;
    lks_group_memory memory; /* last: ends in an array */
};

static lks__mpi_memory *memory_of(lks_group_memory *memory)
{
    return (lks__mpi_memory *)((char *)memory - offsetof(lks__mpi_memory, memory));
}

static lks__mpi_memory *handle_create(lks__mpi_member *member, size_t bytes)
{
    size_t size = (size_t)member->group.size;
    lks__mpi_memory *self = lks__alloc(sizeof *self + size * sizeof self->memory.regions[0], LKS__MEM_COMM);
    if (self == NULL)
        return NULL;
    self->member = member;
    self->own_bytes = bytes;
    self->memory.backend = &lks__mpi_backend;
    self->memory.size = member->group.size;
    return self;
}

static void handle_destroy(lks__mpi_memory *self)
{
    if (self == NULL)
        return;
    lks_group_memory_destroy(self->node);
    lks__free(self);
}

static void add_handle(lks__mpi_member *member, lks__mpi_memory *self)
{
    for (int i = 0; i < member->map.n_local; i++)
        self->memory.regions[member->map.local_ranks[i]] = lks_group_memory_at(self->node, i);
    pthread_mutex_lock(&member->engine->lock);
    self->next = member->memories;
    member->memories = self;
    pthread_mutex_unlock(&member->engine->lock);
}

lks_status lks__mpi_memory_create(lks_group *group, size_t bytes, lks_group_memory **out)
{
    lks__mpi_member *member = lks__mpi_member_of(group);
    uint64_t asks = bytes, all[LKS_GROUP_MAX_SIZE];
    lks_group_memory *node = NULL;
    /* First the members see that all want memory: what follows is among those of a machine. */
    lks_status status = lks__mpi_exchange(member, LKS__MEMORY, &asks, 1, all);
    if (status != LKS_OK)
        return status;
    uint64_t number = ++member->n_memories;
    lks__mpi_memory *self = handle_create(member, bytes);
    status = lks_group_memory_create(member->node, self != NULL ? bytes : SIZE_MAX, &node);
    if (self != NULL)
        self->node = node;
    status = lks__mpi_all_succeeded(member, LKS__MEMORY, status);
    if (status != LKS_OK) {
        handle_destroy(self);
        return status;
    }
    self->number = number;
    add_handle(member, self);
    *out = &self->memory;
    return LKS_OK;
}

void lks__mpi_memory_destroy(lks_group_memory *memory)
{
    lks__mpi_memory *self = memory_of(memory), **link = &self->member->memories;
    pthread_mutex_t *lock = &self->member->engine->lock;
    pthread_mutex_lock(lock);
    while (*link != self)
        link = &(*link)->next;
    *link = self->next;
    pthread_mutex_unlock(lock);
    handle_destroy(self);
}

void lks__mpi_locate(const lks__mpi_member *self, const void *data, size_t bytes, uint64_t *memory,
                     uint64_t *offset)
{
    *memory = *offset = 0;
    for (const lks__mpi_memory *m = self->memories; m != NULL; m = m->next) {
        uintptr_t start = (uintptr_t)m->memory.regions[self->group.rank], at = (uintptr_t)data;
        if (at < start || at - start > m->own_bytes || bytes > m->own_bytes - (at - start))
            continue;
        *memory = m->number;
        *offset = at - start;
    }
}

char *lks__mpi_address(const lks__mpi_member *self, int local, uint64_t memory, uint64_t offset)
{
    for (const lks__mpi_memory *m = self->memories; m != NULL; m = m->next)
        if (m->number == memory)
            return (char *)m->memory.regions[self->map.local_ranks[local]] + offset;
    return NULL;
}
