/* SPDX-License-Identifier: Apache-2.0 */
/** Process groups: members that take part in collective operations.
 *
 * A member of a group is a handle. Processes hold one each; the threads of one process may hold one each as
 * well (lks_group_create_threads). Every collective must be called by every member, in the same order, with
 * matching arguments; members compare what they asked for, and a mismatch is an error on all of them. A
 * handle and its requests are used by one thread at a time.
 *
 * After the first failure a group is poisoned: every further call returns that failure.
 */
#ifndef LOCKSTEP_GROUP_H
#define LOCKSTEP_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lockstep/export.h>
#include <lockstep/status.h>

LKS_BEGIN_DECLS

typedef struct lks_group lks_group;

typedef enum lks_dtype {
    LKS_F32,
    LKS_F64,
    LKS_I32,
    LKS_I64,
    LKS_U8,
    LKS_BF16, /* the upper 16 bits of an f32, as uint16_t; reduced in f32 and rounded once */
} lks_dtype;

typedef enum lks_op {
    LKS_SUM,
    LKS_MEAN, /* sum / size; floating-point types only */
    LKS_MAX,  /* passes NaN on */
    LKS_MIN,  /* passes NaN on */
    LKS_PROD,
} lks_op;

/** The operations. `P` is the size of the group; the shapes are those of lks_operation's in and out. */
typedef enum lks_collective {
    LKS_BARRIER,
    LKS_ALL_REDUCE,     /* in [n], out [n] */
    LKS_BROADCAST,      /* in [n] of the root, out [n] of the others */
    LKS_REDUCE,         /* in [n], out [n] of the root */
    LKS_ALL_GATHER,     /* in [n], out [P, n]: row r is rank r's */
    LKS_REDUCE_SCATTER, /* in [P, n], out [n]: rank r gets row r of the reduction */
    LKS_GATHER,         /* in [n], out [P, n] of the root */
    LKS_SCATTER,        /* in [P, n] of the root, out [n]: rank r gets row r */
    LKS_ALL_TO_ALL,     /* in [P, n], out [P, n]: row r of rank s's out is row s of rank r's in */
    LKS_SEND,           /* in [n] */
    LKS_RECV,           /* out [n] */
} lks_collective;

/** An operation as data. Fields that it does not use are not looked at. */
typedef struct lks_operation {
    lks_collective collective;
    lks_dtype dtype;
    lks_op op;      /* of all_reduce, reduce, reduce_scatter */
    int root;       /* of broadcast, reduce, gather, scatter; of send and recv: the other rank */
    size_t count;   /* n: elements; 0 is fine, and so are sizes beyond 2^31 bytes */
    const void *in; /* borrowed until the operation is done */
    void *out;      /* same */
} lks_operation;

enum { LKS_GROUP_MAX_SIZE = 256 }; /* members of a group at most */

/** How the members reach each other. */
typedef enum lks_backend {
    LKS_BACKEND_SHM, /* shared memory: all are on one machine */
    LKS_BACKEND_MPI, /* the processes of an MPI job, on one machine or several; those of one machine use
                        shared memory among themselves */
} lks_backend;

typedef struct lks_group_config {
    lks_backend backend;
    bool fast; /* mpi: all_reduce between machines as the MPI library does it: in another order of additions,
                  so the bits depend on how many machines there are */
    int rank;  /* 0 .. size - 1; mpi: this and the rest, but for timeout_s, are not looked at */
    int size;  /* 1 .. LKS_GROUP_MAX_SIZE */
    int fd;    /* an inherited memory file that all members share (LOCKSTEP_GROUP_FD); -1: meet at a socket */
    const char *address; /* MASTER_ADDR: names the meeting place when fd is -1; borrowed during create */
    int port;            /* MASTER_PORT: same */
    double timeout_s;    /* deadline of every wait, in seconds really slept; 300 */
} lks_group_config;

/** A group of one, with the default timeout. */
LKS_API lks_group_config lks_group_config_default(void);

/** Fills a config from RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT and
 * LOCKSTEP_GROUP_FD; without RANK from what mpirun, mpiexec or srun say about a job of several processes,
 * which makes the backend LKS_BACKEND_MPI; else the result is a group of one.
 *
 * Returns: LKS_OK; LKS_E_ARG when a variable is missing or makes no sense (the message names it), or when
 *          LOCAL_WORLD_SIZE differs from WORLD_SIZE: several machines need an MPI launcher.
 */
LKS_API lks_status lks_group_config_from_env(lks_group_config *out) LKS_MUST_USE;

/** Joins a group.
 *
 * Collective: every member; returns when all are there.
 * MPI:        initialises MPI (MPI_THREAD_SERIALIZED) unless the program has, and finalises it when the
 *             process exits, unless the last group has failed. One such group at a time; split it for more.
 *             While a group on several machines lives, a thread of its own calls MPI: a program that does so
 *             too has to initialise MPI for that (MPI_THREAD_MULTIPLE).
 * Ownership:  the caller destroys *out; on failure *out is NULL.
 * Returns:    LKS_OK; LKS_E_ARG; LKS_E_TIMEOUT (the message names who is missing); LKS_E_SYSTEM; LKS_E_NOMEM.
 */
LKS_API lks_status lks_group_create(const lks_group_config *config, lks_group **out) LKS_MUST_USE;

/** Makes a group of `size` members for `size` threads of this process: members[r] is for the thread that
 * plays rank r.
 *
 * Not collective: one thread calls it and hands the members out. Each member is destroyed by
 * lks_group_destroy.
 */
LKS_API lks_status lks_group_create_threads(int size, double timeout_s, lks_group **members) LKS_MUST_USE;

/** The members on this member's machine, as a group: its ranks follow the ranks here. With all members on one
 * machine that is the group itself.
 *
 * Ownership: borrowed, as long as the group lives. It shares the group's fate, as parts do (lks_group_split).
 */
LKS_API lks_group *lks_group_node(lks_group *group);

/** Leaves the group and frees the handle. NULL is fine.
 *
 * Not collective. A member that waits for one that has left gets LKS_E_PEER.
 */
LKS_API void lks_group_destroy(lks_group *group);

LKS_API int lks_group_rank(const lks_group *group);
LKS_API int lks_group_size(const lks_group *group);

/** The rank of the member that noticed the failure by which the group is poisoned, and told the others; the
 * same on all members. -1: the group has not failed, or no member did so. NULL stands for this thread's last
 * lks_group_create, which has failed. */
LKS_API int lks_group_failed_by(const lks_group *group);

/** Reduces `count` elements over all members; every member gets the result in place.
 *
 * Elements are added in the fixed binary tree over ranks (docs/numerics.md), so the result depends on the
 * size and the data only, not on timing (but see lks_group_config's fast). Collective. Returns: LKS_OK;
 * LKS_E_ARG (bad type or operation; nothing sent); LKS_E_PEER; LKS_E_TIMEOUT; LKS_E_MISMATCH. After a failure
 * the contents of data are undefined.
 */
LKS_API lks_status lks_group_all_reduce(lks_group *group, void *data, size_t count, lks_dtype dtype,
                                        lks_op op) LKS_MUST_USE;

/** Copies `count` elements of the root's data to every member. Collective. Returns as all_reduce. */
LKS_API lks_status lks_group_broadcast(lks_group *group, void *data, size_t count, lks_dtype dtype,
                                       int root) LKS_MUST_USE;

/** Reduces as all_reduce, to the root; the others' data stays as it is. Collective. Returns as all_reduce. */
LKS_API lks_status lks_group_reduce(lks_group *group, void *data, size_t count, lks_dtype dtype, lks_op op,
                                    int root) LKS_MUST_USE;

/** Gives every member what all have: row r of out is rank r's in.
 *
 * In place: in may be the own row of out.
 * Shapes: in [count], out [size, count]. Collective. Returns as all_reduce.
 */
LKS_API lks_status lks_group_all_gather(lks_group *group, const void *in, void *out, size_t count,
                                        lks_dtype dtype) LKS_MUST_USE;

/** Reduces as all_reduce and gives rank r row r of the result.
 *
 * In place: out may be any row of in; in is then undefined but for that row.
 * Shapes: in [size, count], out [count]. Collective. Returns as all_reduce.
 */
LKS_API lks_status lks_group_reduce_scatter(lks_group *group, const void *in, void *out, size_t count,
                                            lks_dtype dtype, lks_op op) LKS_MUST_USE;

/** Gives the root what all have: row r of its out is rank r's in. The others' out is not used.
 *
 * In place: the root's in may be the own row of out.
 * Shapes: in [count], out [size, count]. Collective. Returns as all_reduce.
 */
LKS_API lks_status lks_group_gather(lks_group *group, const void *in, void *out, size_t count,
                                    lks_dtype dtype, int root) LKS_MUST_USE;

/** Gives rank r row r of the root's in. The others' in is not used.
 *
 * In place: the root's out may be the own row of in.
 * Shapes: in [size, count], out [count]. Collective. Returns as all_reduce.
 */
LKS_API lks_status lks_group_scatter(lks_group *group, const void *in, void *out, size_t count,
                                     lks_dtype dtype, int root) LKS_MUST_USE;

/** Gives row s of rank r's in to rank s, as row r of its out.
 *
 * In place: out may be in.
 * Shapes: in, out [size, count]. Collective. Returns as all_reduce.
 */
LKS_API lks_status lks_group_all_to_all(lks_group *group, const void *in, void *out, size_t count,
                                        lks_dtype dtype) LKS_MUST_USE;

/** Returns when every member has called it. What members wrote before it, all can read after it. Collective.
 */
LKS_API lks_status lks_group_barrier(lks_group *group) LKS_MUST_USE;

/** Sends `count` elements to rank `to`. Messages between two members arrive in the order in which they were
 * sent; receiver and sender must agree on type and count. A short message may be on its way when this
 * returns, a long one has been received but for its end: don't rely on either.
 *
 * Not collective. Returns as all_reduce, or LKS_E_NOMEM (no memory for messages; nothing sent). A group that
 * sends no messages has no memory for them.
 */
LKS_API lks_status lks_group_send(lks_group *group, const void *data, size_t count, lks_dtype dtype,
                                  int to) LKS_MUST_USE;

/** Receives what rank `from` sends. Not collective. Returns as all_reduce. */
LKS_API lks_status lks_group_recv(lks_group *group, void *data, size_t count, lks_dtype dtype,
                                  int from) LKS_MUST_USE;

/** Runs any operation and returns when it is done for this member; the functions above are short for it.
 *
 * In place: as they say; all_reduce and reduce also take an out apart from in.
 * Collective, but for send and recv. Returns: LKS_OK; LKS_E_ARG (nothing sent); LKS_E_PEER; LKS_E_TIMEOUT;
 * LKS_E_MISMATCH.
 */
LKS_API lks_status lks_group_run(lks_group *group, const lks_operation *operation) LKS_MUST_USE;

/** Makes a group of the members that pass the same colour, as MPI_Comm_split does. Its ranks follow the keys,
 * and where those are equal the ranks here. With a colour below 0 a member takes part and gets no group: *out
 * is NULL.
 *
 * The new group is a group in every respect, with operations, memory and splits of its own beside those of
 * this one. They share their fate: when one of them fails, so do all that come from the same first group,
 * within 0.1 s or with their next call; only one that has a single member may go on.
 * Collective. Ownership: the caller destroys *out, before this group. Returns: LKS_OK; LKS_E_NOMEM on every
 * member (this group goes on); failures of the group.
 */
LKS_API lks_status lks_group_split(lks_group *group, int colour, int key, lks_group **out) LKS_MUST_USE;

/** An operation that is made once and posted many times. */
typedef struct lks_request lks_request;

/** Makes a request of an operation, which is copied; its buffers are borrowed while it is posted.
 *
 * Not collective. Ownership: the caller destroys *out, before the group. Returns: LKS_OK; LKS_E_ARG;
 * LKS_E_NOMEM.
 */
LKS_API lks_status lks_request_create(lks_group *group, const lks_operation *operation,
                                      lks_request **out) LKS_MUST_USE;

/** Frees the request; one that is posted is waited for. NULL is fine. */
LKS_API void lks_request_destroy(lks_request *request);

/** Starts the request's operation and returns before it is done.
 *
 * Several may be posted at a time. Posted collectives and those of the blocking functions are one sequence,
 * which must be the same on every member; a blocking one finishes those that were posted before it. Messages
 * to one member, and messages from one member, keep their order too; apart from that, messages neither wait
 * for collectives nor hold them up.
 *
 * Progress: a member works on its requests inside post, test, wait and the blocking functions. In a group on
 * several machines a thread goes on with them in between; on one machine there is none, so that a collective
 * needs all members in such a call now and then.
 * Returns:  LKS_OK; LKS_E_ARG: posted already (nothing changed); LKS_E_NOMEM: as send; a failure of the
 *           group, which then ends this request and all others.
 */
LKS_API lks_status lks_request_post(lks_request *request) LKS_MUST_USE;

/** Whether the request is done, after as much work on all requests as can be done without waiting.
 *
 * Returns: LKS_OK: done, or never posted; it may be posted again. LKS_IN_PROGRESS. Or a failure of the group;
 *          time between two tests counts for the deadline, at most 0.1 s each.
 */
LKS_API lks_status lks_request_test(lks_request *request) LKS_MUST_USE;

/** Waits until the request is done. Returns: LKS_OK or a failure of the group. */
LKS_API lks_status lks_request_wait(lks_request *request) LKS_MUST_USE;

/** Memory that every member of the machine can address: one region per member. In a group on several
 * machines each member sees the regions of its own.
 *
 * Reductions read inputs where they are when they lie in it, at any place of the own region, and an
 * all_reduce in place of which all members' data do makes no copies at all. Then every member needs its
 * handle as long as any uses the memory so. */
typedef struct lks_group_memory lks_group_memory;

/** Allocates `bytes` (may differ between members, may be 0) of zeroed shared memory for every member.
 *
 * Collective. Regions start on page boundaries.
 * Ownership:  every member destroys its handle, before the group.
 * Returns:    LKS_OK; LKS_E_NOMEM on every member when any region can't be reserved; failures of a barrier.
 */
LKS_API lks_status lks_group_memory_create(lks_group *group, size_t bytes,
                                           lks_group_memory **out) LKS_MUST_USE;

/** Frees the handle; the memory goes when the last member's handle has gone. Not collective. NULL is fine. */
LKS_API void lks_group_memory_destroy(lks_group_memory *memory);

/** The address of a member's region, in this process. NULL when its size is 0 or it is on another machine.
 * Reads and writes need a barrier between. */
LKS_API void *lks_group_memory_at(const lks_group_memory *memory, int rank);

LKS_END_DECLS

#endif
