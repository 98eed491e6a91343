/* SPDX-License-Identifier: Apache-2.0 */
/* Hellos: before the data of an operation go from machine to machine, the leaders tell each other what their
 * members have asked for. Data of small operations go with them, and that is all. */
#include <string.h>

#include "comm/mpi/mpi_member.h"

/** Head of a hello. Behind it the data of a small operation; or, where the members of the machine differ,
 * their signatures in the order of ranks. */
typedef struct hello {
    lks__signature signature;
    uint64_t number; /* of the operation */
    uint64_t differ; /* 1: the members do */
    uint64_t bytes;  /* that follow */
    uint64_t unused[3];
} hello;

_Static_assert(sizeof(hello) == 64, "data start on a cache line");
_Static_assert(LKS_GROUP_MAX_SIZE * sizeof(lks__signature) <= LKS__MPI_PAYLOAD_BYTES, "all signatures fit");

size_t lks__mpi_hello_bytes(void)
{
    return sizeof(hello) + LKS__MPI_PAYLOAD_BYTES;
}

static hello *hello_of(const lks__mpi_part *part, int machine)
{
    return (hello *)(void *)(part->hellos + (size_t)machine * lks__mpi_hello_bytes());
}

char *lks__mpi_payload(const lks__mpi_member *self, const lks__mpi_part *part, int machine)
{
    (void)self;
    return (char *)(hello_of(part, machine) + 1);
}

static lks__signature entered(const lks__mpi_member *self, const lks__mpi_part *part, int local)
{
    return self->boards[local]->entries[part->place].signature;
}

static bool members_differ(const lks__mpi_member *self, const lks__mpi_part *part)
{
    for (int i = 1; i < self->map.n_local; i++)
        if (!lks__same_signature(entered(self, part, i), entered(self, part, 0)))
            return true;
    return false;
}

static void put_signatures(lks__mpi_member *self, lks__mpi_part *part, hello *own)
{
    lks__signature *all = (lks__signature *)(void *)(own + 1);
    for (int i = 0; i < self->map.n_local; i++)
        all[i] = entered(self, part, i);
    own->bytes = (size_t)self->map.n_local * sizeof *all;
}

void lks__mpi_say_hello(lks__mpi_member *self, lks__mpi_part *part)
{
    const lks__mpi_task *task = part->task;
    hello *own = hello_of(part, self->map.machine);
    *own = (hello){.signature = entered(self, part, 0), .number = task->number};
    own->differ = members_differ(self, part);
    if (own->differ) {
        put_signatures(self, part, own);
    } else if (task->small && part->n > 0) {
        task->algorithm->pack(self, part);
        own->bytes = part->packed_bytes;
    }
    for (int m = 0; m < self->map.n_machines; m++) {
        if (m == self->map.machine)
            continue;
        lks__mpi_recv(self, part, LKS__MPI_HELLO, self->map.leaders[m], hello_of(part, m),
                      lks__mpi_hello_bytes());
        lks__mpi_send(self, part, LKS__MPI_HELLO, self->map.leaders[m], own, sizeof *own + own->bytes);
    }
}

/* What every rank has asked for. */
static void collect(const lks__mpi_member *self, const lks__mpi_part *part, lks__signature *out)
{
    for (int r = 0; r < self->group.size; r++) {
        const hello *h = hello_of(part, self->map.machine_of[r]);
        const lks__signature *all = (const lks__signature *)(const void *)(h + 1);
        out[r] = h->differ != 0 ? all[self->map.local_of[r]] : h->signature;
    }
}

/* All leaders come here with the same hellos, and to the same text. */
static void fail_mismatch(lks__mpi_member *self, const lks__mpi_part *part)
{
    lks__signature signatures[LKS_GROUP_MAX_SIZE];
    char text[LKS__MPI_NOTICE_BYTES];
    collect(self, part, signatures);
    lks__mpi_fail(self->engine, self->processes[0], self->serial, LKS_E_MISMATCH,
                  "the members asked for different operations (collective %llu): %s",
                  (unsigned long long)part->task->number + 1,
                  lks__mismatch_text(self->group.size, signatures, sizeof text, text));
}

/* A hello is missing: its sender has failed, and will say so, or has not kept to the protocol. */
static void fail_number(lks__mpi_member *self, uint64_t own, int rank, uint64_t found)
{
    (void)lks__mpi_look_around(self->engine);
    lks__mpi_accept_trouble(self->engine);
    lks__mpi_fail(self->engine, self->processes[self->group.rank], self->serial, LKS_E_INTERNAL,
                  "rank %d is at operation %llu, rank %d at %llu", self->group.rank, (unsigned long long)own,
                  rank, (unsigned long long)found);
}

void lks__mpi_hear_hellos(lks__mpi_member *self, lks__mpi_part *part)
{
    const hello *own = hello_of(part, self->map.machine);
    bool differ = false;
    for (int m = 0; m < self->map.n_machines; m++) {
        const hello *h = hello_of(part, m);
        self->heard[m] = h->signature;
        differ = differ || h->differ != 0 || !lks__same_signature(h->signature, own->signature);
        if (h->number != own->number) {
            fail_number(self, own->number, self->map.leaders[m], h->number);
            return;
        }
    }
    if (differ)
        fail_mismatch(self, part);
}
