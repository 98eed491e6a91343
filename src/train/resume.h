/* SPDX-License-Identifier: Apache-2.0 */
/** What a run goes on from. */
#ifndef LKS_TRAIN_RESUME_H
#define LKS_TRAIN_RESUME_H

#include <lockstep/train.h>

#include "conf/settings.h"

/** Checks that the settings are those of the run in settings->output, and takes over its world.
 *  Returns: LKS_OK; LKS_E_ARG with what differs; LKS_E_NOT_FOUND: there is no run; LKS_E_NOMEM. */
lks_status lks__resume_settings(lks__settings *settings) LKS_MUST_USE;

/** The path of the newest checkpoint in a run directory that is whole; tells `note` (may be NULL) of those
 * that it passes over. Ownership: the caller lks__free()s *out.
 *  Returns: LKS_OK; LKS_E_NOT_FOUND: there is none; LKS_E_IO; LKS_E_NOMEM. */
lks_status lks__resume_find(const char *output, lks_train_note_fn *note, void *context,
                            char **out) LKS_MUST_USE;

#endif
