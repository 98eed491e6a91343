/* SPDX-License-Identifier: Apache-2.0 */
#include "optim/update.h"

#include <float.h>
#include <math.h>
#include <stddef.h>

static lks__optim_rule rule_of(const lks_optimizer_config *config)
{
    switch (config->kind) {
    case LKS_ADAM:
    case LKS_ADAMW:
        return LKS__RULE_ADAM;
    case LKS_LARS:
        return LKS__RULE_LARS;
    case LKS_LAMB:
        return LKS__RULE_LAMB;
    case LKS_SGD:
        break;
    }
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
    [LKS__RULE_LARS] = {1, {"momentum_buffer", NULL}},
    [LKS__RULE_LAMB] = {2, {"exp_avg", "exp_avg_sq"}},
};

int lks__optim_n_states(const lks_optimizer_config *config)
{
    return rules[rule_of(config)].n_states;
}

const char *lks__optim_state_name(const lks_optimizer_config *config, int index)
{
    return rules[rule_of(config)].state_names[index];
}

bool lks__optim_needs_norms(const lks_optimizer_config *config)
{
    return config->kind == LKS_LARS;
}

bool lks__optim_has_direction(const lks_optimizer_config *config)
{
    return config->kind == LKS_LAMB;
}

bool lks__optim_excludes(const lks_optimizer_config *config, int n_dims)
{
    return config->exclude_biases && n_dims < 2;
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
    double adam_rate = config->kind == LKS_LAMB ? 1.0 : lr;
    lks__optim_step made = {
        .rule = rule_of(config),
        .simd = lks__simd_best(),
        .rate = lr,
        .grad_scale = (float)grad_scale,
        .weight_decay = decoupled ? 0.0f : (float)config->weight_decay,
        .lr = (float)lr,
        .momentum = (float)config->momentum,
        .trust = 1.0f,
        .decay_factor = decoupled ? (float)(1.0 - lr * config->weight_decay) : 1.0f,
        .beta2 = (float)config->beta2,
        .one_minus_beta2 = (float)(1.0 - config->beta2),
        .step_size = (float)(adam_rate / (1.0 - pow(config->beta1, (double)step))),
        .bias_correction2_sqrt = (float)sqrt(1.0 - pow(config->beta2, (double)step)),
        .epsilon = (float)config->epsilon,
    };
    set_lerp(&made, config->beta1);
    return made;
}

/* numerator / denominator of two norms; 1 where a norm is 0, as both papers' programs have it: there is no
 * size that the update could be given. A norm that is not finite makes no finite ratio: that is for the step
 * to notice. */
static double trust_ratio(const lks_optimizer_config *config, const lks__optim_tensor *tensor)
{
    double weights = sqrt(tensor->param_norm2), update = 0.0, coefficient = 1.0;
    if (config->kind == LKS_LARS) {
        double gradient = sqrt(tensor->grad_norm2);
        update = gradient == 0.0 ? 0.0 : gradient + config->weight_decay * weights;
        coefficient = config->trust_coefficient;
    } else if (config->kind == LKS_LAMB) {
        update = sqrt(tensor->direction_norm2);
    }
    return weights == 0.0 || update == 0.0 ? 1.0 : coefficient * weights / update;
}

/* Ratios end at the largest float: the gradient that they are to be multiplied with is as small as they are
 * large. NaN stays NaN. */
static float to_float(double x)
{
    return x > (double)FLT_MAX ? FLT_MAX : (float)x;
}

lks__optim_step lks__optim_step_for(const lks__optim_step *step, const lks_optimizer_config *config,
                                    const lks__optim_tensor *tensor)
{
    lks__optim_step made = *step;
    if (tensor->excluded) {
        made.weight_decay = 0.0f;
        made.decay_factor = 1.0f;
        return made;
    }
    double trust = trust_ratio(config, tensor);
    made.trust = to_float(trust);
    if (config->kind == LKS_LAMB)
        made.lr = to_float(step->rate * trust);
    return made;
}
