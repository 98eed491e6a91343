/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* memfd_create, MAP_ANONYMOUS */

#include "comm/members.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#include "comm/machines.h"
#include "comm/mpi_members.h"

enum { ALARM_S = 240, TIMEOUT_S = 120, MAX_SIZE = 16 };

const char *const member_kind_names[N_MEMBER_KINDS] = {
    [AS_THREADS] = "threads",        [AS_PROCESSES] = "processes",
    [ON_HALVES] = "on two machines", [IN_TURNS] = "on machines in turns",
    [EACH_ALONE] = "each alone",     [AS_STRANGERS] = "strangers"};

int machine_of_rank(member_kind kind, int rank, int size)
{
    switch (kind) {
    case ON_HALVES:
        return rank >= (size + 1) / 2;
    case IN_TURNS:
        return rank % (size < 5 ? 2 : 3);
    case EACH_ALONE:
        return rank;
    default:
        return 0;
    }
}

typedef struct job {
    member self;
    member_fn *body;
} job;

void member_fails(member *self, const char *format, ...)
{
    if (self->failure[0] != '\0')
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(self->failure, MEMBER_TEXT_BYTES, format, args);
    va_end(args);
}

static void *thread_main(void *argument)
{
    job *j = argument;
    j->body(&j->self);
    lks_group_destroy(j->self.group);
    return NULL;
}

static void create_groups(member_kind kind, int size, lks_group **groups)
{
    int machine_of[MAX_SIZE];
    if (!over_machines(kind) || size == 1) {
        CHECK_OK(lks_group_create_threads(size, TIMEOUT_S, groups));
        return;
    }
    for (int r = 0; r < size; r++)
        machine_of[r] = machine_of_rank(kind, r, size);
    machines_create(size, machine_of, TIMEOUT_S, groups);
}

static void run_threads(member_kind kind, int size, job *jobs)
{
    lks_group *groups[MAX_SIZE];
    pthread_t threads[MAX_SIZE];
    create_groups(kind, size, groups);
    for (int r = 0; r < size; r++) {
        jobs[r].self.group = groups[r];
        assert_int_equal(pthread_create(&threads[r], NULL, thread_main, &jobs[r]), 0);
    }
    for (int r = 0; r < size; r++)
        pthread_join(threads[r], NULL);
}

static void process_main(job *j, const lks_group_config *config)
{
    alarm(ALARM_S);
    lks_status status = lks_group_create(config, &j->self.group);
    if (status != LKS_OK)
        member_fails(&j->self, "create: %s: %s", lks_status_name(status), lks_error_message());
    else
        j->body(&j->self);
    lks_group_destroy(j->self.group);
    _exit(0);
}

static void run_processes(member_kind kind, int size, job *jobs)
{
    pid_t pids[MAX_SIZE];
    lks_group_config config = lks_group_config_default();
    config.size = size;
    config.timeout_s = TIMEOUT_S;
    config.address = "127.0.0.1";
    config.port = 20000 + (int)getpid() % 20000;
    if (kind == AS_PROCESSES)
        config.fd = memfd_create("members", 0);
    for (int r = 0; r < size; r++) {
        config.rank = r;
        fflush(NULL);
        pids[r] = fork();
        if (pids[r] == 0)
            process_main(&jobs[r], &config);
        assert_true(pids[r] > 0);
    }
    for (int r = 0; r < size; r++) {
        int how;
        assert_int_equal(waitpid(pids[r], &how, 0), pids[r]);
        if (!WIFEXITED(how) || WEXITSTATUS(how) != 0)
            member_fails(&jobs[r].self, "the process ended with wait status 0x%x", how);
    }
    if (config.fd >= 0)
        close(config.fd);
}

static member_kind kind_by_environment(member_kind kind)
{
    const char *name = getenv("LKS_TEST_MEMBERS");
    for (int k = 0; k < N_MEMBER_KINDS && kind == AS_THREADS && name != NULL; k++)
        if (strcmp(name, member_kind_names[k]) == 0)
            return (member_kind)k;
    return kind;
}

void members_run(member_kind kind, int size, member_fn *body, const void *context)
{
    if (in_mpi_job()) {
        mpi_job_run(kind, size, body, context);
        return;
    }
    kind = kind_by_environment(kind);
    char(*failures)[MEMBER_TEXT_BYTES] = mmap(NULL, MAX_SIZE * sizeof *failures, PROT_READ | PROT_WRITE,
                                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(failures != MAP_FAILED && size <= MAX_SIZE);
    job jobs[MAX_SIZE];
    for (int r = 0; r < size; r++)
        jobs[r] = (job){{NULL, r, size, kind, context, failures[r]}, body};
    alarm(ALARM_S);
    if (kind == AS_PROCESSES || kind == AS_STRANGERS)
        run_processes(kind, size, jobs);
    else
        run_threads(kind, size, jobs);
    alarm(0);

    char text[MEMBER_TEXT_BYTES + 64] = "";
    for (int r = size - 1; r >= 0; r--)
        if (failures[r][0] != '\0')
            snprintf(text, sizeof text, "rank %d of %d %s: %s", r, size, member_kind_names[kind],
                     failures[r]);
    munmap(failures, MAX_SIZE * sizeof *failures);
    if (text[0] != '\0')
        fail_msg("%s", text);
}
