/* SPDX-License-Identifier: Apache-2.0 */
/** Optimizers, with PyTorch's formulas, and with those of the papers where PyTorch has none (lars: You et al.
 * 2017, arXiv 1708.03888; lamb: You et al. 2019, arXiv 1904.00962). The learning rate is the plan's business.
 */
#ifndef LOCKSTEP_OPTIMIZER_H
#define LOCKSTEP_OPTIMIZER_H

#include <stdbool.h>

#include <lockstep/export.h>
#include <lockstep/status.h>

LKS_BEGIN_DECLS

typedef enum lks_optimizer_kind { LKS_SGD, LKS_ADAM, LKS_ADAMW, LKS_LARS, LKS_LAMB } lks_optimizer_kind;

typedef struct lks_optimizer_config {
    lks_optimizer_kind kind;
    double momentum;          /* sgd, lars; 0 <= momentum < 1 */
    bool nesterov;            /* sgd; needs momentum > 0 */
    double weight_decay;      /* >= 0; added to the gradient (sgd, adam, lars), decoupled from it (adamw), or
                                 added to Adam's direction (lamb) */
    double beta1, beta2;      /* adam, adamw, lamb; 0 <= beta < 1 */
    double epsilon;           /* adam, adamw, lamb; > 0 */
    double trust_coefficient; /* lars; > 0 */
    bool exclude_biases;      /* tensors with fewer than two dimensions (biases, and scales and shifts of
                                 normalisations) get no weight decay, and lars and lamb no trust ratio */
} lks_optimizer_config;

/** PyTorch's defaults for a kind (adamw: weight decay 0.01); biases are excluded, which PyTorch leaves to the
 * user. lars: momentum 0.9, trust coefficient 0.001; lamb: epsilon 1e-6, both without weight decay. For a
 * kind that does not exist: a config that lks_optimizer_config_check refuses. */
LKS_API lks_optimizer_config lks_optimizer_config_default(lks_optimizer_kind kind);

/** Returns: LKS_OK; LKS_E_ARG with the field and its range. */
LKS_API lks_status lks_optimizer_config_check(const lks_optimizer_config *config) LKS_MUST_USE;

LKS_END_DECLS

#endif
