/* SPDX-License-Identifier: Apache-2.0 */
/** The run directory: config.yaml, plan.json, metrics.jsonl, hashes.jsonl, starts.jsonl, checkpoints/,
 * model.safetensors. Written by rank 0. */
#ifndef LKS_RECORD_RUN_DIR_H
#define LKS_RECORD_RUN_DIR_H

#include <stdbool.h>
#include <stdint.h>

#include <lockstep/status.h>

typedef struct lks__run_dir lks__run_dir;

/** Whether a run directory may be created there. Writes nothing.
 *  Returns: LKS_OK; LKS_E_EXISTS with a hint (--overwrite, output=DIR); with overwrite, LKS_E_EXISTS too when
 * what is there is no run directory (no plan.json of a run): a stranger's folder is never deleted; and when a
 * run that has not ended writes there. */
lks_status lks__run_dir_check(const char *path, bool overwrite) LKS_MUST_USE;

/** Creates the directory and its parents, writes config.yaml (may be NULL) and plan.json, opens
 * the .jsonl files. With overwrite an earlier run's files are removed first. The directory is locked until it
 * is closed or the process ends: it is no other run's meanwhile. Returns: as check; LKS_E_IO. */
lks_status lks__run_dir_create(const char *path, bool overwrite, const char *config_yaml,
                               const char *plan_json, lks__run_dir **out) LKS_MUST_USE;

/** Opens the directory of an earlier run, cuts its .jsonl files back to that step and removes files that it
 * was cut off in; its config and plan stay. Locked as by create, after two seconds at most in which processes
 * of that run may end.
 *  Returns: LKS_OK; LKS_E_EXISTS: in use by another run; LKS_E_ARG; LKS_E_IO; LKS_E_NOMEM. */
lks_status lks__run_dir_continue(const char *path, int64_t step, lks__run_dir **out) LKS_MUST_USE;

/** What lks__run_dir_continue cut off because it was damaged: "metrics.jsonl from line 17, starts.jsonl from
 * line 2"; "" if nothing was. Returns out. */
enum { LKS__DAMAGE_BYTES = 160 };
const char *lks__run_dir_damage(const lks__run_dir *dir, char out[LKS__DAMAGE_BYTES]);

/** Replaces config.yaml, and keeps the one before as the first of config.1.yaml, config.2.yaml, ... that
 * there is not yet; the same config is not kept twice. A run that had ended has not any more: its model is
 * kept as model.1.safetensors, with the config's number. Replaces plan.json. Each file is whole or as it was.
 *  Returns: LKS_OK; LKS_E_IO; LKS_E_NOMEM. */
lks_status lks__run_dir_replace(lks__run_dir *dir, const char *config_yaml,
                                const char *plan_json) LKS_MUST_USE;

/** "config.1.yaml": the name of the n-th earlier config, n >= 1. */
enum { LKS__CONFIG_NAME_BYTES = 32 };
void lks__earlier_config_name(int n, char out[LKS__CONFIG_NAME_BYTES]);

/** Whether there is a file of that name in a run directory. */
bool lks__run_dir_has(const char *path, const char *file);

/** The steps after which the directory has checkpoints, whole or not, the latest first. A directory that does
 * not exist has none. Ownership: the caller lks__free()s *steps.
 *  Returns: LKS_OK; LKS_E_IO; LKS_E_NOMEM. */
lks_status lks__run_dir_list_checkpoints(const char *path, int *n, int64_t **steps) LKS_MUST_USE;

/** Removes all checkpoints of steps up to `step` but the latest `keep`. Returns: LKS_OK; LKS_E_IO;
 * LKS_E_NOMEM. */
lks_status lks__run_dir_drop_checkpoints(const lks__run_dir *dir, int64_t keep, int64_t step) LKS_MUST_USE;

/** "checkpoints/step-00000123.safetensors" */
enum { LKS__CHECKPOINT_NAME_BYTES = 64 };
#define LKS__BEST_CHECKPOINT "checkpoints/best.safetensors"
void lks__checkpoint_name(int64_t step, char out[LKS__CHECKPOINT_NAME_BYTES]);

/** Flushes and closes; the files stay. NULL is fine. */
void lks__run_dir_close(lks__run_dir *dir);

/** One line of metrics.jsonl: a training step. */
typedef struct lks__step_metrics {
    int64_t step; /* 1-based */
    int64_t samples;
    int64_t epoch;                        /* 0-based */
    double lr, loss, accuracy, grad_norm; /* NaN becomes null */
    double seconds;                       /* since the first step began */
    bool has_gain;                        /* adascale: the next two are written too */
    double gain, noise_scale;
} lks__step_metrics;

/** One line of metrics.jsonl: a step that went wrong. */
typedef struct lks__trouble_metrics {
    int64_t step;           /* 1-based */
    int64_t samples, epoch; /* before it; 0-based */
    const char *trouble;    /* "the loss is not finite" */
    const char *action;     /* "the step is not taken" */
} lks__trouble_metrics;

/** One line of metrics.jsonl: an epoch's end. */
typedef struct lks__epoch_metrics {
    int64_t step, samples, epoch;
    int64_t epoch_samples; /* of this epoch: fewer than the plan's when the run ended within it */
    double train_loss, test_loss, test_accuracy, samples_per_second, seconds;
} lks__epoch_metrics;

/** One line of hashes.jsonl: a parameter tensor after a step. */
typedef struct lks__tensor_metrics {
    int64_t step, samples; /* 0: the initial parameters */
    const char *tensor;    /* its name */
    int64_t elems, fan_in; /* fan_in: of the layer that it belongs to */
    uint64_t hash;         /* XXH64 of the plain layout */
    double norm, sum;      /* l2 norm, sum of all elements */
} lks__tensor_metrics;

/** One line of starts.jsonl: where a run began or went on, and on what. */
typedef struct lks__start {
    int64_t step, samples; /* before the start */
    int processes, threads;
    const char *version;          /* lockstep's */
    const char *library;          /* of kernels, with its version and instruction set */
    uint64_t kernels;             /* lks__network_fingerprint */
    uint64_t train_set, test_set; /* of sizes, first and last sample; 0: none */
} lks__start;

/** One line of metrics.jsonl: settings with which the run goes on after that step. */
typedef struct lks__change_metrics {
    int64_t step, samples, epoch;
    const char *changed; /* a JSON object on one line: key to [before, now] */
} lks__change_metrics;

/** Buffered; an error is reported by lks__run_dir_flush. Allocate nothing. */
void lks__run_dir_log_step(lks__run_dir *dir, const lks__step_metrics *metrics);
void lks__run_dir_log_epoch(lks__run_dir *dir, const lks__epoch_metrics *metrics);
void lks__run_dir_log_trouble(lks__run_dir *dir, const lks__trouble_metrics *metrics);
void lks__run_dir_log_tensor(lks__run_dir *dir, const lks__tensor_metrics *metrics);
void lks__run_dir_log_start(lks__run_dir *dir, const lks__start *start);
void lks__run_dir_log_change(lks__run_dir *dir, const lks__change_metrics *metrics);
lks_status lks__run_dir_flush(lks__run_dir *dir) LKS_MUST_USE;

/** The path of a file in the directory, "runs/x/model.safetensors". Ownership: the caller lks__free()s it;
 * NULL: no memory. */
char *lks__run_dir_path(const lks__run_dir *dir, const char *file);

#endif
