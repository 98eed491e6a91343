/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that every member can address: one range at the end of the group's file, the regions of all members
 * behind a page that counts the handles. Offsets are never used twice; the file has plenty. */
#include "base/alloc.h"
#include "base/error.h"
#include "comm/available.h"
#include "comm/shm/shm_blame.h"

/* Start of the range. */
typedef struct range_head {
    _Atomic uint32_t handles; /* members that hold one */
} range_head;

typedef struct lks__shm_memory lks__shm_memory;

struct lks__shm_memory {
    lks__shm_member *member;
    lks__shm_memory *next;       /* of the member's */
    lks__segment *segment;       /* one reference */
    size_t start, bytes;         /* the range in the file */
    size_t own_start, own_bytes; /* this member's region, in the file; the head counts to rank 0's */
    size_t noted_bytes;          /* what of it lks__alloc_note has been told */
    range_head *head;            /* NULL: not mapped */
    size_t *asked_bytes;         /* [size]: behind regions */
    lks_group_memory memory;     /* last: ends in an array */
};

static const lks_operation memory_operation = {.collective = LKS__MEMORY};

static lks__shm_memory *memory_of(lks_group_memory *memory)
{
    return (lks__shm_memory *)((char *)memory - offsetof(lks__shm_memory, memory));
}

/* ---- ranges of the file ---- */

lks_status lks__shm_all_succeeded(lks__shm_member *self, const lks_operation *operation, lks_status own,
                                  size_t bytes)
{
    lks_status status = lks__shm_exchange(self, operation, own == LKS_OK);
    if (status != LKS_OK || own != LKS_OK)
        return status != LKS_OK ? status : own;
    for (int r = 0; r < self->group.size; r++)
        if (lks__shm_offer(self, r) == 0)
            return lks__fail(LKS_E_NOMEM,
                             "out of memory: rank %d could not get its part of %zu bytes of shared memory", r,
                             bytes);
    return LKS_OK;
}

/* Groups of one family take ranges at any time: rank 0 of the one that needs it takes it for all. */
lks_status lks__shm_take_range(lks__shm_member *self, const lks_operation *operation, size_t bytes,
                               size_t *out)
{
    uint64_t start = 0;
    if (self->group.rank == 0) {
        const lks__shm_member *first = self->family != NULL ? self->family : self;
        /* relaxed: the number itself is all that is told */
        start = lks__shm_fixed_bytes(first->group.size) +
                atomic_fetch_add_explicit(&first->control->handed_out, bytes, memory_order_relaxed);
    }
    lks_status status = lks__shm_exchange(self, operation, start);
    if (status == LKS_OK)
        *out = lks__shm_offer(self, 0);
    return status;
}

/* ---- create ---- */

static lks__shm_memory *handle_create(lks__shm_member *member)
{
    size_t size = (size_t)member->group.size;
    lks__shm_memory *self = lks__alloc(
        sizeof *self + size * (sizeof self->memory.regions[0] + sizeof self->asked_bytes[0]), LKS__MEM_COMM);
    if (self == NULL)
        return NULL;
    self->member = member;
    self->segment = lks__segment_get(member->segment);
    self->memory.backend = &lks__shm_backend;
    self->memory.size = member->group.size;
    self->asked_bytes = (size_t *)(void *)(self->memory.regions + size);
    return self;
}

static void handle_destroy(lks__shm_memory *self)
{
    if (self == NULL)
        return;
    lks__alloc_note(-(int64_t)self->noted_bytes, LKS__MEM_COMM);
    if (self->head != NULL)
        lks__segment_unmap(self->segment, self->start);
    lks__segment_put(self->segment);
    lks__free(self);
}

/* Adds up what all asked for, by the same arithmetic on every member. Returns false when the sum is beyond
 * any memory; where this member has no handle, it is. */
static bool total_bytes(const lks__shm_member *member, lks__shm_memory *self, size_t *out)
{
    size_t total = lks__page_round(sizeof(range_head));
    for (int r = 0; r < member->group.size; r++) {
        uint64_t bytes = lks__shm_offer(member, r);
        if (bytes > PTRDIFF_MAX / 4 || total > PTRDIFF_MAX / 4)
            return false;
        total += lks__page_round(bytes);
        if (self != NULL)
            self->asked_bytes[r] = bytes;
    }
    *out = total;
    return total <= PTRDIFF_MAX / 4;
}

/* Maps the range and finds the regions in it; nothing has memory behind it yet. */
static lks_status map_range(const lks__shm_member *member, lks__shm_memory *self)
{
    void *base;
    lks_status status = lks__segment_map(self->segment, self->start, self->bytes, &base);
    if (status != LKS_OK)
        return status;
    self->head = base;
    size_t at = lks__page_round(sizeof(range_head));
    for (int r = 0; r < member->group.size; r++) {
        size_t bytes = self->asked_bytes[r];
        self->memory.regions[r] = bytes > 0 ? (char *)base + at : NULL;
        if (r == member->group.rank) {
            /* rank 0 reserves the head with its region */
            self->own_start = r == 0 ? self->start : self->start + at;
            self->own_bytes = r == 0 ? at + bytes : bytes;
        }
        at += lks__page_round(bytes);
    }
    return LKS_OK;
}

/* Each member reserves its own region, so that it lies near the processor that will use it most. */
static lks_status reserve_own(const lks__shm_member *member, lks__shm_memory *self)
{
    if (self->own_bytes == 0)
        return LKS_OK;
    lks_status status = lks__segment_reserve(self->segment, self->own_start, self->own_bytes);
    if (status != LKS_OK)
        return status;
    self->noted_bytes = self->own_bytes;
    lks__alloc_note((int64_t)self->noted_bytes, LKS__MEM_COMM);
    if (member->group.rank == 0)
        /* relaxed: published by the barrier that follows */
        atomic_store_explicit(&self->head->handles, (uint32_t)member->group.size, memory_order_relaxed);
    return LKS_OK;
}

static lks_status create_range(lks__shm_member *member, lks__shm_memory *self)
{
    lks_status status = lks__check_available(self->bytes);
    if (status == LKS_OK)
        status = lks__check_file_size(self->start + self->bytes);
    if (status == LKS_OK)
        status = map_range(member, self);
    status = lks__shm_all_succeeded(member, &memory_operation, status, self->bytes);
    if (status != LKS_OK)
        return status;
    status = lks__shm_all_succeeded(member, &memory_operation, reserve_own(member, self), self->bytes);
    if (status != LKS_OK && self->own_bytes > 0)
        lks__segment_release(self->segment, self->own_start, self->own_bytes);
    return status;
}

static lks_status create(lks__shm_member *member, size_t bytes, lks_group_memory **out)
{
    lks__shm_memory *self = handle_create(member);
    /* Without a handle this member takes part all the same, asking for what nobody can have. */
    lks_status status = lks__shm_exchange(member, &memory_operation, self != NULL ? bytes : UINT64_MAX);
    size_t total = 0;
    if (status == LKS_OK && !total_bytes(member, self, &total))
        status = lks__fail(LKS_E_NOMEM,
                           "out of memory: the members ask for more shared memory than can be addressed");
    if (status == LKS_OK)
        status = lks__shm_take_range(member, &memory_operation, total, &self->start);
    if (status == LKS_OK) {
        self->bytes = total;
        status = create_range(member, self);
    }
    if (status != LKS_OK) {
        handle_destroy(self);
        return status;
    }
    self->next = member->memories;
    member->memories = self;
    *out = &self->memory;
    return LKS_OK;
}

lks_status lks__shm_memory_create(lks_group *group, size_t bytes, lks_group_memory **out)
{
    lks__shm_member *member = lks__shm_member_of(group);
    lks_status status = create(member, bytes, out);
    lks__shm_tell_finished(member, &memory_operation); /* in vain too */
    return status;
}

uint64_t lks__shm_locate(const lks__shm_member *self, const void *data, size_t bytes)
{
    for (const lks__shm_memory *m = self->memories; m != NULL; m = m->next) {
        uintptr_t start = (uintptr_t)m->head, at = (uintptr_t)data;
        if (at > start && at - start < m->bytes && bytes <= m->bytes - (at - start))
            return m->start + (at - start);
    }
    return 0;
}

void *lks__shm_address(const lks__shm_member *self, uint64_t offset)
{
    for (const lks__shm_memory *m = self->memories; m != NULL; m = m->next)
        if (offset > m->start && offset - m->start < m->bytes)
            return (char *)m->head + (offset - m->start);
    return NULL;
}

void lks__shm_memory_destroy(lks_group_memory *memory)
{
    lks__shm_memory *self = memory_of(memory), **link = &self->member->memories;
    while (*link != self)
        link = &(*link)->next;
    *link = self->next;
    /* acq_rel: the last one gives the memory back after all others are done with it */
    if (atomic_fetch_sub_explicit(&self->head->handles, 1, memory_order_acq_rel) == 1)
        lks__segment_release(self->segment, self->start, self->bytes);
    handle_destroy(self);
}
