/* SPDX-License-Identifier: Apache-2.0 */
#include "optim/update.h"

#define CLIP_PARAMS (int64_t n, float *grad, float scale, float limit)

/* Comparisons with NaN are false, so it passes both. */
LKS__SIMD_BODY void clip_value_body CLIP_PARAMS
{
    for (int64_t i = 0; i < n; i++) {
        float g = scale * grad[i];
        g = g > limit ? limit : g;
        grad[i] = g < -limit ? -limit : g;
    }
}

LKS__SIMD_VERSIONS(clip_value, void, CLIP_PARAMS, (n, grad, scale, limit))

void(*const lks__clip_value_versions[LKS__SIMD_LEVELS]) CLIP_PARAMS = LKS__SIMD_TABLE(clip_value);

void lks__clip_value(int64_t n, float *grad, float scale, float limit)
{
    lks__clip_value_versions[lks__simd_best()](n, grad, scale, limit);
}
