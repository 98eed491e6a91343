/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* posix_openpt and its kin, pidfd_open */

#include "check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "launch/launch.h"
#include "launched_program.h"

#define PROGRAM "/proc/self/exe"

enum {
    MAX_ARGS = 80,
    TEXT_BYTES = 1 << 14,
    HANG_MS = 20000, /* a wait that takes longer has failed; the launcher's own longest wait is 3 s */
};

/* A launcher in a process of its own. */
typedef struct launcher {
    pid_t pid;
    int reports; /* its end: launcher and processes have all ended */
    int errors;  /* the launcher's and the processes' stderr */
    char report_text[TEXT_BYTES];
    char error_text[TEXT_BYTES];
} launcher;

/* Called in the launcher's process, before it launches. */
typedef void prepare_fn(void);

static _Noreturn void be_launcher(const lks__launch_config *config)
{
    int exit_code = -1;
    lks_status status = lks__launch(config, &exit_code);
    if (status != LKS_OK) {
        fprintf(stderr, "%s %s\n", lks_status_name(status), lks_error_message());
        exit_code = lks_status_exit_code(status);
        /* nothing may be left: neither running nor to be waited for */
        if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD)
            fprintf(stderr, "a process was left\n");
    }
    _exit(exit_code);
}

static void start_program(launcher *l, int n, bool gently, const char *const *argv, prepare_fn *prepare)
{
    int reports[2], errors[2];
    char fd[16];
    memset(l, 0, sizeof *l);
    CHECK_INT(pipe(reports), 0);
    CHECK_INT(pipe(errors), 0);
    l->pid = fork();
    assert_true(l->pid >= 0); /* kill(-1) would reach everybody */
    if (l->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that has failed leaves nothing either */
        close(reports[0]);
        close(errors[0]);
        dup2(errors[1], STDERR_FILENO);
        close(errors[1]);
        snprintf(fd, sizeof fd, "%d", reports[1]);
        setenv(REPORT_FD_VARIABLE, fd, 1);
        if (prepare != NULL)
            prepare();
        be_launcher(&(lks__launch_config){.processes = n, .argv = argv, .stop_gently = gently});
    }
    close(reports[1]);
    close(errors[1]);
    l->reports = reports[0];
    l->errors = errors[0];
}

/* Launches the test program; `way` is what it gets as arguments, with blanks between. */
static void start(launcher *l, int n, bool gently, const char *way, prepare_fn *prepare)
{
    char words[TEXT_BYTES];
    const char *argv[MAX_ARGS] = {PROGRAM};
    char *rest;
    snprintf(words, sizeof words, "%s", way);
    int n_args = 1;
    for (char *word = strtok_r(words, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest))
        argv[n_args++] = word;
    start_program(l, n, gently, argv, prepare);
}

/* Appends what comes to `text`. False at the end of the file. */
static bool read_more(int fd, char *text)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    if (poll(&ready, 1, HANG_MS) != 1)
        fail_msg("nothing came for %d ms after \"%s\"", HANG_MS, text);
    size_t length = strlen(text);
    ssize_t n = read(fd, text + length, TEXT_BYTES - 1 - length);
    assert_true(n >= 0);
    text[length + (size_t)n] = '\0';
    return n > 0;
}

static int n_lines(const char *text)
{
    int n = 0;
    for (; *text != '\0'; text++)
        n += *text == '\n';
    return n;
}

/* Waits until n processes have reported. */
static void wait_for_reports(launcher *l, int n)
{
    while (n_lines(l->report_text) < n)
        if (!read_more(l->reports, l->report_text))
            fail_msg("ended after \"%s\" and \"%s\"", l->report_text, l->error_text);
}

/* Waits until launcher and processes have ended. Returns the launcher's exit code, or minus its signal. */
static int finish(launcher *l)
{
    int status;
    while (read_more(l->reports, l->report_text))
        ;
    while (read_more(l->errors, l->error_text))
        ;
    close(l->reports);
    close(l->errors);
    CHECK_INT(waitpid(l->pid, &status, 0), l->pid);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* The nth line of a rank's reports, without "RANK PID ". */
static void get_report(const launcher *l, int rank, int nth, int *pid, char *out, size_t out_bytes)
{
    const char *line = l->report_text;
    for (; *line != '\0'; line = strchr(line, '\n') + 1) {
        int its_rank, after;
        CHECK_INT(sscanf(line, "%d %d %n", &its_rank, pid, &after), 2);
        if (its_rank != rank || nth-- > 0)
            continue;
        snprintf(out, out_bytes, "%.*s", (int)strcspn(line + after, "\n"), line + after);
        return;
    }
    fail_msg("rank %d has not reported: %s", rank, l->report_text);
}

static void check_text(const char *text, const char *expected)
{
    if (strstr(text, expected) == NULL)
        fail_msg("\"%s\" lacks \"%s\"", text, expected);
}

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

/* Ends a process by a signal, and waits until it has ended. */
static void end_process(int pid, int signal)
{
    struct pollfd ended = {.fd = pidfd_open(pid, 0), .events = POLLIN};
    assert_true(ended.fd >= 0);
    CHECK_INT(kill(pid, signal), 0);
    CHECK_INT(poll(&ended, 1, HANG_MS), 1);
    close(ended.fd);
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
    const lks__launch_config none = {.processes = 0, .argv = program}, no_program = {2, nothing, false};
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
        assert_string_equal(l.error_text, "lockstep: stopping after this step; press Ctrl-C again to kill\n");
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
        cmocka_unit_test(each_process_gets_its_variables),
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
