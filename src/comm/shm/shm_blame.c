/* SPDX-License-Identifier: Apache-2.0 */
/* Whom a deadline names. All that members tell for this is relaxed: nothing depends on it but words, and it
 * was told long before a deadline comes. */
#include "comm/shm/shm_blame.h"

#include <stdio.h>

#include "base/text.h"
#include "comm/shm/process_end.h"
#include "comm/shm/shm_wait.h"

#define RELAXED memory_order_relaxed

/* ---- what members tell ---- */

void lks__shm_tell_finished(lks__shm_member *self, const lks_operation *operation)
{
    lks__shm_slot *slot = lks__shm_slot_of(self, self->group.rank);
    lks__signature signature = lks__operation_signature(operation);
    self->n_collectives += !lks__is_message(operation);
    atomic_store_explicit(&slot->finished_what, signature.what, RELAXED);
    atomic_store_explicit(&slot->finished_count, signature.count, RELAXED);
    atomic_store_explicit(&slot->finished, 1 + self->n_collectives, RELAXED);
}

/* Where all groups of the family tell and look. */
static const lks__shm_member *first_group(const lks__shm_member *self)
{
    return self->family != NULL ? self->family : self;
}

void lks__shm_tell_wait(const lks__shm_member *self, const lks_operation *operation)
{
    const lks__shm_member *first = first_group(self);
    lks__shm_slot *slot = lks__shm_slot_of(first, first->group.rank);
    if (operation != NULL) {
        lks__signature signature = lks__operation_signature(operation);
        atomic_store_explicit(&slot->waits_what, signature.what, RELAXED);
        atomic_store_explicit(&slot->waits_count, signature.count, RELAXED);
    }
    atomic_store_explicit(&slot->waits_in, operation != NULL ? 1 + (uint64_t)self->base : 0, RELAXED);
}

const char *lks__shm_present_text(const lks__shm_member *self, const lks_operation *operation,
                                  char out[LKS__PRESENT_BYTES])
{
    char text[LKS__OPERATION_TEXT_BYTES];
    lks__signature_text(lks__operation_signature(operation), text);
    if (lks__is_message(operation) || operation->collective == LKS__CREATE)
        snprintf(out, LKS__PRESENT_BYTES, "%s", text);
    else
        snprintf(out, LKS__PRESENT_BYTES, "%s (collective %llu)", text,
                 (unsigned long long)self->n_collectives + 1);
    return out;
}

/* ---- who waits for whom ---- */

/* The slot in which a member of this group tells what it sleeps in. */
static const lks__shm_slot *waits_slot(const lks__shm_member *self, int rank)
{
    if (self->family == NULL)
        return lks__shm_slot_of(self, rank);
    uint32_t family_rank = atomic_load_explicit(&lks__shm_slot_of(self, rank)->family_rank, RELAXED);
    const lks__shm_member *first = self->family;
    return lks__shm_slot_of(first, family_rank < (uint32_t)first->group.size ? (int)family_rank : 0);
}

typedef enum whereabouts { NOWHERE, HERE, ELSEWHERE } whereabouts;

static whereabouts sleeps(const lks__shm_member *self, int rank)
{
    uint64_t waits_in = atomic_load_explicit(&waits_slot(self, rank)->waits_in, RELAXED);
    return waits_in == 0 ? NOWHERE : waits_in == 1 + (uint64_t)self->base ? HERE : ELSEWHERE;
}

/* Whether the member has come to the barrier that is under way. A generation is as long as there are barriers
 * before it, modulo its width. */
static bool is_at_barrier(const lks__shm_member *self, int rank)
{
    uint64_t arrivals = atomic_load_explicit(&lks__shm_slot_of(self, rank)->arrivals, RELAXED);
    uint32_t word = atomic_load_explicit(&self->control->word, RELAXED);
    uint64_t passed = (word & LKS__WORD_GENERATION) / LKS__WORD_ONE_GENERATION;
    return arrivals > 0 && (arrivals - 1) % (LKS__WORD_GENERATION / LKS__WORD_ONE_GENERATION + 1) == passed;
}

/* Those to whom the waiting leads, in the order in which they were found. */
typedef struct walk {
    const lks__shm_member *self;
    int n;
    int ranks[LKS_GROUP_MAX_SIZE];
    bool found[LKS_GROUP_MAX_SIZE], waits[LKS_GROUP_MAX_SIZE]; /* by rank; waits: for another one found */
} walk;

static void find(walk *w, int rank)
{
    if (w->found[rank])
        return;
    w->found[rank] = true;
    w->ranks[w->n++] = rank;
}

/* Finds those for whom a member waits in this group. What it told may be out of date: it has been woken since
 * then, and then stopped for one. So the wait must still be one. */
static void find_awaited(walk *w, int rank, uint64_t what)
{
    int other = (int)(what >> 32);
    lks_operation operation = {.collective = (lks_collective)(what & 0xff)};
    if (lks__is_message(&operation)) {
        w->waits[rank] = other >= 0 && other < w->self->group.size &&
                         lks__shm_message_waits(w->self, rank, what);
        if (w->waits[rank])
            find(w, other);
        return;
    }
    if (!is_at_barrier(w->self, rank))
        return;
    for (int r = 0; r < w->self->group.size; r++)
        if (!is_at_barrier(w->self, r)) {
            w->waits[rank] = true;
            find(w, r);
        }
}

static void follow(walk *w, const lks_operation *operation)
{
    const lks__shm_member *self = w->self;
    find(w, self->group.rank);
    find_awaited(w, self->group.rank, lks__operation_signature(operation).what);
    for (int i = 1; i < w->n; i++)
        if (sleeps(self, w->ranks[i]) == HERE)
            find_awaited(w, w->ranks[i],
                         atomic_load_explicit(&waits_slot(self, w->ranks[i])->waits_what, RELAXED));
}

/* ---- in words ---- */

static bool has_joined(const lks__shm_slot *slot)
{
    return atomic_load_explicit(&slot->state, RELAXED) != LKS__SHM_ABSENT;
}

static bool is_stopped(const lks__shm_member *self, int rank)
{
    const lks__shm_slot *slot = lks__shm_slot_of(self, rank);
    return !self->same_process && has_joined(slot) &&
           lks__process_is_stopped((pid_t)atomic_load_explicit(&slot->pid, RELAXED));
}

static void describe_wait(const lks__shm_member *self, int rank, char *text, size_t capacity)
{
    const lks__shm_slot *slot = waits_slot(self, rank);
    char operation[LKS__OPERATION_TEXT_BYTES];
    lks__signature signature = {atomic_load_explicit(&slot->waits_what, RELAXED),
                                atomic_load_explicit(&slot->waits_count, RELAXED)};
    lks__append(text, capacity, "waits in %s%s", lks__signature_text(signature, operation),
                sleeps(self, rank) == ELSEWHERE ? " of another group" : "");
}

static void describe_finished(const lks__shm_member *self, int rank, char *text, size_t capacity)
{
    const lks__shm_slot *slot = lks__shm_slot_of(self, rank);
    char operation[LKS__OPERATION_TEXT_BYTES];
    uint64_t finished = atomic_load_explicit(&slot->finished, RELAXED);
    lks__signature signature = {atomic_load_explicit(&slot->finished_what, RELAXED),
                                atomic_load_explicit(&slot->finished_count, RELAXED)};
    bool is_message = lks__is_message(
        &(lks_operation){.collective = (lks_collective)(signature.what & 0xff)});
    if (finished == 0)
        lks__append(text, capacity, "has finished no operation");
    else if (is_message && finished == 1)
        lks__append(text, capacity, "last finished %s", lks__signature_text(signature, operation));
    else
        lks__append(text, capacity, "last finished %s (%scollective %llu)",
                    lks__signature_text(signature, operation), is_message ? "after " : "",
                    (unsigned long long)(finished - 1));
}

/* "; rank 2 (process 7), which is stopped and last finished barrier (collective 12)" */
static void describe(const lks__shm_member *self, int rank, bool waits, char *text, size_t capacity)
{
    char who[LKS__WHO_BYTES];
    lks__append(text, capacity, "%s", text[0] != '\0' ? "; " : "");
    if (!has_joined(lks__shm_slot_of(self, rank))) {
        lks__append(text, capacity, "rank %d, which has not joined", rank);
        return;
    }
    lks__append(text, capacity, "%s, which ", lks__shm_who(self, rank, who));
    if (is_stopped(self, rank)) {
        lks__append(text, capacity, "is stopped and ");
    } else if (waits) {
        describe_wait(self, rank, text, capacity);
        lks__append(text, capacity, " and ");
    }
    describe_finished(self, rank, text, capacity);
}

/* Those who are stopped and have not been named: nothing goes on until they do, in whatever group they are.
 */
static void describe_stopped(const walk *w, char *text, size_t capacity)
{
    const lks__shm_member *first = first_group(w->self);
    for (int f = 0; f < first->group.size; f++) {
        int r = w->n - 1;
        while (r >= 0 && waits_slot(w->self, w->ranks[r]) != lks__shm_slot_of(first, f))
            r--;
        if (r < 0 && is_stopped(first, f))
            describe(first, f, false, text, capacity);
    }
}

/* Those who do not wait themselves. Should there be none, members wait for each other: then all of them. */
static void describe_culprits(const lks__shm_member *self, const lks_operation *operation, char *text,
                              size_t capacity)
{
    walk w = {.self = self};
    follow(&w, operation);
    bool in_a_circle = true;
    for (int i = 1; i < w.n; i++)
        in_a_circle = in_a_circle && w.waits[w.ranks[i]];
    text[0] = '\0';
    for (int i = 1; i < w.n; i++) {
        int r = w.ranks[i];
        if (in_a_circle || !w.waits[r])
            describe(self, r, w.waits[r] || sleeps(self, r) == ELSEWHERE, text, capacity);
    }
    describe_stopped(&w, text, capacity);
    if (text[0] == '\0') /* they came between our last look and this one */
        lks__append(text, capacity, "members that came too late");
}

void lks__shm_poison_timeout(lks__shm_member *self, const lks_operation *operation)
{
    char culprits[LKS__SHM_TEXT_BYTES - 256], present[LKS__PRESENT_BYTES], who[LKS__WHO_BYTES];
    describe_culprits(self, operation, culprits, sizeof culprits);
    lks__shm_poison(self, LKS__BY_MEMBER, LKS_E_TIMEOUT, "%s waited %g s in %s for %s",
                    lks__shm_who(self, self->group.rank, who), (double)self->timeout_ns * 1e-9,
                    lks__shm_present_text(self, operation, present), culprits);
}
