/* SPDX-License-Identifier: Apache-2.0 */
/** A program of random operations, the same for all members of a group: every collective, messages, requests,
 * groups that are split off, and group memory. */
#ifndef LKS_TESTS_FAULT_RANDOM_PROGRAM_H
#define LKS_TESTS_FAULT_RANDOM_PROGRAM_H

#include <stdbool.h>
#include <stdint.h>

#include <lockstep/group.h>

/** Numbers that depend on the seed only (splitmix64). */
typedef struct dice {
    uint64_t state;
} dice;

uint64_t dice_below(dice *self, uint64_t n); /* 0..n-1 */

typedef struct random_program {
    lks_group *group;
    lks_group *part;          /* split from group; NULL: none now */
    lks_group_memory *memory; /* of group; NULL: none now */
    char *in, *out;           /* enough for every operation */
    dice dice;                /* in the same state on all members */
} random_program;

/** The group is borrowed; the program owns the rest. */
void random_program_init(random_program *self, lks_group *group, uint64_t seed);
void random_program_deinit(random_program *self);

/** The next step. Returns the first failure. */
lks_status random_program_step(random_program *self);

/** Calls everything that a member can call of a group, once each. Returns how many calls gave another status
 * than this one, or, those of the group itself, another message. */
int random_program_wrong_calls(random_program *self, lks_status status, const char *text);

#endif
