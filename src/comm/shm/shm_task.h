/* SPDX-License-Identifier: Apache-2.0 */
/** An operation under way. A member keeps those that it has posted in a queue, and works on them whenever it
 * tests or waits for one: on collectives one after the other, in the order of posts, and on messages beside
 * them. */
#ifndef LKS_COMM_SHM_TASK_H
#define LKS_COMM_SHM_TASK_H

#include "comm/shm/shm_staging.h"
#include "comm/shm/shm_wait.h"

struct lks__shm_task {
    const lks_operation *operation; /* checked; borrowed */
    lks_status status;              /* LKS_IN_PROGRESS while in the queue */
    lks__shm_task *next;            /* in the queue */
    bool started;

    /* of collectives */
    bool exchanges; /* tells the others `offer` at its barrier */
    uint64_t offer;
    lks__piece present, before; /* staged last; waiting to be fetched (n 0: none) */
    size_t done;                /* elements (of a row) that have been staged and read */
    uint32_t entered;           /* the word at the last arrival */

    /* of messages */
    size_t done_bytes;
};

/** Puts the task at the end of the queue. */
void lks__shm_post(lks__shm_member *self, lks__shm_task *task);

/** Works on the queue until the task is done. A failure is one of the group: the queue is empty after it.
 * Returns: LKS_OK or the failure. */
lks_status lks__shm_finish(lks__shm_member *self, lks__shm_task *task) LKS_MUST_USE;

#endif
