/* SPDX-License-Identifier: Apache-2.0 */
#include "plan/gain.h"

/* A leaf of n samples has a mean gradient whose squared norm is expected to be norm2 + variance / n, and the
 * step's mean gradient one of norm2 + variance / samples. Two equations for two unknowns, with the mean of
 * 1/n over the leaves (McCandlish et al. 2018, appendix A.1, for leaves of any sizes). Johnson et al. 2020
 * have the same for equal ones in section 3.3. */
void lks__gain_add(lks__gain_averages *averages, const lks__gain_sample *sample)
{
    int64_t k = sample->leaves, each = sample->samples / k, larger = sample->samples % k;
    int64_t used = each > 0 ? k : larger; /* leaves that have samples */
    if (used < 2)
        return;
    double inverses = (double)larger / (double)(each + 1);
    if (each > 0)
        inverses += (double)(k - larger) / (double)each;
    double mean_inverse = inverses / (double)used, inverse = 1.0 / (double)sample->samples;
    double variance = (sample->leaf_norm2s / (double)used - sample->norm2) / (mean_inverse - inverse);
    double norm2 = sample->norm2 - variance * inverse;

    /* the more leaves a step has, the better its estimate and the shorter the memory (section 3.3) */
    double decay = k < 1000 ? 1.0 - (double)k / 1000.0 : 0.0;
    averages->variance = decay * averages->variance + (1.0 - decay) * (variance > 0 ? variance : 0.0);
    averages->norm2 = decay * averages->norm2 + (1.0 - decay) * (norm2 > 0 ? norm2 : 0.0);
}

double lks__gain(const lks__gain_averages *averages, int64_t samples, int64_t reference_batch)
{
    double kappa = (double)samples / (double)reference_batch;
    double variance = averages->variance / (double)reference_batch; /* of a reference batch's gradient */
    double below = variance / kappa + averages->norm2;
    return below > 0 ? (variance + averages->norm2) / below : 1.0;
}
