/* SPDX-License-Identifier: Apache-2.0 */
/** Laying run directories side by side. Reads files only. */
#ifndef LOCKSTEP_REPORT_H
#define LOCKSTEP_REPORT_H

#include <lockstep/export.h>
#include <lockstep/status.h>

LKS_BEGIN_DECLS

/** What two runs turned out to be, by everything that both have recorded after the same steps. */
typedef enum lks_verdict {
    LKS_VERDICT_SAME,      /* the same bits */
    LKS_VERDICT_ROUNDING,  /* other bits, as additions in another order explain: docs/compare.md */
    LKS_VERDICT_DIFFERENT, /* another run */
    LKS_VERDICT_UNKNOWN,   /* nothing after the initial parameters was recorded by both after the same step */
} lks_verdict;

/** Compares two run directories: what differs in their settings and plans, the first step and quantity in
 * which they differ, by how much and why, and how that develops. Runs may be unfinished, resumed, or still
 * going on.
 *
 * Ownership: the caller frees *out_text with free().
 * Returns:   LKS_OK; LKS_E_NOT_FOUND: no run directory; LKS_E_FORMAT with file and line; LKS_E_ARG: a
 * config.yaml that this version does not read; LKS_E_IO; LKS_E_NOMEM (*out_text NULL). */
LKS_API lks_status lks_compare_to_text(const char *a, const char *b, lks_verdict *out_verdict,
                                       char **out_text) LKS_MUST_USE;

/** The same as one JSON object. */
LKS_API lks_status lks_compare_to_json(const char *a, const char *b, lks_verdict *out_verdict,
                                       char **out_json) LKS_MUST_USE;

LKS_END_DECLS

#endif
