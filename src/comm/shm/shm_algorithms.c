/* SPDX-License-Identifier: Apache-2.0 */
/* The collectives as rows of a table: what is staged, what is reduced, what is fetched. */
#include <string.h>

#include "comm/kernels.h"
#include "comm/shm/shm_staging.h"

/* Up to here everyone that gets the result adds up everything itself, after one barrier. For all_reduce it
 * reads (size - 1) times the bytes that it would read of its chunk, but a second barrier costs more: most
 * where members share cores. The root of a reduce reads the same bytes either way. */
enum { EAGER_BYTES = 4096, EAGER_ALL_REDUCE_BYTES = 1024 };

/* ---- arithmetic ---- */

static size_t bytes_of(const lks_operation *operation, size_t n)
{
    return n * lks__dtype_bytes(operation->dtype);
}

/* Where the piece starts in row `row` of the caller's data. */
static size_t at(const lks_operation *operation, const lks__piece *p, int row)
{
    return bytes_of(operation, (size_t)row * operation->count + p->first);
}

/* A member's chunk of n elements, in bytes from their start. */
typedef struct chunk {
    size_t start, bytes;
} chunk;

static chunk chunk_of(const lks__shm_member *self, int rank, const lks_operation *operation, size_t n)
{
    size_t element = lks__dtype_bytes(operation->dtype);
    size_t start = lks__chunk_start(n, element, rank, self->group.size) * element;
    size_t end = lks__chunk_start(n, element, rank + 1, self->group.size) * element;
    return (chunk){start, end - start};
}

static bool is_root(const lks__shm_member *self, const lks_operation *operation)
{
    return self->group.rank == operation->root;
}

static void reduce(lks__shm_member *self, const lks_operation *operation, const void *const *sources,
                   size_t n, void *out)
{
    lks__reduce(out, sources, self->group.size, n, operation->dtype, operation->op);
    lks__shm_count(self, bytes_of(operation, n) * (size_t)self->group.size, bytes_of(operation, n));
}

static char *input_at(const lks_operation *operation, const lks__piece *p, int row)
{
    return (char *)operation->in + at(operation, p, row);
}

static char *output_at(const lks_operation *operation, const lks__piece *p, int row)
{
    return (char *)operation->out + at(operation, p, row);
}

static void fetch_row(lks__shm_member *self, const lks_operation *operation, const lks__piece *p, int row,
                      const char *staged)
{
    lks__shm_copy(self, output_at(operation, p, row), staged, bytes_of(operation, p->n));
}

/* What a member has itself is not staged, since nobody else reads it. In place it is where it belongs. */
static void fetch_own(lks__shm_member *self, const lks_operation *operation, const lks__piece *p, int in_row,
                      int out_row)
{
    const char *in = input_at(operation, p, in_row);
    if (output_at(operation, p, out_row) != in)
        fetch_row(self, operation, p, out_row, in);
}

/* ---- stage ---- */

static void stage_for_all(lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    lks__shm_copy(self, lks__stage_for_all(self, self->group.rank, p), input_at(operation, p, 0),
                  bytes_of(operation, p->n));
}

/* One writes and others read, or others write and one reads: nothing can be exchanged. */
static void stage_data(lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    lks__shm_copy(self, lks__stage_area(self, self->group.rank, p), input_at(operation, p, 0),
                  bytes_of(operation, p->n));
}

static void stage_roots_data(lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    if (is_root(self, operation))
        stage_data(self, operation, p);
}

static void stage_others_data(lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    if (!is_root(self, operation))
        stage_data(self, operation, p);
}

/* To each other member its row. */
static void stage_rows(lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    for (int row = 0; row < self->group.size; row++)
        if (row != self->group.rank)
            lks__shm_copy(self, lks__stage_for_one(self, self->group.rank, row, p),
                          input_at(operation, p, row), bytes_of(operation, p->n));
}

static void stage_roots_rows(lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    if (is_root(self, operation))
        stage_rows(self, operation, p);
}

/* ---- data where the others can read it ---- */

enum { IN_PLACE = 1 }; /* the lowest bit of an offer; the place is above it */

uint64_t lks__shm_place_offer(const lks__shm_member *self, const lks_operation *operation)
{
    uint64_t place = lks__shm_locate(self, operation->in, bytes_of(operation, operation->count));
    bool in_place = operation->collective == LKS_ALL_REDUCE && operation->in == operation->out;
    return place == 0 ? 0 : place << 1 | (in_place ? IN_PLACE : 0);
}

/* Where this member finds the data of `rank`; NULL: in the staging area. */
static char *place_of(const lks__shm_member *self, int rank)
{
    uint64_t offer = lks__shm_offer(self, rank);
    return offer != 0 ? lks__shm_address(self, offer >> 1) : NULL;
}

/* To each other member its chunk. */
static void stage_unless_placed(lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    if (lks__shm_offer(self, self->group.rank) != 0)
        return;
    for (int r = 0; r < self->group.size; r++) {
        chunk c = chunk_of(self, r, operation, p->n);
        if (r != self->group.rank)
            lks__shm_copy(self, lks__stage_for_one(self, self->group.rank, r, p),
                          input_at(operation, p, 0) + c.start, c.bytes);
    }
}

/* ---- reduce ---- */

/* Reduces `bytes` bytes of every member, a block at a time, to the first target, and copies each block to the
 * other targets while a near cache has it. */
static void reduce_blocks(lks__shm_member *self, const lks_operation *operation, char *const *data,
                          size_t bytes, int n_targets, char *const *targets)
{
    enum { BLOCK_BYTES = 8192 }; /* what lks__reduce does at a time */
    const void *sources[LKS_GROUP_MAX_SIZE];
    for (size_t done = 0; done < bytes; done += BLOCK_BYTES) {
        size_t block = bytes - done < BLOCK_BYTES ? bytes - done : BLOCK_BYTES;
        for (int r = 0; r < self->group.size; r++)
            sources[r] = data[r] + done;
        reduce(self, operation, sources, block / lks__dtype_bytes(operation->dtype), targets[0] + done);
        for (int i = 1; i < n_targets; i++)
            lks__shm_copy(self, targets[i] + done, targets[0] + done, block);
    }
}

/* To where this member's result goes, if it gets one, and to where the others look for it. */
static void reduce_chunk(lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    char *data[LKS_GROUP_MAX_SIZE], *targets[2];
    int n_targets = 0, own = self->group.rank;
    chunk c = chunk_of(self, own, operation, p->n);
    for (int r = 0; r < self->group.size; r++) {
        char *place = place_of(self, r);
        data[r] = place == NULL ? lks__stage_for_one(self, r, own, p) : place + at(operation, p, 0) + c.start;
    }
    data[own] = input_at(operation, p, 0) + c.start;
    bool all_get_it = operation->collective == LKS_ALL_REDUCE;
    if (all_get_it || is_root(self, operation))
        targets[n_targets++] = output_at(operation, p, 0) + c.start;
    if (all_get_it || !is_root(self, operation))
        targets[n_targets++] = lks__stage_result(self, own, p);
    reduce_blocks(self, operation, data, c.bytes, n_targets, targets);
}

/* Each member reduces its chunk and writes it over everybody's data: nobody else reads or writes that chunk.
 * Between two barriers. */
static void reduce_over_all(lks__shm_member *self, const lks_operation *operation, char *const *places)
{
    char *data[LKS_GROUP_MAX_SIZE], *targets[LKS_GROUP_MAX_SIZE];
    int n_targets = 1;
    chunk own = chunk_of(self, self->group.rank, operation, operation->count);
    for (int r = 0; r < self->group.size; r++) {
        data[r] = places[r] + own.start;
        targets[r == self->group.rank ? 0 : n_targets++] = data[r];
    }
    reduce_blocks(self, operation, data, own.bytes, n_targets, targets);
}

lks_status lks__shm_reduce_in_place(lks__shm_member *self, const lks_operation *operation)
{
    char *places[LKS_GROUP_MAX_SIZE];
    bool all_in_place = true;
    for (int r = 0; r < self->group.size; r++) {
        uint64_t offer = lks__shm_offer(self, r);
        places[r] = place_of(self, r);
        all_in_place = all_in_place && (offer & IN_PLACE) != 0;
        if (offer == 0 || places[r] != NULL)
            continue;
        char who[LKS__WHO_BYTES];
        lks__shm_poison(self, LKS__BY_MEMBER, LKS_E_PEER,
                        "%s has destroyed its handle of the memory that rank %d uses",
                        lks__shm_who(self, self->group.rank, who), r);
        return lks__shm_failure(self, operation, false);
    }
    if (!all_in_place)
        return LKS_OK;
    reduce_over_all(self, operation, places);
    return LKS_IN_PROGRESS;
}

/* ---- fetch ---- */

/* The chunks that others have reduced. */
static void fetch_result(lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    for (int r = 0; r < self->group.size; r++) {
        chunk c = chunk_of(self, r, operation, p->n);
        if (r != self->group.rank)
            lks__shm_copy(self, output_at(operation, p, 0) + c.start, lks__stage_result(self, r, p), c.bytes);
    }
}

static void fetch_roots_result(lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    if (is_root(self, operation))
        fetch_result(self, operation, p);
}

static void fetch_reduced(lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    const void *sources[LKS_GROUP_MAX_SIZE];
    for (int r = 0; r < self->group.size; r++)
        sources[r] = lks__stage_area(self, r, p);
    reduce(self, operation, sources, p->n, output_at(operation, p, 0));
}

static void fetch_reduced_to_root(lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    if (is_root(self, operation))
        fetch_reduced(self, operation, p);
}

static void fetch_reduced_row(lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    const void *sources[LKS_GROUP_MAX_SIZE];
    for (int r = 0; r < self->group.size; r++)
        sources[r] = lks__stage_for_one(self, r, self->group.rank, p);
    sources[self->group.rank] = input_at(operation, p, self->group.rank);
    reduce(self, operation, sources, p->n, output_at(operation, p, 0));
}

static void fetch_from_root(lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    if (!is_root(self, operation))
        fetch_row(self, operation, p, 0, lks__stage_area(self, operation->root, p));
}

static void fetch_own_row(lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    if (is_root(self, operation))
        fetch_own(self, operation, p, self->group.rank, 0);
    else
        fetch_row(self, operation, p, 0, lks__stage_for_one(self, operation->root, self->group.rank, p));
}

static void fetch_all(lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    for (int r = 0; r < self->group.size; r++)
        if (r != self->group.rank)
            fetch_row(self, operation, p, r, lks__stage_for_all(self, r, p));
    fetch_own(self, operation, p, 0, self->group.rank);
}

static void fetch_all_to_root(lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    if (!is_root(self, operation))
        return;
    for (int r = 0; r < self->group.size; r++)
        if (r != self->group.rank)
            fetch_row(self, operation, p, r, lks__stage_area(self, r, p));
    fetch_own(self, operation, p, 0, self->group.rank);
}

static void fetch_own_rows(lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    for (int r = 0; r < self->group.size; r++)
        if (r != self->group.rank)
            fetch_row(self, operation, p, r, lks__stage_for_one(self, r, self->group.rank, p));
    fetch_own(self, operation, p, self->group.rank, self->group.rank);
}

/* ---- the table ---- */

static const lks__algorithm algorithms[LKS__N_COLLECTIVES] = {
    [LKS_ALL_REDUCE] = {false, stage_unless_placed, reduce_chunk, fetch_result},
    [LKS_BROADCAST] = {false, stage_roots_data, NULL, fetch_from_root},
    [LKS_REDUCE] = {false, stage_unless_placed, reduce_chunk, fetch_roots_result},
    [LKS_ALL_GATHER] = {false, stage_for_all, NULL, fetch_all},
    [LKS_REDUCE_SCATTER] = {true, stage_rows, NULL, fetch_reduced_row},
    [LKS_GATHER] = {false, stage_others_data, NULL, fetch_all_to_root},
    [LKS_SCATTER] = {true, stage_roots_rows, NULL, fetch_own_row},
    [LKS_ALL_TO_ALL] = {true, stage_rows, NULL, fetch_own_rows},
    /* all others are barriers */
};

static const lks__algorithm all_reduce_eager = {false, stage_data, NULL, fetch_reduced};
static const lks__algorithm reduce_eager = {false, stage_data, NULL, fetch_reduced_to_root};

const lks__algorithm *lks__shm_algorithm(const lks__shm_member *self, const lks_operation *operation)
{
    /* relaxed: published by the first barrier */
    bool crowded = atomic_load_explicit(&self->control->crowded, memory_order_relaxed) != 0;
    size_t bytes = bytes_of(operation, operation->count);
    if (operation->collective == LKS_ALL_REDUCE && bytes <= (crowded ? EAGER_BYTES : EAGER_ALL_REDUCE_BYTES))
        return &all_reduce_eager;
    if (operation->collective == LKS_REDUCE && bytes <= EAGER_BYTES)
        return &reduce_eager;
    return &algorithms[operation->collective];
}
