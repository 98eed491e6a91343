/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>

#include <lockstep/checkpoint.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"
#include "plan/plan_config.h"
#include "record/checksum.h"
#include "record/safetensors.h"
#include "train/trainer.h"

/* The metadata that are numbers, and those of the plan's numbers that people look for. */
static const char *const position_keys[] = {"step", "epoch", "samples", "seed"};
static const struct {
    const char *key, *label;
} plan_keys[] = {
    {"processes", "processes"},
    {"world", "world"},
    {"local_batch", "local batch"},
    {"accumulate", "accumulation"},
    {"effective_batch", "effective batch"},
    {"steps_per_epoch", "steps per epoch"},
    {"total_steps", "total steps"},
    {"scaled_lr", "scaled rate"},
    {"schedule", "schedule"},
};

enum {
    N_POSITION_KEYS = sizeof position_keys / sizeof position_keys[0],
    N_PLAN_KEYS = sizeof plan_keys / sizeof plan_keys[0],
    SHAPE_BYTES = 24 * LKS__SAFETENSORS_DIMS,
};

static json_t *text_or_null(const char *text)
{
    return text != NULL ? json_string(text) : json_null();
}

static json_t *number_or_null(const char *text)
{
    int64_t number;
    return text != NULL && lks__parse_i64(text, &number) ? json_integer(number) : json_null();
}

static json_t *real_or_null(const char *text)
{
    double number;
    return text != NULL && lks__parse_f64(text, &number) ? json_real(number) : json_null();
}

static json_t *object_or_null(const char *text)
{
    json_t *object = text != NULL ? json_loads(text, 0, NULL) : NULL;
    return object != NULL ? object : json_null();
}

static json_t *shape_list(const lks__tensor_info *tensor)
{
    json_t *list = json_array();
    for (int i = 0; i < tensor->n_dims; i++)
        json_array_append_new(list, json_integer(tensor->shape[i]));
    return list;
}

static json_t *tensor_list(const lks__safetensors *file)
{
    json_t *list = json_array();
    for (int i = 0; i < lks__safetensors_n_tensors(file); i++) {
        lks__tensor_info tensor = lks__safetensors_tensor(file, i);
        json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "name", tensor.name, "type", tensor.dtype,
                                              "shape", shape_list(&tensor)));
    }
    return list;
}

/* *out: a new object, also what the text is made from; NULL after a failure. */
static lks_status describe_file(const lks__safetensors *file, json_t **out)
{
    json_t *object = json_object();
    int failures = 0;
    failures += json_object_set_new(
        object, "format", number_or_null(lks__safetensors_metadata(file, LKS__CHECKPOINT_FORMAT_KEY)));
    failures += json_object_set_new(object, "checksum",
                                    text_or_null(lks__safetensors_metadata(file, LKS__CHECKSUM_KEY)));
    for (int i = 0; i < N_POSITION_KEYS; i++)
        failures += json_object_set_new(object, position_keys[i],
                                        number_or_null(lks__safetensors_metadata(file, position_keys[i])));
    failures += json_object_set_new(object, "best", text_or_null(lks__safetensors_metadata(file, "best")));
    failures += json_object_set_new(object, "best_value",
                                    real_or_null(lks__safetensors_metadata(file, "best_value")));
    failures += json_object_set_new(object, "best_step",
                                    number_or_null(lks__safetensors_metadata(file, "best_step")));
    failures += json_object_set_new(object, "plan", object_or_null(lks__safetensors_metadata(file, "plan")));
    failures += json_object_set_new(object, "tensors", tensor_list(file));
    if (failures == 0) {
        *out = object;
        return LKS_OK;
    }
    json_decref(object);
    return lks__fail(LKS_E_NOMEM, "out of memory");
}

static lks_status describe_path(const char *path, json_t **out)
{
    lks__safetensors *file;
    *out = NULL;
    lks_status status = lks__model_open(path, &file);
    if (status != LKS_OK)
        return status;
    status = describe_file(file, out);
    lks__safetensors_close(file);
    return status;
}

/* "  local batch               16"; nothing for null. */
static void add_value(lks__text *text, const char *label, const json_t *value)
{
    if (json_is_integer(value))
        lks__text_add(text, "  %-16s %16" PRId64 "\n", label, (int64_t)json_integer_value(value));
    else if (json_is_real(value))
        lks__text_add(text, "  %-16s %16.6g\n", label, json_real_value(value));
    else if (json_is_string(value))
        lks__text_add(text, "  %-16s %16s\n", label, json_string_value(value));
}

static void add_tensor(lks__text *text, const json_t *tensor)
{
    const json_t *sizes = json_object_get(tensor, "shape");
    int64_t shape[LKS__SAFETENSORS_DIMS] = {0};
    char list[SHAPE_BYTES];
    for (size_t i = 0; i < json_array_size(sizes); i++)
        shape[i] = json_integer_value(json_array_get(sizes, i));
    lks__text_add(text, "  %s %s %s\n", json_string_value(json_object_get(tensor, "name")),
                  json_string_value(json_object_get(tensor, "type")),
                  lks__list_text((int64_t)json_array_size(sizes), shape, sizeof list, list));
}

static void add_file(lks__text *text, const json_t *file)
{
    const json_t *plan = json_object_get(file, "plan"), *tensors = json_object_get(file, "tensors");
    bool checked = json_is_string(json_object_get(file, "checksum"));
    add_value(text, "format", json_object_get(file, "format"));
    lks__text_add(text, "  %-16s %16s\n", "checksum", checked ? "right" : "none");
    for (int i = 0; i < N_POSITION_KEYS; i++)
        add_value(text, position_keys[i], json_object_get(file, position_keys[i]));
    add_value(text, "best by", json_object_get(file, "best"));
    add_value(text, "best value", json_object_get(file, "best_value"));
    add_value(text, "after step", json_object_get(file, "best_step"));
    lks__text_add(text, "%s", json_is_object(plan) ? "\nplan\n" : "");
    for (int i = 0; i < N_PLAN_KEYS; i++)
        add_value(text, plan_keys[i].label, json_object_get(plan, plan_keys[i].key));
    lks__text_add(text, "\ntensors\n");
    for (size_t i = 0; i < json_array_size(tensors); i++)
        add_tensor(text, json_array_get(tensors, i));
}

lks_status lks_checkpoint_to_text(const char *path, char **out)
{
    json_t *object;
    lks__text text = {0};
    *out = NULL;
    lks_status status = describe_path(path, &object);
    if (status != LKS_OK)
        return status;
    add_file(&text, object);
    json_decref(object);
    return lks__text_take(&text, out);
}

lks_status lks_checkpoint_to_json(const char *path, char **out)
{
    json_t *object;
    *out = NULL;
    lks_status status = describe_path(path, &object);
    if (status == LKS_OK)
        status = lks__json_to_text(object, out);
    json_decref(object);
    return status;
}

/* views, data: [what the file's parameters need]. *n: views filled. */
static lks_status read_params(const lks__safetensors *file, lks__tensor_view *views, float *data, int *n)
{
    lks_status status = LKS_OK;
    *n = 0;
    for (int i = 0; status == LKS_OK && i < lks__safetensors_n_tensors(file); i++) {
        lks__tensor_info tensor = lks__safetensors_tensor(file, i);
        if (strncmp(tensor.name, LKS__OPTIMIZER_PREFIX, strlen(LKS__OPTIMIZER_PREFIX)) == 0)
            continue;
        status = lks__safetensors_read(file, tensor.name, tensor.n_dims, tensor.shape, data);
        views[(*n)++] = (lks__tensor_view){tensor.name, tensor.n_dims, tensor.shape, data};
        data += tensor.bytes / (int64_t)sizeof *data;
    }
    return status;
}

static lks_status copy_params(const lks__safetensors *file, const char *out_path)
{
    int n = lks__safetensors_n_tensors(file);
    int64_t elems = lks__safetensors_data_bytes(file) / (int64_t)sizeof(float);
    lks__tensor_view *views = lks__alloc_array(n, sizeof *views, LKS__MEM_MISC);
    float *data = lks__alloc_array(elems, sizeof *data, LKS__MEM_PARAMS);
    lks_status status = LKS_E_NOMEM;
    if (views != NULL && data != NULL)
        status = read_params(file, views, data, &n);
    if (status == LKS_OK)
        status = lks__safetensors_write(out_path, n, views, 0, NULL);
    lks__free(data);
    lks__free(views);
    return status;
}

static lks_status check_target(const char *path, const char *out_path, bool overwrite)
{
    struct stat from, to;
    if (lstat(out_path, &to) != 0)
        return LKS_OK; /* what else is wrong with it, writing tells */
    if (!overwrite)
        return lks__error_hint(lks__fail(LKS_E_EXISTS, "%s exists", out_path), "--overwrite replaces it");
    if (stat(path, &from) == 0 && from.st_dev == to.st_dev && from.st_ino == to.st_ino)
        return lks__fail(LKS_E_ARG, "%s is the checkpoint itself; its parameters need a file of their own",
                         out_path);
    return LKS_OK;
}

static lks_status check_format(const lks__safetensors *file, const char *path)
{
    const char *format = lks__safetensors_metadata(file, LKS__CHECKPOINT_FORMAT_KEY);
    if (format == NULL || strcmp(format, LKS__CHECKPOINT_FORMAT) != 0)
        return lks__fail(LKS_E_FORMAT, "%s is no checkpoint of format " LKS__CHECKPOINT_FORMAT, path);
    return LKS_OK;
}

lks_status lks_checkpoint_export(const char *path, const char *out_path, bool overwrite)
{
    lks__safetensors *file;
    lks_status status = lks__model_open(path, &file);
    if (status != LKS_OK)
        return status;
    status = check_format(file, path);
    if (status == LKS_OK)
        status = check_target(path, out_path, overwrite);
    if (status == LKS_OK)
        status = copy_params(file, out_path);
    lks__safetensors_close(file);
    return status;
}
