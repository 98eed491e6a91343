/* SPDX-License-Identifier: Apache-2.0 */
/** Whether and how another process has ended. A process that has ended and that its parent has not waited for
 * yet (a zombie) has ended, although its number is still taken. */
#ifndef LKS_COMM_SHM_PROCESS_END_H
#define LKS_COMM_SHM_PROCESS_END_H

#include <stdbool.h>
#include <sys/types.h>

/** A descriptor that becomes readable when the process ends; -1: it has gone, the kernel is older than 5.3,
 * or too many files are open. The caller closes it. */
int lks__process_open(pid_t pid);

/** Looks now, with or without such descriptors. */
bool lks__process_has_ended(pid_t pid);

enum { LKS__END_BYTES = 48 };

/** How it ended: "died of signal 9 (SIGKILL)", "died with exit code 3"; or "died", where nobody says: the
 * kernel does so of a zombie, and from 6.15 on of any process for a descriptor (-1: none) that was opened in
 * its lifetime. Returns out. */
const char *lks__process_end_text(pid_t pid, int fd, char out[LKS__END_BYTES]);

/** Whether it has been stopped, by SIGSTOP for one, or by a debugger. */
bool lks__process_is_stopped(pid_t pid);

#endif
