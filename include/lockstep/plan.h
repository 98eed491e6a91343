/* SPDX-License-Identifier: Apache-2.0 */
/** The plan of a run: batch and epoch arithmetic, the learning rate and its schedule. Pure functions.
 *
 * Words: a step has K = global batch / local batch leaves; world W workers, each with `accumulate` leaves per
 * step; P processes play the W workers. kappa = global batch / reference batch.
 */
#ifndef LOCKSTEP_PLAN_H
#define LOCKSTEP_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include <lockstep/export.h>
#include <lockstep/optimizer.h>
#include <lockstep/status.h>

LKS_BEGIN_DECLS

typedef enum lks_tail {
    LKS_TAIL_EXACT, /* the last step of an epoch uses the samples that are left, each once */
    LKS_TAIL_DROP,  /* whole steps only */
    LKS_TAIL_PAD,   /* the order is repeated from its start up to a multiple of the world */
} lks_tail;

typedef enum lks_reduction {
    LKS_REDUCTION_MEAN, /* sum over all samples of the step / their number */
    LKS_REDUCTION_SUM,  /* sum over all samples of the step / local batch */
} lks_reduction;

typedef enum lks_lr_rule {
    LKS_LR_NONE,
    LKS_LR_LINEAR,    /* rate x kappa */
    LKS_LR_SQRT,      /* rate x sqrt(kappa) */
    LKS_LR_ADAM_SQRT, /* rate x sqrt(kappa), and Adam's betas and epsilon scaled with it */
    LKS_LR_LEGW,      /* rate x sqrt(kappa), warm-up epochs x kappa */
    LKS_LR_ADASCALE,  /* rate x gain, 1 to kappa, which is measured while training: lks_plan_lr */
} lks_lr_rule;
typedef enum lks_schedule_kind {
    LKS_SCHEDULE_CONSTANT,
    /* over what follows the warm-up */
    LKS_SCHEDULE_COSINE,
    LKS_SCHEDULE_LINEAR,
    LKS_SCHEDULE_POLYNOMIAL,
    /* at ends of epochs, counted from the start of the run */
    LKS_SCHEDULE_STEP,
    LKS_SCHEDULE_MULTISTEP,
    LKS_SCHEDULE_EXPONENTIAL,
} lks_schedule_kind;
typedef enum lks_warmup {
    LKS_WARMUP_GRADUAL,  /* up to the scaled rate, a little with every step */
    LKS_WARMUP_CONSTANT, /* at the base rate, then the scaled rate at once */
    LKS_WARMUP_NONE,
} lks_warmup;
typedef enum lks_warmup_from { LKS_WARMUP_FROM_REFERENCE, LKS_WARMUP_FROM_ZERO } lks_warmup_from;

enum { LKS_MAX_MILESTONES = 32 };

/** How the rate falls from the scaled rate, with the formulas of PyTorch's schedulers. A kind's own fields
 * only are read. */
typedef struct lks_schedule {
    lks_schedule_kind kind;
    double end_factor;                      /* cosine, linear: at the end of the run; 0 .. 1 */
    double power;                           /* polynomial: (1 - progress)^power; > 0 */
    double gamma;                           /* step, multistep, exponential: 0 < gamma <= 1 */
    int64_t step_epochs;                    /* step: x gamma every so many epochs; >= 1 */
    int64_t milestones[LKS_MAX_MILESTONES]; /* multistep: x gamma after each of these epochs; >= 1, rising */
    int64_t n_milestones;                   /* multistep: >= 1 */
} lks_schedule;

/** Where a run goes on that had another plan before; all zeros for a run that begins. */
typedef struct lks_plan_origin {
    int64_t step;    /* steps taken before */
    int64_t samples; /* seen before, repeats of `pad` included */
    int64_t epoch;   /* 0-based; what is left of it comes first */
    int64_t offset;  /* positions of that epoch's order that are used already; below n_samples */
} lks_plan_origin;

/** What a plan is computed from. 0 (or NaN, where said) means "not given". */
typedef struct lks_plan_config {
    int64_t n_samples;    /* samples of the training set, after any limit; >= 1 */
    int64_t processes;    /* P; 0: chosen from usable_cores */
    bool fast;            /* lks_group_config.fast */
    int64_t usable_cores; /* for choosing P; 0: ask the machine */
    int64_t world;        /* W; 0: what b, A and B make it where all are given, else as many as processes */
    int64_t local_batch;  /* b */
    int64_t accumulate;   /* A */
    int64_t global_batch; /* B = b * W * A */
    lks_tail tail;
    int64_t epochs; /* exactly one of epochs, steps, samples */
    int64_t steps;
    int64_t samples;        /* rounded up to a whole step */
    lks_plan_origin origin; /* the length counts from the start of the run, not from here */
    lks_reduction reduction;
    lks_optimizer_config optimizer; /* as tuned at the reference batch */
    double base_lr;                 /* > 0 */
    lks_lr_rule lr_rule;
    int64_t reference_batch; /* needed by every rule but none */
    lks_warmup warmup;
    double warmup_epochs;        /* >= 0; may be fractional */
    lks_warmup_from warmup_from; /* of a gradual warm-up */
    lks_schedule schedule;
} lks_plan_config;

/** Mean reduction, exact tail, 1 epoch, SGD, rate 0.001, no rule, constant schedule (and PyTorch's gamma 0.1,
 * power 1, decay to 0 for the others); n_samples and the batch must be set. */
LKS_API lks_plan_config lks_plan_config_default(void);

/** Bytes of lockstep's own allocations. All 0: not known, as a plan alone knows no model. */
typedef struct lks_plan_memory {
    /* once on a machine, shared by its processes */
    int64_t parameters;
    int64_t optimizer;  /* its state */
    int64_t checkpoint; /* in the first process: a copy of both to write from */
    /* of every process */
    int64_t gradients; /* an arena for each digit of the number of its leaves; neighbours read one of them */
    int64_t activations; /* and their gradients, a batch's input, the kernels' scratch */
    int64_t data;        /* training and test set, and the order of an epoch */
    int64_t other;
} lks_plan_memory;

typedef struct lks_plan {
    int64_t n_samples;          /* of the training set */
    int64_t processes;          /* P */
    int64_t world;              /* W, a multiple of P */
    int64_t local_batch;        /* b */
    int64_t accumulate;         /* A */
    int64_t global_batch;       /* B: the effective batch */
    int64_t leaves;             /* K = W * A */
    int64_t leaves_per_process; /* K / P */
    lks_tail tail;
    int64_t
        samples_per_epoch; /* positions of an epoch: n_samples; rounded to whole steps (drop) or to W (pad) */
    int64_t steps_per_epoch;
    int64_t total_steps; /* rule adascale: the most that it can be, when every gain is 1 */
    int64_t samples;     /* S: samples of the whole run, repeats of `pad` included; rule adascale: where the
                            clock of gains ends */
    double epochs;       /* of the whole run; samples / samples_per_epoch where all epochs are equal */
    int64_t last_step_samples; /* samples in the last step of an epoch */
    /* The run goes on from here: the numbers of an epoch above are those of the epochs after the origin's, of
     * which the samples that are left are an epoch by themselves; totals count from the start of the run. */
    lks_plan_origin origin;
    lks_reduction reduction;
    lks_optimizer_config optimizer; /* what the run trains with: scaled where the rule scales it */
    double base_lr;
    double scaled_lr; /* rule(kappa) * base_lr */
    double kappa;     /* B / reference batch; 1 without a reference batch */
    lks_lr_rule lr_rule;
    int64_t reference_batch; /* 0: not given */
    double warmup_samples;   /* S_w; 0: no warm-up */
    int64_t warmup_steps;    /* ceil(S_w / B) */
    lks_warmup warmup;
    lks_warmup_from warmup_from;
    lks_schedule schedule;
    bool fast;      /* lks_group_config.fast: between machines gradients are added in another order */
    bool same_bits; /* the run's bits do not depend on P: P = 1, or leaves_per_process a power of two and
                       not fast */
    bool processes_chosen;  /* P was chosen here, not given */
    lks_plan_memory memory; /* lks_train_plan */
    int64_t reduced_bytes;  /* lks_train_plan: of the gradient that processes add up in a step; of one: 0 */
} lks_plan;

/** Computes the plan.
 *
 * Returns: LKS_OK; LKS_E_ARG with the arithmetic in the message when the set does not fit, when there are
 * more workers than samples, when no step would be taken, or when P does not divide W, or when the rule
 * does not fit the optimizer.
 */
LKS_API lks_status lks_plan_create(const lks_plan_config *config, lks_plan *out) LKS_MUST_USE;

/** What stays when workers are added. */
typedef enum lks_hold {
    LKS_HOLD_LOCAL,  /* local batch and accumulation: the effective batch grows with the world */
    LKS_HOLD_GLOBAL, /* the effective batch: accumulation shrinks, and after it the local batch */
} lks_hold;

/** Computes the plan of the same run with another world, and as many processes where the config has 0.
 *
 * Returns: as lks_plan_create; also LKS_E_ARG when the world can't share the effective batch that is held.
 */
LKS_API lks_status lks_plan_create_at(const lks_plan_config *config, int64_t world, lks_hold hold,
                                      lks_plan *out) LKS_MUST_USE;

/** The learning rate of the step that starts when the schedule's clock stands at `clock` samples. The clock
 * is the number of samples that the run has seen. With rule adascale a step moves it on by gain x reference
 * batch instead, the rate returned here is that of the reference batch, to be multiplied by the step's gain,
 * and the run is over when the clock has come to plan->samples (Johnson et al. 2020, algorithm 1). Pure. */
LKS_API double lks_plan_lr(const lks_plan *plan, double clock);

/** Steps of an epoch (0-based) from the plan's origin on: steps_per_epoch after the origin's epoch, 0 before
 * it. In the origin's: perhaps none, where `drop` leaves the rest out. */
LKS_API int64_t lks_plan_steps_in_epoch(const lks_plan *plan, int64_t epoch);

/** Samples of step `step` of an epoch (both 0-based; in the origin's epoch, counted from the origin) -
 * global_batch but for an epoch's last step; 0 for a step that there is not. */
LKS_API int64_t lks_plan_step_samples(const lks_plan *plan, int64_t epoch, int64_t step);

/** Memory of the plan's processes: of the first one alone, without what is shared; of all on one machine,
 * with it. 0: not known. */
LKS_API int64_t lks_plan_process_bytes(const lks_plan *plan);
LKS_API int64_t lks_plan_machine_bytes(const lks_plan *plan);

/** The plan as a table for people. Ownership: the caller frees *out with free(). Returns: LKS_OK; LKS_E_ARG
 * for counts that lks_plan_create does not make; LKS_E_NOMEM. */
LKS_API lks_status lks_plan_to_text(const lks_plan *plan, char **out) LKS_MUST_USE;

/** The learning rate over the run, drawn for a terminal. Ownership and returns: as lks_plan_to_text. */
LKS_API lks_status lks_plan_curve_to_text(const lks_plan *plan, char **out) LKS_MUST_USE;

/** The plan as one JSON object. Ownership: the caller frees *out with free(). */
LKS_API lks_status lks_plan_to_json(const lks_plan *plan, char **out) LKS_MUST_USE;

/** Plans side by side, a column for each. plans: [n]. Ownership: the caller frees *out with free(). */
LKS_API lks_status lks_plans_to_text(int n, const lks_plan *plans, char **out) LKS_MUST_USE;

/** One JSON object, {"plans": [...]}. plans: [n]. Ownership: the caller frees *out with free(). */
LKS_API lks_status lks_plans_to_json(int n, const lks_plan *plans, char **out) LKS_MUST_USE;

LKS_END_DECLS

#endif
