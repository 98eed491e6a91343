/* SPDX-License-Identifier: Apache-2.0 */
#include "train/changes.h"

#include <string.h>

#include <jansson.h>

#include "base/error.h"

/* Does the key stand in the list, or begin with a group of it ("lr.")? */
static bool is_in(const char *const *list, const char *key)
{
    for (; *list != NULL; list++) {
        size_t length = strlen(*list);
        bool is_group = (*list)[length - 1] == '.';
        if (is_group ? strncmp(key, *list, length) == 0 : strcmp(key, *list) == 0)
            return true;
    }
    return false;
}

bool lks__may_differ(const char *key)
{
    static const char *const keys[] = {"name",     "output",  "threads",     "comm.",
                                       "metrics.", "hashes.", "checkpoint.", NULL};
    return is_in(keys, key);
}

bool lks__may_be_asked_for(const char *key)
{
    static const char *const keys[] = {"world",   "batch.",    "epochs",        "steps",
                                       "samples", "reduction", "optimizer.lr",  "optimizer.weight_decay",
                                       "lr.",     "clip.",     "on_divergence", NULL};
    return is_in(keys, key);
}

const char *lks__value_of(const lks__option *option, const lks__settings *settings,
                          char buffer[LKS__VALUE_BYTES])
{
    bool applies = lks__option_applies(option, settings);
    const char *text = applies ? lks__option_format(option, settings, buffer) : NULL;
    return text != NULL && text[0] != '\0' ? text : LKS__NOT_SET;
}

bool lks__next_difference(const lks__settings *before, const lks__settings *now, int *i, lks__difference *out)
{
    while (*i < lks__n_options) {
        const lks__option *option = &lks__options[(*i)++];
        if (lks__may_differ(option->key))
            continue;
        out->option = option;
        out->before = lks__value_of(option, before, out->before_buffer);
        out->now = lks__value_of(option, now, out->now_buffer);
        if (strcmp(out->before, out->now) != 0)
            return true;
    }
    return false;
}

/* A number, list or word as JSON; null for none. */
static json_t *value_to_json(const char *text)
{
    if (strcmp(text, LKS__NOT_SET) == 0)
        return json_null();
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    return value != NULL ? value : json_string(text);
}

lks_status lks__changes_to_json(const lks__settings *before, const lks__settings *now, char **out)
{
    enum { DIGITS = 15 }; /* the most with which every decimal comes back as it was written */
    json_t *object = json_object();
    lks__difference d;
    int failures = object == NULL, n = 0;
    for (int i = 0; lks__next_difference(before, now, &i, &d); n++)
        failures += json_object_set_new(object, d.option->key,
                                        json_pack("[o, o]", value_to_json(d.before), value_to_json(d.now))) !=
                    0;
    *out = failures == 0 && n > 0 ? json_dumps(object, JSON_REAL_PRECISION(DIGITS)) : NULL;
    json_decref(object);
    return failures > 0 || (n > 0 && *out == NULL) ? lks__fail(LKS_E_NOMEM, "out of memory") : LKS_OK;
}

void lks__changes_add_text(const lks__settings *before, const lks__settings *now, lks__text *text)
{
    lks__difference d;
    const char *gap = "";
    for (int i = 0; lks__next_difference(before, now, &i, &d); gap = "; ")
        lks__text_add(text, "%s%s %s -> %s", gap, d.option->key, d.before, d.now);
}
