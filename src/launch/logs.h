/* SPDX-License-Identifier: Apache-2.0 */
/** The files that keep what processes print: FOLDER/attempt_K/RANK/stdout.log and stderr.log, as torchrun
 * names them. K is the first number that is free, so that no launch and no restart writes over another's. */
#ifndef LKS_LAUNCH_LOGS_H
#define LKS_LAUNCH_LOGS_H

#include <limits.h>

#include "launch/stream.h"

/** Creates the files of both streams, which then own them. attempt: [PATH_MAX], the folder of these logs.
 * Returns: LKS_OK; LKS_E_NOT_FOUND, LKS_E_IO, LKS_E_SYSTEM, LKS_E_NOMEM, when what was created is gone again.
 */
lks_status lks__logs_create(const char *folder, lks__stream *out, lks__stream *err,
                            char attempt[PATH_MAX]) LKS_MUST_USE;

/** Takes the files away again, of a launch in which nothing was printed. */
void lks__logs_remove(const char *attempt, int n);

#endif
