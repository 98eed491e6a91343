/* SPDX-License-Identifier: Apache-2.0 */
/* Kills a run that writes checkpoints all the time, at random moments, and goes on with it each time on
 * another number of processes: every checkpoint loads, and at its end the run has the parameters of one that
 * was left in peace.
 *
 *   test_kill_resume [KILLS]
 */
#define _GNU_SOURCE /* nftw */

#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "unit/temp_folder.h"

enum {
    FEW_KILLS = 10,
    LONGEST_START_MS = 300, /* to be killed while it starts */
    LONGEST_MS = 60,        /* to be killed after a new checkpoint */
    FINISHED = -1,
    TEXT_BYTES = 8192,
};

#define STEPS  "steps=1500"
#define HIDDEN "model.hidden=[512,256]" /* so that it takes a moment to write a checkpoint */

static int n_kills = FEW_KILLS;
static unsigned random_state;
static int n_runs; /* run directories, one after the other */
static char run_path[64];

static int random_below(int n)
{
    return rand_r(&random_state) % n;
}

static void sleep_ms(int ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    while (nanosleep(&time, &time) != 0 && errno == EINTR)
        ;
}

static void begin_another_run(void)
{
    snprintf(run_path, sizeof run_path, "%s/run-%d", temp_folder, n_runs++);
}

/* The newest checkpoint's step; 0: there is none. */
static long newest_checkpoint(void)
{
    char path[100];
    snprintf(path, sizeof path, "%s/checkpoints", run_path);
    DIR *folder = opendir(path);
    long newest = 0;
    for (const struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        char *end;
        long step = strncmp(entry->d_name, "step-", 5) == 0 ? strtol(entry->d_name + 5, &end, 10) : 0;
        if (step > newest && strcmp(end, ".safetensors") == 0)
            newest = step;
    }
    if (folder != NULL)
        closedir(folder);
    return newest;
}

/* --- processes --- */

/* In the new process: standard output and standard error to these files. */
static _Noreturn void become(const char *const *argv, const char *out, const char *err)
{
    int out_fd = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int err_fd = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(out_fd, STDOUT_FILENO);
    dup2(err_fd, STDERR_FILENO);
    execv(getenv("LOCKSTEP_BINARY"), (char *const *)argv);
    _exit(127);
}

/* With process groups of their own, so that all of a run can be killed at once. */
static pid_t start(const char *const *argv)
{
    const char *out = in_temp_folder("out"), *err = in_temp_folder("err");
    pid_t pid = fork();
    if (pid == 0) {
        setpgid(0, 0);
        become(argv, out, err);
    }
    assert_true(pid > 0);
    setpgid(pid, pid);
    return pid;
}

/* Waits for the process and for all that it has left to us. Returns the exit code, 128 + n for signal n. */
static int finish(pid_t pid)
{
    int status, code = -1;
    for (pid_t ended; (ended = waitpid(-1, &status, 0)) > 0 || errno == EINTR;)
        if (ended == pid)
            code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return code;
}

static const char *errors(void)
{
    static char text[TEXT_BYTES];
    get_file(in_temp_folder("err"), text, sizeof text);
    return text;
}

static void require(int code, const char *what)
{
    if (code != 0)
        fail_msg("%s: exit code %d: %s", what, code, errors());
}

/* --- the run --- */

/* Of `extra`: a NULL ends the list. */
static pid_t start_training(int processes, const char *output, const char *const *extra)
{
    enum { MAX_ARGUMENTS = 24 };
    char n[16];
    snprintf(n, sizeof n, "%d", processes);
    const char *argv[MAX_ARGUMENTS] = {"lockstep",
                                       "train",
                                       "examples/digits.yaml",
                                       "-n",
                                       n,
                                       "--json",
                                       "--output",
                                       output,
                                       "world=4",
                                       "batch.local=8",
                                       "epochs=auto",
                                       STEPS,
                                       HIDDEN,
                                       "optimizer.kind=adam",
                                       "optimizer.momentum=auto",
                                       "optimizer.lr=0.001",
                                       "metrics.every_steps=100"};
    int count = 0;
    while (argv[count] != NULL)
        count++;
    for (; *extra != NULL && count < MAX_ARGUMENTS - 1; extra++)
        argv[count++] = *extra;
    return start(argv);
}

/* Begins, or goes on where there is a checkpoint to go on from. */
static pid_t go_on(void)
{
    static const int processes[] = {1, 2, 4};
    char every[48];
    bool resumed = newest_checkpoint() > 0;
    snprintf(every, sizeof every, "checkpoint.every_steps=%d", 1 + random_below(9));
    const char *const extra[] = {every, resumed ? "--resume" : "--overwrite", NULL};
    return start_training(processes[random_below(3)], run_path, extra);
}

/* "0123456789abcdef" of a run that has ended; the JSON is in "out". */
static void read_hash(char hash[17])
{
    static char text[TEXT_BYTES];
    get_file(in_temp_folder("out"), text, sizeof text);
    const char *key = "\"parameters_hash\": \"", *found = strstr(text, key);
    if (found == NULL)
        fail_msg("no hash in: %s", text);
    snprintf(hash, 17, "%s", found + strlen(key));
}

/* All that are there are whole: none gets its name before. A run that has ended has left nothing else. */
static void check_checkpoints(bool ended)
{
    char path[100];
    snprintf(path, sizeof path, "%s/checkpoints", run_path);
    DIR *folder = opendir(path);
    for (const struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        char file[400];
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        const char *end = strrchr(file, '.');
        if (ended && strcmp(end, ".tmp") == 0)
            fail_msg("%s is left", file);
        if (strncmp(entry->d_name, "step-", 5) == 0 && strcmp(end, ".safetensors") == 0) {
            const char *const argv[] = {"lockstep", "inspect", file, NULL};
            require(finish(start(argv)), file);
        }
    }
    if (folder != NULL)
        closedir(folder);
}

/* A process of the group that is not its first one, or 0. */
static pid_t other_in_group(pid_t group)
{
    DIR *processes = opendir("/proc");
    pid_t found = 0;
    int n = 0;
    assert_non_null(processes);
    for (const struct dirent *entry; (entry = readdir(processes)) != NULL;) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid > 0 && pid != group && getpgid(pid) == group && random_below(++n) == 0)
            found = pid;
    }
    closedir(processes);
    return found;
}

/* All at once, as a power cut does; or the command, whose processes then end; or one of its processes, of
 * which the others hear. */
static void kill_somehow(pid_t run)
{
    pid_t victim = run;
    int way = random_below(3);
    if (way == 0)
        victim = -run;
    else if (way == 1 && (victim = other_in_group(run)) == 0)
        victim = run;
    kill(victim, SIGKILL);
}

/* Waits for a moment while it starts, or after its next checkpoint. False: it has ended before. */
static bool wait_for_a_moment(pid_t run)
{
    long before = newest_checkpoint();
    siginfo_t ended = {0};
    bool training = random_below(3) > 0;
    while (training && newest_checkpoint() <= before) {
        if (waitid(P_PID, (id_t)run, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid == run)
            return false;
        sleep_ms(1);
    }
    sleep_ms(random_below(training ? LONGEST_MS : LONGEST_START_MS));
    return waitid(P_PID, (id_t)run, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid != run;
}

/* Returns the step it has come to, or FINISHED. */
static long try_to_finish(void)
{
    pid_t run = go_on();
    if (wait_for_a_moment(run))
        kill_somehow(run);
    int code = finish(run);
    if (strstr(errors(), "passed over") != NULL)
        fail_msg("a checkpoint was not whole: %s", errors());
    if (code == 0)
        return FINISHED;
    if (code != 128 + SIGKILL && strstr(errors(), "signal 9") == NULL)
        fail_msg("ended by itself with exit code %d: %s", code, errors());
    check_checkpoints(false);
    return newest_checkpoint();
}

/* Left in peace from here on. */
static long finish_it(void)
{
    const char *const extra[] = {"--resume", "checkpoint.every_steps=50", NULL};
    require(finish(start_training(2, run_path, extra)), "the rest of the run");
    return FINISHED;
}

static void a_run_that_is_killed_again_and_again_ends_as_if_left_in_peace(void **state)
{
    (void)state;
    char peaceful[17], hash[17];
    const char *const none[] = {NULL};
    require(finish(start_training(1, in_temp_folder("peaceful"), none)), "the run in peace");
    read_hash(peaceful);

    int kills = 0, finished = 0;
    begin_another_run();
    for (long before = 0; kills < n_kills || finished == 0;) {
        bool enough = kills >= n_kills && before > 0;
        long step = enough ? finish_it() : try_to_finish();
        if (step != FINISHED) {
            kills++;
            if (step < before)
                fail_msg("the newest checkpoint was that of step %ld, now of %ld", before, step);
            before = step;
            continue;
        }
        read_hash(hash);
        assert_string_equal(hash, peaceful);
        check_checkpoints(true);
        finished++;
        begin_another_run();
        before = 0;
    }
    printf("%d kills, %d runs came to their end\n", kills, finished);
}

static int set_up(void **state)
{
    random_state = (unsigned)time(NULL) ^ (unsigned)getpid();
    printf("random seed %u\n", random_state);
    /* what a killed launcher leaves becomes ours to wait for */
    return make_temp_folder(state) != 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) != 0 ||
           getenv("LOCKSTEP_BINARY") == NULL;
}

int main(int argc, char **argv)
{
    if (argc > 1)
        n_kills = (int)strtol(argv[1], NULL, 10);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_that_is_killed_again_and_again_ends_as_if_left_in_peace),
    };
    return cmocka_run_group_tests(tests, set_up, remove_temp_folder);
}
