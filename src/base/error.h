/* SPDX-License-Identifier: Apache-2.0 */
/** Setting the text behind lks_error_message(). The function that decides what the error is says so, once. */
#ifndef LKS_BASE_ERROR_H
#define LKS_BASE_ERROR_H

#include <lockstep/status.h>

/** Sets the thread's message and returns `status`: `return lks__fail(LKS_E_ARG, "local batch %d ...", b);`
 * Control characters but the end of a line become '?': names and contents of files end up in messages. */
lks_status lks__fail(lks_status status, const char *format, ...) LKS_PRINTF(2, 3);

/** As lks__fail, with ": " and the text of `error_number` (an errno value) at the end. */
lks_status lks__fail_errno(lks_status status, int error_number, const char *format, ...) LKS_PRINTF(3, 4);

/** "cannot open <path>: ..." Returns: LKS_E_NOT_FOUND; LKS_E_SYSTEM when the process or the machine has run
 * out of descriptors or memory; LKS_E_IO when the disk fails: neither is the path's fault. */
lks_status lks__fail_open(int error_number, const char *path);

/** Puts "<text>: " before the thread's message. Returns `status`. */
lks_status lks__error_prefix(lks_status status, const char *format, ...) LKS_PRINTF(2, 3);

/** Adds "\nhint: <text>" to the thread's message. Returns `status`. */
lks_status lks__error_hint(lks_status status, const char *format, ...) LKS_PRINTF(2, 3);

#endif
