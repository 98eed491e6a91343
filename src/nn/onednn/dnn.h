/* SPDX-License-Identifier: Apache-2.0 */
/** A thin layer over oneDNN: the only part of the project that includes its headers.
 *
 * Failures of oneDNN become LKS_E_KERNEL with what was tried and oneDNN's own word for it; LKS_E_NOMEM where
 * it ran out of memory. Everything runs on the calling thread and OpenMP's threads, whose number the caller
 * sets.
 */
#ifndef LKS_NN_ONEDNN_DNN_H
#define LKS_NN_ONEDNN_DNN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lockstep/status.h>

/** Engine, stream, and the scratch memory that all primitives of a network take turns with. */
typedef struct lks__dnn lks__dnn;

/** sizes_only: primitives choose kernels and layouts, but are not made, and can't be run. */
lks_status lks__dnn_create(bool sizes_only, lks__dnn **out) LKS_MUST_USE;
void lks__dnn_destroy(lks__dnn *dnn);

/** Allocates the scratch memory, unless sizes_only: once, after the last primitive was made. */
lks_status lks__dnn_alloc_scratch(lks__dnn *dnn) LKS_MUST_USE;

/** What the primitives made so far need. */
size_t lks__dnn_scratch_bytes(const lks__dnn *dnn);

/** Version and effective instruction set, "oneDNN 2.6.3 isa 0x..". */
void lks__dnn_describe(size_t bytes, char *out);

/** One compiled operation. Its memory objects remember the operands of the last run. */
typedef struct lks__primitive lks__primitive;

void lks__primitive_destroy(lks__primitive *primitive);

/** The library's implementation: "brgemm:avx512_core". Borrowed. */
const char *lks__primitive_detail(const lks__primitive *primitive);

/** Runs it. operands: f32 buffers, aligned to LKS__ALIGNMENT, in the order that its maker states. */
lks_status lks__primitive_run(lks__dnn *dnn, lks__primitive *primitive,
                              const void *const *operands) LKS_MUST_USE;

/** How a tensor lies in memory, beside its plain (row-major) form. */
typedef struct lks__layout lks__layout;

void lks__layout_destroy(lks__layout *layout);
int64_t lks__layout_elems(const lks__layout *layout); /* with padding */

/** Equal texts exactly for equal layouts: sizes, strides, blocks. */
void lks__layout_describe(const lks__layout *layout, size_t bytes, char *out);

/** Converts; import writes zeros to the padding. arena: where the tensor starts, [lks__layout_elems]; export
 * may write zeros over its padding, so it must be writable. plain: [product of sizes]. */
lks_status lks__layout_export(lks__dnn *dnn, const lks__layout *layout, const float *arena,
                              float *plain) LKS_MUST_USE;
lks_status lks__layout_import(lks__dnn *dnn, const lks__layout *layout, const float *plain,
                              float *arena) LKS_MUST_USE;

#endif
