/* SPDX-License-Identifier: Apache-2.0 */
/** Text: a buffer that grows and one that does not, strict numbers, and the nearest word. */
#ifndef LKS_BASE_TEXT_H
#define LKS_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lockstep/status.h>

/** A text that grows. Caller's storage; {0} is empty. A failed allocation is kept and reported by
 * lks__text_take. */
typedef struct lks__text {
    char *data; /* owner only; from malloc, so that users can free() it */
    size_t length;
    size_t capacity;
    bool failed;
} lks__text;

void lks__text_add(lks__text *text, const char *format, ...) LKS_PRINTF(2, 3);

/** Adds words, broken between words into lines of at most `width` bytes, each but the first behind `indent`
 * blanks; ends the last line. The first begins in column `indent`. */
void lks__text_add_wrapped(lks__text *text, int width, int indent, const char *words);

/** Hands the text over: *out is for free(). The buffer is empty afterwards. Returns: LKS_OK; LKS_E_NOMEM
 * (*out NULL). */
lks_status lks__text_take(lks__text *text, char **out) LKS_MUST_USE;

/** Adds to the text in a buffer of `capacity` bytes; what does not fit is left out. */
void lks__append(char *buffer, size_t capacity, const char *format, ...) LKS_PRINTF(3, 4);

/** A shape, or another list, as text: "[512, 784]". Returns `out`. */
const char *lks__list_text(int64_t n, const int64_t *numbers, size_t capacity, char *out);

/** The plural's end: "2 workers". */
const char *lks__plural(int64_t n);

enum { LKS__SIZE_BYTES = 32 };

/** A size for people: "812 B", "1.5 kB", "2.1 MB". Returns `out`. */
const char *lks__size_text(int64_t bytes, char out[LKS__SIZE_BYTES]);

/** The whole of `text` as a number: no blanks, no rest, no overflow; f64 takes nan and inf too. */
bool lks__parse_i64(const char *text, int64_t *out);
bool lks__parse_f64(const char *text, double *out);

/** The index of the word nearest to `word` by edit distance (transpositions count once), if near enough to be
 * meant; else -1. */
int lks__nearest(const char *word, int n_words, const char *const *words);

#endif
