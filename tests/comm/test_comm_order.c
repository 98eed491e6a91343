/* SPDX-License-Identifier: Apache-2.0 */
/* The order of additions, NaN, and sums that wrap. */
#include "check.h"

#include <stdlib.h>

#include <lockstep/group.h>

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

static void sums_follow_the_tree(member *self)
{
    static const int counts[] = {N, 501}; /* in pieces, and eager */
    float *data = malloc(N * sizeof *data);
    for (int c = 0; c < 2; c++) {
        for (int i = 0; i < counts[c]; i++)
            data[i] = value(self->rank, i);
        EXPECT_OK(self, lks_group_all_reduce(self->group, data, (size_t)counts[c], LKS_F32, LKS_SUM));
        for (int i = 0; i < counts[c]; i++) {
            float wanted = tree_sum(0, self->size, i);
            EXPECT(self, memcmp(&data[i], &wanted, sizeof wanted) == 0, "[%d] is %a, wanted %a", i,
                   (double)data[i], (double)wanted);
        }
    }
    free(data);
}

static void order_is_the_tree(void **state)
{
    (void)state;
    static const int sizes[] = {2, 3, 5, 6, 7, 8, 11};
    for (int s = 0; s < 7; s++)
        members_run(AS_THREADS, sizes[s], sums_follow_the_tree, NULL);
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
static void nan_reaches_all(member *self)
{
    float f[16];
    double d[16];
    for (int i = 0; i < 16; i++) {
        f[i] = i == self->rank ? NAN : (float)(self->rank - i);
        d[i] = f[i];
    }
    EXPECT_OK(self, lks_group_all_reduce(self->group, f, 16, LKS_F32, LKS_MAX));
    EXPECT_OK(self, lks_group_all_reduce(self->group, d, 16, LKS_F64, LKS_MAX));
    for (int i = 0; i < 16; i++) {
        bool wanted = i < self->size;
        EXPECT(self, isnan(f[i]) == wanted && isnan(d[i]) == wanted, "[%d] is %g and %g", i, (double)f[i],
               d[i]);
        EXPECT(self, wanted || f[i] == (float)(self->size - 1 - i), "[%d] is %g", i, (double)f[i]);
    }
}

static void max_passes_nan_on(void **state)
{
    (void)state;
    members_run(AS_THREADS, 2, nan_reaches_all, NULL);
    members_run(AS_THREADS, 5, nan_reaches_all, NULL);
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
    members_run(AS_THREADS, 3, wraps, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_tells_orders_apart),
        cmocka_unit_test(order_is_the_tree),
        cmocka_unit_test(max_passes_nan_on),
        cmocka_unit_test(integer_sums_wrap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
