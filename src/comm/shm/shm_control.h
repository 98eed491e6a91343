/* SPDX-License-Identifier: Apache-2.0 */
/** What the members of a group share: the layout of the start of the memory file.
 *
 * All zero is the valid initial state, so an empty file is enough to start from. comm/README.md describes
 * the protocol.
 */
#ifndef LKS_COMM_SHM_CONTROL_H
#define LKS_COMM_SHM_CONTROL_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"
#include "comm/collective.h"

enum {
    LKS__SHM_VERSION = 3,
    LKS__PAGE_BYTES = 4096,
    LKS__LINE_BYTES = 128, /* two cache lines: processors fetch them in pairs */
    LKS__SHM_TEXT_BYTES = 1520,
    LKS__SHM_RECORDS = 3,       /* failure records per member: of its own thread, its watcher, its engine */
    LKS__STAGE_BYTES = 1 << 18, /* one half of a member's staging area */
    LKS__STAGE_HALVES = 2,
    LKS__MAIL_BYTES = 1 << 18, /* of a member's messages under way, for all receivers together */
    LKS__MAIL_SLOTS = 4,       /* pieces of messages on their way from one member to another */
};

/* The barrier's word. Everything that can decide a barrier is a read-modify-write of this one word, so all
 * members see the same order of events: it cannot be passed for one member and failed for another. */
#define LKS__WORD_ARRIVED        UINT32_C(0x000003ff) /* members that have come in this generation */
#define LKS__WORD_LEFT           UINT32_C(0x00000400) /* a member has left: no barrier can complete any more */
#define LKS__WORD_POISON         UINT32_C(0x00000800) /* the group has failed: `poisoner` says how */
#define LKS__WORD_SLEEPING       UINT32_C(0x00001000) /* someone sleeps on the word */
#define LKS__WORD_GENERATION     UINT32_C(0xffffe000) /* completed barriers, modulo 2^19 */
#define LKS__WORD_ONE_GENERATION UINT32_C(0x00002000)

typedef enum lks__shm_state { LKS__SHM_ABSENT, LKS__SHM_JOINED, LKS__SHM_LEFT } lks__shm_state;

/** One member. Written by the member only, after it has claimed the slot by setting `pid`. */
typedef struct lks__shm_slot {
    /* What the others read in every barrier. It changes only when the member asks for something else than
     * before, so that in a run of equal operations these lines stay in every member's cache. */
    _Atomic int32_t pid;        /* 0: free */
    _Atomic uint32_t state;     /* lks__shm_state */
    _Atomic uint64_t what;      /* the signature of its present or last operation */
    _Atomic uint64_t count;     /* same */
    _Atomic uint64_t offers[2]; /* numbers that the member tells the others, in turns */
    char pad[LKS__LINE_BYTES - 2 * sizeof(uint32_t) - 4 * sizeof(uint64_t)];

    _Atomic uint64_t arrivals;    /* barriers that the member has come to; read when someone is missing */
    _Atomic uint32_t has_mail;    /* 1: its channels have memory */
    _Atomic uint32_t family_rank; /* its rank in the first group of the family */
    /* For messages about failures, see shm_blame.c: the operation that it finished last, */
    _Atomic uint64_t finished_what, finished_count; /* its signature, */
    _Atomic uint64_t finished; /* and 1 + how many collectives it had finished by then; 0: none */
    /* and, in the first group of a family, what it sleeps in. */
    _Atomic uint64_t waits_in; /* 1 + where the group's control block starts in the file; 0: nowhere */
    _Atomic uint64_t waits_what, waits_count; /* the operation's signature */
    char pad_arrivals[LKS__LINE_BYTES - 7 * sizeof(uint64_t) - 2 * sizeof(uint32_t)];

    _Atomic uint32_t bell; /* rung by others: see shm_bell.c; futex */
    char pad_bell[LKS__LINE_BYTES - sizeof(uint32_t)];
} lks__shm_slot;

_Static_assert(sizeof(lks__shm_slot) == 3 * LKS__LINE_BYTES, "slots share no line");
_Static_assert(offsetof(lks__shm_slot, arrivals) == LKS__LINE_BYTES, "arrivals have a line of their own");
_Static_assert(offsetof(lks__shm_slot, bell) == 2 * LKS__LINE_BYTES, "the bell has a line of its own");

/** Messages from one member to another: a ring of LKS__MAIL_SLOTS pieces. */
typedef struct lks__shm_channel {
    _Atomic uint64_t sent; /* pieces; written by the sender only */
    char pad_sent[LKS__LINE_BYTES - sizeof(uint64_t)];
    _Atomic uint64_t taken; /* same; by the receiver only */
    char pad_taken[LKS__LINE_BYTES - sizeof(uint64_t)];
} lks__shm_channel;

/** A piece of a message; its data follow. */
typedef struct lks__shm_piece {
    uint64_t what, count; /* of the first piece: the signature of the send */
    char pad[64 - 2 * sizeof(uint64_t)];
} lks__shm_piece;

_Static_assert(sizeof(lks__shm_piece) == 64, "data start on a cache line");

/** How the group failed; complete before its number appears in `poisoner`, and not changed after that. */
typedef struct lks__shm_record {
    int32_t status; /* lks_status */
    int32_t author; /* the rank that noticed */
    int32_t by; /* 1 + the process that noticed, where groups reach over machines (comm/mpi); 0: not said */
    int32_t unused;
    char text[LKS__SHM_TEXT_BYTES];
} lks__shm_record;

_Static_assert(sizeof(lks__shm_record) == 12 * LKS__LINE_BYTES, "no padding");

typedef struct lks__shm_control {
    _Atomic uint32_t version;    /* LKS__SHM_VERSION, set by the first to come */
    _Atomic uint32_t size;       /* members; same */
    _Atomic uint64_t handed_out; /* of the file's first group: bytes behind it that have been given away */
    _Atomic uint32_t crowded;    /* 1: a member has no core of its own; final after the first barrier */
    char pad_identity[LKS__LINE_BYTES - 3 * sizeof(uint32_t) - sizeof(uint64_t)];

    _Atomic uint32_t word;     /* LKS__WORD_...; futex */
    _Atomic uint32_t poisoner; /* 1 + index of the record that counts; 0: none */
    _Atomic uint32_t n_left;   /* members that have left */
    _Atomic uint32_t outsider; /* 1: the outsider's record is taken */
    char pad_word[LKS__LINE_BYTES - 4 * sizeof(uint32_t)];

    lks__shm_record outsider_record; /* record 0: of one who could not become a member */
    lks__shm_slot
        slots[]; /* [size], then [size * LKS__SHM_RECORDS] records, then staging on a page boundary */
} lks__shm_control;

_Static_assert(offsetof(lks__shm_control, slots) <= LKS__PAGE_BYTES, "the first page holds all but slots");
_Static_assert(offsetof(lks__shm_control, word) == LKS__LINE_BYTES, "the word has a line of its own");
_Static_assert(offsetof(lks__shm_control, slots) == 14 * LKS__LINE_BYTES, "slots start on a line");
_Static_assert(LKS_GROUP_MAX_SIZE <= LKS__WORD_ARRIVED, "arrivals fit their field");

/* Offsets in the file; pure functions of the size of the group. */

static inline size_t lks__page_round(size_t bytes)
{
    return lks__round_up(bytes, LKS__PAGE_BYTES);
}

static inline size_t lks__shm_records_at(int size)
{
    return offsetof(lks__shm_control, slots) + (size_t)size * sizeof(lks__shm_slot);
}

/** Staging areas: first the inputs [size][halves], then the results [halves]. */
static inline size_t lks__shm_staging_at(int size)
{
    return lks__page_round(lks__shm_records_at(size) +
                           (size_t)size * LKS__SHM_RECORDS * sizeof(lks__shm_record));
}

static inline size_t lks__shm_control_bytes(int size)
{
    return lks__shm_staging_at(size) + ((size_t)size + 1) * LKS__STAGE_HALVES * LKS__STAGE_BYTES;
}

/** Channels: of every sender [size] channels by receiver, then [size][slots] pieces. They get memory when the
 * sender sends its first message. */
static inline size_t lks__shm_piece_bytes(int size)
{
    return LKS__MAIL_BYTES / LKS__MAIL_SLOTS / (size_t)size / sizeof(lks__shm_piece) * sizeof(lks__shm_piece);
}

_Static_assert(LKS__MAIL_BYTES / LKS__MAIL_SLOTS / LKS_GROUP_MAX_SIZE >= 2 * sizeof(lks__shm_piece),
               "a piece has data in the largest group");

static inline size_t lks__shm_channels_bytes(int size)
{
    return lks__page_round((size_t)size * sizeof(lks__shm_channel));
}

static inline size_t lks__shm_mail_bytes(int size)
{
    return lks__shm_channels_bytes(size) + LKS__MAIL_BYTES;
}

static inline size_t lks__shm_mail_at(int size, int sender)
{
    return lks__shm_control_bytes(size) + (size_t)sender * lks__shm_mail_bytes(size);
}

/** All that every group has, whether there is memory behind it or not. */
static inline size_t lks__shm_fixed_bytes(int size)
{
    return lks__shm_mail_at(size, size);
}

#endif
