/* SPDX-License-Identifier: Apache-2.0 */
/* The loops over elements, for every vector instruction set that this processor has, and the order in which
 * they are applied to the members' buffers. */
#include "check.h"

#include <stdlib.h>

#include "comm/elements.h"
#include "comm/kernels.h"

enum { N = 4096 + 32, N_TREE = 5000, MAX_BYTES = 8, N_LOOP_TYPES = LKS_U8 + 1 };

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

#define CHOSEN(op, x, y)                                                                                     \
    ((op) == LKS_MAX   ? (isnan((double)(x)) || (x) > (y) ? (x) : (y))                                       \
     : (op) == LKS_MIN ? (isnan((double)(x)) || (x) < (y) ? (x) : (y))                                       \
     : (op) == LKS_SUM ? (x) + (y)                                                                           \
                       : (x) * (y))

/* One element, by the definitions: integers wrap, maximum and minimum pass NaN on. */
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
    memcpy(&x, a, element_bytes[dtype]);
    memcpy(&y, b, element_bytes[dtype]);
    bool wraps = op == LKS_SUM || op == LKS_PROD;
    if (dtype == LKS_F32)
        z.f32 = CHOSEN(op, x.f32, y.f32);
    else if (dtype == LKS_F64)
        z.f64 = CHOSEN(op, x.f64, y.f64);
    else if (wraps) /* the low bytes come from the low bytes, on a little-endian machine */
        z.bits = op == LKS_SUM ? x.bits + y.bits : x.bits * y.bits;
    else if (dtype == LKS_I32)
        z.i32 = op == LKS_MAX ? (x.i32 > y.i32 ? x.i32 : y.i32) : (x.i32 < y.i32 ? x.i32 : y.i32);
    else if (dtype == LKS_I64)
        z.i64 = op == LKS_MAX ? (x.i64 > y.i64 ? x.i64 : y.i64) : (x.i64 < y.i64 ? x.i64 : y.i64);
    else
        z.u8 = op == LKS_MAX ? (x.u8 > y.u8 ? x.u8 : y.u8) : (x.u8 < y.u8 ? x.u8 : y.u8);
    memcpy(out, &z, element_bytes[dtype]);
}

typedef struct buffers {
    char *a, *b, *expected, *got;
} buffers;

/* Elements at offsets that no vector is aligned to; what lies around them stays as it is. */
static void check_loop(const buffers *v, lks_dtype dtype, lks_op op, lks__simd level, int n)
{
    size_t size = element_bytes[dtype];
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
    static const lks_op ops[] = {LKS_SUM, LKS_MAX, LKS_MIN, LKS_PROD};
    for (int dtype = 0; dtype < N_LOOP_TYPES; dtype++) {
        lks_dtype type = (lks_dtype)dtype;
        buffers v = {draw_array(type, 1), draw_array(type, 2), draw_array(type, 3), draw_array(type, 3)};
        for (int level = 0; level <= (int)lks__simd_best(); level++)
            for (int op = 0; op < 4; op++)
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

/* ---- bf16 ---- */

static void every_bf16_becomes_its_value(void **state)
{
    (void)state;
    enum { ALL = 1 << 16 };
    uint16_t *in = malloc(ALL * sizeof *in);
    float *out = malloc(ALL * sizeof *out);
    for (int i = 0; i < ALL; i++)
        in[i] = (uint16_t)i;
    for (int level = 0; level <= (int)lks__simd_best(); level++) {
        lks__bf16_widen(out, in, ALL, (lks__simd)level);
        for (int i = 0; i < ALL; i++) {
            double wanted = bf16_value(in[i]);
            if (isnan(wanted))
                assert_true(isnan(out[i]));
            else if ((double)out[i] != wanted || (signbit(out[i]) != 0) != (signbit(wanted) != 0))
                fail_msg("bf16 %04x is %a, wanted %a", (unsigned)i, (double)out[i], wanted);
        }
    }
    free(in), free(out);
}

/* Around every bf16: the number itself, the middle to the next one, and their neighbours in f32. */
static void f32_becomes_the_nearest_bf16(void **state)
{
    (void)state;
    static const uint32_t lower[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    enum { ALL = 1 << 16, N_LOWER = sizeof lower / sizeof lower[0] };
    float *in = malloc(ALL * sizeof *in);
    uint16_t *out = malloc(ALL * sizeof *out);
    for (int level = 0; level <= (int)lks__simd_best(); level++)
        for (int l = 0; l < N_LOWER; l++) {
            for (uint32_t i = 0; i < ALL; i++) {
                uint32_t bits = i << 16 | lower[l];
                memcpy(&in[i], &bits, sizeof bits);
            }
            lks__bf16_narrow(out, in, ALL, (lks__simd)level);
            for (int i = 0; i < ALL; i++) {
                if (isnan(in[i])) /* sign and upper bits stay, and it is quiet */
                    CHECK_INT(out[i], i | 0x40);
                else if (out[i] != bf16_bits(in[i]))
                    fail_msg("%a became %04x, wanted %04x", (double)in[i], out[i], bf16_bits(in[i]));
            }
        }
    free(in), free(out);
}

/* Numbers of 8 significant bits within 2^-4 .. 2^4: sums of 8, and their partial sums, are exact in f32, so a
 * sum in double rounded once is what must come out. Rounding after each addition gives others. */
static void bf16_sums_are_rounded_once(void **state)
{
    (void)state;
    enum { SIZE = 8 };
    uint16_t *members[SIZE], *got = malloc(N_TREE * sizeof *got);
    const void *sources[SIZE];
    uint32_t seed = 5;
    int differ = 0;
    for (int r = 0; r < SIZE; r++) {
        sources[r] = members[r] = malloc(N_TREE * sizeof *members[r]);
        for (int i = 0; i < N_TREE; i++) {
            uint32_t bits = draw(&seed);
            members[r][i] = (uint16_t)((bits >> 31) << 15 | (123 + (bits >> 24) % 8) << 7 |
                                       (bits >> 16 & 0x7f));
        }
    }
    for (int size = 2; size <= SIZE; size++)
        for (int op = LKS_SUM; op <= LKS_MEAN; op++) {
            lks__reduce(got, sources, size, N_TREE, LKS_BF16, (lks_op)op);
            for (int i = 0; i < N_TREE; i++) {
                double sum = 0, stepwise = 0;
                for (int r = 0; r < size; r++) {
                    sum += bf16_value(members[r][i]);
                    stepwise = bf16_rounded(stepwise + bf16_value(members[r][i]));
                }
                differ += stepwise != bf16_rounded(sum);
                /* mean: f32 division, then bf16. A quotient by 3, 5, 6, 7 is never near a tie of bf16. */
                double wanted = op == LKS_MEAN ? sum / size : sum;
                if (bf16_value(got[i]) != bf16_rounded(wanted))
                    fail_msg("size %d op %d: [%d] is %a, wanted %a", size, op, i, bf16_value(got[i]),
                             bf16_rounded(wanted));
            }
        }
    assert_true(differ > N_TREE);
    for (int r = 0; r < SIZE; r++)
        free(members[r]);
    free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_version_gives_the_same_bytes),
        cmocka_unit_test(members_are_added_in_tree_order),
        cmocka_unit_test(every_bf16_becomes_its_value),
        cmocka_unit_test(f32_becomes_the_nearest_bf16),
        cmocka_unit_test(bf16_sums_are_rounded_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
