/* SPDX-License-Identifier: Apache-2.0 */
#include <lockstep/config.h>

#include <stddef.h>

#include "base/error.h"

lks_status lks_config_load(const char *path, int n_overrides, const char *const *overrides, lks_config **out)
{
    (void)n_overrides, (void)overrides, *out = NULL;
    return lks__fail(LKS_E_UNSUPPORTED, "%s: configs are not read yet", path);
}

void lks_config_destroy(lks_config *config)
{
    (void)config;
}

lks_status lks_config_set(lks_config *config, const char *key, const char *value)
{
    (void)config, (void)value;
    return lks__fail(LKS_E_UNSUPPORTED, "%s: configs are not read yet", key);
}

lks_status lks_config_help_text(char **out)
{
    *out = NULL;
    return lks__fail(LKS_E_UNSUPPORTED, "configs are not read yet");
}

lks_status lks_config_help_markdown(char **out)
{
    return lks_config_help_text(out);
}
