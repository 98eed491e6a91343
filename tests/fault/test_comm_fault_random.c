/* SPDX-License-Identifier: Apache-2.0 */
/* Members that are killed, stopped, or end, at a random moment of a random operation: every survivor is told
 * who and how, in time; nothing is left behind.
 *
 * test_comm_fault_random [ROUNDS] [FIRST] [LIMIT_S]: a round depends on its number only, but for the moment.
 */
#define _GNU_SOURCE /* memfd_create, MAP_ANONYMOUS */

#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault/fate.h"

enum { MAX = 8, MOST_LATENCIES = 8192 };

/* Shared with the members. */
typedef struct board {
    _Atomic int ready; /* members that have joined and work */
    _Atomic int steps[MAX];
    double exits_at_s; /* when the one that ends by itself does so */
    outcome outcomes[MAX];
} board;

typedef struct plan {
    unsigned number;
    fate fate;
    int size, victim;
    bool by_socket;    /* they meet there; else they inherit the file */
    bool reaped_first; /* the dead one, before the survivors have ended */
    int delay_us;
    double timeout_s;
    uint64_t seed;
} plan;

static struct {
    unsigned rounds, first;
    double limit_s;
} asked = {20, 0, 0};

static board *shared;
static pid_t pids[MAX]; /* the members; 0: it has ended */
static char folder[] = "/tmp/lockstep-fault-XXXXXX";
static double latencies[N_FATES][MOST_LATENCIES];
static int n_latencies[N_FATES];

static bool sanitized(void)
{
    const char *with = getenv("LOCKSTEP_SANITIZE");
    return with != NULL && with[0] != '\0';
}

static plan plan_of(unsigned number)
{
    dice d = {number};
    plan p = {.number = number, .fate = (fate)(number % N_FATES)};
    p.size = 2 + (int)dice_below(&d, MAX - 1);
    p.victim = (int)dice_below(&d, (uint64_t)p.size);
    p.by_socket = dice_below(&d, 2) == 0;
    p.reaped_first = dice_below(&d, 2) == 0;
    p.delay_us = (int)dice_below(&d, 40000);
    p.seed = dice_below(&d, UINT64_MAX);
    /* who is not told of a death waits until then: three times as long as any limit */
    p.timeout_s = p.fate != STOPPED ? 30 : sanitized() ? 5 : 1;
    return p;
}

/* ---- a member ---- */

static void member_main(const plan *p, int rank, int fd)
{
    random_program program;
    fate_prepare();
    alarm(300);
    lks_group_config config = {.rank = rank, .size = p->size, .fd = fd, .timeout_s = p->timeout_s};
    config.address = "127.0.0.1";
    config.port = 29500;
    lks_group *group;
    if (lks_group_create(&config, &group) != LKS_OK) {
        fprintf(stderr, "rank %d: %s\n", rank, lks_error_message());
        _exit(3);
    }
    random_program_init(&program, group, p->seed);
    atomic_fetch_add(&shared->ready, 1);
    while (atomic_load(&shared->ready) < p->size)
        sleep_us(100);
    if (p->fate == EXITS && rank == p->victim && !fate_exit_after(p->delay_us, &shared->exits_at_s))
        _exit(4);
    lks_status status = LKS_OK;
    while (status == LKS_OK) {
        status = random_program_step(&program);
        atomic_fetch_add(&shared->steps[rank], 1);
    }
    outcome_note(&shared->outcomes[rank], status, &program);
    random_program_deinit(&program);
    lks_group_destroy(group);
    exit(0); /* where leaks are looked for */
}

/* ---- watching them ---- */

static void explain_hang(void)
{
    for (int r = 0; r < MAX; r++) {
        if (pids[r] == 0)
            continue;
        char path[64], line[256] = "gone";
        snprintf(path, sizeof path, "/proc/%d/stat", (int)pids[r]);
        FILE *file = fopen(path, "r");
        if (file != NULL) {
            if (fgets(line, sizeof line, file) == NULL)
                line[0] = '\0';
            fclose(file);
        }
        fprintf(stderr, "rank %d, process %d, %d steps: %.60s\n", r, (int)pids[r],
                atomic_load(&shared->steps[r]), line);
    }
}

static void kill_all(void)
{
    for (int r = 0; r < MAX; r++)
        if (pids[r] > 0) {
            kill(pids[r], SIGKILL);
            waitpid(pids[r], NULL, 0);
            pids[r] = 0;
        }
}

#define FAIL(p, ...)                                                                                         \
    do {                                                                                                     \
        char fail_text[2 * FATE_TEXT_BYTES];                                                                 \
        snprintf(fail_text, sizeof fail_text, __VA_ARGS__);                                                  \
        kill_all();                                                                                          \
        fail_msg("round %u (%s of rank %d of %d after %d us): %s\n  once more: test_comm_fault_random 1 %u", \
                 (p)->number, fate_names[(p)->fate], (p)->victim, (p)->size, (p)->delay_us, fail_text,       \
                 (p)->number);                                                                               \
    } while (0)

/* The wait status of a process that ends, and is then forgotten. */
static int end_of(const plan *p, int rank, double until_s)
{
    int how = -1;
    pid_t ended;
    while ((ended = waitpid(pids[rank], &how, WNOHANG)) == 0 && now_s() < until_s)
        sleep_us(500);
    if (ended == 0) {
        explain_hang();
        FAIL(p, "rank %d hangs", rank);
    }
    CHECK_INT(ended, pids[rank]);
    pids[rank] = 0;
    return how;
}

static void start(const plan *p, int fd)
{
    memset(shared, 0, sizeof *shared);
    for (int r = 0; r < p->size; r++) {
        fflush(NULL);
        pids[r] = fork();
        if (pids[r] == 0)
            member_main(p, r, fd);
        assert_true(pids[r] > 0);
    }
    double until_s = now_s() + 60;
    while (atomic_load(&shared->ready) < p->size && now_s() < until_s)
        sleep_us(200);
    if (atomic_load(&shared->ready) < p->size) {
        explain_hang();
        FAIL(p, "the members do not come together");
    }
}

/* Returns when it happened; for one that ends by itself that is not known yet. */
static double strike(const plan *p, pid_t victim)
{
    if (p->fate == EXITS)
        return now_s();
    sleep_us(p->delay_us);
    double at_s = now_s();
    kill(victim, fate_signals[p->fate]);
    return at_s;
}

static void check_victims_end(const plan *p, int how)
{
    bool right = p->fate == EXITS    ? WIFEXITED(how) && WEXITSTATUS(how) == FATE_EXIT_CODE
                 : p->fate == KILLED ? WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL
                                     : WIFSIGNALED(how) && WTERMSIG(how) == SIGSEGV;
    if (!right)
        FAIL(p, "rank %d ended with wait status 0x%x: \"%s\"", p->victim, (unsigned)how,
             shared->outcomes[p->victim].text);
}

/* ---- what they were told ---- */

/* Of all that the text names as missing, each is stopped, or itself waits in another group of the family. */
static bool names_the_stopped_only(const char *text)
{
    for (const char *which = text; (which = strstr(which, ", which ")) != NULL; which++)
        if (strncmp(which, ", which is stopped and ", 23) != 0 &&
            strncmp(which, ", which waits in ", 17) != 0)
            return false;
    return true;
}

static void check_text(const plan *p, int rank, const char *text, pid_t victim)
{
    char wanted[128];
    if (p->fate == STOPPED) /* in a part it has another rank, but the same process */
        snprintf(wanted, sizeof wanted, "process %d), which is stopped and ", (int)victim);
    else
        snprintf(wanted, sizeof wanted, "rank %d (process %d) %s", p->victim, (int)victim,
                 fate_ends[p->fate]);
    if (strstr(text, wanted) == NULL || (p->fate == STOPPED && !names_the_stopped_only(text)))
        FAIL(p, "rank %d was told \"%s\", not \"%s\"", rank, text, wanted);
}

static void check_told(const plan *p, int rank, pid_t victim, double since_s)
{
    const outcome *o = &shared->outcomes[rank];
    lks_status wanted = p->fate == STOPPED ? LKS_E_TIMEOUT : LKS_E_PEER;
    if (o->status != wanted || o->again != wanted)
        FAIL(p, "rank %d: %s, then %s, wanted %s: \"%s\", then \"%s\"", rank, lks_status_name(o->status),
             lks_status_name(o->again), lks_status_name(wanted), o->text, o->again_text);
    check_text(p, rank, o->text, victim);
    check_text(p, rank, o->again_text, victim);
    if (o->wrong_calls != 0)
        FAIL(p, "rank %d: %d later calls did not fail as the first one: \"%s\"", rank, o->wrong_calls,
             o->again_text);
    if (rank == p->victim)
        return;
    double latency_s = o->at_s - since_s - (p->fate == STOPPED ? p->timeout_s : 0);
    if (n_latencies[p->fate] < MOST_LATENCIES)
        latencies[p->fate][n_latencies[p->fate]++] = latency_s;
    if (latency_s > asked.limit_s)
        FAIL(p, "rank %d was told %.3f s too late: \"%s\"", rank, latency_s - asked.limit_s, o->text);
}

/* ---- what is left behind ---- */

static int count_files(const char *path)
{
    int n = 0;
    DIR *entries = opendir(path);
    assert_non_null(entries);
    while (readdir(entries) != NULL)
        n++;
    closedir(entries);
    return n - 2; /* . and .. */
}

/* Whether a process has the file open. */
static bool has_open(const char *process, const struct stat *file)
{
    char path[320];
    bool found = false;
    struct dirent *entry;
    struct stat other;
    snprintf(path, sizeof path, "/proc/%s/fd", process);
    DIR *entries = opendir(path);
    if (entries == NULL)
        return false; /* not ours, or gone */
    while ((entry = readdir(entries)) != NULL)
        found = found || (fstatat(dirfd(entries), entry->d_name, &other, 0) == 0 &&
                          other.st_ino == file->st_ino && other.st_dev == file->st_dev);
    closedir(entries);
    return found;
}

static int count_holders(const struct stat *file)
{
    int n = 0;
    struct dirent *entry;
    DIR *processes = opendir("/proc");
    assert_non_null(processes);
    while ((entry = readdir(processes)) != NULL)
        n += entry->d_name[0] >= '0' && entry->d_name[0] <= '9' && has_open(entry->d_name, file);
    closedir(processes);
    return n;
}

/* The memory file of the group, as rank 0 has it. */
static bool find_memory_file(pid_t rank0, struct stat *out)
{
    char path[64], target[64];
    bool found = false;
    struct dirent *entry;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)rank0);
    DIR *entries = opendir(path);
    while (entries != NULL && !found && (entry = readdir(entries)) != NULL) {
        ssize_t n = readlinkat(dirfd(entries), entry->d_name, target, sizeof target - 1);
        target[n > 0 ? n : 0] = '\0';
        found = strncmp(target, "/memfd:lockstep", 15) == 0 &&
                fstatat(dirfd(entries), entry->d_name, out, 0) == 0;
    }
    if (entries != NULL)
        closedir(entries);
    return found;
}

static void check_nothing_left(const plan *p, int fd, const struct stat *file)
{
    if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD)
        FAIL(p, "there are processes left"); /* of any depth: this process is their subreaper */
    int holders = count_holders(file);
    if (holders != (fd >= 0))
        FAIL(p, "%d processes have the memory file", holders);
    /* refused as long as anybody maps it */
    if (fd >= 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) != 0)
        FAIL(p, "the memory file is still mapped: errno %d", errno);
    char path[sizeof folder + 16];
    snprintf(path, sizeof path, "%s/lockstep", folder);
    if (p->by_socket && count_files(path) != 0)
        FAIL(p, "there are files left in %s", path);
}

/* ---- a round ---- */

static void run_round(unsigned number)
{
    plan p = plan_of(number);
    struct stat file;
    pid_t victim;
    int fd = p.by_socket ? -1 : memfd_create("lockstep-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int n_open = count_files("/proc/self/fd"), how = -1;
    start(&p, fd);
    victim = pids[p.victim];
    assert_true(find_memory_file(pids[0], &file));
    double since_s = strike(&p, victim), until_s = now_s() + p.timeout_s + 30;
    if (p.reaped_first && p.fate != STOPPED)
        how = end_of(&p, p.victim, until_s);
    for (int r = 0; r < p.size; r++) {
        if (r == p.victim)
            continue;
        int survivors_end = end_of(&p, r, until_s);
        if (survivors_end != 0)
            FAIL(&p, "rank %d ended with wait status 0x%x", r, (unsigned)survivors_end);
    }
    if (p.fate == STOPPED) { /* it goes on, and is told the same */
        kill(victim, SIGCONT);
        CHECK_INT(end_of(&p, p.victim, until_s), 0);
    } else {
        check_victims_end(&p, p.reaped_first ? how : end_of(&p, p.victim, until_s));
    }
    since_s = p.fate == EXITS ? shared->exits_at_s : since_s;
    for (int r = 0; r < p.size; r++)
        if (r != p.victim || p.fate == STOPPED)
            check_told(&p, r, victim, since_s);
    check_nothing_left(&p, fd, &file);
    CHECK_INT(count_files("/proc/self/fd"), n_open);
    if (fd >= 0)
        close(fd);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void every_survivor_is_told(void **state)
{
    (void)state;
    for (unsigned i = 0; i < asked.rounds; i++)
        run_round(asked.first + i);
    for (int f = 0; f < N_FATES; f++) {
        int n = n_latencies[f];
        if (n == 0)
            continue;
        qsort(latencies[f], (size_t)n, sizeof latencies[f][0], by_value);
        printf("%-8s %4d survivors were told: median %.1f ms, at most %.1f ms %s\n", fate_names[f], n,
               latencies[f][n / 2] * 1e3, latencies[f][n - 1] * 1e3,
               f == STOPPED ? "after the deadline" : "after the end");
    }
}

static int setup(void **state)
{
    (void)state;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || mkdtemp(folder) == NULL || setenv("XDG_RUNTIME_DIR", folder, 1) != 0)
        return -1;
    return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

static int teardown(void **state)
{
    (void)state;
    char path[sizeof folder + 16];
    snprintf(path, sizeof path, "%s/lockstep", folder);
    (void)rmdir(path);
    return rmdir(folder);
}

int main(int n_arguments, char **arguments)
{
    /* The contract is a second. A loaded machine may take longer, and sanitizers do to tear a process down;
     * who is not told at all waits three times as long. */
    asked.limit_s = 10;
    if (n_arguments > 1)
        asked.rounds = (unsigned)strtoul(arguments[1], NULL, 10);
    if (n_arguments > 2)
        asked.first = (unsigned)strtoul(arguments[2], NULL, 10);
    if (n_arguments > 3)
        asked.limit_s = strtod(arguments[3], NULL);
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_survivor_is_told)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
