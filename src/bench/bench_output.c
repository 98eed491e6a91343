/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/bench_output.h"

#include <stdio.h>

#include <jansson.h>

#include "base/error.h"
#include "base/text.h"
#include "comm/collective.h"

static const char *memory_word(const lks__bench_config *config)
{
    return config->group_memory ? "group" : "ordinary";
}

static bool takes(const lks__bench_config *config, char argument)
{
    return lks__collective_takes(config->operation.collective, argument);
}

/* ---- text ---- */

lks_status lks__bench_heading(const lks__bench_config *config, int size, int cores, char **out)
{
    lks__text text = {0};
    lks__text_add(&text, "%s", lks__bench_name(config));
    if (takes(config, 't'))
        lks__text_add(&text, " of %s", lks__dtype_name(config->operation.dtype));
    if (takes(config, 'o'))
        lks__text_add(&text, ", %s", lks__op_name(config->operation.op));
    if (takes(config, 'r'))
        lks__text_add(&text, ", root %d", config->operation.root);
    if (takes(config, 'n'))
        lks__text_add(&text, ", %s memory", memory_word(config));
    lks__text_add(&text, "; %d process%s%s\n\n", size, size == 1 ? "" : "es",
                  size > cores ? ", more than cores" : "");
    lks__text_add(&text, "%12s %12s %6s %12s %12s %12s %9s %9s %6s\n", "bytes", "count", "calls", "min us",
                  "median us", "max us", "alg GB/s", "bus GB/s", "wrong");
    return lks__text_take(&text, out);
}

const char *lks__bench_line(const lks__bench_row *row, char out[LKS__BENCH_LINE_BYTES])
{
    snprintf(out, LKS__BENCH_LINE_BYTES, "%12zu %12zu %6d %12.2f %12.2f %12.2f %9.3f %9.3f %6lld", row->bytes,
             row->count, row->calls, 1e6 * row->min_s, 1e6 * row->median_s, 1e6 * row->max_s,
             1e-9 * row->algorithm_rate, 1e-9 * row->bus_rate, (long long)row->wrong);
    return out;
}

/* ---- JSON ---- */

static json_t *row_to_json(const lks__bench_row *row)
{
    return json_pack("{s:I, s:I, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I}", "bytes",
                     (json_int_t)row->bytes, "count", (json_int_t)row->count, "calls", row->calls, "min_us",
                     1e6 * row->min_s, "median_us", 1e6 * row->median_s, "mean_us", 1e6 * row->mean_s,
                     "max_us", 1e6 * row->max_s, "algorithm_gb_per_s", 1e-9 * row->algorithm_rate,
                     "bus_gb_per_s", 1e-9 * row->bus_rate, "barriers", (json_int_t)row->barriers,
                     "read_bytes", (json_int_t)row->read_bytes, "written_bytes",
                     (json_int_t)row->written_bytes, "wrong_elements", (json_int_t)row->wrong);
}

/* An argument that the operation does not take is null. */
static json_t *text_if(bool taken, const char *text)
{
    return taken ? json_string(text) : json_null();
}

lks_status lks__bench_to_json(const lks__bench_config *config, int size, int n_rows,
                              const lks__bench_row *rows, char **out)
{
    const lks_operation *what = &config->operation;
    json_int_t wrong = 0;
    json_t *array = json_array();
    int failures = array == NULL;
    for (int i = 0; i < n_rows; i++) {
        wrong += (json_int_t)rows[i].wrong;
        failures += json_array_append_new(array, row_to_json(&rows[i])) != 0;
    }
    json_t *root = takes(config, 'r') ? json_integer(what->root) : json_null();
    json_t *object = json_pack("{s:s, s:o, s:o, s:o, s:o, s:i, s:I, s:o}", "operation",
                               lks__bench_name(config), "dtype",
                               text_if(takes(config, 't'), lks__dtype_name(what->dtype)), "op",
                               text_if(takes(config, 'o'), lks__op_name(what->op)), "root", root, "memory",
                               text_if(takes(config, 'n'), memory_word(config)), "processes", size,
                               "wrong_elements", wrong, "rows", array);
    *out = NULL;
    if (object != NULL && failures == 0)
        *out = json_dumps(object, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    json_decref(object);
    return *out != NULL ? LKS_OK : lks__fail(LKS_E_NOMEM, "out of memory");
}
