/* SPDX-License-Identifier: Apache-2.0 */
/** One of the two streams of a launch's output: from the pipes of all processes to the launcher's own, line
 * by line, in a thread. */
#ifndef LKS_LAUNCH_STREAM_H
#define LKS_LAUNCH_STREAM_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include <lockstep/status.h>

#include "base/text.h"

enum {
    LKS__TAIL_BYTES = 4096,
    LKS__STREAM_BYTES = 1 << 16,    /* what is read or written at once */
    LKS__MOST_LINE_BYTES = 1 << 20, /* a line that is longer is cut in lines, so that memory has a bound */
};

/** What comes from one process. */
typedef struct lks__source {
    int read_fd;  /* does not block; -1: at its end. The thread's, once it runs */
    int write_fd; /* -1: closed, as from the thread's start on */
    int log_fd;   /* -1: there is no log, or it could not be written any more */
    char *log_path;
    char *line; /* [capacity]: the line of which the end has not come */
    size_t length, capacity;
    bool at_end;                /* guarded by the stream's lock */
    size_t n_bytes;             /* guarded by the stream's lock: all that has come */
    char tail[LKS__TAIL_BYTES]; /* guarded by the stream's lock: byte i of what has come is at i % size */
} lks__source;

typedef struct lks__stream lks__stream;

struct lks__stream {
    int target;       /* STDOUT_FILENO or STDERR_FILENO */
    const char *name; /* "standard output" */
    bool prefix;
    int n;
    lks__source *sources;         /* [n], by rank */
    struct pollfd *polls;         /* [n + 1], owner only: the thread */
    lks__stream *messages_to;     /* where messages go: the stream of stderr */
    pthread_mutex_t *target_lock; /* held while lines are written; both streams' when they end in one file */
    int wake[2];               /* a pipe: a byte says that there are messages, or that it is time to finish */
    pthread_t thread, watcher; /* the watcher gets a SIGCHLD when the stream is done */
    bool running;              /* owner only: the watcher */
    atomic_bool give_up;       /* the watcher will not wait for a reader any more */
    bool gone, failed;         /* owner only: the thread. Nobody reads any more; writing has failed */
    char *saying;              /* owner only: the thread. Messages that are being written */
    size_t n_out;              /* owner only: the thread */
    char out[LKS__STREAM_BYTES];
    char in[LKS__STREAM_BYTES];

    pthread_mutex_t lock;
    pthread_cond_t changed; /* at_end has */
    lks__text messages;     /* guarded by lock */
    bool finish;            /* guarded by lock: read what is there, and end */
    bool done;              /* guarded by lock */
    bool lost;              /* guarded by lock: something could not be written */
};

/** Caller's storage, which is all zeros. On failure deinit works too. */
lks_status lks__stream_init(lks__stream *stream, int target, int n, bool prefix) LKS_MUST_USE;
void lks__stream_deinit(lks__stream *stream);

/** Closes the write ends, and lets the thread run. */
lks_status lks__stream_start(lks__stream *stream) LKS_MUST_USE;

/** Adds a message, which is printed behind what has come from the processes before. */
void lks__stream_message(lks__stream *stream, const char *text);

/** Waits until all of a process's output has come, or the time (CLOCK_MONOTONIC) is over. */
void lks__stream_wait_for(lks__stream *stream, int rank, const struct timespec *until);

/** Asks the thread to end when it has written what is there now. */
void lks__stream_finish(lks__stream *stream);

bool lks__stream_is_done(lks__stream *stream);

/** Waits for the thread's end; give_up: also when it waits for a reader. */
void lks__stream_join(lks__stream *stream, bool give_up);

/** The last bytes that have come from a process. Returns how many. */
size_t lks__stream_tail(lks__stream *stream, int rank, char out[LKS__TAIL_BYTES]);

#endif
