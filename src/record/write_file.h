/* SPDX-License-Identifier: Apache-2.0 */
/** Files that are whole or not there. */
#ifndef LKS_RECORD_WRITE_FILE_H
#define LKS_RECORD_WRITE_FILE_H

#include <stddef.h>

#include <lockstep/status.h>

typedef struct lks__piece {
    const void *data; /* borrowed */
    size_t bytes;
} lks__piece;

/** Writes the pieces one after the other to `path`.tmp, flushes it, renames it, flushes the folder: `path` is
 * whole or as it was, even after a power cut.
 *  Returns: LKS_OK; LKS_E_IO (no temporary file is left); LKS_E_NOMEM. */
lks_status lks__write_file(const char *path, int n_pieces, const lks__piece *pieces) LKS_MUST_USE;

/** Writes all bytes, however many calls it takes. Returns 0, or the errno value of what went wrong. */
int lks__write_all(int fd, const void *data, size_t bytes);

/** "folder/file". Ownership: the caller lks__free()s it; NULL: no memory. */
char *lks__join_path(const char *folder, const char *file);

#endif
