/* SPDX-License-Identifier: Apache-2.0 */
/** What every test program includes: cmocka, and assertions that print both values. */
#ifndef LKS_TESTS_CHECK_H
#define LKS_TESTS_CHECK_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <lockstep/status.h>

/** The call succeeds; otherwise its message is printed. */
#define CHECK_OK(call)                                                                                       \
    do {                                                                                                     \
        lks_status check_status = (call);                                                                    \
        if (check_status != LKS_OK)                                                                          \
            fail_msg("%s: %s: %s", #call, lks_status_name(check_status), lks_error_message());               \
    } while (0)

/** The call fails with this status and its message contains the text. */
#define CHECK_FAILS(call, status, text)                                                                      \
    do {                                                                                                     \
        lks_status check_status = (call);                                                                    \
        if (check_status != (status))                                                                        \
            fail_msg("%s: got %s, wanted %s", #call, lks_status_name(check_status),                          \
                     lks_status_name(status));                                                               \
        if (strstr(lks_error_message(), text) == NULL)                                                       \
            fail_msg("%s: the message is \"%s\", it lacks \"%s\"", #call, lks_error_message(), text);        \
    } while (0)

#define CHECK_INT(actual, expected)                                                                          \
    do {                                                                                                     \
        long long check_a = (long long)(actual), check_e = (long long)(expected);                            \
        if (check_a != check_e)                                                                              \
            fail_msg("%s is %lld, wanted %lld", #actual, check_a, check_e);                                  \
    } while (0)

/** |actual - expected| <= tolerance; a NaN fails. Say beside each use why the tolerance is what it is. */
#define CHECK_NEAR(actual, expected, tolerance)                                                              \
    do {                                                                                                     \
        double check_a = (double)(actual), check_e = (double)(expected), check_t = (double)(tolerance);      \
        if (!(fabs(check_a - check_e) <= check_t))                                                           \
            fail_msg("%s is %.17g, wanted %.17g within %.3g", #actual, check_a, check_e, check_t);           \
    } while (0)

#endif
