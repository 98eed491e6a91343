/* SPDX-License-Identifier: Apache-2.0 */
/* Every operation x type x size x count, as threads and as processes, with data that is exact in every type.
 */
#include "check.h"

#include <stdlib.h>

#include <lockstep/group.h>

#include "comm/members.h"

enum { LARGE = 300001 }; /* f32: five staging areas, the last one not full; f64: ten */

static const int sizes[] = {1, 2, 3, 5, 8};
static const size_t counts[] = {0, 1, 1023, 8193, LARGE};

static const struct {
    lks_dtype dtype;
    size_t bytes;
    bool has_mean;
} dtypes[] = {
    {LKS_F32, 4, true}, {LKS_F64, 8, true}, {LKS_I32, 4, false}, {LKS_I64, 8, false}, {LKS_U8, 1, false},
};

enum { N_SIZES = sizeof sizes / sizeof sizes[0], N_COUNTS = sizeof counts / sizeof counts[0] };
enum { N_DTYPES = sizeof dtypes / sizeof dtypes[0] };

static double get(const void *data, size_t i, lks_dtype dtype)
{
    switch (dtype) {
    case LKS_F32:
        return ((const float *)data)[i];
    case LKS_F64:
        return ((const double *)data)[i];
    case LKS_I32:
        return ((const int32_t *)data)[i];
    case LKS_I64:
        return (double)((const int64_t *)data)[i];
    case LKS_U8:
        return ((const uint8_t *)data)[i];
    }
    return NAN;
}

static void put(void *data, size_t i, lks_dtype dtype, double value)
{
    switch (dtype) {
    case LKS_F32:
        ((float *)data)[i] = (float)value;
        break;
    case LKS_F64:
        ((double *)data)[i] = value;
        break;
    case LKS_I32:
        ((int32_t *)data)[i] = (int32_t)value;
        break;
    case LKS_I64:
        ((int64_t *)data)[i] = (int64_t)value;
        break;
    case LKS_U8:
        ((uint8_t *)data)[i] = (uint8_t)value;
        break;
    }
}

/* Member r's element i, 0..30: sums over 8 members fit into every type. The 13 is prime to the 31. */
static int value(int rank, size_t i)
{
    return (int)((i + (size_t)rank * 13) % 31);
}

static double expected(lks_op op, int size, size_t i)
{
    int sum = 0, most = 0;
    for (int r = 0; r < size; r++) {
        sum += value(r, i);
        most = value(r, i) > most ? value(r, i) : most;
    }
    if (op == LKS_MAX)
        return most;
    return op == LKS_SUM ? sum : (double)sum / size;
}

/* mean: the sum is exact, so the one division is the only rounding, in f32 the float division's. */
static double rounded(double x, lks_dtype dtype)
{
    return dtype == LKS_F32 ? (double)(float)x : x;
}

static void check_all_reduce(member *self, void *data, int type, size_t count, lks_op op)
{
    lks_dtype dtype = dtypes[type].dtype;
    for (size_t i = 0; i < count; i++)
        put(data, i, dtype, value(self->rank, i));
    EXPECT_OK(self, lks_group_all_reduce(self->group, data, count, dtype, op));
    for (size_t i = 0; i < count; i++) {
        double wanted = rounded(expected(op, self->size, i), dtype);
        EXPECT(self, get(data, i, dtype) == wanted,
               "all_reduce type %d op %d count %zu: [%zu] is %g, wanted %g", (int)dtype, (int)op, count, i,
               get(data, i, dtype), wanted);
    }
}

static void check_broadcast(member *self, void *data, int type, size_t count, int root)
{
    lks_dtype dtype = dtypes[type].dtype;
    for (size_t i = 0; i < count; i++)
        put(data, i, dtype, value(self->rank, i));
    EXPECT_OK(self, lks_group_broadcast(self->group, data, count, dtype, root));
    for (size_t i = 0; i < count; i++)
        EXPECT(self, get(data, i, dtype) == value(root, i),
               "broadcast type %d count %zu root %d: [%zu] is %g, wanted %d", (int)dtype, count, root, i,
               get(data, i, dtype), value(root, i));
}

static void whole_table(member *self)
{
    void *data = malloc(LARGE * sizeof(double));
    EXPECT(self, data != NULL, "out of memory");
    for (int type = 0; type < N_DTYPES; type++) {
        for (int c = 0; c < N_COUNTS; c++) {
            check_all_reduce(self, data, type, counts[c], LKS_SUM);
            check_all_reduce(self, data, type, counts[c], LKS_MAX);
            if (dtypes[type].has_mean)
                check_all_reduce(self, data, type, counts[c], LKS_MEAN);
            check_broadcast(self, data, type, counts[c], 0);
            check_broadcast(self, data, type, counts[c], self->size - 1);
            EXPECT_OK(self, lks_group_barrier(self->group));
        }
    }
    free(data);
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
        cmocka_unit_test(every_operation_after_meeting_at_a_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
