/* SPDX-License-Identifier: Apache-2.0 */
/** The arithmetic of an epoch and its tail: one for the plan, which counts, and the sampler, which hands out.
 */
#ifndef LKS_PLAN_EPOCH_H
#define LKS_PLAN_EPOCH_H

#include <lockstep/plan.h>

typedef struct lks__epoch {
    int64_t offset; /* of its first position in the epoch's order; 0 unless a run goes on here */
    int64_t
        positions; /* n_samples; rounded down to whole steps (drop) or up to a multiple of the world (pad) */
    int64_t steps; /* ceil(positions / global batch); 0 when drop leaves nothing */
    int64_t last_step_samples; /* 1 .. global batch; 0 without a step */
} lks__epoch;

/** All counts >= 1, and n_samples + world no more than 2^63 - 1. Pure. */
lks__epoch lks__epoch_make(int64_t n_samples, int64_t world, int64_t global_batch, lks_tail tail);

/** The epochs of a run from its origin on (lks_plan_origin). */
typedef struct lks__epochs {
    lks__epoch whole;    /* after the origin's */
    lks__epoch first;    /* what is left of the origin's; the same as whole in a run that begins */
    int64_t first_epoch; /* the origin's, 0-based */
} lks__epochs;

/** As lks__epoch_make; 0 <= origin_offset < n_samples. Pure. */
lks__epochs lks__epochs_make(int64_t n_samples, int64_t world, int64_t global_batch, lks_tail tail,
                             int64_t origin_epoch, int64_t origin_offset);

/** Those of a plan. Pure. */
lks__epochs lks__plan_epochs(const lks_plan *plan);

/** One of them; all zeros before the origin. Pure. */
lks__epoch lks__epochs_at(const lks__epochs *epochs, int64_t epoch);

/** The epoch (0-based) in which a plan's run is when it has seen so many samples; at an epoch's end: the next
 * one. Before the origin, where another plan held, it is reckoned by this one's epochs. Pure. */
int64_t lks__plan_epoch_at(const lks_plan *plan, int64_t samples_seen);

/** Steps and samples of a plan's run before that step of an epoch, which is the origin's or later. Pure. */
int64_t lks__plan_steps_before(const lks_plan *plan, int64_t epoch, int64_t step);
int64_t lks__plan_samples_before(const lks_plan *plan, int64_t epoch, int64_t step);

/** No step of a plan's run is in a later epoch; for a run whose gain is measured an upper bound. Pure. */
int64_t lks__plan_last_epoch(const lks_plan *plan);

/** The epochs that are over then, with the part of the last one. Pure. */
double lks__plan_epochs_after(const lks_plan *plan, int64_t samples_seen);

/** Stages of lks_plan_create: what an epoch is, and how long the run. Returns: LKS_OK; LKS_E_ARG. */
lks_status lks__plan_epoch(const lks_plan_config *config, lks_plan *plan) LKS_MUST_USE;
lks_status lks__plan_length(const lks_plan_config *config, lks_plan *plan) LKS_MUST_USE;

/** *out = a * b, if that is no larger than LKS__INT_LIMIT. Both >= 0. */
bool lks__multiply(int64_t a, int64_t b, int64_t *out);

/** ceil(a / b); a >= 0, b >= 1. */
static inline int64_t lks__divide_up(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

#endif
