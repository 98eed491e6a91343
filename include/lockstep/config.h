/* SPDX-License-Identifier: Apache-2.0 */
/** The settings of a run: a YAML file, overridden by key=value pairs, checked against one table of options.
 */
#ifndef LOCKSTEP_CONFIG_H
#define LOCKSTEP_CONFIG_H

#include <lockstep/export.h>
#include <lockstep/status.h>

LKS_BEGIN_DECLS

typedef struct lks_config lks_config;

/** Reads a file and applies the overrides ("batch.local=32"; the value `auto` unsets a key) in their order.
 *
 * Ownership: the caller destroys *out; on failure *out is NULL.
 * Returns:   LKS_OK; LKS_E_NOT_FOUND; LKS_E_ARG with file, line, key, what is allowed, and the nearest valid
 * key.
 */
LKS_API lks_status lks_config_load(const char *path, int n_overrides, const char *const *overrides,
                                   lks_config **out) LKS_MUST_USE;

LKS_API void lks_config_destroy(lks_config *config);

/** Sets one more key, as an override would. Returns: LKS_OK; LKS_E_ARG (nothing changed). */
LKS_API lks_status lks_config_set(lks_config *config, const char *key, const char *value) LKS_MUST_USE;

/** A key's resolved value as text ("" when it is not set); NULL for a key that does not exist.
 *  Ownership: borrowed; valid until the thread's next call. */
LKS_API const char *lks_config_get(const lks_config *config, const char *key);

/** The resolved settings as YAML that lks_config_load accepts. Ownership: the caller frees *out with free().
 */
LKS_API lks_status lks_config_to_yaml(const lks_config *config, char **out) LKS_MUST_USE;

/** The table of options: for --help (plain text) or for docs/options.md (Markdown). The caller frees *out
 * with free(). */
LKS_API lks_status lks_config_help_text(char **out) LKS_MUST_USE;
LKS_API lks_status lks_config_help_markdown(char **out) LKS_MUST_USE;

LKS_END_DECLS

#endif
