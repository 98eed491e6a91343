/* SPDX-License-Identifier: Apache-2.0 */
/** The learning rate of a step, on the clock of samples: docs/options.md, lr.*. */
#include <lockstep/plan.h>

#include <math.h>

static const double pi = 3.14159265358979323846;

/* The factor at `progress` (0 .. 1) of what follows the warm-up. One row per lks_lr_schedule. */
static double constant(double progress)
{
    (void)progress;
    return 1.0;
}

/* Loshchilov and Hutter 2017, equation 5, without restarts and down to 0. */
static double cosine(double progress)
{
    return 0.5 * (1.0 + cos(pi * progress));
}

static double (*const schedules[])(double progress) = {
    [LKS_SCHEDULE_CONSTANT] = constant,
    [LKS_SCHEDULE_COSINE] = cosine,
};

double lks_plan_lr(const lks_plan *plan, int64_t samples_seen)
{
    double s = samples_seen > 0 ? (double)samples_seen : 0.0;
    double after = (double)plan->samples - plan->warmup_samples; /* samples after the warm-up */
    if (s < plan->warmup_samples) {
        double from = plan->warmup_from == LKS_WARMUP_FROM_ZERO ? 0.0 : plan->base_lr;
        return from + (plan->scaled_lr - from) * s / plan->warmup_samples;
    }
    double progress = after > 0 ? (s - plan->warmup_samples) / after : 1.0;
    return plan->scaled_lr * schedules[plan->schedule](progress < 1.0 ? progress : 1.0);
}
