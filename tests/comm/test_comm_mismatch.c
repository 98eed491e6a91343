/* SPDX-License-Identifier: Apache-2.0 */
/* Members that ask for different things: every kind of difference, told to all with what each asked for. */
#include "check.h"

#include <unistd.h>

#include <lockstep/group.h>

#include "comm/collective.h"
#include "comm/members.h"

enum { COUNT = 1000, MAX = 8, SPLIT = 100, MEMORY };

static double buffers[MAX][MAX * COUNT];

/* What a member asks for; SPLIT and MEMORY stand for the calls of those names. */
typedef struct wish {
    int collective;
    lks_dtype dtype;
    lks_op op;
    int root;
    size_t count;
    const char *text; /* in messages */
} wish;

/* What most ask for, and what one asks for. */
static const struct {
    wish most, one;
} differences[] = {
    /* the operation */
    {{LKS_ALL_REDUCE, LKS_F32, LKS_SUM, 0, 1000, "all_reduce(sum, f32, 1000)"},
     {LKS_BARRIER, LKS_F32, LKS_SUM, 0, 0, "barrier"}},
    {{LKS_ALL_REDUCE, LKS_F32, LKS_SUM, 0, 1000, "all_reduce(sum, f32, 1000)"},
     {LKS_ALL_GATHER, LKS_F32, LKS_SUM, 0, 1000, "all_gather(f32, 1000)"}},
    {{LKS_REDUCE, LKS_F32, LKS_SUM, 0, 1000, "reduce(sum, f32, 1000, root 0)"},
     {LKS_ALL_REDUCE, LKS_F32, LKS_SUM, 0, 1000, "all_reduce(sum, f32, 1000)"}},
    {{LKS_REDUCE_SCATTER, LKS_F32, LKS_SUM, 0, 100, "reduce_scatter(sum, f32, 100)"},
     {LKS_ALL_REDUCE, LKS_F32, LKS_SUM, 0, 100, "all_reduce(sum, f32, 100)"}},
    {{LKS_BROADCAST, LKS_F32, LKS_SUM, 0, 100, "broadcast(f32, 100, root 0)"},
     {LKS_SCATTER, LKS_F32, LKS_SUM, 0, 100, "scatter(f32, 100, root 0)"}},
    {{LKS_SCATTER, LKS_U8, LKS_SUM, 1, 9, "scatter(u8, 9, root 1)"},
     {LKS_GATHER, LKS_U8, LKS_SUM, 1, 9, "gather(u8, 9, root 1)"}},
    {{LKS_ALL_TO_ALL, LKS_U8, LKS_SUM, 0, 9, "all_to_all(u8, 9)"},
     {LKS_ALL_GATHER, LKS_U8, LKS_SUM, 0, 9, "all_gather(u8, 9)"}},
    {{SPLIT, LKS_F32, LKS_SUM, 0, 0, "group_split"}, {LKS_BARRIER, LKS_F32, LKS_SUM, 0, 0, "barrier"}},
    {{LKS_ALL_REDUCE, LKS_F32, LKS_SUM, 0, 1000, "all_reduce(sum, f32, 1000)"},
     {SPLIT, LKS_F32, LKS_SUM, 0, 0, "group_split"}},
    {{MEMORY, LKS_F32, LKS_SUM, 0, 0, "memory_create"},
     {LKS_ALL_REDUCE, LKS_F32, LKS_SUM, 0, 1000, "all_reduce(sum, f32, 1000)"}},
    {{LKS_BARRIER, LKS_F32, LKS_SUM, 0, 0, "barrier"}, {MEMORY, LKS_F32, LKS_SUM, 0, 0, "memory_create"}},
    {{MEMORY, LKS_F32, LKS_SUM, 0, 0, "memory_create"}, {SPLIT, LKS_F32, LKS_SUM, 0, 0, "group_split"}},
    /* what is done with the elements */
    {{LKS_ALL_REDUCE, LKS_F32, LKS_SUM, 0, 1000, "all_reduce(sum, f32, 1000)"},
     {LKS_ALL_REDUCE, LKS_F32, LKS_MAX, 0, 1000, "all_reduce(max, f32, 1000)"}},
    {{LKS_REDUCE, LKS_BF16, LKS_MIN, 1, 7, "reduce(min, bf16, 7, root 1)"},
     {LKS_REDUCE, LKS_BF16, LKS_PROD, 1, 7, "reduce(prod, bf16, 7, root 1)"}},
    {{LKS_REDUCE_SCATTER, LKS_F64, LKS_SUM, 0, 5, "reduce_scatter(sum, f64, 5)"},
     {LKS_REDUCE_SCATTER, LKS_F64, LKS_MEAN, 0, 5, "reduce_scatter(mean, f64, 5)"}},
    /* the type */
    {{LKS_ALL_REDUCE, LKS_F64, LKS_SUM, 0, 1000, "all_reduce(sum, f64, 1000)"},
     {LKS_ALL_REDUCE, LKS_F32, LKS_SUM, 0, 1000, "all_reduce(sum, f32, 1000)"}},
    {{LKS_REDUCE, LKS_I64, LKS_SUM, 0, 3, "reduce(sum, i64, 3, root 0)"},
     {LKS_REDUCE, LKS_F64, LKS_SUM, 0, 3, "reduce(sum, f64, 3, root 0)"}},
    {{LKS_REDUCE_SCATTER, LKS_BF16, LKS_SUM, 0, 3, "reduce_scatter(sum, bf16, 3)"},
     {LKS_REDUCE_SCATTER, LKS_F32, LKS_SUM, 0, 3, "reduce_scatter(sum, f32, 3)"}},
    {{LKS_BROADCAST, LKS_I32, LKS_SUM, 0, 3, "broadcast(i32, 3, root 0)"},
     {LKS_BROADCAST, LKS_F32, LKS_SUM, 0, 3, "broadcast(f32, 3, root 0)"}},
    {{LKS_ALL_GATHER, LKS_U8, LKS_SUM, 0, 3, "all_gather(u8, 3)"},
     {LKS_ALL_GATHER, LKS_I32, LKS_SUM, 0, 3, "all_gather(i32, 3)"}},
    {{LKS_ALL_TO_ALL, LKS_I32, LKS_SUM, 0, 3, "all_to_all(i32, 3)"},
     {LKS_ALL_TO_ALL, LKS_I64, LKS_SUM, 0, 3, "all_to_all(i64, 3)"}},
    {{LKS_GATHER, LKS_BF16, LKS_SUM, 0, 0, "gather(bf16, 0, root 0)"},
     {LKS_GATHER, LKS_U8, LKS_SUM, 0, 0, "gather(u8, 0, root 0)"}},
    {{LKS_SCATTER, LKS_BF16, LKS_SUM, 0, 1, "scatter(bf16, 1, root 0)"},
     {LKS_SCATTER, LKS_U8, LKS_SUM, 0, 1, "scatter(u8, 1, root 0)"}},
    /* the count */
    {{LKS_ALL_REDUCE, LKS_F32, LKS_SUM, 0, 1000, "all_reduce(sum, f32, 1000)"},
     {LKS_ALL_REDUCE, LKS_F32, LKS_SUM, 0, 999, "all_reduce(sum, f32, 999)"}},
    {{LKS_ALL_REDUCE, LKS_F64, LKS_SUM, 0, 7000, "all_reduce(sum, f64, 7000)"}, /* another algorithm */
     {LKS_ALL_REDUCE, LKS_F64, LKS_SUM, 0, 2, "all_reduce(sum, f64, 2)"}},
    {{LKS_REDUCE, LKS_F64, LKS_SUM, 0, 1, "reduce(sum, f64, 1, root 0)"},
     {LKS_REDUCE, LKS_F64, LKS_SUM, 0, 2, "reduce(sum, f64, 2, root 0)"}},
    {{LKS_REDUCE_SCATTER, LKS_F64, LKS_SUM, 0, 1, "reduce_scatter(sum, f64, 1)"},
     {LKS_REDUCE_SCATTER, LKS_F64, LKS_SUM, 0, 2, "reduce_scatter(sum, f64, 2)"}},
    {{LKS_BROADCAST, LKS_F64, LKS_SUM, 0, 1, "broadcast(f64, 1, root 0)"},
     {LKS_BROADCAST, LKS_F64, LKS_SUM, 0, 2, "broadcast(f64, 2, root 0)"}},
    {{LKS_ALL_GATHER, LKS_F32, LKS_SUM, 0, 1000, "all_gather(f32, 1000)"},
     {LKS_ALL_GATHER, LKS_F32, LKS_SUM, 0, 0, "all_gather(f32, 0)"}},
    {{LKS_GATHER, LKS_F64, LKS_SUM, 0, 1, "gather(f64, 1, root 0)"},
     {LKS_GATHER, LKS_F64, LKS_SUM, 0, 2, "gather(f64, 2, root 0)"}},
    {{LKS_SCATTER, LKS_F64, LKS_SUM, 0, 1, "scatter(f64, 1, root 0)"},
     {LKS_SCATTER, LKS_F64, LKS_SUM, 0, 2, "scatter(f64, 2, root 0)"}},
    {{LKS_ALL_TO_ALL, LKS_F64, LKS_SUM, 0, 1, "all_to_all(f64, 1)"},
     {LKS_ALL_TO_ALL, LKS_F64, LKS_SUM, 0, 2, "all_to_all(f64, 2)"}},
    /* the root */
    {{LKS_BROADCAST, LKS_F32, LKS_SUM, 0, 1000, "broadcast(f32, 1000, root 0)"},
     {LKS_BROADCAST, LKS_F32, LKS_SUM, 1, 1000, "broadcast(f32, 1000, root 1)"}},
    {{LKS_REDUCE, LKS_F32, LKS_SUM, 0, 1, "reduce(sum, f32, 1, root 0)"},
     {LKS_REDUCE, LKS_F32, LKS_SUM, 1, 1, "reduce(sum, f32, 1, root 1)"}},
    {{LKS_GATHER, LKS_F32, LKS_SUM, 1, 1, "gather(f32, 1, root 1)"},
     {LKS_GATHER, LKS_F32, LKS_SUM, 0, 1, "gather(f32, 1, root 0)"}},
    {{LKS_SCATTER, LKS_F32, LKS_SUM, 1, 1, "scatter(f32, 1, root 1)"},
     {LKS_SCATTER, LKS_F32, LKS_SUM, 0, 1, "scatter(f32, 1, root 0)"}},
};

enum { N_DIFFERENCES = sizeof differences / sizeof differences[0] };

/* The groups, and who the one is: in what order the two are told, and with which ranks. */
static const struct {
    int size, one;
    const char *first, *second;
} casts[] = {
    {2, 0, "rank 0", "rank 1"},
    {2, 1, "rank 0", "rank 1"},
    {3, 0, "rank 0", "rank 1, rank 2"},
    {3, 1, "rank 0, rank 2", "rank 1"},
    {3, 2, "rank 0, rank 1", "rank 2"},
    {8, 0, "rank 0", "ranks 1 to 7"},
    {8, 4, "ranks 0 to 3, ranks 5 to 7", "rank 4"},
    {8, 7, "ranks 0 to 6", "rank 7"},
};

enum { N_CASTS = sizeof casts / sizeof casts[0] };

/* How they ask. */
typedef enum manner { BLOCKING, POSTED, POSTED_IN_ANOTHER_ORDER, IN_A_PART, N_MANNERS } manner;

typedef struct play {
    int difference, cast;
    manner manner;
} play;

/* ---- asking ---- */

static lks_operation operation_of(const wish *w, lks_group *group)
{
    double *data = buffers[lks_group_rank(group)];
    return (lks_operation){(lks_collective)w->collective, w->dtype, w->op, w->root, w->count, data, data};
}

static lks_status ask(lks_group *group, const wish *w)
{
    lks_group *part;
    lks_group_memory *memory;
    lks_operation o = operation_of(w, group);
    return w->collective == SPLIT    ? lks_group_split(group, 0, 0, &part)
           : w->collective == MEMORY ? lks_group_memory_create(group, 100, &memory)
                                     : lks_group_run(group, &o);
}

/* Posts the wishes; every request then fails. A post may do so already, on the last one to come. */
static void post(member *self, int n, const wish *const wishes[], const char *text)
{
    lks_request *requests[2] = {NULL};
    lks_status status = LKS_OK;
    for (int i = 0; i < n; i++) {
        lks_operation o = operation_of(wishes[i], self->group);
        EXPECT_OK(self, lks_request_create(self->group, &o, &requests[i]));
    }
    for (int i = 0; i < n && status == LKS_OK; i++)
        status = lks_request_post(requests[i]);
    EXPECT(self, status == LKS_OK || status == LKS_E_MISMATCH, "post: %s", lks_status_name(status));
    for (int i = n - 1; i >= 0; i--) {
        EXPECT_FAILS(self, lks_request_wait(requests[i]), LKS_E_MISMATCH, text);
        EXPECT_FAILS(self, lks_request_test(requests[i]), LKS_E_MISMATCH, text);
        EXPECT_FAILS(self, lks_request_post(requests[i]), LKS_E_MISMATCH, text);
    }
    for (int i = 0; i < n; i++)
        lks_request_destroy(requests[i]);
}

static void ask_in_part(member *self, const wish *own, const char *text)
{
    lks_group *part;
    char there[600];
    EXPECT_OK(self, lks_group_split(self->group, 0, 0, &part));
    EXPECT_FAILS(self, ask(part, own), LKS_E_MISMATCH, text);
    EXPECT(self, strcmp(lks_error_message(), text) == 0, "\"%s\" is not \"%s\"", lks_error_message(), text);
    snprintf(there, sizeof there, "in a group that was split off: %s", text);
    EXPECT_FAILS(self, lks_group_barrier(self->group), LKS_E_MISMATCH, there);
    EXPECT_FAILS(self, lks_group_barrier(part), LKS_E_MISMATCH, text);
    lks_group_destroy(part);
}

static void asks(member *self)
{
    const play *p = self->context;
    const wish *most = &differences[p->difference].most, *one = &differences[p->difference].one;
    int rank_of_one = casts[p->cast].one;
    const wish *own = self->rank == rank_of_one ? one : most, *other = own == one ? most : one;
    char text[512];
    snprintf(text, sizeof text, "the members asked for different operations (collective %d): %s: %s; %s: %s",
             p->manner == IN_A_PART ? 1 : 2, casts[p->cast].first, rank_of_one == 0 ? one->text : most->text,
             casts[p->cast].second, rank_of_one == 0 ? most->text : one->text);
    if (p->manner == IN_A_PART) {
        ask_in_part(self, own, text);
        return;
    }
    EXPECT_OK(self, lks_group_barrier(self->group));
    if (p->manner == BLOCKING)
        EXPECT_FAILS(self, ask(self->group, own), LKS_E_MISMATCH, text);
    else
        post(self, p->manner == POSTED ? 1 : 2, (const wish *[]){own, other}, text);
    /* and so does every call after it, with exactly these words */
    EXPECT_FAILS(self, lks_group_barrier(self->group), LKS_E_MISMATCH, text);
    EXPECT(self, strcmp(lks_error_message(), text) == 0, "\"%s\" is not \"%s\"", lks_error_message(), text);
    EXPECT_FAILS(self, ask(self->group, &(wish){.collective = MEMORY}), LKS_E_MISMATCH, text);
    EXPECT_FAILS(self, ask(self->group, &(wish){.collective = SPLIT}), LKS_E_MISMATCH, text);
}

static bool can_be_posted(const wish *w)
{
    return w->collective < SPLIT;
}

static void all_differences_as(member_kind kind, manner how)
{
    for (int d = 0; d < N_DIFFERENCES; d++)
        for (int c = 0; c < N_CASTS; c++) {
            bool posted = how == POSTED || how == POSTED_IN_ANOTHER_ORDER;
            if (posted && !(can_be_posted(&differences[d].most) && can_be_posted(&differences[d].one)))
                continue;
            if (kind != AS_THREADS && c % 3 != (d + (int)kind) % 3) /* each with some */
                continue;
            members_run(kind, casts[c].size, asks, &(const play){d, c, how});
        }
}

static void differences_are_told_to_all_threads(void **state)
{
    (void)state;
    for (int how = 0; how < N_MANNERS; how++)
        all_differences_as(AS_THREADS, (manner)how);
}

static void differences_are_told_to_all_processes(void **state)
{
    (void)state; /* the same code: not every manner */
    all_differences_as(AS_PROCESSES, BLOCKING);
    all_differences_as(AS_PROCESSES, POSTED_IN_ANOTHER_ORDER);
}

static void differences_are_told_to_all_machines(void **state)
{
    (void)state;
    for (int kind = ON_HALVES; kind <= EACH_ALONE; kind++) {
        all_differences_as((member_kind)kind, BLOCKING);
        all_differences_as((member_kind)kind, POSTED_IN_ANOTHER_ORDER);
    }
}

/* ---- many differences ---- */

static void each_asks_for_another_count(member *self)
{
    EXPECT_FAILS(
        self, lks_group_all_reduce(self->group, buffers[self->rank], (size_t)self->rank, LKS_F64, LKS_SUM),
        LKS_E_MISMATCH,
        "the members asked for different operations (collective 1): rank 0: all_reduce(sum, f64, 0); "
        "rank 1: all_reduce(sum, f64, 1); rank 2: all_reduce(sum, f64, 2); rank 3: all_reduce(sum, "
        "f64, 3); rank 4: all_reduce(sum, f64, 4); rank 5: all_reduce(sum, f64, 5); rank 6: "
        "all_reduce(sum, f64, 6); rank 7: all_reduce(sum, f64, 7)");
}

static void all_that_were_asked_for_are_told(void **state)
{
    (void)state;
    for (int kind = AS_THREADS; kind <= EACH_ALONE; kind++)
        members_run((member_kind)kind, 8, each_asks_for_another_count, NULL);
}

/* Which members have another operation than most, and how that is told. */
static void texts_of_large_groups_are_short(void **state)
{
    (void)state;
    lks__signature barrier = lks__operation_signature(&(lks_operation){.collective = LKS_BARRIER});
    lks__signature s[LKS_GROUP_MAX_SIZE];
    char text[1400];
    for (int r = 0; r < LKS_GROUP_MAX_SIZE; r++)
        s[r] = barrier;
    s[17].count = s[18].count = s[255].what = 1;
    assert_string_equal(lks__mismatch_text(LKS_GROUP_MAX_SIZE, s, sizeof text, text),
                        "ranks 0 to 16, ranks 19 to 254: barrier; rank 17, rank 18: barrier; rank 255: "
                        "all_reduce(sum, f32, 0)");
    for (int r = 0; r < LKS_GROUP_MAX_SIZE; r++)
        s[r].what = (uint64_t)r % 2;
    for (int r = 0; r < LKS_GROUP_MAX_SIZE; r++)
        s[r].count = 5;
    assert_string_equal(lks__mismatch_text(LKS_GROUP_MAX_SIZE, s, sizeof text, text),
                        "rank 0, rank 2, rank 4, rank 6, rank 8, rank 10, rank 12, rank 14 and 120 others: "
                        "barrier; rank 1, rank 3, rank 5, rank 7, rank 9, rank 11, rank 13, rank 15 and 120 "
                        "others: all_reduce(sum, f32, 5)");
    for (int r = 0; r < LKS_GROUP_MAX_SIZE; r++)
        s[r] = (lks__signature){1, (uint64_t)r};
    lks__mismatch_text(LKS_GROUP_MAX_SIZE, s, sizeof text, text);
    assert_non_null(strstr(text, "; rank 20: all_reduce(sum, f32, 20); "));
    assert_string_equal(text + strlen(text) - 12, "; and others");
}

/* ---- messages ---- */

static const struct {
    lks_dtype dtype;
    size_t count;
    const char *text; /* of what is received */
} receives[] = {{LKS_F32, 11, "f32, 11"}, {LKS_I32, 10, "i32, 10"}, {LKS_F32, 0, "f32, 0"}};

typedef struct exchange {
    int from, to, receive;
    bool posted;
} exchange;

static lks_status receive(lks_group *group, const exchange *e)
{
    lks_operation o = {.collective = LKS_RECV, .root = e->from, .out = buffers[e->to]};
    o.dtype = receives[e->receive].dtype;
    o.count = receives[e->receive].count;
    lks_request *request;
    if (!e->posted)
        return lks_group_run(group, &o);
    lks_status status = lks_request_create(group, &o, &request);
    if (status == LKS_OK)
        status = lks_request_post(request);
    if (status == LKS_OK)
        status = lks_request_wait(request);
    lks_request_destroy(request);
    return status;
}

/* The others wait for each other, or for a message that never comes. */
static void receives_something_else(member *self)
{
    const exchange *e = self->context;
    char text[256];
    snprintf(text, sizeof text,
             "the members asked for different operations: rank %d: send(f32, 10, to rank %d); rank %d: "
             "recv(%s, from rank %d)",
             e->from, e->to, e->to, receives[e->receive].text, e->from);
    if (self->rank == e->from)
        EXPECT_OK(self, lks_group_send(self->group, buffers[self->rank], 10, LKS_F32, e->to));
    else if (self->rank == e->to)
        EXPECT_FAILS(self, receive(self->group, e), LKS_E_MISMATCH, text);
    else if (self->rank % 2 == 0)
        EXPECT_FAILS(self, lks_group_recv(self->group, buffers[self->rank], 1, LKS_F32, e->from),
                     LKS_E_MISMATCH, text);
    EXPECT_FAILS(self, lks_group_barrier(self->group), LKS_E_MISMATCH, text);
    EXPECT(self, strcmp(lks_error_message(), text) == 0, "\"%s\" is not \"%s\"", lks_error_message(), text);
}

static void messages_that_differ_are_told_to_all(void **state)
{
    (void)state;
    static const int sizes[] = {2, 3, 8};
    for (int s = 0; s < 3; s++)
        for (int receive = 0; receive < 3; receive++)
            for (int i = 0; i < 8; i++) {
                int last = sizes[s] - 1;
                bool up = i % 2 == 0;
                exchange e = {up ? 0 : last, up ? last : 0, receive, i / 2 % 2 == 0};
                members_run(i / 4 % 2 == 0 ? AS_THREADS : AS_PROCESSES, sizes[s], receives_something_else,
                            &e);
                if (sizes[s] < 8 || i < 3) /* eight machines take their time: one of each kind */
                    members_run((member_kind)(ON_HALVES + i % 3), sizes[s], receives_something_else, &e);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(differences_are_told_to_all_threads),
        cmocka_unit_test(differences_are_told_to_all_processes),
        cmocka_unit_test(differences_are_told_to_all_machines),
        cmocka_unit_test(all_that_were_asked_for_are_told),
        cmocka_unit_test(texts_of_large_groups_are_short),
        cmocka_unit_test(messages_that_differ_are_told_to_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
