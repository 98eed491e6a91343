/* SPDX-License-Identifier: Apache-2.0 */
/* loss = log(sum_j exp(z_j)) - z_label    dz_j = exp(z_j) / sum - [j = label]
 *
 * One pass in a fixed order. The largest logit is taken off first, so that no exp overflows; logits that are
 * not finite give a loss that is not finite. The gradient costs two operations per element once the
 * exponentials are there, so forward leaves it in dx and there is no backward phase. */
#include <math.h>

#include "base/error.h"
#include "nn/op.h"

static lks_status infer(lks__node *node, const lks__node *x)
{
    (void)x;
    node->n_elems = 1; /* the loss of a sample; only the batch's sum is kept */
    return LKS_OK;
}

static lks_status check_labels(const lks__run *run, const lks__unit *unit)
{
    for (int64_t i = 0; i < unit->batch; i++)
        if (run->labels[i] < 0 || run->labels[i] >= unit->n_inputs)
            return lks__fail(LKS_E_ARG, "the label of the batch's sample %lld is %d; 0 to %lld are allowed",
                             (long long)i, run->labels[i], (long long)unit->n_inputs - 1);
    return LKS_OK;
}

/* The first of the largest; NaN is larger than nothing. */
static int64_t argmax(int64_t n, const float *z)
{
    int64_t best = 0;
    for (int64_t j = 1; j < n; j++)
        if (z[j] > z[best])
            best = j;
    return best;
}

/* dz: [n], receives exp(z - shift). Returns their sum. */
static double exponentials(int64_t n, const float *z, float shift, float *dz)
{
    double sum = 0.0;
    for (int64_t j = 0; j < n; j++) {
        dz[j] = expf(z[j] - shift);
        sum += (double)dz[j];
    }
    return sum;
}

static void sample(const lks__unit *unit, int64_t i, int32_t label, lks__loss *loss)
{
    int64_t n = unit->n_inputs;
    const float *z = unit->x + i * n;
    float *dz = unit->dx + i * n;
    int64_t best = argmax(n, z);
    double sum = exponentials(n, z, z[best], dz);
    float scale = (float)(1.0 / sum);
    for (int64_t j = 0; j < n; j++)
        dz[j] *= scale;
    dz[label] -= 1.0f;
    loss->loss_sum += log(sum) - ((double)z[label] - (double)z[best]);
    loss->n_correct += best == label;
}

static lks_status forward(const lks__run *run, const lks__unit *unit)
{
    lks_status status = check_labels(run, unit);
    for (int64_t i = 0; status == LKS_OK && i < unit->batch; i++)
        sample(unit, i, run->labels[i], run->loss);
    return status;
}

const lks__op lks__op_softmax_cross_entropy = {
    .name = "softmax cross-entropy",
    .ends_graph = true,
    .infer = infer,
    .run = {forward, NULL, NULL},
};
