/* SPDX-License-Identifier: Apache-2.0 */
/** The copies of parameters and optimizer state: one on each machine, in the memory of its first member,
 * which the machine's members share. */
#ifndef LKS_TRAIN_COPIES_H
#define LKS_TRAIN_COPIES_H

#include "train/trainer.h"

/** Finds out who shares a copy, and makes what comparing takes. Collective. The caller deinits also after a
 * failure. Returns: LKS_OK; LKS_E_NOMEM; failures of the group. */
lks_status lks__copies_init(lks_trainer *trainer) LKS_MUST_USE;
void lks__copies_deinit(lks_trainer *trainer);

/** Makes the other machines' copies what rank 0 has set in its machine's: the parameters, and with_states the
 * optimizer's state, which is all zeros until somebody sets it. Afterwards every member sees them.
 * Collective. Returns: LKS_OK; failures of the group. */
lks_status lks__copies_share(lks_trainer *trainer, bool with_states) LKS_MUST_USE;

/** Whether the copies of the parameters are still copies; once for each step. Between two steps. Collective.
 * Returns: LKS_OK; LKS_E_MISMATCH on every member, with the first tensor that differs; failures of the group.
 */
lks_status lks__copies_compare(lks_trainer *trainer, int64_t step) LKS_MUST_USE;

#endif
