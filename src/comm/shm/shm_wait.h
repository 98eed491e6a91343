/* SPDX-License-Identifier: Apache-2.0 */
/** Waiting: futexes, a pause between looks, and deadlines that count time really slept. */
#ifndef LKS_COMM_SHM_WAIT_H
#define LKS_COMM_SHM_WAIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    LKS__SLICE_NS = 100 * 1000 * 1000, /* the longest single sleep */
    /* How long to look before anything else, where every member has a core: more than such members usually
     * differ by. With other programs on the same cores a training step on 2 processes took 1.6 to 2.1 times
     * as long when this was 1 ms as when it was 0.1 ms, and 1.1 to 1.2 times as long with 0.1 ms as with
     * 0.02; on free cores all three gave the same. */
    LKS__SPIN_NS = 50 * 1000,
    LKS__YIELDS = 8, /* measured: 9 us per barrier of 8 processes on 2 cores, 31 us with none */
};

/** How much longer a wait may take. A sleep counts for at most its slice: a process that was stopped (Ctrl-Z)
 * or a machine that was suspended wakes up with its time left. */
typedef struct lks__deadline {
    int64_t left_ns;
} lks__deadline;

/** A timeout in nanoseconds; infinity becomes thirty years. */
int64_t lks__timeout_ns(double seconds);

/** The length of the next sleep; 0: the deadline has passed. */
static inline int64_t lks__deadline_slice(const lks__deadline *deadline)
{
    if (deadline->left_ns <= 0)
        return 0;
    return deadline->left_ns < LKS__SLICE_NS ? deadline->left_ns : LKS__SLICE_NS;
}

/** Takes off the time since start_ns, at most slice_ns. */
void lks__deadline_spend(lks__deadline *deadline, int64_t start_ns, int64_t slice_ns);

/** Sleeps while *word == expected, until woken or slice_ns has passed; may return early. Works between
 * processes. */
void lks__futex_sleep(_Atomic uint32_t *word, uint32_t expected, int64_t slice_ns);
void lks__futex_wake_all(_Atomic uint32_t *word);

/** Tells the processor that this is a loop that waits. */
static inline void lks__pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
