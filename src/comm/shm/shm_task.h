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
    int64_t tested_ns;              /* when it was last tested; 0: not since it was posted */
    lks__deadline deadline;         /* of tests */
    lks__shm_task *next;            /* in the queue */
    bool started;
    bool is_step; /* of an operation that takes several: not one that this member finishes */

    /* of collectives */
    bool exchanges; /* tells the others `offer` at its barrier */
    uint64_t offer;
    lks__piece present, before; /* staged last; waiting to be fetched (n 0: none) */
    size_t done;                /* elements (of a row) that have been staged and read */
    bool in_place;              /* all is done but the last barrier */
    uint32_t entered;           /* the word at the last arrival */

    /* of messages */
    size_t done_bytes;
};

/** Goes on with a send or receive as far as it can without waiting.
 * Returns: LKS_OK: done; LKS_IN_PROGRESS; a failure of the group. */
lks_status lks__shm_work_on_message(lks__shm_member *self, lks__shm_task *task) LKS_MUST_USE;

/** Gets memory for this member's channels, if it has none yet. Returns: LKS_OK; LKS_E_NOMEM; LKS_E_SYSTEM. */
lks_status lks__shm_open_mail(lks__shm_member *self) LKS_MUST_USE;

#endif
