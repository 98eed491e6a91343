/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* secure_getenv */

#include "comm/mpi/mpi_job.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"

/* Whose launchers set what, the surest first: under Slurm several may be set. */
typedef struct launcher {
    const char *sign; /* set by it alone */
    const char *size, *rank;
    lks__mpi mpi;
} launcher;

static const launcher launchers[] = {
    {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", LKS__OPENMPI},
    {"PMI_SIZE", "PMI_SIZE", "PMI_RANK", LKS__MPICH},                 /* mpiexec of MPICH; srun --mpi=pmi2 */
    {"PMIX_RANK", "SLURM_STEP_NUM_TASKS", "PMIX_RANK", LKS__OPENMPI}, /* srun --mpi=pmix */
};

static lks_status number(const char *name, int least, int otherwise, int *out)
{
    const char *text = secure_getenv(name);
    int64_t value = otherwise;
    *out = otherwise;
    if (text != NULL && (!lks__parse_i64(text, &value) || value < least || value > INT_MAX))
        return lks__fail(LKS_E_ARG, "%s is \"%s\"; it must be a whole number from %d on", name, text, least);
    *out = (int)value;
    return LKS_OK;
}

static lks_status choose_mpi(lks__mpi_job *job)
{
    static const char *const names[LKS__N_MPIS] = {[LKS__OPENMPI] = "openmpi", [LKS__MPICH] = "mpich"};
    const char *chosen = secure_getenv("LOCKSTEP_MPI");
    if (chosen == NULL)
        return LKS_OK;
    for (int i = 0; i < LKS__N_MPIS; i++)
        if (strcmp(chosen, names[i]) == 0) {
            job->mpi = (lks__mpi)i;
            job->found = true;
            return LKS_OK;
        }
    return lks__fail(LKS_E_ARG, "LOCKSTEP_MPI is \"%s\"; openmpi and mpich are allowed", chosen);
}

/* srun without --mpi says nothing to MPI libraries: every task would silently train alone. */
static lks_status check_not_bare_srun(void)
{
    int tasks;
    lks_status status = number("SLURM_STEP_NUM_TASKS", 1, 1, &tasks);
    if (status == LKS_OK && tasks > 1) {
        status = lks__fail(LKS_E_ARG, "started by srun as one of %d tasks that are not told of each other",
                           tasks);
        return lks__error_hint(status, "use srun --mpi=pmix (Open MPI) or srun --mpi=pmi2 (MPICH)");
    }
    return status;
}

lks_status lks__mpi_job_from_env(lks__mpi_job *out)
{
    lks__mpi_job job = {.size = 1};
    lks_status status = LKS_OK;
    const launcher *l = NULL;
    for (size_t i = 0; i < sizeof launchers / sizeof launchers[0] && l == NULL; i++)
        if (secure_getenv(launchers[i].sign) != NULL)
            l = &launchers[i];
    if (l == NULL) {
        status = check_not_bare_srun();
    } else {
        job.found = true;
        job.mpi = l->mpi;
        job.variable = l->size;
        status = number(l->size, 1, 1, &job.size);
    }
    if (status == LKS_OK && l != NULL)
        status = number(l->rank, 0, 0, &job.rank);
    if (status == LKS_OK)
        status = choose_mpi(&job);
    if (status == LKS_OK)
        *out = job;
    return status;
}
