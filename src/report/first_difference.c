/* SPDX-License-Identifier: Apache-2.0 */
#include "report/first_difference.h"

#include <math.h>
#include <string.h>

double lks__line_number(const json_t *line, const char *key)
{
    const json_t *value = json_object_get(line, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

double lks__relative_difference(double a, double b)
{
    if (a == b || (isnan(a) && isnan(b)))
        return 0;
    double larger = fmax(fabs(a), fabs(b));
    return isfinite(a) && isfinite(b) ? fabs(a - b) / larger : INFINITY;
}

void lks__each_common_step(const json_t *a, const json_t *b, lks__common_step_fn *fn, void *context)
{
    size_t i = 0, j = 0;
    while (i < json_array_size(a) && j < json_array_size(b)) {
        int64_t at = lks__line_step(a, i), other = lks__line_step(b, j);
        if (at == other)
            fn(context, at, json_array_get(a, i), json_array_get(b, j));
        i += at <= other;
        j += other <= at;
    }
}

static bool is_before(const lks__first_difference *d, int64_t step)
{
    return !d->found || step < d->step;
}

static void note_common(lks__first_difference *d, int64_t step)
{
    if (d->first < 0 || step < d->first)
        d->first = step;
    if (step > d->last)
        d->last = step;
}

static void note_relative(lks__first_difference *d, double relative)
{
    if (relative > d->largest_relative)
        d->largest_relative = relative;
}

/* A difference that comes before those that were found, by the order in which it is looked for. */
static void take(lks__first_difference *d, int64_t step, const char *quantity, double a, double b)
{
    d->found = true;
    d->step = step;
    d->quantity = quantity;
    d->tensor = NULL;
    d->n_tensors = 0;
    d->a = a;
    d->b = b;
    d->absolute = fabs(a - b);
    d->relative = lks__relative_difference(a, b);
    d->largest_relative = 0;
}

/* The numbers of a line that a run computes: not its place, and not the time that it took. */
static bool is_computed(const char *key)
{
    static const char *const others[] = {"step", "epoch", "seconds", "samples_per_second"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(key, others[i]) == 0)
            return false;
    return true;
}

static void compare_number(lks__first_difference *d, int64_t step, const char *key, const json_t *a,
                           const json_t *b)
{
    double x = lks__line_number(a, key), y = lks__line_number(b, key);
    if (x == y || (isnan(x) && isnan(y)) || json_object_get(b, key) == NULL)
        return;
    if (is_before(d, step))
        take(d, step, key, x, y);
    if (step == d->step && strstr(key, "accuracy") == NULL)
        note_relative(d, lks__relative_difference(x, y));
}

/* Keys that an older run does not have are passed over. */
static void compare_lines(void *context, int64_t step, const json_t *a, const json_t *b)
{
    static const char *const first[] = {"lr", "samples"};
    lks__first_difference *d = context;
    const char *key;
    json_t *value;
    for (int i = 0; i < 2; i++)
        compare_number(d, step, first[i], a, b);
    json_object_foreach((json_t *)a, key, value) if (is_computed(key)) compare_number(d, step, key, a, b);
}

static void compare_steps(void *context, int64_t step, const json_t *a, const json_t *b)
{
    lks__first_difference *d = context;
    d->n_steps++;
    note_common(d, step);
    compare_lines(d, step, a, b);
}

static void compare_epochs(void *context, int64_t step, const json_t *a, const json_t *b)
{
    note_common(context, step);
    compare_lines(context, step, a, b);
}

/* The l2 distance of two tensors is at least the difference of their norms (triangle inequality), and at
 * least that of their sums over the square root of their size (Cauchy and Schwarz with a vector of ones). */
static double least_distance(const json_t *a, const json_t *b)
{
    double norms = fabs(lks__line_number(a, "norm") - lks__line_number(b, "norm"));
    double sums = fabs(lks__line_number(a, "sum") - lks__line_number(b, "sum"));
    return fmax(norms, sums / sqrt(lks__line_number(a, "elems")));
}

static bool same_text(const json_t *a, const json_t *b, const char *key)
{
    const char *x = json_string_value(json_object_get(a, key)),
               *y = json_string_value(json_object_get(b, key));
    return x != NULL && y != NULL && strcmp(x, y) == 0;
}

static void compare_tensors(lks__first_difference *d, int64_t step, const json_t *a, const json_t *b)
{
    if (same_text(a, b, "hash"))
        return;
    double x = lks__line_number(a, "norm"), y = lks__line_number(b, "norm");
    double distance = least_distance(a, b), relative = distance / fmax(x, y);
    if (!(relative >= 0)) /* no numbers */
        relative = INFINITY;
    if (is_before(d, step)) {
        take(d, step, "parameters", x, y);
        d->tensor = json_string_value(json_object_get(a, "tensor"));
        d->absolute = distance;
        d->relative = relative;
    }
    if (step == d->step) {
        d->n_tensors++;
        note_relative(d, relative);
    }
}

/* The lines of one step. */
typedef struct entry {
    const json_t *lines;
    size_t begin, end;
} entry;

static entry entry_at(const json_t *lines, size_t begin)
{
    entry e = {lines, begin, begin};
    while (e.end < json_array_size(lines) && lks__line_step(lines, e.end) == lks__line_step(lines, begin))
        e.end++;
    return e;
}

static const json_t *line_of(const entry *e, size_t k)
{
    return json_array_get(e->lines, e->begin + k);
}

static bool same_tensors(const entry *a, const entry *b)
{
    bool same = a->end - a->begin == b->end - b->begin;
    for (size_t k = 0; same && k < a->end - a->begin; k++) {
        const json_t *x = line_of(a, k), *y = line_of(b, k);
        same = same_text(x, y, "tensor") && lks__line_number(x, "elems") == lks__line_number(y, "elems");
    }
    return same;
}

static void compare_entries(lks__first_difference *d, int64_t step, const entry *a, const entry *b)
{
    d->n_hashes++;
    note_common(d, step);
    if (same_tensors(a, b)) {
        for (size_t k = 0; k < a->end - a->begin; k++)
            compare_tensors(d, step, line_of(a, k), line_of(b, k));
    } else if (is_before(d, step)) {
        take(d, step, "tensors", NAN, NAN);
        note_relative(d, INFINITY);
    }
}

static void compare_hashes(lks__first_difference *d, const json_t *a, const json_t *b)
{
    entry x = entry_at(a, 0), y = entry_at(b, 0);
    while (x.begin < json_array_size(a) && y.begin < json_array_size(b)) {
        int64_t at = lks__line_step(a, x.begin), other = lks__line_step(b, y.begin);
        if (at == other)
            compare_entries(d, at, &x, &y);
        if (at <= other)
            x = entry_at(a, x.end);
        if (other <= at)
            y = entry_at(b, y.end);
    }
}

static void note_equal(void *context, int64_t step, const json_t *a, const json_t *b)
{
    lks__first_difference *d = context;
    (void)a, (void)b;
    if (is_before(d, step) && step > d->equal_until)
        d->equal_until = step;
}

void lks__find_first_difference(const lks__run_files *a, const lks__run_files *b, lks__first_difference *out)
{
    *out = (lks__first_difference){.first = -1, .last = -1, .equal_until = -1};
    lks__each_common_step(a->steps, b->steps, compare_steps, out);
    compare_hashes(out, a->hashes, b->hashes);
    lks__each_common_step(a->epochs, b->epochs, compare_epochs, out);
    lks__each_common_step(a->steps, b->steps, note_equal, out);
    lks__each_common_step(a->hashes, b->hashes, note_equal, out);
    lks__each_common_step(a->epochs, b->epochs, note_equal, out);
}
