/* SPDX-License-Identifier: Apache-2.0 */
/** One outcome for all members of a group. */
#ifndef LKS_COMM_AGREE_H
#define LKS_COMM_AGREE_H

#include <lockstep/group.h>
#include <lockstep/status.h>

/** Turns one member's failure into everybody's: when any member passes a failure, all return the one of the
 * lowest rank that failed, with its message. Collective. */
lks_status lks__agree(lks_group *group, lks_status status) LKS_MUST_USE;

#endif
