/* SPDX-License-Identifier: Apache-2.0 */
/** Data parallelism for a model of one's own: any program with arrays of parameters and gradients.
 *
 * Every member of a group computes gradients on samples of its own; after lks_ddp_wait() the gradient arrays
 * of all members hold the mean over all samples of all members. All members then update their parameters in
 * the same way, which stay equal. docs/bring-your-own-model.md walks through an example.
 *
 *     for each step:
 *         backward: fills gradients, and calls lks_ddp_grad_ready(ddp, i) for each that is finished
 *         lks_ddp_wait(ddp, n_samples)
 *         parameters -= rate * gradients
 *
 * Other collectives of the group: between steps only, from lks_ddp_wait to the next report.
 * Thread: one at a time per handle and its group.
 */
#ifndef LOCKSTEP_DDP_H
#define LOCKSTEP_DDP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lockstep/export.h>
#include <lockstep/group.h>
#include <lockstep/status.h>

LKS_BEGIN_DECLS

typedef struct lks_ddp lks_ddp;

/** A parameter tensor and its gradient. Both arrays stay the caller's and stay where they are. */
typedef struct lks_ddp_tensor {
    const char *name; /* for messages, and compared between members */
    int64_t n_elems;  /* may be 0 */
    float *param;     /* [n_elems] */
    float *grad;      /* [n_elems]; NULL for all tensors: lks_ddp_grad hands out memory for them */
} lks_ddp_tensor;

/** What else belongs to the model and is to be rank 0's at the start, such as running statistics. */
typedef struct lks_ddp_buffer {
    const char *name;
    size_t n_bytes;
    void *data; /* [n_bytes] */
} lks_ddp_buffer;

/** What the caller's gradients are. Either way what comes out is the mean over all samples of all members. */
typedef enum lks_ddp_gradients {
    LKS_DDP_SUMS, /* of the summed losses of this member's samples: the default. A step without samples leaves
                     zeros. */
    LKS_DDP_MEANS, /* of the mean loss of this member's samples. They are weighted with the number of samples,
                      which only lks_ddp_wait is told: nothing can be reduced before it. */
} lks_ddp_gradients;

/** What happens to a gradient that was not reported by the time of lks_ddp_wait. */
typedef enum lks_ddp_unused {
    LKS_DDP_UNUSED_REFUSED, /* LKS_E_ARG on every member, with the names: the default */
    LKS_DDP_UNUSED_ZERO,    /* this member's part of it is 0: what the step did not use has no gradient */
} lks_ddp_unused;

/** Gradients that are reduced together. */
typedef struct lks_ddp_bucket {
    int index, n_buckets; /* reduced in the order 0 .. n_buckets - 1, on every member */
    int64_t n_elems;
    float *data; /* [n_elems]: the gradients of its tensors, one behind the other */
    int n_tensors;
    const int32_t *tensors; /* [n_tensors], ascending */
} lks_ddp_bucket;

/** Does the work of the all-reduce: on return bucket->data holds the sum over all members, on every member
 * the same bits.
 *
 * It may call any collective of the group, but every member the same ones in the same order. What it returns
 * ends the step; a failure of one member alone leaves the others waiting until it leaves the group.
 */
typedef lks_status lks_ddp_hook(void *context, lks_group *group, const lks_ddp_bucket *bucket);

/** A hook that halves the bytes: gradients travel as bf16, the upper half of an f32. The context is not used.
 *
 * Each member's gradient is rounded to bf16, the sum of these is formed in f32 in the usual order and rounded
 * to bf16 once. A number with 8 significant bits is within 2^-8 of what it was rounded from, so the error of
 * a sum is at most 2^-8 (sum of |gradients| + |their sum|), and terms of 2^-16; it is the same on every
 * member. A group of one rounds nothing. Buckets are posted as without a hook.
 */
LKS_API lks_status lks_ddp_bf16_hook(void *context, lks_group *group,
                                     const lks_ddp_bucket *bucket) LKS_MUST_USE;

typedef struct lks_ddp_config {
    lks_group *group; /* outlives the handle */
    int n_tensors;
    const lks_ddp_tensor *tensors; /* [n_tensors]; the list is borrowed during create */
    int n_buffers;
    const lks_ddp_buffer *buffers; /* [n_buffers]; same */
    lks_ddp_gradients gradients;
    lks_ddp_unused unused;
    int64_t bucket_bytes; /* a bucket holds more only where a single tensor does; 1 MiB */
    int64_t check_every;  /* steps between replica checks; 100; 0: none */
    lks_ddp_hook *hook;   /* NULL: all-reduce; set on all members or on none */
    void *hook_context;
} lks_ddp_config;

/** No tensors; gradients of summed losses; buckets of 1 MiB; a replica check every 100 steps. */
LKS_API lks_ddp_config lks_ddp_config_default(void);

/** Takes parameters and gradients under its care: verifies that all members registered the same tensors and
 * settings, and gives every member rank 0's parameters and buffers.
 *
 * Collective.
 * Ownership:  the caller destroys *out before the group; on failure *out is NULL.
 * Returns:    LKS_OK; LKS_E_MISMATCH (the message says which tensor differs between which ranks, and how);
 *             LKS_E_ARG; LKS_E_NOMEM; failures of the group. The same on every member.
 */
LKS_API lks_status lks_ddp_create(const lks_ddp_config *config, lks_ddp **out) LKS_MUST_USE;

/** Not collective. NULL is fine. Within a step: waits for what has been posted, unless the group has failed.
 */
LKS_API void lks_ddp_destroy(lks_ddp *ddp);

/** The gradient array of a tensor; NULL for a tensor that does not exist. Where the caller brought none, it
 * is zeroed memory of the group that lives as long as the handle: all gradients lie there one behind the
 * other, so that no bucket has to be copied. */
LKS_API float *lks_ddp_grad(const lks_ddp *ddp, int tensor);

/** Says that this member's gradient of a tensor is complete. It must not be touched until lks_ddp_wait
 * returns. Any order, another one on each member.
 *
 * Posts buckets that have become complete, in their agreed order, and works on those that are under way as
 * far as that is possible without waiting (lks_request_test). Only a hook may wait in here for other members.
 * Returns: LKS_OK; LKS_E_ARG (no such tensor, or reported already; nothing changed); failures of the group.
 */
LKS_API lks_status lks_ddp_grad_ready(lks_ddp *ddp, int tensor) LKS_MUST_USE;

/** As lks_ddp_grad_ready for all tensors that have not been reported, last registered first. */
LKS_API lks_status lks_ddp_all_ready(lks_ddp *ddp) LKS_MUST_USE;

/** Ends a step. n_samples: of this member, 0 .. 2^53; other members may have other numbers.
 *
 * Afterwards the gradients are the sum over all samples of all members divided by their number, the same bits
 * on every member. (When no member had a sample they are 0.) While lks_ddp_no_sync is on, it ends a pass:
 * counts the samples, and does nothing else.
 *
 * Collective, but for passes without synchronisation.
 * Returns: LKS_OK; LKS_E_ARG for n_samples on this member, nothing changed; LKS_E_ARG when gradients were not
 * reported, and LKS_E_MISMATCH when a replica check was due and parameters differ, both on every member:
 * gradients are then undefined, and the next step may begin; failures of the group.
 */
LKS_API lks_status lks_ddp_wait(lks_ddp *ddp, int64_t n_samples) LKS_MUST_USE;

/** Passes without synchronisation, for accumulation: while on, gradients that are reported are not reduced,
 * and the caller adds the next pass's gradients to those in the arrays. lks_ddp_wait after it has been
 * switched off counts the samples of all passes since the last step. Members need not have equally many
 * passes. Passes of LKS_DDP_MEANS must have equally many samples on a member: only then is a sum of means a
 * multiple of the mean.
 *
 * Returns: LKS_OK; LKS_E_ARG within a pass (something has been reported; nothing changed).
 */
LKS_API lks_status lks_ddp_no_sync(lks_ddp *ddp, bool on) LKS_MUST_USE;

/** A step of a member that has no batch left: it takes part with zero samples, until no member has a batch.
 *
 *     while ((status = lks_ddp_join(ddp, &more)) == LKS_OK && more)
 *         parameters -= rate * gradients
 *
 * *more: some member had a batch in this step; the gradients are the mean over its samples, and the
 * parameters have to be updated as there. false, on all members in the same call: all have joined.
 * Collective: beside lks_ddp_wait or lks_ddp_join of the other members.
 * Returns: as lks_ddp_wait; LKS_E_ARG within a pass, or when passes without synchronisation have not been
 * reduced (lks_ddp_wait(ddp, 0) does that).
 */
LKS_API lks_status lks_ddp_join(lks_ddp *ddp, bool *more) LKS_MUST_USE;

/** Compares the parameters of all members now, by a hash of each tensor.
 *
 * Collective, between steps. Returns: LKS_OK; LKS_E_ARG within a pass; LKS_E_MISMATCH on every member: the
 * message names the first rank and tensor that differ from rank 0's; failures of the group.
 */
LKS_API lks_status lks_ddp_check_replicas(lks_ddp *ddp) LKS_MUST_USE;

/** Gives every member rank 0's buffers once more. Collective, between steps. Returns: LKS_OK; LKS_E_ARG
 * within a pass; failures of the group. */
LKS_API lks_status lks_ddp_broadcast_buffers(lks_ddp *ddp) LKS_MUST_USE;

/** Whether any member reported the tensor's gradient in the last step. One that nobody used has a gradient of
 * 0; an optimizer with momentum or decay may want to leave its parameter alone. */
LKS_API bool lks_ddp_used(const lks_ddp *ddp, int tensor);

typedef struct lks_ddp_info {
    int64_t steps;   /* ended together so far, those without samples too */
    int64_t samples; /* of the last step, over all members */
    int n_joined;    /* members that took part in the last step by lks_ddp_join */
    int n_buckets;
    int64_t grad_elems;   /* reduced in a step */
    int64_t copied_elems; /* of them copied into a bucket and back: those of buckets with several tensors
                             whose gradients do not lie one behind the other */
} lks_ddp_info;

LKS_API void lks_ddp_get_info(const lks_ddp *ddp, lks_ddp_info *out);

/** The bucket of a tensor; -1 for a tensor that does not exist. */
LKS_API int lks_ddp_bucket_of(const lks_ddp *ddp, int tensor);

LKS_END_DECLS

#endif
