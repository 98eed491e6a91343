/* SPDX-License-Identifier: Apache-2.0 */
/* Ends `lockstep train` at random moments in every way there is: Ctrl-C, a second Ctrl-C, SIGTERM, SIGKILL of
 * a worker, SIGKILL of the launcher. No process and no shared memory may be left, and the exit code and the
 * message tell what happened. */
#define _GNU_SOURCE /* posix_openpt and its kin */

#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "launch/launch.h"

enum { WORKERS = 3, ROUNDS_OF_EACH = 6, LONGEST_DELAY_MS = 400, TEXT_BYTES = 8192, MAX_FILES = 16 };

/* A run that would go on for hours. Its output folder stands in every process's command line: that marks
 * them. */
typedef struct job {
    char mark[128];
    pid_t launcher;
    int delay_ms;
    int n_memory_files;
    ino_t memory_files[MAX_FILES]; /* that its processes had open */
    int n_files_left;
    int code; /* as a shell gives it: 128 + n when ended by signal n */
    char err[TEXT_BYTES];
} job;

static char folder[] = "/tmp/lockstep-kill-XXXXXX";
static unsigned random_state;
static int n_jobs, n_named_before;

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

/* ---- shared memory ---- */

/* Calls `found` with the number of each memory file of lockstep's that a process has open; the files have no
 * name, so they stay as long as someone has them. */
static void visit_memory_files(const char *pid, void (*found)(job *j, ino_t file), job *j)
{
    char path[300], target[64];
    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    DIR *files = opendir(path);
    if (files == NULL) /* it has ended */
        return;
    struct dirent *entry;
    struct stat about;
    while ((entry = readdir(files)) != NULL) {
        ssize_t length = readlinkat(dirfd(files), entry->d_name, target, sizeof target - 1);
        target[length > 0 ? length : 0] = '\0';
        if (strncmp(target, "/memfd:lockstep", 15) == 0 &&
            fstatat(dirfd(files), entry->d_name, &about, 0) == 0)
            found(j, about.st_ino);
    }
    closedir(files);
}

static bool is_known(const job *j, ino_t file)
{
    for (int i = 0; i < j->n_memory_files; i++)
        if (j->memory_files[i] == file)
            return true;
    return false;
}

static void note_file(job *j, ino_t file)
{
    if (!is_known(j, file) && j->n_memory_files < MAX_FILES)
        j->memory_files[j->n_memory_files++] = file;
}

static void count_known_file(job *j, ino_t file)
{
    j->n_files_left += is_known(j, file);
}

/* Of the job's processes, or of all that there are. */
static void visit_processes(job *j, bool marked_only, void (*found)(job *j, ino_t file))
{
    DIR *processes = opendir("/proc");
    assert_non_null(processes);
    struct dirent *entry;
    while ((entry = readdir(processes)) != NULL)
        if (strtol(entry->d_name, NULL, 10) > 0 && (!marked_only || is_marked(entry->d_name, j->mark)))
            visit_memory_files(entry->d_name, found, j);
    closedir(processes);
}

/* How often the job's memory files are still open, in whatever process. One that ends loses its command line
 * before its files. */
static int open_memory_files(job *j)
{
    j->n_files_left = 0;
    visit_processes(j, false, count_known_file);
    return j->n_files_left;
}

/* Files in a folder whose names contain the text. */
static int count_files(const char *path, const char *text)
{
    DIR *files = opendir(path);
    int n = 0;
    struct dirent *entry;
    while (files != NULL && (entry = readdir(files)) != NULL)
        n += strstr(entry->d_name, text) != NULL;
    if (files != NULL)
        closedir(files);
    return n;
}

/* Shared memory with a name of ours. Other programs' comes and goes while this runs. */
static int named_memory(void)
{
    return count_files("/dev/shm", "lockstep");
}

/* ---- jobs ---- */

/* In the new process: the run, by itself or as a program under `lockstep run`. */
static _Noreturn void become_run(const job *j, bool under_run)
{
    char output[160], err[160], workers[16];
    snprintf(output, sizeof output, "output=%s", j->mark);
    snprintf(err, sizeof err, "%s.err", j->mark);
    snprintf(workers, sizeof workers, "%d", WORKERS);
    int fd = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600), null = open("/dev/null", O_WRONLY);
    dup2(null, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    const char *program = getenv("LOCKSTEP_BINARY");
    if (under_run)
        execl(program, "lockstep", "run", "-n", workers, program, "train", "examples/digits.yaml",
              "epochs=auto", "steps=1000000000", output, (char *)NULL);
    else
        execl(program, "lockstep", "train", "examples/digits.yaml", "-n", workers, "epochs=auto",
              "steps=1000000000", output, (char *)NULL);
    _exit(127);
}

static void job_init(job *j)
{
    *j = (job){.delay_ms = rand_r(&random_state) % LONGEST_DELAY_MS};
    snprintf(j->mark, sizeof j->mark, "%s/run-%d", folder, n_jobs++);
}

static void start(job *j)
{
    job_init(j);
    j->launcher = fork();
    if (j->launcher == 0) {
        setpgid(0, 0); /* as a shell gives each job its process group, which Ctrl-C goes to */
        become_run(j, false);
    }
    assert_true(j->launcher > 0);
    setpgid(j->launcher, j->launcher);
    sleep_ms(j->delay_ms);
    visit_processes(j, true, note_file);
}

/* Returns the other end of a terminal whose foreground the job is. */
static int start_on_terminal(job *j)
{
    int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
    job_init(j);
    j->launcher = fork();
    if (j->launcher == 0) {
        if (setsid() < 0 || open(ptsname(terminal), O_RDWR) < 0) /* the first one opened is its terminal */
            _exit(126);
        become_run(j, true);
    }
    assert_true(j->launcher > 0);
    return terminal;
}

/* Waits for the end and requires that no process is left within 5 s (far above the second that is promised,
 * as this looks for processes that stay and not for slow ones), and no memory. */
static void finish(job *j)
{
    int status;
    assert_int_equal(waitpid(j->launcher, &status, 0), j->launcher);
    j->code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    pid_t left = 0;
    for (int i = 0; marked_processes(j, 0, &left) > 0 || open_memory_files(j) > 0; i++) {
        if (i == 100)
            fail_msg("after %d ms: process %d is left, or a memory file: %d times open", j->delay_ms,
                     (int)left, j->n_files_left);
        sleep_ms(50);
    }
    CHECK_INT(named_memory(), n_named_before);
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

static void wait_for_training(const job *j)
{
    while (count_files(j->mark, "metrics.jsonl") == 0)
        sleep_ms(10);
}

static void expect_checkpoint(const job *j)
{
    char checkpoints[160];
    snprintf(checkpoints, sizeof checkpoints, "%s/checkpoints", j->mark);
    CHECK_INT(count_files(checkpoints, ".safetensors"), 1);
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
        sleep_ms(rand_r(&random_state) % (2 * LKS__STOP_ECHO_NS / 1000000)); /* an echo, or a second one */
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

/* As timeout(1) and systems that run jobs do it: launcher and processes get it, and each process once more
 * from the launcher. */
static void sigterm_to_the_whole_group_leaves_a_checkpoint(void **state)
{
    (void)state;
    for (int round = 0; round < ROUNDS_OF_EACH; round++) {
        job j;
        start(&j);
        wait_for_training(&j);
        sleep_ms(rand_r(&random_state) % 50);
        kill(-j.launcher, SIGTERM);
        finish(&j);
        expect(&j, 128 + SIGTERM, "stopped by a signal after");
        expect_checkpoint(&j);
    }
}

/* It tells the others, and nobody has failed. */
static void sigterm_to_one_process_stops_the_run(void **state)
{
    (void)state;
    job j;
    start(&j);
    wait_for_training(&j);
    pid_t worker = 0;
    CHECK_INT(marked_processes(&j, j.launcher, &worker), WORKERS);
    kill(worker, SIGTERM);
    finish(&j);
    expect(&j, 128 + SIGTERM, "stopped by a signal after");
    assert_null(strstr(j.err, "ended with"));
    expect_checkpoint(&j);
}

/* `lockstep run` leaves a terminal's Ctrl-C to its program: training stops by itself, with a checkpoint. */
static void ctrl_c_under_lockstep_run_stops_gently(void **state)
{
    (void)state;
    job j;
    int terminal = start_on_terminal(&j);
    wait_for_training(&j);
    visit_processes(&j, true, note_file);
    assert_true(j.n_memory_files > 0); /* so that looking for them means something */
    CHECK_INT(write(terminal, "\x03", 1), 1);
    finish(&j);
    close(terminal);
    expect(&j, 128 + SIGINT, "stopped by a signal after");
    expect_checkpoint(&j);
}

static int set_up(void **state)
{
    (void)state;
    random_state = (unsigned)time(NULL) ^ (unsigned)getpid();
    printf("random seed %u\n", random_state);
    n_named_before = named_memory();
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
        cmocka_unit_test(sigterm_to_the_whole_group_leaves_a_checkpoint),
        cmocka_unit_test(sigterm_to_one_process_stops_the_run),
        cmocka_unit_test(ctrl_c_under_lockstep_run_stops_gently),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
