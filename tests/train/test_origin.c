/* SPDX-License-Identifier: Apache-2.0 */
/* A program of one's own goes on from a checkpoint with another plan: lks_checkpoint_origin and the trainer.
 */
#define _GNU_SOURCE /* nftw */
#include "thread_members.h"

#include <stdlib.h>

#include <lockstep/lockstep.h>

#include "unit/temp_folder.h"

enum { N_FEATURES = 5, N_CLASSES = 3, N_SAMPLES = 101 };

static float features[N_SAMPLES][N_FEATURES];
static int32_t labels[N_SAMPLES];

static int set_up(void **state)
{
    uint32_t x = 99;
    for (int i = 0; i < N_SAMPLES; i++) {
        labels[i] = i % N_CLASSES;
        for (int j = 0; j < N_FEATURES; j++) {
            x = x * 1664525u + 1013904223u;
            features[i][j] = (float)(x >> 8) * 0x1p-23f - 1.0f + (j % N_CLASSES == labels[i] ? 0.5f : 0.0f);
        }
    }
    return make_temp_folder(state);
}

/* Four workers with three samples each: 9 steps in an epoch, the last one of 5 samples. */
static lks_plan_config first_part(void)
{
    lks_plan_config c = lks_plan_config_default();
    c.n_samples = N_SAMPLES;
    c.world = 4;
    c.local_batch = 3;
    c.epochs = 4;
    c.base_lr = 0.1;
    c.schedule.kind = LKS_SCHEDULE_COSINE;
    return c;
}

typedef struct trial {
    lks_plan_config plan;
    const char *output, *resume; /* NULL: none */
    bool as_changed;             /* the run directory is told so */
    int64_t checkpoints;         /* every so many steps */
} trial;

typedef struct member {
    seat seat;
    const trial *trial;
    lks_train_result result;
    int64_t samples[64]; /* seen after each step */
} member;

static void keep_samples(void *context, const lks_train_progress *progress)
{
    member *m = context;
    if (progress->step < 64)
        m->samples[progress->step] = progress->samples;
}

static lks_status train(void *self)
{
    member *m = self;
    const trial *t = m->trial;
    int64_t shape = N_FEATURES, hidden = 7;
    lks_dataset *set = NULL;
    lks_graph *graph = NULL;
    lks_trainer *trainer = NULL;
    lks_plan plan;
    lks_plan_config wanted = t->plan;
    wanted.processes = lks_group_size(m->seat.group);
    CHECK_OK(lks_dataset_from_arrays(wanted.n_samples, 1, &shape, LKS_F32, features, labels, &set));
    CHECK_OK(lks_graph_create_mlp(N_FEATURES, 1, &hidden, 0, N_CLASSES, &graph));
    CHECK_OK(lks_plan_create(&wanted, &plan));
    lks_trainer_config config = lks_trainer_config_default();
    config.group = m->seat.group;
    config.plan = &plan;
    config.graph = graph;
    config.train_set = set;
    config.optimizer.momentum = 0.9;
    config.seed = 4;
    config.output_path = lks_group_rank(m->seat.group) == 0 ? t->output : NULL;
    config.resume_path = t->resume;
    config.config_yaml = "local: 3\n";
    if (t->as_changed) {
        config.config_yaml = "local: 5\n";
        config.changes = "{\"local\": [3, 5]}";
    }
    config.checkpoint_every_steps = t->checkpoints;
    config.checkpoint_keep = 100;
    config.progress = keep_samples;
    config.progress_context = m;
    lks_status status = lks_trainer_create(&config, &trainer);
    if (status == LKS_OK)
        status = lks_trainer_run(trainer, &m->result);
    lks_trainer_destroy(trainer);
    lks_graph_destroy(graph);
    lks_dataset_destroy(set);
    return status;
}

static void begin(const trial *t, int n, member members[MAX_MEMBERS])
{
    for (int i = 0; i < n; i++)
        members[i] = (member){.trial = t};
}

static void run_trial(const trial *t, int n, member members[MAX_MEMBERS])
{
    begin(t, n, members);
    run_members(n, train, sizeof *members, members);
}

static void run_well(const trial *t, int n, member members[MAX_MEMBERS])
{
    begin(t, n, members);
    run_members_well(n, train, sizeof *members, members);
}

/* The path of a checkpoint of the first run, which is made once. */
static const char *checkpoint(int64_t step)
{
    static bool made;
    static member members[MAX_MEMBERS];
    char name[64];
    if (!made) {
        trial t = {.plan = first_part(), .output = in_temp_folder("first"), .checkpoints = 1};
        run_well(&t, 2, members);
        made = true;
    }
    snprintf(name, sizeof name, "first/checkpoints/step-%08lld.safetensors", (long long)step);
    return in_temp_folder(name);
}

static void a_checkpoint_tells_where_it_is(void **state)
{
    (void)state;
    static const lks_plan_origin expected[] = {
        {13, 149, 1, 48}, /* 101 + 4 * 12 */
        {9, 101, 1, 0},   /* the end of an epoch is the beginning of the next */
        {8, 96, 0, 96},
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        lks_plan_origin origin;
        CHECK_OK(lks_checkpoint_origin(checkpoint(expected[i].step), &origin));
        assert_memory_equal(&origin, &expected[i], sizeof origin);
    }
    lks_plan_origin origin = {.step = 7};
    CHECK_FAILS(lks_checkpoint_origin(in_temp_folder("first/model.safetensors"), &origin), LKS_E_FORMAT, "");
    CHECK_FAILS(lks_checkpoint_origin(in_temp_folder("nowhere"), &origin), LKS_E_NOT_FOUND, "nowhere");
    CHECK_INT(origin.step, 7);
}

/* What is left of the epoch, then whole epochs, of five samples for each worker; on any number of members. */
static void a_run_goes_on_with_another_plan(void **state)
{
    (void)state;
    static const struct {
        int64_t step, seen[4]; /* after the first steps */
    } cases[] = {
        {13, {169, 189, 202, 222}}, /* 53 are left: 20, 20, 13 */
        {9, {121, 141, 161, 181}},
        {8, {101, 121, 141, 161}}, /* 5 are left */
    };
    static member one[MAX_MEMBERS], many[MAX_MEMBERS];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        trial t = {.plan = first_part(), .resume = checkpoint(cases[i].step)};
        t.plan.local_batch = 5;
        CHECK_OK(lks_checkpoint_origin(t.resume, &t.plan.origin));
        run_well(&t, 1, one);
        for (int k = 0; k < 4; k++)
            CHECK_INT(one[0].samples[cases[i].step + 1 + k], cases[i].seen[k]);
        assert_true(one[0].result.epochs == 4);
        for (int n = 2; n <= 4; n *= 2) {
            run_well(&t, n, many);
            assert_memory_equal(many[n - 1].samples, one[0].samples, sizeof one[0].samples);
            CHECK_INT(many[n - 1].result.parameters_hash, one[0].result.parameters_hash);
            assert_true(many[n - 1].result.train_loss == one[0].result.train_loss);
        }
    }
}

/* The origin alone changes nothing. */
static void the_same_batch_goes_on_as_if_nothing_had_been(void **state)
{
    (void)state;
    static member plain[MAX_MEMBERS], origin[MAX_MEMBERS];
    for (int64_t step = 8; step <= 13; step++) {
        trial t = {.plan = first_part(), .resume = checkpoint(step)};
        run_well(&t, 2, plain);
        CHECK_OK(lks_checkpoint_origin(t.resume, &t.plan.origin));
        run_well(&t, 2, origin);
        CHECK_INT(origin[0].result.parameters_hash, plain[0].result.parameters_hash);
        CHECK_INT(origin[0].result.steps, plain[0].result.steps);
        assert_true(origin[0].result.train_loss == plain[0].result.train_loss);
    }
}

static void the_run_directory_gets_the_plan(void **state)
{
    (void)state;
    static member members[MAX_MEMBERS];
    trial t = {.plan = first_part(), .output = in_temp_folder("again"), .checkpoints = 5};
    run_well(&t, 1, members);
    t.resume = in_temp_folder("again/checkpoints/step-00000010.safetensors");
    t.plan.local_batch = 5;
    t.as_changed = true;
    CHECK_OK(lks_checkpoint_origin(t.resume, &t.plan.origin));
    run_well(&t, 2, members);
    char text[4000];
    get_file(in_temp_folder("again/config.yaml"), text, sizeof text);
    assert_string_equal(text, "local: 5\n");
    get_file(in_temp_folder("again/config.1.yaml"), text, sizeof text);
    assert_string_equal(text, "local: 3\n");
    text[get_file(in_temp_folder("again/plan.json"), text, sizeof text - 1)] = '\0';
    assert_non_null(strstr(text, "\"local_batch\": 5"));

    /* from a checkpoint of the changed run, whose origin is the plan's: not a change any more */
    uint64_t hash = members[0].result.parameters_hash;
    t.resume = in_temp_folder("again/checkpoints/step-00000015.safetensors");
    t.as_changed = false;
    t.output = NULL;
    run_well(&t, 4, members);
    CHECK_INT(members[0].result.parameters_hash, hash);
}

static void check_refused(const trial *t, const char *message)
{
    static member members[MAX_MEMBERS];
    run_trial(t, 2, members);
    for (int i = 0; i < 2; i++) {
        assert_true(members[i].seat.status == LKS_E_ARG || members[i].seat.status == LKS_E_FORMAT);
        if (strstr(members[i].seat.message, message) == NULL)
            fail_msg("the message is \"%s\", it lacks \"%s\"", members[i].seat.message, message);
    }
}

static void plans_that_do_not_begin_there_are_refused(void **state)
{
    (void)state;
    trial t = {.plan = first_part(), .resume = checkpoint(13)};
    lks_plan_origin here;
    CHECK_OK(lks_checkpoint_origin(t.resume, &here));
    t.plan.local_batch = 5;
    check_refused(&t, "local_batch was 3; this plan has 5");
    t.plan.origin = here;
    t.plan.origin.offset -= 12;
    check_refused(&t, "step 13, epoch 1, sample 149 is no place in this run");
    t.plan.origin = here;
    t.plan.origin.epoch++;
    check_refused(&t, "is no place in this run");
    t.plan.origin = here;
    t.plan.origin.samples++;
    check_refused(&t, "is no place in this run");
    CHECK_OK(lks_checkpoint_origin(checkpoint(14), &t.plan.origin)); /* of another checkpoint */
    check_refused(&t, "this plan has");
    t.plan.origin = here;
    t.plan.tail = LKS_TAIL_DROP;
    check_refused(&t, "tail was \"exact\"; this plan has \"drop\"");
    t.plan.tail = LKS_TAIL_EXACT;
    t.plan.n_samples = 90;
    check_refused(&t, "train_samples was 101; this plan has 90");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_tells_where_it_is),
        cmocka_unit_test(a_run_goes_on_with_another_plan),
        cmocka_unit_test(the_same_batch_goes_on_as_if_nothing_had_been),
        cmocka_unit_test(the_run_directory_gets_the_plan),
        cmocka_unit_test(plans_that_do_not_begin_there_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, remove_temp_folder);
}
