/* SPDX-License-Identifier: Apache-2.0 */
/* Whether all members registered the same model: rank 0 sends its listing, and the others compare. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "comm/agree.h"
#include "ddp/ddp_parts.h"

/* X(name, what it is called in messages): numbers that stand before the listing */
#define HEAD(X)                                                                                              \
    X(N_TENSORS, "number of tensors")                                                                        \
    X(N_BUFFERS, "number of buffers")                                                                        \
    X(TEXT_BYTES, "length of all names")                                                                     \
    X(GRADIENTS, "gradients (0: sums, 1: means)")                                                            \
    X(UNUSED, "unused (0: refused, 1: zero)")                                                                \
    X(BUCKET_BYTES, "bucket_bytes")                                                                          \
    X(CHECK_EVERY, "check_every")                                                                            \
    X(HOOK, "hook (0: none)")                                                                                \
    X(LENT, "gradients to be lent by lockstep (0: no)")

enum {
#define HEAD_ENUM(name, text) name,
    HEAD(HEAD_ENUM)
#undef HEAD_ENUM
        N_HEAD
};

static const char *const head_texts[N_HEAD] = {
#define HEAD_TEXT(name, text) [name] = text,
    HEAD(HEAD_TEXT)
#undef HEAD_TEXT
};

typedef struct listing {
    int64_t head[N_HEAD];
    int64_t *sizes; /* [tensors, then buffers]: elements, bytes */
    char *names;    /* [TEXT_BYTES]: same, each with its 0 */
} listing;

/* An entry of a member's list: tensors first, then buffers. name is NULL behind the end. */
typedef struct entry {
    const char *kind, *unit, *name;
    int index;
    int64_t size;
} entry;

static entry own_entry(const lks_ddp *ddp, int64_t i)
{
    if (i < ddp->n_tensors)
        return (entry){"tensor", "elements", ddp->tensors[i].is.name, (int)i, ddp->tensors[i].is.n_elems};
    int buffer = (int)(i - ddp->n_tensors);
    if (buffer < ddp->n_buffers)
        return (entry){"buffer", "bytes", ddp->buffers[buffer].name, buffer,
                       (int64_t)ddp->buffers[buffer].n_bytes};
    return (entry){.kind = "nothing"};
}

static void fill_head(const lks_ddp *ddp, int64_t head[N_HEAD])
{
    head[N_TENSORS] = ddp->n_tensors;
    head[N_BUFFERS] = ddp->n_buffers;
    head[TEXT_BYTES] = 0;
    for (int64_t i = 0; i < ddp->n_tensors + ddp->n_buffers; i++)
        head[TEXT_BYTES] += (int64_t)strlen(own_entry(ddp, i).name) + 1;
    head[GRADIENTS] = ddp->gradients;
    head[UNUSED] = ddp->unused;
    head[BUCKET_BYTES] = ddp->bucket_bytes;
    head[CHECK_EVERY] = ddp->check_every;
    head[HOOK] = ddp->has_hook;
    head[LENT] = ddp->n_tensors > 0 && ddp->tensors[0].is.grad == NULL;
}

/* Settings only: where numbers of tensors differ, the listing can say which. */
static lks_status compare_settings(const lks_ddp *ddp, const listing *l)
{
    int64_t own[N_HEAD];
    fill_head(ddp, own);
    for (int i = GRADIENTS; i < N_HEAD; i++)
        if (own[i] != l->head[i] && (i != LENT || ddp->n_tensors > 0))
            return lks__fail(LKS_E_MISMATCH, "lks_ddp: %s is %lld on rank 0, but %lld on rank %d",
                             head_texts[i], (long long)l->head[i], (long long)own[i], ddp->rank);
    return LKS_OK;
}

static lks_status allocate(listing *l)
{
    l->sizes = lks__alloc_array(l->head[N_TENSORS] + l->head[N_BUFFERS], sizeof *l->sizes, LKS__MEM_MISC);
    l->names = lks__alloc((size_t)l->head[TEXT_BYTES], LKS__MEM_MISC);
    return l->sizes != NULL && l->names != NULL ? LKS_OK : LKS_E_NOMEM;
}

static void fill_listing(const lks_ddp *ddp, listing *l)
{
    char *at = l->names;
    for (int64_t i = 0; i < ddp->n_tensors + ddp->n_buffers; i++) {
        entry own = own_entry(ddp, i);
        size_t bytes = strlen(own.name) + 1;
        l->sizes[i] = own.size;
        memcpy(at, own.name, bytes);
        at += bytes;
    }
}

/* Puts an entry into words: "tensor 3 (fc1.bias) of 10 elements". */
static const char *entry_text(entry e, char out[LKS__TENSOR_TEXT_BYTES])
{
    if (e.name == NULL)
        return e.kind;
    snprintf(out, LKS__TENSOR_TEXT_BYTES, "%s %d (%.80s) of %lld %s", e.kind, e.index, e.name,
             (long long)e.size, e.unit);
    return out;
}

static lks_status differs(const lks_ddp *ddp, const listing *l, entry own, entry other)
{
    char here[LKS__TENSOR_TEXT_BYTES], there[LKS__TENSOR_TEXT_BYTES];
    return lks__fail(LKS_E_MISMATCH,
                     "lks_ddp: the members do not have the same model: %s on rank 0, %s on rank %d (%lld and "
                     "%d tensors, %lld and %d buffers)",
                     entry_text(other, there), entry_text(own, here), ddp->rank,
                     (long long)l->head[N_TENSORS], ddp->n_tensors, (long long)l->head[N_BUFFERS],
                     ddp->n_buffers);
}

static lks_status compare_entries(const lks_ddp *ddp, const listing *l)
{
    int64_t n_tensors = l->head[N_TENSORS], n = n_tensors + l->head[N_BUFFERS];
    const char *name = l->names;
    for (int64_t i = 0; i < n; i++) {
        bool is_tensor = i < n_tensors;
        entry own = own_entry(ddp, i);
        entry other = {is_tensor ? "tensor" : "buffer", is_tensor ? "elements" : "bytes", name,
                       (int)(is_tensor ? i : i - n_tensors), l->sizes[i]};
        if (own.name == NULL || own.kind[0] != other.kind[0] || own.size != other.size ||
            strcmp(own.name, name) != 0)
            return differs(ddp, l, own, other);
        name += strlen(name) + 1;
    }
    entry more = own_entry(ddp, n);
    return more.name == NULL ? LKS_OK : differs(ddp, l, more, (entry){.kind = "nothing"});
}

static lks_status exchange(lks_ddp *ddp, listing *l)
{
    fill_head(ddp, l->head);
    lks_status status = lks_group_broadcast(ddp->group, l->head, N_HEAD, LKS_I64, 0);
    if (status != LKS_OK)
        return status;
    lks_status own = compare_settings(ddp, l);
    status = lks__agree(ddp->group, own == LKS_OK ? allocate(l) : own);
    if (status != LKS_OK)
        return status;
    if (ddp->rank == 0)
        fill_listing(ddp, l);
    size_t n = (size_t)(l->head[N_TENSORS] + l->head[N_BUFFERS]);
    status = lks_group_broadcast(ddp->group, l->sizes, n, LKS_I64, 0);
    if (status == LKS_OK)
        status = lks_group_broadcast(ddp->group, l->names, (size_t)l->head[TEXT_BYTES], LKS_U8, 0);
    return status == LKS_OK ? lks__agree(ddp->group, compare_entries(ddp, l)) : status;
}

lks_status lks__ddp_verify(lks_ddp *ddp)
{
    listing l = {.sizes = NULL};
    lks_status status = exchange(ddp, &l);
    lks__free(l.sizes);
    lks__free(l.names);
    return status;
}
