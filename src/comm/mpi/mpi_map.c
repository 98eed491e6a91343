/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/mpi/mpi_map.h"

#include <string.h>

#include "base/tree.h"

static void number_machines(lks__mpi_map *map, const int *machines)
{
    for (int r = 0; r < map->size; r++) {
        int first = 0;
        while (machines[first] != machines[r])
            first++;
        int m = first < r ? map->machine_of[first] : map->n_machines++;
        if (first == r)
            map->leaders[m] = r;
        map->machine_of[r] = m;
        map->local_of[r] = map->members[m]++;
        if (map->members[m] > map->most_members)
            map->most_members = map->members[m];
    }
    map->machine = map->machine_of[map->rank];
    map->local = map->local_of[map->rank];
    for (int r = 0; r < map->size; r++)
        if (lks__mpi_is_here(map, r))
            map->local_ranks[map->n_local++] = r;
}

static bool on_one_machine(const lks__mpi_map *map, int lo, int hi)
{
    for (int r = lo + 1; r < hi; r++)
        if (map->machine_of[r] != map->machine_of[lo])
            return false;
    return true;
}

static void find_pieces(lks__mpi_map *map, int lo, int hi)
{
    if (on_one_machine(map, lo, hi)) {
        int m = map->machine_of[lo];
        map->pieces[map->n_pieces++] = (lks__mpi_piece){lo, hi, m};
        if (++map->pieces_of[m] > map->most_pieces)
            map->most_pieces = map->pieces_of[m];
        return;
    }
    int middle = lo + (int)lks__tree_split(hi - lo);
    find_pieces(map, lo, middle);
    find_pieces(map, middle, hi);
}

/* In turns, so that a machine's members have equal shares. */
int lks__mpi_carrier(const lks__mpi_map *map, int machine, int rank)
{
    int turn = 0, place = 0;
    for (int r = 0; r < rank; r++)
        turn += map->machine_of[r] != machine;
    turn %= map->members[machine];
    while (map->machine_of[place] != machine || map->local_of[place] != turn)
        place++;
    return place;
}

void lks__mpi_map_init(lks__mpi_map *map, const int *machines, int rank, int size)
{
    memset(map, 0, sizeof *map);
    map->rank = rank;
    map->size = size;
    number_machines(map, machines);
    find_pieces(map, 0, size);
    for (int m = 0; m < map->n_machines; m++)
        map->carriers[m] = m == map->machine ? rank : lks__mpi_carrier(map, m, rank);
    for (int r = 0; r < size; r++)
        if (!lks__mpi_is_here(map, r) && lks__mpi_carrier(map, map->machine, r) == rank)
            map->carried[map->n_carried++] = r;
}
