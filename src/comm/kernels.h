/* SPDX-License-Identifier: Apache-2.0 */
/** Reductions over members' buffers, in the fixed tree order over ranks (base/tree.h). */
#ifndef LKS_COMM_KERNELS_H
#define LKS_COMM_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include <lockstep/group.h>

#include "base/simd.h"

/** out[i] = a[i] op b[i], i < n. out may be a or b, else they lie apart. */
typedef void lks__combine_fn(void *out, const void *a, const void *b, size_t n);

/** The loop that applies the operation (LKS_MEAN: adds), for a level that the processor has. All levels give
 * the same bits. For LKS_BF16 it is the one of f32: convert before and after. */
lks__combine_fn *lks__combine(lks_dtype dtype, lks_op op, lks__simd level);

/** out[i] = sources[0][i] op ... op sources[size - 1][i], i < count, in tree order; mean divides the sum by
 * size once.
 *
 * Shapes: sources[r], out: [count]. size: 1 .. LKS_GROUP_MAX_SIZE. out may be one of the sources, else they
 * lie apart. An element's result depends on the elements at its index only. Integers wrap. bf16 is computed
 * with in f32 and rounded once, at the end.
 */
void lks__reduce(void *out, const void *const *sources, int size, size_t count, lks_dtype dtype, lks_op op);

/** Where the chunk of `rank` starts in n elements of `element` bytes: equal parts, on cache lines so that no
 * two members write one. That of rank `size` is the end. */
size_t lks__chunk_start(size_t n, size_t element, int rank, int size);

/** data[i] /= divisor, i < n, of a type that has means; LKS_BF16: of f32. */
void lks__divide(lks_dtype dtype, void *data, size_t n, int divisor);

/** bf16 (the upper half of an f32's bits) to f32, exactly; and back, to the nearest, ties to even, NaN kept
 * and quiet. Shapes: [n]; in and out lie apart. All levels give the same bits. */
void lks__bf16_widen(float *out, const uint16_t *in, size_t n, lks__simd level);
void lks__bf16_narrow(uint16_t *out, const float *in, size_t n, lks__simd level);

#endif
