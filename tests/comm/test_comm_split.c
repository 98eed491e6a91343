/* SPDX-License-Identifier: Apache-2.0 */
/* Groups split off from groups: who is in them, what they can do, and that a family fails as a whole. */
#define _DEFAULT_SOURCE /* usleep */

#include "check.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include <lockstep/group.h>

#include "base/alloc.h"
#include "comm/members.h"
#include "comm/mpi_members.h"
#include "comm/split.h"

enum { N = 70001 };

static void on_all(int smallest, member_fn *body)
{
    static const int sizes[] = {1, 2, 3, 5, 8};
    for (int kind = AS_THREADS; kind <= EACH_ALONE; kind++)
        for (int s = 0; s < 5; s++)
            if (sizes[s] >= smallest)
                members_run((member_kind)kind, sizes[s], body, NULL);
}

/* ---- who comes where ---- */

static void places_follow_keys_and_ranks(void **state)
{
    (void)state;
    const lks__split_wish wishes[] = {{7, 0}, {3, 9}, {7, -5}, {-1, 0}, {3, 9}, {7, 0}, {3, 8}};
    const lks__split_place wanted[] = {{1, 3}, {1, 3}, {0, 3}, {0, 0}, {2, 3}, {2, 3}, {0, 3}};
    const int first[] = {1, 1, 0, 1, 0, 0, 0};
    for (int r = 0; r < 7; r++) {
        lks__split_place place = lks__split_place_of(wishes, 7, r);
        CHECK_INT(place.rank, wanted[r].rank);
        CHECK_INT(place.size, wanted[r].size);
        CHECK_INT(lks__split_is_first(wishes, r), first[r]);
    }
}

/* ---- what they can do ---- */

/* Sums over the group of numbers that say who was in it. */
static void check_sum(member *self, lks_group *g, size_t n, double number, double wanted)
{
    double *data = malloc(n * sizeof *data);
    for (size_t i = 0; i < n; i++)
        data[i] = number;
    EXPECT_OK(self, lks_group_all_reduce(g, data, n, LKS_F64, LKS_SUM));
    for (size_t i = 0; i < n; i++)
        EXPECT(self, data[i] == wanted, "[%zu] is %g, wanted %g", i, data[i], wanted);
    free(data);
}

/* Round the ring of the part, if it is one, and through memory of the part. */
static void check_messages_and_memory(member *self, lks_group *g)
{
    int rank = lks_group_rank(g), size = lks_group_size(g), got = -1;
    lks_group_memory *memory;
    if (size > 1) {
        EXPECT_OK(self, lks_group_send(g, &rank, 1, LKS_I32, (rank + 1) % size));
        EXPECT_OK(self, lks_group_recv(g, &got, 1, LKS_I32, (rank + size - 1) % size));
        EXPECT(self, got == (rank + size - 1) % size, "got %d", got);
    }
    EXPECT_OK(self, lks_group_memory_create(g, 5000, &memory));
    *(int *)lks_group_memory_at(memory, rank) = 100 + rank;
    EXPECT_OK(self, lks_group_barrier(g));
    for (int r = 0; r < size; r++) {
        const int *region = lks_group_memory_at(memory, r);
        EXPECT(self, region != NULL || over_machines(self->kind), "no memory of rank %d", r);
        EXPECT(self, region == NULL || *region == 100 + r, "memory of rank %d", r);
    }
    lks_group_memory_destroy(memory);
}

/* Members m with m % n_parts == colour, backwards. */
static void check_part(member *self, lks_group *g, int n_parts)
{
    int colour = self->rank % n_parts, size = 0, behind = 0;
    double sum = 0;
    for (int r = colour; r < self->size; r += n_parts) {
        size++;
        behind += r > self->rank;
        sum += r;
    }
    EXPECT(self, lks_group_size(g) == size && lks_group_rank(g) == behind, "rank %d of %d, wanted %d of %d",
           lks_group_rank(g), lks_group_size(g), behind, size);
    check_sum(self, g, 3, self->rank, sum);
    check_sum(self, g, N, self->rank, sum);
    check_messages_and_memory(self, g);
}

static void parts_are_groups(member *self)
{
    double all = self->size * (self->size - 1) / 2.0;
    for (int n_parts = 1; n_parts <= self->size; n_parts++) {
        lks_group *part;
        EXPECT_OK(self, lks_group_split(self->group, self->rank % n_parts, -self->rank, &part));
        check_part(self, part, n_parts);
        check_sum(self, self->group, 3, self->rank, all);
        check_part(self, part, n_parts);
        lks_group_destroy(part);
    }
}

static void every_part_is_a_group(void **state)
{
    (void)state;
    on_all(1, parts_are_groups);
}

/* Halves of halves, all of which stay and work in turns; members that are in no part. */
static void nested(member *self)
{
    lks_group *groups[6] = {self->group}, *none;
    int depth = 0;
    EXPECT_OK(self, lks_group_split(self->group, -1, 0, &none));
    EXPECT(self, none == NULL, "a group without a colour");
    EXPECT_OK(self, lks_group_split(self->group, self->rank == 0 ? 5 : -3, 0, &none));
    EXPECT(self, (none != NULL) == (self->rank == 0), "a part for rank %d", self->rank);
    lks_group_destroy(none);
    while (lks_group_size(groups[depth]) > 1) {
        bool upper = lks_group_rank(groups[depth]) >= lks_group_size(groups[depth]) / 2;
        EXPECT_OK(self, lks_group_split(groups[depth], upper, 0, &groups[depth + 1]));
        depth++;
    }
    for (int turn = 0; turn < 3; turn++)
        for (int d = 0; d <= depth; d++) {
            check_sum(self, groups[d], turn == 0 ? 1 : 1000, 1, lks_group_size(groups[d]));
            check_messages_and_memory(self, groups[d]);
        }
    for (; depth > 0; depth--)
        lks_group_destroy(groups[depth]);
}

static void parts_have_parts(void **state)
{
    (void)state;
    on_all(1, nested);
}

/* ---- a family fails as a whole ---- */

typedef enum trouble { IN_PART, IN_SIBLING, IN_FIRST, DEATH, LEAVING, N_TROUBLES } trouble;

/* Ranks 0, 2, 4 are one part, 1 and 3 the other; rank 3 or 4 makes trouble. */
static void family_fails(member *self)
{
    trouble what = *(const trouble *)self->context;
    lks_group *part;
    float x[4] = {0};
    EXPECT_OK(self, lks_group_split(self->group, self->rank % 2, 0, &part));
    EXPECT_OK(self, lks_group_barrier(self->group));
    if (over_machines(self->kind)) /* a failure may overtake the last message of an operation */
        usleep(20 * 1000);
    bool odd = self->rank % 2 != 0;
    lks_status status = LKS_E_MISMATCH;
    const char *text = "rank 0: all_reduce(sum, f32, 4); rank 1: all_reduce(sum, f32, 3)";
    if (what == DEATH || what == LEAVING) {
        status = LKS_E_PEER;
        text = what == DEATH ? "rank 4 (process" : "left the group";
        if (self->rank == 4 && what == DEATH)
            _exit(0);
        if (self->rank == 4) {
            lks_group_destroy(part);
            return;
        }
        EXPECT_FAILS(self, lks_group_barrier(odd ? self->group : part), status, text);
    } else if (what == IN_FIRST) {
        if (self->rank == 2) /* sleeps in its part when the first group fails */
            EXPECT_FAILS(self, lks_group_barrier(part), status, "different operations");
        else if (self->rank == 3)
            EXPECT_FAILS(self, lks_group_recv(self->group, x, 3, LKS_U8, 0), status, "different operations");
        else if (self->rank == 0)
            EXPECT_OK(self, lks_group_send(self->group, x, 2, LKS_U8, 3));
        text = "rank 0: send(u8, 2, to rank 3); rank 3: recv(u8, 3, from rank 0)";
    } else if (odd) {
        size_t n = self->rank == 3 ? 3 : 4;
        EXPECT_FAILS(self, lks_group_all_reduce(part, x, n, LKS_F32, LKS_SUM), status, text);
    } else { /* asleep in the other part, or in the first group */
        EXPECT_FAILS(self, lks_group_barrier(what == IN_PART && self->rank == 0 ? part : self->group), status,
                     text);
    }
    lks_group *after;
    usleep(50 * 1000);
    EXPECT_FAILS(self, lks_group_barrier(part), status, text);
    EXPECT_FAILS(self, lks_group_barrier(self->group), status, text);
    EXPECT_FAILS(self, lks_group_split(part, 0, 0, &after), status, text);
    lks_group_destroy(part);
}

static void a_family_fails_as_a_whole(void **state)
{
    (void)state;
    for (int kind = AS_THREADS; kind <= EACH_ALONE; kind++)
        for (int what = 0; what < N_TROUBLES; what++)
            if (what != DEATH || (kind == AS_PROCESSES && !in_mpi_job())) /* whose launcher ends all */
                members_run((member_kind)kind, 5, family_fails, &(const trouble){(trouble)what});
}

/* ---- without memory ---- */

static void *split_once(void *group)
{
    lks_group *part;
    lks_status status = lks_group_split(group, lks_group_rank(group) % 2, 0, &part);
    lks_group_destroy(part);
    return (void *)(intptr_t)status;
}

/* Whichever member's allocation fails, all are told, and the next attempt works. */
static void splitting_fails_on_all(void **state)
{
    (void)state;
    enum { SIZE = 3 };
    lks_group *members[SIZE];
    CHECK_OK(lks_group_create_threads(SIZE, 30, members));
    int64_t before = lks__alloc_bytes(LKS__MEM_COMM), n = 0;
    int failed;
    do {
        pthread_t threads[SIZE];
        failed = 0;
        lks__alloc_fail_nth(++n);
        for (int r = 0; r < SIZE; r++)
            assert_int_equal(pthread_create(&threads[r], NULL, split_once, members[r]), 0);
        for (int r = 0; r < SIZE; r++) {
            void *status;
            pthread_join(threads[r], &status);
            assert_true((intptr_t)status == LKS_OK || (intptr_t)status == LKS_E_NOMEM);
            failed += (intptr_t)status == LKS_E_NOMEM;
        }
        assert_true(failed == 0 || failed == SIZE);
        CHECK_INT(lks__alloc_bytes(LKS__MEM_COMM), before);
    } while (failed > 0);
    lks__alloc_fail_nth(0);
    assert_true(n > SIZE);
    for (int r = 0; r < SIZE; r++)
        lks_group_destroy(members[r]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places_follow_keys_and_ranks),
        cmocka_unit_test(every_part_is_a_group),
        cmocka_unit_test(parts_have_parts),
        cmocka_unit_test(a_family_fails_as_a_whole),
        cmocka_unit_test(splitting_fails_on_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
