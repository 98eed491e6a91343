/* SPDX-License-Identifier: Apache-2.0 */
/** The loop of dropout by vector instruction set, for dropout.c and its tests. */
#ifndef LKS_NN_DROPOUT_H
#define LKS_NN_DROPOUT_H

#include <stdint.h>

#include "base/simd.h"
#include "nn/network.h"

/** What decides about the elements of one leaf. */
typedef struct lks__dropout {
    uint32_t key[2];     /* of Philox */
    uint32_t leaf, step; /* words of its counter */
    uint32_t threshold;  /* an element whose 16 bits are below it is dropped */
    float scale;         /* of the others */
} lks__dropout;

/** ordinal: which dropout of the graph. */
lks__dropout lks__dropout_make(const lks__draw *draw, uint32_t ordinal, uint32_t threshold);

/** How many of the 2^16 values of an element's bits drop it: 0 for p = 0 alone. 0 <= p < 1 */
uint32_t lks__dropout_threshold(double p);

/** x, y: [n_rows, n], y may be x; kept: the same, receives 1 and 0. All versions give the same bits. */
typedef void lks__dropout_fn(const lks__dropout *d, int64_t n_rows, int64_t n, const float *x, float *y,
                             uint8_t *kept);
extern lks__dropout_fn *const lks__dropout_versions[LKS__SIMD_LEVELS];

#endif
