/* SPDX-License-Identifier: Apache-2.0 */
/** Gives each process of a launch cores of its own, when there are enough. */
#ifndef LKS_LAUNCH_PIN_H
#define LKS_LAUNCH_PIN_H

#include <stdbool.h>

#include <hwloc.h>

#include "launch/launch.h"

/** Where each process goes. {0}: nobody is pinned. */
typedef struct lks__pins {
    hwloc_topology_t topology; /* NULL: nobody is pinned */
    int n;
    hwloc_cpuset_t *sets; /* [n], by rank: no core is in two of them */
} lks__pins;

/** Chooses cores_each whole cores for each of n processes, as far from those of the others as they can be:
 * other packages before other caches (hwloc_distrib). Ranks that follow each other are neighbours.
 * topology: holds what may be used and nothing else. out: [n], which the caller frees with hwloc_bitmap_free.
 * Returns false when there are too few cores, or too little memory; then out holds nothing. */
bool lks__pins_spread(hwloc_topology_t topology, int n, int cores_each, hwloc_cpuset_t *out);

/** The same for this machine and the launch's processes: what this process's affinity mask allows. Nobody is
 * pinned when there is but one process, or when the processes need more cores than the mask has, or the
 * cgroup's quota pays for. */
void lks__pins_init(const lks__launch_config *config, lks__pins *out);

void lks__pins_deinit(lks__pins *pins);

/** Called by the new process: moves it to its cores. Returns false with errno. */
bool lks__pins_apply(const lks__pins *pins, int rank);

#endif
