/* SPDX-License-Identifier: Apache-2.0 */
/** The inside of a network; compile.c makes it, network.c runs it, params.c fills and reads parameters. */
#ifndef LKS_NN_NETWORK_PARTS_H
#define LKS_NN_NETWORK_PARTS_H

#include "nn/op.h"

struct lks__network {
    int threads;
    int n_nodes, n_params, n_batches;
    int64_t max_batch;
    int64_t forwarded; /* batch size of the last forward that succeeded; 0: none */
    lks__draw draw;    /* of that forward */
    bool drew;         /* it had one */
    int64_t arena_elems;
    int64_t activation_bytes;
    bool sizes_only;
    uint64_t fingerprint;

    lks__node *nodes;      /* [n_nodes], a copy of the graph's */
    bool *trains;          /* [n_nodes]: the node has parameters, or reads a value that depends on some */
    lks__param *params;    /* [n_params] in the order of nodes */
    lks__layout **layouts; /* [n_params]; NULL: plain */
    lks__unit *units;      /* [n_batches][n_nodes] */
    float *activations;    /* values and their gradients: one plan, sized for the largest batch */
    int32_t *labels;       /* [max_batch] */
    lks__dnn *dnn;
};

static inline lks__unit *lks__network_units(const lks__network *network, int batch_index)
{
    return network->units + (int64_t)batch_index * network->n_nodes;
}

/** Sets the calling thread's number of OpenMP threads to the network's. Returns the one before, for
 * lks__network_leave: a network leaves its caller's OpenMP as it was. */
int lks__network_enter(const lks__network *network);
void lks__network_leave(int threads_before);

#endif
