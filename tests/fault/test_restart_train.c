/* SPDX-License-Identifier: Apache-2.0 */
/* Kills random processes of `lockstep train --max-restarts` at random moments: the run goes on by itself, on
 * fewer processes where that is asked for, and ends with the parameters of one that nobody disturbed. */
#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KILLS = 4, LONGEST_DELAY_MS = 300, TEXT_BYTES = 1 << 16, HASH_BYTES = 17, MOST_PROCESSES = 4 };

static char folder[] = "/tmp/lockstep-restart-XXXXXX";
static unsigned random_state;

static void sleep_ms(int ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    while (nanosleep(&time, &time) != 0 && errno == EINTR)
        ;
}

/* The last TEXT_BYTES - 1 bytes of a file. */
static void read_end(const char *path, char out[TEXT_BYTES])
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    if (fseek(file, -(TEXT_BYTES - 1), SEEK_END) != 0)
        rewind(file);
    out[fread(out, 1, TEXT_BYTES - 1, file)] = '\0';
    fclose(file);
}

/* A run of 4 workers. Its name is that of its run directory, and of what it prints: NAME.json, NAME.err. */
static pid_t start(const char *name, const char *processes, const char *const *flags)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    const char *argv[32] = {"lockstep",
                            "train",
                            "examples/digits.yaml",
                            "--json",
                            "-n",
                            processes,
                            "--output",
                            path,
                            "batch.local=8",
                            "epochs=auto",
                            "steps=12000",
                            "checkpoint.every_steps=40",
                            "metrics.every_steps=1000"};
    int n = 13;
    if (strcmp(processes, "4") != 0) /* else it follows, also where 2 go on */
        argv[n++] = "world=4";
    for (; *flags != NULL; flags++)
        argv[n++] = *flags;
    pid_t pid = fork();
    if (pid == 0) {
        char out[160], err[160];
        snprintf(out, sizeof out, "%s.json", path);
        snprintf(err, sizeof err, "%s.err", path);
        dup2(open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600), STDOUT_FILENO);
        dup2(open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600), STDERR_FILENO);
        execv(getenv("LOCKSTEP_BINARY"), (char *const *)argv);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

static void end_well(pid_t pid, const char *name, char hash[HASH_BYTES], char err[TEXT_BYTES])
{
    int status;
    char path[160];
    static char json[TEXT_BYTES];
    CHECK_INT(waitpid(pid, &status, 0), pid);
    snprintf(path, sizeof path, "%s/%s.err", folder, name);
    read_end(path, err);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("%s: status %d: %s", name, status, err);
    snprintf(path, sizeof path, "%s/%s.json", folder, name);
    read_end(path, json);
    const char *member = strstr(json, "\"parameters_hash\": \"");
    assert_non_null(member);
    CHECK_INT(sscanf(member, "\"parameters_hash\": \"%16s", hash), 1);
}

/* Of any process: 0 when it has ended. */
static pid_t parent_of(const char *pid)
{
    char path[64], text[256] = "";
    int parent = 0;
    snprintf(path, sizeof path, "/proc/%.20s/stat", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return 0;
    if (fgets(text, sizeof text, file) == NULL)
        text[0] = '\0';
    fclose(file);
    const char *after_name = strrchr(text, ')');
    return after_name != NULL && sscanf(after_name, ") %*c %d", &parent) == 1 ? parent : 0;
}

/* pids: [MOST_PROCESSES]. Returns how many processes the launcher has. */
static int children_of(pid_t launcher, pid_t *pids)
{
    DIR *processes = opendir("/proc");
    assert_non_null(processes);
    int n = 0;
    for (const struct dirent *entry; (entry = readdir(processes)) != NULL && n < MOST_PROCESSES;) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid > 0 && parent_of(entry->d_name) == launcher)
            pids[n++] = pid;
    }
    closedir(processes);
    return n;
}

/* A moment later kills one of the launcher's processes. Each is waited for by the launcher alone, so that its
 * number may be another's by now only if it has ended in between: too unlikely to care. */
static void kill_one(pid_t launcher)
{
    pid_t pids[MOST_PROCESSES];
    int n;
    sleep_ms(rand_r(&random_state) % LONGEST_DELAY_MS);
    for (int i = 0; (n = children_of(launcher, pids)) == 0; i++) {
        if (i == 2000) /* the run is over: end_well tells how */
            return;
        sleep_ms(1);
    }
    kill(pids[rand_r(&random_state) % n], SIGKILL);
}

static int count(const char *text, const char *word)
{
    int n = 0;
    while ((text = strstr(text, word)) != NULL) {
        n++;
        text += strlen(word);
    }
    return n;
}

static const char *undisturbed_hash(void)
{
    static const char *const no_flags[] = {NULL};
    static char hash[HASH_BYTES], err[TEXT_BYTES];
    if (hash[0] == '\0')
        end_well(start("undisturbed", "4", no_flags), "undisturbed", hash, err);
    return hash;
}

static void check_killed(const char *name, const char *processes, const char *const *flags,
                         const char *restarted_on)
{
    static char hash[HASH_BYTES], err[TEXT_BYTES];
    pid_t launcher = start(name, processes, flags);
    for (int i = 0; i < KILLS; i++)
        kill_one(launcher);
    end_well(launcher, name, hash, err);
    assert_string_equal(hash, undisturbed_hash());
    /* a kill may hit one that is being ended already */
    int n = count(err, "lockstep: restart ");
    if (n < 1 || n > KILLS || count(err, restarted_on) != n)
        fail_msg("%s: %d restarts%s: %s", name, n, restarted_on, err);
    CHECK_INT(count(err, "was killed by signal 9 (SIGKILL)"), n);
}

static void four_processes_go_on_as_two(void **state)
{
    (void)state;
    const char *const flags[] = {"--max-restarts", "4", "--restart-processes=2", NULL};
    check_killed("four", "4", flags, " on 2 processes\n");
}

static void two_processes_go_on_as_one(void **state)
{
    (void)state;
    const char *const flags[] = {"--max-restarts=4", "--restart-processes", "1", NULL};
    check_killed("two", "2", flags, " on 1 process\n");
}

static void one_process_goes_on(void **state)
{
    (void)state;
    const char *const flags[] = {"--max-restarts", "4", NULL};
    check_killed("one", "1", flags, " on 1 process\n");
}

/* Killed before it had a checkpoint: begins again, in place of what it had begun. The earlier run, of another
 * seed, that --overwrite replaces must not be gone on with. */
static void without_a_checkpoint_it_begins_again(void **state)
{
    (void)state;
    static char hash[HASH_BYTES], err[TEXT_BYTES];
    const char *const other[] = {"seed=5", "steps=100", NULL};
    const char *const flags[] = {"--overwrite", "--max-restarts", "3", "checkpoint.every_steps=1000000",
                                 NULL};
    end_well(start("again", "2", other), "again", hash, err);
    pid_t launcher = start("again", "2", flags);
    for (int i = 0; i < 3; i++)
        kill_one(launcher);
    end_well(launcher, "again", hash, err);
    assert_string_equal(hash, undisturbed_hash());
    CHECK_INT(count(err, " from the beginning on 2 processes\n"), count(err, "lockstep: restart "));
}

/* What all agree on would come again: here a loss that is not finite. */
static void a_failure_that_would_come_again_is_left_at_that(void **state)
{
    (void)state;
    static char err[TEXT_BYTES];
    char path[160];
    int status;
    const char *const flags[] = {"--max-restarts", "3", "optimizer.lr=1e30", "lr.warmup_epochs=0", NULL};
    pid_t launcher = start("diverged", "2", flags);
    CHECK_INT(waitpid(launcher, &status, 0), launcher);
    CHECK_INT(WEXITSTATUS(status), 1);
    snprintf(path, sizeof path, "%s/diverged.err", folder);
    read_end(path, err);
    assert_non_null(strstr(err, "is not finite"));
    CHECK_INT(count(err, "lockstep: restart "), 0);
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
        cmocka_unit_test(four_processes_go_on_as_two),
        cmocka_unit_test(two_processes_go_on_as_one),
        cmocka_unit_test(one_process_goes_on),
        cmocka_unit_test(without_a_checkpoint_it_begins_again),
        cmocka_unit_test(a_failure_that_would_come_again_is_left_at_that),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
