/* SPDX-License-Identifier: Apache-2.0 */
/* Plan and training, side by side over a grid of configurations: what the plan says is what the trainer does,
 * field by field and step by step, and both are what a walk through the run says. */
#define _GNU_SOURCE
#include "train/plan_grid.h"

enum { N_DRAWN = 420, CLI_EVERY = 14 };

/* --- comparisons --- */

static void check_int(const char *what, int64_t actual, int64_t expected)
{
    if (actual != expected)
        fail_msg("%s: %s is %lld, expected %lld", shown, what, (long long)actual, (long long)expected);
}

/* A few roundings of numbers of at most `size`. */
static void check_near(const char *what, double actual, double expected, double size)
{
    if (!(fabs(actual - expected) <= 1e-14 * size))
        fail_msg("%s: %s is %.17g, expected %.17g", shown, what, actual, expected);
}

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value))
        fail_msg("%s: \"%s\" is no number", shown, key);
    return json_number_value(value);
}

/* Every key of the plan is in the other object, with the same value. */
static void check_contains(const char *what, const json_t *object, json_t *plan)
{
    const char *key;
    json_t *value;
    json_object_foreach(plan, key, value)
    {
        if (!json_equal(value, json_object_get(object, key)))
            fail_msg("%s: \"%s\" of the plan is another one in %s", shown, key, what);
    }
}

static void check_plan(const json_t *plan, const spec *s, const walk *w)
{
    const struct {
        const char *key;
        int64_t expected;
    } counts[] = {
        {"train_samples", s->n},
        {"processes", s->processes},
        {"world", s->world},
        {"local_batch", s->local},
        {"accumulate", s->accumulate},
        {"effective_batch", w->batch},
        {"leaves_per_process", s->world * s->accumulate / s->processes},
        {"samples_per_epoch", w->positions},
        {"steps_per_epoch", w->steps_per_epoch},
        {"last_step_samples", w->last_step},
        {"total_steps", w->total_steps},
        {"samples", w->samples},
        {"warmup_steps", w->warmup_steps},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        check_int(counts[i].key, (int64_t)number(plan, counts[i].key), counts[i].expected);
    double epochs = (double)w->samples / (double)w->positions;
    check_near("total_epochs", number(plan, "total_epochs"), epochs, epochs);
    check_near("base_lr", number(plan, "base_lr"), base_lr, base_lr);
    check_near("kappa", number(plan, "kappa"), w->kappa, w->kappa);
    check_near("scaled_lr", number(plan, "scaled_lr"), w->scaled_lr, w->scaled_lr);
    /* the whole number that is meant may be 1e-9 away in the walk */
    check_near("warmup_samples", number(plan, "warmup_samples"), w->warmup_samples, 1e5 * w->warmup_samples);
    if (s->rule == ADAM_SQRT) {
        check_near("beta1", number(plan, "beta1"), 1 - w->kappa * (1 - 0.9), 10);
        check_near("beta2", number(plan, "beta2"), 1 - w->kappa * (1 - 0.999), 10);
        check_near("epsilon", number(plan, "epsilon"), 1e-8 / sqrt(w->kappa), 1e-8);
    }
}

static void check_step(const json_t *line, const lks_plan *plan, const walk *before, const spec *s)
{
    double lr = next_lr(before, s), largest = fmax(base_lr, before->scaled_lr);
    check_int("step", (int64_t)number(line, "step"), before->step + 1);
    check_int("epoch of a step", (int64_t)number(line, "epoch"), before->epoch);
    check_int("samples of a step", (int64_t)number(line, "samples") - before->seen, next_samples(before));
    check_near("lr of a step", number(line, "lr"), lr,
               100 * largest); /* the start of what falls is rounded */
    if (number(line, "lr") != lks_plan_lr(plan, (double)before->seen))
        fail_msg("%s: step %lld: the rate is not the plan's", shown, (long long)before->step + 1);
}

static json_t *next_line(FILE *file)
{
    char line[1024];
    return fgets(line, sizeof line, file) == NULL ? NULL : json_loads(line, 0, NULL);
}

/* The plan counts full steps; each short one at the end of an epoch can make it one more. */
static void check_warm_steps(const walk *w, int64_t taken, int64_t n_short)
{
    int64_t least = w->warmup_steps < w->total_steps ? w->warmup_steps : w->total_steps;
    if (taken < least || taken > w->warmup_steps + n_short)
        fail_msg("%s: the warm-up takes %lld steps, %lld of them short, expected %lld", shown,
                 (long long)taken, (long long)n_short, (long long)w->warmup_steps);
}

/* All lines of the run's metrics.jsonl, in the order of the walk. */
static void check_metrics(const lks_plan *plan, walk w, const spec *s)
{
    FILE *file = fopen(in_temp_folder("run/metrics.jsonl"), "r");
    assert_non_null(file);
    int64_t warm_steps = 0, short_steps = 0; /* of the warm-up */
    while (w.step < w.total_steps) {
        int64_t epoch = w.epoch;
        json_t *line = next_line(file);
        assert_non_null(line);
        check_step(line, plan, &w, s);
        json_decref(line);
        bool warm = (double)w.seen < w.warmup_samples;
        warm_steps += warm;
        short_steps += warm && next_samples(&w) < w.batch;
        advance(&w);
        if (w.epoch == epoch && w.step < w.total_steps)
            continue;
        line = next_line(file);
        assert_non_null(line);
        check_int("step of an epoch's line", (int64_t)number(line, "step"), w.step);
        check_int("epoch of an epoch's line", (int64_t)number(line, "epoch"), epoch);
        check_int("samples of an epoch", (int64_t)number(line, "epoch_samples"),
                  w.epoch == epoch ? w.in_epoch : w.positions);
        json_decref(line);
    }
    check_int("lines after the end", next_line(file) != NULL, 0);
    check_int("samples in all", w.seen, w.samples);
    check_warm_steps(&w, warm_steps, short_steps);
    fclose(file);
}

/* What `lockstep train --json` prints for the member. */
static json_t *result_json(const member *m)
{
    char *text;
    CHECK_OK(lks_train_result_to_json(&m->result, &m->plan, 1, &text));
    return parse(text);
}

static void check_run(const member *m, const lks_plan *plan, const spec *s)
{
    walk w = walk_of(s);
    json_t *planned = plan_json(plan), *printed = result_json(m);
    json_t *stored = json_load_file(in_temp_folder("run/plan.json"), 0, NULL);
    assert_non_null(stored);
    check_plan(planned, s, &w);
    check_contains("the result", printed, planned);
    check_contains("the run directory", stored, planned);
    check_contains("the plan", planned, stored);
    check_int("steps taken", (int64_t)number(printed, "steps"), w.total_steps);
    double epochs = (double)w.samples / (double)w.positions;
    check_near("epochs", number(printed, "epochs"), epochs, epochs);
    check_metrics(plan, w, s);
    json_decref(stored);
    json_decref(printed);
    json_decref(planned);
}

/* The same, of the program's two commands. */
static json_t *run_command(const char *command, const overrides *o, const char *more)
{
    char line[4096], *text = calloc(1, 1 << 16);
    int length = snprintf(line, sizeof line, "'%s' %s examples/digits.yaml --json %s",
                          getenv("LOCKSTEP_BINARY"), command, more);
    for (int i = 0; i < o->n; i++)
        length += snprintf(line + length, sizeof line - (size_t)length, " '%s'", o->list[i]);
    snprintf(line + length, sizeof line - (size_t)length, " 2>/dev/null");
    FILE *output = popen(line, "r");
    assert_non_null(output);
    assert_non_null(text);
    (void)!fread(text, 1, (1 << 16) - 1, output);
    if (pclose(output) != 0)
        fail_msg("%s fails", line);
    return parse(text);
}

static void check_commands(const overrides *o, const lks_plan *plan, const spec *s)
{
    char processes[32], more[64];
    snprintf(processes, sizeof processes, "-n %lld", (long long)s->processes);
    snprintf(more, sizeof more, "%s --overwrite", processes);
    json_t *planned = plan_json(plan), *printed = run_command("plan", o, processes),
           *trained = run_command("train", o, more);
    check_contains("`lockstep plan`", printed, planned);
    check_contains("`lockstep train`", trained, printed);
    check_metrics(plan, walk_of(s), s);
    json_decref(trained);
    json_decref(printed);
    json_decref(planned);
}

/* --- the grid --- */

/* How often the grid had what it is for. */
static struct {
    int runs, refused, uneven_world, one_sample_last, empty_leaves, world_is_n, never_full, rounding, warm;
    int optimizers[OPTIMIZERS], tails[3], lengths[3], rules[RULES], warmups[4], schedules[7], given[N_GIVEN];
} seen;

static void count(const spec *s, const lks_plan *plan)
{
    seen.runs++;
    seen.uneven_world += s->n % s->world != 0;
    seen.one_sample_last += plan->last_step_samples == 1;
    seen.empty_leaves += plan->last_step_samples < plan->leaves;
    seen.world_is_n += s->world == s->n;
    seen.never_full += plan->global_batch > s->n;
    seen.rounding += !plan->same_bits;
    seen.warm += plan->warmup_steps > 0;
    seen.optimizers[s->optimizer]++;
    seen.tails[s->tail]++;
    seen.lengths[s->length]++;
    seen.rules[s->rule]++;
    seen.warmups[s->warmup]++;
    seen.schedules[s->schedule]++;
    seen.given[s->given]++;
}

/* What the plan refuses, training refuses with the same words. */
static void check_refused(const lks_config *config, const spec *s, lks_status status)
{
    static member members[MAX_MEMBERS];
    char message[1024];
    snprintf(message, sizeof message, "%s", lks_error_message());
    if (!is_refused(s))
        fail_msg("%s is refused: %s", shown, message);
    check_int("the status", status, LKS_E_ARG);
    train(config, (int)s->processes, members);
    check_int("the trainer's status", members[0].seat.status, LKS_E_ARG);
    if (strcmp(members[0].seat.message, message) != 0)
        fail_msg("%s: the plan says \"%s\", training \"%s\"", shown, message, members[0].seat.message);
    seen.refused++;
}

static void check_spec(const spec *s, bool with_commands)
{
    static member members[MAX_MEMBERS];
    lks_config *config;
    lks_plan plan;
    overrides o = overrides_of(s);
    config = load_config(s, &o);
    lks_status status = lks_train_plan(config, (int)s->processes, &plan);
    if (status != LKS_OK) {
        check_refused(config, s, status);
    } else {
        check_int("refused", is_refused(s), false);
        train_well(config, (int)s->processes, members);
        check_run(&members[0], &plan, s);
        count(s, &plan);
        if (with_commands)
            check_commands(&o, &plan, s);
    }
    lks_config_destroy(config);
}

/* What a drawn grid might miss: each has something that goes wrong easily. */
static void corners_are_trained_as_planned(void **state)
{
    (void)state;
    const spec plain = {.n = 33,
                        .processes = 1,
                        .world = 1,
                        .local = 4,
                        .accumulate = 1,
                        .given = 1,
                        .amount = 3,
                        .reference = 4,
                        .warmup_epochs = 1,
                        .rule = LINEAR};
    for (tail_kind tail = EXACT; tail <= PAD; tail++)
        for (int64_t processes = 1; processes <= 6; processes++) {
            spec s = plain;
            s.tail = tail;
            s.processes = s.world = processes;
            s.n = 4 * processes * 3 + 1; /* a last step of one sample, all other leaves of it empty */
            check_spec(&s, false);
            s.n = processes; /* a sample for each worker: one step is an epoch */
            s.local = 1;
            check_spec(&s, false);
            s.local = 4; /* and never a full one */
            check_spec(&s, false);
            s.n = 29;
            s.accumulate = 3;
            s.schedule = COSINE;
            check_spec(&s, false);
        }
}

static void drawn_configurations_are_trained_as_planned(void **state)
{
    (void)state;
    for (int i = 0; i < N_DRAWN; i++) {
        spec s = draw_spec();
        check_spec(&s, !is_refused(&s) && i % CLI_EVERY == 0);
    }
}

/* --- a run whose length is measured --- */

/* A step's rate is its gain times the plan's, and its gain moves the schedule's clock. Returns the steps. */
static int64_t follow_gains(const lks_plan *plan, double *clock)
{
    FILE *file = fopen(in_temp_folder("run/metrics.jsonl"), "r");
    int64_t steps = 0;
    assert_non_null(file);
    for (json_t *line; (line = next_line(file)) != NULL; json_decref(line)) {
        if (json_object_get(line, "gain") == NULL)
            continue; /* of an epoch */
        double gain = number(line, "gain"), lr = gain * lks_plan_lr(plan, *clock);
        check_near("lr of a step", number(line, "lr"), lr, lr);
        if (*clock >= (double)plan->samples)
            fail_msg("%s: a step after the end", shown);
        *clock += gain * (double)plan->reference_batch;
        steps++;
    }
    fclose(file);
    return steps;
}

/* A gain is at most 1, or the step's samples over the reference batch where that is more. */
static int64_t fewest_steps(const walk *w, const spec *s)
{
    int64_t most = w->batch > s->reference ? w->batch : s->reference;
    return (w->samples + most - 1) / most;
}

/* No fewer steps than the largest gains allow, no more than the plan's bound, and as many as the gains make.
 */
static void check_measured_length(const spec *s, const lks_config *config)
{
    static member members[MAX_MEMBERS];
    lks_plan plan;
    double clock = 0;
    CHECK_OK(lks_train_plan(config, (int)s->processes, &plan));
    train_well(config, (int)s->processes, members);
    json_t *planned = plan_json(&plan), *printed = result_json(&members[0]);
    check_contains("the result", printed, planned);
    assert_true(json_is_true(json_object_get(planned, "total_steps_is_bound")));
    walk w = walk_of(s);
    int64_t steps = (int64_t)number(printed, "steps"), bound = (int64_t)number(planned, "total_steps");
    check_int("steps that are logged", follow_gains(&plan, &clock), steps);
    check_int("samples of the schedule", (int64_t)number(planned, "samples"), w.samples);
    if (steps < fewest_steps(&w, s) || steps > bound)
        fail_msg("%s: %lld steps, at least %lld and at most %lld were expected", shown, (long long)steps,
                 (long long)fewest_steps(&w, s), (long long)bound);
    if (clock < (double)w.samples && steps < bound)
        fail_msg("%s: the run ends at %g of %lld samples", shown, clock, (long long)w.samples);
    json_decref(printed);
    json_decref(planned);
}

static void runs_of_adascale_end_within_their_bound(void **state)
{
    (void)state;
    for (int runs = 0; runs < 30;) {
        spec s = draw_spec();
        s.rule = NONE;
        s.optimizer = SGD;
        s.reference = s.local * PICK(1, 1, 2, 5);
        if (is_refused(&s) || s.world * s.accumulate < 2 || s.length == STEPS)
            continue;
        overrides o = overrides_of(&s);
        add(&o, "lr.rule=adascale");
        lks_config *config = load_config(&s, &o);
        check_measured_length(&s, config);
        lks_config_destroy(config);
        runs++;
    }
}

static void check_seen(const char *what, int n, const int *counts)
{
    for (int i = 0; i < n; i++)
        if (counts[i] < 10)
            fail_msg("only %d runs with %s %d", counts[i], what, i);
}

static void the_grid_has_everything(void **state)
{
    (void)state;
    const int counts[] = {seen.refused,    seen.uneven_world, seen.one_sample_last, seen.empty_leaves,
                          seen.world_is_n, seen.never_full,   seen.rounding,        seen.warm};
    printf("%d runs, %d refused\n", seen.runs, seen.refused);
    assert_true(seen.runs >= 300);
    check_seen("corner", sizeof counts / sizeof counts[0], counts);
    check_seen("optimizer", OPTIMIZERS, seen.optimizers);
    check_seen("tail", 3, seen.tails);
    check_seen("length", 3, seen.lengths);
    check_seen("rule", RULES, seen.rules);
    check_seen("warm-up", 4, seen.warmups);
    check_seen("schedule", 7, seen.schedules);
    check_seen("set of the batch", N_GIVEN, seen.given);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(corners_are_trained_as_planned),
        cmocka_unit_test(drawn_configurations_are_trained_as_planned),
        cmocka_unit_test(runs_of_adascale_end_within_their_bound),
        cmocka_unit_test(the_grid_has_everything),
    };
    return cmocka_run_group_tests(tests, make_temp_folder, remove_temp_folder);
}
