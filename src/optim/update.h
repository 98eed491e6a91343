/* SPDX-License-Identifier: Apache-2.0 */
/** Optimizer updates on slices of the arenas. Element by element: a result does not depend on where a slice
 * starts, how long it is, or which vector width does it. */
#ifndef LKS_OPTIM_UPDATE_H
#define LKS_OPTIM_UPDATE_H

#include <stdint.h>

#include <lockstep/optimizer.h>

enum { LKS__OPTIM_MAX_STATES = 2 };

/** State values per parameter: sgd 0 or 1 (momentum), adam and adamw 2. */
int lks__optim_n_states(const lks_optimizer_config *config);

/** PyTorch's name of a state: "momentum_buffer", "exp_avg", "exp_avg_sq". Static storage. */
const char *lks__optim_state_name(const lks_optimizer_config *config, int index);

/** The constants of one step; computed once per step, in double, and rounded once. */
typedef struct lks__optim_step {
    lks_optimizer_kind kind;
    int nesterov;
    float grad_scale; /* g = grad_scale * gradient sum */
    float lr, weight_decay, momentum;
    float beta1, beta2, one_minus_beta1, one_minus_beta2, epsilon;
    float step_size;    /* adam: lr / (1 - beta1^t) */
    float denom_scale;  /* adam: 1 / sqrt(1 - beta2^t) */
    float decay_factor; /* adamw: 1 - lr * weight_decay */
} lks__optim_step;

/** step: 1 for the first. grad_scale: 1/count for a mean over `count` samples. Pure. */
lks__optim_step lks__optim_step_make(const lks_optimizer_config *config, double lr, int64_t step,
                                     double grad_scale);

/** w, states and grad_sum: [n]. States that the kind does not use may be NULL. All slices 4-byte aligned,
 * none overlap. */
void lks__optim_update(const lks__optim_step *step, int64_t n, const float *grad_sum, float *w,
                       float *const states[LKS__OPTIM_MAX_STATES]);

/** Sum of squares of (scale * x) over n <= 4096 elements, in double, in a fixed order of additions that does
 * not depend on vector width: the block of docs/numerics.md. */
double lks__block_norm2(const float *x, int64_t n, float scale);

#endif
