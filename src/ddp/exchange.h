/* SPDX-License-Identifier: Apache-2.0 */
/** What the members of a group on several machines exchange in a step: the sum of their gradients, in
 * buckets, in place, and beside it what each tells the others. The reducer's part of the road between
 * machines; README.md says how the two go together.
 *
 * Buckets are runs of whole tensors from the last to the first, as backward finishes them. Each is a request
 * that is made once, and posted as soon as its gradients are final, so that it travels while backward goes
 * on.
 *
 * Thread: that of its member.
 */
#ifndef LKS_DDP_EXCHANGE_H
#define LKS_DDP_EXCHANGE_H

#include <stdbool.h>
#include <stdint.h>

#include <lockstep/group.h>
#include <lockstep/status.h>

#include "ddp/reducer.h"

typedef struct lks__exchange lks__exchange;

/** Equal on all members, but for handle and addresses. */
typedef struct lks__exchange_config {
    lks_group *group; /* borrowed until destroy */
    float *arena;     /* the sums over the own leaves, and after finish those over all members; borrowed */
    int n_tensors;
    const lks__span *tensors; /* in ascending order; not kept */
    int64_t bucket_bytes;     /* a bucket is closed when it has so many, or the first tensor */
    const void *own_words;    /* [word_bytes]: what this member tells; borrowed */
    void *words;              /* [size, word_bytes]: what all tell, after finish; borrowed */
    size_t word_bytes;
} lks__exchange_config;

/** Not collective. Ownership: the caller destroys *out, before the group and what is borrowed; on failure
 * NULL. Returns: LKS_OK; LKS_E_NOMEM. */
lks_status lks__exchange_create(const lks__exchange_config *config, lks__exchange **out) LKS_MUST_USE;

/** Buckets that are under way are waited for. */
void lks__exchange_destroy(lks__exchange *exchange);

/** Whether the step's next bucket can be posted: its tensors are all among those from `first_final` on. *out:
 * its place in the arena. */
bool lks__exchange_next(const lks__exchange *exchange, int first_final, lks__span *out);

/** Posts that bucket, and goes on with what is under way as far as that takes no waiting. Returns: LKS_OK;
 * failures of the group, which finish returns as well. */
lks_status lks__exchange_post(lks__exchange *exchange) LKS_MUST_USE;

/** Behind the last bucket: posts the words, and waits until all has come.
 *
 * Collective. Returns: LKS_OK; failures of the group. */
lks_status lks__exchange_finish(lks__exchange *exchange) LKS_MUST_USE;

/** Since it was created, in ns. */
typedef struct lks__exchange_times {
    int64_t under_way; /* that some bucket was, as far as this member has seen: from its post to the call that
                          found it done */
    int64_t exposed;   /* of it, in finish */
} lks__exchange_times;

lks__exchange_times lks__exchange_get_times(const lks__exchange *exchange);

#endif
