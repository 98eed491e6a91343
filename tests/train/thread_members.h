/* SPDX-License-Identifier: Apache-2.0 */
/** The members of a group as threads, for tests of whole runs. On one machine, as far as they can see, unless
 * a test says otherwise, or the environment: LKS_TEST_MACHINES=N deals them out to N machines. */
#ifndef LKS_TESTS_THREAD_MEMBERS_H
#define LKS_TESTS_THREAD_MEMBERS_H

#include "check.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <lockstep/group.h>

#include "comm/machines.h"

enum { MAX_MEMBERS = 8 };

/** On which machine each member of the next runs is; all zeros: on one. */
static int machines_of_members[MAX_MEMBERS];

/** What every member has: the first field of a test's own struct of one. */
typedef struct seat {
    lks_group *group;   /* while its part is played */
    lks_status status;  /* how that ended */
    char message[2048]; /* of a failure, else "" */
} seat;

/** A member's part in a run. member: an element of the test's array. */
typedef lks_status member_part(void *member);

typedef struct seated {
    void *member;
    member_part *part;
} seated;

static inline seat *seat_of(void *members, size_t bytes, int i)
{
    return (seat *)((char *)members + (size_t)i * bytes);
}

/* A member leaves as soon as its part is over, as a process does: the others may not wait for it. */
static inline void *seated_main(void *argument)
{
    const seated *s = argument;
    seat *own = s->member;
    own->status = s->part(s->member);
    snprintf(own->message, sizeof own->message, "%s", own->status != LKS_OK ? lks_error_message() : "");
    lks_group_destroy(own->group);
    return NULL;
}

static inline void deal_out_by_environment(int n)
{
    const char *text = getenv("LKS_TEST_MACHINES");
    for (int i = 0; i < n && text != NULL; i++)
        machines_of_members[i] = (int)(i * strtol(text, NULL, 10) / n);
}

static inline void create_members(int n, lks_group **groups)
{
    enum { TIMEOUT_S = 60 };
    bool several = false;
    for (int i = 1; i < n; i++)
        several = several || machines_of_members[i] != machines_of_members[0];
    if (several)
        machines_create(n, machines_of_members, TIMEOUT_S, groups);
    else
        CHECK_OK(lks_group_create_threads(n, TIMEOUT_S, groups));
}

/** Plays the part on n threads, each a member of one group. members: n elements of `bytes`, which begin with
 * a seat. */
static inline void run_members(int n, member_part *part, size_t bytes, void *members)
{
    lks_group *groups[MAX_MEMBERS];
    pthread_t threads[MAX_MEMBERS];
    seated all[MAX_MEMBERS];
    deal_out_by_environment(n);
    create_members(n, groups);
    for (int i = 0; i < n; i++) {
        all[i] = (seated){.member = seat_of(members, bytes, i), .part = part};
        seat_of(members, bytes, i)->group = groups[i];
        CHECK_INT(pthread_create(&threads[i], NULL, seated_main, &all[i]), 0);
    }
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

/** The same, and no member fails. */
static inline void run_members_well(int n, member_part *part, size_t bytes, void *members)
{
    run_members(n, part, bytes, members);
    for (int i = 0; i < n; i++)
        if (seat_of(members, bytes, i)->status != LKS_OK)
            fail_msg("member %d of %d: %s", i, n, seat_of(members, bytes, i)->message);
}

#endif
