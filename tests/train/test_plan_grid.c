/* SPDX-License-Identifier: Apache-2.0 */
/* Plan and training, side by side over a grid of configurations: what the plan says is what the trainer does,
 * field by field and step by step, and both are what a walk through the run says. */
#define _GNU_SOURCE
#include "check.h"

#include <pthread.h>

#include <jansson.h>

#include <lockstep/lockstep.h>

#include "train/plan_grid_oracle.h"
#include "unit/temp_folder.h"

enum { MAX_MEMBERS = 6, MAX_OVERRIDES = 40, N_DRAWN = 420, CLI_EVERY = 14 };

/* --- configurations --- */

/* The sets that can state b, W, A and B. Without the world W is the number of processes, or follows. */
static const struct {
    bool local, world, accumulate, global;
} given_sets[] = {
    {true, true, false, false}, {true, true, true, false},  {true, true, false, true},
    {false, true, true, true},  {false, true, false, true}, {true, true, true, true},
    {true, false, true, true},
};

enum { N_GIVEN = sizeof given_sets / sizeof given_sets[0], ONLY_LOCAL = 0, ONLY_GLOBAL = 4 };

static uint32_t random_state = 1;

static int64_t draw(int64_t n)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (int64_t)(random_state >> 8) % n;
}

#define PICK(...)                                                                                            \
    ((const int64_t[]){__VA_ARGS__}[draw(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))])

static int64_t draw_amount(const spec *s)
{
    return s->length == EPOCHS ? 1 + draw(5) : s->length == STEPS ? 1 + draw(40) : 1 + draw(4 * s->n);
}

static spec draw_spec(void)
{
    static const double warmups[] = {0, 0.07, 0.5, 1, 2.5, 40};
    spec s = {.n = PICK(1, 5, 16, 17, 33, 50, 61, 64, 97, 100),
              .processes = PICK(1, 1, 2, 3, 4),
              .local = PICK(1, 2, 3, 4, 8),
              .accumulate = PICK(1, 2, 3),
              .given = (int)draw(N_GIVEN),
              .tail = (tail_kind)draw(3),
              .length = (length_kind)draw(3),
              .rule = (rule_kind)draw(RULES),
              .warmup = (warmup_kind)draw(4),
              .warmup_epochs = warmups[draw(sizeof warmups / sizeof warmups[0])],
              .schedule = (schedule_kind)draw(7),
              .adam = draw(3) == 0,
              .sums = draw(6) == 0};
    s.world = s.processes * PICK(1, 1, 2, 3, 4);
    if (s.given == ONLY_LOCAL || s.given == ONLY_GLOBAL)
        s.accumulate = 1;
    s.amount = draw_amount(&s);
    s.adam = s.adam || s.rule == ADAM_SQRT;
    s.reference = PICK(1, 2, 6, 8, 16, 32);
    if (s.rule == NONE && draw(2) == 0)
        s.reference = 0;
    return s;
}

typedef struct overrides {
    int n;
    char text[MAX_OVERRIDES][64];
    const char *list[MAX_OVERRIDES];
} overrides;

static void add(overrides *o, const char *format, ...) LKS_PRINTF(2, 3);

static void add(overrides *o, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(o->text[o->n], sizeof o->text[0], format, args);
    va_end(args);
    o->list[o->n] = o->text[o->n];
    o->n++;
}

static void add_batch(overrides *o, const spec *s)
{
    add(o, "batch.local=auto");
    if (given_sets[s->given].local)
        add(o, "batch.local=%lld", (long long)s->local);
    if (given_sets[s->given].world)
        add(o, "world=%lld", (long long)s->world);
    if (given_sets[s->given].accumulate)
        add(o, "batch.accumulate=%lld", (long long)s->accumulate);
    if (given_sets[s->given].global)
        add(o, "batch.global=%lld", (long long)(s->local * s->world * s->accumulate));
}

static void add_rate(overrides *o, const spec *s)
{
    static const char *const rules[] = {"none", "linear", "sqrt", "adam-sqrt", "legw"};
    static const char *const warmups[] = {"gradual", "gradual", "constant", "none"};
    add(o, "optimizer.kind=%s", s->adam ? "adam" : "sgd");
    add(o, "optimizer.momentum=auto");
    add(o, "optimizer.lr=%.15g", base_lr);
    add(o, "lr.rule=%s", rules[s->rule]);
    add(o, "lr.reference_batch=auto");
    if (s->reference > 0)
        add(o, "lr.reference_batch=%lld", (long long)s->reference);
    add(o, "lr.warmup=%s", warmups[s->warmup]);
    add(o, "lr.warmup_epochs=auto");
    if (s->warmup != NO_WARMUP)
        add(o, "lr.warmup_epochs=%.15g", s->warmup_epochs);
    if (s->warmup == GRADUAL_FROM_ZERO)
        add(o, "lr.warmup_from=0");
}

static void add_schedule(overrides *o, const spec *s)
{
    static const char *const schedules[] = {"constant", "cosine",    "linear",     "polynomial",
                                            "step",     "multistep", "exponential"};
    add(o, "lr.schedule=%s", schedules[s->schedule]);
    if (s->schedule == COSINE || s->schedule == LINEAR_FALL)
        add(o, "lr.end_factor=%.15g", end_factor);
    if (s->schedule == POLYNOMIAL)
        add(o, "lr.power=%.15g", power);
    if (s->schedule >= STEP)
        add(o, "lr.gamma=%.15g", gamma_factor);
    if (s->schedule == STEP)
        add(o, "lr.step_epochs=%d", STEP_EPOCHS);
    if (s->schedule == MULTISTEP)
        add(o, "lr.milestones=[%d,%d]", MILESTONE_1, MILESTONE_2);
}

static overrides overrides_of(const spec *s)
{
    static const char *const tails[] = {"exact", "drop", "pad"}, *const lengths[] = {"epochs", "steps",
                                                                                     "samples"};
    overrides o = {0};
    add(&o, "model.hidden=[3]");
    add(&o, "metrics.every_steps=1");
    add(&o, "data.limit=%lld", (long long)s->n);
    add(&o, "data.tail=%s", tails[s->tail]);
    add(&o, "reduction=%s", s->sums ? "sum" : "mean");
    add(&o, "epochs=auto");
    add(&o, "%s=%lld", lengths[s->length], (long long)s->amount);
    add(&o, "output=%s/run", temp_folder);
    add_batch(&o, s);
    add_rate(&o, s);
    add_schedule(&o, s);
    for (int i = 0; i < o.n; i++)
        o.list[i] = o.text[i];
    return o;
}

/* --- a run --- */

typedef struct member {
    const lks_config *config;
    lks_group *group;
    lks_plan plan; /* the one that it trained by */
    lks_train_result result;
    lks_status status;
    char message[1024];
} member;

static void keep_plan(void *context, const lks_plan *plan)
{
    member *m = context;
    m->plan = *plan;
}

static void *member_main(void *argument)
{
    member *m = argument;
    lks_train_options options = {.overwrite = true, .started = keep_plan, .context = m};
    m->status = lks_train(m->config, m->group, &options, &m->result);
    if (m->status != LKS_OK)
        snprintf(m->message, sizeof m->message, "%s", lks_error_message());
    lks_group_destroy(m->group);
    return NULL;
}

static void train(const lks_config *config, int processes, member members[MAX_MEMBERS])
{
    lks_group *groups[MAX_MEMBERS];
    pthread_t threads[MAX_MEMBERS];
    CHECK_OK(lks_group_create_threads(processes, 60, groups));
    for (int i = 0; i < processes; i++) {
        members[i] = (member){.config = config, .group = groups[i]};
        CHECK_INT(pthread_create(&threads[i], NULL, member_main, &members[i]), 0);
    }
    for (int i = 0; i < processes; i++)
        pthread_join(threads[i], NULL);
}

static json_t *parse(char *text)
{
    json_error_t error;
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (object == NULL)
        fail_msg("line %d: %s in %s", error.line, error.text, text);
    free(text);
    return object;
}

static json_t *plan_json(const lks_plan *plan)
{
    char *text;
    CHECK_OK(lks_plan_to_json(plan, &text));
    return parse(text);
}

/* --- comparisons --- */

static char shown[MAX_OVERRIDES * 64 + 64]; /* the configuration at work, for messages */

static void show(const spec *s, const overrides *o)
{
    int length = snprintf(shown, sizeof shown, "-n %lld", (long long)s->processes);
    for (int i = 0; i < o->n; i++)
        length += snprintf(shown + length, sizeof shown - (size_t)length, " %s", o->list[i]);
}

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
    int tails[3], lengths[3], rules[RULES], warmups[4], schedules[7], given[N_GIVEN];
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
    check_int("the trainer's status", members[0].status, LKS_E_ARG);
    if (strcmp(members[0].message, message) != 0)
        fail_msg("%s: the plan says \"%s\", training \"%s\"", shown, message, members[0].message);
    seen.refused++;
}

static void check_spec(const spec *s, bool with_commands)
{
    static member members[MAX_MEMBERS];
    lks_config *config;
    lks_plan plan;
    overrides o = overrides_of(s);
    for (int i = 0; i < o.n; i++)
        o.list[i] = o.text[i];
    show(s, &o);
    lks_status status = lks_config_load("examples/digits.yaml", o.n, o.list, &config);
    if (status != LKS_OK)
        fail_msg("%s: %s", shown, lks_error_message());
    status = lks_train_plan(config, (int)s->processes, &plan);
    if (status != LKS_OK) {
        check_refused(config, s, status);
    } else {
        check_int("refused", is_refused(s), false);
        train(config, (int)s->processes, members);
        for (int i = 0; i < s->processes; i++)
            if (members[i].status != LKS_OK)
                fail_msg("%s: member %d: %s", shown, i, members[i].message);
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
        cmocka_unit_test(the_grid_has_everything),
    };
    return cmocka_run_group_tests(tests, make_temp_folder, remove_temp_folder);
}
