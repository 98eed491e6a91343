/* SPDX-License-Identifier: Apache-2.0 */
/* The trainer on groups of threads: the same bits at any number of members, the averaging rule, stops and
 * failures. */
#include "thread_members.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include <xxhash.h>

#include <lockstep/lockstep.h>

#include "base/alloc.h"
#include "record/safetensors.h"

enum { N_FEATURES = 13, N_CLASSES = 3, MAX_SAMPLES = 256, MAX_STEPS = 256 };

static float features[MAX_SAMPLES][N_FEATURES];
static int32_t labels[MAX_SAMPLES];

static int make_samples(void **state)
{
    (void)state;
    uint32_t x = 12345;
    for (int i = 0; i < MAX_SAMPLES; i++) {
        labels[i] = i % N_CLASSES;
        for (int j = 0; j < N_FEATURES; j++) {
            x = x * 1664525u + 1013904223u;
            features[i][j] = (float)(x >> 8) * 0x1p-23f - 1.0f + (j % N_CLASSES == labels[i] ? 0.5f : 0.0f);
        }
    }
    return 0;
}

/* A run to try, and what each member saw of it. */
typedef struct trial {
    int members;
    int64_t n_samples;
    lks_plan_config plan;
    lks_optimizer_config optimizer;
    double dropout;
    int64_t seed;
    const char *init_path;
    const char *output_path;
    int stop_rank;          /* the member that is asked to stop, -1: none */
    int64_t stop_step;      /* after this many of its steps */
    int time_rank;          /* a member whose time is over at once, -1: none */
    int odd_seed_rank;      /* a member that is given another seed, -1: none */
    int odd_normalize_rank; /* the same */
    int odd_plan_rank;      /* the same */
} trial;

typedef struct member {
    seat seat;
    const trial *trial;
    lks_train_result result;
    double losses[MAX_STEPS];
    int64_t allocations_at_step_2, allocations_at_end;
    volatile int stop_signal;
} member;

static trial default_trial(int members)
{
    trial t = {.members = members,
               .n_samples = 203,
               .plan = lks_plan_config_default(),
               .optimizer = lks_optimizer_config_default(LKS_SGD),
               .seed = 7,
               .stop_rank = -1,
               .time_rank = -1,
               .odd_seed_rank = -1,
               .odd_normalize_rank = -1,
               .odd_plan_rank = -1};
    t.plan.world = 8;
    t.plan.local_batch = 4;
    t.plan.epochs = 0;
    t.plan.steps = 30;
    t.plan.base_lr = 0.05;
    t.optimizer.momentum = 0.9;
    return t;
}

static void on_progress(void *context, const lks_train_progress *progress)
{
    member *m = context;
    if (progress->step <= MAX_STEPS)
        m->losses[progress->step - 1] = progress->loss;
    if (progress->step == 2)
        m->allocations_at_step_2 = lks__alloc_count();
    m->allocations_at_end = lks__alloc_count();
    if (m->trial->stop_rank == lks_group_rank(m->seat.group) && progress->step == m->trial->stop_step)
        m->stop_signal = 15;
}

static lks_status train(void *self)
{
    member *m = self;
    const trial *t = m->trial;
    int64_t shape = N_FEATURES, hidden[] = {17, 9};
    lks_dataset *set = NULL, *test = NULL;
    lks_graph *graph = NULL;
    lks_trainer *trainer = NULL;
    lks_plan plan;
    lks_plan_config wanted = t->plan;
    wanted.n_samples = t->n_samples;
    wanted.processes = t->members;

    lks_status status = lks_dataset_from_arrays(t->n_samples, 1, &shape, LKS_F32, features, labels, &set);
    if (status == LKS_OK)
        status = lks_dataset_from_arrays(50, 1, &shape, LKS_F32, features, labels, &test);
    if (status == LKS_OK)
        status = lks_graph_create_mlp(N_FEATURES, 2, hidden, t->dropout, N_CLASSES, &graph);
    if (status == LKS_OK)
        status = lks_plan_create(&wanted, &plan);
    if (status == LKS_OK && t->odd_normalize_rank == lks_group_rank(m->seat.group))
        status = lks_dataset_set_normalize(set, &(lks_normalize){.mean = 0.1, .std = 1});
    if (t->odd_plan_rank == lks_group_rank(m->seat.group))
        plan.leaves_per_process = 1000;
    if (status == LKS_OK) {
        lks_trainer_config config = lks_trainer_config_default();
        config.group = m->seat.group;
        config.plan = &plan;
        config.graph = graph;
        config.train_set = set;
        config.test_set = test;
        config.optimizer = t->optimizer;
        config.seed = t->seed + (t->odd_seed_rank == lks_group_rank(m->seat.group));
        config.init_path = t->init_path;
        config.output_path = t->output_path;
        config.hashes_every_steps = 8;
        config.stop_signal = &m->stop_signal;
        if (t->time_rank == lks_group_rank(m->seat.group))
            config.max_seconds = 1e-9;
        config.progress = on_progress;
        config.progress_context = m;
        status = lks_trainer_create(&config, &trainer);
    }
    if (status == LKS_OK)
        status = lks_trainer_run(trainer, &m->result);
    lks_trainer_destroy(trainer);
    lks_graph_destroy(graph);
    lks_dataset_destroy(test);
    lks_dataset_destroy(set);
    return status;
}

static void begin(const trial *t, member members[MAX_MEMBERS])
{
    for (int i = 0; i < t->members; i++)
        members[i] = (member){.trial = t};
}

static void run_trial(const trial *t, member members[MAX_MEMBERS])
{
    begin(t, members);
    run_members(t->members, train, sizeof *members, members);
}

static void run_well(const trial *t, member members[MAX_MEMBERS])
{
    begin(t, members);
    run_members_well(t->members, train, sizeof *members, members);
}

static void check_same_run(const member *a, const member *b, int64_t steps)
{
    for (int64_t s = 0; s < steps; s++)
        if (memcmp(&a->losses[s], &b->losses[s], sizeof(double)) != 0)
            fail_msg("step %lld: loss %.17g and %.17g", (long long)s, a->losses[s], b->losses[s]);
    if (a->result.parameters_hash != b->result.parameters_hash)
        fail_msg("hash %016llx and %016llx", (unsigned long long)a->result.parameters_hash,
                 (unsigned long long)b->result.parameters_hash);
    assert_memory_equal(&a->result.test_loss, &b->result.test_loss, sizeof(double));
    assert_memory_equal(&a->result.test_accuracy, &b->result.test_accuracy, sizeof(double));
}

/* 203 = 6 * 32 + 11: the last step's 8 leaves have 2 or 1 samples. 197 = 6 * 32 + 5: three of them are empty.
 */
static void any_number_of_members_gives_the_same_bytes(void **state)
{
    (void)state;
    static const lks_optimizer_kind kinds[] = {LKS_SGD, LKS_ADAM};
    static const int64_t sample_counts[] = {203, 197};
    static member one[MAX_MEMBERS], many[MAX_MEMBERS];
    for (int k = 0; k < 2; k++) {
        for (int c = 0; c < 2; c++) {
            trial t = default_trial(1);
            t.optimizer = lks_optimizer_config_default(kinds[k]);
            t.optimizer.momentum = kinds[k] == LKS_SGD ? 0.9 : 0.0;
            t.plan.base_lr = kinds[k] == LKS_SGD ? 0.05 : 0.005;
            t.plan.steps = 200;
            t.n_samples = sample_counts[c];
            run_well(&t, one);
            assert_true(one[0].result.train_loss < one[0].losses[0]);
            for (t.members = 2; t.members <= 8; t.members *= 2) {
                run_well(&t, many);
                for (int i = 0; i < t.members; i++)
                    check_same_run(&one[0], &many[i], 200);
            }
        }
    }
}

/* What is dropped depends on step and leaf, wherever the leaf is computed. */
static void dropout_gives_the_same_bytes_on_any_number_of_members(void **state)
{
    (void)state;
    static member one[MAX_MEMBERS], many[MAX_MEMBERS];
    trial t = default_trial(1);
    run_well(&t, many);
    t.dropout = 0.3;
    run_well(&t, one);
    assert_true(one[0].losses[0] != many[0].losses[0]);
    for (t.members = 2; t.members <= 8; t.members *= 2) {
        run_well(&t, many);
        for (int i = 0; i < t.members; i++)
            check_same_run(&one[0], &many[i], t.plan.steps);
    }
}

/* Worker or accumulation: the leaves are the same. */
static void workers_and_accumulation_are_the_same_run(void **state)
{
    (void)state;
    static member a[MAX_MEMBERS], b[MAX_MEMBERS];
    trial t = default_trial(2);
    t.dropout = 0.3;
    run_well(&t, a);
    t.plan.world = 2;
    t.plan.accumulate = 4;
    run_well(&t, b);
    check_same_run(&a[0], &b[0], t.plan.steps);
}

/* 3 members with 2 leaves each: another tree, so rounding may differ, and nothing else. The bound: 30 steps
 * on losses of about 1 lose less than a thousand units in the last place of f32 (6e-8 each). */
static void other_sizes_agree_to_rounding(void **state)
{
    (void)state;
    static member one[MAX_MEMBERS], three[MAX_MEMBERS];
    trial t = default_trial(1);
    t.plan.world = 6;
    run_well(&t, one);
    t.members = 3;
    run_well(&t, three);
    for (int s = 0; s < 30; s++)
        CHECK_NEAR(three[1].losses[s], one[0].losses[s], 6e-5);
}

/* With plain SGD the first update is lr * gradient: `sum` over 8 leaves of equal size moves 8 times as far as
 * `mean`, and from the second loss on the two runs part. */
static void sum_is_mean_times_the_leaves(void **state)
{
    (void)state;
    static member mean[MAX_MEMBERS], sum[MAX_MEMBERS];
    trial t = default_trial(2);
    t.n_samples = 256;
    t.optimizer.momentum = 0;
    run_well(&t, mean);
    t.plan.reduction = LKS_REDUCTION_SUM;
    run_well(&t, sum);
    assert_true(mean[0].losses[0] == sum[0].losses[0] && mean[0].losses[1] != sum[0].losses[1]);
    /* division by 4 and by 32, the rate by a power of two: exact, so the same bits */
    t.plan.base_lr /= 8;
    run_well(&t, sum);
    check_same_run(&mean[0], &sum[0], t.plan.steps);
}

static void a_step_allocates_nothing(void **state)
{
    (void)state;
    static member m[MAX_MEMBERS];
    trial t = default_trial(1);
    t.plan.steps = 20;
    t.dropout = 0.5;
    run_well(&t, m);
    CHECK_INT(m[0].allocations_at_end, m[0].allocations_at_step_2);
}

static void one_member_that_is_asked_to_stop_stops_all_at_one_step(void **state)
{
    (void)state;
    static member m[MAX_MEMBERS];
    trial t = default_trial(4);
    t.plan.steps = 5000;
    t.stop_rank = 2;
    t.stop_step = 17;
    run_well(&t, m);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(m[i].result.stopped, LKS_STOP_SIGNAL);
        CHECK_INT(m[i].result.stop_signal, 15);
        CHECK_INT(m[i].result.steps, 18); /* the flag rides on the next step */
        check_same_run(&m[0], &m[i], 18);
    }
}

/* After one step: the time is over before any. */
static void one_member_whose_time_is_over_stops_all(void **state)
{
    (void)state;
    static member m[MAX_MEMBERS];
    trial t = default_trial(4);
    t.time_rank = 2;
    run_well(&t, m);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(m[i].result.stopped, LKS_STOP_TIME);
        CHECK_INT(m[i].result.stop_signal, 0);
        CHECK_INT(m[i].result.steps, 1);
    }
}

static void a_run_at_its_end_is_not_stopped(void **state)
{
    (void)state;
    static member m[MAX_MEMBERS];
    trial t = default_trial(2);
    t.plan.steps = 1;
    t.time_rank = 1;
    run_well(&t, m);
    CHECK_INT(m[0].result.stopped, LKS_STOP_NONE);
    t.plan.steps = 18;
    t.time_rank = -1;
    t.stop_rank = 1;
    t.stop_step = 17;
    run_well(&t, m);
    CHECK_INT(m[0].result.stopped, LKS_STOP_NONE);
    CHECK_INT(m[0].result.stop_signal, 0);
}

static void members_that_disagree_are_told_so(void **state)
{
    (void)state;
    static member m[MAX_MEMBERS];
    trial t = default_trial(2);
    t.odd_seed_rank = 1;
    run_trial(&t, m);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(m[i].seat.status, LKS_E_ARG);
        assert_non_null(strstr(m[i].seat.message, "rank 1 and rank 0 do not agree on the seed"));
    }

    t = default_trial(2);
    t.odd_normalize_rank = 1;
    run_trial(&t, m);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(m[i].seat.status, LKS_E_ARG);
        assert_non_null(strstr(m[i].seat.message, "do not agree on the training set or its normalisation"));
    }
}

static void a_plan_made_by_hand_is_refused(void **state)
{
    (void)state;
    static member m[MAX_MEMBERS];
    trial t = default_trial(2);
    t.odd_plan_rank = 0;
    run_trial(&t, m);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(m[i].seat.status, LKS_E_ARG);
        assert_non_null(strstr(m[i].seat.message, "leaves_per_process is 1000; 4 follows"));
    }
}

/* In the middle of a run, and in its only step, after which just the evaluation can tell. */
static void a_diverging_run_stops_on_all_members_alike(void **state)
{
    (void)state;
    static member m[MAX_MEMBERS];
    trial t = default_trial(2);
    t.plan.base_lr = 1e30;
    for (t.plan.steps = 30; t.plan.steps > 0; t.plan.steps -= 29) {
        run_trial(&t, m);
        for (int i = 0; i < 2; i++)
            CHECK_INT(m[i].seat.status, LKS_E_NOT_FINITE);
        assert_string_equal(m[0].seat.message, m[1].seat.message);
        assert_non_null(strstr(m[0].seat.message, "step "));
    }
}

/* What a run wrote can be started from, and a file that does not fit is refused by all with its tensor's
 * name. */
static void a_run_directory_is_written_and_its_model_read(void **state)
{
    (void)state;
    static member m[MAX_MEMBERS];
    char folder[] = "/tmp/lockstep-trainer-XXXXXX", run[64], model[96];
    assert_non_null(mkdtemp(folder));
    snprintf(run, sizeof run, "%s/run", folder);
    snprintf(model, sizeof model, "%s/model.safetensors", run);

    trial t = default_trial(2);
    t.output_path = run;
    run_well(&t, m);
    static const char *const files[] = {"plan.json", "metrics.jsonl", "model.safetensors"};
    for (int i = 0; i < 3; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", run, files[i]);
        CHECK_INT(access(path, R_OK), 0);
    }
    run_trial(&t, m); /* the directory is there now */
    CHECK_INT(m[0].seat.status, LKS_E_EXISTS);
    CHECK_INT(m[1].seat.status, LKS_E_EXISTS);

    double end = NAN;
    t.output_path = NULL;
    run_well(&t, m);
    end = m[0].result.test_loss;
    t.init_path = model;
    t.plan.base_lr = 1e-30; /* stands still */
    run_well(&t, m);
    assert_memory_equal(&end, &m[0].result.test_loss, sizeof end);

    char wrong[96];
    snprintf(wrong, sizeof wrong, "%s/wrong.safetensors", folder);
    float value = 1;
    int64_t shape = 1;
    CHECK_OK(lks__safetensors_write(wrong, 1, &(lks__tensor_view){"0.weight", 1, &shape, &value}, 0, NULL));
    t.init_path = wrong;
    run_trial(&t, m);
    CHECK_INT(m[0].seat.status, LKS_E_FORMAT);
    CHECK_INT(m[1].seat.status, LKS_E_FORMAT);
    assert_non_null(strstr(m[1].seat.message, "0.weight"));

    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK_INT(system(command), 0);
}

/* The lines of the last step, against the model's file: hashes of XXH64 in one go, sums in plain order. 30
 * steps with hashes after every 8. */
static void check_hashes_of_model(const char *run)
{
    enum { N_TENSORS = 6, N_ENTRIES = 5 };
    static const int64_t steps[N_ENTRIES] = {0, 8, 16, 24, 30};
    char path[128], tensor[32];
    snprintf(path, sizeof path, "%s/model.safetensors", run);
    lks__safetensors *model;
    CHECK_OK(lks__safetensors_open(path, &model));
    snprintf(path, sizeof path, "%s/hashes.jsonl", run);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    for (int i = 0; i < N_ENTRIES * N_TENSORS; i++) {
        long long step, samples, elems, fan_in;
        unsigned long long hash;
        double norm, sum, squares = 0, total = 0;
        CHECK_INT(fscanf(file,
                         "{\"step\": %lld, \"samples\": %lld, \"tensor\": \"%31[^\"]\", \"elems\": %lld, "
                         "\"fan_in\": %lld, \"hash\": \"%llx\", \"norm\": %lf, \"sum\": %lf} ",
                         &step, &samples, tensor, &elems, &fan_in, &hash, &norm, &sum),
                  8);
        CHECK_INT(step, steps[i / N_TENSORS]);
        lks__tensor_info info = lks__safetensors_tensor(model, i % N_TENSORS);
        assert_string_equal(tensor, info.name);
        CHECK_INT(elems * (long long)sizeof(float), info.bytes);
        if (step < 30)
            continue;
        float data[512];
        CHECK_OK(lks__safetensors_read(model, tensor, info.n_dims, info.shape, data));
        for (long long k = 0; k < elems; k++) {
            squares += (double)data[k] * (double)data[k];
            total += (double)data[k];
        }
        if (hash != XXH64(data, (size_t)info.bytes, 0))
            fail_msg("%s: hash %016llx", tensor, hash);
        /* fewer than 512 additions in double precision: relative 512 * 2^-53 of the sum of moduli */
        CHECK_NEAR(norm, sqrt(squares), 1e-13 * sqrt(squares));
        CHECK_NEAR(sum, total, 1e-13 * sqrt(512 * squares));
    }
    CHECK_INT(fgetc(file), EOF);
    fclose(file);
    lks__safetensors_close(model);
}

static void hashes_are_those_of_the_parameters_on_any_number_of_members(void **state)
{
    (void)state;
    static member m[MAX_MEMBERS];
    char folder[] = "/tmp/lockstep-trainer-XXXXXX", run[64], command[160];
    assert_non_null(mkdtemp(folder));
    for (int members = 1; members <= 4; members *= 4) {
        snprintf(run, sizeof run, "%s/run%d", folder, members);
        trial t = default_trial(members);
        t.output_path = run;
        run_well(&t, m);
        check_hashes_of_model(run);
    }
    snprintf(command, sizeof command, "cmp %s/run1/hashes.jsonl %s/run4/hashes.jsonl", folder, folder);
    CHECK_INT(system(command), 0);
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK_INT(system(command), 0);
}

static void an_allocation_that_fails_is_reported_and_leaks_nothing(void **state)
{
    (void)state;
    static member m[MAX_MEMBERS];
    trial t = default_trial(1);
    t.plan.steps = 0;
    t.plan.samples = 64;
    t.plan.lr_rule = LKS_LR_ADASCALE; /* keeps most */
    t.plan.reference_batch = 32;
    int64_t before = 0;
    for (int c = 0; c < LKS__MEM_CATEGORIES; c++)
        before += lks__alloc_bytes((lks__mem)c);
    int n = 1;
    for (; n < 1000; n++) {
        lks_group *group;
        CHECK_OK(lks_group_create_threads(1, 60, &group));
        m[0] = (member){.trial = &t, .seat.group = group};
        lks__alloc_fail_nth(n);
        m[0].seat.status = train(&m[0]);
        lks__alloc_fail_nth(0);
        lks_group_destroy(group);
        if (m[0].seat.status == LKS_OK)
            break;
        CHECK_INT(m[0].seat.status, LKS_E_NOMEM);
    }
    assert_true(n > 10 && n < 1000);
    for (int c = 0; c < LKS__MEM_CATEGORIES; c++)
        before -= lks__alloc_bytes((lks__mem)c);
    CHECK_INT(before, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_members_gives_the_same_bytes),
        cmocka_unit_test(workers_and_accumulation_are_the_same_run),
        cmocka_unit_test(dropout_gives_the_same_bytes_on_any_number_of_members),
        cmocka_unit_test(other_sizes_agree_to_rounding),
        cmocka_unit_test(sum_is_mean_times_the_leaves),
        cmocka_unit_test(a_step_allocates_nothing),
        cmocka_unit_test(one_member_that_is_asked_to_stop_stops_all_at_one_step),
        cmocka_unit_test(one_member_whose_time_is_over_stops_all),
        cmocka_unit_test(a_run_at_its_end_is_not_stopped),
        cmocka_unit_test(members_that_disagree_are_told_so),
        cmocka_unit_test(a_plan_made_by_hand_is_refused),
        cmocka_unit_test(a_diverging_run_stops_on_all_members_alike),
        cmocka_unit_test(a_run_directory_is_written_and_its_model_read),
        cmocka_unit_test(hashes_are_those_of_the_parameters_on_any_number_of_members),
        cmocka_unit_test(an_allocation_that_fails_is_reported_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, make_samples, NULL);
}
