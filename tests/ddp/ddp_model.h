/* SPDX-License-Identifier: Apache-2.0 */
/** A model for the tests of lks_ddp: tensors of several sizes, gradients that are a function of step, rank,
 * pass and element, and what they should become. */
#ifndef LKS_TESTS_DDP_MODEL_H
#define LKS_TESTS_DDP_MODEL_H

#include "check.h"

#include <stdlib.h>

#include <lockstep/ddp.h>

#include "comm/members.h"

enum { N_TENSORS = 7, MODEL_ELEMS = 9431, MAX_MEMBERS = 8 };

/* One element, none, less and more than a bucket of 1,000 bytes. */
static const int64_t model_sizes[N_TENSORS] = {3, 0, 5000, 70, 1, 260, 4097};
static const char *const model_names[N_TENSORS] = {"a", "empty", "big", "b", "one", "c", "last"};

/* How gradients lie in memory: each in an array of its own, all in one array, or lent by lockstep. */
typedef enum layout { SCATTERED, ADJACENT, LENT, N_LAYOUTS } layout;

typedef struct model {
    lks_ddp_tensor tensors[N_TENSORS];
    float params[MODEL_ELEMS];
    float grads[MODEL_ELEMS + N_TENSORS]; /* scattered: an element between each two */
    lks_ddp *ddp;
} model;

static inline uint32_t mix(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t x = a * 0x9e3779b1u ^ b * 0x85ebca6bu ^ c * 0xc2b2ae35u;
    x ^= x >> 15, x *= 0x2c1b3c6du, x ^= x >> 12, x *= 0x297a2d39u, x ^= x >> 15;
    return x;
}

/* Magnitudes over 24 powers of two: nearly every other order of additions gives another sum. */
static inline float gradient(int step, int rank, int tensor, int64_t elem)
{
    uint32_t h = mix((uint32_t)(step * 64 + rank), (uint32_t)tensor, (uint32_t)elem);
    return ldexpf((float)(h >> 8) * 0x1p-23f - 1.0f, (int)(h % 24) - 12);
}

/* 0 .. 4 */
static inline int64_t samples_of(int step, int rank)
{
    return mix(77, (uint32_t)step, (uint32_t)rank) % 5;
}

static inline model *new_model(layout how)
{
    model *m = calloc(1, sizeof *m);
    float *param = m->params, *grad = m->grads;
    for (int i = 0; i < N_TENSORS && m != NULL; i++) {
        m->tensors[i] = (lks_ddp_tensor){model_names[i], model_sizes[i], param, how == LENT ? NULL : grad};
        param += model_sizes[i];
        grad += model_sizes[i] + (how == SCATTERED);
    }
    return m;
}

static inline lks_ddp_config model_config(const member *self, const model *m)
{
    lks_ddp_config config = lks_ddp_config_default();
    config.group = self->group;
    config.n_tensors = N_TENSORS;
    config.tensors = m->tensors;
    return config;
}

static inline void free_model(model *m)
{
    lks_ddp_destroy(m->ddp);
    free(m);
}

/* An order of all tensors, another one for each key. */
static inline void shuffled(uint32_t key, int out[N_TENSORS])
{
    for (int i = 0; i < N_TENSORS; i++) {
        int j = (int)(mix(key, 5, (uint32_t)i) % (uint32_t)(i + 1));
        out[i] = out[j];
        out[j] = i;
    }
}

/* The sum of values[lo .. hi) in the documented order: a node splits at the largest power of two below its
 * length. */
static inline float tree_sum(const float *values, int lo, int hi)
{
    if (hi - lo == 1)
        return values[lo];
    int half = 1;
    while (half * 2 < hi - lo)
        half *= 2;
    return tree_sum(values, lo, lo + half) + tree_sum(values, lo + half, hi);
}

/* The gradient that each member brings in a step, and the total of samples. */
typedef float part_fn(const void *context, int step, int rank, int tensor, int64_t elem);

/* Compares all gradients with the sum of the parts divided by `total`: with the documented order of additions
 * bit for bit, and with the mean in double precision. Notes the first difference. */
static inline bool means_are_right(member *self, const model *m, int step, int64_t total, part_fn *part,
                                   const void *context)
{
    for (int t = 0; t < N_TENSORS; t++)
        for (int64_t e = 0; e < model_sizes[t]; e++) {
            float parts[MAX_MEMBERS], got = lks_ddp_grad(m->ddp, t)[e];
            double exact = 0, absolute = 0;
            for (int r = 0; r < self->size; r++) {
                parts[r] = part(context, step, r, t, e);
                exact += (double)parts[r];
                absolute += fabs((double)parts[r]);
            }
            float divisor = total > 0 ? (float)total : 1.0f,
                  wanted = tree_sum(parts, 0, self->size) / divisor;
            /* log2(8) = 3 additions and a division, each within 2^-24 of a partial sum, which the sum of
             * absolute values bounds; the oracle itself is 2^29 times closer */
            double bound = 4 * 0x1p-24 * absolute / (double)divisor + 0x1p-149;
            if (memcmp(&got, &wanted, sizeof got) != 0 ||
                fabs((double)got - exact / (double)divisor) > bound) {
                member_fails(self, "step %d, tensor %d, element %lld: %.9g, wanted %.9g, exactly %.17g", step,
                             t, (long long)e, (double)got, (double)wanted, exact / (double)divisor);
                return false;
            }
        }
    return true;
}

#endif
