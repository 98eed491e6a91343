/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* pidfd_open */

#include "launcher_process.h"

#include "check.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launched_program.h"

#define PROGRAM "/proc/self/exe"

enum { MAX_ARGS = 80 };

static _Noreturn void be_launcher(const lks__launch_config *config)
{
    int exit_code = -1;
    lks_status status = lks__launch(config, &exit_code);
    if (status != LKS_OK) {
        fprintf(stderr, "%s %s\n", lks_status_name(status), lks_error_message());
        exit_code = lks_status_exit_code(status);
        /* nothing may be left: neither running nor to be waited for */
        if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD)
            fprintf(stderr, "a process was left\n");
    }
    _exit(exit_code);
}

void start_config(launcher *l, const lks__launch_config *config, prepare_fn *prepare)
{
    int reports[2], errors[2];
    char fd[16];
    memset(l, 0, sizeof *l);
    CHECK_INT(pipe(reports), 0);
    CHECK_INT(pipe(errors), 0);
    l->pid = fork();
    assert_true(l->pid >= 0); /* kill(-1) would reach everybody */
    if (l->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that has failed leaves nothing either */
        close(reports[0]);
        close(errors[0]);
        dup2(errors[1], STDERR_FILENO);
        close(errors[1]);
        snprintf(fd, sizeof fd, "%d", reports[1]);
        setenv(REPORT_FD_VARIABLE, fd, 1);
        if (prepare != NULL)
            prepare();
        be_launcher(config);
    }
    close(reports[1]);
    close(errors[1]);
    l->reports = reports[0];
    l->errors = errors[0];
}

void start_program(launcher *l, int n, bool gently, const char *const *argv, prepare_fn *prepare)
{
    const lks__launch_config config = {.processes = n, .argv = argv, .stop_gently = gently};
    start_config(l, &config, prepare);
}

/* The way's words, behind the program. */
static void set_argv(const char *way, char words[TEXT_BYTES], const char *argv[MAX_ARGS])
{
    char *rest;
    int n = 0;
    snprintf(words, TEXT_BYTES, "%s", way);
    argv[n++] = PROGRAM;
    for (char *word = strtok_r(words, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest))
        argv[n++] = word;
    argv[n] = NULL;
}

void start(launcher *l, int n, bool gently, const char *way, prepare_fn *prepare)
{
    char words[TEXT_BYTES];
    const char *argv[MAX_ARGS];
    set_argv(way, words, argv);
    start_program(l, n, gently, argv, prepare);
}

/* One process fewer each time, down to one. */
static bool restart(void *context, int count, lks__launch_config *next)
{
    (void)context;
    next->processes -= next->processes > 1;
    fprintf(stderr, "restart %d\n", count);
    return true;
}

void start_again(launcher *l, int n, bool gently, const char *way, int max_restarts)
{
    char words[TEXT_BYTES];
    const char *argv[MAX_ARGS];
    set_argv(way, words, argv);
    const lks__launch_config config = {.processes = n,
                                       .argv = argv,
                                       .stop_gently = gently,
                                       .started_ns = STARTED_NS,
                                       .max_restarts = max_restarts,
                                       .restart = restart};
    start_config(l, &config, NULL);
}

bool read_more(int fd, char *text)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    if (poll(&ready, 1, HANG_MS) != 1)
        fail_msg("nothing came for %d ms after \"%s\"", HANG_MS, text);
    size_t length = strlen(text);
    ssize_t n = read(fd, text + length, TEXT_BYTES - 1 - length);
    assert_true(n >= 0);
    text[length + (size_t)n] = '\0';
    return n > 0;
}

int n_lines(const char *text)
{
    int n = 0;
    for (; *text != '\0'; text++)
        n += *text == '\n';
    return n;
}

void wait_for_reports(launcher *l, int n)
{
    while (n_lines(l->report_text) < n)
        if (!read_more(l->reports, l->report_text))
            fail_msg("ended after \"%s\" and \"%s\"", l->report_text, l->error_text);
}

int finish(launcher *l)
{
    int status;
    while (read_more(l->reports, l->report_text))
        ;
    while (read_more(l->errors, l->error_text))
        ;
    close(l->reports);
    close(l->errors);
    CHECK_INT(waitpid(l->pid, &status, 0), l->pid);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

void get_report(const launcher *l, int rank, int nth, int *pid, char *out, size_t out_bytes)
{
    const char *line = l->report_text;
    for (; *line != '\0'; line = strchr(line, '\n') + 1) {
        int its_rank, after;
        CHECK_INT(sscanf(line, "%d %d %n", &its_rank, pid, &after), 2);
        if (its_rank != rank || nth-- > 0)
            continue;
        snprintf(out, out_bytes, "%.*s", (int)strcspn(line + after, "\n"), line + after);
        return;
    }
    fail_msg("rank %d has not reported: %s", rank, l->report_text);
}

void check_text(const char *text, const char *expected)
{
    if (strstr(text, expected) == NULL)
        fail_msg("\"%s\" lacks \"%s\"", text, expected);
}

void end_process(int pid, int signal)
{
    struct pollfd ended = {.fd = pidfd_open(pid, 0), .events = POLLIN};
    assert_true(ended.fd >= 0);
    CHECK_INT(kill(pid, signal), 0);
    CHECK_INT(poll(&ended, 1, HANG_MS), 1);
    close(ended.fd);
}
