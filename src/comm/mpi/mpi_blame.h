/* SPDX-License-Identifier: Apache-2.0 */
/** Whom a deadline of a group over machines names. Who has waited too long asks all processes: those of a
 * machine see which of its processes is stopped, and each knows whether it holds the operation up itself.
 * Only if nobody answers, it names those for whom it waits. */
#ifndef LKS_COMM_MPI_BLAME_H
#define LKS_COMM_MPI_BLAME_H

#include "comm/mpi/mpi_member.h"

/** This member has finished the operation. */
void lks__mpi_tell_finished(lks__mpi_member *self, const lks_operation *operation);

/** The task has been waited for longer than the timeout: asks, once for each wait, or ends the engine because
 * somebody has an answer here. */
void lks__mpi_ask(lks__mpi_member *self, const lks__mpi_task *task);

/** Another process has asked: ends the engine if this one knows who holds it up. */
void lks__mpi_answer(lks__mpi_engine *engine, const lks__mpi_notice *question);

/** Ends the engine because the time for the task is over, naming those who are missing. */
void lks__mpi_fail_timeout(lks__mpi_member *self, const lks__mpi_task *task);

/** How much longer than the timeout this member waits for the task: for answers, and for those who know
 * better. */
int64_t lks__mpi_grace_ns(const lks__mpi_member *self, const lks__mpi_task *task);

#endif
