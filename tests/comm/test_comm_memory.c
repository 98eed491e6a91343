/* SPDX-License-Identifier: Apache-2.0 */
/* Group memory: one region per member, addressable by all. */
#include "check.h"

#include <stdlib.h>

#include <lockstep/group.h>

#include "comm/members.h"

/* Rank r has r * 5000 ints, rank 0 none. */
static size_t region_ints(int rank)
{
    return (size_t)rank * 5000;
}

static void write_own(member *self, lks_group_memory *memory, int salt)
{
    int *own = lks_group_memory_at(memory, self->rank);
    for (size_t i = 0; i < region_ints(self->rank); i++)
        own[i] = salt + self->rank * 1000000 + (int)i;
}

static void check_all(member *self, lks_group_memory *memory, int salt)
{
    for (int r = 0; r < self->size; r++) {
        const int *region = lks_group_memory_at(memory, r);
        bool elsewhere = machine_of_rank(self->kind, r, self->size) !=
                         machine_of_rank(self->kind, self->rank, self->size);
        EXPECT(self, (region == NULL) == (r == 0 || elsewhere), "region of rank %d is %p", r,
               (const void *)region);
        if (elsewhere)
            continue;
        EXPECT(self, (uintptr_t)region % 4096 == 0, "region of rank %d starts at %p", r,
               (const void *)region);
        for (size_t i = 0; i < region_ints(r); i++)
            EXPECT(self, region[i] == salt + r * 1000000 + (int)i, "rank %d [%zu] is %d", r, i, region[i]);
    }
}

static void regions_are_shared(member *self)
{
    for (int round = 0; round < 20; round++) {
        lks_group_memory *memory;
        EXPECT_OK(self, lks_group_memory_create(self->group, region_ints(self->rank) * sizeof(int), &memory));
        const int *own = lks_group_memory_at(memory, self->rank);
        for (size_t i = 0; i < region_ints(self->rank); i++)
            EXPECT(self, own[i] == 0, "[%zu] of new memory is %d", i, own[i]);
        for (int turn = 0; turn < 2; turn++) {
            write_own(self, memory, round + turn);
            EXPECT_OK(self, lks_group_barrier(self->group));
            check_all(self, memory, round + turn);
            EXPECT_OK(self, lks_group_barrier(self->group));
        }
        EXPECT(self, lks_group_memory_at(memory, -1) == NULL, "a region of rank -1");
        EXPECT(self, lks_group_memory_at(memory, self->size) == NULL, "a region of rank %d", self->size);
        lks_group_memory_destroy(memory);
    }
}

/* One member asks for more than any machine has: all are told, and the group goes on. */
static void too_much_fails_on_all(member *self)
{
    static const size_t absurd[] = {SIZE_MAX, (size_t)1 << 62, (size_t)1 << 46};
    for (int i = 0; i < 3; i++) {
        lks_group_memory *memory;
        size_t bytes = self->rank == self->size - 1 ? absurd[i] : 4096;
        EXPECT_FAILS(self, lks_group_memory_create(self->group, bytes, &memory), LKS_E_NOMEM,
                     "out of memory");
        EXPECT(self, memory == NULL, "the output is set");
    }
    regions_are_shared(self);
}

/* ---- reductions of data in group memory ---- */

enum { N_MOST = 300001 };

static float number(int rank, int turn, size_t i)
{
    return (float)((i + (size_t)(rank * 13 + turn)) % 31);
}

/* Whose data lies in group memory: all members', that of some, or all but the result. Offsets differ, and so
 * do not only the addresses. */
static void reduce_placed(member *self, lks_group_memory *memory, float *ordinary, int turn)
{
    static const size_t counts[] = {1025, 40000, N_MOST};
    size_t n = counts[turn % 3];
    bool placed = turn / 3 % 3 != 1 || self->rank % 2 == 0;
    float *in = placed ? (float *)lks_group_memory_at(memory, self->rank) + self->rank : ordinary;
    float *out = turn / 3 % 3 == 2 ? ordinary : in;
    for (size_t i = 0; i < n; i++)
        in[i] = number(self->rank, turn, i);
    lks_operation o = {
        turn % 2 == 0 ? LKS_ALL_REDUCE : LKS_REDUCE, LKS_F32, LKS_SUM, self->size - 1, n, in, out};
    EXPECT_OK(self, lks_group_run(self->group, &o));
    bool gets = o.collective == LKS_ALL_REDUCE || self->rank == o.root;
    for (size_t i = 0; i < n; i++) {
        float wanted = 0;
        for (int r = 0; r < self->size; r++)
            wanted += number(r, turn, i);
        EXPECT(self, !gets || out[i] == wanted, "turn %d count %zu: [%zu] is %g, wanted %g", turn, n, i,
               (double)out[i], (double)wanted);
        EXPECT(self, (gets && out == in) || in[i] == number(self->rank, turn, i),
               "turn %d count %zu: the input has changed at [%zu]", turn, n, i);
    }
}

static void placed_data(member *self)
{
    lks_group_memory *memory, *unused;
    float *ordinary = malloc(N_MOST * sizeof *ordinary);
    EXPECT_OK(self, lks_group_memory_create(self->group, 100, &unused));
    EXPECT_OK(self, lks_group_memory_create(self->group, (N_MOST + 16) * sizeof(float), &memory));
    for (int turn = 0; turn < 18; turn++)
        reduce_placed(self, memory, ordinary, turn);
    lks_group_memory_destroy(unused);
    reduce_placed(self, memory, ordinary, 2);
    lks_group_memory_destroy(memory);
    free(ordinary);
}

/* One member has no handle any more where another one's data lies. */
static void handle_is_gone(member *self)
{
    lks_group_memory *memory;
    float *ordinary = calloc(N_MOST, sizeof *ordinary);
    EXPECT_OK(self, lks_group_memory_create(self->group, N_MOST * sizeof(float), &memory));
    float *data = self->rank == 1 ? ordinary : lks_group_memory_at(memory, self->rank);
    if (self->rank == 1)
        lks_group_memory_destroy(memory);
    lks_status status = lks_group_all_reduce(self->group, data, N_MOST, LKS_F32, LKS_SUM);
    EXPECT(self, status == LKS_E_PEER && strstr(lks_error_message(), "has destroyed its handle") != NULL,
           "%s: %s", lks_status_name(status), lks_error_message());
    if (self->rank != 1)
        lks_group_memory_destroy(memory);
    free(ordinary);
}

static void on_all_kinds(member_fn *body)
{
    static const int sizes[] = {1, 2, 3, 5};
    for (int kind = AS_THREADS; kind <= EACH_ALONE; kind++)
        for (int s = 0; s < 4; s++)
            members_run((member_kind)kind, sizes[s], body, NULL);
}

static void every_member_sees_every_region(void **state)
{
    (void)state;
    on_all_kinds(regions_are_shared);
}

static void lack_of_memory_is_the_same_error_on_all(void **state)
{
    (void)state;
    on_all_kinds(too_much_fails_on_all);
}

static void reductions_read_it_where_it_is(void **state)
{
    (void)state;
    on_all_kinds(placed_data);
}

static void a_handle_that_is_missing_is_told_to_all(void **state)
{
    (void)state;
    members_run(AS_THREADS, 3, handle_is_gone, NULL);
    members_run(AS_PROCESSES, 3, handle_is_gone, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_member_sees_every_region),
        cmocka_unit_test(lack_of_memory_is_the_same_error_on_all),
        cmocka_unit_test(reductions_read_it_where_it_is),
        cmocka_unit_test(a_handle_that_is_missing_is_told_to_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
