/* SPDX-License-Identifier: Apache-2.0 */
/** Groups whose members are the processes of an MPI job. */
#ifndef LKS_COMM_MPI_GROUP_H
#define LKS_COMM_MPI_GROUP_H

#include "comm/backend.h"
#include "comm/mpi/wire.h"

/** The backend `mpi`: loads the plug-in for the MPI under which this process was started, opens its wire,
 * and forms a group over shared memory with the other processes of this machine. If that is all, it is the
 * group; else the two make a group over machines. config->backend is LKS_BACKEND_MPI; its rank and size are
 * not looked at.
 *
 * Collective. Ownership: the caller destroys *out; on failure *out is NULL.
 * Returns: LKS_OK; LKS_E_ARG: no such MPI, no plug-in for it; LKS_E_SYSTEM; failures of joining. */
lks_status lks__mpi_create(const lks_group_config *config, lks_group **out) LKS_MUST_USE;

/** The same with a wire that is open, which it takes over, on failure too. */
lks_status lks__mpi_create_on(lks__wire *wire, const lks_group_config *config, lks_group **out) LKS_MUST_USE;

/** A group over several machines: `node` has this machine's members, in the order of their ranks on the wire.
 *
 * Collective. Ownership: takes over wire and node, on failure too; the caller destroys *out.
 * Returns: LKS_OK; LKS_E_NOMEM; failures of joining. */
lks_status lks__mpi_join(lks__wire *wire, lks_group *node, const lks_group_config *config,
                         lks_group **out) LKS_MUST_USE;

#endif
