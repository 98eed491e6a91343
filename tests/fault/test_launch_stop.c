/* SPDX-License-Identifier: Apache-2.0 */
/* How a launch is stopped: signals, their echoes, and the deaths that come of them. */
#define _GNU_SOURCE /* posix_openpt and its kin */

#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "launched_program.h"
#include "launcher_process.h"

static const int stop_signals[] = {SIGINT, SIGTERM, SIGHUP};

static void a_signal_is_passed_on(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        launcher l;
        start(&l, 3, false, "wait", NULL);
        wait_for_reports(&l, 3);
        CHECK_INT(kill(l.pid, stop_signals[i]), 0);
        CHECK_INT(finish(&l), 128 + stop_signals[i]);
        assert_string_equal(l.error_text, "");
    }
}

/* Until the next signal is a second request. */
static void wait_out_echoes(void)
{
    const struct timespec time = {.tv_nsec = LKS__STOP_ECHO_NS};
    nanosleep(&time, NULL);
}

static void a_gentle_stop_is_one_sigterm(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        launcher l;
        start(&l, 2, true, "gentle 143 143", NULL);
        wait_for_reports(&l, 2);
        CHECK_INT(kill(l.pid, stop_signals[i]), 0);
        CHECK_INT(finish(&l), 128 + stop_signals[i]);
        assert_string_equal(l.error_text,
                            "lockstep: stopping when no step is under way; press Ctrl-C again to kill\n");
        for (int rank = 0; rank < 2; rank++) {
            int pid;
            char text[100];
            get_report(&l, rank, 1, &pid, text, sizeof text);
            assert_string_equal(text, "signal 15");
        }
        CHECK_INT(n_lines(l.report_text), 4);
    }
}

/* It came after the last step: the program has done all it had to. */
static void a_run_that_is_whole_was_not_stopped(void **state)
{
    (void)state;
    launcher l;
    start(&l, 2, true, "gentle 0 0", NULL);
    wait_for_reports(&l, 2);
    CHECK_INT(kill(l.pid, SIGTERM), 0);
    CHECK_INT(finish(&l), 0);
}

/* Two signals at once are one request: the processes, which won't end by themselves, live on. */
static void an_echo_does_not_kill(void **state)
{
    (void)state;
    launcher l;
    int status;
    start(&l, 2, true, "stubborn", NULL);
    wait_for_reports(&l, 2);
    CHECK_INT(kill(l.pid, SIGSTOP), 0);
    CHECK_INT(waitpid(l.pid, &status, WUNTRACED), l.pid);
    CHECK_INT(kill(l.pid, SIGHUP), 0);
    CHECK_INT(kill(l.pid, SIGTERM), 0);
    CHECK_INT(kill(l.pid, SIGCONT), 0);
    struct pollfd ended = {.fd = l.reports, .events = POLLIN};
    CHECK_INT(poll(&ended, 1, 200), 0);
    wait_out_echoes();
    CHECK_INT(kill(l.pid, SIGTERM), 0);
    CHECK_INT(finish(&l), 128 + SIGHUP);
    CHECK_INT(n_lines(l.error_text), 1);
}

static void a_second_signal_kills(void **state)
{
    (void)state;
    launcher l;
    start(&l, 2, true, "stubborn", NULL);
    wait_for_reports(&l, 2);
    CHECK_INT(kill(l.pid, SIGINT), 0);
    while (n_lines(l.error_text) < 1) /* else the two could be one */
        assert_true(read_more(l.errors, l.error_text));
    wait_out_echoes();
    CHECK_INT(kill(l.pid, SIGINT), 0);
    CHECK_INT(finish(&l), 128 + SIGINT);
    CHECK_INT(n_lines(l.error_text), 1);
}

static void a_young_process_may_die_of_a_gentle_stop(void **state)
{
    (void)state;
    launcher l;
    start(&l, 3, true, "wait", NULL);
    wait_for_reports(&l, 3);
    CHECK_INT(kill(l.pid, SIGINT), 0);
    CHECK_INT(finish(&l), 128 + SIGINT);
    CHECK_INT(n_lines(l.error_text), 1);
}

static void a_failure_while_stopping_is_told(void **state)
{
    (void)state;
    launcher l;
    start(&l, 2, true, "gentle 143 5", NULL);
    wait_for_reports(&l, 2);
    CHECK_INT(kill(l.pid, SIGINT), 0);
    CHECK_INT(finish(&l), 1);
    check_text(l.error_text, "lockstep: rank 1 (process ");
    check_text(l.error_text, "ended with exit code 5\n");
}

static void ignore_hangup(void)
{
    signal(SIGHUP, SIG_IGN);
}

static void what_nohup_has_switched_off_stays_off(void **state)
{
    (void)state;
    launcher l;
    start(&l, 2, false, "wait", ignore_hangup);
    wait_for_reports(&l, 2);
    CHECK_INT(kill(l.pid, SIGHUP), 0);
    CHECK_INT(kill(l.pid, SIGTERM), 0); /* a higher number: were both pending, SIGHUP would come first */
    CHECK_INT(finish(&l), 128 + SIGTERM);
}

static void a_stopped_launcher_goes_on(void **state)
{
    (void)state;
    launcher l;
    int status;
    start(&l, 2, false, "wait", NULL);
    wait_for_reports(&l, 2);
    CHECK_INT(kill(l.pid, SIGSTOP), 0);
    CHECK_INT(waitpid(l.pid, &status, WUNTRACED), l.pid);
    assert_true(WIFSTOPPED(status));
    CHECK_INT(kill(l.pid, SIGCONT), 0);
    CHECK_INT(waitpid(l.pid, &status, WCONTINUED), l.pid);
    CHECK_INT(kill(l.pid, SIGTERM), 0);
    CHECK_INT(finish(&l), 128 + SIGTERM);
    assert_string_equal(l.error_text, "");
}

static void a_killed_launcher_leaves_no_process(void **state)
{
    (void)state;
    launcher l;
    start(&l, 8, true, "stubborn", NULL);
    wait_for_reports(&l, 8);
    CHECK_INT(kill(l.pid, SIGKILL), 0);
    CHECK_INT(finish(&l), -SIGKILL);
}

static int terminal = -1;

/* Makes the launcher's process the foreground of a terminal of its own. */
static void enter_terminal(void)
{
    if (setsid() < 0 || open(ptsname(terminal), O_RDWR) < 0) /* the first one opened is its terminal */
        _exit(98);
}

/* The terminal's Ctrl-C reaches the foreground group by itself, so the launcher does not send it once more.
 * To be seen in a process that has left the group: two SIGINTs at once can't be told from one. */
static void ctrl_c_is_not_sent_twice(void **state)
{
    (void)state;
    launcher l;
    terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
    start(&l, 1, false, "listen", enter_terminal);
    wait_for_reports(&l, 1);
    CHECK_INT(write(terminal, "\x03", 1), 1);
    CHECK_INT(finish(&l), 0);
    check_text(l.report_text, "left in peace\n");
    close(terminal);

    start(&l, 1, false, "listen", NULL);
    wait_for_reports(&l, 1);
    CHECK_INT(kill(l.pid, SIGINT), 0);
    CHECK_INT(finish(&l), 0);
    check_text(l.report_text, "interrupted\n");
}

/* Whenever it comes, a signal to the launcher ends all. Before the launcher waits for it, it dies by it. */
static void signals_at_random_moments_leave_no_process(void **state)
{
    (void)state;
    enum { ROUNDS = 60, LONGEST_NS = 12000000 }; /* starting four processes takes a few milliseconds */
    static const int signals[] = {SIGKILL, SIGTERM, SIGINT};
    uint32_t random = 1; /* a linear congruential generator (Numerical Recipes) */
    for (int round = 0; round < ROUNDS; round++) {
        launcher l;
        int signal = signals[round % 3];
        random = random * 1664525u + 1013904223u;
        struct timespec moment = {.tv_nsec = (random >> 4) % LONGEST_NS};
        start(&l, 4, round % 2, "wait", NULL);
        nanosleep(&moment, NULL);
        CHECK_INT(kill(l.pid, signal), 0);
        int result = finish(&l);
        if (result != -signal && (signal == SIGKILL || result != 128 + signal))
            fail_msg("round %d: signal %d gave %d, \"%s\"", round, signal, result, l.error_text);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return launched_program(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_signal_is_passed_on),
        cmocka_unit_test(a_gentle_stop_is_one_sigterm),
        cmocka_unit_test(a_run_that_is_whole_was_not_stopped),
        cmocka_unit_test(an_echo_does_not_kill),
        cmocka_unit_test(a_second_signal_kills),
        cmocka_unit_test(a_young_process_may_die_of_a_gentle_stop),
        cmocka_unit_test(a_failure_while_stopping_is_told),
        cmocka_unit_test(what_nohup_has_switched_off_stays_off),
        cmocka_unit_test(a_stopped_launcher_goes_on),
        cmocka_unit_test(a_killed_launcher_leaves_no_process),
        cmocka_unit_test(ctrl_c_is_not_sent_twice),
        cmocka_unit_test(signals_at_random_moments_leave_no_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
