/* SPDX-License-Identifier: Apache-2.0 */
#include <lockstep/graph.h>
#include <string.h>

#include "check.h"

#include "base/alloc.h"
#include "nn/network.h"

static lks_graph *new_graph(void)
{
    lks_graph *graph;
    CHECK_OK(lks_graph_create(&graph));
    return graph;
}

static lks_value input(lks_graph *graph, int64_t n)
{
    return lks_graph_input(graph, 1, &n);
}

static void an_mlp_has_the_names_and_shapes_of_pytorch(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int n_dims;
        int64_t shape[2], fan_in;
    } expected[] = {{"0.weight", 2, {5, 12}, 12}, {"0.bias", 1, {5}, 12},     {"2.weight", 2, {4, 5}, 5},
                    {"2.bias", 1, {4}, 5},        {"4.weight", 2, {3, 4}, 4}, {"4.bias", 1, {3}, 4}};
    lks_graph *graph;
    lks__network *network;
    CHECK_OK(lks_graph_create_mlp(12, 2, (int64_t[]){5, 4}, 0, 3, &graph));
    CHECK_OK(lks__network_create(&(lks__network_config){graph, 1, (int64_t[]){2}, 1}, &network));
    CHECK_INT(lks__network_n_params(network), 6);
    for (int i = 0; i < 6; i++) {
        const lks__param *param = lks__network_param(network, i);
        assert_string_equal(param->name, expected[i].name);
        CHECK_INT(param->n_dims, expected[i].n_dims);
        CHECK_INT(param->shape[0], expected[i].shape[0]);
        if (param->n_dims == 2)
            CHECK_INT(param->shape[1], expected[i].shape[1]);
        CHECK_INT(param->n_elems, expected[i].shape[0] * (param->n_dims == 2 ? expected[i].shape[1] : 1));
        CHECK_INT(param->fan_in, expected[i].fan_in);
        CHECK_INT(param->offset_elems % 16, 0);
    }
    CHECK_INT(lks__network_n_features(network), 12);
    CHECK_INT(lks__network_n_classes(network), 3);
    lks__network_destroy(network);
    lks_graph_destroy(graph);
}

static void an_mlp_without_hidden_layers_is_one_linear_layer(void **state)
{
    (void)state;
    lks_graph *graph;
    CHECK_OK(lks_graph_create_mlp(4, 0, NULL, 0, 2, &graph));
    lks_graph_destroy(graph);
    CHECK_FAILS(lks_graph_create_mlp(4, 1, (int64_t[]){0}, 0, 2, &graph), LKS_E_ARG,
                "linear \"0\": 0 out_features");
    assert_null(graph);
    CHECK_FAILS(lks_graph_create_mlp(-4, 0, NULL, 0, 2, &graph), LKS_E_ARG, "dimension 0 is -4");
}

static void an_mlp_with_dropout_has_the_names_of_pytorch(void **state)
{
    (void)state;
    static const char *const names[] = {"0.weight", "0.bias", "3.weight", "3.bias", "6.weight", "6.bias"};
    lks_graph *graph;
    lks__network *network;
    CHECK_OK(lks_graph_create_mlp(12, 2, (int64_t[]){5, 4}, 0.5, 3, &graph));
    CHECK_OK(lks__network_create(&(lks__network_config){graph, 1, (int64_t[]){2}, 1}, &network));
    CHECK_INT(lks__network_n_params(network), 6);
    for (int i = 0; i < 6; i++)
        assert_string_equal(lks__network_param(network, i)->name, names[i]);
    lks__network_destroy(network);
    lks_graph_destroy(graph);
    CHECK_FAILS(lks_graph_create_mlp(12, 1, (int64_t[]){5}, 1, 3, &graph), LKS_E_ARG, "dropout: p is 1");
}

static void inputs_of_any_shape_are_flattened(void **state)
{
    (void)state;
    lks_graph *graph = new_graph();
    lks__network *network;
    lks_value x = lks_graph_input(graph, 3, (int64_t[]){2, 3, 4});
    (void)lks_graph_softmax_cross_entropy(graph, lks_graph_linear(graph, "fc", x, 5, false));
    CHECK_OK(lks__network_create(&(lks__network_config){graph, 1, (int64_t[]){2}, 1}, &network));
    CHECK_INT(lks__network_n_features(network), 24);
    CHECK_INT(lks__network_param(network, 0)->shape[1], 24);
    lks__network_destroy(network);
    lks_graph_destroy(graph);
}

/* One mistake each; the graph goes on being built after it, and the first mistake is what check reports. */
static void mistake_second_input(lks_graph *g)
{
    (void)input(g, 3);
    (void)input(g, 3);
}
static void mistake_no_dims(lks_graph *g)
{
    (void)lks_graph_input(g, 0, NULL);
}
static void mistake_five_dims(lks_graph *g)
{
    (void)lks_graph_input(g, 5, (int64_t[]){1, 1, 1, 1, 1});
}
static void mistake_zero_dim(lks_graph *g)
{
    (void)lks_graph_input(g, 2, (int64_t[]){3, 0});
}
static void mistake_huge(lks_graph *g)
{
    (void)lks_graph_input(g, 3, (int64_t[]){1 << 20, 1 << 20, 1 << 30});
}
static void mistake_missing_value(lks_graph *g)
{
    (void)input(g, 3);
    (void)lks_graph_relu(g, 7);
}
static void mistake_none_value(lks_graph *g)
{
    (void)input(g, 3);
    (void)lks_graph_relu(g, LKS_VALUE_NONE);
}
static void mistake_no_name(lks_graph *g)
{
    (void)lks_graph_linear(g, "", input(g, 3), 2, true);
}
static void mistake_long_name(lks_graph *g)
{
    char name[200];
    memset(name, 'x', sizeof name);
    name[199] = '\0';
    (void)lks_graph_linear(g, name, input(g, 3), 2, true);
}
static void mistake_same_name(lks_graph *g)
{
    lks_value x = lks_graph_linear(g, "fc", input(g, 3), 2, true);
    (void)lks_graph_linear(g, "fc", x, 2, true);
}
static void mistake_no_features(lks_graph *g)
{
    (void)lks_graph_linear(g, "fc", input(g, 3), 0, true);
}
static void mistake_drops_all(lks_graph *g)
{
    (void)lks_graph_dropout(g, input(g, 3), 1.0);
}
static void mistake_drops_less(lks_graph *g)
{
    (void)lks_graph_dropout(g, input(g, 3), -0.1);
}
static void mistake_drops_nan(lks_graph *g)
{
    (void)lks_graph_dropout(g, input(g, 3), NAN);
}
static void mistake_reads_loss(lks_graph *g)
{
    (void)lks_graph_relu(g, lks_graph_softmax_cross_entropy(g, input(g, 3)));
}
static void mistake_no_loss(lks_graph *g)
{
    (void)lks_graph_linear(g, "fc", input(g, 3), 2, true);
}
static void mistake_branch(lks_graph *g)
{
    lks_value x = input(g, 3);
    (void)lks_graph_relu(g, x);
    (void)lks_graph_softmax_cross_entropy(g, x);
}
static void mistake_empty(lks_graph *g)
{
    (void)g;
}

static void the_first_mistake_is_kept(void **state)
{
    (void)state;
    static const struct {
        void (*build)(lks_graph *graph);
        const char *text;
    } mistakes[] = {
        {mistake_second_input, "one input"},
        {mistake_no_dims, "0 dimensions; 1 to 4"},
        {mistake_five_dims, "5 dimensions; 1 to 4"},
        {mistake_zero_dim, "dimension 1 is 0"},
        {mistake_huge, "dimension 1 is 1048576"},
        {mistake_missing_value, "relu: value 7 does not exist"},
        {mistake_none_value, "relu: value -1 does not exist"},
        {mistake_no_name, "a name has 1 to 88 bytes"},
        {mistake_long_name, "a name has 1 to 88 bytes"},
        {mistake_same_name, "\"fc\" is used twice"},
        {mistake_no_features, "linear \"fc\": 0 out_features"},
        {mistake_drops_all, "dropout: p is 1; 0 <= p < 1 is allowed"},
        {mistake_drops_less, "dropout: p is -0.1"},
        {mistake_drops_nan, "dropout: p is nan"},
        {mistake_reads_loss, "value 1 is the loss"},
        {mistake_no_loss, "value 1 (linear) is read by nothing"},
        {mistake_branch, "value 0 (input) is read by 2 operations"},
        {mistake_empty, "the graph is empty"},
    };
    for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
        lks_graph *graph = new_graph();
        lks__network *network;
        mistakes[i].build(graph);
        CHECK_FAILS(lks_graph_check(graph), LKS_E_ARG, mistakes[i].text);
        CHECK_FAILS(lks__network_create(&(lks__network_config){graph, 1, (int64_t[]){2}, 1}, &network),
                    LKS_E_ARG, mistakes[i].text);
        assert_null(network);
        lks_graph_destroy(graph);
    }
}

static void after_a_mistake_every_value_is_none(void **state)
{
    (void)state;
    lks_graph *graph = new_graph();
    lks_value x = input(graph, 3);
    CHECK_INT(lks_graph_relu(graph, 9), LKS_VALUE_NONE);
    CHECK_INT(lks_graph_relu(graph, x), LKS_VALUE_NONE);
    CHECK_INT(lks_graph_linear(graph, "fc", x, 2, true), LKS_VALUE_NONE);
    CHECK_INT(lks_graph_dropout(graph, x, 0.5), LKS_VALUE_NONE);
    CHECK_INT(lks_graph_softmax_cross_entropy(graph, x), LKS_VALUE_NONE);
    CHECK_FAILS(lks_graph_check(graph), LKS_E_ARG, "value 9");
    lks_graph_destroy(graph);
    lks_graph_destroy(NULL);
}

static void running_out_of_memory_is_reported_by_check(void **state)
{
    (void)state;
    int64_t before = lks__alloc_bytes(LKS__MEM_MISC);
    for (int n = 1; n <= 3; n++) { /* the handle, the first nodes, the nodes that no longer fit */
        lks_graph *graph = NULL;
        lks__alloc_fail_nth(n);
        lks_status status = lks_graph_create(&graph);
        if (status == LKS_OK) {
            lks_value x = input(graph, 3);
            for (int i = 0; i < 20; i++)
                x = lks_graph_relu(graph, x);
            (void)lks_graph_softmax_cross_entropy(graph, x);
            status = lks_graph_check(graph);
        }
        CHECK_INT(status, LKS_E_NOMEM);
        lks_graph_destroy(graph);
    }
    lks__alloc_fail_nth(0);
    CHECK_INT(lks__alloc_bytes(LKS__MEM_MISC), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_mlp_has_the_names_and_shapes_of_pytorch),
        cmocka_unit_test(an_mlp_with_dropout_has_the_names_of_pytorch),
        cmocka_unit_test(an_mlp_without_hidden_layers_is_one_linear_layer),
        cmocka_unit_test(inputs_of_any_shape_are_flattened),
        cmocka_unit_test(the_first_mistake_is_kept),
        cmocka_unit_test(after_a_mistake_every_value_is_none),
        cmocka_unit_test(running_out_of_memory_is_reported_by_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
