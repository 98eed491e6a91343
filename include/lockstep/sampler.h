/* SPDX-License-Identifier: Apache-2.0 */
/** Which samples a leaf of a step uses: a pure function of seed, epoch, step and leaf.
 *
 * The order of an epoch is bit for bit torch.randperm(N, generator=manual_seed(seed + epoch)) on the CPU.
 * Leaf k of step t takes positions t*B + j*K + k, j = 0 .. b-1; with one leaf per worker that is
 * DistributedSampler's split. A run that goes on within an epoch (lks_plan_origin) takes its first step from
 * position `origin_offset` on; what is left of that epoch is like an epoch of its own, with its own tail.
 */
#ifndef LOCKSTEP_SAMPLER_H
#define LOCKSTEP_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include <lockstep/export.h>
#include <lockstep/plan.h>
#include <lockstep/status.h>

LKS_BEGIN_DECLS

typedef struct lks_sampler lks_sampler;

typedef struct lks_sampler_config {
    int64_t n_samples;   /* N: 1 .. 214,748,363 (from there on PyTorch draws 64 bits) */
    int64_t world;       /* W; pad rounds up to a multiple of it */
    int64_t local_batch; /* b */
    int64_t accumulate;  /* A */
    lks_tail tail;
    bool shuffle; /* false: the order is 0 .. N - 1 */
    int64_t seed;
    int64_t origin_epoch;  /* 0-based; earlier epochs have no steps */
    int64_t origin_offset; /* positions of that epoch that were used before; below n_samples */
} lks_sampler_config;

/** The sampler of a plan; shuffles. */
LKS_API lks_sampler_config lks_sampler_config_from_plan(const lks_plan *plan, int64_t seed);

LKS_API lks_status lks_sampler_create(const lks_sampler_config *config, lks_sampler **out) LKS_MUST_USE;
LKS_API void lks_sampler_destroy(lks_sampler *sampler);

/** Of an epoch after the origin's. */
LKS_API int64_t lks_sampler_steps_per_epoch(const lks_sampler *sampler);

/** The samples of a leaf: writes up to b indices and returns how many (0: an empty leaf, or a step past the
 * end).
 *
 * Thread: one at a time per sampler; it keeps the order of the last epoch asked for. */
LKS_API int64_t lks_sampler_leaf(lks_sampler *sampler, int64_t epoch, int64_t step, int64_t leaf,
                                 int64_t *indices);

LKS_END_DECLS

#endif
