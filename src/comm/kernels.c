/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/kernels.h"

#include <stdint.h>

#include "base/alloc.h"
#include "base/tree.h"
#include "comm/collective.h"

enum {
    BLOCK_BYTES = 8192, /* what is reduced at a time: its partial sums stay in a near cache */
    MAX_DEPTH = 8,      /* partial sums that can be open at a time: log2(LKS_GROUP_MAX_SIZE) */
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
/* Signed sums wrap: they are the unsigned ones. */
COMBINE(sum_32, uint32_t, x + y)
COMBINE(sum_64, uint64_t, x + y)
COMBINE(sum_8, uint8_t, x + y)
/* x != x: a NaN on the left stays; one on the right is taken because no comparison with it holds. */
COMBINE(max_f32, float, x > y || x != x ? x : y)
COMBINE(max_f64, double, x > y || x != x ? x : y)
COMBINE(max_i32, int32_t, x > y ? x : y)
COMBINE(max_i64, int64_t, x > y ? x : y)
COMBINE(max_u8, uint8_t, x > y ? x : y)
DIVIDE(divide_f32, float)
DIVIDE(divide_f64, double)

static const struct {
    lks__combine_fn *sum[LKS__SIMD_LEVELS], *max[LKS__SIMD_LEVELS];
    divide_fn *divide; /* NULL: the type has no mean */
} kernels[LKS__N_DTYPES] = {
    [LKS_F32] = {LKS__SIMD_TABLE(sum_f32), LKS__SIMD_TABLE(max_f32), divide_f32},
    [LKS_F64] = {LKS__SIMD_TABLE(sum_f64), LKS__SIMD_TABLE(max_f64), divide_f64},
    [LKS_I32] = {LKS__SIMD_TABLE(sum_32), LKS__SIMD_TABLE(max_i32), NULL},
    [LKS_I64] = {LKS__SIMD_TABLE(sum_64), LKS__SIMD_TABLE(max_i64), NULL},
    [LKS_U8] = {LKS__SIMD_TABLE(sum_8), LKS__SIMD_TABLE(max_u8), NULL},
};

lks__combine_fn *lks__combine(lks_dtype dtype, lks_op op, lks__simd level)
{
    return op == LKS_MAX ? kernels[dtype].max[level] : kernels[dtype].sum[level];
}

_Static_assert(LKS_GROUP_MAX_SIZE <= 1 << MAX_DEPTH, "partial sums for the deepest tree");

typedef struct reduction {
    lks__combine_fn *combine;
    const void *const *sources;
    size_t offset_bytes; /* of the block, in every source */
    size_t n;            /* elements in the block */
    char (*partial)[BLOCK_BYTES];
} reduction;

/* The node [lo, hi) of the tree: the source itself for a leaf, else partial[depth]. Its right half uses
 * partial[depth + 1] and deeper, so that the left half's result stays. */
static const void *reduce_node(const reduction *r, int lo, int hi, int depth)
{
    if (hi - lo == 1)
        return (const char *)r->sources[lo] + r->offset_bytes;
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
    _Alignas(LKS__ALIGNMENT) char partial[MAX_DEPTH][BLOCK_BYTES];
    size_t element = lks__dtype_bytes(dtype), block = BLOCK_BYTES / element;
    reduction r = {
        .combine = lks__combine(dtype, op, lks__simd_best()), .sources = sources, .partial = partial};
    for (size_t done = 0; done < count; done += block) {
        r.offset_bytes = done * element;
        r.n = count - done < block ? count - done : block;
        char *target = (char *)out + r.offset_bytes;
        reduce_block(&r, target, size);
        if (op == LKS_MEAN)
            kernels[dtype].divide(target, r.n, size);
    }
}
