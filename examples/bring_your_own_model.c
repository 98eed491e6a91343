/* SPDX-License-Identifier: Apache-2.0 */
/* A network with forward and backward written by hand, on the handwritten digits in data/digits, made
 * data-parallel: lines that end in a comment with a plus were added. Without them it is the serial program.
 *
 *     lockstep run -n 4 build/examples/bring_your_own_model [FOLDER]
 *
 * docs/bring-your-own-model.md explains each added line.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lockstep/lockstep.h> /* + */

enum { N_PIXELS = 64, N_HIDDEN = 32, N_CLASSES = 10, MOST_SAMPLES = 2000, BATCH = 64, EPOCHS = 20 };

static const float rate = 0.4f;

/* ---- samples ---- */

typedef struct samples {
    int n;
    float x[MOST_SAMPLES][N_PIXELS]; /* 0 .. 1 */
    int labels[MOST_SAMPLES];
} samples;

static samples training, test;

/* An IDX file behind its header: one byte per value. Returns how many values there are. */
static size_t read_bytes(const char *folder, const char *name, size_t header, size_t most, unsigned char *out)
{
    char path[1000];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, (long)header, SEEK_SET) != 0) {
        fprintf(stderr, "bring_your_own_model: cannot read %s\n", path);
        exit(2);
    }
    size_t n = fread(out, 1, most, file);
    fclose(file);
    return n;
}

static void read_samples(const char *folder, const char *images, const char *labels, samples *out)
{
    static unsigned char pixels[MOST_SAMPLES * N_PIXELS], classes[MOST_SAMPLES];
    size_t n_pixels = read_bytes(folder, images, 16, sizeof pixels, pixels);
    size_t n = read_bytes(folder, labels, 8, sizeof classes, classes);
    if (n == 0 || n_pixels != n * N_PIXELS) {
        fprintf(stderr, "bring_your_own_model: %zu pixels for %zu labels in %s\n", n_pixels, n, folder);
        exit(2);
    }
    out->n = (int)n;
    for (size_t i = 0; i < n; i++) {
        out->labels[i] = classes[i] % N_CLASSES;
        for (int j = 0; j < N_PIXELS; j++)
            out->x[i][j] = (float)pixels[i * N_PIXELS + (size_t)j] / 16.0f;
    }
}

/* ---- the network: x -> h = relu(w1 x + b1) -> p = softmax(w2 h + b2) ---- */

static float w1[N_HIDDEN][N_PIXELS], b1[N_HIDDEN], w2[N_CLASSES][N_HIDDEN], b2[N_CLASSES];
static float dw1[N_HIDDEN][N_PIXELS], db1[N_HIDDEN], dw2[N_CLASSES][N_HIDDEN], db2[N_CLASSES];

static lks_group *group; /* + */
static lks_ddp *ddp;     /* + */

static void check(lks_status status)                                        /* + */
{                                                                           /* + */
    if (status != LKS_OK) {                                                 /* + */
        fprintf(stderr, "bring_your_own_model: %s\n", lks_error_message()); /* + */
        exit(lks_status_exit_code(status));                                 /* + */
    }                                                                       /* + */
} /* + */

/* A batch and what the passes leave. */
static float x[BATCH][N_PIXELS], h[BATCH][N_HIDDEN], p[BATCH][N_CLASSES];
static int label[BATCH];

/* Returns the summed loss of n samples; p: probabilities. */
static double forward(int n)
{
    double loss = 0;
    for (int s = 0; s < n; s++) {
        for (int j = 0; j < N_HIDDEN; j++) {
            float sum = b1[j];
            for (int i = 0; i < N_PIXELS; i++)
                sum += w1[j][i] * x[s][i];
            h[s][j] = sum > 0 ? sum : 0;
        }
        float total = 0;
        for (int k = 0; k < N_CLASSES; k++) {
            float sum = b2[k];
            for (int j = 0; j < N_HIDDEN; j++)
                sum += w2[k][j] * h[s][j];
            p[s][k] = expf(sum);
            total += p[s][k];
        }
        for (int k = 0; k < N_CLASSES; k++)
            p[s][k] /= total;
        loss -= log((double)p[s][label[s]]);
    }
    return loss;
}

/* Adds the gradients of the summed loss of n samples to dw1, db1, dw2, db2. */
static void backward(int n)
{
    for (int s = 0; s < n; s++)
        for (int k = 0; k < N_CLASSES; k++) {
            float dz = p[s][k] - (k == label[s] ? 1.0f : 0.0f);
            db2[k] += dz;
            for (int j = 0; j < N_HIDDEN; j++)
                dw2[k][j] += dz * h[s][j];
        }
    check(lks_ddp_grad_ready(ddp, 3)); /* + */
    check(lks_ddp_grad_ready(ddp, 2)); /* + */
    for (int s = 0; s < n; s++)
        for (int j = 0; j < N_HIDDEN; j++) {
            float dh = 0;
            for (int k = 0; k < N_CLASSES; k++)
                dh += (p[s][k] - (k == label[s] ? 1.0f : 0.0f)) * w2[k][j];
            if (h[s][j] <= 0)
                continue;
            db1[j] += dh;
            for (int i = 0; i < N_PIXELS; i++)
                dw1[j][i] += dh * x[s][i];
        }
    check(lks_ddp_grad_ready(ddp, 1)); /* + */
    check(lks_ddp_grad_ready(ddp, 0)); /* + */
}

static void update(float *param, float *grad, int n_elems, float divisor)
{
    for (int i = 0; i < n_elems; i++)
        param[i] -= rate * (grad[i] / divisor);
    memset(grad, 0, (size_t)n_elems * sizeof *grad);
}

/* ---- training ---- */

/* One step on samples first .. end - 1. Returns the summed loss. */
static double step(int first, int end)
{
    int n = 0;
    for (int i = first; i < end; i++) {
        if (i % lks_group_size(group) != lks_group_rank(group)) /* + */
            continue;                                           /* + */
        memcpy(x[n], training.x[i], sizeof x[n]);
        label[n++] = training.labels[i];
    }
    double loss = forward(n);
    backward(n);
    float divisor = (float)n;
    check(lks_ddp_wait(ddp, n)); /* + */
    divisor = 1;                 /* + */
    update(&w1[0][0], &dw1[0][0], N_HIDDEN * N_PIXELS, divisor);
    update(b1, db1, N_HIDDEN, divisor);
    update(&w2[0][0], &dw2[0][0], N_CLASSES * N_HIDDEN, divisor);
    update(b2, db2, N_CLASSES, divisor);
    return loss;
}

/* Uniform in -1 .. 1 / sqrt(columns). */
static void fill(float *param, int rows, int columns)
{
    static unsigned state = 1;
    for (int i = 0; i < rows * columns; i++) {
        state = state * 1664525u + 1013904223u;
        param[i] = ((float)(state >> 8) * 0x1p-23f - 1.0f) / sqrtf((float)columns);
    }
}

/* Finds the other processes, and puts the four tensors under lockstep's care. */    /* + */
static void become_parallel(void)                                                    /* + */
{                                                                                    /* + */
    lks_group_config where;                                                          /* + */
    check(lks_group_config_from_env(&where));                                        /* + */
    check(lks_group_create(&where, &group));                                         /* + */
    lks_ddp_tensor tensors[] = {{"w1", N_HIDDEN * N_PIXELS, &w1[0][0], &dw1[0][0]},  /* + */
                                {"b1", N_HIDDEN, b1, db1},                           /* + */
                                {"w2", N_CLASSES * N_HIDDEN, &w2[0][0], &dw2[0][0]}, /* + */
                                {"b2", N_CLASSES, b2, db2}};                         /* + */
    lks_ddp_config config = lks_ddp_config_default();                                /* + */
    config.group = group;                                                            /* + */
    config.n_tensors = 4;                                                            /* + */
    config.tensors = tensors;                                                        /* + */
    check(lks_ddp_create(&config, &ddp));                                            /* + */
} /* + */

/* The share of test samples whose class gets the largest probability. */
static double accuracy(void)
{
    int hits = 0;
    for (int s = 0; s < test.n; s++) {
        memcpy(x[0], test.x[s], sizeof x[0]);
        label[0] = test.labels[s];
        forward(1);
        int best = 0;
        for (int k = 1; k < N_CLASSES; k++)
            best = p[0][k] > p[0][best] ? k : best;
        hits += best == label[0];
    }
    return (double)hits / test.n;
}

/* A number that changes when any parameter does. */
static double sum_of_squares(const float *param, int n_elems)
{
    double sum = 0;
    for (int i = 0; i < n_elems; i++)
        sum += (double)param[i] * (double)param[i];
    return sum;
}

int main(int argc, char **argv)
{
    const char *folder = argc > 1 ? argv[1] : "data/digits";
    read_samples(folder, "train-images-idx3-ubyte", "train-labels-idx1-ubyte", &training);
    read_samples(folder, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", &test);
    fill(&w1[0][0], N_HIDDEN, N_PIXELS);
    fill(&w2[0][0], N_CLASSES, N_HIDDEN);
    become_parallel(); /* + */

    double loss = 0;
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        loss = 0;
        for (int first = 0; first < training.n; first += BATCH)
            loss += step(first, first + BATCH < training.n ? first + BATCH : training.n);
    }
    check(lks_group_all_reduce(group, &loss, 1, LKS_F64, LKS_SUM)); /* + */
    if (lks_group_rank(group) == 0)                                 /* + */
        printf("train loss %.5f  test accuracy %.2f %%  sum of squared weights %.4f\n", loss / training.n,
               100 * accuracy(),
               sum_of_squares(&w1[0][0], N_HIDDEN * N_PIXELS) +
                   sum_of_squares(&w2[0][0], N_CLASSES * N_HIDDEN));
    lks_ddp_destroy(ddp);     /* + */
    lks_group_destroy(group); /* + */
    return 0;
}
