/* SPDX-License-Identifier: Apache-2.0 */
/** Configs as YAML: nested mappings, whose keys joined with dots are the keys of the option table. */
#ifndef LKS_CONF_CONFIG_YAML_H
#define LKS_CONF_CONFIG_YAML_H

#include <stdbool.h>

#include "conf/options.h"

/** Receives one setting of a file. text: NULL for a null (unset); borrowed during the call. */
typedef lks_status lks__yaml_setting_fn(void *context, const lks__option *option, const char *text, int line);

/** Reads a file and hands each setting to `fn`, in the file's order.
 *
 * Returns: LKS_OK; LKS_E_NOT_FOUND; LKS_E_IO; LKS_E_ARG (message with file and line: syntax, structure,
 * unknown or repeated key); LKS_E_NOMEM; what `fn` returned, with file and line put before its message. */
lks_status lks__yaml_read(const char *path, lks__yaml_setting_fn *fn, void *context) LKS_MUST_USE;

/** The same with a text; `name` stands for the file in messages. */
lks_status lks__yaml_parse(const char *name, const char *yaml, lks__yaml_setting_fn *fn,
                           void *context) LKS_MUST_USE;

/** Whether a text can stand in a YAML file: valid UTF-8. */
bool lks__yaml_can_hold(const char *text);

#endif
