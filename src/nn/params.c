/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters between their arena and the plain layout, and their initial values. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/random.h"
#include "nn/network_parts.h"

/* The last counter word of Philox says what its numbers are for. */
#define PHILOX_INIT 0x696e6974u /* "init" */

lks_status lks__network_export(const lks__network *network, int index, const float *arena, float *plain)
{
    const lks__param *param = &network->params[index];
    const float *tensor = arena + param->offset_elems;
    if (network->layouts[index] == NULL) {
        memcpy(plain, tensor, (size_t)param->n_elems * sizeof *plain);
        return LKS_OK;
    }
    int before = lks__network_enter(network);
    lks_status status = lks__layout_export(network->dnn, network->layouts[index], tensor, plain);
    lks__network_leave(before);
    return status;
}

lks_status lks__network_import(const lks__network *network, int index, const float *plain, float *arena)
{
    const lks__param *param = &network->params[index];
    float *tensor = arena + param->offset_elems;
    if (network->layouts[index] == NULL) {
        memcpy(tensor, plain, (size_t)param->n_elems * sizeof *plain);
        return LKS_OK;
    }
    int before = lks__network_enter(network);
    lks_status status = lks__layout_import(network->dnn, network->layouts[index], plain, tensor);
    lks__network_leave(before);
    return status;
}

/* out: [n_elems], uniform in [-1/sqrt(fan_in), 1/sqrt(fan_in)). Four elements share one call of Philox. */
static void fill_uniform(const lks__param *param, int index, int64_t seed, float *out)
{
    const uint32_t key[2] = {(uint32_t)(uint64_t)seed, (uint32_t)((uint64_t)seed >> 32)};
    const float bound = (float)(1.0 / sqrt((double)param->fan_in));
    for (int64_t i = 0; i < param->n_elems; i += 4) {
        uint64_t quad = (uint64_t)i / 4;
        const uint32_t counter[4] = {(uint32_t)quad, (uint32_t)(quad >> 32), (uint32_t)index, PHILOX_INIT};
        uint32_t bits[4];
        lks__philox(counter, key, bits);
        for (int64_t j = i; j < i + 4 && j < param->n_elems; j++)
            out[j] = bound * (2.0f * lks__unit_f32(bits[j - i]) - 1.0f);
    }
}

int64_t lks__network_largest_param_elems(const lks__network *network)
{
    int64_t largest = 0;
    for (int i = 0; i < network->n_params; i++)
        if (network->params[i].n_elems > largest)
            largest = network->params[i].n_elems;
    return largest;
}

lks_status lks__network_init_params(const lks__network *network, int64_t seed, float *params)
{
    float *plain = lks__alloc_array(lks__network_largest_param_elems(network), sizeof *plain, LKS__MEM_MISC);
    if (plain == NULL)
        return LKS_E_NOMEM;
    memset(params, 0, (size_t)network->arena_elems * sizeof *params);
    lks_status status = LKS_OK;
    for (int i = 0; status == LKS_OK && i < network->n_params; i++) {
        fill_uniform(&network->params[i], i, seed, plain);
        status = lks__network_import(network, i, plain, params);
    }
    lks__free(plain);
    return status;
}
