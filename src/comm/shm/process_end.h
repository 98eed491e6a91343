/* SPDX-License-Identifier: Apache-2.0 */
/** Whether another process has ended. A process that has ended and that its parent has not waited for yet (a
 * zombie) has ended, although its number is still taken. */
#ifndef LKS_COMM_SHM_PROCESS_END_H
#define LKS_COMM_SHM_PROCESS_END_H

#include <stdbool.h>
#include <sys/types.h>

/** A descriptor that becomes readable when the process ends; -1: it has gone, the kernel is older than 5.3,
 * or too many files are open. The caller closes it. */
int lks__process_open(pid_t pid);

/** Looks now, with or without such descriptors. */
bool lks__process_has_ended(pid_t pid);

#endif
