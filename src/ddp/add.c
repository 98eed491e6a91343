/* SPDX-License-Identifier: Apache-2.0 */
#include "ddp/add.h"

#include "base/alloc.h"
#include "base/tree.h"

/* ivdep: where out is left or right, an element is read before it is written, and by no other iteration. */
LKS__SIMD_BODY void add_body(int64_t n, const float *left, const float *right, float *out)
{
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++)
        out[i] = left[i] + right[i];
}

LKS__SIMD_VERSIONS(add, void, (int64_t n, const float *left, const float *right, float *out),
                   (n, left, right, out))

void (*const lks__add_versions[LKS__SIMD_LEVELS])(int64_t n, const float *left, const float *right,
                                                  float *out) = LKS__SIMD_TABLE(add);

void lks__add(int64_t n, const float *left, const float *right, float *out)
{
    lks__add_versions[lks__simd_best()](n, left, right, out);
}

/* Operands are numbered: 0 .. size-1 are the members' blocks, from `size` on come the scratch blocks. */
typedef struct addition {
    int left, right;
    int scratch; /* where the sum goes; left may be the same one */
} addition;

struct lks__rank_tree {
    int size;
    int64_t block_elems;
    addition *additions; /* [size - 1], in the order of execution */
    int n_additions;
    float *scratch;         /* [depth of the tree][block_elems] */
    const float **operands; /* [size + depth] */
};

/* The tree's depth: ceil(log2 size). */
static int depth_of(int size)
{
    int depth = 0;
    while (1 << depth < size)
        depth++;
    return depth;
}

/* Appends the additions of members [first, first + n), which may use the scratch blocks from `scratch` on.
 * Returns the operand that holds their sum. A left part is never smaller than its right part, so the right
 * one needs no more than the blocks from scratch + 1 on. */
static int append_additions(lks__rank_tree *tree, int first, int n, int scratch)
{
    if (n == 1)
        return first;
    int split = (int)lks__tree_split(n);
    int left = append_additions(tree, first, split, scratch);
    int right = append_additions(tree, first + split, n - split, scratch + 1);
    tree->additions[tree->n_additions++] = (addition){left, right, scratch};
    return tree->size + scratch;
}

lks_status lks__rank_tree_create(int size, int64_t block_elems, lks__rank_tree **out)
{
    *out = NULL;
    lks__rank_tree *tree = lks__alloc(sizeof *tree, LKS__MEM_COMM);
    if (!tree)
        return LKS_E_NOMEM;
    tree->size = size;
    tree->block_elems = block_elems;
    int depth = depth_of(size);
    tree->additions = lks__alloc_array(size - 1, sizeof *tree->additions, LKS__MEM_COMM);
    tree->scratch = lks__alloc_array(depth * block_elems, sizeof *tree->scratch, LKS__MEM_COMM);
    tree->operands = lks__alloc_array(size + depth, sizeof *tree->operands, LKS__MEM_COMM);
    if (!tree->additions || !tree->scratch || !tree->operands) {
        lks__rank_tree_destroy(tree);
        return LKS_E_NOMEM;
    }
    for (int i = 0; i < depth; i++)
        tree->operands[size + i] = tree->scratch + i * block_elems;
    append_additions(tree, 0, size, 0);
    *out = tree;
    return LKS_OK;
}

void lks__rank_tree_destroy(lks__rank_tree *tree)
{
    if (!tree)
        return;
    lks__free(tree->operands);
    lks__free(tree->scratch);
    lks__free(tree->additions);
    lks__free(tree);
}

const float *lks__rank_tree_sum(lks__rank_tree *tree, const float *const *arenas, int64_t offset, int64_t n)
{
    for (int rank = 0; rank < tree->size; rank++)
        tree->operands[rank] = arenas[rank] + offset;
    for (int i = 0; i < tree->n_additions; i++) {
        const addition *a = &tree->additions[i];
        lks__add(n, tree->operands[a->left], tree->operands[a->right],
                 tree->scratch + a->scratch * tree->block_elems);
    }
    return tree->size == 1 ? tree->operands[0] : tree->scratch;
}
