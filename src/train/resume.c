/* SPDX-License-Identifier: Apache-2.0 */
#include "train/resume.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"
#include "conf/options.h"
#include "record/run_dir.h"
#include "record/safetensors.h"
#include "record/write_file.h"

/* Settings that change nothing about what is computed. */
static bool may_differ(const char *key)
{
    static const char *const keys[] = {"name", "output", "threads"};
    static const char *const groups[] = {"comm.", "metrics.", "hashes.", "checkpoint."};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (strcmp(key, keys[i]) == 0)
            return true;
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++)
        if (strncmp(key, groups[i], strlen(groups[i])) == 0)
            return true;
    return false;
}

/* The value as text, in `buffer` or borrowed; "not set" for none. */
static const char *value_of(const lks__option *option, const lks__settings *settings,
                            char buffer[LKS__VALUE_BYTES])
{
    bool applies = lks__option_applies(option, settings);
    const char *text = applies ? lks__option_format(option, settings, buffer) : NULL;
    return text != NULL && text[0] != '\0' ? text : "not set";
}

static lks_status compare(const lks__settings *ours, const lks__settings *runs)
{
    char found[1024] = "";
    for (int i = 0; i < lks__n_options; i++) {
        const lks__option *option = &lks__options[i];
        char a[LKS__VALUE_BYTES], b[LKS__VALUE_BYTES];
        const char *our = value_of(option, ours, a), *its = value_of(option, runs, b);
        if (!may_differ(option->key) && strcmp(our, its) != 0)
            lks__append(found, sizeof found, "%s%s is %s, the run has %s", found[0] != '\0' ? "; " : "",
                        option->key, our, its);
    }
    if (found[0] == '\0')
        return LKS_OK;
    return lks__error_hint(lks__fail(LKS_E_ARG, "a run goes on with the settings it began with: %s", found),
                           "leave the setting out, or begin another run; --init starts it from a checkpoint");
}

lks_status lks__resume_settings(lks__settings *settings)
{
    if (!lks__run_dir_has(settings->output, "config.yaml"))
        return lks__fail(LKS_E_NOT_FOUND, "output: there is no run to go on with in %s", settings->output);
    char *path = lks__join_path(settings->output, "config.yaml");
    if (path == NULL)
        return LKS_E_NOMEM;
    lks_config *config;
    lks_status status = lks_config_load(path, 0, NULL, &config);
    lks__free(path);
    if (status != LKS_OK)
        return status;
    lks__settings resumed = *settings;
    const lks__settings *runs = lks__config_settings(config);
    if (resumed.world == 0)
        resumed.world = runs->world;
    status = compare(&resumed, runs);
    lks_config_destroy(config);
    if (status == LKS_OK)
        *settings = resumed;
    return status;
}

static lks_status check_whole(const char *path)
{
    lks__safetensors *file;
    lks_status status = lks__safetensors_open(path, &file);
    if (status == LKS_OK)
        status = lks__safetensors_verify(file);
    lks__safetensors_close(file);
    return status;
}

static void tell(lks_train_note_fn *note, void *context)
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
        tell(note, context);
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
