/* SPDX-License-Identifier: Apache-2.0 */
/** How the loss and the norm of the gradient have gone: what a step that goes wrong is held against. The same
 * on all members; stored in checkpoints, so doubles only. */
#ifndef LKS_TRAIN_WATCH_H
#define LKS_TRAIN_WATCH_H

#include <stdbool.h>

/** Mean and variance over about the last hundred values: of all of them until there are so many,
 * exponentially weighted from then on. All zeros before the first. */
typedef struct lks__running {
    double mean, variance;
    double weight; /* values so far, but no more than a hundred */
} lks__running;

void lks__running_add(lks__running *running, double value);

typedef struct lks__watch {
    lks__running loss;      /* of steps: means over their samples */
    lks__running grad_norm; /* of those steps of which it was measured */
    double first_loss;      /* of the run's first step; 0: none yet */
    double high_steps;      /* in which the loss was high, less LKS__WATCH_LOW_STEP for each since in which it
                               was not */
    double left_guess;      /* 1 when some step's loss was high, or less than half of a guess's; else 0 */
    double guess_steps;     /* in a row, to the last one, in which the model was no better than a guess; after
                               left_guess only, as a run may well begin so */
    double skipped_steps;   /* in a row, to the last one, that were not taken */
} lks__watch;

#define LKS__WATCH_GUESS_PART 0.9 /* of the loss of a guess: a model with so much is no better than one */

enum {
    LKS__WATCH_HIGH_STEPS = 100,  /* so many: the loss does not come down again */
    LKS__WATCH_LOW_STEP = 10,     /* a step of a small batch may have a small loss by chance; a model that has
                                     come down has many */
    LKS__WATCH_GUESS_STEPS = 200, /* so many in a row: the model has fallen apart, with units that are dead */
    LKS__WATCH_SKIPPED_STEPS = 20, /* so many in a row: skipping them does not help */
};

/** Adds a step that was taken. A loss is high when it is more than three times that of the first step and of
 * a guess, ln(n_classes); a model is no better than a guess with a loss of at least 0.9 times that.
 * grad_norm: NaN when it was not measured. */
void lks__watch_add(lks__watch *watch, double n_classes, double loss, double grad_norm);

/** Whether the run will not come back by itself. */
static inline bool lks__watch_diverges(const lks__watch *watch)
{
    return watch->high_steps >= LKS__WATCH_HIGH_STEPS || watch->guess_steps >= LKS__WATCH_GUESS_STEPS;
}

/** The loss of a model that guesses: ln(n_classes), 0 for fewer than two classes. */
double lks__loss_of_guess(double n_classes);

#endif
