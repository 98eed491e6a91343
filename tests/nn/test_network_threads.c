/* SPDX-License-Identifier: Apache-2.0 */
/* Networks in threads and processes: each has its own, and all compute the same bits. */
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nets.h"

enum { N_THREADS = 2, N_STEPS = 5, BATCH = 17 };

static const net_spec spec = {100, 3, {{64, true, true}, {33, true, true}, {10, true, false}}};

/* FNV-1a over the bits. */
static uint64_t hash(uint64_t h, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < bytes; i++)
        h = (h ^ p[i]) * 1099511628211u;
    return h;
}

/* A short training; returns a hash of everything on the way. */
static uint64_t train(void)
{
    lks__network *network = net_compile(&spec, 1, (int64_t[]){BATCH});
    int64_t n = lks__network_arena_elems(network);
    float *params = net_arena(network), *grads = net_arena(network);
    uint64_t h = 14695981039346656037u;
    CHECK_OK(lks__network_init_params(network, 4, params));
    for (uint32_t step = 0; step < N_STEPS; step++) {
        lks__loss loss;
        net_fill(network, BATCH, step);
        CHECK_OK(lks__network_forward(network, BATCH, params, NULL, &loss));
        CHECK_OK(lks__network_backward(network, BATCH, params, grads, NULL, NULL));
        for (int64_t i = 0; i < n; i++)
            params[i] -= 0.01f * grads[i];
        h = hash(h, &loss.loss_sum, sizeof loss.loss_sum);
        h = hash(h, grads, (size_t)n * sizeof *grads);
    }
    h = hash(h, params, (size_t)n * sizeof *params);
    uint64_t print = lks__network_fingerprint(network);
    h = hash(h, &print, sizeof print);
    lks__free(grads);
    lks__free(params);
    lks__network_destroy(network);
    return h;
}

static void another_process_computes_the_same_bits(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork(); /* before this process has made any network */
    assert_true(child >= 0);
    if (child == 0) {
        uint64_t h = train();
        _exit(write(ends[1], &h, sizeof h) == sizeof h ? 0 : 1);
    }
    uint64_t theirs = 0, ours = train();
    int how;
    assert_int_equal(read(ends[0], &theirs, sizeof theirs), sizeof theirs);
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_int_equal(how, 0);
    assert_true(ours == theirs);
    close(ends[0]);
    close(ends[1]);
}

static void *thread_main(void *argument)
{
    *(uint64_t *)argument = train();
    return NULL;
}

static void threads_compute_the_same_bits(void **state)
{
    (void)state;
    pthread_t threads[N_THREADS];
    uint64_t hashes[N_THREADS], alone = train();
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, thread_main, &hashes[i]), 0);
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < N_THREADS; i++)
        assert_true(hashes[i] == alone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_process_computes_the_same_bits),
        cmocka_unit_test(threads_compute_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
