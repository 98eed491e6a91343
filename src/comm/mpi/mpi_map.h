/* SPDX-License-Identifier: Apache-2.0 */
/** Who is where: the machines of a group and the shares of work of its members, as pure arithmetic on the
 * machine of each rank. All members compute the same. */
#ifndef LKS_COMM_MPI_MAP_H
#define LKS_COMM_MPI_MAP_H

#include <stdbool.h>

#include <lockstep/group.h>

/** A subtree of the tree over ranks (base/tree.h), the ranks [lo, hi), all of which are on one machine, while
 * those of the node above are not. Its partial sum is what that machine has to say. */
typedef struct lks__mpi_piece {
    int lo, hi;
    int machine;
} lks__mpi_piece;

typedef struct lks__mpi_map {
    int rank, size;
    int machine, n_machines; /* this member's; machines are numbered in the order of their lowest ranks */
    int local, n_local;      /* its place among the members of its machine, in the order of ranks */
    int n_carried;
    int n_pieces;
    int most_members, most_pieces; /* of one machine */

    int machine_of[LKS_GROUP_MAX_SIZE];  /* [size] */
    int local_of[LKS_GROUP_MAX_SIZE];    /* [size]: the place among the members of the rank's machine */
    int local_ranks[LKS_GROUP_MAX_SIZE]; /* [n_local] */
    int members[LKS_GROUP_MAX_SIZE];     /* [n_machines]: how many it has */
    int leaders[LKS_GROUP_MAX_SIZE];     /* [n_machines]: its lowest rank, which speaks for it */
    int pieces_of[LKS_GROUP_MAX_SIZE];   /* [n_machines]: how many */
    int carriers[LKS_GROUP_MAX_SIZE];    /* [n_machines]: who carries for this member there; own: itself */
    int carried[LKS_GROUP_MAX_SIZE];     /* [n_carried]: for which ranks this member carries here */
    lks__mpi_piece pieces[LKS_GROUP_MAX_SIZE]; /* [n_pieces]: in the order of ranks */
} lks__mpi_map;

/** machines: any numbers, [size]; equal ones are one machine. */
void lks__mpi_map_init(lks__mpi_map *map, const int *machines, int rank, int size);

/** The member of `machine` that carries the data of `rank`, which is not there, from and to that machine. */
int lks__mpi_carrier(const lks__mpi_map *map, int machine, int rank);

static inline bool lks__mpi_leads(const lks__mpi_map *map)
{
    return map->local == 0;
}

static inline bool lks__mpi_is_here(const lks__mpi_map *map, int rank)
{
    return map->machine_of[rank] == map->machine;
}

#endif
