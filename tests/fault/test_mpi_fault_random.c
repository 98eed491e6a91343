/* SPDX-License-Identifier: Apache-2.0 */
/* A process of an MPI job that is killed, stopped, or ends, at a random moment of a random operation or of
 * `lockstep train`: the job ends before the deadline, nothing is left behind, and whoever is still told
 * something is told who it was.
 *
 * test_mpi_fault_random openmpi|mpich [ROUNDS] [FIRST]: a round depends on its number only, but for the
 * moment. Members are this program again: member NUMBER BOARD. Exit code 77: that MPI is not here. */
#define _XOPEN_SOURCE 700 /* nftw */
#define _GNU_SOURCE

#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault/fate.h"
#include "fault/job_processes.h"

enum {
    MAX = 6,
    SKIPPED = 77,
    PATH_BYTES = 512,
    TRAIN_EVERY = 3, /* rounds: one is of `lockstep train` */
    START_S = 120,   /* for a job to start, on a loaded machine */
    /* What a launcher may take to end a job when it has been told (Open MPI: 5 s between SIGTERM and
     * SIGKILL), on a loaded machine. */
    GRACE_S = 20,
    LEFT_S = 5, /* after the launcher, for what is about to end */
};

/* Shared with the members: a file. */
typedef struct board {
    _Atomic int pids[MAX]; /* by rank */
    _Atomic int ready;     /* members that have joined and work */
    _Atomic bool striking;
    double exits_at_s; /* when the one that ends by itself does so */
    outcome outcomes[MAX];
} board;

typedef struct plan {
    unsigned number;
    fate fate;
    bool trains;
    bool lets_live; /* the launcher, when a process ends */
    int size, per_machine, victim;
    int delay_us;
    double timeout_s;
    uint64_t seed;
} plan;

static struct {
    unsigned rounds, first;
} asked = {9, 0};

static char folder[] = "/tmp/lockstep-fault-XXXXXX"; /* of this test */
static char program_path[PATH_BYTES];
static job the_job = {.variable = "FAULT_FOLDER", .value = folder};
static board *shared;
static double latest_s[N_FATES]; /* from the fault, or the deadline, to the end of the job */
static int n_told, n_not_told, n_aborted;

static plan plan_of(unsigned number)
{
    dice d = {number};
    plan p = {.number = number, .fate = (fate)(number % N_FATES)};
    p.trains = number % TRAIN_EVERY == TRAIN_EVERY - 1;
    if (p.trains && p.fate == EXITS) /* who would? */
        p.fate = KILLED;
    p.lets_live = dice_below(&d, 2) == 0 && p.fate != STOPPED;
    p.size = 2 + (int)dice_below(&d, MAX - 1);
    p.per_machine = 1 + (int)dice_below(&d, (uint64_t)p.size);
    p.victim = (int)dice_below(&d, (uint64_t)p.size);
    p.delay_us = (int)dice_below(&d, 200000);
    p.seed = dice_below(&d, UINT64_MAX);
    p.timeout_s = p.fate == STOPPED ? 2 : 10;
    return p;
}

static const char *in_folder(const char *name)
{
    static char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static board *map_board(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(board)) != 0)
        return NULL;
    void *memory = mmap(NULL, sizeof(board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return memory != MAP_FAILED ? memory : NULL;
}

/* ---- a member ---- */

static int member_main(unsigned number, const char *board_path)
{
    plan p = plan_of(number);
    random_program program;
    lks_group_config config;
    lks_group *group;
    shared = map_board(board_path);
    fate_prepare();
    if (shared == NULL || lks_group_config_from_env(&config) != LKS_OK || config.backend != LKS_BACKEND_MPI)
        return 3;
    config.timeout_s = p.timeout_s;
    if (lks_group_create(&config, &group) != LKS_OK) {
        fprintf(stderr, "no group: %s\n", lks_error_message());
        return 4;
    }
    int rank = lks_group_rank(group);
    atomic_store(&shared->pids[rank], (int)getpid());
    random_program_init(&program, group, p.seed);
    atomic_fetch_add(&shared->ready, 1);
    while (!atomic_load(&shared->striking))
        sleep_us(500);
    if (p.fate == EXITS && rank == p.victim && !fate_exit_after(p.delay_us, &shared->exits_at_s))
        return 5;
    lks_status status = LKS_OK;
    while (status == LKS_OK)
        status = random_program_step(&program);
    outcome_note(&shared->outcomes[rank], status, &program);
    sleep_us(1000000); /* the launcher ends the others when the first one ends: let them be told, too */
    random_program_deinit(&program);
    lks_group_destroy(group);
    return 1;
}

/* ---- a job ---- */

static void show_output(void)
{
    char line[1024];
    FILE *file = fopen(in_folder("output"), "re");
    for (int n = 0; file != NULL && n < 60 && fgets(line, sizeof line, file) != NULL; n++)
        fputs(line, stderr);
    if (file != NULL)
        fclose(file);
}

#define FAIL(p, launcher, ...)                                                                               \
    do {                                                                                                     \
        char fail_text[3 * FATE_TEXT_BYTES];                                                                 \
        snprintf(fail_text, sizeof fail_text, __VA_ARGS__);                                                  \
        job_kill(&the_job, launcher, MAX);                                                                   \
        show_output();                                                                                       \
        fail_msg("round %u (%s of rank %d of %d, %d on a machine, after %d us%s): %s\n"                      \
                 "  once more: test_mpi_fault_random %s 1 %u",                                               \
                 (p)->number, fate_names[(p)->fate], (p)->victim, (p)->size, (p)->per_machine,               \
                 (p)->delay_us, (p)->trains ? ", training" : "", fail_text, the_job.mpi, (p)->number);       \
    } while (0)

/* In the new process. */
static void become_launcher(const plan *p)
{
    enum { MOST = 32 };
    char size[16], number[16], timeout[48], run[PATH_BYTES];
    const char *words[MOST] = {NULL};
    bool open_mpi = strcmp(the_job.mpi, "openmpi") == 0;
    snprintf(size, sizeof size, "%d", p->size);
    snprintf(number, sizeof number, "%u", p->number);
    snprintf(timeout, sizeof timeout, "comm.timeout=%g", p->timeout_s);
    snprintf(run, sizeof run, "%s", in_folder("run"));
    const char *const launcher[] = {open_mpi ? "mpirun.openmpi" : "mpirun.mpich", "-n", size};
    const char *const member[] = {program_path, "member", number, in_folder("board")};
    const char *const train[] = {getenv("LOCKSTEP_BINARY"),
                                 "train",
                                 "examples/digits.yaml",
                                 "--output",
                                 run,
                                 "epochs=auto",
                                 "steps=100000000",
                                 "model.hidden=[256, 256]",
                                 "world=60",
                                 "batch.local=1",
                                 "metrics.every_steps=1",
                                 timeout};
    int n = 0, n_train = sizeof train / sizeof train[0], n_member = sizeof member / sizeof member[0];
    for (int i = 0; i < 3; i++)
        words[n++] = launcher[i];
    if (open_mpi)
        words[n++] = "--oversubscribe";
    if (p->lets_live)
        words[n++] = open_mpi ? "--enable-recovery" : "-disable-auto-cleanup";
    for (int i = 0; i < (p->trains ? n_train : n_member); i++)
        words[n++] = p->trains ? train[i] : member[i];
    char machine[16];
    snprintf(machine, sizeof machine, "%d", p->per_machine);
    setenv("LOCKSTEP_RANKS_PER_NODE", machine, 1);
    execvp(words[0], (char *const *)words);
}

static pid_t start_launcher(const plan *p)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    int out = open(in_folder("output"), O_WRONLY | O_CREAT | O_TRUNC, 0600),
        none = open("/dev/null", O_RDONLY);
    setpgid(0, 0);
    if (out >= 0 && none >= 0 && dup2(none, 0) == 0 && dup2(out, 1) == 1 && dup2(out, 2) == 2)
        become_launcher(p);
    _exit(127);
}

static bool works(const plan *p)
{
    struct stat about;
    if (!p->trains)
        return atomic_load(&shared->ready) == p->size;
    return stat(in_folder("run/metrics.jsonl"), &about) == 0 && about.st_size > 0;
}

static void wait_until_it_works(const plan *p, pid_t launcher)
{
    double until_s = now_s() + START_S;
    while (!works(p) && now_s() < until_s && waitpid(launcher, NULL, WNOHANG) == 0)
        sleep_us(2000);
    if (!works(p))
        FAIL(p, launcher, "the job does not come to work");
}

/* Returns the victim's process, and in *at_s when it happened; later, for one that ends by itself. */
static pid_t strike(const plan *p, pid_t launcher, double *at_s)
{
    pid_t victim = job_process(&the_job, p->victim);
    if (victim < 0 || (!p->trains && victim != atomic_load(&shared->pids[p->victim])))
        FAIL(p, launcher, "there is no process of rank %d", p->victim);
    *at_s = now_s();
    atomic_store(&shared->striking, true);
    if (p->fate == EXITS)
        return victim;
    sleep_us(p->delay_us);
    *at_s = now_s();
    kill(victim, fate_signals[p->fate]);
    return victim;
}

/* How the launcher ends, and when. */
static int wait_for_end(const plan *p, pid_t launcher, double *at_s)
{
    int how = -1;
    double until_s = now_s() + p->timeout_s + GRACE_S;
    pid_t ended;
    while ((ended = waitpid(launcher, &how, WNOHANG)) == 0 && now_s() < until_s)
        sleep_us(2000);
    *at_s = now_s();
    if (ended != launcher)
        FAIL(p, launcher, "the job has not ended %g s after the fault", p->timeout_s + GRACE_S);
    return how;
}

/* This process is their subreaper: whatever the launcher leaves behind is its child. */
static void check_nothing_left(const plan *p, pid_t launcher)
{
    double until_s = now_s() + LEFT_S;
    pid_t ended;
    while ((ended = waitpid(-1, NULL, WNOHANG)) >= 0 && now_s() < until_s)
        if (ended == 0)
            sleep_us(2000);
    if (ended >= 0)
        FAIL(p, launcher, "the job has left processes");
}

/* ---- what they were told ---- */

static bool output_has(const char *text)
{
    char line[4096];
    bool found = false;
    FILE *file = fopen(in_folder("output"), "re");
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL)
        found = strstr(line, text) != NULL;
    if (file != NULL)
        fclose(file);
    return found;
}

/* Nobody else on the victim's machine could tell the others of its death before the deadline. */
static bool is_alone(const plan *p)
{
    int first = p->victim / p->per_machine * p->per_machine;
    return p->per_machine == 1 || (first == p->size - 1);
}

static void check_told(const plan *p, pid_t launcher, int rank, pid_t victim)
{
    const outcome *o = &shared->outcomes[rank];
    char who[64];
    if (o->at_s == 0) {
        n_not_told++;
        return;
    }
    bool at_deadline = p->fate == STOPPED || (is_alone(p) && o->status == LKS_E_TIMEOUT);
    lks_status wanted = at_deadline ? LKS_E_TIMEOUT : LKS_E_PEER;
    if (at_deadline) /* in a part it has another rank, but the same process */
        snprintf(who, sizeof who, "process %d)", (int)victim);
    else
        snprintf(who, sizeof who, "rank %d (process %d) died", p->victim, (int)victim);
    if (p->lets_live && strstr(o->text, "died of signal 6 (SIGABRT)") != NULL) {
        n_aborted++; /* the MPI's library ends a process that has lost a connection, perhaps before the victim
                        is gone */
        return;
    }
    if (o->status != wanted || o->again != wanted || strstr(o->text, who) == NULL)
        FAIL(p, launcher, "rank %d: %s, then %s, wanted %s and \"%s\": \"%s\"", rank,
             lks_status_name(o->status), lks_status_name(o->again), lks_status_name(wanted), who, o->text);
    if (o->wrong_calls != 0)
        FAIL(p, launcher, "rank %d: %d later calls did not fail as the first one: \"%s\"", rank,
             o->wrong_calls, o->again_text);
    n_told++;
}

static int remove_entry(const char *path, const struct stat *about, int type, struct FTW *where)
{
    (void)about, (void)type, (void)where;
    return remove(path);
}

static void remove_tree(const char *path)
{
    (void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void run_round(unsigned number)
{
    plan p = plan_of(number);
    double struck_s, ended_s;
    char text[64];
    remove_tree(in_folder("run"));
    memset(shared, 0, sizeof *shared);
    pid_t launcher = start_launcher(&p);
    assert_true(launcher > 0);
    wait_until_it_works(&p, launcher);
    pid_t victim = strike(&p, launcher, &struck_s);
    int how = wait_for_end(&p, launcher, &ended_s);
    check_nothing_left(&p, launcher);
    if (!p.lets_live && WIFEXITED(how) && WEXITSTATUS(how) == 0) /* one that does not care may say 0 */
        FAIL(&p, launcher, "the job has ended as if all was well");
    for (int r = 0; r < p.size && !p.trains; r++)
        if (r != p.victim)
            check_told(&p, launcher, r, victim);
    snprintf(text, sizeof text, "process %d)", (int)victim);
    if (p.trains && p.fate == STOPPED && !output_has(text))
        FAIL(&p, launcher, "nobody has named process %d", (int)victim);
    if (p.fate == EXITS)
        struck_s = shared->exits_at_s;
    double latency_s = ended_s - struck_s - (p.fate == STOPPED ? p.timeout_s : 0);
    latest_s[p.fate] = latency_s > latest_s[p.fate] ? latency_s : latest_s[p.fate];
}

static void every_job_ends(void **state)
{
    (void)state;
    for (unsigned i = 0; i < asked.rounds; i++)
        run_round(asked.first + i);
    for (int f = 0; f < N_FATES; f++)
        printf("%-8s the job had ended %.2f s after the %s at the latest\n", fate_names[f], latest_s[f],
               f == STOPPED ? "deadline" : "end");
    printf("%d survivors were told who it was, %d of a process that MPI aborted, %d were ended before\n",
           n_told, n_aborted, n_not_told);
}

/* ---- the test ---- */

static int setup(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL)
        return -1;
    shared = map_board(in_folder("board"));
    ssize_t length = readlink("/proc/self/exe", program_path, sizeof program_path - 1);
    if (shared == NULL || length < 0)
        return -1;
    setenv("FAULT_FOLDER", folder, 1);
    setenv("TMPDIR", folder, 1); /* of the launcher's own files */
    setenv("XDG_RUNTIME_DIR", folder, 1);
    setenv("LOCKSTEP_PLUGINS", getenv("LOCKSTEP_BUILD"), 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1); /* tests may be run by root */
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    return prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

static int teardown(void **state)
{
    (void)state;
    remove_tree(folder);
    return 0;
}

/* Why the test can't be made here; NULL: it can. */
static const char *missing(void)
{
    static char text[PATH_BYTES];
    const char *build = getenv("LOCKSTEP_BUILD"), *sanitizer = getenv("LOCKSTEP_SANITIZE");
    if (build == NULL || getenv("LOCKSTEP_BINARY") == NULL)
        return "LOCKSTEP_BUILD and LOCKSTEP_BINARY are not set, as CTest does";
    if (sanitizer != NULL && sanitizer[0] != '\0')
        return "MPI libraries and sanitizers do not go together";
    snprintf(text, sizeof text, "%s/liblockstep_%s.so", build, the_job.mpi);
    if (access(text, R_OK) != 0)
        return "lockstep is built without a plug-in for that MPI";
    snprintf(text, sizeof text, "command -v mpirun.%s >/dev/null", the_job.mpi);
    return system(text) != 0 ? "there is no launcher of that MPI" : NULL;
}

int main(int n_arguments, char **arguments)
{
    if (n_arguments > 3 && strcmp(arguments[1], "member") == 0)
        return member_main((unsigned)strtoul(arguments[2], NULL, 10), arguments[3]);
    the_job.mpi = n_arguments > 1 ? arguments[1] : "openmpi";
    if (n_arguments > 2)
        asked.rounds = (unsigned)strtoul(arguments[2], NULL, 10);
    if (n_arguments > 3)
        asked.first = (unsigned)strtoul(arguments[3], NULL, 10);
    if (missing() != NULL) {
        printf("skipped: %s: %s\n", the_job.mpi, missing());
        return SKIPPED;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_job_ends)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
