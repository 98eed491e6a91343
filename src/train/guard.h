/* SPDX-License-Identifier: Apache-2.0 */
/** What becomes of a step that has gone wrong (docs/divergence.md). */
#ifndef LKS_TRAIN_GUARD_H
#define LKS_TRAIN_GUARD_H

#include "train/trainer.h"

/** Looks at a step that was taken, or was to be: `position` is from before it, and its watch is brought up to
 * date, with its updates. A step that went wrong fails the run, or is skipped, or takes the run back to the
 * parameters of a checkpoint, as config.on_divergence says; result->trouble tells. Collective: all members
 * decide the same.
 *
 * Returns: LKS_OK: the run goes on behind the step; LKS_E_NOT_FINITE with what was found out; LKS_E_NOMEM;
 * LKS_E_IO; failures of the group. */
lks_status lks__guard_step(lks_trainer *trainer, lks__position *position,
                           lks__step_result *result) LKS_MUST_USE;

/** Whether a periodic checkpoint, at the position after a step, may be one to go back to. One that is not is
 * not written, so that no better one is dropped for it. */
bool lks__guard_wants_checkpoint(const lks_trainer *trainer, const lks__position *position,
                                 const lks__step_result *result);

/** Tells the user when a run has ended, at this position, no better than a guess. Collective. Returns:
 * LKS_OK; failures of the group. */
lks_status lks__guard_end(lks_trainer *trainer, const lks__position *position,
                          double train_loss) LKS_MUST_USE;

/** Says what went wrong in a step, where, and what may be the cause. `result` has trouble. Collective.
 * Returns: LKS_E_NOT_FINITE with the text, on all members alike; failures of the group. */
lks_status lks__diagnose(lks_trainer *trainer, const lks__position *position,
                         const lks__step_result *result) LKS_MUST_USE;

/** The same of a test loss after the last step of an epoch, which had the rate `lr`. */
lks_status lks__diagnose_test(lks_trainer *trainer, const lks__position *position, double lr) LKS_MUST_USE;

#endif
