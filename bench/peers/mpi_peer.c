/* SPDX-License-Identifier: Apache-2.0 */
/* The MPI side of bench/vs_peers, which compiles it once for each MPI: what `lockstep bench` does
 * (src/bench/bench_measure.c), with the MPI library's functions, and with the same values, arithmetic and
 * output.
 *
 *     mpirun -n P mpi_peer OPERATION MIN_BYTES MAX_BYTES FACTOR        barrier: - for the sizes
 *
 * Rank 0 prints what `lockstep bench --json` prints.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mpi.h>

#include "base/alloc.h"
#include "base/machine.h"
#include "bench/bench_output.h"
#include "bench/bench_values.h"
#include "comm/collective.h"

enum { MAX_ROWS = 64, TAG = 1 };

typedef struct bench {
    lks__bench_config config;
    int rank, size;
    char *in, *out;
    double *seconds;
    uint64_t call;
    lks_operation operation;
} bench;

static void refuse(const char *why)
{
    fprintf(stderr, "mpi_peer: %s\n", why);
    MPI_Abort(MPI_COMM_WORLD, 2);
}

static const char *unless_dash(const char *word)
{
    return strcmp(word, "-") == 0 ? NULL : word;
}

static void bench_init(bench *b, char **argv)
{
    lks__bench_words words = {.operation = argv[1],
                              .memory = "ordinary",
                              .min_bytes = unless_dash(argv[2]),
                              .max_bytes = unless_dash(argv[3]),
                              .factor = (int)strtol(argv[4], NULL, 10)};
    if (lks__bench_config_set(&words, b->size, &b->config) != LKS_OK)
        refuse(lks_error_message());
    b->operation = b->config.operation;
    size_t bytes = b->config.max_bytes < 4096 ? 4096 : b->config.max_bytes;
    b->in = lks__alloc(2 * bytes, LKS__MEM_MISC);
    b->seconds = lks__alloc_array(lks__bench_most_calls(&b->config), sizeof *b->seconds, LKS__MEM_MISC);
    if (b->in == NULL || b->seconds == NULL)
        refuse("out of memory");
    lks_collective collective = b->operation.collective;
    bool in_place = collective == LKS_ALL_REDUCE || collective == LKS_REDUCE || collective == LKS_BROADCAST;
    b->out = in_place ? b->in : b->in + bytes;
}

static void play_ping_pong(const bench *b, int n)
{
    int other = 1 - b->rank;
    if (b->rank == 0)
        MPI_Send(b->in, n, MPI_FLOAT, other, TAG, MPI_COMM_WORLD);
    if (b->rank < 2)
        MPI_Recv(b->out, n, MPI_FLOAT, other, TAG, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    if (b->rank == 1)
        MPI_Send(b->in, n, MPI_FLOAT, other, TAG, MPI_COMM_WORLD);
}

static void run_operation(const bench *b)
{
    int n = (int)b->operation.count, root = b->operation.root;
    MPI_Datatype f32 = MPI_FLOAT;
    MPI_Comm all = MPI_COMM_WORLD;
    switch (b->operation.collective) {
    case LKS_BARRIER:
        MPI_Barrier(all);
        break;
    case LKS_ALL_REDUCE:
        MPI_Allreduce(MPI_IN_PLACE, b->out, n, f32, MPI_SUM, all);
        break;
    case LKS_BROADCAST:
        MPI_Bcast(b->out, n, f32, root, all);
        break;
    case LKS_REDUCE:
        MPI_Reduce(b->rank == root ? MPI_IN_PLACE : b->in, b->out, n, f32, MPI_SUM, root, all);
        break;
    case LKS_ALL_GATHER:
        MPI_Allgather(b->in, n, f32, b->out, n, f32, all);
        break;
    case LKS_REDUCE_SCATTER:
        MPI_Reduce_scatter_block(b->in, b->out, n, f32, MPI_SUM, all);
        break;
    case LKS_GATHER:
        MPI_Gather(b->in, n, f32, b->out, n, f32, root, all);
        break;
    case LKS_SCATTER:
        MPI_Scatter(b->in, n, f32, b->out, n, f32, root, all);
        break;
    case LKS_ALL_TO_ALL:
        MPI_Alltoall(b->in, n, f32, b->out, n, f32, all);
        break;
    default:
        play_ping_pong(b, n);
    }
}

static double run_call(bench *b)
{
    b->call++;
    lks__bench_fill(&b->operation, b->rank, b->size, b->call, b->in);
    MPI_Barrier(MPI_COMM_WORLD);
    int64_t start_ns = lks__now_ns();
    run_operation(b);
    double seconds = lks__seconds_since(start_ns);
    if (b->operation.collective == LKS_SEND)
        seconds = b->rank > 1 ? 0 : seconds / 2;
    return seconds;
}

static int64_t wrong_after_call(const bench *b)
{
    lks_operation checked = b->operation;
    if (checked.collective == LKS_SEND) {
        checked.collective = LKS_RECV;
        checked.root = 1 - b->rank;
    }
    return b->rank > 1 && checked.collective == LKS_RECV
               ? 0
               : lks__bench_wrong(&checked, b->rank, b->size, b->call, b->out);
}

static void measure_size(bench *b, lks__bench_row *row)
{
    double cycle_seconds = 0;
    for (int i = 0; i < b->config.warmup; i++) {
        int64_t start_ns = lks__now_ns();
        run_call(b);
        cycle_seconds = lks__seconds_since(start_ns);
    }
    MPI_Allreduce(MPI_IN_PLACE, &cycle_seconds, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    int calls = lks__bench_calls(&b->config, cycle_seconds);
    row->wrong = wrong_after_call(b);
    for (int i = 0; i < calls; i++)
        b->seconds[i] = run_call(b);
    row->wrong += wrong_after_call(b);
    MPI_Allreduce(MPI_IN_PLACE, &row->wrong, 1, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
    MPI_Allreduce(MPI_IN_PLACE, b->seconds, calls, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    lks__bench_summarize(&b->config, b->size, calls, b->seconds, row);
}

static int measure_sizes(bench *b, lks__bench_row rows[MAX_ROWS])
{
    int n_rows = 0;
    size_t before = SIZE_MAX, n = (size_t)lks__bench_rows(b->operation.collective, b->size);
    for (size_t bytes = b->config.min_bytes; bytes <= b->config.max_bytes && n_rows < MAX_ROWS;
         bytes *= (size_t)b->config.factor) {
        size_t count = lks__bench_count(&b->operation, b->size, bytes);
        if (count == before)
            continue;
        if (count > INT_MAX)
            refuse("too large for an int");
        b->operation.count = before = count;
        rows[n_rows] = (lks__bench_row){.count = count, .bytes = n * count * sizeof(float)};
        measure_size(b, &rows[n_rows++]);
    }
    return n_rows;
}

int main(int argc, char **argv)
{
    bench b = {.call = 0};
    lks__bench_row rows[MAX_ROWS];
    char *text;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &b.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &b.size);
    if (argc != 5)
        refuse("usage: mpi_peer OPERATION MIN_BYTES MAX_BYTES FACTOR");
    bench_init(&b, argv);
    int n_rows = measure_sizes(&b, rows);
    if (b.rank == 0) {
        if (lks__bench_to_json(&b.config, b.size, n_rows, rows, &text) != LKS_OK)
            refuse(lks_error_message());
        puts(text);
        free(text);
    }
    lks__free(b.in);
    lks__free(b.seconds);
    MPI_Finalize();
    return 0;
}
