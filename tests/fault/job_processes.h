/* SPDX-License-Identifier: Apache-2.0 */
/** The processes of an MPI job, as one who has started it finds them: by the variables that its launcher and
 * the test have set for them. */
#ifndef LKS_TESTS_FAULT_JOB_PROCESSES_H
#define LKS_TESTS_FAULT_JOB_PROCESSES_H

#include <sys/types.h>

typedef struct job {
    const char *mpi;      /* "openmpi" or "mpich" */
    const char *variable; /* which the test has set for all of the job, */
    const char *value;    /* to this */
} job;

/** The process that plays the rank; -1: there is none (now). */
pid_t job_process(const job *j, int rank);

/** Kills the launcher, with its process group, and everything that the job has left; waits for what is this
 * process's. */
void job_kill(const job *j, pid_t launcher, int size);

#endif
