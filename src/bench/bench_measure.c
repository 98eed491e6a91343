/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/bench_measure.h"

#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/machine.h"
#include "bench/bench_values.h"
#include "comm/backend.h"
#include "comm/collective.h"

enum { PAGE_BYTES = 4096, N_COSTS = 3 };

typedef struct bench {
    lks_group *group;
    const lks__bench_config *config;
    int rank, size;
    lks_group_memory *memory; /* of the group; NULL: ordinary */
    char *ordinary;           /* NULL: of the group */
    void *in, *out;           /* the same for an operation in place */
    double *seconds;          /* [lks__bench_most_calls()] */
    uint64_t call;            /* calls so far */
    int64_t cost[N_COSTS];    /* of the last call: barriers, bytes read, bytes written */
    lks_operation operation;  /* of the present size */
} bench;

/* ---- buffers ---- */

static bool is_ping_pong(const bench *b)
{
    return b->config->operation.collective == LKS_SEND;
}

/* As the short forms do (lks_group_all_reduce): one buffer is input and output. */
static bool is_in_place(const bench *b)
{
    lks_collective collective = b->config->operation.collective;
    return collective == LKS_ALL_REDUCE || collective == LKS_REDUCE || collective == LKS_BROADCAST;
}

/* Fails on all members when one has failed. */
static lks_status agree(bench *b, lks_status own)
{
    int32_t failed = own != LKS_OK;
    lks_status status = lks_group_all_reduce(b->group, &failed, 1, LKS_I32, LKS_MAX);
    if (status != LKS_OK || failed == 0)
        return status;
    return own != LKS_OK ? own : lks__fail(LKS_E_NOMEM, "a member has too little memory");
}

static lks_status bench_init(bench *b, lks_group *group, const lks__bench_config *config)
{
    *b = (bench){.group = group,
                 .config = config,
                 .rank = lks_group_rank(group),
                 .size = lks_group_size(group),
                 .operation = config->operation};
    lks_operation *what = &b->operation;
    size_t count = lks__bench_count(what, b->size, config->max_bytes);
    size_t row = lks__round_up(count * lks__dtype_bytes(what->dtype), PAGE_BYTES);
    size_t in_bytes = row * (size_t)lks__bench_in_rows(what, b->rank, b->size);
    size_t out_bytes = row * (size_t)lks__bench_out_rows(what, b->rank, b->size);
    if (is_ping_pong(b))
        out_bytes = in_bytes;
    if (is_in_place(b))
        in_bytes = 0, out_bytes = row;

    b->seconds = lks__alloc_array(lks__bench_most_calls(config), sizeof *b->seconds, LKS__MEM_MISC);
    if (!config->group_memory)
        b->ordinary = lks__alloc(in_bytes + out_bytes, LKS__MEM_MISC);
    lks_status status = agree(
        b, b->seconds == NULL || (!config->group_memory && b->ordinary == NULL) ? LKS_E_NOMEM : LKS_OK);
    if (status == LKS_OK && config->group_memory)
        status = lks_group_memory_create(group, in_bytes + out_bytes, &b->memory);
    if (status != LKS_OK)
        return status;
    char *memory = config->group_memory ? lks_group_memory_at(b->memory, b->rank) : b->ordinary;
    b->in = memory;
    b->out = memory == NULL ? NULL : memory + in_bytes;
    return LKS_OK;
}

static void bench_deinit(bench *b)
{
    lks_group_memory_destroy(b->memory);
    lks__free(b->ordinary);
    lks__free(b->seconds);
}

/* ---- one call ---- */

/* There and back between ranks 0 and 1. */
static lks_status play_ping_pong(bench *b)
{
    lks_operation send = b->operation, recv = b->operation;
    if (b->rank > 1)
        return LKS_OK;
    recv.collective = LKS_RECV;
    send.root = recv.root = 1 - b->rank;
    lks_status status = lks_group_run(b->group, b->rank == 0 ? &send : &recv);
    return status != LKS_OK ? status : lks_group_run(b->group, b->rank == 0 ? &recv : &send);
}

/* Writes, waits for the others, and runs the operation. *seconds: what that alone took this member. */
static lks_status run_call(bench *b, double *seconds)
{
    b->call++;
    lks__bench_fill(&b->operation, b->rank, b->size, b->call, b->in);
    lks_status status = lks_group_barrier(b->group);
    if (status != LKS_OK)
        return status;
    lks__cost before = b->group->cost;
    int64_t start_ns = lks__now_ns();
    status = is_ping_pong(b) ? play_ping_pong(b) : lks_group_run(b->group, &b->operation);
    *seconds = lks__seconds_since(start_ns);
    lks__cost after = b->group->cost;
    b->cost[0] = (int64_t)(after.barriers - before.barriers);
    b->cost[1] = (int64_t)(after.read_bytes - before.read_bytes);
    b->cost[2] = (int64_t)(after.written_bytes - before.written_bytes);
    if (is_ping_pong(b))
        *seconds = b->rank > 1 ? 0 : *seconds / 2;
    return status;
}

static int64_t wrong_after_call(const bench *b)
{
    lks_operation checked = b->operation;
    if (is_ping_pong(b) && b->rank > 1)
        return 0;
    if (is_ping_pong(b)) {
        checked.collective = LKS_RECV;
        checked.root = 1 - b->rank;
    }
    return lks__bench_wrong(&checked, b->rank, b->size, b->call, b->out);
}

/* ---- one size ---- */

/* The calls that are not counted; from the last of them, how many to make. */
static lks_status warm_up(bench *b, int *calls)
{
    lks_status status = LKS_OK;
    double seconds, cycle_seconds = 0;
    for (int i = 0; i < b->config->warmup && status == LKS_OK; i++) {
        int64_t start_ns = lks__now_ns();
        status = run_call(b, &seconds);
        cycle_seconds = lks__seconds_since(start_ns);
    }
    if (status == LKS_OK)
        status = lks_group_all_reduce(b->group, &cycle_seconds, 1, LKS_F64, LKS_MAX);
    *calls = lks__bench_calls(b->config, cycle_seconds);
    return status;
}

/* What all members know of their calls. */
static lks_status collect(bench *b, int calls, lks__bench_row *row)
{
    lks_status status = lks_group_all_reduce(b->group, &row->wrong, 1, LKS_I64, LKS_SUM);
    if (status == LKS_OK)
        status = lks_group_all_reduce(b->group, b->cost, N_COSTS, LKS_I64, LKS_MAX);
    if (status == LKS_OK) /* a call takes as long as its slowest member */
        status = lks_group_all_reduce(b->group, b->seconds, (size_t)calls, LKS_F64, LKS_MAX);
    row->barriers = b->cost[0];
    row->read_bytes = b->cost[1];
    row->written_bytes = b->cost[2];
    return status;
}

static lks_status measure_size(bench *b, lks__bench_row *row)
{
    int calls;
    lks_status status = warm_up(b, &calls);
    row->wrong = status == LKS_OK ? wrong_after_call(b) : 0;
    for (int i = 0; i < calls && status == LKS_OK; i++)
        status = run_call(b, &b->seconds[i]);
    if (status != LKS_OK)
        return status;
    row->wrong += wrong_after_call(b);
    status = collect(b, calls, row);
    if (status == LKS_OK)
        lks__bench_summarize(b->config, b->size, calls, b->seconds, row);
    return status;
}

/* The sizes, each once: small ones may all mean one element. */
static lks_status measure_sizes(bench *b, lks__bench_row_fn *done, void *context)
{
    const lks__bench_config *config = b->config;
    lks_status status = LKS_OK;
    size_t before = SIZE_MAX;
    for (size_t bytes = config->min_bytes; status == LKS_OK; bytes *= (size_t)config->factor) {
        size_t count = lks__bench_count(&config->operation, b->size, bytes);
        size_t rows = (size_t)lks__bench_rows(config->operation.collective, b->size);
        b->operation.count = count;
        b->operation.in = b->in;
        b->operation.out = b->out;
        lks__bench_row row = {.count = count, .bytes = rows * count * lks__dtype_bytes(b->operation.dtype)};
        if (count != before) {
            status = measure_size(b, &row);
            if (status == LKS_OK)
                done(context, &row);
        }
        before = count;
        if (bytes > config->max_bytes / (size_t)config->factor)
            break;
    }
    return status;
}

lks_status lks__bench_measure(lks_group *group, const lks__bench_config *config, lks__bench_row_fn *done,
                              void *context)
{
    bench b;
    lks_status status = bench_init(&b, group, config);
    if (status == LKS_OK)
        status = measure_sizes(&b, done, context);
    bench_deinit(&b);
    return status;
}
