/* SPDX-License-Identifier: Apache-2.0 */
/** lks_ddp from the inside: what its files do for each other. The README says how they fit together. */
#ifndef LKS_DDP_DDP_PARTS_H
#define LKS_DDP_DDP_PARTS_H

#include <lockstep/ddp.h>

typedef struct lks__ddp_tensor {
    lks_ddp_tensor is; /* the name is a copy */
    int bucket;
    bool reported; /* in this pass */
    bool touched;  /* in an earlier pass of this step, without synchronisation */
    bool used;     /* in the last step, by any member */
} lks__ddp_tensor;

typedef struct lks__bucket {
    lks_ddp_bucket is;
    bool is_view;         /* data are the caller's gradients; else a place in the staging memory */
    int n_missing;        /* gradients that have not been reported */
    lks_request *request; /* its all-reduce, made once; NULL: a hook does the work */
} lks__bucket;

/** What members tell each other at the end of a step, as sums over members; behind it, for each tensor, how
 * many members used it. */
typedef enum lks__ddp_word {
    LKS__DDP_SAMPLES,
    LKS__DDP_JOINED,     /* members without a batch */
    LKS__DDP_UNREPORTED, /* members that refuse the step for gradients that were not reported */
    LKS__DDP_ORDER,      /* 1: rank 0 has seen an order in which gradients become ready */
    LKS__DDP_WORDS
} lks__ddp_word;

struct lks_ddp {
    lks_group *group;
    int rank, size;
    lks_ddp_gradients gradients;
    lks_ddp_unused unused;
    int64_t bucket_bytes, check_every;
    bool has_hook;      /* what the config says */
    lks_ddp_hook *hook; /* NULL: buckets are posted */
    void *hook_context;
    bool is_bf16; /* what is posted are bf16 */

    int n_tensors, n_buffers;
    lks__ddp_tensor *tensors;    /* [n_tensors] */
    lks_ddp_buffer *buffers;     /* [n_buffers]; names are copies */
    lks_group_memory *own_grads; /* NULL: the caller brought gradients */

    /* buckets: equal on all members but for is_view and data */
    int n_buckets;
    lks__bucket *buckets;      /* [n_tensors], of which n_buckets are in use */
    int32_t *order;            /* [n_tensors]: in which gradients are expected to become ready */
    int32_t *placed;           /* [n_tensors]: the tensors of bucket 0, 1, ..., each ascending */
    lks_group_memory *staging; /* of buckets that are no views; NULL: none needed so far */
    size_t staging_bytes;      /* of this member */
    bool rebuilt;              /* the order is the observed one */

    /* the step that is under way */
    int next_bucket;   /* the first one that has not been posted, or given to the hook */
    int n_done;        /* buckets that are known to be reduced */
    int32_t *observed; /* [n_tensors]: the order of reports */
    int n_observed;
    bool no_sync;
    int n_passes;         /* that have ended since the last step, without synchronisation */
    int64_t own_samples;  /* of the passes so far */
    int64_t pass_samples; /* of the last pass that had some; 0: there was none yet */

    int64_t *words;    /* [LKS__DDP_WORDS + n_tensors] */
    uint64_t *hashes;  /* [2, n_tensors]: own, rank 0's */
    lks_ddp_info info; /* but for what is counted on demand */

    lks_status failure; /* LKS_OK, or what has ended it: a step could not be completed */
    char failure_text[1024];
};

/** "tensor 3 (fc1.bias)". Returns out. */
enum { LKS__TENSOR_TEXT_BYTES = 160 };
const char *lks__ddp_tensor_text(const lks_ddp *ddp, int tensor, char out[LKS__TENSOR_TEXT_BYTES]);

/** Keeps the failure: every further call returns it. */
lks_status lks__ddp_end(lks_ddp *ddp, lks_status status) LKS_MUST_USE;

/** Returns: LKS_OK, or the failure that has ended it. */
lks_status lks__ddp_alive(const lks_ddp *ddp) LKS_MUST_USE;

/** As lks__ddp_alive; LKS_E_ARG when something has been reported since the last pass: `call` comes too early
 * or too late. */
lks_status lks__ddp_between_passes(const lks_ddp *ddp, const char *call) LKS_MUST_USE;

/** Compares the copies of the parameters. Collective. Returns: as lks_ddp_check_replicas. */
lks_status lks__ddp_compare_replicas(lks_ddp *ddp) LKS_MUST_USE;

/** Compares tensors, buffers and settings with rank 0's. Collective. Returns: as lks_ddp_create. */
lks_status lks__ddp_verify(lks_ddp *ddp) LKS_MUST_USE;

/** Cuts ddp->order into buckets, finds them places and makes their requests; staging memory is made when a
 * member needs (more of) it.
 *
 * Collective; the same result on every member. On failure the handle can only be destroyed.
 */
lks_status lks__ddp_build_buckets(lks_ddp *ddp) LKS_MUST_USE;

/** Before the memory that they use. One that is posted is waited for. */
void lks__ddp_destroy_requests(lks_ddp *ddp);

/** Buckets as they are before a pass: nothing reported, nothing reduced. */
void lks__ddp_reset_buckets(lks_ddp *ddp);

/** Puts gradients times weight into the bucket's data, as bf16 if that is what travels; weight 0 puts zeros,
 * whatever the gradients are. */
void lks__ddp_fill_bucket(lks_ddp *ddp, const lks__bucket *bucket, float weight);

/** Divides the bucket's sums and puts them where the gradients belong. */
void lks__ddp_empty_bucket(lks_ddp *ddp, const lks__bucket *bucket, float divisor);

/** f32 to bf16 in the first half of the same memory, and back. */
void lks__ddp_pack(float *data, size_t n);
void lks__ddp_unpack(float *data, size_t n);

#endif
