/* SPDX-License-Identifier: Apache-2.0 */
/** The reducer: gradients of leaves -> sums over this member's leaves -> sums over all members, in tree
 * order. README.md has the structures and why the step needs no locks.
 *
 * It knows tensors as (offset, length) in an arena and nothing of layers or optimizers. One step is
 *
 *     for each own leaf:  lks__reducer_leaf() -> write the leaf's gradient there -> lks__reducer_leaf_done()
 *     lks__reducer_begin()      all leaves are done; what members tell each other is known
 *     lks__reducer_pass() ...   one or more, the last one with keeps = false
 *
 * A pass walks over this member's chunk in blocks of 4,096 elements, hands each to a callback, and waits
 * until every member has done so. The first pass adds the blocks over the members: one trip through memory,
 * no copies, for an update that needs to know nothing else. What has to be known of the whole gradient before
 * the update (its norm, say) takes a pass before it.
 *
 * In a group on several machines there is one more thing to do, whenever a tensor of the step's last own leaf
 * is written (lks__reducer_tensor_ready): the sums over all members are formed in every member's arena while
 * backward goes on, and passes, which are made within each machine, find them there.
 *
 * Thread: a reducer belongs to the thread that plays its member.
 */
#ifndef LKS_DDP_REDUCER_H
#define LKS_DDP_REDUCER_H

#include <stdbool.h>
#include <stdint.h>

#include <lockstep/group.h>
#include <lockstep/status.h>

enum { LKS__BLOCK_ELEMS = 4096, LKS__STEP_SUMS = 4, LKS__BLOCK_VALUES = 3, LKS__BUCKET_BYTES = 1 << 18 };

typedef struct lks__reducer lks__reducer;

/** One tensor's place in the arena. */
typedef struct lks__span {
    int64_t offset_elems;
    int64_t n_elems;
} lks__span;

/** Equal on all members, but for the handle. */
typedef struct lks__reducer_config {
    lks_group *group; /* borrowed until destroy */
    int64_t arena_elems;
    int n_tensors;
    const lks__span *tensors; /* in ascending order, apart from each other; copied */
    int64_t leaves;           /* m >= 1: leaves of this member per step */
    int64_t bucket_bytes;     /* gradients that travel together between machines; 0: LKS__BUCKET_BYTES */
} lks__reducer_config;

/** Allocates floor(log2 m) + 1 gradient arenas, one of them in shared memory.
 *
 * Collective. Ownership: the caller destroys *out, before the group; on failure *out is NULL.
 * Returns: LKS_OK; LKS_E_ARG; LKS_E_NOMEM; LKS_E_PEER (another member has failed); failures of the group.
 */
lks_status lks__reducer_create(const lks__reducer_config *config, lks__reducer **out) LKS_MUST_USE;
void lks__reducer_destroy(lks__reducer *reducer);

/** The arena in which the step's next leaf writes its gradient (every tensor: contents are stale). Another
 * one after each lks__reducer_leaf_done. */
float *lks__reducer_leaf(lks__reducer *reducer);

/** The gradient of a tensor of this leaf is written and final, and so are those of the tensors behind it: for
 * callers whose gradients become final one after the other, from the last to the first. It need not be called
 * for each, or at all, but then less is under way before the leaf is done. From here on the gradient may
 * change into the sum over all members. On one machine nothing happens. */
void lks__reducer_tensor_ready(lks__reducer *reducer, int tensor);

/** The leaf is written (empty: it has no samples and counts as +0.0 everywhere; nothing need be written).
 * Adds it to this member's tree. Called m times a step. */
void lks__reducer_leaf_done(lks__reducer *reducer, bool empty);

/** What members tell each other in a step, besides gradients. */
typedef struct lks__step_io {
    /* In: this member's; out: summed over members in tree order, same bits on all. The bits do not depend on
     * the number of members when each member's own value is a tree sum over its leaves (lks__tree_sum). */
    double sums[LKS__STEP_SUMS];
    int flag;          /* in: this member's; out: the largest of all */
    unsigned requests; /* in: this member's bits; out: those that any member has set */
} lks__step_io;

/** Whether the own arena holds, behind a step, the sum over the own leaves but for the own chunk; else, over
 * several machines, it is the sum over all members'. */
bool lks__reducer_keeps_own_sum(const lks__reducer *reducer);

/** Waits until every member has done its leaves, and combines what they tell.
 *
 * Collective. Returns: LKS_OK; LKS_E_INTERNAL when not all leaves are done; failures of the group's barrier
 * (io is as it was).
 */
lks_status lks__reducer_begin(lks__reducer *reducer, lks__step_io *io) LKS_MUST_USE;

/** One block of this member's chunk. */
typedef struct lks__block {
    int tensor;           /* index */
    int64_t offset_elems; /* in the arena */
    int64_t n_elems;      /* 1 .. LKS__BLOCK_ELEMS */
    float *grad;          /* [n_elems]: in the first pass the sum over all leaves, later what the pass before
                             has left there; writable, valid during the call */
} lks__block;

/** Called for each block of the chunk, in ascending order. values: zeros; set to what the block contributes
 * to its tensor's values. */
typedef void lks__block_fn(void *context, const lks__block *block, double values[LKS__BLOCK_VALUES]);

typedef struct lks__pass {
    lks__block_fn *block; /* NULL: nothing is to be done; a step that is not taken ends with such a pass */
    void *context;
    bool keeps; /* another pass follows in this step, and finds the blocks as this one leaves them */
    /* [n_tensors], each NULL or out: sums of block contributions in tree order, on all members alike */
    double *tensor_values[LKS__BLOCK_VALUES];
} lks__pass;

/** Allocates nothing. After it, what the callbacks of all members wrote to shared memory may be read; after
 * the last pass of a step the next step's leaves may be written.
 *
 * Collective. Returns: LKS_OK; LKS_E_INTERNAL outside of a step; failures of the group's barrier (callbacks
 * may have run).
 */
lks_status lks__reducer_pass(lks__reducer *reducer, const lks__pass *pass) LKS_MUST_USE;

/** Where the time of steps went, in seconds. */
typedef struct lks__reducer_times {
    double wait;   /* for other members, and for gradients that travel between machines */
    double reduce; /* adding over members; between machines it is in wait */
    double block;  /* inside the callbacks */
    /* over several machines, else 0: */
    double exchange; /* that gradients were under way, as far as this member has seen */
    double exposed;  /* of it, behind the last own leaf: what backward has not hidden; in wait as well */
} lks__reducer_times;

/** The times since the reducer was created. */
lks__reducer_times lks__reducer_get_times(const lks__reducer *reducer);

#endif
