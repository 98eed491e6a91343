/* SPDX-License-Identifier: Apache-2.0 */
#include <lockstep/optimizer.h>
#include <math.h>
#include <stddef.h>

#include "base/error.h"
#include "optim/update.h"

/* torch.optim's defaults. */
static const lks_optimizer_config default_configs[] = {
    [LKS_SGD] = {.kind = LKS_SGD, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8},
    [LKS_ADAM] = {.kind = LKS_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8},
    [LKS_ADAMW] = {.kind = LKS_ADAMW, .weight_decay = 0.01, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8},
};

lks_optimizer_config lks_optimizer_config_default(lks_optimizer_kind kind)
{
    return default_configs[kind];
}

static bool in_unit_interval(double x)
{
    return x >= 0.0 && x < 1.0;
}

static bool not_negative(double x)
{
    return x >= 0.0 && isfinite(x);
}

static bool positive(double x)
{
    return x > 0.0 && isfinite(x);
}

enum { FOR_SGD = 1 << LKS_SGD, FOR_ADAM = 1 << LKS_ADAM | 1 << LKS_ADAMW, FOR_ALL = FOR_SGD | FOR_ADAM };

static const struct {
    const char *name;
    size_t offset;
    int kinds; /* those that use the field; others ignore it */
    bool (*allowed)(double);
    const char *range;
} fields[] = {
    {"momentum", offsetof(lks_optimizer_config, momentum), FOR_SGD, in_unit_interval, "0 <= momentum < 1"},
    {"weight_decay", offsetof(lks_optimizer_config, weight_decay), FOR_ALL, not_negative,
     "weight_decay >= 0"},
    {"beta1", offsetof(lks_optimizer_config, beta1), FOR_ADAM, in_unit_interval, "0 <= beta1 < 1"},
    {"beta2", offsetof(lks_optimizer_config, beta2), FOR_ADAM, in_unit_interval, "0 <= beta2 < 1"},
    {"epsilon", offsetof(lks_optimizer_config, epsilon), FOR_ADAM, positive, "epsilon > 0"},
};

lks_status lks_optimizer_config_check(const lks_optimizer_config *config)
{
    if ((unsigned)config->kind >= sizeof default_configs / sizeof default_configs[0])
        return lks__fail(LKS_E_ARG, "optimizer kind %d; allowed: sgd, adam, adamw", (int)config->kind);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        double value = *(const double *)((const char *)config + fields[i].offset);
        if ((fields[i].kinds & 1 << config->kind) && !fields[i].allowed(value))
            return lks__fail(LKS_E_ARG, "optimizer.%s is %g; allowed: %s", fields[i].name, value,
                             fields[i].range);
    }
    if (config->kind == LKS_SGD && config->nesterov && config->momentum == 0.0)
        return lks__fail(LKS_E_ARG, "optimizer.nesterov needs optimizer.momentum > 0");
    return LKS_OK;
}

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
