/* SPDX-License-Identifier: Apache-2.0 */
/* What is said about a step that has gone wrong: in which leaf, with which samples, in which tensor it shows
 * first, how loss, gradient and learning rate stand to what they were, and the likely cause when it is one of
 * the classic ones. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "plan/epoch.h"
#include "train/guard.h"

/* What the member that played the leaf has found there. Broadcast as it is. */
typedef struct finding {
    int64_t first_leaf, last_leaf; /* one leaf, or those of which it is one; -1: not in a leaf */
    int64_t n_samples;             /* of that leaf; 0: not known */
    int64_t samples[8];            /* the first ones: indices in the training set */
    char value[LKS__VALUE_NAME_BYTES];
} finding;

enum { LISTED = sizeof((finding *)0)->samples / sizeof(int64_t) };

/* --- finding --- */

static double largest(const float *x, int64_t n)
{
    double most = 0.0;
    for (int64_t i = 0; i < n && !isnan(most); i++) /* a NaN is the largest */
        if (!(fabs((double)x[i]) <= most))
            most = fabs((double)x[i]);
    return most;
}

/* The parameter whose part of the arena is not finite; the one that backward comes to first. NULL: none. */
static const char *find_in_arena(const lks_trainer *t, const float *arena)
{
    for (int i = lks__network_n_params(t->network) - 1; i >= 0; i--) {
        const lks__param *param = lks__network_param(t->network, i);
        if (!lks__block_is_finite(arena + param->offset_elems, param->arena_elems))
            return param->name;
    }
    return NULL;
}

/* The largest value, absolute, of the step's samples on all members. Collective. */
static lks_status find_largest_input(lks_trainer *t, const lks__position *position, double *out)
{
    int64_t m = t->config.plan->leaves_per_process, n_features = lks__network_n_features(t->network);
    *out = 0.0;
    for (int64_t i = 0; i < m && !isnan(*out); i++) {
        int64_t n = lks__train_read_leaf(t, position, t->rank * m + i);
        double of_leaf = largest(lks__network_input(t->network), n * n_features);
        if (!(of_leaf <= *out))
            *out = of_leaf;
    }
    return lks_group_all_reduce(t->config.group, out, 1, LKS_F64, LKS_MAX);
}

/* Reads a leaf again, and what is to be said of its samples. Returns their number. */
static int64_t take_leaf(lks_trainer *t, const lks__position *position, int64_t leaf, finding *found)
{
    int64_t n = lks__train_read_leaf(t, position, leaf);
    *found = (finding){.first_leaf = leaf, .last_leaf = leaf, .n_samples = n};
    for (int64_t i = 0; i < n && i < LISTED; i++)
        found->samples[i] = t->indices[i];
    return n;
}

/* A loss that is not finite was not used: parameters are those that made it. */
static lks_status find_bad_loss(lks_trainer *t, const lks__position *position, finding *found)
{
    int64_t m = t->config.plan->leaves_per_process;
    for (int64_t i = 0; i < m; i++) {
        if (isfinite(t->leaf_loss[i]))
            continue;
        int64_t leaf = t->rank * m + i, n = take_leaf(t, position, leaf, found);
        const lks__draw draw = {t->config.seed, position->step, leaf};
        return lks__network_find_not_finite(t->network, n, t->params, &draw, found->value);
    }
    return LKS_OK;
}

/* The gradients of the own leaves once more, into the reducer's arena, which is free between steps. */
static lks_status find_bad_gradient(lks_trainer *t, const lks__position *position, finding *found)
{
    int64_t m = t->config.plan->leaves_per_process;
    lks_status status = LKS_OK;
    for (int64_t i = 0; i < m && status == LKS_OK; i++) {
        int64_t leaf = t->rank * m + i, n = take_leaf(t, position, leaf, found);
        lks__loss loss;
        const lks__draw draw = {t->config.seed, position->step, leaf};
        float *grads = lks__reducer_leaf(t->reducer);
        if (n == 0)
            continue;
        status = lks__network_forward(t->network, n, t->params, &draw, &loss);
        if (status == LKS_OK)
            status = lks__network_backward(t->network, n, t->params, grads, NULL, NULL);
        const char *name = status == LKS_OK ? find_in_arena(t, grads) : NULL;
        if (name != NULL) {
            snprintf(found->value, sizeof found->value, "the gradient of \"%s\"", name);
            return LKS_OK;
        }
    }
    found->first_leaf = -1;
    return status;
}

/* The gradient was used before all of it was known, so its leaves can't be run again; but the sum over the
 * own ones is still in the arena, or, over several machines, the sum over all. */
static void look_for_bad_gradient(lks_trainer *t, const lks__position *position, finding *found)
{
    bool own = lks__reducer_keeps_own_sum(t->reducer);
    int64_t m = own ? t->config.plan->leaves_per_process : t->config.plan->leaves;
    const char *name = find_in_arena(t, lks__reducer_leaf(t->reducer));
    if (name == NULL)
        return;
    if (m == 1)
        take_leaf(t, position, t->rank, found);
    found->first_leaf = own ? t->rank * m : 0;
    found->last_leaf = found->first_leaf + m - 1;
    snprintf(found->value, sizeof found->value, "the gradient of \"%s\"", name);
}

static lks_status find_own(lks_trainer *t, const lks__position *position, const lks__step_result *result,
                           finding *found)
{
    *found = (finding){.first_leaf = -1, .last_leaf = -1};
    if (result->trouble == LKS__TROUBLE_LOSS)
        return find_bad_loss(t, position, found);
    if (result->trouble != LKS__TROUBLE_GRADIENT)
        return LKS_OK;
    if (!result->updated)
        return find_bad_gradient(t, position, found);
    look_for_bad_gradient(t, position, found);
    return LKS_OK;
}

/* The first leaf in which some member has found something. Collective. */
static lks_status find(lks_trainer *t, const lks__position *position, const lks__step_result *result,
                       finding *found)
{
    const lks_plan *plan = t->config.plan;
    lks_status status = lks__agree(t->config.group, find_own(t, position, result, found));
    int64_t before_end = found->first_leaf >= 0 ? plan->leaves - found->first_leaf
                                                : 0; /* largest: the first leaf */
    if (status == LKS_OK)
        status = lks_group_all_reduce(t->config.group, &before_end, 1, LKS_I64, LKS_MAX);
    if (status != LKS_OK || before_end == 0)
        return status;
    int owner = (int)((plan->leaves - before_end) / plan->leaves_per_process);
    return lks_group_broadcast(t->config.group, found, sizeof *found, LKS_U8, owner);
}

/* --- causes --- */

typedef struct scene {
    const lks_plan *plan;
    double lr;            /* of the step; of a run that has ended the largest */
    bool early;           /* in the first epoch; a run that has ended has had it */
    double largest_input; /* of the step's samples, absolute */

    /* NULL for a run that has ended */
    const lks__position *position;
    const lks__step_result *result;
    const finding *found;
} scene;

typedef long long ll; /* what %lld wants */

static bool has_bad_samples(const scene *s)
{
    return !isfinite(s->largest_input);
}

static void tell_bad_samples(const scene *s, size_t bytes, char *out)
{
    (void)s;
    lks__append(out, bytes, "the samples have values that are not finite");
}

static bool is_summed(const scene *s)
{
    return s->plan->reduction == LKS_REDUCTION_SUM && s->plan->leaves > 1;
}

static void tell_summed(const scene *s, size_t bytes, char *out)
{
    lks__append(
        out, bytes,
        "gradients are summed over the %lld leaves of a step: an update is %lld times as large as with their "
        "mean, and the learning rate is not lowered for it (reduction=mean)",
        (ll)s->plan->leaves, (ll)s->plan->leaves);
}

static bool is_out_of_range(const scene *s)
{
    return !(s->largest_input <= 100.0);
}

static void tell_out_of_range(const scene *s, size_t bytes, char *out)
{
    lks__append(out, bytes,
                "the samples have values up to %.4g, where values around 1 are usual (data.normalize)",
                s->largest_input);
}

static bool is_scaled_at_once(const scene *s)
{
    return s->plan->scaled_lr > s->plan->base_lr && s->plan->warmup_samples <= 0 && s->early;
}

static void tell_scaled_at_once(const scene *s, size_t bytes, char *out)
{
    lks__append(out, bytes,
                "the learning rate is scaled by %.4g from the first step on, when the model changes fastest "
                "(lr.warmup_epochs)",
                s->plan->scaled_lr / s->plan->base_lr);
}

static bool is_above_reference(const scene *s)
{
    double most = s->plan->base_lr * (s->plan->kappa > 1.0 ? s->plan->kappa : 1.0);
    bool small_batch = s->plan->lr_rule == LKS_LR_NONE && s->plan->kappa < 1.0;
    return s->plan->reference_batch > 0 && (small_batch || s->lr > most * (1.0 + 1e-12));
}

static void tell_above_reference(const scene *s, size_t bytes, char *out)
{
    lks__append(out, bytes,
                "the learning rate was tuned for a batch of %lld, and this one has %lld: in proportion it "
                "would be %.4g "
                "(lr.rule=linear)",
                (ll)s->plan->reference_batch, (ll)s->plan->global_batch, s->plan->base_lr * s->plan->kappa);
}

/* The classic causes, the surest first. */
static const struct {
    bool (*fits)(const scene *scene);
    void (*tell)(const scene *scene, size_t bytes, char *out);
} causes[] = {
    {has_bad_samples, tell_bad_samples},        {is_summed, tell_summed},
    {is_out_of_range, tell_out_of_range},       {is_scaled_at_once, tell_scaled_at_once},
    {is_above_reference, tell_above_reference},
};

/* --- telling --- */

enum { TEXT_BYTES = 1800 };

static void tell_what(const scene *s, char *out)
{
    double loss = s->result->loss_sum / (double)s->result->samples;
    bool high = s->position->watch.high_steps >= LKS__WATCH_HIGH_STEPS;
    lks__append(out, TEXT_BYTES, "step %lld (epoch %lld, sample %lld): ", (ll)s->position->step + 1,
                (ll)s->position->epoch + 1, (ll)s->position->samples);
    if (s->result->trouble == LKS__TROUBLE_DIVERGES)
        lks__append(out, TEXT_BYTES, "the run diverges: for %d steps %s",
                    high ? LKS__WATCH_HIGH_STEPS : LKS__WATCH_GUESS_STEPS,
                    high ? "or more, nearly all of them, the loss has been high"
                         : "the model has been no better than a guess");
    else
        lks__append(out, TEXT_BYTES, "the %s is not finite",
                    s->result->trouble == LKS__TROUBLE_LOSS ? "loss" : "gradient");
    if (s->position->watch.skipped_steps > 1.0)
        lks__append(out, TEXT_BYTES, ", for %d steps in a row", (int)s->position->watch.skipped_steps);
    /* a NaN without a sign */
    lks__append(out, TEXT_BYTES, " (loss %g, learning rate %g)", isnan(loss) ? (double)NAN : loss,
                s->result->lr);
}

static void tell_where(const scene *s, char *out)
{
    const finding *f = s->found;
    if (f->first_leaf < 0 && s->result->trouble == LKS__TROUBLE_GRADIENT)
        lks__append(out, TEXT_BYTES,
                    "\n  leaf           none alone: their gradients are finite, the sum is not");
    if (f->first_leaf < 0)
        return;
    if (f->first_leaf == f->last_leaf)
        lks__append(out, TEXT_BYTES, "\n  leaf           %lld of %lld", (ll)f->first_leaf,
                    (ll)s->plan->leaves);
    else
        lks__append(out, TEXT_BYTES, "\n  leaf           one of %lld to %lld, of %lld", (ll)f->first_leaf,
                    (ll)f->last_leaf, (ll)s->plan->leaves);
    for (int64_t i = 0; i < f->n_samples && i < LISTED; i++)
        lks__append(out, TEXT_BYTES, "%s%lld", i == 0 ? "\n  its samples    " : ", ", (ll)f->samples[i]);
    if (f->n_samples > LISTED)
        lks__append(out, TEXT_BYTES, ", ... (%lld)", (ll)f->n_samples);
    if (f->value[0] != '\0')
        lks__append(out, TEXT_BYTES, "\n  first shows in %s", f->value);
}

static void tell_running(const char *label, double now, const lks__running *before, char *out)
{
    if (before->weight < 1.0)
        return;
    lks__append(out, TEXT_BYTES, "\n  %-14s ", label);
    if (isfinite(now))
        lks__append(out, TEXT_BYTES, "%.4g; ", now);
    lks__append(out, TEXT_BYTES, "before: %.4g, deviation %.2g", before->mean, sqrt(before->variance));
    if (isfinite(now) && before->variance > 0)
        lks__append(out, TEXT_BYTES, " (%+.1f of them)", (now - before->mean) / sqrt(before->variance));
}

static void tell_rate(const scene *s, char *out)
{
    const lks_plan *p = s->plan;
    static const char *const rules[] = {[LKS_LR_NONE] = "not scaled", [LKS_LR_LINEAR] = "rule linear",
                                        [LKS_LR_SQRT] = "rule sqrt",  [LKS_LR_ADAM_SQRT] = "rule adam-sqrt",
                                        [LKS_LR_LEGW] = "rule legw",  [LKS_LR_ADASCALE] = "rule adascale"};
    lks__append(out, TEXT_BYTES, "\n  learning rate  %.4g, as planned: base %.4g, scaled %.4g (%s",
                s->result->lr, p->base_lr, p->scaled_lr, rules[p->lr_rule]);
    if (p->reference_batch > 0)
        lks__append(out, TEXT_BYTES, ", batch %lld for %lld", (ll)p->global_batch, (ll)p->reference_batch);
    if (p->warmup_samples > 0)
        lks__append(out, TEXT_BYTES, "), warm-up %s",
                    s->position->clock < p->warmup_samples ? "going on" : "over");
    else
        lks__append(out, TEXT_BYTES, "), no warm-up");
}

/* Returns whether a classic cause fits. label: what stands before it. */
static bool tell_cause(const scene *s, const char *label, char *out)
{
    for (size_t i = 0; i < sizeof causes / sizeof causes[0]; i++)
        if (causes[i].fits(s)) {
            lks__append(out, TEXT_BYTES, "%s", label);
            causes[i].tell(s, TEXT_BYTES, out);
            return true;
        }
    return false;
}

/* Whether the steps that have gone wrong began in the first epoch. */
static bool began_early(const lks_plan *plan, const lks__position *position, const lks__step_result *result)
{
    const lks__watch *watch = &position->watch;
    double steps = fmax(1.0, watch->skipped_steps);
    if (result->trouble == LKS__TROUBLE_DIVERGES)
        steps = fmax(watch->high_steps, watch->guess_steps);
    return (double)position->step + 1.0 - steps < (double)plan->steps_per_epoch;
}

lks_status lks__diagnose(lks_trainer *t, const lks__position *position, const lks__step_result *result)
{
    finding found;
    char text[TEXT_BYTES] = "";
    scene s = {.plan = t->config.plan,
               .lr = result->lr,
               .early = began_early(t->config.plan, position, result),
               .position = position,
               .result = result,
               .found = &found};
    lks_status status = find(t, position, result, &found);
    if (status == LKS_OK)
        status = find_largest_input(t, position, &s.largest_input);
    if (status != LKS_OK)
        return status;
    tell_what(&s, text);
    tell_where(&s, text);
    tell_rate(&s, text);
    tell_running("loss", result->loss_sum / (double)result->samples, &position->watch.loss, text);
    tell_running("gradient norm", result->grad_norm, &position->watch.grad_norm, text);
    bool known = tell_cause(&s, "\n  likely cause   ", text);
    status = lks__fail(LKS_E_NOT_FINITE, "%s", text);
    return known ? status
                 : lks__error_hint(status,
                                   "try a smaller learning rate, a warm-up (lr.warmup_epochs), or clip.norm");
}

lks_status lks__diagnose_test(lks_trainer *t, const lks__position *end, double lr)
{
    char text[TEXT_BYTES] = "";
    lks__position last = *end; /* the epoch's last step */
    scene s = {.plan = t->config.plan, .lr = lr, .early = end->epoch == 0};
    last.step_in_epoch--;
    lks_status status = find_largest_input(t, &last, &s.largest_input);
    if (status != LKS_OK)
        return status;
    lks__append(text, TEXT_BYTES, "the test loss after step %lld is not finite", (ll)end->step);
    (void)tell_cause(&s, "\n  likely cause   ", text);
    return lks__fail(LKS_E_NOT_FINITE, "%s", text);
}

enum { LEAST_STEPS = 100 }; /* of fewer steps nobody expects much */

lks_status lks__guard_end(lks_trainer *t, const lks__position *end, double train_loss)
{
    double guess = lks__loss_of_guess((double)lks__network_n_classes(t->network));
    char text[TEXT_BYTES] = "";
    lks__position last = *end; /* the run's last step */
    scene s = {.plan = t->config.plan, .lr = t->config.plan->scaled_lr, .early = true};
    last.step_in_epoch--;
    if (guess == 0.0 || end->step < LEAST_STEPS || !(train_loss >= LKS__WATCH_GUESS_PART * guess))
        return LKS_OK;
    lks_status status = find_largest_input(t, &last, &s.largest_input);
    if (status != LKS_OK || t->rank != 0 || t->config.note == NULL)
        return status;
    lks__append(text, TEXT_BYTES,
                "the run has ended no better than a guess (train loss %.2f; a guess has %.2f)", train_loss,
                guess);
    (void)tell_cause(&s, "; likely cause: ", text);
    t->config.note(t->config.progress_context, text);
    return LKS_OK;
}
