/* SPDX-License-Identifier: Apache-2.0 */
/* Failures that all groups of all machines share. On a machine they meet in the first group's node group,
 * whose first record counts for all its members; between machines, whoever wrote that record tells all
 * processes of the others. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/machine.h"
#include "base/text.h"
#include "comm/mpi/mpi_blame.h"
#include "comm/mpi/mpi_member.h"
#include "comm/shm/shm_member.h"
#include "comm/shm/shm_wait.h"

static lks__mpi_member *first_member(const lks__mpi_engine *engine)
{
    lks__mpi_member *m = engine->members;
    while (m != NULL && m->next != NULL)
        m = m->next;
    return m;
}

/* ---- telling others ---- */

void lks__mpi_send_notice(lks__mpi_engine *engine, const void *notice, size_t bytes, int process,
                          lks__wire_request *request, int *n)
{
    /* One that cannot be told has ended, or will find out. */
    lks__wire *wire = engine->wire;
    if (wire->backend->send(wire, notice, bytes, process, LKS__MPI_NOTICE, request) == LKS_OK)
        ++*n;
}

static void tell_other_machines(lks__mpi_engine *engine)
{
    const lks__mpi_member *first = first_member(engine);
    engine->alarm.head = (lks__mpi_notice_head){.kind = LKS__MPI_FAILED,
                                                .status = engine->failure,
                                                .by = engine->failed_by,
                                                .group = engine->failed_in};
    snprintf(engine->alarm.text, sizeof engine->alarm.text, "%s", engine->text);
    for (int r = 0; r < first->map.size; r++)
        if (!lks__mpi_is_here(&first->map, r))
            lks__mpi_send_notice(engine, &engine->alarm, sizeof engine->alarm, r,
                                 &engine->alarms[engine->n_alarms], &engine->n_alarms);
}

static void push(const lks__mpi_engine *engine, lks__wire_request *requests, int *n)
{
    lks__wire *wire = engine->wire;
    for (int i = 0; i < *n;)
        if (wire->backend->test(wire, &requests[i], NULL) != LKS_IN_PROGRESS)
            requests[i] = requests[--*n];
        else
            i++;
}

/* Lets what is told and asked get away. */
static void push_notices(lks__mpi_engine *engine)
{
    push(engine, engine->alarms, &engine->n_alarms);
    push(engine, engine->questions, &engine->n_questions);
}

/* ---- the machine's record ---- */

static const char of_a_part[] = "in a group that was split off: ";

static void set_failure(lks__mpi_engine *engine, int by, uint64_t group, lks_status status, const char *text)
{
    engine->failure = status;
    engine->failed_by = by;
    engine->failed_in = group;
    snprintf(engine->text, sizeof engine->text, "%s", text);
}

/* Takes over what the machine's record says, if anything. Returns whether this process wrote it. */
static bool adopt(lks__mpi_engine *engine)
{
    lks__shm_news news;
    if (!lks__shm_look_for_news(engine->node, &news))
        return false;
    int by = news.by;
    if (by < 0 && news.author >= 0)
        by = first_member(engine)->map.local_ranks[news.author];
    set_failure(engine, by, 0, news.status, news.text);
    return news.author == lks_group_rank(engine->node);
}

/* Writes the failure into the machine's record. Returns whether it is the first there. */
static bool settle(lks__mpi_engine *engine, int by, uint64_t group, lks_status status, const char *text)
{
    lks__shm_news news;
    if (lks_group_size(engine->node) > 1) {
        lks__shm_poison_for(engine->node, by, status, group == 0 ? "" : of_a_part, text);
        bool own = lks__shm_look_for_news(engine->node, &news) && news.by >= 0 &&
                   news.author == lks_group_rank(engine->node);
        if (!own)
            return adopt(engine);
    }
    set_failure(engine, by, group, status, text); /* without the prefix */
    return true;
}

void lks__mpi_fail(lks__mpi_engine *engine, int by, uint64_t group, lks_status status, const char *format,
                   ...)
{
    char text[sizeof engine->text];
    if (engine->failure != LKS_OK)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (settle(engine, by, group, status, text))
        tell_other_machines(engine);
}

/* ---- notices ---- */

lks__mpi_member *lks__mpi_member_of_group(const lks__mpi_engine *engine, uint64_t serial)
{
    lks__mpi_member *m = engine->members;
    while (m != NULL && m->serial != serial)
        m = m->next;
    return m;
}

static void note_left(lks__mpi_engine *engine, const lks__mpi_notice_head *notice)
{
    lks__mpi_member *m = lks__mpi_member_of_group(engine, notice->group);
    if (m == NULL || notice->rank < 0 || notice->rank >= m->group.size)
        return; /* this process has left, too */
    lks__mpi_peer *peer = &m->peers[notice->rank];
    peer->left = true;
    peer->collectives = notice->collectives;
    peer->sent = notice->sent;
    peer->received = notice->received;
    m->n_left++;
    m->moves++;
}

static void hear(lks__mpi_engine *engine, lks__mpi_notice *notice)
{
    const lks__mpi_notice_head *head = &notice->head;
    notice->text[sizeof notice->text - 1] = '\0';
    if (head->kind == LKS__MPI_LEFT)
        note_left(engine, head);
    else if (head->kind == LKS__MPI_LATE)
        lks__mpi_answer(engine, notice);
    else if (head->kind == LKS__MPI_WAITS)
        engine->blamed = head->rank;
    else if (!engine->warned)
        engine->warning = *notice;
    engine->warned = engine->warned || head->kind == LKS__MPI_FAILED;
}

/* Returns whether there was a notice. */
static bool listen(lks__mpi_engine *engine)
{
    lks__wire *wire = engine->wire;
    if (!engine->listens) {
        engine->listens = wire->backend->recv(wire, &engine->heard, sizeof engine->heard, LKS__WIRE_ANY,
                                              LKS__MPI_NOTICE, &engine->listening) == LKS_OK;
        if (!engine->listens)
            return false;
    }
    lks_status status = wire->backend->test(wire, &engine->listening, NULL);
    if (status == LKS_IN_PROGRESS)
        return false;
    engine->listens = false;
    if (status == LKS_OK)
        hear(engine, &engine->heard);
    return status == LKS_OK;
}

bool lks__mpi_look_around(lks__mpi_engine *engine)
{
    bool heard = false;
    while (listen(engine))
        heard = true;
    push_notices(engine);
    return heard;
}

bool lks__mpi_has_trouble(const lks__mpi_engine *engine)
{
    lks__shm_news news;
    return engine->failure == LKS_OK && (engine->warned || lks__shm_look_for_news(engine->node, &news));
}

void lks__mpi_accept_trouble(lks__mpi_engine *engine)
{
    const lks__mpi_notice_head *head = &engine->warning.head;
    if (engine->failure != LKS_OK)
        return;
    if (engine->warned)
        (void)settle(engine, head->by, head->group, (lks_status)head->status, engine->warning.text);
    else if (adopt(engine))
        tell_other_machines(engine);
}

/* ---- reasons ---- */

void lks__mpi_fail_left(lks__mpi_member *self, int rank)
{
    char who[LKS__MPI_WHO_BYTES];
    /* All machines find out by themselves, so that they must agree on who noticed it. */
    lks__mpi_fail(self->engine, self->processes[rank], self->serial, LKS_E_PEER, "%s left the group",
                  lks__mpi_who(self, rank, who));
}

void lks__mpi_fail_wire(lks__mpi_member *self, int rank)
{
    lks__mpi_engine *engine = self->engine;
    char error[sizeof engine->wire->error];
    snprintf(error, sizeof error, "%s", engine->wire->error);
    (void)lks__mpi_look_around(engine); /* the other end may have said why */
    if (lks__mpi_has_trouble(engine))
        lks__mpi_accept_trouble(engine);
    else if (rank >= 0 && self->peers[rank].left)
        lks__mpi_fail_left(self, rank);
    else
        lks__mpi_fail(engine, engine->wire->rank, self->serial, LKS_E_PEER, "%s says to rank %d: %s",
                      engine->wire->name, self->group.rank, error);
}

/* ---- words ---- */

const char *lks__mpi_who(const lks__mpi_member *self, int rank, char out[LKS__MPI_WHO_BYTES])
{
    if (self->engine->same_process)
        snprintf(out, LKS__MPI_WHO_BYTES, "rank %d", rank);
    else
        snprintf(out, LKS__MPI_WHO_BYTES, "rank %d (process %d)", rank, self->peers[rank].pid);
    return out;
}

lks_status lks__mpi_failure(const lks__mpi_member *self, const lks_operation *operation, bool waited)
{
    const lks__mpi_engine *engine = self->engine;
    bool elsewhere = engine->failed_in != self->serial && engine->failed_in != 0;
    const char *where = elsewhere ? of_a_part : "";
    if (engine->failure != LKS_E_PEER)
        return lks__fail(engine->failure, "%s%s", where, engine->text);
    char text[LKS__OPERATION_TEXT_BYTES];
    lks__signature_text(lks__operation_signature(operation), text);
    return lks__fail(engine->failure, "%s%s %s rank %d %s %s", where, engine->text,
                     waited ? "while" : "before", self->group.rank, waited ? "waited in" : "came to", text);
}

/* ---- leaving ---- */

/* Short messages get away at once, or as soon as something is looked at. */
static void push_farewells(lks__mpi_member *self)
{
    push(self->engine, self->farewell_requests, &self->n_farewells);
}

static void say_farewell(lks__mpi_member *self)
{
    for (int r = 0; r < self->group.size; r++) {
        if (r == self->group.rank)
            continue;
        self->farewells[r] = (lks__mpi_notice_head){.kind = LKS__MPI_LEFT,
                                                    .rank = self->group.rank,
                                                    .group = self->serial,
                                                    .collectives = self->n_collectives,
                                                    .sent = self->peers[r].sent_to,
                                                    .received = self->peers[r].received_from};
        lks__mpi_send_notice(self->engine, &self->farewells[r], sizeof self->farewells[r], self->processes[r],
                             &self->farewell_requests[self->n_farewells], &self->n_farewells);
    }
}

/* What has been sent should get away; and who leaves the first group, and so listens no more, should have
 * heard what the others send when they leave, most of them at about the same time: an MPI may complain of
 * what is left over. */
static bool is_quiet(lks__mpi_member *self)
{
    lks__mpi_engine *engine = self->engine;
    (void)lks__mpi_look_around(engine); /* pushes notices as well */
    push_farewells(self);
    bool listens_on = self->serial != 0 || engine->failure != LKS_OK;
    return self->n_farewells + engine->n_alarms + engine->n_questions == 0 &&
           (listens_on || self->n_left == self->group.size - 1);
}

void lks__mpi_leave(lks__mpi_member *self)
{
    enum { MOST_NS = 50 * 1000000 };
    lks__mpi_engine *engine = self->engine;
    lks__mpi_idler idler = {.spins = false};
    int64_t start_ns = lks__now_ns();
    pthread_mutex_lock(&engine->lock);
    (void)lks__mpi_look_around(engine);
    lks__mpi_accept_trouble(engine);
    if (engine->failure == LKS_OK)
        say_farewell(self);
    while (!is_quiet(self) && lks__now_ns() - start_ns < MOST_NS) {
        pthread_mutex_unlock(&engine->lock);
        lks__mpi_idle(&idler);
        pthread_mutex_lock(&engine->lock);
    }
    pthread_mutex_unlock(&engine->lock);
}
