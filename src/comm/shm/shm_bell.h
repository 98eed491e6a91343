/* SPDX-License-Identifier: Apache-2.0 */
/** Every member has a bell, which others ring when they have done something that it may be waiting for. */
#ifndef LKS_COMM_SHM_BELL_H
#define LKS_COMM_SHM_BELL_H

#include "comm/shm/shm_member.h"
#include "comm/shm/shm_wait.h"

/** Wakes that member if it sleeps. What this member wrote before, that one can read when it has woken. */
void lks__shm_ring(const lks__shm_member *self, int rank);
void lks__shm_ring_all(const lks__shm_member *self);

/** The state of the own bell. Read it before looking for what one waits for, and wait with it after that:
 * then no ring is missed. */
uint32_t lks__shm_bell(const lks__shm_member *self);

typedef struct lks__shm_idler {
    uint32_t heard;         /* the state of the bell at the last call */
    uint32_t barrier;       /* the caller's: at which barrier the collective was that waits beside */
    int64_t start_ns;       /* since when this member has heard nothing; 0: it has not waited yet */
    int n_yields;           /* of this wait */
    lks__deadline deadline; /* of this wait */
} lks__shm_idler;

/** Waits until the bell is no more in the state `bell`, or for a while, at most most_ns: first a look at a
 * time, later asleep. A new wait begins when the bell has been rung, or start_ns is 0. Returns false when the
 * deadline has passed. */
bool lks__shm_idle(lks__shm_member *self, lks__shm_idler *idler, uint32_t bell, int64_t most_ns);

#endif
