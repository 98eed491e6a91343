/* SPDX-License-Identifier: Apache-2.0 */
/** What operations cost: the table of src/comm/README.md ("Cost") as code, which shares no
 * arithmetic with src/. */
#ifndef LKS_BENCH_COMM_COST_H
#define LKS_BENCH_COMM_COST_H

#include <lockstep/group.h>

#include "comm/backend.h"

/** One operation, as one member sees it. */
typedef struct comm_case {
    lks_collective collective;
    int size, rank;
    bool is_root;  /* of send: the sender, of recv: the receiver */
    bool placed;   /* all members' inputs lie in group memory */
    bool in_place; /* the result goes where the input is: the same buffer, or the own row */
    uint64_t count, element_bytes;
} comm_case;

enum {
    COMM_STAGE_BYTES = 256 * 1024,
    COMM_LINE_BYTES = 64,
    /* Larger is not eager, smaller is; between the two it depends on the cores of an all_reduce. */
    COMM_EAGER_BYTES = 1024,
    COMM_NOT_EAGER_BYTES = 4096,
};

static inline uint64_t comm_row_bytes(int size) /* of a row in one piece: whole lines */
{
    return COMM_STAGE_BYTES / (uint64_t)size / COMM_LINE_BYTES * COMM_LINE_BYTES;
}

static inline uint64_t comm_least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t comm_pieces(uint64_t bytes, uint64_t piece)
{
    return bytes == 0 ? 1 : (bytes + piece - 1) / piece;
}

/* Where the chunk of a rank starts in a piece: equal parts, in elements, then up to a whole line. */
static inline uint64_t comm_chunk_start(uint64_t bytes, uint64_t element_bytes, int rank, int size)
{
    uint64_t even = bytes / element_bytes * (uint64_t)rank / (uint64_t)size * element_bytes;
    uint64_t start = (even + COMM_LINE_BYTES - 1) / COMM_LINE_BYTES * COMM_LINE_BYTES;
    return rank == size ? bytes : comm_least(start, bytes);
}

/* q: the bytes of which the member is the one that reduces them; about n / P. */
static inline uint64_t comm_own_chunks(const comm_case *c, uint64_t n, uint64_t piece)
{
    uint64_t q = 0;
    for (uint64_t at = 0; at < n; at += piece) {
        uint64_t bytes = comm_least(piece, n - at);
        q += comm_chunk_start(bytes, c->element_bytes, c->rank + 1, c->size) -
             comm_chunk_start(bytes, c->element_bytes, c->rank, c->size);
    }
    return q;
}

static inline lks__cost comm_cost(const comm_case *c)
{
    const uint64_t n = c->count * c->element_bytes, P = (uint64_t)c->size;
    const uint64_t m = comm_pieces(n, P * comm_row_bytes(c->size)),
                   m_rows = comm_pieces(n, comm_row_bytes(c->size));
    const uint64_t q = comm_own_chunks(c, n, P * comm_row_bytes(c->size));
    const uint64_t q_whole = comm_own_chunks(c, n, n > 0 ? n : 1); /* where there are no pieces */
    const uint64_t staged = c->placed ? 0 : n - q;                 /* the others' chunks */
    const uint64_t own = c->in_place ? 0 : n;                      /* what a member keeps */
    switch (c->collective) {
    case LKS_BARRIER:
        return (lks__cost){1, 0, 0};
    case LKS_ALL_REDUCE:
        if (n <= COMM_EAGER_BYTES)
            return (lks__cost){1, n + P * n, n + n};
        if (c->placed && c->in_place)
            return (lks__cost){2, P * q_whole + (P - 1) * q_whole, P * q_whole};
        return (lks__cost){m + 1, staged + P * q + q + (n - q), staged + 2 * q + (n - q)};
    case LKS_REDUCE:
        if (n <= COMM_NOT_EAGER_BYTES)
            return c->is_root ? (lks__cost){1, n + P * n, n + n} : (lks__cost){1, n, n};
        return c->is_root ? (lks__cost){m + 1, staged + P * q + (n - q), staged + q + (n - q)}
                          : (lks__cost){m + 1, staged + P * q, staged + q};
    case LKS_REDUCE_SCATTER:
        return (lks__cost){m_rows, (P - 1) * n + P * n, (P - 1) * n + n};
    case LKS_BROADCAST:
        return (lks__cost){m, n, n};
    case LKS_ALL_GATHER:
        return (lks__cost){m, n + (P - 1) * n + own, n + (P - 1) * n + own};
    case LKS_GATHER:
        return c->is_root ? (lks__cost){m, (P - 1) * n + own, (P - 1) * n + own} : (lks__cost){m, n, n};
    case LKS_SCATTER:
        return c->is_root ? (lks__cost){m_rows, (P - 1) * n + own, (P - 1) * n + own}
                          : (lks__cost){m_rows, n, n};
    case LKS_ALL_TO_ALL:
        return (lks__cost){m_rows, 2 * (P - 1) * n + own, 2 * (P - 1) * n + own};
    case LKS_SEND:
    case LKS_RECV:
        return (lks__cost){0, n, n};
    }
    return (lks__cost){0, 0, 0};
}

#endif
