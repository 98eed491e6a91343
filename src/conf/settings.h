/* SPDX-License-Identifier: Apache-2.0 */
/** The resolved settings of a run, as a struct. Every field is one row of the option table (options.c), which
 * alone knows keys, ranges, defaults and documentation. */
#ifndef LKS_CONF_SETTINGS_H
#define LKS_CONF_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include <lockstep/checkpoint.h>
#include <lockstep/config.h>
#include <lockstep/optimizer.h>
#include <lockstep/plan.h>
#include <lockstep/train.h>

enum { LKS__MAX_LIST = 32 }; /* elements of a list */
_Static_assert((int)LKS__MAX_LIST == (int)LKS_MAX_MILESTONES, "lists of options have one length");

/** The base learning rate when none is given: that of PyTorch's SGD and Adam. */
#define LKS__DEFAULT_LR 0.001

typedef enum lks__model_kind { LKS__MODEL_MLP } lks__model_kind;
typedef enum lks__data_kind { LKS__DATA_MNIST, LKS__DATA_IDX } lks__data_kind; /* read in the same way */

/* Integers that may be left out are 0 then. Texts are owned by the config; NULL when not set. */
typedef struct lks__settings {
    const char *name;   /* of the run */
    const char *output; /* run directory; resolved: runs/NAME when not set */
    int64_t seed;
    int64_t threads; /* compute threads per process */

    lks__model_kind model_kind;
    int64_t hidden[LKS__MAX_LIST]; /* mlp: sizes of the hidden layers */
    int64_t n_hidden;
    double dropout; /* mlp: after each ReLU */

    lks__data_kind data_kind;
    const char *data_path;
    lks_tail tail;
    int64_t data_limit; /* first samples of the training set; 0: all */
    double normalize_mean, normalize_std;

    int64_t world, local_batch, accumulate, global_batch;
    int64_t epochs, steps, samples;
    lks_reduction reduction;

    lks_optimizer_config optimizer;
    double base_lr;
    lks_lr_rule lr_rule;
    int64_t reference_batch;
    double warmup_epochs;
    lks_warmup warmup;
    lks_warmup_from warmup_from;
    lks_schedule schedule;

    double clip_norm, clip_value; /* 0: no clipping */
    lks_on_divergence on_divergence;

    double comm_timeout_s;
    bool comm_fast;
    int64_t bucket_bytes;
    int64_t metrics_every_steps;
    int64_t hashes_every_steps;
    int64_t checkpoint_every_steps;  /* 0: not by steps */
    double checkpoint_every_seconds; /* 0: not by time */
    int64_t checkpoint_every_epochs; /* 0: not by epochs */
    int64_t checkpoint_keep;
    lks_checkpoint_best checkpoint_best;
} lks__settings;

const lks__settings *lks__config_settings(const lks_config *config);

/** Whether a key of the table was given as an override, by value or as `auto`. */
bool lks__config_is_asked_for(const lks_config *config, const char *key);

/** Reads a config from a text; `name` stands for the file in messages. As lks_config_load. */
lks_status lks__config_parse(const char *name, const char *yaml, lks_config **out) LKS_MUST_USE;

typedef bool lks__config_keep_fn(const char *key);

/** The settings of `base`, but for `top`'s overrides and those of its keys that `keep` holds for. A choice
 * that is overridden takes the settings of the one before with it. Ownership: the caller destroys *out.
 * Returns: as lks_config_load. */
lks_status lks__config_overlay(const lks_config *base, const lks_config *top, lks__config_keep_fn *keep,
                               lks_config **out) LKS_MUST_USE;

/** As lks_config_to_yaml, for settings that a program has changed. */
lks_status lks__settings_to_yaml(const lks__settings *settings, char **out) LKS_MUST_USE;

#endif
