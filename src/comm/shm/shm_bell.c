/* SPDX-License-Identifier: Apache-2.0 */
/* The bell is a word that grows by 2 with each ring; its lowest bit says that its owner sleeps, or is about
 * to. The owner sets the bit and then sleeps if the word is still what it was, but for the bit: a ring came
 * either before the owner set the bit, which then sees another number, or after, and then wakes it or changes
 * the word under the kernel's eyes. */
#include "comm/shm/shm_bell.h"

#include <sched.h>

#include "base/machine.h"

enum { SLEEPS = 1, ONE_RING = 2 };

static _Atomic uint32_t *bell_of(const lks__shm_member *self, int rank)
{
    return &lks__shm_slot_of(self, rank)->bell;
}

void lks__shm_ring(const lks__shm_member *self, int rank)
{
    _Atomic uint32_t *bell = bell_of(self, rank);
    /* release: what was done; acquire: keeps the release sequences of others who rang */
    uint32_t seen = atomic_fetch_add_explicit(bell, ONE_RING, memory_order_acq_rel);
    if ((seen & SLEEPS) == 0)
        return;
    /* acq_rel: same. Should the owner have gone to sleep again meanwhile, it is woken once too often. */
    atomic_fetch_and_explicit(bell, ~(uint32_t)SLEEPS, memory_order_acq_rel);
    lks__futex_wake_all(bell);
}

void lks__shm_ring_all(const lks__shm_member *self)
{
    for (int r = 0; r < self->group.size; r++)
        if (r != self->group.rank)
            lks__shm_ring(self, r);
}

uint32_t lks__shm_bell(const lks__shm_member *self)
{
    /* acquire: what the ringers did */
    return atomic_load_explicit(bell_of(self, self->group.rank), memory_order_acquire) & ~(uint32_t)SLEEPS;
}

/* Returns whether it was worth a try: not yet time to sleep. */
static bool look_again(const lks__shm_member *self, lks__shm_idler *idler)
{
    if (self->has_core && lks__now_ns() - idler->start_ns < LKS__SPIN_NS) {
        lks__pause();
        return true;
    }
    if (idler->n_yields >= LKS__YIELDS)
        return false;
    idler->n_yields++;
    sched_yield();
    return true;
}

bool lks__shm_idle(lks__shm_member *self, lks__shm_idler *idler, uint32_t bell, int64_t most_ns)
{
    if (idler->start_ns == 0 || bell != idler->heard)
        *idler = (lks__shm_idler){bell, idler->barrier, lks__now_ns(), 0, {self->timeout_ns}};
    if (look_again(self, idler))
        return true;
    int64_t slice_ns = lks__deadline_slice(&idler->deadline), start_ns = lks__now_ns();
    if (slice_ns == 0)
        return false;
    if (slice_ns > most_ns)
        slice_ns = most_ns;
    _Atomic uint32_t *word = bell_of(self, self->group.rank);
    /* acq_rel: see the top of this file */
    uint32_t seen = atomic_fetch_or_explicit(word, SLEEPS, memory_order_acq_rel);
    if ((seen & ~(uint32_t)SLEEPS) == bell)
        lks__futex_sleep(word, bell | SLEEPS, slice_ns);
    lks__deadline_spend(&idler->deadline, start_ns, slice_ns);
    lks__shm_look_around(self);
    return true;
}
