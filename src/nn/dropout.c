/* SPDX-License-Identifier: Apache-2.0 */
/* y = x / (1 - p) where kept, else 0    dx = dy / (1 - p) where kept, else 0
 *
 * Whether an element is kept depends on seed, dropout, step, leaf, row and element (docs/numerics.md), never
 * on a process, on the number of rows or on what was drawn before.
 *
 * Forward keeps a byte per element for backward: drawing again would cost as much as in forward, while
 * reading the bytes is a tenth of that (README.md). What is dropped is 0 whatever it was; what is kept and no
 * number stays none. */
#include "nn/dropout.h"

#include <math.h>
#include <string.h>

#include "base/random.h"
#include "nn/op.h"

/* The last counter word of Philox says what its numbers are for. */
#define PHILOX_DROPOUT 0x64726f70u /* "drop" */

/* Philox gives four words of 32 bits at a time, an element takes half of one. Element e of a row has bits 0
 * to 15 (e % 128 < 64) or 16 to 31 of word e % 64 / 16 of counter 16 (e / 128) + e % 16: so the lanes of a
 * vector are counters that follow each other, and words and halves are used as they lie. */
enum { LANES = 16, BLOCK = 4 * LANES };

uint32_t lks__dropout_threshold(double p)
{
    double n = nearbyint(p * 0x1p16);
    if (p > 0.0 && n < 1.0)
        return 1;
    return n < 0x1p16 ? (uint32_t)n : 0xffff;
}

/* 1 / (1 - p) for the p of the threshold, so that the mean of an element is kept. */
static float scale_of(uint32_t threshold)
{
    return (float)(0x1p16 / (0x1p16 - (double)threshold));
}

lks__dropout lks__dropout_make(const lks__draw *draw, uint32_t ordinal, uint32_t threshold)
{
    const uint64_t seed = (uint64_t)draw->seed, step = (uint64_t)draw->step, leaf = (uint64_t)draw->leaf;
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const uint32_t counter[4] = {ordinal, (uint32_t)(step >> 32), (uint32_t)(leaf >> 32), PHILOX_DROPOUT};
    uint32_t own[4];
    lks__philox(counter, key, own);
    return (lks__dropout){.key = {own[0], own[1]},
                          .leaf = (uint32_t)leaf,
                          .step = (uint32_t)step,
                          .threshold = threshold,
                          .scale = scale_of(threshold)};
}

/* lks__philox for LANES counters from `first` on. Words are kept in 64 bits, of which the upper half holds
 * anything: a product takes the lower half alone, so that it is one of 32 bits times 32. */
#define LOW(x) ((x)&0xffffffffu)
#define ROUND                                                                                                \
    do {                                                                                                     \
        uint64_t p0 = 0xD2511F53u * LOW(c0), p1 = 0xCD9E8D57u * LOW(c2);                                     \
        c0 = (p1 >> 32) ^ c1 ^ k0;                                                                           \
        c1 = p1;                                                                                             \
        c2 = (p0 >> 32) ^ c3 ^ k1;                                                                           \
        c3 = p0;                                                                                             \
        k0 += 0x9E3779B9u;                                                                                   \
        k1 += 0xBB67AE85u;                                                                                   \
    } while (0)

LKS__SIMD_BODY void draw_block(const lks__dropout *d, uint32_t first, uint32_t row, uint32_t *restrict bits)
{
    for (uint32_t lane = 0; lane < LANES; lane++) {
        uint64_t c0 = first + lane, c1 = row, c2 = d->leaf, c3 = d->step;
        uint32_t k0 = d->key[0], k1 = d->key[1];
        ROUND; /* ten, written out: as a loop it would stand between the compiler and the lanes */
        ROUND;
        ROUND;
        ROUND;
        ROUND;
        ROUND;
        ROUND;
        ROUND;
        ROUND;
        ROUND;
        bits[lane] = (uint32_t)c0;
        bits[LANES + lane] = (uint32_t)c1;
        bits[2 * LANES + lane] = (uint32_t)c2;
        bits[3 * LANES + lane] = (uint32_t)c3;
    }
}

/* x, y: [n <= BLOCK]. The values go through memory of their own, so that y may be x. */
LKS__SIMD_BODY void drop_block(const lks__dropout *d, int64_t n, const uint32_t *restrict bits, int shift,
                               const float *x, float *y, uint8_t *kept)
{
    const uint32_t threshold = d->threshold;
    const float scale = d->scale;
    float values[BLOCK];
    uint8_t mask[BLOCK];
    for (int64_t i = 0; i < n; i++)
        mask[i] = (bits[i] >> shift & 0xffffu) >= threshold;
    for (int64_t i = 0; i < n; i++)
        values[i] = (bits[i] >> shift & 0xffffu) >= threshold ? x[i] * scale : 0.0f;
    memcpy(y, values, (size_t)n * sizeof *y);
    memcpy(kept, mask, (size_t)n * sizeof *mask);
}

LKS__SIMD_BODY void drop_part(const lks__dropout *d, int64_t n, const uint32_t *restrict bits, int shift,
                              const float *x, float *y, uint8_t *kept)
{
    if (n >= BLOCK) /* the usual case, with a length that the compiler knows */
        drop_block(d, BLOCK, bits, shift, x, y, kept);
    else
        drop_block(d, n, bits, shift, x, y, kept);
}

#define PARAMS (const lks__dropout *d, int64_t n_rows, int64_t n, const float *x, float *y, uint8_t *kept)
#define ARGS   (d, n_rows, n, x, y, kept)

LKS__SIMD_BODY void drop_body PARAMS
{
    const lks__dropout c = *d;
    uint32_t bits[BLOCK];
    for (int64_t row = 0; row < n_rows; row++, x += n, y += n, kept += n)
        for (int64_t start = 0; start < n; start += 2 * BLOCK) {
            int64_t next = start + BLOCK;
            draw_block(&c, (uint32_t)(start / 2 / BLOCK * LANES), (uint32_t)row, bits);
            drop_part(&c, n - start, bits, 0, x + start, y + start, kept + start);
            if (next < n)
                drop_part(&c, n - next, bits, 16, x + next, y + next, kept + next);
        }
}

LKS__SIMD_VERSIONS(drop, void, PARAMS, ARGS)

lks__dropout_fn *const lks__dropout_versions[LKS__SIMD_LEVELS] = LKS__SIMD_TABLE(drop);

static lks_status infer(lks__node *node, const lks__node *x)
{
    node->n_dims = x->n_dims;
    memcpy(node->shape, x->shape, sizeof node->shape);
    node->n_elems = x->n_elems;
    return LKS_OK;
}

static bool drops(const lks__run *run, const lks__unit *unit)
{
    return run->draw != NULL && unit->node->dropout.threshold > 0;
}

static lks_status forward(const lks__run *run, const lks__unit *unit)
{
    int64_t n = unit->node->n_elems;
    if (drops(run, unit)) {
        lks__dropout d = lks__dropout_make(run->draw, unit->node->dropout.ordinal,
                                           unit->node->dropout.threshold);
        lks__dropout_versions[lks__simd_best()](&d, unit->batch, n, unit->x, unit->y, unit->kept);
    } else if (unit->y != unit->x)
        memcpy(unit->y, unit->x, (size_t)(unit->batch * n) * sizeof *unit->y);
    return LKS_OK;
}

static lks_status backward_data(const lks__run *run, const lks__unit *unit)
{
    int64_t n = unit->batch * unit->node->n_elems;
    if (unit->dx != unit->dy)
        memcpy(unit->dx, unit->dy, (size_t)n * sizeof *unit->dx);
    if (!drops(run, unit))
        return LKS_OK;
    const float scale = scale_of(unit->node->dropout.threshold);
    const uint8_t *restrict kept = unit->kept;
    float *restrict d = unit->dx;
    for (int64_t i = 0; i < n; i++)
        d[i] = kept[i] != 0 ? d[i] * scale : 0.0f;
    return LKS_OK;
}

static void describe(const lks__node *node, lks__text *text)
{
    lks__text_add(text, "%u: %u\n", node->dropout.ordinal, node->dropout.threshold);
}

const lks__op lks__op_dropout = {
    .name = "dropout",
    .in_place = true,
    .keeps_mask = true,
    .infer = infer,
    .describe = describe,
    .run = {forward, NULL, backward_data},
};
