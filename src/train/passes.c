/* SPDX-License-Identifier: Apache-2.0 */
/* The passes of a step over its reduced gradient (ddp/reducer.h). An update that needs to know nothing of the
 * whole gradient is one pass. Where it does (clipping, trust ratios, the gain of adascale, or the promise to
 * update only when all is finite), a pass before it measures, and all members decide the same from the same
 * numbers. Lamb's update takes two: its direction, whose norm is wanted, and the step along it. */
#include <math.h>

#include "base/error.h"
#include "base/tree.h"
#include "train/trainer.h"

/* What a pass walks with. */
typedef struct walk {
    lks_trainer *trainer;
    float scale; /* times this, blocks are the step's gradient */
    bool clips;  /* this pass brings the gradient's elements into range, which also scales them */
    bool wants_grad_norm, wants_param_norm;
} walk;

static const float *params_of(const walk *w, const lks__block *block)
{
    return w->trainer->params + block->offset_elems;
}

/* What the step's first pass does with a block, whichever it is. A gradient whose norm nobody wants is looked
 * at all the same: its value is NaN when it is not finite. */
static void take_block(walk *w, const lks__block *block, double values[LKS__BLOCK_VALUES])
{
    float scale = w->scale;
    if (w->clips) {
        if (lks__block_is_finite(block->grad, block->n_elems)) /* infinity is no large value to be clipped */
            lks__clip_value(block->n_elems, block->grad, scale, (float)w->trainer->config.clip_value);
        scale = 1.0f;
    }
    if (w->wants_grad_norm)
        values[LKS__GRAD_NORM2] = lks__block_norm2(block->grad, block->n_elems, scale);
    else if (!lks__block_is_finite(block->grad, block->n_elems))
        values[LKS__GRAD_NORM2] = NAN;
    if (w->wants_param_norm)
        values[LKS__PARAM_NORM2] = lks__block_norm2(params_of(w, block), block->n_elems, 1.0f);
}

static void measure_block(void *context, const lks__block *block, double values[LKS__BLOCK_VALUES])
{
    take_block(context, block, values);
}

static void get_states(const lks_trainer *t, const lks__block *block, float *states[LKS__OPTIM_MAX_STATES])
{
    for (int s = 0; s < LKS__OPTIM_MAX_STATES; s++)
        states[s] = t->states[s] != NULL ? t->states[s] + block->offset_elems : NULL;
}

static void update_block(void *context, const lks__block *block, double values[LKS__BLOCK_VALUES])
{
    const walk *w = context;
    lks_trainer *t = w->trainer;
    float *states[LKS__OPTIM_MAX_STATES];
    get_states(t, block, states);
    lks__optim_update(&t->tensor_steps[block->tensor], block->n_elems, block->grad,
                      t->params + block->offset_elems, states);
    (void)values;
}

static void take_and_update_block(void *context, const lks__block *block, double values[LKS__BLOCK_VALUES])
{
    take_block(context, block, values);
    update_block(context, block, values);
}

static void direct_block(void *context, const lks__block *block, double values[LKS__BLOCK_VALUES])
{
    const walk *w = context;
    lks_trainer *t = w->trainer;
    float *states[LKS__OPTIM_MAX_STATES];
    get_states(t, block, states);
    values[LKS__PARAM_NORM2] = lks__block_norm2(params_of(w, block), block->n_elems, 1.0f);
    lks__optim_direction(&t->tensor_steps[block->tensor], block->n_elems, block->grad, params_of(w, block),
                         states);
    values[LKS__DIRECTION_NORM2] = lks__block_norm2(block->grad, block->n_elems, 1.0f);
}

static void apply_block(void *context, const lks__block *block, double values[LKS__BLOCK_VALUES])
{
    const walk *w = context;
    lks_trainer *t = w->trainer;
    lks__optim_apply(&t->tensor_steps[block->tensor], block->n_elems, block->grad,
                     t->params + block->offset_elems);
    (void)values;
}

static lks_status run_pass(walk *w, lks__block_fn *block, bool keeps)
{
    lks_trainer *t = w->trainer;
    lks__pass pass = {.block = block, .context = w, .keeps = keeps};
    for (int k = 0; k < LKS__BLOCK_VALUES; k++)
        pass.tensor_values[k] = t->tensor_values[k];
    return lks__reducer_pass(t->reducer, &pass);
}

lks_status lks__train_no_pass(lks_trainer *t)
{
    return lks__reducer_pass(t->reducer, &(lks__pass){0});
}

static lks__trouble trouble_of(const lks_trainer *t)
{
    for (int i = 0; i < lks__network_n_params(t->network); i++)
        if (!isfinite(t->tensor_values[LKS__GRAD_NORM2][i]))
            return LKS__TROUBLE_GRADIENT;
    return LKS__TROUBLE_NONE;
}

static double sum_grad_norm2(const lks_trainer *t)
{
    return lks__tree_sum(t->tensor_values[LKS__GRAD_NORM2], lks__network_n_params(t->network));
}

static bool measures_gain(const lks_trainer *t)
{
    return t->config.plan->lr_rule == LKS_LR_ADASCALE;
}

static bool must_measure(const lks_trainer *t)
{
    const lks_optimizer_config *optimizer = &t->config.optimizer;
    return t->config.clip_norm > 0 || measures_gain(t) || lks__optim_needs_norms(optimizer) ||
           lks__optim_has_direction(optimizer) || t->config.on_divergence != LKS_DIVERGENCE_STOP;
}

/* As torch.nn.utils.clip_grad_norm_ does. */
static double clip_factor(double norm, double max_norm)
{
    double factor = max_norm / (norm + 1e-6);
    return max_norm > 0 && factor < 1.0 ? factor : 1.0;
}

/* The gain of this step, with what it has measured itself. */
static void take_gain(const lks_trainer *t, const lks__gradient *g, double norm2, lks__step_result *result)
{
    const lks_plan *plan = t->config.plan;
    double mean = g->divisor / (double)g->samples; /* 1 unless gradients are summed */
    const lks__gain_sample sample = {.samples = g->samples,
                                     .leaves = plan->leaves,
                                     .leaf_norm2s = g->leaf_norm2s,
                                     .norm2 = norm2 * mean * mean};
    lks__gain_add(&result->gain_averages, &sample);
    result->gain = lks__gain(&result->gain_averages, g->samples, plan->reference_batch);
    result->lr *= result->gain;
}

/* The optimizer's constants for every tensor. grad_scale: makes the gradient of what the blocks hold now.
 * clip: the factor by which the measured norms are to be taken. */
static void make_steps(lks_trainer *t, const lks__gradient *g, double lr, double grad_scale, double clip)
{
    const lks_optimizer_config *config = &t->config.optimizer;
    lks__optim_step step = lks__optim_step_make(config, lr, g->update, grad_scale);
    for (int i = 0; i < lks__network_n_params(t->network); i++) {
        const lks__optim_tensor tensor = {
            .excluded = lks__optim_excludes(config, lks__network_param(t->network, i)->n_dims),
            .grad_norm2 = t->tensor_values[LKS__GRAD_NORM2][i] * clip * clip,
            .param_norm2 = t->tensor_values[LKS__PARAM_NORM2][i],
            .direction_norm2 = t->tensor_values[LKS__DIRECTION_NORM2][i],
        };
        t->tensor_steps[i] = lks__optim_step_for(&step, config, &tensor);
    }
}

/* The pass that measures, and what is decided from it. *clip: the factor of clipping by norm. */
static lks_status measure(walk *w, const lks__gradient *g, double *clip, lks__step_result *result)
{
    lks_trainer *t = w->trainer;
    w->wants_grad_norm = true;
    w->wants_param_norm = lks__optim_needs_norms(&t->config.optimizer);
    lks_status status = run_pass(w, measure_block, true);
    if (status != LKS_OK)
        return status;
    double norm2 = sum_grad_norm2(t);
    result->grad_norm = sqrt(norm2);
    result->trouble = trouble_of(t);
    *clip = clip_factor(result->grad_norm, t->config.clip_norm);
    if (measures_gain(t) && result->trouble == LKS__TROUBLE_NONE)
        take_gain(t, g, norm2, result);
    return LKS_OK;
}

/* What a pass that has looked at the gradient while it used it has seen. */
static void look_back(const walk *w, lks__step_result *result)
{
    result->trouble = trouble_of(w->trainer);
    if (w->wants_grad_norm)
        result->grad_norm = sqrt(sum_grad_norm2(w->trainer));
}

/* The update in the step's only pass, which looks at the gradient while it uses it. */
static lks_status update_at_once(walk *w, const lks__gradient *g, double scale, lks__step_result *result)
{
    make_steps(w->trainer, g, result->lr, scale, 1.0);
    result->updated = true;
    lks_status status = run_pass(w, take_and_update_block, false);
    if (status == LKS_OK)
        look_back(w, result);
    return status;
}

/* The update after a pass that measures, if the gradient is one to update by. */
static lks_status measure_and_update(walk *w, const lks__gradient *g, double scale, lks__step_result *result)
{
    lks_trainer *t = w->trainer;
    double clip;
    lks_status status = measure(w, g, &clip, result);
    if (status != LKS_OK)
        return status;
    if (result->trouble != LKS__TROUBLE_NONE)
        return lks__train_no_pass(t);

    make_steps(t, g, result->lr, scale * clip, clip);
    result->updated = true;
    if (!lks__optim_has_direction(&t->config.optimizer))
        return run_pass(w, update_block, false);
    status = run_pass(w, direct_block, true);
    if (status != LKS_OK)
        return status;
    make_steps(t, g, result->lr, scale * clip, clip); /* now with the norms of the direction */
    return run_pass(w, apply_block, false);
}

lks_status lks__train_passes(lks_trainer *t, const lks__gradient *g, lks__step_result *result)
{
    walk w = {.trainer = t,
              .scale = (float)(1.0 / g->divisor),
              .clips = t->config.clip_value > 0,
              .wants_grad_norm = g->wants_norm};
    double scale = w.clips ? 1.0 : 1.0 / g->divisor; /* of what the blocks hold when they are used */
    return must_measure(t) ? measure_and_update(&w, g, scale, result) : update_at_once(&w, g, scale, result);
}
