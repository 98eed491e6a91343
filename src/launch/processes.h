/* SPDX-License-Identifier: Apache-2.0 */
/** The two halves of a launch: starting the processes, and watching them until all have ended. */
#ifndef LKS_LAUNCH_PROCESSES_H
#define LKS_LAUNCH_PROCESSES_H

#include <signal.h>
#include <sys/types.h>

#include "launch/launch.h"

/** How signals were before the launch, and which ones are waited for during it. */
typedef struct lks__signals {
    sigset_t waited; /* blocked, so that sigwaitinfo gets them: SIGCHLD, and the stop signals not ignored */
    sigset_t old_mask;
    struct sigaction old_child_action;
} lks__signals;

#define LKS__NEVER INT64_MAX

/** How long what was asked to end may take. */
#define LKS__END_GRACE_NS INT64_C(3000000000)

/** Blocks the signals that the launch waits for. */
void lks__signals_hold(lks__signals *signals);

/** Puts mask and dispositions back. Also called by each new process, which so starts as if never forked. */
void lks__signals_restore(const lks__signals *signals);

enum { LKS__RUN_ID_BYTES = 32 };

typedef struct lks__output lks__output;

/** One of the starts of a launch. */
typedef struct lks__try {
    int n_restarts;                 /* that came before */
    char run_id[LKS__RUN_ID_BYTES]; /* the launch's, the same for all tries */
    lks__output *output;            /* NULL: processes have our own stdout and stderr */
} lks__try;

/** The processes of one launch. */
typedef struct lks__processes {
    int n;
    int n_running;
    pid_t *pids; /* [n], by rank; 0: not started, or ended */
} lks__processes;

/** How a launch ended. */
typedef struct lks__launch_end {
    int exit_code;    /* as lks__launch gives it */
    bool asked;       /* a signal has asked to stop */
    bool may_restart; /* it failed, nobody has asked to stop, and another try may do better */
} lks__launch_end;

/** Starts all processes of the config; returns when each one runs its program.
 *
 * Ownership: the caller deinits *out, once no process is running.
 * Returns:   LKS_OK; on failure no process is left and *out is empty.
 */
lks_status lks__processes_start(const lks__launch_config *config, const lks__try *this_try,
                                const lks__signals *signals, lks__processes *out) LKS_MUST_USE;

void lks__processes_deinit(lks__processes *processes);

/** Sends a signal to every process that has not been reaped; so a pid is always ours. */
void lks__processes_signal(const lks__processes *processes, int signal);

/** Returns when all have ended. */
lks__launch_end lks__processes_watch(lks__processes *processes, const lks__launch_config *config,
                                     const lks__try *this_try, const lks__signals *signals);

/** The next signal of the set; 0 when the deadline (lks__now_ns) has passed, or this process was stopped and
 * continued. deadline_ns: LKS__NEVER waits for ever. info: NULL is fine. */
int lks__next_signal(const sigset_t *waited, int64_t deadline_ns, siginfo_t *info);

#endif
