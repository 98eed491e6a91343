/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/bench_figures.h"

#include <stdlib.h>

#include "comm/collective.h"

enum { LEAST_CALLS = 5, MOST_CALLS = 5000 };

static const double SECONDS_OF_A_SIZE = 0.25;

int lks__bench_rows(lks_collective collective, int size)
{
    switch (collective) {
    case LKS_ALL_GATHER:
    case LKS_REDUCE_SCATTER:
    case LKS_GATHER:
    case LKS_SCATTER:
    case LKS_ALL_TO_ALL:
        return size;
    default:
        return 1;
    }
}

size_t lks__bench_count(const lks_operation *operation, int size, size_t bytes)
{
    if (operation->collective == LKS_BARRIER)
        return 0;
    size_t row = (size_t)lks__bench_rows(operation->collective, size) * lks__dtype_bytes(operation->dtype);
    return bytes < row ? 1 : bytes / row;
}

double lks__bench_bus_factor(lks_collective collective, int size)
{
    double others = (double)(size - 1) / size;
    if (collective == LKS_ALL_REDUCE)
        return 2 * others;
    return lks__bench_rows(collective, size) == size ? others : 1;
}

int lks__bench_most_calls(const lks__bench_config *config)
{
    return config->calls > 0 ? config->calls : MOST_CALLS;
}

int lks__bench_calls(const lks__bench_config *config, double cycle_seconds)
{
    double wanted = SECONDS_OF_A_SIZE / (cycle_seconds > 0 ? cycle_seconds : 1);
    if (config->calls > 0)
        return config->calls;
    return wanted < LEAST_CALLS ? LEAST_CALLS : wanted > MOST_CALLS ? MOST_CALLS : (int)wanted;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void lks__bench_summarize(const lks__bench_config *config, int size, int calls, double *seconds,
                          lks__bench_row *row)
{
    double sum = 0;
    qsort(seconds, (size_t)calls, sizeof *seconds, by_value);
    for (int i = 0; i < calls; i++)
        sum += seconds[i];
    row->calls = calls;
    row->min_s = seconds[0];
    row->median_s = 0.5 * (seconds[(calls - 1) / 2] + seconds[calls / 2]);
    row->mean_s = sum / calls;
    row->max_s = seconds[calls - 1];
    row->algorithm_rate = row->median_s > 0 ? (double)row->bytes / row->median_s : 0;
    row->bus_rate = row->algorithm_rate * lks__bench_bus_factor(config->operation.collective, size);
}
