/* SPDX-License-Identifier: Apache-2.0 */
/** A model as a static graph: operations, shapes, parameter names. A description only; training compiles it.
 *
 * Building never needs a check after each call: the first mistake is kept, later calls return LKS_VALUE_NONE,
 * and lks_graph_check() reports it. Shapes are per sample; the batch dimension is added when the graph is
 * compiled.
 */
#ifndef LOCKSTEP_GRAPH_H
#define LOCKSTEP_GRAPH_H

#include <stdbool.h>
#include <stdint.h>

#include <lockstep/export.h>
#include <lockstep/status.h>

LKS_BEGIN_DECLS

typedef struct lks_graph lks_graph;

/** A value (tensor) of one graph. */
typedef int lks_value;
#define LKS_VALUE_NONE (-1)

LKS_API lks_status lks_graph_create(lks_graph **out) LKS_MUST_USE;
LKS_API void lks_graph_destroy(lks_graph *graph);

/** The samples. One per graph. Shape {28, 28}, {784}, ... */
LKS_API lks_value lks_graph_input(lks_graph *graph, int n_dims, const int64_t *shape);

/** y = x W^T + bias, as torch.nn.Linear. Parameters "<name>.weight" [out_features, in_features] and, with
 * bias,
 *  "<name>.bias" [out_features]. x: any shape, flattened to in_features. y: {out_features}. */
LKS_API lks_value lks_graph_linear(lks_graph *graph, const char *name, lks_value x, int64_t out_features,
                                   bool bias);

/** y = max(x, 0). */
LKS_API lks_value lks_graph_relu(lks_graph *graph, lks_value x);

/** As torch.nn.Dropout. Training: an element is 0 with probability p and x / (1 - p) else, independently of
 * all others; which ones are dropped depends on the run's seed, step, leaf and sample in it, never on the
 * number of processes. Evaluation: y = x. 0 <= p < 1, rounded to a multiple of 2^-16 (never to 0 or 1). */
LKS_API lks_value lks_graph_dropout(lks_graph *graph, lks_value x, double p);

/** The loss, and the end of a graph: -log softmax(logits)[label]. logits: {n_classes}. */
LKS_API lks_value lks_graph_softmax_cross_entropy(lks_graph *graph, lks_value logits);

/** Says whether the graph can be compiled. Returns: LKS_OK; LKS_E_ARG with the first mistake; LKS_E_NOMEM. */
LKS_API lks_status lks_graph_check(const lks_graph *graph) LKS_MUST_USE;

/** input -> (linear -> ReLU -> dropout) for each hidden size -> linear -> softmax cross-entropy. dropout: p,
 * 0 for none. Parameters are named as those of torch.nn.Sequential(Linear, ReLU, ..., Linear): "0.weight",
 * "0.bias", "2.weight", ...; and with dropout as those of Sequential(Linear, ReLU, Dropout, ..., Linear):
 * "0.weight", "0.bias", "3.weight", ... */
LKS_API lks_status lks_graph_create_mlp(int64_t n_features, int n_hidden, const int64_t *hidden,
                                        double dropout, int64_t n_classes, lks_graph **out) LKS_MUST_USE;

LKS_END_DECLS

#endif
