/* SPDX-License-Identifier: Apache-2.0 */
/** A config: for each option the text that was given and where; resolved into settings after every change. */
#include <lockstep/config.h>

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"
#include "conf/config_yaml.h"
#include "conf/options.h"

#define COMMAND_LINE "the command line"

/* What was given for an option. */
typedef struct entry {
    char *text;   /* NULL: not set */
    char *origin; /* "x.yaml:7"; NULL exactly when text is */
    bool asked;   /* given on the command line, also to unset it */
} entry;

struct lks_config {
    char *path;
    char *default_name;   /* the file's name without folder and extension */
    char *default_output; /* runs/NAME */
    entry entries[LKS__MAX_OPTIONS];
    lks__settings settings; /* texts point into entries, the two defaults above, or the option table */
};

static const entry *entry_of(const lks_config *config, const char *key)
{
    return &config->entries[lks__option_find(key) - lks__options];
}

static bool is_given(const lks_config *config, const char *key)
{
    return entry_of(config, key)->text != NULL;
}

static bool is_from_command_line(const lks_config *config, const char *key)
{
    return strcmp(entry_of(config, key)->origin, COMMAND_LINE) == 0;
}

/* --- checks over several settings; keys are those of the table --- */

static lks_status missing(const lks_config *config, const char *what)
{
    return lks__fail(LKS_E_ARG, "%s: %s", config->path, what);
}

static lks_status check_required(const lks_config *config, const lks__settings *settings)
{
    (void)settings;
    if (!is_given(config, "data.path"))
        return missing(config, "data.path is missing: the folder of the data set");
    if (!is_given(config, "batch.local") && !is_given(config, "batch.global"))
        return missing(config, "the batch size is missing: set batch.local or batch.global");
    return LKS_OK;
}

/* Of a length in the file and one on the command line the second is meant. */
static lks_status two_lengths(const lks_config *config, const char *a, const char *b)
{
    bool a_given_last = is_from_command_line(config, a), b_given_last = is_from_command_line(config, b);
    (void)lks__fail(LKS_E_ARG, "%s (%s) and %s (%s) are both set; a run has one length", a,
                    entry_of(config, a)->origin, b, entry_of(config, b)->origin);
    if (a_given_last == b_given_last)
        return lks__error_hint(LKS_E_ARG, "unset one of them: %s=auto or %s=auto", a, b);
    return lks__error_hint(LKS_E_ARG, "unset the other one: %s=auto", a_given_last ? b : a);
}

static lks_status check_length(const lks_config *config, const lks__settings *settings)
{
    (void)settings;
    static const char *const lengths[] = {"epochs", "steps", "samples"};
    const char *set = NULL;
    for (int i = 0; i < 3; i++) {
        if (!is_given(config, lengths[i]))
            continue;
        if (set != NULL)
            return two_lengths(config, set, lengths[i]);
        set = lengths[i];
    }
    return set != NULL ? LKS_OK
                       : missing(config, "the length of the run is missing: set epochs, steps or samples");
}

/* A setting is given, but what is chosen does not have it. */
static lks_status not_in_use(const lks__option *option, const entry *given, const lks__settings *settings)
{
    char kind[LKS__VALUE_BYTES];
    const lks__option *choice = lks__option_find(option->of);
    lks__option_format(choice, settings, kind);
    (void)lks__fail(LKS_E_ARG, "%s (%s) is no setting of the %s %s", option->key, given->origin, choice->noun,
                    kind);
    return lks__error_hint(LKS_E_ARG, "unset it: %s=auto", option->key);
}

static lks_status check_in_use(const lks_config *config, const lks__settings *settings)
{
    for (int i = 0; i < lks__n_options; i++)
        if (config->entries[i].text != NULL && !lks__option_applies(&lks__options[i], settings))
            return not_in_use(&lks__options[i], &config->entries[i], settings);
    return LKS_OK;
}

static lks_status check_optimizer(const lks_config *config, const lks__settings *settings)
{
    lks_status status = lks_optimizer_config_check(&settings->optimizer);
    if (status != LKS_OK) /* every number by itself is in its range: what is left is Nesterov's momentum */
        return lks__error_prefix(status, "%s", entry_of(config, "optimizer.nesterov")->origin);
    return LKS_OK;
}

static lks_status check_rule(const lks_config *config, const lks__settings *settings)
{
    const entry *rule = entry_of(config, "lr.rule");
    if (settings->lr_rule == LKS_LR_NONE || is_given(config, "lr.reference_batch"))
        return LKS_OK;
    return lks__fail(LKS_E_ARG,
                     "lr.rule is %s (%s), which needs lr.reference_batch: the effective batch for which "
                     "optimizer.lr was tuned",
                     rule->text, rule->origin);
}

static lks_status check_schedule(const lks_config *config, const lks__settings *settings)
{
    static const struct {
        lks_schedule_kind kind;
        const char *key, *meaning;
    } needed[] = {
        {LKS_SCHEDULE_STEP, "lr.step_epochs", "the epochs between two falls of the learning rate"},
        {LKS_SCHEDULE_MULTISTEP, "lr.milestones", "the epochs after which the learning rate falls"},
        {LKS_SCHEDULE_EXPONENTIAL, "lr.gamma", "what the learning rate is multiplied by after every epoch"},
    };
    const entry *schedule = entry_of(config, "lr.schedule");
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
        if (settings->schedule.kind == needed[i].kind && !is_given(config, needed[i].key))
            return lks__fail(LKS_E_ARG, "lr.schedule is %s (%s), which needs %s: %s", schedule->text,
                             schedule->origin, needed[i].key, needed[i].meaning);
    return LKS_OK;
}

static lks_status check_rollback(const lks_config *config, const lks__settings *settings)
{
    const entry *given = entry_of(config, "on_divergence");
    if (settings->on_divergence != LKS_DIVERGENCE_ROLLBACK || settings->checkpoint_every_steps > 0 ||
        settings->checkpoint_every_seconds > 0 || settings->checkpoint_every_epochs > 0)
        return LKS_OK;
    return lks__fail(LKS_E_ARG,
                     "on_divergence is %s (%s), which needs checkpoints to go back to: "
                     "checkpoint.every_steps, checkpoint.every_seconds or checkpoint.every_epochs",
                     given->text, given->origin);
}

/* The name becomes a folder's name. */
static lks_status check_name(const lks_config *config, const lks__settings *settings)
{
    (void)config;
    const char *name = settings->name;
    char shown[LKS__SHOWN_BYTES];
    if (strchr(name, '/') == NULL && name[0] != '.')
        return LKS_OK;
    return lks__fail(LKS_E_ARG,
                     "name is \"%s\"; a name without \"/\" and without \".\" at its start is needed",
                     lks__shown(name, shown));
}

static lks_status (*const checks[])(const lks_config *config, const lks__settings *settings) = {
    check_required, check_length,   check_in_use,   check_optimizer,
    check_rule,     check_schedule, check_rollback, check_name,
};

static lks_status check(const lks_config *config, const lks__settings *settings)
{
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        lks_status status = checks[i](config, settings);
        if (status != LKS_OK)
            return status;
    }
    return LKS_OK;
}

/* --- from entries to settings --- */

/* optimizer.kind stands before the settings whose defaults depend on it. */
static lks_status parse_entries(const lks_config *config, lks__settings *settings)
{
    for (int i = 0; i < lks__n_options; i++) {
        const lks__option *option = &lks__options[i];
        const char *text = config->entries[i].text;
        if (text == NULL)
            text = lks__option_default(option, settings->optimizer.kind);
        lks_status status = text == NULL ? LKS_OK : lks__option_parse(option, text, settings);
        if (status != LKS_OK)
            return status;
    }
    return LKS_OK;
}

/* Nothing changes on failure. */
static lks_status resolve(lks_config *config)
{
    lks__settings settings = {.name = config->default_name};
    lks_status status = parse_entries(config, &settings);
    if (status == LKS_OK)
        status = check(config, &settings);
    if (status != LKS_OK)
        return status;

    size_t bytes = strlen(settings.name) + sizeof "runs/";
    char *default_output = lks__alloc(bytes, LKS__MEM_MISC);
    if (default_output == NULL)
        return LKS_E_NOMEM;
    snprintf(default_output, bytes, "runs/%s", settings.name);
    lks__free(config->default_output);
    config->default_output = default_output;
    if (settings.output == NULL)
        settings.output = default_output;
    config->settings = settings;
    return LKS_OK;
}

/* --- giving values --- */

static void clear(entry *e)
{
    lks__free(e->text);
    lks__free(e->origin);
    *e = (entry){0};
}

/* text: NULL unsets. Checks the value by itself. */
static lks_status make_entry(const lks__option *option, const char *text, const char *origin, entry *out)
{
    lks__settings scratch;
    entry made = {0};
    if (text == NULL) {
        *out = made;
        return LKS_OK;
    }
    if (!lks__yaml_can_hold(text))
        return lks__fail(LKS_E_ARG, "%s is not valid UTF-8", option->key);
    lks_status status = lks__option_parse(option, text, &scratch);
    if (status != LKS_OK)
        return status;
    made.text = lks__strdup(text);
    made.origin = lks__strdup(origin);
    if (made.text == NULL || made.origin == NULL) {
        clear(&made);
        return LKS_E_NOMEM;
    }
    *out = made;
    return LKS_OK;
}

static lks_status give(lks_config *config, const lks__option *option, const char *text, const char *origin)
{
    entry made;
    lks_status status = make_entry(option, text, origin, &made);
    if (status != LKS_OK)
        return status;
    made.asked = strcmp(origin, COMMAND_LINE) == 0;
    entry *place = &config->entries[option - lks__options];
    clear(place);
    *place = made;
    return LKS_OK;
}

static lks_status give_from_file(void *context, const lks__option *option, const char *text, int line)
{
    lks_config *config = context;
    char origin[512];
    snprintf(origin, sizeof origin, "%.480s:%d", config->path, line);
    return give(config, option, text, origin);
}

/* The value of an override: "auto" unsets. */
static const char *override_text(const char *value)
{
    return strcmp(value, "auto") == 0 ? NULL : value;
}

static lks_status find_option(const char *key, const lks__option **out)
{
    *out = lks__option_find(key);
    return *out != NULL ? LKS_OK : lks__option_unknown(key);
}

static lks_status give_override(lks_config *config, const char *override)
{
    enum { MAX_KEY = 127 };
    const lks__option *option;
    char key[MAX_KEY + 1], shown[LKS__SHOWN_BYTES];
    const char *equals = strchr(override, '=');
    if (equals == NULL || equals == override)
        return lks__fail(LKS_E_ARG, "\"%s\" is not key=value", lks__shown(override, shown));
    snprintf(key, sizeof key, "%.*s", (int)(equals - override < MAX_KEY ? equals - override : MAX_KEY),
             override);
    lks_status status = find_option(key, &option);
    return status == LKS_OK ? give(config, option, override_text(equals + 1), COMMAND_LINE) : status;
}

lks_status lks_config_set(lks_config *config, const char *key, const char *value)
{
    const lks__option *option;
    entry made;
    lks_status status = find_option(key, &option);
    if (status == LKS_OK)
        status = make_entry(option, override_text(value), COMMAND_LINE, &made);
    if (status != LKS_OK)
        return status;
    entry *place = &config->entries[option - lks__options];
    entry old = *place;
    made.asked = true;
    *place = made;
    status = resolve(config);
    if (status != LKS_OK)
        *place = old;
    clear(status == LKS_OK ? &old : &made);
    return status;
}

/* --- the handle --- */

/* "examples/mnist.yaml" -> "mnist"; "run" where the file's name gives none that a folder should have. */
static char *name_of_file(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *file = slash != NULL ? slash + 1 : path;
    bool fit = file[0] != '\0' && file[0] != '.' && lks__yaml_can_hold(file);
    char *name = lks__strdup(fit ? file : "run");
    char *dot = name != NULL ? strrchr(name, '.') : NULL;
    if (dot != NULL)
        *dot = '\0';
    return name;
}

static lks_status fill(lks_config *config, const char *path, int n_overrides, const char *const *overrides)
{
    config->path = lks__strdup(path);
    config->default_name = name_of_file(path);
    if (config->path == NULL || config->default_name == NULL)
        return LKS_E_NOMEM;
    lks_status status = lks__yaml_read(path, give_from_file, config);
    for (int i = 0; status == LKS_OK && i < n_overrides; i++)
        status = give_override(config, overrides[i]);
    return status == LKS_OK ? resolve(config) : status;
}

lks_status lks_config_load(const char *path, int n_overrides, const char *const *overrides, lks_config **out)
{
    *out = NULL;
    lks_config *config = lks__alloc(sizeof *config, LKS__MEM_MISC);
    if (config == NULL)
        return LKS_E_NOMEM;
    lks_status status = fill(config, path, n_overrides, overrides);
    if (status != LKS_OK) {
        lks_config_destroy(config);
        return status;
    }
    *out = config;
    return LKS_OK;
}

void lks_config_destroy(lks_config *config)
{
    if (config == NULL)
        return;
    for (int i = 0; i < lks__n_options; i++)
        clear(&config->entries[i]);
    lks__free(config->path);
    lks__free(config->default_name);
    lks__free(config->default_output);
    lks__free(config);
}

lks_status lks__config_parse(const char *name, const char *yaml, lks_config **out)
{
    *out = NULL;
    lks_config *config = lks__alloc(sizeof *config, LKS__MEM_MISC);
    if (config == NULL)
        return LKS_E_NOMEM;
    config->path = lks__strdup(name);
    config->default_name = name_of_file(name);
    lks_status status = LKS_E_NOMEM;
    if (config->path != NULL && config->default_name != NULL)
        status = lks__yaml_parse(name, yaml, give_from_file, config);
    if (status == LKS_OK)
        status = resolve(config);
    if (status != LKS_OK) {
        lks_config_destroy(config);
        return status;
    }
    *out = config;
    return LKS_OK;
}

/* --- a config on top of another --- */

static lks_status copy_entry(const entry *from, entry *out)
{
    entry made = {.asked = from->asked};
    if (from->text != NULL) {
        made.text = lks__strdup(from->text);
        made.origin = lks__strdup(from->origin);
        if (made.text == NULL || made.origin == NULL) {
            clear(&made);
            return LKS_E_NOMEM;
        }
    }
    *out = made;
    return LKS_OK;
}

/* A choice that was asked for leaves settings behind that only the one before had. */
static lks_status drop_what_is_not_in_use(lks_config *config)
{
    lks__settings settings = {.name = config->default_name};
    lks_status status = parse_entries(config, &settings);
    for (int i = 0; status == LKS_OK && i < lks__n_options; i++)
        if (!config->entries[i].asked && !lks__option_applies(&lks__options[i], &settings))
            clear(&config->entries[i]);
    return status;
}

static lks_status overlay(const lks_config *base, const lks_config *top, lks__config_keep_fn *keep,
                          lks_config *config)
{
    config->path = lks__strdup(top->path);
    config->default_name = lks__strdup(top->default_name);
    lks_status status = config->path != NULL && config->default_name != NULL ? LKS_OK : LKS_E_NOMEM;
    for (int i = 0; status == LKS_OK && i < lks__n_options; i++) {
        bool kept = top->entries[i].asked || keep(lks__options[i].key);
        status = copy_entry(kept ? &top->entries[i] : &base->entries[i], &config->entries[i]);
    }
    if (status == LKS_OK)
        status = drop_what_is_not_in_use(config);
    return status == LKS_OK ? resolve(config) : status;
}

lks_status lks__config_overlay(const lks_config *base, const lks_config *top, lks__config_keep_fn *keep,
                               lks_config **out)
{
    *out = NULL;
    lks_config *config = lks__alloc(sizeof *config, LKS__MEM_MISC);
    if (config == NULL)
        return LKS_E_NOMEM;
    lks_status status = overlay(base, top, keep, config);
    if (status != LKS_OK) {
        lks_config_destroy(config);
        return status;
    }
    *out = config;
    return LKS_OK;
}

/* --- looking --- */

bool lks__config_is_asked_for(const lks_config *config, const char *key)
{
    return entry_of(config, key)->asked;
}

const lks__settings *lks__config_settings(const lks_config *config)
{
    return &config->settings;
}

const char *lks_config_get(const lks_config *config, const char *key)
{
    static _Thread_local char buffer[LKS__VALUE_BYTES];
    const lks__option *option = lks__option_find(key);
    if (option == NULL)
        return NULL;
    if (!lks__option_applies(option, &config->settings))
        return "";
    const char *text = lks__option_format(option, &config->settings, buffer);
    return text != NULL ? text : "";
}
