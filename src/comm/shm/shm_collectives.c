/* SPDX-License-Identifier: Apache-2.0 */
/* The collectives on ordinary memory, through staging areas in shared memory.
 *
 * Why two halves are enough: what is staged in turn t is read after the barrier of turn t and before the
 * reader comes to its next barrier. Half t % 2 is written again in turn t + 2, by a member that has passed
 * the barrier of turn t + 1, to which every reader came after it had read. The same holds for results, which
 * are written after the barrier of turn t and read after the barrier that follows. */
#include <string.h>

#include "comm/kernels.h"
#include "comm/shm/shm_member.h"

/* Up to here everyone adds up everything itself, after one barrier. It reads (size - 1) times the bytes that
 * it would read of its chunk, but a second barrier costs more. */
enum { EAGER_BYTES = 4096, CHUNK_ALIGNMENT_BYTES = 64 };

static char *staging(const lks__shm_member *self)
{
    return (char *)self->control + lks__shm_staging_at(self->group.size);
}

static void *input_at(const lks__shm_member *self, int rank, int half)
{
    return staging(self) + (size_t)(rank * LKS__STAGE_HALVES + half) * LKS__STAGE_BYTES;
}

static void *result_at(const lks__shm_member *self, int half)
{
    return staging(self) + (size_t)(self->group.size * LKS__STAGE_HALVES + half) * LKS__STAGE_BYTES;
}

static int next_half(lks__shm_member *self)
{
    return (int)(self->turn++ % LKS__STAGE_HALVES);
}

/* What fits into one half of the staging area. */
typedef struct piece {
    char *data; /* in the caller's buffer */
    size_t n_elems;
    int half;
} piece;

static piece take_piece(lks__shm_member *self, const lks__request *request, size_t done)
{
    size_t element = lks__dtype_bytes(request->dtype), most = LKS__STAGE_BYTES / element;
    size_t left = request->count - done;
    return (piece){(char *)request->data + done * element, left < most ? left : most, next_half(self)};
}

/* Reduces the piece's inputs from element `first` to `last` (not included) into out. */
static void reduce_inputs(const lks__shm_member *self, const lks__request *request, int half, size_t first,
                          size_t last, void *out)
{
    const void *sources[LKS_GROUP_MAX_SIZE];
    for (int r = 0; r < self->group.size; r++)
        sources[r] = (char *)input_at(self, r, half) + first * lks__dtype_bytes(request->dtype);
    lks__reduce(out, sources, self->group.size, last - first, request->dtype, request->op);
}

/* Where the chunk of `rank` starts in n elements: equal parts, on cache lines so that no two members write
 * one. */
static size_t chunk_start(size_t n, size_t element, int rank, int size)
{
    size_t line = CHUNK_ALIGNMENT_BYTES / element;
    size_t start = lks__round_up(n * (size_t)rank / (size_t)size, line);
    return start < n ? start : n;
}

static void reduce_chunk(const lks__shm_member *self, const lks__request *request, const piece *p)
{
    size_t element = lks__dtype_bytes(request->dtype);
    size_t first = chunk_start(p->n_elems, element, self->group.rank, self->group.size);
    size_t last = self->group.rank + 1 == self->group.size
                      ? p->n_elems
                      : chunk_start(p->n_elems, element, self->group.rank + 1, self->group.size);
    reduce_inputs(self, request, p->half, first, last, (char *)result_at(self, p->half) + first * element);
}

static lks_status all_reduce_eager(lks__shm_member *self, const lks__request *request)
{
    size_t bytes = request->count * lks__dtype_bytes(request->dtype);
    int half = next_half(self);
    if (bytes > 0)
        memcpy(input_at(self, self->group.rank, half), request->data, bytes);
    lks_status status = lks__shm_barrier(self, request);
    if (status == LKS_OK)
        reduce_inputs(self, request, half, 0, request->count, request->data);
    return status;
}

/* One barrier per piece: behind it the piece's inputs are complete, and so is the result of the piece before.
 */
static lks_status all_reduce_pieces(lks__shm_member *self, const lks__request *request)
{
    size_t element = lks__dtype_bytes(request->dtype);
    piece present, before = {.n_elems = 0};
    for (size_t done = 0; done < request->count; done += present.n_elems) {
        present = take_piece(self, request, done);
        memcpy(input_at(self, self->group.rank, present.half), present.data, present.n_elems * element);
        lks_status status = lks__shm_barrier(self, request);
        if (status != LKS_OK)
            return status;
        reduce_chunk(self, request, &present);
        if (before.n_elems > 0)
            memcpy(before.data, result_at(self, before.half), before.n_elems * element);
        before = present;
    }
    lks_status status = lks__shm_barrier(self, request);
    if (status == LKS_OK)
        memcpy(before.data, result_at(self, before.half), before.n_elems * element);
    return status;
}

lks_status lks__shm_all_reduce(lks_group *group, const lks__request *request)
{
    lks__shm_member *self = lks__shm_member_of(group);
    return request->count * lks__dtype_bytes(request->dtype) <= EAGER_BYTES
               ? all_reduce_eager(self, request)
               : all_reduce_pieces(self, request);
}

lks_status lks__shm_broadcast(lks_group *group, const lks__request *request)
{
    lks__shm_member *self = lks__shm_member_of(group);
    size_t element = lks__dtype_bytes(request->dtype), done = 0;
    bool is_root = group->rank == request->root;
    do { /* at least once: members that broadcast nothing meet too */
        piece p = take_piece(self, request, done);
        void *staged = input_at(self, request->root, p.half);
        if (is_root && p.n_elems > 0)
            memcpy(staged, p.data, p.n_elems * element);
        lks_status status = lks__shm_barrier(self, request);
        if (status != LKS_OK)
            return status;
        if (!is_root && p.n_elems > 0)
            memcpy(p.data, staged, p.n_elems * element);
        done += p.n_elems;
    } while (done < request->count);
    return LKS_OK;
}

lks_status lks__shm_exchange(lks__shm_member *self, const lks__request *request, uint64_t offer)
{
    self->exchanges++;
    /* relaxed: published by the barrier. In turns, for the reason given at the top of this file. */
    atomic_store_explicit(&lks__shm_slot_of(self, self->group.rank)->offers[self->exchanges % 2], offer,
                          memory_order_relaxed);
    return lks__shm_barrier(self, request);
}

uint64_t lks__shm_offer(const lks__shm_member *self, int rank)
{
    return atomic_load_explicit(&lks__shm_slot_of(self, rank)->offers[self->exchanges % 2],
                                memory_order_relaxed);
}
