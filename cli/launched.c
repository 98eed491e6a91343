/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include <lockstep/group.h>

#include "cli.h"

const char *cli_launched(void)
{
    lks_group_config group;
    if (getenv("RANK") != NULL)
        return "RANK is set";
    /* a failure is reported where the group is joined */
    bool mpi = lks_group_config_from_env(&group) == LKS_OK && group.backend == LKS_BACKEND_MPI;
    return mpi ? "this is a process of an MPI job" : NULL;
}
