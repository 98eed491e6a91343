/* SPDX-License-Identifier: Apache-2.0 */
/* Many operations back to back, in an order that a generator picks alike on all members: what one operation
 * leaves in the staging areas must not reach the next. */
#include "check.h"

#include <sched.h>
#include <stdlib.h>

#include <lockstep/group.h>

#include "comm/members.h"
#include "comm/mpi_members.h"

enum { N_OPERATIONS = 3000, MOST = 140000 }; /* f32: three staging areas */

typedef struct random {
    uint64_t state;
} random;

/* Knuth's MMIX generator; the upper bits are good enough for picking. */
static uint32_t pick(random *r, uint32_t below)
{
    r->state = r->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(r->state >> 33) % below;
}

/* Small whole numbers that no two operations have alike: sums are exact. */
static float value(int rank, uint32_t salt, size_t i)
{
    return (float)((salt + (uint32_t)rank * 17 + (uint32_t)i) % 1009);
}

static float sum(int size, uint32_t salt, size_t i)
{
    float total = 0;
    for (int r = 0; r < size; r++)
        total += value(r, salt, i);
    return total;
}

/* Element i of the row `row` of this member's result, for rows of n. */
static float expected(const member *self, const lks_operation *o, uint32_t salt, int row, size_t i)
{
    size_t own = (size_t)self->rank * o->count + i;
    switch (o->collective) {
    case LKS_BROADCAST:
        return value(o->root, salt, i);
    case LKS_ALL_GATHER:
    case LKS_GATHER:
        return value(row, salt, i);
    case LKS_REDUCE_SCATTER:
        return sum(self->size, salt, own);
    case LKS_SCATTER:
        return value(o->root, salt, own);
    case LKS_ALL_TO_ALL:
        return value(row, salt, own);
    default:
        return sum(self->size, salt, i);
    }
}

static void check(member *self, const lks_operation *o, uint32_t salt)
{
    bool to_root = o->collective == LKS_REDUCE || o->collective == LKS_GATHER;
    bool to_others = o->collective == LKS_BROADCAST;
    if ((to_root && self->rank != o->root) || (to_others && self->rank == o->root))
        return;
    bool rows = o->collective == LKS_ALL_GATHER || o->collective == LKS_GATHER ||
                o->collective == LKS_ALL_TO_ALL;
    for (int row = 0; row < (rows ? self->size : 1); row++)
        /* the ends, and some between: all of them would take longer than what is tested */
        for (size_t i = 0; i < o->count; i += i + 100 < o->count ? 97 : 1) {
            float got = ((const float *)o->out)[(size_t)row * o->count + i];
            float wanted = expected(self, o, salt, row, i);
            EXPECT(self, got == wanted,
                   "collective %d salt %u count %zu root %d: row %d [%zu] is %g, wanted %g",
                   (int)o->collective, salt, o->count, o->root, row, i, (double)got, (double)wanted);
        }
}

/* Now and then one member is late. */
static void dawdle(random *own)
{
    for (uint32_t i = pick(own, 40) == 0 ? pick(own, 2000) : 0; i > 0; i--)
        sched_yield();
}

/* data: [2, size, MOST / size] */
static void one_operation(member *self, random *common, float *data)
{
    static const uint32_t most[] = {4, 1030, MOST};
    uint32_t kind = pick(common, 8), salt = pick(common, 1000000);
    lks_operation o = {.collective = (lks_collective)pick(common, LKS_ALL_TO_ALL + 1), .in = data};
    o.root = (int)pick(common, (uint32_t)self->size);
    o.count = pick(common, most[kind < 3 ? 0 : kind < 7 ? 1 : 2]) / (uint32_t)self->size;
    o.out = data + MOST;
    if (o.collective == LKS_ALL_REDUCE)
        o.count *= (size_t)self->size;
    for (size_t i = 0; i < o.count * (size_t)self->size && i < MOST; i++)
        data[i] = value(self->rank, salt, i);
    EXPECT_OK(self, lks_group_run(self->group, &o));
    if (o.collective != LKS_BARRIER)
        check(self, &o, salt);
}

static void thousands(member *self)
{
    random common = {12345}, own = {(uint64_t)self->rank};
    float *data = malloc(2 * (size_t)MOST * sizeof *data);
    for (int i = 0; i < N_OPERATIONS && self->failure[0] == '\0'; i++) {
        dawdle(&own);
        one_operation(self, &common, data);
    }
    free(data);
}

static void thousands_of_operations(void **state)
{
    (void)state;
    static const int sizes[] = {2, 3, 5};
    for (int kind = AS_THREADS; kind <= EACH_ALONE; kind++)
        for (int s = 0; s < 3; s++)
            members_run((member_kind)kind, sizes[s], thousands, NULL);
}

/* A second group of the same threads, used in between, in another order of ranks. */
static void in_two_groups(member *self)
{
    lks_group *const *second = self->context;
    member other = *self;
    other.group = second[self->size - 1 - self->rank];
    other.rank = lks_group_rank(other.group);
    random common = {777};
    float *data = malloc(2 * (size_t)MOST * sizeof *data);
    for (int i = 0; i < N_OPERATIONS / 3 && self->failure[0] == '\0'; i++)
        one_operation(pick(&common, 2) == 0 ? self : &other, &common, data);
    free(data);
    lks_group_destroy(other.group);
}

static void two_groups_do_not_mix(void **state)
{
    (void)state;
    lks_group *second[3];
    if (in_mpi_job())
        skip(); /* its members are no threads of this process */
    CHECK_OK(lks_group_create_threads(3, 60, second));
    members_run(AS_THREADS, 3, in_two_groups, second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thousands_of_operations),
        cmocka_unit_test(two_groups_do_not_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
