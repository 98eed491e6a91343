/* SPDX-License-Identifier: Apache-2.0 */
/** Small networks for tests: a specification, made as a graph, and data that repeats. */
#ifndef LKS_TESTS_NN_NETS_H
#define LKS_TESTS_NN_NETS_H

#include <lockstep/graph.h>

#include "check.h"

#include "base/alloc.h"
#include "nn/network.h"

enum { NET_LAYERS = 4 };

typedef struct net_spec {
    int64_t n_features;
    int n_layers;
    struct {
        int64_t out;
        bool bias, relu;
    } layers[NET_LAYERS];
} net_spec;

static inline lks_graph *net_graph(const net_spec *spec)
{
    lks_graph *graph;
    CHECK_OK(lks_graph_create(&graph));
    lks_value x = lks_graph_input(graph, 1, &spec->n_features);
    for (int i = 0; i < spec->n_layers; i++) {
        char name[16];
        snprintf(name, sizeof name, "layer%d", i);
        x = lks_graph_linear(graph, name, x, spec->layers[i].out, spec->layers[i].bias);
        if (spec->layers[i].relu)
            x = lks_graph_relu(graph, x);
    }
    (void)lks_graph_softmax_cross_entropy(graph, x);
    CHECK_OK(lks_graph_check(graph));
    return graph;
}

static inline lks__network *net_compile_threads(const net_spec *spec, int n_batches, const int64_t *batches,
                                                int threads)
{
    lks_graph *graph = net_graph(spec);
    lks__network *network;
    const lks__network_config config = {
        .graph = graph, .n_batches = n_batches, .batches = batches, .threads = threads};
    CHECK_OK(lks__network_create(&config, &network));
    lks_graph_destroy(graph); /* the network has its own copy */
    return network;
}

static inline lks__network *net_compile(const net_spec *spec, int n_batches, const int64_t *batches)
{
    return net_compile_threads(spec, n_batches, batches, 1);
}

static inline float *net_arena(const lks__network *network)
{
    float *arena = lks__alloc_array(lks__network_arena_elems(network), sizeof *arena, LKS__MEM_MISC);
    assert_non_null(arena);
    return arena;
}

/* Values in [-1, 1) that look random and are the same everywhere. */
static inline float net_value(uint32_t i)
{
    uint32_t h = i * 2654435761u;
    h ^= h >> 15;
    h *= 2246822519u;
    h ^= h >> 13;
    return (float)(h >> 8) * 0x1p-23f - 1.0f;
}

static inline void net_fill(lks__network *network, int64_t batch, uint32_t seed)
{
    int64_t n = batch * lks__network_n_features(network);
    for (int64_t i = 0; i < n; i++)
        lks__network_input(network)[i] = net_value(seed * 1000003u + (uint32_t)i);
    for (int64_t i = 0; i < batch; i++)
        lks__network_labels(network)[i] = (int32_t)((seed + 7u * (uint32_t)i) %
                                                    (uint32_t)lks__network_n_classes(network));
}

#endif
