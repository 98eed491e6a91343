/* SPDX-License-Identifier: Apache-2.0 */
/* What launchers say in the environment. */
#define _GNU_SOURCE /* secure_getenv */

#include <lockstep/group.h>

#include <limits.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/text.h"
#include "comm/collective.h"
#include "comm/mpi/mpi_job.h"

/* A whole number from `least` to `most`. */
static lks_status number(const char *name, int least, int most, int *out)
{
    const char *text = secure_getenv(name);
    int64_t value;
    if (text == NULL)
        return lks__fail(LKS_E_ARG, "RANK is set, but %s is not", name);
    if (!lks__parse_i64(text, &value) || value < least || value > most)
        return lks__fail(LKS_E_ARG, "%s is \"%s\"; it must be a whole number from %d to %d", name, text,
                         least, most);
    *out = (int)value;
    return LKS_OK;
}

static lks_status number_or(const char *name, int least, int most, int otherwise, int *out)
{
    *out = otherwise;
    return secure_getenv(name) == NULL ? LKS_OK : number(name, least, most, out);
}

/* Without RANK every process would silently train alone, so a foreign launcher's number of processes counts.
 */
static lks_status read_mpi_job(lks_group_config *config)
{
    lks__mpi_job job;
    lks_status status = lks__mpi_job_from_env(&job);
    if (status == LKS_OK && job.size > 1) {
        config->backend = LKS_BACKEND_MPI;
        config->rank = job.rank;
        config->size = job.size;
    }
    return status;
}

static lks_status check_one_machine(const lks_group_config *config)
{
    int local_size;
    lks_status status = number_or("LOCAL_WORLD_SIZE", 1, INT_MAX, config->size, &local_size);
    if (status == LKS_OK && local_size != config->size) {
        status = lks__fail(LKS_E_ARG, "LOCAL_WORLD_SIZE is %d, but WORLD_SIZE is %d", local_size,
                           config->size);
        return lks__error_hint(status, "start processes on several machines with mpirun, mpiexec or srun");
    }
    return status;
}

/* Where the members meet: a file that they have inherited, or else a socket named after the master's address.
 */
static lks_status read_meeting_place(lks_group_config *config)
{
    lks_status status = number_or("LOCKSTEP_GROUP_FD", 0, INT_MAX, -1, &config->fd);
    config->address = secure_getenv("MASTER_ADDR");
    bool needs_address = config->size > 1 && config->fd < 0;
    if (status == LKS_OK && needs_address && config->address == NULL)
        status = lks__fail(LKS_E_ARG, "RANK is set, but MASTER_ADDR is not");
    if (status == LKS_OK)
        status = needs_address ? number("MASTER_PORT", 0, 65535, &config->port)
                               : number_or("MASTER_PORT", 0, 65535, 0, &config->port);
    return status;
}

lks_status lks_group_config_from_env(lks_group_config *out)
{
    lks_group_config config = lks_group_config_default();
    lks_status status = LKS_OK;
    if (secure_getenv("RANK") == NULL) {
        status = read_mpi_job(&config);
    } else {
        status = number("WORLD_SIZE", 1, LKS_GROUP_MAX_SIZE, &config.size);
        if (status == LKS_OK)
            status = number("RANK", 0, config.size - 1, &config.rank);
        if (status == LKS_OK)
            status = check_one_machine(&config);
        if (status == LKS_OK)
            status = read_meeting_place(&config);
    }
    if (status == LKS_OK)
        *out = config;
    return status;
}
