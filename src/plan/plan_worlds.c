/* SPDX-License-Identifier: Apache-2.0 */
/** The same run on more workers: plans of several worlds, side by side. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "conf/options.h"
#include "plan/plan_warnings.h"

typedef long long ll; /* what %lld wants */

/* The largest divisor of n that is no larger than `most`. */
static int64_t largest_divisor(int64_t n, int64_t most)
{
    int64_t largest = 1;
    for (int64_t d = 1; d <= n / d; d++) {
        if (n % d != 0)
            continue;
        if (d <= most && d > largest)
            largest = d;
        if (n / d <= most && n / d > largest)
            largest = n / d;
    }
    return largest;
}

lks_status lks_plan_create_at(const lks_plan_config *config, int64_t world, lks_hold hold, lks_plan *out)
{
    lks_plan base;
    lks_status status = lks_plan_create(config, &base);
    if (status != LKS_OK)
        return status;
    if (world < 1 || world > LKS__INT_LIMIT)
        return lks__fail(LKS_E_ARG, "the world is %lld; an integer from 1 to %lld is needed", (ll)world,
                         (ll)LKS__INT_LIMIT);
    if (hold == LKS_HOLD_GLOBAL && base.global_batch % world != 0)
        return lks__fail(LKS_E_ARG, "%lld workers can't share an effective batch of %lld evenly", (ll)world,
                         (ll)base.global_batch);
    lks_plan_config at = *config;
    at.processes = config->processes > 0 ? config->processes : world;
    at.world = world;
    at.local_batch = base.local_batch;
    at.accumulate = base.accumulate;
    at.global_batch = 0;
    if (hold == LKS_HOLD_GLOBAL) {
        int64_t share = base.global_batch /
                        world; /* of a worker, in as few passes as the local batch allows */
        at.local_batch = largest_divisor(share, base.local_batch);
        at.accumulate = share / at.local_batch;
    }
    return lks_plan_create(&at, out);
}

/* --- the table --- */

enum { CELL_BYTES = 32, GAP = 2 };

static void integer(int64_t value, char *out)
{
    snprintf(out, CELL_BYTES, "%lld", (ll)value);
}

static void rate(double value, char *out)
{
    snprintf(out, CELL_BYTES, "%.6g", value);
}

#define INTEGER_CELL(field)                                                                                  \
    static void cell_##field(const lks_plan *plan, char *out)                                                \
    {                                                                                                        \
        integer(plan->field, out);                                                                           \
    }
INTEGER_CELL(world)
INTEGER_CELL(processes)
INTEGER_CELL(local_batch)
INTEGER_CELL(accumulate)
INTEGER_CELL(global_batch)
INTEGER_CELL(steps_per_epoch)
INTEGER_CELL(last_step_samples)
INTEGER_CELL(total_steps)
INTEGER_CELL(warmup_steps)

static void cell_base_lr(const lks_plan *plan, char *out)
{
    rate(plan->base_lr, out);
}

static void cell_scaled_lr(const lks_plan *plan, char *out)
{
    rate(plan->scaled_lr, out);
}

/* "": not known */
static void size(const lks_plan *plan, int64_t bytes, char *out)
{
    out[0] = '\0';
    if (plan->memory.parameters > 0)
        lks__size_text(bytes, out);
}

static void cell_process_memory(const lks_plan *plan, char *out)
{
    size(plan, lks_plan_process_bytes(plan), out);
}

static void cell_machine_memory(const lks_plan *plan, char *out)
{
    size(plan, lks_plan_machine_bytes(plan), out);
}

static void cell_reduced(const lks_plan *plan, char *out)
{
    size(plan, plan->reduced_bytes, out);
}

static void cell_same_bits(const lks_plan *plan, char *out)
{
    snprintf(out, CELL_BYTES, "%s", plan->same_bits ? "yes" : "no");
}

static const struct {
    const char *label; /* NULL: an empty line */
    void (*cell)(const lks_plan *plan, char *out);
} rows[] = {
    {"world", cell_world},
    {"processes", cell_processes},
    {"local batch", cell_local_batch},
    {"accumulation", cell_accumulate},
    {"effective batch", cell_global_batch},
    {NULL, NULL},
    {"steps per epoch", cell_steps_per_epoch},
    {"samples in last step", cell_last_step_samples},
    {"total steps", cell_total_steps},
    {NULL, NULL},
    {"base learning rate", cell_base_lr},
    {"scaled rate", cell_scaled_lr},
    {"warm-up steps", cell_warmup_steps},
    {NULL, NULL},
    {"memory, process", cell_process_memory},
    {"memory, machine", cell_machine_memory},
    {"reduced per step", cell_reduced},
    {NULL, NULL},
    {"same bits", cell_same_bits},
};

enum { N_ROWS = sizeof rows / sizeof rows[0] };

static int label_width(void)
{
    size_t widest = 0;
    for (int r = 0; r < N_ROWS; r++)
        if (rows[r].label != NULL && strlen(rows[r].label) > widest)
            widest = strlen(rows[r].label);
    return (int)widest;
}

/* Of all columns, so that they are equal. */
static int cell_width(int n, const lks_plan *plans)
{
    size_t widest = 0;
    char cell[CELL_BYTES];
    for (int r = 0; r < N_ROWS; r++)
        for (int i = 0; i < n && rows[r].label != NULL; i++) {
            rows[r].cell(&plans[i], cell);
            widest = strlen(cell) > widest ? strlen(cell) : widest;
        }
    return (int)widest;
}

static void add_rows(int n, const lks_plan *plans, lks__text *text)
{
    int labels = label_width(), cells = cell_width(n, plans);
    char cell[CELL_BYTES];
    for (int r = 0; r < N_ROWS; r++) {
        if (rows[r].label != NULL)
            lks__text_add(text, "  %-*s", labels, rows[r].label);
        for (int i = 0; i < n && rows[r].label != NULL; i++) {
            rows[r].cell(&plans[i], cell);
            lks__text_add(text, "%*s%*s", GAP, "", cells, cell);
        }
        lks__text_add(text, "\n");
    }
}

lks_status lks_plans_to_text(int n, const lks_plan *plans, char **out)
{
    lks__text text = {0};
    add_rows(n, plans, &text);
    lks__plan_add_warnings(n, plans, &text);
    return lks__text_take(&text, out);
}
