/* SPDX-License-Identifier: Apache-2.0 */
#include "train/resume.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"
#include "plan/epoch.h"
#include "plan/plan_config.h"
#include "record/run_dir.h"
#include "record/safetensors.h"
#include "record/write_file.h"
#include "train/changes.h"
#include "train/checkpoint_origin.h"

/* --- which settings a run goes on with --- */

/* "KEY is OURS, the run has ITS", one after the other, of what may not be so. */
typedef struct refusal {
    char found[1024];
    char hint[LKS__VALUE_BYTES + 200]; /* "" for the usual one */
} refusal;

static void refuse(refusal *r, const lks__difference *d, bool asked)
{
    const char *key = d->option->key;
    lks__append(r->found, sizeof r->found, "%s%s is %s, the run has %s", r->found[0] != '\0' ? "; " : "", key,
                d->now, d->before);
    if (!asked && lks__may_be_asked_for(key) && r->hint[0] == '\0')
        lks__append(r->hint, sizeof r->hint, "%s=%s on the command line asks for the change", key,
                    strcmp(d->now, LKS__NOT_SET) == 0 ? "auto" : d->now);
}

/* Whether a value of the file is one that the run had before it went on with another: the file is older. */
static lks_status was_earlier(const char *output, const lks__difference *d, bool *out)
{
    char name[LKS__CONFIG_NAME_BYTES], buffer[LKS__VALUE_BYTES];
    *out = false;
    for (int n = 1; !*out; n++) {
        lks__earlier_config_name(n, name);
        if (!lks__run_dir_has(output, name))
            return LKS_OK;
        char *path = lks__join_path(output, name);
        lks_config *config = NULL;
        lks_status status = path == NULL ? LKS_E_NOMEM : lks_config_load(path, 0, NULL, &config);
        lks__free(path);
        if (status != LKS_OK)
            return status;
        *out = strcmp(lks__value_of(d->option, lks__config_settings(config), buffer), d->now) == 0;
        lks_config_destroy(config);
    }
    return LKS_OK;
}

/* Whether the run may go on with this value, or with its own in place of this one. */
static lks_status may_be(const lks_config *config, const lks_config *runs, const lks__difference *d,
                         bool *out)
{
    const lks__settings *ours = lks__config_settings(config), *its = lks__config_settings(runs);
    bool of_other_choice = lks__option_applies(d->option, ours) != lks__option_applies(d->option, its);
    bool is_world = strcmp(d->option->key, "world") == 0;
    *out = true;
    if (is_world && ours->world == 0)
        return LKS_OK;
    *out = lks__may_be_asked_for(d->option->key);
    if (lks__config_is_asked_for(config, d->option->key))
        return LKS_OK;
    *out = of_other_choice; /* which is judged by itself */
    return of_other_choice ? LKS_OK : was_earlier(ours->output, d, out);
}

static lks_status check_settings(const lks_config *config, const lks_config *runs)
{
    refusal r = {"", ""};
    lks__difference d;
    for (int i = 0; lks__next_difference(lks__config_settings(runs), lks__config_settings(config), &i, &d);) {
        bool may;
        lks_status status = may_be(config, runs, &d, &may);
        if (status != LKS_OK)
            return status;
        if (!may)
            refuse(&r, &d, lks__config_is_asked_for(config, d.option->key));
    }
    if (r.found[0] == '\0')
        return LKS_OK;
    (void)lks__fail(LKS_E_ARG, "a run goes on with the settings it began with: %s", r.found);
    if (r.hint[0] != '\0')
        return lks__error_hint(LKS_E_ARG, "%s", r.hint);
    return lks__error_hint(LKS_E_ARG,
                           "leave the setting out, or begin another run; --init starts it from a checkpoint");
}

/* The config of the run in a run directory. *out: NULL after a failure. */
static lks_status load_runs_config(const char *output, lks_config **out)
{
    *out = NULL;
    if (!lks__run_dir_has(output, "config.yaml"))
        return lks__fail(LKS_E_NOT_FOUND, "output: there is no run to go on with in %s", output);
    char *path = lks__join_path(output, "config.yaml");
    lks_status status = path == NULL ? LKS_E_NOMEM : lks_config_load(path, 0, NULL, out);
    lks__free(path);
    return status;
}

bool lks__resume_asks(const lks_config *config)
{
    const lks__settings *settings = lks__config_settings(config);
    lks_config *runs;
    lks__difference d;
    bool asks = false;
    if (load_runs_config(settings->output, &runs) != LKS_OK)
        return false;
    for (int i = 0; !asks && lks__next_difference(lks__config_settings(runs), settings, &i, &d);)
        asks = lks__config_is_asked_for(config, d.option->key) &&
               (strcmp(d.option->key, "world") != 0 || settings->world > 0);
    lks_config_destroy(runs);
    return asks;
}

lks_status lks__resume_settle(lks__resume *r, const lks_config *config)
{
    lks_status status = lks__config_overlay(r->run, config, lks__may_differ, &r->config);
    if (status != LKS_OK)
        return status;
    r->settings = *lks__config_settings(r->config);
    const lks__settings *s = &r->settings;
    bool follows = s->local_batch > 0 && s->accumulate > 0 && s->global_batch > 0; /* from these */
    if (s->world == 0 && !follows)
        r->settings.world = lks__config_settings(r->run)->world;
    return LKS_OK;
}

/* --- what it goes on from --- */

static lks_status check_whole(const char *path)
{
    lks__safetensors *file;
    lks_status status = lks__safetensors_open(path, &file);
    if (status == LKS_OK)
        status = lks__safetensors_verify(file);
    lks__safetensors_close(file);
    return status;
}

void lks__tell_passed_over(lks_train_note_fn *note, void *context)
{
    char text[1024];
    snprintf(text, sizeof text, "passed over: %s", lks_error_message());
    if (note != NULL)
        note(context, text);
}

/* As lks__resume_find, of these steps. */
static lks_status find(const char *output, int n, const int64_t *steps, lks_train_note_fn *note,
                       void *context, char **out)
{
    for (int i = 0; i < n; i++) {
        char name[LKS__CHECKPOINT_NAME_BYTES];
        lks__checkpoint_name(steps[i], name);
        char *path = lks__join_path(output, name);
        lks_status status = path == NULL ? LKS_E_NOMEM : check_whole(path);
        if (status == LKS_OK) {
            *out = path;
            return LKS_OK;
        }
        lks__free(path);
        if (status == LKS_E_NOMEM)
            return status;
        lks__tell_passed_over(note, context);
    }
    return lks__fail(LKS_E_NOT_FOUND, "output: %s has no whole checkpoint to go on from", output);
}

lks_status lks__resume_find(const char *output, lks_train_note_fn *note, void *context, char **out)
{
    int n;
    int64_t *steps;
    *out = NULL;
    lks_status status = lks__run_dir_list_checkpoints(output, &n, &steps);
    if (status != LKS_OK)
        return status;
    status = find(output, n, steps, note, context, out);
    lks__free(steps);
    return status;
}

static lks_status read_checkpoint(lks__resume *r, const lks__safetensors *file)
{
    lks_status status = lks__checkpoint_origin(file, r->path, &r->here);
    if (status != LKS_OK)
        return status;
    const char *clock = lks__safetensors_metadata(file, "clock");
    if (clock == NULL || !lks__parse_f64(clock, &r->clock))
        return lks__fail(LKS_E_FORMAT, "%s: its clock is no number", r->path);
    const char *config = lks__safetensors_metadata(file, "config");
    const char *plan = lks__safetensors_metadata(file, "plan");
    if (config == NULL || plan == NULL)
        return lks__fail(LKS_E_FORMAT, "%s does not have the config and the plan of its run", r->path);
    r->plan_json = lks__strdup(plan);
    return r->plan_json == NULL ? LKS_E_NOMEM : lks__config_parse(r->path, config, &r->before);
}

lks_status lks__resume_init(lks__resume *r, const lks_config *config, lks_train_note_fn *note, void *context)
{
    *r = (lks__resume){0};
    lks__safetensors *file = NULL;
    lks_status status = load_runs_config(lks__config_settings(config)->output, &r->run);
    if (status == LKS_OK)
        status = check_settings(config, r->run);
    if (status == LKS_OK)
        status = lks__resume_settle(r, config);
    if (status == LKS_OK)
        status = lks__resume_find(r->settings.output, note, context, &r->path);
    if (status == LKS_OK)
        status = lks__safetensors_open(r->path, &file);
    if (status == LKS_OK)
        status = read_checkpoint(r, file);
    lks__safetensors_close(file);
    return status;
}

void lks__resume_deinit(lks__resume *r)
{
    lks_config_destroy(r->run);
    lks_config_destroy(r->config);
    lks_config_destroy(r->before);
    lks__free(r->path);
    lks__free(r->plan_json);
    *r = (lks__resume){0};
}

/* --- the plan --- */

/* The plan that the checkpoint was written with; how many processes it had does not matter. */
static lks_status plan_before(lks__resume *r, int64_t n_samples)
{
    lks_plan_config before = lks__plan_config_from_settings(lks__config_settings(r->before), n_samples, 1);
    lks_status status = lks__plan_origin_from_json(r->plan_json, &before.origin);
    if (status == LKS_OK)
        status = lks_plan_create(&before, &r->plan);
    return lks__error_prefix(status, "%s", r->path);
}

/* Where a batch was asked for: what it has to fit. */
static lks_status hint_at_batch(const lks__resume *r, lks_status status)
{
    static const char *const keys[] = {"world", "batch.local", "batch.accumulate", "batch.global"};
    char kept[400] = "", buffer[LKS__VALUE_BYTES];
    bool asked = false;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const char *value = lks__value_of(lks__option_find(keys[i]), &r->settings, buffer);
        if (lks__config_is_asked_for(r->config, keys[i]))
            asked = true;
        else if (strcmp(value, LKS__NOT_SET) != 0)
            lks__append(kept, sizeof kept, "%s%s %s", kept[0] != '\0' ? ", " : "", keys[i], value);
    }
    if (!asked || kept[0] == '\0')
        return status;
    return lks__error_hint(
        status, "the run has %s; KEY=VALUE asks for another value, KEY=auto lets it follow from the others",
        kept);
}

lks_status lks__resume_plan(lks__resume *r, int64_t n_samples, int64_t processes, lks_plan *out)
{
    lks__difference ignored;
    lks_plan_config now = lks__plan_config_from_settings(&r->settings, n_samples, processes);
    lks_plan plan;
    lks_status status = plan_before(r, n_samples);
    if (status != LKS_OK)
        return status;
    now.origin = r->plan.origin;
    status = lks_plan_create(&now, &plan);
    if (status == LKS_OK)
        status = lks__error_prefix(lks__plan_check_same(&plan, r->plan_json), "%s", r->path);
    if (status != LKS_OK &&
        lks__next_difference(lks__config_settings(r->before), &r->settings, &(int){0}, &ignored)) {
        now.origin = r->here;
        if ((status = lks_plan_create(&now, &plan)) == LKS_E_ARG)
            status = hint_at_batch(r, status);
    }
    if (status == LKS_OK)
        *out = plan;
    return status;
}

lks_status lks__resume_changes(const lks__resume *r, const lks_plan *plan, char **json, char **sentence)
{
    lks__settings now = r->settings;
    lks__text text = {0};
    *sentence = NULL;
    now.world = plan->world;
    lks_status status = lks__changes_to_json(lks__config_settings(r->before), &now, json);
    if (status != LKS_OK || *json == NULL)
        return status;
    lks__text_add(&text,
                  "goes on with changed settings after step %" PRId64 ", from sample %" PRId64
                  " (epoch %" PRId64 "): ",
                  r->here.step, r->here.samples, lks__plan_epoch_at(plan, r->here.samples) + 1);
    lks__changes_add_text(lks__config_settings(r->before), &now, &text);
    if (plan->global_batch != r->plan.global_batch)
        lks__text_add(&text, "; effective batch %" PRId64 " -> %" PRId64, r->plan.global_batch,
                      plan->global_batch);
    double clock = plan->lr_rule == LKS_LR_ADASCALE ? r->clock : (double)r->here.samples;
    double before = lks_plan_lr(&r->plan, r->clock), rate = lks_plan_lr(plan, clock);
    if (rate != before)
        lks__text_add(&text, "; learning rate %.6g -> %.6g", before, rate);
    status = lks__text_take(&text, sentence);
    if (status != LKS_OK) {
        free(*json);
        *json = NULL;
    }
    return status;
}
