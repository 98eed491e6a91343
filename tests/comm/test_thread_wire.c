/* SPDX-License-Identifier: Apache-2.0 */
/* The wire between threads keeps the promises of wire.h, which those who are tested with it rely on. */
#include "comm/thread_wire.h"

#include "check.h"

enum { MOST_TESTS = 1000 };

#define OK(wire, call)                                                                                       \
    do {                                                                                                     \
        if ((call) != LKS_OK)                                                                                \
            fail_msg("%s: %s", #call, (wire)->error);                                                        \
    } while (0)

static lks_status test(lks__wire *wire, lks__wire_request *request, lks__wire_arrival *arrival)
{
    return wire->backend->test(wire, request, arrival);
}

static void finish(lks__wire *wire, lks__wire_request *request, lks__wire_arrival *arrival)
{
    lks_status status = LKS_IN_PROGRESS;
    for (int i = 0; i < MOST_TESTS && status == LKS_IN_PROGRESS; i++)
        status = test(wire, request, arrival);
    OK(wire, status);
}

static void close_all(int size, lks__wire **wires)
{
    for (int r = 0; r < size; r++)
        wires[r]->backend->close(wires[r], false);
}

static void test_machines(void **state)
{
    (void)state;
    lks__wire *w[5];
    thread_wires_create(5, (const int[]){7, 3, 7, 3, 9}, w);
    const int first[] = {0, 1, 0, 1, 4};
    for (int r = 0; r < 5; r++) {
        CHECK_INT(w[r]->rank, r);
        CHECK_INT(w[r]->size, 5);
        CHECK_INT(w[r]->machine, first[r]);
    }
    close_all(5, w);
}

/* Two messages of each of two tags: each tag's come in order, whichever is asked for first. */
static void test_order(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        lks__wire *w[2];
        thread_wires_create(2, NULL, w);
        if (seed > 0)
            thread_wires_delay(w[0], seed, 10);
        lks__wire_request sends[4], recvs[4];
        int sent[4] = {10, 20, 11, 21}, got[4] = {0};
        for (int i = 0; i < 4; i++)
            OK(w[0], w[0]->backend->send(w[0], &sent[i], sizeof sent[i], 1, 5 + i % 2, &sends[i]));
        for (int i = 0; i < 4; i++)
            OK(w[1], w[1]->backend->recv(w[1], &got[i], sizeof got[i], 0, 6 - i / 2, &recvs[i]));
        for (int i = 3; i >= 0; i--) {
            lks__wire_arrival arrival;
            finish(w[1], &recvs[i], &arrival);
            CHECK_INT(arrival.bytes, sizeof(int));
            CHECK_INT(arrival.from, 0);
            finish(w[0], &sends[i], NULL);
        }
        CHECK_INT(got[0], 20);
        CHECK_INT(got[1], 21);
        CHECK_INT(got[2], 10);
        CHECK_INT(got[3], 11);
        close_all(2, w);
    }
}

static void test_any(void **state)
{
    (void)state;
    bool first[3] = {false};
    for (uint64_t seed = 1; seed < 40; seed++) {
        lks__wire *w[3];
        thread_wires_create(3, NULL, w);
        thread_wires_delay(w[0], seed, 10);
        lks__wire_request sends[3], recvs[2];
        int got[2], from[2];
        for (int r = 1; r < 3; r++)
            OK(w[r], w[r]->backend->send(w[r], &r, sizeof r, 0, 0, &sends[r]));
        for (int i = 0; i < 2; i++)
            OK(w[0], w[0]->backend->recv(w[0], &got[i], sizeof got[i], LKS__WIRE_ANY, 0, &recvs[i]));
        for (int i = 0; i < 2; i++) {
            lks__wire_arrival arrival;
            finish(w[0], &recvs[i], &arrival);
            from[i] = arrival.from;
            CHECK_INT(got[i], from[i]);
        }
        CHECK_INT(from[0] + from[1], 3);
        first[from[0]] = true;
        close_all(3, w);
    }
    assert_true(first[1] && first[2]); /* chance takes both ways */
}

/* A long message stays in the sender's memory until the receiver looks. */
static void test_long_message(void **state)
{
    (void)state;
    enum { N = 100000 };
    static char sent[N], got[N];
    lks__wire *w[2];
    lks__wire_request send, recv;
    thread_wires_create(2, NULL, w);
    OK(w[0], w[0]->backend->send(w[0], sent, N, 1, 0, &send));
    CHECK_INT(test(w[0], &send, NULL), LKS_IN_PROGRESS);
    OK(w[1], w[1]->backend->recv(w[1], got, N, 0, 0, &recv));
    CHECK_INT(test(w[0], &send, NULL), LKS_IN_PROGRESS);
    memset(sent, 7, N);
    OK(w[1], test(w[1], &recv, NULL));
    OK(w[0], test(w[0], &send, NULL));
    CHECK_INT(got[N - 1], 7);
    close_all(2, w);
}

static void test_errors(void **state)
{
    (void)state;
    char data[2000] = {0};
    lks__wire *w[2];
    lks__wire_request send, recv;
    thread_wires_create(2, NULL, w);
    OK(w[0], w[0]->backend->send(w[0], data, 9, 1, 0, &send));
    OK(w[1], w[1]->backend->recv(w[1], data, 8, 0, 0, &recv));
    CHECK_INT(test(w[1], &recv, NULL), LKS_E_PEER);
    assert_non_null(strstr(w[1]->error, "longer"));
    CHECK_INT(test(w[1], &recv, NULL), LKS_E_PEER); /* it is not there any more */
    OK(w[0], test(w[0], &send, NULL));

    OK(w[1], w[1]->backend->recv(w[1], data, 8, 0, 3, &recv));
    w[1]->backend->cancel(w[1], &recv);
    OK(w[0], w[0]->backend->send(w[0], data, sizeof data, 1, 0, &send));
    w[1]->backend->close(w[1], true);
    CHECK_INT(test(w[0], &send, NULL), LKS_E_PEER);
    CHECK_INT(w[0]->backend->send(w[0], data, 1, 1, 0, &send), LKS_E_PEER);
    assert_non_null(strstr(w[0]->error, "closed"));
    w[0]->backend->close(w[0], true);
}

static void test_all_reduce(void **state)
{
    (void)state;
    lks__wire *w[3];
    lks__wire_request requests[2][3];
    float sums[3][2];
    int64_t most[3];
    thread_wires_create(3, NULL, w);
    for (int r = 0; r < 3; r++) {
        sums[r][0] = (float)r, sums[r][1] = 10;
        OK(w[r], w[r]->backend->all_reduce(w[r], sums[r], sums[r], 2, LKS_F32, LKS_SUM, &requests[0][r]));
        int64_t in = 5 - r;
        OK(w[r], w[r]->backend->all_reduce(w[r], &in, &most[r], 1, LKS_I64, LKS_MAX, &requests[1][r]));
        if (r < 2)
            CHECK_INT(test(w[0], &requests[1][0], NULL), LKS_IN_PROGRESS);
    }
    for (int r = 2; r >= 0; r--) {
        OK(w[r], test(w[r], &requests[1][r], NULL));
        OK(w[r], test(w[r], &requests[0][r], NULL));
        CHECK_NEAR(sums[r][0], 3, 0);
        CHECK_NEAR(sums[r][1], 30, 0);
        CHECK_INT(most[r], 5);
    }
    CHECK_INT(w[0]->backend->all_reduce(w[0], sums, sums, 1, LKS_BF16, LKS_SUM, &requests[0][0]), LKS_E_ARG);
    close_all(3, w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_machines),     cmocka_unit_test(test_order),  cmocka_unit_test(test_any),
        cmocka_unit_test(test_long_message), cmocka_unit_test(test_errors), cmocka_unit_test(test_all_reduce),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
