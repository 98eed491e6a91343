/* SPDX-License-Identifier: Apache-2.0 */
/* The loops. Formulas and order of operations are those of PyTorch's single-tensor implementations
 * (torch/optim/sgd.py, adam.py: _single_tensor_sgd, _single_tensor_adam), with dampening 0. They differ from
 * it by rounding only: PyTorch's kernels fuse some multiplications with additions, these never do.
 *
 * Without weight decay the term is left out, as PyTorch does: 0 * w is no number for an infinite w. A first
 * momentum buffer of zeros is PyTorch's "first buffer = first gradient". */
#include <math.h>
#include <stdbool.h>

#include "optim/update.h"

#define SLICES                                                                                               \
    const lks__optim_step *restrict s, int64_t n, const float *restrict grad_sum, float *restrict w,         \
        float *restrict state0, float *restrict state1
#define STEP_PARAMS (SLICES)
#define STEP_ARGS   (s, n, grad_sum, w, state0, state1)
#define LOOP_PARAMS (bool decays, SLICES)

LKS__SIMD_BODY float gradient(bool decays, const lks__optim_step *s, float grad_sum, float w)
{
    float g = s->grad_scale * grad_sum;
    return decays ? g + s->weight_decay * w : g;
}

LKS__SIMD_BODY void sgd_loop LOOP_PARAMS
{
    (void)state0, (void)state1;
    const lks__optim_step c = *s;
    for (int64_t i = 0; i < n; i++)
        w[i] = w[i] - c.lr * gradient(decays, &c, grad_sum[i], w[i]);
}

LKS__SIMD_BODY void momentum_loop LOOP_PARAMS
{
    (void)state1;
    const lks__optim_step c = *s;
    for (int64_t i = 0; i < n; i++) {
        float buffer = c.momentum * state0[i] + gradient(decays, &c, grad_sum[i], w[i]);
        state0[i] = buffer;
        w[i] = w[i] - c.lr * buffer;
    }
}

LKS__SIMD_BODY void nesterov_loop LOOP_PARAMS
{
    (void)state1;
    const lks__optim_step c = *s;
    for (int64_t i = 0; i < n; i++) {
        float g = gradient(decays, &c, grad_sum[i], w[i]);
        float buffer = c.momentum * state0[i] + g;
        state0[i] = buffer;
        w[i] = w[i] - c.lr * (g + c.momentum * buffer);
    }
}

/* The denominator divides by sqrt(1 - beta2^t) as PyTorch does, instead of multiplying by the inverse: one
 * rounding less to differ by, and the division hides behind seven memory streams. */
LKS__SIMD_BODY void adam_loop LOOP_PARAMS
{
    const lks__optim_step c = *s;
    for (int64_t i = 0; i < n; i++) {
        float g = gradient(decays, &c, grad_sum[i], w[i]);
        float exp_avg = (c.lerp_from_grad ? g : state0[i]) + c.lerp_weight * (g - state0[i]);
        float exp_avg_sq = c.beta2 * state1[i] + c.one_minus_beta2 * g * g;
        float denominator = sqrtf(exp_avg_sq) / c.bias_correction2_sqrt + c.epsilon;
        state0[i] = exp_avg;
        state1[i] = exp_avg_sq;
        w[i] = c.decay_factor * w[i] - c.step_size * exp_avg / denominator;
    }
}

/* The test stands outside the loops: as a select within, momentum took 1.6 times as long on cached data. */
#define LOOPS(name)                                                                                          \
    LKS__SIMD_BODY void name##_body STEP_PARAMS                                                              \
    {                                                                                                        \
        if (s->weight_decay != 0.0f)                                                                         \
            name##_loop(true, s, n, grad_sum, w, state0, state1);                                            \
        else                                                                                                 \
            name##_loop(false, s, n, grad_sum, w, state0, state1);                                           \
    }                                                                                                        \
    LKS__SIMD_VERSIONS(name, void, STEP_PARAMS, STEP_ARGS)

LOOPS(sgd)
LOOPS(momentum)
LOOPS(nesterov)
LOOPS(adam)

static void(*const loops[LKS__RULES][LKS__SIMD_LEVELS]) STEP_PARAMS = {
    [LKS__RULE_SGD] = LKS__SIMD_TABLE(sgd),
    [LKS__RULE_MOMENTUM] = LKS__SIMD_TABLE(momentum),
    [LKS__RULE_NESTEROV] = LKS__SIMD_TABLE(nesterov),
    [LKS__RULE_ADAM] = LKS__SIMD_TABLE(adam),
};

void lks__optim_update(const lks__optim_step *step, int64_t n, const float *grad_sum, float *w,
                       float *const states[LKS__OPTIM_MAX_STATES])
{
    loops[step->rule][step->simd](step, n, grad_sum, w, states[0], states[1]);
}
