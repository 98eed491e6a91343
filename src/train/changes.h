/* SPDX-License-Identifier: Apache-2.0 */
/** What differs between two configs of one run, and what may. */
#ifndef LKS_TRAIN_CHANGES_H
#define LKS_TRAIN_CHANGES_H

#include <stdbool.h>

#include "base/text.h"
#include "conf/options.h"

#define LKS__NOT_SET "not set" /* the value of what is not */

/** Settings that change nothing about what is computed. */
bool lks__may_differ(const char *key);

/** Settings with which a run goes on if it is told to: those of the plan, and what optimizers do with a
 * gradient without a state of their own. The others make another run. */
bool lks__may_be_asked_for(const char *key);

/** The value as text, in `buffer` or borrowed. */
const char *lks__value_of(const lks__option *option, const lks__settings *settings,
                          char buffer[LKS__VALUE_BYTES]);

/** A setting that differs and is none of lks__may_differ. */
typedef struct lks__difference {
    const lks__option *option;
    const char *before, *now; /* as lks__value_of: in the buffers below, or borrowed from the settings */
    char before_buffer[LKS__VALUE_BYTES], now_buffer[LKS__VALUE_BYTES];
} lks__difference;

/** The next one, in the table's order; *i: 0 at first. False: there are no more. */
bool lks__next_difference(const lks__settings *before, const lks__settings *now, int *i,
                          lks__difference *out);

/** {"batch.local": [16, 32], "lr.step_epochs": [null, 2]} on one line; NULL when nothing differs. Ownership:
 * the caller frees *out with free(). Returns: LKS_OK; LKS_E_NOMEM. */
lks_status lks__changes_to_json(const lks__settings *before, const lks__settings *now,
                                char **out) LKS_MUST_USE;

/** "batch.local 16 -> 32; lr.step_epochs not set -> 2" */
void lks__changes_add_text(const lks__settings *before, const lks__settings *now, lks__text *text);

#endif
