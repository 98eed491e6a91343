/* SPDX-License-Identifier: Apache-2.0 */
/** What a plan allows but hardly anybody means. */
#ifndef LKS_PLAN_PLAN_WARNINGS_H
#define LKS_PLAN_PLAN_WARNINGS_H

#include <lockstep/plan.h>

/** The warnings of a plan, one after the other: index 0, 1, ... until NULL. Static storage. */
const char *lks__plan_warning(const lks_plan *plan, int index);

#endif
