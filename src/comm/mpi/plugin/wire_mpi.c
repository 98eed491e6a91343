/* SPDX-License-Identifier: Apache-2.0 */
/* The plug-in: a wire made of MPI. Built once for each MPI, from this file alone; it calls nothing of
 * lockstep.
 *
 * MPI can be initialised and finalised only once in a process, and finalising it waits for the other
 * processes. So it stays until the process ends, and closing a wire does not wait. */
#include "comm/mpi/wire.h"

#include <limits.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mpi.h>

_Static_assert(sizeof(MPI_Request) <= sizeof(uint64_t), "a handle holds a request");

enum { CANCEL_TESTS = 1000 * 1000, REST_BYTES = 4096 };

#ifdef OPEN_MPI
#define MPI_NAME "Open MPI"
#else
#define MPI_NAME "MPICH"
#endif

/* One at a time: MPI has been asked for calls of one thread at a time only, whatever they are about. */
static struct {
    lks__wire wire; /* first */
    MPI_Comm comm;
    bool joined; /* comm is one of ours */
    bool open;
    bool failed; /* the last one: nobody waits for the others any more */
} self;

/* Writes the text and MPI's own to `error`. */
static lks_status fail(char error[LKS__WIRE_ERROR_BYTES], lks_status status, int code, const char *what)
{
    char text[MPI_MAX_ERROR_STRING + 1] = "";
    int length = 0;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS || length <= 0)
        snprintf(text, sizeof text, "error %d", code);
    text[strcspn(text, "\n")] = '\0'; /* MPICH adds a stack */
    snprintf(error, LKS__WIRE_ERROR_BYTES, "%s: %.400s", what, text);
    return status;
}

/* ---- messages ---- */

static void keep(MPI_Request from, lks__wire_request *to)
{
    to->handle = 0;
    memcpy(&to->handle, &from, sizeof from);
}

static MPI_Request kept(const lks__wire_request *request)
{
    MPI_Request r;
    memcpy(&r, &request->handle, sizeof r);
    return r;
}

static lks_status mpi_send(lks__wire *wire, const void *data, size_t bytes, int to, int tag,
                           lks__wire_request *request)
{
    MPI_Request r;
    int code = MPI_Isend(data, (int)bytes, MPI_BYTE, to, tag, self.comm, &r);
    if (code != MPI_SUCCESS)
        return fail(wire->error, LKS_E_PEER, code, "MPI_Isend");
    keep(r, request);
    return LKS_OK;
}

static lks_status mpi_recv(lks__wire *wire, void *data, size_t capacity_bytes, int from, int tag,
                           lks__wire_request *request)
{
    MPI_Request r;
    int source = from == LKS__WIRE_ANY ? MPI_ANY_SOURCE : from;
    int code = MPI_Irecv(data, (int)capacity_bytes, MPI_BYTE, source, tag, self.comm, &r);
    if (code != MPI_SUCCESS)
        return fail(wire->error, LKS_E_PEER, code, "MPI_Irecv");
    keep(r, request);
    return LKS_OK;
}

static lks_status mpi_test(lks__wire *wire, lks__wire_request *request, lks__wire_arrival *arrival)
{
    int done = 0, bytes = 0;
    MPI_Status status;
    MPI_Request r = kept(request);
    int code = MPI_Test(&r, &done, &status);
    keep(r, request);
    if (code != MPI_SUCCESS)
        return fail(wire->error, LKS_E_PEER, code, "MPI_Test");
    if (!done)
        return LKS_IN_PROGRESS;
    if (arrival != NULL) {
        MPI_Get_count(&status, MPI_BYTE, &bytes);
        *arrival = (lks__wire_arrival){.bytes = (size_t)bytes, .from = status.MPI_SOURCE};
    }
    return LKS_OK;
}

/* A message that has begun to come in is not stopped by MPI_Cancel: it gets time to end. */
static void mpi_cancel(lks__wire *wire, lks__wire_request *request)
{
    (void)wire;
    MPI_Request r = kept(request);
    int done = 0;
    int code = MPI_Cancel(&r);
    for (int i = 0; i < CANCEL_TESTS && code == MPI_SUCCESS && !done; i++)
        code = MPI_Test(&r, &done, MPI_STATUS_IGNORE);
    if (r != MPI_REQUEST_NULL)
        MPI_Request_free(&r);
    keep(r, request);
}

/* ---- all_reduce ---- */

/* MPI says nothing of what the largest of a NaN and a number is. */
static bool has_reduction(lks_dtype dtype, lks_op op)
{
    bool whole = dtype == LKS_I32 || dtype == LKS_I64, real = dtype == LKS_F32 || dtype == LKS_F64;
    return op == LKS_SUM || op == LKS_PROD ? whole || real : whole && (op == LKS_MIN || op == LKS_MAX);
}

static MPI_Datatype datatype(lks_dtype dtype)
{
    switch (dtype) {
    case LKS_F32:
        return MPI_FLOAT;
    case LKS_F64:
        return MPI_DOUBLE;
    case LKS_I32:
        return MPI_INT32_T;
    default:
        return MPI_INT64_T;
    }
}

static MPI_Op operation(lks_op op)
{
    switch (op) {
    case LKS_SUM:
        return MPI_SUM;
    case LKS_PROD:
        return MPI_PROD;
    case LKS_MIN:
        return MPI_MIN;
    default:
        return MPI_MAX;
    }
}

static lks_status mpi_all_reduce(lks__wire *wire, const void *in, void *out, size_t count, lks_dtype dtype,
                                 lks_op op, lks__wire_request *request)
{
    if (!has_reduction(dtype, op) || count > INT_MAX)
        return LKS_E_ARG;
    MPI_Request r;
    int code = MPI_Iallreduce(in == out ? MPI_IN_PLACE : in, out, (int)count, datatype(dtype), operation(op),
                              self.comm, &r);
    if (code != MPI_SUCCESS)
        return fail(wire->error, LKS_E_PEER, code, "MPI_Iallreduce");
    keep(r, request);
    return LKS_OK;
}

/* ---- opening and closing ---- */

/* The communicator is not freed: its number would be given to the next one, and with it messages that nobody
 * has received. */
static void mpi_close(lks__wire *wire, bool failed)
{
    (void)wire;
    self.failed = failed;
    self.open = false;
}

static const lks__wire_backend backend = {
    .send = mpi_send,
    .recv = mpi_recv,
    .test = mpi_test,
    .cancel = mpi_cancel,
    .all_reduce = mpi_all_reduce,
    .close = mpi_close,
};

/* The farewell of a member may come when this one has left already. It is received at last, since MPI may
 * complain of what is not: MPICH on UCX does, on the terminal. */
static void receive_rest(void)
{
    char rest[REST_BYTES];
    int there = 0, bytes = 0;
    MPI_Status status;
    while (MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, self.comm, &there, &status) == MPI_SUCCESS && there) {
        MPI_Get_count(&status, MPI_BYTE, &bytes);
        if (bytes > REST_BYTES || MPI_Recv(rest, REST_BYTES, MPI_BYTE, status.MPI_SOURCE, status.MPI_TAG,
                                           self.comm, MPI_STATUS_IGNORE) != MPI_SUCCESS)
            return;
    }
}

/* Until all processes have come to their end, which MPI_Finalize waits for anyway. */
static void receive_rest_of_all(void)
{
    MPI_Request all;
    int done = 0, code = MPI_Ibarrier(self.comm, &all);
    while (code == MPI_SUCCESS && !done) {
        receive_rest();
        code = MPI_Test(&all, &done, MPI_STATUS_IGNORE);
        sched_yield();
    }
    receive_rest();
}

/* After a failure, or with a group still open, the others may never come to MPI_Finalize. A process that ends
 * without it makes the launcher end the rest. */
static void finalize_at_exit(void)
{
    int finalized = 0;
    if (self.open || self.failed || MPI_Finalized(&finalized) != MPI_SUCCESS || finalized)
        return;
    receive_rest_of_all();
    MPI_Finalize();
}

/* Over TCP, Open MPI asks the receiver before it sends more than 64 KiB. Parts of operations are sent to
 * those who wait for them, so that only takes time: on a link of 1 Gbit/s a quarter of it, with 1 ms of delay
 * half. What the user has set stays. */
static void send_at_once(void)
{
#ifdef OPEN_MPI
    setenv("OMPI_MCA_btl_tcp_eager_limit", "524288", 0);
#endif
}

/* Initialises MPI, unless the program has. */
static lks_status start_mpi(char error[LKS__WIRE_ERROR_BYTES])
{
    int initialized = 0, finalized = 0, level = MPI_THREAD_SINGLE;
    MPI_Initialized(&initialized);
    MPI_Finalized(&finalized);
    if (finalized) {
        snprintf(error, LKS__WIRE_ERROR_BYTES, "%s has been finalized in this process", MPI_NAME);
        return LKS_E_ARG;
    }
    if (initialized) {
        MPI_Query_thread(&level);
    } else {
        send_at_once();
        int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level);
        if (code != MPI_SUCCESS)
            return fail(error, LKS_E_SYSTEM, code, "MPI_Init_thread");
        MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
        if (atexit(finalize_at_exit) != 0) {
            snprintf(error, LKS__WIRE_ERROR_BYTES, "there is no memory to note that %s has to be finalized",
                     MPI_NAME);
            return LKS_E_SYSTEM;
        }
    }
    if (level < MPI_THREAD_SERIALIZED) {
        snprintf(error, LKS__WIRE_ERROR_BYTES,
                 "%s has been initialised without MPI_THREAD_SERIALIZED, which is needed", MPI_NAME);
        return LKS_E_ARG;
    }
    return LKS_OK;
}

/* The lowest rank of those that could share memory with this process. */
static int find_machine(int rank, int *out)
{
    MPI_Comm node;
    int code = MPI_Comm_split_type(self.comm, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &node);
    if (code != MPI_SUCCESS)
        return code;
    code = MPI_Allreduce(&rank, out, 1, MPI_INT, MPI_MIN, node);
    MPI_Comm_free(&node);
    return code;
}

static lks_status check_tags(char error[LKS__WIRE_ERROR_BYTES])
{
    int *highest = NULL, found = 0;
    MPI_Comm_get_attr(self.comm, MPI_TAG_UB, &highest, &found);
    if (found && *highest >= LKS__WIRE_TAGS - 1)
        return LKS_OK;
    snprintf(error, LKS__WIRE_ERROR_BYTES, "%s has too few tags: %d", MPI_NAME, found ? *highest : 0);
    return LKS_E_SYSTEM;
}

static void set_name(lks__wire *wire)
{
#ifdef OPEN_MPI
    snprintf(wire->name, sizeof wire->name, "%s %d.%d.%d", MPI_NAME, OMPI_MAJOR_VERSION, OMPI_MINOR_VERSION,
             OMPI_RELEASE_VERSION);
#else
    snprintf(wire->name, sizeof wire->name, "%s %s", MPI_NAME, MPICH_VERSION);
#endif
}

/* What has to happen on all processes. */
static lks_status join(char error[LKS__WIRE_ERROR_BYTES])
{
    lks__wire *wire = &self.wire;
    MPI_Comm comm;
    int code = MPI_Comm_dup(MPI_COMM_WORLD, &comm);
    if (code == MPI_SUCCESS && self.joined && !self.failed)
        receive_rest(); /* of the group before */
    if (code == MPI_SUCCESS) {
        self.comm = comm;
        self.joined = true;
    }
    if (code == MPI_SUCCESS)
        code = MPI_Comm_set_errhandler(self.comm, MPI_ERRORS_RETURN);
    if (code == MPI_SUCCESS)
        code = MPI_Comm_rank(self.comm, &wire->rank);
    if (code == MPI_SUCCESS)
        code = MPI_Comm_size(self.comm, &wire->size);
    if (code == MPI_SUCCESS)
        code = find_machine(wire->rank, &wire->machine);
    return code == MPI_SUCCESS ? LKS_OK : fail(error, LKS_E_SYSTEM, code, "joining the MPI job");
}

LKS_API lks__wire_open_fn lks_wire_open;

lks_status lks_wire_open(int version, char error[LKS__WIRE_ERROR_BYTES], lks__wire **out)
{
    *out = NULL;
    if (version != LKS__WIRE_VERSION) {
        snprintf(error, LKS__WIRE_ERROR_BYTES, "it is of another version of lockstep: its wire is %d, not %d",
                 LKS__WIRE_VERSION, version);
        return LKS_E_ARG;
    }
    if (self.open) {
        snprintf(error, LKS__WIRE_ERROR_BYTES, "this process is in a group over %s already", MPI_NAME);
        return LKS_E_ARG;
    }
    lks_status status = start_mpi(error);
    if (status == LKS_OK)
        status = join(error);
    if (status == LKS_OK)
        status = check_tags(error);
    self.failed = status != LKS_OK;
    if (status != LKS_OK)
        return status;
    self.wire.backend = &backend;
    set_name(&self.wire);
    self.open = true;
    *out = &self.wire;
    return LKS_OK;
}
