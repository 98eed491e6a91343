/* SPDX-License-Identifier: Apache-2.0 */
/** Operations: one file and one row each. A graph knows rows by pointer; a network calls what they say. */
#ifndef LKS_NN_OP_H
#define LKS_NN_OP_H

#include "base/text.h"
#include "nn/network.h"
#include "nn/onednn/dnn.h"

enum { LKS__VALUE_DIMS = 4, LKS__OP_PARAMS = 2 };

typedef struct lks__op lks__op;

/** One operation of a graph, and the value that it makes. Plain data: copied by assignment. */
typedef struct lks__node {
    const lks__op *op;
    lks_value x;                       /* the value that it reads; LKS_VALUE_NONE: none */
    char name[LKS__PARAM_NAME_BYTES];  /* of its parameters; "": it has none */
    int n_dims;                        /* of its value, per sample */
    int64_t shape[LKS__VALUE_DIMS];    /* same */
    int64_t n_elems;                   /* product of shape */
    int n_params;                      /* set by infer, as the next */
    lks__param params[LKS__OP_PARAMS]; /* name, shape, n_elems, fan_in; compiling decides their places */
    union {
        struct {
            int64_t out_features;
            bool bias;
        } linear;
        struct {
            uint32_t ordinal;   /* which dropout of the graph, from 0 */
            uint32_t threshold; /* p x 2^16 */
        } dropout;
    };
} lks__node;

/** The phases of a step. Each runs at most one library primitive per node. */
typedef enum lks__phase {
    LKS__FORWARD,         /* x, parameters -> y */
    LKS__BACKWARD_PARAMS, /* x, dy -> gradients of the parameters */
    LKS__BACKWARD_DATA,   /* dy, parameters, y -> dx */
    LKS__PHASES
} lks__phase;

enum { LKS__KERNEL_NAME_BYTES = LKS__PARAM_NAME_BYTES + 24 };

/** A node compiled for one batch size. */
typedef struct lks__unit {
    const lks__node *node;
    int64_t batch;
    int64_t n_inputs;                        /* elements of x per sample */
    const lks__param *params;                /* [node->n_params], with their places in the arenas */
    lks__layout **layouts;                   /* [node->n_params]; NULL: not decided, or plain */
    lks__primitive *primitives[LKS__PHASES]; /* owned; NULL: this phase is no library primitive */
    char kernel_names[LKS__PHASES][LKS__KERNEL_NAME_BYTES]; /* "0 forward" */
    bool wants_dx;                                          /* something below x has parameters */
    const float *x;                                         /* [batch, n_inputs] */
    float *y;                                               /* [batch, node->n_elems]; NULL for the loss */
    float *dx;                                              /* as x; NULL unless wants_dx */
    float *dy;     /* as y; NULL if nothing from here down has parameters */
    uint8_t *kept; /* [batch, node->n_elems], from forward to backward; NULL unless the op keeps_mask */
} lks__unit;

/** What one run of a step works with. */
typedef struct lks__run {
    lks__dnn *dnn;
    const float *params;   /* arena */
    float *grads;          /* arena; backward only */
    const lks__draw *draw; /* of this forward, or of the one before this backward; NULL: an evaluation */
    const int32_t *labels; /* [batch]; forward only */
    lks__loss *loss;       /* forward only: the loss adds to it */
} lks__run;

struct lks__op {
    const char *name;
    bool in_place;     /* y may be x and dx may be dy; backward reads y and the mask alone */
    bool keeps_output; /* nobody may write over y: backward, or the caller, reads it */
    bool keeps_mask;   /* forward writes a byte per element for backward */
    bool ends_graph;   /* its value is the loss; nothing reads it */

    /* Sets shape, n_elems and params of `node` from what it reads. Returns: LKS_OK; LKS_E_ARG. */
    lks_status (*infer)(lks__node *node, const lks__node *x);

    /* Adds what the node computes with to the fingerprint, besides shape and parameters. NULL: nothing. */
    void (*describe)(const lks__node *node, lks__text *text);

    /* Makes the unit's primitives; decides layouts that are NULL, takes the others. NULL: none to make. */
    lks_status (*compile)(lks__dnn *dnn, lks__unit *unit);

    /* One function per phase; NULL: nothing to do. */
    lks_status (*run[LKS__PHASES])(const lks__run *run, const lks__unit *unit);

    /* Multiplications and additions of one phase's primitive. NULL: the op has no primitives. */
    int64_t (*flops)(const lks__unit *unit);
};

extern const lks__op lks__op_input, lks__op_linear, lks__op_relu, lks__op_dropout,
    lks__op_softmax_cross_entropy;

#endif
