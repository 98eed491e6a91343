/* SPDX-License-Identifier: Apache-2.0 */
/** What a process has once for all its groups over machines: the wire, a lock, the thread that goes on with
 * what is posted while nobody waits for it, and the failure that ends all of them. */
#ifndef LKS_COMM_MPI_ENGINE_H
#define LKS_COMM_MPI_ENGINE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <lockstep/group.h>

#include "comm/mpi/wire.h"

struct lks__mpi_member;

enum { LKS__MPI_NOTICE_BYTES = 1024 }; /* short enough that an MPI sends it without asking the receiver */

/** What processes tell each other beside operations. */
typedef struct lks__mpi_notice_head {
    enum { LKS__MPI_FAILED, LKS__MPI_LEFT, LKS__MPI_LATE, LKS__MPI_WAITS } kind;
    int32_t status; /* of a failure */
    int32_t by;     /* the process that noticed it, or that asks */
    int32_t rank; /* in the group: who leaves; whose message is late, -1: a collective; for whom one waits */
    uint64_t group;          /* its serial number */
    uint64_t collectives;    /* that the leaving one had posted; that came before the late one */
    uint64_t sent, received; /* messages to the receiver of this, and from it */
} lks__mpi_notice_head;

enum { LKS__MPI_TEXT_BYTES = LKS__MPI_NOTICE_BYTES - sizeof(lks__mpi_notice_head) };

typedef struct lks__mpi_notice {
    lks__mpi_notice_head head;
    char text[LKS__MPI_TEXT_BYTES]; /* of a failure; of a question: who waited in what */
} lks__mpi_notice;

typedef struct lks__mpi_engine {
    lks__wire *wire; /* used under the lock, but while joining */
    lks_group *node; /* of the first group: where the machine's failures meet */
    int64_t timeout_ns;
    bool same_process; /* all members have the same process number: it tells nothing */
    bool fast;

    pthread_mutex_t lock;
    /* guarded by lock: all below */
    pthread_cond_t work; /* for the thread: something has been posted, or it shall end */
    pthread_t thread;
    bool has_thread, stop;
    bool dozes;  /* the thread waits for `work` */
    int drivers; /* threads that are waiting for something, and so go on with all */

    struct lks__mpi_member *members; /* the last made first; the first group's is the last */
    uint64_t next_serial;            /* of groups */

    lks_status failure; /* the first one; LKS_OK: none */
    bool told;          /* the tasks have been ended */
    int failed_by;      /* process */
    uint64_t failed_in; /* serial number of the group */
    char text[LKS__MPI_TEXT_BYTES];

    bool listens; /* a recv for notices is under way */
    lks__wire_request listening;
    lks__mpi_notice heard;
    bool warned; /* of a failure elsewhere, by `warning` */
    lks__mpi_notice warning;
    lks__mpi_notice alarm;     /* what is told of the failure */
    lks__wire_request *alarms; /* [wire size] */
    int n_alarms;

    /* Of a wait that was too long: see mpi_blame.h. */
    const void *asked_for; /* the task, and what its member's moves were */
    uint64_t asked_after;
    int asked_about, blamed;  /* ranks in the task's group; -1: none */
    lks__mpi_notice question; /* about asked_about */
    lks__mpi_notice_head reply;
    lks__wire_request *questions; /* [wire size]: of both */
    int n_questions;
} lks__mpi_engine;

/** Ownership: borrows wire and node. */
lks_status lks__mpi_engine_create(lks__wire *wire, lks_group *node, const lks_group_config *config,
                                  lks__mpi_engine **out) LKS_MUST_USE;
void lks__mpi_engine_destroy(lks__mpi_engine *engine); /* NULL is fine */

/** Starts and ends the thread; ending, listens to notices no more. */
lks_status lks__mpi_engine_start(lks__mpi_engine *engine) LKS_MUST_USE;
void lks__mpi_engine_stop(lks__mpi_engine *engine);

/** Goes on with all groups' operations as far as it goes without waiting. Returns whether anything moved.
 * Under the lock. */
bool lks__mpi_progress(lks__mpi_engine *engine);

/** Wakes the thread, if there is something to do for it. Under the lock. */
void lks__mpi_hand_over(lks__mpi_engine *engine);

/** Ends all groups with this failure, if it is the first, and tells the other processes. `by` is the process
 * that noticed it, `group` where it happened. The text of an LKS_E_PEER says what a peer did. Under the lock.
 */
void lks__mpi_fail(lks__mpi_engine *engine, int by, uint64_t group, lks_status status, const char *format,
                   ...) LKS_PRINTF(5, 6);

/** The member of a group, by its serial number; NULL: this process has none. Under the lock. */
struct lks__mpi_member *lks__mpi_member_of_group(const lks__mpi_engine *engine, uint64_t serial);

/** Starts to send a notice, whose bytes stay where they are until the request is done, and counts the
 * request. Under the lock. */
void lks__mpi_send_notice(lks__mpi_engine *engine, const void *notice, size_t bytes, int process,
                          lks__wire_request *request, int *n);

/** Listens to notices of others. Returns whether there were any. Under the lock. */
bool lks__mpi_look_around(lks__mpi_engine *engine);

/** Whether others have failed of which this process does not know yet, here or elsewhere; and makes it its
 * own failure. Between the two, what could be finished before is finished. Under the lock. */
bool lks__mpi_has_trouble(const lks__mpi_engine *engine);
void lks__mpi_accept_trouble(lks__mpi_engine *engine);

/** The wait of one thread: first a look at a time, then asleep. */
typedef struct lks__mpi_idler {
    bool spins;
    int64_t start_ns; /* 0: not yet */
    int n_yields;
    int64_t pause_ns;
} lks__mpi_idler;

/** Waits a little, longer the more often it is called. Not under the lock. */
void lks__mpi_idle(lks__mpi_idler *idler);

/** While joining: sends `bytes` to every process and receives theirs, all[wire size]. Returns: LKS_OK;
 * LKS_E_TIMEOUT, LKS_E_PEER. */
lks_status lks__mpi_tell_all(lks__wire *wire, int64_t timeout_ns, const void *own, size_t bytes,
                             void *all) LKS_MUST_USE;

#endif
