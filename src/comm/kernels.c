/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/kernels.h"

#include <stdint.h>
#include <string.h>

#include "base/alloc.h"
#include "base/tree.h"
#include "comm/collective.h"

enum {
    BLOCK_BYTES = 8192, /* what is reduced at a time: its partial sums stay in a near cache */
    MAX_DEPTH = 9,      /* partial results that can be open at a time: log2(LKS_GROUP_MAX_SIZE) + 1 */
};

typedef void divide_fn(void *data, size_t n, int divisor);

/* Where out is a or b, an element is read before it is written, and by no other iteration. */
#ifdef __clang__
#define NO_CARRIED_DEPENDENCE _Pragma("clang loop vectorize(assume_safety)")
#else
#define NO_CARRIED_DEPENDENCE _Pragma("GCC ivdep")
#endif

#define COMBINE(name, type, expression)                                                                      \
    LKS__SIMD_BODY void name##_body(void *out, const void *a, const void *b, size_t n)                       \
    {                                                                                                        \
        type *z = out;                                                                                       \
        const type *p = a, *q = b;                                                                           \
        NO_CARRIED_DEPENDENCE                                                                                \
        for (size_t i = 0; i < n; i++) {                                                                     \
            type x = p[i], y = q[i];                                                                         \
            z[i] = (type)(expression);                                                                       \
        }                                                                                                    \
    }                                                                                                        \
    LKS__SIMD_VERSIONS(name, void, (void *out, const void *a, const void *b, size_t n), (out, a, b, n))

#define DIVIDE(name, type)                                                                                   \
    static void name(void *data, size_t n, int divisor)                                                      \
    {                                                                                                        \
        type *z = data;                                                                                      \
        for (size_t i = 0; i < n; i++)                                                                       \
            z[i] /= (type)divisor;                                                                           \
    }

COMBINE(sum_f32, float, x + y)
COMBINE(sum_f64, double, x + y)
/* Signed sums and products wrap: they are the unsigned ones. */
COMBINE(sum_32, uint32_t, x + y)
COMBINE(sum_64, uint64_t, x + y)
COMBINE(sum_8, uint8_t, x + y)
/* x != x: a NaN on the left stays; one on the right is taken because no comparison with it holds. */
COMBINE(max_f32, float, x > y || x != x ? x : y)
COMBINE(max_f64, double, x > y || x != x ? x : y)
COMBINE(max_i32, int32_t, x > y ? x : y)
COMBINE(max_i64, int64_t, x > y ? x : y)
COMBINE(max_u8, uint8_t, x > y ? x : y)
COMBINE(min_f32, float, x < y || x != x ? x : y)
COMBINE(min_f64, double, x < y || x != x ? x : y)
COMBINE(min_i32, int32_t, x < y ? x : y)
COMBINE(min_i64, int64_t, x < y ? x : y)
COMBINE(min_u8, uint8_t, x < y ? x : y)
COMBINE(prod_f32, float, x *y)
COMBINE(prod_f64, double, x *y)
COMBINE(prod_32, uint32_t, x *y)
COMBINE(prod_64, uint64_t, x *y)
COMBINE(prod_8, uint8_t, x *y)
DIVIDE(divide_f32, float)
DIVIDE(divide_f64, double)

/* ---- bf16: the upper half of an f32 ---- */

LKS__SIMD_BODY void widen_body(float *out, const uint16_t *in, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)in[i] << 16;
        memcpy(&out[i], &bits, sizeof bits);
    }
}

/* To the nearest, ties to even: adding 0x7fff, and 1 if the half that stays is odd, carries into it exactly
 * when that is where it should go; beyond the largest number this gives infinity. A NaN keeps its upper bits
 * and is made quiet, since those bits alone could be infinity's. */
LKS__SIMD_BODY void narrow_body(uint16_t *out, const float *in, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &in[i], sizeof bits);
        uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16, quiet = bits >> 16 | 0x40u;
        out[i] = (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
    }
}

LKS__SIMD_VERSIONS(widen, void, (float *out, const uint16_t *in, size_t n), (out, in, n))
LKS__SIMD_VERSIONS(narrow, void, (uint16_t * out, const float *in, size_t n), (out, in, n))

void lks__bf16_widen(float *out, const uint16_t *in, size_t n, lks__simd level)
{
    static void (*const versions[LKS__SIMD_LEVELS])(float *, const uint16_t *,
                                                    size_t) = LKS__SIMD_TABLE(widen);
    versions[level](out, in, n);
}

void lks__bf16_narrow(uint16_t *out, const float *in, size_t n, lks__simd level)
{
    static void (*const versions[LKS__SIMD_LEVELS])(uint16_t *, const float *,
                                                    size_t) = LKS__SIMD_TABLE(narrow);
    versions[level](out, in, n);
}

/* ---- the loops by type and operation ---- */

#define ALL_OPS(sum, max, min, prod)                                                                         \
    {                                                                                                        \
        [LKS_SUM] = LKS__SIMD_TABLE(sum), [LKS_MEAN] = LKS__SIMD_TABLE(sum),                                 \
        [LKS_MAX] = LKS__SIMD_TABLE(max), [LKS_MIN] = LKS__SIMD_TABLE(min),                                  \
        [LKS_PROD] = LKS__SIMD_TABLE(prod)                                                                   \
    }

static const struct {
    lks__combine_fn *combine[LKS__N_OPS][LKS__SIMD_LEVELS];
    divide_fn *divide; /* NULL: the type has no mean */
} kernels[LKS__N_DTYPES] = {
    [LKS_F32] = {ALL_OPS(sum_f32, max_f32, min_f32, prod_f32), divide_f32},
    [LKS_F64] = {ALL_OPS(sum_f64, max_f64, min_f64, prod_f64), divide_f64},
    [LKS_I32] = {ALL_OPS(sum_32, max_i32, min_i32, prod_32), NULL},
    [LKS_I64] = {ALL_OPS(sum_64, max_i64, min_i64, prod_64), NULL},
    [LKS_U8] = {ALL_OPS(sum_8, max_u8, min_u8, prod_8), NULL},
    /* computed with in f32 */
    [LKS_BF16] = {ALL_OPS(sum_f32, max_f32, min_f32, prod_f32), divide_f32},
};

lks__combine_fn *lks__combine(lks_dtype dtype, lks_op op, lks__simd level)
{
    return kernels[dtype].combine[op][level];
}

void lks__divide(lks_dtype dtype, void *data, size_t n, int divisor)
{
    kernels[dtype].divide(data, n, divisor);
}

/* ---- who reduces what ---- */

size_t lks__chunk_start(size_t n, size_t element, int rank, int size)
{
    enum { LINE_BYTES = 64 };
    size_t start = rank == size ? n : lks__round_up(n * (size_t)rank / (size_t)size, LINE_BYTES / element);
    return start < n ? start : n;
}

/* ---- the tree over members ---- */

_Static_assert(LKS_GROUP_MAX_SIZE <= 1 << (MAX_DEPTH - 1), "partial results for the deepest tree");

typedef struct reduction {
    lks__combine_fn *combine;
    const void *const *sources;
    lks__simd level;
    bool widens;         /* bf16: leaves become f32 first */
    size_t offset_bytes; /* of the block, in every source */
    size_t n;            /* elements in the block */
    char (*partial)[BLOCK_BYTES];
} reduction;

static const void *reduce_leaf(const reduction *r, int leaf, int depth)
{
    const char *source = (const char *)r->sources[leaf] + r->offset_bytes;
    if (!r->widens)
        return source;
    lks__bf16_widen((float *)(void *)r->partial[depth], (const uint16_t *)(const void *)source, r->n,
                    r->level);
    return r->partial[depth];
}

/* The node [lo, hi) of the tree: the source itself for a leaf, else partial[depth]. Its right half uses
 * partial[depth + 1] and deeper, so that the left half's result stays. */
static const void *reduce_node(const reduction *r, int lo, int hi, int depth)
{
    if (hi - lo == 1)
        return reduce_leaf(r, lo, depth);
    int middle = lo + (int)lks__tree_split(hi - lo);
    const void *left = reduce_node(r, lo, middle, depth);
    const void *right = reduce_node(r, middle, hi, depth + 1);
    r->combine(r->partial[depth], left, right, r->n);
    return r->partial[depth];
}

static void reduce_block(const reduction *r, void *out, int size)
{
    int middle = (int)lks__tree_split(size);
    const void *left = reduce_node(r, 0, middle, 0);
    const void *right = reduce_node(r, middle, size, 1);
    r->combine(out, left, right, r->n);
}

void lks__reduce(void *out, const void *const *sources, int size, size_t count, lks_dtype dtype, lks_op op)
{
    if (size == 1) { /* a mean over one is its value, too */
        if (out != sources[0] && count > 0)
            memcpy(out, sources[0], count * lks__dtype_bytes(dtype));
        return;
    }
    _Alignas(LKS__ALIGNMENT) char partial[MAX_DEPTH][BLOCK_BYTES];
    lks__simd level = lks__simd_best();
    bool widens = dtype == LKS_BF16;
    size_t element = lks__dtype_bytes(dtype), block = BLOCK_BYTES / (widens ? sizeof(float) : element);
    reduction r = {.combine = lks__combine(dtype, op, level),
                   .sources = sources,
                   .level = level,
                   .widens = widens,
                   .partial = partial};
    for (size_t done = 0; done < count; done += block) {
        r.offset_bytes = done * element;
        r.n = count - done < block ? count - done : block;
        char *target = (char *)out + r.offset_bytes;
        void *sum = widens ? partial[0] : target;
        reduce_block(&r, sum, size);
        if (op == LKS_MEAN)
            kernels[dtype].divide(sum, r.n, size);
        if (widens)
            lks__bf16_narrow((uint16_t *)(void *)target, sum, r.n, level);
    }
}
