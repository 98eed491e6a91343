/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/error.h"
#include "conf/options.h"
#include "plan/plan_config.h"
#include "plan/plan_warnings.h"

enum { DIGITS = 15 }; /* the most with which every decimal comes back as it was written */

static json_t *number(int64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *word(const char *key, int value)
{
    return json_string(lks__option_word(key, value));
}

/* A setting that only some kinds of optimizer, warm-up or schedule have; null for the others. */
static json_t *if_used(const lks_plan *plan, const char *key, json_t *value)
{
    const lks__settings settings = {
        .optimizer = plan->optimizer, .warmup = plan->warmup, .schedule = plan->schedule};
    if (lks__option_applies(lks__option_find(key), &settings))
        return value;
    json_decref(value);
    return json_null();
}

static json_t *milestones(const lks_schedule *schedule)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < schedule->n_milestones; i++)
        if (json_array_append_new(list, number(schedule->milestones[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

/* null for a run that begins */
static json_t *origin(const lks_plan_origin *o)
{
    if (o->step == 0)
        return json_null();
    return json_pack("{s:I, s:I, s:I, s:I}", "step", (json_int_t)o->step, "samples", (json_int_t)o->samples,
                     "epoch", (json_int_t)o->epoch, "offset", (json_int_t)o->offset);
}

static json_t *warnings(const lks_plan *plan)
{
    json_t *list = json_array();
    char warning[LKS__WARNING_BYTES];
    for (int i = 0; lks__plan_warning(plan, i, warning); i++)
        if (json_array_append_new(list, json_string(warning)) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

json_t *lks__memory_to_json(const lks_plan_memory *m)
{
    if (m->parameters == 0)
        return json_null();
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "parameters", number(m->parameters), "optimizer",
                     number(m->optimizer), "checkpoint", number(m->checkpoint), "gradients",
                     number(m->gradients), "activations", number(m->activations), "data", number(m->data),
                     "other", number(m->other));
}

/* null when the plan knows no model. */
static json_t *bytes(const lks_plan *plan, int64_t value)
{
    return plan->memory.parameters > 0 ? number(value) : json_null();
}

lks_status lks__plan_add_json(const lks_plan *plan, json_t *object)
{
    const struct {
        const char *key;
        json_t *value; /* NULL: no memory; json_object_set_new then fails */
    } members[] = {
        {"train_samples", number(plan->n_samples)},
        {"processes", number(plan->processes)},
        {"world", number(plan->world)},
        {"local_batch", number(plan->local_batch)},
        {"accumulate", number(plan->accumulate)},
        {"effective_batch", number(plan->global_batch)},
        {"leaves_per_process", number(plan->leaves_per_process)},
        {"tail", word("data.tail", (int)plan->tail)},
        {"samples_per_epoch", number(plan->samples_per_epoch)},
        {"steps_per_epoch", number(plan->steps_per_epoch)},
        {"last_step_samples", number(plan->last_step_samples)},
        {"total_epochs", json_real(plan->epochs)},
        {"total_steps", number(plan->total_steps)},
        {"total_steps_is_bound", json_boolean(plan->lr_rule == LKS_LR_ADASCALE)},
        {"samples", number(plan->samples)},
        {"origin", origin(&plan->origin)},
        {"reduction", word("reduction", (int)plan->reduction)},
        {"beta1", if_used(plan, "optimizer.beta1", json_real(plan->optimizer.beta1))},
        {"beta2", if_used(plan, "optimizer.beta2", json_real(plan->optimizer.beta2))},
        {"epsilon", if_used(plan, "optimizer.epsilon", json_real(plan->optimizer.epsilon))},
        {"base_lr", json_real(plan->base_lr)},
        {"lr_rule", word("lr.rule", (int)plan->lr_rule)},
        {"reference_batch", plan->reference_batch > 0 ? number(plan->reference_batch) : json_null()},
        {"kappa", json_real(plan->kappa)},
        {"scaled_lr", json_real(plan->scaled_lr)},
        {"warmup", word("lr.warmup", (int)plan->warmup)},
        {"warmup_samples", json_real(plan->warmup_samples)},
        {"warmup_steps", number(plan->warmup_steps)},
        {"warmup_from", if_used(plan, "lr.warmup_from", word("lr.warmup_from", (int)plan->warmup_from))},
        {"schedule", word("lr.schedule", (int)plan->schedule.kind)},
        {"end_factor", if_used(plan, "lr.end_factor", json_real(plan->schedule.end_factor))},
        {"power", if_used(plan, "lr.power", json_real(plan->schedule.power))},
        {"gamma", if_used(plan, "lr.gamma", json_real(plan->schedule.gamma))},
        {"step_epochs", if_used(plan, "lr.step_epochs", number(plan->schedule.step_epochs))},
        {"milestones", if_used(plan, "lr.milestones", milestones(&plan->schedule))},
        {"same_bits", json_boolean(plan->same_bits)},
        {"memory_process_bytes", bytes(plan, lks_plan_process_bytes(plan))},
        {"memory_machine_bytes", bytes(plan, lks_plan_machine_bytes(plan))},
        {"memory", lks__memory_to_json(&plan->memory)},
        {"reduced_bytes", bytes(plan, plan->reduced_bytes)},
        {"warnings", warnings(plan)},
    };
    int failures = 0;
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        failures += json_object_set_new(object, members[i].key, members[i].value) != 0;
    return failures == 0 ? LKS_OK : lks__fail(LKS_E_NOMEM, "out of memory");
}

lks_status lks__json_to_text(const json_t *object, char **out)
{
    *out = json_dumps(object, JSON_INDENT(2) | JSON_REAL_PRECISION(DIGITS));
    return *out != NULL ? LKS_OK : lks__fail(LKS_E_NOMEM, "out of memory");
}

/* *out: a new object; NULL after a failure */
static lks_status plan_object(const lks_plan *plan, json_t **out)
{
    *out = json_object();
    lks_status status = *out == NULL ? lks__fail(LKS_E_NOMEM, "out of memory")
                                     : lks__plan_add_json(plan, *out);
    if (status != LKS_OK) {
        json_decref(*out);
        *out = NULL;
    }
    return status;
}

/* All but what may differ between processes that play the same workers. */
static bool is_of_run(const char *key)
{
    static const char *const others[] = {"processes", "leaves_per_process",   "same_bits",
                                         "warnings",  "memory_process_bytes", "memory_machine_bytes",
                                         "memory",    "reduced_bytes"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(key, others[i]) == 0)
            return false;
    return true;
}

static bool is_of_data(const char *key)
{
    return strcmp(key, "train_samples") == 0 || strcmp(key, "tail") == 0;
}

lks_status lks__plan_origin_from_json(const char *json, lks_plan_origin *out)
{
    json_t *plan = json_loads(json, 0, NULL), *of = json_object_get(plan, "origin");
    json_int_t step = 0, samples = 0, epoch = 0, offset = 0;
    bool read = json_is_null(of) || json_unpack(of, "{s:I, s:I, s:I, s:I}", "step", &step, "samples",
                                                &samples, "epoch", &epoch, "offset", &offset) == 0;
    json_decref(plan);
    if (!read)
        return lks__fail(LKS_E_FORMAT, "the plan does not say where it goes on");
    *out = (lks_plan_origin){step, samples, epoch, offset};
    return LKS_OK;
}

static bool is_count(int64_t value)
{
    return 1 <= value && value <= LKS__INT_LIMIT;
}

lks_status lks__plan_epochs_from_json(const char *json, lks_plan *out)
{
    lks_plan p = {0};
    lks__settings settings;
    const char *tail;
    json_int_t n, world, batch, steps, total;
    json_t *plan = json_loads(json, 0, NULL);
    bool read = json_unpack(plan, "{s:I, s:I, s:I, s:I, s:I, s:s}", "train_samples", &n, "world", &world,
                            "effective_batch", &batch, "steps_per_epoch", &steps, "total_steps", &total,
                            "tail", &tail) == 0 &&
                is_count(n) && is_count(world) && is_count(batch) && is_count(steps) && is_count(total) &&
                lks__option_parse(lks__option_find("data.tail"), tail, &settings) == LKS_OK;
    json_decref(plan);
    if (!read)
        return lks__fail(LKS_E_FORMAT, "the plan does not say what an epoch is");
    lks_status status = lks__plan_origin_from_json(json, &p.origin);
    p.n_samples = n;
    p.world = world;
    p.global_batch = batch;
    p.tail = settings.tail;
    p.steps_per_epoch = steps;
    p.total_steps = total;
    if (status == LKS_OK && (p.origin.offset < 0 || p.origin.offset >= n || p.origin.epoch < 0 ||
                             p.origin.epoch > LKS__INT_LIMIT || p.origin.step < 0 || p.origin.step > total))
        status = lks__fail(LKS_E_FORMAT, "the plan goes on at no place of an epoch");
    if (status == LKS_OK)
        *out = p;
    return status;
}

static lks_status compare_member(const char *key, const json_t *ours, const json_t *theirs)
{
    enum { TEXT_FLAGS = JSON_ENCODE_ANY | JSON_REAL_PRECISION(DIGITS) };
    char *a = json_dumps(ours, TEXT_FLAGS), *b = json_dumps(theirs, TEXT_FLAGS);
    lks_status status = LKS_OK;
    if (a == NULL || b == NULL || strcmp(a, b) != 0)
        status = lks__fail(LKS_E_ARG, "%s was %s; this plan has %s", key, b != NULL ? b : "not there",
                           a != NULL ? a : "none");
    free(a);
    free(b);
    return status;
}

static lks_status compare(json_t *ours, const json_t *theirs, bool (*counts)(const char *key))
{
    lks_status status = LKS_OK;
    void *place = json_object_iter(ours);
    for (; place != NULL && status == LKS_OK; place = json_object_iter_next(ours, place)) {
        const char *key = json_object_iter_key(place);
        if (counts(key))
            status = compare_member(key, json_object_iter_value(place), json_object_get(theirs, key));
    }
    return status;
}

static lks_status check_members(const lks_plan *plan, const char *json, bool (*counts)(const char *key))
{
    json_t *theirs = json_loads(json, 0, NULL), *ours;
    lks_status status = plan_object(plan, &ours);
    if (status == LKS_OK && theirs == NULL)
        status = lks__fail(LKS_E_FORMAT, "the plan is no JSON");
    if (status == LKS_OK)
        status = compare(ours, theirs, counts);
    json_decref(theirs);
    json_decref(ours);
    return status;
}

lks_status lks__plan_check_same(const lks_plan *plan, const char *json)
{
    return check_members(plan, json, is_of_run);
}

lks_status lks__plan_check_data(const lks_plan *plan, const char *json)
{
    return check_members(plan, json, is_of_data);
}

lks_status lks_plan_to_json(const lks_plan *plan, char **out)
{
    json_t *object;
    *out = NULL;
    lks_status status = plan_object(plan, &object);
    if (status == LKS_OK)
        status = lks__json_to_text(object, out);
    json_decref(object);
    return status;
}

lks_status lks_plans_to_json(int n, const lks_plan *plans, char **out)
{
    json_t *list = json_array(), *object;
    json_t *all = json_pack("{s:O}", "plans", list);
    lks_status status = list != NULL && all != NULL ? LKS_OK : lks__fail(LKS_E_NOMEM, "out of memory");
    *out = NULL;
    for (int i = 0; status == LKS_OK && i < n; i++) {
        status = plan_object(&plans[i], &object);
        if (status == LKS_OK && json_array_append_new(list, object) != 0)
            status = lks__fail(LKS_E_NOMEM, "out of memory");
    }
    if (status == LKS_OK)
        status = lks__json_to_text(all, out);
    json_decref(all);
    json_decref(list);
    return status;
}
