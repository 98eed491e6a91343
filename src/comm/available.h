/* SPDX-License-Identifier: Apache-2.0 */
/** Asked before memory is reserved for a group: reserving what is not there would wake the kernel's
 * out-of-memory killer instead of failing. */
#ifndef LKS_COMM_AVAILABLE_H
#define LKS_COMM_AVAILABLE_H

#include <stddef.h>

#include <lockstep/status.h>

/** Returns: LKS_OK; LKS_E_NOMEM when the machine has not got so much memory left, swap included. */
lks_status lks__check_available(size_t bytes) LKS_MUST_USE;

/** Returns: LKS_OK; LKS_E_NOMEM when a memory file of so many bytes is beyond the process's limit of file
 * sizes (which the kernel enforces by a signal). */
lks_status lks__check_file_size(size_t bytes) LKS_MUST_USE;

#endif
