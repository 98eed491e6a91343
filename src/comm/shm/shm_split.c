/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of a group: each has a control block of its own, in a range of the same file. All groups of a file
 * are a family, which fails as a whole: the first one is where failures meet. */
#include "base/error.h"
#include "comm/available.h"
#include "comm/shm/shm_blame.h"
#include "comm/split.h"

static const lks_operation split_operation = {.collective = LKS__SPLIT};

/* Where the part that begins with member `first` lies in the common range, and what it takes. */
static size_t part_bytes(const lks__split_wish *wishes, int n, int first)
{
    return lks__shm_fixed_bytes(lks__split_place_of(wishes, n, first).size);
}

/* The parts lie behind each other in the order of their first members. Gives the total, and where the part of
 * `member` starts. */
static size_t lay_out(const lks__split_wish *wishes, int n, int member, size_t *start)
{
    size_t total = 0;
    *start = 0;
    for (int r = 0; r < n; r++) {
        if (wishes[r].colour < 0 || !lks__split_is_first(wishes, r))
            continue;
        if (wishes[r].colour == wishes[member].colour)
            *start = total;
        total += part_bytes(wishes, n, r);
    }
    return total;
}

static lks_status exchange_wishes(lks__shm_member *parent, lks__split_wish own, lks__split_wish *wishes)
{
    uint64_t packed = (uint64_t)(uint32_t)own.colour << 32 | (uint32_t)own.key;
    lks_status status = lks__shm_exchange(parent, &split_operation, packed);
    for (int r = 0; r < parent->group.size && status == LKS_OK; r++) {
        uint64_t offer = lks__shm_offer(parent, r);
        wishes[r] = (lks__split_wish){(int)(int32_t)(uint32_t)(offer >> 32), (int)(int32_t)(uint32_t)offer};
    }
    return status;
}

/* A member that could use its part's memory, all of it reserved. */
static lks_status prepare(lks__shm_member *parent, size_t base, lks__split_place place, lks__shm_member **out)
{
    size_t bytes = lks__shm_control_bytes(place.size);
    lks_status status = lks__check_file_size(base + bytes);
    if (status == LKS_OK && place.rank == 0)
        status = lks__check_available(bytes);
    if (status == LKS_OK)
        status = lks__segment_reserve(parent->segment, base, bytes);
    if (status == LKS_OK)
        status = lks__shm_member_create(parent->segment, base, place.rank, place.size, out);
    if (status != LKS_OK)
        return status;
    (*out)->family = parent->family != NULL ? parent->family : parent;
    (*out)->same_process = parent->same_process;
    (*out)->has_core = parent->has_core; /* the other parts work at the same time */
    (*out)->timeout_ns = parent->timeout_ns;
    return LKS_OK;
}

static lks_status split(lks__shm_member *parent, int colour, int key, lks_group **out)
{
    lks_group *group = &parent->group;
    lks__shm_member *self = NULL;
    lks__split_wish wishes[LKS_GROUP_MAX_SIZE];
    size_t base = 0, start, total = 0;
    lks_status status = exchange_wishes(parent, (lks__split_wish){colour, key}, wishes);
    if (status != LKS_OK)
        return status;
    total = lay_out(wishes, group->size, group->rank, &start);
    status = lks__shm_take_range(parent, &split_operation, total, &base);
    if (status != LKS_OK)
        return status;
    lks__split_place place = lks__split_place_of(wishes, group->size, group->rank);
    if (place.size > 0)
        status = prepare(parent, base + start, place, &self);
    status = lks__shm_all_succeeded(parent, &split_operation, status, total);
    if (status != LKS_OK && place.size > 0) /* nobody has used it */
        lks__segment_release(parent->segment, base + start, lks__shm_control_bytes(place.size));
    if (status == LKS_OK && self != NULL)
        status = lks__shm_claim_slot(self);
    if (status == LKS_OK) /* after this all parts are complete */
        status = lks__shm_exchange(parent, &split_operation, 0);
    if (status == LKS_OK && self != NULL)
        *out = &self->group;
    else if (self != NULL)
        lks_group_destroy(&self->group);
    return status;
}

lks_status lks__shm_split(lks_group *group, int colour, int key, lks_group **out)
{
    lks__shm_member *parent = lks__shm_member_of(group);
    lks_status status = split(parent, colour, key, out);
    lks__shm_tell_finished(parent, &split_operation); /* in vain too */
    return status;
}
