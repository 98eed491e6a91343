/* SPDX-License-Identifier: Apache-2.0 */
/** The learning rate of a step, on the clock of samples: docs/options.md, lr.*. */
#include <lockstep/plan.h>

#include <math.h>

#include "plan/epoch.h"

static const double pi = 3.14159265358979323846;

/* Where a run stands. */
typedef struct moment {
    double progress; /* of what follows the warm-up; 0 .. 1 */
    int64_t epoch;   /* whole epochs since the start of the run */
} moment;

/* --- the factor on the scaled rate at a moment; the names are those of PyTorch's schedulers --- */

/* From 1 down to the end factor, as `shape` goes from 1 to 0. */
static double down_to_end(const lks_schedule *schedule, double shape)
{
    return schedule->end_factor + (1.0 - schedule->end_factor) * shape;
}

static double constant(const lks_schedule *schedule, moment at)
{
    (void)schedule;
    (void)at;
    return 1.0;
}

/* CosineAnnealingLR; Loshchilov and Hutter 2017, equation 5, without restarts. */
static double cosine(const lks_schedule *schedule, moment at)
{
    return down_to_end(schedule, 0.5 * (1.0 + cos(pi * at.progress)));
}

/* LinearLR */
static double linear(const lks_schedule *schedule, moment at)
{
    return down_to_end(schedule, 1.0 - at.progress);
}

/* PolynomialLR */
static double polynomial(const lks_schedule *schedule, moment at)
{
    return pow(1.0 - at.progress, schedule->power);
}

/* StepLR */
static double step(const lks_schedule *schedule, moment at)
{
    return pow(schedule->gamma, (double)(at.epoch / schedule->step_epochs));
}

/* MultiStepLR */
static double multistep(const lks_schedule *schedule, moment at)
{
    int passed = 0;
    while (passed < schedule->n_milestones && schedule->milestones[passed] <= at.epoch)
        passed++;
    return pow(schedule->gamma, passed);
}

/* ExponentialLR */
static double exponential(const lks_schedule *schedule, moment at)
{
    return pow(schedule->gamma, (double)at.epoch);
}

static double (*const schedules[])(const lks_schedule *schedule, moment at) = {
    [LKS_SCHEDULE_CONSTANT] = constant,
    [LKS_SCHEDULE_COSINE] = cosine,
    [LKS_SCHEDULE_LINEAR] = linear,
    [LKS_SCHEDULE_POLYNOMIAL] = polynomial,
    [LKS_SCHEDULE_STEP] = step,
    [LKS_SCHEDULE_MULTISTEP] = multistep,
    [LKS_SCHEDULE_EXPONENTIAL] = exponential,
};

/* Goyal et al. 2017, section 2.2: constant and gradual warm-up. s < S_w */
static double warmup_rate(const lks_plan *plan, double s)
{
    if (plan->warmup == LKS_WARMUP_CONSTANT)
        return plan->base_lr;
    double from = plan->warmup_from == LKS_WARMUP_FROM_ZERO ? 0.0 : plan->base_lr;
    return from + (plan->scaled_lr - from) * s / plan->warmup_samples;
}

/* A clock of gains knows nothing of the order in which the data were seen. */
static int64_t epoch_at(const lks_plan *plan, int64_t clock)
{
    bool of_gains = plan->lr_rule == LKS_LR_ADASCALE;
    return of_gains ? clock / plan->samples_per_epoch : lks__plan_epoch_at(plan, clock);
}

double lks_plan_lr(const lks_plan *plan, double clock)
{
    double s = clock > 0 ? clock : 0.0;
    double after = (double)plan->samples - plan->warmup_samples; /* samples after the warm-up */
    if (s < plan->warmup_samples)
        return warmup_rate(plan, s);
    double progress = after > 0 ? (s - plan->warmup_samples) / after : 1.0;
    moment at = {.progress = progress < 1.0 ? progress : 1.0, .epoch = epoch_at(plan, (int64_t)s)};
    return plan->scaled_lr * schedules[plan->schedule.kind](&plan->schedule, at);
}
