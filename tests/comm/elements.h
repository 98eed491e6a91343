/* SPDX-License-Identifier: Apache-2.0 */
/** Elements of every type as doubles, by code that shares nothing with src/. */
#ifndef LKS_TESTS_COMM_ELEMENTS_H
#define LKS_TESTS_COMM_ELEMENTS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lockstep/group.h>

enum { N_ELEMENT_TYPES = LKS_BF16 + 1 };

static const size_t element_bytes[N_ELEMENT_TYPES] = {
    [LKS_F32] = 4, [LKS_F64] = 8, [LKS_I32] = 4, [LKS_I64] = 8, [LKS_U8] = 1, [LKS_BF16] = 2};

static const bool element_is_float[N_ELEMENT_TYPES] = {[LKS_F32] = true, [LKS_F64] = true, [LKS_BF16] = true};

/* A bf16 by its definition: sign, 8 bits of exponent, 7 of fraction. */
static inline double bf16_value(uint16_t bits)
{
    int exponent = bits >> 7 & 0xff, fraction = bits & 0x7f;
    double sign = bits >> 15 != 0 ? -1.0 : 1.0;
    if (exponent == 0xff)
        return fraction != 0 ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0)
        return sign * ldexp(fraction, -133);
    return sign * ldexp(128 + fraction, exponent - 134);
}

/* The nearest bf16 to a number, ties to even: rint in units of the last place. */
static inline double bf16_rounded(double x)
{
    if (x == 0 || !isfinite(x))
        return x;
    int exponent;
    frexp(x, &exponent); /* |x| in [2^(exponent - 1), 2^exponent): 8 significant bits */
    int unit = exponent - 8 > -133 ? exponent - 8 : -133;
    double rounded = ldexp(rint(ldexp(x, -unit)), unit);
    return fabs(rounded) >= 0x1p128 ? copysign((double)INFINITY, x) : rounded;
}

static inline uint16_t bf16_bits(double x)
{
    if (isnan(x))
        return 0x7fc0;
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    double magnitude = fabs(bf16_rounded(x));
    if (isinf(magnitude))
        return sign | 0x7f80;
    int exponent;
    frexp(magnitude, &exponent);
    if (magnitude == 0 || exponent < -125)
        return (uint16_t)(sign | (int)ldexp(magnitude, 133));
    int biased = exponent + 126, fraction = (int)ldexp(magnitude, 8 - exponent) - 128;
    return (uint16_t)(sign | biased << 7 | fraction);
}

static inline double element_get(const void *data, size_t i, lks_dtype dtype)
{
    switch (dtype) {
    case LKS_F32:
        return ((const float *)data)[i];
    case LKS_F64:
        return ((const double *)data)[i];
    case LKS_I32:
        return ((const int32_t *)data)[i];
    case LKS_I64:
        return (double)((const int64_t *)data)[i];
    case LKS_U8:
        return ((const uint8_t *)data)[i];
    case LKS_BF16:
        return bf16_value(((const uint16_t *)data)[i]);
    }
    return NAN;
}

static inline void element_put(void *data, size_t i, lks_dtype dtype, double value)
{
    switch (dtype) {
    case LKS_F32:
        ((float *)data)[i] = (float)value;
        break;
    case LKS_F64:
        ((double *)data)[i] = value;
        break;
    case LKS_I32:
        ((int32_t *)data)[i] = (int32_t)value;
        break;
    case LKS_I64:
        ((int64_t *)data)[i] = (int64_t)value;
        break;
    case LKS_U8:
        ((uint8_t *)data)[i] = (uint8_t)value;
        break;
    case LKS_BF16:
        ((uint16_t *)data)[i] = bf16_bits(value);
        break;
    }
}

/* What a type makes of a number; integers are not rounded, so that a wrong one shows. */
static inline double element_rounded(double x, lks_dtype dtype)
{
    return dtype == LKS_F32 ? (double)(float)x : dtype == LKS_BF16 ? bf16_rounded(x) : x;
}

#endif
