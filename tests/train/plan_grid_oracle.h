/* SPDX-License-Identifier: Apache-2.0 */
/** What a run of a grid's configuration has to be: settings, and a walk through the run that shares nothing
 * with src/. */
#ifndef LKS_TESTS_PLAN_GRID_ORACLE_H
#define LKS_TESTS_PLAN_GRID_ORACLE_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum tail_kind { EXACT, DROP, PAD } tail_kind;
typedef enum length_kind { EPOCHS, STEPS, SAMPLES } length_kind;
typedef enum optimizer_kind { SGD, LARS, ADAM, ADAMW, LAMB, OPTIMIZERS } optimizer_kind;
typedef enum rule_kind { NONE, LINEAR, SQRT, ADAM_SQRT, LEGW, RULES } rule_kind;
typedef enum warmup_kind {
    GRADUAL_FROM_REFERENCE,
    GRADUAL_FROM_ZERO,
    CONSTANT_WARMUP,
    NO_WARMUP
} warmup_kind;
typedef enum schedule_kind {
    CONSTANT,
    COSINE,
    LINEAR_FALL,
    POLYNOMIAL,
    STEP,
    MULTISTEP,
    EXPONENTIAL
} schedule_kind;

/* Of every configuration that has them. */
static const double base_lr = 0.001, gamma_factor = 0.5, end_factor = 0.1, power = 2;
enum { STEP_EPOCHS = 2, MILESTONE_1 = 1, MILESTONE_2 = 3 };

typedef struct spec {
    int64_t n; /* training samples */
    int64_t processes, world, local, accumulate;
    int given; /* what of the batch is stated: an index of `given_sets` in test_plan_grid.c */
    tail_kind tail;
    length_kind length;
    int64_t amount; /* of epochs, steps or samples */
    rule_kind rule;
    int64_t reference; /* 0: none */
    warmup_kind warmup;
    double warmup_epochs;
    schedule_kind schedule;
    optimizer_kind optimizer;
    bool sums;
} spec;

/** A run, walked through step by step. */
typedef struct walk {
    int64_t batch, positions, steps_per_epoch, last_step; /* of an epoch */
    int64_t total_steps, samples, warmup_steps;
    double kappa, scaled_lr, warmup_samples;
    /* where it stands */
    int64_t step, seen, epoch, in_epoch; /* in_epoch: samples of the epoch so far */
} walk;

static inline bool is_refused(const spec *s)
{
    int64_t batch = s->local * s->world * s->accumulate;
    bool beta_gone = s->rule == ADAM_SQRT && (double)batch >= 9.999999 * (double)s->reference;
    return s->world > s->n || (s->tail == DROP && batch > s->n) || beta_gone;
}

/** Samples of the step that comes next. */
static inline int64_t next_samples(const walk *w)
{
    int64_t left = w->positions - w->in_epoch;
    return left < w->batch ? left : w->batch;
}

static inline void advance(walk *w)
{
    int64_t n = next_samples(w);
    w->step++;
    w->seen += n;
    w->in_epoch += n;
    if (w->in_epoch == w->positions) {
        w->epoch++;
        w->in_epoch = 0;
    }
}

static inline bool has_ended(const walk *w, const spec *s)
{
    switch (s->length) {
    case EPOCHS:
        return w->epoch == s->amount;
    case STEPS:
        return w->step == s->amount;
    default:
        return w->seen >= s->amount;
    }
}

/* One sample after the other, as an epoch is made up. */
static inline int64_t count_positions(const spec *s, int64_t batch)
{
    int64_t n = s->n;
    if (s->tail == PAD)
        while (n % s->world != 0)
            n++;
    if (s->tail == DROP)
        while (n % batch != 0)
            n--;
    return n;
}

static inline double scale(const spec *s, double kappa)
{
    return s->rule == NONE ? 1 : s->rule == LINEAR ? kappa : sqrt(kappa);
}

static inline void plan_warmup(walk *w, const spec *s)
{
    bool rises = s->warmup == GRADUAL_FROM_ZERO || w->scaled_lr > base_lr;
    double epochs = s->warmup_epochs * (s->rule == LEGW ? w->kappa : 1);
    if (s->warmup == NO_WARMUP || !rises)
        return;
    /* the epochs of the grid are decimals of at most two digits, kappa is a fraction: what is within 1e-9 of
     * a whole number of samples is meant to be it */
    double samples = epochs * (double)w->positions;
    w->warmup_samples = fabs(samples - round(samples)) < 1e-9 * samples ? round(samples) : samples;
    while ((double)(w->warmup_steps * w->batch) < w->warmup_samples)
        w->warmup_steps++;
}

/** The run from its start, with its totals. */
static inline walk walk_of(const spec *s)
{
    walk w = {.batch = s->local * s->world * s->accumulate, .kappa = 1};
    w.positions = count_positions(s, w.batch);
    if (s->reference > 0)
        w.kappa = (double)w.batch / (double)s->reference;
    w.scaled_lr = base_lr * scale(s, w.kappa);
    walk all = w;
    while (all.epoch == 0) {
        w.last_step = next_samples(&all);
        advance(&all);
    }
    w.steps_per_epoch = all.step;
    for (all = w; !has_ended(&all, s);)
        advance(&all);
    w.total_steps = all.step;
    w.samples = all.seen;
    plan_warmup(&w, s);
    return w;
}

static inline double fall(const spec *s, double t, int64_t epoch)
{
    switch (s->schedule) {
    case COSINE:
        return end_factor + (1 - end_factor) * (1 + cos(acos(-1) * t)) / 2;
    case LINEAR_FALL:
        return end_factor + (1 - end_factor) * (1 - t);
    case POLYNOMIAL:
        return pow(1 - t, power);
    case STEP:
        return pow(gamma_factor, (double)(epoch / STEP_EPOCHS));
    case MULTISTEP:
        return epoch < MILESTONE_1 ? 1 : epoch < MILESTONE_2 ? gamma_factor : gamma_factor * gamma_factor;
    case EXPONENTIAL:
        return pow(gamma_factor, (double)epoch);
    default:
        return 1;
    }
}

/** The rate of the step that comes next, on the clock of samples. */
static inline double next_lr(const walk *w, const spec *s)
{
    double seen = (double)w->seen, after = (double)w->samples - w->warmup_samples;
    double from = s->warmup == GRADUAL_FROM_ZERO ? 0 : base_lr;
    if (seen >= w->warmup_samples)
        return w->scaled_lr * fall(s, (seen - w->warmup_samples) / after, w->epoch);
    if (s->warmup == CONSTANT_WARMUP)
        return base_lr;
    return from + (w->scaled_lr - from) * seen / w->warmup_samples;
}

#endif
