/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* syscall, sigabbrev_np */

#include "comm/shm/process_end.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int lks__process_open(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

static bool is_gone(pid_t pid)
{
    return kill(pid, 0) != 0 && errno == ESRCH;
}

/* ---- /proc/PID/stat ---- */

/* What of it is used here. */
typedef struct process_stat {
    char state;
    long n_threads;
    int wait_status; /* of a zombie */
} process_stat;

/* proc(5), proc_pid_stat: "number (name) state ...", where the name may hold anything, and n_threads and
 * exit_code are fields 20 and 52. */
static bool read_stat(pid_t pid, process_stat *out)
{
    enum { STATE = 3, N_THREADS = 20, EXIT_CODE = 52 };
    char path[64], text[2048], *rest = NULL;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    char *name_end = strrchr(text, ')');
    *out = (process_stat){.n_threads = 1};
    int field = STATE;
    for (char *word = name_end != NULL ? strtok_r(name_end + 1, " \n", &rest) : NULL; word != NULL;
         word = strtok_r(NULL, " \n", &rest), field++) {
        if (field == STATE)
            out->state = word[0];
        else if (field == N_THREADS)
            (void)sscanf(word, "%ld", &out->n_threads);
        else if (field == EXIT_CODE)
            (void)sscanf(word, "%d", &out->wait_status);
    }
    return field > EXIT_CODE;
}

/* The main thread of a process may have ended while others go on. It looks like a zombie, but is one of
 * several threads. */
static bool is_zombie(const process_stat *stat)
{
    return (stat->state == 'Z' || stat->state == 'X') && stat->n_threads <= 1;
}

bool lks__process_is_stopped(pid_t pid)
{
    process_stat stat;
    return read_stat(pid, &stat) && (stat.state == 'T' || stat.state == 't');
}

bool lks__process_has_ended(pid_t pid)
{
    int fd = lks__process_open(pid);
    if (fd < 0) {
        process_stat stat;
        return is_gone(pid) || (read_stat(pid, &stat) && is_zombie(&stat));
    }
    struct pollfd end = {.fd = fd, .events = POLLIN};
    bool ended = poll(&end, 1, 0) == 1;
    close(fd);
    return ended;
}

/* ---- how ---- */

/* The kernel's struct pidfd_info and PIDFD_GET_INFO of <linux/pidfd.h>, as of 6.15; older headers lack it. */
typedef struct pidfd_info_v0 {
    uint64_t mask;
    uint64_t cgroup;
    uint32_t ids[11];
    int32_t exit_code; /* a wait status */
} pidfd_info_v0;

_Static_assert(sizeof(pidfd_info_v0) == 64, "PIDFD_INFO_SIZE_VER0");

/* Once the parent has waited for the process. */
static bool ask_descriptor(int fd, int *out)
{
    const uint64_t exit_info = UINT64_C(1) << 3; /* PIDFD_INFO_EXIT */
    pidfd_info_v0 info = {.mask = exit_info};
    if (fd < 0 || ioctl(fd, _IOWR(0xff, 11, pidfd_info_v0), &info) != 0 || (info.mask & exit_info) == 0)
        return false;
    *out = info.exit_code;
    return true;
}

/* Until then. */
static bool ask_proc(pid_t pid, int *out)
{
    process_stat stat;
    if (!read_stat(pid, &stat) || !is_zombie(&stat))
        return false;
    *out = stat.wait_status;
    return true;
}

const char *lks__process_end_text(pid_t pid, int fd, char out[LKS__END_BYTES])
{
    int how;
    /* the descriptor twice: the parent may come between */
    bool known = ask_descriptor(fd, &how) || ask_proc(pid, &how) || ask_descriptor(fd, &how);
    const char *name = known && WIFSIGNALED(how) ? sigabbrev_np(WTERMSIG(how)) : NULL;
    if (!known)
        snprintf(out, LKS__END_BYTES, "died");
    else if (WIFEXITED(how))
        snprintf(out, LKS__END_BYTES, "died with exit code %d", WEXITSTATUS(how));
    else if (name != NULL)
        snprintf(out, LKS__END_BYTES, "died of signal %d (SIG%s)", WTERMSIG(how), name);
    else
        snprintf(out, LKS__END_BYTES, "died of signal %d", WTERMSIG(how));
    return out;
}
