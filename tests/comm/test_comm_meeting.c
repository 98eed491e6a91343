/* SPDX-License-Identifier: Apache-2.0 */
/* How processes become a group: by a memory file that they use again, or at a socket; and how that fails. */
#define _GNU_SOURCE /* memfd_create, MAP_ANONYMOUS */

#include "check.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lockstep/group.h>

enum { MAX = 6, TEXT_BYTES = 512, ALARM_S = 60 };

/* What came of one process's lks_group_create, in memory that the test shares with it. */
typedef struct outcome {
    lks_status status;
    char text[TEXT_BYTES];
} outcome;

static outcome *outcomes; /* [MAX] */
static char folder[] = "/tmp/lks-meeting-XXXXXX";

static int setup(void **state)
{
    (void)state;
    outcomes = mmap(NULL, MAX * sizeof *outcomes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    unsetenv("TORCHELASTIC_RUN_ID");
    unsetenv("TORCHELASTIC_RESTART_COUNT");
    return outcomes == MAP_FAILED || mkdtemp(folder) == NULL || setenv("XDG_RUNTIME_DIR", folder, 1) != 0;
}

static int teardown(void **state)
{
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "%s/lockstep", folder);
    (void)rmdir(path);
    (void)rmdir(folder);
    return 0;
}

static lks_group_config config_of(int rank, int size)
{
    lks_group_config config = lks_group_config_default();
    config.rank = rank;
    config.size = size;
    config.address = "127.0.0.1";
    config.port = 29500;
    config.timeout_s = 30;
    return config;
}

/* One process that creates the group, sums up ones, and leaves. */
static pid_t start(int index, lks_group_config config)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0); /* kill(-1) would reach everybody */
    if (pid != 0)
        return pid;
    alarm(ALARM_S);
    lks_group *group;
    int32_t one = 1;
    lks_status status = lks_group_create(&config, &group);
    if (status == LKS_OK)
        status = lks_group_all_reduce(group, &one, 1, LKS_I32, LKS_SUM);
    outcomes[index].status = status;
    snprintf(outcomes[index].text, TEXT_BYTES, "%s", status == LKS_OK ? "" : lks_error_message());
    if (status == LKS_OK && one != config.size)
        snprintf(outcomes[index].text, TEXT_BYTES, "the sum is %d", (int)one);
    lks_group_destroy(group);
    _exit(0);
}

static void wait_all(int n, const pid_t *pids)
{
    for (int i = 0; i < n; i++) {
        int how = -1;
        assert_int_equal(waitpid(pids[i], &how, 0), pids[i]);
        CHECK_INT(how, 0);
    }
}

static void check_outcome(int index, lks_status status, const char *text)
{
    const outcome *o = &outcomes[index];
    if (o->status != status || strstr(o->text, text) == NULL || (status == LKS_OK && o->text[0] != '\0'))
        fail_msg("process %d: %s \"%s\", wanted %s \"%s\"", index, lks_status_name(o->status), o->text,
                 lks_status_name(status), text);
}

static int files_in_folder(void)
{
    char path[64];
    snprintf(path, sizeof path, "%s/lockstep", folder);
    DIR *directory = opendir(path);
    assert_non_null(directory);
    int n = 0;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        n += entry->d_name[0] != '.';
    closedir(directory);
    return n;
}

/* ---- at a socket ---- */

static void run_meeting(int size, const int *ranks, const int *sizes)
{
    pid_t pids[MAX];
    for (int i = 0; i < size; i++)
        pids[i] = start(i, config_of(ranks[i], sizes[i]));
    wait_all(size, pids);
    CHECK_INT(files_in_folder(), 0);
}

static void strangers_meet_in_any_order(void **state)
{
    (void)state;
    run_meeting(4, (int[]){3, 1, 0, 2}, (int[]){4, 4, 4, 4});
    for (int i = 0; i < 4; i++)
        check_outcome(i, LKS_OK, "");
}

static void two_of_one_rank_are_refused(void **state)
{
    (void)state;
    run_meeting(3, (int[]){0, 1, 1}, (int[]){3, 3, 3});
    for (int i = 0; i < 3; i++)
        check_outcome(i, LKS_E_ARG, "two members say that they are rank 1");
}

static void sizes_that_differ_are_refused(void **state)
{
    (void)state;
    run_meeting(2, (int[]){0, 1}, (int[]){2, 4});
    for (int i = 0; i < 2; i++)
        check_outcome(i, LKS_E_ARG, "rank 1 says that the group has 4 members, rank 0 says 2");
}

static void who_is_missing_is_named(void **state)
{
    (void)state;
    lks_group *group;
    lks_group_config config = config_of(0, 3);
    config.timeout_s = 0.3;
    CHECK_FAILS(lks_group_create(&config, &group), LKS_E_TIMEOUT,
                "rank 0 waited 0.3 s at 127.0.0.1:29500 for rank 1, rank 2");
    config.rank = 2;
    CHECK_FAILS(lks_group_create(&config, &group), LKS_E_TIMEOUT,
                "rank 2 waited 0.3 s at 127.0.0.1:29500 for rank 0");
    CHECK_INT(files_in_folder(), 0);
}

/* A second rank 0 at the same address, while the first one waits. */
static void an_address_in_use_is_refused(void **state)
{
    (void)state;
    pid_t pids[2] = {start(0, config_of(0, 2))};
    while (files_in_folder() == 0)
        usleep(1000);
    lks_group *group;
    lks_group_config config = config_of(0, 2);
    char text[64];
    snprintf(text, sizeof text, "process %d is already waiting as rank 0", (int)pids[0]);
    CHECK_FAILS(lks_group_create(&config, &group), LKS_E_ARG, text);
    pids[1] = start(1, config_of(1, 2));
    wait_all(2, pids);
    check_outcome(0, LKS_OK, "");
    check_outcome(1, LKS_OK, "");
}

/* A host that was killed leaves its socket; a new run at the same address replaces it. */
static void a_leftover_is_replaced(void **state)
{
    (void)state;
    pid_t victim = start(0, config_of(0, 2));
    while (files_in_folder() == 0)
        usleep(1000);
    kill(victim, SIGKILL);
    assert_int_equal(waitpid(victim, NULL, 0), victim);
    CHECK_INT(files_in_folder(), 1);
    run_meeting(2, (int[]){1, 0}, (int[]){2, 2});
    check_outcome(0, LKS_OK, "");
    check_outcome(1, LKS_OK, "");
}

/* A guest that dies while it waits is forgotten, and its place can be taken. */
static void a_guest_that_died_can_be_replaced(void **state)
{
    (void)state;
    pid_t pids[3] = {start(0, config_of(0, 3)), 0, 0};
    pid_t victim = start(5, config_of(1, 3));
    usleep(100 * 1000); /* most likely connected; if not, the test is only weaker */
    kill(victim, SIGKILL);
    assert_int_equal(waitpid(victim, NULL, 0), victim);
    pids[1] = start(1, config_of(1, 3));
    pids[2] = start(2, config_of(2, 3));
    wait_all(3, pids);
    for (int i = 0; i < 3; i++)
        check_outcome(i, LKS_OK, "");
}

static void a_folder_that_others_can_read_is_refused(void **state)
{
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "%s/lockstep", folder);
    lks_group *group;
    lks_group_config config = config_of(0, 2);
    assert_int_equal(chmod(path, 0755), 0);
    CHECK_FAILS(lks_group_create(&config, &group), LKS_E_ARG, "must belong to this user and have mode 0700");
    assert_int_equal(chmod(path, 0700), 0);
}

/* ---- with an inherited file ---- */

static void run_with_file(int fd, int size, const int *ranks, const int *sizes)
{
    pid_t pids[MAX];
    for (int i = 0; i < size; i++) {
        lks_group_config config = config_of(ranks[i], sizes[i]);
        config.fd = fd;
        pids[i] = start(i, config);
    }
    wait_all(size, pids);
}

static void one_file_serves_one_group_after_the_other(void **state)
{
    (void)state;
    int fd = memfd_create("test", 0);
    for (int round = 0; round < 10; round++) {
        run_with_file(fd, 3, (int[]){2, 0, 1}, (int[]){3, 3, 3});
        for (int i = 0; i < 3; i++)
            check_outcome(i, LKS_OK, "");
    }
    run_with_file(fd, 2, (int[]){0, 1}, (int[]){2, 2});
    check_outcome(0, LKS_OK, "");
    close(fd);
}

static void create_twice(int index, lks_group_config config)
{
    alarm(ALARM_S);
    outcomes[index] = (outcome){LKS_OK, ""};
    for (int i = 0; i < 100 && outcomes[index].status == LKS_OK; i++) {
        lks_group *group;
        outcomes[index].status = lks_group_create(&config, &group);
        if (outcomes[index].status != LKS_OK)
            snprintf(outcomes[index].text, TEXT_BYTES, "%s", lks_error_message());
        lks_group_destroy(group);
    }
    _exit(0);
}

/* Each process makes the next group as soon as it has left the last one, whoever else is still in it. */
static void the_same_processes_may_form_a_group_again(void **state)
{
    (void)state;
    pid_t pids[3];
    lks_group_config config = config_of(0, 3);
    config.fd = memfd_create("test", 0);
    for (config.rank = 0; config.rank < 3; config.rank++) {
        fflush(NULL);
        pids[config.rank] = fork();
        if (pids[config.rank] == 0)
            create_twice(config.rank, config);
    }
    wait_all(3, pids);
    for (int i = 0; i < 3; i++)
        check_outcome(i, LKS_OK, "");
    close(config.fd);
}

static void a_file_with_two_of_one_rank_is_refused(void **state)
{
    (void)state;
    int fd = memfd_create("test", 0);
    run_with_file(fd, 3, (int[]){0, 1, 1}, (int[]){3, 3, 3});
    for (int i = 0; i < 3; i++)
        check_outcome(i, LKS_E_ARG, "two members say that they are rank 1: processes ");
    close(fd);
}

static void a_file_with_two_sizes_is_refused(void **state)
{
    (void)state;
    int fd = memfd_create("test", 0);
    run_with_file(fd, 2, (int[]){0, 1}, (int[]){2, 3});
    for (int i = 0; i < 2; i++)
        check_outcome(i, LKS_E_ARG, "members, others say ");
    close(fd);
}

static void a_file_of_something_else_is_refused(void **state)
{
    (void)state;
    lks_group *group;
    lks_group_config config = config_of(0, 2);
    config.fd = memfd_create("test", 0);
    assert_int_equal(write(config.fd, "something else", 14), 14);
    CHECK_FAILS(lks_group_create(&config, &group), LKS_E_ARG, "another version of lockstep, or none");
    close(config.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strangers_meet_in_any_order),
        cmocka_unit_test(two_of_one_rank_are_refused),
        cmocka_unit_test(sizes_that_differ_are_refused),
        cmocka_unit_test(who_is_missing_is_named),
        cmocka_unit_test(an_address_in_use_is_refused),
        cmocka_unit_test(a_leftover_is_replaced),
        cmocka_unit_test(a_guest_that_died_can_be_replaced),
        cmocka_unit_test(a_folder_that_others_can_read_is_refused),
        cmocka_unit_test(one_file_serves_one_group_after_the_other),
        cmocka_unit_test(the_same_processes_may_form_a_group_again),
        cmocka_unit_test(a_file_with_two_of_one_rank_is_refused),
        cmocka_unit_test(a_file_with_two_sizes_is_refused),
        cmocka_unit_test(a_file_of_something_else_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
