/* SPDX-License-Identifier: Apache-2.0 */
/** What members write before a call that is measured, and what they must find after it: small whole numbers,
 * so that every type holds every sum exactly, which follow from index, rank and call by a sum that can be
 * done by hand. */
#ifndef LKS_BENCH_BENCH_VALUES_H
#define LKS_BENCH_BENCH_VALUES_H

#include <stddef.h>
#include <stdint.h>

#include <lockstep/group.h>

/** Rows of `count` elements in a member's in and out: 1, or P where the operation has [P, n]; 0: this member
 * does not use that buffer. */
int lks__bench_in_rows(const lks_operation *operation, int rank, int size);
int lks__bench_out_rows(const lks_operation *operation, int rank, int size);

/** Writes all of a member's in. call: which one of a series, so that what an earlier call left behind is not
 * taken for a result. */
void lks__bench_fill(const lks_operation *operation, int rank, int size, uint64_t call, void *in);

/** How many elements of a member's out are not what they must be after that call. */
int64_t lks__bench_wrong(const lks_operation *operation, int rank, int size, uint64_t call, const void *out);

#endif
