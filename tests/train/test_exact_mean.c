/* SPDX-License-Identifier: Apache-2.0 */
/* The one averaging rule, against its definition in double precision: a step's gradient is the mean over all
 * samples of the step, however uneven the leaves are, and however short an epoch's last step. */
#define _GNU_SOURCE
#include "train/small_run.h"

enum { EPOCHS = 2 };

static const double rate = 0.2;

/* f32 sums of at most 64 terms, with a relative error of a few times 6e-8 each, over at most 20 steps, each
 * of which hands its error on about once. */
#define TOLERANCE 1e-5

typedef struct trial {
    int64_t n;
    int members;
    int64_t world, local, accumulate;
    lks_tail tail;
    bool uneven; /* leaves of some step differ in size, or a step is short */
} trial;

/* --- by definition --- */

/* How a step's gradient comes about. */
typedef enum rule {
    MEAN,             /* over the samples of the step */
    SUM,              /* sum over the samples / local batch */
    MEAN_OF_MEANS,    /* wrong: over the leaves that have samples, of their means */
    OVER_GLOBAL_BATCH /* wrong: sum over the samples / global batch */
} rule;

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

static double add_mean_of_means(oracle *o, const trial *t, int64_t n, const int64_t *samples,
                                double total[TENSORS][MAX_ELEMS])
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
    double gradient[TENSORS][MAX_ELEMS] = {0};
    double loss = how == MEAN_OF_MEANS ? add_mean_of_means(o, t, n, samples, gradient)
                                       : add_gradient(o, n, samples, 1.0 / (double)divisors[how], gradient);
    out->losses[out->steps++] = loss / (double)n;
    for (int k = 0; k < TENSORS; k++)
        for (int64_t i = 0; i < elems_of(k); i++)
            oracle_values(o, k)[i] -= rate * gradient[k][i];
}

static void run_by_definition(const trial *t, rule how, outcome *out)
{
    oracle o;
    start_oracle(&o);
    *out = (outcome){0};
    const lks_plan_config config = plan_config(t, how);
    int64_t batch = global_batch_of(&config);
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
        int64_t order[MAX_N], n = list_order(&config, epoch, order);
        for (int64_t start = 0; start < n; start += batch)
            take_step(&o, t, how, n - start < batch ? n - start : batch, order + start, out);
    }
    take_oracle_values(&o, out);
    oracle_free(&o);
}

/* --- both --- */

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
    run_by_training(&(small_run){.plan = plan_config(t, how)}, &trained);
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
