/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of a group: the members of each machine split their node group, and where a part has members on
 * several machines these make a group over machines, with the same engine. */
#include "base/error.h"
#include "comm/mpi/mpi_member.h"
#include "comm/split.h"

/* What every member says: where it wants to go, and which serial numbers are free for it. */
typedef struct wish {
    uint64_t place;
    uint64_t next_serial;
} wish;

enum { WISH_NUMBERS = sizeof(wish) / sizeof(uint64_t) };

static lks_status exchange_wishes(lks__mpi_member *parent, lks__split_wish own, lks__split_wish *wishes,
                                  uint64_t *serial)
{
    wish all[LKS_GROUP_MAX_SIZE], said = {(uint64_t)(uint32_t)own.colour << 32 | (uint32_t)own.key, 0};
    pthread_mutex_lock(&parent->engine->lock);
    said.next_serial = parent->engine->next_serial;
    pthread_mutex_unlock(&parent->engine->lock);
    lks_status status = lks__mpi_exchange(parent, LKS__SPLIT, &said.place, WISH_NUMBERS, &all[0].place);
    *serial = 0;
    for (int r = 0; r < parent->group.size && status == LKS_OK; r++) {
        uint64_t place = all[r].place;
        wishes[r] = (lks__split_wish){(int)(int32_t)(uint32_t)(place >> 32), (int)(int32_t)(uint32_t)place};
        *serial = all[r].next_serial > *serial ? all[r].next_serial : *serial;
    }
    return status;
}

/* Parts of one split share a serial number: no process is in two of them. */
static lks_status take_serial(lks__mpi_engine *engine, uint64_t serial)
{
    lks_status status = LKS_OK;
    const uint64_t most = LKS__WIRE_TAGS / LKS__MPI_KINDS; /* numbers that have tags of their own */
    pthread_mutex_lock(&engine->lock);
    engine->next_serial = serial + 1;
    for (const lks__mpi_member *m = engine->members; m != NULL; m = m->next)
        if (m->serial % most == serial % most)
            status = lks__fail(LKS_E_NOMEM, "out of tags: a group has been kept since %llu others were made",
                               (unsigned long long)most);
    pthread_mutex_unlock(&engine->lock);
    return status;
}

/* The ranks of the parent in the order of those of the part; returns how many. */
static int list_members(const lks__split_wish *wishes, int n, int member, int *ranks)
{
    int size = 0;
    for (int r = 0; r < n; r++) {
        if (wishes[r].colour != wishes[member].colour)
            continue;
        lks__split_place place = lks__split_place_of(wishes, n, r);
        ranks[place.rank] = r;
        size = place.size;
    }
    return size;
}

static void know_peers(lks__mpi_member *self, const lks__mpi_member *parent, const int *ranks)
{
    for (int r = 0; r < self->group.size; r++) {
        self->processes[r] = parent->processes[ranks[r]];
        self->peers[r].pid = parent->peers[ranks[r]].pid;
    }
}

static lks__mpi_map map_of_part(const lks__mpi_member *parent, const int *ranks, int size)
{
    lks__mpi_map map;
    int machines[LKS_GROUP_MAX_SIZE], own = 0;
    for (int r = 0; r < size; r++) {
        machines[r] = parent->map.machine_of[ranks[r]];
        own = ranks[r] == parent->group.rank ? r : own;
    }
    lks__mpi_map_init(&map, machines, own, size);
    return map;
}

/* A member of a part over several machines. Takes `node` over. What the members of a machine do together
 * comes first: it is the same for all of them whether a member has memory for the rest or not. */
static lks_status make_member(lks__mpi_member *parent, lks_group *node, const lks__mpi_map *map,
                              const int *ranks, lks__mpi_member **out)
{
    lks_group_memory *shared = NULL;
    lks_status status = lks__mpi_share(node, &shared);
    if (status != LKS_OK) {
        lks_group_destroy(node);
        return status;
    }
    status = lks__mpi_member_create(parent->engine, node, shared, map, out);
    if (status == LKS_OK)
        know_peers(*out, parent, ranks);
    return status;
}

static bool is_local(const lks__mpi_member *parent, const int *ranks, int size)
{
    for (int i = 0; i < size; i++)
        if (!lks__mpi_is_here(&parent->map, ranks[i]))
            return false;
    return true;
}

/* This member's part, as far as its machine can make it: a group of the machine's own, or a member of one
 * over machines. */
static lks_status make_part(lks__mpi_member *parent, const lks__split_wish *wishes, lks_group **local,
                            lks__mpi_member **out)
{
    int ranks[LKS_GROUP_MAX_SIZE], rank = parent->group.rank;
    lks_group *node = NULL;
    lks_status status = lks_group_split(parent->node, wishes[rank].colour, wishes[rank].key, &node);
    if (status != LKS_OK || node == NULL)
        return status;
    int size = list_members(wishes, parent->group.size, rank, ranks);
    if (is_local(parent, ranks, size)) {
        *local = node;
        return LKS_OK;
    }
    lks__mpi_map map = map_of_part(parent, ranks, size);
    return make_member(parent, node, &map, ranks, out);
}

lks_status lks__mpi_split(lks_group *group, int colour, int key, lks_group **out)
{
    lks__mpi_member *parent = lks__mpi_member_of(group), *self = NULL;
    lks__split_wish wishes[LKS_GROUP_MAX_SIZE];
    uint64_t serial;
    lks_group *local = NULL;
    lks_status status = exchange_wishes(parent, (lks__split_wish){colour, key}, wishes, &serial);
    if (status != LKS_OK)
        return status;
    status = make_part(parent, wishes, &local, &self);
    if (status == LKS_OK)
        status = take_serial(parent->engine, serial);
    if (self != NULL) { /* before others may use the part, and leave it */
        self->serial = serial;
        lks__mpi_member_add(self);
    }
    status = lks__mpi_all_succeeded(parent, LKS__SPLIT, status);
    if (status != LKS_OK) {
        if (self != NULL)
            lks__mpi_member_remove(self);
        lks__mpi_member_free(self);
        lks_group_destroy(local);
    } else {
        *out = self != NULL ? &self->group : local;
    }
    return status;
}
