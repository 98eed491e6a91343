/* SPDX-License-Identifier: Apache-2.0 */
/* Values repeat after a period, so whole tiles are copied: writing is as fast as memory allows. With
 * j = (index + call) mod period:
 *
 * reductions: a member has b = j mod m, and the one member whose rank is j mod P has `more` on top of it; for
 * a product all have 1 but that one. m is odd and at most 256 / P, so that even sums of bf16 and u8 are
 * exact, and period m P. copies:     j, with the source's rank and the row's number mixed in, mod 251.
 */
#include "bench/bench_values.h"

#include <stdbool.h>
#include <string.h>

enum {
    LINE_BYTES = 64,
    COPY_PERIOD = 251,
    MAX_PERIOD = 256,
    MAX_BASE = 61,
    TILE_BYTES = MAX_PERIOD * LINE_BYTES, /* a period of elements as often as a cache line has elements */
};

/* ---- which rows ---- */

static bool reduces(const lks_operation *operation)
{
    return operation->collective == LKS_ALL_REDUCE || operation->collective == LKS_REDUCE ||
           operation->collective == LKS_REDUCE_SCATTER;
}

int lks__bench_in_rows(const lks_operation *operation, int rank, int size)
{
    switch (operation->collective) {
    case LKS_REDUCE_SCATTER:
    case LKS_ALL_TO_ALL:
        return size;
    case LKS_SCATTER:
        return rank == operation->root ? size : 0;
    case LKS_BROADCAST:
        return rank == operation->root;
    case LKS_BARRIER:
    case LKS_RECV:
        return 0;
    default:
        return 1;
    }
}

int lks__bench_out_rows(const lks_operation *operation, int rank, int size)
{
    switch (operation->collective) {
    case LKS_ALL_GATHER:
    case LKS_ALL_TO_ALL:
        return size;
    case LKS_GATHER:
        return rank == operation->root ? size : 0;
    case LKS_REDUCE:
        return rank == operation->root;
    case LKS_BARRIER:
    case LKS_SEND:
        return 0;
    default:
        return 1;
    }
}

/* ---- a row ---- */

/* What the values of a row follow from. */
typedef struct row {
    const lks_operation *operation;
    int size;
    int member;     /* of reductions: whose; -1: the result */
    uint64_t mixed; /* of copies: what the source and the row's number add */
    uint64_t first; /* index of the row's first element, and the call's number */
} row;

static uint64_t base_of(const row *r)
{
    uint64_t most = ((uint64_t)(MAX_PERIOD / r->size) - 1) | 1;
    return most < MAX_BASE ? most : MAX_BASE;
}

static uint64_t period_of(const row *r)
{
    return reduces(r->operation) ? base_of(r) * (uint64_t)r->size : COPY_PERIOD;
}

static uint64_t reduced_value(lks_op op, uint64_t b, uint64_t size)
{
    switch (op) {
    case LKS_SUM:
        return size * b + 1;
    case LKS_PROD:
        return 2 + b % 3;
    case LKS_MIN:
        return size > 1 ? b : b + 1;
    case LKS_MEAN: /* (P b + P) / P */
    case LKS_MAX:
        break;
    }
    return b + 1;
}

/* j: below the period */
static uint64_t value_of(const row *r, uint64_t j)
{
    if (!reduces(r->operation))
        return (j + r->mixed) % COPY_PERIOD;
    uint64_t b = j % base_of(r), size = (uint64_t)r->size;
    lks_op op = r->operation->op;
    if (r->member < 0)
        return reduced_value(op, b, size);
    bool has_more = j % size == (uint64_t)r->member;
    if (op == LKS_PROD)
        return has_more ? 2 + b % 3 : 1;
    return has_more ? b + (op == LKS_MEAN ? size : 1) : b;
}

static size_t bytes_of(lks_dtype dtype)
{
    static const unsigned char bytes[] = {
        [LKS_F32] = 4, [LKS_F64] = 8, [LKS_I32] = 4, [LKS_I64] = 8, [LKS_U8] = 1, [LKS_BF16] = 2};
    return bytes[dtype];
}

static void store(lks_dtype dtype, void *at, uint64_t value)
{
    float f32 = (float)value;
    double f64 = (double)value;
    int32_t i32 = (int32_t)value;
    int64_t i64 = (int64_t)value;
    uint8_t u8 = (uint8_t)value;
    uint32_t bits;
    uint16_t bf16;
    memcpy(&bits, &f32, sizeof bits);
    bf16 = (uint16_t)(bits >> 16); /* exact: whole numbers to 256 have 8 digits */
    const void *const forms[] = {[LKS_F32] = &f32, [LKS_F64] = &f64, [LKS_I32] = &i32,
                                 [LKS_I64] = &i64, [LKS_U8] = &u8,   [LKS_BF16] = &bf16};
    memcpy(at, forms[dtype], bytes_of(dtype));
}

/* As many of the row's first elements as repeat: they fill whole cache lines, or the row ends before. Returns
 * their bytes. */
static size_t make_tile(const row *r, size_t n, char tile[TILE_BYTES])
{
    size_t element = bytes_of(r->operation->dtype);
    uint64_t period = period_of(r);
    size_t n_tile = (size_t)period * (LINE_BYTES / element);
    if (n < n_tile)
        n_tile = n;
    for (size_t i = 0; i < n_tile && i < period; i++)
        store(r->operation->dtype, tile + i * element, value_of(r, (r->first + i) % period));
    for (size_t i = (size_t)period; i < n_tile; i += (size_t)period) {
        size_t part = n_tile - i < period ? n_tile - i : (size_t)period;
        memcpy(tile + i * element, tile, part * element);
    }
    return n_tile * element;
}

static void fill_row(const row *r, size_t n, char *data)
{
    char tile[TILE_BYTES];
    size_t tile_bytes = make_tile(r, n, tile), bytes = n * bytes_of(r->operation->dtype);
    for (size_t at = 0; at < bytes; at += tile_bytes)
        memcpy(data + at, tile, bytes - at < tile_bytes ? bytes - at : tile_bytes);
}

static int64_t wrong_elements(const char *data, const char *expected, size_t bytes, size_t element)
{
    int64_t wrong = 0;
    for (size_t at = 0; at < bytes; at += element)
        wrong += memcmp(data + at, expected + at, element) != 0;
    return wrong;
}

static int64_t wrong_in_row(const row *r, size_t n, const char *data)
{
    char tile[TILE_BYTES];
    size_t element = bytes_of(r->operation->dtype), tile_bytes = make_tile(r, n, tile), bytes = n * element;
    int64_t wrong = 0;
    for (size_t at = 0; at < bytes; at += tile_bytes) {
        size_t part = bytes - at < tile_bytes ? bytes - at : tile_bytes;
        if (memcmp(data + at, tile, part) != 0)
            wrong += wrong_elements(data + at, tile, part, element);
    }
    return wrong;
}

/* ---- a member's buffers ---- */

/* What row `destination` of the in of rank `source` holds in an operation that copies. */
static uint64_t mix(int source, int destination)
{
    return 89 * (uint64_t)source + 151 * (uint64_t)destination;
}

void lks__bench_fill(const lks_operation *operation, int rank, int size, uint64_t call, void *in)
{
    int rows = lks__bench_in_rows(operation, rank, size);
    for (int d = 0; d < rows; d++) {
        uint64_t at = reduces(operation) ? (uint64_t)d * operation->count : 0;
        row r = {operation, size, .member = rank, .mixed = mix(rank, d), .first = at + call};
        fill_row(&r, operation->count,
                 (char *)in + (size_t)d * operation->count * bytes_of(operation->dtype));
    }
}

/* Row `number` of a member's out. */
static row expected_row(const lks_operation *operation, int rank, int size, int number)
{
    row r = {operation, size, .member = -1};
    switch (operation->collective) {
    case LKS_REDUCE_SCATTER:
        r.first = (uint64_t)rank * operation->count;
        break;
    case LKS_SCATTER:
        r.mixed = mix(operation->root, rank);
        break;
    case LKS_ALL_TO_ALL:
        r.mixed = mix(number, rank);
        break;
    case LKS_ALL_GATHER:
    case LKS_GATHER:
        r.mixed = mix(number, 0);
        break;
    default: /* broadcast, recv: of the root, the other rank; reductions don't look at it */
        r.mixed = mix(operation->root, 0);
    }
    return r;
}

int64_t lks__bench_wrong(const lks_operation *operation, int rank, int size, uint64_t call, const void *out)
{
    int rows = lks__bench_out_rows(operation, rank, size);
    int64_t wrong = 0;
    for (int number = 0; number < rows; number++) {
        row r = expected_row(operation, rank, size, number);
        r.first += call;
        wrong += wrong_in_row(&r, operation->count,
                              (const char *)out +
                                  (size_t)number * operation->count * bytes_of(operation->dtype));
    }
    return wrong;
}
