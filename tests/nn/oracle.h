/* SPDX-License-Identifier: Apache-2.0 */
/** A chain of linear layers and ReLUs with softmax cross-entropy, in double precision and by definition.
 * Shares nothing with src/: it is what the networks are compared with, and finite differences are what it is
 * compared with. */
#ifndef LKS_TESTS_NN_ORACLE_H
#define LKS_TESTS_NN_ORACLE_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ORACLE_LAYERS = 4 };

typedef struct oracle_layer {
    int64_t in, out;
    int bias, relu;
    double *w, *b;   /* [out, in], [out] */
    double *dw, *db; /* same */
    double *factors; /* [batch, out], each >= 0: what dropout multiplies y with; NULL: nothing */
} oracle_layer;

typedef struct oracle {
    int n_layers;
    double *factors; /* [batch, features]: of dropout on the input; NULL: none */
    oracle_layer layers[ORACLE_LAYERS];
} oracle;

static inline double *oracle_zeros(int64_t n)
{
    double *p = calloc((size_t)n + 1, sizeof *p);
    if (p == NULL)
        abort();
    return p;
}

static inline void oracle_add(oracle *o, int64_t in, int64_t out, int bias, int relu)
{
    o->layers[o->n_layers++] = (oracle_layer){.in = in,
                                              .out = out,
                                              .bias = bias,
                                              .relu = relu,
                                              .w = oracle_zeros(in * out),
                                              .b = oracle_zeros(out),
                                              .dw = oracle_zeros(in * out),
                                              .db = oracle_zeros(out)};
}

static inline void oracle_free(oracle *o)
{
    for (int l = 0; l < o->n_layers; l++) {
        free(o->layers[l].w);
        free(o->layers[l].b);
        free(o->layers[l].dw);
        free(o->layers[l].db);
        free(o->layers[l].factors);
    }
    free(o->factors);
}

/* y: [out] = relu?(W x + b), times the factors of sample s */
static inline void oracle_layer_forward(const oracle_layer *layer, int64_t s, const double *x, double *y)
{
    for (int64_t o = 0; o < layer->out; o++) {
        double sum = layer->bias ? layer->b[o] : 0.0;
        for (int64_t i = 0; i < layer->in; i++)
            sum += layer->w[o * layer->in + i] * x[i];
        y[o] = layer->relu && sum < 0.0 ? 0.0 : sum;
        if (layer->factors != NULL)
            y[o] *= layer->factors[s * layer->out + o];
    }
}

/* -log softmax(z)[label], and its gradient in dz (may be NULL). */
static inline double oracle_cross_entropy(int64_t n, const double *z, int label, double *dz)
{
    double largest = z[0], sum = 0.0;
    for (int64_t j = 1; j < n; j++)
        largest = fmax(largest, z[j]);
    for (int64_t j = 0; j < n; j++)
        sum += exp(z[j] - largest);
    for (int64_t j = 0; dz != NULL && j < n; j++)
        dz[j] = exp(z[j] - largest) / sum - (j == label ? 1.0 : 0.0);
    return log(sum) + largest - z[label];
}

/* dy: [out] is multiplied by the factors and changed where the ReLU was off; dx: [in]; adds to dw and db. */
static inline void oracle_layer_backward(oracle_layer *layer, int64_t s, const double *x, const double *y,
                                         double *dy, double *dx)
{
    memset(dx, 0, (size_t)layer->in * sizeof *dx);
    for (int64_t o = 0; o < layer->out; o++) {
        if (layer->factors != NULL)
            dy[o] *= layer->factors[s * layer->out + o];
        if (layer->relu && y[o] <= 0.0)
            dy[o] = 0.0;
        layer->db[o] += dy[o];
        for (int64_t i = 0; i < layer->in; i++) {
            layer->dw[o * layer->in + i] += dy[o] * x[i];
            dx[i] += dy[o] * layer->w[o * layer->in + i];
        }
    }
}

/* Sum of losses over x: [batch, in]; with `backward` sets all dw and db. logits: [batch, classes] or NULL. */
static inline double oracle_run(oracle *o, int64_t batch, const float *x, const int32_t *labels, int backward,
                                double *logits)
{
    double loss = 0.0, *values[ORACLE_LAYERS + 1], *grads[ORACLE_LAYERS + 1];
    int n = o->n_layers;
    int64_t classes = o->layers[n - 1].out, features = o->layers[0].in;
    for (int l = 0; l <= n; l++) {
        int64_t size = l == 0 ? features : o->layers[l - 1].out;
        values[l] = oracle_zeros(size);
        grads[l] = oracle_zeros(size);
    }
    for (int l = 0; backward && l < n; l++) {
        memset(o->layers[l].dw, 0, (size_t)(o->layers[l].in * o->layers[l].out) * sizeof(double));
        memset(o->layers[l].db, 0, (size_t)o->layers[l].out * sizeof(double));
    }
    for (int64_t s = 0; s < batch; s++) {
        for (int64_t i = 0; i < features; i++)
            values[0][i] = (double)x[s * features + i] *
                           (o->factors != NULL ? o->factors[s * features + i] : 1.0);
        for (int l = 0; l < n; l++)
            oracle_layer_forward(&o->layers[l], s, values[l], values[l + 1]);
        loss += oracle_cross_entropy(classes, values[n], labels[s], backward ? grads[n] : NULL);
        if (logits != NULL)
            memcpy(logits + s * classes, values[n], (size_t)classes * sizeof *logits);
        for (int l = n - 1; backward && l >= 0; l--)
            oracle_layer_backward(&o->layers[l], s, values[l], values[l + 1], grads[l + 1], grads[l]);
    }
    for (int l = 0; l <= n; l++) {
        free(values[l]);
        free(grads[l]);
    }
    return loss;
}

#endif
