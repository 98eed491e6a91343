/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/output.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/machine.h"
#include "launch/logs.h"
#include "launch/stream.h"

enum { OUT, ERR, N_STREAMS, N_TAIL_LINES = 10, TAIL_LINE_BYTES = 200 };

#define SETTLE_NS INT64_C(500000000)

struct lks__output {
    lks__stream streams[N_STREAMS];
    int n_init;                       /* streams that are initialised */
    pthread_mutex_t locks[N_STREAMS]; /* the streams' target_lock */
    struct rlimit files_before;       /* for the processes */
    char attempt[PATH_MAX];           /* where the logs are; "": there are none */
};

static bool is_same_file(int a, int b)
{
    struct stat one, other;
    return fstat(a, &one) == 0 && fstat(b, &other) == 0 && one.st_dev == other.st_dev &&
           one.st_ino == other.st_ino;
}

/* For each process the ends of two pipes, and two logs. What is not allowed fails later, with a message. */
static void allow_files(lks__output *output, int n)
{
    rlim_t needed = (rlim_t)n * 6 + 64;
    if (getrlimit(RLIMIT_NOFILE, &output->files_before) != 0 || output->files_before.rlim_cur >= needed)
        return;
    struct rlimit more = output->files_before;
    more.rlim_cur = needed < more.rlim_max ? needed : more.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &more);
}

static lks_status init_streams(lks__output *output, int n, bool prefix)
{
    bool one_target = is_same_file(STDOUT_FILENO, STDERR_FILENO);
    lks_status status = LKS_OK;
    for (int i = 0; i < N_STREAMS && status == LKS_OK; i++) {
        lks__stream *stream = &output->streams[i];
        output->n_init++;
        stream->target_lock = &output->locks[one_target ? 0 : i];
        stream->messages_to = &output->streams[ERR];
        status = lks__stream_init(stream, i == OUT ? STDOUT_FILENO : STDERR_FILENO, n, prefix);
    }
    return status;
}

lks_status lks__output_create(const lks__launch_config *config, lks__output **out)
{
    *out = NULL;
    if (!config->prefix && config->log_dir == NULL)
        return LKS_OK;
    lks__output *output = lks__alloc(sizeof *output, LKS__MEM_MISC);
    if (output == NULL)
        return LKS_E_NOMEM;
    for (int i = 0; i < N_STREAMS; i++)
        pthread_mutex_init(&output->locks[i], NULL);
    allow_files(output, config->processes);
    lks_status status = init_streams(output, config->processes, config->prefix);
    if (status == LKS_OK && config->log_dir != NULL)
        status = lks__logs_create(config->log_dir, &output->streams[OUT], &output->streams[ERR],
                                  output->attempt);
    if (status != LKS_OK) {
        lks__output_destroy(output, false);
        return status;
    }
    *out = output;
    return LKS_OK;
}

bool lks__output_attach(const lks__output *output, int rank)
{
    return output == NULL || (dup2(output->streams[OUT].sources[rank].write_fd, STDOUT_FILENO) >= 0 &&
                              dup2(output->streams[ERR].sources[rank].write_fd, STDERR_FILENO) >= 0 &&
                              setrlimit(RLIMIT_NOFILE, &output->files_before) == 0);
}

lks_status lks__output_start(lks__output *output)
{
    lks_status status = LKS_OK;
    for (int i = 0; output != NULL && i < N_STREAMS && status == LKS_OK; i++)
        status = lks__stream_start(&output->streams[i]);
    return status;
}

void lks__output_settle(lks__output *output, int rank)
{
    int64_t until_ns = lks__now_ns() + SETTLE_NS;
    struct timespec until = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};
    for (int i = 0; output != NULL && i < N_STREAMS; i++)
        lks__stream_wait_for(&output->streams[i], rank, &until);
}

void lks__output_say(lks__output *output, const char *format, ...)
{
    va_list args;
    char text[PATH_MAX + 256];
    va_start(args, format);
    if (output == NULL)
        vfprintf(stderr, format, args);
    else if (vsnprintf(text, sizeof text, format, args) > 0)
        lks__stream_message(&output->streams[ERR], text);
    va_end(args);
}

/* A line for people: what a terminal would obey is '?', and so is what is no text. */
static void say_line(lks__output *output, const char *line, size_t n)
{
    char text[TAIL_LINE_BYTES + 1];
    size_t shown = n < TAIL_LINE_BYTES ? n : TAIL_LINE_BYTES;
    for (size_t i = 0; i < shown; i++) {
        unsigned char c = (unsigned char)line[i];
        text[i] = (c < ' ' && c != '\t') || c == 0x7f ? '?' : line[i];
    }
    text[shown] = '\0';
    lks__output_say(output, "  | %s%s\n", text, shown < n ? " ..." : "");
}

/* Where the last lines begin. */
static size_t start_of_lines(const char *text, size_t n)
{
    int n_lines = 0;
    size_t at = n > 0 && text[n - 1] == '\n' ? n - 1 : n;
    for (; at > 0; at--)
        if (text[at - 1] == '\n' && ++n_lines == N_TAIL_LINES)
            return at;
    return 0;
}

static bool say_tail(lks__output *output, int stream, int rank)
{
    char text[LKS__TAIL_BYTES];
    size_t n = lks__stream_tail(&output->streams[stream], rank, text);
    if (n == 0)
        return false;
    lks__output_say(output, "lockstep: rank %d's last lines on %s:\n", rank, output->streams[stream].name);
    for (size_t at = start_of_lines(text, n); at < n;) {
        const char *newline = memchr(text + at, '\n', n - at);
        size_t length = newline ? (size_t)(newline - text) - at : n - at;
        say_line(output, text + at, length);
        at += length + 1;
    }
    return true;
}

void lks__output_tell(lks__output *output, int rank)
{
    if (output == NULL)
        return;
    /* a failure is explained on stderr, if anywhere */
    if (rank >= 0 && !say_tail(output, ERR, rank))
        (void)say_tail(output, OUT, rank);
    if (output->attempt[0] == '\0')
        return;
    if (rank >= 0)
        lks__output_say(output, "lockstep: all that rank %d printed is in %s/%d\n", rank, output->attempt,
                        rank);
    else
        lks__output_say(output, "lockstep: all that they printed is in %s\n", output->attempt);
}

static bool are_done(lks__output *output)
{
    bool done = true;
    for (int i = 0; i < N_STREAMS; i++)
        done = lks__stream_is_done(&output->streams[i]) && done;
    return done;
}

/* Returns whether all was written before the deadline. */
static bool wait_until_done(lks__output *output, const lks__signals *signals, int64_t deadline_ns,
                            int *stop_signal)
{
    while (!are_done(output)) {
        int signal = lks__next_signal(&signals->waited, deadline_ns, NULL);
        if (signal != 0 && signal != SIGCHLD && *stop_signal == 0) {
            *stop_signal = signal;
            int64_t limit_ns = lks__now_ns() + LKS__END_GRACE_NS;
            deadline_ns = limit_ns < deadline_ns ? limit_ns : deadline_ns;
        }
        if (lks__now_ns() >= deadline_ns)
            return are_done(output);
    }
    return true;
}

bool lks__output_finish(lks__output *output, const lks__signals *signals, bool asked, int *stop_signal)
{
    *stop_signal = 0;
    if (output == NULL)
        return true;
    bool lost = false;
    for (int i = 0; i < N_STREAMS; i++)
        lks__stream_finish(&output->streams[i]);
    int64_t deadline_ns = asked ? lks__now_ns() + LKS__END_GRACE_NS : LKS__NEVER;
    bool done = wait_until_done(output, signals, deadline_ns, stop_signal);
    for (int i = 0; i < N_STREAMS; i++) {
        lks__stream_join(&output->streams[i], !done);
        lost = output->streams[i].lost || lost;
    }
    char *rest; /* messages that came when the stream of stderr had ended */
    if (done && lks__text_take(&output->streams[ERR].messages, &rest) == LKS_OK) {
        fputs(rest ? rest : "", stderr);
        free(rest);
    }
    return done && !lost;
}

void lks__output_destroy(lks__output *output, bool with_logs)
{
    if (output == NULL)
        return;
    for (int i = 0; i < output->n_init; i++) {
        lks__stream_finish(&output->streams[i]);
        lks__stream_join(&output->streams[i], true);
    }
    if (with_logs && output->attempt[0] != '\0')
        lks__logs_remove(output->attempt, output->streams[OUT].n);
    for (int i = 0; i < output->n_init; i++)
        lks__stream_deinit(&output->streams[i]);
    (void)setrlimit(RLIMIT_NOFILE, &output->files_before);
    for (int i = 0; i < N_STREAMS; i++)
        pthread_mutex_destroy(&output->locks[i]);
    lks__free(output);
}
