/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* pipe2, memrchr */

#include "launch/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"

/* Ends a write that waits for a reader; a signal that means nothing to those who do not ask for it. */
enum { INTERRUPT = SIGURG };

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void wake_thread(lks__stream *stream)
{
    /* When the pipe is full, enough has been said. */
    (void)!write(stream->wake[1], "", 1);
}

void lks__stream_message(lks__stream *stream, const char *text)
{
    pthread_mutex_lock(&stream->lock);
    lks__text_add(&stream->messages, "%s", text);
    pthread_mutex_unlock(&stream->lock);
    wake_thread(stream);
}

static void note_loss(lks__stream *stream, const char *what, int error)
{
    char text[4200];
    snprintf(text, sizeof text, "lockstep: writing to %s failed: %s\n", what, strerror(error));
    pthread_mutex_lock(&stream->lock);
    stream->lost = true;
    pthread_mutex_unlock(&stream->lock);
    lks__stream_message(stream->messages_to, text);
}

/* Returns 0, or an errno value: ECANCELED when the watcher has given up, and interrupts a write. */
static int write_all(const lks__stream *stream, int fd, const char *data, size_t n)
{
    while (n > 0) {
        /* relaxed: nothing but the flag is told; the signal that interrupts is repeated until it was seen */
        if (atomic_load_explicit(&stream->give_up, memory_order_relaxed))
            return ECANCELED;
        ssize_t written = write(fd, data, n);
        if (written < 0 && errno == EAGAIN) { /* someone has made the terminal so */
            struct pollfd ready = {.fd = fd, .events = POLLOUT};
            (void)poll(&ready, 1, -1);
        } else if (written < 0 && errno != EINTR) {
            return errno;
        }
        if (written > 0) {
            data += written;
            n -= (size_t)written;
        }
    }
    return 0;
}

static void write_target(lks__stream *stream, const char *data, size_t n)
{
    int error = stream->gone || stream->failed ? 0 : write_all(stream, stream->target, data, n);
    if (error == EPIPE)
        stream->gone = true;
    else if (error != 0)
        stream->failed = true;
    if (stream->failed && error != 0 && error != ECANCELED)
        note_loss(stream, stream->name, error);
}

static void flush_out(lks__stream *stream)
{
    write_target(stream, stream->out, stream->n_out);
    stream->n_out = 0;
}

static void put(lks__stream *stream, const char *data, size_t n)
{
    if (n > sizeof stream->out - stream->n_out)
        flush_out(stream);
    if (n > sizeof stream->out) {
        write_target(stream, data, n);
        return;
    }
    memcpy(stream->out + stream->n_out, data, n);
    stream->n_out += n;
}

static void put_prefix(lks__stream *stream, int rank)
{
    char text[16];
    if (stream->prefix)
        put(stream, text, (size_t)snprintf(text, sizeof text, "[%d] ", rank));
}

/* What is written in one go: the rest of a line, whole lines, and its end if a program has not ended it. */
typedef struct lines {
    int rank; /* -1: the launcher's own */
    const char *begun, *data;
    size_t n_begun, n_data;
    bool end_line;
} lines;

static void put_lines(lks__stream *stream, const lines *l)
{
    bool prefixed = false;
    if (l->n_begun > 0) {
        put_prefix(stream, l->rank);
        put(stream, l->begun, l->n_begun);
        prefixed = true;
    }
    for (const char *at = l->data, *end = l->data + l->n_data; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *next = newline ? newline + 1 : end;
        if (l->rank >= 0 && !prefixed)
            put_prefix(stream, l->rank);
        put(stream, at, (size_t)(next - at));
        prefixed = false;
        at = next;
    }
    if (l->end_line)
        put(stream, "\n", 1);
    flush_out(stream);
}

static void write_lines(lks__stream *stream, const lines *l)
{
    pthread_mutex_lock(stream->target_lock);
    put_lines(stream, l);
    pthread_mutex_unlock(stream->target_lock);
}

/* A line of which the end has not come, and won't, or is too far off. Bytes are added only where there are
 * prefixes anyway. */
static void write_begun(lks__stream *stream, int rank)
{
    lks__source *source = &stream->sources[rank];
    if (source->length > 0)
        write_lines(stream, &(lines){.rank = rank,
                                     .begun = source->line,
                                     .n_begun = source->length,
                                     .end_line = stream->prefix});
    source->length = 0;
}

static bool make_room(lks__source *source, size_t n)
{
    if (n <= source->capacity)
        return true;
    size_t capacity = source->capacity > 0 ? source->capacity : 256;
    while (capacity < n)
        capacity *= 2;
    char *line = lks__realloc(source->line, capacity, LKS__MEM_MISC);
    if (line == NULL)
        return false;
    source->line = line;
    source->capacity = capacity;
    return true;
}

static void keep_begun(lks__stream *stream, int rank, const char *data, size_t n)
{
    lks__source *source = &stream->sources[rank];
    if (source->length + n > LKS__MOST_LINE_BYTES || !make_room(source, source->length + n))
        write_begun(stream, rank);
    if (!make_room(source, n)) { /* no memory: the line is cut */
        write_lines(stream, &(lines){.rank = rank, .begun = data, .n_begun = n, .end_line = stream->prefix});
        return;
    }
    memcpy(source->line + source->length, data, n);
    source->length += n;
}

static void remember(lks__stream *stream, lks__source *source, const char *data, size_t n)
{
    pthread_mutex_lock(&stream->lock);
    size_t i = n > LKS__TAIL_BYTES ? n - LKS__TAIL_BYTES : 0;
    for (; i < n; i++)
        source->tail[(source->n_bytes + i) % LKS__TAIL_BYTES] = data[i];
    source->n_bytes += n;
    pthread_mutex_unlock(&stream->lock);
}

static void write_log(lks__stream *stream, lks__source *source, const char *data, size_t n)
{
    int error = source->log_fd >= 0 ? write_all(stream, source->log_fd, data, n) : 0;
    if (error == 0 || error == ECANCELED)
        return;
    close_fd(&source->log_fd);
    note_loss(stream, source->log_path, error);
}

static void take(lks__stream *stream, int rank, size_t n)
{
    lks__source *source = &stream->sources[rank];
    const char *data = stream->in;
    remember(stream, source, data, n);
    write_log(stream, source, data, n);
    const char *newline = memrchr(data, '\n', n);
    if (newline != NULL) {
        size_t whole = (size_t)(newline + 1 - data);
        write_lines(stream, &(lines){.rank = rank,
                                     .begun = source->line,
                                     .n_begun = source->length,
                                     .data = data,
                                     .n_data = whole});
        source->length = 0;
        data += whole;
        n -= whole;
    }
    if (n > 0)
        keep_begun(stream, rank, data, n);
}

static void end_source(lks__stream *stream, int rank)
{
    lks__source *source = &stream->sources[rank];
    write_begun(stream, rank);
    close_fd(&source->read_fd);
    stream->polls[rank].fd = -1;
    pthread_mutex_lock(&stream->lock);
    source->at_end = true;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->lock);
}

/* Reads once, `most` bytes or fewer. Returns how many; 0: nothing is there, or it has ended. */
static size_t read_source(lks__stream *stream, int rank, size_t most)
{
    ssize_t n = read(stream->sources[rank].read_fd, stream->in, most);
    if (n > 0)
        take(stream, rank, (size_t)n);
    if (n == 0 || stream->gone || (n < 0 && errno != EAGAIN && errno != EINTR))
        end_source(stream, rank);
    return n > 0 ? (size_t)n : 0;
}

/* What is there now, and no more: a process that was not launched by us may hold the pipe, and go on. */
static void read_rest(lks__stream *stream, int rank)
{
    int here = 0;
    lks__source *source = &stream->sources[rank];
    if (source->read_fd < 0 || ioctl(source->read_fd, FIONREAD, &here) != 0)
        here = 0;
    size_t left = here > 0 ? (size_t)here : 0, n = 1;
    while (left > 0 && n > 0 && source->read_fd >= 0) {
        n = read_source(stream, rank, left < sizeof stream->in ? left : sizeof stream->in);
        left -= n;
    }
    if (source->read_fd >= 0)
        end_source(stream, rank);
}

/* Returns whether it is time to finish. */
static bool answer_wake(lks__stream *stream)
{
    char bytes[64];
    lks__text messages;
    while (read(stream->wake[0], bytes, sizeof bytes) > 0)
        ;
    pthread_mutex_lock(&stream->lock);
    messages = stream->messages;
    stream->messages = (lks__text){0};
    bool finish = stream->finish;
    pthread_mutex_unlock(&stream->lock);
    if (messages.length > 0 && lks__text_take(&messages, &stream->saying) == LKS_OK) {
        write_lines(stream, &(lines){.rank = -1, .data = stream->saying, .n_data = strlen(stream->saying)});
        free(stream->saying);
        stream->saying = NULL;
    }
    return finish;
}

static void *run(void *argument)
{
    lks__stream *stream = argument;
    for (bool finish = false; !finish;) {
        if (poll(stream->polls, (nfds_t)stream->n + 1, -1) < 0)
            continue;
        for (int rank = 0; rank < stream->n; rank++)
            if (stream->polls[rank].revents != 0)
                read_source(stream, rank, sizeof stream->in);
        if (stream->gone) /* nobody will read what others print either */
            for (int rank = 0; rank < stream->n; rank++)
                if (stream->sources[rank].read_fd >= 0)
                    end_source(stream, rank);
        if (stream->polls[stream->n].revents != 0)
            finish = answer_wake(stream);
    }
    for (int rank = 0; rank < stream->n; rank++)
        read_rest(stream, rank);
    pthread_mutex_lock(&stream->lock);
    stream->done = true;
    pthread_mutex_unlock(&stream->lock);
    pthread_kill(stream->watcher, SIGCHLD);
    return NULL;
}

static lks_status open_source(lks__source *source)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0)
        return lks__fail_errno(LKS_E_SYSTEM, errno, "cannot create a pipe for the processes' output");
    source->read_fd = fds[0];
    source->write_fd = fds[1];
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    return LKS_OK;
}

static void init_locks(lks__stream *stream)
{
    pthread_condattr_t attributes;
    pthread_mutex_init(&stream->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&stream->changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

lks_status lks__stream_init(lks__stream *stream, int target, int n, bool prefix)
{
    stream->target = target;
    stream->name = target == STDOUT_FILENO ? "standard output" : "standard error";
    stream->prefix = prefix;
    stream->wake[0] = stream->wake[1] = -1;
    init_locks(stream);
    stream->polls = lks__alloc_array((int64_t)n + 1, sizeof *stream->polls, LKS__MEM_MISC);
    stream->sources = lks__alloc_array(n, sizeof *stream->sources, LKS__MEM_MISC);
    if (stream->polls == NULL || stream->sources == NULL)
        return LKS_E_NOMEM;
    stream->n = n;
    for (int rank = 0; rank < n; rank++)
        stream->sources[rank].read_fd = stream->sources[rank].write_fd = stream->sources[rank].log_fd = -1;
    lks_status status = LKS_OK;
    for (int rank = 0; rank < n && status == LKS_OK; rank++)
        status = open_source(&stream->sources[rank]);
    if (status == LKS_OK && pipe2(stream->wake, O_CLOEXEC | O_NONBLOCK) != 0)
        status = lks__fail_errno(LKS_E_SYSTEM, errno, "cannot create a pipe");
    return status;
}

void lks__stream_deinit(lks__stream *stream)
{
    char *text;
    for (int rank = 0; rank < stream->n; rank++) {
        lks__source *source = &stream->sources[rank];
        close_fd(&source->read_fd);
        close_fd(&source->write_fd);
        close_fd(&source->log_fd);
        lks__free(source->log_path);
        lks__free(source->line);
    }
    close_fd(&stream->wake[0]);
    close_fd(&stream->wake[1]);
    lks__free(stream->sources);
    lks__free(stream->polls);
    free(stream->saying);
    if (lks__text_take(&stream->messages, &text) == LKS_OK)
        free(text);
    pthread_cond_destroy(&stream->changed);
    pthread_mutex_destroy(&stream->lock);
}

lks_status lks__stream_start(lks__stream *stream)
{
    sigset_t all, before;
    for (int rank = 0; rank < stream->n; rank++) {
        close_fd(&stream->sources[rank].write_fd);
        stream->polls[rank] = (struct pollfd){.fd = stream->sources[rank].read_fd, .events = POLLIN};
    }
    stream->polls[stream->n] = (struct pollfd){.fd = stream->wake[0], .events = POLLIN};
    stream->watcher = pthread_self();
    /* Signals are the watcher's; a SIGPIPE is seen as EPIPE. */
    sigfillset(&all);
    sigdelset(&all, INTERRUPT);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&stream->thread, NULL, run, stream);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0)
        return lks__fail_errno(LKS_E_SYSTEM, error, "cannot start a thread for the processes' output");
    stream->running = true;
    return LKS_OK;
}

void lks__stream_wait_for(lks__stream *stream, int rank, const struct timespec *until)
{
    int error = 0;
    pthread_mutex_lock(&stream->lock);
    while (!stream->sources[rank].at_end && error == 0)
        error = pthread_cond_timedwait(&stream->changed, &stream->lock, until);
    pthread_mutex_unlock(&stream->lock);
}

void lks__stream_finish(lks__stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    stream->finish = true;
    pthread_mutex_unlock(&stream->lock);
    wake_thread(stream);
}

bool lks__stream_is_done(lks__stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    bool done = stream->done;
    pthread_mutex_unlock(&stream->lock);
    return done;
}

static void on_interrupt(int signal)
{
    (void)signal;
}

/* Lets the thread end though its reader has stopped. The signal may come between its look at the flag and its
 * write: then the next one ends that. */
static void interrupt(lks__stream *stream)
{
    const struct timespec while_it_ends = {.tv_nsec = 1000000};
    struct sigaction action = {.sa_handler = on_interrupt}, before;
    sigaction(INTERRUPT, &action, &before); /* without SA_RESTART: calls end with EINTR */
    atomic_store_explicit(&stream->give_up, true, memory_order_relaxed);
    while (!lks__stream_is_done(stream)) {
        pthread_kill(stream->thread, INTERRUPT);
        nanosleep(&while_it_ends, NULL);
    }
    sigaction(INTERRUPT, &before, NULL);
}

void lks__stream_join(lks__stream *stream, bool give_up)
{
    if (!stream->running)
        return;
    if (give_up)
        interrupt(stream);
    pthread_join(stream->thread, NULL);
    stream->running = false;
}

size_t lks__stream_tail(lks__stream *stream, int rank, char out[LKS__TAIL_BYTES])
{
    const lks__source *source = &stream->sources[rank];
    pthread_mutex_lock(&stream->lock);
    size_t n = source->n_bytes < LKS__TAIL_BYTES ? source->n_bytes : LKS__TAIL_BYTES;
    for (size_t i = 0; i < n; i++)
        out[i] = source->tail[(source->n_bytes - n + i) % LKS__TAIL_BYTES];
    pthread_mutex_unlock(&stream->lock);
    return n;
}
