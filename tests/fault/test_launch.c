/* SPDX-License-Identifier: Apache-2.0 */
/* Starting processes, what they get, and how failures are told. */
#include "check.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launched_program.h"
#include "launcher_process.h"

static bool is_free_port(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool bound = bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return bound;
}

static void set_odd_environment(void)
{
    unsetenv("OMP_NUM_THREADS");
    setenv("WORLD_SIZE", "77", 1);
    setenv("MASTER_PORT", "x", 1);
    setenv("LOCKSTEP_STOP", "x", 1);
    signal(SIGCHLD, SIG_IGN); /* some parents do; children are waited for all the same */
}

static void check_variables(bool gently)
{
    enum { N = 3 };
    launcher l;
    start(&l, N, gently, "variables", set_odd_environment);
    CHECK_INT(finish(&l), 0);
    assert_string_equal(l.error_text, "");
    CHECK_INT(n_lines(l.report_text), 2 * N);

    int port = 0;
    unsigned long long inode = 0;
    for (int rank = 0; rank < N; rank++) {
        int pid, its_port;
        unsigned long long its_inode;
        char text[400], expected[400];
        get_report(&l, rank, 1, &pid, text, sizeof text);
        CHECK_INT(sscanf(strstr(text, "MASTER_PORT"), "MASTER_PORT=%d", &its_port), 1);
        CHECK_INT(sscanf(strstr(text, "inode"), "inode=%llu", &its_inode), 1);
        snprintf(expected, sizeof expected,
                 "WORLD_SIZE=3 LOCAL_RANK=%d LOCAL_WORLD_SIZE=3 MASTER_ADDR=127.0.0.1 MASTER_PORT=%d "
                 "OMP_NUM_THREADS=1 LOCKSTEP_STOP=%s memory=/memfd: inode=%llu bytes=0 blocked=0 "
                 "child_ignored=1",
                 rank, its_port, gently ? "gentle" : "(unset)", its_inode);
        assert_string_equal(text, expected);
        port = rank == 0 ? its_port : port;
        inode = rank == 0 ? its_inode : inode;
        CHECK_INT(its_port, port);
        assert_true(its_inode == inode);
    }
    assert_true(is_free_port(port));
}

static void each_process_gets_its_variables(void **state)
{
    (void)state;
    check_variables(false);
    check_variables(true);
}

static void set_agent_store(void)
{
    setenv("TORCHELASTIC_USE_AGENT_STORE", "True", 1); /* there is none here: rank 0 would wait for it */
    setenv("TORCHELASTIC_RUN_ID", "x", 1);
}

/* What else programs for torchrun read. The number of the run is the same for all processes, and another one
 * the next time. */
static void programs_for_torchrun_find_their_variables(void **state)
{
    (void)state;
    char ids[2][64] = {"", ""};
    for (int round = 0; round < 2; round++) {
        launcher l;
        start(&l, 2, false, "torchrun", set_agent_store);
        CHECK_INT(finish(&l), 0);
        for (int rank = 0; rank < 2; rank++) {
            int pid;
            char text[400], expected[400];
            get_report(&l, rank, 1, &pid, text, sizeof text);
            if (rank == 0)
                CHECK_INT(sscanf(strstr(text, "RUN_ID="), "RUN_ID=%63s", ids[round]), 1);
            snprintf(expected, sizeof expected,
                     "ROLE_RANK=%d ROLE_WORLD_SIZE=2 ROLE_NAME=default GROUP_RANK=0 GROUP_WORLD_SIZE=1 "
                     "TORCHELASTIC_USE_AGENT_STORE=(unset) TORCHELASTIC_RUN_ID=%s",
                     rank, ids[round]);
            assert_string_equal(text, expected);
        }
    }
    assert_string_not_equal(ids[0], ids[1]);
}

static void set_threads(void)
{
    setenv("OMP_NUM_THREADS", "5", 1);
}

static void a_given_number_of_threads_stays(void **state)
{
    (void)state;
    launcher l;
    start(&l, 1, false, "variables", set_threads);
    CHECK_INT(finish(&l), 0);
    check_text(l.report_text, "OMP_NUM_THREADS=5");
}

static void exit_codes_are_told(void **state)
{
    (void)state;
    static const struct {
        int n;
        const char *way;
        int exit_code;
        const char *end_of_message; /* NULL: nothing is said */
    } rows[] = {
        {1, "exit 0", 0, NULL},
        {3, "exit 0 0 0", 0, NULL},
        {1, "exit 2", 2, NULL},
        {3, "exit 2 2 2", 2, NULL},
        {3, "exit 7 7 7", 7, NULL},
        {3, "exit 143 143 143", 143, NULL},
        {1, "exit 1", 1, NULL},
        {2, "exit 1 3", 1, "\n"},
        {2, "exit 0 3", 1, "ended with exit code 3\n"},
        {2, "exit 2 0", 1, "ended with exit code 2\n"},
        {2, "exit 143 0", 1, "ended with exit code 143\n"},
        {2, "exit 90 90", 1, NULL}, /* a failure that would come again, when it stops gently */
        {2, "exit 90 90", 90, NULL},
        {2, "exit 90 1", 1, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        launcher l;
        start(&l, rows[i].n, i % 2, rows[i].way, NULL);
        CHECK_INT(finish(&l), rows[i].exit_code);
        if (rows[i].end_of_message == NULL)
            assert_string_equal(l.error_text, "");
        else
            check_text(l.error_text, rows[i].end_of_message);
        CHECK_INT(n_lines(l.error_text), rows[i].end_of_message != NULL);
    }
}

/* Rank 1 of 3 fails, the others wait: they are ended, and only rank 1 is named. */
static void check_failure(const char *way, const char *message)
{
    launcher l;
    start(&l, 3, false, way, NULL);
    CHECK_INT(finish(&l), 1);
    CHECK_INT(n_lines(l.error_text), 1);
    check_text(l.error_text, "lockstep: rank 1 (process ");
    check_text(l.error_text, message);
}

static void one_that_fails_ends_the_others(void **state)
{
    (void)state;
    check_failure("fail 1 3", ") ended with exit code 3\n"); /* after a while: others may fail alike */
    check_failure("fail 1 -9", ") was killed by signal 9 (SIGKILL)\n");
    check_failure("fail 1 -10", ") was killed by signal 10 (SIGUSR1)\n");
}

static void a_killed_process_is_named_with_its_number(void **state)
{
    (void)state;
    launcher l;
    int pid;
    char text[100], expected[100];
    start(&l, 4, true, "wait", NULL);
    wait_for_reports(&l, 4);
    get_report(&l, 2, 0, &pid, text, sizeof text);
    CHECK_INT(kill(pid, SIGKILL), 0);
    CHECK_INT(finish(&l), 1);
    snprintf(expected, sizeof expected, "lockstep: rank 2 (process %d) was killed by signal 9 (SIGKILL)\n",
             pid);
    assert_string_equal(l.error_text, expected);
}

/* Rank 0 fails because rank 1 was killed, and the launcher, stopped meanwhile, hears of both at once. */
static void of_failures_seen_together_a_signal_is_the_cause(void **state)
{
    (void)state;
    launcher l;
    int pids[2], status;
    char text[100];
    start(&l, 2, false, "gentle 1 1", NULL);
    wait_for_reports(&l, 2);
    for (int rank = 0; rank < 2; rank++)
        get_report(&l, rank, 0, &pids[rank], text, sizeof text);
    CHECK_INT(kill(l.pid, SIGSTOP), 0);
    CHECK_INT(waitpid(l.pid, &status, WUNTRACED), l.pid);
    end_process(pids[1], SIGKILL);
    end_process(pids[0], SIGTERM);
    CHECK_INT(kill(l.pid, SIGCONT), 0);
    CHECK_INT(finish(&l), 1);
    CHECK_INT(n_lines(l.error_text), 1);
    check_text(l.error_text, "lockstep: rank 1 (process ");
}

/* The one that is left may be the cause, so none of the others is named. */
static void failures_that_are_alike_name_nobody(void **state)
{
    (void)state;
    launcher l;
    int pids[3], status;
    char text[100];
    start(&l, 3, true, "gentle 1 1 1", NULL);
    wait_for_reports(&l, 3);
    for (int rank = 0; rank < 3; rank++)
        get_report(&l, rank, 0, &pids[rank], text, sizeof text);
    CHECK_INT(kill(pids[1], SIGSTOP), 0);
    CHECK_INT(kill(l.pid, SIGSTOP), 0); /* so that it sees both failures together */
    CHECK_INT(waitpid(l.pid, &status, WUNTRACED), l.pid);
    end_process(pids[0], SIGTERM);
    end_process(pids[2], SIGTERM);
    CHECK_INT(kill(l.pid, SIGCONT), 0);
    CHECK_INT(finish(&l), 1);
    assert_string_equal(l.error_text,
                        "lockstep: 2 of 3 processes ended with exit code 1; the others are ended\n");
}

static void a_stubborn_process_is_killed(void **state)
{
    (void)state;
    launcher l;
    for (int gently = 0; gently < 2; gently++) {
        int pid;
        char text[100];
        start(&l, 2, gently, "stubborn", NULL);
        wait_for_reports(&l, 2);
        get_report(&l, 0, 0, &pid, text, sizeof text);
        CHECK_INT(kill(pid, SIGKILL), 0);
        CHECK_INT(finish(&l), 1);
        CHECK_INT(n_lines(l.error_text), 1);
    }
    start(&l, 2, false, "stubborn", NULL);
    wait_for_reports(&l, 2);
    CHECK_INT(kill(l.pid, SIGHUP), 0);
    CHECK_INT(finish(&l), 128 + SIGHUP);
    assert_string_equal(l.error_text, "");
}

static void check_not_started(const char *program, int exit_code, const char *message)
{
    launcher l;
    const char *argv[] = {program, NULL};
    start_program(&l, 3, false, argv, NULL);
    CHECK_INT(finish(&l), exit_code);
    check_text(l.error_text, message);
    assert_null(strstr(l.error_text, "left"));
    assert_null(strstr(l.error_text, "hint"));
}

static void a_program_that_cannot_be_run_is_told(void **state)
{
    (void)state;
    check_not_started("no-such-program", 2,
                      "LKS_E_NOT_FOUND cannot run no-such-program: No such file or directory\n");
    check_not_started("/nowhere/x", 2, "LKS_E_NOT_FOUND cannot run /nowhere/x: No such file");
    check_not_started("/etc/passwd", 2, "LKS_E_NOT_FOUND cannot run /etc/passwd: Permission denied");
    check_not_started("tests", 2, "LKS_E_NOT_FOUND cannot run tests: No such file or directory\n");
}

static void arguments_are_checked(void **state)
{
    (void)state;
    int out = 7;
    const char *nothing[] = {NULL}, *program[] = {"true", NULL};
    const lks__launch_config none = {.processes = 0, .argv = program},
                             no_program = {.processes = 2, .argv = nothing};
    CHECK_FAILS(lks__launch(&none, &out), LKS_E_ARG, "0 processes");
    CHECK_FAILS(lks__launch(&no_program, &out), LKS_E_ARG, "no program");
    CHECK_INT(out, 7);
}

static void many_processes_start_and_end(void **state)
{
    (void)state;
    enum { N = 64 };
    launcher l;
    start(&l, N, false, "fail 40 3", NULL);
    CHECK_INT(finish(&l), 1);
    check_text(l.error_text, "lockstep: rank 40 (process ");
    start(&l, N, false, "wait", NULL);
    wait_for_reports(&l, N);
    CHECK_INT(kill(l.pid, SIGTERM), 0);
    CHECK_INT(finish(&l), 128 + SIGTERM);
    CHECK_INT(n_lines(l.report_text), N);
}

/* As another user where this one is root, whom the limit does not bind. */
static void limit_processes(void)
{
    const struct rlimit limit = {.rlim_cur = 10, .rlim_max = 10};
    bool ready = setrlimit(RLIMIT_NPROC, &limit) == 0 && (geteuid() != 0 || setuid(65534) == 0);
    if (!ready)
        _exit(98);
}

static void a_failed_start_leaves_nothing(void **state)
{
    (void)state;
    launcher l;
    const char *argv[] = {"sleep", "1000", NULL};
    start_program(&l, 64, false, argv, limit_processes);
    CHECK_INT(finish(&l), 1);
    check_text(l.error_text, "LKS_E_SYSTEM cannot start process ");
    check_text(l.error_text, " of 64: Resource temporarily unavailable");
    assert_null(strstr(l.error_text, "left"));
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return launched_program(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_process_gets_its_variables),
        cmocka_unit_test(programs_for_torchrun_find_their_variables),
        cmocka_unit_test(a_given_number_of_threads_stays),
        cmocka_unit_test(exit_codes_are_told),
        cmocka_unit_test(one_that_fails_ends_the_others),
        cmocka_unit_test(failures_that_are_alike_name_nobody),
        cmocka_unit_test(a_killed_process_is_named_with_its_number),
        cmocka_unit_test(of_failures_seen_together_a_signal_is_the_cause),
        cmocka_unit_test(a_stubborn_process_is_killed),
        cmocka_unit_test(a_program_that_cannot_be_run_is_told),
        cmocka_unit_test(arguments_are_checked),
        cmocka_unit_test(many_processes_start_and_end),
        cmocka_unit_test(a_failed_start_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
