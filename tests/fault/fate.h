/* SPDX-License-Identifier: Apache-2.0 */
/** What happens to the one member of a round, and what the others note of it. */
#ifndef LKS_TESTS_FAULT_FATE_H
#define LKS_TESTS_FAULT_FATE_H

#include <sys/types.h>

#include "fault/random_program.h"

typedef enum fate { KILLED, STOPPED, EXITS, SEGFAULTS, N_FATES } fate;

extern const char *const fate_names[N_FATES];
extern const int fate_signals[N_FATES];      /* 0: ends by itself */
extern const char *const fate_ends[N_FATES]; /* in messages about the dead one; "": it lives */

enum { FATE_TEXT_BYTES = 2048, FATE_EXIT_CODE = 7 };

/* What a member was told. */
typedef struct outcome {
    double at_s;              /* 0: nothing */
    lks_status status, again; /* of the first failure, and of the next call on the group */
    char text[FATE_TEXT_BYTES], again_text[FATE_TEXT_BYTES];
    int wrong_calls; /* of all later ones: those that did not fail as that one */
} outcome;

double now_s(void);
void sleep_us(int us);

/** In the member: signals do what they do without sanitizers, and leave no core behind. */
void fate_prepare(void);

/** In the member: calls exit() after that time, from another thread. *at_s: when. False: there is no thread.
 */
bool fate_exit_after(int us, double *at_s);

/** In the member: the first failure is the one of the program's last step. */
void outcome_note(outcome *o, lks_status status, random_program *program);

#endif
