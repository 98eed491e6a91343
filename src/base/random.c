/* SPDX-License-Identifier: Apache-2.0 */
#include "base/random.h"

void lks__philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u; /* the golden ratio */
        k1 += 0xBB67AE85u; /* sqrt(3) - 1 */
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

enum { MT_N = 624, MT_M = 397 };

void lks__mt19937_init(lks__mt19937 *generator, uint32_t seed)
{
    generator->state[0] = seed;
    for (uint32_t i = 1; i < MT_N; i++) {
        uint32_t previous = generator->state[i - 1];
        generator->state[i] = 1812433253u * (previous ^ (previous >> 30)) + i;
    }
    generator->next = MT_N;
}

static void refill(lks__mt19937 *generator)
{
    uint32_t *s = generator->state;
    for (int i = 0; i < MT_N; i++) {
        uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % MT_N] & 0x7fffffffu);
        s[i] = s[(i + MT_M) % MT_N] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    generator->next = 0;
}

uint32_t lks__mt19937_next(lks__mt19937 *generator)
{
    if (generator->next == MT_N)
        refill(generator);
    uint32_t y = generator->state[generator->next++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    y ^= y >> 18;
    return y;
}
