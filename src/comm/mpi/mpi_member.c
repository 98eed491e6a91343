/* SPDX-License-Identifier: Apache-2.0 */
/* Joining and leaving. */
#include "comm/mpi/mpi_member.h"

#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/machine.h"
#include "base/text.h"
#include "comm/mpi/mpi_group.h"
#include "comm/mpi/mpi_steps.h"
#include "comm/shm/shm_member.h"
#include "comm/shm/shm_wait.h"

/* ---- memory ---- */

/* The parts' private buffers lie behind each other. */
typedef struct buffer_sizes {
    size_t flights, hellos, pieces, partials, own, all;
} buffer_sizes;

static buffer_sizes sizes_of(const lks__mpi_member *self)
{
    const lks__mpi_map *map = &self->map;
    buffer_sizes s;
    size_t line = LKS__ALIGNMENT;
    s.flights = lks__round_up(2 * (size_t)map->size * sizeof(lks__mpi_flight), line);
    s.hellos = lks__mpi_leads(map) ? (size_t)map->n_machines * lks__mpi_hello_bytes() : 0;
    s.pieces = (size_t)map->n_pieces * self->piece_bytes;
    s.partials = (size_t)map->n_carried * (size_t)map->pieces_of[map->machine] * self->piece_bytes;
    s.own = lks__round_up(lks__mpi_chunk_bytes(map->size), line);
    s.all = s.flights + s.hellos + s.pieces + s.partials + s.own;
    return s;
}

static void give_buffers(lks__mpi_member *self, const buffer_sizes *s)
{
    char *at = self->buffers;
    for (int i = 0; i < LKS__MPI_WINDOW; i++) {
        lks__mpi_part *part = &self->parts[i];
        part->state = LKS__MPI_DONE;
        part->flights = (lks__mpi_flight *)(void *)at;
        part->hellos = at + s->flights;
        part->pieces = part->hellos + s->hellos;
        part->partials = part->pieces + s->pieces;
        part->own = part->partials + s->partials;
        at += s->all;
    }
}

static lks_status get_memory(lks__mpi_member *self)
{
    self->piece_bytes = lks__mpi_piece_bytes(lks__mpi_chunk_bytes(self->group.size));
    buffer_sizes s = sizes_of(self);
    self->buffers = lks__alloc(LKS__MPI_WINDOW * s.all, LKS__MEM_COMM);
    self->peers = lks__alloc_array(self->group.size, sizeof *self->peers, LKS__MEM_COMM);
    self->heard = lks__alloc_array(self->group.size, sizeof *self->heard, LKS__MEM_COMM);
    self->farewells = lks__alloc_array(self->group.size, sizeof *self->farewells, LKS__MEM_COMM);
    self->farewell_requests = lks__alloc_array(self->group.size, sizeof *self->farewell_requests,
                                               LKS__MEM_COMM);
    if (self->buffers == NULL || self->peers == NULL || self->heard == NULL || self->farewells == NULL ||
        self->farewell_requests == NULL)
        return LKS_E_NOMEM;
    give_buffers(self, &s);
    for (int m = 0; m < self->map.n_machines; m++)
        self->heard[m].what = LKS__MPI_NO_SIGNATURE;
    return LKS_OK;
}

/* ---- members ---- */

void lks__mpi_member_free(lks__mpi_member *self)
{
    if (self == NULL)
        return;
    lks_group_memory_destroy(self->shared);
    lks_group_destroy(self->node);
    lks__free(self->buffers);
    lks__free(self->peers);
    lks__free(self->heard);
    lks__free(self->farewells);
    lks__free(self->farewell_requests);
    lks__free(self);
}

lks_status lks__mpi_share(lks_group *node, lks_group_memory **out)
{
    size_t areas = lks_group_rank(node) == 0 ? 2 : 1; /* the first member has the results as well */
    size_t bytes = LKS__MPI_BOARD_BYTES + areas * LKS__MPI_WINDOW * LKS__MPI_PART_BYTES;
    return lks_group_memory_create(node, bytes, out);
}

static void find_boards(lks__mpi_member *self)
{
    for (int i = 0; i < self->map.n_local; i++)
        self->boards[i] = lks_group_memory_at(self->shared, i);
    /* relaxed: for people */
    atomic_store_explicit(&self->boards[self->map.local]->finished_what, LKS__MPI_NO_SIGNATURE,
                          memory_order_relaxed);
}

lks_status lks__mpi_member_create(lks__mpi_engine *engine, lks_group *node, lks_group_memory *shared,
                                  const lks__mpi_map *map, lks__mpi_member **out)
{
    lks__mpi_member *self = lks__alloc(sizeof *self, LKS__MEM_COMM);
    if (self == NULL) {
        lks_group_memory_destroy(shared);
        lks_group_destroy(node);
        return LKS_E_NOMEM;
    }
    self->group.backend = &lks__mpi_backend;
    self->group.rank = map->rank;
    self->group.size = map->size;
    self->engine = engine;
    self->node = node;
    self->shared = shared;
    self->map = *map;
    self->has_core = map->n_local <= lks__group_cores();
    lks_status status = get_memory(self);
    if (status != LKS_OK) {
        lks__mpi_member_free(self);
        return status;
    }
    find_boards(self);
    *out = self;
    return LKS_OK;
}

void lks__mpi_member_add(lks__mpi_member *self)
{
    lks__mpi_engine *engine = self->engine;
    pthread_mutex_lock(&engine->lock);
    self->next = engine->members;
    engine->members = self;
    pthread_mutex_unlock(&engine->lock);
}

void lks__mpi_member_remove(lks__mpi_member *self)
{
    lks__mpi_engine *engine = self->engine;
    pthread_mutex_lock(&engine->lock);
    lks__mpi_member **link = &engine->members;
    while (*link != self)
        link = &(*link)->next;
    *link = self->next;
    pthread_mutex_unlock(&engine->lock);
}

/* ---- leaving ---- */

static void close_engine(lks__mpi_member *self)
{
    lks__mpi_engine *engine = self->engine;
    lks__wire *wire = engine->wire;
    lks__mpi_engine_stop(engine);
    bool failed = engine->failure != LKS_OK;
    /* Closing may wait for the others, who may wait for this member on its machine: so it leaves there first.
     * After a failure nobody is waited for, but the wire may still read what it sends. */
    if (failed)
        wire->backend->close(wire, failed);
    lks__mpi_member_free(self);
    if (!failed)
        wire->backend->close(wire, failed);
    lks__mpi_engine_destroy(engine);
}

static void mpi_destroy(lks_group *group)
{
    lks__mpi_member *self = lks__mpi_member_of(group);
    lks__mpi_leave(self);
    if (self->serial == 0) {
        close_engine(self);
    } else {
        lks__mpi_member_remove(self);
        lks__mpi_member_free(self);
    }
}

/* ---- the rest of the table ---- */

static lks_group *mpi_node(lks_group *group)
{
    return lks__mpi_member_of(group)->node;
}

static int mpi_failed_by(const lks_group *group)
{
    const lks__mpi_member *self = (const lks__mpi_member *)group;
    int rank = self->group.size - 1;
    pthread_mutex_lock(&self->engine->lock);
    while (rank >= 0 && self->processes[rank] != self->engine->failed_by)
        rank--;
    pthread_mutex_unlock(&self->engine->lock);
    return rank;
}

const lks__backend lks__mpi_backend = {
    .run = lks__mpi_run,
    .task_bytes = sizeof(lks__mpi_task),
    .post = lks__mpi_post,
    .test = lks__mpi_test,
    .wait = lks__mpi_wait,
    .split = lks__mpi_split,
    .memory_create = lks__mpi_memory_create,
    .memory_destroy = lks__mpi_memory_destroy,
    .node = mpi_node,
    .failed_by = mpi_failed_by,
    .destroy = mpi_destroy,
};

/* ---- joining ---- */

enum { JOIN_VERSION = 2 };

/* What processes tell each other when they join: first who they are, then how it went. */
typedef struct introduction {
    int32_t version, machine, pid, n_local, fast;
} introduction;

typedef struct verdict {
    int32_t status;
    char text[124];
} verdict;

/* Tells all what became of this member, and makes one failure out of any. */
static lks_status agree(lks__wire *wire, int64_t timeout_ns, lks_status status)
{
    verdict all[LKS_GROUP_MAX_SIZE], own = {.status = status};
    if (status != LKS_OK)
        lks__append(own.text, sizeof own.text, "%s", lks_error_message());
    lks_status exchange = lks__mpi_tell_all(wire, timeout_ns, &own, sizeof own, all);
    for (int r = 0; r < wire->size && exchange == LKS_OK; r++)
        if (all[r].status != LKS_OK)
            exchange = lks__fail((lks_status)all[r].status, "rank %d cannot join: %s", r, all[r].text);
    return exchange;
}

/* Everybody must know the same of everybody. */
static lks_status check(const introduction *all, int n)
{
    for (int r = 0; r < n; r++) {
        int n_there = 0;
        for (int other = 0; other < n; other++)
            n_there += all[other].machine == all[r].machine;
        if (all[r].version != JOIN_VERSION)
            return lks__fail(LKS_E_ARG, "rank %d is of another version of lockstep", r);
        if (all[r].fast != all[0].fast)
            return lks__fail(LKS_E_ARG, "rank %d asks for %s, rank 0 for %s", r,
                             all[r].fast ? "fast sums" : "sums in the order of ranks",
                             all[0].fast ? "fast ones" : "such in the order of ranks");
        if (all[r].n_local != n_there || n_there == n)
            return lks__fail(LKS_E_ARG, "rank %d has found %d members on its machine, not %d of %d", r,
                             all[r].n_local, n_there, n);
    }
    return LKS_OK;
}

/* Whether all members are threads of one process, as in tests, or each is the only process of a container:
 * then process numbers tell nothing. */
static bool have_one_number(const introduction *all, int n)
{
    for (int r = 1; r < n; r++)
        if (all[r].pid != all[0].pid)
            return false;
    return true;
}

/* Finds out who is where. The outcome is the same on all members. */
static lks_status introduce(lks__wire *wire, lks_group *node, const lks_group_config *config,
                            introduction *all)
{
    introduction own = {JOIN_VERSION, wire->machine, (int32_t)getpid(), lks_group_size(node), config->fast};
    lks_status status = lks__mpi_tell_all(wire, lks__timeout_ns(config->timeout_s), &own, sizeof own, all);
    return status == LKS_OK ? check(all, wire->size) : status;
}

/* Takes `node` and `shared` over. */
static lks_status make_member(lks__mpi_engine *engine, lks_group *node, lks_group_memory *shared,
                              const introduction *all, lks__mpi_member **out)
{
    lks__mpi_map map;
    int machines[LKS_GROUP_MAX_SIZE], n = engine->wire->size;
    for (int r = 0; r < n; r++)
        machines[r] = all[r].machine;
    lks__mpi_map_init(&map, machines, engine->wire->rank, n);
    engine->same_process = have_one_number(all, n);
    lks_status status = lks__mpi_member_create(engine, node, shared, &map, out);
    if (status != LKS_OK)
        return status;
    for (int r = 0; r < n; r++) {
        (*out)->processes[r] = r;
        (*out)->peers[r].pid = all[r].pid;
    }
    lks__shm_name_members((*out)->node, (*out)->map.local_ranks);
    lks__mpi_member_add(*out);
    return lks__mpi_engine_start(engine);
}

/* What the members of a machine do together comes first, then what may fail for one alone. Takes `node` over.
 */
static lks_status make(lks__mpi_engine *engine, lks_group *node, const introduction *all,
                       lks__mpi_member **out)
{
    lks_group_memory *shared;
    lks_status status = lks__mpi_share(node, &shared);
    if (status == LKS_OK && engine != NULL)
        return make_member(engine, node, shared, all, out);
    lks_group_memory_destroy(shared);
    lks_group_destroy(node);
    return status == LKS_OK ? LKS_E_NOMEM : status;
}

static void give_up(lks__wire *wire, lks__mpi_engine *engine, lks__mpi_member *self)
{
    if (engine != NULL)
        lks__mpi_engine_stop(engine);
    wire->backend->close(wire, true);
    lks__mpi_member_free(self);
    lks__mpi_engine_destroy(engine);
}

lks_status lks__mpi_join(lks__wire *wire, lks_group *node, const lks_group_config *config, lks_group **out)
{
    introduction all[LKS_GROUP_MAX_SIZE];
    int64_t timeout_ns = lks__timeout_ns(config->timeout_s);
    lks__mpi_engine *engine = NULL;
    lks__mpi_member *self = NULL;
    *out = NULL;
    lks_status status = introduce(wire, node, config, all);
    if (status != LKS_OK) {
        wire->backend->close(wire, true);
        lks_group_destroy(node);
        return status;
    }
    status = lks__mpi_engine_create(wire, node, config, &engine);
    (void)status; /* without an engine it cannot be made, which all are told */
    status = make(engine, node, all, &self);
    if (engine != NULL) /* whose thread may use the wire now */
        pthread_mutex_lock(&engine->lock);
    status = agree(wire, timeout_ns, status);
    if (engine != NULL)
        pthread_mutex_unlock(&engine->lock);
    if (status == LKS_OK)
        *out = &self->group;
    else
        give_up(wire, engine, self);
    return status;
}
