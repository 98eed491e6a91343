/* SPDX-License-Identifier: Apache-2.0 */
/* Ends `lockstep train` at random moments in every way there is: Ctrl-C, a second Ctrl-C, SIGTERM, SIGKILL of
 * a worker, SIGKILL of the launcher. No process may be left, and the exit code and the message tell what
 * happened. */
#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS = 3, ROUNDS_OF_EACH = 6, LONGEST_DELAY_MS = 400, TEXT_BYTES = 8192 };

/* A run that would go on for hours. Its output folder stands in every process's command line: that marks
 * them. */
typedef struct job {
    char mark[128];
    pid_t launcher;
    int delay_ms;
    int code; /* as a shell gives it: 128 + n when ended by signal n */
    char err[TEXT_BYTES];
} job;

static char folder[] = "/tmp/lockstep-kill-XXXXXX";
static unsigned random_state;
static int n_jobs;

static void sleep_ms(int ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    while (nanosleep(&time, &time) != 0 && errno == EINTR)
        ;
}

static int read_file(const char *path, char *out, int capacity)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), length = 0;
    ssize_t n = 0;
    while (fd >= 0 && length < capacity - 1 &&
           (n = read(fd, out + length, (size_t)(capacity - 1 - length))) > 0)
        length += (int)n;
    if (fd >= 0)
        close(fd);
    out[length] = '\0';
    return length;
}

static bool is_marked(const char *pid, const char *mark)
{
    char path[300], line[TEXT_BYTES];
    snprintf(path, sizeof path, "/proc/%s/cmdline", pid);
    int length = read_file(path, line, sizeof line);
    for (int i = 0; i < length - 1; i++)
        if (line[i] == '\0')
            line[i] = ' ';
    return strstr(line, mark) != NULL;
}

/* How many processes carry the mark, but for `except`; the last one found goes to *one. */
static int marked_processes(const job *j, pid_t except, pid_t *one)
{
    DIR *processes = opendir("/proc");
    assert_non_null(processes);
    int n = 0;
    struct dirent *entry;
    while ((entry = readdir(processes)) != NULL) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid > 0 && pid != except && is_marked(entry->d_name, j->mark)) {
            *one = pid;
            n++;
        }
    }
    closedir(processes);
    return n;
}

static void start(job *j)
{
    snprintf(j->mark, sizeof j->mark, "%s/run-%d", folder, n_jobs++);
    j->delay_ms = rand_r(&random_state) % LONGEST_DELAY_MS;
    char output[160], err[160], workers[16];
    snprintf(output, sizeof output, "output=%s", j->mark);
    snprintf(err, sizeof err, "%s.err", j->mark);
    snprintf(workers, sizeof workers, "%d", WORKERS);
    j->launcher = fork();
    if (j->launcher == 0) {
        setpgid(0, 0); /* as a shell gives each job its process group, which Ctrl-C goes to */
        int fd = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600), null = open("/dev/null", O_WRONLY);
        dup2(null, STDOUT_FILENO);
        dup2(fd, STDERR_FILENO);
        execl(getenv("LOCKSTEP_BINARY"), "lockstep", "train", "examples/digits.yaml", "-n", workers,
              "epochs=auto", "steps=1000000000", output, (char *)NULL);
        _exit(127);
    }
    assert_true(j->launcher > 0);
    setpgid(j->launcher, j->launcher);
    sleep_ms(j->delay_ms);
}

/* Waits for the end and requires that no process is left within 5 s: far above the second that is promised,
 * as this looks for processes that stay and not for slow ones. */
static void finish(job *j)
{
    int status;
    assert_int_equal(waitpid(j->launcher, &status, 0), j->launcher);
    j->code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    pid_t left = 0;
    for (int i = 0; marked_processes(j, 0, &left) > 0; i++) {
        if (i == 100)
            fail_msg("after %d ms: process %d is left", j->delay_ms, (int)left);
        sleep_ms(50);
    }
    char err[160];
    snprintf(err, sizeof err, "%s.err", j->mark);
    read_file(err, j->err, sizeof j->err);
}

static void expect(const job *j, int code, const char *text)
{
    if (j->code != code || strstr(j->err, text) == NULL)
        fail_msg("after %d ms: exit code %d, wanted %d with \"%s\"; stderr: %s", j->delay_ms, j->code, code,
                 text, j->err);
}

static void ctrl_c_and_sigterm_stop_the_run(void **state)
{
    (void)state;
    static const int signals[] = {SIGINT, SIGTERM};
    for (int round = 0; round < 2 * ROUNDS_OF_EACH; round++) {
        job j;
        int number = signals[round % 2];
        start(&j);
        kill(number == SIGINT ? -j.launcher : j.launcher, number);
        finish(&j);
        /* within the first moments the signal may come before any process handles it: then it just ends it */
        expect(&j, 128 + number, "");
    }
}

static void a_second_ctrl_c_kills(void **state)
{
    (void)state;
    for (int round = 0; round < ROUNDS_OF_EACH; round++) {
        job j;
        start(&j);
        kill(-j.launcher, SIGINT);
        sleep_ms(rand_r(&random_state) % 5);
        kill(-j.launcher, SIGINT);
        finish(&j);
        expect(&j, 128 + SIGINT, "");
    }
}

static void a_killed_worker_ends_the_run_and_is_named(void **state)
{
    (void)state;
    for (int round = 0; round < ROUNDS_OF_EACH; round++) {
        job j;
        start(&j);
        pid_t worker = 0;
        while (marked_processes(&j, j.launcher, &worker) < WORKERS)
            sleep_ms(1);
        char named[64];
        snprintf(named, sizeof named, "(process %d) was killed by signal 9", (int)worker);
        kill(worker, SIGKILL);
        finish(&j);
        expect(&j, 1, named);
    }
}

static void workers_die_with_a_killed_launcher(void **state)
{
    (void)state;
    for (int round = 0; round < ROUNDS_OF_EACH; round++) {
        job j;
        start(&j);
        kill(j.launcher, SIGKILL);
        finish(&j);
        expect(&j, 128 + SIGKILL, "");
    }
}

static int set_up(void **state)
{
    (void)state;
    random_state = (unsigned)time(NULL) ^ (unsigned)getpid();
    printf("random seed %u\n", random_state);
    return mkdtemp(folder) == NULL || getenv("LOCKSTEP_BINARY") == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ctrl_c_and_sigterm_stop_the_run),
        cmocka_unit_test(a_second_ctrl_c_kills),
        cmocka_unit_test(a_killed_worker_ends_the_run_and_is_named),
        cmocka_unit_test(workers_die_with_a_killed_launcher),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
