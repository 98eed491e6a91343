/* SPDX-License-Identifier: Apache-2.0 */
/** Values of options: from text to a field of the settings, and back. One row of `types` per type. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "conf/options.h"

const char *lks__shown(const char *text, char buffer[LKS__SHOWN_BYTES])
{
    size_t length = strlen(text);
    bool cut = length >= LKS__SHOWN_BYTES;
    size_t kept = cut ? LKS__SHOWN_BYTES - 4 : length;
    for (size_t i = 0; i < kept; i++)
        buffer[i] = (unsigned char)text[i] < ' ' || text[i] == 0x7f ? '?' : text[i];
    snprintf(buffer + kept, LKS__SHOWN_BYTES - kept, "%s", cut ? "..." : "");
    return buffer;
}

/* The field of an option, to write and to read. */
static void *field_of(const lks__option *option, lks__settings *settings)
{
    return (char *)settings + option->offset;
}

static const void *field_in(const lks__option *option, const lks__settings *settings)
{
    return (const char *)settings + option->offset;
}

/* " >= 1", " from 0 to 1024", " > 0 and <= 1000000000", "" for no limits. */
static void describe_range(const char *what, const lks__range *range, char *out, size_t bytes)
{
    bool has_min = !isinf(range->min), has_max = !isinf(range->max);
    if (has_min && has_max && !range->above_min && !range->below_max)
        snprintf(out, bytes, "%s from %.15g to %.15g", what, range->min, range->max);
    else if (has_min && has_max)
        snprintf(out, bytes, "%s %s %.15g and %s %.15g", what, range->above_min ? ">" : ">=", range->min,
                 range->below_max ? "<" : "<=", range->max);
    else if (has_min)
        snprintf(out, bytes, "%s %s %.15g", what, range->above_min ? ">" : ">=", range->min);
    else
        snprintf(out, bytes, "%s", what);
}

static bool in_range(const lks__range *range, double value)
{
    return isfinite(value) && (range->above_min ? value > range->min : value >= range->min) &&
           (range->below_max ? value < range->max : value <= range->max);
}

/* --- integers --- */

static void describe_int(const lks__option *option, char *out)
{
    describe_range("an integer", &option->range, out, LKS__ALLOWED_BYTES);
}

static bool parse_one_int(const lks__range *range, const char *text, int64_t *out)
{
    int64_t value;
    if (!lks__parse_i64(text, &value) || value > LKS__INT_LIMIT || !in_range(range, (double)value))
        return false;
    *out = value;
    return true;
}

static bool parse_int(const lks__option *option, const char *text, lks__settings *out)
{
    return parse_one_int(&option->range, text, field_of(option, out));
}

/* 0 is "not set", save where 0 is allowed. */
static void format_int(const lks__option *option, const lks__settings *settings, char *out)
{
    int64_t value = *(const int64_t *)field_in(option, settings);
    if (value != 0 || option->range.min <= 0)
        snprintf(out, LKS__VALUE_BYTES, "%lld", (long long)value);
}

/* --- numbers --- */

static void describe_float(const lks__option *option, char *out)
{
    describe_range("a number", &option->range, out, LKS__ALLOWED_BYTES);
}

static bool parse_float(const lks__option *option, const char *text, lks__settings *out)
{
    double value;
    if (!lks__parse_f64(text, &value) || !in_range(&option->range, value))
        return false;
    *(double *)field_of(option, out) = value;
    return true;
}

/* The shortest text that reads back as the same number, with a point where YAML 1.1 wants one: 1.0e-05. */
static void format_float(const lks__option *option, const lks__settings *settings, char *out)
{
    double value = *(const double *)field_in(option, settings);
    char digits[40];
    for (int precision = 6; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value)
            break;
    }
    size_t mantissa = strcspn(digits, "e");
    bool needs_point = digits[mantissa] == 'e' && memchr(digits, '.', mantissa) == NULL;
    snprintf(out, LKS__VALUE_BYTES, "%.*s%s%s", (int)mantissa, digits, needs_point ? ".0" : "",
             digits + mantissa);
}

/* --- texts: stand for themselves --- */

static void describe_text(const lks__option *option, char *out)
{
    (void)option;
    snprintf(out, LKS__ALLOWED_BYTES, "a text");
}

static bool parse_text(const lks__option *option, const char *text, lks__settings *out)
{
    if (text[0] == '\0')
        return false;
    *(const char **)field_of(option, out) = text;
    return true;
}

/* --- choices --- */

static void describe_choice(const lks__option *option, char *out)
{
    const lks__choice *choices = option->choices;
    snprintf(out, LKS__ALLOWED_BYTES, "%s%s", choices[1].name ? "one of " : "", choices[0].name);
    for (int i = 1; choices[i].name != NULL; i++)
        lks__append(out, LKS__ALLOWED_BYTES, ", %s", choices[i].name);
}

static bool parse_choice(const lks__option *option, const char *text, lks__settings *out)
{
    for (const lks__choice *choice = option->choices; choice->name != NULL; choice++)
        if (strcmp(choice->name, text) == 0) {
            memcpy(field_of(option, out), &choice->value,
                   sizeof choice->value); /* an enum's own type is the compiler's */
            return true;
        }
    return false;
}

static void format_choice(const lks__option *option, const lks__settings *settings, char *out)
{
    int value;
    memcpy(&value, field_in(option, settings), sizeof value);
    snprintf(out, LKS__VALUE_BYTES, "%s", lks__option_word(option->key, value));
}

/* --- lists of integers: "512,256", "[512, 256]", "[]" --- */

static int64_t *count_of(const lks__option *option, lks__settings *settings)
{
    return (int64_t *)(void *)((char *)settings + option->count_offset);
}

static void describe_list(const lks__option *option, char *out)
{
    char what[60];
    snprintf(what, sizeof what, "a list of up to %d integers", LKS__MAX_LIST);
    describe_range(what, &option->range, out, LKS__ALLOWED_BYTES);
}

/* One element at *text, up to a comma or the end; moves *text behind it. */
static bool parse_element(const lks__range *range, const char **text, int64_t *out)
{
    char element[32];
    const char *start = *text + strspn(*text, " ");
    size_t length = strcspn(start, ", ]");
    if (length >= sizeof element)
        return false;
    memcpy(element, start, length);
    element[length] = '\0';
    *text = start + length + strspn(start + length, " ");
    return parse_one_int(range, element, out);
}

static bool parse_list(const lks__option *option, const char *text, lks__settings *out)
{
    int64_t values[LKS__MAX_LIST];
    int64_t n = 0;
    bool bracket = text[0] == '[';
    const char *at = bracket ? text + 1 : text;
    bool empty = bracket && at[strspn(at, " ")] == ']';
    if (empty)
        at += strspn(at, " ");
    for (bool more = !empty; more; at += more) {
        if (n == LKS__MAX_LIST || !parse_element(&option->range, &at, &values[n++]))
            return false;
        more = *at == ',';
    }
    if (strcmp(at, bracket ? "]" : "") != 0)
        return false;
    memcpy(field_of(option, out), values, (size_t)n * sizeof values[0]);
    *count_of(option, out) = n;
    return true;
}

static void format_list(const lks__option *option, const lks__settings *settings, char *out)
{
    const int64_t *values = field_in(option, settings);
    int64_t n = *(const int64_t *)(const void *)((const char *)settings + option->count_offset);
    lks__list_text(n, values, LKS__VALUE_BYTES, out);
}

/* --- true or false --- */

static void describe_bool(const lks__option *option, char *out)
{
    (void)option;
    snprintf(out, LKS__ALLOWED_BYTES, "true or false");
}

static bool parse_bool(const lks__option *option, const char *text, lks__settings *out)
{
    bool value = strcmp(text, "true") == 0;
    if (!value && strcmp(text, "false") != 0)
        return false;
    *(bool *)field_of(option, out) = value;
    return true;
}

static void format_bool(const lks__option *option, const lks__settings *settings, char *out)
{
    snprintf(out, LKS__VALUE_BYTES, "%s", *(const bool *)field_in(option, settings) ? "true" : "false");
}

/* --- the table of types --- */

static const struct {
    void (*describe)(const lks__option *option, char *out);
    bool (*parse)(const lks__option *option, const char *text, lks__settings *out);
    void (*format)(const lks__option *option, const lks__settings *settings, char *out); /* out: "" before */
} types[] = {
    [LKS__OPTION_INT] = {describe_int, parse_int, format_int},
    [LKS__OPTION_FLOAT] = {describe_float, parse_float, format_float},
    [LKS__OPTION_TEXT] = {describe_text, parse_text, NULL},
    [LKS__OPTION_CHOICE] = {describe_choice, parse_choice, format_choice},
    [LKS__OPTION_INT_LIST] = {describe_list, parse_list, format_list},
    [LKS__OPTION_BOOL] = {describe_bool, parse_bool, format_bool},
};

void lks__option_allowed(const lks__option *option, char out[LKS__ALLOWED_BYTES])
{
    types[option->type].describe(option, out);
}

lks_status lks__option_parse(const lks__option *option, const char *text, lks__settings *out)
{
    if (types[option->type].parse(option, text, out))
        return LKS_OK;
    char shown[LKS__SHOWN_BYTES], allowed[LKS__ALLOWED_BYTES];
    lks__shown(text, shown);
    if (option->type == LKS__OPTION_INT && text[0] != '\0' && text[strspn(text, "0123456789")] == '\0' &&
        isinf(option->range.max) && strtod(text, NULL) > LKS__INT_LIMIT)
        return lks__fail(LKS_E_ARG, "%s is %s; the limit is %lld", option->key, shown,
                         (long long)LKS__INT_LIMIT);
    lks__option_allowed(option, allowed);
    return lks__fail(LKS_E_ARG, "%s is \"%s\"; %s is needed", option->key, shown, allowed);
}

lks_status lks__option_check(const lks__option *option, const lks__settings *settings)
{
    const double *value = field_in(option, settings);
    if (option->type != LKS__OPTION_FLOAT || in_range(&option->range, *value))
        return LKS_OK;
    char allowed[LKS__ALLOWED_BYTES];
    lks__option_allowed(option, allowed);
    return lks__fail(LKS_E_ARG, "%s is %g; %s is needed", option->key, *value, allowed);
}

const char *lks__option_format(const lks__option *option, const lks__settings *settings,
                               char buffer[LKS__VALUE_BYTES])
{
    if (option->type == LKS__OPTION_TEXT)
        return *(const char *const *)field_in(option, settings);
    buffer[0] = '\0';
    types[option->type].format(option, settings, buffer);
    return buffer;
}
