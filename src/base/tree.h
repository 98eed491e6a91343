/* SPDX-License-Identifier: Apache-2.0 */
/** The fixed order of additions (docs/numerics.md): a binary tree over 0 .. n-1 in which a node [lo, hi)
 * splits at lo + (largest power of two < hi - lo). Everything that is summed over leaves, members or blocks
 * uses it. */
#ifndef LKS_BASE_TREE_H
#define LKS_BASE_TREE_H

#include <stdbool.h>
#include <stdint.h>

/** The largest power of two below n; n >= 2. */
static inline int64_t lks__tree_split(int64_t n)
{
    return (int64_t)1 << (63 - __builtin_clzll((uint64_t)(n - 1)));
}

static inline bool lks__is_power_of_two(int64_t n)
{
    return n > 0 && (n & (n - 1)) == 0;
}

/** The sum of values[0 .. n-1] in tree order; 0 for n = 0. */
double lks__tree_sum(const double *values, int64_t n);

#endif
