/* SPDX-License-Identifier: Apache-2.0 */
/** Optimizers, with PyTorch's formulas. The learning rate is the plan's business. */
#ifndef LOCKSTEP_OPTIMIZER_H
#define LOCKSTEP_OPTIMIZER_H

#include <stdbool.h>

#include <lockstep/export.h>
#include <lockstep/status.h>

LKS_BEGIN_DECLS

typedef enum lks_optimizer_kind { LKS_SGD, LKS_ADAM, LKS_ADAMW } lks_optimizer_kind;

typedef struct lks_optimizer_config {
    lks_optimizer_kind kind;
    double momentum;     /* sgd; 0 <= momentum < 1 */
    bool nesterov;       /* sgd; needs momentum > 0 */
    double weight_decay; /* >= 0; added to the gradient (sgd, adam) or decoupled (adamw) */
    double beta1, beta2; /* adam, adamw; 0 <= beta < 1 */
    double epsilon;      /* adam, adamw; > 0 */
} lks_optimizer_config;

/** PyTorch's defaults for a kind (adamw: weight decay 0.01). For a kind that does not exist: a config that
 * lks_optimizer_config_check refuses. */
LKS_API lks_optimizer_config lks_optimizer_config_default(lks_optimizer_kind kind);

/** Returns: LKS_OK; LKS_E_ARG with the field and its range. */
LKS_API lks_status lks_optimizer_config_check(const lks_optimizer_config *config) LKS_MUST_USE;

LKS_END_DECLS

#endif
