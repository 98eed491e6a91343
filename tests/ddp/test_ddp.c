/* SPDX-License-Identifier: Apache-2.0 */
/* Steps of lks_ddp against means that are added up by hand, in the documented order and in double precision.
 * Members report gradients in different random orders and have different numbers of samples. */
#include "ddp_model.h"

#include <sched.h>
#include <stdatomic.h>

#include "base/alloc.h"

static const int sizes[] = {1, 2, 3, 5, 8};
enum { N_SIZES = sizeof sizes / sizeof sizes[0] };

typedef struct setting {
    layout how;
    lks_ddp_gradients gradients;
    int64_t bucket_bytes;
} setting;

static float part_of_sum(const void *context, int step, int rank, int tensor, int64_t elem)
{
    (void)context;
    return samples_of(step, rank) > 0 ? gradient(step, rank, tensor, elem) : 0.0f;
}

/* The caller's gradient is a mean, whose weight is the member's number of samples. */
static float part_of_mean(const void *context, int step, int rank, int tensor, int64_t elem)
{
    (void)context;
    return samples_of(step, rank) > 0 ? gradient(step, rank, tensor, elem) * (float)samples_of(step, rank)
                                      : 0.0f;
}

static int64_t total_samples(int step, int size)
{
    int64_t total = 0;
    for (int r = 0; r < size; r++)
        total += samples_of(step, r);
    return total;
}

/* Writes this member's gradients and reports them in an order of its own. */
static lks_status backward(const member *self, model *m, int step, bool mean)
{
    int order[N_TENSORS];
    shuffled((uint32_t)(step * 100 + self->rank), order);
    lks_status status = LKS_OK;
    for (int i = 0; i < N_TENSORS && status == LKS_OK; i++) {
        float *grad = lks_ddp_grad(m->ddp, order[i]);
        for (int64_t e = 0; e < model_sizes[order[i]]; e++)
            if (samples_of(step, self->rank) > 0)
                grad[e] = gradient(step, self->rank, order[i], e);
            else
                grad[e] = mean ? NAN : 0.0f; /* a mean over nothing is 0 / 0 */
        status = lks_ddp_grad_ready(m->ddp, order[i]);
    }
    return status;
}

static void steps_body(member *self)
{
    const setting *s = self->context;
    model *m = new_model(s->how);
    lks_ddp_config config = model_config(self, m);
    config.gradients = s->gradients;
    config.bucket_bytes = s->bucket_bytes;
    EXPECT_OK(self, lks_ddp_create(&config, &m->ddp));
    int64_t allocations = 0;
    bool mean = s->gradients == LKS_DDP_MEANS;
    for (int step = 0; step < 5; step++) {
        EXPECT_OK(self, backward(self, m, step, mean));
        EXPECT_OK(self, lks_ddp_wait(m->ddp, samples_of(step, self->rank)));
        int64_t total = total_samples(step, self->size);
        EXPECT_OK(self, lks_group_barrier(self->group));
        if (step == 0)
            allocations = lks__alloc_count();
        if (!means_are_right(self, m, step, total, mean ? part_of_mean : part_of_sum, NULL))
            return;
        lks_ddp_info info;
        lks_ddp_get_info(m->ddp, &info);
        EXPECT(self, info.samples == total && info.steps == step + 1 && info.grad_elems == MODEL_ELEMS,
               "info: %lld samples, %lld steps", (long long)info.samples, (long long)info.steps);
    }
    EXPECT_OK(self, lks_group_barrier(self->group));
    EXPECT(self, lks__alloc_count() == allocations, "a step allocates after the first");
    EXPECT_OK(self, lks_group_barrier(self->group));
    free_model(m);
}

static void gradients_become_the_mean_over_all_samples(void **state)
{
    (void)state;
    static const int64_t bucket_bytes[] = {1, 1000, 1 << 20};
    for (int i = 0; i < N_SIZES; i++)
        for (int how = 0; how < N_LAYOUTS; how++)
            for (int b = 0; b < 3; b++)
                for (int kind = 0; kind < 2; kind++) {
                    setting s = {(layout)how, kind == 0 ? LKS_DDP_SUMS : LKS_DDP_MEANS, bucket_bytes[b]};
                    members_run(AS_THREADS, sizes[i], steps_body, &s);
                }
    setting s = {SCATTERED, LKS_DDP_SUMS, 1000};
    members_run(AS_PROCESSES, 3, steps_body, &s);
    s.how = LENT;
    members_run(AS_PROCESSES, 5, steps_body, &s);
}

/* ---- accumulation ---- */

static int passes_of(int step, int rank)
{
    return 1 + (step + rank) % 3;
}

/* Sums of all passes, in the order in which the member adds them; the samples of a pass are those of a step
 * with a number of its own. */
static float accumulated(const void *context, int step, int rank, int tensor, int64_t elem)
{
    (void)context;
    float sum = 0;
    for (int pass = 0; pass < passes_of(step, rank); pass++)
        sum += gradient(step * 10 + pass, rank, tensor, elem);
    return sum;
}

/* A pass reports all tensors but "b", which only first passes use. */
static lks_status accumulate_pass(const member *self, model *m, int step, int pass)
{
    int order[N_TENSORS];
    shuffled((uint32_t)(step * 100 + self->rank + pass), order);
    lks_status status = lks_ddp_no_sync(m->ddp, pass + 1 < passes_of(step, self->rank));
    for (int i = 0; i < N_TENSORS && status == LKS_OK; i++) {
        for (int64_t e = 0; e < model_sizes[order[i]]; e++)
            lks_ddp_grad(m->ddp, order[i])[e] += gradient(step * 10 + pass, self->rank, order[i], e);
        if (order[i] != 3 || pass == 0)
            status = lks_ddp_grad_ready(m->ddp, order[i]);
    }
    return status == LKS_OK ? lks_ddp_wait(m->ddp, 1 + pass) : status;
}

static void accumulation_body(member *self)
{
    model *m = new_model(SCATTERED);
    lks_ddp_config config = model_config(self, m);
    config.bucket_bytes = 1000;
    EXPECT_OK(self, lks_ddp_create(&config, &m->ddp));
    for (int step = 0; step < 4; step++) {
        int64_t total = 0;
        for (int r = 0; r < self->size; r++)
            total += passes_of(step, r) * (passes_of(step, r) + 1) / 2;
        memset(m->grads, 0, sizeof m->grads);
        for (int pass = 0; pass < passes_of(step, self->rank); pass++)
            EXPECT_OK(self, accumulate_pass(self, m, step, pass));
        if (!means_are_right(self, m, step, total, accumulated, NULL))
            return;
    }
    free_model(m);
}

static void passes_without_synchronisation_are_added_up(void **state)
{
    (void)state;
    for (int i = 0; i < N_SIZES; i++)
        members_run(AS_THREADS, sizes[i], accumulation_body, NULL);
}

/* Passes of means, equally many samples in each: their sum weighs as much as one of them. */
static float accumulated_means(const void *context, int step, int rank, int tensor, int64_t elem)
{
    return accumulated(context, step, rank, tensor, elem) * (float)(2 + rank);
}

static void accumulated_means_body(member *self)
{
    model *m = new_model(LENT);
    lks_ddp_config config = model_config(self, m);
    config.gradients = LKS_DDP_MEANS;
    EXPECT_OK(self, lks_ddp_create(&config, &m->ddp));
    for (int step = 0; step < 3; step++) {
        int64_t total = 0;
        for (int r = 0; r < self->size; r++)
            total += passes_of(step, r) * (2 + r);
        for (int t = 0; t < N_TENSORS; t++)
            for (int64_t e = 0; e < model_sizes[t]; e++)
                lks_ddp_grad(m->ddp, t)[e] = accumulated(NULL, step, self->rank, t, e);
        for (int pass = 0; pass < passes_of(step, self->rank); pass++) {
            EXPECT_OK(self, lks_ddp_no_sync(m->ddp, pass + 1 < passes_of(step, self->rank)));
            EXPECT_OK(self, lks_ddp_all_ready(m->ddp));
            EXPECT_OK(self, lks_ddp_wait(m->ddp, 2 + self->rank));
        }
        if (!means_are_right(self, m, step, total, accumulated_means, NULL))
            return;
    }
    free_model(m);
}

static void means_of_passes_are_weighted(void **state)
{
    (void)state;
    for (int i = 0; i < N_SIZES; i++)
        members_run(AS_THREADS, sizes[i], accumulated_means_body, NULL);
}

/* ---- members that run out of batches ---- */

enum { EPOCHS = 2 };

static int batches_of(int epoch, int rank)
{
    return (rank * 2 + epoch) % 4;
}

static float part_while_it_lasts(const void *context, int step, int rank, int tensor, int64_t elem)
{
    int epoch = *(const int *)context;
    return step < batches_of(epoch, rank) ? gradient(step, rank, tensor, elem) : 0.0f;
}

static bool joined_step_is_right(member *self, const model *m, int epoch, int step)
{
    int64_t total = 0;
    int joined = 0;
    for (int r = 0; r < self->size; r++) {
        total += step < batches_of(epoch, r) ? 1 + r : 0;
        joined += step >= batches_of(epoch, r);
    }
    lks_ddp_info info;
    lks_ddp_get_info(m->ddp, &info);
    if (info.n_joined != joined || info.samples != total)
        member_fails(self, "%d joined, %lld samples", info.n_joined, (long long)info.samples);
    return means_are_right(self, m, step, total, part_while_it_lasts, &epoch);
}

static void join_body(member *self)
{
    model *m = new_model(SCATTERED);
    lks_ddp_config config = model_config(self, m);
    config.bucket_bytes = 1000;
    EXPECT_OK(self, lks_ddp_create(&config, &m->ddp));
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        int step = 0, longest = 0;
        for (int r = 0; r < self->size; r++)
            longest = batches_of(epoch, r) > longest ? batches_of(epoch, r) : longest;
        for (; step < batches_of(epoch, self->rank); step++) {
            for (int t = 0; t < N_TENSORS; t++)
                for (int64_t e = 0; e < model_sizes[t]; e++)
                    lks_ddp_grad(m->ddp, t)[e] = gradient(step, self->rank, t, e);
            EXPECT_OK(self, lks_ddp_all_ready(m->ddp));
            EXPECT_OK(self, lks_ddp_wait(m->ddp, 1 + self->rank));
            if (!joined_step_is_right(self, m, epoch, step))
                return;
        }
        bool more = true;
        while (true) {
            EXPECT_OK(self, lks_ddp_join(m->ddp, &more));
            if (!more)
                break;
            if (!joined_step_is_right(self, m, epoch, step++))
                return;
        }
        EXPECT(self, step == longest, "epoch %d ended after %d steps, the longest has %d", epoch, step,
               longest);
    }
    free_model(m);
}

static void members_without_batches_take_part_until_all_are_done(void **state)
{
    (void)state;
    for (int i = 0; i < N_SIZES; i++)
        members_run(AS_THREADS, sizes[i], join_body, NULL);
    members_run(AS_PROCESSES, 3, join_body, NULL);
}

/* ---- tensors that a step does not use ---- */

enum { BIG = 2, ONE = 4 };

/* Odd ranks do not use "big", nobody uses "one". */
static bool uses(int rank, int tensor)
{
    return tensor != ONE && (tensor != BIG || rank % 2 == 0);
}

static float part_if_used(const void *context, int step, int rank, int tensor, int64_t elem)
{
    (void)context;
    return uses(rank, tensor) ? gradient(step, rank, tensor, elem) : 0.0f;
}

static lks_status report_used(const member *self, model *m, int step)
{
    lks_status status = LKS_OK;
    for (int t = 0; t < N_TENSORS && status == LKS_OK; t++) {
        for (int64_t e = 0; e < model_sizes[t]; e++) /* what is left in unused arrays must not matter */
            lks_ddp_grad(m->ddp, t)[e] = uses(self->rank, t) ? gradient(step, self->rank, t, e) : NAN;
        if (uses(self->rank, t))
            status = lks_ddp_grad_ready(m->ddp, t);
    }
    return status;
}

static void unused_body(member *self)
{
    model *m = new_model(SCATTERED);
    lks_ddp_config config = model_config(self, m);
    config.unused = LKS_DDP_UNUSED_ZERO;
    config.bucket_bytes = 1000;
    EXPECT_OK(self, lks_ddp_create(&config, &m->ddp));
    for (int step = 0; step < 3; step++) {
        EXPECT_OK(self, report_used(self, m, step));
        EXPECT_OK(self, lks_ddp_wait(m->ddp, 2));
        if (!means_are_right(self, m, step, 2 * self->size, part_if_used, NULL))
            return;
        for (int t = 0; t < N_TENSORS; t++)
            EXPECT(self, lks_ddp_used(m->ddp, t) == (t != ONE), "tensor %d: used is %d", t,
                   lks_ddp_used(m->ddp, t));
    }
    free_model(m);
}

static void unused_tensors_get_the_others_gradient(void **state)
{
    (void)state;
    for (int i = 0; i < N_SIZES; i++)
        members_run(AS_THREADS, sizes[i], unused_body, NULL);
}

/* Only rank 1 leaves gradients out; all are told, and the next step is a good one. */
static void refused_body(member *self)
{
    model *m = new_model(SCATTERED);
    lks_ddp_config config = model_config(self, m);
    config.bucket_bytes = 1000;
    EXPECT_OK(self, lks_ddp_create(&config, &m->ddp));
    if (self->rank == 1)
        EXPECT_OK(self, report_used(self, m, 0));
    else
        EXPECT_OK(self, lks_ddp_all_ready(m->ddp));
    EXPECT_FAILS(self, lks_ddp_wait(m->ddp, 1), LKS_E_ARG,
                 "on rank 1 2 of 7 gradients were not reported: tensor 2 (big), tensor 4 (one)");
    EXPECT_OK(self, backward(self, m, 1, false));
    EXPECT_OK(self, lks_ddp_wait(m->ddp, samples_of(1, self->rank)));
    if (!means_are_right(self, m, 1, total_samples(1, self->size), part_of_sum, NULL))
        return;
    free_model(m);
}

static void gradients_that_are_not_reported_are_named(void **state)
{
    (void)state;
    members_run(AS_THREADS, 2, refused_body, NULL);
    members_run(AS_THREADS, 5, refused_body, NULL);
}

/* ---- buckets ---- */

static void order_body(member *self)
{
    static const int report[N_TENSORS] = {4, 0, 6, 1, 5, 3, 2};
    model *m = new_model(SCATTERED);
    lks_ddp_config config = model_config(self, m);
    config.bucket_bytes = 1; /* one tensor each */
    EXPECT_OK(self, lks_ddp_create(&config, &m->ddp));
    for (int t = 0; t < N_TENSORS; t++)
        EXPECT(self, lks_ddp_bucket_of(m->ddp, t) == N_TENSORS - 1 - t, "tensor %d is in bucket %d", t,
               lks_ddp_bucket_of(m->ddp, t));
    for (int i = 0; i < N_TENSORS; i++) /* the others report the other way round */
        EXPECT_OK(self, lks_ddp_grad_ready(m->ddp, report[self->rank == 0 ? i : N_TENSORS - 1 - i]));
    EXPECT_OK(self, lks_ddp_wait(m->ddp, 1));
    static const int bucket[N_TENSORS] = {1, 3, 6, 5, 0, 4, 2};
    for (int t = 0; t < N_TENSORS; t++)
        EXPECT(self, lks_ddp_bucket_of(m->ddp, t) == bucket[t], "tensor %d is in bucket %d, wanted %d", t,
               lks_ddp_bucket_of(m->ddp, t), bucket[t]);
    EXPECT(self, lks_ddp_bucket_of(m->ddp, N_TENSORS) == -1 && lks_ddp_grad(m->ddp, -1) == NULL,
           "a tensor that does not exist");
    free_model(m);
}

static void buckets_follow_the_order_that_rank_0_has_seen(void **state)
{
    (void)state;
    for (int i = 0; i < N_SIZES; i++)
        members_run(AS_THREADS, sizes[i], order_body, NULL);
}

/* Rank 1 reports nothing until rank 0 has reported everything: a report that waited for others would wait for
 * ever. */
static void early_body(member *self)
{
    atomic_bool *reported = (atomic_bool *)(uintptr_t)self->context;
    model *m = new_model(SCATTERED);
    lks_ddp_config config = model_config(self, m);
    config.bucket_bytes = 1000;
    EXPECT_OK(self, lks_ddp_create(&config, &m->ddp));
    while (self->rank == 1 && !atomic_load(reported))
        sched_yield();
    EXPECT_OK(self, backward(self, m, 0, false));
    if (self->rank == 0)
        atomic_store(reported, true);
    EXPECT_OK(self, lks_ddp_wait(m->ddp, samples_of(0, self->rank)));
    if (!means_are_right(self, m, 0, total_samples(0, self->size), part_of_sum, NULL))
        return;
    free_model(m);
}

static void reports_do_not_wait_for_other_members(void **state)
{
    (void)state;
    for (int i = 1; i < N_SIZES; i++) {
        atomic_bool reported = false;
        members_run(AS_THREADS, sizes[i], early_body, &reported);
    }
}

static void adjacent_gradients_are_not_copied(void **state)
{
    (void)state;
    static const int64_t copied[N_LAYOUTS] = {[SCATTERED] = MODEL_ELEMS};
    for (int how = 0; how < N_LAYOUTS; how++) {
        member self = {.size = 1};
        lks_group_config alone = lks_group_config_default();
        CHECK_OK(lks_group_create(&alone, &self.group));
        model *m = new_model((layout)how);
        lks_ddp_config config = model_config(&self, m);
        CHECK_OK(lks_ddp_create(&config, &m->ddp));
        for (int step = 0; step < 2; step++) {
            lks_ddp_info info;
            lks_ddp_get_info(m->ddp, &info);
            CHECK_INT(info.copied_elems, copied[how]);
            CHECK_INT(info.n_buckets, 1);
            CHECK_OK(lks_ddp_all_ready(m->ddp));
            CHECK_OK(lks_ddp_wait(m->ddp, 1));
        }
        free_model(m);
        lks_group_destroy(self.group);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_become_the_mean_over_all_samples),
        cmocka_unit_test(passes_without_synchronisation_are_added_up),
        cmocka_unit_test(means_of_passes_are_weighted),
        cmocka_unit_test(members_without_batches_take_part_until_all_are_done),
        cmocka_unit_test(unused_tensors_get_the_others_gradient),
        cmocka_unit_test(gradients_that_are_not_reported_are_named),
        cmocka_unit_test(buckets_follow_the_order_that_rank_0_has_seen),
        cmocka_unit_test(reports_do_not_wait_for_other_members),
        cmocka_unit_test(adjacent_gradients_are_not_copied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
