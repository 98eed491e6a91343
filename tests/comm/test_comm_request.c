/* SPDX-License-Identifier: Apache-2.0 */
/* Requests: made once, posted many times, several at a time, tested and waited for in any order. */
#define _DEFAULT_SOURCE /* usleep */

#include "check.h"

#include <stdlib.h>
#include <unistd.h>

#include <lockstep/group.h>

#include "base/alloc.h"
#include "comm/members.h"

enum { N = 100003, N_KINDS = 4, ROUNDS = 20, MAX_SIZE = 8 }; /* f32: two staging areas */

static const int sizes[] = {1, 2, 3, 5};

static void on_all(member_fn *body)
{
    for (int kind = AS_THREADS; kind <= EACH_ALONE; kind++)
        for (int s = 0; s < 4; s++)
            members_run((member_kind)kind, sizes[s], body, NULL);
}

/* ---- four requests of different kinds and lengths ---- */

typedef struct work {
    float *in[N_KINDS], *out[N_KINDS];
    lks_request *requests[N_KINDS];
} work;

static const struct {
    lks_collective collective;
    size_t count;
} kinds[N_KINDS] = {
    {LKS_ALL_REDUCE, N}, {LKS_ALL_REDUCE, 10}, {LKS_ALL_GATHER, N / MAX_SIZE}, {LKS_BROADCAST, N}};

static float value(int rank, int round, int kind, size_t i)
{
    return (float)((i + (size_t)(rank * 7 + round * 5 + kind * 3)) % 101);
}

static void make_work(member *self, work *w)
{
    for (int k = 0; k < N_KINDS; k++) {
        w->in[k] = malloc(N * sizeof(float));
        w->out[k] = malloc(N * sizeof(float));
        lks_operation o = {kinds[k].collective, LKS_F32,  LKS_SUM,  self->size - 1,
                           kinds[k].count,      w->in[k], w->out[k]};
        EXPECT_OK(self, lks_request_create(self->group, &o, &w->requests[k]));
    }
}

static void free_work(work *w)
{
    for (int k = 0; k < N_KINDS; k++) {
        lks_request_destroy(w->requests[k]);
        free(w->in[k]), free(w->out[k]);
    }
}

static void check_work(member *self, const work *w, int round, int k)
{
    int n_rows = kinds[k].collective == LKS_ALL_GATHER ? self->size : 1;
    if (kinds[k].collective == LKS_BROADCAST && self->rank == self->size - 1)
        return;
    for (int row = 0; row < n_rows; row++)
        for (size_t i = 0; i < kinds[k].count; i += i + 10 < kinds[k].count ? 7 : 1) {
            float wanted = value(kinds[k].collective == LKS_BROADCAST ? self->size - 1 : row, round, k, i);
            for (int r = 1; kinds[k].collective == LKS_ALL_REDUCE && r < self->size; r++)
                wanted += value(r, round, k, i);
            float got = w->out[k][(size_t)row * kinds[k].count + i];
            EXPECT(self, got == wanted, "round %d kind %d: row %d [%zu] is %g, wanted %g", round, k, row, i,
                   (double)got, (double)wanted);
        }
}

static void post_all(member *self, work *w, int round)
{
    for (int k = 0; k < N_KINDS; k++) {
        for (size_t i = 0; i < kinds[k].count; i++)
            w->in[k][i] = value(self->rank, round, k, i);
        EXPECT_OK(self, lks_request_post(w->requests[k]));
    }
}

/* Each member finishes in an order of its own, by waits or by tests, and sometimes a blocking operation comes
 * between. */
static void many_rounds(member *self)
{
    work w = {{NULL}};
    make_work(self, &w);
    int64_t allocations = lks__alloc_count();
    for (int round = 0; round < ROUNDS && self->failure[0] == '\0'; round++) {
        post_all(self, &w, round);
        if (round % 3 == 0)
            EXPECT_OK(self, lks_group_barrier(self->group));
        for (int j = 0; j < N_KINDS; j++) {
            int k = (j * (self->rank % 2 == 0 ? 1 : 3) + self->rank + round) % N_KINDS;
            lks_status status = LKS_IN_PROGRESS;
            while (round % 2 == 0 && (status = lks_request_test(w.requests[k])) == LKS_IN_PROGRESS)
                usleep(20);
            EXPECT(self, round % 2 != 0 || status == LKS_OK, "test: %s", lks_error_message());
            EXPECT_OK(self, lks_request_wait(w.requests[k]));
            check_work(self, &w, round, k);
        }
    }
    if (self->context != NULL)
        EXPECT(self, lks__alloc_count() == allocations, "posting allocates");
    free_work(&w);
}

static void requests_are_posted_many_times(void **state)
{
    (void)state;
    on_all(many_rounds);
    /* alone in its process, so that the count of allocations is its own */
    members_run(AS_PROCESSES, 2, many_rounds, "counts");
}

/* ---- the rules ---- */

static void rules(member *self)
{
    float x = 1, y = 0;
    lks_request *request, *other;
    lks_operation o = {LKS_ALL_REDUCE, LKS_F32, LKS_SUM, 0, 1, &x, &y};
    EXPECT_OK(self, lks_request_create(self->group, &o, &request));
    EXPECT_OK(self, lks_request_wait(request)); /* never posted: nothing to wait for */
    EXPECT_OK(self, lks_request_test(request));
    EXPECT_OK(self, lks_request_post(request));
    if (self->size > 1)
        EXPECT_FAILS(self, lks_request_post(request), LKS_E_ARG, "posted already");
    EXPECT_OK(self, lks_request_wait(request));
    EXPECT_OK(self, lks_request_wait(request));
    EXPECT(self, y == (float)self->size, "the sum is %g", (double)y);
    y = 0;
    EXPECT_OK(self, lks_request_post(request));
    lks_request_destroy(request); /* waits for it */
    EXPECT(self, y == (float)self->size, "the sum is %g", (double)y);
    o.dtype = (lks_dtype)50;
    EXPECT_FAILS(self, lks_request_create(self->group, &o, &other), LKS_E_ARG, "no element type");
    EXPECT(self, other == NULL, "the output is set");
    lks_request_destroy(NULL);
}

static void posting_has_rules(void **state)
{
    (void)state;
    on_all(rules);
}

/* Who only tests has the deadline too. */
static void testing_for_ever_is_not_possible(void **state)
{
    (void)state;
    lks_group *members[2];
    lks_request *request;
    float x = 0;
    lks_operation o = {LKS_ALL_REDUCE, LKS_F32, LKS_SUM, 0, 1, &x, &x};
    lks_operation recv = {LKS_RECV, LKS_F32, LKS_SUM, 1, 1, NULL, &x};
    const char *texts[] = {"rank 0 waited 0.05 s in all_reduce(sum, f32, 1) (collective 1) for rank 1, "
                           "which has finished no operation",
                           "rank 0 waited 0.05 s in recv(f32, 1, from rank 1) for rank 1"};
    for (int i = 0; i < 2; i++) {
        lks_status status;
        CHECK_OK(lks_group_create_threads(2, 0.05, members));
        CHECK_OK(lks_request_create(members[0], i == 0 ? &o : &recv, &request));
        CHECK_OK(lks_request_post(request));
        while ((status = lks_request_test(request)) == LKS_IN_PROGRESS)
            usleep(1000);
        CHECK_INT(status, LKS_E_TIMEOUT);
        assert_non_null(strstr(lks_error_message(), texts[i]));
        CHECK_FAILS(lks_group_barrier(members[1]), LKS_E_TIMEOUT, texts[i]);
        lks_request_destroy(request);
        lks_group_destroy(members[0]);
        lks_group_destroy(members[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_posted_many_times),
        cmocka_unit_test(posting_has_rules),
        cmocka_unit_test(testing_for_ever_is_not_possible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
