/* SPDX-License-Identifier: Apache-2.0 */
#include "train/checkpoint_origin.h"

#include <inttypes.h>

#include <lockstep/checkpoint.h>

#include "base/error.h"
#include "base/text.h"
#include "plan/epoch.h"
#include "plan/plan_config.h"

static lks_status read_count(const lks__safetensors *file, const char *path, const char *key, int64_t *out)
{
    const char *text = lks__safetensors_metadata(file, key);
    if (text == NULL || !lks__parse_i64(text, out) || *out < 0)
        return lks__fail(LKS_E_FORMAT, "%s: its %s is no number", path, key);
    return LKS_OK;
}

lks_status lks__checkpoint_origin(const lks__safetensors *file, const char *path, lks_plan_origin *out)
{
    lks_plan_origin o;
    const struct {
        const char *key;
        int64_t *value;
    } counts[] = {
        {"step", &o.step}, {"samples", &o.samples}, {"epoch", &o.epoch}, {"epoch_samples", &o.offset}};
    lks_status status = LKS_OK;
    for (size_t i = 0; status == LKS_OK && i < sizeof counts / sizeof counts[0]; i++)
        status = read_count(file, path, counts[i].key, counts[i].value);
    lks_plan plan;
    const char *json = lks__safetensors_metadata(file, "plan");
    if (status == LKS_OK && json == NULL)
        status = lks__fail(LKS_E_FORMAT, "%s does not have the plan of its run", path);
    if (status == LKS_OK)
        status = lks__error_prefix(lks__plan_epochs_from_json(json, &plan), "%s", path);
    if (status != LKS_OK)
        return status;
    if (o.epoch < plan.origin.epoch || o.epoch > lks__plan_last_epoch(&plan))
        return lks__fail(LKS_E_FORMAT, "%s: epoch %" PRId64 " is no place in its run", path, o.epoch);
    int64_t taken = o.step - lks__plan_steps_before(&plan, o.epoch, 0); /* in its epoch */
    if (taken == lks_plan_steps_in_epoch(&plan, o.epoch)) {
        o.epoch++;
        o.offset = 0;
    }
    *out = o;
    return LKS_OK;
}

lks_status lks_checkpoint_origin(const char *path, lks_plan_origin *out)
{
    lks__safetensors *file;
    lks_status status = lks__safetensors_open(path, &file);
    if (status == LKS_OK)
        status = lks__safetensors_verify(file);
    if (status == LKS_OK)
        status = lks__checkpoint_origin(file, path, out);
    lks__safetensors_close(file);
    return status;
}
