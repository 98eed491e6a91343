/* SPDX-License-Identifier: Apache-2.0 */
/* Dropout against its definition (docs/numerics.md), drawn here by a Philox that shares nothing with src/. */
#include <string.h>

#include "nets.h"
#include "oracle.h"

#include "nn/dropout.h"

/* ---- the definition ---- */

typedef struct words {
    uint32_t at[4];
} words;

/* Salmon et al. 2011, section 4.3: a round multiplies two words, exchanges halves and adds keys by xor. */
static words philox(words counter, uint32_t key0, uint32_t key1)
{
    for (uint32_t round = 0; round < 10; round++) {
        uint64_t a = 3528531795ull * counter.at[0], b = 3449720151ull * counter.at[2];
        words next = {{(uint32_t)(b / 4294967296ull) ^ counter.at[1] ^ (key0 + round * 2654435769u),
                       (uint32_t)(b % 4294967296ull),
                       (uint32_t)(a / 4294967296ull) ^ counter.at[3] ^ (key1 + round * 3144134277u),
                       (uint32_t)(a % 4294967296ull)}};
        counter = next;
    }
    return counter;
}

/* Which dropout of the graph, and its p. */
typedef struct layer {
    double p;
    uint32_t ordinal;
} layer;

static double dropped_of_65536(double p)
{
    return floor(p * 65536.0 + 0.5);
}

/* 0, or what the element is multiplied with. */
static double factor(layer l, lks__draw draw, int64_t row, int64_t e)
{
    words of_key = {
        {l.ordinal, (uint32_t)(draw.step / 4294967296), (uint32_t)(draw.leaf / 4294967296), 0x64726f70}};
    words key = philox(of_key, (uint32_t)(draw.seed % 4294967296), (uint32_t)(draw.seed / 4294967296));
    words counter = {{(uint32_t)(e / 128 * 16 + e % 16), (uint32_t)row, (uint32_t)(draw.leaf % 4294967296),
                      (uint32_t)(draw.step % 4294967296)}};
    uint32_t word = philox(counter, key.at[0], key.at[1]).at[e % 64 / 16];
    uint32_t bits = e % 128 < 64 ? word % 65536 : word / 65536;
    double n = dropped_of_65536(l.p);
    return bits < n ? 0.0 : 65536.0 / (65536.0 - n);
}

/* The numbers of the authors' kat_vectors (Random123). */
static void the_definition_has_the_known_answers(void **state)
{
    (void)state;
    words zeros = philox((words){{0, 0, 0, 0}}, 0, 0);
    assert_memory_equal(&zeros, ((uint32_t[]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}), sizeof zeros);
    words pi = philox((words){{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0);
    assert_memory_equal(&pi, ((uint32_t[]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}), sizeof pi);
}

static const lks__draw draws[] = {
    {0, 0, 0},
    {1, 0, 0},
    {0, 1, 0},
    {0, 0, 1},
    {4294967295, 7, 3},
    {((int64_t)3 << 32) + 5, 2, 2},
    {9, (int64_t)1 << 32, 0},
    {9, 0, (int64_t)5 << 32},
};
enum { N_DRAWS = sizeof draws / sizeof draws[0] };

/* input -> dropout of each p -> loss: the logits are what the last one makes of the input. */
static lks__network *bare(int64_t n, int n_layers, const double *p, int n_batches, const int64_t *batches)
{
    lks_graph *graph;
    lks__network *network;
    CHECK_OK(lks_graph_create(&graph));
    lks_value x = lks_graph_input(graph, 1, &n);
    for (int i = 0; i < n_layers; i++)
        x = lks_graph_dropout(graph, x, p[i]);
    (void)lks_graph_softmax_cross_entropy(graph, x);
    CHECK_OK(lks__network_create(&(lks__network_config){graph, n_batches, batches, 1}, &network));
    lks_graph_destroy(graph);
    return network;
}

static void forward(lks__network *network, int64_t batch, const lks__draw *draw)
{
    lks__loss loss;
    CHECK_OK(lks__network_forward(network, batch, NULL, draw, &loss));
}

static void check_values(lks__network *network, int64_t batch, int64_t n, double p, lks__draw draw)
{
    forward(network, batch, &draw);
    for (int64_t row = 0; row < batch; row++)
        for (int64_t e = 0; e < n; e++) {
            float x = lks__network_input(network)[row * n + e];
            double f = factor((layer){p, 0}, draw, row, e);
            float expected = f > 0.0 ? x * (float)f : 0.0f; /* one product in f32: no tolerance */
            CHECK_NEAR(lks__network_logits(network)[row * n + e], expected, 0);
        }
}

/* Lengths around those of a block, in leaves of two sizes: the mask of a row does not depend on them. */
static void elements_are_dropped_by_the_definition(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 192, 200, 784};
    static const double ps[] = {0.5, 0.1, 0.999};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (size_t i = 0; i < sizeof ps / sizeof ps[0]; i++) {
            lks__network *network = bare(sizes[s], 1, &ps[i], 2, (int64_t[]){6, 5});
            net_fill(network, 6, 1);
            for (int d = 0; d < N_DRAWS; d++) {
                check_values(network, 6, sizes[s], ps[i], draws[d]);
                check_values(network, 5, sizes[s], ps[i], draws[d]);
            }
            lks__network_destroy(network);
        }
}

static void every_version_gives_the_same_bits(void **state)
{
    (void)state;
    enum { ROWS = 3, N = 333 };
    static float x[ROWS * N], first[ROWS * N], y[ROWS * N];
    static uint8_t kept_first[ROWS * N], kept[ROWS * N];
    const lks__dropout d = lks__dropout_make(&draws[4], 2, lks__dropout_threshold(0.3));
    for (uint32_t i = 0; i < ROWS * N; i++)
        x[i] = i % 50 == 7 ? NAN : net_value(i);
    for (int64_t n = 1; n <= N; n += n < 140 ? 1 : 64) {
        lks__dropout_versions[LKS__SIMD_BASE](&d, ROWS, n, x, first, kept_first);
        for (int level = 0; level <= (int)lks__simd_best(); level++) {
            memcpy(y, x, sizeof y); /* in place, too */
            lks__dropout_versions[level](&d, ROWS, n, y, y, kept);
            assert_memory_equal(y, first, (size_t)(ROWS * n) * sizeof *y);
            assert_memory_equal(kept, kept_first, (size_t)(ROWS * n));
        }
    }
}

/* ---- networks ---- */

/* Where a layer of a network has dropouts: on the input, behind the product, behind the ReLU, and one more.
 */
typedef struct placed {
    net_spec net;
    double input;
    struct {
        double product, relu, again; /* p; 0: none */
    } layers[NET_LAYERS];
} placed;

static const placed places[] = {
    {{17, 3, {{33, true, true}, {130, true, true}, {7, true, false}}}, 0, {{0, 0.5, 0}, {0, 0.3, 0}}},
    {{17, 3, {{33, true, true}, {130, false, true}, {7, true, false}}}, 0, {{0.5, 0, 0}, {0.3, 0.2, 0}}},
    {{200, 2, {{65, true, false}, {7, true, false}}}, 0.2, {{0.4, 0, 0.1}, {0.1, 0, 0}}},
    {{33, 2, {{64, true, true}, {5, true, true}}}, 0.1, {{0.1, 0.2, 0.3}, {0.1, 0.2, 0.3}}},
};
enum { N_PLACES = sizeof places / sizeof places[0] };

static lks_value drop(lks_graph *graph, lks_value x, double p)
{
    return p > 0.0 ? lks_graph_dropout(graph, x, p) : x;
}

static lks_graph *placed_graph(const placed *spec)
{
    lks_graph *graph;
    CHECK_OK(lks_graph_create(&graph));
    lks_value x = drop(graph, lks_graph_input(graph, 1, &spec->net.n_features), spec->input);
    for (int i = 0; i < spec->net.n_layers; i++) {
        char name[16];
        snprintf(name, sizeof name, "layer%d", i);
        x = lks_graph_linear(graph, name, x, spec->net.layers[i].out, spec->net.layers[i].bias);
        x = drop(graph, x, spec->layers[i].product);
        if (spec->net.layers[i].relu)
            x = lks_graph_relu(graph, x);
        x = drop(graph, drop(graph, x, spec->layers[i].relu), spec->layers[i].again);
    }
    (void)lks_graph_softmax_cross_entropy(graph, x);
    CHECK_OK(lks_graph_check(graph));
    return graph;
}

static lks__network *placed_compile(const placed *spec, int n_batches, const int64_t *batches)
{
    lks_graph *graph = placed_graph(spec);
    lks__network *network;
    CHECK_OK(lks__network_create(&(lks__network_config){graph, n_batches, batches, 1}, &network));
    lks_graph_destroy(graph);
    return network;
}

/* factors: [batch, n], multiplied by those of the next dropout of the graph, if there is one. */
static void multiply(double *factors, double p, uint32_t *ordinal, lks__draw draw, int64_t batch, int64_t n)
{
    if (p == 0.0)
        return;
    for (int64_t i = 0; i < batch * n; i++)
        factors[i] *= factor((layer){p, *ordinal}, draw, i / n, i % n);
    ++*ordinal;
}

static double *ones(int64_t n)
{
    double *p = oracle_zeros(n);
    for (int64_t i = 0; i < n; i++)
        p[i] = 1.0;
    return p;
}

/* The oracle multiplies behind the ReLU; a factor that is not negative may as well stand before it. */
static oracle placed_oracle(const placed *spec, lks__draw draw, int64_t batch)
{
    oracle o = {0};
    uint32_t ordinal = 0;
    o.factors = ones(batch * spec->net.n_features);
    multiply(o.factors, spec->input, &ordinal, draw, batch, spec->net.n_features);
    for (int i = 0; i < spec->net.n_layers; i++) {
        int64_t in = i == 0 ? spec->net.n_features : spec->net.layers[i - 1].out;
        int64_t out = spec->net.layers[i].out;
        oracle_add(&o, in, out, spec->net.layers[i].bias, spec->net.layers[i].relu);
        double *factors = o.layers[i].factors = ones(batch * out);
        multiply(factors, spec->layers[i].product, &ordinal, draw, batch, out);
        multiply(factors, spec->layers[i].relu, &ordinal, draw, batch, out);
        multiply(factors, spec->layers[i].again, &ordinal, draw, batch, out);
    }
    return o;
}

/* Tensor `index` of the oracle: its values, or its gradient. */
static double *oracle_tensor(const oracle *o, int index, bool gradient)
{
    for (int l = 0; l < o->n_layers; l++) {
        if (index-- == 0)
            return gradient ? o->layers[l].dw : o->layers[l].w;
        if (o->layers[l].bias && index-- == 0)
            return gradient ? o->layers[l].db : o->layers[l].b;
    }
    fail();
    return NULL;
}

static void compare_tensor(const lks__network *network, int index, const float *grads, const double *expected)
{
    const lks__param *param = lks__network_param(network, index);
    float *plain = lks__alloc_array(param->n_elems, sizeof *plain, LKS__MEM_MISC);
    assert_non_null(plain);
    CHECK_OK(lks__network_export(network, index, grads, plain));
    double error = 0.0, norm = 0.0;
    for (int64_t i = 0; i < param->n_elems; i++) {
        error += ((double)plain[i] - expected[i]) * ((double)plain[i] - expected[i]);
        norm += expected[i] * expected[i];
    }
    /* as in test_network_maths: products of at most 200 terms in f32, at most three layers there and back,
     * and a factor for each dropout; a wrong element of a mask is an error of a tenth */
    CHECK_NEAR(sqrt(error), 0.0, 1e-4 * sqrt(norm) + 1e-30);
    lks__free(plain);
}

static void import_all(const lks__network *network, const oracle *o, float *params)
{
    for (int i = 0; i < lks__network_n_params(network); i++) {
        int64_t n = lks__network_param(network, i)->n_elems;
        float *plain = lks__alloc_array(n, sizeof *plain, LKS__MEM_MISC);
        assert_non_null(plain);
        for (int64_t j = 0; j < n; j++) {
            plain[j] = net_value(1000u * (uint32_t)i + (uint32_t)j) /
                       sqrtf((float)lks__network_param(network, i)->fan_in);
            oracle_tensor(o, i, false)[j] = (double)plain[j];
        }
        CHECK_OK(lks__network_import(network, i, plain, params));
        lks__free(plain);
    }
}

static void check_network(const placed *spec, lks__network *network, int64_t batch, lks__draw draw)
{
    oracle o = placed_oracle(spec, draw, batch);
    float *params = net_arena(network), *grads = net_arena(network), *again = net_arena(network);
    lks__loss loss;
    import_all(network, &o, params);
    net_fill(network, batch, 5);
    double expected = oracle_run(&o, batch, lks__network_input(network), lks__network_labels(network), 1,
                                 NULL);
    CHECK_OK(lks__network_forward(network, batch, params, &draw, &loss));
    draw = (lks__draw){0}; /* the caller's is not needed any longer */
    CHECK_OK(lks__network_backward(network, batch, params, grads, NULL, NULL));
    CHECK_OK(lks__network_backward(network, batch, params, again, NULL, NULL)); /* it can be repeated */
    assert_memory_equal(grads, again, (size_t)lks__network_arena_elems(network) * sizeof *grads);
    CHECK_NEAR(loss.loss_sum, expected, 1e-5 * fmax(expected, (double)batch));
    for (int i = 0; i < lks__network_n_params(network); i++)
        compare_tensor(network, i, grads, oracle_tensor(&o, i, true));
    lks__free(again);
    lks__free(grads);
    lks__free(params);
    oracle_free(&o);
}

static void networks_compute_what_the_oracle_computes(void **state)
{
    (void)state;
    for (int s = 0; s < N_PLACES; s++) {
        lks__network *network = placed_compile(&places[s], 3, (int64_t[]){64, 5, 1});
        for (int d = 0; d < 3; d++) {
            check_network(&places[s], network, 64, draws[d]);
            check_network(&places[s], network, 5, draws[d]);
            check_network(&places[s], network, 1, draws[d]);
        }
        lks__network_destroy(network);
    }
}

/* The oracle by central differences, as in test_network_maths, where the tolerance is explained; h is
 * smaller, because with 1e-5 an activation does lie within h of a kink. The rounding error is 1e-16 * loss /
 * h = 1e-9. */
static void the_oracle_is_right_by_finite_differences(void **state)
{
    (void)state;
    enum { BATCH = 5 };
    const double h = 1e-6;
    for (int s = 0; s < N_PLACES; s++) {
        lks__network *network = placed_compile(&places[s], 1, (int64_t[]){BATCH});
        oracle o = placed_oracle(&places[s], draws[1], BATCH);
        float *params = net_arena(network);
        import_all(network, &o, params);
        net_fill(network, BATCH, 5);
        const float *x = lks__network_input(network);
        const int32_t *labels = lks__network_labels(network);
        (void)oracle_run(&o, BATCH, x, labels, 1, NULL);
        for (int i = 0; i < lks__network_n_params(network); i++) {
            int64_t n = lks__network_param(network, i)->n_elems;
            for (int64_t j = 0; j < n; j += n / 7 + 1) {
                double *value = &oracle_tensor(&o, i, false)[j], kept = *value;
                *value = kept + h;
                double above = oracle_run(&o, BATCH, x, labels, 0, NULL);
                *value = kept - h;
                double below = oracle_run(&o, BATCH, x, labels, 0, NULL);
                *value = kept;
                double grad = oracle_tensor(&o, i, true)[j];
                CHECK_NEAR(grad, (above - below) / (2.0 * h), 1e-7 * fmax(1.0, fabs(grad)));
            }
        }
        lks__free(params);
        oracle_free(&o);
        lks__network_destroy(network);
    }
}

/* Without a draw a network gives the bits that it gives without the dropouts, forward and backward. */
static void an_evaluation_drops_nothing(void **state)
{
    (void)state;
    enum { BATCH = 5 };
    for (int s = 0; s < N_PLACES; s++) {
        placed plain = {.net = places[s].net};
        lks__network *networks[2] = {placed_compile(&places[s], 1, (int64_t[]){BATCH}),
                                     placed_compile(&plain, 1, (int64_t[]){BATCH})};
        float *params = net_arena(networks[0]), *grads[2] = {net_arena(networks[0]), net_arena(networks[0])};
        lks__loss losses[2];
        CHECK_OK(lks__network_init_params(networks[0], 1, params));
        net_fill(networks[0], BATCH, 2); /* a training forward before it leaves no trace */
        CHECK_OK(lks__network_forward(networks[0], BATCH, params, &draws[1], &losses[0]));
        for (int i = 0; i < 2; i++) {
            net_fill(networks[i], BATCH, 3);
            CHECK_OK(lks__network_forward(networks[i], BATCH, params, NULL, &losses[i]));
            CHECK_OK(lks__network_backward(networks[i], BATCH, params, grads[i], NULL, NULL));
        }
        int64_t n_logits = BATCH * lks__network_n_classes(networks[0]);
        assert_memory_equal(lks__network_logits(networks[0]), lks__network_logits(networks[1]),
                            (size_t)n_logits * sizeof(float));
        assert_memory_equal(grads[0], grads[1],
                            (size_t)lks__network_arena_elems(networks[0]) * sizeof(float));
        CHECK_NEAR(losses[0].loss_sum, losses[1].loss_sum, 0);
        for (int i = 0; i < 2; i++) {
            lks__free(grads[i]);
            lks__network_destroy(networks[i]);
        }
        lks__free(params);
    }
}

/* What is dropped is 0 whatever it was; what is kept and no number stays none. */
static void nan_passes_where_it_is_kept(void **state)
{
    (void)state;
    enum { N = 256 };
    const double p = 0.5;
    lks__network *network = bare(N, 1, &p, 1, (int64_t[]){1});
    for (int i = 0; i < N; i++)
        lks__network_input(network)[i] = i % 2 == 0 ? NAN : -INFINITY;
    forward(network, 1, &draws[2]);
    for (int i = 0; i < N; i++) {
        float y = lks__network_logits(network)[i];
        bool kept = factor((layer){p, 0}, draws[2], 0, i) > 0.0;
        assert_true(!kept ? y == 0.0f && !signbit(y) : i % 2 == 0 ? isnan(y) : y == -INFINITY);
    }
    assert_true(isnan(lks__network_input(network)[0])); /* the caller's: not worked on in place */
    lks__network_destroy(network);
}

/* A product with one column of weights, all outputs dropped or not: its gradient is 0 where they all are,
 * also when the loss's gradient is no number. */
static void what_is_dropped_gets_no_gradient(void **state)
{
    (void)state;
    enum { N = 100 };
    const placed spec = {{1, 1, {{N, false, false}}}, 0, {{0.5, 0, 0}}};
    lks__network *network = placed_compile(&spec, 1, (int64_t[]){1});
    float *params = net_arena(network), *grads = net_arena(network), w[N], dw[N];
    lks__loss loss;
    for (int i = 0; i < N; i++)
        w[i] = INFINITY;
    CHECK_OK(lks__network_import(network, 0, w, params));
    lks__network_input(network)[0] = 1.0f;
    CHECK_OK(lks__network_forward(network, 1, params, &draws[3], &loss));
    CHECK_OK(lks__network_backward(network, 1, params, grads, NULL, NULL));
    CHECK_OK(lks__network_export(network, 0, grads, dw));
    assert_true(isnan(loss.loss_sum) || isinf(loss.loss_sum));
    for (int i = 0; i < N; i++)
        assert_true(factor((layer){0.5, 0}, draws[3], 0, i) > 0.0 ? isnan(dw[i]) : dw[i] == 0.0f);
    lks__free(grads);
    lks__free(params);
    lks__network_destroy(network);
}

/* ---- statistics ---- */

enum { ROWS = 256, COLUMNS = 1000, ELEMS = ROWS * COLUMNS };

/* kept: [ROWS, COLUMNS] */
static void draw_mask(double p, uint32_t ordinal, lks__draw draw, uint8_t *kept)
{
    static float x[ELEMS];
    const lks__dropout d = lks__dropout_make(&draw, ordinal, lks__dropout_threshold(p));
    lks__dropout_versions[lks__simd_best()](&d, ROWS, COLUMNS, x, x, kept);
}

/* The mean of n draws of probability q has the standard deviation sqrt(q (1 - q) / n). Five of them: one
 * check in two million fails by chance, and what is drawn is fixed. */
static void check_share(int64_t count, int64_t n, double q)
{
    CHECK_NEAR((double)count / (double)n, q, 5.0 * sqrt(q * (1.0 - q) / (double)n));
}

static void a_share_of_p_is_dropped(void **state)
{
    (void)state;
    static const double ps[] = {1.0 / 65536.0, 0.1, 0.25, 0.5, 0.9};
    static uint8_t kept[ELEMS];
    for (size_t i = 0; i < sizeof ps / sizeof ps[0]; i++) {
        int64_t n = 0;
        draw_mask(ps[i], 0, draws[4], kept);
        for (int64_t e = 0; e < ELEMS; e++)
            n += kept[e];
        check_share(ELEMS - n, ELEMS, dropped_of_65536(ps[i]) / 65536.0);
    }
}

/* Two masks that have nothing to do with each other agree in p^2 + (1 - p)^2 of their elements. */
static void check_independent(const uint8_t *a, const uint8_t *b, int64_t n, double p)
{
    int64_t equal = 0;
    for (int64_t e = 0; e < n; e++)
        equal += a[e] == b[e];
    check_share(equal, n, p * p + (1.0 - p) * (1.0 - p));
}

static void masks_of_other_keys_are_independent(void **state)
{
    (void)state;
    const lks__draw draw = {5, 6, 7};
    static const struct {
        lks__draw draw;
        uint32_t ordinal;
    } others[] = {{{6, 6, 7}, 0}, {{5, 7, 7}, 0}, {{5, 6, 8}, 0},
                  {{5, 6, 7}, 1}, {{5, 7, 6}, 0}, {{6, 5, 7}, 0}};
    static uint8_t kept[ELEMS], other[ELEMS];
    draw_mask(0.25, 0, draw, kept);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        draw_mask(0.25, others[i].ordinal, others[i].draw, other);
        check_independent(kept, other, ELEMS, 0.25);
    }
    draw_mask(0.25, 0, draw, other);
    assert_memory_equal(kept, other, ELEMS);
}

static void elements_of_a_mask_are_independent(void **state)
{
    (void)state;
    static const int64_t distances[] = {1, 2, 16, 32, 64, 128, COLUMNS, 2 * COLUMNS, 16 * COLUMNS};
    static uint8_t kept[ELEMS];
    draw_mask(0.25, 0, draws[4], kept);
    for (size_t i = 0; i < sizeof distances / sizeof distances[0]; i++)
        check_independent(kept, kept + distances[i], ELEMS - distances[i], 0.25);
}

/* ---- limits ---- */

static void p_0_drops_nothing_and_no_other_does_the_same(void **state)
{
    (void)state;
    CHECK_INT(lks__dropout_threshold(0.0), 0);
    CHECK_INT(lks__dropout_threshold(1e-300), 1);
    CHECK_INT(lks__dropout_threshold(0.5), 32768);
    CHECK_INT(lks__dropout_threshold(1.0 - 0x1p-53), 65535);
    enum { N = 300 };
    lks__network *network = bare(N, 2, (double[]){0.0, 0.0}, 1, (int64_t[]){2});
    net_fill(network, 2, 1);
    forward(network, 2, &draws[4]);
    assert_memory_equal(lks__network_logits(network), lks__network_input(network), 2 * N * sizeof(float));
    lks__network_destroy(network);
}

static uint64_t fingerprint(double p)
{
    lks__network *network = bare(3, 1, &p, 1, (int64_t[]){2});
    uint64_t print = lks__network_fingerprint(network);
    lks__network_destroy(network);
    return print;
}

static void fingerprints_tell_p(void **state)
{
    (void)state;
    assert_true(fingerprint(0.5) == fingerprint(0.5) && fingerprint(0.5) != fingerprint(0.25));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_definition_has_the_known_answers),
        cmocka_unit_test(elements_are_dropped_by_the_definition),
        cmocka_unit_test(every_version_gives_the_same_bits),
        cmocka_unit_test(networks_compute_what_the_oracle_computes),
        cmocka_unit_test(the_oracle_is_right_by_finite_differences),
        cmocka_unit_test(an_evaluation_drops_nothing),
        cmocka_unit_test(nan_passes_where_it_is_kept),
        cmocka_unit_test(what_is_dropped_gets_no_gradient),
        cmocka_unit_test(a_share_of_p_is_dropped),
        cmocka_unit_test(masks_of_other_keys_are_independent),
        cmocka_unit_test(elements_of_a_mask_are_independent),
        cmocka_unit_test(p_0_drops_nothing_and_no_other_does_the_same),
        cmocka_unit_test(fingerprints_tell_p),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
