/* SPDX-License-Identifier: Apache-2.0 */
/* Hooks instead of the all-reduce: one of the test's own, one that fails, and bf16. */
#include "ddp_model.h"

static float part_of_all(const void *context, int step, int rank, int tensor, int64_t elem)
{
    (void)context;
    return gradient(step, rank, tensor, elem);
}

static lks_status report(const member *self, model *m, int step)
{
    lks_status status = LKS_OK;
    int order[N_TENSORS];
    shuffled((uint32_t)(step * 100 + self->rank), order);
    for (int i = 0; i < N_TENSORS && status == LKS_OK; i++) {
        for (int64_t e = 0; e < model_sizes[order[i]]; e++)
            lks_ddp_grad(m->ddp, order[i])[e] = gradient(step, self->rank, order[i], e);
        status = lks_ddp_grad_ready(m->ddp, order[i]);
    }
    return status;
}

/* ---- a hook of one's own ---- */

typedef struct seen {
    int calls;
    int64_t elems;
    bool tensors[N_TENSORS];
    bool wrong;
    int fails_at; /* the call that returns a failure; 0: none */
} seen;

static lks_status counting_hook(void *context, lks_group *group, const lks_ddp_bucket *bucket)
{
    seen *s = context;
    int64_t elems = 0;
    s->wrong |= bucket->index != s->calls % bucket->n_buckets;
    for (int i = 0; i < bucket->n_tensors; i++) {
        elems += model_sizes[bucket->tensors[i]];
        s->tensors[bucket->tensors[i]] = true;
        s->wrong |= i > 0 && bucket->tensors[i] <= bucket->tensors[i - 1];
    }
    s->wrong |= elems != bucket->n_elems;
    s->elems += elems;
    if (++s->calls == s->fails_at)
        return LKS_E_UNSUPPORTED;
    return lks_group_all_reduce(group, bucket->data, (size_t)bucket->n_elems, LKS_F32, LKS_SUM);
}

static void own_hook_body(member *self)
{
    seen s = {0};
    model *m = new_model(SCATTERED);
    lks_ddp_config config = model_config(self, m);
    config.bucket_bytes = 1000;
    config.hook = counting_hook;
    config.hook_context = &s;
    EXPECT_OK(self, lks_ddp_create(&config, &m->ddp));
    for (int step = 0; step < 3; step++) {
        s = (seen){0};
        EXPECT_OK(self, report(self, m, step));
        EXPECT_OK(self, lks_ddp_wait(m->ddp, 3));
        if (!means_are_right(self, m, step, 3 * self->size, part_of_all, NULL))
            return;
        EXPECT(self, !s.wrong && s.elems == MODEL_ELEMS, "buckets of %lld elements", (long long)s.elems);
        for (int t = 0; t < N_TENSORS; t++)
            EXPECT(self, s.tensors[t], "tensor %d was in no bucket", t);
    }
    free_model(m);
}

static void a_hook_sees_every_tensor_once_in_the_agreed_order(void **state)
{
    (void)state;
    members_run(AS_THREADS, 1, own_hook_body, NULL);
    members_run(AS_THREADS, 3, own_hook_body, NULL);
    members_run(AS_THREADS, 8, own_hook_body, NULL);
}

static void failing_hook_body(member *self)
{
    seen s = {.fails_at = 2};
    model *m = new_model(SCATTERED);
    lks_ddp_config config = model_config(self, m);
    config.bucket_bytes = 1000;
    config.hook = counting_hook;
    config.hook_context = &s;
    EXPECT_OK(self, lks_ddp_create(&config, &m->ddp));
    lks_status status = lks_ddp_all_ready(m->ddp);
    EXPECT(self, status == LKS_E_UNSUPPORTED, "%s", lks_status_name(status));
    EXPECT_FAILS(self, lks_ddp_wait(m->ddp, 1), LKS_E_UNSUPPORTED, "step 1, bucket 2 of ");
    EXPECT(self, s.calls == 2, "%d calls after a failure", s.calls);
    free_model(m);
}

static void a_failure_of_a_hook_ends_the_handle(void **state)
{
    (void)state;
    members_run(AS_THREADS, 3, failing_hook_body, NULL);
}

static void one_hook_body(member *self)
{
    model *m = new_model(SCATTERED);
    lks_ddp_config config = model_config(self, m);
    config.hook = self->rank == 2 ? lks_ddp_bf16_hook : NULL;
    EXPECT_FAILS(self, lks_ddp_create(&config, &m->ddp), LKS_E_MISMATCH,
                 "hook (0: none) is 0 on rank 0, but 1 on rank 2");
    free_model(m);
}

static void a_hook_on_some_members_only_is_refused(void **state)
{
    (void)state;
    members_run(AS_THREADS, 3, one_hook_body, NULL);
}

/* ---- bf16 ---- */

/* To the nearest multiple of the spacing of bf16 numbers, by arithmetic: 8 significant bits. The gradients
 * are far from the ends of the range. */
static double rounded(double x)
{
    int exponent;
    frexp(x, &exponent);
    return x == 0 ? 0 : ldexp(rint(ldexp(x, 8 - exponent)), exponent - 8);
}

/* Not known as lockstep's, and so called. */
static lks_status wrapped_bf16(void *context, lks_group *group, const lks_ddp_bucket *bucket)
{
    return lks_ddp_bf16_hook(context, group, bucket);
}

typedef struct bf16_setting {
    layout how;
    lks_ddp_hook *hook;
} bf16_setting;

static void bf16_body(member *self)
{
    const bf16_setting *s = self->context;
    model *m = new_model(s->how);
    lks_ddp_config config = model_config(self, m);
    config.hook = s->hook;
    EXPECT_OK(self, lks_ddp_create(&config, &m->ddp));
    for (int step = 0; step < 2; step++) {
        EXPECT_OK(self, report(self, m, step));
        EXPECT_OK(self, lks_ddp_wait(m->ddp, 1));
        for (int t = 0; t < N_TENSORS; t++)
            for (int64_t e = 0; e < model_sizes[t]; e++) {
                float parts[MAX_MEMBERS];
                double exact = 0, absolute = 0;
                for (int r = 0; r < self->size; r++) {
                    float g = gradient(step, r, t, e);
                    parts[r] = self->size > 1 ? (float)rounded((double)g) : g;
                    exact += (double)g;
                    absolute += fabs((double)g);
                }
                float sum = tree_sum(parts, 0, self->size), got = lks_ddp_grad(m->ddp, t)[e];
                float wanted = (self->size > 1 ? (float)rounded((double)sum) : sum) / (float)self->size;
                EXPECT(self, got == wanted, "tensor %d, element %lld: %.9g, wanted %.9g", t, (long long)e,
                       (double)got, (double)wanted);
                /* the documented bound; the terms of 2^-16: the second rounding is one of rounded numbers */
                double bound = 0x1p-8 * (absolute + fabs(exact)) * (1 + 0x1p-8);
                EXPECT(self, fabs((double)got * self->size - exact) <= bound,
                       "tensor %d, element %lld: %.9g, exactly %.17g", t, (long long)e,
                       (double)got * self->size, exact);
            }
    }
    free_model(m);
}

static void bf16_halves_the_bytes_and_keeps_to_its_bound(void **state)
{
    (void)state;
    static const int sizes[] = {1, 2, 3, 5, 8};
    for (int i = 0; i < 5; i++)
        for (int how = 0; how < N_LAYOUTS; how++)
            for (int wrapped = 0; wrapped < 2; wrapped++) {
                bf16_setting s = {(layout)how, wrapped ? wrapped_bf16 : lks_ddp_bf16_hook};
                members_run(AS_THREADS, sizes[i], bf16_body, &s);
            }
    members_run(AS_PROCESSES, 3, bf16_body, &(bf16_setting){LENT, lks_ddp_bf16_hook});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hook_sees_every_tensor_once_in_the_agreed_order),
        cmocka_unit_test(a_failure_of_a_hook_ends_the_handle),
        cmocka_unit_test(a_hook_on_some_members_only_is_refused),
        cmocka_unit_test(bf16_halves_the_bytes_and_keeps_to_its_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
