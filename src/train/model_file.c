/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"
#include "plan/epoch.h"
#include "plan/plan_config.h"
#include "record/checksum.h"
#include "record/metrics_file.h"
#include "record/safetensors.h"
#include "train/checkpoint_rules.h"
#include "train/trainer.h"

static bool is_param(const lks_trainer *t, const char *name)
{
    for (int i = 0; i < lks__network_n_params(t->network); i++)
        if (strcmp(lks__network_param(t->network, i)->name, name) == 0)
            return true;
    return false;
}

/* A checkpoint's optimizer state is passed over; any other tensor that the model does not have belongs to
 * another. */
static lks_status check_names(const lks_trainer *t, const lks__safetensors *file, const char *path)
{
    for (int i = 0; i < lks__safetensors_n_tensors(file); i++) {
        const char *name = lks__safetensors_name(file, i);
        if (strncmp(name, LKS__OPTIMIZER_PREFIX, strlen(LKS__OPTIMIZER_PREFIX)) != 0 && !is_param(t, name))
            return lks__fail(LKS_E_FORMAT, "%s: tensor \"%s\" is no parameter of this model", path, name);
    }
    return LKS_OK;
}

enum { NAME_BYTES = LKS__PARAM_NAME_BYTES + 64 };

/* Set 0 is the parameters, set s > 0 the optimizer's state s - 1. */
static void tensor_name(const lks_trainer *t, int set, const char *param, char out[NAME_BYTES])
{
    if (set == 0)
        snprintf(out, NAME_BYTES, "%s", param);
    else
        snprintf(out, NAME_BYTES, LKS__OPTIMIZER_PREFIX "%s.%s",
                 lks__optim_state_name(&t->config.optimizer, set - 1), param);
}

static float *arena_of(const lks_trainer *t, int set)
{
    return set == 0 ? t->params : t->states[set - 1];
}

static lks_status import_set(lks_trainer *t, const lks__safetensors *file, int set)
{
    lks_status status = LKS_OK;
    for (int i = 0; status == LKS_OK && i < lks__network_n_params(t->network); i++) {
        const lks__param *param = lks__network_param(t->network, i);
        char name[NAME_BYTES];
        tensor_name(t, set, param->name, name);
        status = lks__safetensors_read(file, name, param->n_dims, param->shape, t->plain);
        if (status == LKS_OK)
            status = lks__network_import(t->network, i, t->plain, arena_of(t, set));
    }
    return status;
}

lks_status lks__model_open(const char *path, lks__safetensors **out)
{
    lks_status status = lks__safetensors_open(path, out);
    /* a checkpoint has a checksum, or is damaged */
    if (status == LKS_OK && (lks__safetensors_metadata(*out, LKS__CHECKSUM_KEY) != NULL ||
                             lks__safetensors_metadata(*out, LKS__CHECKPOINT_FORMAT_KEY) != NULL))
        status = lks__safetensors_verify(*out);
    if (status != LKS_OK) {
        lks__safetensors_close(*out);
        *out = NULL;
    }
    return status;
}

static lks_status import_file(lks_trainer *t, const char *path)
{
    lks__safetensors *file;
    lks_status status = lks__model_open(path, &file);
    if (status == LKS_OK)
        status = import_set(t, file, 0);
    if (status == LKS_OK)
        status = check_names(t, file, path);
    lks__safetensors_close(file);
    return status;
}

lks_status lks__params_init(lks_trainer *t)
{
    /* also with a file: this is what sets the padding */
    lks_status status = lks__network_init_params(t->network, t->config.seed, t->params);
    if (status == LKS_OK && t->config.init_path != NULL)
        status = import_file(t, t->config.init_path);
    return status;
}

lks_status lks__params_hash(lks_trainer *t, uint64_t *out)
{
    XXH64_state_t *hash = XXH64_createState();
    if (hash == NULL)
        return lks__fail(LKS_E_NOMEM, "out of memory");
    XXH64_reset(hash, 0);
    lks_status status = LKS_OK;
    for (int i = 0; status == LKS_OK && i < lks__network_n_params(t->network); i++) {
        status = lks__network_export(t->network, i, t->params, t->plain);
        XXH64_update(hash, t->plain, (size_t)lks__network_param(t->network, i)->n_elems * sizeof(float));
    }
    if (status == LKS_OK)
        *out = XXH64_digest(hash);
    XXH64_freeState(hash);
    return status;
}

/* A file's tensors: parameters, and behind them the optimizer's states as "optimizer.<state>.<parameter>". */
struct lks__snapshot {
    int n_params, n_tensors;
    lks__tensor_view *tensors; /* [n_tensors] */
    char (*names)[NAME_BYTES];
    float *data; /* all tensors in the plain layout, one behind the other */
    lks__position position;
};

void lks__snapshot_destroy(lks__snapshot *s)
{
    if (s == NULL)
        return;
    lks__free(s->tensors);
    lks__free(s->names);
    lks__free(s->data);
    lks__free(s);
}

/* Gives each tensor its name, its shape and its place. */
static void lay_out(lks__snapshot *s, const lks_trainer *t)
{
    float *data = s->data;
    for (int n = 0; n < s->n_tensors; n++) {
        const lks__param *param = lks__network_param(t->network, n % s->n_params);
        tensor_name(t, n / s->n_params, param->name, s->names[n]);
        s->tensors[n] = (lks__tensor_view){s->names[n], param->n_dims, param->shape, data};
        data += param->n_elems;
    }
}

lks_status lks__snapshot_create(const lks_trainer *t, lks__snapshot **out)
{
    *out = NULL;
    lks__snapshot *s = lks__alloc(sizeof *s, LKS__MEM_MISC);
    if (s == NULL)
        return LKS_E_NOMEM;
    int n_sets = 1 + lks__optim_n_states(&t->config.optimizer);
    int64_t elems = 0;
    s->n_params = lks__network_n_params(t->network);
    s->n_tensors = s->n_params * n_sets;
    for (int i = 0; i < s->n_params; i++)
        elems += lks__network_param(t->network, i)->n_elems;
    s->tensors = lks__alloc_array(s->n_tensors, sizeof *s->tensors, LKS__MEM_MISC);
    s->names = lks__alloc_array(s->n_tensors, sizeof *s->names, LKS__MEM_MISC);
    s->data = lks__alloc_array(elems * n_sets, sizeof *s->data, LKS__MEM_CHECKPOINT);
    if (s->tensors == NULL || s->names == NULL || s->data == NULL) {
        lks__snapshot_destroy(s);
        return LKS_E_NOMEM;
    }
    lay_out(s, t);
    *out = s;
    return LKS_OK;
}

/* The first n tensors. */
static lks_status copy_tensors(lks__snapshot *s, const lks_trainer *t, int n)
{
    float *data = s->data;
    lks_status status = LKS_OK;
    for (int i = 0; status == LKS_OK && i < n; i++) {
        int param = i % s->n_params;
        status = lks__network_export(t->network, param, arena_of(t, i / s->n_params), data);
        data += lks__network_param(t->network, param)->n_elems;
    }
    return status;
}

lks_status lks__snapshot_take(lks__snapshot *s, const lks_trainer *t, const lks__position *position)
{
    s->position = *position;
    return copy_tensors(s, t, s->n_tensors);
}

int64_t lks__snapshot_step(const lks__snapshot *s)
{
    return s->position.step;
}

/* What a position has besides counts; written so that it reads back as the same double. */
static const struct {
    const char *key;
    size_t offset;
} reals[] = {
    {"epoch_loss_sum", offsetof(lks__position, epoch_loss_sum)},
    {"clock", offsetof(lks__position, clock)},
    {"gain_variance", offsetof(lks__position, gain.variance)},
    {"gain_norm2", offsetof(lks__position, gain.norm2)},
    {"epoch_skipped", offsetof(lks__position, epoch_skipped)},
    {"loss_mean", offsetof(lks__position, watch.loss.mean)},
    {"loss_variance", offsetof(lks__position, watch.loss.variance)},
    {"loss_weight", offsetof(lks__position, watch.loss.weight)},
    {"grad_norm_mean", offsetof(lks__position, watch.grad_norm.mean)},
    {"grad_norm_variance", offsetof(lks__position, watch.grad_norm.variance)},
    {"grad_norm_weight", offsetof(lks__position, watch.grad_norm.weight)},
    {"first_loss", offsetof(lks__position, watch.first_loss)},
    {"high_steps", offsetof(lks__position, watch.high_steps)},
    {"left_guess", offsetof(lks__position, watch.left_guess)},
    {"guess_steps", offsetof(lks__position, watch.guess_steps)},
    {"skipped_steps", offsetof(lks__position, watch.skipped_steps)},
};

/* Of the best value so far: its name, the value and the step; none of the three where there is none. */
#define BEST_KEY       "best"
#define BEST_VALUE_KEY "best_value"
#define BEST_STEP_KEY  "best_step"

enum {
    N_COUNTS = 6,
    N_REALS = sizeof reals / sizeof reals[0],
    N_NUMBERS = N_COUNTS + N_REALS,
    MAX_METADATA = N_NUMBERS + 6,
    NUMBER_BYTES = LKS__JSON_NUMBER_BYTES,
};

typedef struct description {
    int n;
    lks__metadata entries[MAX_METADATA];
    char texts[N_NUMBERS][NUMBER_BYTES];
    char best_value[NUMBER_BYTES], best_step[NUMBER_BYTES];
    char *plan; /* free() */
} description;

static void describe_best(description *d, const lks_trainer *t, const lks__best *best)
{
    if (best->step == 0)
        return;
    snprintf(d->best_step, sizeof d->best_step, "%" PRId64, best->step);
    d->entries[d->n++] = (lks__metadata){BEST_KEY, lks__checkpoint_watched(&t->config)};
    d->entries[d->n++] = (lks__metadata){BEST_VALUE_KEY, lks__json_number(best->value, d->best_value)};
    d->entries[d->n++] = (lks__metadata){BEST_STEP_KEY, d->best_step};
}

static lks_status describe(description *d, const lks_trainer *t, const lks__position *position)
{
    const struct {
        const char *key;
        int64_t value;
    } numbers[N_COUNTS] = {{"step", position->step},       {"epoch", position->epoch},
                           {"samples", position->samples}, {"epoch_samples", position->epoch_samples},
                           {"updates", position->updates}, {"seed", t->config.seed}};
    *d = (description){0};
    lks_status status = lks_plan_to_json(t->config.plan, &d->plan);
    if (status != LKS_OK)
        return status;
    d->entries[d->n++] = (lks__metadata){LKS__CHECKPOINT_FORMAT_KEY, LKS__CHECKPOINT_FORMAT};
    for (int i = 0; i < N_COUNTS; i++) {
        snprintf(d->texts[i], NUMBER_BYTES, "%" PRId64, numbers[i].value);
        d->entries[d->n++] = (lks__metadata){numbers[i].key, d->texts[i]};
    }
    for (int i = 0; i < N_REALS; i++) {
        const double *value = (const double *)((const char *)position + reals[i].offset);
        d->entries[d->n++] = (lks__metadata){reals[i].key, lks__json_number(*value, d->texts[N_COUNTS + i])};
    }
    describe_best(d, t, &position->best);
    d->entries[d->n++] = (lks__metadata){"plan", d->plan};
    if (t->config.config_yaml != NULL)
        d->entries[d->n++] = (lks__metadata){"config", t->config.config_yaml};
    return LKS_OK;
}

lks_status lks__params_save(lks_trainer *t, const char *path)
{
    lks__snapshot *s = t->snapshot;
    lks_status status = copy_tensors(s, t, s->n_params);
    if (status == LKS_OK)
        status = lks__safetensors_write(path, s->n_params, s->tensors, 0, NULL);
    return status;
}

lks_status lks__snapshot_write(const lks__snapshot *s, const lks_trainer *t, const char *path)
{
    description d;
    lks_status status = describe(&d, t, &s->position);
    if (status == LKS_OK)
        status = lks__safetensors_write_checked(path, s->n_tensors, s->tensors, d.n, d.entries);
    free(d.plan);
    return status;
}

static lks_status read_number(const lks__safetensors *file, const char *path, const char *key, int64_t *out)
{
    const char *text = lks__safetensors_metadata(file, key);
    if (text == NULL || !lks__parse_i64(text, out) || *out < 0)
        return lks__fail(LKS_E_FORMAT, "%s: its %s is no number", path, key);
    return LKS_OK;
}

static lks_status read_reals(const lks__safetensors *file, const char *path, lks__position *out)
{
    for (int i = 0; i < N_REALS; i++) {
        const char *text = lks__safetensors_metadata(file, reals[i].key);
        if (text == NULL || !lks__parse_f64(text, (double *)((char *)out + reals[i].offset)))
            return lks__fail(LKS_E_FORMAT, "%s: its %s is no number", path, reals[i].key);
    }
    return LKS_OK;
}

/* The best value before; of a run that watched something else, or nothing, there is none. */
static lks_status read_best(const lks_trainer *t, const lks__safetensors *file, lks__best *out)
{
    const char *path = t->config.resume_path, *name = lks__safetensors_metadata(file, BEST_KEY);
    const char *value = lks__safetensors_metadata(file, BEST_VALUE_KEY);
    lks__best best;
    *out = (lks__best){0};
    if (name == NULL || strcmp(name, lks__checkpoint_watched(&t->config)) != 0)
        return LKS_OK;
    lks_status status = read_number(file, path, BEST_STEP_KEY, &best.step);
    if (status == LKS_OK && (value == NULL || !lks__parse_f64(value, &best.value)))
        status = lks__fail(LKS_E_FORMAT, "%s: its " BEST_VALUE_KEY " is no number", path);
    if (status == LKS_OK)
        *out = best;
    return status;
}

/* The position that a run with another plan came to, from where this plan goes on; at the end of an epoch the
 * next one is the origin's. */
static bool is_origin(const lks_plan *plan, const lks__position *p)
{
    const lks_plan_origin *o = &plan->origin;
    bool within = p->epoch == o->epoch && p->epoch_samples == o->offset;
    bool between = p->epoch + 1 == o->epoch && o->offset == 0;
    return p->samples == o->samples && (within || between);
}

/* A position that a run with this plan comes to. Sets step_in_epoch. */
static bool is_reached(const lks_plan *plan, lks__position *p)
{
    if (p->epoch < plan->origin.epoch || p->epoch > lks__plan_last_epoch(plan))
        return false;
    p->step_in_epoch = p->step - lks__plan_steps_before(plan, p->epoch, 0);
    int64_t used = p->epoch == plan->origin.epoch ? plan->origin.offset : 0; /* of the epoch, before */
    if (p->step_in_epoch < 1 || p->step_in_epoch > lks_plan_steps_in_epoch(plan, p->epoch))
        return false;
    int64_t seen = lks__plan_samples_before(plan, p->epoch, p->step_in_epoch);
    return p->samples == seen &&
           p->epoch_samples == used + seen - lks__plan_samples_before(plan, p->epoch, 0);
}

/* The position of a run with this plan; what the file does not say follows from the plan. */
static lks_status read_position(const lks_trainer *t, const lks__safetensors *file, lks__position *out)
{
    const char *path = t->config.resume_path;
    const lks_plan *plan = t->config.plan;
    lks__position p = {0};
    lks_status status = read_number(file, path, "step", &p.step);
    if (status == LKS_OK)
        status = read_number(file, path, "epoch", &p.epoch);
    if (status == LKS_OK)
        status = read_number(file, path, "samples", &p.samples);
    if (status == LKS_OK)
        status = read_number(file, path, "epoch_samples", &p.epoch_samples);
    if (status == LKS_OK)
        status = read_number(file, path, "updates", &p.updates);
    if (status == LKS_OK)
        status = read_reals(file, path, &p);
    if (status != LKS_OK)
        return status;
    if (plan->lr_rule != LKS_LR_ADASCALE) /* also when the run has had a gain before */
        p.clock = (double)p.samples;
    bool known = p.step == plan->origin.step ? is_origin(plan, &p) : is_reached(plan, &p);
    bool possible = known && 0 < p.step && 0 < p.epoch_samples && p.clock > 0 && p.updates <= p.step &&
                    !lks__run_is_over(plan, &p);
    if (known && plan->lr_rule == LKS_LR_ADASCALE && p.clock > 0 && lks__run_is_over(plan, &p))
        return lks__fail(LKS_E_ARG,
                         "the run would be over: rule adascale has brought it %.0f samples ahead in %" PRId64
                         " steps; a longer one is needed",
                         p.clock, p.step);
    if (!possible)
        return lks__fail(LKS_E_FORMAT,
                         "%s: step %" PRId64 ", epoch %" PRId64 ", sample %" PRId64
                         " is no place in this run",
                         path, p.step, p.epoch, p.samples);
    *out = p;
    return LKS_OK;
}

static lks_status check_same_run(const lks_trainer *t, const lks__safetensors *file)
{
    const char *path = t->config.resume_path, *format, *plan;
    format = lks__safetensors_metadata(file, LKS__CHECKPOINT_FORMAT_KEY);
    plan = lks__safetensors_metadata(file, "plan");
    if (format == NULL || strcmp(format, LKS__CHECKPOINT_FORMAT) != 0 || plan == NULL)
        return lks__fail(LKS_E_FORMAT, "%s is no checkpoint of format " LKS__CHECKPOINT_FORMAT, path);
    int64_t seed, step;
    lks_status status = read_number(file, path, "seed", &seed);
    if (status == LKS_OK && seed != t->config.seed)
        status = lks__fail(LKS_E_ARG, "%s: seed is %" PRId64 "; this run has %" PRId64, path, seed,
                           t->config.seed);
    if (status == LKS_OK)
        status = read_number(file, path, "step", &step);
    if (status != LKS_OK)
        return status;
    /* a checkpoint with the plan itself is from after its origin */
    status = t->config.plan->origin.step == step ? lks__plan_check_data(t->config.plan, plan)
                                                 : lks__plan_check_same(t->config.plan, plan);
    return lks__error_prefix(status, "%s", path);
}

/* Everything that can be refused comes before the first value is set. */
static lks_status load(lks_trainer *t, const lks__safetensors *file)
{
    lks__position start;
    lks_status status = lks__safetensors_verify(file);
    if (status == LKS_OK)
        status = check_same_run(t, file);
    if (status == LKS_OK)
        status = check_names(t, file, t->config.resume_path);
    if (status == LKS_OK)
        status = read_position(t, file, &start);
    if (status == LKS_OK)
        status = read_best(t, file, &start.best);
    for (int set = 0; status == LKS_OK && set <= lks__optim_n_states(&t->config.optimizer); set++)
        status = import_set(t, file, set);
    if (status == LKS_OK)
        t->start = start;
    return status;
}

lks_status lks__checkpoint_look(const lks_trainer *t, const char *path, lks__position *out)
{
    lks__safetensors *file;
    lks__position p = {0};
    lks_status status = lks__safetensors_open(path, &file);
    if (status != LKS_OK)
        return status;
    status = lks__safetensors_verify(file);
    if (status == LKS_OK)
        status = check_names(t, file, path);
    if (status == LKS_OK)
        status = read_number(file, path, "step", &p.step);
    if (status == LKS_OK)
        status = read_number(file, path, "updates", &p.updates);
    if (status == LKS_OK)
        status = read_reals(file, path, &p);
    lks__safetensors_close(file);
    if (status == LKS_OK)
        *out = (lks__position){.step = p.step, .updates = p.updates, .gain = p.gain, .watch = p.watch};
    return status;
}

lks_status lks__checkpoint_load_values(lks_trainer *t, const char *path)
{
    lks__safetensors *file;
    lks_status status = lks__safetensors_open(path, &file);
    if (status != LKS_OK)
        return status;
    for (int set = 0; status == LKS_OK && set <= lks__optim_n_states(&t->config.optimizer); set++)
        status = import_set(t, file, set);
    lks__safetensors_close(file);
    return status;
}

lks_status lks__checkpoint_load(lks_trainer *t)
{
    lks__safetensors *file;
    /* this is what sets the padding */
    lks_status status = lks__network_init_params(t->network, t->config.seed, t->params);
    if (status == LKS_OK)
        status = lks__safetensors_open(t->config.resume_path, &file);
    if (status != LKS_OK)
        return status;
    status = load(t, file);
    lks__safetensors_close(file);
    return status;
}
