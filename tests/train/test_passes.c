/* SPDX-License-Identifier: Apache-2.0 */
/* Steps that must know the whole gradient before they update: clipping, lars, lamb and adascale, against
 * their definitions in double precision, from the samples on; and runs of adascale that go on from a
 * checkpoint. */
#define _GNU_SOURCE
#include "train/small_run.h"

#include <jansson.h>

/* Of parameters, losses: f32 rounds to 6e-8, sums of up to 64 terms to a few times that, and steps hand their
 * errors on; the largest distance that was seen is 1.7e-7. Gains come from differences of norms that nearly
 * cancel: 3.5e-6 was seen. */
#define TOLERANCE      1e-6
#define GAIN_TOLERANCE 2e-5

/* What the definition takes from a step, besides the update, and what it counts. */
typedef struct definition {
    oracle o;
    double averages[2][TENSORS][MAX_ELEMS]; /* momentum; or lamb's of gradients and of their squares */
    double variance, norm2;                 /* adascale */
    double clock;                           /* in samples */
    int64_t norms_clipped, values_clipped;  /* steps; elements */
    double least_gain, most_gain;
} definition;

static double norm2_of(const double x[MAX_ELEMS], int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sum;
}

static double norm2_of_all(double x[TENSORS][MAX_ELEMS])
{
    double sum = 0;
    for (int t = 0; t < TENSORS; t++)
        sum += norm2_of(x[t], elems_of(t));
    return sum;
}

/* --- the definition --- */

static void clip(definition *d, const small_run *run, double g[TENSORS][MAX_ELEMS])
{
    for (int t = 0; t < TENSORS && run->clip_value > 0; t++)
        for (int64_t i = 0; i < elems_of(t); i++) {
            d->values_clipped += fabs(g[t][i]) > run->clip_value;
            g[t][i] = fmax(-run->clip_value, fmin(run->clip_value, g[t][i]));
        }
    double norm = sqrt(norm2_of_all(g));
    if (run->clip_norm == 0 || norm <= run->clip_norm)
        return;
    d->norms_clipped++;
    for (int t = 0; t < TENSORS; t++)
        for (int64_t i = 0; i < elems_of(t); i++)
            g[t][i] *= run->clip_norm / (norm + 1e-6);
}

/* How many times the base rate a step is worth (Johnson et al. 2020, equation 1). The variance of one
 * sample's gradient, V, and the squared norm of the expected one, N, are what solves mean over leaves of
 * |g_leaf|^2 = N + V mean(1 / samples of the leaf),    |g|^2 = N + V / n averaged over steps with weight K /
 * 1000 for the newest. */
static double gain_of(definition *d, const lks_plan_config *c, int64_t n, const int64_t *samples,
                      double g[TENSORS][MAX_ELEMS])
{
    int64_t k = c->world * c->accumulate, used = 0;
    double squares = 0, inverses = 0;
    for (int64_t leaf = 0; leaf < k && leaf < n; leaf++, used++) {
        static double own_gradient[TENSORS][MAX_ELEMS];
        int64_t own[MAX_N], count = 0;
        for (int64_t i = leaf; i < n; i += k)
            own[count++] = samples[i];
        memset(own_gradient, 0, sizeof own_gradient);
        add_gradient(&d->o, count, own, 1.0 / (double)count, own_gradient);
        squares += norm2_of_all(own_gradient);
        inverses += 1.0 / (double)count;
    }
    if (used >= 2) {
        double v = (squares / (double)used - norm2_of_all(g)) / (inverses / (double)used - 1.0 / (double)n);
        double weight = (double)k / 1000;
        d->variance = (1 - weight) * d->variance + weight * fmax(v, 0);
        d->norm2 = (1 - weight) * d->norm2 + weight * fmax(norm2_of_all(g) - v / (double)n, 0);
    }
    double reference = (double)c->reference_batch;
    return (d->variance / reference + d->norm2) / (d->variance / (double)n + d->norm2);
}

static void sgd_or_lars(definition *d, const lks_optimizer_config *c, double lr, int t,
                        const double g[MAX_ELEMS])
{
    int64_t n = elems_of(t);
    double *w = oracle_values(&d->o, t), trust = 1, gradient = sqrt(norm2_of(g, n)),
           weights = sqrt(norm2_of(w, n));
    bool excluded = c->exclude_biases && tensors[t].n_dims == 1;
    double decay = excluded ? 0 : c->weight_decay;
    if (c->kind == LKS_LARS && !excluded)
        trust = c->trust_coefficient * weights / (gradient + decay * weights);
    for (int64_t i = 0; i < n; i++) {
        double *u = &d->averages[0][t][i];
        *u = c->momentum * *u + trust * (g[i] + decay * w[i]);
        w[i] -= lr * *u;
    }
}

static void lamb(definition *d, const lks_optimizer_config *c, double lr, int64_t step, int t,
                 const double g[MAX_ELEMS])
{
    int64_t n = elems_of(t);
    double *w = oracle_values(&d->o, t), r[MAX_ELEMS];
    bool excluded = c->exclude_biases && tensors[t].n_dims == 1;
    for (int64_t i = 0; i < n; i++) {
        double *m = &d->averages[0][t][i], *v = &d->averages[1][t][i];
        *m = c->beta1 * *m + (1 - c->beta1) * g[i];
        *v = c->beta2 * *v + (1 - c->beta2) * g[i] * g[i];
        r[i] = *m / (1 - pow(c->beta1, (double)step)) /
                   (sqrt(*v / (1 - pow(c->beta2, (double)step))) + c->epsilon) +
               (excluded ? 0 : c->weight_decay * w[i]);
    }
    double ratio = excluded ? 1 : sqrt(norm2_of(w, n) / norm2_of(r, n));
    for (int64_t i = 0; i < n; i++)
        w[i] -= lr * ratio * r[i];
}

static double rate_at(const lks_plan_config *c, double clock)
{
    double progress = clock / (double)(c->n_samples * c->epochs);
    return c->base_lr * (c->schedule.kind == LKS_SCHEDULE_LINEAR ? 1 - progress : 1);
}

static void take_step(definition *d, const small_run *run, int64_t n, const int64_t *samples, outcome *out)
{
    const lks_plan_config *c = &run->plan;
    static double g[TENSORS][MAX_ELEMS];
    memset(g, 0, sizeof g);
    double loss = add_gradient(&d->o, n, samples, 1.0 / (double)n, g), lr = rate_at(c, d->clock);
    if (c->lr_rule == LKS_LR_ADASCALE) {
        double gain = gain_of(d, c, n, samples, g);
        lr *= gain;
        d->clock += gain * (double)c->reference_batch;
        d->least_gain = fmin(d->least_gain, gain);
        d->most_gain = fmax(d->most_gain, gain);
    } else {
        d->clock += (double)n;
    }
    clip(d, run, g);
    out->lrs[out->steps] = lr;
    out->losses[out->steps++] = loss / (double)n;
    for (int t = 0; t < TENSORS; t++) {
        if (c->optimizer.kind == LKS_LAMB)
            lamb(d, &c->optimizer, lr, out->steps, t, g[t]);
        else
            sgd_or_lars(d, &c->optimizer, lr, t, g[t]);
    }
}

/* To the end of the clock. */
static void run_by_definition(const small_run *run, definition *d, outcome *out)
{
    *d = (definition){.least_gain = INFINITY};
    *out = (outcome){0};
    start_oracle(&d->o);
    int64_t batch = global_batch_of(&run->plan), end = run->plan.n_samples * run->plan.epochs;
    for (int64_t epoch = 0; d->clock < (double)end; epoch++) {
        int64_t order[MAX_N], n = list_order(&run->plan, epoch, order);
        for (int64_t start = 0; start < n && d->clock < (double)end; start += batch)
            take_step(d, run, n - start < batch ? n - start : batch, order + start, out);
    }
    take_oracle_values(&d->o, out);
    oracle_free(&d->o);
}

/* --- both --- */

/* 58 samples are two steps of 24, and one of 10 in which 2 of 8 leaves have two samples and 6 have one. */
static small_run run_with(lks_optimizer_kind kind, double lr)
{
    small_run run = {.plan = lks_plan_config_default()};
    run.plan.n_samples = 58;
    run.plan.processes = 2;
    run.plan.world = 4;
    run.plan.local_batch = 3;
    run.plan.accumulate = 2;
    run.plan.epochs = 6;
    run.plan.base_lr = lr;
    run.plan.optimizer = lks_optimizer_config_default(kind);
    return run;
}

static void check_run(small_run run, const outcome *defined)
{
    static outcome trained;
    for (run.plan.processes = 1; run.plan.processes <= 4; run.plan.processes *= 2) {
        run_by_training(&run, &trained);
        CHECK_INT(trained.steps, defined->steps);
        for (int64_t s = 0; s < defined->steps; s++) {
            CHECK_NEAR(trained.losses[s], defined->losses[s], TOLERANCE * fmax(1, defined->losses[s]));
            CHECK_NEAR(trained.lrs[s], defined->lrs[s], GAIN_TOLERANCE * defined->lrs[s]);
        }
        CHECK_NEAR(distance(&trained, defined), 0, TOLERANCE);
        if (run.plan.processes == 1)
            CHECK_INT(trained.allocations, 0);
    }
}

/* The run is as defined, and the definition of `without`, which lacks something, is far from it. */
static void check_with_and_without(const small_run *with, const small_run *without, definition *d)
{
    static definition other;
    static outcome defined, far;
    run_by_definition(with, d, &defined);
    run_by_definition(without, &other, &far);
    if (!(distance(&far, &defined) > 1000 * TOLERANCE))
        fail_msg("only %g of the parameters are at stake", distance(&far, &defined));
    check_run(*with, &defined);
}

/* --- clipping --- */

static void a_gradient_is_clipped_by_its_norm(void **state)
{
    (void)state;
    static definition d;
    small_run with = run_with(LKS_SGD, 0.2), without = with;
    with.clip_norm = 0.5;
    check_with_and_without(&with, &without, &d);
    assert_true(d.norms_clipped > 9 && d.norms_clipped < 18); /* of 18 steps */
}

static void elements_are_clipped_by_their_value(void **state)
{
    (void)state;
    static definition d;
    small_run with = run_with(LKS_SGD, 0.2), without = with;
    with.clip_value = 0.05;
    check_with_and_without(&with, &without, &d);
    assert_true(d.values_clipped > 100);
}

/* The norm is that of the clipped elements. */
static void values_are_clipped_before_the_norm(void **state)
{
    (void)state;
    static definition d;
    small_run with = run_with(LKS_SGD, 0.2), without = with;
    with.clip_norm = without.clip_norm = 0.3;
    with.clip_value = 0.1;
    with.plan.optimizer.momentum = without.plan.optimizer.momentum = 0.9;
    check_with_and_without(&with, &without, &d);
    assert_true(d.norms_clipped > 2 && d.values_clipped > 50);
    without = with;
    without.clip_norm = 0;
    check_with_and_without(&with, &without, &d);
}

/* --- optimizers --- */

static small_run decaying(lks_optimizer_kind kind, double lr, double decay)
{
    small_run run = run_with(kind, lr);
    run.plan.optimizer.weight_decay = decay;
    if (kind == LKS_LARS)
        run.plan.optimizer.trust_coefficient = 0.01;
    if (kind == LKS_LAMB)
        run.plan.optimizer.epsilon =
            1e-3; /* so that gradients near 0, which are rounding, count for little */
    return run;
}

/* Biases are excluded from decay, and with lars and lamb from the trust ratio, unless they are not to be. */
static void check_excluding(small_run with)
{
    static definition d;
    small_run without = with;
    without.plan.optimizer.exclude_biases = false;
    check_with_and_without(&with, &without, &d);
    check_with_and_without(&without, &with, &d);
}

static void sgd_decays_no_biases(void **state)
{
    (void)state;
    small_run run = decaying(LKS_SGD, 0.1, 0.1);
    run.plan.optimizer.momentum = 0.5;
    check_excluding(run);
}

static void lars_follows_its_formula(void **state)
{
    (void)state;
    check_excluding(decaying(LKS_LARS, 1, 0.01));
    static definition d;
    small_run with = decaying(LKS_LARS, 1, 0.1), without = with;
    with.clip_norm = 0.5; /* the trust ratio is that of the clipped gradient */
    check_with_and_without(&with, &without, &d);
}

static void lamb_follows_its_formula(void **state)
{
    (void)state;
    check_excluding(decaying(LKS_LAMB, 0.02, 0.1));
    static definition d;
    small_run with = decaying(LKS_LAMB, 0.02, 0.1), without = with;
    with.clip_norm = 0.2;
    check_with_and_without(&with, &without, &d);
}

/* --- adascale --- */

static small_run adascale(double momentum)
{
    small_run run = run_with(LKS_SGD, 0.05);
    run.plan.lr_rule = LKS_LR_ADASCALE;
    run.plan.reference_batch = 4;
    run.plan.epochs = 5;
    run.plan.optimizer.momentum = momentum;
    run.plan.schedule.kind = LKS_SCHEDULE_LINEAR;
    run.plan.schedule.end_factor = 0;
    return run;
}

static void gains_are_measured_and_move_the_clock(void **state)
{
    (void)state;
    static definition d;
    small_run with = adascale(0), without = with;
    without.plan.lr_rule = LKS_LR_NONE;
    check_with_and_without(&with, &without, &d);
    assert_true(d.least_gain > 1 && d.most_gain < 6 && d.most_gain - d.least_gain > 0.5);
    with = adascale(0.5);
    with.clip_norm = 0.4; /* gains are those of the gradient before */
    without = adascale(0.5);
    check_with_and_without(&with, &without, &d);
    assert_true(d.norms_clipped > 2);
}

/* 49 samples: the last step has one, which tells nothing of the variance, and counts as a quarter of a step.
 */
static void steps_of_one_sample_measure_nothing(void **state)
{
    (void)state;
    static definition d;
    small_run with = adascale(0), without = with;
    with.plan.n_samples = 49;
    without.plan.n_samples = 50;
    check_with_and_without(&with, &without, &d);
    assert_true(d.least_gain >= 0.25 && d.least_gain < 1);
}

/* metrics.jsonl: the rate of a step is its gain times the schedule at the sum of the gains before, to the
 * bit, as numbers are written so that they can be read back; the run ends where the sum has come to its end.
 */
static void metrics_tell_gain_and_rate(void **state)
{
    (void)state;
    static outcome trained;
    small_run run = adascale(0.5);
    lks_plan plan;
    CHECK_OK(lks_plan_create(&run.plan, &plan));
    run_by_training(&run, &trained);
    FILE *file = fopen(in_temp_folder("run/metrics.jsonl"), "r");
    assert_non_null(file);
    char line[1024];
    double clock = 0;
    int64_t steps = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        json_t *metrics = json_loads(line, 0, NULL);
        double gain = json_number_value(json_object_get(metrics, "gain"));
        if (json_object_get(metrics, "gain") != NULL) {
            assert_true(clock < (double)plan.samples);
            double lr = lks_plan_lr(&plan, clock) * gain;
            CHECK_NEAR(json_number_value(json_object_get(metrics, "lr")), lr, 0);
            CHECK_NEAR(trained.lrs[steps++], lr, 0);
            clock += gain * 4;
        }
        json_decref(metrics);
    }
    fclose(file);
    assert_true(clock >= (double)plan.samples);
    CHECK_INT(steps, trained.steps);
    assert_true(steps < plan.total_steps);
}

/* Clock and averages are in the checkpoint: after any of its steps, on another number of members, the run is
 * the one that was not cut off. */
static void a_run_of_gains_goes_on_from_a_checkpoint(void **state)
{
    (void)state;
    static outcome whole, rest;
    small_run run = adascale(0.5);
    run.checkpoint_every_steps = 4;
    run_by_training(&run, &whole);
    for (int64_t step = 4; step < whole.steps; step += 4) {
        char name[64];
        snprintf(name, sizeof name, "run/checkpoints/step-%08lld.safetensors", (long long)step);
        small_run next = run;
        next.plan.processes = step % 8 == 0 ? 4 : 1;
        next.resume_path = in_temp_folder(name);
        run_by_training(&next, &rest);
        CHECK_INT(rest.steps, whole.steps);
        for (int64_t s = step; s < whole.steps; s++) {
            CHECK_NEAR(rest.lrs[s], whole.lrs[s], 0);
            CHECK_NEAR(rest.losses[s], whole.losses[s], 0);
        }
        if (rest.hash != whole.hash)
            fail_msg("other parameters when resumed after step %lld", (long long)step);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gradient_is_clipped_by_its_norm),
        cmocka_unit_test(elements_are_clipped_by_their_value),
        cmocka_unit_test(values_are_clipped_before_the_norm),
        cmocka_unit_test(sgd_decays_no_biases),
        cmocka_unit_test(lars_follows_its_formula),
        cmocka_unit_test(lamb_follows_its_formula),
        cmocka_unit_test(gains_are_measured_and_move_the_clock),
        cmocka_unit_test(steps_of_one_sample_measure_nothing),
        cmocka_unit_test(metrics_tell_gain_and_rate),
        cmocka_unit_test(a_run_of_gains_goes_on_from_a_checkpoint),
    };
    return cmocka_run_group_tests(tests, set_up, remove_temp_folder);
}
