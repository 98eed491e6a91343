/* SPDX-License-Identifier: Apache-2.0 */
/** Data sets: N samples of equal shape, each with a class label. */
#ifndef LOCKSTEP_DATASET_H
#define LOCKSTEP_DATASET_H

#include <stdint.h>

#include <lockstep/export.h>
#include <lockstep/group.h>
#include <lockstep/status.h>

LKS_BEGIN_DECLS

typedef struct lks_dataset lks_dataset;

#define LKS_MAX_DIMS 4

/** What a data set holds; known from a file's header alone. */
typedef struct lks_dataset_info {
    int64_t n_samples;           /* N, after any limit */
    int n_dims;                  /* of one sample */
    int64_t shape[LKS_MAX_DIMS]; /* of one sample, e.g. {28, 28} */
    int64_t n_features;          /* product of shape */
    int64_t n_classes;           /* largest label (of the whole file) + 1; 0 when only the header was read */
} lks_dataset_info;

/** How stored values become inputs: x = (stored * scale - mean) / std, with scale 1/255 for u8 and 1 for f32.
 */
typedef struct lks_normalize {
    double mean; /* 0 */
    double std;  /* 1; > 0 */
} lks_normalize;

/** The data set of C arrays, as torch.utils.data.TensorDataset.
 *
 * Shapes:    features: [n, shape[0], ..., shape[n_dims - 1]] of LKS_F32 or LKS_U8;
 *            labels: [n], each 0 .. 2^31 - 2.
 * Ownership: the arrays are borrowed until lks_dataset_destroy.
 * Returns:   LKS_OK; LKS_E_ARG; LKS_E_NOMEM.
 */
LKS_API lks_status lks_dataset_from_arrays(int64_t n, int n_dims, const int64_t *shape, lks_dtype dtype,
                                           const void *features, const int32_t *labels,
                                           lks_dataset **out) LKS_MUST_USE;

/** A pair of IDX files (the format of MNIST), plain or gzip; a missing `path` is looked for as `path`.gz.
 *
 * limit: only the first `limit` samples; 0: all.
 * Returns: LKS_OK; LKS_E_NOT_FOUND; LKS_E_FORMAT (magic, truncated, trailing bytes, damaged gzip, labels !=
 * images; bytes behind the end of the gzip data itself are ignored, as by gunzip); LKS_E_UNSUPPORTED
 * (elements that are no u8); LKS_E_ARG (a limit beyond the file); LKS_E_SYSTEM (no descriptors left);
 * LKS_E_IO; LKS_E_NOMEM.
 */
LKS_API lks_status lks_dataset_from_idx(const char *images_path, const char *labels_path, int64_t limit,
                                        lks_dataset **out) LKS_MUST_USE;

LKS_API void lks_dataset_destroy(lks_dataset *dataset);

/** How the values that lks_dataset_read hands out are normalised. Default: mean 0, std 1. Returns: LKS_OK;
 * LKS_E_ARG. */
LKS_API lks_status lks_dataset_set_normalize(lks_dataset *dataset,
                                             const lks_normalize *normalize) LKS_MUST_USE;

LKS_API void lks_dataset_get_info(const lks_dataset *dataset, lks_dataset_info *out);

/** Copies samples into a batch. x: [n, n_features] f32, normalised; labels: [n]. Indices must lie in 0 .. N
 * - 1. Thread: any number of threads may read one data set. */
LKS_API void lks_dataset_read(const lks_dataset *dataset, int64_t n, const int64_t *indices, float *x,
                              int32_t *labels);

LKS_END_DECLS

#endif
