/* SPDX-License-Identifier: Apache-2.0 */
/** Training: from a config file, or from a program's own data set and graph. */
#ifndef LOCKSTEP_TRAIN_H
#define LOCKSTEP_TRAIN_H

#include <stdbool.h>
#include <stdint.h>

#include <lockstep/checkpoint.h>
#include <lockstep/config.h>
#include <lockstep/dataset.h>
#include <lockstep/export.h>
#include <lockstep/graph.h>
#include <lockstep/group.h>
#include <lockstep/optimizer.h>
#include <lockstep/plan.h>
#include <lockstep/status.h>

LKS_BEGIN_DECLS

/** Where the time of this member's training steps went, in seconds. */
typedef struct lks_train_times {
    double data;             /* reading and normalising samples */
    double forward_backward; /* kernels, and adding this member's own leaves */
    double wait;             /* for other members */
    double reduce;           /* adding gradients over members */
    double optimizer;        /* updating parameters, gradient norm */
    double checkpoint;       /* between steps: copying the state for a checkpoint, and waiting where the one
                                before is still being written */
    /* over several machines, else 0: */
    double exchange; /* that gradients were under way between them, as far as this member has seen */
    double exposed;  /* of it, what it was waited for; in wait as well. The rest was hidden behind backward */
} lks_train_times;

/** How a run is going; handed to the callback on every member. */
typedef struct lks_train_progress {
    int64_t step;              /* steps taken so far, 1 .. total_steps */
    int64_t epoch;             /* 0-based epoch of that step */
    int64_t step_in_epoch;     /* 1 .. lks_plan_steps_in_epoch() */
    int64_t samples;           /* samples seen so far */
    double loss;               /* global mean over the step's samples */
    double lr;                 /* of that step */
    double samples_per_second; /* over the epoch so far; 0 before it can be told */
    bool epoch_end;       /* after the last step of an epoch, once evaluated; test figures are set then */
    double train_loss;    /* epoch_end: mean over the epoch's samples */
    double test_loss;     /* epoch_end: NaN without a test set */
    double test_accuracy; /* epoch_end: NaN without a test set */
} lks_train_progress;

/** Why a run ended before its plan did. */
typedef enum lks_train_stop {
    LKS_STOP_NONE,   /* it did not */
    LKS_STOP_SIGNAL, /* some member was asked to stop */
    LKS_STOP_TIME,   /* max_seconds were over on some member */
} lks_train_stop;

typedef struct lks_train_result {
    int64_t steps;             /* taken */
    double epochs;             /* samples seen / samples per epoch */
    double train_loss;         /* mean over the samples of the last epoch; NaN if no step was taken */
    double test_loss;          /* NaN without a test set */
    double test_accuracy;      /* 0 .. 1; NaN without a test set */
    double samples_per_second; /* training steps only */
    double first_step_seconds; /* from the creation of the trainer to the end of the first step */
    int64_t parameters;        /* number of trained values */
    uint64_t parameters_hash;  /* XXH64 of all parameters in the plain layout, in graph order */
    int machines;              /* each with a copy of the parameters, which its processes share */
    int64_t comparisons;       /* of the copies, all equal; 0: there is one */
    int64_t peak_memory_bytes; /* of this process: resident, program and libraries included */
    lks_plan_memory
        memory; /* allocated by this process at the end of the run; by rank 0 with what is shared */
    lks_train_times times;  /* of this member */
    lks_train_stop stopped; /* why the run ended before its plan did */
    int stop_signal;        /* LKS_STOP_SIGNAL: which; else 0 */
    int64_t skipped_steps;  /* since this start of the run: not taken, as loss or gradient was not finite */
    char checkpoint[64];    /* rank 0: the last one that was written, in the run directory; "": nothing */
} lks_train_result;

typedef void lks_train_progress_fn(void *context, const lks_train_progress *progress);

/** Receives a sentence that the user should see. */
typedef void lks_train_note_fn(void *context, const char *text);

/** What is done about a step whose loss or gradient is not finite. */
typedef enum lks_on_divergence {
    LKS_DIVERGENCE_STOP,     /* the run fails */
    LKS_DIVERGENCE_SKIP,     /* the step is not taken */
    LKS_DIVERGENCE_ROLLBACK, /* the run goes back to its last checkpoint's parameters and passes the samples
                                over */
} lks_on_divergence;

typedef struct lks_trainer lks_trainer;

/** What a trainer works with. Everything is borrowed until lks_trainer_destroy. */
typedef struct lks_trainer_config {
    lks_group *group; /* its size is the plan's `processes` */
    const lks_plan *plan;
    const lks_graph *graph;
    const lks_dataset *train_set; /* plan->n_samples samples */
    const lks_dataset *test_set;  /* NULL: no evaluation */
    lks_optimizer_config optimizer;
    double clip_norm;  /* a gradient with a larger norm is scaled down to it; 0: none is */
    double clip_value; /* the gradient's elements are brought into +-clip_value, before clip_norm; 0: they are
                          not */
    lks_on_divergence on_divergence;
    int64_t seed;                /* of the initial parameters, of the sampler and of dropout */
    int threads;                 /* compute threads of this member; 1 */
    const char *init_path;       /* safetensors file to start from; NULL: initialise from the seed */
    const char *resume_path;     /* checkpoint to go on from, of a run with the same plan on any number of
                                    processes, or with another plan on the same data, where this one has its
                                    origin; NULL: begin */
    const char *output_path;     /* run directory; must not exist, or with resume_path be that of the
                                    checkpoint's run, which is continued; NULL: write nothing */
    bool overwrite;              /* replace an earlier run in output_path */
    const char *config_yaml;     /* stored in the run directory; NULL: none */
    const char *changes;         /* with resume_path: the settings that the run goes on with instead of the
                                    checkpoint's, a JSON object on one line, for metrics.jsonl; config_yaml
                                    and the plan then become the run directory's. NULL: none */
    int64_t metrics_every_steps; /* lines in metrics.jsonl; 10 */
    int64_t hashes_every_steps;  /* entries of hashes.jsonl; over several machines their copies of the
                                    parameters are compared as often, and when an epoch ends; 100 */
    int64_t bucket_bytes; /* over several machines: gradients are sent when so many are final; 256 KiB */
    int64_t checkpoint_every_steps;  /* 0: not by steps; a stop leaves a checkpoint anyway */
    double checkpoint_every_seconds; /* the first step that ends so long after the last one; 0: not by time */
    int64_t checkpoint_every_epochs; /* 0: not by epochs */
    lks_checkpoint_best checkpoint_best; /* kept besides as checkpoints/best.safetensors */
    int64_t checkpoint_keep;             /* newest checkpoints that stay; 3 */
    const volatile int *stop_signal;     /* non-zero asks all members to stop at the next step; NULL: never. A
                                            signal handler that sets it needs a stack of its own (sigaltstack,
                                            SA_ONSTACK): in matrix products the thread's is not to be used */
    double max_seconds; /* all members stop after the first step that some member begins when so much time
                           since lks_trainer_create is over; 0: no limit */
    lks_train_progress_fn *progress; /* called after each step; NULL: none */
    lks_train_note_fn *note;         /* told what becomes of steps that go wrong, on rank 0; NULL: none */
    void *progress_context;          /* of both */
} lks_trainer_config;

/** Seed 0, one thread, SGD at PyTorch's defaults; group, plan, graph and train_set must be set. */
LKS_API lks_trainer_config lks_trainer_config_default(void);

/** Compiles the graph, allocates everything that training needs, sets the initial parameters.
 *
 * Collective. Returns: LKS_OK; LKS_E_ARG; LKS_E_NOT_FOUND, LKS_E_FORMAT (init file); LKS_E_NOMEM; failures of
 * the group. When one member fails, all do.
 */
LKS_API lks_status lks_trainer_create(const lks_trainer_config *config, lks_trainer **out) LKS_MUST_USE;

/** Trains to the end of the plan, or until it is stopped, evaluating after each epoch. A trainer runs once.
 *
 * Collective. Returns: LKS_OK (also when stopped: see stopped); LKS_E_EXISTS (run directory);
 * LKS_E_NOT_FINITE; LKS_E_MISMATCH (the machines' copies of the parameters differ); LKS_E_IO; failures of the
 * group.
 */
LKS_API lks_status lks_trainer_run(lks_trainer *trainer, lks_train_result *out) LKS_MUST_USE;

LKS_API void lks_trainer_destroy(lks_trainer *trainer);

/** The plan of a config on `processes` processes (0: choose), from the data set's headers and labels, with
 * its memory. Reads, writes nothing. */
LKS_API lks_status lks_train_plan(const lks_config *config, int processes, lks_plan *out) LKS_MUST_USE;

/** The same for other worlds, a plan for each: see lks_plan_create_at. worlds, out: [n] */
LKS_API lks_status lks_train_plans_at(const lks_config *config, int processes, int n, const int64_t *worlds,
                                      lks_hold hold, lks_plan *out) LKS_MUST_USE;

/** The same for one. */
LKS_API lks_status lks_train_plan_at(const lks_config *config, int processes, int64_t world, lks_hold hold,
                                     lks_plan *out) LKS_MUST_USE;

/** Called once on every member, when all that can be refused has been checked and before anything is written.
 */
typedef void lks_train_started_fn(void *context, const lks_plan *plan);

/** What `lockstep train` adds to a config. All zeros: nothing. */
typedef struct lks_train_options {
    const char *init_path; /* as in lks_trainer_config */
    bool overwrite;        /* replace an existing run directory */
    bool resume; /* go on from the newest whole checkpoint of the run directory. The settings must be those
                    of that run, but for name, output, threads, comm.*, metrics.*, hashes.* and checkpoint.*,
                    and for what overrides ask for: world, batch.*, the length, reduction, optimizer.lr,
                    optimizer.weight_decay, lr.*, clip.*; a world that is not set is the run's */
    const volatile int *stop_signal; /* as in lks_trainer_config */
    double max_seconds;              /* same, since the call of lks_train */
    lks_train_started_fn *started;   /* NULL: none */
    lks_train_progress_fn *progress; /* NULL: none */
    lks_train_note_fn *note; /* checkpoints that are passed over, changes, steps that go wrong; NULL: none */
    void *context;           /* of all three */
} lks_train_options;

/** Everything that can be refused about a config before any process starts: plan, number of processes,
 * launcher, run directory, init file. Returns: LKS_OK; a status with exit code 2. Writes nothing. */
LKS_API lks_status lks_train_check(const lks_config *config, int processes, const lks_train_options *options,
                                   lks_plan *out) LKS_MUST_USE;

/** Whether the config's run directory holds a run that has reached its end, and overrides do not ask to go on
 * from its newest checkpoint with other settings, such as a longer run. */
LKS_API bool lks_train_is_finished(const lks_config *config);

/** The step of the newest whole checkpoint in the config's run directory; 0: there is none.
 * Returns: LKS_OK; LKS_E_IO; LKS_E_NOMEM. */
LKS_API lks_status lks_train_last_checkpoint(const lks_config *config, int64_t *out) LKS_MUST_USE;

/** Joins the group that the environment describes (lks_group_config_from_env), with the config's
 * comm.timeout.
 *  Collective. Returns: as lks_group_config_from_env and lks_group_create. */
LKS_API lks_status lks_train_join(const lks_config *config, lks_group **out) LKS_MUST_USE;

/** Trains what the config says as one member of the group.
 *
 * options: NULL for none. Collective. Returns: as lks_trainer_create and _run. */
LKS_API lks_status lks_train(const lks_config *config, lks_group *group, const lks_train_options *options,
                             lks_train_result *out) LKS_MUST_USE;

/** The result, with the plan's keys and the whole command's `seconds`, as one JSON object.
 *  Ownership: the caller frees *out with free(). */
LKS_API lks_status lks_train_result_to_json(const lks_train_result *result, const lks_plan *plan,
                                            double seconds, char **out) LKS_MUST_USE;

LKS_END_DECLS

#endif
