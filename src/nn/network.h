/* SPDX-License-Identifier: Apache-2.0 */
/** A graph compiled for fixed batch sizes: primitives made, layouts chosen, memory planned. Runs without
 * allocating.
 *
 * Parameters live in one arena in the layout that the kernels want; gradients and optimizer state use the
 * same offsets and layouts, so whatever works element by element need not care. A network owns activations
 * and workspaces, never parameters or gradients: those are arguments, because the shared-memory arenas belong
 * to others. An arena starts on a cache line (64 bytes); its padding is zero and stays so.
 *
 * Thread: one at a time per network; any number of networks side by side. OpenMP's number of threads is the
 * network's while it runs, and the caller's again afterwards.
 */
#ifndef LKS_NN_NETWORK_H
#define LKS_NN_NETWORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lockstep/graph.h>
#include <lockstep/status.h>

enum { LKS__PARAM_DIMS = 4, LKS__PARAM_NAME_BYTES = 96 };

/** One parameter tensor. */
typedef struct lks__param {
    char name[LKS__PARAM_NAME_BYTES]; /* PyTorch's name, "0.weight" */
    int n_dims;
    int64_t shape[LKS__PARAM_DIMS]; /* plain, PyTorch's: linear weight [out, in] */
    int64_t n_elems;                /* product of shape */
    int64_t offset_elems;           /* start in the arena; a multiple of 16 (one cache line) */
    int64_t arena_elems; /* elements that it takes there: n_elems and the layout's padding (always zero) */
    int64_t fan_in;      /* of the layer it belongs to, for initialisation */
} lks__param;

typedef struct lks__network lks__network;

typedef struct lks__network_config {
    const lks_graph *graph; /* copied: may be destroyed after create */
    int n_batches;          /* batch sizes to compile for: >= 1 */
    const int64_t *batches; /* each >= 1; the first decides the parameters' layouts */
    int threads;            /* compute threads; 1 */
    bool sizes_only;        /* for plans: what there is can be asked, but nothing run; takes little time and
                               memory */
} lks__network_config;

/** Returns: LKS_OK; LKS_E_ARG (graph or sizes); LKS_E_NOMEM; LKS_E_KERNEL. */
lks_status lks__network_create(const lks__network_config *config, lks__network **out) LKS_MUST_USE;
void lks__network_destroy(lks__network *network);

int lks__network_n_params(const lks__network *network);
const lks__param *lks__network_param(const lks__network *network, int index); /* borrowed */
int64_t lks__network_arena_elems(const lks__network *network);
int64_t lks__network_activation_bytes(const lks__network *network); /* input, labels and scratch included */
int64_t lks__network_largest_param_elems(const lks__network *network); /* room for any one in plain layout */
int64_t lks__network_n_features(const lks__network *network);          /* per sample */
int64_t lks__network_n_classes(const lks__network *network);

/** Sets all parameters as torch.nn.Linear does: weight and bias uniform in +-1/sqrt(fan_in). Philox, keyed by
 * seed, parameter and element of the plain layout, so the values do not depend on layouts. Padding is set to
 * zero. */
lks_status lks__network_init_params(const lks__network *network, int64_t seed, float *params) LKS_MUST_USE;

/** Converts one tensor between an arena (parameters, gradients or optimizer state) and its plain layout
 * [n_elems]. export may write zeros over the tensor's padding, so the arena must be writable. */
lks_status lks__network_export(const lks__network *network, int index, const float *arena,
                               float *plain) LKS_MUST_USE;
lks_status lks__network_import(const lks__network *network, int index, const float *plain,
                               float *arena) LKS_MUST_USE;

/** Where a batch's samples go before forward: x: [batch, n_features] f32; labels: [batch]. Owned by the
 * network; the same memory for every batch size. */
float *lks__network_input(lks__network *network);
int32_t *lks__network_labels(lks__network *network);

/** Sums over a batch, not means. */
typedef struct lks__loss {
    double loss_sum;
    int64_t n_correct; /* argmax(logits) == label; the first of equal ones */
} lks__loss;

/** What the random numbers of a forward depend on, whichever process runs it. */
typedef struct lks__draw {
    int64_t seed;
    int64_t step; /* of the run, 0-based */
    int64_t leaf; /* of the step, 0-based */
} lks__draw;

/** Runs forward on the batch in lks__network_input. batch: one of the compiled sizes. draw: NULL for an
 * evaluation, in which nothing is random. Returns: LKS_OK; LKS_E_ARG (size, or a label >= n_classes);
 * LKS_E_KERNEL. */
lks_status lks__network_forward(lks__network *network, int64_t batch, const float *params,
                                const lks__draw *draw, lks__loss *out) LKS_MUST_USE;

/** Called when a parameter's gradient is final. Backward may still read the parameter. */
typedef void lks__grad_ready_fn(void *context, int param_index);

/** Gradients of the *sum* of the batch's losses, written (not added) to the arena `grads`. Runs after forward
 * with the same batch and params, and drops what it dropped. The first layer's input gradient is not
 * computed. ready: may be NULL; it is called with descending indices. Returns: LKS_OK; LKS_E_ARG (no forward
 * of this size before); LKS_E_KERNEL.
 */
lks_status lks__network_backward(lks__network *network, int64_t batch, const float *params, float *grads,
                                 lks__grad_ready_fn *ready, void *ready_context) LKS_MUST_USE;

enum { LKS__VALUE_NAME_BYTES = LKS__PARAM_NAME_BYTES + 48 };

/** Runs forward as lks__network_forward does, to find out where it goes wrong: *out is the first value that
 * is not finite, in words ("the output of linear \"2\""), or empty. Returns: as lks__network_forward. */
lks_status lks__network_find_not_finite(lks__network *network, int64_t batch, const float *params,
                                        const lks__draw *draw, char out[LKS__VALUE_NAME_BYTES]) LKS_MUST_USE;

/** The last forward's logits in plain layout, [batch, n_classes]. Owned by the network. For tests and
 * predictions. */
const float *lks__network_logits(const lks__network *network);

/** Floating-point operations of forward and backward on one batch (multiply and add count as two). */
int64_t lks__network_flops(const lks__network *network, int64_t batch);

/** One compiled kernel call, for benchmarks. */
typedef struct lks__kernel {
    const char *name;   /* "0 forward", "0 backward weights", "2 backward data", ... */
    const char *detail; /* the library's implementation, "brgemm:avx512_core" */
    int64_t flops;
} lks__kernel;

/** The calls of a step in order, and running one of them alone (on whatever the buffers hold). */
int lks__network_n_kernels(const lks__network *network, int64_t batch);
lks_status lks__network_kernel(const lks__network *network, int64_t batch, int index,
                               lks__kernel *out) LKS_MUST_USE;
lks_status lks__network_run_kernel(lks__network *network, int64_t batch, int index, const float *params,
                                   float *grads) LKS_MUST_USE;

/** The kernel library, its version and the instruction set that it uses, "oneDNN 2.6.3 ...". */
void lks__network_library(size_t bytes, char *out);

/** A hash over kernel library version, instruction set, implementations and layouts: equal on two members
 * exactly when their networks compute the same bits. */
uint64_t lks__network_fingerprint(const lks__network *network);

#endif
