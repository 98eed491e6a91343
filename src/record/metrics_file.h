/* SPDX-License-Identifier: Apache-2.0 */
/** metrics.jsonl and its like: one JSON object per line, buffered, written without allocating. */
#ifndef LKS_RECORD_METRICS_FILE_H
#define LKS_RECORD_METRICS_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "record/run_dir.h"

enum { LKS__METRICS_BUFFER_BYTES = 1 << 14, LKS__JSON_NUMBER_BYTES = 32 };

typedef struct lks__metrics_file {
    char *path;
    int fd;               /* -1: not open */
    int error;            /* errno value of the first write that failed; nothing is written after it */
    bool reported;        /* that error, by flush */
    off_t whole_bytes;    /* what the file has: whole lines */
    int64_t damaged_line; /* the one, from 1 on, before which lks__metrics_continue cut a file; 0: none */
    size_t buffered_bytes;
    char buffer[LKS__METRICS_BUFFER_BYTES]; /* whole lines that the file does not have yet */
} lks__metrics_file;

/** Creates the file. Caller's storage; deinit it also after a failure.
 *  Ownership: `path` is taken over (lks__free), NULL is a failure. Returns: LKS_OK; LKS_E_IO; LKS_E_NOMEM. */
lks_status lks__metrics_init(lks__metrics_file *file, char *path) LKS_MUST_USE;

/** Opens the file of an earlier run and cuts off what comes after that step: later steps, the end of an epoch
 * and changed settings at it, and a line that is not whole. A line that is damaged is cut off with all that
 * follows it. Otherwise as lks__metrics_init. */
lks_status lks__metrics_continue(lks__metrics_file *file, char *path, int64_t step) LKS_MUST_USE;

/** Writes what is buffered, as far as possible, and closes. */
void lks__metrics_deinit(lks__metrics_file *file);

void lks__metrics_add_step(lks__metrics_file *file, const lks__step_metrics *metrics);
void lks__metrics_add_trouble(lks__metrics_file *file, const lks__trouble_metrics *metrics);
void lks__metrics_add_epoch(lks__metrics_file *file, const lks__epoch_metrics *metrics);
void lks__metrics_add_tensor(lks__metrics_file *file, const lks__tensor_metrics *metrics);
void lks__metrics_add_start(lks__metrics_file *file, const lks__start *start);
void lks__metrics_add_change(lks__metrics_file *file, const lks__change_metrics *metrics);

/** Returns: LKS_OK; LKS_E_IO, once for the first failure since init. The file keeps its whole lines. */
lks_status lks__metrics_flush(lks__metrics_file *file) LKS_MUST_USE;

/** The shortest JSON number that reads back as the same double; "null" for what is not finite. Returns
 * `text`. */
const char *lks__json_number(double value, char text[LKS__JSON_NUMBER_BYTES]);

#endif
