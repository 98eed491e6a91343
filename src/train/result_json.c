/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

#include "base/error.h"
#include "plan/plan_config.h"
#include "train/trainer.h"

/* JSON has no NaN: null. */
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *stop_to_json(lks_train_stop stopped)
{
    if (stopped == LKS_STOP_NONE)
        return json_null();
    return json_string(stopped == LKS_STOP_TIME ? "time" : "signal");
}

static json_t *times_to_json(const lks_train_times *times)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "data", number(times->data),
                     "forward_backward", number(times->forward_backward), "wait", number(times->wait),
                     "reduce", number(times->reduce), "optimizer", number(times->optimizer), "checkpoint",
                     number(times->checkpoint), "exchange", number(times->exchange), "exposed",
                     number(times->exposed));
}

lks_status lks_train_result_to_json(const lks_train_result *result, const lks_plan *plan, double seconds,
                                    char **out)
{
    *out = NULL;
    char hash[17];
    snprintf(hash, sizeof hash, "%016" PRIx64, result->parameters_hash);
    json_t *object = json_pack(
        "{s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:s, s:i, s:I, s:I, s:o, s:o, s:i, s:o}", "steps",
        (json_int_t)result->steps, "skipped_steps", (json_int_t)result->skipped_steps, "epochs",
        number(result->epochs), "train_loss", number(result->train_loss), "test_loss",
        number(result->test_loss), "test_accuracy", number(result->test_accuracy), "samples_per_second",
        number(result->samples_per_second), "first_step_seconds", number(result->first_step_seconds),
        "seconds", number(seconds), "parameters", (json_int_t)result->parameters, "parameters_hash", hash,
        "machines", result->machines, "comparisons", (json_int_t)result->comparisons, "peak_memory_bytes",
        (json_int_t)result->peak_memory_bytes, "measured_memory", lks__memory_to_json(&result->memory),
        "stopped", stop_to_json(result->stopped), "stop_signal", result->stop_signal, "times",
        times_to_json(&result->times));
    lks_status status = object == NULL ? lks__fail(LKS_E_NOMEM, "out of memory")
                                       : lks__plan_add_json(plan, object);
    if (status == LKS_OK)
        status = lks__json_to_text(object, out);
    json_decref(object);
    return status;
}
