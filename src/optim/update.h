/* SPDX-License-Identifier: Apache-2.0 */
/** Optimizer updates on slices of the arenas. Element by element: a result does not depend on where a slice
 * starts, how long it is, or which vector width does it.
 *
 * What a step does depends on the kind of optimizer (lks__optim_needs_norms, lks__optim_has_direction):
 *
 *     sgd, adam, adamw    lks__optim_step_make; for each tensor lks__optim_step_for, lks__optim_update
 *     lars                the same, and before it the norms of every tensor's gradient and weights
 *     lamb                lks__optim_direction everywhere, with the norms of what it writes and of the
 * weights; then for each tensor lks__optim_step_for and lks__optim_apply
 */
#ifndef LKS_OPTIM_UPDATE_H
#define LKS_OPTIM_UPDATE_H

#include <stdbool.h>
#include <stdint.h>

#include <lockstep/optimizer.h>

#include "base/simd.h"

enum { LKS__OPTIM_MAX_STATES = 2 };

/** State values per parameter: sgd 0 or 1 (momentum), lars 1, adam, adamw and lamb 2. */
int lks__optim_n_states(const lks_optimizer_config *config);

/** PyTorch's name of a state: "momentum_buffer", "exp_avg", "exp_avg_sq". Static storage. */
const char *lks__optim_state_name(const lks_optimizer_config *config, int index);

/** Whether the norms of gradient and weights must be known before the update (lars). */
bool lks__optim_needs_norms(const lks_optimizer_config *config);

/** Whether the update takes two passes, with the norms of direction and weights between them (lamb). */
bool lks__optim_has_direction(const lks_optimizer_config *config);

/** The loops: sgd without and with momentum, with Nesterov's, adam (adamw too), lars, and lamb's two. */
typedef enum lks__optim_rule {
    LKS__RULE_SGD,
    LKS__RULE_MOMENTUM,
    LKS__RULE_NESTEROV,
    LKS__RULE_ADAM,
    LKS__RULE_LARS,
    LKS__RULE_LAMB,
    LKS__RULES
} lks__optim_rule;

/** The constants of one step; computed once per step, in double, and rounded once. */
typedef struct lks__optim_step {
    lks__optim_rule rule;
    lks__simd simd;     /* which version of the loop: the best one; tests set others */
    double rate;        /* the learning rate as the plan has it */
    float grad_scale;   /* g = grad_scale * gradient sum */
    float weight_decay; /* g += weight_decay * w; lamb: direction += weight_decay * w; 0 for adamw */
    float lr, momentum; /* sgd, lars, lamb; lr is the rate, and for lamb rate * trust ratio */
    float trust;        /* lars: the trust ratio */
    float decay_factor; /* adamw: w *= 1 - lr * weight_decay, before anything else; adam: 1 */
    float lerp_weight;  /* adam: exp_avg = (lerp_from_grad ? g : exp_avg) + lerp_weight * (g - exp_avg) */
    int lerp_from_grad; /* as torch.lerp does when 1 - beta1 >= 1/2; lerp_weight is -beta1 then */
    float beta2, one_minus_beta2;
    float step_size;             /* adam: lr / (1 - beta1^t); lamb: 1 / (1 - beta1^t) */
    float bias_correction2_sqrt; /* adam: sqrt(1 - beta2^t), divides as in PyTorch: see update.c */
    float epsilon;
} lks__optim_step;

/** step: 1 for the first. grad_scale: 1/count for a mean over `count` samples. Pure. The constants are those
 * of a tensor that is not excluded and whose trust ratio is 1. */
lks__optim_step lks__optim_step_make(const lks_optimizer_config *config, double lr, int64_t step,
                                     double grad_scale);

/** What the update of a tensor depends on, besides its elements. Norms are squared, over the whole tensor. */
typedef struct lks__optim_tensor {
    bool excluded;          /* lks__optim_excludes */
    double grad_norm2;      /* lars: of the gradient as it enters the update: scaled, and clipped */
    double param_norm2;     /* lars, lamb: of the weights before the update */
    double direction_norm2; /* lamb: of what lks__optim_direction has written */
} lks__optim_tensor;

/** Whether a tensor of so many dimensions gets neither weight decay nor a trust ratio. */
bool lks__optim_excludes(const lks_optimizer_config *config, int n_dims);

/** The constants of a step for one tensor. Pure. */
lks__optim_step lks__optim_step_for(const lks__optim_step *step, const lks_optimizer_config *config,
                                    const lks__optim_tensor *tensor);

/** All kinds but those that have a direction. w, states and grad_sum: [n]. States that the kind does not use
 * may be NULL. All slices 4-byte aligned, none overlap. */
void lks__optim_update(const lks__optim_step *step, int64_t n, const float *grad_sum, float *w,
                       float *const states[LKS__OPTIM_MAX_STATES]);

/** First pass of a kind that has a direction: brings the states up to date, and replaces the gradient sum by
 * the direction. `step` is that of the tensor, for its weight decay; its norms need not be known. Slices as
 * those of lks__optim_update. */
void lks__optim_direction(const lks__optim_step *step, int64_t n, float *grad, const float *w,
                          float *const states[LKS__OPTIM_MAX_STATES]);

/** Second pass: w -= lr * direction. `step` is that of the tensor, made when its norms were known. */
void lks__optim_apply(const lks__optim_step *step, int64_t n, const float *direction, float *w);

/** grad[i] = scale * grad[i], but not below -limit and not above limit > 0. NaN stays NaN, as with
 * torch.clamp. */
void lks__clip_value(int64_t n, float *grad, float scale, float limit);

/** Sum of squares of (scale * x), rounded to float as g is, over n <= 4096 elements, in double, in a fixed
 * order of additions that does not depend on vector width: the block of docs/numerics.md. */
double lks__block_norm2(const float *x, int64_t n, float scale);

/** Whether no element is infinite or NaN. */
bool lks__block_is_finite(const float *x, int64_t n);

/** Versions by level. For tests. */
extern double (*const lks__block_norm2_versions[LKS__SIMD_LEVELS])(const float *x, int64_t n, float scale);
extern void (*const lks__clip_value_versions[LKS__SIMD_LEVELS])(int64_t n, float *grad, float scale,
                                                                float limit);

#endif
