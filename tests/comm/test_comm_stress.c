/* SPDX-License-Identifier: Apache-2.0 */
/* Many operations back to back, in an order that a generator picks alike on all members: what one operation
 * leaves in the staging areas must not reach the next. */
#include "check.h"

#include <sched.h>
#include <stdlib.h>

#include <lockstep/group.h>

#include "comm/members.h"

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

static void check(member *self, const float *data, size_t n, uint32_t salt, int root)
{
    /* the ends, and some between: all of them would take longer than what is tested */
    for (size_t i = 0; i < n; i += i + 100 < n ? 97 : 1) {
        float wanted = 0;
        for (int r = 0; r < self->size; r++)
            wanted += root < 0 ? value(r, salt, i) : 0;
        if (root >= 0)
            wanted = value(root, salt, i);
        EXPECT(self, data[i] == wanted, "salt %u count %zu root %d: [%zu] is %g, wanted %g", salt, n, root, i,
               (double)data[i], (double)wanted);
    }
}

/* Now and then one member is late. */
static void dawdle(random *own)
{
    for (uint32_t i = pick(own, 40) == 0 ? pick(own, 2000) : 0; i > 0; i--)
        sched_yield();
}

static void one_operation(member *self, random *common, float *data)
{
    static const uint32_t most[] = {4, 1030, MOST};
    uint32_t kind = pick(common, 8), salt = pick(common, 1000000);
    size_t n = pick(common, most[kind < 3 ? 0 : kind < 7 ? 1 : 2]);
    if (kind == 0) {
        EXPECT_OK(self, lks_group_barrier(self->group));
        return;
    }
    for (size_t i = 0; i < n; i++)
        data[i] = value(self->rank, salt, i);
    if (salt % 3 == 0) {
        int root = (int)pick(common, (uint32_t)self->size);
        EXPECT_OK(self, lks_group_broadcast(self->group, data, n, LKS_F32, root));
        check(self, data, n, salt, root);
    } else {
        EXPECT_OK(self, lks_group_all_reduce(self->group, data, n, LKS_F32, LKS_SUM));
        check(self, data, n, salt, -1);
    }
}

static void thousands(member *self)
{
    random common = {12345}, own = {(uint64_t)self->rank};
    float *data = malloc(MOST * sizeof *data);
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
    for (int kind = AS_THREADS; kind <= AS_PROCESSES; kind++)
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
    float *data = malloc(MOST * sizeof *data);
    for (int i = 0; i < N_OPERATIONS / 3 && self->failure[0] == '\0'; i++)
        one_operation(pick(&common, 2) == 0 ? self : &other, &common, data);
    free(data);
    lks_group_destroy(other.group);
}

static void two_groups_do_not_mix(void **state)
{
    (void)state;
    lks_group *second[3];
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
