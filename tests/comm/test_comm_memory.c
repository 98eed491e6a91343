/* SPDX-License-Identifier: Apache-2.0 */
/* Group memory: one region per member, addressable by all. */
#include "check.h"

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
        EXPECT(self, (region == NULL) == (r == 0), "region of rank %d is %p", r, (const void *)region);
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

static void on_all_kinds(member_fn *body)
{
    static const int sizes[] = {1, 2, 3, 5};
    for (int kind = AS_THREADS; kind <= AS_PROCESSES; kind++)
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_member_sees_every_region),
        cmocka_unit_test(lack_of_memory_is_the_same_error_on_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
