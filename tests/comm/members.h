/* SPDX-License-Identifier: Apache-2.0 */
/** Runs one test body as every member of a group: as threads, as processes that inherit a memory file, as
 * processes that meet at a socket, or as threads that play the processes of several machines. */
#ifndef LKS_TESTS_COMM_MEMBERS_H
#define LKS_TESTS_COMM_MEMBERS_H

#include <stdbool.h>
#include <stddef.h>

#include <lockstep/group.h>

enum { MEMBER_TEXT_BYTES = 2048 };

typedef enum member_kind {
    AS_THREADS,
    AS_PROCESSES,
    ON_HALVES,  /* the lower half of the ranks is on one machine, the rest on another */
    IN_TURNS,   /* two or three machines in turns */
    EACH_ALONE, /* on a machine of its own */
    AS_STRANGERS,
    N_MEMBER_KINDS
} member_kind;

static inline bool over_machines(member_kind kind)
{
    return kind == ON_HALVES || kind == IN_TURNS || kind == EACH_ALONE;
}

/** The machine of a rank. */
int machine_of_rank(member_kind kind, int rank, int size);

typedef struct member {
    lks_group *group;
    int rank, size;
    member_kind kind;
    const void *context;
    char *failure; /* [MEMBER_TEXT_BYTES], seen by the test: the first expectation that did not hold */
} member;

typedef void member_fn(member *self);

extern const char *const member_kind_names[N_MEMBER_KINDS];

/** Runs body on all members and fails the test with the first member's failure. Hangs end by an alarm.
 * LKS_TEST_MEMBERS="on machines in turns" or another kind's name is played in place of AS_THREADS, so that a
 * program of tests can be run once more. */
void members_run(member_kind kind, int size, member_fn *body, const void *context);

/** Notes the first failure. */
void member_fails(member *self, const char *format, ...) LKS_PRINTF(2, 3);

/** In a body: the condition holds, else the body ends. */
#define EXPECT(self, condition, ...)                                                                         \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            member_fails(self, __VA_ARGS__);                                                                 \
            return;                                                                                          \
        }                                                                                                    \
    } while (0)

#define EXPECT_OK(self, call)                                                                                \
    do {                                                                                                     \
        lks_status expect_status = (call);                                                                   \
        EXPECT(self, expect_status == LKS_OK, "%s: %s: %s", #call, lks_status_name(expect_status),           \
               lks_error_message());                                                                         \
    } while (0)

/** The call fails with this status and the message contains the text. */
#define EXPECT_FAILS(self, call, status, text)                                                               \
    do {                                                                                                     \
        lks_status expect_status = (call);                                                                   \
        EXPECT(self, expect_status == (status), "%s: got %s, wanted %s", #call,                              \
               lks_status_name(expect_status), lks_status_name(status));                                     \
        EXPECT(self, strstr(lks_error_message(), text) != NULL,                                              \
               "%s: the message is \"%s\", it lacks \"%s\"", #call, lks_error_message(), text);              \
    } while (0)

#endif
