/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* sched_getaffinity, CPU_COUNT */

#include "base/machine.h"

#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/text.h"

int64_t lks__now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* ---- limits of cgroups ---- */

/* A limit that one cgroup v2 folder sets; 0: none. */
typedef int64_t limit_fn(const char *folder);

static FILE *open_limit(const char *folder, const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s", folder, name);
    return fopen(path, "re");
}

/* Quota / period, rounded up. */
static int64_t core_limit(const char *folder)
{
    FILE *file = open_limit(folder, "cpu.max");
    if (file == NULL)
        return 0;
    long long quota = 0, period = 0;
    int n = fscanf(file, "%lld %lld", &quota, &period); /* "max 100000" reads nothing: no limit */
    fclose(file);
    if (n != 2 || quota <= 0 || period <= 0)
        return 0;
    return (quota + period - 1) / period;
}

static int64_t memory_limit(const char *folder)
{
    FILE *file = open_limit(folder, "memory.max");
    if (file == NULL)
        return 0;
    long long bytes = 0;
    int n = fscanf(file, "%lld", &bytes); /* "max": no limit */
    fclose(file);
    return n == 1 && bytes > 0 ? bytes : 0;
}

/* The tightest limit of this process's cgroup and the folders above it; 0: none. */
static int64_t least_limit(limit_fn *limit_of)
{
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (file == NULL)
        return 0;
    char line[512], folder[512] = "";
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "0::", 3) == 0) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(folder, sizeof folder, "%s", line + 3);
        }
    fclose(file);

    int64_t least = 0;
    for (;;) {
        int64_t limit = limit_of(strcmp(folder, "/") == 0 ? "" : folder);
        if (limit > 0 && (least == 0 || limit < least))
            least = limit;
        char *slash = strrchr(folder, '/');
        if (slash == NULL)
            return least;
        *slash = '\0';
    }
}

/* ---- cores ---- */

int lks__cores_of(int n, const pid_t *pids)
{
    cpu_set_t mask, all;
    CPU_ZERO(&all);
    for (int i = 0; i < n; i++)
        if (sched_getaffinity(pids[i], sizeof mask, &mask) == 0) /* else it has ended */
            CPU_OR(&all, &all, &mask);
    int cores = CPU_COUNT(&all);
    int64_t quota = least_limit(core_limit);
    if (quota > 0 && quota < cores)
        cores = (int)quota;
    return cores > 0 ? cores : 1;
}

int lks__usable_cores(void)
{
    const pid_t self = 0;
    return lks__cores_of(1, &self);
}

int lks__group_cores(void)
{
    const char *pinned = getenv(LKS__PINNED_VARIABLE);
    int64_t processes;
    int own = lks__usable_cores();
    bool told = pinned != NULL && lks__parse_i64(pinned, &processes) && processes <= INT_MAX;
    return told && processes > own ? (int)processes : own;
}

/* ---- memory ---- */

int64_t lks__machine_memory_bytes(void)
{
    int64_t limit = least_limit(memory_limit), total_kib = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    char line[128];
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        long long kib;
        if (sscanf(line, "MemTotal: %lld", &kib) == 1 || sscanf(line, "SwapTotal: %lld", &kib) == 1)
            total_kib += kib;
    }
    if (file != NULL)
        fclose(file);
    int64_t total = total_kib > 0 ? total_kib * 1024 : INT64_MAX;
    return limit > 0 && limit < total ? limit : total;
}

int64_t lks__peak_memory_bytes(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (int64_t)usage.ru_maxrss * 1024;
}
