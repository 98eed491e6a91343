/* SPDX-License-Identifier: Apache-2.0 */
#include "report/run_differences.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "base/tree.h"
#include "conf/options.h"
#include "report/first_difference.h"

enum { VALUE_BYTES = LKS__VALUE_BYTES, SENTENCE_BYTES = 512 };

/* The two runs, and what is being found out about them. */
typedef struct search {
    const lks__run_files *a, *b;
    int64_t until; /* starts before this step count; -1: all */
    bool same_data;
    lks__run_differences *d;
    int failures;
} search;

static void add_sentence(search *s, json_t *list, const char *text)
{
    s->failures += json_array_append_new(list, json_string(text)) != 0;
}

static void add_row(search *s, const char *of, const char *key, const char *const values[2],
                    lks__effect effect)
{
    static const char *const effects[] = {"none", "rounding", "run"};
    json_t *row = json_pack("{s:s, s:s, s:s, s:s, s:s}", "of", of, "key", key, "a", values[0], "b", values[1],
                            "effect", effects[effect]);
    s->failures += row == NULL || json_array_append_new(s->d->rows, row) != 0;
}

/* "KEY is A | B: what that means"; meaning may be empty. */
static void add_cause(search *s, const char *key, const char *const values[2], const char *meaning)
{
    char text[SENTENCE_BYTES] = "";
    lks__append(text, sizeof text, "%s is %s | %s%s%s", key, values[0], values[1],
                meaning[0] != '\0' ? ": " : "", meaning);
    add_sentence(s, s->d->causes, text);
}

static void add_order(search *s, int64_t additions, const char *text)
{
    add_sentence(s, s->d->orders, text);
    if (additions > s->d->additions)
        s->d->additions = additions;
}

/* ---- plans ---- */

static int64_t count_of(const lks__run_files *run, const char *key)
{
    return (int64_t)json_integer_value(json_object_get(run->plan, key));
}

static double plan_number(const lks__run_files *run, const char *key)
{
    return lks__line_number(run->plan, key);
}

static const char *plan_word(const lks__run_files *run, const char *key)
{
    const char *word = json_string_value(json_object_get(run->plan, key));
    return word != NULL ? word : "";
}

/* What only one version of lockstep writes is passed over. */
static bool plan_differs(const search *s, const char *key)
{
    const json_t *a = json_object_get(s->a->plan, key), *b = json_object_get(s->b->plan, key);
    return a != NULL && b != NULL && !json_equal(a, b);
}

static bool either_is(const search *s, const char *key, const char *word)
{
    return strcmp(plan_word(s->a, key), word) == 0 || strcmp(plan_word(s->b, key), word) == 0;
}

static bool has_warmup(const search *s)
{
    return plan_number(s->a, "warmup_samples") > 0 || plan_number(s->b, "warmup_samples") > 0;
}

static const char *setting(const lks__run_files *run, const char *key)
{
    const char *value = run->config != NULL ? lks_config_get(run->config, key) : NULL;
    return value != NULL ? value : "";
}

static bool has_dropout(const lks__run_files *run)
{
    double share;
    return lks__parse_f64(setting(run, "model.dropout"), &share) && share > 0;
}

/* What a key of the plan changes when it differs; functions for those that depend on others. */
static lks__effect always(const search *s)
{
    (void)s;
    return LKS__EFFECT_RUN;
}

static lks__effect never(const search *s)
{
    (void)s;
    return LKS__EFFECT_NONE; /* or something that another key shows */
}

/* The same samples in other leaves: the same sums. But sum divides by the local batch, and dropout is keyed
 * by leaf. */
static lks__effect of_local_batch(const search *s)
{
    if (plan_differs(s, "effective_batch") || either_is(s, "reduction", "sum") || has_dropout(s->a) ||
        has_dropout(s->b))
        return LKS__EFFECT_RUN;
    return LKS__EFFECT_ROUNDING;
}

static lks__effect of_tail(const search *s)
{
    bool same = !plan_differs(s, "samples_per_epoch") && !plan_differs(s, "last_step_samples");
    return same ? LKS__EFFECT_NONE : LKS__EFFECT_RUN;
}

static lks__effect of_reduction(const search *s)
{
    bool one_leaf = count_of(s->a, "effective_batch") == count_of(s->a, "local_batch") &&
                    count_of(s->b, "effective_batch") == count_of(s->b, "local_batch") && !has_warmup(s);
    return one_leaf ? LKS__EFFECT_NONE : LKS__EFFECT_RUN;
}

/* Schedules that run to the end of the run. */
static lks__effect of_length(const search *s)
{
    bool to_end = either_is(s, "schedule", "cosine") || either_is(s, "schedule", "linear") ||
                  either_is(s, "schedule", "polynomial");
    return to_end ? LKS__EFFECT_RUN : LKS__EFFECT_NONE;
}

static lks__effect of_warmup(const search *s)
{
    return has_warmup(s) ? LKS__EFFECT_RUN : LKS__EFFECT_NONE;
}

static lks__effect of_rule(const search *s)
{
    return either_is(s, "lr_rule", "adascale") ? LKS__EFFECT_RUN : LKS__EFFECT_NONE;
}

/* In the order in which they are told. No meaning: told with another key, or the key says it. */
static const struct {
    const char *key;
    lks__effect (*effect)(const search *s);
    const char *meaning;
} plan_keys[] = {
    {"train_samples", always, "another training set, or another part of it"},
    {"effective_batch", always, NULL}, /* add_batch_cause */
    {"scaled_lr", always, NULL},
    {"reduction", of_reduction,
     "gradients are averaged in one run and added up in the other, whose updates are "
     "as many times larger as a step has local batches"},
    {"tail", of_tail, "the ends of epochs have other samples"},
    {"samples_per_epoch", always, "the ends of epochs have other samples"},
    {"local_batch", of_local_batch, "other leaves"},
    {"world", never, NULL},
    {"accumulate", never, NULL},
    {"steps_per_epoch", never, NULL},
    {"last_step_samples", never, NULL},
    {"total_steps", never, NULL},
    {"samples", of_length, "the schedule is as long as the run, so the learning rate differs"},
    {"base_lr", of_warmup, "the warm-up takes another course"},
    {"lr_rule", of_rule, "the learning rate takes another course"},
    {"reference_batch", never, NULL},
    {"warmup", of_warmup, "the warm-up takes another course"},
    {"warmup_samples", always, "the warm-up takes another course"},
    {"warmup_from", of_warmup, "the warm-up takes another course"},
    {"schedule", always, "the learning rate takes another course"},
    {"end_factor", always, "the learning rate takes another course"},
    {"power", always, "the learning rate takes another course"},
    {"gamma", always, "the learning rate takes another course"},
    {"step_epochs", always, "the learning rate takes another course"},
    {"milestones", always, "the learning rate takes another course"},
    {"beta1", always, "another optimizer"},
    {"beta2", always, "another optimizer"},
    {"epsilon", always, "another optimizer"},
};

static void value_text(const json_t *value, char out[VALUE_BYTES])
{
    out[0] = '\0';
    if (json_is_string(value))
        lks__append(out, VALUE_BYTES, "%s", json_string_value(value));
    else if (json_is_integer(value))
        lks__append(out, VALUE_BYTES, "%" PRId64, (int64_t)json_integer_value(value));
    else if (json_is_number(value))
        lks__append(out, VALUE_BYTES, "%.9g", json_number_value(value));
    else if (json_is_array(value))
        for (size_t i = 0; i < json_array_size(value); i++)
            lks__append(out, VALUE_BYTES, "%s%" PRId64, i > 0 ? ", " : "",
                        (int64_t)json_integer_value(json_array_get(value, i)));
    else
        lks__append(out, VALUE_BYTES, "none");
}

/* The classic one: whether the learning rate has followed the batch. */
static void add_batch_cause(search *s, const char *const values[2])
{
    double batch = plan_number(s->b, "effective_batch") / plan_number(s->a, "effective_batch");
    double lr = plan_number(s->b, "scaled_lr") / plan_number(s->a, "scaled_lr");
    const double tolerance = 1e-6; /* rates are written with 15 digits */
    char meaning[SENTENCE_BYTES] = "";
    const char *how = "the learning rates are in another proportion";
    if (fabs(lr - 1) < tolerance)
        how = "the learning rate is the same, so it was not scaled with the batch (lr.rule)";
    else if (fabs(lr / batch - 1) < tolerance)
        how = "the learning rate was scaled with it";
    else if (fabs(lr / sqrt(batch) - 1) < tolerance)
        how = "the learning rate was scaled with its square root";
    lks__append(meaning, sizeof meaning, "%g times as large; %s", batch > 1 ? batch : 1 / batch, how);
    add_cause(s, "effective batch", values, meaning);
}

static void add_plan_cause(search *s, int i, const char *const values[2])
{
    const char *key = plan_keys[i].key;
    if (strcmp(key, "effective_batch") == 0)
        add_batch_cause(s, values);
    else if (strcmp(key, "scaled_lr") == 0 && !plan_differs(s, "effective_batch"))
        add_cause(s, "learning rate", values, "at the same effective batch");
    else if (plan_keys[i].meaning != NULL)
        add_cause(s, key, values, plan_keys[i].meaning);
}

static void compare_plans(search *s)
{
    for (int i = 0; i < (int)(sizeof plan_keys / sizeof plan_keys[0]); i++) {
        const char *key = plan_keys[i].key;
        char texts[2][VALUE_BYTES];
        if (!plan_differs(s, key))
            continue;
        value_text(json_object_get(s->a->plan, key), texts[0]);
        value_text(json_object_get(s->b->plan, key), texts[1]);
        const char *const values[] = {texts[0], texts[1]};
        lks__effect effect = plan_keys[i].effect(s);
        add_row(s, "plan", key, values, effect);
        if (effect == LKS__EFFECT_RUN)
            add_plan_cause(s, i, values);
        if (effect == LKS__EFFECT_ROUNDING)
            add_order(
                s, count_of(s->a, "effective_batch") - 1,
                "the same effective batch in other local batches: the same sums, added in another order");
    }
}

/* ---- settings ---- */

static bool begins_with(const char *key, const char *const *prefixes)
{
    for (; *prefixes != NULL; prefixes++)
        if (strncmp(key, *prefixes, strlen(*prefixes)) == 0)
            return true;
    return false;
}

/* What changes nothing about the numbers, or is recorded with each start. */
static bool is_aside(const search *s, const char *key)
{
    static const char *const prefixes[] = {"name",    "output",      "comm.",   "metrics.",
                                           "hashes.", "checkpoint.", "threads", NULL};
    return begins_with(key, prefixes) || (strcmp(key, "data.path") == 0 && s->same_data);
}

/* What the plan's numbers follow from. */
static bool is_of_plan(const char *key)
{
    static const char *const prefixes[] = {"world",
                                           "batch.",
                                           "epochs",
                                           "steps",
                                           "samples",
                                           "reduction",
                                           "lr.",
                                           "optimizer.lr",
                                           "optimizer.beta",
                                           "optimizer.epsilon",
                                           "data.tail",
                                           "data.limit",
                                           NULL};
    return begins_with(key, prefixes);
}

/* Decides something only when a step goes wrong. */
static bool is_not_needed(const search *s, const char *key)
{
    return strcmp(key, "on_divergence") == 0 && !s->a->went_wrong && !s->b->went_wrong;
}

static const char *meaning_of(const char *key)
{
    static const struct {
        const char *prefix, *meaning;
    } meanings[] = {
        {"seed", "other initial parameters, and another order of samples"},
        {"model.", "another model"},
        {"optimizer.", "another optimizer"},
        {"clip.", "gradients are clipped otherwise"},
        {"on_divergence", "steps have gone wrong, and the runs did not do the same about it"},
        {"data.", "other data"},
    };
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++)
        if (strncmp(key, meanings[i].prefix, strlen(meanings[i].prefix)) == 0)
            return meanings[i].meaning;
    return "";
}

static void compare_settings(search *s)
{
    if (s->a->config == NULL || s->b->config == NULL)
        return;
    for (int i = 0; i < lks__n_options; i++) {
        const char *key = lks__options[i].key;
        char texts[2][VALUE_BYTES] = {"", ""};
        lks__append(texts[0], VALUE_BYTES, "%s", setting(s->a, key));
        lks__append(texts[1], VALUE_BYTES, "%s", setting(s->b, key));
        if (strcmp(texts[0], texts[1]) == 0 || is_aside(s, key))
            continue;
        const char *const values[] = {texts[0][0] != '\0' ? texts[0] : "not set",
                                      texts[1][0] != '\0' ? texts[1] : "not set"};
        bool counts_here = !is_of_plan(key) && !is_not_needed(s, key);
        add_row(s, "config", key, values, counts_here ? LKS__EFFECT_RUN : LKS__EFFECT_NONE);
        if (counts_here)
            add_cause(s, key, values, meaning_of(key));
    }
}

/* ---- starts ---- */

static bool counts(const search *s, const json_t *starts, size_t i)
{
    return s->until < 0 || lks__line_step(starts, i) < s->until || i == 0;
}

/* The values that the starts of a run had, one after the other: "2, 4". */
static void start_values(const search *s, const lks__run_files *run, const char *key, char out[VALUE_BYTES])
{
    char last[VALUE_BYTES] = "";
    out[0] = '\0';
    for (size_t i = 0; i < json_array_size(run->starts) && counts(s, run->starts, i); i++) {
        char text[VALUE_BYTES];
        value_text(json_object_get(json_array_get(run->starts, i), key), text);
        if (strcmp(text, last) != 0)
            lks__append(out, VALUE_BYTES, "%s%s", out[0] != '\0' ? ", " : "", text);
        memcpy(last, text, sizeof last);
    }
}

/* Of a step. */
static int64_t n_leaves(const lks__run_files *run)
{
    return count_of(run, "effective_batch") / count_of(run, "local_batch");
}

/* As the plan's same_bits, of each start. Returns a number of processes that adds in another order; 0: none.
 */
static int64_t odd_processes(const search *s, const lks__run_files *run)
{
    int64_t leaves = n_leaves(run);
    for (size_t i = 0; i < json_array_size(run->starts) && counts(s, run->starts, i); i++) {
        int64_t p = (int64_t)json_integer_value(json_object_get(json_array_get(run->starts, i), "processes"));
        if (p > 1 && !lks__is_power_of_two(leaves / p))
            return p;
    }
    return 0;
}

static lks__effect of_processes(search *s)
{
    const lks__run_files *odd = odd_processes(s, s->a) > 0 ? s->a : s->b;
    int64_t processes = odd_processes(s, odd);
    if (processes == 0)
        return LKS__EFFECT_NONE;
    int64_t leaves = n_leaves(odd);
    char text[SENTENCE_BYTES] = "";
    lks__append(text, sizeof text,
                "on %" PRId64 " processes each adds %" PRId64
                " leaves of a step, which is no power of two: as the "
                "plan said, that run agrees to rounding only with those on other numbers",
                processes, leaves / processes);
    add_order(s, leaves - 1, text);
    return LKS__EFFECT_ROUNDING;
}

/* A kernel's sums: over the samples of a step, and over the inputs of a layer. */
static int64_t kernel_additions(const search *s)
{
    int64_t most = 0;
    for (size_t i = 0; i < json_array_size(s->a->hashes); i++) {
        int64_t n = (int64_t)json_integer_value(json_object_get(json_array_get(s->a->hashes, i), "fan_in"));
        most = n > most ? n : most;
    }
    return count_of(s->a, "effective_batch") - 1 + most;
}

/* The fingerprint covers batch sizes and the model too, which have rows of their own. */
static bool fingerprint_says_more(const search *s)
{
    return json_array_size(s->d->causes) == 0 && json_array_size(s->d->orders) == 0;
}

static lks__effect of_start(search *s, const char *key)
{
    static const struct {
        const char *key, *text;
    } orders[] = {
        {"threads", "with another number of threads kernels split sums elsewhere"},
        {"library", "another kernel library, or another instruction set: other kernels"},
        {"version", "another version of lockstep"},
        {"kernels", "other kernels, by their fingerprint: another processor, kernel library or C library"},
    };
    if (strcmp(key, "processes") == 0)
        return of_processes(s);
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++)
        if (strcmp(key, orders[i].key) == 0)
            add_order(s, kernel_additions(s), orders[i].text);
    return LKS__EFFECT_ROUNDING;
}

static void compare_starts(search *s)
{
    static const char *const keys[] = {"processes", "threads", "library", "version", "kernels"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char texts[2][VALUE_BYTES];
        start_values(s, s->a, keys[i], texts[0]);
        start_values(s, s->b, keys[i], texts[1]);
        bool known = texts[0][0] != '\0' && texts[1][0] != '\0';
        if (!known || strcmp(texts[0], texts[1]) == 0 ||
            (strcmp(keys[i], "kernels") == 0 && !fingerprint_says_more(s)))
            continue;
        const char *const values[] = {texts[0], texts[1]};
        add_row(s, "start", keys[i], values, of_start(s, keys[i]));
    }
}

/* -1: not known */
static int data_differs(const search *s, const char *key)
{
    const json_t *a = json_object_get(json_array_get(s->a->starts, 0), key);
    const json_t *b = json_object_get(json_array_get(s->b->starts, 0), key);
    return json_is_string(a) && json_is_string(b) ? !json_equal(a, b) : -1;
}

static void compare_data(search *s)
{
    int train = data_differs(s, "train_set"), test = data_differs(s, "test_set");
    s->same_data = train == 0 && test == 0;
    if (train > 0)
        add_sentence(s, s->d->causes,
                     "the training sets are not the same, by their sizes, first and last sample");
    if (test > 0)
        add_sentence(s, s->d->causes, "the test sets are not the same: test figures can't be compared");
}

/* "model.hidden [64] -> [32]; epochs 5 -> 10" */
static void changed_text(const json_t *changed, size_t capacity, char *out)
{
    const char *key, *gap = "";
    json_t *values;
    json_object_foreach((json_t *)changed, key, values)
    {
        char before[VALUE_BYTES], now[VALUE_BYTES];
        value_text(json_array_get(values, 0), before);
        value_text(json_array_get(values, 1), now);
        lks__append(out, capacity, "%s%s %s -> %s", gap, key, before, now);
        gap = "; ";
    }
}

/* A run that went on with other settings, before the step at which it differs from one that did not. */
static void compare_changes(search *s, const lks__run_files *run, const lks__run_files *other,
                            const char *name)
{
    for (size_t i = 0; i < json_array_size(run->changes); i++) {
        int64_t step = lks__line_step(run->changes, i);
        const json_t *changed = json_object_get(json_array_get(run->changes, i), "changed");
        bool both = false;
        for (size_t k = 0; k < json_array_size(other->changes); k++)
            both = both ||
                   (lks__line_step(other->changes, k) == step &&
                    json_equal(changed, json_object_get(json_array_get(other->changes, k), "changed")));
        if (both || (s->until >= 0 && step >= s->until))
            continue;
        char text[2 * SENTENCE_BYTES] = "";
        lks__append(text, sizeof text, "%s went on with other settings after step %" PRId64 ": ", name, step);
        changed_text(changed, sizeof text, text);
        add_sentence(s, s->d->causes, text);
    }
}

lks_status lks__run_differences_init(lks__run_differences *d, const lks__run_files *a,
                                     const lks__run_files *b, int64_t step)
{
    *d = (lks__run_differences){.rows = json_array(), .causes = json_array(), .orders = json_array()};
    search s = {.a = a, .b = b, .until = step, .d = d};
    if (d->rows == NULL || d->causes == NULL || d->orders == NULL)
        return lks__fail(LKS_E_NOMEM, "out of memory");
    compare_data(&s);
    compare_changes(&s, a, b, "a");
    compare_changes(&s, b, a, "b");
    compare_plans(&s);
    compare_settings(&s);
    compare_starts(&s);
    return s.failures == 0 ? LKS_OK : lks__fail(LKS_E_NOMEM, "out of memory");
}

void lks__run_differences_deinit(lks__run_differences *d)
{
    json_decref(d->rows);
    json_decref(d->causes);
    json_decref(d->orders);
}
