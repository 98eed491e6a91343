/* SPDX-License-Identifier: Apache-2.0 */
/* What networks compute, against the double-precision oracle. */
#include "nets.h"
#include "oracle.h"

/* Sums of K products in f32: an error of about sqrt(K) * 2^-24 of the norm where roundings are independent
 * (the worst case has K). Forward and backward pass through each layer once; the factor 8 leaves room for the
 * tails. */
static double tolerance(const net_spec *spec, int64_t batch)
{
    int64_t longest = batch > spec->n_features ? batch : spec->n_features;
    for (int i = 0; i < spec->n_layers; i++)
        longest = spec->layers[i].out > longest ? spec->layers[i].out : longest;
    return 8.0 * (double)(2 * spec->n_layers) * sqrt((double)longest) * 0x1p-24;
}

static const net_spec specs[] = {
    {1, 1, {{1, true, false}}},
    {1, 2, {{3, true, true}, {2, true, false}}},
    {3, 1, {{7, true, false}}},
    {3, 1, {{7, false, false}}},
    {7, 2, {{1, true, true}, {3, true, false}}},
    {17, 2, {{33, true, true}, {7, false, false}}},
    {33, 3, {{17, false, true}, {100, true, true}, {3, true, false}}},
    {100,
     2,
     {{33, true, false}, {17, true, true}}}, /* two products without a ReLU between, one before the loss */
    {64, 4, {{48, true, true}, {100, true, true}, {16, false, true}, {10, true, false}}},
    {784, 3, {{512, true, true}, {256, true, true}, {10, true, false}}},
};
enum { N_SPECS = sizeof specs / sizeof specs[0] };

static const int64_t batches[] = {1, 5, 64};
enum { N_BATCHES = sizeof batches / sizeof batches[0] };

static oracle make_oracle(const net_spec *spec)
{
    oracle o = {0};
    for (int i = 0; i < spec->n_layers; i++)
        oracle_add(&o, i == 0 ? spec->n_features : spec->layers[i - 1].out, spec->layers[i].out,
                   spec->layers[i].bias, spec->layers[i].relu);
    return o;
}

/* Calls visit for every parameter tensor with the oracle's value and gradient of it. */
typedef void visit_fn(const lks__network *network, int index, double *value, const double *grad,
                      const float *arena, double tolerance);

static void each_param(const lks__network *network, const oracle *o, visit_fn *visit, const float *arena,
                       double tol)
{
    int index = 0;
    for (int l = 0; l < o->n_layers; l++) {
        visit(network, index++, o->layers[l].w, o->layers[l].dw, arena, tol);
        if (o->layers[l].bias)
            visit(network, index++, o->layers[l].b, o->layers[l].db, arena, tol);
    }
    CHECK_INT(index, lks__network_n_params(network));
}

static float *export_param(const lks__network *network, int index, const float *arena)
{
    float *plain = lks__alloc_array(lks__network_param(network, index)->n_elems, sizeof *plain,
                                    LKS__MEM_MISC);
    assert_non_null(plain);
    CHECK_OK(lks__network_export(network, index, arena, plain));
    return plain;
}

static void copy_to_oracle(const lks__network *network, int index, double *value, const double *grad,
                           const float *arena, double tol)
{
    (void)grad, (void)tol;
    float *plain = export_param(network, index, arena);
    for (int64_t i = 0; i < lks__network_param(network, index)->n_elems; i++)
        value[i] = (double)plain[i];
    lks__free(plain);
}

static void compare_grad(const lks__network *network, int index, double *value, const double *grad,
                         const float *arena, double tol)
{
    (void)value;
    const lks__param *param = lks__network_param(network, index);
    float *plain = export_param(network, index, arena);
    double error = 0.0, norm = 0.0;
    for (int64_t i = 0; i < param->n_elems; i++) {
        error += ((double)plain[i] - grad[i]) * ((double)plain[i] - grad[i]);
        norm += grad[i] * grad[i];
    }
    if (!(sqrt(error) <= tol * sqrt(norm) + 1e-30))
        fail_msg("%s [%lld]: the gradient is off by %.3g of its norm %.3g, allowed are %.3g", param->name,
                 (long long)param->n_elems, sqrt(error / norm), sqrt(norm), tol);
    lks__free(plain);
}

static void compare_logits(const lks__network *network, int64_t batch, const double *logits, double tol)
{
    double largest = 0.0;
    int64_t n = batch * lks__network_n_classes(network);
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(logits[i]));
    for (int64_t i = 0; i < n; i++)
        CHECK_NEAR(lks__network_logits(network)[i], logits[i], tol * fmax(largest, 1.0));
}

static void check_batch(lks__network *network, oracle *o, const float *params, int64_t batch, double tol)
{
    float *grads = net_arena(network);
    double *logits = oracle_zeros(batch * lks__network_n_classes(network));
    lks__loss loss;
    net_fill(network, batch, (uint32_t)batch);
    double expected = oracle_run(o, batch, lks__network_input(network), lks__network_labels(network), 1,
                                 logits);
    CHECK_OK(lks__network_forward(network, batch, params, NULL, &loss));
    CHECK_OK(lks__network_backward(network, batch, params, grads, NULL, NULL));
    compare_logits(network, batch, logits, tol);
    CHECK_NEAR(loss.loss_sum, expected, tol * fmax(expected, (double)batch));
    each_param(network, o, compare_grad, grads, tol);
    free(logits);
    lks__free(grads);
}

static void check_network(const net_spec *spec, const int64_t order[N_BATCHES], int threads)
{
    lks__network *network = net_compile_threads(spec, N_BATCHES, order, threads);
    oracle o = make_oracle(spec);
    float *params = net_arena(network);
    CHECK_OK(lks__network_init_params(network, 3, params));
    each_param(network, &o, copy_to_oracle, params, 0.0);
    for (int i = 0; i < N_BATCHES; i++)
        check_batch(network, &o, params, order[i], tolerance(spec, order[i]));
    lks__free(params);
    oracle_free(&o);
    lks__network_destroy(network);
}

/* Every batch size once as the one that decides the layouts. */
static void networks_compute_what_the_oracle_computes(void **state)
{
    (void)state;
    for (int s = 0; s < N_SPECS; s++)
        for (int first = 0; first < N_BATCHES; first++) {
            int64_t order[N_BATCHES];
            for (int i = 0; i < N_BATCHES; i++)
                order[i] = batches[(first + i) % N_BATCHES];
            check_network(&specs[s], order, 1);
        }
}

static void two_compute_threads_compute_the_same_within_rounding(void **state)
{
    (void)state;
    for (int s = 0; s < N_SPECS; s++)
        check_network(&specs[s], batches, 2);
}

/* Central differences with h = 1e-5 in double: a truncation error of about h^2 and a rounding error of about
 * 1e-16 * loss / h = 1e-10; 1e-7 is far from both and far below any mistake. No activation lies within h of a
 * kink for these values: that would show as an error of the size of the gradient. */
static void difference(oracle *o, double *value, double grad, int64_t batch, const float *x,
                       const int32_t *labels)
{
    const double h = 1e-5, kept = *value;
    *value = kept + h;
    double above = oracle_run(o, batch, x, labels, 0, NULL);
    *value = kept - h;
    double below = oracle_run(o, batch, x, labels, 0, NULL);
    *value = kept;
    CHECK_NEAR(grad, (above - below) / (2.0 * h), 1e-7 * fmax(1.0, fabs(grad)));
}

static void the_oracle_is_right_by_finite_differences(void **state)
{
    (void)state;
    enum { BATCH = 5 };
    for (int s = 0; s < N_SPECS; s++) {
        oracle o = make_oracle(&specs[s]);
        float *x = lks__alloc_array(BATCH * specs[s].n_features, sizeof *x, LKS__MEM_MISC);
        int32_t labels[BATCH];
        assert_non_null(x);
        for (int64_t i = 0; i < BATCH * specs[s].n_features; i++)
            x[i] = net_value((uint32_t)i);
        for (int32_t i = 0; i < BATCH; i++)
            labels[i] = (i * 3) % (int32_t)o.layers[o.n_layers - 1].out;
        for (int l = 0; l < o.n_layers; l++) {
            oracle_layer *layer = &o.layers[l];
            for (int64_t i = 0; i < layer->in * layer->out; i++)
                layer->w[i] = (double)net_value(77u + (uint32_t)i) / sqrt((double)layer->in);
            for (int64_t i = 0; i < layer->out; i++)
                layer->b[i] = 0.1 * (double)net_value(99u + (uint32_t)i);
        }
        (void)oracle_run(&o, BATCH, x, labels, 1, NULL);
        for (int l = 0; l < o.n_layers; l++) { /* a dozen elements of each tensor */
            oracle_layer *layer = &o.layers[l];
            int64_t n = layer->in * layer->out;
            for (int64_t i = 0; i < n; i += n / 6 + 1)
                difference(&o, &layer->w[i], layer->dw[i], BATCH, x, labels);
            for (int64_t i = 0; layer->bias && i < layer->out; i += layer->out / 6 + 1)
                difference(&o, &layer->b[i], layer->db[i], BATCH, x, labels);
        }
        lks__free(x);
        oracle_free(&o);
    }
}

/* ---- single operations on exact data ---- */

/* input -> [relu ->] loss: the logits are what the operation makes of the input. */
static lks__network *bare(int64_t n, bool relu, int64_t batch)
{
    lks_graph *graph;
    lks__network *network;
    CHECK_OK(lks_graph_create(&graph));
    lks_value x = lks_graph_input(graph, 1, &n);
    if (relu)
        x = lks_graph_relu(graph, x);
    (void)lks_graph_softmax_cross_entropy(graph, x);
    CHECK_OK(lks__network_create(&(lks__network_config){graph, 1, &batch, 1}, &network));
    lks_graph_destroy(graph);
    return network;
}

static void relu_is_the_maximum_and_passes_nan(void **state)
{
    (void)state;
    static const float x[5] = {-1.0f, 2.5f, -INFINITY, INFINITY, NAN};
    lks__network *network = bare(5, true, 1);
    lks__loss loss;
    CHECK_INT(lks__network_arena_elems(network), 0);
    memcpy(lks__network_input(network), x, sizeof x);
    CHECK_OK(lks__network_forward(network, 1, NULL, NULL, &loss));
    const float *y = lks__network_logits(network);
    assert_true(y[0] == 0.0f && y[1] == 2.5f && y[2] == 0.0f && y[3] == INFINITY && isnan(y[4]));
    assert_true(isnan(loss.loss_sum));
    assert_memory_equal(lks__network_input(network), x, sizeof x); /* the caller's: not worked on in place */
    CHECK_OK(lks__network_backward(network, 1, NULL, NULL, NULL, NULL));
    lks__network_destroy(network);
}

/* Data that is not finite must not be hidden by the layers on the way to the loss. */
static void nan_in_the_data_reaches_the_loss(void **state)
{
    (void)state;
    const net_spec spec = {17, 3, {{33, true, true}, {16, true, true}, {3, true, false}}};
    lks__network *network = net_compile(&spec, 1, (int64_t[]){5});
    float *params = net_arena(network);
    lks__loss loss;
    CHECK_OK(lks__network_init_params(network, 0, params));
    net_fill(network, 5, 1);
    lks__network_input(network)[2 * 17 + 3] = NAN;
    CHECK_OK(lks__network_forward(network, 5, params, NULL, &loss));
    assert_true(isnan(loss.loss_sum));
    lks__free(params);
    lks__network_destroy(network);
}

static lks__loss loss_of(int64_t n, const float *logits, int32_t label)
{
    lks__network *network = bare(n, false, 1);
    lks__loss loss;
    memcpy(lks__network_input(network), logits, (size_t)n * sizeof *logits);
    lks__network_labels(network)[0] = label;
    CHECK_OK(lks__network_forward(network, 1, NULL, NULL, &loss));
    lks__network_destroy(network);
    return loss;
}

static void the_loss_is_minus_log_softmax(void **state)
{
    (void)state;
    /* equal logits: log n. The tolerance is a few roundings in double. */
    CHECK_NEAR(loss_of(4, (float[]){7, 7, 7, 7}, 2).loss_sum, log(4.0), 1e-15);
    /* far apart: the smaller exponentials vanish, the loss is the distance, exactly */
    CHECK_NEAR(loss_of(3, (float[]){0, 10000, -5}, 0).loss_sum, 10000.0, 0);
    CHECK_NEAR(loss_of(3, (float[]){0, 10000, -5}, 1).loss_sum, 0.0, 0);
    CHECK_NEAR(loss_of(1, (float[]){3}, 0).loss_sum, 0.0, 0);
    /* e and 1: expf is good to one rounding in f32 */
    CHECK_NEAR(loss_of(2, (float[]){1, 0}, 1).loss_sum, log(exp(1.0) + 1.0), 1e-7);
}

static void correct_is_the_first_of_the_largest(void **state)
{
    (void)state;
    CHECK_INT(loss_of(3, (float[]){1, 3, 3}, 1).n_correct, 1);
    CHECK_INT(loss_of(3, (float[]){1, 3, 3}, 2).n_correct, 0);
    CHECK_INT(loss_of(3, (float[]){1, 3, 3}, 0).n_correct, 0);
}

static bool is_finite(double x)
{
    return isfinite(x);
}

static void logits_that_are_not_finite_give_a_loss_that_is_not(void **state)
{
    (void)state;
    for (int32_t label = 0; label < 3; label++) {
        assert_false(is_finite(loss_of(3, (float[]){1, NAN, 2}, label).loss_sum));
        assert_false(is_finite(loss_of(3, (float[]){NAN, 1, 2}, label).loss_sum));
        assert_false(is_finite(loss_of(3, (float[]){1, INFINITY, 2}, label).loss_sum));
        assert_false(is_finite(loss_of(3, (float[]){-INFINITY, -INFINITY, -INFINITY}, label).loss_sum));
    }
    assert_true(loss_of(2, (float[]){-INFINITY, 1}, 0).loss_sum == INFINITY);
}

static void labels_outside_the_classes_are_refused(void **state)
{
    (void)state;
    lks__network *network = bare(3, false, 4);
    lks__loss loss = {.loss_sum = 42};
    lks__network_labels(network)[2] = 3;
    CHECK_FAILS(lks__network_forward(network, 4, NULL, NULL, &loss), LKS_E_ARG,
                "sample 2 is 3; 0 to 2 are allowed");
    lks__network_labels(network)[2] = -1;
    CHECK_FAILS(lks__network_forward(network, 4, NULL, NULL, &loss), LKS_E_ARG, "sample 2 is -1");
    CHECK_NEAR(loss.loss_sum, 42, 0); /* nothing written */
    lks__network_destroy(network);
}

/* Small integers: every product and sum is exact in f32, so the logits are the ones done by hand. */
static void linear_is_x_times_w_transposed_plus_bias(void **state)
{
    (void)state;
    const net_spec spec = {2, 1, {{3, true, false}}};
    lks__network *network = net_compile(&spec, 1, (int64_t[]){2});
    float *params = net_arena(network);
    lks__loss loss;
    CHECK_OK(lks__network_import(network, 0, (float[]){1, 2, 3, 4, 5, 6}, params));
    CHECK_OK(lks__network_import(network, 1, (float[]){100, 200, 300}, params));
    memcpy(lks__network_input(network), (float[]){1, 10, -1, 2}, 4 * sizeof(float));
    CHECK_OK(lks__network_forward(network, 2, params, NULL, &loss));
    static const float expected[6] = {121, 243, 365, 103, 205, 307};
    for (int i = 0; i < 6; i++)
        CHECK_NEAR(lks__network_logits(network)[i], expected[i], 0);
    lks__free(params);
    lks__network_destroy(network);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_oracle_is_right_by_finite_differences),
        cmocka_unit_test(networks_compute_what_the_oracle_computes),
        cmocka_unit_test(two_compute_threads_compute_the_same_within_rounding),
        cmocka_unit_test(relu_is_the_maximum_and_passes_nan),
        cmocka_unit_test(nan_in_the_data_reaches_the_loss),
        cmocka_unit_test(the_loss_is_minus_log_softmax),
        cmocka_unit_test(correct_is_the_first_of_the_largest),
        cmocka_unit_test(logits_that_are_not_finite_give_a_loss_that_is_not),
        cmocka_unit_test(labels_outside_the_classes_are_refused),
        cmocka_unit_test(linear_is_x_times_w_transposed_plus_bias),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
