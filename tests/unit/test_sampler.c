/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <stdlib.h>
#include <zlib.h>

#include <lockstep/sampler.h>

#include "base/alloc.h"

enum { LONGEST = 60000, SHOWN = 1000, SENTINEL = -77 };

static lks_sampler *make(int64_t n, int64_t world, int64_t local_batch, int64_t accumulate, lks_tail tail,
                         int64_t seed)
{
    lks_sampler_config config = {n, world, local_batch, accumulate, tail, true, seed};
    lks_sampler *sampler;
    CHECK_OK(lks_sampler_create(&config, &sampler));
    return sampler;
}

/* All that one rank (a worker with one leaf per step) is given in an epoch; returns how many. */
static int64_t rank_list(lks_sampler *sampler, int64_t epoch, int64_t rank, int32_t *list)
{
    static int64_t batch[LONGEST];
    int64_t n = 0;
    for (int64_t step = 0; step < lks_sampler_steps_per_epoch(sampler); step++) {
        int64_t count = lks_sampler_leaf(sampler, epoch, step, rank, batch);
        for (int64_t j = 0; j < count; j++)
            list[n++] = (int32_t)batch[j];
    }
    return n;
}

/* A line of sampler_vectors.txt. */
typedef struct vector {
    long long n, world, seed, epoch;
    bool drop;
    long long rank, length, crc, n_shown;
    int shown[SHOWN];
} vector;

static bool read_vector(FILE *file, vector *out)
{
    char tail[8];
    int n = fscanf(file, "%lld %lld %lld %lld %7s %lld %lld %lld %lld", &out->n, &out->world, &out->seed,
                   &out->epoch, tail, &out->rank, &out->length, &out->crc, &out->n_shown);
    if (n == EOF)
        return false;
    CHECK_INT(n, 9);
    assert_true(strcmp(tail, "drop") == 0 || strcmp(tail, "pad") == 0);
    out->drop = strcmp(tail, "drop") == 0;
    assert_true(out->n_shown <= SHOWN && out->length <= LONGEST);
    for (int i = 0; i < out->n_shown; i++)
        CHECK_INT(fscanf(file, "%d", &out->shown[i]), 1);
    return true;
}

/* list: what local batch 1 gives, thus all of DistributedSampler's list */
static void check_list(const vector *v, const int32_t *list, int64_t n)
{
    CHECK_INT(n, v->length);
    for (int64_t i = 0; i < v->n_shown; i++) {
        bool from_end = v->n_shown < v->length && i >= v->n_shown / 2;
        CHECK_INT(list[from_end ? v->length - v->n_shown + i : i], v->shown[i]);
    }
    CHECK_INT(crc32(0, (const Bytef *)list, (uInt)((size_t)n * sizeof *list)), v->crc);
}

static void check_vector(const vector *v)
{
    static const int64_t local_batches[] = {3, 32, 64, 1000};
    static int32_t whole[LONGEST], list[LONGEST];
    lks_tail tail = v->drop ? LKS_TAIL_DROP : LKS_TAIL_PAD;

    lks_sampler *sampler = make(v->n, v->world, 1, 1, tail, v->seed);
    check_list(v, whole, rank_list(sampler, v->epoch, v->rank, whole));
    lks_sampler_destroy(sampler);

    /* A loader cuts the list into batches, and leaves an unfinished one out when it drops as well. */
    for (size_t i = 0; i < sizeof local_batches / sizeof local_batches[0]; i++) {
        int64_t b = local_batches[i];
        int64_t steps = v->drop ? v->length / b : (v->length + b - 1) / b;
        sampler = make(v->n, v->world, b, 1, tail, v->seed);
        CHECK_INT(lks_sampler_steps_per_epoch(sampler), steps);
        int64_t n = rank_list(sampler, v->epoch, v->rank, list);
        CHECK_INT(n, v->drop ? steps * b : v->length);
        assert_memory_equal(list, whole, (size_t)n * sizeof *list);
        lks_sampler_destroy(sampler);
    }
}

static void each_rank_gets_the_list_of_distributed_sampler(void **state)
{
    (void)state;
    FILE *file = fopen(LKS_SOURCE_DIR "/tests/reference/sampler_vectors.txt", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*[^\n]"), 0); /* who wrote it */
    static vector v;
    int n_vectors = 0;
    for (; read_vector(file, &v); n_vectors++)
        check_vector(&v);
    fclose(file);
    CHECK_INT(n_vectors, 3 * (1 + 2 + 3 + 8) * 2 * 3 * 2); /* sizes, ranks, seeds, epochs, tails */
}

/* Sizes for the tests below: tails of every kind, empty leaves, fewer samples than workers. */
static const struct {
    int64_t n, world, local_batch, accumulate;
} shapes[] = {
    {1, 1, 1, 1},  {10, 1, 4, 1}, {10, 2, 2, 2}, {64, 2, 4, 8}, {65, 2, 4, 8},  {79, 4, 5, 3},
    {95, 3, 8, 4}, {3, 8, 2, 1},  {5, 16, 3, 2}, {7, 2, 64, 1}, {100, 8, 1, 1}, {1000, 16, 32, 1},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0], MOST = 1024 };

static int64_t positions(int shape, lks_tail tail)
{
    int64_t n = shapes[shape].n, world = shapes[shape].world;
    int64_t batch = world * shapes[shape].local_batch * shapes[shape].accumulate;
    while (tail == LKS_TAIL_DROP && n % batch != 0)
        n--;
    while (tail == LKS_TAIL_PAD && n % world != 0)
        n++;
    return n;
}

/* The oracle deals the epoch's order like cards: a step takes the next B of them, and hands them out one by
 * one to its leaves in turn. */
static void check_dealing(int shape, lks_tail tail)
{
    int64_t n = shapes[shape].n, world = shapes[shape].world, accumulate = shapes[shape].accumulate;
    int64_t local_batch = shapes[shape].local_batch;
    int64_t leaves = world * accumulate, total = positions(shape, tail);
    int64_t order[MOST], got[MOST + 1];

    lks_sampler *one = make(n, 1, 1, 1, LKS_TAIL_EXACT, 3);
    for (int64_t i = 0; i < n; i++)
        CHECK_INT(lks_sampler_leaf(one, 2, i, 0, &order[i]), 1);
    lks_sampler_destroy(one);

    lks_sampler *sampler = make(n, world, local_batch, accumulate, tail, 3);
    int64_t dealt = 0, step = 0;
    for (; dealt < total; step++) {
        int64_t in_step = total - dealt < leaves * local_batch ? total - dealt : leaves * local_batch;
        for (int64_t leaf = 0; leaf < leaves; leaf++) {
            for (int64_t i = 0; i <= local_batch; i++)
                got[i] = SENTINEL;
            int64_t count = lks_sampler_leaf(sampler, 2, step, leaf, got), wanted = 0;
            for (int64_t card = leaf; card < in_step; card += leaves)
                CHECK_INT(got[wanted++], order[(dealt + card) % n]);
            CHECK_INT(count, wanted);
            CHECK_INT(got[wanted], SENTINEL);
        }
        dealt += in_step;
    }
    CHECK_INT(lks_sampler_steps_per_epoch(sampler), step);
    lks_sampler_destroy(sampler);
}

static void leaves_are_dealt_like_cards(void **state)
{
    (void)state;
    for (int shape = 0; shape < N_SHAPES; shape++) {
        check_dealing(shape, LKS_TAIL_EXACT);
        check_dealing(shape, LKS_TAIL_DROP);
        check_dealing(shape, LKS_TAIL_PAD);
    }
}

static void exact_uses_each_sample_once(void **state)
{
    (void)state;
    for (int shape = 0; shape < N_SHAPES; shape++) {
        int64_t leaves = shapes[shape].world * shapes[shape].accumulate, batch[MOST];
        int used[MOST] = {0};
        lks_sampler *sampler = make(shapes[shape].n, shapes[shape].world, shapes[shape].local_batch,
                                    shapes[shape].accumulate, LKS_TAIL_EXACT, -1);
        for (int64_t step = 0; step < lks_sampler_steps_per_epoch(sampler); step++)
            for (int64_t leaf = 0; leaf < leaves; leaf++)
                for (int64_t count = lks_sampler_leaf(sampler, 0, step, leaf, batch); count > 0; count--)
                    used[batch[count - 1]]++;
        for (int64_t i = 0; i < shapes[shape].n; i++)
            CHECK_INT(used[i], 1);
        lks_sampler_destroy(sampler);
    }
}

static void sixteen_workers_are_two_that_accumulate_eight(void **state)
{
    (void)state;
    lks_sampler *wide = make(1000, 16, 3, 1, LKS_TAIL_EXACT, 5),
                *deep = make(1000, 2, 3, 8, LKS_TAIL_EXACT, 5);
    CHECK_INT(lks_sampler_steps_per_epoch(wide), 21);
    CHECK_INT(lks_sampler_steps_per_epoch(deep), 21);
    for (int64_t step = 0; step < 21; step++)
        for (int64_t leaf = 0; leaf < 16; leaf++) {
            int64_t a[3] = {0}, b[3] = {0};
            CHECK_INT(lks_sampler_leaf(wide, 1, step, leaf, a), lks_sampler_leaf(deep, 1, step, leaf, b));
            assert_memory_equal(a, b, sizeof a);
        }
    lks_sampler_destroy(wide);
    lks_sampler_destroy(deep);
}

static void a_leaf_depends_on_its_key_only(void **state)
{
    (void)state;
    lks_sampler *sampler = make(100, 2, 4, 1, LKS_TAIL_EXACT, 9);
    int64_t first[4], again[4], other[4];
    CHECK_INT(lks_sampler_leaf(sampler, 0, 3, 1, first), 4);
    CHECK_INT(lks_sampler_leaf(sampler, 7, 3, 1, other), 4);
    CHECK_INT(lks_sampler_leaf(sampler, 0, 3, 1, again), 4);
    assert_memory_equal(first, again, sizeof first);
    assert_memory_not_equal(first, other, sizeof first);
    /* what does not exist is empty: the epoch has 13 steps of 2 leaves */
    CHECK_INT(lks_sampler_leaf(sampler, 0, 13, 0, again), 0);
    CHECK_INT(lks_sampler_leaf(sampler, 0, 0, 2, again), 0);
    CHECK_INT(lks_sampler_leaf(sampler, -1, 0, 0, again), 0);
    CHECK_INT(lks_sampler_leaf(sampler, 0, -1, 0, again), 0);
    CHECK_INT(lks_sampler_leaf(sampler, 0, 0, -1, again), 0);
    lks_sampler_destroy(sampler);
}

static void without_shuffling_the_order_is_the_file_s(void **state)
{
    (void)state;
    lks_sampler_config config = {
        .n_samples = 5, .world = 2, .local_batch = 2, .accumulate = 1, .tail = LKS_TAIL_PAD};
    lks_sampler *sampler;
    CHECK_OK(lks_sampler_create(&config, &sampler));
    int64_t batch[2];
    CHECK_INT(lks_sampler_leaf(sampler, 4, 0, 1, batch), 2);
    CHECK_INT(batch[0], 1);
    CHECK_INT(batch[1], 3);
    CHECK_INT(lks_sampler_leaf(sampler, 4, 1, 1, batch), 1);
    CHECK_INT(batch[0], 0); /* position 5 of 5 samples: the first again */
    lks_sampler_destroy(sampler);
}

static void a_plan_gives_its_sampler(void **state)
{
    (void)state;
    lks_plan plan = {.n_samples = 60, .world = 4, .local_batch = 5, .accumulate = 3, .tail = LKS_TAIL_DROP};
    lks_sampler_config config = lks_sampler_config_from_plan(&plan, 11);
    CHECK_INT(config.n_samples, 60);
    CHECK_INT(config.world, 4);
    CHECK_INT(config.local_batch, 5);
    CHECK_INT(config.accumulate, 3);
    CHECK_INT(config.tail, LKS_TAIL_DROP);
    CHECK_INT(config.seed, 11);
    assert_true(config.shuffle);
}

static void what_cannot_be_sampled_is_refused(void **state)
{
    (void)state;
    static const struct {
        lks_sampler_config config;
        const char *message;
    } refused[] = {
        {{0, 1, 1, 1, LKS_TAIL_EXACT, true, 0}, "the number of samples is 0"},
        {{9, 0, 1, 1, LKS_TAIL_EXACT, true, 0}, "the world is 0"},
        {{9, 1, -2, 1, LKS_TAIL_EXACT, true, 0}, "the local batch is -2"},
        {{9, 1, 1, 0, LKS_TAIL_EXACT, true, 0}, "the accumulation is 0"},
        {{9, 1, 1, 1, (lks_tail)7, true, 0}, "tail 7 is not exact, drop or pad"},
        {{214748364, 1, 1, 1, LKS_TAIL_EXACT, true, 0}, "214748364 samples are too many"},
        {{9, INT64_MAX, 2, 1, LKS_TAIL_EXACT, true, 0}, "more than 2^60 samples"},
        {{9, 1, INT64_MAX, 1, LKS_TAIL_EXACT, true, 0}, "more than 2^60 samples"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        lks_sampler *sampler = (lks_sampler *)&sampler;
        CHECK_FAILS(lks_sampler_create(&refused[i].config, &sampler), LKS_E_ARG, refused[i].message);
        assert_null(sampler);
    }
}

static void lack_of_memory_is_reported(void **state)
{
    (void)state;
    int64_t before = lks__alloc_bytes(LKS__MEM_DATA);
    lks_sampler_config config = {9, 1, 1, 1, LKS_TAIL_EXACT, true, 0};
    for (int nth = 1; nth <= 2; nth++) {
        lks_sampler *sampler;
        lks__alloc_fail_nth(nth);
        CHECK_FAILS(lks_sampler_create(&config, &sampler), LKS_E_NOMEM, "out of memory");
        assert_null(sampler);
    }
    CHECK_INT(lks__alloc_bytes(LKS__MEM_DATA), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_rank_gets_the_list_of_distributed_sampler),
        cmocka_unit_test(leaves_are_dealt_like_cards),
        cmocka_unit_test(exact_uses_each_sample_once),
        cmocka_unit_test(sixteen_workers_are_two_that_accumulate_eight),
        cmocka_unit_test(a_leaf_depends_on_its_key_only),
        cmocka_unit_test(without_shuffling_the_order_is_the_file_s),
        cmocka_unit_test(a_plan_gives_its_sampler),
        cmocka_unit_test(what_cannot_be_sampled_is_refused),
        cmocka_unit_test(lack_of_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
