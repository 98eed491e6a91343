/* SPDX-License-Identifier: Apache-2.0 */
#include "train/guard.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/error.h"
#include "train/checkpoint_writer.h"
#include "train/copies.h"
#include "train/resume.h"

enum { MOST_ROLLBACKS = 3 }; /* to one checkpoint */

static const char *const troubles[] = {
    [LKS__TROUBLE_LOSS] = "the loss is not finite",
    [LKS__TROUBLE_GRADIENT] = "the gradient is not finite",
    [LKS__TROUBLE_DIVERGES] = "the run diverges",
};

/* For metrics.jsonl. */
static void record(lks_trainer *t, const lks__position *position, lks__trouble trouble, const char *action)
{
    const lks__trouble_metrics metrics = {.step = position->step + 1,
                                          .samples = position->samples,
                                          .epoch = position->epoch,
                                          .trouble = troubles[trouble],
                                          .action = action};
    if (t->run_dir != NULL)
        lks__run_dir_log_trouble(t->run_dir, &metrics);
}

/* The run goes on: for the user, too. */
static void tell(lks_trainer *t, const lks__position *position, lks__trouble trouble, const char *action)
{
    char text[256];
    record(t, position, trouble, action);
    snprintf(text, sizeof text, "step %" PRId64 ": %s; %s", position->step + 1, troubles[trouble], action);
    if (t->rank == 0 && t->config.note != NULL)
        t->config.note(t->config.progress_context, text);
}

static lks_status stop(lks_trainer *t, lks__position *position, lks__step_result *result)
{
    record(t, position, result->trouble, "the run ends");
    if (t->run_dir != NULL)
        (void)!lks__run_dir_flush(t->run_dir); /* the trouble is worse than a full disk */
    return lks__diagnose(t, position, result);
}

/* No sign yet that the run will not come back by itself. */
static bool is_calm(const lks__watch *watch)
{
    return watch->high_steps == 0.0 && watch->guess_steps == 0.0;
}

bool lks__guard_wants_checkpoint(const lks_trainer *t, const lks__position *position,
                                 const lks__step_result *result)
{
    return t->config.on_divergence != LKS_DIVERGENCE_ROLLBACK ||
           (result->trouble == LKS__TROUBLE_NONE && is_calm(&position->watch));
}

/* The newest of these checkpoints that is whole, and from before the run began to go wrong. */
static lks_status find_calm(const lks_trainer *t, int n, const int64_t *steps, char **path,
                            lks__position *from)
{
    bool wild = false;
    for (int i = 0; i < n; i++) {
        char name[LKS__CHECKPOINT_NAME_BYTES];
        lks__checkpoint_name(steps[i], name);
        if ((*path = lks__run_dir_path(t->run_dir, name)) == NULL)
            return LKS_E_NOMEM;
        lks_status status = lks__checkpoint_look(t, *path, from);
        if (status == LKS_OK && is_calm(&from->watch))
            return LKS_OK;
        lks__free(*path);
        *path = NULL;
        if (status == LKS_E_NOMEM)
            return status;
        if (status == LKS_OK)
            wild = true;
        else
            lks__tell_passed_over(t->config.note, t->config.progress_context);
    }
    return lks__fail(LKS_E_NOT_FOUND, "there is no checkpoint %sto go back to",
                     wild ? "from before the loss went up " : "");
}

/* A checkpoint that has led to trouble again and again is not tried for ever. */
static lks_status count_rollback(lks_trainer *t, int64_t step)
{
    t->rollbacks = step == t->rolled_back_to ? t->rollbacks + 1 : 1;
    t->rolled_back_to = step;
    if (t->rollbacks <= MOST_ROLLBACKS)
        return LKS_OK;
    return lks__fail(LKS_E_ARG, "going back to the checkpoint of step %" PRId64 " has not helped, %d times",
                     step, MOST_ROLLBACKS);
}

/* Rank 0's part of going back. *from: where the checkpoint stands. Whatever can be refused is refused before
 * a parameter changes: what went wrong is looked for with those that are there. */
static lks_status load_calm_checkpoint(lks_trainer *t, lks__position *from)
{
    int n;
    int64_t *steps;
    char *path = NULL;
    if (t->run_dir == NULL)
        return lks__fail(LKS_E_ARG, "there is no run directory with a checkpoint to go back to");
    lks_status status = lks__checkpoint_writer_wait(t->writer); /* it may be the one to go back to */
    if (status == LKS_OK)
        status = lks__run_dir_list_checkpoints(t->config.output_path, &n, &steps);
    if (status != LKS_OK)
        return status;
    status = find_calm(t, n, steps, &path, from);
    if (status == LKS_OK)
        status = count_rollback(t, from->step);
    if (status == LKS_OK)
        status = lks__checkpoint_load_values(t, path);
    lks__free(path);
    lks__free(steps);
    return status;
}

/* Parameters, optimizer state and what has been learnt of losses and gradients are the checkpoint's again;
 * the position goes on, so the samples since then are passed over. */
static lks_status roll_back(lks_trainer *t, lks__position *position, lks__step_result *result)
{
    lks__position from = {0};
    char action[96], why[512];
    lks_status status = lks__agree(t->config.group, t->rank == 0 ? load_calm_checkpoint(t, &from) : LKS_OK);
    if (status != LKS_OK) {
        snprintf(why, sizeof why, "%s", lks_error_message());
        status = stop(t, position, result);
        return status == LKS_E_NOT_FINITE ? lks__error_hint(status, "%s", why) : status;
    }
    status = lks__copies_share(t, true);
    if (status == LKS_OK)
        status = lks_group_broadcast(t->config.group, &from, sizeof from, LKS_U8, 0);
    if (status != LKS_OK)
        return status;
    snprintf(action, sizeof action, "parameters are those of the checkpoint of step %" PRId64 " again",
             from.step);
    tell(t, position, result->trouble, action);
    position->updates = from.updates;
    position->watch = from.watch;
    result->gain_averages = from.gain;
    return LKS_OK;
}

static lks_status skip(lks_trainer *t, lks__position *position, lks__step_result *result)
{
    position->watch.skipped_steps += 1.0;
    if (result->trouble == LKS__TROUBLE_DIVERGES || position->watch.skipped_steps >= LKS__WATCH_SKIPPED_STEPS)
        return stop(t, position, result);
    tell(t, position, result->trouble, "the step is not taken");
    return LKS_OK;
}

typedef lks_status action_fn(lks_trainer *t, lks__position *position, lks__step_result *result);

static action_fn *const actions[] = {
    [LKS_DIVERGENCE_STOP] = stop,
    [LKS_DIVERGENCE_SKIP] = skip,
    [LKS_DIVERGENCE_ROLLBACK] = roll_back,
};

lks_status lks__guard_step(lks_trainer *t, lks__position *position, lks__step_result *result)
{
    if (result->trouble == LKS__TROUBLE_NONE) {
        position->updates++;
        lks__watch_add(&position->watch, (double)lks__network_n_classes(t->network),
                       result->loss_sum / (double)result->samples, result->grad_norm);
        if (lks__watch_diverges(&position->watch))
            result->trouble = LKS__TROUBLE_DIVERGES;
    }
    return result->trouble == LKS__TROUBLE_NONE ? LKS_OK
                                                : actions[t->config.on_divergence](t, position, result);
}
