/* SPDX-License-Identifier: Apache-2.0 */
/* Every collective x operation x type x size x count, in place and not, as threads and as processes, with
 * data that is exact in every type. */
#include "check.h"

#include <stdlib.h>

#include <lockstep/group.h>

#include "comm/elements.h"
#include "comm/members.h"

enum {
    LARGE_BYTES = 530001, /* two full halves of a staging area and a bit, for every type */
    PERIOD = 31,          /* of the data */
    UNTOUCHED = 99,
};

static const int sizes[] = {1, 2, 3, 5, 8};
static const size_t small_counts[] = {0, 1, 1023, 4099};

enum { N_SIZES = sizeof sizes / sizeof sizes[0], N_SMALL = sizeof small_counts / sizeof small_counts[0] };

/* Element i of member r's input. 0..30: sums over 8 members fit into every type, and are exact in bf16. The
 * 13 is prime to the 31. For products 1 or 2, four times in 31: at most 2^8 in 8 members. */
static int value(lks_op op, int rank, size_t i)
{
    int v = (int)((i + (size_t)rank * 13) % PERIOD);
    return op != LKS_PROD ? v : v < 4 ? 2 : 1;
}

static double reduced(lks_op op, int size, size_t i)
{
    double sum = 0, most = 0, least = PERIOD, product = 1;
    for (int r = 0; r < size; r++) {
        double v = value(op, r, i);
        sum += v, product *= v;
        most = v > most ? v : most;
        least = v < least ? v : least;
    }
    switch (op) {
    case LKS_SUM:
        return sum;
    case LKS_MEAN: /* the sum is exact, so the one division is the only rounding */
        return sum / size;
    case LKS_MAX:
        return most;
    case LKS_MIN:
        return least;
    case LKS_PROD:
        return product;
    }
    return NAN;
}

/* ---- what each collective reads and writes, by its definition ---- */

typedef struct shape {
    const char *name;
    lks_collective collective;
    bool reduces, has_root;
    bool in_rows, out_rows; /* [size, n] instead of [n] */
    bool only_root_gets;
} shape;

static const shape shapes[] = {
    {"all_reduce", LKS_ALL_REDUCE, true, false, false, false, false},
    {"broadcast", LKS_BROADCAST, false, true, false, false, false},
    {"reduce", LKS_REDUCE, true, true, false, false, true},
    {"all_gather", LKS_ALL_GATHER, false, false, false, true, false},
    {"reduce_scatter", LKS_REDUCE_SCATTER, true, false, true, false, false},
    {"gather", LKS_GATHER, false, true, false, true, true},
    {"scatter", LKS_SCATTER, false, true, true, false, false},
    {"all_to_all", LKS_ALL_TO_ALL, false, false, true, true, false},
};

enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

/* Element i of row `row` of this member's output. */
static double expected(const member *self, const lks_operation *o, int row, size_t i)
{
    size_t own = (size_t)self->rank * o->count + i;
    switch (o->collective) {
    case LKS_ALL_REDUCE:
    case LKS_REDUCE:
        return reduced(o->op, self->size, i);
    case LKS_REDUCE_SCATTER:
        return reduced(o->op, self->size, own);
    case LKS_BROADCAST:
        return value(o->op, o->root, i);
    case LKS_SCATTER:
        return value(o->op, o->root, own);
    case LKS_ALL_GATHER:
    case LKS_GATHER:
        return value(o->op, row, i);
    case LKS_ALL_TO_ALL:
        return value(o->op, row, own);
    default:
        return NAN;
    }
}

/* ---- one call ---- */

typedef enum placing { APART, IN_PLACE, IN_FIRST_ROW, N_PLACINGS } placing;

typedef struct buffers {
    char *a, *b; /* each enough for the largest rows */
} buffers;

/* In place as the header says: where the input has fewer rows than the output it lies in the own one, and the
 * other way round. IN_FIRST_ROW is reduce_scatter's. */
static bool place(const member *self, const shape *s, const buffers *v, placing how, lks_operation *o)
{
    size_t own_row = (size_t)self->rank * o->count * element_bytes[o->dtype];
    bool is_root = !s->has_root || self->rank == o->root;
    o->in = v->a;
    o->out = v->b;
    if (how == IN_FIRST_ROW) {
        o->out = v->a;
        return s->collective == LKS_REDUCE_SCATTER;
    }
    if (how == APART || (!is_root && s->in_rows != s->out_rows))
        return true;
    o->out = s->in_rows && !s->out_rows ? v->a + own_row : v->a;
    o->in = s->out_rows && !s->in_rows ? v->a + own_row : v->a;
    return true;
}

static lks_status call(lks_group *g, const lks_operation *o, placing how)
{
    if (how == APART)
        return lks_group_run(g, o);
    switch (o->collective) {
    case LKS_ALL_REDUCE:
        return lks_group_all_reduce(g, o->out, o->count, o->dtype, o->op);
    case LKS_BROADCAST:
        return lks_group_broadcast(g, o->out, o->count, o->dtype, o->root);
    case LKS_REDUCE:
        return lks_group_reduce(g, o->out, o->count, o->dtype, o->op, o->root);
    case LKS_ALL_GATHER:
        return lks_group_all_gather(g, o->in, o->out, o->count, o->dtype);
    case LKS_REDUCE_SCATTER:
        return lks_group_reduce_scatter(g, o->in, o->out, o->count, o->dtype, o->op);
    case LKS_GATHER:
        return lks_group_gather(g, o->in, o->out, o->count, o->dtype, o->root);
    case LKS_SCATTER:
        return lks_group_scatter(g, o->in, o->out, o->count, o->dtype, o->root);
    default:
        return lks_group_all_to_all(g, o->in, o->out, o->count, o->dtype);
    }
}

/* Everything repeats itself after a period: it is written, and compared, by periods. */
typedef struct pattern {
    char bytes[PERIOD * sizeof(double)];
    size_t element;
} pattern;

static pattern pattern_of(const double values[PERIOD], lks_dtype dtype)
{
    pattern p = {.element = element_bytes[dtype]};
    for (size_t i = 0; i < PERIOD; i++)
        element_put(p.bytes, i, dtype, values[i]);
    return p;
}

static pattern input_pattern(const member *self, const lks_operation *o)
{
    double values[PERIOD];
    for (size_t i = 0; i < PERIOD; i++)
        values[i] = value(o->op, self->rank, i);
    return pattern_of(values, o->dtype);
}

static void fill(void *data, size_t n, const pattern *p)
{
    for (size_t done = 0; done < n; done += PERIOD)
        memcpy((char *)data + done * p->element, p->bytes,
               (n - done < PERIOD ? n - done : PERIOD) * p->element);
}

static void check_data(member *self, const void *data, size_t n, const pattern *p, const char *where)
{
    for (size_t done = 0; done < n; done += PERIOD) {
        size_t some = n - done < PERIOD ? n - done : PERIOD;
        EXPECT(self, memcmp((const char *)data + done * p->element, p->bytes, some * p->element) == 0,
               "%s: wrong in [%zu, %zu)", where, done, done + some);
    }
}

/* Row `row` of the output. */
static void check_row(member *self, const shape *s, const lks_operation *o, placing how, int row)
{
    double wanted[PERIOD];
    char where[128];
    bool gets = !s->only_root_gets || self->rank == o->root;
    bool untouched = !gets && o->out != o->in;
    untouched = untouched || (s->collective == LKS_BROADCAST && how == APART && self->rank == o->root);
    for (size_t i = 0; i < PERIOD; i++) {
        double v = gets ? expected(self, o, row, i) : value(o->op, self->rank, i);
        wanted[i] = untouched ? UNTOUCHED : v;
    }
    pattern p = pattern_of(wanted, o->dtype);
    snprintf(where, sizeof where, "%s type %d op %d count %zu root %d placing %d: row %d", s->name,
             (int)o->dtype, (int)o->op, o->count, o->root, (int)how, row);
    check_data(self, (const char *)o->out + (size_t)row * o->count * p.element, o->count, &p, where);
}

static void check(member *self, const shape *s, const buffers *v, lks_operation o, placing how)
{
    if (!place(self, s, v, how, &o))
        return;
    size_t n_in = o.count * (size_t)(s->in_rows ? self->size : 1);
    size_t n_out = o.count * (size_t)(s->out_rows ? self->size : 1);
    double untouched[PERIOD];
    for (int i = 0; i < PERIOD; i++)
        untouched[i] = UNTOUCHED;
    pattern before = pattern_of(untouched, o.dtype), input = input_pattern(self, &o);
    fill(o.out, n_out, &before);
    fill((void *)o.in, n_in, &input);
    EXPECT_OK(self, call(self->group, &o, how));
    for (int row = 0; row < (s->out_rows ? self->size : 1); row++)
        check_row(self, s, &o, how, row);
    if (how == APART)
        check_data(self, o.in, n_in, &input, "the input");
}

/* ---- the table ---- */

static void check_placings(member *self, const shape *s, const buffers *v, const lks_operation *o)
{
    for (int how = APART; how < N_PLACINGS; how++)
        check(self, s, v, *o, (placing)how);
}

static void check_small(member *self, const shape *s, const buffers *v, lks_dtype dtype)
{
    for (int op = 0; op <= (s->reduces ? LKS_PROD : 0); op++) {
        if (op == LKS_MEAN && !element_is_float[dtype])
            continue;
        for (int c = 0; c < N_SMALL; c++) {
            lks_operation o = {s->collective, dtype, (lks_op)op, 0, small_counts[c], NULL, NULL};
            check_placings(self, s, v, &o);
            o.root = self->size - 1;
            if (s->has_root && o.root > 0)
                check_placings(self, s, v, &o);
        }
    }
}

static void check_large(member *self, const shape *s, const buffers *v, lks_dtype dtype)
{
    size_t rows = s->in_rows ? (size_t)self->size : 1;
    size_t count = LARGE_BYTES / element_bytes[dtype] / rows + 1;
    lks_operation o = {s->collective, dtype, LKS_SUM, self->size / 2, count, NULL, NULL};
    check_placings(self, s, v, &o);
}

static void whole_table(member *self)
{
    size_t bytes = (size_t)(self->size + 1) * (LARGE_BYTES + 100);
    buffers v = {malloc(bytes), malloc(bytes)};
    EXPECT(self, v.a != NULL && v.b != NULL, "out of memory");
    for (int s = 0; s < N_SHAPES && self->failure[0] == '\0'; s++)
        for (int dtype = 0; dtype < N_ELEMENT_TYPES; dtype++) {
            check_small(self, &shapes[s], &v, (lks_dtype)dtype);
            check_large(self, &shapes[s], &v, (lks_dtype)dtype);
            EXPECT_OK(self, lks_group_barrier(self->group));
        }
    free(v.a), free(v.b);
}

static void table_as(member_kind kind)
{
    for (int s = 0; s < N_SIZES; s++)
        members_run(kind, sizes[s], whole_table, NULL);
}

static void every_operation_as_threads(void **state)
{
    (void)state;
    table_as(AS_THREADS);
}

static void every_operation_as_processes(void **state)
{
    (void)state;
    table_as(AS_PROCESSES);
}

static void every_operation_over_machines(void **state)
{
    (void)state;
    for (int kind = ON_HALVES; kind <= EACH_ALONE; kind++)
        table_as((member_kind)kind);
}

/* The socket only hands out the file: few sizes are enough. */
static void every_operation_after_meeting_at_a_socket(void **state)
{
    (void)state;
    members_run(AS_STRANGERS, 2, whole_table, NULL);
    members_run(AS_STRANGERS, 5, whole_table, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_as_threads),
        cmocka_unit_test(every_operation_as_processes),
        cmocka_unit_test(every_operation_over_machines),
        cmocka_unit_test(every_operation_after_meeting_at_a_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
