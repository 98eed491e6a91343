/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/machines.h"

#include "check.h"

#include <pthread.h>

#include "base/alloc.h"
#include "comm/mpi/mpi_group.h"
#include "comm/thread_wire.h"

typedef struct guest {
    lks__wire *wire;
    lks_group *node;
    lks_group_config config;
    lks_group *group;
    lks_status status;
    char text[512];
} guest;

/* Each machine's members, in the order of their ranks. */
static void create_nodes(int size, const int *machine_of, double timeout_s, guest *guests)
{
    for (int r = 0; r < size; r++) {
        lks_group *members[MACHINES_MAX_SIZE];
        int n = 0;
        if (guests[r].node != NULL)
            continue;
        for (int other = r; other < size; other++)
            n += machine_of[other] == machine_of[r];
        CHECK_OK(lks_group_create_threads(n, timeout_s, members));
        n = 0;
        for (int other = r; other < size; other++)
            if (machine_of[other] == machine_of[r])
                guests[other].node = members[n++];
    }
}

static void *join(void *argument)
{
    guest *g = argument;
    g->status = lks__mpi_join(g->wire, g->node, &g->config, &g->group);
    snprintf(g->text, sizeof g->text, "%s", lks_error_message());
    return NULL;
}

/* How a group is made. */
typedef struct setting {
    double timeout_s;
    bool fast;
    uint64_t delay_seed; /* 0: messages come at once */
    int64_t fail_nth;    /* allocation; 0: none */
} setting;

static void run_guests(int size, const int *machine_of, const setting *how, guest *guests)
{
    lks__wire *wires[MACHINES_MAX_SIZE];
    pthread_t threads[MACHINES_MAX_SIZE];
    assert_true(size <= MACHINES_MAX_SIZE);
    thread_wires_create(size, machine_of, wires);
    if (how->delay_seed != 0)
        thread_wires_delay(wires[0], how->delay_seed, 5);
    create_nodes(size, machine_of, how->timeout_s, guests);
    lks__alloc_fail_nth(how->fail_nth);
    for (int r = 0; r < size; r++) {
        guests[r].wire = wires[r];
        guests[r].config = lks_group_config_default();
        guests[r].config.timeout_s = how->timeout_s;
        guests[r].config.fast = how->fast;
        assert_int_equal(pthread_create(&threads[r], NULL, join, &guests[r]), 0);
    }
    for (int r = 0; r < size; r++)
        pthread_join(threads[r], NULL);
}

static void create(int size, const int *machine_of, const setting *how, lks_group **members)
{
    guest guests[MACHINES_MAX_SIZE] = {{NULL}};
    run_guests(size, machine_of, how, guests);
    for (int r = 0; r < size; r++) {
        if (guests[r].status != LKS_OK)
            fail_msg("rank %d cannot join: %s", r, guests[r].text);
        members[r] = guests[r].group;
    }
}

void machines_create(int size, const int *machine_of, double timeout_s, lks_group **members)
{
    create(size, machine_of, &(setting){.timeout_s = timeout_s}, members);
}

void machines_create_fast(int size, const int *machine_of, double timeout_s, lks_group **members)
{
    create(size, machine_of, &(setting){.timeout_s = timeout_s, .fast = true}, members);
}

void machines_create_delayed(int size, const int *machine_of, double timeout_s, uint64_t seed,
                             lks_group **members)
{
    create(size, machine_of, &(setting){.timeout_s = timeout_s, .delay_seed = seed}, members);
}

int machines_try_create(int size, const int *machine_of, int64_t nth, lks_status status, lks_group **members)
{
    guest guests[MACHINES_MAX_SIZE] = {{NULL}};
    int n_joined = 0;
    run_guests(size, machine_of, &(setting){.timeout_s = 30, .fail_nth = nth}, guests);
    for (int r = 0; r < size; r++) {
        members[r] = guests[r].group;
        assert_true((members[r] != NULL) == (guests[r].status == LKS_OK));
        if (members[r] != NULL)
            n_joined++;
        else if (guests[r].status != status)
            fail_msg("rank %d: %s: %s", r, lks_status_name(guests[r].status), guests[r].text);
    }
    return n_joined;
}
