/* SPDX-License-Identifier: Apache-2.0 */
/** Groups whose members seem to be on several machines, for tests of what is built on groups: operations are
 * those of a group on one machine, so their results and failures are right; but lks_group_node is a part of
 * it, and memory is seen within a machine only. */
#ifndef LKS_TESTS_COMM_SPLIT_MACHINES_H
#define LKS_TESTS_COMM_SPLIT_MACHINES_H

#include <lockstep/group.h>

/** Makes of `flat` a group over the machines that `machines` says: [size], the machine of each rank, any
 * numbers from 0 up. If all are on one it is `flat` itself.
 *
 * Collective. Ownership: takes over flat; the caller destroys *out, which is NULL after a failure. */
lks_status split_machines(lks_group *flat, const int *machines, lks_group **out) LKS_MUST_USE;

#endif
