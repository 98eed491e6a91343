/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/kernels.h"

#include <stdint.h>

#include "base/tree.h"
#include "comm/collective.h"

enum {
    BLOCK_BYTES =
        2048,      /* what is reduced at a time: with its partial sums it stays in the first-level cache */
    MAX_DEPTH = 9, /* partial sums that can be open at a time: log2(LKS_GROUP_MAX_SIZE) + 1 are enough */
    ALIGNMENT = 64
};

/* out[i] = a[i] op b[i]; out may be a or b: an element is read before it is written. */
typedef void combine_fn(void *out, const void *a, const void *b, size_t n);
typedef void divide_fn(void *data, size_t n, int divisor);

#ifdef __clang__
#define NO_CARRIED_DEPENDENCE _Pragma("clang loop vectorize(assume_safety)")
#else
#define NO_CARRIED_DEPENDENCE _Pragma("GCC ivdep")
#endif

#define COMBINE(name, type, expression)                                                                      \
    static void name(void *out, const void *a, const void *b, size_t n)                                      \
    {                                                                                                        \
        type *z = out;                                                                                       \
        const type *p = a, *q = b;                                                                           \
        NO_CARRIED_DEPENDENCE                                                                                \
        for (size_t i = 0; i < n; i++) {                                                                     \
            type x = p[i], y = q[i];                                                                         \
            z[i] = (type)(expression);                                                                       \
        }                                                                                                    \
    }

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
    combine_fn *sum, *max;
    divide_fn *divide; /* NULL: the type has no mean */
} kernels[LKS__N_DTYPES] = {
    [LKS_F32] = {sum_f32, max_f32, divide_f32}, [LKS_F64] = {sum_f64, max_f64, divide_f64},
    [LKS_I32] = {sum_32, max_i32, NULL},        [LKS_I64] = {sum_64, max_i64, NULL},
    [LKS_U8] = {sum_8, max_u8, NULL},
};

_Static_assert(LKS_GROUP_MAX_SIZE <= 1 << (MAX_DEPTH - 1), "partial sums for the deepest tree");

typedef struct reduction {
    combine_fn *combine;
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
    _Alignas(ALIGNMENT) char partial[MAX_DEPTH][BLOCK_BYTES];
    size_t element = lks__dtype_bytes(dtype), block = BLOCK_BYTES / element;
    reduction r = {.combine = op == LKS_MAX ? kernels[dtype].max : kernels[dtype].sum,
                   .sources = sources,
                   .partial = partial};
    for (size_t done = 0; done < count; done += block) {
        r.offset_bytes = done * element;
        r.n = count - done < block ? count - done : block;
        char *target = (char *)out + r.offset_bytes;
        reduce_block(&r, target, size);
        if (op == LKS_MEAN)
            kernels[dtype].divide(target, r.n, size);
    }
}
