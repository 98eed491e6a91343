/* SPDX-License-Identifier: Apache-2.0 */
/* The order of additions, NaN, and sums that wrap. */
#include "check.h"

#include <stdlib.h>

#include <lockstep/group.h>

#include "comm/elements.h"
#include "comm/members.h"

enum { N = 70001 }; /* more than one staging area of f32 */

/* Values of very different size, so that nearly every other order of additions gives other bits. */
static float value(int rank, int i)
{
    uint32_t bits = (uint32_t)(rank * 7919 + i) * 2654435761u;
    float small = (float)(bits >> 8) * 0x1p-24f - 0.5f;
    return ldexpf(small, (int)(bits % 23));
}

/* The tree by its definition: a node splits at the largest power of two below its width. */
static float tree_sum(int lo, int hi, int i)
{
    if (hi - lo == 1)
        return value(lo, i);
    int width = 1;
    while (2 * width < hi - lo)
        width *= 2;
    float left = tree_sum(lo, lo + width, i), right = tree_sum(lo + width, hi, i);
    return left + right;
}

static float left_to_right(int size, int i)
{
    float sum = value(0, i);
    for (int r = 1; r < size; r++)
        sum += value(r, i);
    return sum;
}

static void check_sums(member *self, const float *data, int n, int first)
{
    for (int i = 0; i < n; i++) {
        float wanted = tree_sum(0, self->size, first + i);
        EXPECT(self, memcmp(&data[i], &wanted, sizeof wanted) == 0, "[%d] is %a, wanted %a", first + i,
               (double)data[i], (double)wanted);
    }
}

/* All three reductions add in the same order, in pieces and eager. */
static void sums_follow_the_tree(member *self)
{
    static const int counts[] = {N, 501};
    lks_group *g = self->group;
    float *data = malloc(N * sizeof *data);
    for (int c = 0; c < 2; c++) {
        int root = c * (self->size - 1), row = counts[c] / self->size;
        for (int how = 0; how < 3; how++) {
            for (int i = 0; i < counts[c]; i++)
                data[i] = value(self->rank, i);
            if (how == 0)
                EXPECT_OK(self, lks_group_all_reduce(g, data, (size_t)counts[c], LKS_F32, LKS_SUM));
            else if (how == 1)
                EXPECT_OK(self, lks_group_reduce(g, data, (size_t)counts[c], LKS_F32, LKS_SUM, root));
            else
                EXPECT_OK(self, lks_group_reduce_scatter(g, data, data, (size_t)row, LKS_F32, LKS_SUM));
            if (how < 2 && (how == 0 || self->rank == root))
                check_sums(self, data, counts[c], 0);
            if (how == 2)
                check_sums(self, data, row, self->rank * row);
        }
    }
    free(data);
}

static void order_is_the_tree(void **state)
{
    (void)state;
    static const int sizes[] = {2, 3, 5, 6, 7, 8, 11};
    for (int s = 0; s < 7; s++)
        for (int kind = AS_THREADS; kind <= EACH_ALONE; kind++)
            if (kind != AS_PROCESSES)
                members_run((member_kind)kind, sizes[s], sums_follow_the_tree, NULL);
}

/* Otherwise the test above could not fail. */
static void data_tells_orders_apart(void **state)
{
    (void)state;
    int differ = 0;
    for (int i = 0; i < N; i++)
        differ += tree_sum(0, 5, i) != left_to_right(5, i);
    assert_true(differ > N / 10);
}

/* Each member has a NaN at the index of its rank. */
static void nan_reaches_all_by(member *self, lks_op op)
{
    float f[16];
    double d[16];
    uint16_t b[16];
    for (int i = 0; i < 16; i++) {
        d[i] = i == self->rank ? (double)NAN : self->rank - i;
        f[i] = (float)d[i];
        element_put(b, (size_t)i, LKS_BF16, d[i]);
    }
    EXPECT_OK(self, lks_group_all_reduce(self->group, f, 16, LKS_F32, op));
    EXPECT_OK(self, lks_group_all_reduce(self->group, d, 16, LKS_F64, op));
    EXPECT_OK(self, lks_group_all_reduce(self->group, b, 16, LKS_BF16, op));
    for (int i = 0; i < 16; i++) {
        bool wanted = i < self->size;
        double e = element_get(b, (size_t)i, LKS_BF16);
        EXPECT(self, isnan(f[i]) == wanted && isnan(d[i]) == wanted && isnan(e) == wanted,
               "op %d: [%d] is %g, %g and %g", (int)op, i, (double)f[i], d[i], e);
        if (wanted || op == LKS_SUM || op == LKS_MEAN || op == LKS_PROD)
            continue;
        double chosen = op == LKS_MAX ? self->size - 1 - i : -i;
        EXPECT(self, f[i] == (float)chosen && d[i] == chosen && e == chosen,
               "op %d: [%d] is %g, %g and %g, wanted %g", (int)op, i, (double)f[i], d[i], e, chosen);
    }
}

static void nan_reaches_all(member *self)
{
    for (int op = LKS_SUM; op <= LKS_PROD; op++)
        nan_reaches_all_by(self, (lks_op)op);
}

static void all_operations_pass_nan_on(void **state)
{
    (void)state;
    for (int kind = AS_THREADS; kind <= EACH_ALONE; kind++) {
        members_run((member_kind)kind, 2, nan_reaches_all, NULL);
        members_run((member_kind)kind, 5, nan_reaches_all, NULL);
    }
}

static void wraps(member *self)
{
    int32_t i32[2] = {INT32_MAX, INT32_MIN};
    int64_t i64[2] = {INT64_MAX, INT64_MIN};
    uint8_t u8[2] = {255, 100};
    EXPECT_OK(self, lks_group_all_reduce(self->group, i32, 2, LKS_I32, LKS_SUM));
    EXPECT_OK(self, lks_group_all_reduce(self->group, i64, 2, LKS_I64, LKS_SUM));
    EXPECT_OK(self, lks_group_all_reduce(self->group, u8, 2, LKS_U8, LKS_SUM));
    /* 3 (2^31 - 1) = 2^32 + 2^31 - 3; 3 * -2^31 = -2^32 - 2^31; 3 * 255 = 2 * 256 + 253; 300 = 256 + 44 */
    EXPECT(self, i32[0] == INT32_MAX - 2 && i32[1] == INT32_MIN, "i32: %d %d", i32[0], i32[1]);
    EXPECT(self, i64[0] == INT64_MAX - 2 && i64[1] == INT64_MIN, "i64: %lld %lld", (long long)i64[0],
           (long long)i64[1]);
    EXPECT(self, u8[0] == 253 && u8[1] == 44, "u8: %d %d", u8[0], u8[1]);
}

static void integer_sums_wrap(void **state)
{
    (void)state;
    for (int kind = AS_THREADS; kind <= EACH_ALONE; kind++)
        members_run((member_kind)kind, 3, wraps, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_tells_orders_apart),
        cmocka_unit_test(order_is_the_tree),
        cmocka_unit_test(all_operations_pass_nan_on),
        cmocka_unit_test(integer_sums_wrap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
