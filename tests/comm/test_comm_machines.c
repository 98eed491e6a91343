/* SPDX-License-Identifier: Apache-2.0 */
/* Groups over several machines, where they differ from those on one: who does what, the order of additions
 * across machines, messages that overtake each other, requests that go on by themselves, failures and
 * deadlines that cross machines. */
#define _DEFAULT_SOURCE /* usleep */

#include "check.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include <lockstep/group.h>

#include "base/alloc.h"
#include "comm/machines.h"
#include "comm/members.h"
#include "comm/mpi/mpi_map.h"

/* ---- who does what ---- */

static void check_map(int size, const int *machines, const char *pieces, const char *carried)
{
    char found[256] = "", carries[256] = "";
    for (int r = 0; r < size; r++) {
        lks__mpi_map map;
        lks__mpi_map_init(&map, machines, r, size);
        for (int i = 0; i < map.n_pieces && r == 0; i++)
            snprintf(found + strlen(found), sizeof found - strlen(found), "%d-%d:%d ", map.pieces[i].lo,
                     map.pieces[i].hi - 1, map.pieces[i].machine);
        for (int i = 0; i < map.n_carried; i++)
            snprintf(carries + strlen(carries), sizeof carries - strlen(carries), "%d ", map.carried[i]);
        snprintf(carries + strlen(carries), sizeof carries - strlen(carries), "| ");
        for (int m = 0; m < map.n_machines; m++)
            CHECK_INT(map.carriers[m], m == map.machine ? r : lks__mpi_carrier(&map, m, r));
    }
    assert_string_equal(found, pieces);
    assert_string_equal(carries, carried);
}

static void pieces_and_carriers(void **state)
{
    (void)state;
    check_map(4, (const int[]){0, 0, 1, 1}, "0-1:0 2-3:1 ", "2 | 3 | 0 | 1 | ");
    check_map(4, (const int[]){5, 2, 5, 2}, "0-0:0 1-1:1 2-2:0 3-3:1 ", "1 | 0 | 3 | 2 | ");
    /* the tree over 5: ((0 1) (2 3)) 4 */
    check_map(5, (const int[]){0, 0, 0, 1, 1}, "0-1:0 2-2:0 3-3:1 4-4:1 ", "3 | 4 | | 0 2 | 1 | ");
    check_map(6, (const int[]){0, 0, 0, 0, 1, 1}, "0-3:0 4-5:1 ", "4 | 5 | | | 0 2 | 1 3 | ");
    check_map(5, (const int[]){0, 1, 2, 3, 3}, "0-0:0 1-1:1 2-2:2 3-3:3 4-4:3 ",
              "1 2 3 4 | 0 2 3 4 | 0 1 3 4 | 0 2 | 1 | ");
}

/* ---- the same bits as on one machine ---- */

enum { N_BITS = 300007, N_RUNS = 14 };

/* What is reduced: bits that tell orders apart, in every type. */
static void put_bits(char *data, size_t bytes, int rank)
{
    uint64_t x = 88172645463325252u + (uint64_t)rank * 7919;
    for (size_t i = 0; i + sizeof x <= bytes; i += sizeof x) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17; /* xorshift64 */
        /* exponents near each other, in f32, f64 and bf16: neither overflow nor one that swallows the rest */
        uint64_t word = (x & 0x81ff81ff81ff81ffu) | 0x3e003e003e003e00u;
        memcpy(data + i, &word, sizeof word);
    }
}

static const struct {
    lks_collective collective;
    lks_dtype dtype;
    lks_op op;
    size_t count;
} runs[N_RUNS] = {
    {LKS_ALL_REDUCE, LKS_F32, LKS_SUM, N_BITS},    {LKS_ALL_REDUCE, LKS_F32, LKS_MEAN, 200},
    {LKS_ALL_REDUCE, LKS_F64, LKS_PROD, 70001},    {LKS_ALL_REDUCE, LKS_F64, LKS_MEAN, N_BITS / 2},
    {LKS_ALL_REDUCE, LKS_BF16, LKS_SUM, N_BITS},   {LKS_ALL_REDUCE, LKS_BF16, LKS_MEAN, 1001},
    {LKS_ALL_REDUCE, LKS_BF16, LKS_PROD, 70001},   {LKS_REDUCE, LKS_BF16, LKS_MEAN, N_BITS},
    {LKS_REDUCE, LKS_F32, LKS_SUM, N_BITS},        {LKS_REDUCE, LKS_F64, LKS_SUM, 100},
    {LKS_REDUCE_SCATTER, LKS_BF16, LKS_SUM, 9001}, {LKS_REDUCE_SCATTER, LKS_F32, LKS_MEAN, 30001},
    {LKS_REDUCE_SCATTER, LKS_F64, LKS_SUM, 77},    {LKS_ALL_REDUCE, LKS_BF16, LKS_SUM, 12001},
};

static const size_t bits_bytes = (size_t)N_BITS * 8;

/* context: [N_RUNS][size] sums of the results' bytes; those of the first group are kept, others compared */
typedef struct bits {
    bool first;
    uint64_t (*sums)[MACHINES_MAX_SIZE];
} bits;

static uint64_t sum_bytes(const char *data, size_t n)
{
    uint64_t sum = 14695981039346656037u; /* FNV-1a, 64 bits */
    for (size_t i = 0; i < n; i++)
        sum = (sum ^ (unsigned char)data[i]) * 1099511628211u;
    return sum;
}

static void reduces_bits(member *self)
{
    const bits *b = self->context;
    char *in = malloc(bits_bytes), *out = malloc(bits_bytes);
    for (int i = 0; i < N_RUNS && self->failure[0] == '\0'; i++) {
        lks_operation o = {
            runs[i].collective, runs[i].dtype, runs[i].op, self->size - 1, runs[i].count, in, out};
        put_bits(in, bits_bytes, self->rank);
        memset(out, 0, bits_bytes);
        EXPECT_OK(self, lks_group_run(self->group, &o));
        uint64_t sum = sum_bytes(out, bits_bytes);
        if (b->first)
            b->sums[i][self->rank] = sum;
        EXPECT(self, b->sums[i][self->rank] == sum, "run %d has other bits than on one machine", i);
    }
    free(in), free(out);
}

static void bits_are_those_of_one_machine(void **state)
{
    (void)state;
    static const int sizes[] = {2, 3, 5, 8};
    for (int s = 0; s < 4; s++) {
        uint64_t sums[N_RUNS][MACHINES_MAX_SIZE] = {{0}};
        members_run(AS_THREADS, sizes[s], reduces_bits, &(bits){true, sums});
        for (int kind = ON_HALVES; kind <= EACH_ALONE; kind++)
            members_run((member_kind)kind, sizes[s], reduces_bits, &(bits){false, sums});
    }
}

/* ---- as the wire adds ---- */

typedef struct player {
    pthread_t thread;
    lks_group *group;
    void *(*play)(void *self);
    lks_status status;
    char text[1024];
    float *data;
    int failed_by;
} player;

static void run_players(int size, lks_group *const *groups, void *(*play)(void *), player *players)
{
    for (int r = 0; r < size; r++) {
        players[r].group = groups[r];
        assert_int_equal(pthread_create(&players[r].thread, NULL, play, &players[r]), 0);
    }
    for (int r = 0; r < size; r++)
        pthread_join(players[r].thread, NULL);
}

enum { N_FAST = 100001 };

static void *add_fast(void *argument)
{
    player *p = argument;
    put_bits((char *)p->data, N_FAST * sizeof(float), lks_group_rank(p->group));
    p->status = lks_group_all_reduce(p->group, p->data, N_FAST, LKS_F32, LKS_MEAN);
    int64_t most = lks_group_rank(p->group);
    if (p->status == LKS_OK)
        p->status = lks_group_all_reduce(p->group, &most, 1, LKS_I64, LKS_MAX);
    if (p->status == LKS_OK && most != lks_group_size(p->group) - 1)
        p->status = LKS_E_INTERNAL;
    lks_group_destroy(p->group);
    return NULL;
}

/* The wire between threads adds from the highest rank down. */
static void fast_is_the_wires_own_order(void **state)
{
    (void)state;
    enum { SIZE = 3 };
    lks_group *groups[SIZE];
    player players[SIZE] = {{0}};
    float *inputs[SIZE];
    int other_bits = 0;
    machines_create_fast(SIZE, (const int[]){0, 0, 1}, 30, groups);
    for (int r = 0; r < SIZE; r++) {
        players[r].data = malloc(N_FAST * sizeof(float));
        inputs[r] = malloc(N_FAST * sizeof(float));
        put_bits((char *)inputs[r], N_FAST * sizeof(float), r);
    }
    run_players(SIZE, groups, add_fast, players);
    for (int i = 0; i < N_FAST - 1; i++) { /* the last one is half a word */
        float down = inputs[2][i] + inputs[1][i], tree = inputs[0][i] + inputs[1][i];
        down = (down + inputs[0][i]) / SIZE;
        tree = (tree + inputs[2][i]) / SIZE;
        other_bits += down != tree;
        for (int r = 0; r < SIZE; r++)
            CHECK_NEAR(players[r].data[i], down, 0);
    }
    assert_true(other_bits > 1000);
    for (int r = 0; r < SIZE; r++) {
        CHECK_INT(players[r].status, LKS_OK);
        free(players[r].data), free(inputs[r]);
    }
}

/* ---- requests go on by themselves ---- */

enum { N_LONG = 1000003 };

static void posts_and_computes(member *self)
{
    float *data = malloc(N_LONG * sizeof *data);
    lks_request *request;
    lks_operation o = {LKS_ALL_REDUCE, LKS_F32, LKS_SUM, 0, N_LONG, data, data};
    EXPECT_OK(self, lks_request_create(self->group, &o, &request));
    for (size_t i = 0; i < N_LONG; i++)
        data[i] = (float)(i % 100);
    EXPECT_OK(self, lks_request_post(request));
    lks_status status = LKS_IN_PROGRESS;
    for (int i = 0; i < 100 && status == LKS_IN_PROGRESS; i++) {
        usleep(100 * 1000); /* computes: a test alone moves one part or so */
        status = lks_request_test(request);
        EXPECT(self, status == LKS_OK || i < 99, "%s after %d tests", lks_status_name(status), i + 1);
        EXPECT(self, status == LKS_OK || getenv("LOCKSTEP_SANITIZE") != NULL || i < 20,
               "it does not go on between tests");
    }
    for (size_t i = 0; i < N_LONG; i++)
        EXPECT(self, data[i] == (float)(i % 100 * (size_t)self->size), "[%zu] is %g", i, (double)data[i]);
    lks_request_destroy(request);
    free(data);
}

static void requests_go_on_while_the_program_computes(void **state)
{
    (void)state;
    for (int kind = ON_HALVES; kind <= EACH_ALONE; kind++)
        members_run((member_kind)kind, 4, posts_and_computes, NULL);
}

/* ---- failures cross machines ---- */

static void *comes_to_a_sum(void *argument)
{
    player *p = argument;
    float x[10] = {0};
    p->status = lks_group_all_reduce(p->group, x, 10, LKS_F32, LKS_SUM);
    snprintf(p->text, sizeof p->text, "%s", lks_error_message());
    p->failed_by = lks_group_failed_by(p->group);
    return NULL;
}

/* Rank `late` does not come. */
static void all_wait_for(int size, const int *machine_of, int late, const char *text)
{
    lks_group *groups[MACHINES_MAX_SIZE];
    player players[MACHINES_MAX_SIZE] = {{0}};
    int n = 0;
    machines_create(size, machine_of, 1.0, groups);
    lks_group *others[MACHINES_MAX_SIZE];
    for (int r = 0; r < size; r++)
        if (r != late)
            others[n++] = groups[r];
    run_players(n, others, comes_to_a_sum, players);
    for (int i = 0; i < n; i++) {
        CHECK_INT(players[i].status, LKS_E_TIMEOUT);
        if (strstr(players[i].text, text) == NULL)
            fail_msg("\"%s\" lacks \"%s\"", players[i].text, text);
        CHECK_INT(players[i].failed_by, players[0].failed_by);
    }
    CHECK_FAILS(lks_group_barrier(groups[late]), LKS_E_TIMEOUT, text);
    CHECK_INT(lks_group_failed_by(groups[late]), players[0].failed_by);
    for (int r = 0; r < size; r++)
        lks_group_destroy(groups[r]);
}

static void a_late_member_is_named_everywhere(void **state)
{
    (void)state;
    const char *sum = "waited 1 s in all_reduce(sum, f32, 10) for rank";
    char text[128];
    /* by those of its machine, before others lose patience; leader or not */
    for (int late = 0; late < 4; late++) {
        snprintf(text, sizeof text, "%s %d", sum, late);
        all_wait_for(4, (const int[]){0, 0, 1, 1}, late, text);
    }
    all_wait_for(3, (const int[]){0, 0, 1}, 2, "waited 1 s in all_reduce(sum, f32, 10) for rank 2");
    all_wait_for(3, (const int[]){0, 1, 2}, 1, "waited 1 s in all_reduce(sum, f32, 10) for rank 1");
}

/* The members of one machine use their own group, and not alike. */
static void fails_on_a_machine(member *self)
{
    lks_group *node = lks_group_node(self->group);
    int own = machine_of_rank(self->kind, self->rank, self->size), n = 0;
    float x[4] = {0};
    for (int r = 0; r < self->size; r++)
        n += machine_of_rank(self->kind, r, self->size) == own;
    EXPECT(self, lks_group_size(node) == n, "%d members on the machine, not %d", lks_group_size(node), n);
    EXPECT_OK(self, lks_group_barrier(node));
    EXPECT_OK(self, lks_group_barrier(self->group));
    usleep(20 * 1000);
    const char *text = "the members of one machine (by their ranks there) asked for different operations";
    if (own == 1)
        EXPECT_FAILS(self,
                     lks_group_all_reduce(node, x, self->rank == self->size - 1 ? 3 : 4, LKS_F32, LKS_SUM),
                     LKS_E_MISMATCH, text);
    EXPECT_FAILS(self, lks_group_barrier(self->group), LKS_E_MISMATCH, text);
    EXPECT_FAILS(self, lks_group_barrier(node), LKS_E_MISMATCH, text);
}

static void a_machines_own_failure_is_everybodys(void **state)
{
    (void)state;
    members_run(ON_HALVES, 4, fails_on_a_machine, NULL);
    members_run(ON_HALVES, 8, fails_on_a_machine, NULL);
    members_run(IN_TURNS, 8, fails_on_a_machine, NULL);
}

/* ---- without memory ---- */

/* Whichever allocation fails, no member joins, and nothing stays. */
static void joining_fails_on_all(void **state)
{
    (void)state;
    int64_t before = lks__alloc_bytes(LKS__MEM_COMM), n = 0;
    lks_group *groups[3];
    int n_joined;
    do {
        lks__alloc_fail_nth(0);
        n_joined = machines_try_create(3, (const int[]){0, 0, 1}, ++n, LKS_E_NOMEM, groups);
        assert_true(n_joined == 0 || n_joined == 3);
        CHECK_INT(n_joined == 0 ? lks__alloc_bytes(LKS__MEM_COMM) : before, before);
    } while (n_joined == 0);
    lks__alloc_fail_nth(0);
    assert_true(n > 10);
    for (int r = 0; r < 3; r++)
        lks_group_destroy(groups[r]);
    CHECK_INT(lks__alloc_bytes(LKS__MEM_COMM), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_and_carriers),
        cmocka_unit_test(bits_are_those_of_one_machine),
        cmocka_unit_test(fast_is_the_wires_own_order),
        cmocka_unit_test(requests_go_on_while_the_program_computes),
        cmocka_unit_test(a_late_member_is_named_everywhere),
        cmocka_unit_test(a_machines_own_failure_is_everybodys),
        cmocka_unit_test(joining_fails_on_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
