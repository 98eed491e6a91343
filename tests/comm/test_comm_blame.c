/* SPDX-License-Identifier: Apache-2.0 */
/* Whom a deadline names: not who waits in its turn, but who could go on and does not. */
#define _GNU_SOURCE /* usleep */

#include "check.h"

#include <pthread.h>
#include <unistd.h>

#include <lockstep/group.h>

#include "comm/machines.h"

enum { SIZE = 3, LATER_US = 100 * 1000 };

static const double timeout_s = 0.4;

typedef enum act { NOTHING, BARRIER, PART_BARRIER, SEND, RECV, TEST_RECV } act;

/* What a rank does; later: so that another one's deadline comes first. */
typedef struct script {
    act act;
    int other; /* of messages */
    bool later;
} script;

static const struct scene {
    script scripts[SIZE];
    const char *text; /* what all are told */
} scenes[] = {
    /* who never comes */
    {{{BARRIER, 0, false}, {BARRIER, 0, false}, {NOTHING, 0, false}},
     "waited 0.4 s in barrier (collective 3) for rank 2, which last finished group_split (collective 2)"},
    {{{RECV, 2, false}, {NOTHING, 0, false}, {NOTHING, 0, false}},
     "rank 0 waited 0.4 s in recv(u8, 1, from rank 2) for rank 2, which last finished group_split "
     "(collective 2)"},
    /* for whom others wait who are waited for */
    {{{RECV, 1, false}, {RECV, 2, true}, {NOTHING, 0, false}},
     "rank 0 waited 0.4 s in recv(u8, 1, from rank 1) for rank 2, which last finished group_split "
     "(collective 2)"},
    {{{BARRIER, 0, false}, {RECV, 2, true}, {NOTHING, 0, false}},
     "rank 0 waited 0.4 s in barrier (collective 3) for rank 2, which last finished group_split "
     "(collective 2)"},
    {{{RECV, 1, false}, {BARRIER, 0, true}, {NOTHING, 0, false}},
     "rank 0 waited 0.4 s in recv(u8, 1, from rank 1) for rank 2, which last finished group_split "
     "(collective 2)"},
    {{{BARRIER, 0, false}, {TEST_RECV, 2, true}, {NOTHING, 0, false}},
     "rank 0 waited 0.4 s in barrier (collective 3) for rank 2, which last finished group_split "
     "(collective 2)"},
    /* who has room or data is not held up by messages, whatever it does */
    {{{BARRIER, 0, false}, {BARRIER, 0, true}, {SEND, 0, false}},
     "waited 0.4 s in barrier (collective 3) for rank 2, which last finished send(u8, 1, to rank 0) (after "
     "collective 2)"},
    /* members that wait for each other */
    {{{RECV, 1, false}, {RECV, 0, true}, {NOTHING, 0, false}},
     "rank 0 waited 0.4 s in recv(u8, 1, from rank 1) for rank 1, which waits in recv(u8, 1, from rank 0) "
     "and "
     "last finished group_split (collective 2)"},
    /* in the part of ranks 1 and 2 */
    {{{NOTHING, 0, false}, {PART_BARRIER, 0, false}, {NOTHING, 0, false}},
     "rank 0 (rank 1 of the first group) waited 0.4 s in barrier (collective 1) for rank 1 (rank 2 of the "
     "first group), which has finished no operation"},
    {{{BARRIER, 0, false}, {PART_BARRIER, 0, true}, {NOTHING, 0, false}},
     "rank 0 waited 0.4 s in barrier (collective 3) for rank 1, which waits in barrier of another group and "
     "last finished group_split (collective 2); rank 2, which last finished group_split (collective 2)"},
};

/* Each on a machine of its own: who holds all up says so when it is asked. */
static const struct scene on_machines[] = {
    {{{BARRIER, 0, false}, {BARRIER, 0, true}, {NOTHING, 0, false}},
     "waited 0.4 s in barrier for rank 2, which last finished group_split"},
    {{{RECV, 2, false}, {NOTHING, 0, false}, {NOTHING, 0, false}},
     "rank 0 waited 0.4 s in recv(u8, 1, from rank 2) for rank 2, which last finished group_split"},
    {{{RECV, 1, false}, {RECV, 2, true}, {NOTHING, 0, false}},
     "rank 0 waited 0.4 s in recv(u8, 1, from rank 1) for rank 2, which last finished group_split"},
    {{{BARRIER, 0, false}, {RECV, 2, true}, {NOTHING, 0, false}},
     "rank 0 waited 0.4 s in barrier for rank 2, which last finished group_split"},
    {{{BARRIER, 0, false}, {TEST_RECV, 2, true}, {NOTHING, 0, false}},
     "rank 0 waited 0.4 s in barrier for rank 2, which last finished group_split"},
};

typedef struct player {
    const struct scene *scene;
    lks_group *group;
    lks_status status;
    char text[1024];
} player;

static lks_status test_for_ever(lks_group *group, const lks_operation *operation)
{
    lks_request *request;
    CHECK_OK(lks_request_create(group, operation, &request));
    lks_status status = lks_request_post(request);
    while (status == LKS_OK && (status = lks_request_test(request)) == LKS_IN_PROGRESS) {
        usleep(1000);
        status = LKS_OK;
    }
    lks_request_destroy(request);
    return status;
}

static lks_status play(const script *s, lks_group *group, lks_group *part)
{
    char byte = 0;
    lks_operation recv = {
        .collective = LKS_RECV, .dtype = LKS_U8, .count = 1, .root = s->other, .out = &byte};
    usleep(s->later ? LATER_US : 0);
    switch (s->act) {
    case BARRIER:
        return lks_group_barrier(group);
    case PART_BARRIER:
        return lks_group_barrier(part);
    case SEND:
        return lks_group_send(group, &byte, 1, LKS_U8, s->other);
    case RECV:
        return lks_group_run(group, &recv);
    case TEST_RECV:
        return test_for_ever(group, &recv);
    case NOTHING:
        break;
    }
    return LKS_OK;
}

static void *player_main(void *argument)
{
    player *self = argument;
    int rank = lks_group_rank(self->group);
    lks_group *part = NULL;
    self->status = lks_group_barrier(self->group);
    if (self->status == LKS_OK)
        self->status = lks_group_split(self->group, rank > 0, rank, &part);
    if (self->status == LKS_OK)
        self->status = play(&self->scene->scripts[rank], self->group, part);
    /* who did nothing, or only what was possible, comes when it is too late */
    usleep(self->status == LKS_OK ? (useconds_t)(timeout_s * 1e6) + 6 * LATER_US : 0);
    if (self->status == LKS_OK)
        self->status = lks_group_barrier(self->group);
    snprintf(self->text, sizeof self->text, "%s", lks_error_message());
    lks_group_destroy(part);
    return NULL;
}

static void check_scene(const struct scene *scene, lks_group **groups)
{
    pthread_t threads[SIZE];
    player players[SIZE];
    for (int r = 0; r < SIZE; r++) {
        players[r] = (player){.scene = scene, .group = groups[r]};
        assert_int_equal(pthread_create(&threads[r], NULL, player_main, &players[r]), 0);
    }
    for (int r = 0; r < SIZE; r++)
        pthread_join(threads[r], NULL);
    for (int r = 0; r < SIZE; r++) {
        const char *end = strstr(players[r].text, scene->text);
        CHECK_INT(players[r].status, LKS_E_TIMEOUT);
        if (end == NULL || strcmp(end, scene->text) != 0)
            fail_msg("rank %d: \"%s\", which does not end in \"%s\"", r, players[r].text, scene->text);
        lks_group_destroy(groups[r]);
    }
}

static void the_one_that_holds_all_up_is_named(void **state)
{
    (void)state;
    lks_group *groups[SIZE];
    for (size_t i = 0; i < sizeof scenes / sizeof scenes[0]; i++) {
        CHECK_OK(lks_group_create_threads(SIZE, timeout_s, groups));
        check_scene(&scenes[i], groups);
    }
}

static void and_over_machines(void **state)
{
    (void)state;
    lks_group *groups[SIZE];
    for (size_t i = 0; i < sizeof on_machines / sizeof on_machines[0]; i++) {
        machines_create(SIZE, (const int[]){0, 1, 2}, timeout_s, groups);
        check_scene(&on_machines[i], groups);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_one_that_holds_all_up_is_named),
        cmocka_unit_test(and_over_machines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
