/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/mpi_members.h"

#include <stdlib.h>
#include <unistd.h>

#include "check.h"

enum { ALARM_S = 240, TIMEOUT_S = 120 };

bool in_mpi_job(void)
{
    static int size; /* 0: not looked yet */
    lks_group_config config;
    if (size == 0) {
        CHECK_OK(lks_group_config_from_env(&config));
        size = config.backend == LKS_BACKEND_MPI ? config.size : 1;
        if (size > 1)
            fprintf(stderr, "as processes of an MPI job of %d\n", size);
    }
    return size > 1;
}

static member_kind kind_of_job(int size)
{
    const char *text = getenv("LOCKSTEP_RANKS_PER_NODE");
    int on_each = text != NULL ? (int)strtol(text, NULL, 10) : size;
    if (on_each >= size)
        return AS_PROCESSES;
    return on_each == 1 ? EACH_ALONE : ON_HALVES;
}

static lks_status create(lks_group **out)
{
    lks_group_config config;
    lks_status status = lks_group_config_from_env(&config);
    config.timeout_s = TIMEOUT_S;
    return status == LKS_OK ? lks_group_create(&config, out) : status;
}

/* MPI ends well only when the last group has not failed, but tests of failures may come last. */
static void end_well(void)
{
    lks_group *group;
    lks_status status = create(&group);
    if (status == LKS_OK)
        status = lks_group_barrier(group);
    lks_group_destroy(group);
    (void)status; /* the launcher sees it */
}

void mpi_job_run(member_kind kind, int size, member_fn *body, const void *context)
{
    static bool registered;
    char failure[MEMBER_TEXT_BYTES] = "";
    lks_group_config config;
    CHECK_OK(lks_group_config_from_env(&config));
    if (size != config.size || kind != kind_of_job(size))
        return;
    alarm(ALARM_S);
    member self = {.rank = config.rank, .size = size, .kind = kind, .context = context, .failure = failure};
    CHECK_OK(create(&self.group));
    if (!registered) /* after the plug-in has registered its own end, and so before it */
        registered = atexit(end_well) == 0;
    body(&self);
    lks_group_destroy(self.group);
    alarm(0);
    if (failure[0] != '\0')
        fail_msg("rank %d of %d in an MPI job, %s: %s", self.rank, size, member_kind_names[kind], failure);
}
