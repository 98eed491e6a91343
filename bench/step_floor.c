/* SPDX-License-Identifier: Apache-2.0 */
/* How far a training step is from the floor that the processor sets, and what a second process costs.
 *
 *     build-dev/bench/bench_step_floor [ROUNDS]
 *
 * The step: MLP 784-512-256-10, local batch 64, SGD with momentum, f32, one thread per process, on random
 * samples of MNIST's size. The floor: the measured times of its kernels, each alone, plus the bytes of the
 * optimizer over the memory bandwidth. The plain floor: floating-point operations over the best measured
 * matrix rate. Everything is measured in turns in one run; figures are medians over the rounds. Each
 * measurement runs in processes of its own.
 */
#define _GNU_SOURCE /* memfd_create, MAP_ANONYMOUS */

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/machine.h"
#include "base/random.h"
#include "base/text.h"
#include "train/trainer.h"

enum {
    N_SAMPLES = 60000,
    N_FEATURES = 784,
    N_CLASSES = 10,
    BATCH = 64,
    WARM_STEPS = 30,
    TIMED_STEPS = 400,
    KERNEL_RUNS = 200,
    MAX_KERNELS = 32,
    MAX_ROUNDS = 99,
    STREAM_FLOATS = 16 << 20, /* 64 MiB an array: more than the last cache holds */
};

/* What measuring processes tell the one that prints; shared anonymous memory. */
typedef struct board {
    _Atomic int ready;      /* members that are warm */
    double step_seconds[2]; /* mean over TIMED_STEPS, per member */
    double kernel_seconds[MAX_KERNELS];
    lks__kernel kernels[MAX_KERNELS];
    char names[MAX_KERNELS][2][64];
    int n_kernels;
    double optimizer_seconds; /* of one update of the model's own size, which the caches may hold */
    double bandwidth;         /* bytes per second */
    double best_flops;        /* per second */
    int64_t flops, optimizer_bytes;
    lks_train_times times; /* of member 0, over the timed steps */
} board;

static board *results;

static void must(lks_status status)
{
    if (status == LKS_OK)
        return;
    fprintf(stderr, "step_floor: %s\n", lks_error_message());
    _exit(1);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, by_value);
    return n % 2 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

/* The parts of a trainer on random samples. */
typedef struct bench {
    unsigned char *pixels;
    int32_t *labels;
    lks_dataset *samples;
    lks_graph *graph;
    lks_plan plan;
    lks_group *group;
    lks_trainer *trainer;
} bench;

static void bench_init(bench *b, int rank, int size, int fd)
{
    size_t n_pixels = (size_t)N_SAMPLES * N_FEATURES;
    b->pixels = malloc(n_pixels);
    b->labels = calloc(N_SAMPLES, sizeof *b->labels);
    lks__mt19937 random;
    lks__mt19937_init(&random, 1);
    for (size_t i = 0; i < n_pixels; i++)
        b->pixels[i] = (unsigned char)(lks__mt19937_next(&random) >> 24);
    for (int i = 0; i < N_SAMPLES; i++)
        b->labels[i] = (int32_t)(lks__mt19937_next(&random) % N_CLASSES);
    int64_t shape[] = {28, 28}, hidden[] = {512, 256};
    must(lks_dataset_from_arrays(N_SAMPLES, 2, shape, LKS_U8, b->pixels, b->labels, &b->samples));
    must(lks_dataset_set_normalize(b->samples, &(lks_normalize){.mean = 0.5, .std = 0.29}));
    must(lks_graph_create_mlp(N_FEATURES, 2, hidden, 0, N_CLASSES, &b->graph));

    lks_plan_config wanted = lks_plan_config_default();
    wanted.n_samples = N_SAMPLES;
    wanted.processes = size;
    wanted.local_batch = BATCH;
    wanted.base_lr = 0.001;
    must(lks_plan_create(&wanted, &b->plan));

    lks_group_config where = lks_group_config_default();
    where.rank = rank;
    where.size = size;
    where.fd = fd;
    must(lks_group_create(&where, &b->group));

    lks_trainer_config config = lks_trainer_config_default();
    config.group = b->group;
    config.plan = &b->plan;
    config.graph = b->graph;
    config.train_set = b->samples;
    config.optimizer.momentum = 0.9;
    must(lks_trainer_create(&config, &b->trainer));
}

static void run_steps(bench *b, int64_t first, int64_t n)
{
    for (int64_t i = first; i < first + n; i++) {
        lks__position position = {.step = i,
                                  .epoch = i / b->plan.steps_per_epoch,
                                  .step_in_epoch = i % b->plan.steps_per_epoch,
                                  .samples = i * b->plan.global_batch};
        lks__step_result step;
        must(lks__train_step(b->trainer, &position, false, &step));
    }
}

/* Trains and writes the time of a step; `neighbours` processes start their timed steps together. */
static void measure_steps(int rank, int size, int fd, int member, int neighbours)
{
    bench b;
    bench_init(&b, rank, size, fd);
    run_steps(&b, 0, WARM_STEPS);
    b.trainer->times = (lks_train_times){0};
    double warm_s = lks__reducer_get_times(b.trainer->reducer).block;
    atomic_fetch_add(&results->ready, 1);
    while (atomic_load(&results->ready) < neighbours)
        ;
    int64_t start = lks__now_ns();
    run_steps(&b, WARM_STEPS, TIMED_STEPS);
    results->step_seconds[member] = lks__seconds_since(start) / TIMED_STEPS;
    if (member == 0)
        results->times = b.trainer->times;
    results->times.optimizer = lks__reducer_get_times(b.trainer->reducer).block - warm_s;
}

/* Median time of each kernel of the step, alone. */
static void measure_kernels(void)
{
    bench b;
    bench_init(&b, 0, 1, -1);
    run_steps(&b, 0, WARM_STEPS);
    lks__network *network = b.trainer->network;
    float *grads = lks__reducer_leaf(b.trainer->reducer);
    results->n_kernels = lks__network_n_kernels(network, BATCH);
    results->flops = lks__network_flops(network, BATCH);
    /* SGD with momentum reads gradient, parameter and momentum and writes the last two. */
    results->optimizer_bytes = 5 * (int64_t)sizeof(float) * lks__network_arena_elems(network);
    for (int k = 0; k < results->n_kernels && k < MAX_KERNELS; k++) {
        double seconds[KERNEL_RUNS];
        for (int i = 0; i < KERNEL_RUNS; i++) {
            int64_t start = lks__now_ns();
            must(lks__network_run_kernel(network, BATCH, k, b.trainer->params, grads));
            seconds[i] = lks__seconds_since(start);
        }
        results->kernel_seconds[k] = median(seconds, KERNEL_RUNS);
        must(lks__network_kernel(network, BATCH, k, &results->kernels[k]));
        snprintf(results->names[k][0], sizeof results->names[k][0], "%s", results->kernels[k].name);
        snprintf(results->names[k][1], sizeof results->names[k][1], "%s", results->kernels[k].detail);
    }
}

/* The best rate that a large matrix product reaches: 1024 x 1024 on a batch of 1024. */
static void measure_matrix_rate(void)
{
    int64_t batch = 1024, hidden = 1024;
    lks_graph *graph;
    lks__network *network;
    must(lks_graph_create_mlp(1024, 1, &hidden, 0, 1024, &graph));
    lks__network_config config = {.graph = graph, .n_batches = 1, .batches = &batch, .threads = 1};
    must(lks__network_create(&config, &network));
    int64_t elems = lks__network_arena_elems(network);
    float *params = lks__alloc_array(elems, sizeof *params, LKS__MEM_PARAMS);
    float *grads = lks__alloc_array(elems, sizeof *grads, LKS__MEM_GRADS);
    must(lks__network_init_params(network, 0, params));
    for (int k = 0; k < lks__network_n_kernels(network, batch); k++) {
        enum { RUNS = 15 };
        double seconds[RUNS];
        for (int i = 0; i < RUNS; i++) {
            int64_t start = lks__now_ns();
            must(lks__network_run_kernel(network, batch, k, params, grads));
            seconds[i] = lks__seconds_since(start);
        }
        lks__kernel kernel;
        must(lks__network_kernel(network, batch, k, &kernel));
        double rate = (double)kernel.flops / median(seconds, RUNS);
        if (rate > results->best_flops)
            results->best_flops = rate;
    }
}

/* What the optimizer does to memory, a[i] = a[i] + s * b[i] and c likewise, on arrays that no cache holds. */
static void measure_bandwidth(void)
{
    float *a = lks__alloc_array(STREAM_FLOATS, sizeof *a, LKS__MEM_MISC);
    float *g = lks__alloc_array(STREAM_FLOATS, sizeof *g, LKS__MEM_MISC);
    float *w = lks__alloc_array(STREAM_FLOATS, sizeof *w, LKS__MEM_MISC);
    lks_optimizer_config sgd = lks_optimizer_config_default(LKS_SGD);
    sgd.momentum = 0.9;
    lks__optim_step step = lks__optim_step_make(&sgd, 0.01, 1, 1.0);
    float *states[LKS__OPTIM_MAX_STATES] = {a, NULL};
    enum { RUNS = 9 };
    double seconds[RUNS];
    for (int i = 0; i < RUNS; i++) {
        int64_t start = lks__now_ns();
        lks__optim_update(&step, STREAM_FLOATS, g, w, states);
        seconds[i] = lks__seconds_since(start);
    }
    results->bandwidth = 5.0 * sizeof(float) * STREAM_FLOATS / median(seconds, RUNS);
}

/* The same on arrays of the model's size. */
static void measure_optimizer(void)
{
    bench b;
    bench_init(&b, 0, 1, -1);
    const float *grads = lks__reducer_leaf(b.trainer->reducer);
    lks__optim_step step = lks__optim_step_make(&b.trainer->config.optimizer, 0.0, 1, 1.0);
    double seconds[KERNEL_RUNS];
    for (int i = 0; i < KERNEL_RUNS; i++) {
        int64_t start = lks__now_ns();
        lks__optim_update(&step, lks__network_arena_elems(b.trainer->network), grads, b.trainer->params,
                          b.trainer->states);
        seconds[i] = lks__seconds_since(start);
    }
    results->optimizer_seconds = median(seconds, KERNEL_RUNS);
}

static void wait_for(int n)
{
    for (int i = 0; i < n; i++) {
        int status;
        if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            fprintf(stderr, "step_floor: a measuring process failed\n");
            exit(1);
        }
    }
}

static void in_process(void (*measure)(void))
{
    if (fork() == 0) {
        measure();
        _exit(0);
    }
    wait_for(1);
}

/* Seconds of a step when `n` processes run: as one group, or each on its own. */
static double step_seconds(int n, bool connected)
{
    atomic_store(&results->ready, 0);
    int fd = connected && n > 1 ? memfd_create("lockstep-bench", 0) : -1;
    for (int i = 0; i < n; i++)
        if (fork() == 0) {
            if (connected)
                measure_steps(i, n, fd, i, n);
            else
                measure_steps(0, 1, -1, i, n);
            _exit(0);
        }
    if (fd >= 0)
        close(fd);
    wait_for(n);
    return n == 1 ? results->step_seconds[0] : 0.5 * (results->step_seconds[0] + results->step_seconds[1]);
}

static void print_kernels(double kernels_s)
{
    printf("| kernel | implementation | us | GFLOP/s |\n|---|---|---:|---:|\n");
    for (int k = 0; k < results->n_kernels; k++)
        printf("| %s | %s | %.1f | %.1f |\n", results->names[k][0], results->names[k][1],
               1e6 * results->kernel_seconds[k],
               (double)results->kernels[k].flops / results->kernel_seconds[k] * 1e-9);
    printf("| all | | %.1f | %.1f |\n\n", 1e6 * kernels_s, (double)results->flops / kernels_s * 1e-9);
}

int main(int argc, char **argv)
{
    int64_t given = 7;
    bool understood = argc == 1 || (argc == 2 && lks__parse_i64(argv[1], &given));
    int rounds = (int)given;
    if (!understood || given < 1 || given > MAX_ROUNDS) {
        fprintf(stderr, "usage: %s [ROUNDS], 1 to %d\n", argv[0], MAX_ROUNDS);
        return 2;
    }
    results = mmap(NULL, sizeof *results, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (results == MAP_FAILED)
        return 1;

    double kernels[MAX_ROUNDS], bandwidth[MAX_ROUNDS], one[MAX_ROUNDS], pair[MAX_ROUNDS], apart[MAX_ROUNDS];
    double of_floor[MAX_ROUNDS], of_cached_floor[MAX_ROUNDS], scaling[MAX_ROUNDS], optimizer[MAX_ROUNDS];
    in_process(measure_matrix_rate);
    for (int r = 0; r < rounds; r++) {
        in_process(measure_kernels);
        in_process(measure_bandwidth);
        in_process(measure_optimizer);
        kernels[r] = 0;
        for (int k = 0; k < results->n_kernels; k++)
            kernels[r] += results->kernel_seconds[k];
        bandwidth[r] = results->bandwidth;
        apart[r] = step_seconds(2, false);
        pair[r] = step_seconds(2, true);
        one[r] = step_seconds(1, true);
        of_floor[r] = (kernels[r] + (double)results->optimizer_bytes / bandwidth[r]) / one[r];
        optimizer[r] = results->optimizer_seconds;
        of_cached_floor[r] = (kernels[r] + optimizer[r]) / one[r];
        scaling[r] = apart[r] / pair[r];
    }
    double kernels_s = median(kernels, rounds), rate = median(bandwidth, rounds), one_s = median(one, rounds);
    double optimizer_s = (double)results->optimizer_bytes / rate;

    print_kernels(kernels_s);
    printf("| | |\n|---|---:|\n");
    printf("| best matrix rate | %.1f GFLOP/s |\n", results->best_flops * 1e-9);
    printf("| memory bandwidth | %.1f GB/s |\n", rate * 1e-9);
    printf("| plain floor: %.1f MFLOP at the best rate | %.1f us |\n", (double)results->flops * 1e-6,
           1e6 * (double)results->flops / results->best_flops);
    printf("| floor: kernels %.1f us + optimizer's %.1f MB %.1f us | %.1f us |\n", 1e6 * kernels_s,
           (double)results->optimizer_bytes * 1e-6, 1e6 * optimizer_s, 1e6 * (kernels_s + optimizer_s));
    printf("| step, 1 process | %.1f us |\n", 1e6 * one_s);
    printf("| of the floor reached, 1 process | %.3f |\n", median(of_floor, rounds));
    printf("| floor with the optimizer alone in its caches, %.1f us | %.1f us |\n",
           1e6 * median(optimizer, rounds), 1e6 * (kernels_s + median(optimizer, rounds)));
    printf("| of that floor reached, 1 process | %.3f |\n", median(of_cached_floor, rounds));
    printf("| step, 2 unconnected processes | %.1f us |\n", 1e6 * median(apart, rounds));
    printf("| step, 2 processes in a group | %.1f us |\n", 1e6 * median(pair, rounds));
    printf("| 2 processes, of 2 unconnected ones | %.3f |\n", median(scaling, rounds));
    printf("| 1 process: data, forward+backward, optimizer | %.1f, %.1f, %.1f us |\n",
           1e6 * results->times.data / TIMED_STEPS, 1e6 * results->times.forward_backward / TIMED_STEPS,
           1e6 * results->times.optimizer / TIMED_STEPS);
    return 0;
}
