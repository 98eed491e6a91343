/* SPDX-License-Identifier: Apache-2.0 */
/* Plans and samplers of runs that go on with another batch within an epoch. */
#include "check.h"
#include "plans.h"

#include <stdlib.h>

#include <lockstep/sampler.h>

#include "base/random.h"
#include "plan/epoch.h"
#include "plan/plan_config.h"

static void the_rest_of_an_epoch_is_done_by_hand(void **state)
{
    (void)state;
    lks_plan_config c = mnist(); /* 5 epochs of 60,000 */
    c.origin = (lks_plan_origin){.step = 1000, .samples = 128000, .epoch = 2, .offset = 8000};
    c.local_batch = 256;
    lks_plan plan = plan_of(c);
    CHECK_INT(plan.global_batch, 512);
    CHECK_INT(plan.steps_per_epoch, 118);              /* 117 * 512 = 59904 */
    CHECK_INT(lks_plan_steps_in_epoch(&plan, 1), 0);   /* is over */
    CHECK_INT(lks_plan_steps_in_epoch(&plan, 2), 102); /* 52000 = 101 * 512 + 288 */
    CHECK_INT(lks_plan_step_samples(&plan, 2, 100), 512);
    CHECK_INT(lks_plan_step_samples(&plan, 2, 101), 288);
    CHECK_INT(lks_plan_step_samples(&plan, 2, 102), 0);
    CHECK_INT(lks_plan_steps_in_epoch(&plan, 3), 118);
    CHECK_INT(lks_plan_step_samples(&plan, 3, 117), 96);
    CHECK_INT(plan.total_steps, 1000 + 102 + 2 * 118);
    CHECK_INT(plan.samples, 300000);
    assert_true(plan.epochs == 5);

    c.epochs = 0;
    c.steps = 1103; /* one step of epoch 3 */
    plan = plan_of(c);
    CHECK_INT(plan.samples, 180512);
    c.steps = 1001;
    CHECK_INT(plan_of(c).samples, 128512);
    c.steps = 0;
    c.samples = 128001; /* a sample more than it has: a step */
    plan = plan_of(c);
    CHECK_INT(plan.total_steps, 1001);
    CHECK_INT(plan.samples, 128512);
    assert_true(plan.epochs == 2 + 8512 / 60000.0);
}

/* The clock is that of samples: what the rate is depends on what has been seen and on nothing before. */
static void the_rate_goes_on_by_samples_seen(void **state)
{
    (void)state;
    lks_plan_config c = mnist();
    lks_plan whole = plan_of(c);
    c.origin = (lks_plan_origin){.step = 1000, .samples = 128000, .epoch = 2, .offset = 8000};
    lks_plan rest = plan_of(c);
    for (int64_t s = 0; s <= 300000; s += 1234)
        assert_true(lks_plan_lr(&rest, (double)s) == lks_plan_lr(&whole, (double)s));
}

/* Where the tail is dropped, epochs before and after the origin have different sizes: 96 and 90 of 100
 * samples. Rates fall at ends of epochs that there are: 96 * 2 + 45 + 45 = 282. */
static void epochs_are_counted_as_they_were_seen(void **state)
{
    (void)state;
    lks_plan_config c = lks_plan_config_default();
    c.n_samples = 100;
    c.local_batch = 45;
    c.tail = LKS_TAIL_DROP;
    c.epochs = 5;
    c.origin = (lks_plan_origin){.step = 7, .samples = 2 * 96 + 32, .epoch = 2, .offset = 32};
    c.schedule = (lks_schedule){.kind = LKS_SCHEDULE_EXPONENTIAL, .gamma = 0.5};
    lks_plan plan = plan_of(c);
    CHECK_INT(lks_plan_steps_in_epoch(&plan, 2), 1); /* 68 are left: one step of 45 */
    CHECK_INT(plan.samples, 224 + 45 + 2 * 90);
    CHECK_INT(plan.total_steps, 7 + 1 + 2 * 2);
    assert_true(plan.epochs == 5);
    assert_true(lks_plan_lr(&plan, 224) == plan.base_lr * 0.25);
    assert_true(lks_plan_lr(&plan, 224 + 44) == plan.base_lr * 0.25);
    assert_true(lks_plan_lr(&plan, 224 + 45) == plan.base_lr * 0.125);
    assert_true(lks_plan_lr(&plan, 224 + 45 + 90) == plan.base_lr * 0.0625);

    c.local_batch = 90; /* nothing of the epoch is left for a whole step */
    plan = plan_of(c);
    CHECK_INT(lks_plan_steps_in_epoch(&plan, 2), 0);
    CHECK_INT(plan.total_steps, 7 + 2);
    CHECK_INT(plan.samples, 224 + 2 * 90);
    c.epochs = 3;
    CHECK_FAILS(lks_plan_create(&c, &plan), LKS_E_ARG,
                "a run of 3 epochs would be over: it has taken 7 steps and seen 224 samples, and goes on at "
                "position 32 of epoch 3");
}

static void what_is_over_is_refused(void **state)
{
    (void)state;
    lks_plan_config c = mnist();
    lks_plan plan;
    c.origin = (lks_plan_origin){.step = 1000, .samples = 128000, .epoch = 2, .offset = 8000};
    c.epochs = 2;
    CHECK_FAILS(lks_plan_create(&c, &plan), LKS_E_ARG,
                "a run of 2 epochs would be over: it has taken 1000 steps");
    c.epochs = 0;
    c.steps = 1000;
    CHECK_FAILS(lks_plan_create(&c, &plan), LKS_E_ARG, "a run of 1000 steps would be over");
    c.steps = 0;
    c.samples = 128000;
    CHECK_FAILS(lks_plan_create(&c, &plan), LKS_E_ARG, "a run of 128000 samples would be over");

    static const lks_plan_origin odd[] = {
        {.step = -1},
        {.step = 1},
        {.offset = 5},
        {.step = 1, .samples = 5},
        {.step = 6, .samples = 5, .offset = 5},
        {.step = 5, .samples = 5, .epoch = 6},
        {.step = 5, .samples = 5, .offset = 6},
        {.step = 5, .samples = 5, .epoch = -1, .offset = 1},
        {.step = 5, .samples = 5, .epoch = 1, .offset = -1},
        {.step = 1, .samples = 60000, .offset = 60000},
        {.step = 1, .samples = INT64_MAX, .epoch = 1},
    };
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        c = mnist();
        c.origin = odd[i];
        CHECK_FAILS(lks_plan_create(&c, &plan), LKS_E_ARG,
                    "is no place where a run on 60000 samples can go on");
    }
}

static void json_keeps_the_origin(void **state)
{
    (void)state;
    lks_plan_config c = mnist();
    char *json;
    lks_plan plan = plan_of(c);
    lks_plan_origin read = {.step = 9};
    CHECK_OK(lks_plan_to_json(&plan, &json));
    CHECK_OK(lks__plan_origin_from_json(json, &read));
    CHECK_INT(read.step, 0);
    c.origin = (lks_plan_origin){.step = 1000, .samples = 128000, .epoch = 2, .offset = 8000};
    lks_plan other = plan_of(c);
    CHECK_FAILS(lks__plan_check_same(&other, json), LKS_E_ARG,
                "origin was null; this plan has {\"step\": 1000");
    free(json);
    CHECK_OK(lks_plan_to_json(&other, &json));
    CHECK_OK(lks__plan_origin_from_json(json, &read));
    assert_memory_equal(&read, &c.origin, sizeof read);
    CHECK_OK(lks__plan_check_same(&other, json));
    free(json);
    static const char *const odd[] = {"", "{}", "{\"origin\": 3}", "{\"origin\": {\"step\": 1}}"};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++)
        CHECK_FAILS(lks__plan_origin_from_json(odd[i], &read), LKS_E_FORMAT, "where it goes on");
}

#define EPOCHS(n, batch, steps, tail, origin)                                                                \
    "{\"train_samples\": " n ", \"world\": 1, \"effective_batch\": " batch ", \"steps_per_epoch\": " steps   \
    ", \"total_steps\": 50, \"tail\": \"" tail "\", \"origin\": " origin "}"
#define ORIGIN(step, epoch, offset)                                                                          \
    "{\"step\": " step ", \"samples\": 9, \"epoch\": " epoch ", \"offset\": " offset "}"

static void json_tells_what_an_epoch_is(void **state)
{
    (void)state;
    lks_plan_config c = mnist();
    c.origin = (lks_plan_origin){.step = 1000, .samples = 128000, .epoch = 2, .offset = 8000};
    lks_plan plan = plan_of(c), read;
    char *json;
    CHECK_OK(lks_plan_to_json(&plan, &json));
    CHECK_OK(lks__plan_epochs_from_json(json, &read));
    free(json);
    for (int64_t epoch = 1; epoch < 5; epoch++)
        CHECK_INT(lks_plan_steps_in_epoch(&read, epoch), lks_plan_steps_in_epoch(&plan, epoch));
    CHECK_INT(lks__plan_steps_before(&read, 4, 7), 1000 + 407 + 469 + 7); /* 52000 / 128 = 406.25 */
    CHECK_INT(lks__plan_steps_before(&plan, 4, 7), 1000 + 407 + 469 + 7);
    CHECK_INT(lks__plan_samples_before(&plan, 4, 7), 4 * 60000 + 7 * 128);
    CHECK_INT(lks__plan_last_epoch(&read), lks__plan_last_epoch(&plan));

    CHECK_OK(lks__plan_epochs_from_json(EPOCHS("9", "4", "3", "pad", ORIGIN("3", "1", "2")), &read));
    static const char *const odd[] = {
        "",
        "[]",
        EPOCHS("0", "4", "3", "pad", "null"),
        EPOCHS("9", "-4", "3", "pad", "null"),
        EPOCHS("9", "4", "1000000000000001", "pad", "null"),
        EPOCHS("9", "4", "3", "gone", "null"),
        EPOCHS("9", "4.5", "3", "pad", "null"),
        EPOCHS("9", "4", "3", "pad", ORIGIN("51", "1", "2")),
        EPOCHS("9", "4", "3", "pad", ORIGIN("3", "-1", "2")),
        EPOCHS("9", "4", "3", "pad", ORIGIN("3", "1", "9")),
        EPOCHS("9", "4", "3", "pad", "3"),
    };
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++)
        CHECK_FAILS(lks__plan_epochs_from_json(odd[i], &read), LKS_E_FORMAT, "the plan ");
}

static void the_table_tells_of_the_origin(void **state)
{
    (void)state;
    lks_plan_config c = mnist();
    c.origin = (lks_plan_origin){.step = 1000, .samples = 128000, .epoch = 2, .offset = 8000};
    c.local_batch = 256;
    lks_plan plan = plan_of(c);
    char *text;
    CHECK_OK(lks_plan_to_text(&plan, &text));
    static const char *const lines[] = {
        "  steps taken before      1000  with 128000 samples\n",
        "  left of the epoch        102  steps = ceil(52000 / 512), to the end of epoch 3\n",
        "  total steps             1338  = 1000 + 102 + 118 x 2 epochs\n",
        "  total samples         300000  = 128000 + 52000 + 60000 x 2 epochs\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        if (strstr(text, lines[i]) == NULL)
            fail_msg("%s is not in\n%s", lines[i], text);
    free(text);
}

/* --- runs walked step by step, with changes of the batch on the way --- */

enum { MOST_SAMPLES = 60, MOST_EPOCHS = 64, CHANGES = 3 };

static int64_t draw(uint32_t i, uint32_t j, uint32_t below)
{
    uint32_t out[4];
    lks__philox((uint32_t[4]){i, j, 0, 0}, (uint32_t[2]){3, 4}, out);
    return out[0] % below;
}

/* Where a walk is. The oracle knows an epoch as a list of positions: from where the plan began in it to an
 * end that the tail decides, a step after the other. */
typedef struct walk {
    int64_t step, samples, epoch;
    int64_t position, end; /* of the epoch's list */
    int64_t steps_of_part; /* taken in this epoch with this plan */
    int used[MOST_EPOCHS][MOST_SAMPLES];
} walk;

static int64_t batch_of(const lks_plan_config *c)
{
    return c->local_batch * c->world * c->accumulate;
}

/* The end of a list that begins at w->position. */
static void set_end(walk *w, const lks_plan_config *c)
{
    int64_t n = c->n_samples - w->position;
    while (c->tail == LKS_TAIL_DROP && n % batch_of(c) != 0)
        n--;
    while (c->tail == LKS_TAIL_PAD && n % c->world != 0)
        n++;
    w->end = w->position + n;
    w->steps_of_part = 0;
}

static void end_epochs(walk *w, const lks_plan_config *c)
{
    while (w->position == w->end) {
        w->epoch++;
        w->position = 0;
        set_end(w, c);
    }
}

static lks_plan_config draw_config(uint32_t i, int64_t n_samples, lks_tail tail, const walk *w)
{
    lks_plan_config c = lks_plan_config_default();
    c.n_samples = n_samples;
    c.tail = tail;
    c.processes = 1;
    do {
        c.world = 1 + draw(i++, 1, 6);
        c.local_batch = 1 + draw(i, 2, 5);
        c.accumulate = 1 + draw(i, 3, 3);
    } while (c.world > n_samples || (tail == LKS_TAIL_DROP && batch_of(&c) > n_samples));
    c.origin = (lks_plan_origin){w->step, w->samples, w->epoch, w->position};
    int64_t kind = draw(i, 4, 3);
    c.epochs = kind == 0 ? w->epoch + 2 : 0;
    c.steps = kind == 1 ? w->step + 1 + draw(i, 5, 20) : 0;
    c.samples = kind == 2 ? w->samples + 1 + draw(i, 6, 99) : 0;
    return c;
}

/* The step's samples are the next ones of the list, dealt to its leaves in turn. */
static void check_step(const walk *w, lks_sampler *sampler, lks_sampler *order, const lks_plan *plan)
{
    int64_t n = w->end - w->position < plan->global_batch ? w->end - w->position : plan->global_batch;
    CHECK_INT(lks_plan_step_samples(plan, w->epoch, w->steps_of_part), n);
    for (int64_t leaf = 0; leaf < plan->leaves; leaf++) {
        int64_t got[MOST_SAMPLES], wanted, count = 0;
        int64_t given = lks_sampler_leaf(sampler, w->epoch, w->steps_of_part, leaf, got);
        for (int64_t card = leaf; card < n; card += plan->leaves) {
            CHECK_INT(lks_sampler_leaf(order, w->epoch, (w->position + card) % plan->n_samples, 0, &wanted),
                      1);
            CHECK_INT(got[count++], wanted);
        }
        CHECK_INT(given, count);
    }
}

static void take_step(walk *w, lks_sampler *order, const lks_plan *plan)
{
    int64_t sample;
    for (int64_t i = 0; i < plan->global_batch && w->position < w->end; i++, w->position++, w->samples++) {
        CHECK_INT(lks_sampler_leaf(order, w->epoch, w->position % plan->n_samples, 0, &sample), 1);
        w->used[w->epoch][sample]++;
    }
    w->step++;
    w->steps_of_part++;
}

/* Walks on with this plan: to its end, or, at most `steps`, into an epoch. */
static void walk_on(walk *w, const lks_plan_config *c, lks_sampler *order, int64_t steps, bool to_end)
{
    lks_plan plan = plan_of(*c);
    lks_sampler *sampler;
    lks_sampler_config config = lks_sampler_config_from_plan(&plan, 5);
    CHECK_OK(lks_sampler_create(&config, &sampler));
    set_end(w, c);
    end_epochs(w, c);
    for (; to_end ? w->step < plan.total_steps : steps > 0 && w->step + 1 < plan.total_steps; steps--) {
        CHECK_INT(lks__plan_epoch_at(&plan, w->samples), w->epoch);
        check_step(w, sampler, order, &plan);
        take_step(w, order, &plan);
        bool over = w->position == w->end;
        CHECK_INT(lks_plan_steps_in_epoch(&plan, w->epoch) == w->steps_of_part, over);
        end_epochs(w, c);
    }
    if (to_end)
        CHECK_INT(plan.samples, w->samples);
    if (to_end && c->epochs > 0) {
        CHECK_INT(w->epoch, c->epochs);
        CHECK_INT(w->position, 0);
        assert_true(plan.epochs == (double)c->epochs);
    }
    lks_sampler_destroy(sampler);
}

static void runs_that_change_their_batch_use_every_sample_once(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2000; i++) {
        static walk w;
        w = (walk){0};
        int64_t n = 6 + draw(i, 7, MOST_SAMPLES - 6);
        lks_tail tail = (lks_tail)draw(i, 8, 3);
        lks_sampler_config one = {n, 1, 1, 1, LKS_TAIL_EXACT, true, 5};
        lks_sampler *order;
        CHECK_OK(lks_sampler_create(&one, &order));
        for (uint32_t change = 0; change <= CHANGES; change++) {
            lks_plan_config c = draw_config(i * 100 + change * 20, n, tail, &w);
            walk_on(&w, &c, order, draw(i, 50 + change, 12), change == CHANGES);
        }
        for (int64_t epoch = 0; tail == LKS_TAIL_EXACT && epoch < w.epoch; epoch++)
            for (int64_t sample = 0; sample < n; sample++)
                CHECK_INT(w.used[epoch][sample], 1);
        lks_sampler_destroy(order);
    }
}

/* To go on without a change is not to stop. */
static void the_same_batch_makes_the_same_run(void **state)
{
    (void)state;
    int compared = 0;
    for (uint32_t i = 0; i < 2000; i++) {
        static walk w;
        w = (walk){0};
        lks_sampler *order;
        int64_t n = 6 + draw(i, 7, MOST_SAMPLES - 6);
        lks_sampler_config one = {n, 1, 1, 1, LKS_TAIL_EXACT, true, 5};
        CHECK_OK(lks_sampler_create(&one, &order));
        lks_plan_config c = draw_config(i * 100, n, (lks_tail)draw(i, 8, 3), &w);
        lks_plan whole = plan_of(c);
        walk_on(&w, &c, order, draw(i, 9, 12), false);
        lks_sampler_destroy(order);
        if (w.step == 0)
            continue;
        c.origin = (lks_plan_origin){w.step, w.samples, w.epoch, w.position};
        lks_plan rest = plan_of(c);
        CHECK_INT(rest.total_steps, whole.total_steps);
        CHECK_INT(rest.samples, whole.samples);
        CHECK_INT(lks_plan_steps_in_epoch(&rest, w.epoch) + w.steps_of_part,
                  lks_plan_steps_in_epoch(&whole, w.epoch));
        CHECK_NEAR(rest.epochs, whole.epochs, 1e-12); /* two divisions instead of one */
        compared++;
    }
    assert_true(compared > 1000);
}

static void samplers_refuse_places_that_there_are_not(void **state)
{
    (void)state;
    static const int64_t odd[][2] = {{-1, 0}, {0, -1}, {0, 9}, {3, INT64_MAX}};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        lks_sampler_config config = {9, 1, 1, 1, LKS_TAIL_EXACT, true, 0, odd[i][0], odd[i][1]};
        lks_sampler *sampler;
        CHECK_FAILS(lks_sampler_create(&config, &sampler), LKS_E_ARG, "is no place to go on from");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rest_of_an_epoch_is_done_by_hand),
        cmocka_unit_test(the_rate_goes_on_by_samples_seen),
        cmocka_unit_test(epochs_are_counted_as_they_were_seen),
        cmocka_unit_test(what_is_over_is_refused),
        cmocka_unit_test(json_keeps_the_origin),
        cmocka_unit_test(json_tells_what_an_epoch_is),
        cmocka_unit_test(the_table_tells_of_the_origin),
        cmocka_unit_test(runs_that_change_their_batch_use_every_sample_once),
        cmocka_unit_test(the_same_batch_makes_the_same_run),
        cmocka_unit_test(samplers_refuse_places_that_there_are_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
