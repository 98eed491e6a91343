/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* sigabbrev_np, W_EXITCODE */

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/machine.h"
#include "launch/output.h"
#include "launch/processes.h"

/* How long others may take to fail alike, to end after they were asked to, and to see by themselves, as
 * programs do that stop gently, that they can't go on without one that has died. */
#define ALIKE_GRACE_NS INT64_C(1000000000)
#define DEATH_GRACE_NS INT64_C(1000000000)

enum { NO_CODE = -1, BAD_INPUT = 2 };

typedef struct watch_state {
    lks__processes *processes;
    lks__output *output;
    const char *output_hint;
    bool stop_gently;
    int stop_signal;    /* the first one that came; 0: none */
    int64_t stopped_ns; /* when it came */
    bool asked;         /* one came, also when the run had failed before: then stop_signal stays 0 */
    bool final;         /* a process has failed in a way that would come again */
    int code;           /* the exit code of the process that ended first; NO_CODE: none yet, or by a signal */
    int n_alike;        /* processes that ended with `code` */
    int culprit;        /* the rank that failed first; -1: none */
    pid_t culprit_pid;  /* of the culprit */
    int culprit_status; /* as waitpid gave it */
    bool blamed;        /* the culprit was named on stderr */
    bool ending;        /* the rest is being ended: how it ends says nothing new */
    int64_t blame_at_ns; /* all that ended did so alike: when to stop waiting for the others */
    int64_t kill_at_ns;  /* the others were asked to end: when to stop waiting for them */
} watch_state;

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int lks__next_signal(const sigset_t *waited, int64_t deadline_ns, siginfo_t *info)
{
    int signal;
    if (deadline_ns == LKS__NEVER) {
        signal = sigwaitinfo(waited, info);
    } else {
        int64_t left_ns = deadline_ns - lks__now_ns();
        if (left_ns < 0)
            left_ns = 0;
        struct timespec left = {.tv_sec = left_ns / 1000000000, .tv_nsec = left_ns % 1000000000};
        signal = sigtimedwait(waited, info, &left);
    }
    return signal > 0 ? signal : 0;
}

static void end_within(watch_state *watch, int64_t grace_ns)
{
    watch->ending = true;
    watch->kill_at_ns = earlier(watch->kill_at_ns, lks__now_ns() + grace_ns);
}

static void end_after_death(watch_state *watch)
{
    end_within(watch, watch->stop_gently ? DEATH_GRACE_NS : LKS__END_GRACE_NS);
}

/* What a message starts with: on a terminal a process may have left half a line, a progress bar for one, to
 * which the terminal adds "^C". */
static const char *at_line_start(void)
{
    return isatty(STDERR_FILENO) == 1 ? "\r\033[K" : "";
}

static void describe(const watch_state *watch)
{
    int rank = watch->culprit, pid = (int)watch->culprit_pid, status = watch->culprit_status;
    if (WIFEXITED(status)) {
        lks__output_say(watch->output, "%slockstep: rank %d (process %d) ended with exit code %d\n",
                        at_line_start(), rank, pid, WEXITSTATUS(status));
        return;
    }
    const char *name = sigabbrev_np(WTERMSIG(status));
    lks__output_say(watch->output, "%slockstep: rank %d (process %d) was killed by signal %d%s%s%s\n",
                    at_line_start(), rank, pid, WTERMSIG(status), name ? " (SIG" : "", name ? name : "",
                    name ? ")" : "");
}

/* True as long as every process that has ended did so by itself, with the same exit code. */
static bool are_alike(const watch_state *watch)
{
    return watch->n_alike + watch->processes->n_running == watch->processes->n;
}

static void blame(watch_state *watch)
{
    /* when several ended alike, the cause may as well be one that is left */
    int culprit = are_alike(watch) && watch->n_alike > 1 ? -1 : watch->culprit;
    if (culprit < 0) {
        lks__output_say(watch->output,
                        "%slockstep: %d of %d processes ended with exit code %d; the others are ended\n",
                        at_line_start(), watch->n_alike, watch->processes->n, watch->code);
    } else {
        lks__output_settle(watch->output, culprit);
        describe(watch);
    }
    lks__output_tell(watch->output, culprit);
    if (watch->output == NULL && watch->output_hint != NULL && watch->processes->n > 1)
        fprintf(stderr, "%s\n", watch->output_hint);
    watch->blamed = true;
    watch->blame_at_ns = LKS__NEVER;
    lks__processes_signal(watch->processes, SIGTERM);
    end_after_death(watch);
}

static bool ended_with(int status, int code)
{
    return WIFEXITED(status) && WEXITSTATUS(status) == code;
}

/* An end that the stop signal explains; processes that stop gently are always sent a SIGTERM. */
static bool ended_as_asked(const watch_state *watch, int status)
{
    const int asked[] = {SIGTERM, watch->stop_signal};
    for (int i = 0; watch->stop_signal != 0 && i < 2; i++)
        if (ended_with(status, 128 + asked[i]) || (WIFSIGNALED(status) && WTERMSIG(status) == asked[i]))
            return true;
    return false;
}

static int rank_of(const lks__processes *processes, pid_t pid)
{
    for (int rank = 0; rank < processes->n; rank++)
        if (processes->pids[rank] == pid)
            return rank;
    return -1;
}

/* Of failures that were noticed together, one by a signal is the likelier cause: others saw it and failed. */
static bool is_likelier_cause(const watch_state *watch, int status)
{
    return watch->culprit < 0 || (WIFSIGNALED(status) && !WIFSIGNALED(watch->culprit_status));
}

/* may_be_culprit: no failure was known before this round. */
static void note_end(watch_state *watch, int rank, int status, bool may_be_culprit)
{
    if (watch->stop_gently && ended_with(status, LKS__EXIT_FINAL)) {
        watch->final = true;
        status = W_EXITCODE(1, 0);
    }
    pid_t pid = watch->processes->pids[rank];
    if (watch->processes->n_running == watch->processes->n && WIFEXITED(status))
        watch->code = WEXITSTATUS(status);
    watch->n_alike += ended_with(status, watch->code);
    watch->processes->pids[rank] = 0;
    watch->processes->n_running--;

    if (ended_with(status, 0) || watch->ending)
        return;
    if (ended_as_asked(watch, status)) {
        /* By the signal itself: it was too young to handle it, and the others can't go on without it. */
        if (WIFSIGNALED(status))
            end_after_death(watch);
        return;
    }
    if (may_be_culprit && is_likelier_cause(watch, status)) {
        watch->culprit = rank;
        watch->culprit_pid = pid;
        watch->culprit_status = status;
    }
}

static void reap(watch_state *watch)
{
    bool none_failed = watch->culprit < 0;
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        int rank = rank_of(watch->processes, pid);
        if (rank >= 0) /* else a child that this process had before */
            note_end(watch, rank, status, none_failed);
    }
    if (watch->culprit < 0 || watch->blamed)
        return;

    /* While it may still turn out that all have met the same failure, nobody is blamed. */
    if (!are_alike(watch))
        blame(watch);
    else if (none_failed)
        watch->blame_at_ns = lks__now_ns() + ALIKE_GRACE_NS;
}

/* One request may come as several signals: timeout(1) signals its child and then the whole group, others send
 * a SIGHUP along with a SIGTERM. */
static bool is_echo(const watch_state *watch)
{
    return watch->stop_gently && watch->stop_signal != 0 &&
           lks__now_ns() - watch->stopped_ns < LKS__STOP_ECHO_NS;
}

static void stop(watch_state *watch, int signal, bool from_terminal)
{
    watch->asked = true;
    bool first = watch->stop_signal == 0 && !watch->blamed;
    if (first) {
        watch->stop_signal = signal;
        watch->stopped_ns = lks__now_ns();
    } else if (is_echo(watch)) {
        return;
    }

    if (!watch->stop_gently) {
        if (!from_terminal) /* which has signalled the whole foreground group itself */
            lks__processes_signal(watch->processes, signal);
        end_within(watch, LKS__END_GRACE_NS);
    } else if (first) {
        lks__output_say(watch->output,
                        "%slockstep: stopping when no step is under way; press Ctrl-C again to kill\n",
                        at_line_start());
        lks__processes_signal(watch->processes, SIGTERM);
    } else {
        end_within(watch, 0);
    }
}

static void act_on_deadlines(watch_state *watch)
{
    int64_t now_ns = lks__now_ns();
    if (now_ns >= watch->blame_at_ns)
        blame(watch);
    if (now_ns >= watch->kill_at_ns) {
        lks__processes_signal(watch->processes, SIGKILL);
        watch->kill_at_ns = LKS__NEVER;
    }
}

static int exit_code(const watch_state *watch)
{
    const int asked[] = {128 + SIGTERM, 128 + watch->stop_signal};
    bool as_asked = watch->stop_signal != 0 && (watch->code == asked[0] || watch->code == asked[1]);
    if (are_alike(watch) && !as_asked)
        return watch->code;
    if (watch->blamed)
        return 1;
    return watch->stop_signal != 0 ? 128 + watch->stop_signal : 0;
}

static bool may_restart(const watch_state *watch)
{
    if (watch->asked || watch->final)
        return false;
    if (are_alike(watch))
        return watch->code != 0 && watch->code != BAD_INPUT && watch->code < 128;
    return !ended_with(watch->culprit_status, BAD_INPUT);
}

lks__launch_end lks__processes_watch(lks__processes *processes, const lks__launch_config *config,
                                     const lks__try *this_try, const lks__signals *signals)
{
    watch_state watch = {.processes = processes,
                         .output = this_try->output,
                         .output_hint = config->output_hint,
                         .stop_gently = config->stop_gently,
                         .code = NO_CODE,
                         .culprit = -1,
                         .blame_at_ns = LKS__NEVER,
                         .kill_at_ns = LKS__NEVER};
    while (processes->n_running > 0) {
        siginfo_t info;
        int signal = lks__next_signal(&signals->waited, earlier(watch.blame_at_ns, watch.kill_at_ns), &info);
        if (signal == SIGCHLD)
            reap(&watch);
        else if (signal != 0)
            stop(&watch, signal, info.si_code == SI_KERNEL);
        act_on_deadlines(&watch);
    }
    return (lks__launch_end){exit_code(&watch), watch.asked, may_restart(&watch)};
}
