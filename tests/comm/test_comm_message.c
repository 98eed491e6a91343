/* SPDX-License-Identifier: Apache-2.0 */
/* Messages: what arrives, in which order, beside collectives; and when one side leaves. */
#define _DEFAULT_SOURCE /* usleep */

#include "check.h"

#include <stdlib.h>
#include <unistd.h>

#include <lockstep/group.h>

#include "comm/elements.h"
#include "comm/members.h"

enum { LARGE = 200003 }; /* f32: 7 times what is on its way between 2 members, 25 times between 8 */

static const int sizes[] = {2, 3, 5, 8};
static const size_t counts[] = {0, 1, 1023, 8192, LARGE};

enum { N_SIZES = sizeof sizes / sizeof sizes[0], N_COUNTS = sizeof counts / sizeof counts[0] };

static void on_all(member_fn *body)
{
    for (int kind = AS_THREADS; kind <= EACH_ALONE; kind++)
        for (int s = 0; s < N_SIZES; s++)
            members_run((member_kind)kind, sizes[s], body, NULL);
}

static double value(int rank, size_t i)
{
    return (double)((i + (size_t)rank * 13) % 31);
}

/* ---- round the ring ---- */

static void pass_on(member *self, void *out, void *in, size_t count, lks_dtype dtype)
{
    int next = (self->rank + 1) % self->size, previous = (self->rank + self->size - 1) % self->size;
    for (size_t i = 0; i < count; i++)
        element_put(out, i, dtype, value(self->rank, i));
    /* the even ones send first: nobody relies on messages that are short enough to be on their way */
    if (self->rank % 2 == 0)
        EXPECT_OK(self, lks_group_send(self->group, out, count, dtype, next));
    EXPECT_OK(self, lks_group_recv(self->group, in, count, dtype, previous));
    if (self->rank % 2 != 0)
        EXPECT_OK(self, lks_group_send(self->group, out, count, dtype, next));
    for (size_t i = 0; i < count; i++)
        EXPECT(self, element_get(in, i, dtype) == value(previous, i), "type %d count %zu: [%zu] is %g",
               (int)dtype, count, i, element_get(in, i, dtype));
}

static void round_the_ring(member *self)
{
    char *out = malloc(LARGE * 8), *in = malloc(LARGE * 8);
    for (int dtype = 0; dtype < N_ELEMENT_TYPES; dtype++)
        for (int c = 0; c < (dtype == LKS_F32 ? N_COUNTS : N_COUNTS - 1); c++)
            pass_on(self, out, in, counts[c], (lks_dtype)dtype);
    free(out), free(in);
}

static void every_type_and_count_arrives(void **state)
{
    (void)state;
    on_all(round_the_ring);
}

/* ---- order ---- */

enum { N_MESSAGES = 500, MOST = 3000 };

static size_t length(int k)
{
    return (size_t)(k * 7919 % MOST);
}

/* Rank 0 sends to all others in turn, who receive when they please. */
static void in_order(member *self)
{
    int32_t *data = malloc(MOST * sizeof *data);
    for (int k = 0; k < N_MESSAGES; k++) {
        for (int to = 1; self->rank == 0 && to < self->size; to++) {
            for (size_t i = 0; i < length(k); i++)
                data[i] = k * 100 + to;
            EXPECT_OK(self, lks_group_send(self->group, data, length(k), LKS_I32, to));
        }
        if (self->rank == 0)
            continue;
        EXPECT_OK(self, lks_group_recv(self->group, data, length(k), LKS_I32, 0));
        for (size_t i = 0; i < length(k); i++)
            EXPECT(self, data[i] == k * 100 + self->rank, "message %d: [%zu] is %d", k, i, (int)data[i]);
    }
    free(data);
}

static void messages_keep_their_order(void **state)
{
    (void)state;
    on_all(in_order);
}

/* ---- everybody with everybody, beside collectives ---- */

enum { MAX_SIZE = 8, N_EACH = 3, SOME = 20011 };

typedef struct traffic {
    float *in[MAX_SIZE][N_EACH], *out[MAX_SIZE][N_EACH];
    lks_request *recv[MAX_SIZE][N_EACH], *send[MAX_SIZE][N_EACH];
} traffic;

static float word(int from, int to, int k, size_t i)
{
    return (float)(from * 1000 + to * 100 + k * 10) + (float)(i % 7);
}

static void make_traffic(member *self, traffic *t)
{
    memset(t, 0, sizeof *t);
    for (int r = 0; r < self->size; r++)
        for (int k = 0; k < N_EACH; k++) {
            t->in[r][k] = malloc(SOME * sizeof(float));
            t->out[r][k] = malloc(SOME * sizeof(float));
            if (r == self->rank)
                continue;
            lks_operation recv = {LKS_RECV, LKS_F32, LKS_SUM, r, SOME, NULL, t->in[r][k]};
            lks_operation send = {LKS_SEND, LKS_F32, LKS_SUM, r, SOME, t->out[r][k], NULL};
            EXPECT_OK(self, lks_request_create(self->group, &recv, &t->recv[r][k]));
            EXPECT_OK(self, lks_request_create(self->group, &send, &t->send[r][k]));
            for (size_t i = 0; i < SOME; i++)
                t->out[r][k][i] = word(self->rank, r, k, i);
        }
}

static void free_traffic(traffic *t)
{
    for (int r = 0; r < MAX_SIZE; r++)
        for (int k = 0; k < N_EACH; k++) {
            lks_request_destroy(t->recv[r][k]);
            lks_request_destroy(t->send[r][k]);
            free(t->in[r][k]), free(t->out[r][k]);
        }
}

static void check_traffic(member *self, const traffic *t)
{
    for (int r = 0; r < self->size; r++)
        for (int k = 0; k < N_EACH && r != self->rank; k++)
            for (size_t i = 0; i < SOME; i++)
                EXPECT(self, t->in[r][k][i] == word(r, self->rank, k, i), "from %d message %d: [%zu] is %g",
                       r, k, i, (double)t->in[r][k][i]);
}

/* Sends are posted before receives and are larger than what fits on the way, so that they end only while
 * members wait for something else: for a collective, for other messages, or for nothing but a test. */
static void everybody_with_everybody(member *self)
{
    traffic t;
    make_traffic(self, &t);
    for (int round = 0; round < 3 && self->failure[0] == '\0'; round++) {
        for (int r = 0; r < self->size; r++)
            for (int k = 0; k < N_EACH && r != self->rank; k++)
                EXPECT_OK(self, lks_request_post(t.send[r][k]));
        for (int r = 0; r < self->size; r++)
            for (int k = 0; k < N_EACH && r != self->rank; k++)
                EXPECT_OK(self, lks_request_post(t.recv[r][k]));
        float one = 1;
        if (round > 0)
            EXPECT_OK(self, lks_group_all_reduce(self->group, &one, 1, LKS_F32, LKS_SUM));
        EXPECT(self, round == 0 || one == (float)self->size, "the sum is %g", (double)one);
        for (int r = self->size - 1; r >= 0; r--)
            for (int k = N_EACH - 1; k >= 0 && r != self->rank; k--) {
                lks_status status = LKS_IN_PROGRESS;
                while (round == 2 && (status = lks_request_test(t.recv[r][k])) == LKS_IN_PROGRESS)
                    usleep(50);
                EXPECT_OK(self, lks_request_wait(t.recv[r][k]));
                EXPECT_OK(self, lks_request_wait(t.send[r][k]));
            }
        check_traffic(self, &t);
        EXPECT_OK(self, lks_group_barrier(self->group));
    }
    free_traffic(&t);
}

static void messages_and_collectives_do_not_hold_each_other_up(void **state)
{
    (void)state;
    on_all(everybody_with_everybody);
}

/* Rank 0's send ends only when rank 1, which waits in a barrier, works on the receive that it has posted. */
static void served_from_a_barrier(member *self)
{
    float *data = calloc(LARGE, sizeof *data);
    lks_request *request = NULL;
    lks_operation recv = {LKS_RECV, LKS_F32, LKS_SUM, 0, LARGE, NULL, data};
    if (self->rank == 1) {
        EXPECT_OK(self, lks_request_create(self->group, &recv, &request));
        EXPECT_OK(self, lks_request_post(request));
    } else if (self->rank == 0) {
        usleep(20 * 1000);
        for (size_t i = 0; i < LARGE; i++)
            data[i] = (float)(i % 1000);
        EXPECT_OK(self, lks_group_send(self->group, data, LARGE, LKS_F32, 1));
    }
    EXPECT_OK(self, lks_group_barrier(self->group));
    lks_request_destroy(request); /* waits */
    for (size_t i = 0; i < LARGE && self->rank < 2; i++)
        EXPECT(self, data[i] == (float)(i % 1000), "[%zu] is %g", i, (double)data[i]);
    free(data);
}

static void who_waits_elsewhere_goes_on_receiving(void **state)
{
    (void)state;
    on_all(served_from_a_barrier);
}

/* ---- leaving ---- */

/* Rank 1 sends once and leaves: the message arrives, and then there is nobody. */
static void peer_leaves(member *self)
{
    float data[4] = {1, 2, 3, 4};
    if (self->rank == 1) {
        EXPECT_OK(self, lks_group_send(self->group, data, 4, LKS_F32, 0));
        return;
    }
    const bool *late = self->context;
    if (*late)
        usleep(20 * 1000);
    EXPECT_OK(self, lks_group_recv(self->group, data, 4, LKS_F32, 1));
    EXPECT_FAILS(self, lks_group_recv(self->group, data, 4, LKS_F32, 1), LKS_E_PEER, "left the group");
    EXPECT_FAILS(self, lks_group_send(self->group, data, 4, LKS_F32, 1), LKS_E_PEER, "left the group");
}

static void who_has_left_is_named(void **state)
{
    (void)state;
    for (int kind = AS_THREADS; kind <= EACH_ALONE; kind++)
        for (int late = 0; late < 2; late++)
            members_run((member_kind)kind, 2, peer_leaves, &(const bool){late != 0});
}

static void who_does_not_come_is_named(void **state)
{
    (void)state;
    lks_group *members[3];
    float data[4];
    CHECK_OK(lks_group_create_threads(3, 0.05, members));
    CHECK_FAILS(lks_group_recv(members[1], data, 4, LKS_F32, 2), LKS_E_TIMEOUT,
                "rank 1 waited 0.05 s in recv(f32, 4, from rank 2) for rank 2");
    CHECK_FAILS(lks_group_barrier(members[0]), LKS_E_TIMEOUT, "rank 1 waited 0.05 s in recv");
    CHECK_FAILS(lks_group_send(members[2], data, 4, LKS_F32, 1), LKS_E_TIMEOUT, "rank 1 waited 0.05 s");
    for (int r = 0; r < 3; r++)
        lks_group_destroy(members[r]);
}

static void bad_messages_are_refused(void **state)
{
    (void)state;
    lks_group *members[2];
    float data[4] = {0};
    CHECK_OK(lks_group_create_threads(2, 1, members));
    CHECK_FAILS(lks_group_send(members[0], data, 4, LKS_F32, 0), LKS_E_ARG, "with itself");
    CHECK_FAILS(lks_group_recv(members[0], data, 4, LKS_F32, 2), LKS_E_ARG, "rank 2 is not in 0..1");
    CHECK_FAILS(lks_group_recv(members[0], NULL, 4, LKS_F32, 1), LKS_E_ARG, "output is NULL");
    CHECK_OK(lks_group_send(members[0], data, 4, LKS_F32, 1));
    CHECK_OK(lks_group_recv(members[1], data, 4, LKS_F32, 0));
    for (int r = 0; r < 2; r++)
        lks_group_destroy(members[r]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_and_count_arrives),
        cmocka_unit_test(messages_keep_their_order),
        cmocka_unit_test(messages_and_collectives_do_not_hold_each_other_up),
        cmocka_unit_test(who_waits_elsewhere_goes_on_receiving),
        cmocka_unit_test(who_has_left_is_named),
        cmocka_unit_test(who_does_not_come_is_named),
        cmocka_unit_test(bad_messages_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
