/* SPDX-License-Identifier: Apache-2.0 */
/** Loss and accuracy of a trained model over a whole data set, each sample once. */
#ifndef LOCKSTEP_EVALUATE_H
#define LOCKSTEP_EVALUATE_H

#include <stdint.h>

#include <lockstep/config.h>
#include <lockstep/export.h>
#include <lockstep/group.h>
#include <lockstep/status.h>

LKS_BEGIN_DECLS

typedef enum lks_split { LKS_SPLIT_TEST, LKS_SPLIT_TRAIN } lks_split;

typedef struct lks_evaluate_options {
    const char *model_path; /* parameters: a checkpoint, a run's model, or another safetensors file */
    lks_split split;        /* of the config's data set; data.limit holds for the training set */
} lks_evaluate_options;

typedef struct lks_evaluation {
    int64_t samples, correct;
    double loss; /* mean */
    double accuracy;
    int64_t n_classes;
    int64_t *class_samples, *class_correct; /* [n_classes]: samples that belong to the class */
} lks_evaluation;

/** The model that a run has left: model.safetensors, or its newest whole checkpoint.
 *  Ownership: the caller frees *out_path with free().
 *  Returns: LKS_OK; LKS_E_NOT_FOUND: no such run, or no whole file in it; LKS_E_IO; LKS_E_NOMEM. */
LKS_API lks_status lks_run_model(const char *run, char **out_path) LKS_MUST_USE;

/** What can be refused before any process starts. Returns: LKS_OK; LKS_E_ARG; LKS_E_NOT_FOUND; LKS_E_FORMAT:
 * the file is damaged. */
LKS_API lks_status lks_evaluate_check(const lks_config *config, int processes,
                                      const lks_evaluate_options *options) LKS_MUST_USE;

/** Evaluates the config's model with a file's parameters, in pieces of the config's local batch, which the
 * members share. Any number of members gives the same bits, and those of the evaluation that ends a training
 * run with the same local batch.
 *
 * Collective. Ownership: lks_evaluation_deinit frees what *out points to.
 * Returns: LKS_OK; LKS_E_ARG; LKS_E_NOT_FOUND; LKS_E_FORMAT: the file is damaged, or of another model;
 * LKS_E_NOMEM; failures of the group. *out is set on success only, on all members alike. */
LKS_API lks_status lks_evaluate(const lks_config *config, lks_group *group,
                                const lks_evaluate_options *options, lks_evaluation *out) LKS_MUST_USE;

LKS_API void lks_evaluation_deinit(lks_evaluation *evaluation);

/** As a table for people, and as one JSON object, in which a figure that is not finite is null.
 *  Ownership: the caller frees *out with free(). */
LKS_API lks_status lks_evaluation_to_text(const lks_evaluation *evaluation,
                                          const lks_evaluate_options *options, char **out) LKS_MUST_USE;
LKS_API lks_status lks_evaluation_to_json(const lks_evaluation *evaluation,
                                          const lks_evaluate_options *options, char **out) LKS_MUST_USE;

LKS_END_DECLS

#endif
