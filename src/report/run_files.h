/* SPDX-License-Identifier: Apache-2.0 */
/** The files of a run directory, read whole. */
#ifndef LKS_REPORT_RUN_FILES_H
#define LKS_REPORT_RUN_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include <lockstep/config.h>

/** The lines are in the order of their steps. */
typedef struct lks__run_files {
    const char *path; /* borrowed */
    json_t *plan;
    lks_config *config; /* NULL: the run has none */
    json_t *steps;      /* lines of metrics.jsonl: steps, */
    json_t *epochs;     /* and ends of epochs */
    json_t *changes;    /* and settings that it went on with, {"changed": {key: [before, now]}} */
    json_t *hashes;     /* of hashes.jsonl; a file that is missing has none */
    json_t *starts;     /* of starts.jsonl */
    bool finished;      /* has its model */
    bool went_wrong;    /* some step did: not finite, or diverging */
} lks__run_files;

/** Caller's storage; deinit it also after a failure. A last line without its end is passed over: a run may be
 * writing it.
 *  Returns: LKS_OK; LKS_E_NOT_FOUND: no run directory; LKS_E_FORMAT with file and line; LKS_E_ARG (config);
 *  LKS_E_IO; LKS_E_NOMEM. */
lks_status lks__run_files_init(lks__run_files *run, const char *path) LKS_MUST_USE;
void lks__run_files_deinit(lks__run_files *run);

/** The line's step. */
static inline int64_t lks__line_step(const json_t *lines, size_t index)
{
    return (int64_t)json_integer_value(json_object_get(json_array_get(lines, index), "step"));
}

/** The last step that a run has recorded anything of; 0: none. */
int64_t lks__run_files_last_step(const lks__run_files *run);

#endif
