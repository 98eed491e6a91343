/* SPDX-License-Identifier: Apache-2.0 */
/* A run goes on although only rank 0's machine has its run directory. */
#define _GNU_SOURCE /* nftw */
#include "thread_members.h"

#include <lockstep/lockstep.h>

#include "unit/temp_folder.h"

enum { MEMBERS = 4, MOST = 8 };

typedef struct member {
    seat seat;
    const char *const *overrides; /* [n] */
    int n;
    const char *output;
    bool resume;
    char notes[512];
    lks_plan plan;
    lks_train_result result;
} member;

static void keep_plan(void *context, const lks_plan *plan)
{
    member *m = context;
    m->plan = *plan;
}

static void keep_note(void *context, const char *text)
{
    member *m = context;
    snprintf(m->notes, sizeof m->notes, "%s", text);
}

static lks_status train(void *self)
{
    member *m = self;
    char output[440];
    const char *overrides[MOST + 1];
    snprintf(output, sizeof output, "output=%s", m->output);
    memcpy(overrides, m->overrides, (size_t)m->n * sizeof overrides[0]);
    overrides[m->n] = output;
    lks_train_options options = {.resume = m->resume, .started = keep_plan, .note = keep_note, .context = m};
    lks_config *config;
    lks_status status = lks_config_load("examples/digits.yaml", m->n + 1, overrides, &config);
    if (status == LKS_OK)
        status = lks_train(config, m->seat.group, &options, &m->result);
    lks_config_destroy(config);
    return status;
}

/* Each machine has its own folder for the run; on two machines. */
static void run_on_machines(const char *name, bool resume, int n, const char *const *overrides,
                            member members[MEMBERS])
{
    for (int i = 0; i < MEMBERS; i++) {
        char path[64];
        machines_of_members[i] = i / 2;
        snprintf(path, sizeof path, "machine%d/%s", i / 2, name);
        members[i] = (member){
            .overrides = overrides, .n = n, .output = in_temp_folder(path), .resume = resume};
    }
    run_members(MEMBERS, train, sizeof *members, members);
}

static void check_well(const member members[MEMBERS])
{
    for (int i = 0; i < MEMBERS; i++)
        if (members[i].seat.status != LKS_OK)
            fail_msg("member %d: %s", i, members[i].seat.message);
}

static int make_folders(void **state)
{
    return make_temp_folder(state) != 0 || mkdir(in_temp_folder("machine0"), 0700) != 0 ||
           mkdir(in_temp_folder("machine1"), 0700) != 0;
}

static void the_run_directory_is_needed_on_the_first_machine_only(void **state)
{
    (void)state;
    static member whole[MEMBERS], parts[MEMBERS];
    static const char *const two[] = {"epochs=2", "data.limit=203", "checkpoint.every_epochs=1",
                                      "batch.local=4"};
    static const char *const more[] = {"epochs=3", "data.limit=203", "checkpoint.every_epochs=1",
                                       "batch.local=4"};
    run_on_machines("whole", false, 4, more, whole);
    check_well(whole);
    run_on_machines("parts", false, 4, two, parts);
    check_well(parts);
    assert_false(file_exists(in_temp_folder("machine1/parts")));

    /* goes on from the checkpoint after the first epoch, and is longer now */
    run_on_machines("parts", true, 4, more, parts);
    check_well(parts);
    assert_false(file_exists(in_temp_folder("machine1/parts")));
    for (int i = 0; i < MEMBERS; i++) {
        CHECK_INT(parts[i].result.steps, whole[i].result.steps);
        CHECK_INT(parts[i].plan.origin.step, parts[0].plan.origin.step);
        CHECK_INT(parts[i].plan.total_steps, whole[i].plan.total_steps);
        assert_true((parts[i].notes[0] != '\0') == (i == 0));
    }
    assert_non_null(strstr(parts[0].notes, "epochs 2 -> 3"));
}

static void what_rank_0_can_not_find_is_told_to_all(void **state)
{
    (void)state;
    static member m[MEMBERS];
    static const char *const settings[] = {"epochs=2", "data.limit=203"};
    run_on_machines("none", true, 2, settings, m);
    for (int i = 0; i < MEMBERS; i++) {
        CHECK_INT(m[i].seat.status, LKS_E_NOT_FOUND);
        assert_non_null(strstr(m[i].seat.message, "there is no run to go on with in "));
        assert_non_null(strstr(m[i].seat.message, "machine0/none"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_run_directory_is_needed_on_the_first_machine_only),
        cmocka_unit_test(what_rank_0_can_not_find_is_told_to_all),
    };
    return cmocka_run_group_tests(tests, make_folders, remove_temp_folder);
}
