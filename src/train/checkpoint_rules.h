/* SPDX-License-Identifier: Apache-2.0 */
/** When a checkpoint is due, and which one is the best. Each decision is the same on all members. */
#ifndef LKS_TRAIN_CHECKPOINT_RULES_H
#define LKS_TRAIN_CHECKPOINT_RULES_H

#include "train/trainer.h"

/** Whether the settings fit together. Returns: LKS_OK; LKS_E_ARG. */
lks_status lks__checkpoint_check_config(const lks_trainer_config *config) LKS_MUST_USE;

/** Of all settings that these decisions follow. */
uint64_t lks__checkpoint_config_hash(const lks_trainer_config *config);

/** Before a step: what this member asks for by its clock, which for rank 0 alone is anything. */
void lks__checkpoint_request(lks_trainer *trainer);

/** Behind a step: whether a checkpoint is due by step, by clock or by epoch. Not after the last step, which
 * leaves the model. */
bool lks__checkpoint_is_due(const lks_trainer *trainer, const lks__position *position,
                            const lks__step_result *step);

/** After an evaluation: whether the value that is watched is better than any before, and then keeps it. */
bool lks__checkpoint_is_best(const lks_trainer *trainer, const lks_train_result *result,
                             lks__position *position);

/** The name of what is watched, "test_loss". */
const char *lks__checkpoint_watched(const lks_trainer_config *config);

#endif
