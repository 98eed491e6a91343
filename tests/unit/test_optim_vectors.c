/* SPDX-License-Identifier: Apache-2.0 */
/* Optimizers beside PyTorch's over the 200 recorded steps of tests/reference/make_optim_vectors.py, put
 * together as a training step does: blocks, norms, one decision, updates in slices of any size. */
#include "check.h"

#include <stdlib.h>

#include "base/tree.h"
#include "optim/update.h"
#include "record/safetensors.h"

#define VECTORS LKS_SOURCE_DIR "/tests/reference/optim_vectors.safetensors"

/* make_optim_vectors.py has the same constants. */
enum {
    N_TENSORS = 3,
    STEPS = 200,
    EARLY_STEP = 10,
    ZERO_STEP = 50,
    STRIDE = 37,
    BLOCK = 4096,
    MAX_BLOCKS = 3,
    ELEMS = 101 * 97 + 31 * 9 + 597,
    RECORDED = (ELEMS + STRIDE - 1) / STRIDE
};
static const double max_norm = 4.0, max_value = 0.05;

static const struct {
    int n_dims, offset, n_elems;
} tensors[N_TENSORS] = {{2, 0, 101 * 97}, {2, 101 * 97, 31 * 9}, {1, 101 * 97 + 31 * 9, 597}};

static const struct {
    const char *name;
    double lr, weight_decay;
    lks_optimizer_config config;
} optimizers[] = {
    {"sgd", 0.05, 1e-2, {LKS_SGD}},
    {"momentum", 0.02, 1e-2, {LKS_SGD, .momentum = 0.9}},
    {"nesterov", 0.02, 1e-2, {LKS_SGD, .momentum = 0.9, .nesterov = true}},
    {"adam", 0.01, 1e-2, {LKS_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8}},
    {"adam_small_betas", 0.01, 1e-2, {LKS_ADAM, .beta1 = 0.3, .beta2 = 0.9, .epsilon = 1e-3}},
    {"adamw", 0.01, 0.1, {LKS_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8}},
    {"lars", 0.1, 1e-2, {LKS_LARS, .momentum = 0.9, .trust_coefficient = 0.02}},
    {"lamb", 0.01, 1e-2, {LKS_LAMB, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-6}},
};
enum { N_OPTIMIZERS = sizeof optimizers / sizeof optimizers[0] };

enum { NO_DECAY, DECAY, WEIGHTS_DECAY, DECAYS };
enum { NO_CLIP, CLIP_NORM, CLIP_VALUE, CLIPS };
static const char *const decay_names[] = {"no_decay", "decay", "weights_decay"};
static const char *const clip_names[] = {"no_clip", "clip_norm", "clip_value"};

/* A run of one optimizer: [ELEMS] each. */
typedef struct run {
    lks_optimizer_config config;
    int clip;
    float w[ELEMS], grad[ELEMS], states[LKS__OPTIM_MAX_STATES][ELEMS];
} run;

/* Uniform in [-1, 1): a hash (lowbias32) of stream and element number; exact in f32. */
static float draw(uint32_t stream, uint32_t element)
{
    uint32_t x = element ^ stream * 0x9E3779B9u;
    x = (x ^ x >> 16) * 0x7FEB352Du;
    x = (x ^ x >> 15) * 0x846CA68Bu;
    x ^= x >> 16;
    return (float)((int32_t)x >> 8) * 0x1p-23f;
}

static void draw_parameters(float *w)
{
    for (int k = 0; k < N_TENSORS; k++)
        for (int i = 0; i < tensors[k].n_elems; i++)
            w[tensors[k].offset + i] = tensors[k].n_dims > 1 ? draw((uint32_t)k + 1, (uint32_t)i) / 2 : 0;
}

/* 64 times the recorded gradient, as a sum over 64 samples: exact, and undone by the scale 1/64. */
static void draw_gradient(int step, float *grad)
{
    for (int k = 0; k < N_TENSORS; k++) {
        float size = ldexpf(64, (5 * step + 3 * k) % 11 - 8);
        if (step == ZERO_STEP && k == 1)
            size = 0;
        for (int i = 0; i < tensors[k].n_elems; i++)
            grad[tensors[k].offset + i] = size * draw((uint32_t)(16 * step + k + 1), (uint32_t)i);
    }
}

/* All gradients of a run, drawn once: [STEPS][ELEMS]. */
static float *gradients;

static int draw_gradients(void **state)
{
    (void)state;
    gradients = malloc(sizeof(float) * STEPS * ELEMS);
    assert_non_null(gradients);
    for (int step = 1; step <= STEPS; step++)
        draw_gradient(step, gradients + (size_t)(step - 1) * ELEMS);
    return 0;
}

static int free_gradients(void **state)
{
    (void)state;
    free(gradients);
    return 0;
}

static double tensor_norm2(const float *arena, int k, float scale)
{
    double blocks[MAX_BLOCKS];
    int n = 0;
    for (int start = 0; start < tensors[k].n_elems; start += BLOCK) {
        int rest = tensors[k].n_elems - start;
        blocks[n++] = lks__block_norm2(arena + tensors[k].offset + start, rest < BLOCK ? rest : BLOCK, scale);
    }
    return lks__tree_sum(blocks, n);
}

/* The length of the next slice: an odd number here and there, now and then a long one. */
static int slice_of(int start, int rest)
{
    static const int sizes[] = {1, 17, 4096, 333, 64, 2};
    int n = sizes[(start / 7) % 6];
    return n < rest ? n : rest;
}

/* torch.nn.utils.clip_grad_norm_: max_norm / (norm + 1e-6), at most 1. */
static double clip_factor(const run *r, double grad_scale)
{
    double norm2[N_TENSORS];
    for (int k = 0; k < N_TENSORS; k++)
        norm2[k] = tensor_norm2(r->grad, k, (float)grad_scale);
    return fmin(1.0, max_norm / (sqrt(lks__tree_sum(norm2, N_TENSORS)) + 1e-6));
}

static void clip_values(run *r, double grad_scale)
{
    for (int i = 0, n; i < ELEMS; i += n) {
        n = slice_of(i, ELEMS - i);
        lks__clip_value(n, r->grad + i, (float)grad_scale, (float)max_value);
    }
}

enum { UPDATE, DIRECTION, APPLY };

static void walk_tensor(run *r, int k, const lks__optim_step *step, int pass)
{
    for (int i = 0, n; i < tensors[k].n_elems; i += n) {
        n = slice_of(i, tensors[k].n_elems - i);
        int at = tensors[k].offset + i;
        float *const states[] = {r->states[0] + at, r->states[1] + at};
        if (pass == UPDATE)
            lks__optim_update(step, n, r->grad + at, r->w + at, states);
        else if (pass == DIRECTION)
            lks__optim_direction(step, n, r->grad + at, r->w + at, states);
        else
            lks__optim_apply(step, n, r->grad + at, r->w + at);
    }
}

static void update_tensor(run *r, int k, const lks__optim_step *step)
{
    lks__optim_tensor tensor = {.excluded = lks__optim_excludes(&r->config, tensors[k].n_dims)};
    if (lks__optim_needs_norms(&r->config)) {
        tensor.grad_norm2 = tensor_norm2(r->grad, k, step->grad_scale);
        tensor.param_norm2 = tensor_norm2(r->w, k, 1.0f);
    }
    lks__optim_step of_tensor = lks__optim_step_for(step, &r->config, &tensor);
    if (!lks__optim_has_direction(&r->config)) {
        walk_tensor(r, k, &of_tensor, UPDATE);
        return;
    }
    walk_tensor(r, k, &of_tensor, DIRECTION);
    tensor.direction_norm2 = tensor_norm2(r->grad, k, 1.0f);
    tensor.param_norm2 = tensor_norm2(r->w, k, 1.0f);
    of_tensor = lks__optim_step_for(step, &r->config, &tensor);
    walk_tensor(r, k, &of_tensor, APPLY);
}

static void take_step(run *r, int t, double lr)
{
    double grad_scale = 1.0 / 64;
    memcpy(r->grad, gradients + (size_t)(t - 1) * ELEMS, sizeof r->grad);
    if (r->clip == CLIP_NORM)
        grad_scale *= clip_factor(r, grad_scale);
    if (r->clip == CLIP_VALUE) {
        clip_values(r, grad_scale);
        grad_scale = 1.0;
    }
    lks__optim_step step = lks__optim_step_make(&r->config, lr, t, grad_scale);
    for (int k = 0; k < N_TENSORS; k++)
        update_tensor(r, k, &step);
}

/* What is recorded of a run: rows are float32 after EARLY_STEP and STEPS, and float64 after STEPS. */
enum { EARLY, SINGLE, DOUBLE, ROWS };
typedef struct vector {
    char name[80];
    float w[ROWS][RECORDED], norms[ROWS][N_TENSORS];
} vector;

static void read_vector(const lks__safetensors *file, vector *v)
{
    char norms[96];
    snprintf(norms, sizeof norms, "%s.norms", v->name);
    CHECK_OK(lks__safetensors_read(file, v->name, 2, (int64_t[]){ROWS, RECORDED}, &v->w[0][0]));
    CHECK_OK(lks__safetensors_read(file, norms, 2, (int64_t[]){ROWS, N_TENSORS}, &v->norms[0][0]));
}

static double largest_of(const run *r, int k)
{
    double largest = 0;
    for (int i = 0; i < tensors[k].n_elems; i++)
        largest = fmax(largest, fabs((double)r->w[tensors[k].offset + i]));
    return largest;
}

/* Of the largest parameter of the tensor: an element's rounding errors are those of the sizes that it has had
 * on its way, so one that ends near zero has no relative precision of its own.
 *
 * An update rounds a parameter of size ~1 by up to 2^-24 = 6e-8, and 200 of them add up like a random walk:
 * 200^0.5 * 2^-24 = 8e-7. That is how far a float32 run is from the exact one, lockstep's (measured: 5.8e-7
 * to 9.2e-7, by optimizer) and PyTorch's own (6.2e-7 to 1.0e-6) alike. The two are nearer to each other
 * (1.0e-7 to 3.4e-7), as they round in the same places but for the multiply-adds that PyTorch's kernels fuse.
 */
static const double relative_tolerance = 1e-6;

static void check_against(const run *r, const vector *v, int row)
{
    for (int k = 0; k < N_TENSORS; k++) {
        double largest = largest_of(r, k), norm = sqrt(tensor_norm2(r->w, k, 1.0f));
        int end = tensors[k].offset + tensors[k].n_elems;
        for (int i = (tensors[k].offset + STRIDE - 1) / STRIDE; i * STRIDE < end; i++) {
            double got = (double)r->w[i * STRIDE], expected = (double)v->w[row][i];
            if (!(fabs(got - expected) <= relative_tolerance * largest))
                fail_msg("%s, row %d, tensor %d, element %d: %.9g, PyTorch has %.9g; the largest is %.9g",
                         v->name, row, k, i * STRIDE - tensors[k].offset, got, expected, largest);
        }
        CHECK_NEAR(norm, v->norms[row][k], relative_tolerance * norm);
    }
}

static void repeat_run(const lks__safetensors *file, int which, int decay, int clip)
{
    static run r;
    static vector v;
    r = (run){.config = optimizers[which].config, .clip = clip};
    r.config.weight_decay = decay == NO_DECAY ? 0.0 : optimizers[which].weight_decay;
    r.config.exclude_biases = decay == WEIGHTS_DECAY;
    snprintf(v.name, sizeof v.name, "%s.%s.%s", optimizers[which].name, decay_names[decay], clip_names[clip]);
    read_vector(file, &v);
    draw_parameters(r.w);
    for (int t = 1; t <= STEPS; t++) {
        take_step(&r, t, optimizers[which].lr * (t < 20 ? t / 20.0 : 1 - (t - 20) / 400.0));
        if (t == EARLY_STEP)
            check_against(&r, &v, EARLY);
    }
    check_against(&r, &v, SINGLE);
    check_against(&r, &v, DOUBLE);
}

static void optimizers_follow_pytorchs_for_200_steps(void **state)
{
    (void)state;
    lks__safetensors *file;
    CHECK_OK(lks__safetensors_open(VECTORS, &file));
    for (int i = 0; i < N_OPTIMIZERS; i++)
        for (int decay = NO_DECAY; decay < DECAYS; decay++)
            for (int clip = NO_CLIP; clip < CLIPS; clip++)
                repeat_run(file, i, decay, clip);
    lks__safetensors_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(optimizers_follow_pytorchs_for_200_steps),
    };
    return cmocka_run_group_tests(tests, draw_gradients, free_gradients);
}
