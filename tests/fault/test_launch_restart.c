/* SPDX-License-Identifier: Apache-2.0 */
/* Launches that start their processes again: after which ends, how often, and that a signal ends that too. */
#include "check.h"

#include <signal.h>
#include <time.h>

#include "launched_program.h"
#include "launcher_process.h"

static int n_restarts(const launcher *l)
{
    int n = 0;
    for (const char *at = l->error_text; (at = strstr(at, "restart ")) != NULL; at++)
        n++;
    return n;
}

/* Rank 0's reports say which try it was, and on how many processes, one fewer each time. */
static void check_tries(const launcher *l, bool gently, int processes, int max_restarts, int n)
{
    char started[32] = "(unset)";
    if (gently)
        snprintf(started, sizeof started, "%d", STARTED_NS);
    for (int i = 0; i < n; i++) {
        int pid;
        char text[100], expected[100];
        get_report(l, 0, i, &pid, text, sizeof text);
        snprintf(expected, sizeof expected, "try %d of %d and %d of %d on %d, called at %s", i, max_restarts,
                 i, max_restarts, processes - i, started);
        assert_string_equal(text, expected);
    }
    CHECK_INT(n_restarts(l), n - 1);
}

static void a_failed_launch_starts_again_until_it_is_well(void **state)
{
    (void)state;
    launcher l;
    for (int gently = 0; gently < 2; gently++) {
        start_again(&l, 3, gently, "tries -9 3 0", 5);
        CHECK_INT(finish(&l), 0);
        check_tries(&l, gently, 3, 5, 3);
        check_text(l.error_text, ") was killed by signal 9 (SIGKILL)\nrestart 1\n");
        check_text(l.error_text, ") ended with exit code 3\nrestart 2\n");
    }
}

static void restarts_come_to_an_end(void **state)
{
    (void)state;
    launcher l;
    start_again(&l, 3, true, "tries -9 -9 -6", 2);
    CHECK_INT(finish(&l), 1);
    check_tries(&l, true, 3, 2, 3);
    check_text(l.error_text, ") was killed by signal 6 (SIGABRT)\n");
    start_again(&l, 1, true, "tries -9 0", 0);
    CHECK_INT(finish(&l), 1);
    check_tries(&l, true, 1, 0, 1);
}

static void only_what_may_get_better_is_tried_again(void **state)
{
    (void)state;
    static const struct {
        int n;
        bool gently;
        const char *way;
        int exit_code, n_restarts;
    } rows[] = {
        {2, true, "exit 0 0", 0, 0},       {2, true, "exit 2 2", 2, 0},   {1, true, "exit 2", 2, 0},
        {2, true, "tries 2", 1, 0},        {2, true, "exit 90 90", 1, 0}, {2, true, "exit 90 1", 1, 0},
        {2, true, "exit 143 143", 143, 0}, {2, true, "exit 1 1", 1, 1},   {1, true, "exit 1", 1, 1},
        {2, false, "exit 90 90", 90, 1},   {2, false, "exit 2 2", 2, 0},  {2, true, "exit 0 1", 0, 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        launcher l;
        start_again(&l, rows[i].n, rows[i].gently, rows[i].way, 1);
        int exit_code = finish(&l);
        if (exit_code != rows[i].exit_code || n_restarts(&l) != rows[i].n_restarts)
            fail_msg("%s: exit code %d, \"%s\"", rows[i].way, exit_code, l.error_text);
    }
}

/* Processes that fail over and over. A signal that comes while those of a failed try are ended leaves it at
 * that failure. */
static void a_signal_ends_restarts_too(void **state)
{
    (void)state;
    enum { ROUNDS = 30, LONGEST_NS = 30000000 }; /* a try takes a few milliseconds */
    static const int signals[] = {SIGTERM, SIGINT, SIGKILL};
    uint32_t random = 7; /* a linear congruential generator (Numerical Recipes) */
    for (int round = 0; round < ROUNDS; round++) {
        launcher l;
        int signal = signals[round % 3];
        random = random * 1664525u + 1013904223u;
        struct timespec moment = {.tv_nsec = (random >> 4) % LONGEST_NS};
        start_again(&l, 2, round % 2, "fail 0 -9", 1000000);
        nanosleep(&moment, NULL);
        CHECK_INT(kill(l.pid, signal), 0);
        int result = finish(&l);
        if (result != -signal && (signal == SIGKILL || (result != 128 + signal && result != 1)))
            fail_msg("round %d: signal %d gave %d, \"%s\"", round, signal, result, l.error_text);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return launched_program(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_launch_starts_again_until_it_is_well),
        cmocka_unit_test(restarts_come_to_an_end),
        cmocka_unit_test(only_what_may_get_better_is_tried_again),
        cmocka_unit_test(a_signal_ends_restarts_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
