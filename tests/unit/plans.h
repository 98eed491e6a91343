/* SPDX-License-Identifier: Apache-2.0 */
/** Plans that tests start from. */
#ifndef LKS_TESTS_PLANS_H
#define LKS_TESTS_PLANS_H

#include <lockstep/plan.h>

#include "check.h"

/* 60,000 samples, local batch 64, two workers, five epochs, rate 0.02 tuned at 64. */
static inline lks_plan_config mnist(void)
{
    lks_plan_config c = lks_plan_config_default();
    c.n_samples = 60000;
    c.processes = 2;
    c.local_batch = 64;
    c.epochs = 5;
    c.base_lr = 0.02;
    c.lr_rule = LKS_LR_LINEAR;
    c.reference_batch = 64;
    c.warmup_epochs = 1;
    c.schedule.kind = LKS_SCHEDULE_COSINE;
    return c;
}

static inline lks_plan plan_of(lks_plan_config c)
{
    lks_plan plan = {0};
    CHECK_OK(lks_plan_create(&c, &plan));
    return plan;
}

#endif
