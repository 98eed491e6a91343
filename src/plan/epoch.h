/* SPDX-License-Identifier: Apache-2.0 */
/** The arithmetic of an epoch and its tail: one for the plan, which counts, and the sampler, which hands out.
 */
#ifndef LKS_PLAN_EPOCH_H
#define LKS_PLAN_EPOCH_H

#include <lockstep/plan.h>

typedef struct lks__epoch {
    int64_t
        positions; /* n_samples; rounded down to whole steps (drop) or up to a multiple of the world (pad) */
    int64_t steps; /* ceil(positions / global batch); 0 when drop leaves nothing */
    int64_t last_step_samples; /* 1 .. global batch; 0 without a step */
} lks__epoch;

/** All counts >= 1, and n_samples + world no more than 2^63 - 1. Pure. */
lks__epoch lks__epoch_make(int64_t n_samples, int64_t world, int64_t global_batch, lks_tail tail);

/** ceil(a / b); a >= 0, b >= 1. */
static inline int64_t lks__divide_up(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

#endif
