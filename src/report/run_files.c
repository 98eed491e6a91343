/* SPDX-License-Identifier: Apache-2.0 */
#include "report/run_files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "record/run_dir.h"
#include "record/write_file.h"

/* Hands a line's object on; what it is good for is decided by its keys. */
typedef lks_status take_line(lks__run_files *run, json_t *line);

static lks_status append(json_t *lines, json_t *line)
{
    size_t n = json_array_size(lines);
    if (n > 0 && lks__line_step(lines, n - 1) > (int64_t)json_integer_value(json_object_get(line, "step")))
        return lks__fail(LKS_E_FORMAT, "its step is below that of the line before");
    return json_array_append(lines, line) == 0 ? LKS_OK : lks__fail(LKS_E_NOMEM, "out of memory");
}

/* Lines about other things are passed over. */
static lks_status take_metrics(lks__run_files *run, json_t *line)
{
    if (json_object_get(line, "epoch_samples") != NULL)
        return append(run->epochs, line);
    if (json_object_get(line, "loss") != NULL)
        return append(run->steps, line);
    if (json_object_get(line, "trouble") != NULL)
        run->went_wrong = true;
    return json_is_object(json_object_get(line, "changed")) ? append(run->changes, line) : LKS_OK;
}

static lks_status take_hash(lks__run_files *run, json_t *line)
{
    if (!json_is_string(json_object_get(line, "tensor")) || !json_is_string(json_object_get(line, "hash")))
        return lks__fail(LKS_E_FORMAT, "it has no tensor and hash");
    return append(run->hashes, line);
}

static lks_status take_start(lks__run_files *run, json_t *line)
{
    return append(run->starts, line);
}

static lks_status parse_line(lks__run_files *run, const char *text, size_t length, take_line *take)
{
    json_error_t error;
    json_t *line = json_loadb(text, length, 0, &error);
    lks_status status;
    if (line == NULL)
        status = lks__fail(LKS_E_FORMAT, "%s", error.text);
    else if (!json_is_integer(json_object_get(line, "step")))
        status = lks__fail(LKS_E_FORMAT, "it has no step");
    else
        status = take(run, line);
    json_decref(line);
    return status;
}

static lks_status read_lines(lks__run_files *run, FILE *file, const char *path, take_line *take)
{
    char *text = NULL;
    size_t capacity = 0;
    ssize_t length;
    lks_status status = LKS_OK;
    for (int number = 1; status == LKS_OK && (length = getline(&text, &capacity, file)) > 0; number++)
        if (text[length - 1] == '\n')
            status = lks__error_prefix(parse_line(run, text, (size_t)length, take), "%s:%d", path, number);
    if (status == LKS_OK && ferror(file))
        status = lks__fail_errno(LKS_E_IO, errno, "cannot read %s", path);
    free(text);
    return status;
}

static lks_status read_file(lks__run_files *run, const char *name, take_line *take)
{
    if (!lks__run_dir_has(run->path, name)) /* an older run, or a program's own */
        return LKS_OK;
    char *path = lks__join_path(run->path, name);
    if (path == NULL)
        return LKS_E_NOMEM;
    FILE *file = fopen(path, "re");
    lks_status status = file == NULL ? lks__fail_open(errno, path) : read_lines(run, file, path, take);
    if (file != NULL)
        fclose(file);
    lks__free(path);
    return status;
}

/* Has it the counts that a plan can't do without? */
static bool is_plan(const json_t *plan)
{
    static const char *const keys[] = {"world", "local_batch", "effective_batch", "total_steps"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (json_integer_value(json_object_get(plan, keys[i])) < 1) /* 0 for what is no integer */
            return false;
    return true;
}

static lks_status read_plan(lks__run_files *run)
{
    if (!lks__run_dir_has(run->path, "plan.json"))
        return lks__fail(LKS_E_NOT_FOUND, "%s is no run directory: it has no plan.json", run->path);
    char *path = lks__join_path(run->path, "plan.json");
    if (path == NULL)
        return LKS_E_NOMEM;
    json_error_t error;
    run->plan = json_load_file(path, 0, &error);
    lks_status status = LKS_OK;
    if (run->plan == NULL)
        status = lks__fail(LKS_E_FORMAT, "%s:%d: %s", path, error.line, error.text);
    else if (!is_plan(run->plan))
        status = lks__fail(LKS_E_FORMAT, "%s is not the plan of a run", path);
    lks__free(path);
    return status;
}

static lks_status read_config(lks__run_files *run)
{
    if (!lks__run_dir_has(run->path, "config.yaml"))
        return LKS_OK;
    char *path = lks__join_path(run->path, "config.yaml");
    if (path == NULL)
        return LKS_E_NOMEM;
    lks_status status = lks_config_load(path, 0, NULL, &run->config);
    lks__free(path);
    return status;
}

lks_status lks__run_files_init(lks__run_files *run, const char *path)
{
    *run = (lks__run_files){.path = path,
                            .steps = json_array(),
                            .epochs = json_array(),
                            .changes = json_array(),
                            .hashes = json_array(),
                            .starts = json_array()};
    if (run->steps == NULL || run->epochs == NULL || run->changes == NULL || run->hashes == NULL ||
        run->starts == NULL)
        return lks__fail(LKS_E_NOMEM, "out of memory");
    run->finished = lks__run_dir_has(path, "model.safetensors");
    lks_status status = read_plan(run);
    if (status == LKS_OK)
        status = read_config(run);
    if (status == LKS_OK)
        status = read_file(run, "metrics.jsonl", take_metrics);
    if (status == LKS_OK)
        status = read_file(run, "hashes.jsonl", take_hash);
    if (status == LKS_OK)
        status = read_file(run, "starts.jsonl", take_start);
    return status;
}

void lks__run_files_deinit(lks__run_files *run)
{
    json_decref(run->plan);
    lks_config_destroy(run->config);
    json_decref(run->steps);
    json_decref(run->epochs);
    json_decref(run->changes);
    json_decref(run->hashes);
    json_decref(run->starts);
}

int64_t lks__run_files_last_step(const lks__run_files *run)
{
    const json_t *files[] = {run->steps, run->epochs, run->hashes};
    int64_t last = 0;
    for (int i = 0; i < 3; i++) {
        size_t n = json_array_size(files[i]);
        if (n > 0 && lks__line_step(files[i], n - 1) > last)
            last = lks__line_step(files[i], n - 1);
    }
    return last;
}
