/* SPDX-License-Identifier: Apache-2.0 */
/** The plan as a table for people: what, how much, and how that comes about. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "conf/options.h"
#include "plan/epoch.h"
#include "plan/plan_check.h"
#include "plan/plan_warnings.h"

typedef long long ll; /* what %lld wants */

enum { MAX_ROWS = 32, VALUE_BYTES = 32, HOW_BYTES = 160 };

typedef struct row {
    const char *label; /* NULL: an empty line */
    char value[VALUE_BYTES];
    char how[HOW_BYTES];
} row;

typedef struct table {
    row rows[MAX_ROWS];
    int n_rows;
} table;

static void add_row(table *t, const char *label, const char *value, const char *how_format, ...)
    LKS_PRINTF(4, 5);

static void add_row(table *t, const char *label, const char *value, const char *how_format, ...)
{
    row *added = &t->rows[t->n_rows++];
    va_list args;
    added->label = label;
    snprintf(added->value, sizeof added->value, "%s", value);
    va_start(args, how_format);
    vsnprintf(added->how, sizeof added->how, how_format, args);
    va_end(args);
}

static void add_gap(table *t)
{
    t->rows[t->n_rows++] = (row){0};
}

static const char *count(int64_t value, char out[VALUE_BYTES])
{
    snprintf(out, VALUE_BYTES, "%lld", (ll)value);
    return out;
}

static const char *rate(double value, char out[VALUE_BYTES])
{
    snprintf(out, VALUE_BYTES, "%.6g", value);
    return out;
}

static void add_batch(table *t, const lks_plan *p)
{
    char v[VALUE_BYTES];
    add_row(t, "training samples", count(p->n_samples, v), "%s", "");
    add_row(t, "processes", count(p->processes, v), "%s", "");
    if (p->processes == 1)
        add_row(t, "world", count(p->world, v), "worker%s", p->world == 1 ? "" : "s, one after the other");
    else
        add_row(t, "world", count(p->world, v), "workers, %lld on each process",
                (ll)(p->world / p->processes));
    add_row(t, "local batch", count(p->local_batch, v), "sample%s in one forward and backward pass",
            lks__plural(p->local_batch));
    add_row(t, "accumulation", count(p->accumulate, v), "pass%s of each worker in a step",
            p->accumulate == 1 ? "" : "es");
    add_row(t, "effective batch", count(p->global_batch, v), "= %lld x %lld worker%s x %lld",
            (ll)p->local_batch, (ll)p->world, lks__plural(p->world), (ll)p->accumulate);
}

static void add_epoch(table *t, const lks_plan *p)
{
    char v[VALUE_BYTES];
    ll n = (ll)p->n_samples, batch = (ll)p->global_batch;
    int64_t beyond = p->samples_per_epoch - p->n_samples; /* repeated, or negative: left out */
    if (beyond < 0)
        add_row(t, "steps per epoch", count(p->steps_per_epoch, v),
                "= floor(%lld / %lld); %lld sample%s left out (tail drop)", n, batch, (ll)-beyond,
                lks__plural(-beyond));
    else if (beyond > 0)
        add_row(t, "steps per epoch", count(p->steps_per_epoch, v),
                "= ceil(%lld / %lld); %lld sample%s repeated (tail pad)", n, batch, (ll)beyond,
                lks__plural(beyond));
    else
        add_row(t, "steps per epoch", count(p->steps_per_epoch, v), "= ceil(%lld / %lld)", n, batch);
    add_row(t, "samples in last step", count(p->last_step_samples, v), "of an epoch%s",
            p->last_step_samples < p->global_batch ? ": those that are left" : "");
}

/* Where the run goes on, and what is left of that epoch. */
static void add_origin(table *t, const lks_plan *p)
{
    char v[VALUE_BYTES];
    const lks_plan_origin *o = &p->origin;
    lks__epochs epochs = lks__plan_epochs(p);
    ll left = (ll)(p->n_samples - o->offset);
    add_row(t, "steps taken before", count(o->step, v), "with %lld sample%s", (ll)o->samples,
            lks__plural(o->samples));
    add_row(t, "left of the epoch", count(epochs.first.steps, v),
            "step%s = %s(%lld / %lld), to the end of epoch %lld", lks__plural(epochs.first.steps),
            p->tail == LKS_TAIL_DROP ? "floor" : "ceil", left, (ll)p->global_batch, (ll)o->epoch + 1);
}

/* "= 50 x 3 epochs", "= 70 + 12 + 50 x 3 epochs": what was before, what is left of that epoch, and the
 * others. */
static void add_total(table *t, const char *label, int64_t total, int64_t before, int64_t left, int64_t each)
{
    char v[VALUE_BYTES], sum[2 * VALUE_BYTES] = "";
    int64_t epochs = (total - before - left) / each;
    if (before > 0 && epochs == 0) {
        add_row(t, label, count(total, v), "= %lld + %lld", (ll)before, (ll)left);
        return;
    }
    if (before > 0)
        snprintf(sum, sizeof sum, "%lld + %lld + ", (ll)before, (ll)left);
    else
        epochs++; /* the first one is as whole as the others */
    add_row(t, label, count(total, v), "= %s%lld x %lld epoch%s", sum, (ll)each, (ll)epochs,
            lks__plural(epochs));
}

static void add_length(table *t, const lks_plan *p)
{
    char v[VALUE_BYTES];
    if (p->lr_rule == LKS_LR_ADASCALE) {
        add_row(t, "total steps", count(p->total_steps, v), "at most: when every gain is 1");
        add_row(t, "total progress", count(p->samples, v), "samples of the reference batch: %.4g epochs",
                p->epochs);
        return;
    }
    lks__epochs epochs = lks__plan_epochs(p);
    int64_t later = p->samples - p->origin.samples - epochs.first.positions; /* than the first epoch */
    if (later < 0 || later % p->samples_per_epoch != 0) {
        add_row(t, "total steps", count(p->total_steps, v), "= %.4g epochs", p->epochs);
        add_row(t, "total samples", count(p->samples, v), "%s", "");
        return;
    }
    add_total(t, "total steps", p->total_steps, p->origin.step, epochs.first.steps, p->steps_per_epoch);
    add_total(t, "total samples", p->samples, p->origin.samples, epochs.first.positions,
              p->samples_per_epoch);
}

static void add_scaled_rate(table *t, const lks_plan *p)
{
    char v[VALUE_BYTES];
    const char *rule = lks__option_word("lr.rule", (int)p->lr_rule);
    rate(p->scaled_lr, v);
    if (p->lr_rule == LKS_LR_ADASCALE)
        add_row(t, "scaled rate", v, "x gain, up to %.6g, which is measured (rule %s: %lld / %lld)", p->kappa,
                rule, (ll)p->global_batch, (ll)p->reference_batch);
    else if (p->lr_rule == LKS_LR_NONE)
        add_row(t, "scaled rate", v, "not scaled (rule none)");
    else
        add_row(t, "scaled rate", v, "= %.6g x %.6g (rule %s: %s%lld / %lld)", p->base_lr,
                p->scaled_lr / p->base_lr, rule, p->lr_rule == LKS_LR_LINEAR ? "" : "square root of ",
                (ll)p->global_batch, (ll)p->reference_batch);
}

/* The settings of Adam that the rule scales, and how they come from those that were given. */
static void add_adam(table *t, const lks_plan *p)
{
    char v[VALUE_BYTES];
    const lks_optimizer_config *adam = &p->optimizer;
    const double betas[] = {adam->beta1, adam->beta2};
    const char *const labels[] = {"scaled beta1", "scaled beta2"};
    for (int i = 0; i < 2; i++)
        add_row(t, labels[i], rate(betas[i], v), "= 1 - %.6g x (1 - %.6g)", p->kappa,
                1.0 - (1.0 - betas[i]) / p->kappa);
    add_row(t, "scaled epsilon", rate(adam->epsilon, v), "= %.6g / %.6g", adam->epsilon * sqrt(p->kappa),
            sqrt(p->kappa));
}

static void add_warmup(table *t, const lks_plan *p)
{
    char v[VALUE_BYTES];
    count(p->warmup_steps, v);
    if (p->warmup_samples <= 0)
        add_row(t, "warm-up steps", v, "%s", "");
    else if (p->warmup == LKS_WARMUP_CONSTANT)
        add_row(t, "warm-up steps", v, "= ceil(%.15g / %lld), at %.6g, then %.6g", p->warmup_samples,
                (ll)p->global_batch, p->base_lr, p->scaled_lr);
    else
        add_row(t, "warm-up steps", v, "= ceil(%.15g / %lld), from %.6g to %.6g", p->warmup_samples,
                (ll)p->global_batch, p->warmup_from == LKS_WARMUP_FROM_ZERO ? 0.0 : p->base_lr, p->scaled_lr);
}

/* What the schedule does, in words. */
static void describe_schedule(const lks_plan *p, char *out, size_t bytes)
{
    const lks_schedule *s = &p->schedule;
    switch (s->kind) {
    case LKS_SCHEDULE_CONSTANT:
        snprintf(out, bytes, "%s", "");
        return;
    case LKS_SCHEDULE_COSINE:
    case LKS_SCHEDULE_LINEAR:
        snprintf(out, bytes, "down to %.6g at the end of the run", p->scaled_lr * s->end_factor);
        return;
    case LKS_SCHEDULE_POLYNOMIAL:
        snprintf(out, bytes, "down to 0 at the end of the run, power %.6g", s->power);
        return;
    case LKS_SCHEDULE_STEP:
        snprintf(out, bytes, "x %.6g every %lld epoch%s", s->gamma, (ll)s->step_epochs,
                 lks__plural(s->step_epochs));
        return;
    case LKS_SCHEDULE_MULTISTEP:
        snprintf(out, bytes, "x %.6g at %lld milestone%s, from epoch %lld to %lld", s->gamma,
                 (ll)s->n_milestones, lks__plural(s->n_milestones), (ll)s->milestones[0],
                 (ll)s->milestones[s->n_milestones - 1]);
        return;
    case LKS_SCHEDULE_EXPONENTIAL:
        snprintf(out, bytes, "x %.6g after every epoch", s->gamma);
        return;
    }
}

static void add_rate(table *t, const lks_plan *p)
{
    char v[VALUE_BYTES], tuned[60] = "", schedule[HOW_BYTES];
    if (p->reference_batch > 0)
        snprintf(tuned, sizeof tuned, "tuned for an effective batch of %lld", (ll)p->reference_batch);
    add_row(t, "base learning rate", rate(p->base_lr, v), "%s", tuned);
    add_scaled_rate(t, p);
    if (p->lr_rule == LKS_LR_ADAM_SQRT)
        add_adam(t, p);
    add_warmup(t, p);
    describe_schedule(p, schedule, sizeof schedule);
    add_row(t, "schedule", lks__option_word("lr.schedule", (int)p->schedule.kind), "%s", schedule);
}

static void add_memory(table *t, const lks_plan *p)
{
    const lks_plan_memory *m = &p->memory;
    char v[LKS__SIZE_BYTES], a[LKS__SIZE_BYTES], b[LKS__SIZE_BYTES], c[LKS__SIZE_BYTES], d[LKS__SIZE_BYTES];
    if (m->parameters == 0)
        return;
    add_gap(t);
    add_row(t, "memory, process", lks__size_text(lks_plan_process_bytes(p), v),
            "gradients %s, activations %s, data %s, other %s", lks__size_text(m->gradients, a),
            lks__size_text(m->activations, b), lks__size_text(m->data, c),
            lks__size_text(m->other + m->checkpoint, d));
    add_row(t, "memory, machine", lks__size_text(lks_plan_machine_bytes(p), v),
            "all processes, and once: parameters %s, optimizer %s", lks__size_text(m->parameters, a),
            lks__size_text(m->optimizer, b));
    if (p->processes > 1)
        add_row(t, "reduced per step", lks__size_text(p->reduced_bytes, v), "%s",
                "of gradients, which the processes add up");
}

static void add_result(table *t, const lks_plan *p)
{
    ll leaves = (ll)p->leaves_per_process;
    add_row(t, "reduction", lks__option_word("reduction", (int)p->reduction), "%s",
            p->reduction == LKS_REDUCTION_MEAN ? "over all samples of a step"
                                               : "of the means of local batches");
    if (p->processes == 1)
        add_row(t, "same bits", "yes", "as on several processes");
    else if (p->same_bits)
        add_row(t, "same bits", "yes", "as on one process");
    else if (p->fast)
        add_row(t, "same bits", "no", "agrees to rounding only: comm.fast");
    else
        add_row(t, "same bits", "no", "agrees to rounding only: %lld passes per process, no power of two",
                leaves);
}

static void print_rows(const table *t, lks__text *text)
{
    int label_width = 0, value_width = 0;
    for (int i = 0; i < t->n_rows; i++) {
        const row *r = &t->rows[i];
        int label = r->label != NULL ? (int)strlen(r->label) : 0, value = (int)strlen(r->value);
        label_width = label > label_width ? label : label_width;
        value_width = value > value_width ? value : value_width;
    }
    for (int i = 0; i < t->n_rows; i++) {
        const row *r = &t->rows[i];
        if (r->label == NULL)
            lks__text_add(text, "\n");
        else
            lks__text_add(text, "  %-*s  %*s%s%s\n", label_width, r->label, value_width, r->value,
                          r->how[0] != '\0' ? "  " : "", r->how);
    }
}

static void print_remarks(const lks_plan *plan, lks__text *text)
{
    lks__plan_add_warnings(1, plan, text);
    if (plan->processes_chosen && plan->world == 1)
        lks__text_add(text, "\nhint: this is a plan for one process; -n N plans for N\n");
}

lks_status lks_plan_to_text(const lks_plan *plan, char **out)
{
    table t = {0};
    lks__text text = {0};
    *out = NULL;
    lks_status status = lks__plan_check(plan);
    if (status != LKS_OK)
        return status;
    add_batch(&t, plan);
    add_gap(&t);
    add_epoch(&t, plan);
    if (plan->origin.step > 0)
        add_origin(&t, plan);
    add_length(&t, plan);
    add_gap(&t);
    add_rate(&t, plan);
    add_gap(&t);
    add_result(&t, plan);
    add_memory(&t, plan);
    print_rows(&t, &text);
    print_remarks(plan, &text);
    return lks__text_take(&text, out);
}
