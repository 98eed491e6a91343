/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "base/error.h"
#include "base/machine.h"
#include "base/tree.h"
#include "data/dataset_files.h"
#include "train/trainer.h"

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

/* The squared norm of a tensor's gradient as docs/numerics.md has it: blocks in a tree. */
static double norm2_of(lks_trainer *t, const lks__param *param, const float *grads)
{
    int64_t n_blocks = 0;
    for (int64_t at = 0; at < param->arena_elems; at += LKS__BLOCK_ELEMS, n_blocks++) {
        int64_t rest = param->arena_elems - at;
        t->block_norm2[n_blocks] = lks__block_norm2(grads + param->offset_elems + at,
                                                    rest < LKS__BLOCK_ELEMS ? rest : LKS__BLOCK_ELEMS, 1.0f);
    }
    return lks__tree_sum(t->block_norm2, n_blocks);
}

/* A leaf's gradient of a tensor is final. What is to be known of it is looked at first: it may be on its way
 * to other machines afterwards. */
static void on_gradient(void *context, int param)
{
    lks_trainer *t = context;
    if (t->leaf_norm2 != NULL)
        t->tensor_values[LKS__GRAD_NORM2][param] = norm2_of(t, lks__network_param(t->network, param),
                                                            lks__reducer_leaf(t->reducer));
    lks__reducer_tensor_ready(t->reducer, param);
}

/* The squared norm of the mean gradient of a leaf of n samples, tensors in a tree. */
static double leaf_norm2(const lks_trainer *t, int64_t n)
{
    double sum = lks__tree_sum(t->tensor_values[LKS__GRAD_NORM2], lks__network_n_params(t->network));
    return sum / ((double)n * (double)n);
}

int64_t lks__train_read_leaf(lks_trainer *t, const lks__position *position, int64_t leaf)
{
    int64_t n = lks_sampler_leaf(t->sampler, position->epoch, position->step_in_epoch, leaf, t->indices);
    if (n > 0)
        lks_dataset_read(t->config.train_set, n, t->indices, lks__network_input(t->network),
                         lks__network_labels(t->network));
    return n;
}

/* Gradient, loss and hits of one of this member's leaves. */
static lks_status run_leaf(lks_trainer *t, const lks__position *position, int64_t own_leaf)
{
    int64_t start = lks__now_ns();
    int64_t leaf = t->rank * t->config.plan->leaves_per_process + own_leaf;
    int64_t n = lks__train_read_leaf(t, position, leaf);
    prefetch_after(t, position, own_leaf);
    int64_t read = lks__now_ns();
    t->times.data += (double)(read - start) * 1e-9;

    lks__loss loss = {0};
    lks_status status = LKS_OK;
    if (n > 0)
        status = lks__network_forward(t->network, n, t->params,
                                      &(lks__draw){t->config.seed, position->step, leaf}, &loss);
    if (n > 0 && status == LKS_OK)
        status = lks__network_backward(t->network, n, t->params, lks__reducer_leaf(t->reducer), on_gradient,
                                       t);
    if (t->leaf_norm2 != NULL)
        t->leaf_norm2[own_leaf] = n > 0 ? leaf_norm2(t, n) : 0.0;
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

/* Own leaves, and what members tell each other of theirs. */
static lks_status run_leaves(lks_trainer *t, const lks__position *position, lks__step_io *io)
{
    int64_t m = t->config.plan->leaves_per_process;
    for (int64_t i = 0; i < m; i++) {
        lks_status status = run_leaf(t, position, i);
        if (status != LKS_OK)
            return status;
    }
    *io = (lks__step_io){.sums = {lks__tree_sum(t->leaf_loss, m), lks__tree_sum(t->leaf_correct, m),
                                  t->leaf_norm2 != NULL ? lks__tree_sum(t->leaf_norm2, m) : 0.0},
                         .flag = t->config.stop_signal != NULL ? *t->config.stop_signal : 0,
                         .requests = t->requests};
    return lks__reducer_begin(t->reducer, io);
}

lks_status lks__train_step(lks_trainer *t, const lks__position *position, bool with_norm,
                           lks__step_result *out)
{
    const lks_plan *plan = t->config.plan;
    lks__step_io io;
    lks_status status = run_leaves(t, position, &io);
    if (status != LKS_OK)
        return lks__error_prefix(status, "step %lld", (long long)position->step + 1);

    lks__step_result result = {
        .samples = lks_plan_step_samples(plan, position->epoch, position->step_in_epoch),
        .lr = lks_plan_lr(plan, position->clock),
        .loss_sum = io.sums[0],
        .n_correct = io.sums[1],
        .grad_norm = NAN,
        .gain = 1.0,
        .gain_averages = position->gain,
        .stop_signal = io.flag,
        .requests = io.requests};
    const lks__gradient gradient = {.update = position->updates + 1,
                                    .samples = result.samples,
                                    .divisor = gradient_divisor(plan, result.samples),
                                    .leaf_norm2s = io.sums[2],
                                    .wants_norm = with_norm};
    if (!isfinite(result.loss_sum))
        result.trouble = LKS__TROUBLE_LOSS;
    status = result.trouble == LKS__TROUBLE_NONE ? lks__train_passes(t, &gradient, &result)
                                                 : lks__train_no_pass(t);
    if (status != LKS_OK)
        return lks__error_prefix(status, "step %lld", (long long)position->step + 1);
    result.advance = plan->lr_rule == LKS_LR_ADASCALE ? result.gain * (double)plan->reference_batch
                                                      : (double)result.samples;
    *out = result;
    return LKS_OK;
}
