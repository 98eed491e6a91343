/* SPDX-License-Identifier: Apache-2.0 */
/** The staging areas: where what lies in ordinary memory becomes visible to the others, piece by piece.
 *
 * Why two halves are enough: what is staged in turn t is read after the barrier of turn t and before the
 * reader comes to its next barrier. Half t % 2 is written again in turn t + 2, by a member that has passed
 * the barrier of turn t + 1, to which every reader came after it had read. The same holds for results, which
 * are written after the barrier of turn t and read after the barrier that follows.
 */
#ifndef LKS_COMM_SHM_STAGING_H
#define LKS_COMM_SHM_STAGING_H

#include "comm/shm/shm_member.h"

/** A part of an operation that fits into one half of a staging area: the elements [first, first + n) of the
 * data, or, in an operation on rows, of every row. */
typedef struct lks__piece {
    size_t first, n;
    int half;
    int use; /* how often this half was used before, modulo 2 size */
} lks__piece;

/** A half has `size` parts: the bytes of one. Whole cache lines. */
static inline size_t lks__stage_part_bytes(int size)
{
    return LKS__STAGE_BYTES / (size_t)size / 64 * 64;
}

_Static_assert(LKS__STAGE_BYTES / LKS_GROUP_MAX_SIZE >= 64, "every part has bytes");

/* A member writes where it has read last, if it can: with each use of a half, who writes what is exchanged.
 * Writing what one has written oneself and another has read since is slow on processors whose cores keep such
 * lines and have to be told to the reader's cache one by one (comm/README.md has figures). */

/** Where what member `area` writes lies, if nothing is exchanged; area `size` is that of results. */
static inline char *lks__stage_area(const lks__shm_member *self, int area, const lks__piece *p)
{
    return (char *)self->control + lks__shm_staging_at(self->group.size) +
           (size_t)(area * LKS__STAGE_HALVES + p->half) * LKS__STAGE_BYTES;
}

/** What `from` writes and all others read. */
static inline char *lks__stage_for_all(const lks__shm_member *self, int from, const lks__piece *p)
{
    return lks__stage_area(self, (from + p->use) % self->group.size, p);
}

/** What `from` writes and `to` reads: at most lks__stage_part_bytes. */
static inline char *lks__stage_for_one(const lks__shm_member *self, int from, int to, const lks__piece *p)
{
    bool exchanged = p->use % 2 != 0;
    size_t part = (size_t)(exchanged ? from : to) * lks__stage_part_bytes(self->group.size);
    return lks__stage_area(self, exchanged ? to : from, p) + part;
}

/** The part of the result that `from` writes and all others, or the root, read. */
static inline char *lks__stage_result(const lks__shm_member *self, int from, const lks__piece *p)
{
    int size = self->group.size;
    return lks__stage_area(self, size, p) + (size_t)((from + p->use) % size) * lks__stage_part_bytes(size);
}

/** How an operation goes: stage, barrier, fetch, piece by piece. With `reduce` there is a step more: stage,
 * barrier, reduce, barrier, fetch, where the second barrier is the first one of the next piece.
 *
 * stage:  writes this member's part of the piece to its input.
 * reduce: writes this member's chunk of the piece's result.
 * fetch:  reads what this member gets of the piece from inputs or results.
 */
typedef void lks__stage_fn(lks__shm_member *self, const lks_operation *operation, const lks__piece *p);

typedef struct lks__algorithm {
    bool in_rows;                          /* a piece is a part of every row */
    lks__stage_fn *stage, *reduce, *fetch; /* NULL: nothing to do */
} lks__algorithm;

/** What a member offers at the first barrier of a reduction in pieces: where its input lies in the file, if
 * the others can read it there, and whether the result goes to the same place. 0: it will be staged. */
uint64_t lks__shm_place_offer(const lks__shm_member *self, const lks_operation *operation);

/** After that barrier. Returns: LKS_OK; LKS_IN_PROGRESS: the data of all have been replaced by the result,
 * but for what others do of it before the next barrier; or a failure of the group. */
lks_status lks__shm_reduce_in_place(lks__shm_member *self, const lks_operation *operation) LKS_MUST_USE;

/** The one for this operation: a function of what is equal on all members only. */
const lks__algorithm *lks__shm_algorithm(const lks__shm_member *self, const lks_operation *operation);

#endif
