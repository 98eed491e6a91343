/* SPDX-License-Identifier: Apache-2.0 */
/** Products of a batch and a weight matrix, the three ways that training needs.
 *
 * x, dx: [batch, in] plain; y, dy: [batch, out] plain; w, dw: [out, in] in the weights' layout; b, db: [out]
 * plain. All three use one layout of the weights, so gradients and parameters lie alike.
 */
#ifndef LKS_NN_ONEDNN_INNER_PRODUCT_H
#define LKS_NN_ONEDNN_INNER_PRODUCT_H

#include <stdbool.h>

#include "nn/onednn/dnn.h"

typedef struct lks__inner_product {
    int64_t batch, in, out;
    bool bias;
} lks__inner_product;

/** y = x w^T + b; operands x, w, y, b (without bias x, w, y). weights: in: the layout to use, or NULL: the
 * library's choice for this batch size, which becomes the caller's. */
lks_status lks__inner_product_forward(lks__dnn *dnn, const lks__inner_product *shape, lks__layout **weights,
                                      lks__primitive **out) LKS_MUST_USE;

/** dw = dy^T x, db = sum of dy; operands x, dy, dw, db (without bias x, dy, dw). forward: of the same shape.
 */
lks_status lks__inner_product_backward_params(lks__dnn *dnn, const lks__inner_product *shape,
                                              const lks__layout *weights, const lks__primitive *forward,
                                              lks__primitive **out) LKS_MUST_USE;

/** dx = dy w; operands dy, w, dx. */
lks_status lks__inner_product_backward_data(lks__dnn *dnn, const lks__inner_product *shape,
                                            const lks__layout *weights, const lks__primitive *forward,
                                            lks__primitive **out) LKS_MUST_USE;

#endif
