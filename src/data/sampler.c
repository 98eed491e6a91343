/* SPDX-License-Identifier: Apache-2.0 */
#include <lockstep/sampler.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/random.h"
#include "plan/epoch.h"

/* From this many samples on torch.randperm draws 64 bits per sample. */
enum { N_SAMPLES_LIMIT = 214748364 };

/* Far beyond any run, and far enough from 2^63 that no position overflows. */
static const int64_t GLOBAL_BATCH_LIMIT = (int64_t)1 << 60;

struct lks_sampler {
    lks_sampler_config config;
    int64_t global_batch; /* B */
    int64_t leaves;       /* K */
    lks__epochs epochs;
    int32_t *order;      /* [N]: of epoch order_epoch; NULL without shuffling */
    int64_t order_epoch; /* -1: none yet */
};

lks_sampler_config lks_sampler_config_from_plan(const lks_plan *plan, int64_t seed)
{
    return (lks_sampler_config){
        .n_samples = plan->n_samples,
        .world = plan->world,
        .local_batch = plan->local_batch,
        .accumulate = plan->accumulate,
        .tail = plan->tail,
        .shuffle = true,
        .seed = seed,
        .origin_epoch = plan->origin.epoch,
        .origin_offset = plan->origin.offset,
    };
}

static lks_status check_positive(const char *name, int64_t value)
{
    if (value < 1)
        return lks__fail(LKS_E_ARG, "sampler: %s is %lld; it must be at least 1", name, (long long)value);
    return LKS_OK;
}

static lks_status check_config(const lks_sampler_config *config)
{
    const struct {
        const char *name;
        int64_t value;
    } counts[] = {
        {"the number of samples", config->n_samples},
        {"the world", config->world},
        {"the local batch", config->local_batch},
        {"the accumulation", config->accumulate},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        lks_status status = check_positive(counts[i].name, counts[i].value);
        if (status != LKS_OK)
            return status;
    }
    if (config->n_samples >= N_SAMPLES_LIMIT)
        return lks__fail(LKS_E_ARG,
                         "sampler: %lld samples are too many; the order of an epoch is defined below %d",
                         (long long)config->n_samples, N_SAMPLES_LIMIT);
    if (config->tail != LKS_TAIL_EXACT && config->tail != LKS_TAIL_DROP && config->tail != LKS_TAIL_PAD)
        return lks__fail(LKS_E_ARG, "sampler: tail %d is not exact, drop or pad", (int)config->tail);
    if (config->origin_epoch < 0 || config->origin_offset < 0 || config->origin_offset >= config->n_samples)
        return lks__fail(
            LKS_E_ARG,
            "sampler: position %lld of epoch %lld is no place to go on from; epochs count from 0, "
            "and positions from 0 to %lld",
            (long long)config->origin_offset, (long long)config->origin_epoch,
            (long long)config->n_samples - 1);
    int64_t leaves, global_batch;
    if (__builtin_mul_overflow(config->world, config->accumulate, &leaves) ||
        __builtin_mul_overflow(leaves, config->local_batch, &global_batch) ||
        global_batch > GLOBAL_BATCH_LIMIT)
        return lks__fail(
            LKS_E_ARG, "sampler: local batch %lld x world %lld x accumulation %lld is more than 2^60 samples",
            (long long)config->local_batch, (long long)config->world, (long long)config->accumulate);
    return LKS_OK;
}

lks_status lks_sampler_create(const lks_sampler_config *config, lks_sampler **out)
{
    *out = NULL;
    lks_status status = check_config(config);
    if (status != LKS_OK)
        return status;

    lks_sampler *sampler = lks__alloc(sizeof *sampler, LKS__MEM_DATA);
    if (sampler == NULL)
        return LKS_E_NOMEM;
    sampler->config = *config;
    sampler->leaves = config->world * config->accumulate;
    sampler->global_batch = sampler->leaves * config->local_batch;
    sampler->epochs = lks__epochs_make(config->n_samples, config->world, sampler->global_batch, config->tail,
                                       config->origin_epoch, config->origin_offset);
    sampler->order_epoch = -1;
    if (config->shuffle) {
        sampler->order = lks__alloc_array(config->n_samples, sizeof *sampler->order, LKS__MEM_DATA);
        if (sampler->order == NULL) {
            lks_sampler_destroy(sampler);
            return LKS_E_NOMEM;
        }
    }
    *out = sampler;
    return LKS_OK;
}

void lks_sampler_destroy(lks_sampler *sampler)
{
    if (sampler == NULL)
        return;
    lks__free(sampler->order);
    lks__free(sampler);
}

int64_t lks_sampler_steps_per_epoch(const lks_sampler *sampler)
{
    return sampler->epochs.whole.steps;
}

/* torch.randperm on the CPU, for fewer than N_SAMPLES_LIMIT elements: a Fisher-Yates shuffle from the front.
 * The generator takes the low 32 bits of its seed. */
static void shuffle(int32_t *order, int64_t n, uint64_t seed)
{
    lks__mt19937 generator;
    lks__mt19937_init(&generator, (uint32_t)seed);
    for (int64_t i = 0; i < n; i++)
        order[i] = (int32_t)i;
    for (int64_t i = 0; i < n - 1; i++) {
        int64_t j = i + lks__mt19937_next(&generator) % (uint32_t)(n - i);
        int32_t taken = order[j];
        order[j] = order[i];
        order[i] = taken;
    }
}

int64_t lks_sampler_leaf(lks_sampler *sampler, int64_t epoch, int64_t step, int64_t leaf, int64_t *indices)
{
    const lks_sampler_config *config = &sampler->config;
    lks__epoch in = lks__epochs_at(&sampler->epochs, epoch);
    if (step < 0 || step >= in.steps || leaf < 0 || leaf >= sampler->leaves)
        return 0;
    if (config->shuffle && sampler->order_epoch != epoch) {
        shuffle(sampler->order, config->n_samples, (uint64_t)config->seed + (uint64_t)epoch);
        sampler->order_epoch = epoch;
    }

    int64_t count = 0;
    int64_t position = step * sampler->global_batch + leaf;
    for (; count < config->local_batch && position < in.positions; position += sampler->leaves) {
        int64_t sample = (in.offset + position) % config->n_samples; /* beyond N the order starts again */
        indices[count++] = config->shuffle ? sampler->order[sample] : sample;
    }
    return count;
}
