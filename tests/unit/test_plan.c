/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"
#include "plans.h"

#include <limits.h>
#include <stdlib.h>

#include <lockstep/plan.h>

#include "base/random.h"

static void a_run_on_mnist(void **state)
{
    (void)state;
    lks_plan plan = plan_of(mnist());
    CHECK_INT(plan.world, 2);
    CHECK_INT(plan.accumulate, 1);
    CHECK_INT(plan.global_batch, 128);
    CHECK_INT(plan.leaves, 2);
    CHECK_INT(plan.leaves_per_process, 1);
    CHECK_INT(plan.samples_per_epoch, 60000);
    CHECK_INT(plan.steps_per_epoch, 469);  /* 468 * 128 = 59904 */
    CHECK_INT(plan.last_step_samples, 96); /* 60000 - 59904 */
    CHECK_INT(plan.total_steps, 2345);
    CHECK_INT(plan.samples, 300000);
    CHECK_INT(plan.warmup_steps, 469);
    assert_true(plan.scaled_lr == 2 * plan.base_lr && plan.kappa == 2 && plan.epochs == 5);
    assert_true(plan.same_bits);
    assert_false(plan.processes_chosen);
}

static void the_default_rate_is_that_of_pytorch(void **state)
{
    (void)state;
    assert_true(lks_plan_config_default().base_lr == 1e-3); /* torch.optim.SGD and Adam */
}

static void a_thousand_samples_on_two_workers(void **state)
{
    (void)state;
    lks_plan_config c = lks_plan_config_default();
    c.n_samples = 1000;
    c.local_batch = 32;
    c.processes = 2;
    c.epochs = 2;
    lks_plan plan = plan_of(c);
    CHECK_INT(plan.steps_per_epoch, 16); /* 15 * 64 = 960 */
    CHECK_INT(plan.total_steps, 32);
    CHECK_INT(plan.last_step_samples, 40);
    CHECK_INT(lks_plan_step_samples(&plan, 0, 0), 64);
    CHECK_INT(lks_plan_step_samples(&plan, 0, 15), 40);
    CHECK_INT(lks_plan_step_samples(&plan, 0, 16), 0);
    CHECK_INT(lks_plan_step_samples(&plan, 0, -1), 0);

    c.tail = LKS_TAIL_DROP;
    plan = plan_of(c);
    CHECK_INT(plan.steps_per_epoch, 15);
    CHECK_INT(plan.samples, 1920);
    CHECK_INT(plan.last_step_samples, 64);

    c.tail = LKS_TAIL_PAD;
    c.processes = 3;
    plan = plan_of(c);
    CHECK_INT(plan.samples_per_epoch, 1002); /* 3 * 334 */
    CHECK_INT(plan.steps_per_epoch, 11);     /* 10 * 96 = 960 */
    CHECK_INT(plan.last_step_samples, 42);
}

static void a_run_may_end_inside_an_epoch(void **state)
{
    (void)state;
    lks_plan_config c = mnist();
    c.epochs = 0;
    c.steps = 500; /* an epoch of 469 steps and 31 steps of 128 */
    lks_plan plan = plan_of(c);
    CHECK_INT(plan.total_steps, 500);
    CHECK_INT(plan.samples, 60000 + 31 * 128);

    c.steps = 0;
    c.samples = 60001; /* one sample of a second epoch: a whole step of it */
    plan = plan_of(c);
    CHECK_INT(plan.total_steps, 470);
    CHECK_INT(plan.samples, 60128);

    c.samples = 119905; /* in the short last step of the second epoch */
    plan = plan_of(c);
    CHECK_INT(plan.total_steps, 938);
    CHECK_INT(plan.samples, 120000);
}

/* --- which batches fit --- */

static void any_consistent_batch_is_completed(void **state)
{
    (void)state;
    static const struct {
        int64_t world, local, accumulate, global; /* given; 0: not */
        int64_t b, A, B;                          /* planned; B 0: refused */
        const char *message;
    } cases[] = {
        {2, 32, 0, 0, 32, 1, 64, NULL},
        {2, 32, 3, 0, 32, 3, 192, NULL},
        {2, 32, 0, 192, 32, 3, 192, NULL},
        {2, 32, 3, 192, 32, 3, 192, NULL},
        {2, 0, 0, 192, 96, 1, 192, NULL},
        {2, 0, 3, 192, 32, 3, 192, NULL},
        {2, 32, 0, 100, 0, 0, 0,
         "global batch 100 is not local batch 32 x 2 workers x a whole number of accumulation steps; 64, 128 "
         "and "
         "192 are"},
        {1, 32, 0, 10, 0, 0, 0, "x 1 worker x a whole number of accumulation steps; 32, 64 and 96 are"},
        {2, 32, 2, 192, 0, 0, 0,
         "global batch 192 is local batch 32 x 2 workers x 3 accumulation steps, not x 2"},
        {3, 0, 2, 100, 0, 0, 0,
         "global batch 100 is not a whole local batch x 3 workers x 2 accumulation steps; 96, 102 and 108 "
         "are"},
        {7, 0, 0, 3, 0, 0, 0, "7 workers x 1 accumulation step; 7, 14 and 21 are"},
        {2, 0, 4, 0, 0, 0, 0, "the batch size is missing"},
        {2, 1000000000000000, 0, 0, 0, 0, 0, "is more than 1000000000000000 samples"},
        {2, 32, 1000000000000000, 0, 0, 0, 0, "is more than 1000000000000000 samples"},
        {2, 0, 1000000000000000, 64, 0, 0, 0, "is more than 1000000000000000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lks_plan_config c = lks_plan_config_default();
        lks_plan plan;
        c.n_samples = 1000;
        c.processes = 1;
        c.world = cases[i].world;
        c.local_batch = cases[i].local;
        c.accumulate = cases[i].accumulate;
        c.global_batch = cases[i].global;
        if (cases[i].B == 0) {
            CHECK_FAILS(lks_plan_create(&c, &plan), LKS_E_ARG, cases[i].message);
            continue;
        }
        plan = plan_of(c);
        CHECK_INT(plan.local_batch, cases[i].b);
        CHECK_INT(plan.accumulate, cases[i].A);
        CHECK_INT(plan.global_batch, cases[i].B);
    }
}

/* b, A and B say how many workers there are. */
static void the_world_follows_from_the_batch(void **state)
{
    (void)state;
    lks_plan_config c = lks_plan_config_default();
    c.n_samples = 1000;
    c.local_batch = 16;
    c.accumulate = 2;
    c.global_batch = 128;
    c.usable_cores = 2;
    lks_plan plan = plan_of(c);
    CHECK_INT(plan.world, 4);
    CHECK_INT(plan.processes, 2);
    CHECK_INT(plan.leaves_per_process, 4);
    c.processes = 4;
    CHECK_INT(plan_of(c).world, 4);
    c.processes = 3; /* can't share four workers, so these are meant to be three */
    CHECK_FAILS(lks_plan_create(&c, &plan), LKS_E_ARG,
                "global batch 128 is not local batch 16 x 3 workers x a whole number of accumulation steps");
    c.processes = 0;
    c.world = 2; /* what is given counts */
    CHECK_FAILS(lks_plan_create(&c, &plan), LKS_E_ARG,
                "local batch 16 x 2 workers x 4 accumulation steps, not x 2");
    c.world = 0;
    c.global_batch = 96;
    c.accumulate = 4;
    CHECK_FAILS(lks_plan_create(&c, &plan), LKS_E_ARG,
                "local batch 16 x 1 worker x 6 accumulation steps, not x 4");
}

/* --- processes --- */

static void processes_are_chosen_from_world_and_cores(void **state)
{
    (void)state;
    static const struct {
        int64_t world, cores, processes;
    } cases[] = {
        {0, 8, 1}, {16, 1, 1}, {16, 2, 2},      {16, 6, 4},    {16, 64, 16},   {15, 4, 3},
        {7, 6, 1}, {1, 8, 1},  {512, 512, 256}, {257, 512, 1}, {300, 512, 150}}; /* a group holds 256 */
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lks_plan_config c = mnist();
        c.processes = 0;
        c.world = cases[i].world;
        c.usable_cores = cases[i].cores;
        lks_plan plan = plan_of(c);
        CHECK_INT(plan.processes, cases[i].processes);
        CHECK_INT(plan.world, cases[i].world == 0 ? 1 : cases[i].world);
        assert_true(plan.processes_chosen);
    }
}

static void bits_are_the_same_when_processes_own_whole_subtrees(void **state)
{
    (void)state;
    static const struct {
        int64_t processes, world, accumulate;
        bool same;
    } cases[] = {
        {1, 1, 1, true},   {1, 12, 1, true}, {2, 2, 1, true},  {2, 2, 3, false}, {2, 16, 1, true},
        {4, 12, 1, false}, {3, 12, 1, true}, {6, 12, 1, true}, {2, 2, 4, true},  {3, 3, 5, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lks_plan_config c = mnist();
        c.processes = cases[i].processes;
        c.world = cases[i].world;
        c.accumulate = cases[i].accumulate;
        CHECK_INT(plan_of(c).same_bits, cases[i].same);
    }
}

/* --- what is refused --- */

static void mistakes_are_refused(void **state)
{
    (void)state;
#define WITH(field, val) .offset = offsetof(lks_plan_config, field), .value = (val)
    static const struct {
        size_t offset;
        int64_t value;
        const char *message;
    } cases[] = {
        {WITH(n_samples, 0), "the number of samples is 0; an integer from 1 to 1000000000000000 is needed"},
        {WITH(n_samples, 1), "2 workers are more than the training set has samples (1)"},
        {WITH(processes, -1), "the number of processes is -1"},
        {WITH(world, 60001), "2 processes can't share 60001 workers evenly; 1, 29 and 2069 can"},
        {WITH(world, 60002), "60002 workers are more than the training set has samples (60000)"},
        {WITH(world, INT64_MIN), "the world is -9223372036854775808"},
        {WITH(local_batch, INT64_MAX), "the local batch is 9223372036854775807"},
        {WITH(steps, 10), "one of epochs, steps and samples"},
        {WITH(epochs, 0), "one of epochs, steps and samples"},
        {WITH(epochs, 1000000000000000), "1000000000000000 epochs are too many"},
        {WITH(reference_batch, 0), "needs the reference batch"},
    };
#undef WITH
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lks_plan_config c = mnist();
        lks_plan plan = {.total_steps = 77};
        memcpy((char *)&c + cases[i].offset, &cases[i].value, sizeof cases[i].value);
        CHECK_FAILS(lks_plan_create(&c, &plan), LKS_E_ARG, cases[i].message);
        CHECK_INT(plan.total_steps, 77); /* outputs only on success */
    }
    lks_plan_config c = mnist();
    lks_plan plan;
    c.tail = LKS_TAIL_DROP;
    c.local_batch = 40000;
    CHECK_FAILS(lks_plan_create(&c, &plan), LKS_E_ARG,
                "the effective batch 80000 is more than the training set has samples (60000)");
}

static void numbers_that_are_none_are_refused(void **state)
{
    (void)state;
    static const double bad[] = {0.0, -0.1, NAN, INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        lks_plan plan;
        lks_plan_config c = mnist();
        c.base_lr = bad[i];
        CHECK_FAILS(lks_plan_create(&c, &plan), LKS_E_ARG, "the learning rate is");
        c = mnist();
        c.warmup_epochs = bad[i] == 0 ? 1e300 : bad[i];
        CHECK_FAILS(lks_plan_create(&c, &plan), LKS_E_ARG, "warm-up");
    }
    lks_plan plan;
    lks_plan_config c = mnist();
    c.base_lr = 1e308;
    c.local_batch = 1000;
    CHECK_FAILS(lks_plan_create(&c, &plan), LKS_E_ARG, "is no number");
}

static void choices_that_are_none_are_refused(void **state)
{
    (void)state;
    lks_plan_config warmup = mnist(), tail = mnist(), reduction = mnist(), rule = mnist(), from = mnist(),
                    schedule = mnist();
    tail.tail = (lks_tail)7;
    reduction.reduction = (lks_reduction)-1;
    rule.lr_rule = (lks_lr_rule)6;
    warmup.warmup = (lks_warmup)3;
    from.warmup_from = (lks_warmup_from)2;
    schedule.schedule.kind = (lks_schedule_kind)INT_MAX;
    lks_plan plan;
    CHECK_FAILS(lks_plan_create(&tail, &plan), LKS_E_ARG, "the tail is 7; a value from 0 to 2 is needed");
    CHECK_FAILS(lks_plan_create(&reduction, &plan), LKS_E_ARG, "the reduction is -1");
    CHECK_FAILS(lks_plan_create(&rule, &plan), LKS_E_ARG, "the learning-rate rule is 6");
    CHECK_FAILS(lks_plan_create(&warmup, &plan), LKS_E_ARG,
                "the warm-up is 3; a value from 0 to 2 is needed");
    CHECK_FAILS(lks_plan_create(&from, &plan), LKS_E_ARG, "the start of the warm-up is 2");
    CHECK_FAILS(lks_plan_create(&schedule, &plan), LKS_E_ARG, "the schedule is 2147483647");
}

/* --- an epoch walked position by position --- */

typedef struct walk {
    int64_t steps_per_epoch, last_step, total_steps, samples;
} walk;

/* How many samples the epoch's next step takes when `position` of `positions` are used. */
static int64_t next_step(int64_t position, int64_t positions, int64_t batch, lks_tail tail)
{
    int64_t n = 0;
    while (n < batch && position + n < positions)
        n++;
    return tail == LKS_TAIL_DROP && n < batch ? 0 : n;
}

static walk walk_run(const lks_plan_config *c, int64_t world, int64_t batch)
{
    walk w = {0};
    int64_t positions = c->n_samples;
    while (c->tail == LKS_TAIL_PAD && positions % world != 0)
        positions++;
    for (int64_t epoch = 0; c->epochs == 0 || epoch < c->epochs; epoch++) {
        int64_t position = 0, steps = 0, n;
        while ((n = next_step(position, positions, batch, c->tail)) > 0) {
            position += n;
            steps++;
            w.last_step = epoch == 0 ? n : w.last_step;
            bool over = (c->steps > 0 && w.total_steps >= c->steps) ||
                        (c->samples > 0 && w.samples >= c->samples);
            if (!over) {
                w.total_steps++;
                w.samples += n;
            } else if (epoch > 0) {
                return w;
            }
        }
        w.steps_per_epoch = steps;
    }
    return w;
}

static int64_t draw(uint32_t i, uint32_t j, uint32_t below)
{
    uint32_t out[4];
    lks__philox((uint32_t[4]){i, j, 0, 0}, (uint32_t[2]){1, 2}, out);
    return out[0] % below;
}

static void plans_agree_with_walking_through_the_run(void **state)
{
    (void)state;
    int compared = 0;
    for (uint32_t i = 0; i < 3000; i++) {
        lks_plan_config c = lks_plan_config_default();
        lks_plan plan;
        c.n_samples = 1 + draw(i, 0, 300);
        c.processes = 1 + draw(i, 1, 4);
        c.world = c.processes * (1 + draw(i, 2, 4));
        c.local_batch = 1 + draw(i, 3, 12);
        c.accumulate = 1 + draw(i, 4, 3);
        c.tail = (lks_tail)draw(i, 5, 3);
        int64_t length = 1 + draw(i, 6, 5);
        int64_t kind = draw(i, 7, 3);
        c.epochs = kind == 0 ? length : 0;
        c.steps = kind == 1 ? length * 7 : 0;
        c.samples = kind == 2 ? length * 131 : 0;
        int64_t batch = c.local_batch * c.world * c.accumulate;
        bool possible = c.world <= c.n_samples && (c.tail != LKS_TAIL_DROP || batch <= c.n_samples);
        CHECK_INT(lks_plan_create(&c, &plan), possible ? LKS_OK : LKS_E_ARG);
        if (!possible)
            continue;
        walk expected = walk_run(&c, c.world, batch);
        CHECK_INT(plan.global_batch, batch);
        CHECK_INT(plan.steps_per_epoch, expected.steps_per_epoch);
        CHECK_INT(plan.last_step_samples, expected.last_step);
        CHECK_INT(plan.total_steps, expected.total_steps);
        CHECK_INT(plan.samples, expected.samples);
        compared++;
    }
    assert_true(compared > 1000);
}

/* Whatever the numbers: refused, or a plan whose products hold (and no overflow, which the sanitizer
 * watches). */
static void extreme_numbers_do_no_harm(void **state)
{
    (void)state;
    static const int64_t numbers[] = {
        INT64_MIN,        -1,       0, 0, 0, 1, 2, 3, 6, 1000, (int64_t)1 << 31, 1000000000000000,
        1000000000000001, INT64_MAX};
    enum { N = sizeof numbers / sizeof numbers[0] };
    for (uint32_t i = 0; i < 20000; i++) {
        lks_plan_config c = mnist();
        int64_t *fields[] = {&c.n_samples,    &c.processes, &c.world, &c.local_batch, &c.accumulate,
                             &c.global_batch, &c.epochs,    &c.steps, &c.samples,     &c.reference_batch};
        for (uint32_t f = 0; f < sizeof fields / sizeof fields[0]; f++)
            if (draw(i, 100 + f, 2) == 0)
                *fields[f] = numbers[draw(i, f, N)];
        lks_plan plan;
        if (lks_plan_create(&c, &plan) != LKS_OK)
            continue;
        CHECK_INT(plan.local_batch * plan.world * plan.accumulate, plan.global_batch);
        CHECK_INT(plan.leaves_per_process * plan.processes, plan.leaves);
        assert_true(plan.total_steps > 0 && plan.samples > 0 && plan.samples <= 2 * 1000000000000000);
    }
}

/* --- the learning rate --- */

/* Rates are compared to 1e-15 of their size: a handful of roundings of 2^-53. */
#define CHECK_RATE(actual, expected) CHECK_NEAR(actual, expected, 1e-15 + 1e-15 * fabs(expected))

static void rates_at_points_done_by_hand(void **state)
{
    (void)state;
    lks_plan_config c = mnist(); /* 0.02 -> 0.04 over 60,000 samples, then down over 240,000 */
    lks_plan plan = plan_of(c);
    CHECK_RATE(lks_plan_lr(&plan, 0), 0.02);
    CHECK_RATE(lks_plan_lr(&plan, 30000), 0.03);
    CHECK_RATE(lks_plan_lr(&plan, 60000), 0.04);
    CHECK_RATE(lks_plan_lr(&plan, 140000), 0.03); /* a third of the way: (1 + cos 60 degrees) / 2 = 3/4 */
    CHECK_RATE(lks_plan_lr(&plan, 180000), 0.02);
    CHECK_RATE(lks_plan_lr(&plan, 300000), 0.0);
    CHECK_RATE(lks_plan_lr(&plan, 400000), 0.0);
    CHECK_RATE(lks_plan_lr(&plan, -5), 0.02);

    c.warmup_from = LKS_WARMUP_FROM_ZERO;
    c.schedule.kind = LKS_SCHEDULE_CONSTANT;
    plan = plan_of(c);
    CHECK_RATE(lks_plan_lr(&plan, 0), 0.0);
    CHECK_RATE(lks_plan_lr(&plan, 30000), 0.02);
    CHECK_RATE(lks_plan_lr(&plan, 299999), 0.04);

    c.lr_rule = LKS_LR_SQRT;
    c.local_batch = 128; /* kappa 4 */
    CHECK_RATE(plan_of(c).scaled_lr, 0.04);
    c.lr_rule = LKS_LR_NONE;
    CHECK_RATE(plan_of(c).scaled_lr, 0.02);
}

/* Malladi et al. 2022: at kappa 4 the rate doubles, (1 - beta) is fourfold, epsilon is halved. */
static void adam_sqrt_scales_the_optimizer_too(void **state)
{
    (void)state;
    lks_plan_config c = mnist();
    c.optimizer = lks_optimizer_config_default(LKS_ADAMW);
    c.lr_rule = LKS_LR_ADAM_SQRT;
    c.local_batch = 128; /* kappa 4 */
    lks_plan plan = plan_of(c);
    CHECK_RATE(plan.scaled_lr, 0.04);
    CHECK_RATE(plan.optimizer.beta1, 0.6);
    CHECK_RATE(plan.optimizer.beta2, 0.996);
    CHECK_RATE(plan.optimizer.epsilon, 5e-9);
    CHECK_INT(plan.optimizer.kind, LKS_ADAMW);
    CHECK_RATE(plan.optimizer.weight_decay, 0.01);

    c.local_batch = 32; /* kappa 1: as given, to the bit */
    plan = plan_of(c);
    assert_true(plan.optimizer.beta1 == 0.9 && plan.optimizer.beta2 == 0.999 &&
                plan.optimizer.epsilon == 1e-8);

    c.local_batch = 16; /* kappa 1/2 */
    plan = plan_of(c);
    CHECK_RATE(plan.optimizer.beta1, 0.95);
    CHECK_RATE(plan.optimizer.beta2, 0.9995);

    c.local_batch = 288; /* kappa 9 */
    CHECK_RATE(plan_of(c).optimizer.beta1, 0.1);
    c.local_batch = 320; /* kappa 10: beta1 would be 0 */
    CHECK_FAILS(lks_plan_create(&c, &plan), LKS_E_ARG,
                "can't scale beta1 0.9 for a batch of 640 instead of 64: 1 - 10 x (1 - 0.9) is not above 0; "
                "effective batches below 640 are");
    static const lks_optimizer_kind others[] = {LKS_SGD, LKS_LARS, LKS_LAMB};
    static const char *const refusals[] = {"the optimizer is sgd", "the optimizer is lars",
                                           "the optimizer is lamb"};
    for (int i = 0; i < 3; i++) {
        c.optimizer = lks_optimizer_config_default(others[i]);
        CHECK_FAILS(lks_plan_create(&c, &plan), LKS_E_ARG, refusals[i]);
    }
}

/* You et al. 2019: at kappa 4 the rate doubles and the warm-up has four times the epochs. */
static void legw_scales_the_warmup_too(void **state)
{
    (void)state;
    lks_plan_config c = mnist();
    c.lr_rule = LKS_LR_LEGW;
    c.local_batch = 128;
    c.warmup_epochs = 0.5;
    lks_plan plan = plan_of(c);
    CHECK_RATE(plan.scaled_lr, 0.04);
    CHECK_INT((int64_t)plan.warmup_samples, 120000);
    CHECK_INT(plan.warmup_steps, 469); /* as many as for the reference batch: ceil(30000 / 64) */
    CHECK_RATE(lks_plan_lr(&plan, 60000), 0.03);
}

static void rules_leave_the_rest_of_the_optimizer_alone(void **state)
{
    (void)state;
    static const lks_lr_rule rules[] = {LKS_LR_NONE, LKS_LR_LINEAR, LKS_LR_SQRT, LKS_LR_LEGW};
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        lks_plan_config c = mnist();
        c.optimizer = lks_optimizer_config_default(LKS_ADAM);
        c.lr_rule = rules[i];
        lks_plan plan = plan_of(c);
        assert_true(plan.optimizer.beta1 == 0.9 && plan.optimizer.beta2 == 0.999);
        assert_true(plan.optimizer.epsilon == 1e-8);
        CHECK_INT(plan.warmup_steps, rules[i] == LKS_LR_LEGW ? 938 : rules[i] == LKS_LR_NONE ? 0 : 469);
    }
}

static void a_rate_that_is_not_scaled_up_has_no_warmup(void **state)
{
    (void)state;
    lks_plan_config c = mnist();
    c.reference_batch = 128;
    CHECK_INT(plan_of(c).warmup_steps, 0);
    c.reference_batch = 512;
    lks_plan plan = plan_of(c);
    CHECK_INT(plan.warmup_steps, 0);
    CHECK_RATE(lks_plan_lr(&plan, 0), 0.005);
    c.warmup_from = LKS_WARMUP_FROM_ZERO;
    CHECK_INT(plan_of(c).warmup_steps, 469);
    c.warmup = LKS_WARMUP_CONSTANT; /* which never starts at zero */
    CHECK_INT(plan_of(c).warmup_steps, 0);
    c.warmup = LKS_WARMUP_GRADUAL;
    c.n_samples = 100;
    c.local_batch = 1;
    c.processes = 1;
    c.warmup_epochs = 0.07; /* 7 samples, though 0.07 * 100 is above 7 in doubles */
    CHECK_INT(plan_of(c).warmup_steps, 7);
}

static void a_constant_warmup_jumps_at_its_end(void **state)
{
    (void)state;
    lks_plan_config c = mnist();
    c.warmup = LKS_WARMUP_CONSTANT;
    lks_plan plan = plan_of(c);
    CHECK_INT(plan.warmup_steps, 469);
    CHECK_RATE(lks_plan_lr(&plan, 0), 0.02);
    CHECK_RATE(lks_plan_lr(&plan, 59999), 0.02);
    CHECK_RATE(lks_plan_lr(&plan, 60000), 0.04);
    CHECK_RATE(lks_plan_lr(&plan, 180000), 0.02); /* half of the cosine, which begins after the warm-up */
}

static void without_warmup_the_scaled_rate_comes_first(void **state)
{
    (void)state;
    lks_plan_config c = mnist();
    c.warmup = LKS_WARMUP_NONE;
    lks_plan plan = plan_of(c);
    CHECK_INT(plan.warmup_steps, 0);
    CHECK_RATE(lks_plan_lr(&plan, 0), 0.04);
    CHECK_RATE(lks_plan_lr(&plan, 150000), 0.02);
}

static void a_warmup_may_last_to_the_end(void **state)
{
    (void)state;
    lks_plan_config c = mnist();
    c.warmup_epochs = 10;
    lks_plan plan = plan_of(c);
    CHECK_RATE(lks_plan_lr(&plan, 300000), 0.03); /* half of 600,000 */
    CHECK_INT(plan.warmup_steps, 4688);           /* ceil(600000 / 128) */
    c.warmup_epochs = 5;
    plan = plan_of(c);
    CHECK_RATE(lks_plan_lr(&plan, 150000), 0.03);
    assert_true(isfinite(lks_plan_lr(&plan, 300000)));
}

static void rates_depend_on_samples_not_on_workers(void **state)
{
    (void)state;
    lks_plan_config c = mnist(), d = mnist();
    d.processes = 8;
    d.local_batch = 8;
    d.accumulate = 2;
    lks_plan a = plan_of(c), b = plan_of(d);
    for (int64_t s = 0; s <= 300000; s += 777)
        assert_true(lks_plan_lr(&a, (double)s) == lks_plan_lr(&b, (double)s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_on_mnist),
        cmocka_unit_test(the_default_rate_is_that_of_pytorch),
        cmocka_unit_test(a_thousand_samples_on_two_workers),
        cmocka_unit_test(a_run_may_end_inside_an_epoch),
        cmocka_unit_test(any_consistent_batch_is_completed),
        cmocka_unit_test(the_world_follows_from_the_batch),
        cmocka_unit_test(processes_are_chosen_from_world_and_cores),
        cmocka_unit_test(bits_are_the_same_when_processes_own_whole_subtrees),
        cmocka_unit_test(mistakes_are_refused),
        cmocka_unit_test(numbers_that_are_none_are_refused),
        cmocka_unit_test(choices_that_are_none_are_refused),
        cmocka_unit_test(plans_agree_with_walking_through_the_run),
        cmocka_unit_test(extreme_numbers_do_no_harm),
        cmocka_unit_test(rates_at_points_done_by_hand),
        cmocka_unit_test(adam_sqrt_scales_the_optimizer_too),
        cmocka_unit_test(legw_scales_the_warmup_too),
        cmocka_unit_test(rules_leave_the_rest_of_the_optimizer_alone),
        cmocka_unit_test(a_rate_that_is_not_scaled_up_has_no_warmup),
        cmocka_unit_test(a_constant_warmup_jumps_at_its_end),
        cmocka_unit_test(without_warmup_the_scaled_rate_comes_first),
        cmocka_unit_test(a_warmup_may_last_to_the_end),
        cmocka_unit_test(rates_depend_on_samples_not_on_workers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
