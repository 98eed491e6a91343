/* SPDX-License-Identifier: Apache-2.0 */
/* The loops. Formulas and order of operations are those of PyTorch's single-tensor implementations
 * (torch/optim/sgd.py, adam.py: _single_tensor_sgd, _single_tensor_adam), with dampening 0. They differ from
 * it by rounding only: PyTorch's kernels fuse some multiplications with additions, these never do. lars and
 * lamb are the papers' (arXiv 1708.03888, algorithm 1; 1904.00962, algorithm 2, with both bias corrections).
 *
 * The learning rate of lars stands outside the momentum buffer, u = m u + trust (g + d w); w -= lr u. The
 * paper has it inside, v = m v + lr trust (g + d w); w -= v, which is the same while lr stays. When lr
 * changes, v has steps of the old rate in it, which Goyal et al. (2017, section 2.1) correct by scaling v by
 * new rate / old rate: then v = lr u at all times. So this form is the paper's with that correction built in.
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

LKS__SIMD_BODY void lars_loop LOOP_PARAMS
{
    (void)state1;
    const lks__optim_step c = *s;
    for (int64_t i = 0; i < n; i++) {
        float buffer = c.momentum * state0[i] + c.trust * gradient(decays, &c, grad_sum[i], w[i]);
        state0[i] = buffer;
        w[i] = w[i] - c.lr * buffer;
    }
}

/* Adam's direction times step_size; brings both averages up to date.
 *
 * The denominator divides by sqrt(1 - beta2^t) as PyTorch does, instead of multiplying by the inverse: one
 * rounding less to differ by, and the division hides behind seven memory streams. */
LKS__SIMD_BODY float adam_direction(const lks__optim_step *c, float g, float *exp_avg, float *exp_avg_sq)
{
    float average = (c->lerp_from_grad ? g : *exp_avg) + c->lerp_weight * (g - *exp_avg);
    float average_sq = c->beta2 * *exp_avg_sq + c->one_minus_beta2 * g * g;
    float denominator = sqrtf(average_sq) / c->bias_correction2_sqrt + c->epsilon;
    *exp_avg = average;
    *exp_avg_sq = average_sq;
    return c->step_size * average / denominator;
}

LKS__SIMD_BODY void adam_loop LOOP_PARAMS
{
    const lks__optim_step c = *s;
    for (int64_t i = 0; i < n; i++) {
        float g = gradient(decays, &c, grad_sum[i], w[i]);
        w[i] = c.decay_factor * w[i] - adam_direction(&c, g, &state0[i], &state1[i]);
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
LOOPS(lars)

static void(*const loops[LKS__RULES][LKS__SIMD_LEVELS]) STEP_PARAMS = {
    [LKS__RULE_SGD] = LKS__SIMD_TABLE(sgd),           [LKS__RULE_MOMENTUM] = LKS__SIMD_TABLE(momentum),
    [LKS__RULE_NESTEROV] = LKS__SIMD_TABLE(nesterov), [LKS__RULE_ADAM] = LKS__SIMD_TABLE(adam),
    [LKS__RULE_LARS] = LKS__SIMD_TABLE(lars),
};

void lks__optim_update(const lks__optim_step *step, int64_t n, const float *grad_sum, float *w,
                       float *const states[LKS__OPTIM_MAX_STATES])
{
    loops[step->rule][step->simd](step, n, grad_sum, w, states[0], states[1]);
}

#define DIRECTION_SLICES                                                                                     \
    const lks__optim_step *restrict s, int64_t n, float *restrict grad, const float *restrict w,             \
        float *restrict state0, float *restrict state1
#define DIRECTION_PARAMS (DIRECTION_SLICES)
#define DIRECTION_ARGS   (s, n, grad, w, state0, state1)

LKS__SIMD_BODY void direction_loop(bool decays, DIRECTION_SLICES)
{
    const lks__optim_step c = *s;
    for (int64_t i = 0; i < n; i++) {
        float direction = adam_direction(&c, c.grad_scale * grad[i], &state0[i], &state1[i]);
        grad[i] = decays ? direction + c.weight_decay * w[i] : direction;
    }
}

LKS__SIMD_BODY void direction_body DIRECTION_PARAMS
{
    if (s->weight_decay != 0.0f)
        direction_loop(true, s, n, grad, w, state0, state1);
    else
        direction_loop(false, s, n, grad, w, state0, state1);
}

LKS__SIMD_VERSIONS(direction, void, DIRECTION_PARAMS, DIRECTION_ARGS)

static void(*const direction_loops[LKS__SIMD_LEVELS]) DIRECTION_PARAMS = LKS__SIMD_TABLE(direction);

void lks__optim_direction(const lks__optim_step *step, int64_t n, float *grad, const float *w,
                          float *const states[LKS__OPTIM_MAX_STATES])
{
    direction_loops[step->simd](step, n, grad, w, states[0], states[1]);
}

#define APPLY_PARAMS (float lr, int64_t n, const float *restrict direction, float *restrict w)

LKS__SIMD_BODY void apply_body APPLY_PARAMS
{
    for (int64_t i = 0; i < n; i++)
        w[i] = w[i] - lr * direction[i];
}

LKS__SIMD_VERSIONS(apply, void, APPLY_PARAMS, (lr, n, direction, w))

static void(*const apply_loops[LKS__SIMD_LEVELS]) APPLY_PARAMS = LKS__SIMD_TABLE(apply);

void lks__optim_apply(const lks__optim_step *step, int64_t n, const float *direction, float *w)
{
    apply_loops[step->simd](step->lr, n, direction, w);
}
