/* SPDX-License-Identifier: Apache-2.0 */
/** From stored values to inputs of a network. */
#ifndef LKS_DATA_NORMALIZE_H
#define LKS_DATA_NORMALIZE_H

#include <stdint.h>

#include "base/simd.h"

typedef void lks__normalize_u8_fn(const uint8_t *stored, int64_t n, float scale, float shift, float *x);
typedef void lks__normalize_f32_fn(const float *stored, int64_t n, float scale, float shift, float *x);

/** x[i] = stored[i] * scale + shift, each operation rounded to f32: the same bits at every level. The arrays
 * must not overlap. */
extern lks__normalize_u8_fn *const lks__normalize_u8[LKS__SIMD_LEVELS];
extern lks__normalize_f32_fn *const lks__normalize_f32[LKS__SIMD_LEVELS];

#endif
