/* SPDX-License-Identifier: Apache-2.0 */
/** The configs that a run had before it went on with another, config.1.yaml, config.2.yaml, ..., and the
 * models with which it had ended, model.1.safetensors, ... */
#ifndef LKS_RECORD_EARLIER_CONFIGS_H
#define LKS_RECORD_EARLIER_CONFIGS_H

#include <lockstep/status.h>

/** Before config.yaml of that folder becomes `config_yaml`: writes what it has under a new name, unless that
 * is the same text, and renames the model, if the run had ended. Returns: LKS_OK; LKS_E_IO; LKS_E_NOMEM. */
lks_status lks__keep_earlier_config(const char *folder, const char *config_yaml) LKS_MUST_USE;

/** Returns 0 or an errno value. */
int lks__remove_earlier_configs(int dir_fd);

#endif
