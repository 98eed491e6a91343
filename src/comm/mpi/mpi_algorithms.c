/* SPDX-License-Identifier: Apache-2.0 */
/* The operations as rows of a table: the steps of mpi_move.c and mpi_reduce.c that they are made of. */
#include "comm/mpi/mpi_steps.h"

static const lks__mpi_algorithm algorithms[LKS__N_COLLECTIVES] = {
    [LKS_ALL_REDUCE] = {.reads_places = true,
                        .stage = lks__mpi_stage_data,
                        .pack = lks__mpi_pack_pieces,
                        .unpack = lks__mpi_unpack_pieces,
                        .first = lks__mpi_send_partials,
                        .second = lks__mpi_spread_chunk,
                        .deliver = lks__mpi_deliver_chunks,
                        .fetch = lks__mpi_fetch_result},
    [LKS_REDUCE] = {.reads_places = true,
                    .stage = lks__mpi_stage_data,
                    .pack = lks__mpi_pack_pieces,
                    .unpack = lks__mpi_unpack_pieces,
                    .first = lks__mpi_send_partials,
                    .second = lks__mpi_send_chunk_to_root,
                    .fetch = lks__mpi_fetch_roots_result},
    [LKS_REDUCE_SCATTER] = {.in_rows = true,
                            .stage = lks__mpi_stage_rows,
                            .first = lks__mpi_send_partials,
                            .second = lks__mpi_reduce_own_row},
    [LKS_BROADCAST] = {.stage = lks__mpi_stage_roots_data,
                       .pack = lks__mpi_pack_broadcast,
                       .unpack = lks__mpi_unpack_broadcast,
                       .first = lks__mpi_receive_broadcast,
                       .second = lks__mpi_pass_broadcast,
                       .fetch = lks__mpi_fetch_broadcast},
    [LKS_ALL_GATHER] = {.in_rows = true,
                        .stage = lks__mpi_stage_data,
                        .pack = lks__mpi_pack_rows,
                        .unpack = lks__mpi_unpack_rows,
                        .first = lks__mpi_exchange_rows,
                        .fetch = lks__mpi_fetch_rows},
    [LKS_GATHER] = {.stage = lks__mpi_stage_for_root,
                    .first = lks__mpi_send_rows_to_root,
                    .fetch = lks__mpi_fetch_rows_to_root},
    [LKS_SCATTER] = {.in_rows = true,
                     .stage = lks__mpi_stage_roots_rows,
                     .first = lks__mpi_send_rows_of_root,
                     .fetch = lks__mpi_fetch_row_of_root},
    [LKS_ALL_TO_ALL] = {.in_rows = true,
                        .always_stages = true,
                        .stage = lks__mpi_stage_rows,
                        .first = lks__mpi_swap_rows,
                        .fetch = lks__mpi_fetch_swapped},
    [LKS_BARRIER] = {.fetch = NULL},
};

/* What a group asks of itself: everybody says some numbers. */
static const lks__mpi_algorithm *algorithm_of(lks_collective collective)
{
    return &algorithms[collective > LKS_RECV ? LKS_ALL_GATHER : collective];
}

static const lks__mpi_algorithm fast_all_reduce = {.first = lks__mpi_start_fast,
                                                   .deliver = lks__mpi_divide_fast};

/* The most that one machine has to say about the operation. */
static size_t hello_bytes(const lks__mpi_map *map, const lks_operation *operation)
{
    size_t most = 0, n = operation->count, element = lks__dtype_bytes(operation->dtype);
    switch (operation->collective) {
    case LKS_BARRIER:
        return 0;
    case LKS_BROADCAST:
        return n * element;
    case LKS_ALL_REDUCE:
    case LKS_REDUCE:
        for (int m = 0; m < map->n_machines; m++) {
            size_t bytes = lks__mpi_partials_bytes(map, m, n, operation->dtype);
            most = bytes > most ? bytes : most;
        }
        return most;
    default:
        return n * element * (size_t)map->most_members;
    }
}

/* One part is enough, and fits into hellos. */
static bool is_small(const lks__mpi_member *self, const lks_operation *operation)
{
    const lks__mpi_algorithm *algorithm = algorithm_of(operation->collective);
    if (operation->count == 0)
        return true;
    return algorithm->pack != NULL &&
           operation->count <= lks__mpi_part_elems(self, algorithm, operation->dtype) &&
           hello_bytes(&self->map, operation) <= LKS__MPI_PAYLOAD_BYTES;
}

/* The wire's all_reduce is one of all processes. Largest and smallest floats are left to our own: an MPI need
 * not pass NaN on. */
static bool can_be_fast(const lks__mpi_member *self, const lks_operation *operation)
{
    bool real = operation->dtype == LKS_F32 || operation->dtype == LKS_F64;
    bool whole = operation->dtype == LKS_I32 || operation->dtype == LKS_I64;
    bool compares = operation->op == LKS_MAX || operation->op == LKS_MIN;
    return self->engine->fast && self->serial == 0 && operation->collective == LKS_ALL_REDUCE &&
           (whole || (real && !compares)) && self->engine->wire->backend->all_reduce != NULL;
}

const lks__mpi_algorithm *lks__mpi_algorithm_of(const lks__mpi_member *self, const lks_operation *operation,
                                                bool *small)
{
    *small = operation->collective == LKS_BARRIER || is_small(self, operation);
    if (!*small && can_be_fast(self, operation))
        return &fast_all_reduce;
    return algorithm_of(operation->collective);
}
