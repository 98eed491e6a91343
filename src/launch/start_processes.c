/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* memfd_create, pipe2 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/machine.h"
#include "launch/output.h"
#include "launch/pin.h"
#include "launch/processes.h"

/* What all processes of one launch share while they start. Descriptors are -1 when not open. */
typedef struct start_state {
    const lks__launch_config *config;
    const lks__signals *signals;
    const lks__try *this_try;
    pid_t launcher;
    int port;
    lks__pins pins;
    int group_fd;  /* the empty memory file that becomes LOCKSTEP_GROUP_FD */
    int report[2]; /* a pipe: an errno value from each process that can't run the program, then end of file */
} start_state;

/* A port that nobody uses now; our own groups don't need one, other programs meet there. */
static int free_port(void)
{
    enum { PYTORCH_DEFAULT = 29500 };
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool found = fd >= 0 && bind(fd, (struct sockaddr *)&address, length) == 0 &&
                 getsockname(fd, (struct sockaddr *)&address, &length) == 0;
    if (fd >= 0)
        close(fd);
    return found ? ntohs(address.sin_port) : PYTORCH_DEFAULT;
}

static bool set_number(const char *name, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, value);
    return setenv(name, text, 1) == 0;
}

/* Told by the launcher that the program's processes have, never by one further up. */
static bool set_stop(const lks__launch_config *config)
{
    if (!config->stop_gently)
        return unsetenv(LKS__STOP_VARIABLE) == 0 && unsetenv(LKS__STARTED_VARIABLE) == 0;
    return setenv(LKS__STOP_VARIABLE, "gentle", 1) == 0 &&
           set_number(LKS__STARTED_VARIABLE, config->started_ns);
}

static bool set_restarts(int n, int most)
{
    return set_number(LKS__RESTART_COUNT_VARIABLE, n) && set_number(LKS__MAX_RESTARTS_VARIABLE, most) &&
           set_number("TORCHELASTIC_RESTART_COUNT", n) && set_number("TORCHELASTIC_MAX_RESTARTS", most);
}

/* One machine is one group of torchrun's, and all its processes play one role. */
static bool set_places(int rank, int n)
{
    const struct {
        const char *name;
        int value;
    } places[] = {
        {"RANK", rank},      {"WORLD_SIZE", n},      {"LOCAL_RANK", rank}, {"LOCAL_WORLD_SIZE", n},
        {"ROLE_RANK", rank}, {"ROLE_WORLD_SIZE", n}, {"GROUP_RANK", 0},    {"GROUP_WORLD_SIZE", 1},
    };
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (!set_number(places[i].name, places[i].value))
            return false;
    return setenv("ROLE_NAME", "default", 1) == 0;
}

/* Where programs for torchrun meet: nobody else keeps a store for them there, so rank 0 does. */
static bool set_meeting(const start_state *start)
{
    return setenv("MASTER_ADDR", "127.0.0.1", 1) == 0 && set_number("MASTER_PORT", start->port) &&
           unsetenv("TORCHELASTIC_USE_AGENT_STORE") == 0 &&
           setenv("TORCHELASTIC_RUN_ID", start->this_try->run_id, 1) == 0;
}

static bool set_cores(const lks__pins *pins)
{
    return setenv("OMP_NUM_THREADS", "1", 0) == 0 &&
           (pins->n > 0 ? set_number(LKS__PINNED_VARIABLE, pins->n) : unsetenv(LKS__PINNED_VARIABLE) == 0);
}

static bool set_environment(const start_state *start, int rank)
{
    return set_places(rank, start->config->processes) && set_meeting(start) &&
           set_number("LOCKSTEP_GROUP_FD", start->group_fd) && set_cores(&start->pins) &&
           set_stop(start->config) && set_restarts(start->this_try->n_restarts, start->config->max_restarts);
}

/* It runs all the same where it may not choose its cores, though slower. */
static void move_to_cores(const start_state *start, int rank)
{
    if (!lks__pins_apply(&start->pins, rank))
        fprintf(stderr, "lockstep: rank %d is not pinned to its cores: %s\n", rank, strerror(errno));
}

/* The new process: ties its life to the launcher's and becomes the program. */
static _Noreturn void become_program(const start_state *start, int rank)
{
    /* The launcher may have died before prctl took effect: then there is no signal to come. */
    bool ready = prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == start->launcher &&
                 fcntl(start->group_fd, F_SETFD, 0) == 0 && set_environment(start, rank) &&
                 lks__output_attach(start->this_try->output, rank);
    if (ready) {
        move_to_cores(start, rank);
        lks__signals_restore(start->signals);
        execvp(start->config->argv[0], (char *const *)start->config->argv);
    }
    int error = errno;
    /* Nobody is left to tell if this fails. */
    (void)!write(start->report[1], &error, sizeof error);
    _exit(127);
}

static lks_status fork_all(const start_state *start, lks__processes *processes)
{
    for (int rank = 0; rank < processes->n; rank++) {
        pid_t pid = fork();
        if (pid == 0)
            become_program(start, rank);
        if (pid < 0)
            return lks__fail_errno(LKS_E_SYSTEM, errno, "cannot start process %d of %d", rank + 1,
                                   processes->n);
        processes->pids[rank] = pid;
        processes->n_running++;
    }
    return LKS_OK;
}

static bool is_program_here(const char *name)
{
    struct stat info;
    return strchr(name, '/') == NULL && stat(name, &info) == 0 && S_ISREG(info.st_mode) &&
           access(name, X_OK) == 0;
}

static lks_status fail_program(const char *program, int error)
{
    if (error != ENOENT && error != ENOTDIR && error != EACCES)
        return lks__fail_errno(LKS_E_SYSTEM, error, "cannot run %s", program);
    lks_status status = lks__fail_errno(LKS_E_NOT_FOUND, error, "cannot run %s", program);
    if (is_program_here(program))
        return lks__error_hint(status, "a program in this folder is started as ./%s", program);
    return status;
}

/* Waits until every process has become the program, which closes its end of the pipe, or has said why not. */
static lks_status wait_for_programs(start_state *start)
{
    close(start->report[1]);
    start->report[1] = -1;
    int error = 0;
    ssize_t n;
    do
        n = read(start->report[0], &error, sizeof error);
    while (n < 0 && errno == EINTR);
    return n == 0 ? LKS_OK : fail_program(start->config->argv[0], error);
}

static lks_status open_start(start_state *start)
{
    start->group_fd = memfd_create("lockstep-group", MFD_CLOEXEC);
    if (start->group_fd < 0)
        return lks__fail_errno(LKS_E_SYSTEM, errno, "cannot create a memory file");
    if (pipe2(start->report, O_CLOEXEC) != 0)
        return lks__fail_errno(LKS_E_SYSTEM, errno, "cannot create a pipe");
    return LKS_OK;
}

static void close_start(start_state *start)
{
    lks__pins_deinit(&start->pins);
    const int fds[] = {start->group_fd, start->report[0], start->report[1]};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static void kill_all(lks__processes *processes)
{
    lks__processes_signal(processes, SIGKILL);
    for (int rank = 0; rank < processes->n; rank++)
        if (processes->pids[rank] > 0)
            while (waitpid(processes->pids[rank], NULL, 0) < 0 && errno == EINTR)
                ;
}

lks_status lks__processes_start(const lks__launch_config *config, const lks__try *this_try,
                                const lks__signals *signals, lks__processes *out)
{
    *out = (lks__processes){0};
    start_state start = {.config = config,
                         .signals = signals,
                         .this_try = this_try,
                         .launcher = getpid(),
                         .port = free_port(),
                         .group_fd = -1,
                         .report = {-1, -1}};
    lks__processes processes = {.n = config->processes};
    processes.pids = lks__alloc_array(processes.n, sizeof(pid_t), LKS__MEM_MISC);
    if (processes.pids == NULL)
        return LKS_E_NOMEM;

    lks__pins_init(config, &start.pins);
    lks_status status = open_start(&start);
    if (status == LKS_OK)
        status = fork_all(&start, &processes);
    if (status == LKS_OK)
        status = wait_for_programs(&start);
    if (status == LKS_OK)
        status = lks__output_start(this_try->output);
    close_start(&start);
    if (status != LKS_OK) {
        kill_all(&processes);
        lks__processes_deinit(&processes);
        return status;
    }
    *out = processes;
    return LKS_OK;
}

void lks__processes_deinit(lks__processes *processes)
{
    lks__free(processes->pids);
    *processes = (lks__processes){0};
}

void lks__processes_signal(const lks__processes *processes, int signal)
{
    for (int rank = 0; rank < processes->n; rank++)
        if (processes->pids[rank] > 0)
            kill(processes->pids[rank], signal);
}
