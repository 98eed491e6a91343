/* SPDX-License-Identifier: Apache-2.0 */
/* More than 2^31 bytes, and with rows more than 2^32, where there is memory for it. */
#include "check.h"

#include <stdlib.h>

#include <lockstep/group.h>

#include "comm/available.h"
#include "comm/members.h"

static const size_t huge = ((size_t)1 << 31) + 4099;

static unsigned char value(int rank, size_t i)
{
    return (unsigned char)(i * 31 + (i >> 20) + (size_t)rank * 13);
}

/* The ends, what lies around 2^31, and some between. */
static void check(member *self, const unsigned char *data, const char *what,
                  unsigned char (*wanted)(size_t i))
{
    for (size_t i = 0; i < huge; i += i % 65536 < 100 || i + 8192 > huge ? 1 : 997)
        EXPECT(self, data[i] == wanted(i), "%s: [%zu] is %d, wanted %d", what, i, data[i], wanted(i));
}

static unsigned char from_0(size_t i)
{
    return value(0, i);
}

static unsigned char from_1(size_t i)
{
    return value(1, i);
}

static unsigned char sum(size_t i)
{
    return (unsigned char)(value(0, i) + value(1, i));
}

static void fill(unsigned char *data, int rank)
{
    for (size_t i = 0; i < huge; i++)
        data[i] = value(rank, i);
}

static void all_of_it(member *self)
{
    lks_group *g = self->group;
    unsigned char *data = malloc(2 * huge); /* two rows */
    EXPECT(self, data != NULL, "out of memory");
    fill(data, self->rank);
    EXPECT_OK(self, lks_group_all_reduce(g, data, huge, LKS_U8, LKS_SUM));
    check(self, data, "all_reduce", sum);
    fill(data, self->rank);
    EXPECT_OK(self, lks_group_broadcast(g, data, huge, LKS_U8, 1));
    check(self, data, "broadcast", from_1);
    fill(data, self->rank);
    if (self->rank == 0)
        EXPECT_OK(self, lks_group_send(g, data, huge, LKS_U8, 1));
    else
        EXPECT_OK(self, lks_group_recv(g, data, huge, LKS_U8, 0));
    check(self, data, "send and recv", from_0);
    fill(data + (size_t)self->rank * huge, self->rank);
    EXPECT_OK(self, lks_group_all_gather(g, data + (size_t)self->rank * huge, data, huge, LKS_U8));
    check(self, data, "all_gather row 0", from_0);
    check(self, data + huge, "all_gather row 1", from_1);
    EXPECT_OK(self, lks_group_all_to_all(g, data, data, huge, LKS_U8)); /* row r of rank s was rank r's */
    check(self, data, "all_to_all row 0", self->rank == 0 ? from_0 : from_1);
    check(self, data + huge, "all_to_all row 1", self->rank == 0 ? from_0 : from_1);
    free(data);
}

static void huge_counts(void **state)
{
    (void)state;
    if (lks__check_available(5 * huge) != LKS_OK)
        skip();
    members_run(AS_THREADS, 2, all_of_it, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(huge_counts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
