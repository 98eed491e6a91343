/* SPDX-License-Identifier: Apache-2.0 */
/** Where two runs part, by what both have recorded after the same steps. */
#ifndef LKS_REPORT_FIRST_DIFFERENCE_H
#define LKS_REPORT_FIRST_DIFFERENCE_H

#include "report/run_files.h"

/** The first step that differs, and in it the first quantity: learning rate, samples, loss and the other
 * numbers of a step in their order, then parameters in the graph's order, then the numbers of an epoch's end.
 */
typedef struct lks__first_difference {
    bool found;
    int64_t step;
    const char *quantity;      /* a key of metrics.jsonl; "parameters"; "tensors": other names or sizes */
    const char *tensor;        /* of "parameters": the first that differs; else NULL */
    double a, b;               /* the quantity; of parameters the norm. NaN: not a number, or not there */
    double absolute, relative; /* of parameters: at least so much, ||a - b|| and over the larger norm */
    double largest_relative;   /* of all losses, norms and tensors of that step; accuracies jump and are left
                                  out */
    int n_tensors;             /* of "parameters": how many differ */
    int64_t equal_until;       /* the last step before at which something was compared; -1: none */

    int64_t n_steps, n_hashes; /* common steps with metrics, and with hashes */
    int64_t first, last;       /* of all of them; -1: none */
} lks__first_difference;

/** |a - b| over the larger of the two; 0 for equal numbers, infinite where only one is a number. */
double lks__relative_difference(double a, double b);

/** A number of a line; NaN for null and for what is not there. */
double lks__line_number(const json_t *line, const char *key);

/** What it points to belongs to the runs. */
void lks__find_first_difference(const lks__run_files *a, const lks__run_files *b, lks__first_difference *out);

/** Calls back for each step that has a line in both lists of lines. */
typedef void lks__common_step_fn(void *context, int64_t step, const json_t *a, const json_t *b);
void lks__each_common_step(const json_t *a, const json_t *b, lks__common_step_fn *fn, void *context);

#endif
