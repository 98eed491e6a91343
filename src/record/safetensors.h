/* SPDX-License-Identifier: Apache-2.0 */
/** safetensors files: 8 bytes header length (little endian), a JSON header, the tensors' bytes. */
#ifndef LKS_RECORD_SAFETENSORS_H
#define LKS_RECORD_SAFETENSORS_H

#include <stdint.h>

#include <lockstep/status.h>

enum { LKS__SAFETENSORS_DIMS = 8 };

/** An f32 tensor to write. */
typedef struct lks__tensor_view {
    const char *name;
    int n_dims;
    const int64_t *shape;
    const float *data; /* plain layout, [product of shape] */
} lks__tensor_view;

typedef struct lks__metadata {
    const char *key;
    const char *value;
} lks__metadata;

/** Writes to a temporary name, flushes, renames, flushes the folder: `path` is whole or as it was.
 *  Returns: LKS_OK; LKS_E_IO (nothing is left behind); LKS_E_NOMEM. */
lks_status lks__safetensors_write(const char *path, int n_tensors, const lks__tensor_view *tensors,
                                  int n_metadata, const lks__metadata *metadata) LKS_MUST_USE;

/** As write, with a checksum of the whole file as the first metadata entry, "checksum". Metadata keys must
 * be others. */
lks_status lks__safetensors_write_checked(const char *path, int n_tensors, const lks__tensor_view *tensors,
                                          int n_metadata, const lks__metadata *metadata) LKS_MUST_USE;

typedef struct lks__safetensors lks__safetensors;

/** Opens and checks a file: header, types, shapes, offsets within the file and apart from each other.
 *  Returns: LKS_OK; LKS_E_NOT_FOUND; LKS_E_FORMAT; LKS_E_IO; LKS_E_NOMEM. */
lks_status lks__safetensors_open(const char *path, lks__safetensors **out) LKS_MUST_USE;
/** Reads the whole file and compares its checksum, which lks__safetensors_write_checked has put there.
 *  Returns: LKS_OK; LKS_E_FORMAT: the file is damaged or has no checksum; LKS_E_IO; LKS_E_NOMEM. */
lks_status lks__safetensors_verify(const lks__safetensors *file) LKS_MUST_USE;

void lks__safetensors_close(lks__safetensors *file);

int lks__safetensors_n_tensors(const lks__safetensors *file);
const char *lks__safetensors_name(const lks__safetensors *file, int index); /* borrowed */

/** A tensor of a file; what it points to belongs to the file. */
typedef struct lks__tensor_info {
    const char *name;
    const char *dtype; /* "F32", "BF16", ... */
    int n_dims;
    const int64_t *shape;
    int64_t bytes;
} lks__tensor_info;

lks__tensor_info lks__safetensors_tensor(const lks__safetensors *file, int index);
int64_t lks__safetensors_data_bytes(const lks__safetensors *file); /* of all tensors */
const char *lks__safetensors_metadata(const lks__safetensors *file,
                                      const char *key); /* borrowed; NULL: none */

/** Reads an f32 tensor that must have this name and shape. Returns: LKS_OK; LKS_E_FORMAT with what the file
 * has and what is wanted; LKS_E_IO. */
lks_status lks__safetensors_read(const lks__safetensors *file, const char *name, int n_dims,
                                 const int64_t *shape, float *out) LKS_MUST_USE;

#endif
