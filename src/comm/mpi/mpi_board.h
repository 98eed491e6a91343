/* SPDX-License-Identifier: Apache-2.0 */
/** What the members of one machine share: a region each, of their node group's memory.
 *
 *     board | LKS__MPI_WINDOW inputs | of the first member: LKS__MPI_WINDOW results
 *
 * Operations are cut into parts, which all members of a group number alike. Part s uses the places s modulo
 * LKS__MPI_WINDOW. A member writes its own board and inputs; results are written by whoever has them.
 */
#ifndef LKS_COMM_MPI_BOARD_H
#define LKS_COMM_MPI_BOARD_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "comm/collective.h"

enum {
    LKS__MPI_WINDOW = 4, /* parts that are under way at a time */
    LKS__MPI_PART_BYTES = 1 << 18,
    LKS__MPI_LINE_BYTES = 128, /* two cache lines: processors fetch them in pairs */
};

/** How far a member has come; each is the number of parts. They only grow, by a release, so that who has
 * acquired one sees all that was written before. */
typedef enum lks__mpi_stage {
    LKS__MPI_ENTERED, /* its input is there */
    LKS__MPI_CHECKED, /* of the leader: all machines have asked for the same */
    LKS__MPI_CARRIED, /* it has read the others' inputs, and what it gets for them is there */
    LKS__MPI_FETCHED, /* it has read the results and, for results, the inputs */
    LKS__MPI_STAGES
} lks__mpi_stage;

typedef struct lks__mpi_counter {
    _Atomic uint64_t parts;
    char pad[LKS__MPI_LINE_BYTES - sizeof(uint64_t)];
} lks__mpi_counter;

/** What a member says of a part that it has entered. */
typedef struct lks__mpi_entry {
    lks__signature signature;
    uint64_t
        memory; /* 1 + number of the group memory in which the input lies, in the own region; 0: staged */
    uint64_t offset;   /* in it */
    uint64_t in_place; /* 1: and the result goes to the same place */
    uint64_t unused[3];
} lks__mpi_entry;

typedef struct lks__mpi_board {
    lks__mpi_counter counters[LKS__MPI_STAGES];
    lks__mpi_entry entries[LKS__MPI_WINDOW];
    _Atomic uint64_t finished_what, finished_count; /* the signature of what it finished last; for people */
} lks__mpi_board;

#define LKS__MPI_NO_SIGNATURE UINT64_MAX /* as what: none yet */

enum { LKS__MPI_BOARD_BYTES = 4096 };

_Static_assert(sizeof(lks__mpi_board) <= LKS__MPI_BOARD_BYTES, "inputs start on a page");
_Static_assert(LKS__MPI_PART_BYTES / LKS_GROUP_MAX_SIZE >= 64, "every row has a share of a part");

#endif
