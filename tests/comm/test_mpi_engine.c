/* SPDX-License-Identifier: Apache-2.0 */
/* Groups over several machines, where they have cases of their own: the wire's own all_reduce, many
 * machines, a wire that breaks. The rest is in the tables of all comm tests. */
#include "check.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include <lockstep/group.h>

#include "comm/elements.h"
#include "comm/machines.h"
#include "comm/members.h"
#include "comm/mpi/mpi_member.h"

enum { TIMEOUT_S = 60 };

typedef struct job {
    member self;
    member_fn *body;
} job;

static void *thread_main(void *argument)
{
    job *j = argument;
    j->body(&j->self);
    lks_group_destroy(j->self.group);
    return NULL;
}

/* Runs body on all members, and fails the test with what any of them says. */
static void run(int size, lks_group **groups, member_fn *body)
{
    static char failures[MACHINES_MAX_SIZE][MEMBER_TEXT_BYTES];
    job jobs[MACHINES_MAX_SIZE];
    pthread_t threads[MACHINES_MAX_SIZE];
    alarm(TIMEOUT_S);
    for (int r = 0; r < size; r++) {
        failures[r][0] = '\0';
        jobs[r] = (job){{groups[r], r, size, EACH_ALONE, NULL, failures[r]}, body};
        assert_int_equal(pthread_create(&threads[r], NULL, thread_main, &jobs[r]), 0);
    }
    for (int r = 0; r < size; r++)
        pthread_join(threads[r], NULL);
    alarm(0);
    for (int r = 0; r < size; r++)
        if (failures[r][0] != '\0')
            fail_msg("rank %d: %s", r, failures[r]);
}

/* ---- as the wire does it ---- */

/* 1 to 3: exact in every type, products of four members too. */
static double value(int rank, size_t i)
{
    return (double)(1 + ((size_t)rank + i) % 3);
}

static double reduced(lks_op op, int size, size_t i)
{
    double sum = 0, product = 1, least = 3, most = 1;
    for (int r = 0; r < size; r++) {
        double v = value(r, i);
        sum += v, product *= v;
        least = v < least ? v : least;
        most = v > most ? v : most;
    }
    const double all[] = {
        [LKS_SUM] = sum, [LKS_MEAN] = sum / size, [LKS_MAX] = most, [LKS_MIN] = least, [LKS_PROD] = product};
    return all[op];
}

static void all_reduce_one(member *self, void *data, size_t n, lks_dtype dtype, lks_op op)
{
    for (size_t i = 0; i < n; i++)
        element_put(data, i, dtype, value(self->rank, i));
    EXPECT_OK(self, lks_group_all_reduce(self->group, data, n, dtype, op));
    for (size_t i = 0; i < n; i++)
        EXPECT(self, element_get(data, i, dtype) == reduced(op, self->size, i),
               "type %d op %d: element %zu is %g, not %g", (int)dtype, (int)op, i,
               element_get(data, i, dtype), reduced(op, self->size, i));
}

static void all_reduce_everything(member *self)
{
    enum { N = 9001 }; /* more than goes with a hello */
    double *data = malloc(N * sizeof *data);
    for (int dtype = 0; dtype < N_ELEMENT_TYPES; dtype++)
        for (int op = 0; op <= LKS_PROD && self->failure[0] == '\0'; op++)
            if (op != LKS_MEAN || element_is_float[dtype])
                all_reduce_one(self, data, N, (lks_dtype)dtype, (lks_op)op);
    free(data);
}

static void what_the_wire_cannot_add_goes_the_other_way(void **state)
{
    (void)state;
    static const int machines[] = {0, 0, 1, 1};
    lks_group *groups[4];
    machines_create_fast(4, machines, TIMEOUT_S, groups);
    run(4, groups, all_reduce_everything);
}

/* ---- many machines ---- */

/* A row fits into a hello, but a part holds less than all rows. */
static void gather_long_rows(member *self)
{
    enum { N = LKS__MPI_PAYLOAD_BYTES };
    unsigned char *rows = malloc((size_t)self->size * N), own[N];
    memset(own, 1 + self->rank, N);
    memset(rows, 0, (size_t)self->size * N);
    EXPECT_OK(self, lks_group_all_gather(self->group, own, rows, N, LKS_U8));
    for (size_t i = 0; i < (size_t)self->size * N; i++)
        EXPECT(self, rows[i] == 1 + i / N, "byte %zu of row %zu is %d", i % N, i / N, rows[i]);
    free(rows);
}

static void rows_of_many_machines_come_whole(void **state)
{
    (void)state;
    enum { SIZE = 36 };
    int machines[SIZE];
    lks_group *groups[SIZE];
    for (int r = 0; r < SIZE; r++)
        machines[r] = r;
    machines_create(SIZE, machines, TIMEOUT_S, groups);
    run(SIZE, groups, gather_long_rows);
}

/* ---- words ---- */

static void miss_rank_3(member *self)
{
    if (self->rank != 3)
        EXPECT_FAILS(self, lks_group_barrier(self->group), LKS_E_PEER, "rank 3 left the group");
}

static void process_numbers_that_are_all_the_same_are_not_told(void **state)
{
    (void)state;
    static const int machines[] = {0, 0, 1, 1};
    lks_group *groups[4];
    machines_create(4, machines, TIMEOUT_S, groups);
    run(4, groups, miss_rank_3);
}

/* ---- a wire that breaks ---- */

static lks__wire_backend whole, torn;

/* Carries no more messages of the first group. */
static lks_status cannot_send(lks__wire *wire, const void *data, size_t bytes, int to, int tag,
                              lks__wire_request *request)
{
    if (tag != LKS__MPI_MESSAGE)
        return whole.send(wire, data, bytes, to, tag, request);
    snprintf(wire->error, sizeof wire->error, "torn");
    return LKS_E_PEER;
}

static void send_over_a_torn_wire(member *self)
{
    lks__mpi_engine *engine = lks__mpi_member_of(self->group)->engine;
    int32_t data = 7;
    EXPECT_OK(self, lks_group_barrier(self->group));
    if (self->rank != 0) {
        EXPECT_FAILS(self, lks_group_recv(self->group, &data, 1, LKS_I32, 0), LKS_E_PEER, "torn");
        return;
    }
    pthread_mutex_lock(&engine->lock);
    whole = torn = *engine->wire->backend;
    torn.send = cannot_send;
    engine->wire->backend = &torn;
    pthread_mutex_unlock(&engine->lock);
    EXPECT_FAILS(self, lks_group_send(self->group, &data, 1, LKS_I32, 1), LKS_E_PEER, "torn");
}

static void a_message_that_cannot_start_is_a_failure(void **state)
{
    (void)state;
    static const int machines[] = {0, 1};
    lks_group *groups[2];
    machines_create(2, machines, TIMEOUT_S, groups);
    run(2, groups, send_over_a_torn_wire);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_the_wire_cannot_add_goes_the_other_way),
        cmocka_unit_test(rows_of_many_machines_come_whole),
        cmocka_unit_test(process_numbers_that_are_all_the_same_are_not_told),
        cmocka_unit_test(a_message_that_cannot_start_is_a_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
