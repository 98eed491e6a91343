/* SPDX-License-Identifier: Apache-2.0 */
/* From what was found about two runs to a verdict, as one JSON object. */
#include "report/compare.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "report/first_difference.h"
#include "report/run_differences.h"

typedef struct comparison {
    lks__run_files a, b;
    lks__first_difference first;
    lks__run_differences differences;
    double bound; /* of the relative difference that rounding explains; 0: nothing lets the orders differ */
    lks_verdict verdict;
    const char *why; /* one sentence */
} comparison;

/* How far apart rounding alone may have brought two runs by the step at which they first differ.
 *
 * A sum of n + 1 terms in f32, added in any order, is off by at most n u times the sum of their moduli, to
 * first order in the unit roundoff u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, 4.2);
 * two orders are at most 2 n u of it apart. SLACK stands for two factors that a run does not record: that sum
 * of moduli over the modulus of the sum (gradients of leaves point different ways), and what a step makes of
 * a difference that it has inherited. Each of the `steps` since the runs were last seen equal may add as
 * much: their number is a factor. That growth is not bounded for long, as training amplifies; so what is
 * larger than LIMIT is no rounding, whatever the number of steps, and a run that wants to know compares more
 * often (metrics.every_steps, hashes.every_steps).
 */
static double rounding_bound(int64_t additions, int64_t steps)
{
    const double u = 0x1p-24, slack = 16, limit = 1e-2;
    return fmin(slack * 2 * (double)additions * u * (double)steps, limit);
}

static bool is_at_start(const lks__first_difference *first)
{
    return first->step == 0 && first->tensor != NULL;
}

static void explain(comparison *c)
{
    const lks__first_difference *first = &c->first;
    int64_t since = first->step - (first->equal_until > 0 ? first->equal_until : 0);
    bool has_cause = json_array_size(c->differences.causes) > 0;
    c->verdict = LKS_VERDICT_DIFFERENT;
    if (!has_cause && c->differences.additions > 0 && since > 0)
        c->bound = rounding_bound(c->differences.additions, since);
    if (strcmp(first->quantity, "tensors") == 0)
        c->why = "the models are not the same";
    else if (has_cause)
        c->why = "a real difference: these are not the same run";
    else if (is_at_start(first))
        c->why =
            "the initial parameters differ: one run was started from a file (--init), or from another one";
    else if (c->bound == 0)
        c->why = "nothing that was recorded about the runs explains this: they should have the same bits (a "
                 "build, "
                 "a data file, or a fault of the machine?)";
    else if (!(first->largest_relative <= c->bound))
        c->why = "larger than rounding explains, although nothing but the order of additions differs";
    else {
        c->verdict = LKS_VERDICT_ROUNDING;
        c->why = "they agree to rounding only: the same sums were added in another order";
    }
}

static void decide(comparison *c)
{
    if (c->first.found) {
        explain(c);
    } else if (c->first.last <= 0) {
        c->verdict = LKS_VERDICT_UNKNOWN;
        c->why = c->first.last < 0
                     ? "no step was recorded by both runs, so there is nothing to compare"
                     : "nothing after the initial parameters, which are the same, was recorded by both "
                       "runs at one step (metrics.every_steps, hashes.every_steps)";
    } else if (c->first.n_hashes == 0) {
        c->verdict = LKS_VERDICT_UNKNOWN;
        c->why =
            "the same numbers at all common steps, but no parameters were recorded by both runs at one step";
    } else {
        c->verdict = LKS_VERDICT_SAME;
        c->why = "the same bits at all common steps";
    }
}

/* ---- as JSON ---- */

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* The value that the last line with that key has as a number. */
static double last_number(const json_t *lines, const char *key)
{
    for (size_t i = json_array_size(lines); i > 0; i--) {
        double value = lks__line_number(json_array_get(lines, i - 1), key);
        if (!isnan(value))
            return value;
    }
    return NAN;
}

static json_t *run_object(const lks__run_files *run)
{
    json_t *processes = json_array();
    for (size_t i = 0; i < json_array_size(run->starts); i++)
        json_array_append(processes, json_object_get(json_array_get(run->starts, i), "processes"));
    return json_pack("{s:s, s:I, s:O, s:b, s:o, s:o, s:o, s:o}", "path", run->path, "last_step",
                     (json_int_t)lks__run_files_last_step(run), "total_steps",
                     json_object_get(run->plan, "total_steps"), "finished", run->finished, "processes",
                     processes, "train_loss", number(last_number(run->epochs, "train_loss")), "test_loss",
                     number(last_number(run->epochs, "test_loss")), "test_accuracy",
                     number(last_number(run->epochs, "test_accuracy")));
}

static json_t *first_object(const comparison *c)
{
    const lks__first_difference *f = &c->first;
    if (!f->found)
        return json_null();
    return json_pack("{s:I, s:s, s:s?, s:o, s:o, s:o, s:o, s:o, s:i, s:o, s:o}", "step", (json_int_t)f->step,
                     "quantity", f->quantity, "tensor", f->tensor, "a", number(f->a), "b", number(f->b),
                     "absolute", number(f->absolute), "relative", number(f->relative), "largest_relative",
                     number(f->largest_relative), "tensors", f->n_tensors, "equal_until",
                     f->equal_until >= 0 ? json_integer((json_int_t)f->equal_until) : json_null(),
                     "rounding_bound", c->bound > 0 ? number(c->bound) : json_null());
}

/* The losses of both runs at common steps. */
typedef struct losses {
    json_t *all; /* rows */
    double largest;
    int64_t at;
} losses;

static void add_loss(void *context, int64_t step, const json_t *a, const json_t *b)
{
    losses *l = context;
    double x = lks__line_number(a, "loss"), y = lks__line_number(b, "loss");
    double relative = lks__relative_difference(x, y);
    if (relative > l->largest) {
        l->largest = relative;
        l->at = step;
    }
    json_array_append_new(l->all, json_pack("{s:I, s:o, s:o, s:o}", "step", (json_int_t)step, "a", number(x),
                                            "b", number(y), "relative", number(relative)));
}

/* A few of the rows, closer together where a run begins. */
static json_t *some_rows(const json_t *all)
{
    enum { N_ROWS = 7 };
    json_t *rows = json_array();
    size_t n = json_array_size(all), next = 0;
    for (int k = 0; k < N_ROWS && n > 0; k++) {
        double part = (double)k / (N_ROWS - 1);
        size_t i = (size_t)(part * part * part * (double)(n - 1));
        i = i > next ? i : next;
        if (i < n)
            json_array_append(rows, json_array_get(all, i));
        next = i + 1;
    }
    return rows;
}

static json_t *losses_object(const comparison *c)
{
    losses l = {.all = json_array()};
    lks__each_common_step(c->a.steps, c->b.steps, add_loss, &l);
    json_t *rows = some_rows(l.all);
    json_decref(l.all);
    return json_pack("{s:o, s:I, s:o}", "largest_relative", number(l.largest), "at_step", (json_int_t)l.at,
                     "rows", rows);
}

static lks_status comparison_to_json(const comparison *c, json_t **out)
{
    static const char *const verdicts[] = {"same", "rounding", "different", "unknown"};
    const lks__first_difference *f = &c->first;
    json_t *common = json_pack("{s:I, s:I, s:o}", "metrics", (json_int_t)f->n_steps, "hashes",
                               (json_int_t)f->n_hashes, "last_step",
                               f->last >= 0 ? json_integer((json_int_t)f->last) : json_null());
    *out = json_pack("{s:s, s:s, s:O, s:O, s:o, s:o, s:O, s:o, s:o, s:o, s:o}", "verdict",
                     verdicts[c->verdict], "why", c->why, "causes", c->differences.causes, "orders",
                     c->differences.orders, "a", run_object(&c->a), "b", run_object(&c->b), "differences",
                     c->differences.rows, "common_steps", common, "first_difference", first_object(c), "loss",
                     losses_object(c), "model_distance", number(lks__model_distance(&c->a, &c->b)));
    return *out != NULL ? LKS_OK : lks__fail(LKS_E_NOMEM, "out of memory");
}

/* *out: a new object, also what the text is made from; NULL after a failure. */
static lks_status compare(const char *a, const char *b, lks_verdict *out_verdict, json_t **out)
{
    comparison c = {.verdict = LKS_VERDICT_UNKNOWN};
    *out = NULL;
    lks_status status = lks__run_files_init(&c.a, a);
    if (status == LKS_OK)
        status = lks__run_files_init(&c.b, b);
    if (status == LKS_OK) {
        lks__find_first_difference(&c.a, &c.b, &c.first);
        status = lks__run_differences_init(&c.differences, &c.a, &c.b, c.first.found ? c.first.step : -1);
    }
    if (status == LKS_OK) {
        decide(&c);
        status = comparison_to_json(&c, out);
        *out_verdict = c.verdict;
    }
    lks__run_differences_deinit(&c.differences);
    lks__run_files_deinit(&c.b);
    lks__run_files_deinit(&c.a);
    return status;
}

lks_status lks_compare_to_json(const char *a, const char *b, lks_verdict *out_verdict, char **out_json)
{
    enum { DIGITS = 17 }; /* every double reads back as it was */
    json_t *object;
    *out_json = NULL;
    lks_status status = compare(a, b, out_verdict, &object);
    if (status != LKS_OK)
        return status;
    *out_json = json_dumps(object, JSON_INDENT(2) | JSON_REAL_PRECISION(DIGITS));
    json_decref(object);
    return *out_json != NULL ? LKS_OK : lks__fail(LKS_E_NOMEM, "out of memory");
}

lks_status lks_compare_to_text(const char *a, const char *b, lks_verdict *out_verdict, char **out_text)
{
    json_t *object;
    lks__text text = {0};
    *out_text = NULL;
    lks_status status = compare(a, b, out_verdict, &object);
    if (status != LKS_OK)
        return status;
    lks__comparison_add_text(&text, object);
    json_decref(object);
    return lks__text_take(&text, out_text);
}
