/* SPDX-License-Identifier: Apache-2.0 */
/** The inside of a graph: nodes in the order of building, so every node reads an earlier one. */
#ifndef LKS_NN_GRAPH_NODES_H
#define LKS_NN_GRAPH_NODES_H

#include "nn/op.h"

struct lks_graph {
    lks__node *nodes; /* [n_nodes]; a value is the index of the node that makes it */
    int n_nodes;
    int capacity;
    lks_status status; /* of the first mistake */
    char message[512]; /* its text */
};

#endif
