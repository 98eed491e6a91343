/* SPDX-License-Identifier: Apache-2.0 */
/** Looking into checkpoints and other safetensors files, and taking the parameters out of a checkpoint. */
#ifndef LOCKSTEP_CHECKPOINT_H
#define LOCKSTEP_CHECKPOINT_H

#include <stdbool.h>

#include <lockstep/export.h>
#include <lockstep/plan.h>
#include <lockstep/status.h>

LKS_BEGIN_DECLS

/** Which checkpoint is the best: the one with the best value after an epoch, or at the end of the run. */
typedef enum lks_checkpoint_best {
    LKS_BEST_NONE, /* none is kept for its value */
    LKS_BEST_TEST_LOSS,
    LKS_BEST_TEST_ACCURACY,
    LKS_BEST_TRAIN_LOSS, /* mean over the epoch's samples */
} lks_checkpoint_best;

/** What a safetensors file holds: of a checkpoint format, position, seed and plan, of any file its tensors. A
 * checksum is compared when there is one; a checkpoint must have one. The JSON is one object whose values are
 * null where the file has none. Ownership: the caller frees *out with free().
 *  Returns: LKS_OK; LKS_E_NOT_FOUND; LKS_E_FORMAT: no safetensors file, or damaged; LKS_E_IO; LKS_E_NOMEM
 *  (*out NULL). */
LKS_API lks_status lks_checkpoint_to_text(const char *path, char **out) LKS_MUST_USE;
LKS_API lks_status lks_checkpoint_to_json(const char *path, char **out) LKS_MUST_USE;

/** Writes a checkpoint's parameters alone, without metadata, to the safetensors file `out_path`, which is
 * whole or as it was. Returns: as above; LKS_E_FORMAT also for what is no checkpoint; LKS_E_EXISTS: out_path
 * is there and `overwrite` is not set; LKS_E_ARG: out_path is the checkpoint itself. */
LKS_API lks_status lks_checkpoint_export(const char *path, const char *out_path, bool overwrite) LKS_MUST_USE;

/** Where a run goes on from a checkpoint with another batch, rate or length: for lks_plan_config.origin.
 * Behind an epoch's end the next epoch begins. Returns: LKS_OK; LKS_E_NOT_FOUND; LKS_E_FORMAT: no checkpoint,
 * or damaged; LKS_E_IO; LKS_E_NOMEM. */
LKS_API lks_status lks_checkpoint_origin(const char *path, lks_plan_origin *out) LKS_MUST_USE;

LKS_END_DECLS

#endif
