/* SPDX-License-Identifier: Apache-2.0 */
/** The arithmetic of measured calls: sizes, times, bandwidths. */
#ifndef LKS_BENCH_BENCH_FIGURES_H
#define LKS_BENCH_BENCH_FIGURES_H

#include "bench/bench_config.h"

/** One size of an operation, measured. */
typedef struct lks__bench_row {
    size_t bytes; /* of the largest buffer that a member has */
    size_t count; /* of the operation: elements, or elements of a row */
    int calls;
    double min_s, median_s, mean_s, max_s; /* of the calls; a call takes as long as its slowest member */
    double algorithm_rate;                 /* bytes over the median time */
    double bus_rate;                       /* that, times lks__bench_bus_factor */
    int64_t wrong;                         /* elements, on all members */
    int64_t barriers, read_bytes,
        written_bytes; /* of one call, of the member that has most; 0: not counted */
} lks__bench_row;

/** How many rows of `count` elements the largest buffer of a member has. */
int lks__bench_rows(lks_collective collective, int size);

/** The count for about so many bytes: rounded down, at least 1. 0 for a barrier. */
size_t lks__bench_count(const lks_operation *operation, int size, size_t bytes);

/** The bytes that must cross a member's connection, at least, for each byte of its largest buffer, whatever
 * the algorithm: with it bandwidths of different operations and group sizes can be compared with the
 * hardware's (as in nccl-tests, doc/PERFORMANCE.md). */
double lks__bench_bus_factor(lks_collective collective, int size);

/** How many calls to measure, of which each takes so long, with all that belongs to it. */
int lks__bench_calls(const lks__bench_config *config, double cycle_seconds);

/** What lks__bench_calls returns at most. */
int lks__bench_most_calls(const lks__bench_config *config);

/** Fills in calls, times and rates from the seconds of each call, which are sorted. row->bytes is set. */
void lks__bench_summarize(const lks__bench_config *config, int size, int calls, double *seconds,
                          lks__bench_row *row);

#endif
