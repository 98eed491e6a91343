/* SPDX-License-Identifier: Apache-2.0 */
/** Process groups: members that take part in collective operations.
 *
 * A member of a group is a handle. Processes hold one each; the threads of one process may hold one each as
 * well (lks_group_create_threads). Every collective must be called by every member, in the same order, with
 * matching arguments; members compare what they asked for, and a mismatch is an error on all of them.
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

typedef enum lks_dtype { LKS_F32, LKS_F64, LKS_I32, LKS_I64, LKS_U8 } lks_dtype;

typedef enum lks_op {
    LKS_SUM,
    LKS_MEAN, /* sum / size; floating-point types only */
    LKS_MAX,  /* passes NaN on */
} lks_op;

enum { LKS_GROUP_MAX_SIZE = 256 }; /* members of a group at most */

typedef struct lks_group_config {
    int rank; /* 0 .. size - 1 */
    int size; /* 1 .. LKS_GROUP_MAX_SIZE */
    int fd;   /* an inherited memory file that all members share (LOCKSTEP_GROUP_FD); -1: meet at a socket */
    const char *address; /* MASTER_ADDR: names the meeting place when fd is -1; borrowed during create */
    int port;            /* MASTER_PORT: same */
    double timeout_s;    /* deadline of every wait, in seconds really slept; 300 */
} lks_group_config;

/** A group of one, with the default timeout. */
LKS_API lks_group_config lks_group_config_default(void);

/** Fills a config from RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT and
 * LOCKSTEP_GROUP_FD.
 *
 * Without RANK the result is a group of one.
 * Returns: LKS_OK; LKS_E_ARG when a variable is missing or makes no sense (the message names it), or when
 *          LOCAL_WORLD_SIZE differs from WORLD_SIZE: several machines need a backend that is not built in.
 */
LKS_API lks_status lks_group_config_from_env(lks_group_config *out) LKS_MUST_USE;

/** Joins a group.
 *
 * Collective: every member; returns when all are there.
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

/** Leaves the group and frees the handle. NULL is fine.
 *
 * Not collective. A member that waits for one that has left gets LKS_E_PEER.
 */
LKS_API void lks_group_destroy(lks_group *group);

LKS_API int lks_group_rank(const lks_group *group);
LKS_API int lks_group_size(const lks_group *group);

/** The rank of the member that noticed the failure by which the group is poisoned, and told the others; the
 * same on all members. -1: the group has not failed, or no member did so. */
LKS_API int lks_group_failed_by(const lks_group *group);

/** Reduces `count` elements over all members; every member gets the result in place.
 *
 * Elements are added in the fixed binary tree over ranks (docs/numerics.md), so the result depends on the
 * size and the data only, not on timing. Collective. Returns: LKS_OK; LKS_E_ARG (bad type or operation;
 * nothing sent); LKS_E_PEER; LKS_E_TIMEOUT; LKS_E_MISMATCH. After a failure the contents of data are
 * undefined.
 */
LKS_API lks_status lks_group_all_reduce(lks_group *group, void *data, size_t count, lks_dtype dtype,
                                        lks_op op) LKS_MUST_USE;

/** Copies `count` elements of the root's data to every member. Collective. Returns as all_reduce. */
LKS_API lks_status lks_group_broadcast(lks_group *group, void *data, size_t count, lks_dtype dtype,
                                       int root) LKS_MUST_USE;

/** Returns when every member has called it. What members wrote before it, all can read after it. Collective.
 */
LKS_API lks_status lks_group_barrier(lks_group *group) LKS_MUST_USE;

/** Memory that every member of the machine can address: one region per member. */
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

/** The address of a member's region, in this process. NULL when its size is 0. Reads and writes need a
 * barrier between. */
LKS_API void *lks_group_memory_at(const lks_group_memory *memory, int rank);

LKS_END_DECLS

#endif
