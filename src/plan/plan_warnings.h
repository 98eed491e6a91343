/* SPDX-License-Identifier: Apache-2.0 */
/** What a plan allows but hardly anybody means. */
#ifndef LKS_PLAN_PLAN_WARNINGS_H
#define LKS_PLAN_PLAN_WARNINGS_H

#include <lockstep/plan.h>

#include "base/text.h"

enum { LKS__WARNING_BYTES = 1200 }; /* of the longest, with 16 worlds and their numbers */

/** The warnings of a plan, one after the other: index 0, 1, ... until false. */
bool lks__plan_warning(const lks_plan *plan, int index, char out[LKS__WARNING_BYTES]);

/** Adds the warnings of plans to a text for people, behind an empty line: each once, with the worlds that it
 * is about where there are several plans. plans: [n] */
void lks__plan_add_warnings(int n, const lks_plan *plans, lks__text *text);

#endif
