/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "report/compare.h"

enum { WIDTH = 100, INDENT = 4, PLACE_BYTES = 160 };

static int64_t integer(const json_t *object, const char *key)
{
    return (int64_t)json_integer_value(json_object_get(object, key));
}

static const char *string(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

/* "-" for null. */
static const char *figure(const json_t *object, const char *key, const char *format, char out[32])
{
    const json_t *value = json_object_get(object, key);
    memcpy(out, "-", sizeof "-");
    if (json_is_number(value)) /* the formats are this file's */
        snprintf(out, 32, strcmp(format, "full") == 0 ? "%.17g" : "%.3g", json_number_value(value));
    return out;
}

static void add_wrapped(lks__text *text, const char *sentence)
{
    lks__text_add(text, "%*s", INDENT, "");
    lks__text_add_wrapped(text, WIDTH, INDENT, sentence);
}

static void add_run(lks__text *text, const char *name, const json_t *run)
{
    const json_t *processes = json_object_get(run, "processes");
    int64_t last = integer(run, "last_step"), total = integer(run, "total_steps");
    lks__text_add(text, "  %s   %s\n      ", name, string(run, "path"));
    if (json_is_true(json_object_get(run, "finished")))
        lks__text_add(text, "finished after %" PRId64 " steps", last);
    else
        lks__text_add(text, "not finished: %" PRId64 " of %" PRId64 " steps recorded", last, total);
    for (size_t i = 0; i < json_array_size(processes); i++) {
        int64_t n = (int64_t)json_integer_value(json_array_get(processes, i));
        lks__text_add(text, "%s%" PRId64 " process%s", i == 0 ? ", on " : ", resumed on ", n,
                      n == 1 ? "" : "es");
    }
    lks__text_add(text, "\n");
}

static void add_differences(lks__text *text, const json_t *rows)
{
    static const char *const groups[][2] = {
        {"config", "settings that differ"}, {"plan", "plans"}, {"start", "run on"}};
    for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++) {
        bool any = false;
        for (size_t i = 0; i < json_array_size(rows); i++) {
            const json_t *row = json_array_get(rows, i);
            if (strcmp(string(row, "of"), groups[g][0]) != 0)
                continue;
            if (!any)
                lks__text_add(text, "\n%s\n", groups[g][1]);
            any = true;
            const char *effect = string(row, "effect");
            lks__text_add(text, "    %-24s %s | %s", string(row, "key"), string(row, "a"), string(row, "b"));
            if (g > 0)
                lks__text_add(text, "%s",
                              strcmp(effect, "none") == 0       ? "   (changes no bits by itself)"
                              : strcmp(effect, "rounding") == 0 ? "   (rounding)"
                                                                : "");
            lks__text_add(text, "\n");
        }
    }
}

/* "step 12, grad_norm"; "step 0 (the initial parameters), tensor 0.weight and 3 more" */
static void place_of(const json_t *first, char out[PLACE_BYTES])
{
    int64_t step = integer(first, "step"), more = integer(first, "tensors") - 1;
    const char *tensor = string(first, "tensor");
    out[0] = '\0';
    lks__append(out, PLACE_BYTES, "step %" PRId64 "%s, %s", step, step == 0 ? " (before the first)" : "",
                tensor[0] != '\0' ? "tensor " : string(first, "quantity"));
    if (tensor[0] != '\0')
        lks__append(out, PLACE_BYTES, "%s", tensor);
    if (more > 0)
        lks__append(out, PLACE_BYTES, " and %" PRId64 " more", more);
}

static void add_sizes(lks__text *text, const json_t *first)
{
    char a[32], b[32];
    bool of_tensor = string(first, "tensor")[0] != '\0';
    lks__text_add(text, "    %-10s %24s | %s\n", of_tensor ? "norms" : "values",
                  figure(first, "a", "full", a), figure(first, "b", "full", b));
    lks__text_add(text, "    %-10s %24s   relative %s\n", of_tensor ? "at least" : "absolute",
                  figure(first, "absolute", "", a), figure(first, "relative", "", b));
    if (json_is_number(json_object_get(first, "rounding_bound")))
        lks__text_add(text, "    %-10s %24s   explained by rounding: up to %s\n", "largest",
                      figure(first, "largest_relative", "", a), figure(first, "rounding_bound", "", b));
}

static void add_first(lks__text *text, const json_t *first)
{
    char place[PLACE_BYTES];
    bool other_tensors = strcmp(string(first, "quantity"), "tensors") == 0;
    if (!json_is_object(first))
        return;
    place_of(first, place);
    lks__text_add(text, "\nfirst difference\n    %s%s", place, other_tensors ? ": other names or sizes" : "");
    if (json_is_integer(json_object_get(first, "equal_until")))
        lks__text_add(text, "; last seen equal at step %" PRId64, integer(first, "equal_until"));
    lks__text_add(text, "\n");
    if (!other_tensors)
        add_sizes(text, first);
}

static void add_sentences(lks__text *text, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        lks__text_add(text, "%*s- ", INDENT, "");
        lks__text_add_wrapped(text, WIDTH, INDENT + 2, json_string_value(json_array_get(list, i)));
    }
}

static void add_common(lks__text *text, const json_t *comparison)
{
    const json_t *common = json_object_get(comparison, "common_steps");
    char line[PLACE_BYTES] = "";
    if (!json_is_integer(json_object_get(common, "last_step")))
        return;
    lks__append(line, sizeof line,
                "compared: metrics of %" PRId64 " common steps, parameters of %" PRId64
                ", up to step %" PRId64,
                integer(common, "metrics"), integer(common, "hashes"), integer(common, "last_step"));
    add_wrapped(text, line);
}

static void add_verdict(lks__text *text, const json_t *comparison)
{
    lks__text_add(text, "\nverdict: %s\n", string(comparison, "verdict"));
    add_wrapped(text, string(comparison, "why"));
    add_sentences(text, json_object_get(comparison, "causes"));
    if (strcmp(string(comparison, "verdict"), "same") != 0 &&
        json_array_size(json_object_get(comparison, "causes")) == 0)
        add_sentences(text, json_object_get(comparison, "orders"));
    add_common(text, comparison);
}

static void add_development(lks__text *text, const json_t *comparison)
{
    const json_t *loss = json_object_get(comparison, "loss"), *rows = json_object_get(loss, "rows");
    char a[32], b[32], c[32];
    if (json_array_size(rows) > 0)
        lks__text_add(text, "\nhow it develops\n    %10s %16s %16s %12s\n", "step", "loss a", "loss b",
                      "relative");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        double x = json_number_value(json_object_get(row, "a")),
               y = json_number_value(json_object_get(row, "b"));
        lks__text_add(text, "    %10" PRId64 " %16.9g %16.9g %12s\n", integer(row, "step"), x, y,
                      figure(row, "relative", "", c));
    }
    if (json_array_size(rows) > 0)
        lks__text_add(text, "    the losses differ most at step %" PRId64 ": relative %s\n",
                      integer(loss, "at_step"), figure(loss, "largest_relative", "", a));
    if (json_is_number(json_object_get(comparison, "model_distance")))
        lks__text_add(text, "    final parameters: relative distance %s\n",
                      figure(comparison, "model_distance", "", b));
}

static void add_ends(lks__text *text, const json_t *a, const json_t *b)
{
    const json_t *x = json_object_get(a, "test_accuracy"), *y = json_object_get(b, "test_accuracy");
    int64_t i = integer(a, "last_step"), j = integer(b, "last_step");
    if (!json_is_number(x) || !json_is_number(y))
        return;
    lks__text_add(text, "    last test accuracy: %.2f %% | %.2f %%", 100 * json_number_value(x),
                  100 * json_number_value(y));
    if (i != j)
        lks__text_add(text, "   (of %" PRId64 " | %" PRId64 " steps)", i, j);
    lks__text_add(text, "\n");
}

void lks__comparison_add_text(lks__text *text, const json_t *comparison)
{
    const json_t *a = json_object_get(comparison, "a"), *b = json_object_get(comparison, "b");
    add_run(text, "a", a);
    add_run(text, "b", b);
    add_differences(text, json_object_get(comparison, "differences"));
    add_first(text, json_object_get(comparison, "first_difference"));
    add_verdict(text, comparison);
    bool differ = json_is_object(json_object_get(comparison, "first_difference"));
    if (differ)
        add_development(text, comparison);
    add_ends(text, a, b);
}
