/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* sched_getaffinity */

#include "launched_program.h"

#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { UNUSABLE = 99 }; /* exit code of a program that can't play its part */

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value ? value : "(unset)";
}

static int number(const char *text)
{
    return (int)strtol(text, NULL, 10);
}

static int rank(void)
{
    return number(variable("RANK"));
}

__attribute__((format(printf, 1, 2))) static void report(const char *format, ...)
{
    char line[512]; /* shorter than PIPE_BUF: lines of several processes don't mix */
    int n = snprintf(line, sizeof line, "%d %d ", rank(), (int)getpid());
    va_list args;
    va_start(args, format);
    n += vsnprintf(line + n, sizeof line - (size_t)n - 1, format, args);
    va_end(args);
    line[n++] = '\n';
    if (write(number(variable(REPORT_FD_VARIABLE)), line, (size_t)n) != n)
        _exit(UNUSABLE);
}

static void wait_for_the_end(void)
{
    report("ready");
    for (;;)
        pause();
}

static int play_exit(char **args)
{
    return number(args[rank()]);
}

static int play_tries(char **args)
{
    int code = number(args[number(variable("LOCKSTEP_RESTART_COUNT"))]);
    report("try %s of %s and %s of %s on %s, called at %s", variable("LOCKSTEP_RESTART_COUNT"),
           variable("LOCKSTEP_MAX_RESTARTS"), variable("TORCHELASTIC_RESTART_COUNT"),
           variable("TORCHELASTIC_MAX_RESTARTS"), variable("WORLD_SIZE"), variable("LOCKSTEP_STARTED_NS"));
    if (code != 0 && rank() != 0)
        for (;;)
            pause();
    if (code < 0)
        raise(-code);
    return code;
}

static int play_variables(char **args)
{
    (void)args;
    char path[64], target[128] = "";
    struct stat info = {0};
    snprintf(path, sizeof path, "/proc/self/fd/%s", variable("LOCKSTEP_GROUP_FD"));
    if (readlink(path, target, sizeof target - 1) < 0 || stat(path, &info) != 0)
        return UNUSABLE;

    sigset_t blocked;
    struct sigaction on_child;
    sigprocmask(SIG_SETMASK, NULL, &blocked);
    sigaction(SIGCHLD, NULL, &on_child);
    int n_blocked = 0;
    for (int s = 1; s < 32; s++)
        n_blocked += sigismember(&blocked, s) == 1;

    report("ready");
    report("WORLD_SIZE=%s LOCAL_RANK=%s LOCAL_WORLD_SIZE=%s MASTER_ADDR=%s MASTER_PORT=%s OMP_NUM_THREADS=%s "
           "LOCKSTEP_STOP=%s memory=%.7s inode=%llu bytes=%lld blocked=%d child_ignored=%d",
           variable("WORLD_SIZE"), variable("LOCAL_RANK"), variable("LOCAL_WORLD_SIZE"),
           variable("MASTER_ADDR"), variable("MASTER_PORT"), variable("OMP_NUM_THREADS"),
           variable("LOCKSTEP_STOP"), target, (unsigned long long)info.st_ino, (long long)info.st_size,
           n_blocked, on_child.sa_handler == SIG_IGN);
    return 0;
}

static int play_cores(char **args)
{
    (void)args;
    char list[300] = "";
    int n = 0;
    cpu_set_t mask;
    if (sched_getaffinity(0, sizeof mask, &mask) != 0)
        return UNUSABLE;
    for (size_t cpu = 0; cpu < CPU_SETSIZE && n < (int)sizeof list - 8; cpu++)
        if (CPU_ISSET(cpu, &mask))
            n += snprintf(list + n, sizeof list - (size_t)n, " %zu", cpu);
    report("ready");
    report("LOCKSTEP_PINNED=%s cores%s", variable("LOCKSTEP_PINNED"), list);
    return 0;
}

static int play_torchrun(char **args)
{
    (void)args;
    report("ready");
    report("ROLE_RANK=%s ROLE_WORLD_SIZE=%s ROLE_NAME=%s GROUP_RANK=%s GROUP_WORLD_SIZE=%s "
           "TORCHELASTIC_USE_AGENT_STORE=%s TORCHELASTIC_RUN_ID=%s",
           variable("ROLE_RANK"), variable("ROLE_WORLD_SIZE"), variable("ROLE_NAME"), variable("GROUP_RANK"),
           variable("GROUP_WORLD_SIZE"), variable("TORCHELASTIC_USE_AGENT_STORE"),
           variable("TORCHELASTIC_RUN_ID"));
    return 0;
}

static int play_fail(char **args)
{
    if (rank() != number(args[0]))
        wait_for_the_end();
    int code = number(args[1]);
    if (code < 0)
        raise(-code);
    return code;
}

static int play_wait(char **args)
{
    (void)args;
    wait_for_the_end();
    return UNUSABLE;
}

static int play_stubborn(char **args)
{
    (void)args;
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    wait_for_the_end();
    return UNUSABLE;
}

static int play_gentle(char **args)
{
    sigset_t term;
    int received;
    signal(SIGINT, SIG_IGN);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    report("ready");
    if (sigwait(&term, &received) != 0)
        return UNUSABLE;
    report("signal %d", received);
    return number(args[rank()]);
}

static int play_listen(char **args)
{
    (void)args;
    sigset_t interrupt;
    siginfo_t info;
    if (setpgid(0, 0) != 0)
        return UNUSABLE;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigprocmask(SIG_BLOCK, &interrupt, NULL);
    report("ready");
    const struct timespec a_second = {.tv_sec = 1};
    report(sigtimedwait(&interrupt, &info, &a_second) > 0 ? "interrupted" : "left in peace");
    return 0;
}

static const struct {
    const char *name;
    int (*play)(char **args);
    int n_args; /* at least */
} ways[] = {
    {"exit", play_exit, 1},         {"variables", play_variables, 0}, {"fail", play_fail, 2},
    {"wait", play_wait, 0},         {"stubborn", play_stubborn, 0},   {"gentle", play_gentle, 1},
    {"listen", play_listen, 0},     {"tries", play_tries, 1},         {"cores", play_cores, 0},
    {"torchrun", play_torchrun, 0},
};

int launched_program(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++)
        if (strcmp(ways[i].name, argv[1]) == 0 && argc >= 2 + ways[i].n_args)
            return ways[i].play(argv + 2);
    return UNUSABLE;
}
