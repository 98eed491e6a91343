/* SPDX-License-Identifier: Apache-2.0 */
/** A wire: messages between the processes of a job that may run on several machines. It is all that groups
 * need of MPI, in types of our own: the algorithms know no mpi.h, a plug-in for each MPI is built from one
 * small file and loaded at run time, and tests run the algorithms over a wire between threads.
 *
 * This header is the plug-in's interface: it includes nothing but the public types.
 *
 * Thread: a wire is used by one thread at a time; which one may change (MPI_THREAD_SERIALIZED).
 */
#ifndef LKS_COMM_WIRE_H
#define LKS_COMM_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lockstep/group.h>
#include <lockstep/status.h>

enum {
    LKS__WIRE_VERSION = 1,
    LKS__WIRE_ANY = -1,            /* recv: from any process */
    LKS__WIRE_TAGS = 1 << 20,      /* tags are 0 .. LKS__WIRE_TAGS - 1 */
    LKS__WIRE_MAX_BYTES = 1 << 30, /* of a message */
    LKS__WIRE_ERROR_BYTES = 512,
};

/** A message or an operation under way: the caller's storage, which stays where it is until it is done. */
typedef struct lks__wire_request {
    uint64_t handle;
} lks__wire_request;

/** What has come. */
typedef struct lks__wire_arrival {
    size_t bytes;
    int from;
} lks__wire_arrival;

typedef struct lks__wire lks__wire;

/** Every function that can fail writes what went wrong to wire->error and returns LKS_E_PEER.
 *
 * Messages with the same sender, receiver and tag are matched in the order of their calls. Nothing is
 * guaranteed to move unless test is called for something. */
typedef struct lks__wire_backend {
    /* Buffers are borrowed until the request is done. 0 <= bytes <= LKS__WIRE_MAX_BYTES. */
    lks_status (*send)(lks__wire *wire, const void *data, size_t bytes, int to, int tag,
                       lks__wire_request *request);
    /* A message longer than capacity_bytes is an error. */
    lks_status (*recv)(lks__wire *wire, void *data, size_t capacity_bytes, int from, int tag,
                       lks__wire_request *request);
    /* LKS_OK: done (arrival, if not NULL, is set for a recv); LKS_IN_PROGRESS; LKS_E_PEER. */
    lks_status (*test)(lks__wire *wire, lks__wire_request *request, lks__wire_arrival *arrival);
    /* Gives up a recv; its buffer is the caller's again. */
    void (*cancel)(lks__wire *wire, lks__wire_request *request);
    /* Starts the wire's own all_reduce over all processes, whose order of additions is its own: sums and
     * products of f32, f64, i32 and i64, min and max of whole numbers; in may be out. NULL: has none.
     * LKS_E_ARG: none of these (nothing started). */
    lks_status (*all_reduce)(lks__wire *wire, const void *in, void *out, size_t count, lks_dtype dtype,
                             lks_op op, lks__wire_request *request);
    /* Ends the wire. After a failure (failed) nobody is waited for, and the process should end soon. */
    void (*close)(lks__wire *wire, bool failed);
} lks__wire_backend;

/** A plug-in's own has this as its first field. */
struct lks__wire {
    const lks__wire_backend *backend;
    int rank, size;
    int machine;   /* the lowest rank of those on this process's machine */
    char name[64]; /* "Open MPI 4.1.4" */
    char error[LKS__WIRE_ERROR_BYTES];
};

/** What a plug-in exports, under the name LKS__WIRE_OPEN_NAME: joins the job that a launcher has started this
 * process for. Collective. Returns LKS_OK, or LKS_E_SYSTEM or LKS_E_ARG with what is wrong in error. */
typedef lks_status lks__wire_open_fn(int version, char error[LKS__WIRE_ERROR_BYTES], lks__wire **out);
#define LKS__WIRE_OPEN_NAME "lks_wire_open"

#endif
