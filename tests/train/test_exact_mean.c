/* SPDX-License-Identifier: Apache-2.0 */
/* The one averaging rule, against its definition in double precision: a step's gradient is the mean over all
 * samples of the step, however uneven the leaves are, and however short an epoch's last step. */
#define _GNU_SOURCE
#include "check.h"

#include <pthread.h>

#include <lockstep/lockstep.h>

#include "nn/oracle.h"
#include "record/safetensors.h"
#include "unit/temp_folder.h"

enum {
    FEATURES = 5,
    HIDDEN = 6,
    CLASSES = 3,
    MAX_N = 64,
    MAX_STEPS = 64,
    MAX_MEMBERS = 8,
    EPOCHS = 2,
    SEED = 3
};

static const double rate = 0.2;

/* f32 sums of at most 64 terms, with a relative error of a few times 6e-8 each, over at most 20 steps, each
 * of which hands its error on about once. */
#define TOLERANCE 1e-5

static float features[MAX_N][FEATURES];
static int32_t labels[MAX_N];
static float weights[2][HIDDEN * HIDDEN], biases[2][HIDDEN]; /* where all runs start */

static const struct {
    int64_t out, in;
} shapes[2] = {{HIDDEN, FEATURES}, {CLASSES, HIDDEN}};

static float draw(void)
{
    static uint32_t state = 7;
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) * 0x1p-23f - 1.0f;
}

static char start_path[64], run_path[64]; /* members must not share in_temp_folder */

/* Labels that follow from the features, so that samples differ in what they teach. */
static int set_up(void **state)
{
    if (make_temp_folder(state) != 0)
        return 1;
    snprintf(start_path, sizeof start_path, "%s/start.safetensors", temp_folder);
    snprintf(run_path, sizeof run_path, "%s/run", temp_folder);
    for (int i = 0; i < MAX_N; i++) {
        for (int j = 0; j < FEATURES; j++)
            features[i][j] = 2 * draw();
        labels[i] = features[i][0] > 0.5f ? 0 : features[i][1] > 0 ? 1 : 2;
    }
    const char *const names[4] = {"0.weight", "0.bias", "2.weight", "2.bias"};
    int64_t dims[4][2];
    lks__tensor_view views[4];
    for (int l = 0; l < 2; l++) {
        for (int i = 0; i < HIDDEN * HIDDEN; i++)
            weights[l][i] = draw();
        for (int i = 0; i < HIDDEN; i++)
            biases[l][i] = draw();
        dims[2 * l][0] = dims[2 * l + 1][0] = shapes[l].out;
        dims[2 * l][1] = shapes[l].in;
        views[2 * l] = (lks__tensor_view){names[2 * l], 2, dims[2 * l], weights[l]};
        views[2 * l + 1] = (lks__tensor_view){names[2 * l + 1], 1, dims[2 * l + 1], biases[l]};
    }
    return lks__safetensors_write(start_path, 4, views, 0, NULL) != LKS_OK;
}

typedef struct trial {
    int64_t n;
    int members;
    int64_t world, local, accumulate;
    lks_tail tail;
    bool uneven; /* leaves of some step differ in size, or a step is short */
} trial;

/* What a run comes to. */
typedef struct outcome {
    int64_t steps;
    double losses[MAX_STEPS];
    double w[2][HIDDEN * HIDDEN], b[2][HIDDEN];
} outcome;

/* --- by definition --- */

/* How a step's gradient comes about. */
typedef enum rule {
    MEAN,             /* over the samples of the step */
    SUM,              /* sum over the samples / local batch */
    MEAN_OF_MEANS,    /* wrong: over the leaves that have samples, of their means */
    OVER_GLOBAL_BATCH /* wrong: sum over the samples / global batch */
} rule;

static void start_oracle(oracle *o)
{
    *o = (oracle){0};
    for (int l = 0; l < 2; l++) {
        oracle_add(o, shapes[l].in, shapes[l].out, 1, l == 0);
        for (int64_t i = 0; i < shapes[l].in * shapes[l].out; i++)
            o->layers[l].w[i] = (double)weights[l][i];
        for (int64_t i = 0; i < shapes[l].out; i++)
            o->layers[l].b[i] = (double)biases[l][i];
    }
}

/* The epoch's samples in their order; `pad` begins again. Returns how many positions there are. */
static int64_t list_order(const trial *t, int64_t epoch, int64_t order[MAX_N])
{
    const lks_sampler_config config = {
        .n_samples = t->n, .world = 1, .local_batch = t->n, .accumulate = 1, .shuffle = true, .seed = SEED};
    int64_t batch = t->local * t->world * t->accumulate, n = t->n;
    lks_sampler *sampler;
    CHECK_OK(lks_sampler_create(&config, &sampler));
    CHECK_INT(lks_sampler_leaf(sampler, epoch, 0, 0, order), n);
    lks_sampler_destroy(sampler);
    if (t->tail == LKS_TAIL_DROP)
        return n / batch * batch;
    for (; t->tail == LKS_TAIL_PAD && n % t->world != 0; n++)
        order[n] = order[n - t->n];
    return n;
}

/* Sets the oracle's gradients to sums over these samples, adds `factor` times them to `total`. */
static double add_gradient(oracle *o, int64_t n, const int64_t *samples, double factor, outcome *total)
{
    float x[MAX_N * FEATURES];
    int32_t y[MAX_N];
    for (int64_t i = 0; i < n; i++) {
        memcpy(x + i * FEATURES, features[samples[i]], sizeof features[0]);
        y[i] = labels[samples[i]];
    }
    double loss = oracle_run(o, n, x, y, 1, NULL);
    for (int l = 0; l < 2; l++) {
        for (int64_t i = 0; i < shapes[l].in * shapes[l].out; i++)
            total->w[l][i] += factor * o->layers[l].dw[i];
        for (int64_t i = 0; i < shapes[l].out; i++)
            total->b[l][i] += factor * o->layers[l].db[i];
    }
    return loss;
}

static double add_mean_of_means(oracle *o, const trial *t, int64_t n, const int64_t *samples, outcome *total)
{
    int64_t k = t->world * t->accumulate, used = k < n ? k : n;
    double loss = 0;
    for (int64_t leaf = 0; leaf < used; leaf++) {
        int64_t own[MAX_N], count = 0;
        for (int64_t i = leaf; i < n; i += k)
            own[count++] = samples[i];
        loss += add_gradient(o, count, own, 1.0 / (double)(used * count), total);
    }
    return loss;
}

static void take_step(oracle *o, const trial *t, rule how, int64_t n, const int64_t *samples, outcome *out)
{
    int64_t divisors[] = {[MEAN] = n,
                          [SUM] = t->local,
                          [MEAN_OF_MEANS] = 1,
                          [OVER_GLOBAL_BATCH] = t->local * t->world * t->accumulate};
    outcome gradient = {0};
    double loss = how == MEAN_OF_MEANS ? add_mean_of_means(o, t, n, samples, &gradient)
                                       : add_gradient(o, n, samples, 1.0 / (double)divisors[how], &gradient);
    out->losses[out->steps++] = loss / (double)n;
    for (int l = 0; l < 2; l++) {
        for (int64_t i = 0; i < shapes[l].in * shapes[l].out; i++)
            o->layers[l].w[i] -= rate * gradient.w[l][i];
        for (int64_t i = 0; i < shapes[l].out; i++)
            o->layers[l].b[i] -= rate * gradient.b[l][i];
    }
}

static void run_by_definition(const trial *t, rule how, outcome *out)
{
    oracle o;
    start_oracle(&o);
    *out = (outcome){0};
    int64_t batch = t->local * t->world * t->accumulate;
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
        int64_t order[MAX_N], n = list_order(t, epoch, order);
        for (int64_t start = 0; start < n; start += batch)
            take_step(&o, t, how, n - start < batch ? n - start : batch, order + start, out);
    }
    for (int l = 0; l < 2; l++) {
        memcpy(out->w[l], o.layers[l].w, (size_t)(shapes[l].in * shapes[l].out) * sizeof(double));
        memcpy(out->b[l], o.layers[l].b, (size_t)shapes[l].out * sizeof(double));
    }
    oracle_free(&o);
}

/* --- by training --- */

typedef struct member {
    const trial *trial;
    rule how;
    lks_group *group;
    lks_status status;
    char message[512];
    outcome seen;
} member;

static void on_progress(void *context, const lks_train_progress *progress)
{
    member *m = context;
    m->seen.losses[progress->step - 1] = progress->loss;
    m->seen.steps = progress->step;
}

static lks_plan_config plan_config(const trial *t, rule how)
{
    lks_plan_config c = lks_plan_config_default();
    c.n_samples = t->n;
    c.processes = t->members;
    c.world = t->world;
    c.local_batch = t->local;
    c.accumulate = t->accumulate;
    c.tail = t->tail;
    c.epochs = EPOCHS;
    c.reduction = how == SUM ? LKS_REDUCTION_SUM : LKS_REDUCTION_MEAN;
    c.base_lr = rate;
    c.optimizer.momentum = 0;
    return c;
}

static lks_status train(member *m)
{
    const trial *t = m->trial;
    const lks_plan_config wanted = plan_config(t, m->how);
    const int64_t shape = FEATURES, hidden = HIDDEN;
    lks_dataset *set = NULL;
    lks_graph *graph = NULL;
    lks_trainer *trainer = NULL;
    lks_train_result result;
    lks_plan plan;
    lks_status status = lks_dataset_from_arrays(t->n, 1, &shape, LKS_F32, features, labels, &set);
    if (status == LKS_OK)
        status = lks_graph_create_mlp(FEATURES, 1, &hidden, 0, CLASSES, &graph);
    if (status == LKS_OK)
        status = lks_plan_create(&wanted, &plan);
    if (status == LKS_OK) {
        lks_trainer_config config = lks_trainer_config_default();
        config.group = m->group;
        config.plan = &plan;
        config.graph = graph;
        config.train_set = set;
        config.optimizer = plan.optimizer;
        config.seed = SEED;
        config.init_path = start_path;
        config.output_path = run_path;
        config.overwrite = true;
        config.progress = on_progress;
        config.progress_context = m;
        status = lks_trainer_create(&config, &trainer);
    }
    if (status == LKS_OK)
        status = lks_trainer_run(trainer, &result);
    lks_trainer_destroy(trainer);
    lks_graph_destroy(graph);
    lks_dataset_destroy(set);
    return status;
}

static void *member_main(void *argument)
{
    member *m = argument;
    m->status = train(m);
    if (m->status != LKS_OK)
        snprintf(m->message, sizeof m->message, "%s", lks_error_message());
    lks_group_destroy(m->group);
    return NULL;
}

static void read_model(outcome *out)
{
    const char *const names[4] = {"0.weight", "0.bias", "2.weight", "2.bias"};
    float values[HIDDEN * HIDDEN];
    lks__safetensors *model;
    CHECK_OK(lks__safetensors_open(in_temp_folder("run/model.safetensors"), &model));
    for (int l = 0; l < 2; l++) {
        const int64_t dims[2] = {shapes[l].out, shapes[l].in};
        CHECK_OK(lks__safetensors_read(model, names[2 * l], 2, dims, values));
        for (int64_t i = 0; i < dims[0] * dims[1]; i++)
            out->w[l][i] = (double)values[i];
        CHECK_OK(lks__safetensors_read(model, names[2 * l + 1], 1, dims, values));
        for (int64_t i = 0; i < dims[0]; i++)
            out->b[l][i] = (double)values[i];
    }
    lks__safetensors_close(model);
}

static void run_by_training(const trial *t, rule how, outcome *out)
{
    static member members[MAX_MEMBERS];
    lks_group *groups[MAX_MEMBERS];
    pthread_t threads[MAX_MEMBERS];
    CHECK_OK(lks_group_create_threads(t->members, 60, groups));
    for (int i = 0; i < t->members; i++) {
        members[i] = (member){.trial = t, .how = how, .group = groups[i]};
        CHECK_INT(pthread_create(&threads[i], NULL, member_main, &members[i]), 0);
    }
    for (int i = 0; i < t->members; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < t->members; i++)
        if (members[i].status != LKS_OK)
            fail_msg("member %d: %s", i, members[i].message);
    *out = members[0].seen;
    read_model(out);
}

/* --- both --- */

/* Of all parameters: the length of the difference, relative to that of the parameters. */
static double distance(const outcome *a, const outcome *b)
{
    double difference2 = 0, norm2 = 0;
    for (int l = 0; l < 2; l++) {
        for (int64_t i = 0; i < shapes[l].in * shapes[l].out; i++) {
            difference2 += (a->w[l][i] - b->w[l][i]) * (a->w[l][i] - b->w[l][i]);
            norm2 += b->w[l][i] * b->w[l][i];
        }
        for (int64_t i = 0; i < shapes[l].out; i++)
            difference2 += (a->b[l][i] - b->b[l][i]) * (a->b[l][i] - b->b[l][i]);
    }
    return sqrt(difference2 / norm2);
}

static const trial trials[] = {
    {25, 3, 3, 4, 1, LKS_TAIL_EXACT, true}, /* two steps of 12, one of 1: two of three members are idle */
    {31, 1, 5, 3, 2, LKS_TAIL_EXACT, true}, /* 30 and 1 */
    {26, 4, 8, 3, 1, LKS_TAIL_EXACT, true}, /* 24 and 2: six of eight leaves are empty */
    {29, 2, 4, 2, 3, LKS_TAIL_EXACT, true}, /* 24 and 5, with accumulation */
    {23, 6, 6, 3, 1, LKS_TAIL_EXACT, true}, /* 18 and 5: leaves of 1 and 0 */
    {47, 2, 6, 4, 1, LKS_TAIL_EXACT, true}, /* 24 and 23: leaves of 4 and 3 */
    {7, 2, 4, 4, 2, LKS_TAIL_EXACT, true},  /* never full */
    {7, 7, 7, 1, 1, LKS_TAIL_EXACT, false}, /* a sample for each worker */
    {1, 1, 1, 3, 1, LKS_TAIL_EXACT, true},  /* one sample */
    {31, 4, 4, 3, 1, LKS_TAIL_DROP, false}, /* two steps of 12 */
    {31, 4, 4, 3, 1, LKS_TAIL_PAD, true},   /* 12, 12 and 8, one of them twice */
    {31, 2, 6, 1, 4, LKS_TAIL_PAD, true},   /* 24 and 12: five samples twice; half of the leaves are empty */
    {5, 2, 4, 1, 1, LKS_TAIL_PAD, false},   /* 4 and 4, of which three are from the start */
};

enum { N_TRIALS = sizeof trials / sizeof trials[0] };

static void check_trial(int index, rule how)
{
    static outcome defined, trained;
    const trial *t = &trials[index];
    run_by_definition(t, how, &defined);
    run_by_training(t, how, &trained);
    CHECK_INT(trained.steps, defined.steps);
    for (int64_t s = 0; s < defined.steps; s++)
        if (!(fabs(trained.losses[s] - defined.losses[s]) <= TOLERANCE * fmax(1, defined.losses[s])))
            fail_msg("case %d, step %lld: loss %.9g, by definition %.9g", index, (long long)s,
                     trained.losses[s], defined.losses[s]);
    if (!(distance(&trained, &defined) <= TOLERANCE))
        fail_msg("case %d: parameters differ by %g of their length", index, distance(&trained, &defined));
}

static void every_step_has_the_mean_of_its_samples(void **state)
{
    (void)state;
    for (int i = 0; i < N_TRIALS; i++)
        check_trial(i, MEAN);
}

static void a_sum_is_divided_by_the_local_batch(void **state)
{
    (void)state;
    for (int i = 0; i < N_TRIALS; i++)
        check_trial(i, SUM);
}

/* What is often done instead would not pass. */
static void other_averages_are_far_from_it(void **state)
{
    (void)state;
    static outcome right, wrong;
    int unequal_leaves = 0, short_steps = 0;
    for (int i = 0; i < N_TRIALS; i++) {
        run_by_definition(&trials[i], MEAN, &right);
        run_by_definition(&trials[i], MEAN_OF_MEANS, &wrong);
        unequal_leaves += distance(&wrong, &right) > 100 * TOLERANCE;
        run_by_definition(&trials[i], OVER_GLOBAL_BATCH, &wrong);
        bool is_far = distance(&wrong, &right) > 100 * TOLERANCE;
        if (is_far != trials[i].uneven)
            fail_msg("case %d: %g from the sum over the global batch", i, distance(&wrong, &right));
        short_steps += is_far;
    }
    assert_true(unequal_leaves >= 1 && short_steps >= 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_step_has_the_mean_of_its_samples),
        cmocka_unit_test(a_sum_is_divided_by_the_local_batch),
        cmocka_unit_test(other_averages_are_far_from_it),
    };
    return cmocka_run_group_tests(tests, set_up, remove_temp_folder);
}
