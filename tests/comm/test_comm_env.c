/* SPDX-License-Identifier: Apache-2.0 */
/* What launchers set, as rows: the variables, and what comes of them. */
#include "check.h"

#include <stdlib.h>

#include <lockstep/group.h>

#include "base/machine.h"
#include "comm/shm/shm_member.h"

static const char *const names[] = {
    "RANK",        "WORLD_SIZE",        "LOCAL_WORLD_SIZE",     "MASTER_ADDR",
    "MASTER_PORT", "LOCKSTEP_GROUP_FD", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE",
};
enum { ADDRESS = 3, OMPI = 6, PMI = 7, N_NAMES = sizeof names / sizeof names[0] };

typedef struct row {
    const char *values[N_NAMES]; /* in the order of the names; NULL: not set */
    const char *error;           /* part of the message; NULL: accepted */
    int rank, size, fd, port;
} row;

static const row rows[] = {
    {{NULL}, NULL, 0, 1, -1, 0},
    {{"0", "1"}, NULL, 0, 1, -1, 0},
    {{"1", "4", "4", "127.0.0.1", "29500"}, NULL, 1, 4, -1, 29500},
    {{"1", "4", NULL, "::1", "0"}, NULL, 1, 4, -1, 0},
    {{"3", "4", "4", "127.0.0.1", "29500", "17"}, NULL, 3, 4, 17, 29500},
    {{"3", "4", NULL, NULL, NULL, "17"}, NULL, 3, 4, 17, 0},
    {{"0"}, "WORLD_SIZE is not"},
    {{"0", "2"}, "MASTER_ADDR is not"},
    {{"0", "2", NULL, "h"}, "MASTER_PORT is not"},
    {{"0", "2", NULL, "h", "65536"}, "MASTER_PORT is \"65536\""},
    {{"0", "2", NULL, "h", "x"}, "MASTER_PORT is \"x\""},
    {{"2", "2", NULL, "h", "1"}, "RANK is \"2\"; it must be a whole number from 0 to 1"},
    {{"-1", "2", NULL, "h", "1"}, "RANK is \"-1\""},
    {{"", "2", NULL, "h", "1"}, "RANK is \"\""},
    {{"0", "0", NULL, "h", "1"}, "WORLD_SIZE is \"0\""},
    {{"0", "257", NULL, "h", "1"}, "WORLD_SIZE is \"257\"; it must be a whole number from 1 to 256"},
    {{"0", "two", NULL, "h", "1"}, "WORLD_SIZE is \"two\""},
    {{"0", "4", "2", "h", "1"}, "LOCAL_WORLD_SIZE is 2, but WORLD_SIZE is 4"},
    {{"0", "2", NULL, NULL, NULL, "none"}, "LOCKSTEP_GROUP_FD is \"none\""},
    {.values = {[OMPI] = "2"}, .error = "OMPI_COMM_WORLD_SIZE is 2"},
    {.values = {[PMI] = "3"}, .error = "PMI_SIZE is 3"},
    {.values = {[OMPI] = "1"}, .rank = 0, .size = 1, .fd = -1},
};

static void set_all(const row *r)
{
    for (int i = 0; i < N_NAMES; i++) {
        if (r->values[i] != NULL)
            setenv(names[i], r->values[i], 1);
        else
            unsetenv(names[i]);
    }
}

static void every_row(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const row *r = &rows[i];
        lks_group_config config = {.rank = 77};
        set_all(r);
        if (r->error != NULL) {
            CHECK_FAILS(lks_group_config_from_env(&config), LKS_E_ARG, r->error);
            CHECK_INT(config.rank, 77); /* outputs are written on success only */
            continue;
        }
        CHECK_OK(lks_group_config_from_env(&config));
        CHECK_INT(config.rank, r->rank);
        CHECK_INT(config.size, r->size);
        CHECK_INT(config.fd, r->fd);
        CHECK_INT(config.port, r->port);
        CHECK_NEAR(config.timeout_s, 300, 0);
        if (r->values[ADDRESS] != NULL)
            assert_string_equal(config.address, r->values[ADDRESS]);
    }
}

static bool first_member_has_core(int size)
{
    lks_group *members[LKS_GROUP_MAX_SIZE];
    CHECK_OK(lks_group_create_threads(size, 10, members));
    bool has_core = lks__shm_member_of(members[0])->has_core;
    for (int r = 0; r < size; r++)
        lks_group_destroy(members[r]);
    return has_core;
}

/* A pinned process may use one core, but so may each of the others. */
static void members_spin_where_each_has_a_core(void **state)
{
    (void)state;
    int cores = lks__usable_cores();
    unsetenv(LKS__PINNED_VARIABLE);
    if (cores >= LKS_GROUP_MAX_SIZE)
        skip();
    assert_false(first_member_has_core(cores + 1));
    if (cores > 1)
        assert_true(first_member_has_core(cores));
    setenv(LKS__PINNED_VARIABLE, "256", 1);
    assert_true(first_member_has_core(cores + 1));
    unsetenv(LKS__PINNED_VARIABLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_row),
                                       cmocka_unit_test(members_spin_where_each_has_a_core)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
