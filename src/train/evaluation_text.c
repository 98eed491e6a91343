/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include <jansson.h>

#include <lockstep/evaluate.h>

#include "base/error.h"
#include "base/text.h"

static const char *const splits[] = {"test", "train"}; /* by lks_split */

/* NaN for a class without samples. */
static double share(const lks_evaluation *e, int64_t class)
{
    return e->class_samples[class] > 0 ? (double)e->class_correct[class] / (double)e->class_samples[class]
                                       : NAN;
}

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *class_list(const lks_evaluation *e)
{
    json_t *list = json_array();
    for (int64_t c = 0; c < e->n_classes; c++)
        json_array_append_new(list,
                              json_pack("{s:I, s:I, s:I, s:o}", "class", (json_int_t)c, "samples",
                                        (json_int_t)e->class_samples[c], "correct",
                                        (json_int_t)e->class_correct[c], "accuracy", number(share(e, c))));
    return list;
}

lks_status lks_evaluation_to_json(const lks_evaluation *e, const lks_evaluate_options *options, char **out)
{
    enum { DIGITS = 17 }; /* every double reads back as it was */
    json_t *object = json_pack("{s:s, s:s, s:I, s:I, s:o, s:o, s:o}", "model", options->model_path, "split",
                               splits[options->split], "samples", (json_int_t)e->samples, "correct",
                               (json_int_t)e->correct, "loss", number(e->loss), "accuracy",
                               number(e->accuracy), "classes", class_list(e));
    *out = object != NULL ? json_dumps(object, JSON_INDENT(2) | JSON_REAL_PRECISION(DIGITS)) : NULL;
    json_decref(object);
    return *out != NULL ? LKS_OK : lks__fail(LKS_E_NOMEM, "out of memory");
}

lks_status lks_evaluation_to_text(const lks_evaluation *e, const lks_evaluate_options *options, char **out)
{
    lks__text text = {0};
    lks__text_add(&text, "  model         %s\n  samples       %8" PRId64 "  the %s set, each once\n",
                  options->model_path, e->samples, options->split == LKS_SPLIT_TRAIN ? "training" : "test");
    lks__text_add(&text, "  loss          %8.4f\n  accuracy      %8.2f %%  %" PRId64 " of them\n", e->loss,
                  100 * e->accuracy, e->correct);
    lks__text_add(&text, "\n  %-8s %10s %10s %10s\n", "class", "samples", "correct", "accuracy");
    for (int64_t c = 0; c < e->n_classes; c++) {
        lks__text_add(&text, "  %-8" PRId64 " %10" PRId64 " %10" PRId64, c, e->class_samples[c],
                      e->class_correct[c]);
        if (e->class_samples[c] > 0)
            lks__text_add(&text, " %8.2f %%\n", 100 * share(e, c));
        else
            lks__text_add(&text, " %10s\n", "-");
    }
    return lks__text_take(&text, out);
}
