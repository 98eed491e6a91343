/* SPDX-License-Identifier: Apache-2.0 */
/** Finding and loading the plug-in for an MPI. */
#ifndef LKS_COMM_MPI_PLUGIN_H
#define LKS_COMM_MPI_PLUGIN_H

#include "comm/mpi/mpi_job.h"
#include "comm/mpi/wire.h"

/** Loads the plug-in for job->mpi, which stays loaded, and opens its wire.
 *
 * Looks in the folder LOCKSTEP_PLUGINS, if that is set; else beside the program and beside the library and
 * where an installation puts plug-ins from there, and in the folder for which lockstep was configured.
 * Collective. Ownership: the caller closes *out. Returns: LKS_OK; LKS_E_ARG: no plug-in, one that cannot be
 * loaded or is of another version, or the job is another MPI's; LKS_E_SYSTEM: MPI cannot start. */
lks_status lks__mpi_plugin_open(const lks__mpi_job *job, lks__wire **out) LKS_MUST_USE;

#endif
