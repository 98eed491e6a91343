/* SPDX-License-Identifier: Apache-2.0 */
/** The steps of which the table in mpi_algorithms.c is made. */
#ifndef LKS_COMM_MPI_STEPS_H
#define LKS_COMM_MPI_STEPS_H

#include "comm/mpi/mpi_member.h"

/* mpi_reduce.c */
lks__mpi_step lks__mpi_pack_pieces, lks__mpi_unpack_pieces;
lks__mpi_step lks__mpi_send_partials, lks__mpi_spread_chunk, lks__mpi_deliver_chunks;
lks__mpi_step lks__mpi_send_chunk_to_root, lks__mpi_reduce_own_row;
lks__mpi_step lks__mpi_start_fast, lks__mpi_divide_fast;

/* mpi_move.c */
lks__mpi_step lks__mpi_stage_data, lks__mpi_stage_rows, lks__mpi_stage_roots_data, lks__mpi_stage_roots_rows,
    lks__mpi_stage_for_root;
lks__mpi_step lks__mpi_pack_broadcast, lks__mpi_unpack_broadcast, lks__mpi_receive_broadcast,
    lks__mpi_pass_broadcast, lks__mpi_fetch_broadcast;
lks__mpi_step lks__mpi_pack_rows, lks__mpi_unpack_rows, lks__mpi_exchange_rows, lks__mpi_fetch_rows;
lks__mpi_step lks__mpi_send_rows_to_root, lks__mpi_fetch_rows_to_root;
lks__mpi_step lks__mpi_send_rows_of_root, lks__mpi_fetch_row_of_root;
lks__mpi_step lks__mpi_swap_rows, lks__mpi_fetch_swapped;
lks__mpi_step lks__mpi_fetch_result, lks__mpi_fetch_roots_result;

/** Bytes of the partial results that a machine has of n elements. */
size_t lks__mpi_partials_bytes(const lks__mpi_map *map, int machine, size_t n, lks_dtype dtype);
/** The same of n elements and one piece, at most, whatever the type. */
size_t lks__mpi_piece_bytes(size_t bytes);
/** Bytes of a member's chunk of a part, at most. */
size_t lks__mpi_chunk_bytes(int size);

#endif
