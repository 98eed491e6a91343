/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/thread_wire.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AT_ONCE_BYTES = 1024 }; /* a message up to this is copied when it is sent */

typedef enum kind { SEND, RECV, REDUCE } kind;

/* What a request's handle points at. */
typedef struct work {
    kind kind;
    enum { UNDER_WAY, DONE, TOO_LONG, LOST } state;
    int from, tag;       /* of a recv; from may be LKS__WIRE_ANY until something has come */
    void *target;        /* of a recv or reduce */
    size_t bytes;        /* of a recv: the capacity, then what has come */
    bool waits;          /* of a recv: nothing has come for it */
    struct round *round; /* of a reduce */
    struct work *next;   /* of the same process, in the order of calls */
} work;

/* What has been sent and not been received. */
typedef struct message {
    int from, tag, delay; /* delay: tests by the receiver until it comes */
    bool arrived;
    size_t bytes;
    const void *data; /* the sender's, or `copy` */
    void *copy;       /* NULL: none */
    work *sender;     /* NULL: it has been told that this was sent */
    struct message *next;
} message;

/* The nth all_reduce of every process. */
typedef struct round {
    int n_in, n_out;
    size_t count, bytes;
    lks_dtype dtype;
    lks_op op;
    char *inputs; /* [size, bytes] */
    struct round *next;
} round;

typedef struct end {
    lks__wire wire; /* first */
    struct job *job;
    bool closed;
    message *inbox; /* in the order of sends */
    work *works;
    int n_reduces; /* started */
} end;

/* One lock for all: everything below is guarded by it. */
typedef struct job {
    pthread_mutex_t lock;
    int size, n_closed;
    uint64_t random;
    int most_tests;
    int n_rounds_gone; /* rounds that all have the result of */
    round *rounds;     /* the others, in order */
    end ends[];
} job;

static void *allocate(size_t bytes)
{
    void *memory = calloc(1, bytes > 0 ? bytes : 1);
    if (memory == NULL)
        abort();
    return memory;
}

static void copy_bytes(void *to, const void *from, size_t bytes)
{
    if (bytes > 0)
        memcpy(to, from, bytes);
}

static lks_status fail(end *self, const char *format, ...) LKS_PRINTF(2, 3);

static lks_status fail(end *self, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(self->wire.error, sizeof self->wire.error, format, args);
    va_end(args);
    return LKS_E_PEER;
}

static work *start(end *self, work what, lks__wire_request *request)
{
    work **place = &self->works;
    while (*place != NULL)
        place = &(*place)->next;
    *place = allocate(sizeof **place);
    **place = what;
    request->handle = (uint64_t)(uintptr_t)*place;
    return *place;
}

static void forget(end *self, lks__wire_request *request)
{
    work **place = &self->works;
    while ((uint64_t)(uintptr_t)*place != request->handle)
        place = &(*place)->next;
    work *gone = *place;
    *place = gone->next;
    free(gone);
    request->handle = 0;
}

/* ---- messages ---- */

static int draw_delay(job *j)
{
    if (j->most_tests == 0)
        return 0;
    j->random ^= j->random << 13; /* xorshift64: Marsaglia, "Xorshift RNGs", 2003 */
    j->random ^= j->random >> 7;
    j->random ^= j->random << 17;
    return (int)((j->random >> 16) % (uint64_t)(j->most_tests + 1));
}

static void drop(message **place)
{
    message *gone = *place;
    *place = gone->next;
    free(gone->copy);
    free(gone);
}

static bool fits(const message *m, const work *w)
{
    return w->kind == RECV && w->waits && w->tag == m->tag &&
           (w->from == LKS__WIRE_ANY || w->from == m->from);
}

static void receive(message *m, work *w)
{
    w->waits = false;
    w->state = m->bytes > w->bytes ? TOO_LONG : DONE;
    if (w->state == DONE)
        copy_bytes(w->target, m->data, m->bytes);
    w->from = m->from;
    w->bytes = m->bytes;
    if (m->sender != NULL)
        m->sender->state = DONE;
}

/* Whether an earlier message of the same sender and tag is still on its way. */
static bool overtakes(const end *self, const message *m)
{
    for (const message *other = self->inbox; other != m; other = other->next)
        if (!other->arrived && other->from == m->from && other->tag == m->tag)
            return true;
    return false;
}

/* Lets messages arrive, and gives them to the recvs that wait. */
static void progress(end *self)
{
    for (message *m = self->inbox; m != NULL; m = m->next) {
        if (m->delay > 0)
            m->delay--;
        m->arrived = m->arrived || (m->delay == 0 && !overtakes(self, m));
    }
    for (message **place = &self->inbox; *place != NULL;) {
        work *w = self->works;
        while (w != NULL && !((*place)->arrived && fits(*place, w)))
            w = w->next;
        if (w != NULL) {
            receive(*place, w);
            drop(place);
        } else {
            place = &(*place)->next;
        }
    }
}

static lks_status wire_send(lks__wire *wire, const void *data, size_t bytes, int to, int tag,
                            lks__wire_request *request)
{
    end *self = (end *)wire;
    if (to < 0 || to >= wire->size || tag < 0 || tag >= LKS__WIRE_TAGS || bytes > LKS__WIRE_MAX_BYTES)
        return fail(self, "a send of %zu bytes to %d with tag %d", bytes, to, tag);
    pthread_mutex_lock(&self->job->lock);
    end *receiver = &self->job->ends[to];
    lks_status status = LKS_OK;
    if (receiver->closed) {
        status = fail(self, "process %d has closed its wire", to);
    } else {
        bool at_once = bytes <= AT_ONCE_BYTES;
        work *w = start(self, (work){.kind = SEND, .state = at_once ? DONE : UNDER_WAY}, request);
        message **place = &receiver->inbox;
        while (*place != NULL)
            place = &(*place)->next;
        *place = allocate(sizeof **place);
        **place = (message){.from = wire->rank, .tag = tag, .delay = draw_delay(self->job), .bytes = bytes};
        if (at_once)
            copy_bytes((*place)->copy = allocate(bytes), data, bytes);
        (*place)->data = at_once ? (*place)->copy : data;
        (*place)->sender = at_once ? NULL : w;
    }
    pthread_mutex_unlock(&self->job->lock);
    return status;
}

static lks_status wire_recv(lks__wire *wire, void *data, size_t capacity_bytes, int from, int tag,
                            lks__wire_request *request)
{
    end *self = (end *)wire;
    if (from < LKS__WIRE_ANY || from >= wire->size || tag < 0 || tag >= LKS__WIRE_TAGS)
        return fail(self, "a recv from %d with tag %d", from, tag);
    pthread_mutex_lock(&self->job->lock);
    work what = {.kind = RECV, .from = from, .tag = tag, .target = data, .bytes = capacity_bytes};
    what.waits = true;
    (void)start(self, what, request);
    pthread_mutex_unlock(&self->job->lock);
    return LKS_OK;
}

static void wire_cancel(lks__wire *wire, lks__wire_request *request)
{
    end *self = (end *)wire;
    pthread_mutex_lock(&self->job->lock);
    forget(self, request);
    pthread_mutex_unlock(&self->job->lock);
}

/* ---- all_reduce ---- */

#define COMBINE(type)                                                                                        \
    do {                                                                                                     \
        type *a = out;                                                                                       \
        const type *b = in;                                                                                  \
        for (size_t i = 0; i < count; i++)                                                                   \
            a[i] = op == LKS_SUM    ? (type)(a[i] + b[i])                                                    \
                   : op == LKS_PROD ? (type)(a[i] * b[i])                                                    \
                   : op == LKS_MAX  ? (a[i] > b[i] ? a[i] : b[i])                                            \
                                    : (a[i] < b[i] ? a[i] : b[i]);                                            \
    } while (0)

static void combine(void *out, const void *in, size_t count, lks_dtype dtype, lks_op op)
{
    if (dtype == LKS_F32)
        COMBINE(float);
    else if (dtype == LKS_F64)
        COMBINE(double);
    else if (dtype == LKS_I32)
        COMBINE(int32_t);
    else
        COMBINE(int64_t);
}

static round *round_of(job *j, int n)
{
    round **place = &j->rounds;
    for (int i = j->n_rounds_gone;; i++, place = &(*place)->next) {
        if (*place == NULL)
            *place = allocate(sizeof **place);
        if (i == n)
            return *place;
    }
}

static lks_status wire_all_reduce(lks__wire *wire, const void *in, void *out, size_t count, lks_dtype dtype,
                                  lks_op op, lks__wire_request *request)
{
    end *self = (end *)wire;
    size_t bytes = count * (dtype == LKS_F32 || dtype == LKS_I32 ? 4 : 8);
    bool real = dtype == LKS_F32 || dtype == LKS_F64, compares = op == LKS_MIN || op == LKS_MAX;
    if (op == LKS_MEAN || dtype == LKS_U8 || dtype == LKS_BF16 || (real && compares))
        return LKS_E_ARG;
    pthread_mutex_lock(&self->job->lock);
    lks_status status = LKS_OK;
    round *r = round_of(self->job, self->n_reduces);
    if (r->inputs == NULL)
        *r = (round){0, 0, count, bytes, dtype, op, allocate((size_t)wire->size * bytes), r->next};
    if (r->count != count || r->dtype != dtype || r->op != op) {
        status = fail(self, "all_reduces that do not match");
    } else {
        copy_bytes(r->inputs + (size_t)wire->rank * bytes, in, bytes);
        r->n_in++;
        self->n_reduces++;
        (void)start(self, (work){.kind = REDUCE, .target = out, .round = r}, request);
    }
    pthread_mutex_unlock(&self->job->lock);
    return status;
}

static void drop_rounds(job *j, bool all)
{
    while (j->rounds != NULL && (all || j->rounds->n_out == j->size)) {
        round *gone = j->rounds;
        j->rounds = gone->next;
        j->n_rounds_gone++;
        free(gone->inputs);
        free(gone);
    }
}

static void finish_reduce(job *j, work *w)
{
    round *r = w->round;
    if (r->n_in < j->size)
        return;
    copy_bytes(w->target, r->inputs + (size_t)(j->size - 1) * r->bytes, r->bytes);
    for (int rank = j->size - 2; rank >= 0; rank--)
        combine(w->target, r->inputs + (size_t)rank * r->bytes, r->count, r->dtype, r->op);
    w->state = DONE;
    r->n_out++;
    drop_rounds(j, false);
}

/* ---- all ---- */

static lks_status wire_test(lks__wire *wire, lks__wire_request *request, lks__wire_arrival *arrival)
{
    end *self = (end *)wire;
    work *w = (work *)(uintptr_t)request->handle;
    if (w == NULL)
        return fail(self, "a test of a request that is done");
    pthread_mutex_lock(&self->job->lock);
    progress(self);
    if (w->kind == REDUCE)
        finish_reduce(self->job, w);
    lks_status status = LKS_OK;
    if (w->state == UNDER_WAY)
        status = LKS_IN_PROGRESS;
    else if (w->state == TOO_LONG)
        status = fail(self, "a message of %zu bytes from %d is longer than its buffer", w->bytes, w->from);
    else if (w->state == LOST)
        status = fail(self, "a message was not received before its receiver closed the wire");
    else if (w->kind == RECV && arrival != NULL)
        *arrival = (lks__wire_arrival){.bytes = w->bytes, .from = w->from};
    if (status != LKS_IN_PROGRESS)
        forget(self, request);
    pthread_mutex_unlock(&self->job->lock);
    return status;
}

/* What this process has sent from its own memory is lost. */
static void take_back(job *j, int from)
{
    for (int r = 0; r < j->size; r++)
        for (message **place = &j->ends[r].inbox; *place != NULL;)
            if ((*place)->from == from && (*place)->sender != NULL)
                drop(place);
            else
                place = &(*place)->next;
}

static void wire_close(lks__wire *wire, bool failed)
{
    (void)failed;
    end *self = (end *)wire;
    job *j = self->job;
    pthread_mutex_lock(&j->lock);
    self->closed = true;
    take_back(j, wire->rank);
    while (self->inbox != NULL) {
        if (self->inbox->sender != NULL)
            self->inbox->sender->state = LOST;
        drop(&self->inbox);
    }
    while (self->works != NULL) {
        work *gone = self->works;
        self->works = gone->next;
        free(gone);
    }
    bool last = ++j->n_closed == j->size;
    pthread_mutex_unlock(&j->lock);
    if (last) {
        drop_rounds(j, true);
        pthread_mutex_destroy(&j->lock);
        free(j);
    }
}

static const lks__wire_backend backend = {
    .send = wire_send,
    .recv = wire_recv,
    .test = wire_test,
    .cancel = wire_cancel,
    .all_reduce = wire_all_reduce,
    .close = wire_close,
};

void thread_wires_create(int size, const int *machine_of, lks__wire **out)
{
    job *j = allocate(sizeof *j + (size_t)size * sizeof *j->ends);
    pthread_mutex_init(&j->lock, NULL);
    j->size = size;
    for (int r = 0; r < size; r++) {
        lks__wire *wire = &j->ends[r].wire;
        *wire = (lks__wire){.backend = &backend, .rank = r, .size = size, .machine = r, .name = "threads"};
        for (int other = r - 1; other >= 0 && machine_of != NULL; other--)
            if (machine_of[other] == machine_of[r])
                wire->machine = other;
        j->ends[r].job = j;
        out[r] = wire;
    }
}

void thread_wires_delay(lks__wire *wire, uint64_t seed, int most_tests)
{
    job *j = ((end *)wire)->job;
    pthread_mutex_lock(&j->lock);
    j->random = seed != 0 ? seed : 1;
    j->most_tests = most_tests;
    pthread_mutex_unlock(&j->lock);
}
