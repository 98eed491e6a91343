/* SPDX-License-Identifier: Apache-2.0 */
#include "base/tree.h"

double lks__tree_sum(const double *values, int64_t n)
{
    if (n <= 0)
        return 0.0;
    if (n == 1)
        return values[0];
    int64_t split = lks__tree_split(n);
    return lks__tree_sum(values, split) + lks__tree_sum(values + split, n - split);
}
