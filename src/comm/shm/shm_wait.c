/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* syscall */

#include "comm/shm/shm_wait.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/machine.h"

_Static_assert(sizeof(_Atomic uint32_t) == sizeof(uint32_t), "a futex is 32 bits");

int64_t lks__timeout_ns(double seconds)
{
    const double most = 1e9;
    return (int64_t)((seconds < most ? seconds : most) * 1e9);
}

void lks__deadline_spend(lks__deadline *deadline, int64_t start_ns, int64_t slice_ns)
{
    int64_t passed_ns = lks__now_ns() - start_ns;
    deadline->left_ns -= passed_ns < slice_ns ? passed_ns : slice_ns;
}

void lks__futex_sleep(_Atomic uint32_t *word, uint32_t expected, int64_t slice_ns)
{
    struct timespec slice = {.tv_sec = (time_t)(slice_ns / 1000000000),
                             .tv_nsec = (long)(slice_ns % 1000000000)};
    /* Woken, value changed, signal, time out: the caller looks again in every case. */
    (void)syscall(SYS_futex, word, FUTEX_WAIT, expected, &slice, NULL, 0);
}

void lks__futex_wake_all(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}
