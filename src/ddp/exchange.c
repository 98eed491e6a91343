/* SPDX-License-Identifier: Apache-2.0 */
#include "ddp/exchange.h"

#include "base/alloc.h"
#include "base/machine.h"

typedef struct bucket {
    lks__span span;
    int first_tensor; /* the lowest, which backward comes to last */
    lks_request *request;
} bucket;

struct lks__exchange {
    lks_group *group;
    int n_buckets;
    bucket *buckets; /* [n_buckets], from the arena's end to its start */
    lks_request *words;
    int n_posted, n_done; /* buckets of this step; those done are the first n_done */
    int64_t began_ns;     /* when a bucket was posted while none was under way */
    lks__exchange_times times;
};

/* Puts a tensor into the open bucket, or into a new one; tensors come last first. */
static void add_tensor(lks__exchange *x, const lks__exchange_config *config, int tensor)
{
    const lks__span *span = &config->tensors[tensor];
    bucket *open = x->n_buckets > 0 ? &x->buckets[x->n_buckets - 1] : NULL;
    if (open == NULL || open->span.n_elems * (int64_t)sizeof(float) >= config->bucket_bytes) {
        open = &x->buckets[x->n_buckets++];
        open->span = (lks__span){span->offset_elems + span->n_elems, 0};
    }
    open->span.n_elems += open->span.offset_elems - span->offset_elems; /* with what lies between two */
    open->span.offset_elems = span->offset_elems;
    open->first_tensor = tensor;
}

static lks_status make_requests(lks__exchange *x, const lks__exchange_config *config)
{
    lks_status status = LKS_OK;
    for (int b = 0; b < x->n_buckets && status == LKS_OK; b++) {
        float *data = config->arena + x->buckets[b].span.offset_elems;
        const lks_operation sum = {.collective = LKS_ALL_REDUCE,
                                   .dtype = LKS_F32,
                                   .op = LKS_SUM,
                                   .count = (size_t)x->buckets[b].span.n_elems,
                                   .in = data,
                                   .out = data};
        status = lks_request_create(x->group, &sum, &x->buckets[b].request);
    }
    const lks_operation words = {.collective = LKS_ALL_GATHER,
                                 .dtype = LKS_U8,
                                 .count = config->word_bytes,
                                 .in = config->own_words,
                                 .out = config->words};
    return status == LKS_OK ? lks_request_create(x->group, &words, &x->words) : status;
}

lks_status lks__exchange_create(const lks__exchange_config *config, lks__exchange **out)
{
    *out = NULL;
    lks__exchange *x = lks__alloc(sizeof *x, LKS__MEM_COMM);
    if (x == NULL)
        return LKS_E_NOMEM;
    x->group = config->group;
    x->buckets = lks__alloc_array(config->n_tensors, sizeof *x->buckets, LKS__MEM_COMM);
    lks_status status = x->buckets == NULL ? LKS_E_NOMEM : LKS_OK;
    for (int i = config->n_tensors - 1; i >= 0 && status == LKS_OK; i--)
        add_tensor(x, config, i);
    if (status == LKS_OK)
        status = make_requests(x, config);
    if (status != LKS_OK) {
        lks__exchange_destroy(x);
        return status;
    }
    *out = x;
    return LKS_OK;
}

void lks__exchange_destroy(lks__exchange *x)
{
    if (x == NULL)
        return;
    for (int b = 0; b < x->n_buckets; b++)
        lks_request_destroy(x->buckets[b].request);
    lks_request_destroy(x->words);
    lks__free(x->buckets);
    lks__free(x);
}

bool lks__exchange_next(const lks__exchange *x, int first_final, lks__span *out)
{
    if (x->n_posted == x->n_buckets || x->buckets[x->n_posted].first_tensor < first_final)
        return false;
    *out = x->buckets[x->n_posted].span;
    return true;
}

/* Counts the buckets that are done from the first on. */
static lks_status take_done(lks__exchange *x, lks_status (*look)(lks_request *request))
{
    lks_status status = LKS_OK;
    int before = x->n_done;
    while (status == LKS_OK && x->n_done < x->n_posted) {
        status = look(x->buckets[x->n_done].request);
        x->n_done += status == LKS_OK;
    }
    if (x->n_done == x->n_posted && x->n_done > before)
        x->times.under_way += lks__now_ns() - x->began_ns;
    return status;
}

lks_status lks__exchange_post(lks__exchange *x)
{
    lks_status status = take_done(x, lks_request_test);
    if (x->n_done == x->n_posted)
        x->began_ns = lks__now_ns();
    if (status == LKS_OK || status == LKS_IN_PROGRESS)
        status = lks_request_post(x->buckets[x->n_posted].request);
    x->n_posted += status == LKS_OK;
    return status;
}

static lks_status wait_for_buckets(lks__exchange *x)
{
    int64_t start = lks__now_ns();
    bool done = x->n_done == x->n_posted;
    lks_status status = take_done(x, lks_request_wait);
    x->times.exposed += done ? 0 : lks__now_ns() - start;
    return status;
}

lks_status lks__exchange_finish(lks__exchange *x)
{
    lks_status status = LKS_OK;
    while (status == LKS_OK && x->n_posted < x->n_buckets) /* one failed, and fails again */
        status = lks__exchange_post(x);
    if (status == LKS_OK)
        status = lks_request_post(x->words);
    if (status == LKS_OK)
        status = wait_for_buckets(x);
    if (status == LKS_OK)
        status = lks_request_wait(x->words);
    x->n_posted = x->n_done = 0;
    return status;
}

lks__exchange_times lks__exchange_get_times(const lks__exchange *x)
{
    return x->times;
}
