/* SPDX-License-Identifier: Apache-2.0 */
#include "plan/plan_warnings.h"

#include <stddef.h>

static bool is_scaled_twice(const lks_plan *plan)
{
    return plan->reduction == LKS_REDUCTION_SUM && plan->lr_rule != LKS_LR_NONE && plan->leaves > 1;
}

static bool is_batch_ignored(const lks_plan *plan)
{
    return plan->lr_rule == LKS_LR_NONE && plan->kappa != 1.0;
}

static bool is_warmup_endless(const lks_plan *plan)
{
    return plan->warmup_samples >= (double)plan->samples;
}

static bool is_never_full(const lks_plan *plan)
{
    return plan->global_batch > plan->samples_per_epoch;
}

static const struct {
    bool (*holds)(const lks_plan *plan);
    const char *sentence;
} warnings[] = {
    {is_scaled_twice,
     "with reduction sum, updates grow with the batch already; the rate's rule scales them twice"},
    {is_batch_ignored,
     "the effective batch is not the reference batch, but the rate is not scaled (lr.rule none)"},
    {is_never_full,
     "the effective batch is more than an epoch has samples: every step takes the few that there are"},
    {is_warmup_endless,
     "the warm-up is as long as the run, or longer: the schedule after it is never reached"},
};

const char *lks__plan_warning(const lks_plan *plan, int index)
{
    for (size_t i = 0; i < sizeof warnings / sizeof warnings[0]; i++)
        if (warnings[i].holds(plan) && index-- == 0)
            return warnings[i].sentence;
    return NULL;
}
