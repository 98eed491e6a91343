/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LKS_TRAIN_CHECKPOINT_ORIGIN_H
#define LKS_TRAIN_CHECKPOINT_ORIGIN_H

#include <lockstep/plan.h>

#include "record/safetensors.h"

/** As lks_checkpoint_origin, of an open file; `path` is for messages. */
lks_status lks__checkpoint_origin(const lks__safetensors *file, const char *path,
                                  lks_plan_origin *out) LKS_MUST_USE;

#endif
