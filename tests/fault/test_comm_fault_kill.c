/* SPDX-License-Identifier: Apache-2.0 */
/* Members that are killed while others join, and on kernels that don't tell of a death by themselves. */
#define _GNU_SOURCE /* memfd_create, MAP_ANONYMOUS, seccomp */

#include "check.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <lockstep/group.h>

#include "comm/shm/shm_control.h"

enum { MAX = 3, TEXT_BYTES = 1024, ALARM_S = 120, MOST = 200000 };

/* The contract is one second from the death to the error. A loaded machine may take longer, and sanitizers
 * do to tear a process down; members that are not told wait for the deadline, three times as long as this. */
static const double limit_s = 10, deadline_s = 30;

typedef struct outcome {
    lks_status status, again; /* of the first failure, and of the next call */
    double at_s;
    char text[TEXT_BYTES], again_text[TEXT_BYTES];
} outcome;

/* Shared with the members. */
typedef struct board {
    _Atomic int ready; /* members that have joined and work */
    outcome outcomes[MAX];
} board;

typedef struct setting {
    int size, fd;
    double timeout_s;
    bool without_pidfd;
} setting;

static board *shared;
static bool can_forbid_pidfd;
static float buffer[MOST];

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* Makes pidfd_open fail for this process as on a kernel that does not know it. False: not allowed here. */
static bool forbid_pidfd(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_open, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

static bool may_forbid_pidfd(void)
{
    int how = -1;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        _exit(!forbid_pidfd());
    return waitpid(pid, &how, 0) == pid && how == 0;
}

static void note(outcome *o, lks_status status, lks_group *group)
{
    o->at_s = now_s();
    o->status = status;
    snprintf(o->text, TEXT_BYTES, "%s", lks_error_message());
    if (group != NULL) {
        o->again = lks_group_barrier(group);
        snprintf(o->again_text, TEXT_BYTES, "%s", lks_error_message());
    }
}

static void member_main(const setting *how, int rank)
{
    alarm(ALARM_S);
    lks_group_config config = {.rank = rank, .size = how->size, .fd = how->fd, .timeout_s = how->timeout_s};
    lks_group *group = NULL;
    if (how->without_pidfd && !forbid_pidfd())
        _exit(3);
    lks_status status = lks_group_create(&config, &group);
    atomic_fetch_add(&shared->ready, 1);
    for (int count = 1; status == LKS_OK; count = count * 3 % 199999)
        status = lks_group_all_reduce(group, buffer, (size_t)count, LKS_F32, LKS_MAX);
    note(&shared->outcomes[rank], status, group);
    lks_group_destroy(group);
    _exit(0);
}

static void start(const setting *how, pid_t pids[MAX])
{
    memset(shared, 0, sizeof *shared);
    for (int r = 0; r < how->size; r++) {
        fflush(NULL);
        pids[r] = fork();
        if (pids[r] == 0)
            member_main(how, r);
        assert_true(pids[r] > 0);
    }
}

static void check_survivor(int rank, const char *culprit, double since_s)
{
    const outcome *o = &shared->outcomes[rank];
    if (o->status != LKS_E_PEER || strstr(o->text, culprit) == NULL)
        fail_msg("rank %d: %s \"%s\", wanted \"%s\"", rank, lks_status_name(o->status), o->text, culprit);
    CHECK_INT(o->again, o->status);
    assert_string_equal(o->again_text, o->text);
    if (o->at_s - since_s > limit_s)
        fail_msg("rank %d was told after %.2f s", rank, o->at_s - since_s);
}

static int end_of(pid_t pid)
{
    int how = -1;
    assert_int_equal(waitpid(pid, &how, 0), pid);
    return how;
}

static void check_death_without_pidfd(int victim)
{
    pid_t pids[MAX];
    char culprit[80];
    setting how = {
        .size = MAX, .timeout_s = deadline_s, .without_pidfd = true, .fd = memfd_create("test", 0)};
    start(&how, pids);
    while (atomic_load(&shared->ready) < how.size)
        sleep_ms(1);
    sleep_ms(victim * 7);
    double since_s = now_s();
    kill(pids[victim], SIGKILL);
    for (int r = 0; r < how.size; r++)
        if (r != victim)
            CHECK_INT(end_of(pids[r]), 0);
    /* only now: who launches may be slow to reap, and the survivors know all the same */
    CHECK_INT(WTERMSIG(end_of(pids[victim])), SIGKILL);
    snprintf(culprit, sizeof culprit, "rank %d (process %d) died of signal 9 (SIGKILL)", victim,
             (int)pids[victim]);
    for (int r = 0; r < how.size; r++)
        if (r != victim)
            check_survivor(r, culprit, since_s);
    close(how.fd);
}

static void killed_members_are_named_without_pidfd(void **state)
{
    (void)state;
    if (!can_forbid_pidfd)
        skip();
    for (int victim = 0; victim < MAX; victim++)
        check_death_without_pidfd(victim);
}

/* Rank 2 never comes; rank 1 dies while it waits for that. */
static void check_death_while_joining(bool without_pidfd)
{
    memset(shared, 0, sizeof *shared);
    setting how = {
        .size = 3, .timeout_s = deadline_s, .fd = memfd_create("test", 0), .without_pidfd = without_pidfd};
    assert_int_equal(ftruncate(how.fd, (off_t)lks__shm_control_bytes(3)), 0);
    lks__shm_control *control = mmap(NULL, lks__shm_control_bytes(3), PROT_READ | PROT_WRITE, MAP_SHARED,
                                     how.fd, 0);
    assert_true(control != MAP_FAILED);
    pid_t pids[2];
    for (int r = 0; r < 2; r++) {
        fflush(NULL);
        pids[r] = fork();
        if (pids[r] == 0)
            member_main(&how, r);
        assert_true(pids[r] > 0); /* kill(-1) would reach everybody */
    }
    for (int r = 0; r < 2; r++)
        while (atomic_load(&control->slots[r].arrivals) == 0)
            sleep_ms(1);
    double since_s = now_s();
    kill(pids[1], SIGKILL);
    CHECK_INT(end_of(pids[0]), 0);
    CHECK_INT(WTERMSIG(end_of(pids[1])), SIGKILL);
    const outcome *o = &shared->outcomes[0];
    CHECK_INT(o->status, LKS_E_PEER);
    assert_non_null(strstr(o->text, "rank 1 (process "));
    assert_non_null(strstr(o->text, "died of signal 9 (SIGKILL) while rank 0 waited in group_create"));
    assert_true(o->at_s - since_s < limit_s);
    munmap(control, lks__shm_control_bytes(3));
    close(how.fd);
}

static void a_member_that_dies_while_others_join_is_named(void **state)
{
    (void)state;
    check_death_while_joining(false);
}

static void a_member_that_dies_while_others_join_is_named_without_pidfd(void **state)
{
    (void)state;
    if (!can_forbid_pidfd)
        skip();
    check_death_while_joining(true);
}

static int setup(void **state)
{
    (void)state;
    can_forbid_pidfd = may_forbid_pidfd();
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    alarm(ALARM_S);
    return shared == MAP_FAILED;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_members_are_named_without_pidfd),
        cmocka_unit_test(a_member_that_dies_while_others_join_is_named),
        cmocka_unit_test(a_member_that_dies_while_others_join_is_named_without_pidfd),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
