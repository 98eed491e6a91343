/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/launch.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/machine.h"
#include "launch/output.h"
#include "launch/processes.h"

static const int stop_signals[] = {SIGINT, SIGTERM, SIGHUP};

enum { N_STOP_SIGNALS = sizeof stop_signals / sizeof stop_signals[0] };

void lks__signals_hold(lks__signals *signals)
{
    sigemptyset(&signals->waited);
    sigaddset(&signals->waited, SIGCHLD);
    for (int i = 0; i < N_STOP_SIGNALS; i++) {
        /* What nohup or a shell's & has switched off stays off. */
        struct sigaction action;
        if (sigaction(stop_signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(&signals->waited, stop_signals[i]);
    }
    sigprocmask(SIG_BLOCK, &signals->waited, &signals->old_mask);
    /* Were it inherited as ignored, ended processes would vanish before they are waited for. */
    struct sigaction child_action = {.sa_handler = SIG_DFL};
    sigaction(SIGCHLD, &child_action, &signals->old_child_action);
}

void lks__signals_restore(const lks__signals *signals)
{
    sigaction(SIGCHLD, &signals->old_child_action, NULL);
    sigprocmask(SIG_SETMASK, &signals->old_mask, NULL);
}

/* Standard streams that are closed: pipes and files of ours would take their numbers, and get what is meant
 * for them. What is opened here in their place refuses what they are for (a "standard output" that is open
 * for reading: EBADF), and programs find them closed. */
static void occupy_standard_streams(bool occupied[3])
{
    for (int fd = 0; fd < 3; fd++) {
        occupied[fd] = fcntl(fd, F_GETFD) < 0;
        if (occupied[fd]) /* the lowest number that is free is this one */
            (void)!open("/dev/null", (fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
    }
}

static void leave_standard_streams(const bool occupied[3])
{
    for (int fd = 0; fd < 3; fd++)
        if (occupied[fd])
            close(fd);
}

/* What is left to be written, and what that says about the end. */
static void finish_output(lks__output *output, const lks__signals *signals, lks__launch_end *end)
{
    int signal;
    bool written = lks__output_finish(output, signals, end->asked, &signal);
    if (!written && end->exit_code == 0)
        end->exit_code = signal != 0 ? 128 + signal : 1;
    end->may_restart = end->may_restart && signal == 0;
}

/* One start of all processes, to their end. */
static lks_status launch_once(const lks__launch_config *config, lks__try *this_try,
                              const lks__signals *signals, lks__launch_end *out)
{
    lks__processes processes = {0};
    lks_status status = lks__output_create(config, &this_try->output);
    if (status == LKS_OK)
        status = lks__processes_start(config, this_try, signals, &processes);
    if (status == LKS_OK) {
        *out = lks__processes_watch(&processes, config, this_try, signals);
        finish_output(this_try->output, signals, out);
    }
    lks__output_destroy(this_try->output, status != LKS_OK);
    lks__processes_deinit(&processes);
    return status;
}

/* A stop signal that has come since the processes ended; 0: none. */
static int pending_stop(const lks__signals *signals)
{
    sigset_t stops = signals->waited;
    sigdelset(&stops, SIGCHLD);
    int signal = sigtimedwait(&stops, NULL, &(struct timespec){0});
    return signal > 0 ? signal : 0;
}

/* Tells launches apart, also those of several machines; from the clock where there is nothing random. */
static void name_run(char out[LKS__RUN_ID_BYTES])
{
    uint64_t number;
    if (getrandom(&number, sizeof number, GRND_NONBLOCK) != (ssize_t)sizeof number)
        number = (uint64_t)lks__now_ns() ^ (uint64_t)getpid() << 40;
    snprintf(out, LKS__RUN_ID_BYTES, "lockstep-%016" PRIx64, number);
}

static lks_status launch_again(const lks__launch_config *config, const lks__signals *signals, int *out)
{
    lks__launch_config current = *config;
    lks__launch_end end;
    lks__try this_try = {0};
    name_run(this_try.run_id);
    for (int n_restarts = 0;; n_restarts++) {
        this_try.n_restarts = n_restarts;
        lks_status status = launch_once(&current, &this_try, signals, &end);
        if (status != LKS_OK)
            return status;
        *out = end.exit_code;
        if (!end.may_restart || n_restarts == config->max_restarts ||
            !config->restart(config->restart_context, n_restarts + 1, &current))
            return LKS_OK;
        int signal = pending_stop(signals);
        if (signal != 0) {
            *out = 128 + signal;
            return LKS_OK;
        }
    }
}

lks_status lks__launch(const lks__launch_config *config, int *out)
{
    if (config->processes < 1)
        return lks__fail(LKS_E_ARG, "%d processes; at least 1 is needed", config->processes);
    if (config->argv == NULL || config->argv[0] == NULL)
        return lks__fail(LKS_E_ARG, "no program to start");

    lks__signals signals;
    bool occupied[3];
    occupy_standard_streams(occupied);
    lks__signals_hold(&signals);
    lks_status status = launch_again(config, &signals, out);
    lks__signals_restore(&signals);
    leave_standard_streams(occupied);
    return status;
}
