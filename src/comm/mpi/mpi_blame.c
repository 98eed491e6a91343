/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/mpi/mpi_blame.h"

#include <stdio.h>

#include "base/text.h"
#include "comm/shm/process_end.h"

#define RELAXED memory_order_relaxed /* of all that is for people only */

/* ---- words ---- */

void lks__mpi_tell_finished(lks__mpi_member *self, const lks_operation *operation)
{
    lks__mpi_board *board = self->boards[self->map.local];
    lks__signature signature = lks__operation_signature(operation);
    atomic_store_explicit(&board->finished_what, signature.what, RELAXED);
    atomic_store_explicit(&board->finished_count, signature.count, RELAXED);
}

static bool is_stopped(const lks__mpi_member *self, int rank)
{
    bool here = lks__mpi_is_here(&self->map, rank) && !self->engine->same_process;
    return here && lks__process_is_stopped((pid_t)self->peers[rank].pid);
}

/* Adds "; rank 2 (process 7), which is stopped and last finished barrier", or, of another machine, "; rank 5
 * (process 7), last seen in barrier". */
static void describe(const lks__mpi_member *self, int rank, size_t capacity, char *text)
{
    char who[LKS__MPI_WHO_BYTES], operation[LKS__OPERATION_TEXT_BYTES];
    lks__append(text, capacity, "%s%s", text[0] != '\0' ? "; " : "", lks__mpi_who(self, rank, who));
    lks__signature last = self->heard[self->map.machine_of[rank]];
    if (!lks__mpi_is_here(&self->map, rank)) {
        if (last.what != LKS__MPI_NO_SIGNATURE)
            lks__append(text, capacity, ", last seen in %s", lks__signature_text(last, operation));
        return;
    }
    const lks__mpi_board *board = self->boards[self->map.local_of[rank]];
    last.what = atomic_load_explicit(&board->finished_what, RELAXED);
    last.count = atomic_load_explicit(&board->finished_count, RELAXED);
    lks__append(text, capacity, ", which %s", is_stopped(self, rank) ? "is stopped and " : "");
    if (last.what == LKS__MPI_NO_SIGNATURE)
        lks__append(text, capacity, "has finished no operation");
    else
        lks__append(text, capacity, "last finished %s", lks__signature_text(last, operation));
}

/* What holds the task up: itself, or the collective that must be done before. */
static const lks__mpi_task *what_waits(const lks__mpi_member *self, const lks__mpi_task *task)
{
    return lks__is_message(task->operation) ? task : self->collectives;
}

/* "rank 2 (process 7) waited 300 s in barrier". Returns out. */
static const char *complaint(const lks__mpi_member *self, const lks__mpi_task *task, size_t capacity,
                             char *out)
{
    char who[LKS__MPI_WHO_BYTES], text[LKS__OPERATION_TEXT_BYTES];
    lks__signature signature = lks__operation_signature(what_waits(self, task)->operation);
    snprintf(out, capacity, "%s waited %g s in %s", lks__mpi_who(self, self->group.rank, who),
             (double)self->engine->timeout_ns * 1e-9, lks__signature_text(signature, text));
    return out;
}

/* ---- asking ---- */

/* Adds those of this machine that are stopped: nothing goes on until they do, in whatever group they are. */
static void describe_stopped(const lks__mpi_engine *engine, size_t capacity, char *text)
{
    const lks__mpi_member *first = lks__mpi_member_of_group(engine, 0);
    for (int i = 0; first != NULL && i < first->map.n_local; i++)
        if (is_stopped(first, first->map.local_ranks[i]))
            describe(first, first->map.local_ranks[i], capacity, text);
}

/* Who is asked about answers, or says for whom it waits in its turn. */
static void send_question(lks__mpi_member *self, const lks__mpi_task *task, int about)
{
    lks__mpi_engine *engine = self->engine;
    engine->asked_about = about;
    engine->question.head = (lks__mpi_notice_head){.kind = LKS__MPI_LATE,
                                                   .by = engine->wire->rank,
                                                   .rank = about,
                                                   .group = self->serial,
                                                   .collectives = what_waits(self, task)->number};
    (void)complaint(self, task, sizeof engine->question.text, engine->question.text);
    for (int r = 0; r < engine->wire->size; r++)
        if (r != engine->wire->rank)
            lks__mpi_send_notice(engine, &engine->question, sizeof engine->question, r,
                                 &engine->questions[engine->n_questions], &engine->n_questions);
}

static void begin_to_ask(lks__mpi_member *self, const lks__mpi_task *task)
{
    lks__mpi_engine *engine = self->engine;
    char text[LKS__MPI_TEXT_BYTES / 2], stopped[LKS__MPI_TEXT_BYTES / 2] = "";
    engine->asked_for = task;
    engine->asked_after = self->moves;
    engine->blamed = -1;
    describe_stopped(engine, sizeof stopped, stopped);
    if (stopped[0] == '\0')
        send_question(self, task, lks__is_message(task->operation) ? task->operation->root : -1);
    else
        lks__mpi_fail(engine, engine->wire->rank, self->serial, LKS_E_TIMEOUT, "%s for %s",
                      complaint(self, task, sizeof text, text), stopped);
}

void lks__mpi_ask(lks__mpi_member *self, const lks__mpi_task *task)
{
    lks__mpi_engine *engine = self->engine;
    bool begun = engine->asked_for == task && engine->asked_after == self->moves;
    if (engine->n_questions > 0)
        return; /* the last one has not got away yet */
    if (!begun)
        begin_to_ask(self, task);
    else if (engine->blamed >= 0 && engine->blamed != engine->asked_about)
        send_question(self, task, engine->blamed);
}

/* ---- answering ---- */

/* Whether it is about this member: the operation needs it, and it has not asked for it. */
static bool concerns(const lks__mpi_member *self, const lks__mpi_notice_head *question)
{
    return question->rank < 0 ? self->n_collectives <= question->collectives
                              : question->rank == self->group.rank;
}

/* This one waits in its turn, for a message. */
static void reply(const lks__mpi_member *self, const lks__mpi_notice_head *question)
{
    lks__mpi_engine *engine = self->engine;
    if (engine->n_questions > 0)
        return; /* there is no place for it */
    engine->reply = (lks__mpi_notice_head){
        .kind = LKS__MPI_WAITS, .rank = self->messages->operation->root, .group = self->serial};
    lks__mpi_send_notice(engine, &engine->reply, sizeof engine->reply, question->by,
                         &engine->questions[engine->n_questions], &engine->n_questions);
}

void lks__mpi_answer(lks__mpi_engine *engine, const lks__mpi_notice *question)
{
    char text[LKS__MPI_TEXT_BYTES / 2] = "";
    const lks__mpi_member *self = lks__mpi_member_of_group(engine, question->head.group);
    describe_stopped(engine, sizeof text, text);
    if (text[0] == '\0' && self != NULL && concerns(self, &question->head)) {
        if (self->messages != NULL)
            reply(self, &question->head);
        else if (engine->drivers == 0) /* it is not even waiting */
            describe(self, self->group.rank, sizeof text, text);
    }
    if (text[0] != '\0')
        lks__mpi_fail(engine, question->head.by, question->head.group, LKS_E_TIMEOUT, "%s for %s",
                      question->text, text);
}

/* ---- without an answer ---- */

/* Members of this machine who are behind in part `number`. */
static void describe_behind(const lks__mpi_member *self, lks__mpi_stage stage, uint64_t number,
                            size_t capacity, char *text)
{
    for (int i = 0; i < self->map.n_local; i++) {
        uint64_t parts = atomic_load_explicit(&self->boards[i]->counters[stage].parts, RELAXED);
        if (i != self->map.local && parts <= number)
            describe(self, self->map.local_ranks[i], capacity, text);
    }
}

/* Those from whom this member's part waits for something, or who do not take what it sends: leaders stand for
 * their machines. */
static void describe_ends(const lks__mpi_member *self, const lks__mpi_part *part, bool of_recvs,
                          size_t capacity, char *text)
{
    for (int i = 0; i < part->n_flights; i++) {
        int rank = part->flights[i].rank;
        if (part->flights[i].is_recv != of_recvs || rank < 0)
            continue;
        describe(self, rank, capacity, text);
        if (part->state == LKS__MPI_AT_HELLO && self->map.members[self->map.machine_of[rank]] > 1)
            lks__append(text, capacity, " (or another one of its machine)");
    }
}

/* The part that holds all up, if any has begun. */
static const lks__mpi_part *oldest(const lks__mpi_member *self)
{
    return self->n_done < self->n_begun ? &self->parts[self->n_done % LKS__MPI_WINDOW] : NULL;
}

static void describe_missing(const lks__mpi_member *self, size_t capacity, char *text)
{
    const lks__mpi_part *part = oldest(self);
    if (part == NULL)
        describe_behind(self, LKS__MPI_FETCHED, self->n_begun - LKS__MPI_WINDOW, capacity, text);
    else if (part->state == LKS__MPI_AT_ENTRY)
        describe_behind(self, LKS__MPI_ENTERED, part->number, capacity, text);
    else if (part->state == LKS__MPI_AT_FETCH)
        describe_behind(self, LKS__MPI_CARRIED, part->number, capacity, text);
    else
        describe_ends(self, part, true, capacity, text);
    if (text[0] == '\0' && part != NULL)
        describe_ends(self, part, false, capacity, text);
    if (text[0] == '\0')
        lks__append(text, capacity, "members of other machines");
}

void lks__mpi_fail_timeout(lks__mpi_member *self, const lks__mpi_task *task)
{
    char missing[LKS__MPI_TEXT_BYTES / 2] = "", text[LKS__MPI_TEXT_BYTES / 2];
    int blamed = self->engine->blamed;
    if (blamed >= 0 && blamed < self->group.size && blamed != self->group.rank)
        describe(self, blamed, sizeof missing, missing);
    else if (lks__is_message(task->operation))
        describe(self, task->operation->root, sizeof missing, missing);
    else
        describe_missing(self, sizeof missing, missing);
    lks__mpi_fail(self->engine, self->processes[self->group.rank], self->serial, LKS_E_TIMEOUT, "%s for %s",
                  complaint(self, task, sizeof text, text), missing);
}

/* The machine where somebody is missing speaks first, and there, who sees it: other leaders, and then those
 * who only see that their own machine does not go on, wait longer. */
int64_t lks__mpi_grace_ns(const lks__mpi_member *self, const lks__mpi_task *task)
{
    const int64_t answer_ns = 500 * 1000000, second_ns = 1000000000;
    const lks__mpi_part *part = oldest(self);
    int64_t tenth_ns = self->engine->timeout_ns / 10;
    int64_t grace_ns = tenth_ns < second_ns ? tenth_ns : second_ns;
    if (lks__is_message(task->operation) || (part != NULL && part->state == LKS__MPI_AT_ENTRY))
        return answer_ns;
    bool knows = part != NULL && part->n_flights > 0;
    return answer_ns + (knows ? grace_ns : 2 * grace_ns);
}
