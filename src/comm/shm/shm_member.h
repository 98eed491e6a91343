/* SPDX-License-Identifier: Apache-2.0 */
/** One member of a group over shared memory, and what the files of this folder do for it. */
#ifndef LKS_COMM_SHM_MEMBER_H
#define LKS_COMM_SHM_MEMBER_H

#include <stdbool.h>
#include <string.h>

#include "comm/backend.h"
#include "comm/shm/segment.h"
#include "comm/shm/shm_control.h"

typedef struct lks__watcher lks__watcher;
typedef struct lks__shm_task lks__shm_task;

typedef struct lks__shm_member lks__shm_member;

struct lks__shm_member {
    lks_group group; /* first: a member is a group handle */
    lks__segment *segment;
    lks__shm_control *control; /* NULL until mapped */
    lks__watcher *watcher;     /* NULL: none (threads, and while joining) */
    bool joined;               /* this member owns its slot */
    bool has_core;             /* every member has a core of its own, so waiting may spin */
    bool same_process;         /* all members are threads of this process */
    int64_t timeout_ns;
    lks__shm_task *queue;             /* posted and not done, in the order of posts */
    uint64_t turn;                    /* staging areas used so far; equal on all members */
    uint64_t exchanges;               /* offers made so far; same */
    uint64_t n_collectives;           /* that this member has finished; same */
    size_t base;                      /* where the control block starts in the file */
    struct lks__shm_memory *memories; /* the handles of group memory */
    /* How texts call the members of the first group of a family, if not by their ranks: where it is one
     * machine of a group over machines. [size] */
    _Atomic(const int *) names;
    lks__shm_member *family; /* the member of the first group that this one was split from; NULL: is one */
};

static inline lks__shm_member *lks__shm_member_of(lks_group *group)
{
    return (lks__shm_member *)group;
}

static inline lks__shm_slot *lks__shm_slot_of(const lks__shm_member *self, int rank)
{
    return &self->control->slots[rank];
}

static inline void lks__shm_count(lks__shm_member *self, size_t read_bytes, size_t written_bytes)
{
    self->group.cost.read_bytes += read_bytes;
    self->group.cost.written_bytes += written_bytes;
}

/** memcpy of data, which is counted. */
static inline void lks__shm_copy(lks__shm_member *self, void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
    lks__shm_count(self, bytes, bytes);
}

/** Comes to the barrier, with the operation that it belongs to, and returns when all have come.
 *
 * What members wrote before it, all can read after it.
 * Returns: LKS_OK on every member, or one failure on every member: LKS_E_PEER, LKS_E_TIMEOUT, LKS_E_MISMATCH.
 */
lks_status lks__shm_barrier(lks__shm_member *self, const lks_operation *operation) LKS_MUST_USE;

/** The barrier's two halves. Arrive gives what the others need: the word that was found, as `entered`. Test
 * returns LKS_IN_PROGRESS while some have not come. A member has arrived at one barrier at a time. */
uint32_t lks__shm_arrive(lks__shm_member *self, const lks_operation *operation);
lks_status lks__shm_barrier_test(lks__shm_member *self, const lks_operation *operation,
                                 uint32_t entered) LKS_MUST_USE;
lks_status lks__shm_barrier_wait(lks__shm_member *self, const lks_operation *operation,
                                 uint32_t entered) LKS_MUST_USE;

/** Who tells of a failure. Each has a record of its own, so a text is never written by two. */
typedef enum lks__shm_author {
    LKS__BY_MEMBER,
    LKS__BY_WATCHER,
    LKS__BY_ENGINE, /* of a group over machines, comm/mpi: any thread of the member's process, under its lock
                     */
    LKS__BY_OUTSIDER
} lks__shm_author;

/** Ends the group with this failure, if it is the first, and wakes all who wait. The text of an LKS_E_PEER
 * says what a peer did ("rank 2 (process 7) left the group"); readers add what they waited in. */
void lks__shm_poison(lks__shm_member *self, lks__shm_author author, lks_status status, const char *format,
                     ...) LKS_PRINTF(4, 5);

/** What a group over machines does with the group of a member's machine. From now on texts call its members
 * by the ranks that they have over machines: borrowed, as long as the member lives. */
void lks__shm_name_members(lks_group *node, const int *ranks);

/** The name of a member of the first group. */
int lks__shm_name(const lks__shm_member *first, int rank);

/** Poisons it, in any thread, under the engine's lock: process `by` noticed the failure. */
void lks__shm_poison_for(lks_group *node, int by, lks_status status, const char *prefix, const char *text);

/** How a group has failed. */
typedef struct lks__shm_news {
    lks_status status;
    int author; /* rank; -1: an outsider */
    int by;     /* process; -1: nothing is said of it */
    const char *text;
} lks__shm_news;

/** Returns whether it has failed; a group of one never does. */
bool lks__shm_look_for_news(const lks_group *node, lks__shm_news *out);

/** The failure of a poisoned group, with the message set for `operation`, in which this member was or was not
 * waiting. */
lks_status lks__shm_failure(const lks__shm_member *self, const lks_operation *operation, bool waited);

/** The rank of the one that poisoned the group; -1: nobody did. */
int lks__shm_failed_by(const lks_group *group);

/** "rank 2 (process 7)", in a part "rank 2 (rank 5 of the first group, process 7)". Returns out. */
enum { LKS__WHO_BYTES = 80 };
const char *lks__shm_who(const lks__shm_member *self, int rank, char out[LKS__WHO_BYTES]);

/** Looks for failures of which nobody would wake this member: of the family, and of processes where nobody
 * watches them. */
void lks__shm_look_around(lks__shm_member *self);

/** Takes over a failure of another group of the family. */
void lks__shm_adopt_failure(lks__shm_member *self);

/** Poisons the group with the first member that has joined, has not left, and has no process any more. */
void lks__shm_poison_if_dead(lks__shm_member *self, lks__shm_author author);

/** A barrier at which every member says a number; lks__shm_offer then gives any member's, until the next
 * exchange. */
lks_status lks__shm_exchange(lks__shm_member *self, const lks_operation *operation,
                             uint64_t offer) LKS_MUST_USE;
uint64_t lks__shm_offer(const lks__shm_member *self, int rank);

/** An exchange after which all know whether all succeeded. `own` is this member's status; its message, if
 * any, is the one that it returns, and the others return LKS_E_NOMEM, for `bytes` in all. */
lks_status lks__shm_all_succeeded(lks__shm_member *self, const lks_operation *operation, lks_status own,
                                  size_t bytes) LKS_MUST_USE;

/** Agrees on a new range of the file. Its offsets have not been used and will not be used again; nothing has
 * memory behind it. Collective. */
lks_status lks__shm_take_range(lks__shm_member *self, const lks_operation *operation, size_t bytes,
                               size_t *out) LKS_MUST_USE;

/** A member whose control block starts at `base` of the file, and that has no slot yet. Takes a reference to
 * the segment. There is memory behind the first page only: what it takes to tell the others of a failure. */
lks_status lks__shm_member_create(lks__segment *segment, size_t base, int rank, int size,
                                  lks__shm_member **out) LKS_MUST_USE;
lks_status lks__shm_claim_slot(lks__shm_member *self) LKS_MUST_USE;

/** Starts a thread that ends the group when a member's process dies. */
lks_status lks__watcher_start(lks__shm_member *self, lks__watcher **out) LKS_MUST_USE;
void lks__watcher_stop(lks__watcher *watcher); /* NULL is fine */

/** The memory file of a group whose members a foreign launcher has started: they meet at a socket.
 * Ownership: the caller closes *out. */
lks_status lks__shm_meet(const lks_group_config *config, int *out) LKS_MUST_USE;

/** The backend's functions (backend.h). */
lks_status lks__shm_run(lks_group *group, const lks_operation *operation) LKS_MUST_USE;
lks_status lks__shm_post(lks_group *group, const lks_operation *operation, void *task) LKS_MUST_USE;
lks_status lks__shm_test(lks_group *group, void *task) LKS_MUST_USE;
lks_status lks__shm_wait(lks_group *group, void *task) LKS_MUST_USE;
lks_status lks__shm_split(lks_group *group, int colour, int key, lks_group **out) LKS_MUST_USE;
lks_status lks__shm_memory_create(lks_group *group, size_t bytes, lks_group_memory **out) LKS_MUST_USE;
void lks__shm_memory_destroy(lks_group_memory *memory);

/** Where `bytes` bytes lie in the file, if they are of the group's memory, else 0; and back, NULL if this
 * member has no handle of it. */
uint64_t lks__shm_locate(const lks__shm_member *self, const void *data, size_t bytes);
void *lks__shm_address(const lks__shm_member *self, uint64_t offset);

extern const lks__backend lks__shm_backend;

#endif
