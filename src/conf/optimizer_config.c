/* SPDX-License-Identifier: Apache-2.0 */
/** The optimizer's public struct: its defaults and ranges are those of the option table. */
#include <lockstep/optimizer.h>

#include "base/error.h"
#include "conf/options.h"

static bool is_known(lks_optimizer_kind kind)
{
    return lks__option_word("optimizer.kind", (int)kind)[0] != '\0';
}

lks_optimizer_config lks_optimizer_config_default(lks_optimizer_kind kind)
{
    lks__settings settings = {.optimizer.kind = kind};
    bool fits = is_known(kind);
    for (int i = 0; fits && i < lks__n_options; i++)
        if (lks__option_is_of(&lks__options[i], "optimizer.kind"))
            fits = lks__option_parse(&lks__options[i], lks__option_default(&lks__options[i], kind),
                                     &settings) == LKS_OK;
    return settings.optimizer;
}

lks_status lks_optimizer_config_check(const lks_optimizer_config *config)
{
    const lks__settings settings = {.optimizer = *config};
    if (!is_known(config->kind)) {
        char allowed[LKS__ALLOWED_BYTES];
        lks__option_allowed(lks__option_find("optimizer.kind"), allowed);
        return lks__fail(LKS_E_ARG, "optimizer.kind is %d; %s is needed", (int)config->kind, allowed);
    }
    for (int i = 0; i < lks__n_options; i++) {
        const lks__option *option = &lks__options[i];
        bool in_use = lks__option_is_of(option, "optimizer.kind") && lks__option_applies(option, &settings);
        lks_status status = in_use ? lks__option_check(option, &settings) : LKS_OK;
        if (status != LKS_OK)
            return status;
    }
    if (config->kind == LKS_SGD && config->nesterov && config->momentum == 0)
        return lks__fail(LKS_E_ARG, "optimizer.nesterov needs optimizer.momentum > 0");
    return LKS_OK;
}
