/* SPDX-License-Identifier: Apache-2.0 */
/** Measured rows as text and as JSON. */
#ifndef LKS_BENCH_BENCH_OUTPUT_H
#define LKS_BENCH_BENCH_OUTPUT_H

#include "bench/bench_figures.h"

enum { LKS__BENCH_LINE_BYTES = 192 };

/** What is measured, and the columns' names. *out is for free(). */
lks_status lks__bench_heading(const lks__bench_config *config, int size, int cores, char **out) LKS_MUST_USE;

/** A row's line. Returns out. */
const char *lks__bench_line(const lks__bench_row *row, char out[LKS__BENCH_LINE_BYTES]);

/** One object, with all rows. *out is for free(). */
lks_status lks__bench_to_json(const lks__bench_config *config, int size, int n_rows,
                              const lks__bench_row *rows, char **out) LKS_MUST_USE;

#endif
