/* SPDX-License-Identifier: Apache-2.0 */
#include "train/watch.h"

#include <math.h>

/* West 1979, "Updating mean and variance estimates", with a weight for the newest value that stops falling.
 */
void lks__running_add(lks__running *running, double value)
{
    enum { VALUES = 100 };
    running->weight = running->weight < VALUES ? running->weight + 1.0 : VALUES;
    double part = 1.0 / running->weight, difference = value - running->mean;
    running->mean += part * difference;
    running->variance = (1.0 - part) * (running->variance + part * difference * difference);
}

double lks__loss_of_guess(double n_classes)
{
    return n_classes > 1.0 ? log(n_classes) : 0.0;
}

void lks__watch_add(lks__watch *watch, double n_classes, double loss, double grad_norm)
{
    double guess = lks__loss_of_guess(n_classes);
    if (watch->loss.weight == 0.0)
        watch->first_loss = loss;
    lks__running_add(&watch->loss, loss);
    if (!isnan(grad_norm))
        lks__running_add(&watch->grad_norm, grad_norm);

    bool high = loss > 3.0 * fmax(watch->first_loss, guess);
    watch->high_steps = high ? watch->high_steps + 1.0 : fmax(watch->high_steps - LKS__WATCH_LOW_STEP, 0.0);
    if (high || loss < 0.5 * guess)
        watch->left_guess = 1.0;
    watch->guess_steps = watch->left_guess > 0.0 && loss >= LKS__WATCH_GUESS_PART * guess
                             ? watch->guess_steps + 1.0
                             : 0.0;
    watch->skipped_steps = 0.0;
}
