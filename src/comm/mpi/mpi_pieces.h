/* SPDX-License-Identifier: Apache-2.0 */
/** Reductions in tree order of which machines do parts: partial results of subtrees, and what becomes of
 * them. Together they make the additions of lks__reduce (kernels.h), and so its bits. */
#ifndef LKS_COMM_MPI_PIECES_H
#define LKS_COMM_MPI_PIECES_H

#include <stddef.h>

#include "comm/mpi/mpi_map.h"

/** Bytes of one element of a piece: of a member's own data, or of partial results, which are f32 for bf16. */
size_t lks__mpi_piece_element(const lks__mpi_piece *piece, lks_dtype dtype);

/** The partial result of the piece: out[i] = sources[0][i] op ... op sources[hi - lo - 1][i].
 *
 * Shapes: [count]; out lies apart. */
void lks__mpi_reduce_piece(void *out, const lks__mpi_piece *piece, const void *const *sources, size_t count,
                           lks_dtype dtype, lks_op op);

/** The result over all ranks, from the partial results of all pieces, data[n_pieces]. A mean is divided, bf16
 * rounded, once.
 *
 * Shapes: [count]; out may be one of the data of the result's type, else they lie apart. */
void lks__mpi_reduce_pieces(void *out, const lks__mpi_map *map, const void *const *data, size_t count,
                            lks_dtype dtype, lks_op op);

#endif
