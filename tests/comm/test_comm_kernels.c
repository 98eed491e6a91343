/* SPDX-License-Identifier: Apache-2.0 */
/* The loops over elements, for every vector instruction set that this processor has, and the order in which
 * they are applied to the members' buffers. */
#include "check.h"

#include <stdlib.h>

#include "comm/kernels.h"

enum { N = 4096 + 32, N_TREE = 5000, MAX_BYTES = 8, N_DTYPES = LKS_U8 + 1 };

static const size_t bytes_of[N_DTYPES] = {
    [LKS_F32] = 4, [LKS_F64] = 8, [LKS_I32] = 4, [LKS_I64] = 8, [LKS_U8] = 1};

/* A linear congruential generator (Numerical Recipes). */
static uint32_t draw(uint32_t *state)
{
    return *state = 1664525u * *state + 1013904223u;
}

/* Magnitudes over 24 powers of two: nearly every other order of additions gives another sum. */
static float draw_float(uint32_t *state)
{
    uint32_t bits = draw(state);
    return ldexpf((float)((int32_t)bits >> 8) * 0x1p-23f, (int)(bits >> 27) % 24 - 12);
}

/* [N] elements of a type; one floating-point number in 16 is NaN. */
static void *draw_array(lks_dtype dtype, uint32_t seed)
{
    char *values = malloc(N * MAX_BYTES);
    assert_non_null(values);
    for (size_t i = 0; i < N * MAX_BYTES; i++)
        values[i] = (char)(draw(&seed) >> 24);
    for (int i = 0; i < N; i++) {
        float number = draw(&seed) >> 28 == 0 ? NAN : draw_float(&seed);
        if (dtype == LKS_F32)
            ((float *)values)[i] = number;
        else if (dtype == LKS_F64)
            ((double *)values)[i] = number;
    }
    return values;
}

#define LARGER(x, y) (isnan(x) || (x) > (y) ? (x) : (y))

/* One element, by the definitions: integers wrap, a maximum passes NaN on. */
static void combine_one(lks_dtype dtype, lks_op op, const void *a, const void *b, void *out)
{
    union {
        float f32;
        double f64;
        int32_t i32;
        int64_t i64;
        uint8_t u8;
        uint64_t bits;
    } x = {.bits = 0}, y = {.bits = 0}, z = {.bits = 0};
    memcpy(&x, a, bytes_of[dtype]);
    memcpy(&y, b, bytes_of[dtype]);
    bool max = op == LKS_MAX;
    if (dtype == LKS_F32)
        z.f32 = max ? LARGER(x.f32, y.f32) : x.f32 + y.f32;
    else if (dtype == LKS_F64)
        z.f64 = max ? LARGER(x.f64, y.f64) : x.f64 + y.f64;
    else if (!max)
        z.bits = x.bits + y.bits; /* the low bytes are the sum of the low bytes, on a little-endian machine */
    else if (dtype == LKS_I32)
        z.i32 = x.i32 > y.i32 ? x.i32 : y.i32;
    else if (dtype == LKS_I64)
        z.i64 = x.i64 > y.i64 ? x.i64 : y.i64;
    else
        z.u8 = x.u8 > y.u8 ? x.u8 : y.u8;
    memcpy(out, &z, bytes_of[dtype]);
}

typedef struct buffers {
    char *a, *b, *expected, *got;
} buffers;

/* Elements at offsets that no vector is aligned to; what lies around them stays as it is. */
static void check_loop(const buffers *v, lks_dtype dtype, lks_op op, lks__simd level, int n)
{
    size_t size = bytes_of[dtype];
    for (size_t offset = 0; offset < 17; offset++) {
        char *a = v->a, *b = v->b + 3 * size, *c = v->b + size;
        char *expected = v->expected + offset * size, *got = v->got + offset * size;
        for (size_t i = 0; i < (size_t)n * size; i += size)
            combine_one(dtype, op, a + i, b + i, expected + i);
        lks__combine(dtype, op, level)(got, a, b, (size_t)n);
        assert_memory_equal(v->got, v->expected, N * size);

        for (size_t i = 0; i < (size_t)n * size; i += size) /* in place, on the left and on the right */
            combine_one(dtype, op, expected + i, c + i, expected + i);
        lks__combine(dtype, op, level)(got, got, c, (size_t)n);
        assert_memory_equal(v->got, v->expected, N * size);

        for (size_t i = 0; i < (size_t)n * size; i += size)
            combine_one(dtype, op, b + i, expected + i, expected + i);
        lks__combine(dtype, op, level)(got, b, got, (size_t)n);
        assert_memory_equal(v->got, v->expected, N * size);
    }
}

static void every_version_gives_the_same_bytes(void **state)
{
    (void)state;
    static const int lengths[] = {0, 1, 3, 8, 15, 16, 17, 47, 130, 1000};
    static const lks_op ops[] = {LKS_SUM, LKS_MAX};
    for (int dtype = 0; dtype < N_DTYPES; dtype++) {
        lks_dtype type = (lks_dtype)dtype;
        buffers v = {draw_array(type, 1), draw_array(type, 2), draw_array(type, 3), draw_array(type, 3)};
        for (int level = 0; level <= (int)lks__simd_best(); level++)
            for (int op = 0; op < 2; op++)
                for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++)
                    check_loop(&v, type, ops[op], (lks__simd)level, lengths[l]);
        free(v.a), free(v.b), free(v.expected), free(v.got);
    }
}

/* Members [lo, hi), as the definition of the tree says. */
static float naive(float *const *members, int elem, int lo, int hi)
{
    if (hi - lo == 1)
        return members[lo][elem];
    int half = 1;
    while (half * 2 < hi - lo)
        half *= 2;
    return naive(members, elem, lo, lo + half) + naive(members, elem, lo + half, hi);
}

/* Into a buffer of its own, and into that of member `into`; more elements than are reduced at a time. */
static void check_tree(float *const *members, int size, int into)
{
    const void *sources[LKS_GROUP_MAX_SIZE];
    float *expected = malloc(N_TREE * sizeof *expected), *got = malloc(N_TREE * sizeof *got),
          *member = malloc(N_TREE * sizeof *member);
    assert_true(expected != NULL && got != NULL && member != NULL);
    for (int r = 0; r < size; r++)
        sources[r] = members[r];
    for (int i = 0; i < N_TREE; i++)
        expected[i] = naive(members, i, 0, size);
    lks__reduce(got, sources, size, N_TREE, LKS_F32, LKS_SUM);
    assert_memory_equal(got, expected, N_TREE * sizeof *got);

    memcpy(member, members[into], N_TREE * sizeof *member);
    sources[into] = member;
    lks__reduce(member, sources, size, N_TREE, LKS_F32, LKS_SUM);
    assert_memory_equal(member, expected, N_TREE * sizeof *member);
    free(expected), free(got), free(member);
}

static void members_are_added_in_tree_order(void **state)
{
    (void)state;
    enum { MANY = 17 };
    float *members[LKS_GROUP_MAX_SIZE];
    uint32_t seed = 1;
    for (int r = 0; r < LKS_GROUP_MAX_SIZE; r++) {
        members[r] = malloc(N_TREE * sizeof *members[r]);
        assert_non_null(members[r]);
        for (int i = 0; i < N_TREE; i++)
            members[r][i] = draw_float(&seed);
    }
    for (int size = 2; size <= MANY; size++)
        check_tree(members, size, size / 2);
    check_tree(members, LKS_GROUP_MAX_SIZE, 0); /* the deepest tree */
    check_tree(members, LKS_GROUP_MAX_SIZE - 1, LKS_GROUP_MAX_SIZE - 2);
    for (int r = 0; r < LKS_GROUP_MAX_SIZE; r++)
        free(members[r]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_version_gives_the_same_bytes),
        cmocka_unit_test(members_are_added_in_tree_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
