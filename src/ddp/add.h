/* SPDX-License-Identifier: Apache-2.0 */
/** Adding gradients: two arrays, and one block of all members in tree order. */
#ifndef LKS_DDP_ADD_H
#define LKS_DDP_ADD_H

#include <stdint.h>

#include <lockstep/status.h>

#include "base/simd.h"

/** out = left + right, element by element. out may be left or right; no other overlap. */
void lks__add(int64_t n, const float *left, const float *right, float *out);

/** Its versions. For tests. */
extern void (*const lks__add_versions[LKS__SIMD_LEVELS])(int64_t n, const float *left, const float *right,
                                                         float *out);

/** The additions that make the tree's root out of `size` members, as a list: nothing recurses in a step. */
typedef struct lks__rank_tree lks__rank_tree;

/** block_elems: the longest block that lks__rank_tree_sum will be given. */
lks_status lks__rank_tree_create(int size, int64_t block_elems, lks__rank_tree **out) LKS_MUST_USE;
void lks__rank_tree_destroy(lks__rank_tree *tree);

/** Adds elements [offset, offset + n) of the members' arenas. Returns the sum: [n], in the tree's scratch,
 * valid until the next call; with one member the arena itself. */
const float *lks__rank_tree_sum(lks__rank_tree *tree, const float *const *arenas, int64_t offset, int64_t n);

#endif
