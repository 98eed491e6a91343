/* SPDX-License-Identifier: Apache-2.0 */
#include "data/normalize.h"

#define U8_PARAMS  (const uint8_t *restrict stored, int64_t n, float scale, float shift, float *restrict x)
#define F32_PARAMS (const float *restrict stored, int64_t n, float scale, float shift, float *restrict x)
#define ARGS       (stored, n, scale, shift, x)

LKS__SIMD_BODY void u8_body U8_PARAMS
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)stored[i] * scale + shift;
}

LKS__SIMD_BODY void f32_body F32_PARAMS
{
    for (int64_t i = 0; i < n; i++)
        x[i] = stored[i] * scale + shift;
}

LKS__SIMD_VERSIONS(u8, void, U8_PARAMS, ARGS)
LKS__SIMD_VERSIONS(f32, void, F32_PARAMS, ARGS)

lks__normalize_u8_fn *const lks__normalize_u8[LKS__SIMD_LEVELS] = LKS__SIMD_TABLE(u8);
lks__normalize_f32_fn *const lks__normalize_f32[LKS__SIMD_LEVELS] = LKS__SIMD_TABLE(f32);
