/* SPDX-License-Identifier: Apache-2.0 */
/* Which cores processes get: on machines that are made up, and on this one. */
#define _GNU_SOURCE /* sched_setaffinity, CPU_COUNT */

#include "check.h"

#include <sched.h>
#include <stdlib.h>

#include "base/machine.h"
#include "launch/pin.h"
#include "launched_program.h"
#include "launcher_process.h"

enum { MOST = 16 };

/* machine: as hwloc's synthetic descriptions say; allowed: which of its processing units, NULL: all;
 * expected: the processes' units, one process after the other, "": too few cores. */
static void check_spread(const char *machine, const char *allowed, int n, int cores_each,
                         const char *expected)
{
    hwloc_topology_t topology;
    CHECK_INT(hwloc_topology_init(&topology), 0);
    CHECK_INT(hwloc_topology_set_synthetic(topology, machine), 0);
    CHECK_INT(hwloc_topology_load(topology), 0);
    if (allowed != NULL) {
        hwloc_cpuset_t mask = hwloc_bitmap_alloc();
        CHECK_INT(hwloc_bitmap_list_sscanf(mask, allowed), 0);
        CHECK_INT(hwloc_topology_restrict(topology, mask, 0), 0);
        hwloc_bitmap_free(mask);
    }

    hwloc_cpuset_t sets[MOST] = {NULL};
    char text[300] = "";
    if (lks__pins_spread(topology, n, cores_each, sets))
        for (int i = 0; i < n; i++) {
            size_t length = strlen(text);
            if (i > 0)
                text[length++] = ' ';
            hwloc_bitmap_list_snprintf(text + length, sizeof text - length, sets[i]);
            hwloc_bitmap_free(sets[i]);
        }
    if (strcmp(text, expected) != 0)
        fail_msg("%s of %s, %d x %d: \"%s\", not \"%s\"", allowed ? allowed : "all", machine, n, cores_each,
                 text, expected);
    hwloc_topology_destroy(topology);
}

/* Numbers of units count through the machine: with 2 packages of 4 cores of 2 units, core c has 2c and 2c +
 * 1, and the second package begins with unit 8. */
static void processes_are_spread_over_cores(void **state)
{
    (void)state;
    const char *big = "package:2 core:4 pu:2", *one = "core:4 pu:1";
    check_spread(one, NULL, 1, 1, "0");
    check_spread(one, NULL, 2, 1, "0 2");
    check_spread(one, NULL, 4, 1, "0 1 2 3");
    check_spread(one, NULL, 5, 1, "");
    check_spread(one, NULL, 2, 2, "0-1 2-3");
    check_spread(one, NULL, 2, 3, "");
    check_spread(one, NULL, 1, INT32_MAX, "");
    check_spread(big, NULL, 2, 1, "0-1 8-9");
    check_spread(big, NULL, 2, 4, "0-7 8-15");
    check_spread(big, NULL, 4, 1, "0-1 4-5 8-9 12-13");
    check_spread(big, NULL, 8, 1, "0-1 2-3 4-5 6-7 8-9 10-11 12-13 14-15");
    check_spread(big, NULL, 9, 1, ""); /* two units of one core are no two cores */
    /* what the mask leaves out is not given to anybody */
    check_spread(big, "0-3", 2, 1, "0-1 2-3");
    check_spread(big, "0-2", 2, 1, "0-1 2"); /* by weight alone both would get the first core */
    check_spread(big, "2,5,8-9", 3, 1, "2 5 8-9");
    check_spread(big, "2,5,8-9", 4, 1, "");
}

/* The units of a report. */
static void read_cores(const launcher *l, int rank, cpu_set_t *out)
{
    int pid, end;
    size_t cpu;
    char text[400];
    get_report(l, rank, 1, &pid, text, sizeof text);
    CPU_ZERO(out);
    const char *at = strstr(text, "cores") + strlen("cores");
    for (; sscanf(at, "%zu%n", &cpu, &end) == 1; at += end)
        CPU_SET(cpu, out);
}

static void launch(launcher *l, int n, lks__pin pin, int threads, prepare_fn *prepare)
{
    const char *const argv[] = {"/proc/self/exe", "cores", NULL};
    const lks__launch_config config = {.processes = n, .argv = argv, .pin = pin, .threads = threads};
    start_config(l, &config, prepare);
    CHECK_INT(finish(l), 0);
    assert_string_equal(l->error_text, "");
}

static int n_cores(void)
{
    lks__pins pins;
    int n = 1;
    for (; n < MOST; n++) {
        const lks__launch_config config = {.processes = n + 1, .pin = LKS__PIN_CORES, .threads = 1};
        lks__pins_init(&config, &pins);
        bool pinned = pins.topology != NULL;
        lks__pins_deinit(&pins);
        if (!pinned)
            return n;
    }
    return n;
}

static void check_pinned(const launcher *l, int n)
{
    cpu_set_t own, all, seen, shared;
    char expected[40];
    CHECK_INT(sched_getaffinity(0, sizeof own, &own), 0);
    CPU_ZERO(&all);
    for (int rank = 0; rank < n; rank++) {
        read_cores(l, rank, &seen);
        assert_true(CPU_COUNT(&seen) > 0);
        CPU_AND(&shared, &seen, &all);
        CHECK_INT(CPU_COUNT(&shared), 0);
        CPU_OR(&all, &all, &seen);
    }
    CPU_AND(&shared, &all, &own);
    assert_true(CPU_EQUAL(&shared, &all)); /* nothing that was not allowed */
    snprintf(expected, sizeof expected, "LOCKSTEP_PINNED=%d ", n);
    check_text(l->report_text, expected);
}

static void check_not_pinned(const launcher *l, int n)
{
    cpu_set_t own, seen;
    CHECK_INT(sched_getaffinity(0, sizeof own, &own), 0);
    for (int rank = 0; rank < n; rank++) {
        read_cores(l, rank, &seen);
        assert_true(CPU_EQUAL(&seen, &own));
    }
    check_text(l->report_text, "LOCKSTEP_PINNED=(unset) ");
}

static void set_pinned(void)
{
    unsetenv("OMP_NUM_THREADS");
    setenv("LOCKSTEP_PINNED", "77", 1);
}

static void set_many_threads(void)
{
    setenv("OMP_NUM_THREADS", "100000,2", 1);
}

static void set_synthetic_machine(void)
{
    unsetenv("OMP_NUM_THREADS");
    setenv("HWLOC_SYNTHETIC", "core:2 pu:1", 1);
}

static void pinned_processes_share_no_core(void **state)
{
    (void)state;
    launcher l;
    int n = n_cores();
    if (n < 2)
        skip(); /* this process may use but one core */
    launch(&l, n, LKS__PIN_CORES, 1, set_pinned);
    check_pinned(&l, n);
    launch(&l, 2, LKS__PIN_CORES, 0, set_pinned);
    check_pinned(&l, 2);
    launch(&l, 2, LKS__PIN_PARTS, 1, set_pinned);
    check_pinned(&l, 2);
}

static void processes_are_pinned_only_when_all_have_a_core(void **state)
{
    (void)state;
    launcher l;
    int n = n_cores();
    launch(&l, n + 1, LKS__PIN_CORES, 1, set_pinned);
    check_not_pinned(&l, n + 1);
    launch(&l, 2, LKS__PIN_CORES, n, set_pinned);
    check_not_pinned(&l, 2);
    launch(&l, 2, LKS__PIN_CORES, 0, set_many_threads);
    check_not_pinned(&l, 2);
    launch(&l, 2, LKS__PIN_NOT, 1, set_pinned);
    check_not_pinned(&l, 2);
    launch(&l, 1, LKS__PIN_CORES, 1, set_pinned);
    check_not_pinned(&l, 1);
    launch(&l, 2, LKS__PIN_CORES, 1, set_synthetic_machine);
    check_not_pinned(&l, 2);
}

/* With one unit of the mask left there are too few cores for two, whatever the machine has. */
static void the_affinity_mask_counts(void **state)
{
    (void)state;
    cpu_set_t own, one;
    launcher l;
    CHECK_INT(sched_getaffinity(0, sizeof own, &own), 0);
    CPU_ZERO(&one);
    for (size_t cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &own))
            CPU_SET(cpu, &one);
    CHECK_INT(sched_setaffinity(0, sizeof one, &one), 0);
    launch(&l, 2, LKS__PIN_CORES, 1, set_pinned);
    check_not_pinned(&l, 2);
    CHECK_INT(sched_setaffinity(0, sizeof own, &own), 0);
}

/* Members spin while they wait only when there is a core for each: a pinned one sees its own alone. */
static void a_pinned_process_knows_that_the_others_have_cores(void **state)
{
    (void)state;
    unsetenv(LKS__PINNED_VARIABLE);
    CHECK_INT(lks__group_cores(), lks__usable_cores());
    setenv(LKS__PINNED_VARIABLE, "1000", 1);
    CHECK_INT(lks__group_cores(), 1000);
    setenv(LKS__PINNED_VARIABLE, "x", 1);
    CHECK_INT(lks__group_cores(), lks__usable_cores());
    unsetenv(LKS__PINNED_VARIABLE);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return launched_program(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processes_are_spread_over_cores),
        cmocka_unit_test(pinned_processes_share_no_core),
        cmocka_unit_test(processes_are_pinned_only_when_all_have_a_core),
        cmocka_unit_test(the_affinity_mask_counts),
        cmocka_unit_test(a_pinned_process_knows_that_the_others_have_cores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
