/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* syscall */

#include "comm/shm/process_end.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int lks__process_open(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

static bool is_gone(pid_t pid)
{
    return kill(pid, 0) != 0 && errno == ESRCH;
}

/* The main thread of a process may have ended while others go on. It looks like a zombie, but is one of
 * several threads. */
static bool is_zombie(pid_t pid)
{
    char path[64], line[256], state = '?';
    int n_threads = 1;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    while (fgets(line, sizeof line, file) != NULL) {
        (void)sscanf(line, "State: %c", &state);
        (void)sscanf(line, "Threads: %d", &n_threads);
    }
    fclose(file);
    return (state == 'Z' || state == 'X') && n_threads <= 1;
}

bool lks__process_has_ended(pid_t pid)
{
    int fd = lks__process_open(pid);
    if (fd < 0)
        return is_gone(pid) || is_zombie(pid);
    struct pollfd end = {.fd = fd, .events = POLLIN};
    bool ended = poll(&end, 1, 0) == 1;
    close(fd);
    return ended;
}
