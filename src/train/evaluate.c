/* SPDX-License-Identifier: Apache-2.0 */
#include "base/tree.h"
#include "plan/epoch.h"
#include "train/trainer.h"

int64_t lks__eval_n_leaves(const lks_dataset *test_set, int64_t local_batch)
{
    lks_dataset_info info;
    lks_dataset_get_info(test_set, &info);
    return lks__divide_up(info.n_samples, local_batch);
}

/* Of the n samples that the network has just seen; a hit as the loss counts it. */
static void count_classes(lks_trainer *t, int64_t n)
{
    int64_t n_classes = lks__network_n_classes(t->network);
    const float *logits = lks__network_logits(t->network); /* [n, n_classes] */
    const int32_t *labels = lks__network_labels(t->network);
    for (int64_t i = 0; i < n; i++) {
        const float *z = logits + i * n_classes;
        int64_t best = 0;
        for (int64_t j = 1; j < n_classes; j++)
            if (z[j] > z[best])
                best = j;
        t->class_counts[labels[i]]++;
        t->class_counts[n_classes + labels[i]] += best == labels[i];
    }
}

/* Leaf `leaf` holds the samples leaf*b .. leaf*b + n - 1 in their order. */
static lks_status evaluate_leaf(lks_trainer *t, int64_t leaf, int64_t n_samples)
{
    int64_t b = t->config.plan->local_batch, first = leaf * b;
    int64_t n = n_samples - first < b ? n_samples - first : b;
    for (int64_t i = 0; i < n; i++)
        t->indices[i] = first + i;
    lks_dataset_read(t->config.test_set, n, t->indices, lks__network_input(t->network),
                     lks__network_labels(t->network));
    lks__loss loss;
    lks_status status = lks__network_forward(t->network, n, t->params, NULL, &loss);
    if (status != LKS_OK)
        return status;
    t->eval_loss[leaf] = loss.loss_sum;
    t->eval_correct[leaf] = (double)loss.n_correct;
    if (t->class_counts != NULL)
        count_classes(t, n);
    return LKS_OK;
}

lks_status lks__evaluate(lks_trainer *t, double *out_loss, double *out_accuracy)
{
    lks_dataset_info info;
    lks_dataset_get_info(t->config.test_set, &info);
    int64_t n_leaves = lks__eval_n_leaves(t->config.test_set, t->config.plan->local_batch);
    int64_t size = lks_group_size(t->config.group);
    int64_t begin = t->rank * n_leaves / size, end = (t->rank + 1) * n_leaves / size;

    for (int64_t i = 0; i < 2 * n_leaves; i++)
        t->eval_loss[i] = 0.0;
    for (int64_t leaf = begin; leaf < end; leaf++) {
        lks_status status = evaluate_leaf(t, leaf, info.n_samples);
        if (status != LKS_OK)
            return status;
    }
    /* Exact in any order: of the values added for a leaf all but one are 0. */
    lks_status status = lks_group_all_reduce(t->config.group, t->eval_loss, (size_t)(2 * n_leaves), LKS_F64,
                                             LKS_SUM);
    if (status != LKS_OK)
        return status;
    *out_loss = lks__tree_sum(t->eval_loss, n_leaves) / (double)info.n_samples;
    *out_accuracy = lks__tree_sum(t->eval_correct, n_leaves) / (double)info.n_samples;
    return LKS_OK;
}
