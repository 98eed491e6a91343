/* SPDX-License-Identifier: Apache-2.0 */
/* The memory that the plan predicts is what the run has allocated. */
#define _GNU_SOURCE
#include "thread_members.h"

#include <lockstep/lockstep.h>

#include "train/trainer.h"
#include "unit/temp_folder.h"

enum { MAX_OVERRIDES = 10 };

/* Beside what is predicted: handles, lists of pointers. */
enum { HANDLES_BYTES = 1024 };

typedef struct trial {
    int members;
    const char *overrides[MAX_OVERRIDES];
} trial;

typedef struct member {
    seat seat;
    const lks_config *config;
    lks_plan plan;
    lks_train_result result;
} member;

static void keep_plan(void *context, const lks_plan *plan)
{
    member *m = context;
    m->plan = *plan;
}

/* All members count in one program: none leaves before all have counted. */
static lks_status train(void *self)
{
    member *m = self;
    lks_train_options options = {.overwrite = true, .started = keep_plan, .context = m};
    lks_status status = lks_train(m->config, m->seat.group, &options, &m->result);
    return status == LKS_OK ? lks_group_barrier(m->seat.group) : status;
}

static void check_between(const char *what, int64_t actual, int64_t least, int64_t above)
{
    if (actual < least || actual > least + above)
        fail_msg("%s: %lld bytes, predicted %lld (at most %lld more)", what, (long long)actual,
                 (long long)least, (long long)above);
}

/* `before` the run the program had its own. */
static void check_memory(const lks_plan_memory *measured, const lks_plan_memory *before, const lks_plan *plan)
{
    const lks_plan_memory *m = &plan->memory;
    int64_t n = plan->processes, machines = machines_of_members[n - 1] + 1;
    check_between("parameters", measured->parameters - before->parameters, machines * m->parameters, 0);
    check_between("optimizer", measured->optimizer - before->optimizer, machines * m->optimizer, 0);
    check_between("activations", measured->activations - before->activations, n * m->activations, 0);
    check_between("gradients", measured->gradients - before->gradients, n * m->gradients, n * HANDLES_BYTES);
    check_between("data", measured->data - before->data, n * m->data, n * HANDLES_BYTES);
    /* compiled nodes and kernels of up to six batch sizes (120 KB here), the run directory's buffers (two of
     * 16 KiB), one block of 16 KiB, lists of blocks: 32 bytes and a few norms for each 16 KiB of gradient;
     * over several machines the places for what a group has under way */
    int64_t under_way = machines > 1 ? 8 << 20 : 0;
    check_between("other", measured->other - before->other, n * m->other,
                  n * (192 * 1024 + m->gradients / 256 + under_way));
    /* while one is written */
    check_between("checkpoint", measured->checkpoint - before->checkpoint, 0, m->checkpoint);
}

static void check_trial(const trial *t)
{
    static member members[MAX_MEMBERS];
    const char *overrides[MAX_OVERRIDES + 3] = {"epochs=1", "data.limit=203"};
    char output[64];
    int n = 2;
    snprintf(output, sizeof output, "output=%s", in_temp_folder("run"));
    overrides[n++] = output;
    for (int i = 0; i < MAX_OVERRIDES && t->overrides[i] != NULL; i++)
        overrides[n++] = t->overrides[i];
    lks_config *config;
    lks_plan plan;
    CHECK_OK(lks_config_load("examples/digits.yaml", n, overrides, &config));
    CHECK_OK(lks_train_plan(config, t->members, &plan));
    const lks_plan_memory before = lks__measure_memory();
    for (int i = 0; i < t->members; i++)
        members[i] = (member){.config = config};
    run_members_well(t->members, train, sizeof *members, members);
    for (int i = 0; i < t->members; i++) {
        assert_memory_equal(&members[i].plan.memory, &plan.memory, sizeof plan.memory);
        check_memory(&members[i].result.memory, &before, &plan);
    }
    /* nothing stays, and nothing is counted in another category than where it was */
    const lks_plan_memory after = lks__measure_memory();
    assert_memory_equal(&after, &before, sizeof after);
    CHECK_INT(plan.reduced_bytes, t->members > 1 ? 4 * members[0].result.parameters : 0);
    lks_config_destroy(config);
}

static void a_run_takes_what_was_predicted(void **state)
{
    (void)state;
    static const trial trials[] = {
        {1, {NULL}},
        {2, {"optimizer.momentum=0"}},
        {1, {"batch.accumulate=5", "model.hidden=[300,17]"}},
        {4, {"world=8", "batch.accumulate=3", "model.hidden=[9]"}},
        {3, {"world=9", "batch.local=3", "data.tail=pad", "model.dropout=0.5"}},
        {2, {"world=12", "optimizer.kind=adamw", "optimizer.momentum=auto", "model.hidden=[100,100]"}},
        {4, {"batch.local=50", "optimizer.kind=lamb", "optimizer.momentum=auto", "lr.rule=sqrt"}},
        {2, {"optimizer.kind=lars", "batch.local=1", "epochs=auto", "steps=20"}},
        {2, {"lr.rule=adascale", "lr.reference_batch=16", "lr.warmup_epochs=0", "threads=2"}},
    };
    for (size_t i = 0; i < sizeof trials / sizeof trials[0]; i++)
        check_trial(&trials[i]);
}

/* By hand: 64 x 64 + 64 and 64 x 10 + 10 values. Five leaves are 101 in binary: three arenas. */
static void sizes_follow_from_the_plan(void **state)
{
    (void)state;
    const int64_t values = 64 * 64 + 64 + 64 * 10 + 10, samples = 1438, test_samples = 359;
    lks_config *config;
    lks_plan one, five;
    CHECK_OK(lks_config_load("examples/digits.yaml", 0, NULL, &config));
    CHECK_OK(lks_train_plan(config, 2, &one));
    CHECK_INT(one.reduced_bytes, 4 * values);
    assert_true(one.memory.parameters >= 4 * values && one.memory.parameters % 64 == 0);
    CHECK_INT(one.memory.optimizer, one.memory.parameters); /* the momentum */
    CHECK_INT(one.memory.gradients, one.memory.parameters);
    CHECK_INT(one.memory.data, (64 + 4) * (samples + test_samples) + 4 * samples + 8 * 16);
    CHECK_INT(one.memory.checkpoint, 2 * 4 * values);
    CHECK_INT(one.memory.other, 4 * 64 * 64);
    int64_t of_each = one.memory.gradients + one.memory.activations + one.memory.data + one.memory.other;
    CHECK_INT(lks_plan_process_bytes(&one), of_each + one.memory.checkpoint);
    CHECK_INT(lks_plan_machine_bytes(&one),
              2 * of_each + one.memory.checkpoint + one.memory.parameters + one.memory.optimizer);
    CHECK_OK(lks_config_set(config, "batch.accumulate", "5"));
    CHECK_OK(lks_train_plan(config, 1, &five));
    CHECK_INT(five.memory.gradients, 3 * one.memory.parameters);
    CHECK_INT(five.reduced_bytes, 0);
    lks_config_destroy(config);
}

static void a_plan_without_a_model_has_none(void **state)
{
    (void)state;
    lks_plan_config c = lks_plan_config_default();
    c.n_samples = 100;
    c.local_batch = 10;
    lks_plan plan;
    char *text;
    CHECK_OK(lks_plan_create(&c, &plan));
    CHECK_INT(lks_plan_machine_bytes(&plan), 0);
    CHECK_OK(lks_plan_to_json(&plan, &text));
    assert_non_null(strstr(text, "\"memory\": null"));
    assert_non_null(strstr(text, "\"memory_process_bytes\": null"));
    assert_non_null(strstr(text, "\"reduced_bytes\": null"));
    free(text);
    CHECK_OK(lks_plan_to_text(&plan, &text));
    assert_null(strstr(text, "memory"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_takes_what_was_predicted),
        cmocka_unit_test(sizes_follow_from_the_plan),
        cmocka_unit_test(a_plan_without_a_model_has_none),
    };
    return cmocka_run_group_tests(tests, make_temp_folder, remove_temp_folder);
}
