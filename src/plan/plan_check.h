/* SPDX-License-Identifier: Apache-2.0 */
/** Plans come from callers too, who may have made them by hand. */
#ifndef LKS_PLAN_PLAN_CHECK_H
#define LKS_PLAN_PLAN_CHECK_H

#include <lockstep/plan.h>

/** Are the plan's numbers ones that lks_plan_create makes: in their ranges, and each what follows from the
 * others? Not looked at: the rates and the warm-up, which divide nothing. Pure. Returns: LKS_OK; LKS_E_ARG.
 */
lks_status lks__plan_check(const lks_plan *plan) LKS_MUST_USE;

#endif
