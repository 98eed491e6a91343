/* SPDX-License-Identifier: Apache-2.0 */
/* Everything at once: random runs in which members have different numbers of steps, of passes in a step, of
 * samples in a pass, and use different tensors in each pass. What a member does is a function of the run's
 * number, so that every member knows what the others do. */
#include "ddp_model.h"

enum { RUNS = 40, MOST_STEPS = 5 };

typedef struct run {
    uint32_t number;
} run;

static uint32_t draw(uint32_t run_number, int a, int b, uint32_t below)
{
    return mix(run_number * 1000003u, (uint32_t)a, (uint32_t)b) % below;
}

static int steps_of(uint32_t run_number, int rank)
{
    return (int)draw(run_number, 1, rank, MOST_STEPS + 1);
}

static int passes_of(uint32_t run_number, int step, int rank)
{
    return 1 + (int)draw(run_number, 2 + step, rank, 3);
}

static int64_t samples_of_pass(uint32_t run_number, int step, int rank, int pass)
{
    return draw(run_number, 100 + step * 8 + pass, rank, 4);
}

static bool uses(uint32_t run_number, int step, int rank, int pass, int tensor)
{
    return draw(run_number, 1000 + step * 8 + pass, rank * 16 + tensor, 4) > 0;
}

static float value_of_pass(uint32_t run_number, int step, int rank, int pass, int tensor, int64_t elem)
{
    return gradient((int)(run_number * 64) + step * 8 + pass, rank, tensor, elem);
}

/* A member's gradient of a step: its passes, in its own order of additions, from 0. */
static float part_of_run(const void *context, int step, int rank, int tensor, int64_t elem)
{
    uint32_t number = ((const run *)context)->number;
    float sum = 0;
    if (step < steps_of(number, rank))
        for (int pass = 0; pass < passes_of(number, step, rank); pass++)
            if (uses(number, step, rank, pass, tensor))
                sum += value_of_pass(number, step, rank, pass, tensor, elem);
    return sum;
}

static int64_t total_of(uint32_t number, int step, int size)
{
    int64_t total = 0;
    for (int r = 0; r < size; r++)
        if (step < steps_of(number, r))
            for (int pass = 0; pass < passes_of(number, step, r); pass++)
                total += samples_of_pass(number, step, r, pass);
    return total;
}

static lks_status make_pass(const member *self, model *m, uint32_t number, int step, int pass)
{
    int order[N_TENSORS], rank = self->rank;
    shuffled(number + (uint32_t)(step * 64 + rank * 8 + pass), order);
    lks_status status = lks_ddp_no_sync(m->ddp, pass + 1 < passes_of(number, step, rank));
    for (int i = 0; i < N_TENSORS && status == LKS_OK; i++) {
        if (!uses(number, step, rank, pass, order[i]))
            continue;
        for (int64_t e = 0; e < model_sizes[order[i]]; e++)
            lks_ddp_grad(m->ddp, order[i])[e] += value_of_pass(number, step, rank, pass, order[i], e);
        status = lks_ddp_grad_ready(m->ddp, order[i]);
    }
    return status == LKS_OK ? lks_ddp_wait(m->ddp, samples_of_pass(number, step, rank, pass)) : status;
}

static bool somebody_used(uint32_t number, int step, int size, int tensor)
{
    for (int r = 0; r < size; r++)
        for (int pass = 0; step < steps_of(number, r) && pass < passes_of(number, step, r); pass++)
            if (uses(number, step, r, pass, tensor))
                return true;
    return false;
}

static bool step_is_right(member *self, const model *m, const run *r, int step)
{
    for (int t = 0; t < N_TENSORS; t++)
        if (lks_ddp_used(m->ddp, t) != somebody_used(r->number, step, self->size, t))
            member_fails(self, "run %u, step %d: tensor %d", (unsigned)r->number, step, t);
    return means_are_right(self, m, step, total_of(r->number, step, self->size), part_of_run, r);
}

static void mixed_body(member *self)
{
    const run *r = self->context;
    uint32_t number = r->number;
    static const int64_t bucket_bytes[] = {1, 300, 1000, 20000, 1 << 20};
    model *m = new_model((layout)draw(number, 50, 0, N_LAYOUTS));
    lks_ddp_config config = model_config(self, m);
    config.unused = LKS_DDP_UNUSED_ZERO;
    config.bucket_bytes = bucket_bytes[draw(number, 51, 0, 5)];
    config.check_every = 1;
    EXPECT_OK(self, lks_ddp_create(&config, &m->ddp));
    int step = 0, longest = 0;
    for (int other = 0; other < self->size; other++)
        longest = steps_of(number, other) > longest ? steps_of(number, other) : longest;
    for (; step < steps_of(number, self->rank); step++) {
        for (int t = 0; t < N_TENSORS; t++)
            memset(lks_ddp_grad(m->ddp, t), 0, (size_t)model_sizes[t] * sizeof(float));
        for (int pass = 0; pass < passes_of(number, step, self->rank); pass++)
            EXPECT_OK(self, make_pass(self, m, number, step, pass));
        if (!step_is_right(self, m, r, step))
            return;
    }
    for (bool more = true; more; step += more) {
        EXPECT_OK(self, lks_ddp_join(m->ddp, &more));
        if (more && !step_is_right(self, m, r, step))
            return;
    }
    EXPECT(self, step == longest, "run %u: %d steps, wanted %d", (unsigned)number, step, longest);
    free_model(m);
}

static void random_runs_have_the_right_means(void **state)
{
    (void)state;
    static const int sizes[] = {1, 2, 3, 5, 8};
    for (uint32_t number = 0; number < RUNS; number++)
        members_run(number % 8 == 7 ? AS_PROCESSES : AS_THREADS, sizes[number % 5], mixed_body,
                    &(run){.number = number});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_runs_have_the_right_means),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
