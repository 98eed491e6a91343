/* SPDX-License-Identifier: Apache-2.0 */
/** IDX files, the format of MNIST: a magic number "0, 0, element type, number of dimensions", the dimensions
 * as big-endian 32-bit numbers, the elements. Plain or gzip, told apart by content. */
#ifndef LKS_DATA_IDX_H
#define LKS_DATA_IDX_H

#include <stdbool.h>
#include <stdint.h>

#include <zlib.h>

#include <lockstep/dataset.h>

enum { LKS__IDX_MAX_DIMS = 1 + LKS_MAX_DIMS };

/** An open file whose header has been read; the elements come next. Caller's storage; {0} is closed. */
typedef struct lks__idx {
    char *path;    /* of the file that was opened; owner only */
    gzFile stream; /* owner only */
    bool compressed;
    int n_dims; /* 1 .. LKS__IDX_MAX_DIMS */
    int64_t dims[LKS__IDX_MAX_DIMS];
    int64_t header_bytes;
    int64_t n_elems; /* product of dims: bytes, as elements are u8 */
} lks__idx;

/** Opens `path`, or `path`.gz where that does not exist, and checks its header; a plain file's size as well.
 *
 * Returns: LKS_OK; LKS_E_NOT_FOUND; LKS_E_FORMAT; LKS_E_UNSUPPORTED (elements that are no u8);
 *          LKS_E_SYSTEM (no descriptors left); LKS_E_IO; LKS_E_NOMEM. After a failure *out is closed. */
lks_status lks__idx_open(const char *path, lks__idx *out) LKS_MUST_USE;

/** Reads the first `n_keep` elements, 1 .. n_elems. A compressed file is read to its end, and so checked,
 * anyway.
 *
 * Memory grows with what is really there, so a header that lies costs nothing.
 * Ownership: the caller lks__free()s *out. Returns: LKS_OK; LKS_E_FORMAT; LKS_E_IO; LKS_E_NOMEM. */
lks_status lks__idx_read(lks__idx *file, int64_t n_keep, uint8_t **out) LKS_MUST_USE;

/** Closed already is fine. */
void lks__idx_close(lks__idx *file);

#endif
