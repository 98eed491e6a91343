/* SPDX-License-Identifier: Apache-2.0 */
/** Writes checkpoints while the steps go on: a thread of rank 0's. The step loop copies the state into the
 * trainer's snapshot, which is memory of the trainer's creation, and posts it; the thread writes, flushes and
 * renames the files and then drops old ones. The snapshot belongs to the thread from post until the next
 * wait.
 *
 * Thread: start, wait, post and stop are the step loop's.
 */
#ifndef LKS_TRAIN_CHECKPOINT_WRITER_H
#define LKS_TRAIN_CHECKPOINT_WRITER_H

#include "train/trainer.h"

/** What is made of a snapshot. */
typedef enum lks__checkpoint_file {
    LKS__CHECKPOINT_NUMBERED = 1u << 0,  /* step-00000123.safetensors; older ones are dropped then */
    LKS__CHECKPOINT_BEST = 1u << 1,      /* best.safetensors */
    LKS__CHECKPOINT_DROP_NONE = 1u << 2, /* with NUMBERED: older ones stay, however many */
} lks__checkpoint_file;

/** The trainer is borrowed until stop. Returns: LKS_OK; LKS_E_NOMEM; LKS_E_SYSTEM (*out NULL). */
lks_status lks__checkpoint_writer_start(const lks_trainer *trainer,
                                        lks__checkpoint_writer **out) LKS_MUST_USE;

/** Waits until what was posted is written; nothing posted is fine. Returns: LKS_OK; the failure of that
 * write, once. */
lks_status lks__checkpoint_writer_wait(lks__checkpoint_writer *writer) LKS_MUST_USE;

/** Hands the snapshot over, with lks__checkpoint_file bits. Behind a wait; trainer->run_dir is open until the
 * next one. Allocates nothing. */
void lks__checkpoint_writer_post(lks__checkpoint_writer *writer, unsigned files);

/** Lets the thread finish what was posted and ends it. NULL is fine. */
void lks__checkpoint_writer_stop(lks__checkpoint_writer *writer);

#endif
