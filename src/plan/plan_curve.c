/* SPDX-License-Identifier: Apache-2.0 */
/** The learning rate over the run, drawn with characters. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <lockstep/plan.h>

#include "base/text.h"
#include "plan/plan_check.h"

enum { WIDTH = 72, HEIGHT = 12, LABEL_BYTES = 24 };

typedef struct drawing {
    double rates[WIDTH]; /* at the middle of each column's part of the run */
    double top;          /* the largest rate of the run, > 0 */
    char cells[HEIGHT][WIDTH];
} drawing;

/* The row of a rate: HEIGHT equal parts of 0 .. top, from the bottom. */
static int row_of(const drawing *d, double rate)
{
    int row = (int)(rate / d->top * HEIGHT);
    return row < HEIGHT ? row : HEIGHT - 1;
}

/* The rate rises in the warm-up only, so it is largest at the start or around the warm-up's end, after which
 * a schedule that counts epochs may have fallen already. */
static double largest_rate(const lks_plan *plan)
{
    int64_t last = plan->samples - 1;
    int64_t end = plan->warmup_samples < (double)last ? (int64_t)ceil(plan->warmup_samples) : last;
    double rates[] = {lks_plan_lr(plan, (double)(end - 1)), lks_plan_lr(plan, (double)end)};
    double largest = lks_plan_lr(plan, 0);
    for (int i = 0; i < 2; i++)
        largest = rates[i] > largest ? rates[i] : largest;
    return largest;
}

static void measure(const lks_plan *plan, drawing *d)
{
    d->top = largest_rate(plan);
    for (int x = 0; x < WIDTH; x++) {
        d->rates[x] = lks_plan_lr(plan, floor((double)plan->samples * (2 * x + 1) / (2.0 * WIDTH)));
    }
}

/* A mark in each column, and a line from mark to mark where more than a row lies between two. */
static void draw(drawing *d)
{
    memset(d->cells, ' ', sizeof d->cells);
    for (int x = 0; x < WIDTH; x++) {
        int row = row_of(d, d->rates[x]);
        int before = x > 0 ? row_of(d, d->rates[x - 1]) : row;
        int step = before < row ? 1 : -1;
        for (int y = before; y != row; y += step)
            if (y != before)
                d->cells[y][x] = ':';
        d->cells[row][x] = '*';
    }
}

static void add_cells(const drawing *d, lks__text *text)
{
    char top[LABEL_BYTES];
    snprintf(top, sizeof top, "%.4g", d->top);
    int margin = (int)strlen(top);
    for (int y = HEIGHT - 1; y >= 0; y--) {
        int used = WIDTH;
        while (used > 0 && d->cells[y][used - 1] == ' ')
            used--;
        lks__text_add(text, "  %*s |%.*s\n", margin, y == HEIGHT - 1 ? top : "", used, d->cells[y]);
    }
    lks__text_add(text, "  %*s +", margin, "0");
    for (int x = 0; x < WIDTH; x++)
        lks__text_add(text, "-");
    lks__text_add(text, "\n");
}

/* Below the left and the right end of the axis. */
static void add_epochs(const lks_plan *plan, const drawing *d, lks__text *text)
{
    char top[LABEL_BYTES], end[LABEL_BYTES];
    snprintf(top, sizeof top, "%.4g", d->top);
    snprintf(end, sizeof end, "%.4g epoch%s", plan->epochs, plan->epochs == 1 ? "" : "s");
    lks__text_add(text, "  %*s  0%*s\n", (int)strlen(top), "", WIDTH - 1, end);
}

lks_status lks_plan_curve_to_text(const lks_plan *plan, char **out)
{
    drawing d;
    lks__text text = {0};
    *out = NULL;
    lks_status status = lks__plan_check(plan);
    if (status != LKS_OK)
        return status;
    measure(plan, &d);
    draw(&d);
    lks__text_add(&text, "  learning rate%s\n",
                  plan->lr_rule == LKS_LR_ADASCALE ? ", to be multiplied by the gain, over what it advances"
                                                   : "");
    add_cells(&d, &text);
    add_epochs(plan, &d, &text);
    return lks__text_take(&text, out);
}
