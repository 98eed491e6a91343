/* SPDX-License-Identifier: Apache-2.0 */
/* The collectives as rows of a table: what is staged, what is reduced, what is fetched. */
#include <string.h>

#include "comm/kernels.h"
#include "comm/shm/shm_staging.h"

/* Up to here everyone that gets the result adds up everything itself, after one barrier. It reads (size - 1)
 * times the bytes that it would read of its chunk, but a second barrier costs more. */
enum { EAGER_BYTES = 4096, CHUNK_ALIGNMENT_BYTES = 64 };

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

/* Where the chunk of `rank` starts in n elements: equal parts, on cache lines so that no two members write
 * one; that of rank `size` is the end. */
static size_t chunk_start(size_t n, size_t element, int rank, int size)
{
    size_t line = CHUNK_ALIGNMENT_BYTES / element;
    size_t start = rank == size ? n : lks__round_up(n * (size_t)rank / (size_t)size, line);
    return start < n ? start : n;
}

static bool is_root(const lks__shm_member *self, const lks_operation *operation)
{
    return self->group.rank == operation->root;
}

/* Copies from staging; the own row of a result in place is there already. */
static void fetch_row(const lks_operation *operation, const lks__piece *p, int row, const char *staged)
{
    memcpy((char *)operation->out + at(operation, p, row), staged, bytes_of(operation, p->n));
}

/* ---- stage ---- */

static void stage_data(const lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    memcpy(lks__stage_input(self, self->group.rank, p->half),
           (const char *)operation->in + at(operation, p, 0), bytes_of(operation, p->n));
}

static void stage_roots_data(const lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    if (is_root(self, operation))
        stage_data(self, operation, p);
}

static void stage_rows(const lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    char *input = lks__stage_input(self, self->group.rank, p->half);
    for (int row = 0; row < self->group.size; row++)
        memcpy(input + (size_t)row * lks__stage_row_bytes(self->group.size),
               (const char *)operation->in + at(operation, p, row), bytes_of(operation, p->n));
}

static void stage_roots_rows(const lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
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

static void stage_unless_placed(const lks__shm_member *self, const lks_operation *operation,
                                const lks__piece *p)
{
    if (lks__shm_offer(self, self->group.rank) == 0)
        stage_data(self, operation, p);
}

/* ---- reduce ---- */

/* Reduces n elements that lie `offset` bytes from the start of every member's input. */
static void reduce_inputs(const lks__shm_member *self, const lks_operation *operation, int half,
                          size_t offset, size_t n, void *out)
{
    const void *sources[LKS_GROUP_MAX_SIZE];
    for (int r = 0; r < self->group.size; r++)
        sources[r] = lks__stage_input(self, r, half) + offset;
    lks__reduce(out, sources, self->group.size, n, operation->dtype, operation->op);
}

static void reduce_chunk(const lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    const void *sources[LKS_GROUP_MAX_SIZE];
    size_t element = lks__dtype_bytes(operation->dtype);
    size_t first = chunk_start(p->n, element, self->group.rank, self->group.size);
    size_t last = chunk_start(p->n, element, self->group.rank + 1, self->group.size);
    for (int r = 0; r < self->group.size; r++) {
        const char *place = place_of(self, r);
        const char *data = place != NULL ? place + at(operation, p, 0) : lks__stage_input(self, r, p->half);
        sources[r] = data + first * element;
    }
    lks__reduce(lks__stage_result(self, p->half) + first * element, sources, self->group.size, last - first,
                operation->dtype, operation->op);
}

/* Each member reduces its chunk, a block at a time, and writes it over everybody's data: nobody else reads or
 * writes that chunk. Between two barriers. */
static void reduce_over_all(const lks__shm_member *self, const lks_operation *operation, char *const *places)
{
    enum {
        BLOCK_BYTES = 8192
    }; /* what lks__reduce does at a time: still in a near cache when it is copied */
    const void *sources[LKS_GROUP_MAX_SIZE];
    int size = self->group.size, own = self->group.rank;
    size_t element = lks__dtype_bytes(operation->dtype);
    size_t at_bytes = chunk_start(operation->count, element, own, size) * element;
    size_t end_bytes = chunk_start(operation->count, element, own + 1, size) * element;
    while (at_bytes < end_bytes) {
        size_t bytes = end_bytes - at_bytes < BLOCK_BYTES ? end_bytes - at_bytes : BLOCK_BYTES;
        for (int r = 0; r < size; r++)
            sources[r] = places[r] + at_bytes;
        lks__reduce(places[own] + at_bytes, sources, size, bytes / element, operation->dtype, operation->op);
        for (int r = 0; r < size; r++)
            if (r != own)
                memcpy(places[r] + at_bytes, places[own] + at_bytes, bytes);
        at_bytes += bytes;
    }
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

static void fetch_result(const lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    fetch_row(operation, p, 0, lks__stage_result(self, p->half));
}

static void fetch_roots_result(const lks__shm_member *self, const lks_operation *operation,
                               const lks__piece *p)
{
    if (is_root(self, operation))
        fetch_result(self, operation, p);
}

static void fetch_reduced(const lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    reduce_inputs(self, operation, p->half, 0, p->n, (char *)operation->out + at(operation, p, 0));
}

static void fetch_reduced_to_root(const lks__shm_member *self, const lks_operation *operation,
                                  const lks__piece *p)
{
    if (is_root(self, operation))
        fetch_reduced(self, operation, p);
}

static void fetch_reduced_row(const lks__shm_member *self, const lks_operation *operation,
                              const lks__piece *p)
{
    size_t own_row = (size_t)self->group.rank * lks__stage_row_bytes(self->group.size);
    reduce_inputs(self, operation, p->half, own_row, p->n, (char *)operation->out + at(operation, p, 0));
}

static void fetch_from_root(const lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    if (!is_root(self, operation))
        fetch_row(operation, p, 0, lks__stage_input(self, operation->root, p->half));
}

static void fetch_own_row(const lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    size_t own_row = (size_t)self->group.rank * lks__stage_row_bytes(self->group.size);
    fetch_row(operation, p, 0, lks__stage_input(self, operation->root, p->half) + own_row);
}

static void fetch_all(const lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    for (int r = 0; r < self->group.size; r++)
        fetch_row(operation, p, r, lks__stage_input(self, r, p->half));
}

static void fetch_all_to_root(const lks__shm_member *self, const lks_operation *operation,
                              const lks__piece *p)
{
    if (is_root(self, operation))
        fetch_all(self, operation, p);
}

static void fetch_own_rows(const lks__shm_member *self, const lks_operation *operation, const lks__piece *p)
{
    size_t own_row = (size_t)self->group.rank * lks__stage_row_bytes(self->group.size);
    for (int r = 0; r < self->group.size; r++)
        fetch_row(operation, p, r, lks__stage_input(self, r, p->half) + own_row);
}

/* ---- the table ---- */

static const lks__algorithm algorithms[LKS__N_COLLECTIVES] = {
    [LKS_ALL_REDUCE] = {false, stage_unless_placed, reduce_chunk, fetch_result},
    [LKS_BROADCAST] = {false, stage_roots_data, NULL, fetch_from_root},
    [LKS_REDUCE] = {false, stage_unless_placed, reduce_chunk, fetch_roots_result},
    [LKS_ALL_GATHER] = {false, stage_data, NULL, fetch_all},
    [LKS_REDUCE_SCATTER] = {true, stage_rows, NULL, fetch_reduced_row},
    [LKS_GATHER] = {false, stage_data, NULL, fetch_all_to_root},
    [LKS_SCATTER] = {true, stage_roots_rows, NULL, fetch_own_row},
    [LKS_ALL_TO_ALL] = {true, stage_rows, NULL, fetch_own_rows},
    /* all others are barriers */
};

static const lks__algorithm all_reduce_eager = {false, stage_data, NULL, fetch_reduced};
static const lks__algorithm reduce_eager = {false, stage_data, NULL, fetch_reduced_to_root};

const lks__algorithm *lks__shm_algorithm(const lks_operation *operation)
{
    if (bytes_of(operation, operation->count) <= EAGER_BYTES) {
        if (operation->collective == LKS_ALL_REDUCE)
            return &all_reduce_eager;
        if (operation->collective == LKS_REDUCE)
            return &reduce_eager;
    }
    return &algorithms[operation->collective];
}
