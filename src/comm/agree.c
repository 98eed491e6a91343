/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "comm/agree.h"

typedef struct verdict {
    int32_t status;
    char message[1020];
} verdict;

lks_status lks__agree(lks_group *group, lks_status status)
{
    int rank = lks_group_rank(group), size = lks_group_size(group);
    if (size == 1)
        return status;

    verdict found = {.status = status};
    if (status != LKS_OK)
        snprintf(found.message, sizeof found.message, "%s", lks_error_message());

    /* the largest of size - rank over the members that failed names the lowest of them */
    int64_t failed = status == LKS_OK ? 0 : size - rank;
    lks_status exchange = lks_group_all_reduce(group, &failed, 1, LKS_I64, LKS_MAX);
    if (exchange != LKS_OK)
        return status != LKS_OK ? lks__fail(status, "%s", found.message) : exchange;
    if (failed == 0)
        return LKS_OK;
    exchange = lks_group_broadcast(group, &found, sizeof found, LKS_U8, size - (int)failed);
    if (exchange != LKS_OK)
        return exchange;
    return lks__fail((lks_status)found.status, "%s", found.message);
}
