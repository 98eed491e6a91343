/* SPDX-License-Identifier: Apache-2.0 */
/** Measures an operation of a group, size by size, in the manner of nccl-tests and the OSU benchmarks.
 *
 * Before each call that is measured every member rewrites what it will send, as backward rewrites gradients:
 * data that nobody has touched since the last call would not move. The time of that is not counted. A barrier
 * follows, so that all start together. */
#ifndef LKS_BENCH_BENCH_MEASURE_H
#define LKS_BENCH_BENCH_MEASURE_H

#include "bench/bench_figures.h"

/** Called for each size, on every member, with the same row. */
typedef void lks__bench_row_fn(void *context, const lks__bench_row *row);

/** Collective. Returns: LKS_OK, also when elements were wrong; LKS_E_NOMEM on every member; failures of the
 * group. */
lks_status lks__bench_measure(lks_group *group, const lks__bench_config *config, lks__bench_row_fn *done,
                              void *context) LKS_MUST_USE;

#endif
