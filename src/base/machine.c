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

/* Quota / period of one cgroup v2 folder, rounded up; 0 when it sets no limit. */
static int quota_of(const char *folder)
{
    char path[600];
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", folder);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    long long quota = 0, period = 0;
    int n = fscanf(file, "%lld %lld", &quota, &period); /* "max 100000" reads nothing: no limit */
    fclose(file);
    if (n != 2 || quota <= 0 || period <= 0)
        return 0;
    return (int)((quota + period - 1) / period);
}

/* The tightest quota of this process's cgroup and the folders above it; 0: none. */
static int cgroup_quota(void)
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

    int least = 0;
    for (;;) {
        int quota = quota_of(strcmp(folder, "/") == 0 ? "" : folder);
        if (quota > 0 && (least == 0 || quota < least))
            least = quota;
        char *slash = strrchr(folder, '/');
        if (slash == NULL)
            return least;
        *slash = '\0';
    }
}

int lks__cores_of(int n, const pid_t *pids)
{
    cpu_set_t mask, all;
    CPU_ZERO(&all);
    for (int i = 0; i < n; i++)
        if (sched_getaffinity(pids[i], sizeof mask, &mask) == 0) /* else it has ended */
            CPU_OR(&all, &all, &mask);
    int cores = CPU_COUNT(&all), quota = cgroup_quota();
    if (quota > 0 && quota < cores)
        cores = quota;
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

int64_t lks__peak_memory_bytes(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (int64_t)usage.ru_maxrss * 1024;
}
