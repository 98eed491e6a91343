/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <stdlib.h>

#include "ddp/add.h"

enum { N = 4096 + 32, MAX_SIZE = 17 };

/* Magnitudes over 24 powers of two: nearly every other order of additions gives another sum. */
static float draw(uint32_t *state)
{
    *state = 1664525u * *state + 1013904223u;
    return ldexpf((float)((int32_t)*state >> 8) * 0x1p-23f, (int)(*state >> 27) % 24 - 12);
}

static float *draw_array(uint32_t seed)
{
    float *values = malloc(N * sizeof *values);
    assert_non_null(values);
    for (int i = 0; i < N; i++)
        values[i] = draw(&seed);
    return values;
}

static void every_version_gives_the_same_bytes(void **state)
{
    (void)state;
    static const int lengths[] = {0, 1, 3, 8, 15, 16, 17, 47, 1000, 4096};
    float *a = draw_array(1), *b = draw_array(2), *expected = draw_array(3), *got = draw_array(3);
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++)
        for (int offset = 0; offset < 17; offset++)
            for (int simd = 0; simd <= (int)lks__simd_best(); simd++) {
                int n = lengths[l];
                for (int i = 0; i < n; i++)
                    expected[offset + i] = a[i] + b[i + 3];
                lks__add_versions[simd](n, a, b + 3, got + offset);
                assert_memory_equal(got, expected, N * sizeof *got);
                for (int i = 0; i < n; i++) /* in place */
                    expected[offset + i] += b[i + 1];
                lks__add_versions[simd](n, got + offset, b + 1, got + offset);
                assert_memory_equal(got, expected, N * sizeof *got);
            }
    free(a), free(b), free(expected), free(got);
}

/* Members [lo, hi), as the definition of the tree says. */
static float naive(const float *const *arenas, int elem, int lo, int hi)
{
    if (hi - lo == 1)
        return arenas[lo][elem];
    int half = 1;
    while (half * 2 < hi - lo)
        half *= 2;
    return naive(arenas, elem, lo, lo + half) + naive(arenas, elem, lo + half, hi);
}

static void ranks_are_added_in_tree_order(void **state)
{
    (void)state;
    enum { BLOCK = 100, OFFSET = 7 };
    float *arenas[MAX_SIZE];
    for (int r = 0; r < MAX_SIZE; r++)
        arenas[r] = draw_array((uint32_t)r);
    for (int size = 1; size <= MAX_SIZE; size++) {
        lks__rank_tree *tree;
        CHECK_OK(lks__rank_tree_create(size, BLOCK, &tree));
        for (int n = 1; n <= BLOCK; n += 33) {
            const float *sum = lks__rank_tree_sum(tree, (const float *const *)arenas, OFFSET, n);
            for (int i = 0; i < n; i++) {
                float expected = naive((const float *const *)arenas, OFFSET + i, 0, size);
                if (memcmp(&sum[i], &expected, sizeof expected) != 0)
                    fail_msg("%d members, element %d of %d: %.9g, wanted %.9g", size, i, n, (double)sum[i],
                             (double)expected);
            }
        }
        lks__rank_tree_destroy(tree);
    }
    for (int r = 0; r < MAX_SIZE; r++)
        free(arenas[r]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_version_gives_the_same_bytes),
        cmocka_unit_test(ranks_are_added_in_tree_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
