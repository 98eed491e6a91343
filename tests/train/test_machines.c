/* SPDX-License-Identifier: Apache-2.0 */
/* Runs over several machines: the bytes of one machine's run, whatever the members' places and the sizes of
 * buckets; copies that differ; stops, resumed runs and failures. */
#define _GNU_SOURCE /* nftw */
#include "thread_members.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include <lockstep/lockstep.h>

#include "base/alloc.h"
#include "train/trainer.h"
#include "unit/temp_folder.h"

enum { N_FEATURES = 13, N_CLASSES = 3, N_SAMPLES = 203, N_TEST = 50, MAX_STEPS = 64, N_LAYOUTS = 6 };

static float features[N_SAMPLES][N_FEATURES];
static int32_t labels[N_SAMPLES];

static int make_samples(void **state)
{
    uint32_t x = 12345;
    for (int i = 0; i < N_SAMPLES; i++) {
        labels[i] = i % N_CLASSES;
        for (int j = 0; j < N_FEATURES; j++) {
            x = x * 1664525u + 1013904223u;
            features[i][j] = (float)(x >> 8) * 0x1p-23f - 1.0f + (j % N_CLASSES == labels[i] ? 0.5f : 0.0f);
        }
    }
    return make_temp_folder(state);
}

/* Four members: on one machine, evenly on two, each on its own, dealt out in turn, and unevenly. */
static const int layouts[N_LAYOUTS][4] = {
    {0, 0, 0, 0}, {0, 0, 1, 1}, {0, 1, 2, 3}, {0, 1, 0, 1}, {0, 0, 0, 1}, {0, 1, 1, 0},
};

typedef struct trial {
    int members;
    const int *layout; /* [members]; NULL: on one machine */
    int64_t n_samples;
    lks_plan_config plan;
    lks_optimizer_config optimizer;
    double dropout, clip_norm, clip_value;
    int64_t bucket_bytes, checkpoint_every;
    const char *output, *resume;
    int stop_rank, fail_rank, spoil_rank; /* -1: none */
    int64_t at_step;                      /* after which the one does so */
} trial;

typedef struct member {
    seat seat;
    const trial *trial;
    lks_trainer *trainer;
    int32_t labels[N_SAMPLES]; /* its own */
    lks_train_result result;
    double losses[MAX_STEPS];
    int64_t allocations_at_step_2, allocations;
    volatile int stop_signal;
} member;

static member base[MAX_MEMBERS], many[MAX_MEMBERS];

/* 203 = 6 * 32 + 11: the last step of an epoch has leaves of two samples and of one. */
static trial default_trial(void)
{
    trial t = {.members = 4,
               .n_samples = N_SAMPLES,
               .plan = lks_plan_config_default(),
               .optimizer = lks_optimizer_config_default(LKS_SGD),
               .bucket_bytes = 20000,
               .stop_rank = -1,
               .fail_rank = -1,
               .spoil_rank = -1};
    t.plan.world = 8;
    t.plan.local_batch = 4;
    t.plan.epochs = 0;
    t.plan.steps = 16;
    t.plan.base_lr = 0.05;
    t.optimizer.momentum = 0.9;
    return t;
}

/* A member's doing after some step: asks to stop; spoils its samples, so that its next step fails; changes a
 * parameter of its machine's copy, which nobody else uses. */
static void act(member *m)
{
    const trial *t = m->trial;
    int rank = lks_group_rank(m->seat.group);
    if (rank == t->stop_rank)
        m->stop_signal = 15;
    for (int i = 0; rank == t->fail_rank && i < N_SAMPLES; i++)
        m->labels[i] = N_CLASSES;
    if (rank == t->spoil_rank)
        m->trainer->params[lks__network_param(m->trainer->network, 2)->offset_elems + 7] += 1.0f;
}

static void on_progress(void *context, const lks_train_progress *progress)
{
    member *m = context;
    if (progress->step <= MAX_STEPS)
        m->losses[progress->step - 1] = progress->loss;
    if (progress->step == 2)
        m->allocations_at_step_2 = lks__alloc_count();
    m->allocations = lks__alloc_count() - m->allocations_at_step_2;
    if (progress->step == m->trial->at_step && !progress->epoch_end)
        act(m);
}

static lks_trainer_config trainer_config(member *m)
{
    const trial *t = m->trial;
    lks_trainer_config config = lks_trainer_config_default();
    config.group = m->seat.group;
    config.optimizer = t->optimizer;
    config.clip_norm = t->clip_norm;
    config.clip_value = t->clip_value;
    config.seed = 7;
    config.bucket_bytes = t->bucket_bytes;
    config.output_path = t->output;
    config.resume_path = t->resume;
    config.hashes_every_steps = 4;
    config.checkpoint_every_steps = t->checkpoint_every;
    config.stop_signal = &m->stop_signal;
    config.progress = on_progress;
    config.progress_context = m;
    return config;
}

/* A network of 8,000 parameters: blocks of all lengths, and buckets of some of its tensors. */
static lks_status train(void *self)
{
    member *m = self;
    const trial *t = m->trial;
    int64_t shape = N_FEATURES, hidden[] = {150, 40};
    lks_dataset *set = NULL, *test = NULL;
    lks_graph *graph = NULL;
    lks_plan plan;
    lks_plan_config wanted = t->plan;
    wanted.n_samples = t->n_samples;
    wanted.processes = t->members;
    memcpy(m->labels, labels, sizeof labels);
    lks_trainer_config config = trainer_config(m);

    lks_status status = lks_dataset_from_arrays(t->n_samples, 1, &shape, LKS_F32, features, m->labels, &set);
    if (status == LKS_OK)
        status = lks_dataset_from_arrays(N_TEST, 1, &shape, LKS_F32, features, labels, &test);
    if (status == LKS_OK)
        status = lks_graph_create_mlp(N_FEATURES, 2, hidden, t->dropout, N_CLASSES, &graph);
    if (status == LKS_OK)
        status = lks_plan_create(&wanted, &plan);
    config.plan = &plan;
    config.graph = graph;
    config.train_set = set;
    config.test_set = test;
    if (status == LKS_OK)
        status = lks_trainer_create(&config, &m->trainer);
    if (status == LKS_OK)
        status = lks_trainer_run(m->trainer, &m->result);
    lks_trainer_destroy(m->trainer);
    lks_graph_destroy(graph);
    lks_dataset_destroy(test);
    lks_dataset_destroy(set);
    return status;
}

static void run_trial(const trial *t, member members[MAX_MEMBERS])
{
    for (int i = 0; i < t->members; i++) {
        members[i] = (member){.trial = t};
        machines_of_members[i] = t->layout != NULL ? t->layout[i] : 0;
    }
    run_members(t->members, train, sizeof *members, members);
}

static void run_well(const trial *t, member members[MAX_MEMBERS])
{
    run_trial(t, members);
    for (int i = 0; i < t->members; i++)
        if (members[i].seat.status != LKS_OK)
            fail_msg("member %d of %d: %s", i, t->members, members[i].seat.message);
}

static void check_same_run(const char *name, const member *a, const member *b)
{
    if (memcmp(a->losses, b->losses, sizeof a->losses) != 0)
        fail_msg("%s: the losses differ", name);
    if (a->result.parameters_hash != b->result.parameters_hash)
        fail_msg("%s: hash %016llx and %016llx", name, (unsigned long long)a->result.parameters_hash,
                 (unsigned long long)b->result.parameters_hash);
    assert_memory_equal(&a->result.test_loss, &b->result.test_loss, sizeof(double));
    assert_memory_equal(&a->result.train_loss, &b->result.train_loss, sizeof(double));
}

/* On layouts as by one member alone: on every second one, and on the others when called the next time. */
static void run_alike(const char *name, trial t)
{
    static int calls;
    t.members = 1;
    run_well(&t, base);
    assert_true(isfinite(base[0].result.test_loss));
    t.members = 4;
    for (int i = calls++ % 2; i < N_LAYOUTS; i += 2) {
        t.layout = layouts[i];
        run_well(&t, many);
        for (int rank = 0; rank < t.members; rank++)
            check_same_run(name, &base[0], &many[rank]);
    }
}

/* --- the same bytes --- */

static void every_optimizer_gives_the_same_bytes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        lks_optimizer_kind kind;
        double lr, clip_norm, clip_value;
    } cases[] = {{"sgd", LKS_SGD, 0.05, 0, 0},      {"adam", LKS_ADAM, 0.005, 0, 0},
                 {"lars", LKS_LARS, 1.0, 0, 0},     {"lamb", LKS_LAMB, 0.01, 0, 0},
                 {"norm", LKS_SGD, 0.05, 0.2, 0},   {"value", LKS_ADAM, 0.005, 0, 1e-3},
                 {"both", LKS_LAMB, 0.01, 0.2, 0.1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        trial t = default_trial();
        t.optimizer = lks_optimizer_config_default(cases[i].kind);
        t.optimizer.momentum = cases[i].kind == LKS_SGD ? 0.9 : 0.0;
        t.plan.base_lr = cases[i].lr;
        t.clip_norm = cases[i].clip_norm;
        t.clip_value = cases[i].clip_value;
        run_alike(cases[i].name, t);
    }
}

/* Its gain comes from the leaves' own gradients, which are sums over all members a moment later. One leaf a
 * member, whose arena is the one that travels, and several. */
static void adascale_gives_the_same_bytes(void **state)
{
    (void)state;
    for (int world = 4; world <= 8; world += 4) {
        trial t = default_trial();
        t.plan.world = world;
        t.plan.steps = 0;
        t.plan.epochs = 2;
        t.plan.lr_rule = LKS_LR_ADASCALE;
        t.plan.reference_batch = 8;
        t.plan.warmup_epochs = 0;
        run_alike("adascale", t);
    }
}

/* One, two and four leaves for each member, and eight by accumulation; buckets of one tensor, and one bucket.
 */
static void any_number_of_leaves_gives_the_same_bytes(void **state)
{
    (void)state;
    static const int64_t shapes[][3] = {{4, 1, 1}, {16, 1, 20000}, {4, 8, 1 << 20}};
    for (int i = 0; i < 6; i++) {
        trial t = default_trial();
        t.plan.world = shapes[i % 3][0];
        t.plan.accumulate = shapes[i % 3][1];
        t.plan.local_batch = 2;
        t.bucket_bytes = shapes[i % 3][2];
        run_alike("leaves", t);
    }
}

/* 197 = 6 * 32 + 5: three of the last step's eight leaves are empty, two of them one member's. */
static void empty_leaves_and_dropout_give_the_same_bytes(void **state)
{
    (void)state;
    trial t = default_trial();
    t.n_samples = 197;
    t.dropout = 0.3;
    run_alike("tail", t);
}

static void a_step_allocates_nothing(void **state)
{
    (void)state;
    trial t = default_trial();
    t.layout = layouts[1];
    run_well(&t, many);
    for (int rank = 1; rank < t.members; rank++) /* rank 0 writes */
        CHECK_INT(many[rank].allocations, 0);
}

/* --- copies --- */

/* 16 steps: after 4, 8, 12 and 16; the epoch's end after 7 and 14. */
static void copies_are_counted_and_compared(void **state)
{
    (void)state;
    static const int machines[N_LAYOUTS] = {1, 2, 4, 2, 2, 2};
    trial t = default_trial();
    for (int i = 0; i < N_LAYOUTS; i++) {
        t.layout = layouts[i];
        run_well(&t, many);
        for (int rank = 0; rank < t.members; rank++) {
            CHECK_INT(many[rank].result.machines, machines[i]);
            CHECK_INT(many[rank].result.comparisons, machines[i] > 1 ? 6 : 0);
            assert_true((many[rank].result.times.exchange > 0) == (machines[i] > 1));
        }
    }
}

/* By a machine with one member, so that nobody reads what it changes. Found at the next comparison, named by
 * the first tensor; where there is one copy, there is nothing to compare. */
static void a_copy_that_differs_is_an_error_everywhere(void **state)
{
    (void)state;
    static const int which[] = {2, 4};
    for (int i = 0; i < 2; i++) {
        trial t = default_trial();
        t.layout = layouts[which[i]];
        t.spoil_rank = 3;
        t.at_step = 9;
        run_trial(&t, many);
        for (int rank = 0; rank < t.members; rank++) {
            CHECK_INT(many[rank].seat.status, LKS_E_MISMATCH);
            if (strstr(many[rank].seat.message,
                       "after step 12 the copies of the parameters differ: \"2.weight\" on the machine of "
                       "rank 3 is not what it is on rank 0's") == NULL)
                fail_msg("rank %d: \"%s\"", rank, many[rank].seat.message);
        }
    }
}

/* No checkpoint is written of copies that differ. */
static void copies_are_compared_before_a_checkpoint(void **state)
{
    (void)state;
    trial t = default_trial();
    t.layout = layouts[2];
    t.spoil_rank = 3;
    t.at_step = 9;
    t.output = in_temp_folder("differs");
    t.checkpoint_every = 5;
    run_trial(&t, many);
    CHECK_INT(many[0].seat.status, LKS_E_MISMATCH);
    assert_non_null(strstr(many[0].seat.message, "after step 10 the copies"));
    CHECK_INT(access(in_temp_folder("differs/checkpoints/step-00000005.safetensors"), F_OK), 0);
    CHECK_INT(access(in_temp_folder("differs/checkpoints/step-00000010.safetensors"), F_OK), -1);
}

/* --- stops, resumed runs, failures --- */

static void a_member_of_any_machine_can_stop_the_run(void **state)
{
    (void)state;
    trial t = default_trial();
    t.at_step = 5;
    for (int i = 1; i < N_LAYOUTS; i++) {
        t.layout = layouts[i];
        t.stop_rank = i % 4;
        run_well(&t, many);
        for (int rank = 0; rank < t.members; rank++) {
            CHECK_INT(many[rank].result.stopped, LKS_STOP_SIGNAL);
            CHECK_INT(many[rank].result.steps, 6); /* the flag rides on the next step */
        }
    }
}

static void check_equal_files(const char *a, const char *b)
{
    char command[1200];
    snprintf(command, sizeof command, "cmp %s/%s %s/%s", in_temp_folder(""), a, in_temp_folder(""), b);
    CHECK_INT(system(command), 0);
}

/* Whatever wrote the checkpoint, it has the same bytes, and whatever goes on from it ends with the same. */
static void a_run_goes_on_elsewhere(void **state)
{
    (void)state;
    char resume[400], file[128];
    trial t = default_trial();
    t.optimizer = lks_optimizer_config_default(LKS_ADAM);
    t.plan.base_lr = 0.005;
    run_well(&t, base);
    for (int i = 0; i < 3; i++) {
        snprintf(file, sizeof file, "from%d", i);
        t.layout = layouts[i];
        t.output = in_temp_folder(file);
        t.checkpoint_every = 10;
        t.resume = NULL;
        run_well(&t, many);
        snprintf(file, sizeof file, "from%d/checkpoints/step-00000010.safetensors", i);
        check_equal_files("from0/checkpoints/step-00000010.safetensors", file);
        snprintf(resume, sizeof resume, "%s", in_temp_folder(file));
        t.resume = resume;
        t.output = NULL;
        t.checkpoint_every = 0;
        t.layout = layouts[N_LAYOUTS - 1 - i];
        run_well(&t, many);
        for (int rank = 0; rank < t.members; rank++)
            if (many[rank].result.parameters_hash != base[0].result.parameters_hash)
                fail_msg("from layout %d: rank %d has other parameters", i, rank);
    }
}

/* The first failure is the member's own; the others are told by whoever saw it leave. */
static void a_member_that_fails_ends_the_run_everywhere(void **state)
{
    (void)state;
    trial t = default_trial();
    t.at_step = 5;
    for (int i = 1; i < N_LAYOUTS; i++) {
        t.layout = layouts[i];
        t.fail_rank = 4 - i % 4 - 1;
        run_trial(&t, many);
        for (int rank = 0; rank < t.members; rank++)
            CHECK_INT(many[rank].seat.status, rank == t.fail_rank ? LKS_E_ARG : LKS_E_PEER);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_optimizer_gives_the_same_bytes),
        cmocka_unit_test(adascale_gives_the_same_bytes),
        cmocka_unit_test(any_number_of_leaves_gives_the_same_bytes),
        cmocka_unit_test(empty_leaves_and_dropout_give_the_same_bytes),
        cmocka_unit_test(a_step_allocates_nothing),
        cmocka_unit_test(copies_are_counted_and_compared),
        cmocka_unit_test(a_copy_that_differs_is_an_error_everywhere),
        cmocka_unit_test(copies_are_compared_before_a_checkpoint),
        cmocka_unit_test(a_member_of_any_machine_can_stop_the_run),
        cmocka_unit_test(a_run_goes_on_elsewhere),
        cmocka_unit_test(a_member_that_fails_ends_the_run_everywhere),
    };
    return cmocka_run_group_tests(tests, make_samples, remove_temp_folder);
}
