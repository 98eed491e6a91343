/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/tree.h"
#include "optim/update.h"

enum { LANES = 16 };

LKS__SIMD_BODY double squared(float x, float scale)
{
    double g = (double)(scale * x);
    return g * g;
}

/* Element i is added to lane i mod 16, whatever the vector width; the lanes are added in tree order. */
LKS__SIMD_BODY double norm2_body(const float *x, int64_t n, float scale)
{
    double lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            lanes[k] += squared(x[i + k], scale);
    for (int k = 0; i + k < n; k++)
        lanes[k] += squared(x[i + k], scale);
    return lks__tree_sum(lanes, LANES);
}

LKS__SIMD_VERSIONS(norm2, double, (const float *x, int64_t n, float scale), (x, n, scale))

double (*const lks__block_norm2_versions[LKS__SIMD_LEVELS])(const float *x, int64_t n,
                                                            float scale) = LKS__SIMD_TABLE(norm2);

double lks__block_norm2(const float *x, int64_t n, float scale)
{
    return lks__block_norm2_versions[lks__simd_best()](x, n, scale);
}

/* x's exponent, in its place: all ones when x is not finite, else less. */
LKS__SIMD_BODY int32_t exponent_of(float x)
{
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x7f800000;
}

/* Looks for the largest exponent, in lanes, so that the loop is vectorised and has no chain to wait for. */
LKS__SIMD_BODY bool finite_body(const float *x, int64_t n)
{
    enum { FINITE_LANES = 64 };
    int32_t most[FINITE_LANES] = {0}, all = 0;
    int64_t i = 0;
    for (; i + FINITE_LANES <= n; i += FINITE_LANES)
        for (int k = 0; k < FINITE_LANES; k++) {
            int32_t exponent = exponent_of(x[i + k]);
            most[k] = exponent > most[k] ? exponent : most[k];
        }
    for (int k = 0; i + k < n; k++)
        most[k] = exponent_of(x[i + k]) > most[k] ? exponent_of(x[i + k]) : most[k];
    for (int k = 0; k < FINITE_LANES; k++)
        all = most[k] > all ? most[k] : all;
    return all < 0x7f800000;
}

LKS__SIMD_VERSIONS(finite, bool, (const float *x, int64_t n), (x, n))

bool lks__block_is_finite(const float *x, int64_t n)
{
    static bool (*const versions[LKS__SIMD_LEVELS])(const float *x, int64_t n) = LKS__SIMD_TABLE(finite);
    return versions[lks__simd_best()](x, n);
}
