/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/options.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"

#define FIELD(name)     .offset = offsetof(lks__settings, name)
#define INT(name)       .type = LKS__OPTION_INT, FIELD(name)
#define COUNT(name)     INT(name), .range = {.min = 1, .max = INFINITY}
#define FLOAT(name)     .type = LKS__OPTION_FLOAT, FIELD(name)
#define TEXT(name)      .type = LKS__OPTION_TEXT, FIELD(name)
#define BOOL(name)      .type = LKS__OPTION_BOOL, FIELD(name)
#define CHOICE(name, c) .type = LKS__OPTION_CHOICE, FIELD(name), .choices = (c)
#define INT_LIST(name, count)                                                                                \
    .type = LKS__OPTION_INT_LIST, FIELD(name), .count_offset = offsetof(lks__settings, count)

#define POSITIVE        .range = {.min = 0, .above_min = true, .max = INFINITY}
#define NOT_NEGATIVE    .range = {.min = 0, .max = INFINITY}
#define ABOVE_0_TO_1    .range = {.min = 0, .above_min = true, .max = 1}
#define FROM_0_BELOW_1  .range = {.min = 0, .max = 1, .below_max = true}
#define BETWEEN(lo, hi) .range = {.min = (lo), .max = (hi)}

#define AS_TEXT_(x) #x
#define AS_TEXT(x)  AS_TEXT_(x)

/* Settings that only some kinds have. */
#define OPTIMIZERS(bits) .of = "optimizer.kind", .kinds = (bits)
#define WARMUPS(bits)    .of = "lr.warmup", .kinds = (bits)
#define SCHEDULES(bits)  .of = "lr.schedule", .kinds = (bits)

#define DEFAULT_OF(kind, text) .other_kind = (kind), .other_default = (text)

enum {
    SGD = 1u << LKS_SGD,
    ADAM = 1u << LKS_ADAM,
    ADAMW = 1u << LKS_ADAMW,
    LARS = 1u << LKS_LARS,
    LAMB = 1u << LKS_LAMB,
    EVERY_OPTIMIZER = SGD | ADAM | ADAMW | LARS | LAMB,
};
enum { GRADUAL = 1u << LKS_WARMUP_GRADUAL, CONSTANT = 1u << LKS_WARMUP_CONSTANT };
enum {
    COSINE = 1u << LKS_SCHEDULE_COSINE,
    LINEAR = 1u << LKS_SCHEDULE_LINEAR,
    POLYNOMIAL = 1u << LKS_SCHEDULE_POLYNOMIAL,
    STEP = 1u << LKS_SCHEDULE_STEP,
    MULTISTEP = 1u << LKS_SCHEDULE_MULTISTEP,
    EXPONENTIAL = 1u << LKS_SCHEDULE_EXPONENTIAL,
};

static const lks__choice model_kinds[] = {{"mlp", LKS__MODEL_MLP}, {NULL, 0}};
static const lks__choice data_kinds[] = {{"mnist", LKS__DATA_MNIST}, {"idx", LKS__DATA_IDX}, {NULL, 0}};
static const lks__choice tails[] = {
    {"exact", LKS_TAIL_EXACT}, {"drop", LKS_TAIL_DROP}, {"pad", LKS_TAIL_PAD}, {NULL, 0}};
static const lks__choice reductions[] = {{"mean", LKS_REDUCTION_MEAN}, {"sum", LKS_REDUCTION_SUM}, {NULL, 0}};
static const lks__choice optimizers[] = {{"sgd", LKS_SGD},   {"adam", LKS_ADAM}, {"adamw", LKS_ADAMW},
                                         {"lars", LKS_LARS}, {"lamb", LKS_LAMB}, {NULL, 0}};
static const lks__choice rules[] = {{"none", LKS_LR_NONE},
                                    {"linear", LKS_LR_LINEAR},
                                    {"sqrt", LKS_LR_SQRT},
                                    {"adam-sqrt", LKS_LR_ADAM_SQRT},
                                    {"legw", LKS_LR_LEGW},
                                    {"adascale", LKS_LR_ADASCALE},
                                    {NULL, 0}};
static const lks__choice bests[] = {{"none", LKS_BEST_NONE},
                                    {"test_loss", LKS_BEST_TEST_LOSS},
                                    {"test_accuracy", LKS_BEST_TEST_ACCURACY},
                                    {"train_loss", LKS_BEST_TRAIN_LOSS},
                                    {NULL, 0}};
static const lks__choice warmups[] = {
    {"gradual", LKS_WARMUP_GRADUAL}, {"constant", LKS_WARMUP_CONSTANT}, {"none", LKS_WARMUP_NONE}, {NULL, 0}};
static const lks__choice warmup_froms[] = {
    {"reference", LKS_WARMUP_FROM_REFERENCE}, {"0", LKS_WARMUP_FROM_ZERO}, {NULL, 0}};
static const lks__choice schedules[] = {{"constant", LKS_SCHEDULE_CONSTANT},
                                        {"cosine", LKS_SCHEDULE_COSINE},
                                        {"linear", LKS_SCHEDULE_LINEAR},
                                        {"polynomial", LKS_SCHEDULE_POLYNOMIAL},
                                        {"step", LKS_SCHEDULE_STEP},
                                        {"multistep", LKS_SCHEDULE_MULTISTEP},
                                        {"exponential", LKS_SCHEDULE_EXPONENTIAL},
                                        {NULL, 0}};

static const lks__choice divergences[] = {{"stop", LKS_DIVERGENCE_STOP},
                                          {"skip", LKS_DIVERGENCE_SKIP},
                                          {"rollback", LKS_DIVERGENCE_ROLLBACK},
                                          {NULL, 0}};

/* Keys of a group stand together, and optimizer.kind before the settings whose defaults depend on it. */
/* clang-format off */
const lks__option lks__options[] = {
    {"name", TEXT(name), .default_doc = "the config file's name",
     .doc = "name of the run"},
    {"seed", INT(seed), BETWEEN(0, 4294967295.0), .default_text = "0",
     .doc = "seed of the initial parameters, of the order of samples (epoch e uses seed + e) and of dropout"},
    {"output", TEXT(output), .default_doc = "runs/NAME",
     .doc = "run directory"},
    {"threads", INT(threads), BETWEEN(1, 1024), .default_text = "1",
     .doc = "compute threads of each process"},

    {"model.kind", CHOICE(model_kind, model_kinds), .default_text = "mlp",
     .doc = "network; mlp: linear layers with ReLU between them"},
    {"model.hidden", INT_LIST(hidden, n_hidden), BETWEEN(1, 1e6), .default_text = "[512, 256]",
     .doc = "mlp: sizes of the hidden layers; [] for none"},
    {"model.dropout", FLOAT(dropout), FROM_0_BELOW_1, .default_text = "0",
     .doc = "mlp: probability with which training drops an element after each ReLU; above 0, layers are named "
            "as in PyTorch's Sequential with a Dropout behind each ReLU"},

    {"data.kind", CHOICE(data_kind, data_kinds), .default_text = "mnist",
     .doc = "mnist, idx: the four IDX files in data.path, plain or gzip, under the names that MNIST gives "
            "them"},
    {"data.path", TEXT(data_path), .default_doc = "must be set",
     .doc = "folder of the data set"},
    {"data.tail", CHOICE(tail, tails), .default_text = "exact",
     .doc = "end of an epoch; exact: the last step uses the samples that are left; drop: whole steps only; "
            "pad: samples are repeated up to a multiple of the world, as PyTorch's DistributedSampler does"},
    {"data.limit", COUNT(data_limit), .default_doc = "all", .unit = "samples",
     .doc = "only the first samples of the training set"},
    /* within these ranges 1 / (255 std) and mean / std are finite in f32 */
    {"data.normalize.mean", FLOAT(normalize_mean), .range = {.min = -1e6, .max = 1e6}, .default_text = "0",
     .doc = "inputs become (value - mean) / std, where a byte's value is byte / 255"},
    {"data.normalize.std", FLOAT(normalize_std), .range = {.min = 1e-30, .max = INFINITY}, .default_text = "1",
     .doc = "see data.normalize.mean"},

    {"world", COUNT(world), .default_doc = "from the batch, else as many as processes", .unit = "workers",
     .doc = "data-parallel replicas; a multiple of the number of processes, which share them out"},
    {"batch.local", COUNT(local_batch), .default_doc = "from the others", .unit = "samples",
     .doc = "local batch: samples of one forward and backward pass of a worker"},
    {"batch.accumulate", COUNT(accumulate), .default_doc = "from the others, else 1", .unit = "passes",
     .doc = "forward and backward passes that a worker adds up before a step"},
    {"batch.global", COUNT(global_batch), .default_doc = "from the others", .unit = "samples",
     .doc = "effective batch: samples of a step = batch.local x world x batch.accumulate"},

    {"epochs", COUNT(epochs), .default_doc = "not set", .unit = "epochs",
     .doc = "length of the run; exactly one of epochs, steps and samples is set"},
    {"steps", COUNT(steps), .default_doc = "not set", .unit = "steps",
     .doc = "length of the run in optimizer steps"},
    {"samples", COUNT(samples), .default_doc = "not set", .unit = "samples",
     .doc = "length of the run in samples, rounded up to a whole step"},

    {"reduction", CHOICE(reduction, reductions), .default_text = "mean",
     .doc = "gradient of a step; mean: over all its samples; sum: the sum of the means of local batches"},

    {"optimizer.kind", CHOICE(optimizer.kind, optimizers), .default_text = "sgd",
     .noun = "optimizer",
     .doc = "optimizer, with PyTorch's formulas; lars, lamb: those of You et al. 2017 and 2019, for very large batches"},
    {"optimizer.lr", FLOAT(base_lr), POSITIVE, .default_text = AS_TEXT(LKS__DEFAULT_LR),
     .doc = "base learning rate: the one that was tuned at lr.reference_batch"},
    {"optimizer.momentum", FLOAT(optimizer.momentum), FROM_0_BELOW_1, .default_text = "0",
     DEFAULT_OF(LKS_LARS, "0.9"), OPTIMIZERS(SGD | LARS),
     .doc = "momentum, in PyTorch's form: the rate stays outside the velocity"},
    {"optimizer.nesterov", BOOL(optimizer.nesterov), .default_text = "false",
     OPTIMIZERS(SGD), .doc = "Nesterov's momentum; needs optimizer.momentum > 0"},
    {"optimizer.weight_decay", FLOAT(optimizer.weight_decay), NOT_NEGATIVE, .default_text = "0",
     DEFAULT_OF(LKS_ADAMW, "0.01"), OPTIMIZERS(EVERY_OPTIMIZER),
     .doc = "weight decay; added to the gradient (sgd, adam, lars), decoupled from it (adamw), or added to Adam's "
            "direction before it is normalised (lamb)"},
    {"optimizer.beta1", FLOAT(optimizer.beta1), FROM_0_BELOW_1, .default_text = "0.9",
     OPTIMIZERS(ADAM | ADAMW | LAMB), .doc = "decay of the average of gradients"},
    {"optimizer.beta2", FLOAT(optimizer.beta2), FROM_0_BELOW_1, .default_text = "0.999",
     OPTIMIZERS(ADAM | ADAMW | LAMB), .doc = "decay of the average of squared gradients"},
    {"optimizer.epsilon", FLOAT(optimizer.epsilon), POSITIVE, .default_text = "1e-8",
     DEFAULT_OF(LKS_LAMB, "1e-6"), OPTIMIZERS(ADAM | ADAMW | LAMB), .doc = "added to the denominator"},
    {"optimizer.trust_coefficient", FLOAT(optimizer.trust_coefficient), POSITIVE, .default_text = "0.001",
     OPTIMIZERS(LARS),
     .doc = "a tensor's update is its gradient x this x the norm of its weights / the norm of its gradient"},
    {"optimizer.exclude_biases", BOOL(optimizer.exclude_biases), .default_text = "true",
     OPTIMIZERS(EVERY_OPTIMIZER),
     .doc = "tensors with fewer than two dimensions (biases, and scales and shifts of normalisations) get no weight "
            "decay, and with lars and lamb no trust ratio"},

    {"lr.rule", CHOICE(lr_rule, rules), .default_text = "none",
     .doc = "how the learning rate follows the effective batch, kappa = batch.global / lr.reference_batch; "
            "linear: x kappa; sqrt: x the square root of kappa; adam-sqrt: as sqrt, with beta1, beta2 and epsilon "
            "scaled too; legw: as sqrt, with lr.warmup_epochs x kappa; adascale: x a gain from 1 to "
            "kappa, measured in every step, by which the run also gets ahead"},
    {"lr.reference_batch", COUNT(reference_batch), .default_doc = "not set", .unit = "samples",
     .doc = "effective batch for which optimizer.lr was tuned; needed by every rule but none"},
    {"lr.warmup", CHOICE(warmup, warmups), .default_text = "gradual", .noun = "warm-up",
     .doc = "how the run comes to the scaled learning rate; gradual: with every step a little; constant: at "
            "optimizer.lr for the length of the warm-up, then at once; none: from the start"},
    {"lr.warmup_epochs", FLOAT(warmup_epochs), BETWEEN(0, 1e6), .default_text = "0", .unit = "epochs",
     WARMUPS(GRADUAL | CONSTANT), .doc = "length of the warm-up; may be a fraction"},
    {"lr.warmup_from", CHOICE(warmup_from, warmup_froms), .default_text = "reference",
     WARMUPS(GRADUAL), .doc = "where the warm-up starts; reference: at optimizer.lr; 0: at zero"},
    {"lr.schedule", CHOICE(schedule.kind, schedules), .default_text = "constant", .noun = "schedule",
     .doc = "how the learning rate falls, with the formulas of PyTorch's schedulers; cosine, linear, polynomial: "
            "from the end of the warm-up to the end of the run; step, multistep, exponential: after whole epochs, "
            "counted from the start of the run"},
    {"lr.end_factor", FLOAT(schedule.end_factor), BETWEEN(0, 1), .default_text = "0",
     SCHEDULES(COSINE | LINEAR), .doc = "what is left of the scaled learning rate at the end of the run"},
    {"lr.power", FLOAT(schedule.power), POSITIVE, .default_text = "1",
     SCHEDULES(POLYNOMIAL), .doc = "x (1 - progress) to this power"},
    {"lr.gamma", FLOAT(schedule.gamma), ABOVE_0_TO_1, .default_text = "0.1",
     SCHEDULES(STEP | MULTISTEP | EXPONENTIAL),
     .doc = "x gamma every lr.step_epochs (step), at lr.milestones (multistep), after every epoch (exponential, "
            "for which it must be set)"},
    {"lr.step_epochs", COUNT(schedule.step_epochs), .default_doc = "must be set", .unit = "epochs",
     SCHEDULES(STEP), .doc = "epochs between two falls"},
    {"lr.milestones", INT_LIST(schedule.milestones, schedule.n_milestones), BETWEEN(1, 1e6),
     .default_doc = "must be set", .unit = "epochs",
     SCHEDULES(MULTISTEP), .doc = "epochs after which the learning rate falls, in rising order"},

    {"clip.norm", FLOAT(clip_norm), NOT_NEGATIVE, .default_text = "0",
     .doc = "a gradient with a larger norm, over all parameters, is scaled down to this norm, as "
            "torch.nn.utils.clip_grad_norm_ does; 0: no clipping"},
    {"clip.value", FLOAT(clip_value), NOT_NEGATIVE, .default_text = "0",
     .doc = "the elements of the gradient are brought into -value .. value, before clip.norm; 0: no clipping"},
    {"on_divergence", CHOICE(on_divergence, divergences), .default_text = "stop",
     .doc = "when a loss or a gradient is not finite, or the run diverges; stop: the run fails and says why; skip: "
            "a step that is not finite is not taken; rollback: parameters and optimizer state go back to the last "
            "good checkpoint, and the samples since are passed over"},

    {"comm.timeout", FLOAT(comm_timeout_s), .range = {.min = 0.001, .max = 1e9},
     .default_text = "300", .unit = "seconds",
     .doc = "how long a process waits for another before it gives up"},
    {"comm.fast", BOOL(comm_fast), .default_text = "false",
     .doc = "between machines, gradients are added as the MPI library does it, in an order of its own: the bits of a run "
            "then depend on its machines"},
    {"comm.bucket_bytes", COUNT(bucket_bytes), .default_text = "262144", .unit = "bytes",
     .doc = "on several machines: gradients are sent as soon as backward has finished so many, or the first layer; "
            "a tensor is sent whole"},
    {"metrics.every_steps", COUNT(metrics_every_steps), .default_text = "10", .unit = "steps",
     .doc = "steps between two lines of metrics.jsonl"},
    {"hashes.every_steps", COUNT(hashes_every_steps), .default_text = "100", .unit = "steps",
     .doc = "steps between two entries of hashes.jsonl, besides the initial and the final parameters; `lockstep "
            "compare` finds where two runs part. On several machines their copies of the parameters are compared "
            "as often"},
    {"checkpoint.every_steps", COUNT(checkpoint_every_steps), .default_doc = "not set", .unit = "steps",
     .doc = "steps between two checkpoints, which --resume goes on from; a run that is stopped leaves one anyway"},
    {"checkpoint.every_seconds", FLOAT(checkpoint_every_seconds), BETWEEN(0, 1e9), .default_text = "0",
     .unit = "seconds", .doc = "time between two checkpoints, by the first process's clock; 0: not by time"},
    {"checkpoint.every_epochs", COUNT(checkpoint_every_epochs), .default_doc = "not set", .unit = "epochs",
     .doc = "epochs between two checkpoints, which are written after the epoch's evaluation"},
    {"checkpoint.keep", COUNT(checkpoint_keep), .default_text = "3",
     .doc = "how many of the newest checkpoints stay"},
    {"checkpoint.best", CHOICE(checkpoint_best, bests), .default_text = "none",
     .doc = "keeps besides, as checkpoints/best.safetensors, the state after the epoch with the smallest test "
            "loss, the largest test accuracy or the smallest training loss"},
};
/* clang-format on */

enum { N_OPTIONS = sizeof lks__options / sizeof lks__options[0] };
const int lks__n_options = N_OPTIONS;
_Static_assert((int)N_OPTIONS <= (int)LKS__MAX_OPTIONS, "arrays have a place for each option");

const lks__option *lks__option_find(const char *key)
{
    for (int i = 0; i < N_OPTIONS; i++)
        if (strcmp(lks__options[i].key, key) == 0)
            return &lks__options[i];
    return NULL;
}

const char *lks__option_word(const char *key, int value)
{
    for (const lks__choice *choice = lks__option_find(key)->choices; choice->name != NULL; choice++)
        if (choice->value == value)
            return choice->name;
    return "";
}

static bool is_in_group(const lks__option *option, const char *group)
{
    size_t length = strlen(group);
    return strncmp(option->key, group, length) == 0 && option->key[length] == '.';
}

bool lks__option_is_group(const char *name)
{
    for (int i = 0; i < N_OPTIONS; i++)
        if (is_in_group(&lks__options[i], name))
            return true;
    return false;
}

bool lks__option_is_of(const lks__option *option, const char *key)
{
    return option->of != NULL && strcmp(option->of, key) == 0;
}

bool lks__option_applies(const lks__option *option, const lks__settings *settings)
{
    if (option->of == NULL)
        return true;
    int chosen;
    memcpy(&chosen, (const char *)settings + lks__option_find(option->of)->offset, sizeof chosen);
    return (option->kinds & 1u << chosen) != 0;
}

const char *lks__option_default(const lks__option *option, lks_optimizer_kind kind)
{
    return option->other_default != NULL && kind == option->other_kind ? option->other_default
                                                                       : option->default_text;
}

/* The key that was probably meant: one that ends in ".<key>", else the nearest in spelling; NULL: none. */
static const char *meant(const char *key)
{
    const char *keys[N_OPTIONS];
    for (int i = 0; i < N_OPTIONS; i++) {
        keys[i] = lks__options[i].key;
        const char *last = strrchr(keys[i], '.');
        if (last != NULL && strcmp(last + 1, key) == 0)
            return keys[i];
    }
    int nearest = lks__nearest(key, N_OPTIONS, keys);
    return nearest < 0 ? NULL : keys[nearest];
}

lks_status lks__option_unknown(const char *key)
{
    char shown[LKS__SHOWN_BYTES];
    lks__shown(key, shown);
    if (lks__option_is_group(key)) {
        char keys[400] = "";
        for (int i = 0; i < N_OPTIONS; i++)
            if (is_in_group(&lks__options[i], key))
                lks__append(keys, sizeof keys, "%s%s", keys[0] == '\0' ? "" : ", ", lks__options[i].key);
        return lks__fail(LKS_E_ARG, "\"%s\" is a group of keys: %s", shown, keys);
    }
    const char *suggestion = meant(key);
    if (suggestion != NULL)
        return lks__fail(LKS_E_ARG, "unknown key \"%s\"; did you mean \"%s\"?", shown, suggestion);
    (void)lks__fail(LKS_E_ARG, "unknown key \"%s\"", shown);
    return lks__error_hint(LKS_E_ARG, "`lockstep help options` lists all keys");
}
