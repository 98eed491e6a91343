/* SPDX-License-Identifier: Apache-2.0 */
/* A learning rate that was tuned for one batch size, adjusted to the batch that the ranks have together:
 * Adam, rate 0.001 tuned at batch 32; on two ranks the effective batch is 64 and the linear rule gives 0.002.
 *
 *     lockstep run -n 2 build/examples/scaled_lr
 */
#include <stdio.h>

#include <lockstep/lockstep.h>

static int fail(lks_status status)
{
    fprintf(stderr, "scaled_lr: %s\n", lks_error_message());
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
    wanted.n_samples = 1000;
    wanted.processes = lks_group_size(group);
    wanted.local_batch = 32;
    wanted.base_lr = 0.001;
    wanted.reference_batch = 32;
    wanted.lr_rule = LKS_LR_LINEAR;
    lks_plan plan;
    status = lks_plan_create(&wanted, &plan);

    /* Adam at PyTorch's defaults; the rate is the plan's business, the optimizer gets a number each step. */
    lks_optimizer_config adam = lks_optimizer_config_default(LKS_ADAM);
    if (status == LKS_OK)
        status = lks_optimizer_config_check(&adam);
    if (status == LKS_OK && lks_group_rank(group) == 0)
        printf(
            "Adam (betas %g, %g): base rate %g tuned at batch %lld, effective batch %lld, adjusted rate %g\n",
            adam.beta1, adam.beta2, plan.base_lr, (long long)plan.reference_batch,
            (long long)plan.global_batch, plan.scaled_lr);
    lks_group_destroy(group);
    return status == LKS_OK ? 0 : fail(status);
}
