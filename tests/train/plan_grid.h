/* SPDX-License-Identifier: Apache-2.0 */
/** Configurations of a grid, as specifications and as overrides of examples/digits.yaml, and their runs on
 * members that are threads. */
#ifndef LKS_TESTS_PLAN_GRID_H
#define LKS_TESTS_PLAN_GRID_H

#include "thread_members.h"

#include <jansson.h>

#include <lockstep/lockstep.h>

#include "train/plan_grid_oracle.h"
#include "unit/temp_folder.h"

enum { MAX_OVERRIDES = 40 };

static char shown[MAX_OVERRIDES * 64 + 64]; /* the configuration at work, for messages */

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
              .optimizer = (optimizer_kind)draw(OPTIMIZERS),
              .sums = draw(6) == 0};
    s.world = s.processes * PICK(1, 1, 2, 3, 4);
    if (s.given == ONLY_LOCAL || s.given == ONLY_GLOBAL)
        s.accumulate = 1;
    s.amount = draw_amount(&s);
    if (s.rule == ADAM_SQRT)
        s.optimizer = ADAM + (optimizer_kind)draw(2);
    s.reference = PICK(1, 2, 6, 8, 16, 32);
    if (s.rule == NONE && draw(2) == 0)
        s.reference = 0;
    return s;
}

typedef struct overrides {
    int n;
    char text[MAX_OVERRIDES][64];
    const char *list[MAX_OVERRIDES]; /* set by load_config */
} overrides;

static void add(overrides *o, const char *format, ...) LKS_PRINTF(2, 3);

static void add(overrides *o, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(o->text[o->n], sizeof o->text[0], format, args);
    va_end(args);
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
    static const char *const optimizers[] = {"sgd", "lars", "adam", "adamw", "lamb"};
    static const char *const rules[] = {"none", "linear", "sqrt", "adam-sqrt", "legw"};
    static const char *const warmups[] = {"gradual", "gradual", "constant", "none"};
    add(o, "optimizer.kind=%s", optimizers[s->optimizer]);
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
    return o;
}

static lks_config *load_config(const spec *s, overrides *o)
{
    int length = snprintf(shown, sizeof shown, "-n %lld", (long long)s->processes);
    for (int i = 0; i < o->n; i++) {
        o->list[i] = o->text[i];
        length += snprintf(shown + length, sizeof shown - (size_t)length, " %s", o->text[i]);
    }
    lks_config *config;
    if (lks_config_load("examples/digits.yaml", o->n, o->list, &config) != LKS_OK)
        fail_msg("%s: %s", shown, lks_error_message());
    return config;
}

/* --- a run --- */

typedef struct member {
    seat seat;
    const lks_config *config;
    lks_plan plan; /* the one that it trained by */
    lks_train_result result;
} member;

static void keep_plan(void *context, const lks_plan *plan)
{
    member *m = context;
    m->plan = *plan;
}

static lks_status train_member(void *self)
{
    member *m = self;
    lks_train_options options = {.overwrite = true, .started = keep_plan, .context = m};
    return lks_train(m->config, m->seat.group, &options, &m->result);
}

static void train(const lks_config *config, int processes, member members[MAX_MEMBERS])
{
    for (int i = 0; i < processes; i++)
        members[i] = (member){.config = config};
    run_members(processes, train_member, sizeof *members, members);
}

static void train_well(const lks_config *config, int processes, member members[MAX_MEMBERS])
{
    train(config, processes, members);
    for (int i = 0; i < processes; i++)
        if (members[i].seat.status != LKS_OK)
            fail_msg("%s: member %d: %s", shown, i, members[i].seat.message);
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

#endif
