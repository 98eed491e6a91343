/* SPDX-License-Identifier: Apache-2.0 */
/** What the files of this folder share: the trainer and its parts. Glue only; the maths lives in the other
 * folders. */
#ifndef LKS_TRAIN_TRAINER_H
#define LKS_TRAIN_TRAINER_H

#include <lockstep/sampler.h>
#include <lockstep/train.h>

#include "comm/agree.h"
#include "conf/settings.h"
#include "ddp/reducer.h"
#include "nn/network.h"
#include "optim/update.h"
#include "plan/gain.h"
#include "record/run_dir.h"
#include "record/safetensors.h"
#include "train/watch.h"

/** The best value so far of what checkpoint_best watches. */
typedef struct lks__best {
    double value;
    int64_t step; /* after which it was reached; 0: there is none yet */
} lks__best;

/** Where a step stands in the run. */
typedef struct lks__position {
    int64_t step;          /* steps taken before */
    int64_t epoch;         /* 0-based */
    int64_t step_in_epoch; /* 0-based */
    int64_t samples;       /* seen before */
    int64_t epoch_samples; /* of this epoch */
    double epoch_loss_sum; /* over those samples */
    double clock;          /* of the schedule, in samples: lks_plan_lr */
    lks__gain_averages gain;
    double epoch_skipped; /* samples of this epoch in steps that were not taken */
    int64_t updates;      /* that parameters and optimizer state have had: steps, but for those not taken */
    lks__watch watch;
    lks__best best;
} lks__position;

/** The state after a step, apart from the run that goes on: what a checkpoint is written from. */
typedef struct lks__snapshot lks__snapshot;

typedef struct lks__checkpoint_writer lks__checkpoint_writer; /* checkpoint_writer.h */

struct lks_trainer {
    lks_trainer_config config; /* what it points to is borrowed */
    int64_t created_ns;
    int rank;

    lks_group *node;       /* the group's members on this machine */
    int machines;          /* of the group; each has a copy of parameters and optimizer state */
    uint64_t *hashes;      /* [2 * parameters]: those of the own copy, and of rank 0's; NULL: one machine */
    int64_t compared_step; /* after which the copies were last compared */
    int64_t comparisons;   /* of copies */

    lks__network *network;
    lks_sampler *sampler;
    lks__reducer *reducer;
    lks_group_memory *shared; /* node's, the first member's region: parameters, then optimizer state */
    float *params;            /* [arena_elems], in shared */
    float *states[LKS__OPTIM_MAX_STATES]; /* [arena_elems] each, in shared */

    /* Sized once so that a step allocates nothing. */
    int64_t *indices;     /* [local batch] */
    double *leaf_loss;    /* [leaves per process]: sums over the leaf's samples */
    double *leaf_correct; /* same */
    double *leaf_norm2;   /* adascale: same: squared norms of the leaves' mean gradients; else NULL */
    double *block_norm2;  /* adascale: [blocks of the largest parameter]; else NULL */
    double *tensor_values[LKS__BLOCK_VALUES]; /* [parameters] each, by lks__tensor_value */
    lks__optim_step *tensor_steps;            /* [parameters] */
    double *eval_loss;                        /* [evaluation leaves]: sums, own leaves; the others are 0 */
    double *eval_correct;                     /* same; directly behind eval_loss, reduced together */
    int64_t
        *class_counts; /* [2 * classes]: samples, then hits, of an evaluation by class; NULL: not asked for */
    float *plain;      /* [largest parameter]: one tensor in the plain layout */

    lks__position start; /* where the run begins: all zeros, or the checkpoint's */
    bool has_run;
    lks__run_dir *run_dir;          /* rank 0, when something is written */
    lks__snapshot *snapshot;        /* the same; the writer's while it writes */
    lks__checkpoint_writer *writer; /* the same */
    int64_t checkpointed_ns; /* when the run began, or was last handed to the writer to be resumed from */
    unsigned requests;       /* lks__request bits of this member, for the next step; set between steps */
    int64_t rolled_back_to;  /* rank 0: step of the checkpoint to which the run has gone back last, */
    int rollbacks;           /* and how often */
    lks_train_times times;
    int64_t params_bytes, states_bytes, grads_bytes; /* of this member's shared memory, by what is in it */
};

/** What a member can ask for when a step begins; all members see it at the same step. */
typedef enum lks__request {
    LKS__REQUEST_CHECKPOINT = 1u << 0, /* a checkpoint is due, by rank 0's clock */
    LKS__REQUEST_END = 1u << 1,        /* the time that the run may take is over */
} lks__request;

enum { LKS__MAX_BATCHES = 6 };

/** Every batch size that a run with such a plan and test set will meet; the first one decides the layouts.
 * The list is the same on any number of processes. Returns how many. */
int lks__list_batches(const lks_plan *plan, int64_t n_test, int64_t batches[LKS__MAX_BATCHES]);

/** Sets the plan's memory and reduced_bytes, for the graph on data sets of these sizes. test: NULL without
 * one. Returns: LKS_OK; LKS_E_ARG (a batch too large); LKS_E_KERNEL; LKS_E_NOMEM. */
lks_status lks__predict_memory(const lks_graph *graph, const lks_dataset_info *train,
                               const lks_dataset_info *test, int threads, lks_plan *plan) LKS_MUST_USE;

/** What the whole program has allocated now. */
lks_plan_memory lks__measure_memory(void);
/** What can go wrong in a step. */
typedef enum lks__trouble {
    LKS__TROUBLE_NONE,
    LKS__TROUBLE_LOSS,     /* not finite; nothing was updated */
    LKS__TROUBLE_GRADIENT, /* not finite; see updated */
    LKS__TROUBLE_DIVERGES, /* the step was taken; lks__watch_diverges */
} lks__trouble;

/** What a step came to; the same on all members. */
typedef struct lks__step_result {
    int64_t samples; /* of the step */
    double lr;       /* with the gain */
    double loss_sum; /* over the step's samples */
    double n_correct;
    double grad_norm; /* of the step's gradient, before it is clipped by norm; NaN when it was not measured */
    double gain;      /* of adascale; else 1 */
    lks__gain_averages gain_averages; /* with this step's */
    double advance;                   /* of the schedule's clock */
    lks__trouble trouble;
    bool updated;      /* parameters were updated, perhaps by a gradient that is not finite */
    int stop_signal;   /* a signal that some member was given; 0: none */
    unsigned requests; /* lks__request bits that some member has set */
} lks__step_result;

/** What passes measure of each tensor: squared norms. */
typedef enum lks__tensor_value {
    LKS__GRAD_NORM2,      /* of the step's gradient, clipped by value; not finite when the gradient is not */
    LKS__PARAM_NORM2,     /* before the update */
    LKS__DIRECTION_NORM2, /* lamb */
} lks__tensor_value;

/** The gradient that passes find in the reducer. */
typedef struct lks__gradient {
    int64_t update;     /* 1-based, of the optimizer's state */
    int64_t samples;    /* of the step */
    double divisor;     /* the sum over all leaves divided by this is the step's gradient */
    double leaf_norm2s; /* adascale: sum over leaves of the squared norms of their mean gradients */
    bool wants_norm;    /* result->grad_norm is to be set */
} lks__gradient;

/** The passes of a step, after lks__reducer_begin: updates the parameters, unless it is known before that the
 * gradient is not finite (result->trouble). result->lr: the plan's; comes back with the gain. Collective.
 */
lks_status lks__train_passes(lks_trainer *trainer, const lks__gradient *gradient,
                             lks__step_result *result) LKS_MUST_USE;

/** Ends a step that is not taken. Collective. */
lks_status lks__train_no_pass(lks_trainer *trainer) LKS_MUST_USE;

/** Whether the run ends at this position: after its last step, or where the clock of gains has come to its
 * end. */
static inline bool lks__run_is_over(const lks_plan *plan, const lks__position *position)
{
    return position->step >= plan->total_steps ||
           (plan->lr_rule == LKS_LR_ADASCALE && position->clock >= (double)plan->samples);
}

/** Whether the position is behind the last step of its epoch. */
static inline bool lks__epoch_is_over(const lks_plan *plan, const lks__position *position)
{
    return position->step_in_epoch >= lks_plan_steps_in_epoch(plan, position->epoch);
}

/** One step: own leaves forward and backward, reduction, update. Collective.
 *  Returns: LKS_OK, also when something went wrong (out->trouble); LKS_E_KERNEL; failures of the group. */
lks_status lks__train_step(lks_trainer *trainer, const lks__position *position, bool with_norm,
                           lks__step_result *out) LKS_MUST_USE;

/** Reads a leaf's samples into the network. Returns their number, 0 for an empty leaf; t->indices has which.
 */
int64_t lks__train_read_leaf(lks_trainer *trainer, const lks__position *position, int64_t leaf);

/** Leaves of the test set, each of the local batch; the last may be shorter. */
int64_t lks__eval_n_leaves(const lks_dataset *test_set, int64_t local_batch);

/** Mean loss and accuracy over the whole test set, each sample once, same bits on any number of processes.
 * Collective. */
lks_status lks__evaluate(lks_trainer *trainer, double *out_loss, double *out_accuracy) LKS_MUST_USE;

/** Has the model a place for the data set's samples and classes? which: "training", for the message. */
lks_status lks__check_dataset(const lks__network *network, const lks_dataset *dataset,
                              const char *which) LKS_MUST_USE;

/** Can so many processes be started and form a group? */
lks_status lks__check_processes(int64_t processes) LKS_MUST_USE;

/** The model that settings describe, for data of such a kind. */
lks_status lks__create_graph(const lks__settings *settings, const lks_dataset_info *data,
                             lks_graph **out) LKS_MUST_USE;

/** Sets the initial parameters, from the seed or from config.init_path. For rank 0. */
lks_status lks__params_init(lks_trainer *trainer) LKS_MUST_USE;

/** Writes parameters in the plain layout with PyTorch's names, by way of the snapshot. For rank 0 of a run
 * with a run directory. */
lks_status lks__params_save(lks_trainer *trainer, const char *path) LKS_MUST_USE;

#define LKS__CHECKPOINT_FORMAT_KEY "lockstep_checkpoint"
#define LKS__CHECKPOINT_FORMAT     "2"
#define LKS__OPTIMIZER_PREFIX      "optimizer." /* of tensors that are no parameters */

/** Opens a file of parameters. One that has a checksum, as every checkpoint, is read to its end and compared.
 * Ownership: the caller closes *out; on failure NULL.
 * Returns: LKS_OK; LKS_E_FORMAT: damaged; LKS_E_NOT_FOUND; LKS_E_IO; LKS_E_NOMEM. */
lks_status lks__model_open(const char *path, lks__safetensors **out) LKS_MUST_USE;

/** Allocates what a snapshot needs. Ownership: the caller destroys *out, before the network; on failure NULL.
 */
lks_status lks__snapshot_create(const lks_trainer *trainer, lks__snapshot **out) LKS_MUST_USE;
void lks__snapshot_destroy(lks__snapshot *snapshot);

/** Copies parameters and optimizer state, in the plain layout, and the position. Allocates nothing. Between
 * steps, when no member updates them. */
lks_status lks__snapshot_take(lks__snapshot *snapshot, const lks_trainer *trainer,
                              const lks__position *position) LKS_MUST_USE;

int64_t lks__snapshot_step(const lks__snapshot *snapshot);

/** Writes a checkpoint: parameters, the optimizer's state as "optimizer.<state>.<parameter>", and as metadata
 * a checksum, the format's version, position, seed, plan (JSON) and config (YAML, when there is one). Reads
 * of the trainer what stays as it is while steps are taken. */
lks_status lks__snapshot_write(const lks__snapshot *snapshot, const lks_trainer *trainer,
                               const char *path) LKS_MUST_USE;

/** Sets parameters, optimizer state and start from config.resume_path. For rank 0.
 *  Returns: LKS_OK; LKS_E_FORMAT: damaged, or no checkpoint of this model and optimizer; LKS_E_ARG: another
 *  plan or seed; LKS_E_NOT_FOUND; LKS_E_IO; LKS_E_NOMEM. */
lks_status lks__checkpoint_load(lks_trainer *trainer) LKS_MUST_USE;

/** What a checkpoint says of its state: step, updates, gain and watch of *out; the rest is zeros. Looks at
 * the whole file. Returns: as lks__checkpoint_load. */
lks_status lks__checkpoint_look(const lks_trainer *trainer, const char *path,
                                lks__position *out) LKS_MUST_USE;

/** Sets parameters and optimizer state from a checkpoint. For rank 0. Returns: as lks__checkpoint_load. */
lks_status lks__checkpoint_load_values(lks_trainer *trainer, const char *path) LKS_MUST_USE;

/** Hash of a data set's sizes, and of its first and last sample as they are trained on. NULL: 0. */
lks_status lks__dataset_hash(const lks_dataset *dataset, int64_t *out) LKS_MUST_USE;

/** Rank 0, between two steps, while nobody updates parameters: an entry of hashes.jsonl, one line for each
 * parameter. For the others, and without a run directory, nothing. */
lks_status lks__log_hashes(lks_trainer *trainer, int64_t step, int64_t samples) LKS_MUST_USE;

/** The same for the line of starts.jsonl. */
lks_status lks__log_start(lks_trainer *trainer) LKS_MUST_USE;

/** XXH64 of all parameters in the plain layout, in graph order. */
lks_status lks__params_hash(lks_trainer *trainer, uint64_t *out) LKS_MUST_USE;

#endif
