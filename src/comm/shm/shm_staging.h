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
} lks__piece;

/** The bytes of a half that belong to one row, when it holds a part of each of `size` rows: whole cache
 * lines. */
static inline size_t lks__stage_row_bytes(int size)
{
    return LKS__STAGE_BYTES / (size_t)size / 64 * 64;
}

_Static_assert(LKS__STAGE_BYTES / LKS_GROUP_MAX_SIZE >= 64, "every row has a part of a half");

static inline char *lks__stage_input(const lks__shm_member *self, int rank, int half)
{
    return (char *)self->control + lks__shm_staging_at(self->group.size) +
           (size_t)(rank * LKS__STAGE_HALVES + half) * LKS__STAGE_BYTES;
}

static inline char *lks__stage_result(const lks__shm_member *self, int half)
{
    return lks__stage_input(self, self->group.size, half); /* the results follow the last member's inputs */
}

/** How an operation goes: stage, barrier, fetch, piece by piece. With `reduce` there is a step more: stage,
 * barrier, reduce, barrier, fetch, where the second barrier is the first one of the next piece.
 *
 * stage:  writes this member's part of the piece to its input.
 * reduce: writes this member's chunk of the piece's result.
 * fetch:  reads what this member gets of the piece from inputs or results.
 */
typedef void lks__stage_fn(const lks__shm_member *self, const lks_operation *operation, const lks__piece *p);

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
const lks__algorithm *lks__shm_algorithm(const lks_operation *operation);

#endif
