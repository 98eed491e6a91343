/* SPDX-License-Identifier: Apache-2.0 */
/** One member of a group over several machines, and what the files of this folder do for it.
 *
 * All that a process has under way is guarded by one lock, its engine's: functions here are called under it,
 * unless they say otherwise. comm/README.md describes the protocol. */
#ifndef LKS_COMM_MPI_MEMBER_H
#define LKS_COMM_MPI_MEMBER_H

#include "comm/backend.h"
#include "comm/mpi/mpi_board.h"
#include "comm/mpi/mpi_engine.h"
#include "comm/mpi/mpi_map.h"
#include "comm/mpi/wire.h"

typedef struct lks__mpi_member lks__mpi_member;
typedef struct lks__mpi_task lks__mpi_task;
typedef struct lks__mpi_part lks__mpi_part;

/* ---- algorithms ---- */

typedef void lks__mpi_step(lks__mpi_member *self, lks__mpi_part *part);

/** How an operation goes, part by part. NULL: nothing to do. Steps that send or receive start to do so; the
 * next one comes when all is done. A step that fails ends the engine. */
typedef struct lks__mpi_algorithm {
    bool in_rows;         /* a part is a share of every row */
    bool reads_places;    /* inputs in group memory are read where they are */
    bool always_stages;   /* also where a machine has one member only, which could read its input */
    lks__mpi_step *stage; /* the own input, for the machine */

    /* of a small operation, by the leader: the machine's data into its hello; those of all hellos into
     * results */
    lks__mpi_step *pack, *unpack;
    /* of any other, behind a hello without data */
    lks__mpi_step *first, *second, *deliver;

    lks__mpi_step *fetch; /* from inputs and results of this machine */
} lks__mpi_algorithm;

/** The one for this operation, and whether it is small: the same on all members. */
const lks__mpi_algorithm *lks__mpi_algorithm_of(const lks__mpi_member *self, const lks_operation *operation,
                                                bool *small);

/* ---- operations under way ---- */

/** What the first piece of a message is: what was sent. */
typedef struct lks__mpi_envelope {
    lks__signature signature;
} lks__mpi_envelope;

/** A posted operation: the caller's storage. */
struct lks__mpi_task {
    const lks_operation *operation; /* checked; borrowed */
    lks_status status;              /* LKS_IN_PROGRESS while in a queue */
    lks__mpi_task *next;            /* in it */
    int64_t tested_ns;              /* when it was last tested; 0: not since it was posted */
    int64_t waited_ns;              /* between tests */
    uint64_t
        number; /* of a collective: how many of the group came before it; of a send: 1 + how many to there */

    /* of collectives */
    const lks__mpi_algorithm *algorithm;
    bool small;
    uint64_t memory, offset; /* where the input lies, and whether the result goes there: lks__mpi_entry */
    bool in_place;
    uint64_t n_parts, n_begun, n_done;
    size_t done; /* elements (of a row) of the parts that have begun */

    /* of messages */
    lks__mpi_envelope envelope;
    lks__wire_request envelope_request, data_request;
    bool envelope_flies, data_flies;
    bool started;
    size_t done_bytes; /* of which the transfer has ended or is under way */
};

typedef enum lks__mpi_state {
    LKS__MPI_AT_ENTRY, /* waits until all members of the machine have entered */
    LKS__MPI_AT_HELLO, /* until all machines have asked for the same */
    LKS__MPI_AT_FIRST, /* until what first() started is done */
    LKS__MPI_AT_SECOND,
    LKS__MPI_AT_FETCH, /* until all members of the machine have carried */
    LKS__MPI_DONE
} lks__mpi_state;

typedef struct lks__mpi_flight {
    lks__wire_request request;
    int rank; /* the other end; -1: all */
    bool is_recv;
} lks__mpi_flight;

/** One part of an operation: the elements [first, first + n) of the data, or of every row. */
struct lks__mpi_part {
    lks__mpi_task *task;
    uint64_t number;
    int place; /* number % LKS__MPI_WINDOW */
    size_t first, n;
    lks__mpi_state state;
    bool opens; /* the operation: its hello goes first */

    /* Known when all have entered: where the members' inputs lie, NULL: staged; whether results go there. */
    char *places[LKS_GROUP_MAX_SIZE]; /* [n_local]: the start of the data, not of the part */
    bool all_in_place;

    size_t packed_bytes; /* into the own hello */
    int n_flights;
    lks__mpi_flight *flights; /* [2 size]: a part has at most two with each other member */
    char *hellos;             /* of the leader: [n_machines] hellos */
    char *pieces;             /* [n_pieces] partial results of the own chunk */
    char *partials;           /* [n_carried][own pieces] partial results for others' chunks */
    char *own;                /* the own chunk's result, where nobody here needs it */
};

/* ---- the member ---- */

/** What a member knows of another one. */
typedef struct lks__mpi_peer {
    int pid;
    bool left;
    uint64_t collectives;            /* when it left: posted by it */
    uint64_t sent, received;         /* same: messages to and from this member */
    uint64_t sent_to, received_from; /* messages of this member to and from it that have begun */
} lks__mpi_peer;

struct lks__mpi_memory;

struct lks__mpi_member {
    lks_group group; /* first: a member is a group handle */
    lks__mpi_engine *engine;
    lks__mpi_member *next; /* of the engine's */
    lks_group *node;       /* this machine's members; owned */
    lks__mpi_map map;
    int processes[LKS_GROUP_MAX_SIZE]; /* [size]: ranks on the wire */
    uint64_t serial;                   /* of the group: 0 is the first one */
    bool has_core;                     /* every member of the machine has a core of its own */

    lks_group_memory *shared;
    lks__mpi_board *boards[LKS_GROUP_MAX_SIZE]; /* [n_local], in it */
    uint64_t seen[LKS__MPI_STAGES];   /* the smallest counters of the machine's members when looked at */
    struct lks__mpi_memory *memories; /* the handles of group memory */
    uint64_t n_memories;              /* made so far; equal on all members */

    lks__mpi_task *collectives, *messages; /* posted and not done, in the order of posts */
    uint64_t n_collectives;                /* posted so far */
    uint64_t n_begun, n_done;              /* parts */
    lks__mpi_part parts[LKS__MPI_WINDOW];
    size_t piece_bytes; /* of a partial result of a chunk, at most */
    void *buffers;      /* what the parts point to */
    uint64_t moves;     /* grows whenever something here has gone on */

    lks__mpi_peer *peers;            /* [size]: what is known of the others */
    int n_left;                      /* members that are known to have left */
    lks__signature *heard;           /* [n_machines]: of their last hellos; for people */
    lks__mpi_notice_head *farewells; /* [size] */
    lks__wire_request *farewell_requests;
    int n_farewells;
};

static inline lks__mpi_member *lks__mpi_member_of(lks_group *group)
{
    return (lks__mpi_member *)group;
}

/* ---- places ---- */

/** Where the part's elements of row `row` of a member of this machine are: in its memory, or staged. */
const char *lks__mpi_input(const lks__mpi_member *self, const lks__mpi_part *part, int local, int row);

/** The place in the own input area. */
char *lks__mpi_staged(const lks__mpi_member *self, const lks__mpi_part *part, int local, int row);

/** Where results for this machine go: a place that all its members see, or, where there is one, its out. */
char *lks__mpi_result(const lks__mpi_member *self, const lks__mpi_part *part, int row);

/** Where the part starts in row `row` of the caller's data, in bytes. */
static inline size_t lks__mpi_at(const lks__mpi_part *part, int row)
{
    const lks_operation *operation = part->task->operation;
    return ((size_t)row * operation->count + part->first) * lks__dtype_bytes(operation->dtype);
}

static inline size_t lks__mpi_bytes(const lks__mpi_part *part, size_t n)
{
    return n * lks__dtype_bytes(part->task->operation->dtype);
}

/** Elements (of a row) in a part of an operation. */
size_t lks__mpi_part_elems(const lks__mpi_member *self, const lks__mpi_algorithm *algorithm, lks_dtype dtype);

/* ---- what a part sends and receives ---- */

/* Messages of one kind between two members are matched in the order of parts: on both sides they start in the
 * same state, or all sends in one and all recvs in another. */
typedef enum lks__mpi_kind {
    LKS__MPI_HELLO,
    LKS__MPI_FIRST,
    LKS__MPI_SECOND,
    LKS__MPI_PASS, /* received in the first step, sent in the second */
    LKS__MPI_MESSAGE,
    LKS__MPI_JOIN,   /* of the first group */
    LKS__MPI_NOTICE, /* same */
    LKS__MPI_KINDS
} lks__mpi_kind;

int lks__mpi_tag(const lks__mpi_member *self, lks__mpi_kind kind);

void lks__mpi_send(lks__mpi_member *self, lks__mpi_part *part, lks__mpi_kind kind, int rank, const void *data,
                   size_t bytes);
void lks__mpi_recv(lks__mpi_member *self, lks__mpi_part *part, lks__mpi_kind kind, int rank, void *data,
                   size_t bytes);
/** Starts the wire's own all_reduce. */
void lks__mpi_start_all_reduce(lks__mpi_member *self, lks__mpi_part *part);

/* ---- hellos ---- */

enum { LKS__MPI_PAYLOAD_BYTES = 8192 }; /* data of a small operation that one machine says to the others */

/** Starts the exchange of hellos, with the data of a small operation. */
void lks__mpi_say_hello(lks__mpi_member *self, lks__mpi_part *part);
/** All are there: compares what the machines asked for. A difference ends the engine. */
void lks__mpi_hear_hellos(lks__mpi_member *self, lks__mpi_part *part);
/** The data of a machine's hello. */
char *lks__mpi_payload(const lks__mpi_member *self, const lks__mpi_part *part, int machine);
size_t lks__mpi_hello_bytes(void);

/* ---- going on ---- */

/** Goes on with all that this member has posted, as far as it goes without waiting. */
void lks__mpi_work(lks__mpi_member *self);

/** Goes on with a message; what becomes of it is the task's status. */
void lks__mpi_work_on_message(lks__mpi_member *self, lks__mpi_task *task);
/** Takes back what it receives. */
void lks__mpi_end_message(lks__mpi_member *self, lks__mpi_task *task);

/** Takes back what is under way, with this failure. */
void lks__mpi_end_tasks(lks__mpi_member *self, lks_status failure);

/** Runs an operation that is the group's own: every member says `count` numbers, and gets all[size][count].
 * Not under the lock. */
lks_status lks__mpi_exchange(lks__mpi_member *self, lks_collective collective, const uint64_t *own,
                             size_t count, uint64_t *all) LKS_MUST_USE;

/** An exchange after which all know whether all succeeded; `own` is this member's status. Its message, if
 * any, is the one that it returns; the others return LKS_E_NOMEM. Not under the lock. */
lks_status lks__mpi_all_succeeded(lks__mpi_member *self, lks_collective collective,
                                  lks_status own) LKS_MUST_USE;

/* ---- failures ---- */

/** The failure of the engine, with the message set for `operation`, in which this member was or was not
 * waiting. */
lks_status lks__mpi_failure(const lks__mpi_member *self, const lks_operation *operation, bool waited);

/** "rank 2 (process 7)". Returns out. */
enum { LKS__MPI_WHO_BYTES = 64 };
const char *lks__mpi_who(const lks__mpi_member *self, int rank, char out[LKS__MPI_WHO_BYTES]);

/** Ends the engine because the wire says so of its connection to that member (-1: to all). */
void lks__mpi_fail_wire(lks__mpi_member *self, int rank);

/** Ends the engine because a member has left that is needed. */
void lks__mpi_fail_left(lks__mpi_member *self, int rank);

/** Tells the others of the group that this member leaves it. Not under the lock. */
void lks__mpi_leave(lks__mpi_member *self);

/* ---- members ---- */

/** The memory that the members of a machine share. Collective on the machine. Not under the lock. */
lks_status lks__mpi_share(lks_group *node, lks_group_memory **out) LKS_MUST_USE;

/** A member of a group of the engine, as yet of the first one, and not among the engine's. Takes `node` and
 * `shared` over, also when it fails. Not under the lock. */
lks_status lks__mpi_member_create(lks__mpi_engine *engine, lks_group *node, lks_group_memory *shared,
                                  const lks__mpi_map *map, lks__mpi_member **out) LKS_MUST_USE;

/** Puts it among the engine's, and takes it out. Not under the lock. */
void lks__mpi_member_add(lks__mpi_member *self);
void lks__mpi_member_remove(lks__mpi_member *self);

void lks__mpi_member_free(lks__mpi_member *self); /* NULL is fine */

/** The backend's functions (backend.h). */
lks_status lks__mpi_run(lks_group *group, const lks_operation *operation) LKS_MUST_USE;
lks_status lks__mpi_post(lks_group *group, const lks_operation *operation, void *task) LKS_MUST_USE;
lks_status lks__mpi_test(lks_group *group, void *task) LKS_MUST_USE;
lks_status lks__mpi_wait(lks_group *group, void *task) LKS_MUST_USE;
lks_status lks__mpi_split(lks_group *group, int colour, int key, lks_group **out) LKS_MUST_USE;
lks_status lks__mpi_memory_create(lks_group *group, size_t bytes, lks_group_memory **out) LKS_MUST_USE;
void lks__mpi_memory_destroy(lks_group_memory *memory);

/** Where the input lies, if it is in the own region of group memory: lks__mpi_entry's memory and offset. */
void lks__mpi_locate(const lks__mpi_member *self, const void *data, size_t bytes, uint64_t *memory,
                     uint64_t *offset);
/** And back, for a member of this machine; NULL: this member has no handle of it. */
char *lks__mpi_address(const lks__mpi_member *self, int local, uint64_t memory, uint64_t offset);

extern const lks__backend lks__mpi_backend;

#endif
