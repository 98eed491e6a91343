/* SPDX-License-Identifier: Apache-2.0 */
#include "train/checkpoint_rules.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <xxhash.h>

#include "base/error.h"
#include "base/machine.h"
#include "conf/options.h"

/* What `best` can watch. */
static const struct {
    size_t offset; /* of the value in lks_train_result */
    bool more_is_better, of_test_set;
} watched[] = {
    [LKS_BEST_TEST_LOSS] = {offsetof(lks_train_result, test_loss), false, true},
    [LKS_BEST_TEST_ACCURACY] = {offsetof(lks_train_result, test_accuracy), true, true},
    [LKS_BEST_TRAIN_LOSS] = {offsetof(lks_train_result, train_loss), false, false},
};

lks_status lks__checkpoint_check_config(const lks_trainer_config *c)
{
    if (c->checkpoint_every_steps < 0 || c->checkpoint_every_epochs < 0 || c->checkpoint_keep < 1)
        return lks__fail(LKS_E_ARG,
                         "checkpoint_every_steps is %lld, checkpoint_every_epochs %lld and checkpoint_keep "
                         "%lld; >= 0, >= 0 and >= 1 are needed",
                         (long long)c->checkpoint_every_steps, (long long)c->checkpoint_every_epochs,
                         (long long)c->checkpoint_keep);
    if (!(c->checkpoint_every_seconds >= 0) || isinf(c->checkpoint_every_seconds))
        return lks__fail(LKS_E_ARG, "checkpoint_every_seconds is %g; a number >= 0 is needed",
                         c->checkpoint_every_seconds);
    if (c->checkpoint_best != LKS_BEST_NONE && watched[c->checkpoint_best].of_test_set && c->test_set == NULL)
        return lks__fail(LKS_E_ARG, "checkpoint_best %s needs a test set", lks__checkpoint_watched(c));
    return LKS_OK;
}

uint64_t lks__checkpoint_config_hash(const lks_trainer_config *c)
{
    char text[160];
    snprintf(text, sizeof text, "%lld %lld %a %d", (long long)c->checkpoint_every_steps,
             (long long)c->checkpoint_every_epochs, c->checkpoint_every_seconds, (int)c->checkpoint_best);
    return XXH64(text, strlen(text), 0);
}

const char *lks__checkpoint_watched(const lks_trainer_config *config)
{
    return lks__option_word("checkpoint.best", (int)config->checkpoint_best);
}

void lks__checkpoint_request(lks_trainer *t)
{
    double every = t->config.checkpoint_every_seconds;
    if (t->rank != 0 || every == 0)
        return;
    t->requests &= ~(unsigned)LKS__REQUEST_CHECKPOINT;
    if (lks__seconds_since(t->checkpointed_ns) >= every)
        t->requests |= LKS__REQUEST_CHECKPOINT;
}

bool lks__checkpoint_is_due(const lks_trainer *t, const lks__position *p, const lks__step_result *step)
{
    const lks_trainer_config *c = &t->config;
    int64_t every = c->checkpoint_every_steps, epochs = c->checkpoint_every_epochs;
    bool by_step = every > 0 && p->step % every == 0;
    bool by_clock = (step->requests & LKS__REQUEST_CHECKPOINT) != 0;
    bool by_epoch = epochs > 0 && lks__epoch_is_over(c->plan, p) && (p->epoch + 1) % epochs == 0;
    return (by_step || by_clock || by_epoch) && !lks__run_is_over(c->plan, p);
}

bool lks__checkpoint_is_best(const lks_trainer *t, const lks_train_result *result, lks__position *p)
{
    lks_checkpoint_best best = t->config.checkpoint_best;
    if (best == LKS_BEST_NONE)
        return false;
    double value;
    memcpy(&value, (const char *)result + watched[best].offset, sizeof value);
    bool better = watched[best].more_is_better ? value > p->best.value : value < p->best.value;
    if (!better && (p->best.step > 0 || isnan(value)))
        return false;
    p->best = (lks__best){.value = value, .step = p->step};
    return true;
}
