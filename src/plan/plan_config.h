/* SPDX-License-Identifier: Apache-2.0 */
/** From settings to the numbers that a plan is computed from. */
#ifndef LKS_PLAN_PLAN_CONFIG_H
#define LKS_PLAN_PLAN_CONFIG_H

#include <lockstep/plan.h>

#include "conf/settings.h"

/** n_samples: of the training set, after any limit. processes: 0 to choose. Pure. */
lks_plan_config lks__plan_config_from_settings(const lks__settings *settings, int64_t n_samples,
                                               int64_t processes);

/** Whether a run with the plan of `json` can go on with this one at its origin: they have the data in common.
 * Returns: LKS_OK; LKS_E_ARG with what differs; LKS_E_FORMAT; LKS_E_NOMEM. */
lks_status lks__plan_check_data(const lks_plan *plan, const char *json) LKS_MUST_USE;

struct json_t; /* of jansson */

/** Adds the plan's keys to a JSON object. Returns: LKS_OK; LKS_E_NOMEM. */
lks_status lks__plan_add_json(const lks_plan *plan, struct json_t *object) LKS_MUST_USE;

/** A JSON object of bytes; null when they are not known. NULL: no memory. */
struct json_t *lks__memory_to_json(const lks_plan_memory *memory);

/** A JSON object as text, numbers as the user wrote them. Ownership: the caller frees *out with free().
 * Returns: LKS_OK; LKS_E_NOMEM (*out NULL). */
lks_status lks__json_to_text(const struct json_t *object, char **out) LKS_MUST_USE;

/** The origin of the plan of `json` (lks_plan_to_json). Returns: LKS_OK; LKS_E_FORMAT. */
lks_status lks__plan_origin_from_json(const char *json, lks_plan_origin *out) LKS_MUST_USE;

/** Of the plan of `json`, what its epochs are made of: n_samples, world, global_batch, tail, origin, and its
 * epoch's and total steps; the rest is 0. For the functions of plan/epoch.h. Returns: LKS_OK; LKS_E_FORMAT.
 */
lks_status lks__plan_epochs_from_json(const char *json, lks_plan *out) LKS_MUST_USE;

/** Whether a plan is that of `json` (lks_plan_to_json) but for the number of processes. Returns: LKS_OK;
 * LKS_E_ARG with the first key that differs; LKS_E_FORMAT; LKS_E_NOMEM. */
lks_status lks__plan_check_same(const lks_plan *plan, const char *json) LKS_MUST_USE;

#endif
