/* SPDX-License-Identifier: Apache-2.0 */
/** What the processes of a launch print, on its way through the launcher: prefixed, kept in files, remembered
 * for the message about a failure. Only with prefix or log_dir; else processes have the launcher's own stdout
 * and stderr, and all functions take NULL.
 *
 * Each process has a pipe for stdout and one for stderr. A thread for each of the two streams moves what
 * comes to the launcher's own, so that a reader who has stopped holds up that stream, and nothing else: the
 * launcher goes on watching, and processes wait when their pipe is full. A reader who has gone ends the
 * processes as it would without a launcher between: their pipes are closed, and printing gives SIGPIPE. */
#ifndef LKS_LAUNCH_OUTPUT_H
#define LKS_LAUNCH_OUTPUT_H

#include <stdbool.h>

#include "launch/processes.h"

/** Prepares for the processes of one try; before they are forked.
 *
 * Ownership: the caller finishes and destroys *out, which is NULL when output is not asked to come this way.
 * Returns:   LKS_OK; LKS_E_NOT_FOUND, LKS_E_IO: a log can't be created; LKS_E_SYSTEM; LKS_E_NOMEM.
 */
lks_status lks__output_create(const lks__launch_config *config, lks__output **out) LKS_MUST_USE;

/** Called by the new process: its stdout and stderr are the pipes from now on. Returns false with errno. */
bool lks__output_attach(const lks__output *output, int rank);

/** When all processes are forked: reading begins. */
lks_status lks__output_start(lks__output *output) LKS_MUST_USE;

/** Waits until what a process that has ended had printed is here: for a moment, as others whom it has started
 * may hold its pipes open, or a reader may be slow. */
void lks__output_settle(lks__output *output, int rank);

/** Prints a message of the launcher's own on stderr, behind the lines that are here already; NULL: at once.
 */
void lks__output_say(lks__output *output, const char *format, ...) LKS_PRINTF(2, 3);

/** Says what the last lines of a process were (rank -1: of nobody), and where its logs are. */
void lks__output_tell(lks__output *output, int rank);

/** Waits until all that the ended processes had printed is written. A stop signal, now or before (asked),
 * limits that to a few seconds: a reader who has stopped may never go on. *stop_signal: the one that came
 * now, 0: none. Returns false when something could not be written, which has been told. */
bool lks__output_finish(lks__output *output, const lks__signals *signals, bool asked, int *stop_signal);

/** After lks__output_finish, or when the launch has failed: then its logs, which are empty, go too. */
void lks__output_destroy(lks__output *output, bool with_logs);

#endif
