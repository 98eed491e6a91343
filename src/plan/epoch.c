/* SPDX-License-Identifier: Apache-2.0 */
#include "plan/epoch.h"

static int64_t count_positions(int64_t n_samples, int64_t world, int64_t global_batch, lks_tail tail)
{
    switch (tail) {
    case LKS_TAIL_DROP:
        return n_samples / global_batch * global_batch;
    case LKS_TAIL_PAD:
        return lks__divide_up(n_samples, world) * world;
    case LKS_TAIL_EXACT:
        break;
    }
    return n_samples;
}

lks__epoch lks__epoch_make(int64_t n_samples, int64_t world, int64_t global_batch, lks_tail tail)
{
    lks__epoch epoch = {.positions = count_positions(n_samples, world, global_batch, tail)};
    epoch.steps = lks__divide_up(epoch.positions, global_batch);
    if (epoch.steps > 0)
        epoch.last_step_samples = epoch.positions - (epoch.steps - 1) * global_batch;
    return epoch;
}

lks__epochs lks__epochs_make(int64_t n_samples, int64_t world, int64_t global_batch, lks_tail tail,
                             int64_t origin_epoch, int64_t origin_offset)
{
    lks__epochs epochs = {
        .whole = lks__epoch_make(n_samples, world, global_batch, tail),
        .first = lks__epoch_make(n_samples - origin_offset, world, global_batch, tail),
        .first_epoch = origin_epoch,
    };
    epochs.first.offset = origin_offset;
    return epochs;
}

lks__epochs lks__plan_epochs(const lks_plan *plan)
{
    return lks__epochs_make(plan->n_samples, plan->world, plan->global_batch, plan->tail, plan->origin.epoch,
                            plan->origin.offset);
}

lks__epoch lks__epochs_at(const lks__epochs *epochs, int64_t epoch)
{
    if (epoch < epochs->first_epoch)
        return (lks__epoch){0};
    return epoch == epochs->first_epoch ? epochs->first : epochs->whole;
}

int64_t lks__plan_epoch_at(const lks_plan *plan, int64_t samples_seen)
{
    lks__epochs epochs = lks__plan_epochs(plan);
    int64_t after = samples_seen - plan->origin.samples; /* the origin */
    if (after >= epochs.first.positions)
        return epochs.first_epoch + 1 + (after - epochs.first.positions) / epochs.whole.positions;
    int64_t reckoned = samples_seen / epochs.whole.positions;
    return after >= 0 || reckoned > epochs.first_epoch ? epochs.first_epoch : reckoned;
}

int64_t lks__plan_steps_before(const lks_plan *plan, int64_t epoch, int64_t step)
{
    lks__epochs epochs = lks__plan_epochs(plan);
    int64_t later = epoch - epochs.first_epoch; /* than the origin's */
    return plan->origin.step + step + (later > 0 ? epochs.first.steps + (later - 1) * epochs.whole.steps : 0);
}

/* An epoch's last step is its only short one. */
static int64_t samples_in(const lks__epoch *epoch, int64_t steps, int64_t global_batch)
{
    return steps < epoch->steps ? steps * global_batch : epoch->positions;
}

int64_t lks__plan_samples_before(const lks_plan *plan, int64_t epoch, int64_t step)
{
    lks__epochs epochs = lks__plan_epochs(plan);
    int64_t later = epoch - epochs.first_epoch; /* than the origin's */
    lks__epoch in = lks__epochs_at(&epochs, epoch);
    return plan->origin.samples + samples_in(&in, step, plan->global_batch) +
           (later > 0 ? epochs.first.positions + (later - 1) * epochs.whole.positions : 0);
}

int64_t lks__plan_last_epoch(const lks_plan *plan)
{
    return plan->origin.epoch + 1 + (plan->total_steps - plan->origin.step) / plan->steps_per_epoch;
}

double lks__plan_epochs_after(const lks_plan *plan, int64_t samples_seen)
{
    lks__epochs epochs = lks__plan_epochs(plan);
    int64_t after = samples_seen - plan->origin.samples, left = after - epochs.first.positions;
    if (plan->origin.step == 0)
        return (double)samples_seen / (double)epochs.whole.positions;
    if (left >= 0)
        return (double)(epochs.first_epoch + 1) + (double)left / (double)epochs.whole.positions;
    return (double)epochs.first_epoch +
           (double)(epochs.first.offset + after) / (double)(epochs.first.offset + epochs.first.positions);
}

int64_t lks_plan_steps_in_epoch(const lks_plan *plan, int64_t epoch)
{
    lks__epochs epochs = lks__plan_epochs(plan);
    return lks__epochs_at(&epochs, epoch).steps;
}

int64_t lks_plan_step_samples(const lks_plan *plan, int64_t epoch, int64_t step)
{
    lks__epochs epochs = lks__plan_epochs(plan);
    lks__epoch in = lks__epochs_at(&epochs, epoch);
    if (step < 0 || step >= in.steps)
        return 0;
    return step == in.steps - 1 ? in.last_step_samples : plan->global_batch;
}
