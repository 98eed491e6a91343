/* SPDX-License-Identifier: Apache-2.0 */
/* Counts what the members of a group move for each operation, and compares it with the table of costs in
 * src/comm/README.md, which comm_cost.h is as code. Exit code 1: they differ.
 *
 * bench_comm_bytes [--quick] */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm_cost.h"

enum { MOST_MEMBERS = 8, TIMEOUT_S = 120 };

static const struct {
    const char *name;
    lks_collective collective;
    bool reduces, in_rows, out_rows; /* [P, n] instead of [n] */
} operations[] = {
    {"barrier", LKS_BARRIER, false, false, false},
    {"all_reduce", LKS_ALL_REDUCE, true, false, false},
    {"reduce", LKS_REDUCE, true, false, false},
    {"reduce_scatter", LKS_REDUCE_SCATTER, true, true, false},
    {"broadcast", LKS_BROADCAST, false, false, false},
    {"all_gather", LKS_ALL_GATHER, false, false, true},
    {"gather", LKS_GATHER, false, false, true},
    {"scatter", LKS_SCATTER, false, true, false},
    {"all_to_all", LKS_ALL_TO_ALL, false, true, true},
    {"send, recv", LKS_SEND, false, false, false},
};

enum { N_OPERATIONS = sizeof operations / sizeof operations[0] };

/* Not between what is always eager and what never is: that depends on cores. */
static const uint64_t sizes[] = {0, 8, 1000, 1024, 4104, 16 << 10, 100000, 256 << 10, 1000000, 4 << 20};
static const int members[] = {2, 3, 5, 8};

/* What one operation came to, on every member. */
typedef struct job {
    int operation, size;
    lks_dtype dtype;
    uint64_t element_bytes, count;
    bool placed, in_place;
    lks__cost counted[MOST_MEMBERS], expected[MOST_MEMBERS];
} job;

typedef struct player {
    job *job;
    lks_group *group;
    lks_status status;
    char text[512];
} player;

/* ---- a member ---- */

static lks_operation operation_of(const job *j, int rank, char *in, char *out)
{
    lks_operation o = {
        .collective = operations[j->operation].collective, .dtype = j->dtype, .count = j->count};
    size_t own_row = (size_t)(rank * (int64_t)(j->count * j->element_bytes));
    bool in_rows = operations[j->operation].in_rows, out_rows = operations[j->operation].out_rows;
    o.root = j->size - 1;
    o.in = in;
    o.out = out;
    if (j->in_place) {
        o.in = out_rows && !in_rows ? in + own_row : in;
        o.out = in_rows && !out_rows ? in + own_row : in;
    }
    return o;
}

/* Of every pair one sends: ranks 0 and 1 to the next one; with an odd number of members the last does
 * nothing. */
static void as_message(lks_operation *o, int rank)
{
    if (rank % 2 != 0)
        o->collective = LKS_RECV;
    o->root = rank % 2 == 0 ? rank + 1 : rank - 1;
}

static lks__cost difference(lks__cost after, lks__cost before)
{
    return (lks__cost){after.barriers - before.barriers, after.read_bytes - before.read_bytes,
                       after.written_bytes - before.written_bytes};
}

static lks_status run(const job *j, lks_group *group, char *in, char *out, lks__cost *counted,
                      lks__cost *expected)
{
    int rank = lks_group_rank(group);
    lks_operation o = operation_of(j, rank, in, out);
    bool is_message = o.collective == LKS_SEND;
    if (is_message && (rank ^ 1) >= j->size)
        return LKS_OK;
    if (is_message)
        as_message(&o, rank);
    comm_case c = {o.collective, j->size,     rank,     rank == o.root,
                   j->placed,    j->in_place, j->count, j->element_bytes};
    lks__cost before = group->cost;
    lks_status status = lks_group_run(group, &o);
    *counted = difference(group->cost, before);
    *expected = comm_cost(&c);
    return status;
}

static void *player_main(void *argument)
{
    player *self = argument;
    job *j = self->job;
    int rank = lks_group_rank(self->group);
    /* at least one cache line, and whole ones: any type can lie behind it */
    size_t bytes = ((size_t)(j->count * j->element_bytes) * (size_t)j->size / 64 + 1) * 64;
    lks_group_memory *memory = NULL;
    char *in = NULL, *out = calloc(2, bytes);
    self->status = out == NULL ? LKS_E_NOMEM : LKS_OK;
    if (self->status == LKS_OK && j->placed)
        self->status = lks_group_memory_create(self->group, bytes, &memory);
    if (self->status == LKS_OK) {
        in = memory != NULL ? lks_group_memory_at(memory, rank) : out + bytes;
        self->status = run(j, self->group, in, out, &j->counted[rank], &j->expected[rank]);
    }
    if (self->status == LKS_OK)
        self->status = lks_group_barrier(self->group); /* all need the memory until now */
    snprintf(self->text, sizeof self->text, "%s", lks_error_message());
    lks_group_memory_destroy(memory);
    lks_group_destroy(self->group);
    free(out);
    return NULL;
}

/* ---- all ---- */

static void must(bool condition, const char *text)
{
    if (condition)
        return;
    fprintf(stderr, "bench_comm_bytes: %s\n", text);
    exit(1);
}

static void measure(job *j)
{
    lks_group *groups[MOST_MEMBERS];
    pthread_t threads[MOST_MEMBERS];
    player players[MOST_MEMBERS];
    must(lks_group_create_threads(j->size, TIMEOUT_S, groups) == LKS_OK, lks_error_message());
    for (int r = 0; r < j->size; r++) {
        players[r] = (player){.job = j, .group = groups[r]};
        must(pthread_create(&threads[r], NULL, player_main, &players[r]) == 0, "there is no thread");
    }
    for (int r = 0; r < j->size; r++)
        pthread_join(threads[r], NULL);
    for (int r = 0; r < j->size; r++)
        must(players[r].status == LKS_OK, players[r].text);
}

/* Prints rank 0's, or one that is not what the table says, and what that is. Returns whether all agree. */
static bool report(const job *j)
{
    const char *manner = j->placed ? (j->in_place ? "group memory, in place" : "group memory")
                                   : (j->in_place ? "in place" : "apart");
    int wrong = -1;
    for (int r = j->size - 1; r >= 0; r--)
        if (memcmp(&j->counted[r], &j->expected[r], sizeof j->counted[r]) != 0)
            wrong = r;
    const lks__cost *shown[] = {&j->counted[wrong < 0 ? 0 : wrong], &j->expected[wrong < 0 ? 0 : wrong]};
    for (int i = 0; i < (wrong < 0 ? 1 : 2); i++) {
        printf("%-14s %2d %9llu  %-22s %8llu %12llu %12llu", operations[j->operation].name, j->size,
               (unsigned long long)(j->count * j->element_bytes), manner,
               (unsigned long long)shown[i]->barriers, (unsigned long long)shown[i]->read_bytes,
               (unsigned long long)shown[i]->written_bytes);
        if (wrong >= 0)
            printf(i == 0 ? "  by rank %d, but" : "  by the table for rank %d", wrong);
        printf("\n");
    }
    return wrong < 0;
}

static bool check(int operation, int size, uint64_t bytes, bool placed, bool in_place)
{
    static const struct {
        lks_dtype dtype;
        uint64_t bytes;
    } types[] = {{LKS_F32, 4}, {LKS_F64, 8}, {LKS_BF16, 2}};
    int type = (int)(bytes / 8 + (uint64_t)size) % 3;
    job j = {.operation = operation, .size = size, .placed = placed, .in_place = in_place};
    j.dtype = types[type].dtype;
    j.element_bytes = types[type].bytes;
    j.count = operations[operation].collective == LKS_BARRIER ? 0 : bytes / types[type].bytes;
    measure(&j);
    return report(&j);
}

int main(int n_arguments, char **arguments)
{
    bool quick = n_arguments > 1 && strcmp(arguments[1], "--quick") == 0;
    int n_wrong = 0, n_sizes = sizeof sizes / sizeof sizes[0] - quick,
        n_members = sizeof members / sizeof members[0];
    printf("%-14s %2s %9s  %-22s %8s %12s %12s\n", "of rank 0", "P", "bytes", "memory", "barriers", "reads",
           "writes");
    for (int o = 0; o < N_OPERATIONS; o++)
        for (int m = 0; m < n_members; m++)
            for (int s = 0; s < n_sizes; s++) {
                bool same = operations[o].collective == LKS_BARRIER || operations[o].collective == LKS_SEND;
                for (int manner = 0; manner < (same ? 1 : 4); manner++)
                    if (!quick || (o + m + s + manner) % 4 == 0)
                        n_wrong += !check(o, members[m], sizes[s], manner / 2 != 0, manner % 2 != 0);
                if (operations[o].collective == LKS_BARRIER)
                    break;
            }
    printf(n_wrong == 0 ? "all as the table of costs says\n" : "%d differ from the table of costs\n",
           n_wrong);
    return n_wrong != 0;
}
