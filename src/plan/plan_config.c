/* SPDX-License-Identifier: Apache-2.0 */
#include "plan/plan_config.h"

lks_plan_config lks__plan_config_from_settings(const lks__settings *settings, int64_t n_samples,
                                               int64_t processes)
{
    return (lks_plan_config){
        .n_samples = n_samples,
        .processes = processes,
        .fast = settings->comm_fast,
        .world = settings->world,
        .local_batch = settings->local_batch,
        .accumulate = settings->accumulate,
        .global_batch = settings->global_batch,
        .tail = settings->tail,
        .epochs = settings->epochs,
        .steps = settings->steps,
        .samples = settings->samples,
        .reduction = settings->reduction,
        .optimizer = settings->optimizer,
        .base_lr = settings->base_lr,
        .lr_rule = settings->lr_rule,
        .reference_batch = settings->reference_batch,
        .warmup = settings->warmup,
        .warmup_epochs = settings->warmup_epochs,
        .warmup_from = settings->warmup_from,
        .schedule = settings->schedule,
    };
}
