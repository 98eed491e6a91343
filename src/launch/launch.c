/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/launch.h"

#include <stddef.h>

#include "base/error.h"
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

lks_status lks__launch(const lks__launch_config *config, int *out)
{
    if (config->processes < 1)
        return lks__fail(LKS_E_ARG, "%d processes; at least 1 is needed", config->processes);
    if (config->argv == NULL || config->argv[0] == NULL)
        return lks__fail(LKS_E_ARG, "no program to start");

    lks__signals signals;
    lks__processes processes;
    lks__signals_hold(&signals);
    lks_status status = lks__processes_start(config, &signals, &processes);
    if (status == LKS_OK)
        *out = lks__processes_watch(&processes, config->stop_gently, &signals);
    lks__processes_deinit(&processes);
    lks__signals_restore(&signals);
    return status;
}
