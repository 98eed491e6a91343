/* SPDX-License-Identifier: Apache-2.0 */
/** The parts of lks_compare_to_text and _to_json. */
#ifndef LKS_REPORT_COMPARE_H
#define LKS_REPORT_COMPARE_H

#include <jansson.h>

#include <lockstep/report.h>

#include "base/text.h"
#include "report/run_files.h"

/** The relative distance of the runs' final parameters, ||a - b|| over the larger norm; NaN where a run has
 * none, or they are not of one model. */
double lks__model_distance(const lks__run_files *a, const lks__run_files *b);

/** The JSON object as text for a terminal. */
void lks__comparison_add_text(lks__text *text, const json_t *comparison);

#endif
