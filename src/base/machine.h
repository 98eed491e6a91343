/* SPDX-License-Identifier: Apache-2.0 */
/** The machine: its clock, its cores, this process's memory. */
#ifndef LKS_BASE_MACHINE_H
#define LKS_BASE_MACHINE_H

#include <stdint.h>

/** Nanoseconds of the monotonic clock. */
int64_t lks__now_ns(void);

static inline double lks__seconds_since(int64_t start_ns)
{
    return (double)(lks__now_ns() - start_ns) * 1e-9;
}

/** Cores that this process may keep busy: affinity mask, and the cgroup's quota rounded up; at least 1. */
int lks__usable_cores(void);

/** The largest resident size that this process has had. */
int64_t lks__peak_memory_bytes(void);

#endif
