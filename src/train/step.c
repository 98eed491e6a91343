/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "base/error.h"
#include "base/machine.h"
#include "base/tree.h"
#include "data/dataset_files.h"
#include "train/trainer.h"

/* What the reducer's callback needs to update one block. */
typedef struct update {
    lks_trainer *trainer;
    lks__optim_step step;
    bool with_norm;
} update;

static void update_block(void *context, const lks__block *block, double values[LKS__BLOCK_VALUES])
{
    const update *u = context;
    float *states[LKS__OPTIM_MAX_STATES] = {NULL};
    for (int s = 0; s < lks__optim_n_states(&u->trainer->config.optimizer); s++)
        states[s] = u->trainer->states[s] + block->offset_elems;
    if (u->with_norm)
        values[0] = lks__block_norm2(block->grad, block->n_elems, u->step.grad_scale);
    lks__optim_update(&u->step, block->n_elems, block->grad, u->trainer->params + block->offset_elems,
                      states);
}

/* Lets the memory system fetch what this member's next leaf will read while this leaf computes. Within the
 * epoch only: the sampler keeps one epoch's order. */
static void prefetch_after(lks_trainer *t, const lks__position *position, int64_t own_leaf)
{
    const lks_plan *plan = t->config.plan;
    bool last_of_step = own_leaf + 1 == plan->leaves_per_process;
    int64_t step = position->step_in_epoch + last_of_step;
    int64_t leaf = t->rank * plan->leaves_per_process + (last_of_step ? 0 : own_leaf + 1);
    int64_t n = lks_sampler_leaf(t->sampler, position->epoch, step, leaf, t->indices);
    lks__dataset_prefetch(t->config.train_set, n, t->indices);
}

/* Gradient, loss and hits of one of this member's leaves. */
static lks_status run_leaf(lks_trainer *t, const lks__position *position, int64_t own_leaf)
{
    int64_t start = lks__now_ns();
    int64_t leaf = t->rank * t->config.plan->leaves_per_process + own_leaf;
    int64_t n = lks_sampler_leaf(t->sampler, position->epoch, position->step_in_epoch, leaf, t->indices);
    if (n > 0)
        lks_dataset_read(t->config.train_set, n, t->indices, lks__network_input(t->network),
                         lks__network_labels(t->network));
    prefetch_after(t, position, own_leaf);
    int64_t read = lks__now_ns();
    t->times.data += (double)(read - start) * 1e-9;

    lks__loss loss = {0};
    float *grads = lks__reducer_leaf(t->reducer);
    lks_status status = LKS_OK;
    if (n > 0)
        status = lks__network_forward(t->network, n, t->params,
                                      &(lks__draw){t->config.seed, position->step, leaf}, &loss);
    if (n > 0 && status == LKS_OK)
        status = lks__network_backward(t->network, n, t->params, grads, NULL, NULL);
    lks__reducer_leaf_done(t->reducer, n == 0);
    t->leaf_loss[own_leaf] = loss.loss_sum;
    t->leaf_correct[own_leaf] = (double)loss.n_correct;
    t->times.forward_backward += lks__seconds_since(read);
    return status;
}

/* The divisor of the gradient sum: the one averaging rule (docs/numerics.md). */
static double gradient_divisor(const lks_plan *plan, int64_t step_samples)
{
    return (double)(plan->reduction == LKS_REDUCTION_MEAN ? step_samples : plan->local_batch);
}

static double norm_of(const lks_trainer *t)
{
    return sqrt(lks__tree_sum(t->tensor_norm2, lks__network_n_params(t->network)));
}

/* with_norm: result->grad_norm was computed; otherwise it is NaN because nobody asked. */
static lks_status check_finite(const lks__position *position, const lks__step_result *result, bool with_norm)
{
    double loss = result->loss_sum / (double)result->samples;
    if (isnan(loss))
        loss = NAN; /* one without a sign, for the message */
    bool gradient_ok = !with_norm || isfinite(result->grad_norm);
    if (isfinite(loss) && gradient_ok)
        return LKS_OK;
    (void)lks__fail(LKS_E_NOT_FINITE,
                    "step %lld (epoch %lld, sample %lld): the %s is not finite (loss %g, learning rate %g)",
                    (long long)position->step + 1, (long long)position->epoch + 1,
                    (long long)position->samples, isfinite(loss) ? "gradient" : "loss", loss, result->lr);
    return lks__error_hint(LKS_E_NOT_FINITE, "try a smaller learning rate, a warm-up (lr.warmup_epochs), or "
                                             "reduction=mean");
}

lks_status lks__train_step(lks_trainer *t, const lks__position *position, bool with_norm,
                           lks__step_result *out)
{
    const lks_plan *plan = t->config.plan;
    lks__step_result result = {
        .samples = lks_plan_step_samples(plan, position->epoch, position->step_in_epoch),
        .lr = lks_plan_lr(plan, position->samples),
        .grad_norm = NAN};

    int64_t m = plan->leaves_per_process;
    for (int64_t i = 0; i < m; i++) {
        lks_status status = run_leaf(t, position, i);
        if (status != LKS_OK)
            return lks__error_prefix(status, "step %lld", (long long)position->step + 1);
    }

    update u = {.trainer = t, .with_norm = with_norm};
    u.step = lks__optim_step_make(&t->config.optimizer, result.lr, position->step + 1,
                                  1.0 / gradient_divisor(plan, result.samples));
    lks__step_io io = {.sums = {lks__tree_sum(t->leaf_loss, m), lks__tree_sum(t->leaf_correct, m)},
                       .flag = t->config.stop_signal != NULL ? *t->config.stop_signal : 0,
                       .requests = t->requests};
    const lks__pass pass = {
        .block = update_block, .context = &u, .tensor_values = {with_norm ? t->tensor_norm2 : NULL}};
    lks_status status = lks__reducer_begin(t->reducer, &io);
    if (status == LKS_OK)
        status = lks__reducer_pass(t->reducer, &pass);
    if (status != LKS_OK)
        return lks__error_prefix(status, "step %lld", (long long)position->step + 1);

    result.loss_sum = io.sums[0];
    result.n_correct = io.sums[1];
    result.stop_signal = io.flag;
    result.requests = io.requests;
    if (with_norm)
        result.grad_norm = norm_of(t);
    status = check_finite(position, &result, with_norm);
    if (status == LKS_OK)
        *out = result;
    return status;
}
