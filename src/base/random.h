/* SPDX-License-Identifier: Apache-2.0 */
/** Random numbers: Philox for everything that is keyed by what it is for, MT19937 for PyTorch's order of
 * samples. */
#ifndef LKS_BASE_RANDOM_H
#define LKS_BASE_RANDOM_H

#include <stdint.h>

/** Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): 128 random bits that
 * depend on counter and key only. */
void lks__philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/** Uniform in [0, 1) from 32 random bits: the upper 24 of them, exact in f32. */
static inline float lks__unit_f32(uint32_t bits)
{
    return (float)(bits >> 8) * 0x1p-24f;
}

/** MT19937 (Matsumoto and Nishimura 1998). */
typedef struct lks__mt19937 {
    uint32_t state[624];
    int next;
} lks__mt19937;

void lks__mt19937_init(lks__mt19937 *generator, uint32_t seed);
uint32_t lks__mt19937_next(lks__mt19937 *generator);

#endif
