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
