/* SPDX-License-Identifier: Apache-2.0 */
/** What a run goes on from, and with which settings. */
#ifndef LKS_TRAIN_RESUME_H
#define LKS_TRAIN_RESUME_H

#include <lockstep/train.h>

#include "conf/settings.h"

/** A run that goes on. Caller's storage. */
typedef struct lks__resume {
    lks_config *run;        /* as its run directory has it */
    lks_config *config;     /* the same, with what was asked for */
    lks__settings settings; /* of config, with the run's world; its texts are config's */
    char *path;             /* of the newest whole checkpoint */

    /* what the checkpoint was written with */
    lks_config *before;
    char *plan_json;
    lks_plan plan; /* after lks__resume_plan; on one process */

    /* where it stands */
    lks_plan_origin here; /* lks_checkpoint_origin */
    double clock;         /* of the schedule: lks_plan_lr */
} lks__resume;

/** Settles the settings, the run's config.yaml, but for what `config` asks for (lks__config_is_asked_for) and
 * may; and finds the checkpoint. Tells `note` (may be NULL) of those that it passes over. Reads the disk,
 * writes nothing. deinit it also after a failure. Returns: LKS_OK; LKS_E_ARG with what differs from the run's
 * settings, or does not fit together; LKS_E_NOT_FOUND: there is no run, or no whole checkpoint; LKS_E_FORMAT;
 * LKS_E_IO; LKS_E_NOMEM. */
lks_status lks__resume_init(lks__resume *resume, const lks_config *config, lks_train_note_fn *note,
                            void *context) LKS_MUST_USE;
void lks__resume_deinit(lks__resume *resume);

/** Makes the others' resume, which is all zeros, what rank 0 has found; with their own config for what may
 * differ. They read nothing: the run directory may be on rank 0's machine only. Collective. All deinit it.
 * Returns: LKS_OK; LKS_E_NOMEM; failures of the group. */
lks_status lks__resume_share(lks__resume *resume, const lks_config *config, lks_group *group) LKS_MUST_USE;

/** The part of both that sets config and settings from run. */
lks_status lks__resume_settle(lks__resume *resume, const lks_config *config) LKS_MUST_USE;

/** Whether a config asks for something else than the run in its run directory has. False where that can't be
 * told. */
bool lks__resume_asks(const lks_config *config);

/** The path of the newest checkpoint in a run directory that is whole; tells `note` (may be NULL) of those
 * that it passes over. Ownership: the caller lks__free()s *out.
 *  Returns: LKS_OK; LKS_E_NOT_FOUND: there is none; LKS_E_IO; LKS_E_NOMEM. */
lks_status lks__resume_find(const char *output, lks_train_note_fn *note, void *context,
                            char **out) LKS_MUST_USE;

/** Tells `note` (may be NULL) of a checkpoint that is passed over, and that why is the thread's last failure.
 */
void lks__tell_passed_over(lks_train_note_fn *note, void *context);

/** The plan with which the run goes on, on a training set of so many samples: the checkpoint's, or, if the
 * settings are others, one that has its origin there. Returns: as lks_plan_create. */
lks_status lks__resume_plan(lks__resume *resume, int64_t n_samples, int64_t processes,
                            lks_plan *out) LKS_MUST_USE;

/** What differs between the checkpoint's settings and those that the run goes on with, for metrics.jsonl
 * (*json) and for people (*sentence); both NULL when nothing does.
 *  Ownership: the caller frees both with free(). Returns: LKS_OK; LKS_E_NOMEM. */
lks_status lks__resume_changes(const lks__resume *resume, const lks_plan *plan, char **json,
                               char **sentence) LKS_MUST_USE;

#endif
