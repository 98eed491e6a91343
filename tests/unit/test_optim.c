/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <float.h>
#include <stdlib.h>

#include "optim/update.h"

enum { MAX_ELEMS = 4096 + 64 };

/* A linear congruential generator (Numerical Recipes' constants): uniform in [-1, 1), exact in f32. */
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

/* Each loop, each with and without weight decay. */
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
    {"lars", {LKS_LARS, .momentum = 0.9, .trust_coefficient = 0.1}},
    {"lars_weight_decay", {LKS_LARS, .momentum = 0.9, .trust_coefficient = 0.1, .weight_decay = 1e-2}},
    {"lamb", {LKS_LAMB, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-6}},
    {"lamb_weight_decay", {LKS_LAMB, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-6, .weight_decay = 1e-2}},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

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

/* Each array at another misalignment. */
static void update_slices(const lks__optim_step *step, slices *s, int offset, int n)
{
    float *grad = s->grad_sum + offset, *w = s->w + offset + 1;
    float *const states[] = {s->state0 + offset + 2, s->state1 + offset + 3};
    if (step->rule == LKS__RULE_LAMB) {
        lks__optim_direction(step, n, grad, w, states);
        lks__optim_apply(step, n, grad, w);
    } else {
        lks__optim_update(step, n, grad, w, states);
    }
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
        const lks__optim_tensor tensor = {.grad_norm2 = 3, .param_norm2 = 2, .direction_norm2 = 5};
        step = lks__optim_step_for(&step, &cases[c].config, &tensor);
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

static void clipping_by_value_gives_the_same_bytes(void **state)
{
    (void)state;
    static float start[MAX_ELEMS], expected[MAX_ELEMS], got[MAX_ELEMS];
    uint32_t generator = 3;
    draw_vector(&generator, MAX_ELEMS, start);
    for (int l = 0; l < N_LENGTHS; l++)
        for (int offset = 0; offset < 17; offset++) {
            memcpy(expected, start, sizeof expected);
            for (int i = offset; i < offset + lengths[l]; i++)
                expected[i] = fminf(fmaxf(0.37f * start[i], -0.25f), 0.25f);
            for (int simd = 0; simd < LKS__SIMD_LEVELS; simd++) {
                if (!processor_has((lks__simd)simd))
                    continue;
                memcpy(got, start, sizeof got);
                lks__clip_value_versions[simd](lengths[l], got + offset, 0.37f, 0.25f);
                if (memcmp(got, expected, sizeof got) != 0)
                    fail_msg("level %d differs at length %d, offset %d", simd, lengths[l], offset);
            }
        }
}

/* As torch.clamp has it. */
static void clipping_by_value_passes_nan_on(void **state)
{
    (void)state;
    for (int simd = 0; simd < LKS__SIMD_LEVELS; simd++) {
        float grad[] = {NAN, INFINITY, -INFINITY, 3,  -3, 0.5f, -0.5f, -0.0f, NAN,
                        8,   -8,       1,         -1, 2,  -2,   4,     NAN};
        const float expected[] = {0, 2, -2, 2, -2, 1, -1, 0, 0, 2, -2, 2, -2, 2, -2, 2, 0};
        if (!processor_has((lks__simd)simd))
            continue;
        lks__clip_value_versions[simd](17, grad, 2.0f, 2.0f);
        for (int i = 0; i < 17; i++)
            assert_true(i % 8 == 0 ? isnan(grad[i]) : grad[i] == expected[i]);
    }
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

/* Norms of 3-4-5 triangles, and powers of two: exact. */
static void trust_ratios_are_those_of_the_papers(void **state)
{
    (void)state;
    const lks_optimizer_config lars = {LKS_LARS, .weight_decay = 0.5, .trust_coefficient = 0.25};
    const lks_optimizer_config lamb = {LKS_LAMB, .epsilon = 1};
    const struct {
        const lks_optimizer_config *config;
        lks__optim_tensor tensor;
        float trust;
    } ratios[] = {
        {&lars, {.grad_norm2 = 9, .param_norm2 = 4}, 0.25f * 2 / (3 + 0.5f * 2)},
        {&lars, {.grad_norm2 = 0, .param_norm2 = 4}, 1},
        {&lars, {.grad_norm2 = 9, .param_norm2 = 0}, 1},
        {&lars, {.grad_norm2 = 9, .param_norm2 = 4, .excluded = true}, 1},
        {&lars, {.grad_norm2 = 0x1p-280, .param_norm2 = 0x1p40}, 0.5f},
        {&lamb, {.param_norm2 = 25, .direction_norm2 = 16}, 1.25f},
        {&lamb, {.param_norm2 = 0, .direction_norm2 = 16}, 1},
        {&lamb, {.param_norm2 = 25, .direction_norm2 = 0}, 1},
        {&lamb, {.param_norm2 = 25, .direction_norm2 = 16, .excluded = true}, 1},
    };
    for (size_t i = 0; i < sizeof ratios / sizeof ratios[0]; i++) {
        const lks_optimizer_config *config = ratios[i].config;
        lks__optim_step step = lks__optim_step_make(config, 0.25, 1, 1);
        step = lks__optim_step_for(&step, config, &ratios[i].tensor);
        float lr = config->kind == LKS_LAMB ? 0.25f * ratios[i].trust : 0.25f;
        if (step.trust != ratios[i].trust || step.lr != lr)
            fail_msg("case %zu: trust ratio %g, rate %g", i, (double)step.trust, (double)step.lr);
        assert_true(step.weight_decay == (ratios[i].tensor.excluded ? 0.0f : (float)config->weight_decay));
    }
}

static void trust_ratios_end_at_the_largest_float(void **state)
{
    (void)state;
    const lks_optimizer_config lamb = {LKS_LAMB, .epsilon = 1};
    const lks__optim_step step = lks__optim_step_make(&lamb, 0.25, 1, 1);
    lks__optim_tensor tensor = {.param_norm2 = 0x1p200, .direction_norm2 = 0x1p-200};
    lks__optim_step made = lks__optim_step_for(&step, &lamb, &tensor);
    assert_true(made.trust == FLT_MAX && made.lr == FLT_MAX);
    tensor.param_norm2 = NAN;
    made = lks__optim_step_for(&step, &lamb, &tensor);
    assert_true(isnan(made.trust) && isnan(made.lr));
}

static void excluded_tensors_do_not_decay(void **state)
{
    (void)state;
    static const lks_optimizer_kind kinds[] = {LKS_SGD, LKS_ADAM, LKS_ADAMW, LKS_LARS, LKS_LAMB};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        lks_optimizer_config config = lks_optimizer_config_default(kinds[i]);
        config.weight_decay = 0.5;
        assert_true(lks__optim_excludes(&config, 0) && lks__optim_excludes(&config, 1));
        assert_false(lks__optim_excludes(&config, 2) || lks__optim_excludes(&config, 4));
        lks__optim_step step = lks__optim_step_make(&config, 0.5, 1, 1);
        lks__optim_step in = lks__optim_step_for(&step, &config, &(lks__optim_tensor){.excluded = false});
        assert_true(in.weight_decay == (kinds[i] == LKS_ADAMW ? 0.0f : 0.5f));
        assert_true(in.decay_factor == (kinds[i] == LKS_ADAMW ? 0.75f : 1.0f));
        lks__optim_step out = lks__optim_step_for(&step, &config, &(lks__optim_tensor){.excluded = true});
        assert_true(out.weight_decay == 0.0f && out.decay_factor == 1.0f);
        config.exclude_biases = false;
        assert_false(lks__optim_excludes(&config, 1));
    }
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
    config = lks_optimizer_config_default(LKS_LARS);
    CHECK_INT(lks__optim_n_states(&config), 1);
    assert_string_equal(lks__optim_state_name(&config, 0), "momentum_buffer");
    config = lks_optimizer_config_default(LKS_LAMB);
    CHECK_INT(lks__optim_n_states(&config), 2);
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

/* Every length up to some vectors and tails, every place, and values next to those that are not finite. */
static void a_value_that_is_not_finite_is_seen_wherever_it_is(void **state)
{
    (void)state;
    static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY}, good[] = {FLT_MAX, -FLT_MAX, 1e-45f, -0.0f};
    float x[200];
    for (int64_t n = 0; n <= 200; n++)
        for (int64_t at = 0; at <= n && at < 200; at++) {
            for (int i = 0; i < 200; i++)
                x[i] = good[i % 4];
            x[at] = bad[(n + at) % 4];
            CHECK_INT(lks__block_is_finite(x, n), at >= n);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_that_is_not_finite_is_seen_wherever_it_is),
        cmocka_unit_test(every_version_gives_the_same_bytes),
        cmocka_unit_test(clipping_by_value_gives_the_same_bytes),
        cmocka_unit_test(clipping_by_value_passes_nan_on),
        cmocka_unit_test(trust_ratios_are_those_of_the_papers),
        cmocka_unit_test(trust_ratios_end_at_the_largest_float),
        cmocka_unit_test(excluded_tensors_do_not_decay),
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
