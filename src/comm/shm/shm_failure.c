/* SPDX-License-Identifier: Apache-2.0 */
/* Failures that the members share: written once, in a record of their author, and published by one
 * compare-and-swap. A member that is killed at any instruction here holds nobody up: no lock is held, and
 * whoever fails next only finds the number there or not. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "comm/shm/process_end.h"
#include "comm/shm/shm_bell.h"
#include "comm/shm/shm_blame.h"
#include "comm/shm/shm_member.h"
#include "comm/shm/shm_wait.h"

static lks__shm_record *record_at(const lks__shm_member *self, uint32_t index)
{
    if (index == 0)
        return &self->control->outsider_record;
    return (lks__shm_record *)((char *)self->control + lks__shm_records_at(self->group.size)) + (index - 1);
}

/* The record that this author may write; false: there is none left for it. */
static bool own_record(lks__shm_member *self, lks__shm_author author, uint32_t *out)
{
    if (author != LKS__BY_OUTSIDER) {
        *out = 1 + (uint32_t)(self->group.rank * LKS__SHM_RECORDS) + (uint32_t)author;
        return true;
    }
    uint32_t none = 0;
    *out = 0;
    /* relaxed: picks one of several outsiders; the record itself is published by `poisoner` */
    return atomic_compare_exchange_strong_explicit(&self->control->outsider, &none, 1, memory_order_relaxed,
                                                   memory_order_relaxed);
}

void lks__shm_name_members(lks_group *node, const int *ranks)
{
    if (node->backend == &lks__shm_backend) /* release: the ranks, for the watcher */
        atomic_store_explicit(&lks__shm_member_of(node)->names, ranks, memory_order_release);
}

int lks__shm_name(const lks__shm_member *first, int rank)
{
    /* acquire: see lks__shm_name_members */
    const int *names = atomic_load_explicit(&first->names, memory_order_acquire);
    return names != NULL ? names[rank] : rank;
}

const char *lks__shm_who(const lks__shm_member *self, int rank, char out[LKS__WHO_BYTES])
{
    /* relaxed: a number for people */
    const lks__shm_slot *slot = lks__shm_slot_of(self, rank);
    int pid = atomic_load_explicit(&slot->pid, memory_order_relaxed);
    char process[24], first[40] = "";
    snprintf(process, sizeof process, "process %d", pid);
    if (self->family != NULL)
        snprintf(
            first, sizeof first, "rank %d of the first group",
            lks__shm_name(self->family, (int)atomic_load_explicit(&slot->family_rank, memory_order_relaxed)));
    else
        rank = lks__shm_name(self, rank);
    const char *parts[] = {first, self->same_process ? "" : process};
    bool both = parts[0][0] != '\0' && parts[1][0] != '\0', any = parts[0][0] != '\0' || parts[1][0] != '\0';
    snprintf(out, LKS__WHO_BYTES, "rank %d%s%s%s%s%s", rank, any ? " (" : "", parts[0], both ? ", " : "",
             parts[1], any ? ")" : "");
    return out;
}

/* The record of a group's failure; NULL: there is none, or the memory is damaged. */
static const lks__shm_record *published(const lks__shm_member *self)
{
    /* acquire: pairs with the publication of the record */
    uint32_t poisoner = atomic_load_explicit(&self->control->poisoner, memory_order_acquire);
    if (poisoner == 0 || poisoner > 1 + (uint32_t)(self->group.size * LKS__SHM_RECORDS))
        return NULL;
    return record_at(self, poisoner - 1);
}

static const char of_a_part[] = "in a group that was split off: ";

/* The family fails with a group of it. Where the failure came from there, this changes nothing. */
static void poison_family(const lks__shm_member *self)
{
    const lks__shm_record *record = published(self);
    if (record != NULL)
        lks__shm_poison(self->family, LKS__BY_MEMBER, (lks_status)record->status, "%s%s", of_a_part,
                        record->text);
}

static void poison(lks__shm_member *self, lks__shm_author author, lks_status status, int by,
                   const char *format, va_list args)
{
    lks__shm_control *control = self->control;
    uint32_t index;
    /* acquire pairs with the publication below; while nobody has published, our record is ours to write */
    if (atomic_load_explicit(&control->poisoner, memory_order_acquire) == 0 &&
        own_record(self, author, &index)) {
        lks__shm_record *record = record_at(self, index);
        vsnprintf(record->text, sizeof record->text, format, args);
        record->status = status;
        record->author = self->group.rank;
        record->by = by;
        uint32_t none = 0;
        /* release: the record is whole for those who see its number */
        atomic_compare_exchange_strong_explicit(&control->poisoner, &none, index + 1, memory_order_acq_rel,
                                                memory_order_acquire);
    }
    if (atomic_load_explicit(&control->poisoner, memory_order_acquire) == 0)
        return; /* an outsider that came second, and the first is not done: leave it to that one */
    /* release: whoever sees the bit sees a poisoner, ours or an earlier one (acquired above) */
    atomic_fetch_or_explicit(&control->word, LKS__WORD_POISON, memory_order_acq_rel);
    lks__futex_wake_all(&control->word);
    if (self->joined) /* an outsider may not reach all slots; sleepers look at the word after each slice */
        lks__shm_ring_all(self);
    if (self->family != NULL)
        poison_family(self);
}

void lks__shm_poison(lks__shm_member *self, lks__shm_author author, lks_status status, const char *format,
                     ...)
{
    va_list args;
    va_start(args, format);
    poison(self, author, status, 0, format, args);
    va_end(args);
}

static void poison_by(lks__shm_member *self, int by, lks_status status, const char *format, ...)
    LKS_PRINTF(4, 5);

static void poison_by(lks__shm_member *self, int by, lks_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    poison(self, LKS__BY_ENGINE, status, by + 1, format, args);
    va_end(args);
}

void lks__shm_poison_for(lks_group *node, int by, lks_status status, const char *prefix, const char *text)
{
    poison_by(lks__shm_member_of(node), by, status, "%s%s", prefix, text);
}

bool lks__shm_look_for_news(const lks_group *node, lks__shm_news *out)
{
    const lks__shm_member *self = (const lks__shm_member *)node;
    if (node->backend != &lks__shm_backend)
        return false;
    const lks__shm_record *record = published(self);
    if (record == NULL)
        return false;
    *out = (lks__shm_news){(lks_status)record->status, lks__shm_failed_by(node), record->by - 1,
                           record->text};
    return true;
}

void lks__shm_adopt_failure(lks__shm_member *self)
{
    if (self->family == NULL)
        return;
    /* acquire: pairs with the poisoner's release */
    uint32_t word = atomic_load_explicit(&self->family->control->word, memory_order_acquire);
    if ((word & LKS__WORD_POISON) == 0)
        return;
    const lks__shm_record *record = published(self->family);
    if (record == NULL)
        return;
    bool from_a_part = strncmp(record->text, of_a_part, sizeof of_a_part - 1) == 0;
    lks__shm_poison(self, LKS__BY_MEMBER, (lks_status)record->status, "%s%s",
                    from_a_part ? "" : "in the first group: ", record->text);
}

void lks__shm_look_around(lks__shm_member *self)
{
    if (self->family != NULL)
        lks__shm_adopt_failure(self);
    else if (self->watcher == NULL && !self->same_process)
        lks__shm_poison_if_dead(self, LKS__BY_MEMBER);
}

int lks__shm_failed_by(const lks_group *group)
{
    const lks__shm_record *record = published((const lks__shm_member *)group);
    return record != NULL ? record->author : -1;
}

lks_status lks__shm_failure(const lks__shm_member *self, const lks_operation *operation, bool waited)
{
    const lks__shm_record *record = published(self);
    if (record == NULL)
        return lks__fail(LKS_E_INTERNAL, "the shared memory of the group is damaged");
    lks_status status = (lks_status)record->status;
    if (status != LKS_E_PEER)
        return lks__fail(status, "%s", record->text);

    char text[LKS__PRESENT_BYTES];
    lks__shm_present_text(self, operation, text);
    int own = lks__shm_name(self, self->group.rank);
    if (waited)
        return lks__fail(status, "%s while rank %d waited in %s", record->text, own, text);
    return lks__fail(status, "%s before rank %d came to %s", record->text, own, text);
}

void lks__shm_poison_if_dead(lks__shm_member *self, lks__shm_author author)
{
    for (int r = 0; r < self->group.size; r++) {
        lks__shm_slot *slot = lks__shm_slot_of(self, r);
        /* acquire: the pid was set before the state */
        if (atomic_load_explicit(&slot->state, memory_order_acquire) != LKS__SHM_JOINED)
            continue;
        pid_t pid = (pid_t)atomic_load_explicit(&slot->pid, memory_order_relaxed);
        char who[LKS__WHO_BYTES], end[LKS__END_BYTES];
        if (lks__process_has_ended(pid))
            lks__shm_poison(self, author, LKS_E_PEER, "%s %s", lks__shm_who(self, r, who),
                            lks__process_end_text(pid, -1, end));
    }
}
