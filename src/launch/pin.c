/* SPDX-License-Identifier: Apache-2.0 */
#include "launch/pin.h"

#include <limits.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/machine.h"

/* The core of a processing unit; the unit itself where the machine does not tell its cores. */
static hwloc_obj_t core_of(hwloc_topology_t topology, int pu)
{
    hwloc_obj_t unit = hwloc_get_pu_obj_by_os_index(topology, (unsigned)pu);
    hwloc_obj_t core = unit ? hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_CORE, unit) : NULL;
    return core ? core : unit;
}

/* A copy in which each core has one processing unit: cores weigh the same then, also those of which a part
 * may be used, and hwloc_distrib, which goes by weight, never puts two on one core: with n items on a tree of
 * T cores, a part of w cores that follows others of g gets ceil((g + w) n / T) - ceil(g n / T) <= w of them
 * as long as n <= T. NULL: no memory. */
static hwloc_topology_t with_plain_cores(hwloc_topology_t topology)
{
    hwloc_topology_t plain = NULL;
    hwloc_cpuset_t units = hwloc_bitmap_dup(hwloc_topology_get_topology_cpuset(topology));
    bool made = units != NULL && hwloc_bitmap_singlify_per_core(topology, units, 0) == 0 &&
                hwloc_topology_dup(&plain, topology) == 0;
    if (made && hwloc_topology_restrict(plain, units, 0) != 0) {
        hwloc_topology_destroy(plain);
        plain = NULL;
    }
    hwloc_bitmap_free(units);
    return made ? plain : NULL;
}

static void free_sets(int n, hwloc_cpuset_t *sets)
{
    for (int i = 0; i < n; i++) {
        hwloc_bitmap_free(sets[i]);
        sets[i] = NULL;
    }
}

/* parts: [n * cores_each], sets within which one core is taken each. */
static bool join_cores(hwloc_topology_t topology, int n, int cores_each, const hwloc_cpuset_t *parts,
                       hwloc_cpuset_t *out)
{
    bool whole = true;
    for (int i = 0; i < n; i++) {
        out[i] = hwloc_bitmap_alloc();
        for (int c = 0; c < cores_each; c++) {
            hwloc_cpuset_t part = parts[i * cores_each + c];
            hwloc_obj_t core = part ? core_of(topology, hwloc_bitmap_first(part)) : NULL;
            whole = whole && out[i] != NULL && core != NULL &&
                    hwloc_bitmap_or(out[i], out[i], core->cpuset) == 0;
        }
    }
    if (!whole)
        free_sets(n, out);
    return whole;
}

bool lks__pins_spread(hwloc_topology_t topology, int n, int cores_each, hwloc_cpuset_t *out)
{
    hwloc_topology_t plain = with_plain_cores(topology);
    if (plain == NULL)
        return false;
    bool spread = false;
    int n_cores = hwloc_get_nbobjs_by_type(plain, HWLOC_OBJ_PU);
    if (cores_each <= n_cores && n <= n_cores / cores_each) {
        int n_parts = n * cores_each;
        hwloc_obj_t root = hwloc_get_root_obj(plain);
        hwloc_cpuset_t *parts = lks__alloc_array(n_parts, sizeof(hwloc_cpuset_t), LKS__MEM_MISC);
        if (parts != NULL && hwloc_distrib(plain, &root, 1, parts, (unsigned)n_parts, INT_MAX, 0) == 0) {
            spread = join_cores(topology, n, cores_each, parts, out);
            free_sets(n_parts, parts);
        }
        lks__free(parts);
    }
    hwloc_topology_destroy(plain);
    return spread;
}

/* What this process may use of this machine; NULL: that can't be told. */
static hwloc_topology_t load_topology(void)
{
    hwloc_topology_t topology;
    hwloc_cpuset_t mask = hwloc_bitmap_alloc();
    if (mask == NULL || hwloc_topology_init(&topology) != 0) {
        hwloc_bitmap_free(mask);
        return NULL;
    }
    /* HWLOC_SYNTHETIC and its kin describe another machine */
    bool usable = hwloc_topology_load(topology) == 0 && hwloc_topology_is_thissystem(topology) == 1 &&
                  hwloc_get_cpubind(topology, mask, HWLOC_CPUBIND_THREAD) == 0 &&
                  hwloc_topology_restrict(topology, mask, 0) == 0;
    hwloc_bitmap_free(mask);
    if (usable)
        return topology;
    hwloc_topology_destroy(topology);
    return NULL;
}

/* The threads that keep a core busy in each process: when the launch does not say, the first number of
 * OMP_NUM_THREADS, which may list one for each level of nesting; 1 when it is not set, as the launcher then
 * sets it. */
static int busy_threads(const lks__launch_config *config)
{
    const char *variable = getenv("OMP_NUM_THREADS");
    long n = config->threads;
    if (n == 0 && variable != NULL)
        n = strtol(variable, NULL, 10);
    return n >= 1 && n <= INT_MAX ? (int)n : 1;
}

void lks__pins_init(const lks__launch_config *config, lks__pins *out)
{
    *out = (lks__pins){0};
    int n = config->processes, cores_each = busy_threads(config);
    if (config->pin == LKS__PIN_NOT || n < 2 || n > lks__usable_cores() / cores_each)
        return;
    lks__pins pins = {.n = n, .topology = load_topology()};
    if (pins.topology == NULL)
        return;
    int n_cores = hwloc_get_nbobjs_by_type(pins.topology, HWLOC_OBJ_CORE);
    if (config->pin == LKS__PIN_PARTS && n_cores / n > cores_each)
        cores_each = n_cores / n;
    pins.sets = lks__alloc_array(n, sizeof(hwloc_cpuset_t), LKS__MEM_MISC);
    if (pins.sets != NULL && lks__pins_spread(pins.topology, n, cores_each, pins.sets))
        *out = pins;
    else
        lks__pins_deinit(&pins);
}

void lks__pins_deinit(lks__pins *pins)
{
    if (pins->sets != NULL)
        free_sets(pins->n, pins->sets);
    lks__free(pins->sets);
    if (pins->topology != NULL)
        hwloc_topology_destroy(pins->topology);
    *pins = (lks__pins){0};
}

bool lks__pins_apply(const lks__pins *pins, int rank)
{
    return pins->topology == NULL ||
           hwloc_set_cpubind(pins->topology, pins->sets[rank], HWLOC_CPUBIND_THREAD) == 0;
}
