/* SPDX-License-Identifier: Apache-2.0 */
/* Reductions. Every rank has a chunk of each part. Who carries for it on another machine sends what that
 * machine has to say about the chunk, the partial results of its pieces; the rank puts all pieces together,
 * in tree order, and sends the result back. */
#include <string.h>

#include "base/alloc.h"
#include "comm/kernels.h"
#include "comm/mpi/mpi_pieces.h"
#include "comm/mpi/mpi_steps.h"

enum { LINE_BYTES = 64 };

/* ---- chunks ---- */

/* The elements [from, from + n) of row `row` of a part. */
typedef struct chunk {
    int row;
    size_t from, n;
} chunk;

static chunk chunk_of(const lks__mpi_member *self, const lks__mpi_part *part, int rank)
{
    const lks_operation *operation = part->task->operation;
    if (operation->collective == LKS_REDUCE_SCATTER)
        return (chunk){rank, 0, part->n};
    size_t element = lks__dtype_bytes(operation->dtype);
    size_t from = lks__chunk_start(part->n, element, rank, self->group.size);
    return (chunk){0, from, lks__chunk_start(part->n, element, rank + 1, self->group.size) - from};
}

static chunk whole(const lks__mpi_part *part)
{
    return (chunk){0, 0, part->n};
}

/* n / size elements, and up to two cache lines by rounding; rows are shorter. */
size_t lks__mpi_chunk_bytes(int size)
{
    return LKS__MPI_PART_BYTES / (size_t)size + (size_t)2 * LINE_BYTES;
}

/* Partial results of bf16 are twice as long. */
size_t lks__mpi_piece_bytes(size_t bytes)
{
    return lks__round_up(2 * bytes, LINE_BYTES);
}

static char *result_of(const lks__mpi_member *self, const lks__mpi_part *part, chunk c)
{
    return lks__mpi_result(self, part, c.row) + lks__mpi_bytes(part, c.from);
}

/* ---- partial results ---- */

static size_t one_piece_bytes(const lks__mpi_piece *piece, size_t n, lks_dtype dtype)
{
    return lks__round_up(n * lks__mpi_piece_element(piece, dtype), LINE_BYTES);
}

size_t lks__mpi_partials_bytes(const lks__mpi_map *map, int machine, size_t n, lks_dtype dtype)
{
    size_t bytes = 0;
    for (int i = 0; i < map->n_pieces; i++)
        if (map->pieces[i].machine == machine)
            bytes += one_piece_bytes(&map->pieces[i], n, dtype);
    return bytes;
}

/* Sets data[i] for every piece i of a machine, whose partial results lie behind each other at `start`. */
static void find_partials(const lks__mpi_map *map, int machine, const char *start, size_t n, lks_dtype dtype,
                          const void **data)
{
    for (int i = 0; i < map->n_pieces; i++) {
        if (map->pieces[i].machine != machine)
            continue;
        data[i] = start;
        start += one_piece_bytes(&map->pieces[i], n, dtype);
    }
}

/* What this machine's members have of a chunk of the piece. */
static void find_sources(const lks__mpi_member *self, const lks__mpi_part *part, const lks__mpi_piece *piece,
                         chunk c, const void **sources)
{
    for (int r = piece->lo; r < piece->hi; r++)
        sources[r - piece->lo] = lks__mpi_input(self, part, self->map.local_of[r], c.row) +
                                 lks__mpi_bytes(part, c.from);
}

/* Computes this machine's partial results of a chunk. */
static void compute_partials(const lks__mpi_member *self, const lks__mpi_part *part, chunk c, char *out)
{
    const lks_operation *operation = part->task->operation;
    const void *sources[LKS_GROUP_MAX_SIZE];
    for (int i = 0; i < self->map.n_pieces; i++) {
        const lks__mpi_piece *piece = &self->map.pieces[i];
        if (piece->machine != self->map.machine)
            continue;
        find_sources(self, part, piece, c, sources);
        lks__mpi_reduce_piece(out, piece, sources, c.n, operation->dtype, operation->op);
        out += one_piece_bytes(piece, c.n, operation->dtype);
    }
}

/* The only member of a machine sends from where its data lie. */
static bool speaks_for_itself(const lks__mpi_member *self)
{
    return self->map.n_local == 1;
}

static const char *partials_of(const lks__mpi_member *self, const lks__mpi_part *part, chunk c, char *out)
{
    if (speaks_for_itself(self))
        return lks__mpi_input(self, part, 0, c.row) + lks__mpi_bytes(part, c.from);
    compute_partials(self, part, c, out);
    return out;
}

static size_t partials_bytes(const lks__mpi_member *self, const lks__mpi_part *part, int machine, size_t n)
{
    /* of one member there is no second piece that would have to begin on a cache line */
    if (self->map.members[machine] == 1)
        return lks__mpi_bytes(part, n);
    return lks__mpi_partials_bytes(&self->map, machine, n, part->task->operation->dtype);
}

/* ---- small operations: all in the hello ---- */

void lks__mpi_pack_pieces(lks__mpi_member *self, lks__mpi_part *part)
{
    char *payload = lks__mpi_payload(self, part, self->map.machine);
    compute_partials(self, part, whole(part), payload);
    part->packed_bytes = lks__mpi_partials_bytes(&self->map, self->map.machine, part->n,
                                                 part->task->operation->dtype);
}

static bool gets_result(const lks__mpi_member *self, const lks_operation *operation)
{
    return operation->collective != LKS_REDUCE || lks__mpi_is_here(&self->map, operation->root);
}

void lks__mpi_unpack_pieces(lks__mpi_member *self, lks__mpi_part *part)
{
    const lks_operation *operation = part->task->operation;
    const void *data[LKS_GROUP_MAX_SIZE];
    if (!gets_result(self, operation))
        return;
    for (int m = 0; m < self->map.n_machines; m++)
        find_partials(&self->map, m, lks__mpi_payload(self, part, m), part->n, operation->dtype, data);
    lks__mpi_reduce_pieces(lks__mpi_result(self, part, 0), &self->map, data, part->n, operation->dtype,
                           operation->op);
}

/* ---- the way to the chunk's owner ---- */

/* Where the partial results of a machine for the own chunk come to. */
static char *pieces_from(const lks__mpi_member *self, const lks__mpi_part *part, int machine)
{
    size_t before = 0;
    for (int m = 0; m < machine; m++)
        before += (size_t)self->map.pieces_of[m];
    return part->pieces + before * self->piece_bytes;
}

void lks__mpi_send_partials(lks__mpi_member *self, lks__mpi_part *part)
{
    size_t stride = (size_t)self->map.pieces_of[self->map.machine] * self->piece_bytes;
    for (int i = 0; i < self->map.n_carried; i++) {
        int rank = self->map.carried[i];
        chunk c = chunk_of(self, part, rank);
        if (c.n == 0)
            continue;
        const char *data = partials_of(self, part, c, part->partials + (size_t)i * stride);
        lks__mpi_send(self, part, LKS__MPI_FIRST, rank, data,
                      partials_bytes(self, part, self->map.machine, c.n));
    }
    chunk own = chunk_of(self, part, self->group.rank);
    for (int m = 0; m < self->map.n_machines && own.n > 0; m++)
        if (m != self->map.machine)
            lks__mpi_recv(self, part, LKS__MPI_FIRST, self->map.carriers[m], pieces_from(self, part, m),
                          partials_bytes(self, part, m, own.n));
}

/* Puts the pieces of the own chunk together. */
static void reduce_own(lks__mpi_member *self, lks__mpi_part *part, chunk own, void *out)
{
    const lks_operation *operation = part->task->operation;
    const void *data[LKS_GROUP_MAX_SIZE];
    for (int m = 0; m < self->map.n_machines; m++) {
        const char *start = pieces_from(self, part, m);
        if (m == self->map.machine)
            start = partials_of(self, part, own, pieces_from(self, part, m));
        find_partials(&self->map, m, start, own.n, operation->dtype, data);
    }
    lks__mpi_reduce_pieces(out, &self->map, data, own.n, operation->dtype, operation->op);
}

/* ---- and back ---- */

void lks__mpi_spread_chunk(lks__mpi_member *self, lks__mpi_part *part)
{
    chunk own = chunk_of(self, part, self->group.rank);
    char *result = result_of(self, part, own);
    if (own.n > 0)
        reduce_own(self, part, own, result);
    for (int m = 0; m < self->map.n_machines && own.n > 0; m++)
        if (m != self->map.machine)
            lks__mpi_send(self, part, LKS__MPI_SECOND, self->map.carriers[m], result,
                          lks__mpi_bytes(part, own.n));
    for (int i = 0; i < self->map.n_carried; i++) {
        chunk c = chunk_of(self, part, self->map.carried[i]);
        if (c.n > 0)
            lks__mpi_recv(self, part, LKS__MPI_SECOND, self->map.carried[i], result_of(self, part, c),
                          lks__mpi_bytes(part, c.n));
    }
}

/* Writes a result that came to the own data over those of the other members here: nobody else touches this
 * chunk. */
static void deliver(lks__mpi_member *self, lks__mpi_part *part, int rank)
{
    chunk c = chunk_of(self, part, rank);
    size_t at = lks__mpi_at(part, 0) + lks__mpi_bytes(part, c.from);
    for (int i = 0; i < self->map.n_local; i++)
        if (i != self->map.local && c.n > 0)
            memcpy(part->places[i] + at, part->places[self->map.local] + at, lks__mpi_bytes(part, c.n));
}

void lks__mpi_deliver_chunks(lks__mpi_member *self, lks__mpi_part *part)
{
    if (!part->all_in_place)
        return;
    deliver(self, part, self->group.rank);
    for (int i = 0; i < self->map.n_carried; i++)
        deliver(self, part, self->map.carried[i]);
}

void lks__mpi_send_chunk_to_root(lks__mpi_member *self, lks__mpi_part *part)
{
    int root = part->task->operation->root;
    bool here = lks__mpi_is_here(&self->map, root);
    chunk own = chunk_of(self, part, self->group.rank);
    char *result = here ? result_of(self, part, own) : part->own;
    if (own.n > 0)
        reduce_own(self, part, own, result);
    if (own.n > 0 && !here)
        lks__mpi_send(self, part, LKS__MPI_SECOND, root, result, lks__mpi_bytes(part, own.n));
    for (int r = 0; r < self->group.size && root == self->group.rank; r++) {
        chunk c = chunk_of(self, part, r);
        if (c.n > 0 && !lks__mpi_is_here(&self->map, r))
            lks__mpi_recv(self, part, LKS__MPI_SECOND, r, result_of(self, part, c),
                          lks__mpi_bytes(part, c.n));
    }
}

void lks__mpi_reduce_own_row(lks__mpi_member *self, lks__mpi_part *part)
{
    char *out = (char *)part->task->operation->out + lks__mpi_at(part, 0);
    reduce_own(self, part, chunk_of(self, part, self->group.rank), out);
}

/* ---- as the wire does it ---- */

void lks__mpi_start_fast(lks__mpi_member *self, lks__mpi_part *part)
{
    lks__mpi_start_all_reduce(self, part);
}

void lks__mpi_divide_fast(lks__mpi_member *self, lks__mpi_part *part)
{
    const lks_operation *operation = part->task->operation;
    if (operation->op == LKS_MEAN)
        lks__divide(operation->dtype, (char *)operation->out + lks__mpi_at(part, 0), part->n,
                    self->group.size);
}
