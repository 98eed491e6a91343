/* SPDX-License-Identifier: Apache-2.0 */
/** The machine: its clock, its cores, this process's memory. */
#ifndef LKS_BASE_MACHINE_H
#define LKS_BASE_MACHINE_H

#include <stdint.h>
#include <sys/types.h>

/** Nanoseconds of the monotonic clock. */
int64_t lks__now_ns(void);

static inline double lks__seconds_since(int64_t start_ns)
{
    return (double)(lks__now_ns() - start_ns) * 1e-9;
}

/** Cores that this process may keep busy: affinity mask, and the cgroup's quota rounded up; at least 1. */
int lks__usable_cores(void);

/** Set by a launcher that gave each process of a launch cores of its own: how many processes these are. Each
 * sees its own cores only, and so knows that the others have theirs. */
#define LKS__PINNED_VARIABLE "LOCKSTEP_PINNED"

/** Cores that the members of a group on this machine may keep busy together, of which this process is one. */
int lks__group_cores(void);

/** Cores that these processes may keep busy together: all that any of them may use, and this one's cgroup's
 * quota. A launcher may have given each its own (mpirun does), so that none knows of the others'. */
int lks__cores_of(int n, const pid_t *pids);

/** The memory and swap space that processes here can have at most: the machine's, or what a cgroup allows;
 * INT64_MAX when nobody says. */
int64_t lks__machine_memory_bytes(void);

/** The largest resident size that this process has had. */
int64_t lks__peak_memory_bytes(void);

#endif
