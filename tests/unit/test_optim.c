/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <stdlib.h>

#include "optim/update.h"
#include "reference/optim_vectors.h"

enum { MAX_ELEMS = 4096 + 64 };

/* The generator of make_optim_vectors.py: uniform in [-1, 1), exact in f32. */
static float draw(uint32_t *state)
{
    *state = 1664525u * *state + 1013904223u;
    return (float)((int32_t)*state >> 8) * 0x1p-23f;
}

static void draw_vector(uint32_t *state, int n, float *out)
{
    for (int i = 0; i < n; i++)
        out[i] = draw(state);
}

/* The cases of make_optim_vectors.py, in its order. */
static const struct {
    const char *name;
    lks_optimizer_config config;
} cases[] = {
    {"sgd", {LKS_SGD}},
    {"sgd_weight_decay", {LKS_SGD, .weight_decay = 1e-2}},
    {"momentum", {LKS_SGD, .momentum = 0.9}},
    {"momentum_weight_decay", {LKS_SGD, .momentum = 0.9, .weight_decay = 1e-2}},
    {"nesterov", {LKS_SGD, .momentum = 0.9, .nesterov = true}},
    {"nesterov_weight_decay", {LKS_SGD, .momentum = 0.9, .nesterov = true, .weight_decay = 1e-2}},
    {"adam", {LKS_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8}},
    {"adam_weight_decay", {LKS_ADAM, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 1e-2}},
    {"adam_small_betas", {LKS_ADAM, .beta1 = 0.3, .beta2 = 0.9, .epsilon = 1e-3}},
    {"adamw", {LKS_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0.01}},
    {"adamw_weight_decay", {LKS_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8, .weight_decay = 0.1}},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

/* Each step rounds a parameter of size ~1 to half an ulp, 3e-8, and PyTorch's fused multiply-adds round at
 * other places; the errors of 200 steps add up like a random walk, 200^0.5 * 6e-8 = 8e-7 of the largest
 * parameter. */
static const double relative_tolerance = 1e-6;

static void check_against_vector(int which, int recorded, const float *w)
{
    const float *expected = vectors[which].w[recorded];
    double largest = 0;
    for (int i = 0; i < VECTOR_ELEMS; i++)
        largest = fmax(largest, fabs((double)expected[i]));
    for (int i = 0; i < VECTOR_ELEMS; i++)
        if (!(fabs((double)w[i] - (double)expected[i]) <= relative_tolerance * largest))
            fail_msg("%s, step %d, element %d: %.9g, PyTorch has %.9g", vectors[which].name,
                     recorded_steps[recorded], i, (double)w[i], (double)expected[i]);
}

static void trajectories_are_those_of_pytorch(void **state)
{
    (void)state;
    CHECK_INT(sizeof vectors / sizeof vectors[0], N_CASES);
    for (int c = 0; c < N_CASES; c++) {
        assert_string_equal(vectors[c].name, cases[c].name);
        float w[VECTOR_ELEMS], grad_sum[VECTOR_ELEMS];
        float state0[VECTOR_ELEMS] = {0}, state1[VECTOR_ELEMS] = {0};
        uint32_t generator = 12345;
        draw_vector(&generator, VECTOR_ELEMS, w);
        for (int t = 1, recorded = 0; t <= VECTOR_STEPS; t++) {
            draw_vector(&generator, VECTOR_ELEMS, grad_sum);
            for (int i = 0; i < VECTOR_ELEMS; i++)
                grad_sum[i] *= 64; /* exact, and undone by the scale 1/64 */
            lks__optim_step step = lks__optim_step_make(
                &cases[c].config, vectors[c].lr * (1 - (double)(t - 1) / 400), t, 1.0 / 64);
            lks__optim_update(&step, VECTOR_ELEMS, grad_sum, w, (float *[]){state0, state1});
            if (t == recorded_steps[recorded])
                check_against_vector(c, recorded++, w);
        }
    }
}

static bool processor_has(lks__simd simd)
{
    return simd <= lks__simd_best();
}

/* The four arrays of an update, with room around them to see that nothing else is written. */
typedef struct slices {
    float grad_sum[MAX_ELEMS], w[MAX_ELEMS], state0[MAX_ELEMS], state1[MAX_ELEMS];
} slices;

static void draw_slices(slices *s)
{
    uint32_t generator = 7;
    draw_vector(&generator, MAX_ELEMS, s->grad_sum);
    draw_vector(&generator, MAX_ELEMS, s->w);
    draw_vector(&generator, MAX_ELEMS, s->state0);
    draw_vector(&generator, MAX_ELEMS, s->state1);
    for (int i = 0; i < MAX_ELEMS; i++)
        s->state1[i] *= s->state1[i]; /* exp_avg_sq >= 0 */
    s->grad_sum[70] = NAN, s->grad_sum[71] = INFINITY, s->grad_sum[72] = -0.0f, s->grad_sum[73] = 1e-42f;
}

static void update_slices(const lks__optim_step *step, slices *s, int offset, int n)
{
    /* each array at another misalignment */
    lks__optim_update(step, n, s->grad_sum + offset, s->w + offset + 1,
                      (float *[]){s->state0 + offset + 2, s->state1 + offset + 3});
}

static const int lengths[] = {0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 63, 100, 1023, 4096};
enum { N_LENGTHS = sizeof lengths / sizeof lengths[0] };

/* One element at a time at the baseline level, against whole slices at every level. */
static void every_version_gives_the_same_bytes(void **state)
{
    (void)state;
    slices *start = malloc(sizeof *start), *expected = malloc(sizeof *start), *got = malloc(sizeof *start);
    draw_slices(start);
    for (int c = 0; c < N_CASES; c++) {
        lks__optim_step step = lks__optim_step_make(&cases[c].config, 0.01, 3, 1.0 / 48);
        for (int l = 0; l < N_LENGTHS; l++)
            for (int offset = 0; offset < 17; offset += 4) {
                *expected = *start;
                step.simd = LKS__SIMD_BASE;
                for (int i = 0; i < lengths[l]; i++)
                    update_slices(&step, expected, offset + i, 1);
                for (step.simd = LKS__SIMD_BASE; step.simd < LKS__SIMD_LEVELS; step.simd++) {
                    if (!processor_has(step.simd))
                        continue;
                    *got = *start;
                    update_slices(&step, got, offset, lengths[l]);
                    if (memcmp(got, expected, sizeof *got) != 0)
                        fail_msg("%s: level %d differs at length %d, offset %d", cases[c].name,
                                 (int)step.simd, lengths[l], offset);
                }
            }
    }
    free(start), free(expected), free(got);
}

/* The documented order: lane i mod 16, lanes added pairwise as a tree of 16. */
static double naive_norm2(const float *x, int n, float scale)
{
    double lanes[16] = {0};
    for (int i = 0; i < n; i++) {
        float g = scale * x[i];
        lanes[i % 16] += (double)g * (double)g;
    }
    for (int width = 16; width > 1; width /= 2)
        for (int k = 0; k < width / 2; k++)
            lanes[k] = lanes[2 * k] + lanes[2 * k + 1];
    return lanes[0];
}

static void block_norms_have_one_order_of_additions(void **state)
{
    (void)state;
    static float x[MAX_ELEMS];
    uint32_t generator = 99;
    draw_vector(&generator, MAX_ELEMS, x);
    for (int l = 0; l < N_LENGTHS; l++)
        for (int offset = 0; offset < 20; offset++) {
            double expected = naive_norm2(x + offset, lengths[l], 0.37f);
            for (int simd = 0; simd < LKS__SIMD_LEVELS; simd++) {
                if (!processor_has((lks__simd)simd))
                    continue;
                double got = lks__block_norm2_versions[simd](x + offset, lengths[l], 0.37f);
                if (memcmp(&got, &expected, sizeof got) != 0)
                    fail_msg("level %d, length %d: %.17g, wanted %.17g", simd, lengths[l], got, expected);
            }
            double chosen = lks__block_norm2(x + offset, lengths[l], 0.37f);
            assert_memory_equal(&chosen, &expected, sizeof chosen);
        }
}

static void block_norms_are_accurate(void **state)
{
    (void)state;
    static float x[4096];
    uint32_t generator = 4;
    long double exact = 0;
    for (int i = 0; i < 4096; i++) {
        x[i] = ldexpf(draw(&generator), i % 40 - 20);
        exact += (long double)x[i] * (long double)x[i];
    }
    /* squares are exact; 256 additions per lane and 4 over lanes, each within 2^-53 of a sum of positive
     * terms */
    CHECK_NEAR(lks__block_norm2(x, 4096, 1.0f), exact, 260 * 0x1p-53 * (double)exact);
    x[5] = NAN;
    assert_true(isnan(lks__block_norm2(x, 4096, 1.0f)));
    /* 2^100 squared overflows f32, not f64 */
    assert_true(lks__block_norm2((float[]){0x1p100f, 3}, 2, 1.0f) == 0x1p200);
    assert_true(lks__block_norm2((float[]){3, 4}, 2, 2.0f) == 100.0);
}

static void constants_are_rounded_once(void **state)
{
    (void)state;
    lks_optimizer_config config = lks_optimizer_config_default(LKS_ADAMW);
    lks__optim_step step = lks__optim_step_make(&config, 0.001, 1, 0.5);
    assert_true(step.grad_scale == 0.5f && step.weight_decay == 0.0f);
    assert_true(step.decay_factor == (float)(1 - 0.001 * 0.01));
    assert_true(step.step_size == (float)(0.001 / (1 - 0.9)));
    assert_true(step.bias_correction2_sqrt == (float)sqrt(1 - 0.999));
    assert_true(step.one_minus_beta2 == (float)(1 - 0.999));
}

/* torch/optim/sgd.py, adam.py: `if weight_decay != 0`. 1/4 and 1/2 are exact. */
static void without_weight_decay_a_weight_is_not_in_its_gradient(void **state)
{
    (void)state;
    float w[] = {INFINITY, -INFINITY, NAN}, grad_sum[] = {1, 1, 1}, momentum[] = {0, 0, 0};
    lks__optim_step step = lks__optim_step_make(&(lks_optimizer_config){LKS_SGD, .momentum = 0.5}, 1, 1,
                                                0.25);
    lks__optim_update(&step, 3, grad_sum, w, (float *[]){momentum, NULL});
    for (int i = 0; i < 3; i++)
        assert_true(momentum[i] == 0.25f);
    assert_true(w[0] == INFINITY && w[1] == -INFINITY && isnan(w[2]));
}

static void states_have_pytorchs_names(void **state)
{
    (void)state;
    lks_optimizer_config config = lks_optimizer_config_default(LKS_SGD);
    CHECK_INT(lks__optim_n_states(&config), 0);
    config.momentum = 0.9;
    CHECK_INT(lks__optim_n_states(&config), 1);
    assert_string_equal(lks__optim_state_name(&config, 0), "momentum_buffer");
    config.nesterov = true;
    CHECK_INT(lks__optim_n_states(&config), 1);
    config = lks_optimizer_config_default(LKS_ADAMW);
    CHECK_INT(lks__optim_n_states(&config), 2);
    assert_string_equal(lks__optim_state_name(&config, 0), "exp_avg");
    assert_string_equal(lks__optim_state_name(&config, 1), "exp_avg_sq");
}

/* Those of torch.optim, and for lars and lamb what the papers' programs use. */
static void defaults_are_pytorchs(void **state)
{
    (void)state;
    for (lks_optimizer_kind kind = LKS_SGD; kind <= LKS_LAMB; kind++) {
        lks_optimizer_config config = lks_optimizer_config_default(kind);
        CHECK_INT(config.kind, kind);
        CHECK_OK(lks_optimizer_config_check(&config));
        assert_true(config.momentum == (kind == LKS_LARS ? 0.9 : 0.0) && !config.nesterov);
        assert_true(config.weight_decay == (kind == LKS_ADAMW ? 0.01 : 0.0));
        assert_true(config.beta1 == 0.9 && config.beta2 == 0.999);
        assert_true(config.epsilon == (kind == LKS_LAMB ? 1e-6 : 1e-8));
        assert_true(config.trust_coefficient == 0.001 && config.exclude_biases);
    }
}

static void fields_out_of_range_are_refused(void **state)
{
    (void)state;
    static const struct {
        lks_optimizer_config config;
        const char *message;
    } bad[] = {
        {{(lks_optimizer_kind)9}, "optimizer.kind is 9; one of sgd, adam, adamw, lars, lamb is needed"},
        {{LKS_SGD, .momentum = 1.0}, "optimizer.momentum is 1; a number >= 0 and < 1 is needed"},
        {{LKS_SGD, .momentum = -0.1}, "optimizer.momentum is -0.1"},
        {{LKS_SGD, .momentum = NAN}, "optimizer.momentum is nan"},
        {{LKS_SGD, .nesterov = true}, "optimizer.nesterov needs optimizer.momentum > 0"},
        {{LKS_SGD, .weight_decay = -1e-4}, "optimizer.weight_decay is -0.0001; a number >= 0 is needed"},
        {{LKS_SGD, .weight_decay = INFINITY}, "optimizer.weight_decay is inf"},
        {{LKS_ADAM, .beta1 = 1.0, .epsilon = 1}, "optimizer.beta1 is 1; a number >= 0 and < 1 is needed"},
        {{LKS_ADAMW, .beta2 = -1.0, .epsilon = 1}, "optimizer.beta2 is -1; a number >= 0 and < 1 is needed"},
        {{LKS_ADAM, .epsilon = 0.0}, "optimizer.epsilon is 0; a number > 0 is needed"},
        {{LKS_LAMB, .epsilon = -1e-6}, "optimizer.epsilon is -1e-06; a number > 0 is needed"},
        {{LKS_LARS, .momentum = 1.0, .trust_coefficient = 1},
         "optimizer.momentum is 1; a number >= 0 and < 1"},
        {{LKS_LARS, .trust_coefficient = 0.0}, "optimizer.trust_coefficient is 0; a number > 0 is needed"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_FAILS(lks_optimizer_config_check(&bad[i].config), LKS_E_ARG, bad[i].message);

    static const int unknown[] = {-1, 5, 32, 1 << 30};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        lks_optimizer_config config = lks_optimizer_config_default((lks_optimizer_kind)unknown[i]);
        CHECK_FAILS(lks_optimizer_config_check(&config), LKS_E_ARG, "optimizer.kind is ");
    }

    lks_optimizer_config unused = {LKS_SGD, .beta1 = 7, .epsilon = -1};
    CHECK_OK(lks_optimizer_config_check(&unused));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trajectories_are_those_of_pytorch),
        cmocka_unit_test(every_version_gives_the_same_bytes),
        cmocka_unit_test(block_norms_have_one_order_of_additions),
        cmocka_unit_test(block_norms_are_accurate),
        cmocka_unit_test(constants_are_rounded_once),
        cmocka_unit_test(without_weight_decay_a_weight_is_not_in_its_gradient),
        cmocka_unit_test(states_have_pytorchs_names),
        cmocka_unit_test(defaults_are_pytorchs),
        cmocka_unit_test(fields_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
