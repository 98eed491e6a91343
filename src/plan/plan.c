/* SPDX-License-Identifier: Apache-2.0 */
/** From what the user states to the plan: world, batch, epoch, length, learning rate, one stage after the
 * other. Every stage reads the config and what earlier stages put into the plan. */
#include <lockstep/group.h>
#include <lockstep/plan.h>

#include <math.h>

#include "base/error.h"
#include "base/machine.h"
#include "base/text.h"
#include "base/tree.h"
#include "conf/options.h"
#include "plan/epoch.h"
#include "plan/plan_check.h"

/* No count is larger. */
#define LIMIT LKS__INT_LIMIT

typedef long long ll; /* what %lld wants */

lks_plan_config lks_plan_config_default(void)
{
    return (lks_plan_config){
        .tail = LKS_TAIL_EXACT,
        .epochs = 1,
        .reduction = LKS_REDUCTION_MEAN,
        .optimizer = lks_optimizer_config_default(LKS_SGD),
        .base_lr = LKS__DEFAULT_LR,
        .lr_rule = LKS_LR_NONE,
        .warmup_from = LKS_WARMUP_FROM_REFERENCE,
        .schedule = {.kind = LKS_SCHEDULE_CONSTANT, .power = 1.0, .gamma = 0.1},
    };
}

/* --- arithmetic --- */

enum { LIST_BYTES = 160 };

/* "1, 2 and 4" */
static void list_numbers(const int64_t *numbers, int n, char out[LIST_BYTES])
{
    out[0] = '\0';
    for (int i = 0; i < n; i++)
        lks__append(out, LIST_BYTES, "%s%lld", i == 0 ? "" : (i == n - 1 ? " and " : ", "), (ll)numbers[i]);
}

/* --- stage 1: every number by itself --- */

static lks_status check_counts(const lks_plan_config *c)
{
    const struct {
        const char *name;
        int64_t value, least;
    } counts[] = {
        {"the number of samples", c->n_samples, 1},
        {"the number of processes", c->processes, 0},
        {"the number of usable cores", c->usable_cores, 0},
        {"the world", c->world, 0},
        {"the local batch", c->local_batch, 0},
        {"the accumulation", c->accumulate, 0},
        {"the global batch", c->global_batch, 0},
        {"the number of epochs", c->epochs, 0},
        {"the number of steps", c->steps, 0},
        {"the number of samples to train on", c->samples, 0},
        {"the reference batch", c->reference_batch, 0},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        if (counts[i].value < counts[i].least || counts[i].value > LIMIT)
            return lks__fail(LKS_E_ARG, "%s is %lld; an integer from 1 to %lld is needed", counts[i].name,
                             (ll)counts[i].value, (ll)LIMIT);
    return LKS_OK;
}

/* A step has a sample at least, and an epoch a step. */
static lks_status check_origin(const lks_plan_config *c)
{
    const lks_plan_origin *o = &c->origin;
    bool begins = o->step == 0 && o->samples == 0 && o->epoch == 0 && o->offset == 0;
    bool goes_on = 0 < o->step && o->step <= o->samples && o->samples <= LIMIT && 0 <= o->epoch &&
                   0 <= o->offset && o->offset < c->n_samples && o->epoch <= o->step &&
                   o->offset <= o->samples && o->epoch + o->offset > 0;
    if (begins || goes_on)
        return LKS_OK;
    return lks__fail(
        LKS_E_ARG,
        "step %lld, sample %lld, position %lld of epoch %lld is no place where a run on %lld samples "
        "can go on",
        (ll)o->step, (ll)o->samples, (ll)o->offset, (ll)o->epoch, (ll)c->n_samples);
}

static lks_status check_choices(const lks_plan_config *c)
{
    const struct {
        const char *name;
        int value, last;
    } choices[] = {
        {"tail", (int)c->tail, LKS_TAIL_PAD},
        {"reduction", (int)c->reduction, LKS_REDUCTION_SUM},
        {"learning-rate rule", (int)c->lr_rule, LKS_LR_ADASCALE},
        {"warm-up", (int)c->warmup, LKS_WARMUP_NONE},
        {"start of the warm-up", (int)c->warmup_from, LKS_WARMUP_FROM_ZERO},
        {"schedule", (int)c->schedule.kind, LKS_SCHEDULE_EXPONENTIAL},
    };
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++)
        if (choices[i].value < 0 || choices[i].value > choices[i].last)
            return lks__fail(LKS_E_ARG, "the %s is %d; a value from 0 to %d is needed", choices[i].name,
                             choices[i].value, choices[i].last);
    return LKS_OK;
}

static lks_status check_milestones(const lks_schedule *s)
{
    if (s->n_milestones < 1 || s->n_milestones > LKS_MAX_MILESTONES)
        return lks__fail(LKS_E_ARG, "lr.milestones has %lld epochs; from 1 to %d are needed",
                         (ll)s->n_milestones, LKS_MAX_MILESTONES);
    int64_t before = 0;
    for (int64_t i = 0; i < s->n_milestones; before = s->milestones[i++])
        if (s->milestones[i] <= before)
            return lks__fail(LKS_E_ARG,
                             "lr.milestones has %lld after %lld; epochs >= 1 in rising order are needed",
                             (ll)s->milestones[i], (ll)before);
    return LKS_OK;
}

/* The numbers that the schedule uses: their ranges are those of the option table. */
static lks_status check_schedule(const lks_schedule *s)
{
    const lks__settings settings = {.schedule = *s};
    for (int i = 0; i < lks__n_options; i++) {
        const lks__option *option = &lks__options[i];
        bool in_use = lks__option_is_of(option, "lr.schedule") && lks__option_applies(option, &settings);
        lks_status status = in_use ? lks__option_check(option, &settings) : LKS_OK;
        if (status != LKS_OK)
            return status;
    }
    if (s->kind == LKS_SCHEDULE_STEP && s->step_epochs < 1)
        return lks__fail(LKS_E_ARG, "lr.step_epochs is %lld; an integer >= 1 is needed", (ll)s->step_epochs);
    return s->kind == LKS_SCHEDULE_MULTISTEP ? check_milestones(s) : LKS_OK;
}

static lks_status check_numbers(const lks_plan_config *c, lks_plan *plan)
{
    lks_status status = check_counts(c);
    if (status == LKS_OK)
        status = check_origin(c);
    if (status == LKS_OK)
        status = check_choices(c);
    if (status == LKS_OK)
        status = check_schedule(&c->schedule);
    if (status == LKS_OK)
        status = lks_optimizer_config_check(&c->optimizer);
    if (status != LKS_OK)
        return status;
    if (!(isfinite(c->base_lr) && c->base_lr > 0))
        return lks__fail(LKS_E_ARG, "the learning rate is %g; a number > 0 is needed", c->base_lr);
    if (!(isfinite(c->warmup_epochs) && c->warmup_epochs >= 0))
        return lks__fail(LKS_E_ARG, "the warm-up is %g epochs; a number >= 0 is needed", c->warmup_epochs);
    plan->n_samples = c->n_samples;
    plan->tail = c->tail;
    plan->origin = c->origin;
    plan->reduction = c->reduction;
    return LKS_OK;
}

/* --- stage 2: processes and workers --- */

/* The largest number of processes, at most one per core, that a group can hold and that share the workers
 * evenly. */
static int64_t choose_processes(const lks_plan_config *c, int64_t world)
{
    int64_t cores = c->usable_cores > 0 ? c->usable_cores : lks__usable_cores();
    int64_t most = cores < LKS_GROUP_MAX_SIZE ? cores : LKS_GROUP_MAX_SIZE;
    int64_t processes = most < world ? most : world;
    while (world % processes != 0)
        processes--;
    return processes;
}

static lks_status uneven_processes(int64_t processes, int64_t world)
{
    enum { MAX_LISTED = 12, MAX_DIVISOR = 4096 };
    int64_t divisors[MAX_LISTED];
    char list[LIST_BYTES];
    int n = 0;
    for (int64_t d = 1; d <= world && d <= MAX_DIVISOR && n < MAX_LISTED; d++)
        if (world % d == 0)
            divisors[n++] = d;
    list_numbers(divisors, n, list);
    return lks__fail(LKS_E_ARG, "%lld processes can't share %lld worker%s evenly; %s can", (ll)processes,
                     (ll)world, lks__plural(world), list);
}

/* W as given, or as it follows from b, A and B where all of these are, and fits the processes; else 0. */
static int64_t fix_world(const lks_plan_config *c)
{
    int64_t workers_batch;
    if (c->world > 0 || c->local_batch == 0 || c->accumulate == 0 || c->global_batch == 0)
        return c->world;
    if (!lks__multiply(c->local_batch, c->accumulate, &workers_batch) || c->global_batch % workers_batch != 0)
        return 0; /* batch_from_both tells what is wrong */
    int64_t world = c->global_batch / workers_batch;
    return c->processes == 0 || world % c->processes == 0 ? world : 0;
}

static lks_status plan_world(const lks_plan_config *c, lks_plan *plan)
{
    plan->processes_chosen = c->processes == 0;
    plan->processes = c->processes;
    int64_t world = fix_world(c); /* 0: as many as processes */
    if (plan->processes_chosen)
        plan->processes = world > 0 ? choose_processes(c, world) : 1;
    plan->world = world > 0 ? world : plan->processes;
    if (plan->world % plan->processes != 0)
        return uneven_processes(plan->processes, plan->world);
    if (plan->world > plan->n_samples)
        return lks__fail(LKS_E_ARG, "%lld workers are more than the training set has samples (%lld)",
                         (ll)plan->world, (ll)plan->n_samples);
    return LKS_OK;
}

/* --- stage 3: B = b x W x A, from any consistent set --- */

/* "64, 128 and 192": the multiples of `unit` around `wanted` that can be global batches. */
static void list_fitting(int64_t wanted, int64_t unit, char out[LIST_BYTES])
{
    int64_t below = wanted / unit * unit;
    int64_t first = below > 0 ? below : unit;
    int64_t fitting[] = {first, first + unit, first + 2 * unit};
    list_numbers(fitting, 3, out);
}

static lks_status batch_too_large(const lks_plan_config *c, const lks_plan *plan)
{
    int64_t accumulate = c->accumulate > 0 ? c->accumulate : 1;
    return lks__fail(LKS_E_ARG,
                     "local batch %lld x %lld worker%s x %lld accumulation step%s is more than %lld samples",
                     (ll)c->local_batch, (ll)plan->world, lks__plural(plan->world), (ll)accumulate,
                     lks__plural(accumulate), (ll)LIMIT);
}

/* b (and perhaps A) given: B follows. */
static lks_status batch_from_local(const lks_plan_config *c, lks_plan *plan)
{
    int64_t workers_batch;
    plan->local_batch = c->local_batch;
    plan->accumulate = c->accumulate > 0 ? c->accumulate : 1;
    if (!lks__multiply(plan->local_batch, plan->world, &workers_batch) ||
        !lks__multiply(workers_batch, plan->accumulate, &plan->global_batch))
        return batch_too_large(c, plan);
    return LKS_OK;
}

/* B given, not b: b follows, with A = 1 unless given. */
static lks_status batch_from_global(const lks_plan_config *c, lks_plan *plan)
{
    char fitting[LIST_BYTES];
    plan->accumulate = c->accumulate > 0 ? c->accumulate : 1;
    plan->global_batch = c->global_batch;
    int64_t passes;
    if (!lks__multiply(plan->world, plan->accumulate, &passes))
        return lks__fail(LKS_E_ARG, "%lld worker%s x %lld accumulation step%s is more than %lld",
                         (ll)plan->world, lks__plural(plan->world), (ll)plan->accumulate,
                         lks__plural(plan->accumulate), (ll)LIMIT);
    plan->local_batch = c->global_batch / passes;
    if (c->global_batch % passes == 0)
        return LKS_OK;
    list_fitting(c->global_batch, passes, fitting);
    return lks__fail(
        LKS_E_ARG,
        "global batch %lld is not a whole local batch x %lld worker%s x %lld accumulation step%s; "
        "%s are",
        (ll)c->global_batch, (ll)plan->world, lks__plural(plan->world), (ll)plan->accumulate,
        lks__plural(plan->accumulate), fitting);
}

/* B and b given: A follows, and is compared with what was given. */
static lks_status batch_from_both(const lks_plan_config *c, lks_plan *plan)
{
    char fitting[LIST_BYTES];
    int64_t workers_batch;
    if (!lks__multiply(c->local_batch, plan->world, &workers_batch))
        return batch_too_large(c, plan);
    plan->local_batch = c->local_batch;
    plan->global_batch = c->global_batch;
    plan->accumulate = c->global_batch / workers_batch;
    if (c->global_batch % workers_batch != 0) {
        list_fitting(c->global_batch, workers_batch, fitting);
        return lks__fail(LKS_E_ARG,
                         "global batch %lld is not local batch %lld x %lld worker%s x a whole number of "
                         "accumulation steps; %s are",
                         (ll)c->global_batch, (ll)c->local_batch, (ll)plan->world, lks__plural(plan->world),
                         fitting);
    }
    if (c->accumulate > 0 && c->accumulate != plan->accumulate)
        return lks__fail(
            LKS_E_ARG,
            "global batch %lld is local batch %lld x %lld worker%s x %lld accumulation step%s, not "
            "x %lld",
            (ll)c->global_batch, (ll)c->local_batch, (ll)plan->world, lks__plural(plan->world),
            (ll)plan->accumulate, lks__plural(plan->accumulate), (ll)c->accumulate);
    return LKS_OK;
}

static lks_status plan_batch(const lks_plan_config *c, lks_plan *plan)
{
    lks_status status;
    if (c->local_batch > 0 && c->global_batch > 0)
        status = batch_from_both(c, plan);
    else if (c->local_batch > 0)
        status = batch_from_local(c, plan);
    else if (c->global_batch > 0)
        status = batch_from_global(c, plan);
    else
        status = lks__fail(LKS_E_ARG, "the batch size is missing: a local or a global batch is needed");
    if (status != LKS_OK)
        return status;
    plan->leaves = plan->world * plan->accumulate;
    plan->leaves_per_process = plan->leaves / plan->processes;
    plan->fast = c->fast;
    plan->same_bits = plan->processes == 1 || (!plan->fast && lks__is_power_of_two(plan->leaves_per_process));
    return LKS_OK;
}

/* --- stage 6, after epoch and length (plan_length.c): the learning rate --- */

static double unscaled(double kappa)
{
    (void)kappa;
    return 1.0;
}

static double linear(double kappa)
{
    return kappa;
}

/* What the rules scale, one row per lks_lr_rule. Goyal et al. 2017, section 2.1; Krizhevsky
 * 2014; Malladi et al. 2022, definition of the square root rule for Adam; You et al. 2019; Johnson et al.
 * 2020, whose gain is not known before the run. */
static const struct {
    double (*rate)(double kappa);
    double (*warmup)(double kappa); /* its epochs */
    bool scales_adam;
} rules[] = {
    [LKS_LR_NONE] = {.rate = unscaled, .warmup = unscaled},
    [LKS_LR_LINEAR] = {.rate = linear, .warmup = unscaled},
    [LKS_LR_SQRT] = {.rate = sqrt, .warmup = unscaled},
    [LKS_LR_ADAM_SQRT] = {.rate = sqrt, .warmup = unscaled, .scales_adam = true},
    [LKS_LR_LEGW] = {.rate = sqrt, .warmup = linear},
    [LKS_LR_ADASCALE] = {.rate = unscaled, .warmup = unscaled},
};

/* The average of gradients decays kappa times as much in a step, so over samples as before. */
static lks_status scale_beta(const char *name, const lks_plan *plan, double *beta)
{
    double decay = plan->kappa * (1.0 - *beta);
    if (decay > 1.0 - 1e-12) /* 1 - 0.9 is a little less than a tenth */
        return lks__fail(
            LKS_E_ARG,
            "rule adam-sqrt can't scale %s %g for a batch of %lld instead of %lld: 1 - %.6g x (1 - "
            "%g) is not above 0; effective batches below %.6g are",
            name, *beta, (ll)plan->global_batch, (ll)plan->reference_batch, plan->kappa, *beta,
            (double)plan->reference_batch / (1.0 - *beta));
    *beta = 1.0 - decay;
    return LKS_OK;
}

static lks_status scale_adam(lks_plan *plan)
{
    lks_optimizer_config *adam = &plan->optimizer;
    if (adam->kind != LKS_ADAM && adam->kind != LKS_ADAMW)
        return lks__fail(LKS_E_ARG,
                         "rule adam-sqrt is for the optimizers adam and adamw; the optimizer is %s",
                         lks__option_word("optimizer.kind", (int)adam->kind));
    lks_status status = scale_beta("beta1", plan, &adam->beta1);
    if (status == LKS_OK)
        status = scale_beta("beta2", plan, &adam->beta2);
    adam->epsilon /= sqrt(plan->kappa);
    return status;
}

/* Epochs as samples: 0.07 epochs of 100 samples are 7 samples, though 0.07 * 100 > 7 in doubles. */
static double warmup_samples(double epochs, int64_t per_epoch)
{
    double samples = epochs * (double)per_epoch, whole = nearbyint(samples);
    return fabs(samples - whole) <= 1e-12 * samples ? whole : samples;
}

static lks_status plan_lr(const lks_plan_config *c, lks_plan *plan)
{
    if (c->lr_rule != LKS_LR_NONE && c->reference_batch == 0)
        return lks__fail(LKS_E_ARG, "a learning-rate rule needs the reference batch: the effective batch for "
                                    "which the learning rate was tuned");
    plan->base_lr = c->base_lr;
    plan->lr_rule = c->lr_rule;
    plan->reference_batch = c->reference_batch;
    plan->kappa = c->reference_batch > 0 ? (double)plan->global_batch / (double)c->reference_batch : 1.0;
    plan->scaled_lr = c->base_lr * rules[c->lr_rule].rate(plan->kappa);
    if (!isfinite(plan->scaled_lr))
        return lks__fail(LKS_E_ARG,
                         "learning rate %g, scaled for a batch of %lld instead of %lld, is no number",
                         c->base_lr, (ll)plan->global_batch, (ll)c->reference_batch);
    plan->warmup = c->warmup;
    plan->warmup_from = c->warmup_from;
    plan->schedule = c->schedule;
    plan->optimizer = c->optimizer;
    return rules[c->lr_rule].scales_adam ? scale_adam(plan) : LKS_OK;
}

/* --- stage 7: what a gain that is measured leaves open --- */

/* The most steps that a run of adascale can take. A step of n samples moves the clock on by gain x reference
 * batch, and its gain is at least 1, or n / reference batch where that is less: by min(n, reference batch).
 */
static int64_t most_steps(const lks_plan *plan)
{
    int64_t r = plan->reference_batch;
    int64_t whole = plan->global_batch < r ? plan->global_batch : r;
    int64_t last = plan->last_step_samples < r ? plan->last_step_samples : r;
    int64_t epoch = (plan->steps_per_epoch - 1) * whole + last; /* no more than its samples */
    int64_t rest = lks__divide_up(plan->samples % epoch, whole);
    int64_t before = plan->origin.step; /* what the run has taken then may have gained nothing */
    if (before > 0)
        before += lks__plan_epochs(plan).first.steps;
    return before + plan->samples / epoch * plan->steps_per_epoch +
           (rest < plan->steps_per_epoch ? rest : plan->steps_per_epoch);
}

static lks_status plan_gain(const lks_plan_config *c, lks_plan *plan)
{
    if (c->lr_rule != LKS_LR_ADASCALE)
        return LKS_OK;
    if (c->steps > 0)
        return lks__fail(LKS_E_ARG,
                         "rule adascale measures how many steps a run needs: its length is given by "
                         "epochs or samples, not by steps");
    if (plan->leaves < 2)
        return lks__fail(LKS_E_ARG,
                         "rule adascale compares the gradients of a step's passes, and this step has "
                         "one: 2 or more workers, or batch.accumulate >= 2, are needed");
    plan->total_steps = most_steps(plan);
    return LKS_OK;
}

/* --- stage 8: the warm-up --- */

/* A rate that is not scaled up has nothing to warm up to from the reference. */
static bool is_warmed_up(const lks_plan_config *c, const lks_plan *plan)
{
    bool from_zero = c->warmup == LKS_WARMUP_GRADUAL && c->warmup_from == LKS_WARMUP_FROM_ZERO;
    return c->warmup != LKS_WARMUP_NONE && (from_zero || plan->scaled_lr > plan->base_lr);
}

static lks_status plan_warmup(const lks_plan_config *c, lks_plan *plan)
{
    if (!is_warmed_up(c, plan))
        return LKS_OK;
    double epochs = c->warmup_epochs * rules[c->lr_rule].warmup(plan->kappa);
    plan->warmup_samples = warmup_samples(epochs, plan->samples_per_epoch);
    if (plan->warmup_samples > (double)LIMIT)
        return lks__fail(LKS_E_ARG, "a warm-up of %g epochs is too long: it has more than %lld samples",
                         epochs, (ll)LIMIT);
    plan->warmup_steps = (int64_t)ceil(plan->warmup_samples / (double)plan->global_batch);
    return LKS_OK;
}

/* --- all together --- */

static lks_status (*const stages[])(const lks_plan_config *config, lks_plan *plan) = {
    check_numbers, plan_world, plan_batch, lks__plan_epoch, lks__plan_length, plan_lr, plan_gain, plan_warmup,
};

lks_status lks_plan_create(const lks_plan_config *config, lks_plan *out)
{
    lks_plan plan = {0};
    for (size_t i = 0; i < sizeof stages / sizeof stages[0]; i++) {
        lks_status status = stages[i](config, &plan);
        if (status != LKS_OK)
            return status;
    }
    *out = plan;
    return LKS_OK;
}

/* What the plan's own numbers make, if they make a plan. */
static lks_status plan_again(const lks_plan *plan, lks_plan *out)
{
    lks_plan_config c = {
        .n_samples = plan->n_samples,
        .processes = plan->processes,
        .world = plan->world,
        .local_batch = plan->local_batch,
        .accumulate = plan->accumulate,
        .tail = plan->tail,
        .origin = plan->origin,
        .reduction = plan->reduction,
        .optimizer = plan->optimizer,
        .base_lr = plan->base_lr,
        .lr_rule = plan->lr_rule,
        .reference_batch = plan->reference_batch,
        .warmup = plan->warmup,
        .warmup_from = plan->warmup_from,
        .schedule = plan->schedule,
    };
    lks_status status = check_choices(&c);
    if (c.lr_rule == LKS_LR_ADASCALE)
        c.samples = plan->samples;
    else
        c.steps = plan->total_steps;
    if (c.lr_rule != LKS_LR_ADASCALE)
        c.lr_rule = LKS_LR_NONE; /* the optimizer is scaled already */
    return status == LKS_OK ? lks_plan_create(&c, out) : status;
}

lks_status lks__plan_check(const lks_plan *plan)
{
    lks_plan again;
    lks_status status = plan_again(plan, &again);
    if (status != LKS_OK)
        return lks__error_prefix(status, "the plan is none of lks_plan_create");
    const struct {
        const char *name;
        int64_t value, wanted;
    } counts[] = {
        {"processes", plan->processes, again.processes},
        {"world", plan->world, again.world},
        {"local_batch", plan->local_batch, again.local_batch},
        {"accumulate", plan->accumulate, again.accumulate},
        {"global_batch", plan->global_batch, again.global_batch},
        {"leaves", plan->leaves, again.leaves},
        {"leaves_per_process", plan->leaves_per_process, again.leaves_per_process},
        {"samples_per_epoch", plan->samples_per_epoch, again.samples_per_epoch},
        {"steps_per_epoch", plan->steps_per_epoch, again.steps_per_epoch},
        {"samples", plan->samples, again.samples},
        {"total_steps", plan->total_steps, again.total_steps},
        {"last_step_samples", plan->last_step_samples, again.last_step_samples},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        if (counts[i].value != counts[i].wanted)
            return lks__fail(LKS_E_ARG,
                             "the plan is none of lks_plan_create: %s is %lld; %lld follows from the others",
                             counts[i].name, (ll)counts[i].value, (ll)counts[i].wanted);
    return LKS_OK;
}
