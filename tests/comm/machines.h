/* SPDX-License-Identifier: Apache-2.0 */
/** Groups over several machines, which threads play: their node groups are groups of threads, and between
 * them is a wire between threads. */
#ifndef LKS_TESTS_COMM_MACHINES_H
#define LKS_TESTS_COMM_MACHINES_H

#include <lockstep/group.h>

enum { MACHINES_MAX_SIZE = 40 };

/** Makes the members of a group: members[r] is for the thread that plays rank r. Ranks with the same number
 * in machine_of are on one machine; there must be two or more. */
void machines_create(int size, const int *machine_of, double timeout_s, lks_group **members);

/** The same with LKS_GROUP_CONFIG.fast. */
void machines_create_fast(int size, const int *machine_of, double timeout_s, lks_group **members);

/** The same as machines_create, with messages that come late and overtake each other (thread_wires_delay). */
void machines_create_delayed(int size, const int *machine_of, double timeout_s, uint64_t seed,
                             lks_group **members);

/** The same as machines_create where the nth allocation from joining on fails. Returns how many members have
 * joined; the others fail with `status`, and are NULL. */
int machines_try_create(int size, const int *machine_of, int64_t nth, lks_status status, lks_group **members);

#endif
