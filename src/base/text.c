/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static bool reserve(lks__text *text, size_t extra)
{
    size_t need = text->length + extra + 1;
    if (need <= text->capacity)
        return true;
    size_t capacity = need * 2;
    char *data = realloc(text->data, capacity);
    if (data == NULL)
        return false;
    text->data = data;
    text->capacity = capacity;
    return true;
}

void lks__text_add(lks__text *text, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int extra = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (extra < 0 || text->failed || !reserve(text, (size_t)extra)) {
        text->failed = true;
    } else {
        vsnprintf(text->data + text->length, (size_t)extra + 1, format, again);
        text->length += (size_t)extra;
    }
    va_end(again);
}

void lks__text_add_wrapped(lks__text *text, int width, int indent, const char *words)
{
    int room = width - indent;
    while ((int)strlen(words) > room) {
        int length = room;
        while (length > 0 && words[length] != ' ')
            length--;
        lks__text_add(text, "%.*s\n%*s", length, words, indent, "");
        words += length + 1;
    }
    lks__text_add(text, "%s\n", words);
}

lks_status lks__text_take(lks__text *text, char **out)
{
    *out = NULL;
    bool ok = !text->failed && reserve(text, 0);
    if (ok) {
        text->data[text->length] = '\0';
        *out = text->data;
    } else {
        free(text->data);
    }
    *text = (lks__text){0};
    return ok ? LKS_OK : lks__fail(LKS_E_NOMEM, "out of memory");
}

void lks__append(char *buffer, size_t capacity, const char *format, ...)
{
    size_t used = strlen(buffer);
    va_list args;
    va_start(args, format);
    vsnprintf(buffer + used, capacity - used, format, args);
    va_end(args);
}

const char *lks__list_text(int64_t n, const int64_t *numbers, size_t capacity, char *out)
{
    out[0] = '\0';
    lks__append(out, capacity, "[");
    for (int64_t i = 0; i < n; i++)
        lks__append(out, capacity, "%s%" PRId64, i > 0 ? ", " : "", numbers[i]);
    lks__append(out, capacity, "]");
    return out;
}

const char *lks__plural(int64_t n)
{
    return n == 1 ? "" : "s";
}

bool lks__parse_i64(const char *text, int64_t *out)
{
    if (!isdigit((unsigned char)text[0]) && text[0] != '-' && text[0] != '+')
        return false;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0')
        return false;
    *out = value;
    return true;
}

/* strtod with a decimal point, whatever the program's locale wants. */
static double parse_in_c_locale(const char *text, char **end)
{
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (c == (locale_t)0)
        return strtod(text, end);
    locale_t before = uselocale(c);
    double value = strtod(text, end);
    uselocale(before);
    freelocale(c);
    return value;
}

bool lks__parse_f64(const char *text, double *out)
{
    if (text[0] == '\0' || isspace((unsigned char)text[0]))
        return false;
    const char *number = text[0] == '.' && isalpha((unsigned char)text[1]) ? text + 1
                                                                           : text; /* YAML's .nan, .inf */
    char *end;
    errno = 0;
    double value = parse_in_c_locale(number, &end);
    bool overflow = errno == ERANGE && (value > 1 || value < -1);
    if (overflow || end == number || *end != '\0')
        return false;
    *out = value;
    return true;
}

/* Optimal string alignment distance; words longer than the table are compared by their first letters. */
static int edit_distance(const char *a, const char *b)
{
    enum { MAX = 48 };
    int d[MAX + 1][MAX + 1];
    int n = (int)strnlen(a, MAX), m = (int)strnlen(b, MAX);
    for (int i = 0; i <= n; i++)
        d[i][0] = i;
    for (int j = 0; j <= m; j++)
        d[0][j] = j;
    for (int i = 1; i <= n; i++) {
        for (int j = 1; j <= m; j++) {
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best)
                best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best)
                best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[n][m];
}

const char *lks__size_text(int64_t bytes, char out[LKS__SIZE_BYTES])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 999.95 && unit < 4; unit++)
        value /= 1000;
    snprintf(out, LKS__SIZE_BYTES, "%.*f %s", unit > 0, value, units[unit]);
    return out;
}

int lks__nearest(const char *word, int n_words, const char *const *words)
{
    int nearest = -1, least = 0;
    for (int i = 0; i < n_words; i++) {
        int distance = edit_distance(word, words[i]);
        /* meant: at most two slips, or a third of the longer word */
        size_t longer = strlen(word) > strlen(words[i]) ? strlen(word) : strlen(words[i]);
        int allowed = longer / 3 > 2 ? (int)(longer / 3) : 2;
        if (distance <= allowed && distance < (int)longer && (nearest < 0 || distance < least)) {
            nearest = i;
            least = distance;
        }
    }
    return nearest;
}
