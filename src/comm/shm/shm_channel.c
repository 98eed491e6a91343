/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between two members: a ring of pieces from each sender to each receiver. One writes at its end and
 * one takes at its start, so two counters are all that they have to agree on. */
#include <string.h>

#include "base/error.h"
#include "comm/available.h"
#include "comm/shm/shm_bell.h"
#include "comm/shm/shm_blame.h"
#include "comm/shm/shm_task.h"

static lks__shm_channel *channel_of(const lks__shm_member *self, int sender, int receiver)
{
    char *mail = (char *)self->control + lks__shm_mail_at(self->group.size, sender);
    return (lks__shm_channel *)(void *)mail + receiver;
}

static lks__shm_piece *piece_at(const lks__shm_member *self, int sender, int receiver, uint64_t n)
{
    int size = self->group.size;
    char *pieces = (char *)self->control + lks__shm_mail_at(size, sender) + lks__shm_channels_bytes(size);
    size_t index = (size_t)receiver * LKS__MAIL_SLOTS + (size_t)(n % LKS__MAIL_SLOTS);
    return (lks__shm_piece *)(void *)(pieces + index * lks__shm_piece_bytes(size));
}

/* What one piece carries of a message of which `done` bytes are through. */
static size_t part_bytes(const lks__shm_member *self, size_t bytes, size_t done)
{
    size_t most = lks__shm_piece_bytes(self->group.size) - sizeof(lks__shm_piece);
    return bytes - done < most ? bytes - done : most;
}

lks_status lks__shm_open_mail(lks__shm_member *self)
{
    int size = self->group.size;
    lks__shm_slot *slot = lks__shm_slot_of(self, self->group.rank);
    /* relaxed: written by this member */
    if (atomic_load_explicit(&slot->has_mail, memory_order_relaxed) != 0)
        return LKS_OK;
    size_t start = self->base + lks__shm_mail_at(size, self->group.rank), bytes = lks__shm_mail_bytes(size);
    lks_status status = lks__check_file_size(start + bytes);
    if (status == LKS_OK)
        status = lks__check_available(bytes);
    if (status == LKS_OK)
        status = lks__segment_reserve(self->segment, start, bytes);
    if (status == LKS_OK) /* release: there is memory now */
        atomic_store_explicit(&slot->has_mail, 1, memory_order_release);
    return status;
}

/* The other one has left: who waits for it waits in vain. */
static bool has_left(const lks__shm_member *self, int rank)
{
    /* acquire: its last message is there */
    return atomic_load_explicit(&lks__shm_slot_of(self, rank)->state, memory_order_acquire) == LKS__SHM_LEFT;
}

static lks_status poison_left(lks__shm_member *self, const lks_operation *operation)
{
    char who[LKS__WHO_BYTES];
    lks__shm_poison(self, LKS__BY_MEMBER, LKS_E_PEER, "%s left the group",
                    lks__shm_who(self, operation->root, who));
    return lks__shm_failure(self, operation, true);
}

static lks_status work_on_send(lks__shm_member *self, lks__shm_task *task)
{
    const lks_operation *operation = task->operation;
    int from = self->group.rank, to = operation->root;
    size_t bytes = operation->count * lks__dtype_bytes(operation->dtype);
    lks__shm_channel *channel = channel_of(self, from, to);
    lks__signature signature = lks__operation_signature(operation);
    if (has_left(self, to))
        return poison_left(self, operation);
    /* relaxed: written by this member */
    uint64_t sent = atomic_load_explicit(&channel->sent, memory_order_relaxed);
    while (!task->started || task->done_bytes < bytes) {
        /* acquire: the receiver has read what it took, so the place may be written again */
        if (sent - atomic_load_explicit(&channel->taken, memory_order_acquire) == LKS__MAIL_SLOTS)
            return LKS_IN_PROGRESS;
        lks__shm_piece *piece = piece_at(self, from, to, sent);
        size_t part = part_bytes(self, bytes, task->done_bytes);
        piece->what = signature.what;
        piece->count = signature.count;
        if (part > 0)
            lks__shm_copy(self, piece + 1, (const char *)operation->in + task->done_bytes, part);
        task->started = true;
        task->done_bytes += part;
        /* release: the piece */
        atomic_store_explicit(&channel->sent, ++sent, memory_order_release);
        lks__shm_ring(self, to);
    }
    return LKS_OK;
}

/* The send that fits this receive. */
static lks__signature expected(const lks__shm_member *self, const lks_operation *operation)
{
    lks_operation send = *operation;
    send.collective = LKS_SEND;
    send.root = self->group.rank;
    return lks__operation_signature(&send);
}

static lks_status check_first(lks__shm_member *self, const lks_operation *operation,
                              const lks__shm_piece *piece)
{
    lks__signature wanted = expected(self, operation), found = {piece->what, piece->count};
    if (found.what == wanted.what && found.count == wanted.count)
        return LKS_OK;
    char sent[LKS__OPERATION_TEXT_BYTES], asked[LKS__OPERATION_TEXT_BYTES];
    lks__shm_poison(self, LKS__BY_MEMBER, LKS_E_MISMATCH,
                    "the members asked for different operations: rank %d: %s; rank %d: %s", operation->root,
                    lks__signature_text(found, sent), self->group.rank,
                    lks__signature_text(lks__operation_signature(operation), asked));
    return lks__shm_failure(self, operation, true);
}

static bool has_mail(const lks__shm_member *self, int from)
{
    /* acquire: pairs with lks__shm_open_mail */
    return atomic_load_explicit(&lks__shm_slot_of(self, from)->has_mail, memory_order_acquire) != 0;
}

static lks_status work_on_recv(lks__shm_member *self, lks__shm_task *task)
{
    const lks_operation *operation = task->operation;
    int from = operation->root, to = self->group.rank;
    size_t bytes = operation->count * lks__dtype_bytes(operation->dtype);
    bool left = has_left(self, from); /* before the look at what it has sent */
    if (!has_mail(self, from))
        return left ? poison_left(self, operation) : LKS_IN_PROGRESS;
    lks__shm_channel *channel = channel_of(self, from, to);
    /* relaxed: written by this member */
    uint64_t taken = atomic_load_explicit(&channel->taken, memory_order_relaxed);
    while (!task->started || task->done_bytes < bytes) {
        /* acquire: the piece */
        if (atomic_load_explicit(&channel->sent, memory_order_acquire) == taken)
            return left ? poison_left(self, operation) : LKS_IN_PROGRESS;
        const lks__shm_piece *piece = piece_at(self, from, to, taken);
        lks_status status = task->started ? LKS_OK : check_first(self, operation, piece);
        if (status != LKS_OK)
            return status;
        size_t part = part_bytes(self, bytes, task->done_bytes);
        if (part > 0)
            lks__shm_copy(self, (char *)operation->out + task->done_bytes, piece + 1, part);
        task->started = true;
        task->done_bytes += part;
        /* release: the piece has been read */
        atomic_store_explicit(&channel->taken, ++taken, memory_order_release);
        lks__shm_ring(self, from);
    }
    return LKS_OK;
}

bool lks__shm_message_waits(const lks__shm_member *self, int rank, uint64_t what)
{
    lks_operation operation = {.collective = (lks_collective)(what & 0xff), .root = (int)(what >> 32)};
    bool sends = operation.collective == LKS_SEND;
    int from = sends ? rank : operation.root, to = sends ? operation.root : rank;
    if (!has_mail(self, from))
        return true;
    const lks__shm_channel *channel = channel_of(self, from, to);
    /* relaxed: for people */
    uint64_t sent = atomic_load_explicit(&channel->sent, memory_order_relaxed);
    uint64_t taken = atomic_load_explicit(&channel->taken, memory_order_relaxed);
    return sends ? sent - taken == LKS__MAIL_SLOTS : sent == taken;
}

lks_status lks__shm_work_on_message(lks__shm_member *self, lks__shm_task *task)
{
    lks__shm_adopt_failure(self);
    /* acquire: pairs with the poisoner's release */
    if ((atomic_load_explicit(&self->control->word, memory_order_acquire) & LKS__WORD_POISON) != 0)
        return lks__shm_failure(self, task->operation, true);
    return task->operation->collective == LKS_SEND ? work_on_send(self, task) : work_on_recv(self, task);
}
