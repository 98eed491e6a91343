/* SPDX-License-Identifier: Apache-2.0 */
/** Each sentence says what is so, why it matters, and whose finding that is. */
#include "plan/plan_warnings.h"

#include <stddef.h>
#include <string.h>

/* --- batch and rate --- */

static bool is_summed(const lks_plan *plan)
{
    return plan->reduction == LKS_REDUCTION_SUM && plan->leaves > 1;
}

static bool is_batch_ignored(const lks_plan *plan)
{
    return plan->lr_rule == LKS_LR_NONE && plan->kappa != 1.0 && !is_summed(plan);
}

static bool is_scaled_twice(const lks_plan *plan)
{
    return is_summed(plan) && plan->lr_rule != LKS_LR_NONE;
}

static bool is_summed_alone(const lks_plan *plan)
{
    return is_summed(plan) && plan->lr_rule == LKS_LR_NONE;
}

static bool is_scaled_at_once(const lks_plan *plan)
{
    return plan->scaled_lr > plan->base_lr && plan->warmup_samples <= 0;
}

static bool is_adam_linear(const lks_plan *plan)
{
    bool adam = plan->optimizer.kind == LKS_ADAM || plan->optimizer.kind == LKS_ADAMW;
    return adam && plan->lr_rule == LKS_LR_LINEAR && plan->kappa != 1.0;
}

static bool is_lamb_linear(const lks_plan *plan)
{
    return plan->optimizer.kind == LKS_LAMB && plan->lr_rule == LKS_LR_LINEAR && plan->kappa != 1.0;
}

static bool is_adam_adascale(const lks_plan *plan)
{
    bool is_sgd = plan->optimizer.kind == LKS_SGD || plan->optimizer.kind == LKS_LARS;
    return !is_sgd && plan->lr_rule == LKS_LR_ADASCALE;
}

static bool is_warmup_endless(const lks_plan *plan)
{
    return plan->warmup_samples >= (double)plan->samples;
}

/* --- batch and data --- */

static bool is_never_full(const lks_plan *plan)
{
    return plan->global_batch > plan->samples_per_epoch;
}

static bool is_batch_huge(const lks_plan *plan)
{
    return plan->global_batch > plan->n_samples / 10 && !is_never_full(plan);
}

static bool are_updates_few(const lks_plan *plan)
{
    return plan->kappa > 1.0 && plan->total_steps < 1000;
}

static bool is_last_step_tiny(const lks_plan *plan)
{
    return 10 * plan->last_step_samples < plan->global_batch && plan->steps_per_epoch > 1;
}

/* --- processes --- */

static bool are_bits_different(const lks_plan *plan)
{
    return !plan->same_bits && !plan->fast;
}

static bool is_order_up_to_mpi(const lks_plan *plan)
{
    return !plan->same_bits && plan->fast;
}

/* Stands in a sentence for kappa, how many times the reference batch the effective one is. */
#define KAPPA "<kappa>"

static const struct {
    bool (*holds)(const lks_plan *plan);
    const char *sentence;
} warnings[] = {
    {is_scaled_twice, "with reduction sum, updates grow with the batch already; the rate's rule scales them "
                      "twice (Goyal et al. "
                      "2017, remark 3)"},
    {is_summed_alone,
     "with reduction sum, the gradients of a step's local batches are added up: every further worker makes "
     "updates larger, without a warm-up, until a run falls apart (Goyal et al. 2017, remark 3; "
     "docs/experiments.md); reduction mean with lr.rule linear says so, and can be warmed up"},
    {is_batch_ignored,
     "the effective batch is " KAPPA " times the reference batch, but the rate is not scaled (lr.rule none): "
     "in Goyal et al. 2017, table 2, 32 times the batch at the same rate had an error of 41.7 % instead of "
     "23.6 %"},
    {is_scaled_at_once,
     "the rate is scaled up without a warm-up (lr.warmup_epochs): it is too large for the first, quickly "
     "changing updates; in Goyal et al. 2017, table 1, it ended 1.1 points of error behind a gradual one"},
    {is_adam_linear,
     "the rule linear is for SGD: Adam divides by the size of gradients, and its rate goes with the square "
     "root of the batch (Malladi et al. 2022; Granziol et al. 2020): lr.rule adam-sqrt or sqrt"},
    {is_lamb_linear, "the rule linear is for SGD: LAMB gives every tensor's update a size of its own, and "
                     "its authors scale the rate "
                     "with the square root of the batch (You et al. 2019): lr.rule sqrt"},
    {is_adam_adascale, "the rule adascale is for SGD, with or without momentum: its gain is about steps in "
                       "the direction of the "
                       "gradient (Johnson et al. 2020)"},
    {is_never_full,
     "the effective batch is more than an epoch has samples: every step takes the few that there are"},
    {is_batch_huge,
     "the effective batch is more than a tenth of the training set: an epoch has few updates; the largest "
     "batch without loss in Goyal et al. 2017, 8192, is less than a hundredth of theirs"},
    {are_updates_few,
     "the larger batch leaves fewer than a thousand updates in all: results often get worse for their number "
     "alone (Hoffer et al. 2017); more epochs make up for it"},
    {is_last_step_tiny,
     "the last step of an epoch has less than a tenth of the effective batch, and so more than ten times the "
     "noise in its gradient (McCandlish et al. 2018), at the same rate; data.tail drop leaves it out"},
    {is_warmup_endless,
     "the warm-up is as long as the run, or longer: the schedule after it is never reached"},
    {are_bits_different,
     "on this number of processes the run agrees with other numbers to rounding only: the passes of a "
     "process "
     "in a step are no power of two, so gradients are added in another order (docs/numerics.md)"},
    {is_order_up_to_mpi,
     "with comm.fast gradients are added between machines in the MPI library's order: on other "
     "machines the run agrees to rounding only (docs/clusters.md)"},
};

enum { N_WARNINGS = sizeof warnings / sizeof warnings[0], LINE_WIDTH = 98, LIST_BYTES = 400 };

/* The kappas of the plans that the warning is about, "2, 4, 8". */
static void list_kappas(int warning, int n, const lks_plan *plans, char out[LIST_BYTES])
{
    out[0] = '\0';
    for (int i = 0; i < n; i++)
        if (warnings[warning].holds(&plans[i]))
            lks__append(out, LIST_BYTES, "%s%.4g", out[0] == '\0' ? "" : ", ", plans[i].kappa);
}

/* Adds the warning's sentence to `out`. */
static void add_sentence(int warning, int n, const lks_plan *plans, char out[LKS__WARNING_BYTES])
{
    const char *sentence = warnings[warning].sentence, *place = strstr(sentence, KAPPA);
    char kappas[LIST_BYTES];
    if (place == NULL) {
        lks__append(out, LKS__WARNING_BYTES, "%s", sentence);
        return;
    }
    list_kappas(warning, n, plans, kappas);
    lks__append(out, LKS__WARNING_BYTES, "%.*s%s%s", (int)(place - sentence), sentence, kappas,
                place + strlen(KAPPA));
}

bool lks__plan_warning(const lks_plan *plan, int index, char out[LKS__WARNING_BYTES])
{
    for (int i = 0; i < N_WARNINGS; i++)
        if (warnings[i].holds(plan) && index-- == 0) {
            out[0] = '\0';
            add_sentence(i, 1, plan, out);
            return true;
        }
    return false;
}

/* The beginning of a warning's line: "warning: ", "warning, world 8, 16: "; "" when it holds for none. */
static void describe_where(int warning, int n, const lks_plan *plans, char out[LKS__WARNING_BYTES])
{
    out[0] = '\0';
    for (int i = 0; i < n; i++)
        if (warnings[warning].holds(&plans[i]) && n > 1)
            lks__append(out, LKS__WARNING_BYTES, "%s%lld", out[0] == '\0' ? "warning, world " : ", ",
                        (long long)plans[i].world);
        else if (warnings[warning].holds(&plans[i]))
            lks__append(out, LKS__WARNING_BYTES, "warning");
    if (out[0] != '\0')
        lks__append(out, LKS__WARNING_BYTES, ": ");
}

void lks__plan_add_warnings(int n, const lks_plan *plans, lks__text *text)
{
    const char *gap = "\n";
    for (int i = 0; i < N_WARNINGS; i++) {
        char line[LKS__WARNING_BYTES];
        describe_where(i, n, plans, line);
        if (line[0] == '\0')
            continue;
        add_sentence(i, n, plans, line);
        lks__text_add(text, "%s", gap);
        lks__text_add_wrapped(text, LINE_WIDTH, 0, line);
        gap = "";
    }
}
