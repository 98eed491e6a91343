/* SPDX-License-Identifier: Apache-2.0 */
/* The benchmark: what it makes of a user's words, its arithmetic, its values against sums done one by one,
 * and a run of every operation. */
#include "check.h"
#include "elements.h"
#include "members.h"

#include <stdlib.h>

#include "bench/bench_figures.h"
#include "bench/bench_measure.h"
#include "bench/bench_values.h"
#include "comm/collective.h"

enum { N_OPERATIONS = LKS_SEND + 1, MAX_SIZE = 8 };

/* ---- words ---- */

static void words_are_understood(void **state)
{
    (void)state;
    lks__bench_config c;
    CHECK_OK(lks__bench_config_set(&(lks__bench_words){.operation = "all_reduce"}, 2, &c));
    CHECK_INT(c.operation.collective, LKS_ALL_REDUCE);
    CHECK_INT(c.operation.dtype, LKS_F32);
    CHECK_INT(c.operation.op, LKS_SUM);
    CHECK_INT(c.min_bytes, 4);
    CHECK_INT(c.max_bytes, 256 << 20);
    CHECK_INT(c.factor, 4);
    CHECK_INT(c.warmup, 5);
    CHECK_INT(c.calls, 0);
    CHECK_INT(c.group_memory, true);
    CHECK_OK(lks__bench_config_set(&(lks__bench_words){.operation = "reduce",
                                                       .dtype = "bf16",
                                                       .op = "max",
                                                       .root = "2",
                                                       .memory = "ordinary",
                                                       .min_bytes = "3K",
                                                       .max_bytes = "2G",
                                                       .factor = 2,
                                                       .warmup = 1,
                                                       .calls = 7},
                                   3, &c));
    CHECK_INT(c.operation.collective, LKS_REDUCE);
    CHECK_INT(c.operation.dtype, LKS_BF16);
    CHECK_INT(c.operation.op, LKS_MAX);
    CHECK_INT(c.operation.root, 2);
    CHECK_INT(c.min_bytes, 3072);
    CHECK_INT(c.max_bytes, INT64_C(2147483648));
    CHECK_INT(c.factor, 2);
    CHECK_INT(c.warmup, 1);
    CHECK_INT(c.calls, 7);
    CHECK_INT(c.group_memory, false);
    CHECK_OK(lks__bench_config_set(&(lks__bench_words){.operation = "send_recv"}, 2, &c));
    CHECK_INT(c.operation.collective, LKS_SEND);
    assert_string_equal(lks__bench_name(&c), "send_recv");
}

static void mistakes_are_refused(void **state)
{
    (void)state;
    static const struct {
        lks__bench_words words;
        int size;
        const char *text;
    } rows[] = {
        {{"allreduce"}, 2, "did you mean \"all_reduce\"?"},
        {{"xyz"},
         2,
         "barrier, all_reduce, broadcast, reduce, all_gather, reduce_scatter, gather, scatter, "
         "all_to_all and send_recv are allowed"},
        {{"all_reduce", .dtype = "f16"},
         2,
         "--dtype is \"f16\"; f32, f64, i32, i64, u8 and bf16 are allowed"},
        {{"all_reduce", .op = "avg"}, 2, "--op is \"avg\"; sum, mean, max, min and prod are allowed"},
        {{"all_reduce", .dtype = "i32", .op = "mean"}, 2, "mean of i32 is not defined"},
        {{"all_reduce", .memory = "gpu"}, 2, "--memory is \"gpu\"; group and ordinary are allowed"},
        {{"all_reduce", .root = "0"}, 2, "--root is of no use for all_reduce"},
        {{"broadcast", .op = "sum"}, 2, "--op is of no use for broadcast"},
        {{"barrier", .dtype = "f32"}, 2, "--dtype is of no use for barrier"},
        {{"barrier", .max_bytes = "4"}, 2, "--max-bytes is of no use for barrier"},
        {{"broadcast", .root = "2"}, 2, "--root is \"2\"; a rank from 0 to 1 is needed"},
        {{"broadcast", .root = "-1"}, 2, "--root is \"-1\""},
        {{"broadcast", .root = "x"}, 2, "--root is \"x\""},
        {{"all_reduce", .min_bytes = "0"}, 2, "--min-bytes is \"0\"; a size is needed: 4, 64K, 256M, 1G"},
        {{"all_reduce", .min_bytes = "K"}, 2, "--min-bytes is \"K\""},
        {{"all_reduce", .max_bytes = "4k"}, 2, "--max-bytes is \"4k\""},
        {{"all_reduce", .max_bytes = "4MB"}, 2, "--max-bytes is \"4MB\""},
        {{"all_reduce", .max_bytes = "-4"}, 2, "--max-bytes is \"-4\""},
        {{"all_reduce", .max_bytes = "9999999999999999999999999"}, 2, "a size is needed"},
        {{"all_reduce", .max_bytes = "9999999999999G"}, 2, "a size is needed"},
        {{"all_to_all", .max_bytes = "9223372036854775807"}, 2, "a size is needed"},
        {{"all_reduce", .min_bytes = "2K", .max_bytes = "1K"},
         2,
         "--min-bytes is 2048, more than --max-bytes"},
        {{"all_reduce", .factor = 1}, 2, "--factor is 1; an integer >= 2 is needed"},
        {{"send_recv"}, 1, "send_recv takes two processes"},
    };
    lks__bench_config c;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        CHECK_FAILS(lks__bench_config_set(&rows[i].words, rows[i].size, &c), LKS_E_ARG, rows[i].text);
}

/* ---- figures ---- */

static void counts_fit_into_sizes(void **state)
{
    (void)state;
    static const struct {
        lks_collective collective;
        lks_dtype dtype;
        int size;
        size_t bytes, count;
    } rows[] = {{LKS_ALL_REDUCE, LKS_F32, 3, 4096, 1024},
                {LKS_ALL_REDUCE, LKS_F64, 3, 4, 1},
                {LKS_ALL_GATHER, LKS_F32, 3, 4096, 341},
                {LKS_REDUCE_SCATTER, LKS_U8, 3, 4096, 1365},
                {LKS_GATHER, LKS_F32, 4, 4096, 256},
                {LKS_SCATTER, LKS_BF16, 4, 4096, 512},
                {LKS_ALL_TO_ALL, LKS_I64, 8, 8, 1},
                {LKS_BROADCAST, LKS_I32, 8, 4096, 1024},
                {LKS_REDUCE, LKS_F32, 8, 4099, 1024},
                {LKS_BARRIER, LKS_F32, 8, 4096, 0},
                {LKS_SEND, LKS_F32, 2, (size_t)1 << 40, (size_t)1 << 38}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        lks_operation operation = {.collective = rows[i].collective, .dtype = rows[i].dtype};
        CHECK_INT(lks__bench_count(&operation, rows[i].size, rows[i].bytes), rows[i].count);
    }
}

/* The factors of nccl-tests, doc/PERFORMANCE.md; exact, since 4 is a power of two. */
static void bus_factors_are_those_of_nccl_tests(void **state)
{
    (void)state;
    CHECK_NEAR(lks__bench_bus_factor(LKS_ALL_REDUCE, 4), 1.5, 0);
    CHECK_NEAR(lks__bench_bus_factor(LKS_ALL_GATHER, 4), 0.75, 0);
    CHECK_NEAR(lks__bench_bus_factor(LKS_REDUCE_SCATTER, 4), 0.75, 0);
    CHECK_NEAR(lks__bench_bus_factor(LKS_ALL_TO_ALL, 4), 0.75, 0);
    CHECK_NEAR(lks__bench_bus_factor(LKS_GATHER, 4), 0.75, 0);
    CHECK_NEAR(lks__bench_bus_factor(LKS_SCATTER, 4), 0.75, 0);
    CHECK_NEAR(lks__bench_bus_factor(LKS_BROADCAST, 4), 1, 0);
    CHECK_NEAR(lks__bench_bus_factor(LKS_REDUCE, 4), 1, 0);
    CHECK_NEAR(lks__bench_bus_factor(LKS_SEND, 4), 1, 0);
}

static void times_are_summarized(void **state)
{
    (void)state;
    double odd[] = {4, 1, 7}, even[] = {8, 1, 2, 4};
    lks__bench_config c = {.operation = {.collective = LKS_ALL_REDUCE}};
    lks__bench_row row = {.bytes = 8000};
    lks__bench_summarize(&c, 4, 3, odd, &row);
    CHECK_INT(row.calls, 3);
    CHECK_NEAR(row.min_s, 1, 0);
    CHECK_NEAR(row.median_s, 4, 0);
    CHECK_NEAR(row.mean_s, 4, 0);
    CHECK_NEAR(row.max_s, 7, 0);
    CHECK_NEAR(row.algorithm_rate, 2000, 0);
    CHECK_NEAR(row.bus_rate, 3000, 0);
    lks__bench_summarize(&c, 4, 4, even, &row);
    CHECK_NEAR(row.median_s, 3, 0);
    CHECK_NEAR(row.mean_s, 3.75, 0);
}

/* ---- values ---- */

/* What the operation makes of everybody's in, one element at a time, for member `rank`. in: [size][MAX_SIZE *
 * n]; out the same. */
static void run_naively(const lks_operation *o, int rank, int size, char *const *in, char *out)
{
    size_t n = o->count, element = lks__dtype_bytes(o->dtype), row = n * element;
    switch (o->collective) {
    case LKS_ALL_REDUCE:
    case LKS_REDUCE:
    case LKS_REDUCE_SCATTER:
        for (size_t i = 0; i < n; i++) {
            size_t at = o->collective == LKS_REDUCE_SCATTER ? (size_t)rank * n + i : i;
            double value = element_get(in[0], at, o->dtype);
            for (int r = 1; r < size; r++) {
                double other = element_get(in[r], at, o->dtype);
                if (o->op == LKS_SUM || o->op == LKS_MEAN)
                    value += other;
                else if (o->op == LKS_PROD)
                    value *= other;
                else if (o->op == LKS_MAX ? other > value : other < value)
                    value = other;
            }
            element_put(out, i, o->dtype, o->op == LKS_MEAN ? value / size : value);
        }
        break;
    case LKS_BROADCAST:
    case LKS_RECV:
        memcpy(out, in[o->root], row);
        break;
    case LKS_SCATTER:
        memcpy(out, in[o->root] + (size_t)rank * row, row);
        break;
    case LKS_ALL_GATHER:
    case LKS_GATHER:
    case LKS_ALL_TO_ALL:
        for (int r = 0; r < size; r++)
            memcpy(out + (size_t)r * row, in[r] + (o->collective == LKS_ALL_TO_ALL ? (size_t)rank * row : 0),
                   row);
        break;
    default:
        break;
    }
}

/* The member's out after call 5 is right, one changed element of it is wrong, and so is nearly all of what
 * call 4 left. */
static void check_values(const lks_operation *o, int rank, int size)
{
    enum { CALL = 5 };
    size_t bytes = (size_t)size * o->count * lks__dtype_bytes(o->dtype);
    char *in[MAX_SIZE], *out = calloc(1, bytes + 1), *before = calloc(1, bytes + 1);
    lks_operation sent = *o;
    if (o->collective == LKS_RECV) {
        sent.collective = LKS_SEND;
        sent.root = rank;
    }
    for (int r = 0; r < size; r++)
        in[r] = calloc(1, bytes + 1);
    for (int r = 0; r < size; r++)
        lks__bench_fill(&sent, r, size, CALL - 1, in[r]);
    run_naively(o, rank, size, in, before);
    for (int r = 0; r < size; r++)
        lks__bench_fill(&sent, r, size, CALL, in[r]);
    run_naively(o, rank, size, in, out);
    CHECK_INT(lks__bench_wrong(o, rank, size, CALL, out), 0);
    int rows = lks__bench_out_rows(o, rank, size);
    if (rows > 0) {
        int64_t elements = rows * (int64_t)o->count;
        if (2 * lks__bench_wrong(o, rank, size, CALL, before) < elements)
            fail_msg("%s: results of another call are taken", lks__collective_name(o->collective));
        out[bytes / (size_t)size * (size_t)rows - 1] ^= 0x10; /* of the last element */
        CHECK_INT(lks__bench_wrong(o, rank, size, CALL, out), 1);
    }
    for (int r = 0; r < size; r++)
        free(in[r]);
    free(out);
    free(before);
}

static void values_are_right_for_every_type(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 1000, 20001};
    for (int c = LKS_ALL_REDUCE; c <= LKS_RECV; c++) {
        for (int dtype = 0; dtype < LKS__N_DTYPES && c != LKS_SEND; dtype++) {
            for (int i = 0; i < 3; i++) {
                int size = i == 2 ? MAX_SIZE : 3;
                lks_operation o = {(lks_collective)c, (lks_dtype)dtype, LKS_SUM, 1, counts[i], NULL, NULL};
                for (int rank = 0; rank < size; rank += size - 1)
                    check_values(&o, rank, size);
            }
        }
    }
}

static void values_are_right_for_every_op(void **state)
{
    (void)state;
    for (int op = 0; op < LKS__N_OPS; op++)
        for (int size = 2; size <= MAX_SIZE; size++) {
            lks_operation f32 = {LKS_ALL_REDUCE, LKS_F32, (lks_op)op, 0, 600, NULL, NULL};
            lks_operation bf16 = {LKS_REDUCE_SCATTER, LKS_BF16, (lks_op)op, 0, 600, NULL, NULL};
            check_values(&f32, size - 1, size);
            check_values(&bf16, size - 1, size);
        }
}

/* ---- a run ---- */

typedef struct seen {
    int n_rows;
    lks__bench_row rows[8];
} seen;

static void keep_row(void *context, const lks__bench_row *row)
{
    seen *s = context;
    if (s->n_rows < 8)
        s->rows[s->n_rows] = *row;
    s->n_rows++;
}

static void measure_as_member(member *self)
{
    const lks__bench_config *config = self->context;
    const char *name = lks__bench_name(config);
    seen s = {0};
    EXPECT_OK(self, lks__bench_measure(self->group, config, keep_row, &s));
    bool barrier = config->operation.collective == LKS_BARRIER;
    int rows = lks__bench_rows(config->operation.collective, self->size);
    EXPECT(self, s.n_rows == (barrier ? 1 : 3), "%s: %d rows", name, s.n_rows); /* 64, 1024, 16384 bytes */
    for (int i = 0; i < s.n_rows; i++) {
        const lks__bench_row *row = &s.rows[i];
        size_t count = barrier ? 0 : ((size_t)64 << 4 * i) / (size_t)(4 * rows);
        EXPECT(self, row->count == count, "%s: count %zu, wanted %zu", name, row->count, count);
        EXPECT(self, row->bytes == count * (size_t)(4 * rows), "%s: %zu bytes", name, row->bytes);
        EXPECT(self, row->calls == 3, "%s: %d calls", name, row->calls);
        EXPECT(self, row->wrong == 0, "%s: %lld elements are wrong", name, (long long)row->wrong);
        EXPECT(self, 0 < row->min_s && row->min_s <= row->median_s && row->median_s <= row->max_s,
               "%s: times %g, %g, %g", name, row->min_s, row->median_s, row->max_s);
    }
}

static void every_operation_is_measured(void **state)
{
    (void)state;
    for (int c = 0; c < N_OPERATIONS; c++)
        for (int size = 2; size <= 3; size++)
            for (int kind = AS_THREADS; kind <= AS_PROCESSES; kind++) {
                lks__bench_config config = {
                    .operation = {.collective = (lks_collective)c, .root = 1},
                    .group_memory = kind == AS_THREADS,
                    .min_bytes = 64,
                    .max_bytes = 16384,
                    .factor = 16,
                    .warmup = 1,
                    .calls = 3,
                };
                members_run((member_kind)kind, size, measure_as_member, &config);
            }
}

static void calls_fill_the_time(member *self)
{
    seen s = {0};
    EXPECT_OK(self, lks__bench_measure(self->group, self->context, keep_row, &s));
    EXPECT(self, s.n_rows == 1 && s.rows[0].calls >= 5 && s.rows[0].calls <= 5000, "%d calls",
           s.rows[0].calls);
}

static void calls_are_counted_by_time(void **state)
{
    (void)state;
    lks__bench_config config = {.operation = {.collective = LKS_ALL_REDUCE},
                                .min_bytes = 4,
                                .max_bytes = 4,
                                .factor = 2,
                                .warmup = 2};
    members_run(AS_THREADS, 2, calls_fill_the_time, &config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_understood),
        cmocka_unit_test(mistakes_are_refused),
        cmocka_unit_test(counts_fit_into_sizes),
        cmocka_unit_test(bus_factors_are_those_of_nccl_tests),
        cmocka_unit_test(times_are_summarized),
        cmocka_unit_test(values_are_right_for_every_type),
        cmocka_unit_test(values_are_right_for_every_op),
        cmocka_unit_test(every_operation_is_measured),
        cmocka_unit_test(calls_are_counted_by_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
