/* SPDX-License-Identifier: Apache-2.0 */
/** The gain of rule adascale: how much one step of the global batch is worth, in steps of the reference
 * batch.
 *
 * Johnson, Agrawal, Gu, Guestrin, "AdaScale SGD: a user-friendly algorithm for distributed training", 2020,
 * equation 1: with the variance of a reference batch's gradient (the trace of its covariance) and the squared
 * norm of the expected gradient, averaged over steps,
 *
 *     gain = (variance + norm2) / (variance / kappa + norm2),  1 <= gain <= kappa
 */
#ifndef LKS_PLAN_GAIN_H
#define LKS_PLAN_GAIN_H

#include <stdint.h>

/** Averages over the steps so far, both times the same weight, which their ratio does not show. All zeros
 * before the first step. Stored in checkpoints as they are. */
typedef struct lks__gain_averages {
    double variance; /* of the gradient of one sample: the trace of its covariance */
    double norm2;    /* of the expected gradient, squared */
} lks__gain_averages;

/** What a step has measured. */
typedef struct lks__gain_sample {
    int64_t samples;    /* of the step */
    int64_t leaves;     /* K: a step's samples are dealt to them one by one, so some may be empty */
    double leaf_norm2s; /* sum over the leaves that have samples: squared norms of their mean gradients */
    double norm2;       /* squared norm of the step's mean gradient */
} lks__gain_sample;

/** Adds what a step has measured; nothing when fewer than two of its leaves have samples, which then tell
 * nothing about the variance. Pure but for *averages. */
void lks__gain_add(lks__gain_averages *averages, const lks__gain_sample *sample);

/** The gain of a step of `samples` samples over one of `reference_batch`; 1 when nothing is known. Pure. */
double lks__gain(const lks__gain_averages *averages, int64_t samples, int64_t reference_batch);

/** The gradient noise scale in samples, variance / norm2 (McCandlish et al. 2018, equation 2.9): far below it
 * a larger batch is nearly as good as more steps, far above it hardly better than a smaller one. Infinite or
 * NaN when the averages do not tell. Pure. */
static inline double lks__noise_scale(const lks__gain_averages *averages)
{
    return averages->variance / averages->norm2;
}

#endif
