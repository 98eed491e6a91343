/* SPDX-License-Identifier: Apache-2.0 */
/* Operations that move data and add nothing. Rows that one member alone gets go to it straight over the wire;
 * what a whole machine gets goes there once. */
#include <string.h>

#include "comm/mpi/mpi_steps.h"

/* ---- the caller's data ---- */

static const char *own_in(const lks__mpi_part *part, int row)
{
    return (const char *)part->task->operation->in + lks__mpi_at(part, row);
}

static char *own_out(const lks__mpi_part *part, int row)
{
    return (char *)part->task->operation->out + lks__mpi_at(part, row);
}

static void copy(const lks__mpi_part *part, char *to, const char *from)
{
    if (to != from)
        memcpy(to, from, lks__mpi_bytes(part, part->n));
}

static int root_of(const lks__mpi_part *part)
{
    return part->task->operation->root;
}

static bool is_root(const lks__mpi_member *self, const lks__mpi_part *part)
{
    return self->group.rank == root_of(part);
}

static bool root_is_here(const lks__mpi_member *self, const lks__mpi_part *part)
{
    return lks__mpi_is_here(&self->map, root_of(part));
}

/* ---- stage ---- */

void lks__mpi_stage_data(lks__mpi_member *self, lks__mpi_part *part)
{
    copy(part, lks__mpi_staged(self, part, self->map.local, 0), own_in(part, 0));
}

void lks__mpi_stage_roots_data(lks__mpi_member *self, lks__mpi_part *part)
{
    if (is_root(self, part))
        lks__mpi_stage_data(self, part);
}

void lks__mpi_stage_rows(lks__mpi_member *self, lks__mpi_part *part)
{
    for (int r = 0; r < self->group.size; r++)
        copy(part, lks__mpi_staged(self, part, self->map.local, r), own_in(part, r));
}

/* For the members of this machine; all others get theirs from where they lie. */
void lks__mpi_stage_roots_rows(lks__mpi_member *self, lks__mpi_part *part)
{
    for (int i = 0; i < self->map.n_local && is_root(self, part); i++) {
        int r = self->map.local_ranks[i];
        copy(part, lks__mpi_staged(self, part, self->map.local, r), own_in(part, r));
    }
}

void lks__mpi_stage_for_root(lks__mpi_member *self, lks__mpi_part *part)
{
    if (root_is_here(self, part))
        lks__mpi_stage_data(self, part);
}

/* ---- broadcast: a binomial tree over machines, from leader to leader ---- */

/* Machines are counted from the root's on. */
static int turn_of(const lks__mpi_member *self, const lks__mpi_part *part, int machine)
{
    int n = self->map.n_machines;
    return (machine - self->map.machine_of[root_of(part)] + n) % n;
}

/* Who speaks for the machine: the root for its own. */
static int speaker(const lks__mpi_member *self, const lks__mpi_part *part, int turn)
{
    int machine = (turn + self->map.machine_of[root_of(part)]) % self->map.n_machines;
    return turn == 0 ? root_of(part) : self->map.leaders[machine];
}

static const char *broadcast_data(const lks__mpi_member *self, const lks__mpi_part *part)
{
    return is_root(self, part) ? own_in(part, 0) : lks__mpi_result(self, part, 0);
}

void lks__mpi_receive_broadcast(lks__mpi_member *self, lks__mpi_part *part)
{
    int turn = turn_of(self, part, self->map.machine);
    if (turn > 0 && lks__mpi_leads(&self->map)) /* from the turn without its lowest bit */
        lks__mpi_recv(self, part, LKS__MPI_PASS, speaker(self, part, turn & (turn - 1)),
                      lks__mpi_result(self, part, 0), lks__mpi_bytes(part, part->n));
}

void lks__mpi_pass_broadcast(lks__mpi_member *self, lks__mpi_part *part)
{
    int turn = turn_of(self, part, self->map.machine), n = self->map.n_machines, bit = 1;
    if (speaker(self, part, turn) != self->group.rank)
        return;
    while (bit < n && (turn & bit) == 0)
        bit <<= 1;
    for (bit >>= 1; bit > 0; bit >>= 1) /* the farthest first: it has the most to pass on */
        if (turn + bit < n)
            lks__mpi_send(self, part, LKS__MPI_PASS, speaker(self, part, turn + bit),
                          broadcast_data(self, part), lks__mpi_bytes(part, part->n));
}

void lks__mpi_pack_broadcast(lks__mpi_member *self, lks__mpi_part *part)
{
    part->packed_bytes = 0;
    if (!root_is_here(self, part))
        return;
    part->packed_bytes = lks__mpi_bytes(part, part->n);
    copy(part, lks__mpi_payload(self, part, self->map.machine),
         lks__mpi_input(self, part, self->map.local_of[root_of(part)], 0));
}

void lks__mpi_unpack_broadcast(lks__mpi_member *self, lks__mpi_part *part)
{
    if (!root_is_here(self, part))
        copy(part, lks__mpi_result(self, part, 0),
             lks__mpi_payload(self, part, self->map.machine_of[root_of(part)]));
}

void lks__mpi_fetch_broadcast(lks__mpi_member *self, lks__mpi_part *part)
{
    if (is_root(self, part))
        return;
    bool here = root_is_here(self, part);
    copy(part, own_out(part, 0),
         here ? lks__mpi_input(self, part, self->map.local_of[root_of(part)], 0)
              : lks__mpi_result(self, part, 0));
}

/* ---- all_gather: each row goes to one member of each other machine ---- */

void lks__mpi_exchange_rows(lks__mpi_member *self, lks__mpi_part *part)
{
    size_t bytes = lks__mpi_bytes(part, part->n);
    for (int i = 0; i < self->map.n_carried; i++) {
        int r = self->map.carried[i];
        lks__mpi_recv(self, part, LKS__MPI_FIRST, r, lks__mpi_result(self, part, r), bytes);
    }
    for (int m = 0; m < self->map.n_machines; m++)
        if (m != self->map.machine)
            lks__mpi_send(self, part, LKS__MPI_FIRST, self->map.carriers[m], own_in(part, 0), bytes);
}

void lks__mpi_pack_rows(lks__mpi_member *self, lks__mpi_part *part)
{
    char *payload = lks__mpi_payload(self, part, self->map.machine);
    size_t bytes = lks__mpi_bytes(part, part->n);
    for (int i = 0; i < self->map.n_local; i++)
        copy(part, payload + (size_t)i * bytes, lks__mpi_input(self, part, i, 0));
    part->packed_bytes = (size_t)self->map.n_local * bytes;
}

void lks__mpi_unpack_rows(lks__mpi_member *self, lks__mpi_part *part)
{
    size_t bytes = lks__mpi_bytes(part, part->n);
    for (int r = 0; r < self->group.size; r++) {
        const char *payload = lks__mpi_payload(self, part, self->map.machine_of[r]);
        if (!lks__mpi_is_here(&self->map, r))
            copy(part, lks__mpi_result(self, part, r), payload + (size_t)self->map.local_of[r] * bytes);
    }
}

void lks__mpi_fetch_rows(lks__mpi_member *self, lks__mpi_part *part)
{
    for (int r = 0; r < self->group.size; r++) {
        bool here = lks__mpi_is_here(&self->map, r);
        copy(part, own_out(part, r),
             here ? lks__mpi_input(self, part, self->map.local_of[r], 0) : lks__mpi_result(self, part, r));
    }
}

/* ---- gather ---- */

void lks__mpi_send_rows_to_root(lks__mpi_member *self, lks__mpi_part *part)
{
    size_t bytes = lks__mpi_bytes(part, part->n);
    if (!root_is_here(self, part))
        lks__mpi_send(self, part, LKS__MPI_FIRST, root_of(part), own_in(part, 0), bytes);
    for (int r = 0; r < self->group.size && is_root(self, part); r++)
        if (!lks__mpi_is_here(&self->map, r))
            lks__mpi_recv(self, part, LKS__MPI_FIRST, r, own_out(part, r), bytes);
}

void lks__mpi_fetch_rows_to_root(lks__mpi_member *self, lks__mpi_part *part)
{
    for (int i = 0; i < self->map.n_local && is_root(self, part); i++)
        copy(part, own_out(part, self->map.local_ranks[i]), lks__mpi_input(self, part, i, 0));
}

/* ---- scatter ---- */

void lks__mpi_send_rows_of_root(lks__mpi_member *self, lks__mpi_part *part)
{
    size_t bytes = lks__mpi_bytes(part, part->n);
    if (!root_is_here(self, part))
        lks__mpi_recv(self, part, LKS__MPI_FIRST, root_of(part), own_out(part, 0), bytes);
    for (int r = 0; r < self->group.size && is_root(self, part); r++)
        if (!lks__mpi_is_here(&self->map, r))
            lks__mpi_send(self, part, LKS__MPI_FIRST, r, own_in(part, r), bytes);
}

void lks__mpi_fetch_row_of_root(lks__mpi_member *self, lks__mpi_part *part)
{
    if (root_is_here(self, part))
        copy(part, own_out(part, 0),
             lks__mpi_input(self, part, self->map.local_of[root_of(part)], self->group.rank));
}

/* ---- all_to_all: inputs are staged always, since out may be in ---- */

void lks__mpi_swap_rows(lks__mpi_member *self, lks__mpi_part *part)
{
    size_t bytes = lks__mpi_bytes(part, part->n);
    for (int r = 0; r < self->group.size; r++) {
        if (lks__mpi_is_here(&self->map, r))
            continue;
        lks__mpi_recv(self, part, LKS__MPI_FIRST, r, own_out(part, r), bytes);
        lks__mpi_send(self, part, LKS__MPI_FIRST, r, lks__mpi_staged(self, part, self->map.local, r), bytes);
    }
}

void lks__mpi_fetch_swapped(lks__mpi_member *self, lks__mpi_part *part)
{
    for (int i = 0; i < self->map.n_local; i++)
        copy(part, own_out(part, self->map.local_ranks[i]), lks__mpi_staged(self, part, i, self->group.rank));
}

/* ---- results of reductions ---- */

void lks__mpi_fetch_result(lks__mpi_member *self, lks__mpi_part *part)
{
    if (!part->all_in_place)
        copy(part, own_out(part, 0), lks__mpi_result(self, part, 0));
}

void lks__mpi_fetch_roots_result(lks__mpi_member *self, lks__mpi_part *part)
{
    if (is_root(self, part))
        lks__mpi_fetch_result(self, part);
}
