/* SPDX-License-Identifier: Apache-2.0 */
/* What a run directory tells for comparisons: hashes of the parameters, and on what they were computed. */
#include <math.h>

#include <xxhash.h>

#include <lockstep/version.h>

#include "base/tree.h"
#include "train/trainer.h"

enum { LANES = 16 }; /* as in lks__block_norm2 */

/* x: [n]. In one order, whatever the vector width. */
static double sum_of(const float *x, int64_t n)
{
    double lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            lanes[k] += (double)x[i + k];
    for (int k = 0; i + k < n; k++)
        lanes[k] += (double)x[i + k];
    return lks__tree_sum(lanes, LANES);
}

/* The other members may be computing already, which only reads parameters: they wait in the next reduction
 * before anything is updated. */
lks_status lks__log_hashes(lks_trainer *t, int64_t step, int64_t samples)
{
    lks_status status = LKS_OK;
    if (t->run_dir == NULL)
        return LKS_OK;
    for (int i = 0; i < lks__network_n_params(t->network); i++) {
        const lks__param *param = lks__network_param(t->network, i);
        if ((status = lks__network_export(t->network, i, t->params, t->plain)) != LKS_OK)
            return status;
        size_t bytes = (size_t)param->n_elems * sizeof(float);
        const lks__tensor_metrics metrics = {.step = step,
                                             .samples = samples,
                                             .tensor = param->name,
                                             .elems = param->n_elems,
                                             .fan_in = param->fan_in,
                                             .hash = XXH64(t->plain, bytes, 0),
                                             .norm = sqrt(lks__block_norm2(t->plain, param->n_elems, 1.0F)),
                                             .sum = sum_of(t->plain, param->n_elems)};
        lks__run_dir_log_tensor(t->run_dir, &metrics);
    }
    return LKS_OK;
}

lks_status lks__log_start(lks_trainer *t)
{
    int64_t train_set, test_set;
    char library[160];
    if (t->run_dir == NULL)
        return LKS_OK;
    lks_status status = lks__dataset_hash(t->config.train_set, &train_set);
    if (status == LKS_OK)
        status = lks__dataset_hash(t->config.test_set, &test_set);
    if (status != LKS_OK)
        return status;
    lks__network_library(sizeof library, library);
    const lks__start start = {.step = t->start.step,
                              .samples = t->start.samples,
                              .processes = lks_group_size(t->config.group),
                              .threads = t->config.threads,
                              .version = lks_version(),
                              .library = library,
                              .kernels = lks__network_fingerprint(t->network),
                              .train_set = (uint64_t)train_set,
                              .test_set = (uint64_t)test_set};
    lks__run_dir_log_start(t->run_dir, &start);
    return LKS_OK;
}
