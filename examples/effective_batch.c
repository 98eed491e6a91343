/* SPDX-License-Identifier: Apache-2.0 */
/* Each rank prints its local batch and the effective batch of all ranks together.
 *
 *     lockstep run -n 2 build/examples/effective_batch
 */
#include <stdio.h>

#include <lockstep/lockstep.h>

enum { LOCAL_BATCH = 32, N_SAMPLES = 1000 };

static int fail(lks_status status)
{
    fprintf(stderr, "effective_batch: %s\n", lks_error_message());
    return lks_status_exit_code(status);
}

int main(void)
{
    lks_group_config where;
    lks_group *group;
    lks_status status = lks_group_config_from_env(&where);
    if (status == LKS_OK)
        status = lks_group_create(&where, &group);
    if (status != LKS_OK)
        return fail(status);

    lks_plan_config wanted = lks_plan_config_default();
    wanted.n_samples = N_SAMPLES;
    wanted.processes = lks_group_size(group);
    wanted.local_batch = LOCAL_BATCH;
    lks_plan plan;
    status = lks_plan_create(&wanted, &plan);

    /* The plan's word, and the proof: the batches that the ranks really have, added up. */
    int64_t sum = LOCAL_BATCH;
    if (status == LKS_OK)
        status = lks_group_all_reduce(group, &sum, 1, LKS_I64, LKS_SUM);
    if (status == LKS_OK)
        printf("rank %d: local batch %lld, effective batch %lld (added up over the ranks: %lld)\n",
               lks_group_rank(group), (long long)plan.local_batch, (long long)plan.global_batch,
               (long long)sum);
    lks_group_destroy(group);
    return status == LKS_OK ? 0 : fail(status);
}
