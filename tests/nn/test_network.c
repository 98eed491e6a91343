/* SPDX-License-Identifier: Apache-2.0 */
/* What a network promises besides its maths: layouts, places, bits, order, refusals. */
#include <omp.h>
#include <string.h>

#include "nets.h"

/* Odd everywhere: every tensor is padded in some layout. */
static const net_spec odd = {33, 3, {{17, true, true}, {100, false, true}, {7, true, false}}};
static const net_spec mnist = {784, 3, {{512, true, true}, {256, true, true}, {10, true, false}}};

static void each_tensor(lks__network *network, void (*visit)(const lks__network *, int))
{
    for (int i = 0; i < lks__network_n_params(network); i++)
        visit(network, i);
}

static void round_trip(const lks__network *network, int index)
{
    const lks__param *param = lks__network_param(network, index);
    float *arena = net_arena(network);
    float *in = lks__alloc_array(param->n_elems, sizeof *in, LKS__MEM_MISC);
    float *out = lks__alloc_array(param->n_elems, sizeof *out, LKS__MEM_MISC);
    assert_true(in != NULL && out != NULL);
    for (int64_t i = 0; i < param->n_elems; i++)
        in[i] = (float)(i + 1);
    CHECK_OK(lks__network_import(network, index, in, arena));
    CHECK_OK(lks__network_export(network, index, arena, out));
    assert_memory_equal(out, in, (size_t)param->n_elems * sizeof *in);

    /* all of it within the tensor's place, every value once, and the rest of the arena untouched */
    double inside = 0.0, all = 0.0;
    for (int64_t i = 0; i < lks__network_arena_elems(network); i++) {
        all += (double)arena[i];
        if (i >= param->offset_elems && i < param->offset_elems + param->arena_elems)
            inside += (double)arena[i];
    }
    double n = (double)param->n_elems;
    assert_true(inside == n * (n + 1) / 2 && all == inside);
    lks__free(out);
    lks__free(in);
    lks__free(arena);
}

static void export_undoes_import(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 3, 7, 17, 33, 100};
    for (int i = 0; i < 6; i++)
        for (int o = 0; o < 6; o++) {
            const net_spec spec = {sizes[i], 1, {{sizes[o], true, false}}};
            lks__network *network = net_compile(&spec, 1, (int64_t[]){5});
            each_tensor(network, round_trip);
            lks__network_destroy(network);
        }
}

static void places_are_ordered_and_apart(void **state)
{
    (void)state;
    lks__network *network = net_compile(&odd, 1, (int64_t[]){5});
    int64_t end = 0;
    CHECK_INT(lks__network_n_params(network), 5);
    for (int i = 0; i < 5; i++) {
        const lks__param *param = lks__network_param(network, i);
        CHECK_INT(param->offset_elems % 16, 0);
        assert_true(param->offset_elems >= end && param->arena_elems >= param->n_elems);
        end = param->offset_elems + param->arena_elems;
    }
    assert_true(end <= lks__network_arena_elems(network));
    lks__network_destroy(network);
}

/* The elements of an arena that belong to no tensor's value: padding, and gaps between tensors. */
static bool *find_padding(const lks__network *network)
{
    int64_t n = lks__network_arena_elems(network);
    float *arena = net_arena(network);
    bool *padding = lks__alloc_array(n, sizeof *padding, LKS__MEM_MISC);
    assert_non_null(padding);
    for (int i = 0; i < lks__network_n_params(network); i++) {
        int64_t elems = lks__network_param(network, i)->n_elems;
        float *ones = lks__alloc_array(elems, sizeof *ones, LKS__MEM_MISC);
        assert_non_null(ones);
        for (int64_t j = 0; j < elems; j++)
            ones[j] = 1.0f;
        CHECK_OK(lks__network_import(network, i, ones, arena));
        lks__free(ones);
    }
    for (int64_t i = 0; i < n; i++)
        padding[i] = arena[i] == 0.0f;
    lks__free(arena);
    return padding;
}

static void check_padding(const bool *padding, const float *arena, int64_t n, const char *what)
{
    for (int64_t i = 0; i < n; i++)
        if (padding[i] && arena[i] != 0.0f)
            fail_msg("%s: padding at %lld is %g", what, (long long)i, (double)arena[i]);
}

/* Twenty steps of an element-by-element update over the whole arena, as optimizers do it. */
static void padding_stays_zero(void **state)
{
    (void)state;
    lks__network *network = net_compile(&odd, 2, (int64_t[]){5, 3});
    int64_t n = lks__network_arena_elems(network);
    float *params = net_arena(network), *grads = net_arena(network);
    bool *padding = find_padding(network);
    lks__loss loss;
    CHECK_OK(lks__network_init_params(network, 0, params));
    check_padding(padding, params, n, "initial parameters");
    for (uint32_t step = 0; step < 20; step++) {
        int64_t batch = step % 2 == 0 ? 5 : 3;
        net_fill(network, batch, step);
        CHECK_OK(lks__network_forward(network, batch, params, NULL, &loss));
        CHECK_OK(lks__network_backward(network, batch, params, grads, NULL, NULL));
        check_padding(padding, grads, n, "gradients");
        for (int64_t i = 0; i < n; i++)
            params[i] -= 0.1f * grads[i];
    }
    check_padding(padding, params, n, "parameters");
    lks__free(padding);
    lks__free(grads);
    lks__free(params);
    lks__network_destroy(network);
}

/* Every value of every gradient is written, whatever the arena held. */
static void gradients_are_written_not_added(void **state)
{
    (void)state;
    lks__network *network = net_compile(&odd, 1, (int64_t[]){5});
    int64_t n = lks__network_arena_elems(network);
    float *params = net_arena(network), *grads = net_arena(network), *stale = net_arena(network);
    bool *padding = find_padding(network);
    lks__loss loss;
    CHECK_OK(lks__network_init_params(network, 0, params));
    net_fill(network, 5, 1);
    for (int64_t i = 0; i < n; i++)
        stale[i] = padding[i] ? 0.0f : NAN;
    CHECK_OK(lks__network_forward(network, 5, params, NULL, &loss));
    CHECK_OK(lks__network_backward(network, 5, params, grads, NULL, NULL));
    CHECK_OK(lks__network_backward(network, 5, params, stale, NULL, NULL)); /* and backward can be repeated */
    assert_memory_equal(grads, stale, (size_t)n * sizeof *grads);
    lks__free(padding);
    lks__free(stale);
    lks__free(grads);
    lks__free(params);
    lks__network_destroy(network);
}

static void batch_sizes_share_one_layout(void **state)
{
    (void)state;
    lks__network *one = net_compile(&odd, 1, (int64_t[]){64});
    lks__network *many = net_compile(&odd, 4, (int64_t[]){64, 1, 17, 100});
    CHECK_INT(lks__network_arena_elems(one), lks__network_arena_elems(many));
    float *a = net_arena(one), *b = net_arena(many);
    CHECK_OK(lks__network_init_params(one, 5, a));
    CHECK_OK(lks__network_init_params(many, 5, b));
    for (int i = 0; i < lks__network_n_params(one); i++)
        CHECK_INT(lks__network_param(one, i)->offset_elems, lks__network_param(many, i)->offset_elems);
    assert_memory_equal(a, b, (size_t)lks__network_arena_elems(one) * sizeof *a);
    lks__free(b);
    lks__free(a);
    lks__network_destroy(many);
    lks__network_destroy(one);
}

/* One forward and backward of batch 64 with the parameters of seed 1. Ownership: the caller frees the
 * gradients. */
static float *step(lks__network *network, lks__loss *loss)
{
    float *params = net_arena(network), *grads = net_arena(network);
    CHECK_OK(lks__network_init_params(network, 1, params));
    net_fill(network, 64, 9);
    CHECK_OK(lks__network_forward(network, 64, params, NULL, loss));
    CHECK_OK(lks__network_backward(network, 64, params, grads, NULL, NULL));
    lks__free(params);
    return grads;
}

/* The bits of a leaf do not depend on what ran before, on the memory, or on other compiled batch sizes. */
static void the_same_leaf_gives_the_same_bits(void **state)
{
    (void)state;
    lks__network *network = net_compile(&mnist, 1, (int64_t[]){64});
    lks__network *other = net_compile(&mnist, 2, (int64_t[]){64, 17});
    size_t bytes = (size_t)lks__network_arena_elems(network) * sizeof(float);
    lks__loss loss, loss_again, loss_other;
    float *grads = step(network, &loss), *again = step(network, &loss_again);

    float *params = net_arena(other);
    CHECK_OK(lks__network_init_params(other, 2, params));
    net_fill(other, 17, 3);
    CHECK_OK(lks__network_forward(other, 17, params, NULL, &loss_other));
    float *elsewhere = step(other, &loss_other);

    assert_memory_equal(again, grads, bytes);
    assert_memory_equal(elsewhere, grads, bytes);
    assert_true(loss.loss_sum == loss_again.loss_sum && loss.loss_sum == loss_other.loss_sum);
    CHECK_INT(loss.n_correct, loss_other.n_correct);
    lks__free(params);
    lks__free(elsewhere);
    lks__free(again);
    lks__free(grads);
    lks__network_destroy(other);
    lks__network_destroy(network);
}

static void running_allocates_nothing(void **state)
{
    (void)state;
    lks__network *network = net_compile(&odd, 2, (int64_t[]){5, 3});
    float *params = net_arena(network), *grads[2] = {net_arena(network), net_arena(network)};
    lks__loss loss;
    CHECK_OK(lks__network_init_params(network, 0, params));
    net_fill(network, 5, 0);
    int64_t before = lks__alloc_count();
    for (int i = 0; i < 6; i++) {
        int64_t batch = i % 2 == 0 ? 5 : 3;
        CHECK_OK(lks__network_forward(network, batch, params, NULL, &loss));
        CHECK_OK(lks__network_backward(network, batch, params, grads[i % 2], NULL, NULL));
    }
    CHECK_INT(lks__alloc_count(), before);
    lks__free(grads[1]);
    lks__free(grads[0]);
    lks__free(params);
    lks__network_destroy(network);
}

/* ---- initial values ---- */

/* n values of U(-a, a): the mean has standard deviation a / sqrt(3 n), the mean square (a^2 / 3) a relative
 * one of sqrt(0.8 / n). Five of them: one run in a million fails, and the seed is fixed. */
static void check_uniform(const float *x, int64_t n, double bound)
{
    double sum = 0.0, squares = 0.0, largest = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)x[i];
        squares += (double)x[i] * (double)x[i];
        largest = fmax(largest, fabs((double)x[i]));
    }
    CHECK_NEAR(sum / (double)n, 0.0, 5.0 * bound / sqrt(3.0 * (double)n));
    CHECK_NEAR(squares / (double)n / (bound * bound / 3.0), 1.0, 5.0 * sqrt(0.8 / (double)n));
    assert_true(largest <= bound * (1.0 + 0x1p-23) && largest > 0.9 * bound);
}

static float *initial(const lks__network *network, int64_t seed, int index)
{
    float *params = net_arena(network);
    float *plain = lks__alloc_array(lks__network_param(network, index)->n_elems, sizeof *plain,
                                    LKS__MEM_MISC);
    assert_non_null(plain);
    memset(params, 0xff, (size_t)lks__network_arena_elems(network) * sizeof *params); /* NaN */
    CHECK_OK(lks__network_init_params(network, seed, params));
    CHECK_OK(lks__network_export(network, index, params, plain));
    lks__free(params);
    return plain;
}

static void initial_values_are_those_of_torch_linear(void **state)
{
    (void)state;
    lks__network *network = net_compile(&mnist, 1, (int64_t[]){64});
    for (int i = 0; i < 4; i++) { /* the last layer's ten biases are too few for statistics */
        const lks__param *param = lks__network_param(network, i);
        float *x = initial(network, 12345, i);
        check_uniform(x, param->n_elems, 1.0 / sqrt((double)param->fan_in));
        lks__free(x);
    }
    lks__network_destroy(network);
}

static int64_t n_equal(const float *a, const float *b, int64_t n)
{
    int64_t equal = 0;
    for (int64_t i = 0; i < n; i++)
        equal += a[i] == b[i];
    return equal;
}

static void initial_values_depend_on_seed_tensor_and_element_only(void **state)
{
    (void)state;
    /* two equal tensors; O = 1 and batch 1 give other layouts than batch 64 */
    const net_spec same = {17, 3, {{17, true, true}, {17, true, true}, {1, true, false}}};
    lks__network *network = net_compile(&same, 1, (int64_t[]){64});
    lks__network *other = net_compile(&same, 1, (int64_t[]){1});
    float *a = initial(network, 1, 0), *b = initial(other, 1, 0), *c = initial(network, 2, 0);
    float *d = initial(network, 1, 2), *e = initial(network, 1 + ((int64_t)1 << 32), 0);
    enum { N = 17 * 17 };
    CHECK_INT(n_equal(a, b, N), N);
    CHECK_INT(n_equal(a, c, N), 0); /* 24 bits each: an equal pair among 289 is one in 60,000 */
    CHECK_INT(n_equal(a, d, N), 0);
    CHECK_INT(n_equal(a, e, N), 0);
    lks__free(a);
    lks__free(b);
    lks__free(c);
    lks__free(d);
    lks__free(e);
    lks__network_destroy(other);
    lks__network_destroy(network);
}

/* ---- order, kernels, fingerprint ---- */

typedef struct reported {
    int n, index[8];
    const float *grads;
    int64_t n_nan[8]; /* elements of that gradient that were not written yet */
    const lks__network *network;
} reported;

static void on_ready(void *context, int index)
{
    reported *r = context;
    const lks__param *param = lks__network_param(r->network, index);
    for (int64_t i = 0; i < param->arena_elems; i++)
        r->n_nan[r->n] += isnan(r->grads[param->offset_elems + i]) ? 1 : 0;
    r->index[r->n++] = index;
}

static void gradients_are_reported_last_layer_first(void **state)
{
    (void)state;
    lks__network *network = net_compile(&odd, 1, (int64_t[]){5});
    float *params = net_arena(network), *grads = net_arena(network);
    lks__loss loss;
    CHECK_OK(lks__network_init_params(network, 0, params));
    net_fill(network, 5, 0);
    for (int64_t i = 0; i < lks__network_arena_elems(network); i++)
        grads[i] = NAN;
    reported r = {.grads = grads, .network = network};
    CHECK_OK(lks__network_forward(network, 5, params, NULL, &loss));
    CHECK_OK(lks__network_backward(network, 5, params, grads, on_ready, &r));
    CHECK_INT(r.n, 5);
    for (int i = 0; i < 5; i++) {
        CHECK_INT(r.index[i], 4 - i);
        CHECK_INT(r.n_nan[i], 0);
    }
    lks__free(grads);
    lks__free(params);
    lks__network_destroy(network);
}

static void kernels_are_listed_in_the_order_of_a_step(void **state)
{
    (void)state;
    static const char *const names[] = {
        "layer0 forward",       "layer1 forward",          "layer2 forward",       "layer2 backward weights",
        "layer2 backward data", "layer1 backward weights", "layer1 backward data", "layer0 backward weights"};
    static const int64_t products[] = {784 * 512, 512 * 256, 256 * 10,  256 * 10,
                                       256 * 10,  512 * 256, 512 * 256, 784 * 512};
    lks__network *network = net_compile(&mnist, 2, (int64_t[]){64, 3});
    float *params = net_arena(network), *grads = net_arena(network);
    lks__kernel kernel;
    int64_t flops = 0;
    CHECK_INT(lks__network_n_kernels(network, 3), 8);
    for (int i = 0; i < 8; i++) {
        CHECK_OK(lks__network_kernel(network, 3, i, &kernel));
        assert_string_equal(kernel.name, names[i]);
        CHECK_INT(kernel.flops, 2 * 3 * products[i]);
        assert_true(strlen(kernel.detail) > 0);
        CHECK_OK(lks__network_run_kernel(network, 3, i, params, grads));
        flops += kernel.flops;
    }
    CHECK_INT(lks__network_flops(network, 3), flops);
    CHECK_INT(lks__network_n_kernels(network, 5), 0);
    CHECK_FAILS(lks__network_kernel(network, 3, 8, &kernel), LKS_E_ARG, "kernel 8; a step has 8");
    CHECK_FAILS(lks__network_kernel(network, 3, -1, &kernel), LKS_E_ARG, "kernel -1");
    CHECK_FAILS(lks__network_run_kernel(network, 5, 0, params, grads), LKS_E_ARG, "batch size 5");
    lks__free(grads);
    lks__free(params);
    lks__network_destroy(network);
}

/* The kernels of a step, one by one, leave the gradients of backward when the data between them is as it was:
 * ReLU works in place, so only the last layer's can be compared. */
static void a_kernel_alone_does_what_it_does_in_a_step(void **state)
{
    (void)state;
    lks__network *network = net_compile(&odd, 1, (int64_t[]){64});
    float *params = net_arena(network), *alone = net_arena(network);
    lks__loss loss;
    float *grads = step(network, &loss);
    CHECK_OK(lks__network_init_params(network, 1, params));
    CHECK_OK(lks__network_run_kernel(network, 64, 3, params, alone));
    const lks__param *last = lks__network_param(network, 3);
    assert_memory_equal(alone + last->offset_elems, grads + last->offset_elems,
                        (size_t)last->arena_elems * sizeof *grads);
    CHECK_FAILS(lks__network_backward(network, 64, params, grads, NULL, NULL), LKS_E_ARG,
                "without a forward");
    lks__free(alone);
    lks__free(params);
    lks__free(grads);
    lks__network_destroy(network);
}

static uint64_t fingerprint(const net_spec *spec, int n_batches, const int64_t *batches, int threads)
{
    lks_graph *graph = net_graph(spec);
    lks__network *network;
    CHECK_OK(lks__network_create(&(lks__network_config){graph, n_batches, batches, threads}, &network));
    uint64_t print = lks__network_fingerprint(network);
    lks__network_destroy(network);
    lks_graph_destroy(graph);
    return print;
}

static void fingerprints_are_equal_for_equal_networks(void **state)
{
    (void)state;
    net_spec other = odd;
    other.layers[1].relu = false;
    uint64_t print = fingerprint(&odd, 1, (int64_t[]){5}, 1);
    assert_true(fingerprint(&odd, 1, (int64_t[]){5}, 1) == print);
    assert_true(fingerprint(&odd, 1, (int64_t[]){6}, 1) != print);
    assert_true(fingerprint(&odd, 2, (int64_t[]){5, 6}, 1) != print);
    assert_true(fingerprint(&odd, 1, (int64_t[]){5}, 2) != print);
    assert_true(fingerprint(&other, 1, (int64_t[]){5}, 1) != print);
    assert_true(fingerprint(&mnist, 1, (int64_t[]){5}, 1) != print);
}

/* ---- refusals and failures ---- */

static void what_is_not_compiled_is_refused(void **state)
{
    (void)state;
    lks__network *network = net_compile(&odd, 2, (int64_t[]){5, 3});
    float *params = net_arena(network), *grads = net_arena(network);
    lks__loss loss;
    CHECK_FAILS(lks__network_forward(network, 4, params, NULL, &loss), LKS_E_ARG,
                "not compiled for batch size 4, but for 5, 3");
    CHECK_FAILS(lks__network_backward(network, 4, params, grads, NULL, NULL), LKS_E_ARG,
                "not compiled for batch size 4");
    CHECK_FAILS(lks__network_backward(network, 5, params, grads, NULL, NULL), LKS_E_ARG, "without a forward");
    CHECK_OK(lks__network_forward(network, 3, params, NULL, &loss));
    CHECK_FAILS(lks__network_backward(network, 5, params, grads, NULL, NULL), LKS_E_ARG, "without a forward");
    lks__free(grads);
    lks__free(params);
    lks__network_destroy(network);
    lks__network_destroy(NULL);
}

static void bad_configurations_are_refused(void **state)
{
    (void)state;
    lks_graph *graph = net_graph(&odd);
    lks__network *network;
    CHECK_FAILS(lks__network_create(&(lks__network_config){graph, 0, NULL, 1}, &network), LKS_E_ARG,
                "at least one batch size");
    CHECK_FAILS(lks__network_create(&(lks__network_config){graph, 2, (int64_t[]){3, 0}, 1}, &network),
                LKS_E_ARG, "batch size 0; 1 to 16777216");
    CHECK_FAILS(lks__network_create(&(lks__network_config){graph, 1, (int64_t[]){3}, 0}, &network), LKS_E_ARG,
                "0 threads");
    assert_null(network);
    lks_graph_destroy(graph);
}

static int64_t bytes_in_use(void)
{
    int64_t bytes = 0;
    for (int category = 0; category < LKS__MEM_CATEGORIES; category++)
        bytes += lks__alloc_bytes((lks__mem)category);
    return bytes;
}

/* What a plan is made from is what a run will have. */
static void sizes_are_known_without_a_network_to_run(void **state)
{
    (void)state;
    lks_graph *graph = net_graph(&odd);
    const int64_t batches[] = {1000, 7};
    lks__network_config config = {.graph = graph, .n_batches = 2, .batches = batches, .threads = 1};
    int64_t before = lks__alloc_bytes(LKS__MEM_ACTIVATIONS), all_before = bytes_in_use();
    lks__network *sizes, *whole;
    CHECK_OK(lks__network_create(&config, &whole));
    int64_t activations = lks__alloc_bytes(LKS__MEM_ACTIVATIONS) - before, all = bytes_in_use() - all_before;
    CHECK_INT(lks__network_activation_bytes(whole), activations);
    config.sizes_only = true;
    CHECK_OK(lks__network_create(&config, &sizes));
    CHECK_INT(bytes_in_use() - all_before, 2 * all - activations);
    CHECK_INT(lks__network_activation_bytes(sizes), activations);
    CHECK_INT(lks__network_arena_elems(sizes), lks__network_arena_elems(whole));
    for (int i = 0; i < lks__network_n_params(whole); i++)
        assert_memory_equal(lks__network_param(sizes, i), lks__network_param(whole, i), sizeof(lks__param));
    lks__loss loss;
    float *params = net_arena(whole);
    CHECK_FAILS(lks__network_forward(sizes, 7, params, NULL, &loss), LKS_E_ARG, "for its sizes only");
    CHECK_FAILS(lks__network_backward(sizes, 7, params, params, NULL, NULL), LKS_E_ARG, "");
    lks__free(params);
    lks__network_destroy(sizes);
    lks__network_destroy(whole);
    CHECK_INT(bytes_in_use(), all_before);
    lks_graph_destroy(graph);
}

static void any_allocation_may_fail(void **state)
{
    (void)state;
    lks_graph *graph = net_graph(&odd);
    const lks__network_config config = {graph, 2, (int64_t[]){5, 3}, 1};
    lks__network *network;
    int64_t before = bytes_in_use(), count = lks__alloc_count();
    CHECK_OK(lks__network_create(&config, &network));
    int64_t n = lks__alloc_count() - count;
    lks__network_destroy(network);
    assert_true(n > 10);
    for (int64_t i = 1; i <= n; i++) {
        lks__alloc_fail_nth(i);
        CHECK_FAILS(lks__network_create(&config, &network), LKS_E_NOMEM, "out of memory");
        assert_null(network);
        CHECK_INT(bytes_in_use(), before);
    }
    lks__alloc_fail_nth(0);

    CHECK_OK(lks__network_create(&config, &network));
    float *params = net_arena(network);
    lks__alloc_fail_nth(1);
    CHECK_FAILS(lks__network_init_params(network, 0, params), LKS_E_NOMEM, "out of memory");
    lks__free(params);
    lks__network_destroy(network);
    lks_graph_destroy(graph);
}

static void the_callers_threads_are_left_as_they_were(void **state)
{
    (void)state;
    omp_set_num_threads(2);
    lks__network *network = net_compile(&odd, 1, (int64_t[]){5});
    float *params = net_arena(network), *grads = net_arena(network);
    lks__loss loss;
    CHECK_OK(lks__network_init_params(network, 0, params));
    CHECK_OK(lks__network_forward(network, 5, params, NULL, &loss));
    CHECK_OK(lks__network_backward(network, 5, params, grads, NULL, NULL));
    CHECK_INT(omp_get_max_threads(), 2);
    omp_set_num_threads(1);
    lks__free(grads);
    lks__free(params);
    lks__network_destroy(network);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(export_undoes_import),
        cmocka_unit_test(places_are_ordered_and_apart),
        cmocka_unit_test(padding_stays_zero),
        cmocka_unit_test(gradients_are_written_not_added),
        cmocka_unit_test(batch_sizes_share_one_layout),
        cmocka_unit_test(the_same_leaf_gives_the_same_bits),
        cmocka_unit_test(running_allocates_nothing),
        cmocka_unit_test(initial_values_are_those_of_torch_linear),
        cmocka_unit_test(initial_values_depend_on_seed_tensor_and_element_only),
        cmocka_unit_test(gradients_are_reported_last_layer_first),
        cmocka_unit_test(kernels_are_listed_in_the_order_of_a_step),
        cmocka_unit_test(a_kernel_alone_does_what_it_does_in_a_step),
        cmocka_unit_test(fingerprints_are_equal_for_equal_networks),
        cmocka_unit_test(what_is_not_compiled_is_refused),
        cmocka_unit_test(bad_configurations_are_refused),
        cmocka_unit_test(sizes_are_known_without_a_network_to_run),
        cmocka_unit_test(any_allocation_may_fail),
        cmocka_unit_test(the_callers_threads_are_left_as_they_were),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
