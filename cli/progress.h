/* SPDX-License-Identifier: Apache-2.0 */
/** What `lockstep train` shows on the screen: plan, progress, result. */
#ifndef LKS_CLI_PROGRESS_H
#define LKS_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <lockstep/plan.h>
#include <lockstep/train.h>

typedef struct progress {
    FILE *out;        /* plan, epochs and result; the moving line goes to stderr */
    bool terminal;    /* stderr is one: a bar that moves; else a line every few seconds */
    bool line_open;   /* the bar stands on the screen's last line */
    int64_t drawn_ns; /* when it was drawn last */
    lks_plan plan;
} progress;

void progress_init(progress *p, FILE *out);

/** Prints the plan as a table and remembers what the bar needs of it. */
void progress_print_plan(progress *p, const lks_plan *plan);

/** A lks_train_progress_fn. */
void progress_update(void *context, const lks_train_progress *update);

/** Takes the bar off the screen. */
void progress_end(progress *p);

/** Final loss, accuracy, samples per second, and where the time went. */
void progress_print_result(const lks_train_result *result, double seconds);

#endif
