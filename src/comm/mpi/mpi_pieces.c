/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/mpi/mpi_pieces.h"

#include <string.h>

#include "base/alloc.h"
#include "base/tree.h"
#include "comm/collective.h"
#include "comm/kernels.h"

enum {
    BLOCK_BYTES = 8192, /* what is reduced at a time: its partial results stay in a near cache */
    MAX_DEPTH = 10,     /* partial results that can be open at a time: log2(LKS_GROUP_MAX_SIZE) + 2 */
};

_Static_assert(LKS_GROUP_MAX_SIZE <= 1 << (MAX_DEPTH - 2), "partial results for the deepest tree");

static bool is_leaf(const lks__mpi_piece *piece)
{
    return piece->hi - piece->lo == 1;
}

size_t lks__mpi_piece_element(const lks__mpi_piece *piece, lks_dtype dtype)
{
    return dtype == LKS_BF16 && !is_leaf(piece) ? sizeof(float) : lks__dtype_bytes(dtype);
}

/* One block of a walk through the tree. */
typedef struct walk {
    const lks__mpi_piece *pieces; /* in the order of ranks; the next one that the walk comes to is `at` */
    const void *const *data;
    int at;
    lks__combine_fn *combine;
    lks_dtype dtype;
    lks__simd level;
    size_t first, n; /* elements */
    char (*partial)[BLOCK_BYTES];
} walk;

static const void *piece_data(walk *w, int depth)
{
    const lks__mpi_piece *piece = &w->pieces[w->at];
    const char *data = w->data[w->at++];
    data += w->first * lks__mpi_piece_element(piece, w->dtype);
    if (w->dtype != LKS_BF16 || !is_leaf(piece))
        return data;
    lks__bf16_widen((float *)(void *)w->partial[depth], (const uint16_t *)(const void *)data, w->n, w->level);
    return w->partial[depth];
}

/* The node [lo, hi): a piece's data, or partial[depth]. Its right half uses partial[depth + 1] and deeper. */
static const void *node(walk *w, int lo, int hi, int depth)
{
    const lks__mpi_piece *piece = &w->pieces[w->at];
    if (piece->lo == lo && piece->hi == hi)
        return piece_data(w, depth);
    int middle = lo + (int)lks__tree_split(hi - lo);
    const void *left = node(w, lo, middle, depth), *right = node(w, middle, hi, depth + 1);
    w->combine(w->partial[depth], left, right, w->n);
    return w->partial[depth];
}

/* The root [lo, hi), which is no piece, in the type of partial results. */
static void root(walk *w, int lo, int hi, void *out)
{
    int middle = lo + (int)lks__tree_split(hi - lo);
    const void *left = node(w, lo, middle, 0), *right = node(w, middle, hi, 1);
    w->combine(out, left, right, w->n);
}

static walk start(const lks__mpi_piece *pieces, const void *const *data, lks_dtype dtype, lks_op op,
                  char (*partial)[BLOCK_BYTES])
{
    lks__simd level = lks__simd_best();
    return (walk){.pieces = pieces,
                  .data = data,
                  .combine = lks__combine(dtype, op, level),
                  .dtype = dtype,
                  .level = level,
                  .partial = partial};
}

/* Elements of a block, in the type of partial results. */
static size_t block_elems(lks_dtype dtype)
{
    return BLOCK_BYTES / (dtype == LKS_BF16 ? sizeof(float) : lks__dtype_bytes(dtype));
}

static void take_block(walk *w, size_t done, size_t count)
{
    size_t most = block_elems(w->dtype);
    w->first = done;
    w->n = count - done < most ? count - done : most;
    w->at = 0;
}

void lks__mpi_reduce_piece(void *out, const lks__mpi_piece *piece, const void *const *sources, size_t count,
                           lks_dtype dtype, lks_op op)
{
    int size = piece->hi - piece->lo;
    if (dtype != LKS_BF16 || size == 1) {
        lks__reduce(out, sources, size, count, dtype, op == LKS_MEAN ? LKS_SUM : op);
        return;
    }
    _Alignas(LKS__ALIGNMENT) char partial[MAX_DEPTH][BLOCK_BYTES];
    lks__mpi_piece leaves[LKS_GROUP_MAX_SIZE];
    for (int i = 0; i < size; i++)
        leaves[i] = (lks__mpi_piece){i, i + 1, 0};
    walk w = start(leaves, sources, dtype, op, partial);
    for (size_t done = 0; done < count; done += w.n) {
        take_block(&w, done, count);
        root(&w, 0, size, (float *)out + done);
    }
}

void lks__mpi_reduce_pieces(void *out, const lks__mpi_map *map, const void *const *data, size_t count,
                            lks_dtype dtype, lks_op op)
{
    _Alignas(LKS__ALIGNMENT) char partial[MAX_DEPTH][BLOCK_BYTES];
    walk w = start(map->pieces, data, dtype, op, partial);
    for (size_t done = 0; done < count; done += w.n) {
        take_block(&w, done, count);
        char *target = (char *)out + done * lks__dtype_bytes(dtype);
        void *sum = dtype == LKS_BF16 ? partial[0] : target;
        root(&w, 0, map->size, sum);
        if (op == LKS_MEAN)
            lks__divide(dtype, sum, w.n, map->size);
        if (dtype == LKS_BF16)
            lks__bf16_narrow((uint16_t *)(void *)target, sum, w.n, w.level);
    }
}
