/* SPDX-License-Identifier: Apache-2.0 */
/** How a part of an operation begins and goes on; what mpi_task.c needs of it. */
#ifndef LKS_COMM_MPI_PART_H
#define LKS_COMM_MPI_PART_H

#include "comm/mpi/mpi_member.h"

/** Whether there is a place for the next part. */
bool lks__mpi_may_begin(lks__mpi_member *self);

/** Makes the next part of the task, in the place for it. */
void lks__mpi_begin_part(lks__mpi_member *self, lks__mpi_part *part, lks__mpi_task *task);

/** Goes on as far as possible without waiting, and not beyond `limit`: to where the part before has come.
 * So what members send each other is in one order, and the counters of boards only grow. */
void lks__mpi_go_on(lks__mpi_member *self, lks__mpi_part *part, lks__mpi_state limit);

/** Takes back what it receives. */
void lks__mpi_end_part(lks__mpi_member *self, lks__mpi_part *part);

#endif
