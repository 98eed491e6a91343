/* SPDX-License-Identifier: Apache-2.0 */
/** Stages 4 and 5 of a plan: an epoch, and the run from its origin to its end. */
#include "base/error.h"
#include "base/text.h"
#include "conf/options.h"
#include "plan/epoch.h"

typedef long long ll; /* what %lld wants */

bool lks__multiply(int64_t a, int64_t b, int64_t *out)
{
    int64_t product;
    if (__builtin_mul_overflow(a, b, &product) || product > LKS__INT_LIMIT)
        return false;
    *out = product;
    return true;
}

lks_status lks__plan_epoch(const lks_plan_config *c, lks_plan *plan)
{
    (void)c;
    lks__epoch epoch = lks__epoch_make(plan->n_samples, plan->world, plan->global_batch, plan->tail);
    if (epoch.steps == 0)
        return lks__fail(LKS_E_ARG,
                         "no step would be taken: tail drop keeps whole steps only, and the effective batch "
                         "%lld is more than the training set has samples (%lld)",
                         (ll)plan->global_batch, (ll)plan->n_samples);
    plan->samples_per_epoch = epoch.positions;
    plan->steps_per_epoch = epoch.steps;
    plan->last_step_samples = epoch.last_step_samples;
    return LKS_OK;
}

static lks_status run_too_long(int64_t length, const char *unit)
{
    return lks__fail(LKS_E_ARG, "%lld %s are too many: the run would have more than %lld samples", (ll)length,
                     unit, (ll)LKS__INT_LIMIT);
}

static lks_status run_too_short(int64_t length, const char *unit, const lks_plan *plan)
{
    const lks_plan_origin *o = &plan->origin;
    return lks__fail(LKS_E_ARG,
                     "a run of %lld %s would be over: it has taken %lld step%s and seen %lld sample%s, and "
                     "goes on at position %lld of epoch %lld",
                     (ll)length, unit, (ll)o->step, lks__plural(o->step), (ll)o->samples,
                     lks__plural(o->samples), (ll)o->offset, (ll)o->epoch + 1);
}

static lks_status run_of_epochs(int64_t n_epochs, lks_plan *plan)
{
    lks__epochs epochs = lks__plan_epochs(plan);
    int64_t later = n_epochs - epochs.first_epoch - 1, samples;
    if (later < 0 || (later == 0 && epochs.first.steps == 0))
        return run_too_short(n_epochs, "epochs", plan);
    if (!lks__multiply(later, epochs.whole.positions, &samples))
        return run_too_long(n_epochs, "epochs");
    plan->samples = plan->origin.samples + epochs.first.positions + samples;
    plan->total_steps = plan->origin.step + epochs.first.steps + later * epochs.whole.steps;
    return LKS_OK;
}

static lks_status run_of_steps(int64_t n_steps, lks_plan *plan)
{
    lks__epochs epochs = lks__plan_epochs(plan);
    int64_t left = n_steps - plan->origin.step, later, samples;
    if (left <= 0)
        return run_too_short(n_steps, "steps", plan);
    plan->total_steps = n_steps;
    plan->samples = plan->origin.samples;
    if (left < epochs.first.steps) { /* an epoch's last step is its only short one */
        plan->samples += left * plan->global_batch;
        return LKS_OK;
    }
    later = left - epochs.first.steps;
    if (!lks__multiply(later / epochs.whole.steps, epochs.whole.positions, &samples))
        return run_too_long(n_steps, "steps");
    plan->samples += epochs.first.positions + samples + later % epochs.whole.steps * plan->global_batch;
    return LKS_OK;
}

static lks_status run_of_samples(int64_t n_samples, lks_plan *plan)
{
    lks__epochs epochs = lks__plan_epochs(plan);
    int64_t left = n_samples - plan->origin.samples, later = left - epochs.first.positions;
    if (left <= 0)
        return run_too_short(n_samples, "samples", plan);
    int64_t steps = later <= 0 ? lks__divide_up(left, plan->global_batch)
                               : epochs.first.steps + later / epochs.whole.positions * epochs.whole.steps +
                                     lks__divide_up(later % epochs.whole.positions, plan->global_batch);
    return run_of_steps(plan->origin.step + steps, plan);
}

lks_status lks__plan_length(const lks_plan_config *c, lks_plan *plan)
{
    if ((c->epochs > 0) + (c->steps > 0) + (c->samples > 0) != 1)
        return lks__fail(LKS_E_ARG,
                         "the length of the run must be given by one of epochs, steps and samples");
    lks_plan run = *plan;
    if (c->lr_rule == LKS_LR_ADASCALE) /* a length of progress, wherever in the data that is */
        run.origin = (lks_plan_origin){0};
    lks_status status;
    if (c->epochs > 0)
        status = run_of_epochs(c->epochs, &run);
    else if (c->steps > 0)
        status = run_of_steps(c->steps, &run);
    else
        status = run_of_samples(c->samples, &run);
    if (status != LKS_OK)
        return status;
    plan->samples = run.samples;
    plan->total_steps = run.total_steps;
    plan->epochs = lks__plan_epochs_after(&run, run.samples);
    return LKS_OK;
}
