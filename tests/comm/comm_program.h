/* SPDX-License-Identifier: Apache-2.0 */
/** A random program of a group, which all members write alike from one seed: operations of every kind in
 * every order, messages among them, groups split off, memory that comes and goes; each result compared bit
 * for bit. */
#ifndef LKS_TESTS_COMM_COMM_PROGRAM_H
#define LKS_TESTS_COMM_COMM_PROGRAM_H

#include "comm/members.h"

typedef struct comm_program {
    uint64_t seed;
    int n_steps;       /* a step is up to 6 operations, or a group or memory made or freed */
    size_t most_bytes; /* of a row of an operation, at most */
} comm_program;

/** self->context is a comm_program. The group is left as it was, unless something failed. */
void comm_program_run(member *self);

#endif
