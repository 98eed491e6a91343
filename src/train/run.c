/* SPDX-License-Identifier: Apache-2.0 */
/* The loop of a run: steps, epochs, what is written and reported. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/machine.h"
#include "plan/epoch.h"
#include "train/checkpoint_rules.h"
#include "train/checkpoint_writer.h"
#include "train/copies.h"
#include "train/guard.h"
#include "train/trainer.h"

/* How far a run is, and what the epoch has added up. */
typedef struct run {
    lks__position position;
    int64_t started_ns;
    double step_seconds;  /* training steps only, since started_ns */
    int64_t epoch_before; /* samples of this epoch before started_ns */
    double epoch_step_seconds;
    lks_train_result result;
} run;

static void tell_damage(const lks_trainer *t)
{
    char damage[LKS__DAMAGE_BYTES], text[LKS__DAMAGE_BYTES + 1024];
    if (lks__run_dir_damage(t->run_dir, damage)[0] == '\0' || t->config.note == NULL)
        return;
    snprintf(text, sizeof text, "%s is damaged: cut off %s", t->config.output_path, damage);
    t->config.note(t->config.progress_context, text);
}

/* The run goes on, perhaps with other settings: from here on they are the run's. */
static lks_status continue_run_dir(lks_trainer *t, const char *plan)
{
    lks_status status = lks__run_dir_continue(t->config.output_path, t->start.step, &t->run_dir);
    if (status == LKS_OK)
        tell_damage(t);
    if (status != LKS_OK || t->config.changes == NULL)
        return status;
    if (t->config.config_yaml != NULL)
        status = lks__run_dir_replace(t->run_dir, t->config.config_yaml, plan);
    const lks__change_metrics change = {t->start.step, t->start.samples, t->start.epoch, t->config.changes};
    lks__run_dir_log_change(t->run_dir, &change);
    return status;
}

static lks_status open_run_dir(lks_trainer *t)
{
    if (t->rank != 0 || t->config.output_path == NULL)
        return LKS_OK;
    char *plan = NULL;
    lks_status status = lks_plan_to_json(t->config.plan, &plan);
    if (status == LKS_OK && t->config.resume_path != NULL)
        status = continue_run_dir(t, plan);
    else if (status == LKS_OK)
        status = lks__run_dir_create(t->config.output_path, t->config.overwrite, t->config.config_yaml, plan,
                                     &t->run_dir);
    free(plan);
    return status;
}

static void log_step(lks_trainer *t, const run *r, const lks__step_result *step)
{
    if (t->run_dir == NULL)
        return;
    double n = (double)step->samples;
    lks__step_metrics metrics = {.step = r->position.step,
                                 .samples = r->position.samples,
                                 .epoch = r->position.epoch,
                                 .lr = step->lr,
                                 .loss = step->loss_sum / n,
                                 .accuracy = step->n_correct / n,
                                 .grad_norm = step->grad_norm,
                                 .seconds = lks__seconds_since(r->started_ns),
                                 .has_gain = t->config.plan->lr_rule == LKS_LR_ADASCALE,
                                 .gain = step->gain,
                                 .noise_scale = lks__noise_scale(&step->gain_averages)};
    lks__run_dir_log_step(t->run_dir, &metrics);
}

static lks_train_progress progress_of(const run *r, const lks__step_result *step)
{
    return (lks_train_progress){
        .step = r->position.step,
        .epoch = r->position.epoch,
        .step_in_epoch = r->position.step_in_epoch,
        .samples = r->position.samples,
        .loss = step->loss_sum / (double)step->samples,
        .lr = step->lr,
        .samples_per_second = r->epoch_step_seconds > 0
                                  ? (double)(r->position.epoch_samples - r->epoch_before) /
                                        r->epoch_step_seconds
                                  : 0,
        .train_loss = r->result.train_loss,
        .test_loss = NAN,
        .test_accuracy = NAN,
    };
}

static void report(const lks_trainer *t, const lks_train_progress *progress)
{
    if (t->config.progress != NULL)
        t->config.progress(t->config.progress_context, progress);
}

static bool is_time_over(const lks_trainer *t)
{
    return t->config.max_seconds > 0 && lks__seconds_since(t->created_ns) >= t->config.max_seconds;
}

/* A run that has reached its end anyway was not stopped. */
static void note_stop(const lks_trainer *t, run *r, const lks__step_result *step)
{
    if (lks__run_is_over(t->config.plan, &r->position))
        return;
    if (step->stop_signal != 0) {
        r->result.stopped = LKS_STOP_SIGNAL;
        r->result.stop_signal = step->stop_signal;
    } else if ((step->requests & LKS__REQUEST_END) != 0) {
        r->result.stopped = LKS_STOP_TIME;
    }
}

/* After so many steps; the last parameters of a run are hashed by its end. */
static bool is_hash_due(const lks_trainer *t, const lks__position *position)
{
    return position->step % t->config.hashes_every_steps == 0;
}

/* Mean over the samples of the steps that were taken. */
static double epoch_loss(const lks__position *p)
{
    return p->epoch_loss_sum / ((double)p->epoch_samples - p->epoch_skipped);
}

static void count_loss(run *r, const lks__step_result *step)
{
    bool taken = step->trouble == LKS__TROUBLE_NONE || step->trouble == LKS__TROUBLE_DIVERGES;
    r->position.epoch_loss_sum += taken ? step->loss_sum : 0.0;
    r->position.epoch_skipped += taken ? 0.0 : (double)step->samples;
    r->result.skipped_steps += !taken;
    r->result.train_loss = epoch_loss(&r->position);
}

/* Takes one step and moves the position behind it. */
static lks_status advance(lks_trainer *t, run *r, lks__step_result *step)
{
    int64_t taken = r->position.step + 1;
    bool with_metrics = taken % t->config.metrics_every_steps == 0 || taken == t->config.plan->total_steps;
    int64_t start = lks__now_ns();
    if (is_time_over(t))
        t->requests |= LKS__REQUEST_END;
    lks__checkpoint_request(t);
    lks_status status = lks__train_step(t, &r->position, with_metrics, step);
    if (status == LKS_OK)
        status = lks__guard_step(t, &r->position, step);
    if (status != LKS_OK)
        return status;
    double seconds = lks__seconds_since(start);
    if (r->position.step == t->start.step)
        r->result.first_step_seconds = lks__seconds_since(t->created_ns);

    r->position.step++;
    r->position.step_in_epoch++;
    r->position.samples += step->samples;
    r->position.clock += step->advance;
    r->position.gain = step->gain_averages;
    r->step_seconds += seconds;
    r->epoch_step_seconds += seconds;
    r->position.epoch_samples += step->samples;
    count_loss(r, step);
    note_stop(t, r, step);
    if (with_metrics && step->trouble == LKS__TROUBLE_NONE)
        log_step(t, r, step);
    if (!is_hash_due(t, &r->position))
        return LKS_OK;
    status = lks__copies_compare(t, r->position.step);
    return status == LKS_OK ? lks__log_hashes(t, r->position.step, r->position.samples) : status;
}

static lks_status log_epoch(lks_trainer *t, const run *r, const lks_train_progress *progress)
{
    if (t->run_dir == NULL)
        return LKS_OK;
    lks__epoch_metrics metrics = {.step = progress->step,
                                  .samples = progress->samples,
                                  .epoch = progress->epoch,
                                  .epoch_samples = r->position.epoch_samples,
                                  .train_loss = progress->train_loss,
                                  .test_loss = progress->test_loss,
                                  .test_accuracy = progress->test_accuracy,
                                  .samples_per_second = progress->samples_per_second,
                                  .seconds = lks__seconds_since(r->started_ns)};
    lks__run_dir_log_epoch(t->run_dir, &metrics);
    return lks__run_dir_flush(t->run_dir);
}

static void report_step(const lks_trainer *t, const run *r, const lks__step_result *step)
{
    lks_train_progress progress = progress_of(r, step);
    report(t, &progress);
}

/* A test loss that is not finite is an error: there is no model any more, and it must not pass for one. */
static lks_status evaluate(lks_trainer *t, const run *r, double lr, lks_train_progress *progress)
{
    lks_status status = lks__evaluate(t, &progress->test_loss, &progress->test_accuracy);
    if (status == LKS_OK && !isfinite(progress->test_loss))
        status = lks__diagnose_test(t, &r->position, lr);
    return status;
}

/* Evaluates, logs and reports the end of an epoch, or of a run that ends within one. */
static lks_status end_epoch(lks_trainer *t, run *r, const lks__step_result *step)
{
    lks_train_progress progress = progress_of(r, step);
    progress.epoch_end = true;
    lks_status status = lks__copies_compare(t, r->position.step);
    if (status == LKS_OK && t->config.test_set != NULL)
        status = evaluate(t, r, step->lr, &progress);
    if (status != LKS_OK)
        return status;
    r->result.test_loss = progress.test_loss;
    r->result.test_accuracy = progress.test_accuracy;
    report(t, &progress);
    return log_epoch(t, r, &progress);
}

static void begin_next_epoch(run *r)
{
    r->position.epoch++;
    r->position.step_in_epoch = 0;
    r->position.epoch_samples = 0;
    r->position.epoch_loss_sum = 0.0;
    r->position.epoch_skipped = 0.0;
    r->epoch_step_seconds = 0.0;
    r->epoch_before = 0;
}

static lks_status save_model(lks_trainer *t)
{
    if (t->run_dir == NULL)
        return LKS_OK;
    char *path = lks__run_dir_path(t->run_dir, "model.safetensors");
    if (path == NULL)
        return LKS_E_NOMEM;
    lks_status status = lks__params_save(t, path);
    lks__free(path);
    return status;
}

/* Hands the state to the writer, once it has written what it was given before. Allocates nothing. */
static lks_status hand_over(lks_trainer *t, run *r, unsigned files)
{
    if (t->run_dir == NULL)
        return LKS_OK;
    lks_status status = lks__checkpoint_writer_wait(t->writer);
    if (status == LKS_OK) /* the metrics first: a run that goes on from here continues them */
        status = lks__run_dir_flush(t->run_dir);
    if (status == LKS_OK)
        status = lks__snapshot_take(t->snapshot, t, &r->position);
    if (status != LKS_OK)
        return status;
    lks__checkpoint_writer_post(t->writer, files);
    if ((files & LKS__CHECKPOINT_NUMBERED) != 0) {
        lks__checkpoint_name(r->position.step, r->result.checkpoint);
        t->checkpointed_ns = lks__now_ns();
    }
    return LKS_OK;
}

/* Collective: the failure of an earlier write is everybody's here. */
static lks_status save_checkpoint(lks_trainer *t, run *r, unsigned files)
{
    int64_t start = lks__now_ns();
    lks_status status = lks__copies_compare(t, r->position.step); /* what differs is not worth keeping */
    if (status == LKS_OK)
        status = lks__agree(t->config.group, hand_over(t, r, files));
    t->times.checkpoint += lks__seconds_since(start);
    return status;
}

/* Until every checkpoint is written. Collective. */
static lks_status wait_for_checkpoints(lks_trainer *t)
{
    int64_t start = lks__now_ns();
    lks_status status = t->writer == NULL ? LKS_OK : lks__checkpoint_writer_wait(t->writer);
    status = lks__agree(t->config.group, status);
    t->times.checkpoint += lks__seconds_since(start);
    return status;
}

/* Before anything that takes time: who has asked to stop may not wait long. A stop may come when a run has
 * begun to go wrong: the checkpoints to go back to then stay. */
static lks_status save_at_stop(lks_trainer *t, run *r, const lks__step_result *step)
{
    bool calm = lks__guard_wants_checkpoint(t, &r->position, step);
    unsigned files = LKS__CHECKPOINT_NUMBERED | (calm ? 0u : LKS__CHECKPOINT_DROP_NONE);
    lks_status status = save_checkpoint(t, r, files);
    return status == LKS_OK ? wait_for_checkpoints(t) : status;
}

/* What is due behind a step whose epoch, if it has ended, is evaluated. A run that begins to go wrong leaves
 * no checkpoint to go on from. Collective. */
static lks_status save_due(lks_trainer *t, run *r, const lks__step_result *step, bool evaluated)
{
    unsigned files = 0;
    if (evaluated && lks__checkpoint_is_best(t, &r->result, &r->position))
        files |= LKS__CHECKPOINT_BEST;
    if (lks__checkpoint_is_due(t, &r->position, step) && lks__guard_wants_checkpoint(t, &r->position, step))
        files |= LKS__CHECKPOINT_NUMBERED;
    return files != 0 ? save_checkpoint(t, r, files) : LKS_OK;
}

/* A checkpoint is from before its epoch's end: what an epoch's last step leaves to do is done again. */
static lks_status take_up(lks_trainer *t, run *r)
{
    r->position = t->start;
    r->epoch_before = t->start.epoch_samples;
    if (t->start.step == 0)
        return LKS_OK;
    r->result.train_loss = epoch_loss(&r->position);
    if (!lks__epoch_is_over(t->config.plan, &r->position))
        return LKS_OK;
    /* of that step itself nothing is known any more */
    lks__step_result step = {.samples = 1, .loss_sum = NAN, .lr = NAN};
    lks_status status = end_epoch(t, r, &step);
    if (status == LKS_OK && lks__checkpoint_is_best(t, &r->result, &r->position))
        status = save_checkpoint(t, r, LKS__CHECKPOINT_BEST);
    begin_next_epoch(r);
    return status;
}

static lks_status run_steps(lks_trainer *t, run *r)
{
    const lks_plan *plan = t->config.plan;
    while (!lks__run_is_over(plan, &r->position) && r->result.stopped == LKS_STOP_NONE) {
        lks__step_result step;
        lks_status status = advance(t, r, &step);
        if (status != LKS_OK)
            return status;
        bool stopped = r->result.stopped != LKS_STOP_NONE;
        bool whole = lks__epoch_is_over(plan, &r->position);
        bool last = lks__run_is_over(plan, &r->position) || stopped;
        if (stopped)
            status = save_at_stop(t, r, &step);
        if (status == LKS_OK && (whole || last))
            status = end_epoch(t, r, &step);
        else if (status == LKS_OK)
            report_step(t, r, &step);
        if (status == LKS_OK && !stopped)
            status = save_due(t, r, &step, whole || last);
        if (status != LKS_OK)
            return status;
        if (whole && !last)
            begin_next_epoch(r);
    }
    return LKS_OK;
}

static lks_status finish(lks_trainer *t, run *r)
{
    lks_status status = wait_for_checkpoints(t);
    if (status != LKS_OK)
        return status;
    lks_train_result *result = &r->result;
    for (int i = 0; i < lks__network_n_params(t->network); i++)
        result->parameters += lks__network_param(t->network, i)->n_elems;
    result->steps = r->position.step;
    result->epochs = lks__plan_epochs_after(t->config.plan, r->position.samples);
    result->samples_per_second = r->step_seconds > 0
                                     ? (double)(r->position.samples - t->start.samples) / r->step_seconds
                                     : 0.0;
    result->peak_memory_bytes = lks__peak_memory_bytes();
    result->memory = lks__measure_memory();
    lks__reducer_times reducer = lks__reducer_get_times(t->reducer);
    result->times = t->times;
    result->times.wait = reducer.wait;
    result->times.reduce = reducer.reduce;
    result->times.optimizer = reducer.block;
    result->times.exchange = reducer.exchange;
    result->times.exposed = reducer.exposed;
    result->machines = t->machines;
    result->comparisons = t->comparisons;
    status = lks__params_hash(t, &result->parameters_hash);
    bool stopped = result->stopped != LKS_STOP_NONE;
    if (status == LKS_OK && !stopped && !is_hash_due(t, &r->position))
        status = lks__log_hashes(t, r->position.step, r->position.samples);
    if (status == LKS_OK && t->run_dir != NULL)
        status = lks__run_dir_flush(t->run_dir);
    if (status == LKS_OK && !stopped)
        status = save_model(t);
    status = lks__agree(t->config.group, status);
    return status == LKS_OK && !stopped ? lks__guard_end(t, &r->position, result->train_loss) : status;
}

lks_status lks_trainer_run(lks_trainer *t, lks_train_result *out)
{
    run r = {.started_ns = lks__now_ns(),
             .result = {.train_loss = NAN, .test_loss = NAN, .test_accuracy = NAN}};
    if (t->has_run)
        return lks__fail(LKS_E_ARG, "a trainer runs once; create another one");
    t->has_run = true;
    t->checkpointed_ns = r.started_ns;
    lks_status status = open_run_dir(t);
    if (status == LKS_OK)
        status = lks__log_start(t);
    if (status == LKS_OK && t->start.step == 0)
        status = lks__log_hashes(t, 0, 0);
    status = lks__agree(t->config.group, status);
    if (status == LKS_OK)
        status = take_up(t, &r);
    if (status == LKS_OK)
        status = run_steps(t, &r);
    if (status == LKS_OK)
        status = finish(t, &r);
    lks__checkpoint_writer_stop(t->writer);
    t->writer = NULL;
    lks__run_dir_close(t->run_dir);
    t->run_dir = NULL;
    if (status == LKS_OK)
        *out = r.result;
    return status;
}
