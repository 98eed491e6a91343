/* SPDX-License-Identifier: Apache-2.0 */
/* A step of lks_ddp. Every member makes the same collectives in the same order, whatever its own order of
 * reports: buckets 0, 1, ..., then one exchange of words, then what the words say is due. */
#include <lockstep/ddp.h>

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "comm/agree.h"
#include "ddp/ddp_parts.h"

static const int64_t most_samples = (int64_t)1 << 53; /* sums over 256 members stay below 2^63 */

/* ---- reports ---- */

/* What the gradients are multiplied with before they are added up. */
static float weight_of(const lks_ddp *ddp)
{
    return ddp->gradients == LKS_DDP_SUMS ? 1.0f : (float)ddp->pass_samples;
}

/* Puts before a failure's message which gradients it was about. */
static lks_status about(const lks_ddp *ddp, const lks__bucket *bucket, lks_status status)
{
    char text[LKS__TENSOR_TEXT_BYTES];
    return lks__error_prefix(status, "lks_ddp: step %lld, bucket %d of %d, which begins with %s",
                             (long long)ddp->info.steps + 1, bucket->is.index + 1, ddp->n_buckets,
                             lks__ddp_tensor_text(ddp, bucket->is.tensors[0], text));
}

static lks_status start_bucket(lks_ddp *ddp, const lks__bucket *bucket)
{
    lks__ddp_fill_bucket(ddp, bucket, weight_of(ddp));
    lks_status status = ddp->hook != NULL ? ddp->hook(ddp->hook_context, ddp->group, &bucket->is)
                                          : lks_request_post(bucket->request);
    return status == LKS_OK ? LKS_OK : about(ddp, bucket, status);
}

/* Buckets that are complete, up to the first that is not. */
static lks_status start_complete(lks_ddp *ddp)
{
    lks_status status = LKS_OK;
    while (status == LKS_OK && ddp->next_bucket < ddp->n_buckets &&
           ddp->buckets[ddp->next_bucket].n_missing == 0)
        status = start_bucket(ddp, &ddp->buckets[ddp->next_bucket++]);
    return status;
}

/* Works on what has been posted; waits: until all of it is done. */
static lks_status finish_started(lks_ddp *ddp, bool waits)
{
    for (; ddp->n_done < ddp->next_bucket; ddp->n_done++) {
        lks__bucket *bucket = &ddp->buckets[ddp->n_done];
        if (bucket->request == NULL) /* the hook has done it */
            continue;
        lks_status status = waits ? lks_request_wait(bucket->request) : lks_request_test(bucket->request);
        if (status == LKS_IN_PROGRESS)
            break;
        if (status != LKS_OK)
            return about(ddp, bucket, status);
    }
    return LKS_OK;
}

static lks_status reduce_complete(lks_ddp *ddp, bool waits)
{
    lks_status status = start_complete(ddp);
    if (status == LKS_OK)
        status = finish_started(ddp, waits);
    return lks__ddp_end(ddp, status);
}

lks_status lks_ddp_grad_ready(lks_ddp *ddp, int tensor)
{
    lks_status status = lks__ddp_alive(ddp);
    if (status != LKS_OK)
        return status;
    if (tensor < 0 || tensor >= ddp->n_tensors)
        return lks__fail(LKS_E_ARG, "lks_ddp_grad_ready: there is no tensor %d; 0 to %d are registered",
                         tensor, ddp->n_tensors - 1);
    lks__ddp_tensor *t = &ddp->tensors[tensor];
    if (t->reported) {
        char text[LKS__TENSOR_TEXT_BYTES];
        status = lks__fail(LKS_E_ARG, "lks_ddp_grad_ready: %s is reported a second time",
                           lks__ddp_tensor_text(ddp, tensor, text));
        return lks__error_hint(status, "lks_ddp_wait ends a step, or a pass of lks_ddp_no_sync");
    }
    t->reported = true;
    ddp->observed[ddp->n_observed++] = tensor;
    ddp->buckets[t->bucket].n_missing--;
    bool waits = ddp->no_sync || ddp->gradients == LKS_DDP_MEANS;
    return waits ? LKS_OK : reduce_complete(ddp, false);
}

lks_status lks_ddp_all_ready(lks_ddp *ddp)
{
    lks_status status = lks__ddp_alive(ddp);
    for (int i = ddp->n_tensors - 1; i >= 0 && status == LKS_OK; i--)
        if (!ddp->tensors[i].reported)
            status = lks_ddp_grad_ready(ddp, i);
    return status;
}

/* ---- passes without synchronisation ---- */

lks_status lks_ddp_no_sync(lks_ddp *ddp, bool on)
{
    lks_status status = lks__ddp_between_passes(ddp, "lks_ddp_no_sync");
    if (status == LKS_OK)
        ddp->no_sync = on;
    return status;
}

static lks_status check_samples(const lks_ddp *ddp, int64_t n_samples)
{
    if (n_samples < 0 || n_samples > most_samples - ddp->own_samples)
        return lks__fail(LKS_E_ARG, "lks_ddp_wait: %lld samples; 0 to 2^53 in a step are allowed",
                         (long long)n_samples);
    if (ddp->gradients == LKS_DDP_MEANS && n_samples > 0 && ddp->pass_samples > 0 &&
        n_samples != ddp->pass_samples) {
        lks_status status = lks__fail(
            LKS_E_ARG,
            "lks_ddp_wait: a pass of %lld samples after one of %lld: a sum of their means is no mean",
            (long long)n_samples, (long long)ddp->pass_samples);
        return lks__error_hint(status, "let the gradients be those of summed losses: LKS_DDP_SUMS");
    }
    return LKS_OK;
}

static void end_pass(lks_ddp *ddp)
{
    for (int i = 0; i < ddp->n_tensors; i++)
        ddp->tensors[i].touched |= ddp->tensors[i].reported;
    ddp->n_passes++;
    lks__ddp_reset_buckets(ddp);
}

/* ---- the end of a step ---- */

static bool has_gradient(const lks__ddp_tensor *tensor)
{
    return tensor->reported || tensor->touched;
}

/* A member's part of what it has no gradient of is zeros; nothing is missing after that. */
static void complete_buckets(lks_ddp *ddp)
{
    for (int i = 0; i < ddp->n_tensors; i++) {
        const lks_ddp_tensor *tensor = &ddp->tensors[i].is;
        if (!has_gradient(&ddp->tensors[i]) && tensor->n_elems > 0)
            memset(tensor->grad, 0, (size_t)tensor->n_elems * sizeof(float));
    }
    for (int b = 0; b < ddp->n_buckets; b++)
        ddp->buckets[b].n_missing = 0;
}

static int count_unreported(const lks_ddp *ddp)
{
    int n = 0;
    for (int i = 0; i < ddp->n_tensors; i++)
        n += !has_gradient(&ddp->tensors[i]);
    return n;
}

static lks_status exchange_words(lks_ddp *ddp, bool joins)
{
    bool refuses = !joins && ddp->unused == LKS_DDP_UNUSED_REFUSED && count_unreported(ddp) > 0;
    ddp->words[LKS__DDP_SAMPLES] = ddp->own_samples;
    ddp->words[LKS__DDP_JOINED] = joins;
    ddp->words[LKS__DDP_UNREPORTED] = refuses;
    ddp->words[LKS__DDP_ORDER] = ddp->rank == 0 && ddp->n_observed > 0;
    for (int i = 0; i < ddp->n_tensors; i++)
        ddp->words[LKS__DDP_WORDS + i] = has_gradient(&ddp->tensors[i]);
    lks_status status = lks_group_all_reduce(
        ddp->group, ddp->words, (size_t)LKS__DDP_WORDS + (size_t)ddp->n_tensors, LKS_I64, LKS_SUM);
    return lks__ddp_end(ddp, status);
}

/* The first names of what was not reported here. LKS_OK: everything was, or this member joined. */
static lks_status name_unreported(const lks_ddp *ddp, bool joins)
{
    enum { MOST_NAMES = 8 };
    int n = joins ? 0 : count_unreported(ddp), named = 0;
    if (n == 0)
        return LKS_OK;
    char names[1024] = "", text[LKS__TENSOR_TEXT_BYTES];
    for (int i = 0; i < ddp->n_tensors && named < MOST_NAMES; i++)
        if (!has_gradient(&ddp->tensors[i]))
            lks__append(names, sizeof names, "%s%s", named++ > 0 ? ", " : "",
                        lks__ddp_tensor_text(ddp, i, text));
    if (n > named)
        lks__append(names, sizeof names, " and %d more", n - named);
    lks_status status = lks__fail(LKS_E_ARG,
                                  "lks_ddp_wait: on rank %d %d of %d gradients were not reported: %s",
                                  ddp->rank, n, ddp->n_tensors, names);
    return lks__error_hint(status,
                           "call lks_ddp_grad_ready for each, or set unused to LKS_DDP_UNUSED_ZERO if "
                           "steps may leave tensors unused");
}

/* Buckets after the first step whose order rank 0 has seen: in that order, and behind it what it did not
 * report. */
static lks_status rebuild(lks_ddp *ddp)
{
    if (ddp->rank == 0) {
        int n = ddp->n_observed;
        for (int i = ddp->n_tensors - 1; i >= 0; i--)
            if (!ddp->tensors[i].reported)
                ddp->observed[n++] = i;
        memcpy(ddp->order, ddp->observed, (size_t)n * sizeof ddp->order[0]);
    }
    lks_status status = lks_group_broadcast(ddp->group, ddp->order, (size_t)ddp->n_tensors, LKS_I32, 0);
    if (status == LKS_OK)
        status = lks__ddp_build_buckets(ddp);
    ddp->rebuilt = true;
    return lks__ddp_end(ddp, status);
}

static void take_words(lks_ddp *ddp)
{
    ddp->info.samples = ddp->words[LKS__DDP_SAMPLES];
    ddp->info.n_joined = (int)ddp->words[LKS__DDP_JOINED];
    ddp->info.steps += ddp->info.n_joined < ddp->size;
    for (int i = 0; i < ddp->n_tensors; i++)
        ddp->tensors[i].used = ddp->words[LKS__DDP_WORDS + i] > 0;
}

/* With a total of 0 all gradients are zeros already. */
static void hand_out(lks_ddp *ddp)
{
    float divisor = ddp->info.samples > 0 ? (float)ddp->info.samples : 1.0f;
    for (int b = 0; b < ddp->n_buckets; b++)
        lks__ddp_empty_bucket(ddp, &ddp->buckets[b], divisor);
}

/* After the reduction: what the words say. */
static lks_status conclude(lks_ddp *ddp, bool joins)
{
    take_words(ddp);
    if (ddp->words[LKS__DDP_UNREPORTED] > 0)
        return lks__agree(ddp->group, name_unreported(ddp, joins));
    hand_out(ddp);
    if (ddp->words[LKS__DDP_ORDER] > 0 && !ddp->rebuilt) {
        lks_status status = rebuild(ddp);
        if (status != LKS_OK)
            return status;
    }
    bool due = ddp->check_every > 0 && ddp->info.n_joined < ddp->size &&
               ddp->info.steps % ddp->check_every == 0;
    return due ? lks__ddp_compare_replicas(ddp) : LKS_OK;
}

static lks_status end_step(lks_ddp *ddp, bool joins)
{
    complete_buckets(ddp);
    lks_status status = reduce_complete(ddp, true);
    if (status == LKS_OK)
        status = exchange_words(ddp, joins);
    if (status == LKS_OK)
        status = conclude(ddp, joins);
    for (int i = 0; i < ddp->n_tensors; i++)
        ddp->tensors[i].touched = false;
    ddp->n_passes = 0;
    ddp->own_samples = ddp->pass_samples = 0;
    lks__ddp_reset_buckets(ddp);
    return status;
}

lks_status lks_ddp_wait(lks_ddp *ddp, int64_t n_samples)
{
    lks_status status = lks__ddp_alive(ddp);
    if (status == LKS_OK)
        status = check_samples(ddp, n_samples);
    if (status != LKS_OK)
        return status;
    ddp->own_samples += n_samples;
    if (n_samples > 0)
        ddp->pass_samples = n_samples;
    if (!ddp->no_sync)
        return end_step(ddp, false);
    end_pass(ddp);
    return LKS_OK;
}

lks_status lks_ddp_join(lks_ddp *ddp, bool *more)
{
    lks_status status = lks__ddp_between_passes(ddp, "lks_ddp_join");
    if (status == LKS_OK && ddp->n_passes > 0) {
        status = lks__fail(LKS_E_ARG, "lks_ddp_join: %d pass%s without synchronisation %s not reduced yet",
                           ddp->n_passes, ddp->n_passes == 1 ? "" : "es", ddp->n_passes == 1 ? "is" : "are");
        return lks__error_hint(status, "switch lks_ddp_no_sync off and call lks_ddp_wait(ddp, 0) first");
    }
    if (status == LKS_OK)
        status = end_step(ddp, true);
    if (status == LKS_OK)
        *more = ddp->info.n_joined < ddp->size;
    return status;
}
