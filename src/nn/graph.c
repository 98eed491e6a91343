/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/graph_nodes.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "nn/dropout.h"

/* Sizes below this keep every product of two of them, and of a few such products with a batch, in 63 bits. */
#define MAX_ELEMS ((int64_t)INT32_MAX)

lks_status lks_graph_create(lks_graph **out)
{
    *out = lks__alloc(sizeof **out, LKS__MEM_MISC);
    return *out != NULL ? LKS_OK : LKS_E_NOMEM;
}

void lks_graph_destroy(lks_graph *graph)
{
    if (graph == NULL)
        return;
    lks__free(graph->nodes);
    lks__free(graph);
}

static lks_status grow(lks_graph *graph)
{
    if (graph->n_nodes < graph->capacity)
        return LKS_OK;
    int capacity = graph->capacity == 0 ? 16 : 2 * graph->capacity;
    lks__node *nodes = lks__realloc(graph->nodes, (size_t)capacity * sizeof *nodes, LKS__MEM_MISC);
    if (nodes == NULL)
        return LKS_E_NOMEM;
    graph->nodes = nodes;
    graph->capacity = capacity;
    return LKS_OK;
}

static lks_status check_name(const lks_graph *graph, const lks__node *node)
{
    for (int i = 0; i < graph->n_nodes; i++)
        if (node->name[0] != '\0' && strcmp(graph->nodes[i].name, node->name) == 0)
            return lks__fail(LKS_E_ARG, "the name \"%s\" is used twice: parameters need names of their own",
                             node->name);
    return LKS_OK;
}

static lks_status check_reads(const lks_graph *graph, const lks__node *node)
{
    if (node->op == &lks__op_input) {
        if (graph->n_nodes > 0)
            return lks__fail(LKS_E_ARG, "input: a graph has one input, and it comes first");
        return LKS_OK;
    }
    if (node->x < 0 || node->x >= graph->n_nodes)
        return lks__fail(LKS_E_ARG, "%s: value %d does not exist, the graph has %d", node->op->name, node->x,
                         graph->n_nodes);
    if (graph->nodes[node->x].op->ends_graph)
        return lks__fail(LKS_E_ARG, "%s: value %d is the loss, and nothing can read that", node->op->name,
                         node->x);
    return LKS_OK;
}

static lks_status append(lks_graph *graph, lks__node *node)
{
    lks_status status = check_reads(graph, node);
    if (status == LKS_OK)
        status = check_name(graph, node);
    if (status == LKS_OK)
        status = node->op->infer(node, node->x >= 0 ? &graph->nodes[node->x] : NULL);
    if (status == LKS_OK)
        status = grow(graph);
    if (status == LKS_OK)
        graph->nodes[graph->n_nodes++] = *node;
    return status;
}

static lks_value keep_mistake(lks_graph *graph, lks_status status)
{
    graph->status = status;
    snprintf(graph->message, sizeof graph->message, "%s", lks_error_message());
    return LKS_VALUE_NONE;
}

static lks_value add(lks_graph *graph, lks__node *node)
{
    if (graph->status != LKS_OK)
        return LKS_VALUE_NONE;
    lks_status status = append(graph, node);
    return status == LKS_OK ? graph->n_nodes - 1 : keep_mistake(graph, status);
}

/* The input's shape is what the caller gave: there is nothing to infer but its size. */
static lks_status infer_input(lks__node *node, const lks__node *x)
{
    (void)x;
    node->n_elems = 1;
    for (int i = 0; i < node->n_dims; i++) {
        if (node->shape[i] < 1 || node->shape[i] > MAX_ELEMS / node->n_elems)
            return lks__fail(LKS_E_ARG, "input: dimension %d is %lld; a sample has 1 to %lld elements", i,
                             (long long)node->shape[i], (long long)MAX_ELEMS);
        node->n_elems *= node->shape[i];
    }
    return LKS_OK;
}

const lks__op lks__op_input = {.name = "input", .keeps_output = true, .infer = infer_input};

lks_value lks_graph_input(lks_graph *graph, int n_dims, const int64_t *shape)
{
    lks__node node = {.op = &lks__op_input, .x = LKS_VALUE_NONE, .n_dims = n_dims};
    if (graph->status != LKS_OK)
        return LKS_VALUE_NONE;
    if (n_dims < 1 || n_dims > LKS__VALUE_DIMS)
        return keep_mistake(graph, lks__fail(LKS_E_ARG, "input: %d dimensions; 1 to %d are allowed", n_dims,
                                             LKS__VALUE_DIMS));
    memcpy(node.shape, shape, (size_t)n_dims * sizeof *shape);
    return add(graph, &node);
}

lks_value lks_graph_linear(lks_graph *graph, const char *name, lks_value x, int64_t out_features, bool bias)
{
    lks__node node = {.op = &lks__op_linear, .x = x, .linear = {out_features, bias}};
    /* ".weight" goes behind the name */
    int room = LKS__PARAM_NAME_BYTES - (int)sizeof ".weight";
    if (graph->status != LKS_OK)
        return LKS_VALUE_NONE;
    if (name == NULL || name[0] == '\0' || strlen(name) > (size_t)room)
        return keep_mistake(graph, lks__fail(LKS_E_ARG, "linear: a name has 1 to %d bytes", room));
    if (out_features < 1 || out_features > MAX_ELEMS)
        return keep_mistake(graph,
                            lks__fail(LKS_E_ARG, "linear \"%s\": %lld out_features; 1 to %lld are allowed",
                                      name, (long long)out_features, (long long)MAX_ELEMS));
    memcpy(node.name, name, strlen(name) + 1);
    return add(graph, &node);
}

lks_value lks_graph_relu(lks_graph *graph, lks_value x)
{
    return add(graph, &(lks__node){.op = &lks__op_relu, .x = x});
}

lks_value lks_graph_dropout(lks_graph *graph, lks_value x, double p)
{
    lks__node node = {.op = &lks__op_dropout, .x = x};
    if (graph->status != LKS_OK)
        return LKS_VALUE_NONE;
    if (!(p >= 0.0 && p < 1.0))
        return keep_mistake(graph, lks__fail(LKS_E_ARG, "dropout: p is %g; 0 <= p < 1 is allowed", p));
    for (int i = 0; i < graph->n_nodes; i++)
        node.dropout.ordinal += graph->nodes[i].op == &lks__op_dropout;
    node.dropout.threshold = lks__dropout_threshold(p);
    return add(graph, &node);
}

lks_value lks_graph_softmax_cross_entropy(lks_graph *graph, lks_value logits)
{
    return add(graph, &(lks__node){.op = &lks__op_softmax_cross_entropy, .x = logits});
}

static int count_readers(const lks_graph *graph, lks_value value)
{
    int n = 0;
    for (int i = 0; i < graph->n_nodes; i++)
        n += graph->nodes[i].x == value;
    return n;
}

/* Every value but the loss is read exactly once: a chain from the input to the loss. */
static lks_status check_chain(const lks_graph *graph)
{
    for (lks_value v = 0; v < graph->n_nodes; v++) {
        const lks__op *op = graph->nodes[v].op;
        int n = count_readers(graph, v);
        if (n == 0 && !op->ends_graph)
            return lks__fail(LKS_E_ARG, "value %d (%s) is read by nothing: a graph ends with a loss", v,
                             op->name);
        if (n > 1)
            return lks__fail(LKS_E_ARG,
                             "value %d (%s) is read by %d operations: graphs with branches can't be compiled",
                             v, op->name, n);
    }
    return LKS_OK;
}

lks_status lks_graph_check(const lks_graph *graph)
{
    if (graph->status != LKS_OK)
        return lks__fail(graph->status, "%s", graph->message);
    if (graph->n_nodes == 0)
        return lks__fail(LKS_E_ARG, "the graph is empty: it needs an input and a loss");
    return check_chain(graph);
}

lks_status lks_graph_create_mlp(int64_t n_features, int n_hidden, const int64_t *hidden, double dropout,
                                int64_t n_classes, lks_graph **out)
{
    lks_graph *graph;
    *out = NULL;
    lks_status status = lks_graph_create(&graph);
    if (status != LKS_OK)
        return status;

    char
        name[16]; /* the place in torch.nn.Sequential, where every ReLU and every Dropout takes one as well */
    const int stride = dropout == 0.0 ? 2 : 3;
    lks_value x = lks_graph_input(graph, 1, &n_features);
    for (int i = 0; i < n_hidden; i++) {
        snprintf(name, sizeof name, "%d", stride * i);
        x = lks_graph_relu(graph, lks_graph_linear(graph, name, x, hidden[i], true));
        if (dropout != 0.0)
            x = lks_graph_dropout(graph, x, dropout);
    }
    snprintf(name, sizeof name, "%d", stride * n_hidden);
    x = lks_graph_linear(graph, name, x, n_classes, true);
    (void)lks_graph_softmax_cross_entropy(graph, x);

    status = lks_graph_check(graph);
    if (status == LKS_OK)
        *out = graph;
    else
        lks_graph_destroy(graph);
    return status;
}
