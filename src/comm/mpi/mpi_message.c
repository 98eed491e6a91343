/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between two members: an envelope that says what is sent, then the data, piece by piece. Of each
 * direction between two members one message is under way at a time, in the order of posts. */
#include "comm/mpi/mpi_member.h"

enum { PIECE_BYTES = LKS__WIRE_MAX_BYTES };

/* Whether an earlier message between the same two members, in the same direction, is under way. */
static bool must_wait(const lks__mpi_member *self, const lks__mpi_task *task)
{
    const lks__mpi_task *earlier = self->messages;
    while (earlier != task && (earlier->operation->collective != task->operation->collective ||
                               earlier->operation->root != task->operation->root))
        earlier = earlier->next;
    return earlier != task;
}

static size_t bytes_of(const lks_operation *operation)
{
    return operation->count * lks__dtype_bytes(operation->dtype);
}

static bool is_send(const lks__mpi_task *task)
{
    return task->operation->collective == LKS_SEND;
}

/* What the start of a transfer came to; returns whether it is under way. */
static bool flies(lks__mpi_member *self, const lks__mpi_task *task, lks_status status)
{
    if (status != LKS_OK)
        lks__mpi_fail_wire(self, task->operation->root);
    return status == LKS_OK;
}

static bool start(lks__mpi_member *self, const lks__mpi_task *task, void *data, size_t bytes,
                  lks__wire_request *request)
{
    lks__wire *wire = self->engine->wire;
    int other = self->processes[task->operation->root], tag = lks__mpi_tag(self, LKS__MPI_MESSAGE);
    return flies(self, task,
                 is_send(task) ? wire->backend->send(wire, data, bytes, other, tag, request)
                               : wire->backend->recv(wire, data, bytes, other, tag, request));
}

/* Whether what was under way is not any more. */
static bool has_landed(lks__mpi_member *self, const lks__mpi_task *task, lks__wire_request *request,
                       bool *is_flying)
{
    lks__wire *wire = self->engine->wire;
    if (!*is_flying)
        return true;
    lks_status status = wire->backend->test(wire, request, NULL);
    if (status == LKS_IN_PROGRESS)
        return false;
    *is_flying = false;
    self->moves++;
    return flies(self, task, status);
}

static void start_data(lks__mpi_member *self, lks__mpi_task *task)
{
    const lks_operation *operation = task->operation;
    size_t left = bytes_of(operation) - task->done_bytes, bytes = left < PIECE_BYTES ? left : PIECE_BYTES;
    const char *data = is_send(task) ? operation->in : operation->out;
    task->data_flies = start(self, task, (char *)data + task->done_bytes, bytes, &task->data_request);
    task->done_bytes += bytes;
}

/* Returns whether all data have gone or come. */
static bool work_on_data(lks__mpi_member *self, lks__mpi_task *task)
{
    while (self->engine->failure == LKS_OK &&
           has_landed(self, task, &task->data_request, &task->data_flies)) {
        if (task->done_bytes == bytes_of(task->operation))
            return true;
        start_data(self, task);
    }
    return false;
}

static void work_on_send(lks__mpi_member *self, lks__mpi_task *task)
{
    lks__mpi_peer *peer = &self->peers[task->operation->root];
    if (!task->started && peer->left) {
        lks__mpi_fail_left(self, task->operation->root);
        return;
    }
    if (!task->started) {
        task->started = true;
        task->number = ++peer->sent_to;
        task->envelope.signature = lks__operation_signature(task->operation);
        task->envelope_flies = start(self, task, &task->envelope, sizeof task->envelope,
                                     &task->envelope_request);
    }
    bool told = has_landed(self, task, &task->envelope_request, &task->envelope_flies);
    if (work_on_data(self, task) && told)
        task->status = LKS_OK;
    else if (peer->left && peer->received < task->number)
        lks__mpi_fail_left(self, task->operation->root);
}

/* The send that fits this receive. */
static lks__signature expected(const lks__mpi_member *self, const lks_operation *operation)
{
    lks_operation send = *operation;
    send.collective = LKS_SEND;
    send.root = self->group.rank;
    return lks__operation_signature(&send);
}

static bool fits(lks__mpi_member *self, const lks__mpi_task *task)
{
    const lks_operation *operation = task->operation;
    lks__signature wanted = expected(self, operation), found = task->envelope.signature;
    if (lks__same_signature(found, wanted))
        return true;
    char sent[LKS__OPERATION_TEXT_BYTES], asked[LKS__OPERATION_TEXT_BYTES];
    lks__mpi_fail(self->engine, self->processes[self->group.rank], self->serial, LKS_E_MISMATCH,
                  "the members asked for different operations: rank %d: %s; rank %d: %s", operation->root,
                  lks__signature_text(found, sent), self->group.rank,
                  lks__signature_text(lks__operation_signature(operation), asked));
    return false;
}

static void work_on_recv(lks__mpi_member *self, lks__mpi_task *task)
{
    lks__mpi_peer *peer = &self->peers[task->operation->root];
    if (!task->started) {
        task->started = true;
        peer->received_from++;
        task->envelope_flies = start(self, task, &task->envelope, sizeof task->envelope,
                                     &task->envelope_request);
    }
    bool waited = task->envelope_flies;
    if (!has_landed(self, task, &task->envelope_request, &task->envelope_flies)) {
        if (peer->left && peer->sent < peer->received_from)
            lks__mpi_fail_left(self, task->operation->root);
        return;
    }
    if (self->engine->failure != LKS_OK || (waited && !fits(self, task)))
        return;
    if (work_on_data(self, task))
        task->status = LKS_OK;
}

void lks__mpi_work_on_message(lks__mpi_member *self, lks__mpi_task *task)
{
    if (must_wait(self, task))
        return;
    if (is_send(task))
        work_on_send(self, task);
    else
        work_on_recv(self, task);
}

void lks__mpi_end_message(lks__mpi_member *self, lks__mpi_task *task)
{
    lks__wire *wire = self->engine->wire;
    if (is_send(task))
        return;
    if (task->envelope_flies)
        wire->backend->cancel(wire, &task->envelope_request);
    if (task->data_flies)
        wire->backend->cancel(wire, &task->data_request);
}
