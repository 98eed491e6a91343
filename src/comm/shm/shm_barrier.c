/* SPDX-License-Identifier: Apache-2.0 */
/* The barrier: every member posts the signature of its operation and adds one to the word; the last to come
 * compares the signatures and moves the word to the next generation. See comm/README.md. */
#include <sched.h>

#include "base/machine.h"
#include "comm/shm/shm_blame.h"
#include "comm/shm/shm_wait.h"

enum { LOOKS_PER_CLOCK = 64 }; /* pauses between two looks at the clock */

static lks__signature signature_of(const lks__shm_member *self, int rank)
{
    /* acquire: see decide() */
    lks__shm_slot *slot = lks__shm_slot_of(self, rank);
    return (lks__signature){atomic_load_explicit(&slot->what, memory_order_acquire),
                            atomic_load_explicit(&slot->count, memory_order_acquire)};
}

/* ---- two of the ways in which a barrier fails; the third is a deadline ---- */

static void poison_mismatch(lks__shm_member *self)
{
    char text[LKS__SHM_TEXT_BYTES - 128];
    lks__signature signatures[LKS_GROUP_MAX_SIZE];
    for (int r = 0; r < self->group.size; r++)
        signatures[r] = signature_of(self, r);
    lks__shm_poison(self, LKS__BY_MEMBER, LKS_E_MISMATCH,
                    "the members %sasked for different operations (collective %llu): %s",
                    self->names != NULL ? "of one machine (by their ranks there) " : "",
                    (unsigned long long)self->n_collectives + 1,
                    lks__mismatch_text(self->group.size, signatures, sizeof text, text));
}

static void poison_left(lks__shm_member *self)
{
    for (int r = 0; r < self->group.size; r++) {
        char who[LKS__WHO_BYTES];
        /* relaxed: the state was set before the LEFT bit, which the caller has acquired */
        if (atomic_load_explicit(&lks__shm_slot_of(self, r)->state, memory_order_relaxed) == LKS__SHM_LEFT)
            lks__shm_poison(self, LKS__BY_MEMBER, LKS_E_PEER, "%s left the group",
                            lks__shm_who(self, r, who));
    }
}

/* ---- deciding ---- */

static uint32_t look(const lks__shm_member *self)
{
    /* acquire: pairs with the release of whoever decided, and through it with every member's arrival */
    return atomic_load_explicit(&self->control->word, memory_order_acquire);
}

static bool passed(uint32_t word, uint32_t entered)
{
    return ((word ^ entered) & LKS__WORD_GENERATION) != 0;
}

/* Whether the barrier that was entered with `entered` in the word has been decided by now. */
static bool decided(uint32_t word, uint32_t entered)
{
    return passed(word, entered) || (word & LKS__WORD_POISON) != 0;
}

static bool all_arrived(const lks__shm_member *self, uint32_t word)
{
    return (word & LKS__WORD_ARRIVED) == (uint32_t)self->group.size;
}

static bool signatures_agree(const lks__shm_member *self)
{
    lks__signature first = signature_of(self, 0);
    for (int r = 1; r < self->group.size; r++)
        if (!lks__same_signature(signature_of(self, r), first))
            return false;
    return true;
}

/* All have come: passes the barrier or fails it. The last to come does so; should it be stopped just before,
 * any other member does the same. A member posts its next signature, by a release, after it has seen the
 * barrier passed: so who has read such a signature finds the barrier passed when it looks at the word
 * afterwards. */
static void decide(lks__shm_member *self, uint32_t entered)
{
    _Atomic uint32_t *word = &self->control->word;
    bool agree = signatures_agree(self);
    uint32_t seen = look(self), next;
    do {
        if (decided(seen, entered))
            return;
        if (!agree) {
            poison_mismatch(self);
            return;
        }
        next = (seen & LKS__WORD_GENERATION) + LKS__WORD_ONE_GENERATION;
        /* release: what all members wrote, for those who see the new generation */
    } while (!atomic_compare_exchange_weak_explicit(word, &seen, next, memory_order_acq_rel,
                                                    memory_order_acquire));
    if ((seen & LKS__WORD_SLEEPING) != 0)
        lks__futex_wake_all(word);
}

/* Passed wins over poisoned: then the failure came later, and the next call reports it. */
static lks_status outcome(const lks__shm_member *self, const lks_operation *operation, uint32_t entered)
{
    return passed(look(self), entered) ? LKS_OK : lks__shm_failure(self, operation, true);
}

/* ---- waiting ---- */

static bool spin(const lks__shm_member *self, uint32_t entered)
{
    int64_t start_ns = 0;
    for (int looks = 1;; looks++) {
        if (decided(look(self), entered))
            return true;
        lks__pause();
        if (looks % LOOKS_PER_CLOCK != 0)
            continue;
        int64_t now_ns = lks__now_ns();
        if (start_ns == 0)
            start_ns = now_ns;
        if (now_ns - start_ns > LKS__SPIN_NS)
            return false;
    }
}

static bool yield(const lks__shm_member *self, uint32_t entered)
{
    for (int i = 0; i < LKS__YIELDS; i++) {
        if (decided(look(self), entered))
            return true;
        sched_yield();
    }
    return false;
}

/* Sleeps in slices: what needs no wake-up call (a death before there are watchers, a decider that was
 * stopped) is noticed at the end of one. */
static void sleep_until_decided(lks__shm_member *self, const lks_operation *operation, uint32_t entered)
{
    _Atomic uint32_t *word = &self->control->word;
    lks__deadline deadline = {self->timeout_ns};
    for (;;) {
        /* The bit is in the word before the kernel compares the word, and who decides replaces the word:
         * either it sees the bit and wakes us, or the word has changed and we don't sleep. */
        uint32_t seen = atomic_fetch_or_explicit(word, LKS__WORD_SLEEPING, memory_order_acq_rel);
        if (!decided(seen, entered) && all_arrived(self, seen))
            decide(self, entered);
        if (decided(look(self), entered))
            return;
        int64_t slice_ns = lks__deadline_slice(&deadline), start_ns = lks__now_ns();
        if (slice_ns == 0) {
            lks__shm_poison_timeout(self, operation);
            return;
        }
        lks__futex_sleep(word, seen | LKS__WORD_SLEEPING, slice_ns);
        lks__deadline_spend(&deadline, start_ns, slice_ns);
        lks__shm_look_around(self);
    }
}

static void wait_for_others(lks__shm_member *self, const lks_operation *operation, uint32_t entered)
{
    if ((self->has_core && spin(self, entered)) || yield(self, entered))
        return;
    lks__shm_tell_wait(self, operation);
    sleep_until_decided(self, operation, entered);
    lks__shm_tell_wait(self, NULL);
}

/* ---- arriving ---- */

uint32_t lks__shm_arrive(lks__shm_member *self, const lks_operation *operation)
{
    lks__shm_adopt_failure(self);
    lks__shm_slot *slot = lks__shm_slot_of(self, self->group.rank);
    lks__signature signature = lks__operation_signature(operation);
    if (!lks__same_signature(signature, signature_of(self, self->group.rank))) {
        /* release: see decide() */
        atomic_store_explicit(&slot->what, signature.what, memory_order_release);
        atomic_store_explicit(&slot->count, signature.count, memory_order_release);
    }
    /* relaxed: one writer, this member; published by the arrival */
    uint64_t arrivals = atomic_load_explicit(&slot->arrivals, memory_order_relaxed);
    atomic_store_explicit(&slot->arrivals, arrivals + 1, memory_order_relaxed);
    self->group.cost.barriers++;
    /* release: all that this member wrote; acquire: the last to come reads what all wrote. Read-modify-writes
     * keep each other's release sequences, so the last one synchronises with every earlier one. */
    uint32_t entered = atomic_fetch_add_explicit(&self->control->word, 1, memory_order_acq_rel);
    if ((entered & LKS__WORD_LEFT) != 0)
        poison_left(self);
    return entered;
}

/* Whether there was no barrier to come to any more. */
static bool in_vain(uint32_t entered)
{
    return (entered & (LKS__WORD_POISON | LKS__WORD_LEFT)) != 0;
}

lks_status lks__shm_barrier_test(lks__shm_member *self, const lks_operation *operation, uint32_t entered)
{
    if (in_vain(entered))
        return lks__shm_failure(self, operation, false);
    lks__shm_adopt_failure(self);
    uint32_t word = look(self);
    if (!decided(word, entered) && all_arrived(self, word))
        decide(self, entered);
    return decided(look(self), entered) ? outcome(self, operation, entered) : LKS_IN_PROGRESS;
}

lks_status lks__shm_barrier_wait(lks__shm_member *self, const lks_operation *operation, uint32_t entered)
{
    lks_status status = lks__shm_barrier_test(self, operation, entered);
    if (status != LKS_IN_PROGRESS)
        return status;
    wait_for_others(self, operation, entered);
    return outcome(self, operation, entered);
}

lks_status lks__shm_barrier(lks__shm_member *self, const lks_operation *operation)
{
    return lks__shm_barrier_wait(self, operation, lks__shm_arrive(self, operation));
}
