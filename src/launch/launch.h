/* SPDX-License-Identifier: Apache-2.0 */
/** Starts the processes of a run on this machine and watches them. Handles signals, so it belongs to the
 * command line. */
#ifndef LKS_LAUNCH_LAUNCH_H
#define LKS_LAUNCH_LAUNCH_H

#include <stdbool.h>
#include <stdint.h>

#include <lockstep/status.h>

/** Set to "gentle" for processes that are launched with stop_gently, else unset: only SIGTERM asks such a
 * process to stop, and a terminal's SIGINT and SIGHUP, which reach every process, are its launcher's to
 * decide. */
#define LKS__STOP_VARIABLE "LOCKSTEP_STOP"

/** A stop signal that follows another one within this time is the same request once more, from someone who
 * signals a process and its group, or both a launcher and its processes: half a second is long for that, and
 * short for a user who presses Ctrl-C, reads and presses it again. */
#define LKS__STOP_ECHO_NS INT64_C(500000000)

/** When the command that launched was called, on the clock of lks__now_ns; set with stop_gently. */
#define LKS__STARTED_VARIABLE "LOCKSTEP_STARTED_NS"

/** How often the program was started again before, and how often it may be: also in PyTorch's words, as
 * TORCHELASTIC_RESTART_COUNT and TORCHELASTIC_MAX_RESTARTS. */
#define LKS__RESTART_COUNT_VARIABLE "LOCKSTEP_RESTART_COUNT"
#define LKS__MAX_RESTARTS_VARIABLE  "LOCKSTEP_MAX_RESTARTS"

/** What a process of a program that stops gently may end with for a failure that would come again if it were
 * started again; to the launcher's caller it is a 1. */
enum { LKS__EXIT_FINAL = 90 };

/** Which cores a process may run on. */
typedef enum lks__pin {
    LKS__PIN_NOT,
    LKS__PIN_CORES, /* as many as it has threads that are busy */
    LKS__PIN_PARTS, /* its equal part of all: threads that help now and then go where it is idle */
} lks__pin;

typedef struct lks__launch_config lks__launch_config;

/** Called before the program is started again for the `count`th time, 1 .. max_restarts, when all of its
 * processes have ended. May change what is started and says so to the user. false: it is left at that. */
typedef bool lks__restart_fn(void *context, int count, lks__launch_config *next);

struct lks__launch_config {
    int processes;           /* N >= 1 */
    const char *const *argv; /* program and arguments, NULL-terminated; found through PATH */
    bool stop_gently; /* the program stops by itself when asked: Ctrl-C and SIGTERM become one SIGTERM to each
                         process, a second one, later than an echo, kills. false: every signal is passed on,
                         and what is left after a few seconds is killed */
    lks__pin
        pin;     /* each process to cores of its own, when there are enough for all; never a single process */
    int threads; /* that keep a core busy in each process; 0: as many as OMP_NUM_THREADS says */
    bool prefix; /* each line of the processes' output begins with "[RANK] " */
    const char *log_dir;      /* where their output is kept too, in files: launch/logs.h; NULL: nowhere */
    const char *output_hint;  /* said behind a failure when output does not come through us; NULL: nothing */
    int64_t started_ns;       /* for LKS__STARTED_VARIABLE */
    int max_restarts;         /* 0 */
    lks__restart_fn *restart; /* with max_restarts */
    void *restart_context;
};

/** Starts N copies with the variables set that torchrun sets (docs/launching.md has the list) and
 * LOCKSTEP_GROUP_FD (and LKS__STOP_VARIABLE, as stop_gently says), and returns when all have ended. When one
 * fails the others are ended, and all are started again, max_restarts times at most; not when a signal has
 * asked to stop, and not after an end that another try would not better: exit code 2 (bad input),
 * LKS__EXIT_FINAL, and all processes ending alike with 128 or more (they were stopped).
 *
 * None of the N processes outlives this one: they die with it, even by SIGKILL. Processes that they start are
 * not tied to it: the programs have to end those.
 * out: the exit code to end with: c when every process ended by itself with c (when it is not 0, they have
 * told why: nothing is said); 128 + n when ended by signal n; else 1; also 1 when output could not be
 * written. Returns: LKS_OK when the processes were started, however they ended (a failure is described on
 * stderr: rank, pid, exit code or signal, last lines); LKS_E_NOT_FOUND (no such program); LKS_E_ARG;
 * LKS_E_SYSTEM.
 */
lks_status lks__launch(const lks__launch_config *config, int *out) LKS_MUST_USE;

#endif
