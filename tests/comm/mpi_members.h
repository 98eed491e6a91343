/* SPDX-License-Identifier: Apache-2.0 */
/** A test program that mpirun has started: its processes are the members. tests/comm/mpi_job.sh starts it. */
#ifndef LKS_TESTS_COMM_MPI_MEMBERS_H
#define LKS_TESTS_COMM_MPI_MEMBERS_H

#include "comm/members.h"

/** Whether this is a process of an MPI job of several. */
bool in_mpi_job(void);

/** What members_run does in one: nothing, unless kind and size are those of the job. Ranks are on machines as
 * LOCKSTEP_RANKS_PER_NODE says: all on one for AS_PROCESSES, half of them for ON_HALVES, 1 for EACH_ALONE. */
void mpi_job_run(member_kind kind, int size, member_fn *body, const void *context);

#endif
