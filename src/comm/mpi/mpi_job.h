/* SPDX-License-Identifier: Apache-2.0 */
/** What an MPI launcher says in the environment of the processes that it starts. */
#ifndef LKS_COMM_MPI_JOB_H
#define LKS_COMM_MPI_JOB_H

#include <stdbool.h>

#include <lockstep/status.h>

typedef enum lks__mpi { LKS__OPENMPI, LKS__MPICH, LKS__N_MPIS } lks__mpi;

typedef struct lks__mpi_job {
    bool found;           /* else: started by no MPI launcher, and LOCKSTEP_MPI is not set; size is 1 */
    lks__mpi mpi;         /* which one to load */
    const char *variable; /* in which the launcher tells the size; NULL: it has not told */
    int rank, size;
} lks__mpi_job;

/** Reads the launcher's variables: of Open MPI's mpirun; of MPICH's mpiexec and others that speak PMI, srun
 * --mpi=pmi2 among them; of srun --mpi=pmix. LOCKSTEP_MPI (openmpi or mpich) decides where these could be of
 * either.
 *
 * Returns: LKS_OK; LKS_E_ARG: a variable makes no sense, or srun has started several tasks without any MPI.
 */
lks_status lks__mpi_job_from_env(lks__mpi_job *out) LKS_MUST_USE;

#endif
