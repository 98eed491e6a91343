/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* PR_SET_TIMERSLACK */

#include "comm/mpi/mpi_engine.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/machine.h"
#include "base/text.h"
#include "comm/mpi/mpi_member.h"
#include "comm/shm/shm_wait.h"

enum {
    YIELDS = 50,              /* before the first sleep: messages between machines take some 10 us */
    SHORTEST_NS = 20 * 1000,  /* of a sleep between two looks */
    LONGEST_NS = 200 * 1000,  /* same: a look costs about 1 us, so 0.5 % of a core */
    LISTEN_NS = 50 * 1000000, /* between two looks for notices while nothing is posted */
};

/* ---- waiting ---- */

static void sleep_ns(int64_t ns)
{
    nanosleep(&(struct timespec){.tv_sec = 0, .tv_nsec = (long)ns}, NULL);
}

static int64_t longer(int64_t pause_ns)
{
    int64_t next_ns = pause_ns + pause_ns / 2;
    return next_ns < LONGEST_NS ? next_ns : LONGEST_NS;
}

void lks__mpi_idle(lks__mpi_idler *idler)
{
    if (idler->start_ns == 0) {
        idler->start_ns = lks__now_ns();
        idler->n_yields = 0;
        idler->pause_ns = SHORTEST_NS;
    }
    if (idler->spins && lks__now_ns() - idler->start_ns < LKS__SPIN_NS) {
        lks__pause();
    } else if (idler->n_yields < YIELDS) {
        idler->n_yields++;
        sched_yield();
    } else {
        sleep_ns(idler->pause_ns);
        idler->pause_ns = longer(idler->pause_ns);
    }
}

/* ---- going on ---- */

static bool is_busy(const lks__mpi_engine *engine)
{
    for (const lks__mpi_member *m = engine->members; m != NULL; m = m->next)
        if (m->collectives != NULL || m->messages != NULL)
            return true;
    return false;
}

bool lks__mpi_progress(lks__mpi_engine *engine)
{
    bool moved = lks__mpi_look_around(engine), trouble = lks__mpi_has_trouble(engine);
    for (lks__mpi_member *m = engine->members; m != NULL && engine->failure == LKS_OK; m = m->next) {
        uint64_t before = m->moves;
        lks__mpi_work(m);
        moved = moved || m->moves != before;
    }
    if (trouble) /* what had been done by all before it has now been finished */
        lks__mpi_accept_trouble(engine);
    if (engine->failure != LKS_OK && !engine->told) {
        engine->told = true;
        for (lks__mpi_member *m = engine->members; m != NULL; m = m->next)
            lks__mpi_end_tasks(m, engine->failure);
    }
    return moved;
}

void lks__mpi_hand_over(lks__mpi_engine *engine)
{
    if (engine->dozes && engine->drivers == 0 && is_busy(engine))
        pthread_cond_signal(&engine->work);
}

/* ---- the thread ---- */

static void doze(lks__mpi_engine *engine)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LISTEN_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    engine->dozes = true;
    pthread_cond_timedwait(&engine->work, &engine->lock, &until);
    engine->dozes = false;
}

/* Where a thread of the program waits, this one leaves all to it. Else it looks, and sleeps between looks for
 * longer and longer while nothing moves: it must not take the core from whoever computes. */
static void *go_on(void *argument)
{
    lks__mpi_engine *engine = argument;
    int64_t pause_ns = SHORTEST_NS;
    prctl(PR_SET_TIMERSLACK, 1000); /* ns; the default would make 70 us of 20 */
    pthread_mutex_lock(&engine->lock);
    while (!engine->stop) {
        bool mine = engine->drivers == 0 && is_busy(engine);
        if (!mine)
            doze(engine);
        bool moved = engine->drivers == 0 && lks__mpi_progress(engine);
        pause_ns = moved || !mine ? SHORTEST_NS : longer(pause_ns);
        if (!mine || engine->stop)
            continue;
        pthread_mutex_unlock(&engine->lock);
        sleep_ns(pause_ns);
        pthread_mutex_lock(&engine->lock);
    }
    pthread_mutex_unlock(&engine->lock);
    return NULL;
}

/* The program's signals are for its own threads. */
static int start_thread(lks__mpi_engine *engine)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&engine->thread, NULL, go_on, engine);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

lks_status lks__mpi_engine_start(lks__mpi_engine *engine)
{
    int error = start_thread(engine);
    if (error != 0)
        return lks__fail_errno(LKS_E_SYSTEM, error, "cannot start the thread that goes on with requests");
    engine->has_thread = true;
    return LKS_OK;
}

void lks__mpi_engine_stop(lks__mpi_engine *engine)
{
    if (!engine->has_thread)
        return;
    pthread_mutex_lock(&engine->lock);
    engine->stop = true;
    pthread_cond_signal(&engine->work);
    pthread_mutex_unlock(&engine->lock);
    pthread_join(engine->thread, NULL);
    engine->has_thread = false;
    if (engine->listens)
        engine->wire->backend->cancel(engine->wire, &engine->listening);
    engine->listens = false;
}

/* ---- create, destroy ---- */

lks_status lks__mpi_engine_create(lks__wire *wire, lks_group *node, const lks_group_config *config,
                                  lks__mpi_engine **out)
{
    lks__mpi_engine *engine = lks__alloc(sizeof *engine, LKS__MEM_COMM);
    if (engine == NULL)
        return LKS_E_NOMEM;
    engine->alarms = lks__alloc_array(wire->size, sizeof *engine->alarms, LKS__MEM_COMM);
    engine->questions = lks__alloc_array(wire->size, sizeof *engine->questions, LKS__MEM_COMM);
    if (engine->alarms == NULL || engine->questions == NULL) {
        lks__free(engine->alarms);
        lks__free(engine->questions);
        lks__free(engine);
        return LKS_E_NOMEM;
    }
    engine->wire = wire;
    engine->node = node;
    engine->timeout_ns = lks__timeout_ns(config->timeout_s);
    engine->fast = config->fast;
    engine->next_serial = 1;
    pthread_mutex_init(&engine->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&engine->work, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *out = engine;
    return LKS_OK;
}

void lks__mpi_engine_destroy(lks__mpi_engine *engine)
{
    if (engine == NULL)
        return;
    pthread_cond_destroy(&engine->work);
    pthread_mutex_destroy(&engine->lock);
    lks__free(engine->alarms);
    lks__free(engine->questions);
    lks__free(engine);
}

/* ---- while joining ---- */

/* Those from whom nothing has come: "rank 1; rank 2". */
static lks_status missing(const lks__wire *wire, int64_t timeout_ns, const bool *waits)
{
    char text[512] = "";
    for (int r = 0; r < wire->size; r++)
        if (waits[r])
            lks__append(text, sizeof text, "%srank %d", text[0] != '\0' ? ", " : "", r);
    return lks__fail(LKS_E_TIMEOUT, "rank %d waited %g s in group_create for %s", wire->rank,
                     (double)timeout_ns * 1e-9, text[0] != '\0' ? text : "others to receive");
}

/* Tests the requests that are under way. Returns LKS_IN_PROGRESS while any is. */
static lks_status test_all(lks__wire *wire, lks__wire_request *requests, bool *flies, int n)
{
    lks_status all = LKS_OK;
    for (int i = 0; i < n; i++) {
        if (!flies[i])
            continue;
        lks_status status = wire->backend->test(wire, &requests[i], NULL);
        flies[i] = status == LKS_IN_PROGRESS;
        if (status != LKS_OK && status != LKS_IN_PROGRESS)
            return lks__fail(status, "%s: %s", wire->name, wire->error);
        if (flies[i])
            all = LKS_IN_PROGRESS;
    }
    return all;
}

static lks_status wait_for_all(lks__wire *wire, int64_t timeout_ns, lks__wire_request *requests, bool *flies)
{
    lks__mpi_idler idler = {.spins = false};
    int64_t waited_ns = 0, last_ns = lks__now_ns();
    lks_status status;
    while ((status = test_all(wire, requests, flies, 2 * wire->size)) == LKS_IN_PROGRESS) {
        if (waited_ns >= timeout_ns)
            return missing(wire, timeout_ns, flies);
        lks__mpi_idle(&idler);
        int64_t now_ns = lks__now_ns();
        waited_ns += now_ns - last_ns < LKS__SLICE_NS ? now_ns - last_ns : LKS__SLICE_NS;
        last_ns = now_ns;
    }
    return status;
}

lks_status lks__mpi_tell_all(lks__wire *wire, int64_t timeout_ns, const void *own, size_t bytes, void *all)
{
    lks__wire_request requests[2 * LKS_GROUP_MAX_SIZE]; /* recvs by rank, then sends */
    bool flies[2 * LKS_GROUP_MAX_SIZE] = {false};
    int n = wire->size;
    lks_status status = LKS_OK;
    memcpy((char *)all + (size_t)wire->rank * bytes, own, bytes);
    for (int i = 0; i < 2 * n && status == LKS_OK; i++) {
        int r = i % n;
        if (r == wire->rank)
            continue;
        char *target = (char *)all + (size_t)r * bytes;
        status = i < n ? wire->backend->recv(wire, target, bytes, r, LKS__MPI_JOIN, &requests[i])
                       : wire->backend->send(wire, own, bytes, r, LKS__MPI_JOIN, &requests[i]);
        flies[i] = status == LKS_OK;
    }
    if (status != LKS_OK)
        status = lks__fail(status, "%s: %s", wire->name, wire->error);
    else
        status = wait_for_all(wire, timeout_ns, requests, flies);
    for (int r = 0; r < n; r++)
        if (flies[r])
            wire->backend->cancel(wire, &requests[r]);
    return status;
}
