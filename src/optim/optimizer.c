/* SPDX-License-Identifier: Apache-2.0 */
#include "optim/update.h"

#include <math.h>
#include <stddef.h>

static lks__optim_rule rule_of(const lks_optimizer_config *config)
{
    if (config->kind != LKS_SGD)
        return LKS__RULE_ADAM;
    if (config->momentum == 0.0)
        return LKS__RULE_SGD;
    return config->nesterov ? LKS__RULE_NESTEROV : LKS__RULE_MOMENTUM;
}

static const struct {
    int n_states;
    const char *state_names[LKS__OPTIM_MAX_STATES];
} rules[LKS__RULES] = {
    [LKS__RULE_SGD] = {0, {NULL, NULL}},
    [LKS__RULE_MOMENTUM] = {1, {"momentum_buffer", NULL}},
    [LKS__RULE_NESTEROV] = {1, {"momentum_buffer", NULL}},
    [LKS__RULE_ADAM] = {2, {"exp_avg", "exp_avg_sq"}},
};

int lks__optim_n_states(const lks_optimizer_config *config)
{
    return rules[rule_of(config)].n_states;
}

const char *lks__optim_state_name(const lks_optimizer_config *config, int index)
{
    return rules[rule_of(config)].state_names[index];
}

/* What torch.lerp(exp_avg, g, 1 - beta1) does: it starts from the nearer end. */
static void set_lerp(lks__optim_step *step, double beta1)
{
    float weight = (float)(1.0 - beta1);
    step->lerp_from_grad = weight >= 0.5f;
    step->lerp_weight = step->lerp_from_grad ? -(1.0f - weight) : weight;
}

lks__optim_step lks__optim_step_make(const lks_optimizer_config *config, double lr, int64_t step,
                                     double grad_scale)
{
    bool decoupled = config->kind == LKS_ADAMW;
    lks__optim_step made = {
        .rule = rule_of(config),
        .simd = lks__simd_best(),
        .grad_scale = (float)grad_scale,
        .weight_decay = decoupled ? 0.0f : (float)config->weight_decay,
        .lr = (float)lr,
        .momentum = (float)config->momentum,
        .decay_factor = decoupled ? (float)(1.0 - lr * config->weight_decay) : 1.0f,
        .beta2 = (float)config->beta2,
        .one_minus_beta2 = (float)(1.0 - config->beta2),
        .step_size = (float)(lr / (1.0 - pow(config->beta1, (double)step))),
        .bias_correction2_sqrt = (float)sqrt(1.0 - pow(config->beta2, (double)step)),
        .epsilon = (float)config->epsilon,
    };
    set_lerp(&made, config->beta1);
    return made;
}
