/* SPDX-License-Identifier: Apache-2.0 */
/* What operations cost, in barriers and bytes: the table of src/comm/README.md, row by row, with the counts
 * that members keep. Sizes are such that chunks are equal. */
#include "check.h"
#include "members.h"

#include <stdlib.h>

#include "comm/backend.h"

enum { STAGE_BYTES = 256 << 10, LINE_BYTES = 64 };

typedef enum where { ORDINARY, ORDINARY_IN_PLACE, GROUP_IN_PLACE, N_PLACES } where;

/* P members, n bytes, a chunk of q; m pieces of n, or of n as a row. */
typedef struct sizes {
    int64_t P, n, q, m, m_rows;
    bool root, eager, in_place;
} sizes;

typedef struct cost {
    int64_t barriers, reads, writes;
} cost;

static cost all_reduce_cost(const sizes *s, where place)
{
    if (s->eager)
        return (cost){1, s->n + s->P * s->n, 2 * s->n};
    if (place == GROUP_IN_PLACE)
        return (cost){2, s->P * s->q + (s->P - 1) * s->q, s->P * s->q};
    return (cost){s->m + 1, (s->n - s->q) + s->P * s->q + s->q + (s->n - s->q),
                  (s->n - s->q) + 2 * s->q + (s->n - s->q)};
}

/* The row of the README. */
static cost expected(lks_collective collective, const sizes *s, where place)
{
    int64_t P = s->P, n = s->n, rest = s->n - s->q, own = s->in_place ? 0 : n;
    switch (collective) {
    case LKS_ALL_REDUCE:
        return all_reduce_cost(s, place);
    case LKS_REDUCE:
        if (s->eager)
            return (cost){1, n + (s->root ? P * n : 0), n + (s->root ? n : 0)};
        if (place == GROUP_IN_PLACE) /* read where it is, by chunks; the results of the others are staged */
            return (cost){s->m + 1, P * s->q + (s->root ? rest : 0), s->q + (s->root ? rest : 0)};
        return (cost){s->m + 1, rest + P * s->q + (s->root ? rest : 0), n + (s->root ? rest : 0)};
    case LKS_BROADCAST:
        return (cost){s->m, n, n};
    case LKS_ALL_GATHER:
        return (cost){s->m, n + (P - 1) * n + own, n + (P - 1) * n + own};
    case LKS_REDUCE_SCATTER:
        return (cost){s->m_rows, (P - 1) * n + P * n, (P - 1) * n + n};
    case LKS_GATHER:
        return s->root ? (cost){s->m, (P - 1) * n + own, (P - 1) * n + own} : (cost){s->m, n, n};
    case LKS_SCATTER:
        return s->root ? (cost){s->m_rows, (P - 1) * n + own, (P - 1) * n + own} : (cost){s->m_rows, n, n};
    case LKS_ALL_TO_ALL:
        return (cost){s->m_rows, 2 * (P - 1) * n + own, 2 * (P - 1) * n + own};
    default:
        return (cost){1, 0, 0};
    }
}

/* An in that is a part of out, or the other way round, as the functions allow it. */
static lks_operation in_place(lks_operation operation, int rank, char *data)
{
    size_t row = operation.count * sizeof(float);
    operation.in = operation.out = data;
    if (operation.collective == LKS_ALL_GATHER || operation.collective == LKS_GATHER)
        operation.in = data + (size_t)rank * row;
    if (operation.collective == LKS_REDUCE_SCATTER || operation.collective == LKS_SCATTER)
        operation.out = data + (size_t)rank * row;
    return operation;
}

static void check_one(member *self, const lks_operation *operation, const sizes *s, where place)
{
    lks__cost before = self->group->cost;
    EXPECT_OK(self, lks_group_run(self->group, operation));
    lks__cost after = self->group->cost;
    cost is = {(int64_t)(after.barriers - before.barriers), (int64_t)(after.read_bytes - before.read_bytes),
               (int64_t)(after.written_bytes - before.written_bytes)};
    cost wanted = expected(operation->collective, s, place);
    EXPECT(self, is.barriers == wanted.barriers && is.reads == wanted.reads && is.writes == wanted.writes,
           "%s of %lld bytes, %d members, place %d: %lld barriers, %lld read, %lld written; wanted %lld, "
           "%lld, %lld",
           lks__collective_name(operation->collective), (long long)s->n, self->size, (int)place,
           (long long)is.barriers, (long long)is.reads, (long long)is.writes, (long long)wanted.barriers,
           (long long)wanted.reads, (long long)wanted.writes);
}

static int64_t pieces(int64_t n, int64_t bytes)
{
    return n == 0 ? 1 : (n + bytes - 1) / bytes;
}

static void costs_of_size(member *self, int64_t n, char *const *memory)
{
    int64_t P = self->size, part = STAGE_BYTES / P / LINE_BYTES * LINE_BYTES;
    for (int c = LKS_BARRIER; c <= LKS_ALL_TO_ALL; c++)
        for (where place = ORDINARY; place < N_PLACES; place++) {
            char *data = memory[place == GROUP_IN_PLACE];
            sizes s = {P, n, n / P, pieces(n, P * part), pieces(n, part), .root = self->rank == 1};
            lks_operation operation = {(lks_collective)c,         LKS_F32, LKS_SUM,     1,
                                       (size_t)n / sizeof(float), data,    data + P * n};
            /* where members have cores of their own, all_reduce is eager up to 1 KiB, else up to 4 */
            s.eager = n <= 1024 || (c == LKS_REDUCE && n <= 4096);
            s.in_place = place != ORDINARY;
            if (s.in_place)
                operation = in_place(operation, self->rank, data);
            check_one(self, &operation, &s, place);
        }
}

static void costs_as_member(member *self)
{
    static const int64_t line_chunks[] = {1, 100, 5000}; /* 5000: 320 kB a chunk */
    int64_t most = 5000 * LINE_BYTES * self->size;
    lks_group_memory *memory;
    char *data[2] = {calloc(2, (size_t)(most * self->size))};
    EXPECT_OK(self, lks_group_memory_create(self->group, (size_t)(2 * most * self->size), &memory));
    data[1] = lks_group_memory_at(memory, self->rank);
    for (int i = 0; i < 3 && self->failure[0] == '\0'; i++)
        costs_of_size(self, line_chunks[i] * LINE_BYTES * self->size, data);
    lks_group_memory_destroy(memory);
    free(data[0]);
}

static void costs_are_those_of_the_readme(void **state)
{
    (void)state;
    static const int sizes_of_groups[] = {2, 3, 5};
    for (int i = 0; i < 3; i++)
        members_run(AS_THREADS, sizes_of_groups[i], costs_as_member, NULL);
}

/* Each member copies what it sends or receives once. */
static void message_costs(member *self)
{
    enum { BYTES = 100000 };
    char *data = calloc(1, BYTES);
    lks__cost before = self->group->cost;
    if (self->rank == 0)
        EXPECT_OK(self, lks_group_send(self->group, data, BYTES, LKS_U8, 1));
    else
        EXPECT_OK(self, lks_group_recv(self->group, data, BYTES, LKS_U8, 0));
    lks__cost after = self->group->cost;
    EXPECT(self, after.barriers == before.barriers, "%llu barriers",
           (unsigned long long)(after.barriers - before.barriers));
    EXPECT(self, after.read_bytes - before.read_bytes == BYTES, "%llu bytes read",
           (unsigned long long)(after.read_bytes - before.read_bytes));
    EXPECT(self, after.written_bytes - before.written_bytes == BYTES, "%llu bytes written",
           (unsigned long long)(after.written_bytes - before.written_bytes));
    free(data);
}

static void messages_are_copied_once_at_each_end(void **state)
{
    (void)state;
    members_run(AS_THREADS, 2, message_costs, NULL);
}

int main(void)
{
    setenv("LOCKSTEP_PINNED", "256", 1); /* as if each member had a core, on any machine */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(costs_are_those_of_the_readme),
        cmocka_unit_test(messages_are_copied_once_at_each_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
