/* SPDX-License-Identifier: Apache-2.0 */
/** The option table: one row per setting. Parsing, overrides, defaults, help and docs/options.md all come
 * from it. */
#ifndef LKS_CONF_OPTIONS_H
#define LKS_CONF_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "conf/settings.h"

typedef enum lks__option_type {
    LKS__OPTION_INT,      /* int64_t */
    LKS__OPTION_FLOAT,    /* double; finite */
    LKS__OPTION_TEXT,     /* const char *; not empty */
    LKS__OPTION_CHOICE,   /* an enum */
    LKS__OPTION_INT_LIST, /* int64_t[LKS__MAX_LIST], and an int64_t count */
    LKS__OPTION_BOOL,     /* bool */
} lks__option_type;

/** One allowed word, and the enum's value for it. */
typedef struct lks__choice {
    const char *name; /* NULL ends a list of choices */
    int value;
} lks__choice;

/** Integers end here, whatever their range says: far above any data set, and exact as a double. */
#define LKS__INT_LIMIT INT64_C(1000000000000000)

/** Allowed numbers. */
typedef struct lks__range {
    double min, max;           /* may be infinite */
    bool above_min, below_max; /* min, max themselves are not allowed */
} lks__range;

typedef struct lks__option {
    const char *key; /* dotted */
    lks__option_type type;
    size_t offset;       /* of the field in lks__settings */
    size_t count_offset; /* LKS__OPTION_INT_LIST: of the number of elements */
    lks__range range;
    const lks__choice *choices;
    const char *default_text;      /* NULL: not set */
    const char *default_doc;       /* what help says when there is no default_text; NULL: "not set" */
    const char *other_default;     /* that of one kind of optimizer; NULL: as default_text */
    lks_optimizer_kind other_kind; /* whose it is */
    const char *of;   /* the choice whose kinds have settings of their own, of which this is one; NULL */
    unsigned kinds;   /* bits 1 << value: the values of that choice which have this setting */
    const char *noun; /* of such a choice: "optimizer" */
    const char *unit; /* "samples"; NULL: none */
    const char *doc;
} lks__option;

enum { LKS__MAX_OPTIONS = 128 }; /* for arrays with a place for each option */

extern const lks__option lks__options[];
extern const int lks__n_options; /* <= LKS__MAX_OPTIONS */

/** The row of a key; NULL: no such key. */
const lks__option *lks__option_find(const char *key);

/** The word of a choice, "exact" for ("data.tail", LKS_TAIL_EXACT); "" for a value that is none. Static
 * storage.
 */
const char *lks__option_word(const char *key, int value);

/** Whether keys start with "<name>.". */
bool lks__option_is_group(const char *name);

/** Whether an option is a setting of the kinds of the choice `key`. */
bool lks__option_is_of(const lks__option *option, const char *key);

/** Whether what is chosen has this setting; true for settings that do not depend on a choice. */
bool lks__option_applies(const lks__option *option, const lks__settings *settings);

/** The default as text, which may depend on the kind of optimizer; NULL: none. */
const char *lks__option_default(const lks__option *option, lks_optimizer_kind kind);

/** Sets LKS_E_ARG's message for a key that does not exist, or that is a group's name. */
lks_status lks__option_unknown(const char *key);

enum { LKS__ALLOWED_BYTES = 160, LKS__VALUE_BYTES = LKS__MAX_LIST * 24 };

/** What is allowed, in words: "an integer >= 1". */
void lks__option_allowed(const lks__option *option, char out[LKS__ALLOWED_BYTES]);

/** Parses a value into its field; texts are borrowed from `text`. Returns: LKS_OK; LKS_E_ARG (key, value,
 * what is allowed; *out unchanged). */
lks_status lks__option_parse(const lks__option *option, const char *text, lks__settings *out) LKS_MUST_USE;

/** Checks a number that did not come from a text. Returns: LKS_OK, also for other types; LKS_E_ARG. */
lks_status lks__option_check(const lks__option *option, const lks__settings *settings) LKS_MUST_USE;

/** A field as text that lks__option_parse reads back to the same value. Returns `buffer`, or the text itself
 * for a text (NULL when that is not set). */
const char *lks__option_format(const lks__option *option, const lks__settings *settings,
                               char buffer[LKS__VALUE_BYTES]);

/** A user's text made fit for one line of a message: control characters replaced, long ones cut. */
enum { LKS__SHOWN_BYTES = 80 };
const char *lks__shown(const char *text, char buffer[LKS__SHOWN_BYTES]);

#endif
