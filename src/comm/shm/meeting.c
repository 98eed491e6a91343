/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"
#include "comm/shm/shm_member.h"

lks_status lks__shm_meet(const lks_group_config *config, int *out)
{
    (void)out;
    return lks__fail(LKS_E_UNSUPPORTED, "%s", config->address);
}
