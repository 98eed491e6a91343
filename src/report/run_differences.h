/* SPDX-License-Identifier: Apache-2.0 */
/** What differs between two runs before the first step: settings, plans, and what they ran on. */
#ifndef LKS_REPORT_RUN_DIFFERENCES_H
#define LKS_REPORT_RUN_DIFFERENCES_H

#include "report/run_files.h"

/** What a difference does to the bits of a run. */
typedef enum lks__effect {
    LKS__EFFECT_NONE,
    LKS__EFFECT_ROUNDING, /* the same sums, added in another order */
    LKS__EFFECT_RUN,      /* another run */
} lks__effect;

typedef struct lks__run_differences {
    json_t *rows;      /* {"of": "config" | "plan" | "start", "key", "a", "b", "effect"}; values are texts */
    json_t *causes;    /* sentences, the likeliest first: why the runs are not one */
    json_t *orders;    /* sentences: why one run may have added in another order than the other */
    int64_t additions; /* the most that those orders can have changed in a sum; 0: none */
} lks__run_differences;

/** Only starts before `step` (when >= 0) count. Caller's storage; deinit it also after a failure.
 *  Returns: LKS_OK; LKS_E_NOMEM. */
lks_status lks__run_differences_init(lks__run_differences *d, const lks__run_files *a,
                                     const lks__run_files *b, int64_t step) LKS_MUST_USE;
void lks__run_differences_deinit(lks__run_differences *d);

#endif
