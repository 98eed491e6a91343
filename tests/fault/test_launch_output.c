/* SPDX-License-Identifier: Apache-2.0 */
/* Output that comes through the launcher: nothing is lost or mixed, whatever is printed and whoever reads. */
#define _GNU_SOURCE /* mkdtemp, ftw's FTW_PHYS */

#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "launched_program.h"
#include "launcher_process.h"

enum {
    N_LINES = 400,             /* of a flood: some 200 kB, several times what a pipe holds */
    LONG_LINE = 9000,          /* more than a pipe takes at once */
    VERY_LONG_LINE = 70000,    /* more than it holds */
    CUT_LINE = (1 << 20) + 10, /* more than the launcher keeps */
    BURST = 500000,
    PATH_BYTES = 256,
};

/* A text that is compared. */
typedef struct bytes {
    char *data;
    size_t n, capacity;
} bytes;

static void add(bytes *b, const char *data, size_t n)
{
    if (b->n + n + 1 > b->capacity) {
        b->capacity = 2 * (b->n + n) + 4096;
        b->data = realloc(b->data, b->capacity);
        if (b->data == NULL)
            abort();
    }
    memcpy(b->data + b->n, data, n);
    b->n += n;
    b->data[b->n] = '\0';
}

/* What a rank prints on a stream (1, 2): lines of many lengths, and a last one without an end. */
static void add_flood(bytes *b, int rank, int stream)
{
    static char filler[VERY_LONG_LINE];
    char start[64];
    for (int i = 0; i < N_LINES; i++) {
        int length = (i * i * 37 + rank * 101 + stream) % 300;
        if (i % 50 == 7)
            length = LONG_LINE;
        if (i == 100 + rank)
            length = VERY_LONG_LINE;
        memset(filler, 'a' + i % 26, (size_t)length);
        add(b, start, (size_t)snprintf(start, sizeof start, "%d %d %d ", rank, stream, i));
        add(b, filler, (size_t)length);
        add(b, "\n", 1);
    }
    add(b, "the end", 7);
}

/* ---- programs ---- */

static int own_rank(void)
{
    return (int)strtol(getenv("RANK"), NULL, 10);
}

static void print(int fd, const char *data, size_t n)
{
    while (n > 0) {
        ssize_t written = write(fd, data, n);
        if (written <= 0)
            _exit(98);
        data += written;
        n -= (size_t)written;
    }
}

/* On both streams in turns, in pieces that end anywhere. */
static int play_flood(void)
{
    enum { PIECE = 777 };
    bytes b[2] = {{0}, {0}};
    for (int s = 0; s < 2; s++)
        add_flood(&b[s], own_rank(), s + 1);
    for (size_t at = 0; at < b[0].n || at < b[1].n; at += PIECE)
        for (int s = 0; s < 2; s++)
            if (at < b[s].n)
                print(s + 1, b[s].data + at, b[s].n - at < PIECE ? b[s].n - at : PIECE);
    free(b[0].data);
    free(b[1].data);
    return 0;
}

static int play_flood_on(void)
{
    static char line[100];
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    for (;;)
        print(STDOUT_FILENO, line, sizeof line);
    return 0;
}

static int play_binary(void)
{
    char all[256 * 40];
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (char)(i * 7 % 256);
    print(STDOUT_FILENO, all, sizeof all - 5);
    return 0;
}

static int play_cut(void)
{
    static char line[CUT_LINE];
    memset(line, 'x', sizeof line);
    print(STDOUT_FILENO, line, sizeof line);
    print(STDOUT_FILENO, "\nshort\n", 7);
    return 0;
}

static int play_half(void)
{
    print(STDERR_FILENO, "whole \x1b[31m\nhal", 15);
    if (own_rank() == 0)
        raise(SIGKILL);
    for (;;)
        pause();
    return 0;
}

/* More than the launcher reads at once, in a pipe that takes it all, and then the end. */
static int play_burst(void)
{
    static char all[BURST];
    memset(all, 'x', sizeof all);
    (void)fcntl(STDOUT_FILENO, F_SETPIPE_SZ, 2 * BURST);
    print(STDOUT_FILENO, all, sizeof all);
    return 0;
}

static int play_hello(void)
{
    struct rlimit files = {0};
    char text[64];
    getrlimit(RLIMIT_NOFILE, &files);
    int n = snprintf(text, sizeof text, "hello %d\n", (int)files.rlim_cur);
    return write(STDOUT_FILENO, text, (size_t)n) != n && errno == EBADF ? 97 : 0;
}

/* Another process lives on with this one's pipes. It is no longer ours to wait for. */
static int play_heir(void)
{
    print(STDOUT_FILENO, "hello\n", 6);
    if (fork() == 0) {
        close((int)strtol(getenv(REPORT_FD_VARIABLE), NULL, 10));
        alarm(60);
        pause();
    }
    return 0;
}

static const struct {
    const char *name;
    int (*play)(void);
} ways[] = {
    {"flood", play_flood}, {"flood_on", play_flood_on}, {"binary", play_binary}, {"cut", play_cut},
    {"half", play_half},   {"hello", play_hello},       {"heir", play_heir},     {"burst", play_burst},
};

static int play(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++)
        if (strcmp(ways[i].name, argv[1]) == 0)
            return ways[i].play();
    return launched_program(argc, argv);
}

/* ---- launches ---- */

static char folder[] = "/tmp/lockstep-output-XXXXXX";
static char logs[PATH_BYTES];
static int next_out;     /* what the next launcher gets as stdout; -1: none */
static int next_in = -1; /* its other end, which only the test is to have; -1: none */
static bool join;        /* the same as stderr */

static void redirect(void)
{
    signal(SIGPIPE, SIG_DFL);
    if (next_in >= 0)
        close(next_in);
    if (next_out < 0)
        close(STDOUT_FILENO);
    else
        dup2(next_out, STDOUT_FILENO);
    if (join)
        dup2(next_out, STDERR_FILENO);
}

static void redirect_and_limit_logs(void)
{
    const struct rlimit few = {.rlim_cur = 1000, .rlim_max = 1000};
    redirect();
    setrlimit(RLIMIT_FSIZE, &few);
}

static void redirect_and_limit_files(void)
{
    struct rlimit few;
    redirect();
    getrlimit(RLIMIT_NOFILE, &few);
    few.rlim_cur = 40;
    setrlimit(RLIMIT_NOFILE, &few);
}

static void launch(launcher *l, int n, const char *way, bool prefix, const char *log_dir, prepare_fn *prepare)
{
    const char *const argv[] = {"/proc/self/exe", way, NULL};
    const lks__launch_config config = {.processes = n, .argv = argv, .prefix = prefix, .log_dir = log_dir};
    start_config(l, &config, prepare);
}

static int open_file(const char *name)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    return fd;
}

static void read_all(int fd, bytes *out)
{
    char part[4096];
    ssize_t n;
    while ((n = read(fd, part, sizeof part)) > 0)
        add(out, part, (size_t)n);
    close(fd);
}

/* Whichever has something, so that none is waited for while the other is full. */
static void read_both(int fd, bytes *out, int other_fd, bytes *other)
{
    struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = other_fd, .events = POLLIN}};
    bytes *texts[2] = {out, other};
    char part[4096];
    while (fds[0].fd >= 0 || fds[1].fd >= 0) {
        assert_true(poll(fds, 2, HANG_MS) > 0);
        for (int i = 0; i < 2; i++) {
            ssize_t n = fds[i].fd >= 0 && fds[i].revents != 0 ? read(fds[i].fd, part, sizeof part) : -1;
            if (n > 0)
                add(texts[i], part, (size_t)n);
            if (n == 0) {
                close(fds[i].fd);
                fds[i].fd = -1;
            }
        }
    }
}

static void read_path(const char *path, bytes *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fail_msg("%s is not there", path);
    read_all(fd, out);
}

static void read_log(int attempt, int rank, const char *name, bytes *out)
{
    char path[2 * PATH_BYTES];
    snprintf(path, sizeof path, "%s/attempt_%d/%d/%s.log", logs, attempt, rank, name);
    read_path(path, out);
}

static void check_bytes(const char *what, bytes *seen, bytes *expected)
{
    if (seen->n != expected->n || memcmp(seen->data, expected->data, seen->n) != 0) {
        size_t at = 0;
        while (at < seen->n && at < expected->n && seen->data[at] == expected->data[at])
            at++;
        fail_msg("%s: %zu bytes, not %zu; they part at %zu", what, seen->n, expected->n, at);
    }
    free(seen->data);
    free(expected->data);
    *seen = *expected = (bytes){0};
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *at)
{
    (void)info, (void)type, (void)at;
    return remove(path);
}

static void forget_logs(void)
{
    nftw(logs, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* Each line begins with its rank and is a line that this rank has printed, in its order; lines of both
 * streams (joined) are told apart by what they say. */
static void check_flood(const bytes *seen, int n, const int *streams)
{
    for (int rank = 0; rank < n; rank++)
        for (const int *stream = streams; *stream != 0; stream++) {
            char prefix[16], marked[32], name[64];
            bytes own = {0}, expected = {0};
            snprintf(prefix, sizeof prefix, "[%d] ", rank);
            snprintf(marked, sizeof marked, "%d %d ", rank, *stream);
            for (const char *at = seen->data; *at != '\0'; at = strchr(at, '\n') + 1) {
                size_t skipped = strlen(prefix), length = strcspn(at, "\n") + 1;
                if (strncmp(at, prefix, skipped) == 0 && strncmp(at + skipped, marked, strlen(marked)) == 0)
                    add(&own, at + skipped, length - skipped);
            }
            add_flood(&expected, rank, *stream);
            expected.n -= strlen("the end"); /* which says nothing of its stream */
            snprintf(name, sizeof name, "rank %d, stream %d", rank, *stream);
            check_bytes(name, &own, &expected);
        }
}

static int count(const bytes *text, const char *what)
{
    int n = 0;
    for (const char *at = text->data; at != NULL && (at = strstr(at, what)) != NULL; at++)
        n++;
    return n;
}

static void many_lines_of_eight_processes_stay_whole(void **state)
{
    (void)state;
    enum { N = 8 };
    launcher l;
    bytes out = {0}, err = {0};
    const int first[] = {1, 0}, second[] = {2, 0};
    next_out = open_file("out");
    launch(&l, N, "flood", true, logs, redirect);
    read_all(l.errors, &err);
    l.errors = open_file("none");
    CHECK_INT(finish(&l), 0);
    lseek(next_out, 0, SEEK_SET);
    read_all(next_out, &out);
    check_flood(&out, N, first);
    check_flood(&err, N, second);
    CHECK_INT(count(&out, "] the end\n"), N);
    CHECK_INT(count(&err, "] the end\n"), N);
    CHECK_INT(count(&out, "\n"), N * (N_LINES + 1));
    for (int rank = 0; rank < N; rank++)
        for (int s = 1; s <= 2; s++) {
            bytes log = {0}, expected = {0};
            read_log(0, rank, s == 1 ? "stdout" : "stderr", &log);
            add_flood(&expected, rank, s);
            check_bytes("a log", &log, &expected);
        }
    free(out.data);
    free(err.data);
    forget_logs();
}

/* Both streams into one pipe, of which nobody reads until all that fits is in it. */
static void a_reader_that_stops_loses_nothing(void **state)
{
    (void)state;
    enum { N = 3 };
    launcher l;
    bytes all = {0};
    const int both[] = {1, 2, 0};
    const struct timespec pause = {.tv_nsec = 200000000};
    int reading[2];
    CHECK_INT(pipe2(reading, O_CLOEXEC), 0);
    next_out = reading[1];
    join = true;
    launch(&l, N, "flood", true, NULL, redirect);
    join = false;
    close(reading[1]);
    nanosleep(&pause, NULL);
    read_all(reading[0], &all);
    CHECK_INT(finish(&l), 0);
    check_flood(&all, N, both);
    CHECK_INT(count(&all, "\n"), N * 2 * (N_LINES + 1));
    CHECK_INT(count(&all, "] the end\n"), N * 2);
    free(all.data);
}

static void run_to_file(int n, const char *way, bool prefix, const char *log_dir, bytes *out)
{
    launcher l;
    next_out = open_file("out");
    launch(&l, n, way, prefix, log_dir, redirect);
    CHECK_INT(finish(&l), 0);
    assert_string_equal(l.error_text, "");
    lseek(next_out, 0, SEEK_SET);
    *out = (bytes){0};
    read_all(next_out, out);
}

static void bytes_of_all_kinds_pass(void **state)
{
    (void)state;
    bytes out, log = {0}, expected = {0}, again = {0};
    for (size_t i = 0; i < 256 * 40 - 5; i++)
        add(&expected, &(char){(char)(i * 7 % 256)}, 1);
    add(&again, expected.data, expected.n);
    run_to_file(1, "binary", false, logs, &out);
    read_log(0, 0, "stdout", &log);
    check_bytes("stdout", &out, &expected);
    check_bytes("the log", &log, &again);
    forget_logs();
}

static void what_was_printed_just_before_the_end_comes(void **state)
{
    (void)state;
    for (int round = 0; round < 10; round++) {
        bytes out;
        run_to_file(2, "burst", false, logs, &out);
        CHECK_INT(out.n, 2 * BURST);
        free(out.data);
    }
    forget_logs();
}

static void lines_are_cut_only_beyond_a_limit(void **state)
{
    (void)state;
    static char line[CUT_LINE];
    bytes out, whole = {0}, joined = {0}, expected = {0};
    memset(line, 'x', sizeof line);
    add(&expected, line, sizeof line);
    add(&expected, "\nshort\n", 7);
    run_to_file(1, "cut", true, NULL, &out);
    for (char *at = out.data, *end; *at != '\0'; at = end + 1) {
        assert_memory_equal(at, "[0] ", 4);
        end = strchr(at, '\n');
        add(&joined, at + 4, (size_t)(end - at) - 4);
        if (at[4] != 'x' || (end[1] != '\0' && end[5] != 'x')) /* the line's own end */
            add(&joined, "\n", 1);
    }
    free(out.data);
    run_to_file(1, "cut", false, logs, &whole);
    bytes same = {0};
    add(&same, expected.data, expected.n);
    check_bytes("with prefixes", &joined, &expected);
    check_bytes("without", &whole, &same);
    forget_logs();
}

static void the_last_lines_of_a_killed_process_are_told(void **state)
{
    (void)state;
    launcher l;
    next_out = open_file("out");
    launch(&l, 1, "half", true, logs, redirect);
    CHECK_INT(finish(&l), 1);
    int pid = 0;
    char expected[700];
    const char *at = strstr(l.error_text, "(process ");
    assert_non_null(at);
    CHECK_INT(sscanf(at, "(process %d)", &pid), 1);
    snprintf(expected, sizeof expected,
             "[0] whole \x1b[31m\n[0] hal\n"
             "lockstep: rank 0 (process %d) was killed by signal 9 (SIGKILL)\n"
             "lockstep: rank 0's last lines on standard error:\n"
             "  | whole ?[31m\n  | hal\n"
             "lockstep: all that rank 0 printed is in %s/attempt_0/0\n",
             pid, logs);
    assert_string_equal(l.error_text, expected);
    close(next_out);
    forget_logs();
}

static void output_that_cannot_be_written_is_told(void **state)
{
    (void)state;
    launcher l;
    /* stdout is closed: programs that have it themselves see that */
    next_out = -1;
    launch(&l, 2, "hello", false, NULL, redirect);
    CHECK_INT(finish(&l), 97);
    launch(&l, 2, "hello", true, logs, redirect);
    CHECK_INT(finish(&l), 1);
    assert_string_equal(l.error_text, "lockstep: writing to standard output failed: Bad file descriptor\n");
    /* a full disk */
    next_out = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_true(next_out >= 0);
    launch(&l, 2, "hello", true, NULL, redirect);
    CHECK_INT(finish(&l), 1);
    assert_string_equal(l.error_text,
                        "lockstep: writing to standard output failed: No space left on device\n");
    close(next_out);
    forget_logs();
}

/* As on a full disk: files may have 1000 bytes. What is printed still comes; the logs hold what fitted. */
static void a_log_that_cannot_be_written_is_told(void **state)
{
    (void)state;
    launcher l;
    bytes out = {0}, log = {0}, err = {0};
    int reading[2];
    const int first[] = {1, 0}, second[] = {2, 0};
    CHECK_INT(pipe2(reading, O_CLOEXEC), 0);
    next_out = reading[1];
    launch(&l, 1, "flood", true, logs, redirect_and_limit_logs);
    close(reading[1]);
    read_both(reading[0], &out, l.errors, &err);
    l.errors = open_file("none");
    CHECK_INT(finish(&l), 1);
    check_flood(&out, 1, first);
    check_flood(&err, 1, second);
    CHECK_INT(count(&err, "attempt_0/0/stdout.log failed: File too large\n"), 1);
    CHECK_INT(count(&err, "attempt_0/0/stderr.log failed: File too large\n"), 1);
    read_log(0, 0, "stdout", &log);
    CHECK_INT(log.n, 1000);
    free(out.data);
    free(err.data);
    free(log.data);
    forget_logs();
}

static void a_reader_that_goes_ends_the_processes(void **state)
{
    (void)state;
    launcher l;
    int reading[2];
    for (int with_logs = 0; with_logs < 2; with_logs++) {
        CHECK_INT(pipe2(reading, O_CLOEXEC), 0);
        next_in = reading[0];
        next_out = reading[1];
        launch(&l, 1, "flood_on", true, with_logs ? logs : NULL, redirect);
        next_in = -1;
        close(reading[1]);
        close(reading[0]);
        CHECK_INT(finish(&l), 1);
        check_text(l.error_text, "lockstep: rank 0 (process ");
        check_text(l.error_text, "was killed by signal 13 (SIGPIPE)\n");
    }
    forget_logs();
}

/* Nobody ever reads, and a signal comes: the end does not wait for the reader. */
static void a_stopped_reader_does_not_hold_up_a_stop(void **state)
{
    (void)state;
    launcher l;
    const struct timespec pause = {.tv_nsec = 100000000};
    int reading[2];
    CHECK_INT(pipe2(reading, O_CLOEXEC), 0);
    next_out = reading[1];
    launch(&l, 2, "flood_on", true, NULL, redirect);
    nanosleep(&pause, NULL);
    CHECK_INT(kill(l.pid, SIGTERM), 0);
    int code = finish(&l);
    if (code != 128 + SIGTERM)
        fail_msg("exit code %d: %s", code, l.error_text);
    close(reading[0]);
    close(reading[1]);
}

static void the_end_does_not_wait_for_heirs(void **state)
{
    (void)state;
    bytes out;
    run_to_file(2, "heir", true, NULL, &out);
    CHECK_INT(count(&out, "hello\n"), 2);
    free(out.data);
}

static void each_try_has_its_logs(void **state)
{
    (void)state;
    launcher l;
    char taken[2 * PATH_BYTES];
    const char *const argv[] = {"/proc/self/exe", "hello", NULL};
    struct stat info;
    CHECK_INT(mkdir(logs, 0700), 0);
    snprintf(taken, sizeof taken, "%s/attempt_0", logs);
    CHECK_INT(mkdir(taken, 0700), 0);
    for (int n = 1; n <= 2; n++) {
        bytes out, log = {0}, expected = {0};
        run_to_file(1, "hello", false, logs, &out);
        add(&expected, out.data, out.n);
        read_log(n, 0, "stdout", &log);
        check_bytes("a log", &log, &expected);
        free(out.data);
    }
    /* what is never started leaves nothing */
    const char *const missing[] = {"no-such-program", NULL};
    const lks__launch_config none = {.processes = 2, .argv = missing, .log_dir = logs};
    start_config(&l, &none, NULL);
    CHECK_INT(finish(&l), 2);
    snprintf(taken, sizeof taken, "%s/attempt_3", logs);
    CHECK_INT(stat(taken, &info), -1);
    /* a file is no folder */
    snprintf(taken, sizeof taken, "%s/attempt_1/0/stdout.log/x", logs);
    const lks__launch_config no_folder = {.processes = 2, .argv = argv, .log_dir = taken};
    start_config(&l, &no_folder, NULL);
    CHECK_INT(finish(&l), 2);
    check_text(l.error_text, "LKS_E_NOT_FOUND cannot create ");
    check_text(l.error_text, "stdout.log: Not a directory\n");
    forget_logs();
}

/* Sixteen processes with logs need more descriptors than are allowed at first; the processes keep that limit.
 */
static void descriptors_are_the_launchers_affair(void **state)
{
    (void)state;
    launcher l;
    bytes out = {0};
    next_out = open_file("out");
    launch(&l, 16, "hello", true, logs, redirect_and_limit_files);
    CHECK_INT(finish(&l), 0);
    lseek(next_out, 0, SEEK_SET);
    read_all(next_out, &out);
    CHECK_INT(count(&out, "] hello 40\n"), 16);
    free(out.data);
    forget_logs();
}

static int make_folder(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(logs, sizeof logs, "%s/logs", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    return nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return play(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_lines_of_eight_processes_stay_whole),
        cmocka_unit_test(a_reader_that_stops_loses_nothing),
        cmocka_unit_test(bytes_of_all_kinds_pass),
        cmocka_unit_test(what_was_printed_just_before_the_end_comes),
        cmocka_unit_test(lines_are_cut_only_beyond_a_limit),
        cmocka_unit_test(the_last_lines_of_a_killed_process_are_told),
        cmocka_unit_test(output_that_cannot_be_written_is_told),
        cmocka_unit_test(a_log_that_cannot_be_written_is_told),
        cmocka_unit_test(a_reader_that_goes_ends_the_processes),
        cmocka_unit_test(a_stopped_reader_does_not_hold_up_a_stop),
        cmocka_unit_test(the_end_does_not_wait_for_heirs),
        cmocka_unit_test(each_try_has_its_logs),
        cmocka_unit_test(descriptors_are_the_launchers_affair),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
