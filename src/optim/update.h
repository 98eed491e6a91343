/* SPDX-License-Identifier: Apache-2.0 */
/** Optimizer updates on slices of the arenas. Element by element: a result does not depend on where a slice
 * starts, how long it is, or which vector width does it. */
#ifndef LKS_OPTIM_UPDATE_H
#define LKS_OPTIM_UPDATE_H

#include <stdint.h>

#include <lockstep/optimizer.h>

#include "base/simd.h"

enum { LKS__OPTIM_MAX_STATES = 2 };

/** State values per parameter: sgd 0 or 1 (momentum), adam and adamw 2. */
int lks__optim_n_states(const lks_optimizer_config *config);

/** PyTorch's name of a state: "momentum_buffer", "exp_avg", "exp_avg_sq". Static storage. */
const char *lks__optim_state_name(const lks_optimizer_config *config, int index);

/** The loops: sgd without and with momentum, with Nesterov's, and adam (adamw too). */
typedef enum lks__optim_rule {
    LKS__RULE_SGD,
    LKS__RULE_MOMENTUM,
    LKS__RULE_NESTEROV,
    LKS__RULE_ADAM,
    LKS__RULES
} lks__optim_rule;

/** The constants of one step; computed once per step, in double, and rounded once. */
typedef struct lks__optim_step {
    lks__optim_rule rule;
    lks__simd simd;     /* which version of the loop: the best one; tests set others */
    float grad_scale;   /* g = grad_scale * gradient sum */
    float weight_decay; /* g += weight_decay * w; 0 for adamw */
    float lr, momentum; /* sgd */
    float decay_factor; /* adamw: w *= 1 - lr * weight_decay, before anything else; adam: 1 */
    float lerp_weight;  /* adam: exp_avg = (lerp_from_grad ? g : exp_avg) + lerp_weight * (g - exp_avg) */
    int lerp_from_grad; /* as torch.lerp does when 1 - beta1 >= 1/2; lerp_weight is -beta1 then */
    float beta2, one_minus_beta2;
    float step_size;             /* adam: lr / (1 - beta1^t) */
    float bias_correction2_sqrt; /* adam: sqrt(1 - beta2^t), divides as in PyTorch: see update.c */
    float epsilon;
} lks__optim_step;

/** step: 1 for the first. grad_scale: 1/count for a mean over `count` samples. Pure. */
lks__optim_step lks__optim_step_make(const lks_optimizer_config *config, double lr, int64_t step,
                                     double grad_scale);

/** w, states and grad_sum: [n]. States that the kind does not use may be NULL. All slices 4-byte aligned,
 * none overlap. */
void lks__optim_update(const lks__optim_step *step, int64_t n, const float *grad_sum, float *w,
                       float *const states[LKS__OPTIM_MAX_STATES]);

/** Sum of squares of (scale * x), rounded to float as g is, over n <= 4096 elements, in double, in a fixed
 * order of additions that does not depend on vector width: the block of docs/numerics.md. */
double lks__block_norm2(const float *x, int64_t n, float scale);

/** Its versions. For tests. */
extern double (*const lks__block_norm2_versions[LKS__SIMD_LEVELS])(const float *x, int64_t n, float scale);

#endif
