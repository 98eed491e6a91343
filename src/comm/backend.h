/* SPDX-License-Identifier: Apache-2.0 */
/** What a backend is: a table of functions. A backend's member has lks_group as its first field.
 *
 * group.c checks arguments, keeps the first failure, and calls the table; a backend never sees bad arguments
 * and is not called again after a failure (other than to destroy).
 */
#ifndef LKS_COMM_BACKEND_H
#define LKS_COMM_BACKEND_H

#include <lockstep/group.h>

#include "comm/collective.h"

typedef struct lks__backend {
    /* Runs one operation to its end. Returns: LKS_OK; a failure that ends the group (LKS_E_PEER, _TIMEOUT,
     * _MISMATCH). */
    lks_status (*run)(lks_group *group, const lks_operation *operation);

    /* The same in steps. A task is the caller's storage; it is not in use before post, and not any more when
     * test or wait has returned something else than LKS_IN_PROGRESS, or any function such a failure. */
    size_t task_bytes;
    lks_status (*post)(lks_group *group, const lks_operation *operation, void *task);
    lks_status (*test)(lks_group *group, void *task);
    lks_status (*wait)(lks_group *group, void *task);

    /* colour < 0: takes part, and *out stays NULL */
    lks_status (*split)(lks_group *group, int colour, int key, lks_group **out);
    lks_status (*memory_create)(lks_group *group, size_t bytes, lks_group_memory **out);
    void (*memory_destroy)(lks_group_memory *memory);
    lks_group *(*node)(lks_group *group);     /* lks_group_node; NULL: the group itself */
    int (*failed_by)(const lks_group *group); /* lks_group_failed_by, after a failure; NULL: always -1 */
    void (*destroy)(lks_group *group);
} lks__backend;

enum { LKS__FAILURE_TEXT_BYTES = 1800 };

/** What a member has done so far, for tests and benchmarks. */
typedef struct lks__cost {
    uint64_t barriers;
    uint64_t read_bytes, written_bytes; /* of data */
} lks__cost;

struct lks_group {
    const lks__backend *backend;
    int rank;
    int size;
    lks__cost cost;     /* owner only; a backend that does not count leaves it alone */
    lks_status failure; /* the first one; LKS_OK: none */
    char failure_text[LKS__FAILURE_TEXT_BYTES];
    struct lks__wire *wire; /* a group over shared memory: that of its members' MPI job, closed with it */
};

struct lks_group_memory {
    const lks__backend *backend;
    int size;
    void *regions[]; /* [size]; NULL where a region has no bytes */
};

/** Notes for lks_group_failed_by(NULL) who noticed that this thread's lks_group_create fails. */
void lks__group_create_failed(int rank);

/** A group of one: nothing to share, nothing to wait for. */
lks_status lks__solo_create(lks_group **out) LKS_MUST_USE;

/** Members on one machine, over shared memory: config->size >= 2 and checked. */
lks_status lks__shm_create(const lks_group_config *config, lks_group **out) LKS_MUST_USE;
lks_status lks__shm_create_threads(int size, double timeout_s, lks_group **members) LKS_MUST_USE;

/** Whether it has been poisoned, known to this member or not. */
bool lks__shm_has_failed(const lks_group *group);

#endif
