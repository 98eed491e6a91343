/* SPDX-License-Identifier: Apache-2.0 */
/* The reducer against sums that are added by hand: recursively, one element at a time, from the leaves.
 * Members are threads, where ThreadSanitizer sees races, and processes. What they find out goes to shared
 * memory and is looked at when all have ended. */
#define _GNU_SOURCE /* memfd_create, MAP_ANONYMOUS */
#include "check.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "ddp/reducer.h"

enum { MAX_SIZE = 8, N_TENSORS = 6, ARENA = 36032 };

/* Less than a block, a block and a bit, exactly one, several, none, one element; with gaps between. */
static const lks__span tensors[N_TENSORS] = {{0, 5},        {16, 5000}, {5024, 4096},
                                             {9120, 26611}, {35744, 0}, {36000, 1}};

static const double timeout_s = 60;

/* ---- what the leaves hold ---- */

typedef float leaf_fn(int step, int leaf, int64_t elem);

static uint32_t hash(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t x = a * 0x9e3779b1u ^ b * 0x85ebca6bu ^ c * 0xc2b2ae35u;
    x ^= x >> 15, x *= 0x2c1b3c6du, x ^= x >> 12, x *= 0x297a2d39u, x ^= x >> 15;
    return x;
}

/* -8 .. 7: sums of 64 are exact in any order. */
static float integer_leaf(int step, int leaf, int64_t elem)
{
    return (float)((int)(hash((uint32_t)step, (uint32_t)leaf, (uint32_t)elem) % 16) - 8);
}

/* Magnitudes over 24 powers of two: nearly every other order of additions gives another sum. */
static float ordered_leaf(int step, int leaf, int64_t elem)
{
    uint32_t h = hash((uint32_t)step, (uint32_t)leaf, (uint32_t)elem);
    return ldexpf((float)(h >> 8) * 0x1p-23f - 1.0f, (int)(h % 24) - 12);
}

/* Half of it -0.0, which is +0.0 once an empty leaf is added. */
static float zeros_leaf(int step, int leaf, int64_t elem)
{
    return elem % 2 ? -0.0f : integer_leaf(step, leaf, elem);
}

/* Not finite in two elements. */
static float special_leaf(int step, int leaf, int64_t elem)
{
    if (elem == 20 && leaf == 1)
        return NAN;
    if (elem == 21 && leaf == 0)
        return INFINITY;
    return integer_leaf(step, leaf, elem);
}

typedef bool empty_fn(int leaf);

static bool none_empty(int leaf)
{
    (void)leaf;
    return false;
}

static bool some_empty(int leaf)
{
    return leaf % 3 == 1 || leaf >= 13;
}

static bool all_empty(int leaf)
{
    (void)leaf;
    return true;
}

/* What a leaf adds to sums[k]: order-sensitive in double as well. */
static double leaf_sum(int step, int leaf, int k)
{
    return (double)ordered_leaf(step, leaf, k) / 3.0 + ldexp(1.0, (leaf * 7 + k) % 40);
}

/* ---- a run: what the members are to do, and what they found; in shared memory ---- */

typedef struct finding {
    lks_status status; /* of the first failure */
    char message[256];
    double sums[LKS__STEP_SUMS];
    int flag;
    unsigned requests;
    double norm2[N_TENSORS], absolute[N_TENSORS]; /* sums of squares and of absolute values */
    int64_t chunk_elems;
    bool consecutive;    /* blocks came in ascending order, aligned to their tensor's start */
    int64_t allocations; /* made by steps; threads: by any member */
    double seconds;      /* waiting, reducing, in the callback */
    int wrong_step;      /* first step that gave another result than expected; 0: none */
} finding;

typedef struct run {
    int size;
    int64_t leaves; /* per member */
    int steps;
    int passes; /* of a step; 0: another number of them in every step */
    leaf_fn *leaf;
    empty_fn *empty;
    bool last_fails;      /* the last member asks for something that is refused */
    bool check_each_step; /* integer data: compare every step's sums on every member */
    float result[ARENA];
    uint8_t covered[ARENA]; /* blocks that held the element */
    finding found[MAX_SIZE];
} run;

static void *shared_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    return memory;
}

static run *new_run(int size, int64_t leaves, leaf_fn *leaf)
{
    run *r = shared_memory(sizeof *r);
    r->size = size, r->leaves = leaves, r->leaf = leaf;
    r->steps = r->passes = 1;
    r->empty = none_empty;
    return r;
}

static void end_run(run *r)
{
    munmap(r, sizeof *r);
}

/* ---- a member ---- */

typedef struct walk {
    run *run;
    finding *found;
    int64_t end; /* of the last block */
    int pass;    /* 0, 1, ... of the step */
} walk;

static void check_place(walk *w, const lks__block *block)
{
    int64_t start = block->offset_elems - tensors[block->tensor].offset_elems;
    if (block->offset_elems < w->end || start % LKS__BLOCK_ELEMS != 0 || block->n_elems < 1 ||
        block->n_elems > LKS__BLOCK_ELEMS || start + block->n_elems > tensors[block->tensor].n_elems)
        w->found->consecutive = false;
    w->end = block->offset_elems + block->n_elems;
    w->found->chunk_elems += block->n_elems;
}

/* Takes the block, whose sign every pass turns round; contributes plain sums, one element after the other. */
static void take_block(void *context, const lks__block *block, double values[LKS__BLOCK_VALUES])
{
    walk *w = context;
    check_place(w, block);
    for (int64_t i = 0; i < block->n_elems; i++) {
        float sum = w->pass % 2 ? -block->grad[i] : block->grad[i];
        w->run->result[block->offset_elems + i] = sum;
        w->run->covered[block->offset_elems + i]++;
        values[0] += (double)sum * (double)sum;
        values[1] += (w->pass + 1) * fabs((double)sum);
        block->grad[i] = -block->grad[i];
    }
}

static void write_leaf(const run *r, int step, int leaf, float *arena)
{
    for (int t = 0; t < N_TENSORS; t++)
        for (int64_t i = 0; i < tensors[t].n_elems; i++)
            arena[tensors[t].offset_elems + i] = r->leaf(step, leaf, tensors[t].offset_elems + i);
}

static double naive_sum(int step, int k, int lo, int hi)
{
    if (hi - lo == 1)
        return leaf_sum(step, lo, k);
    int half = 1;
    while (half * 2 < hi - lo)
        half *= 2;
    return naive_sum(step, k, lo, lo + half) + naive_sum(step, k, lo + half, hi);
}

static int passes_of(const run *r, int step)
{
    return r->passes > 0 ? r->passes : step % 4 + 1;
}

/* Integer data: every member can tell the step's flag, first sum and last tensor's norm by itself. */
static bool step_is_right(const run *r, int step, const lks__step_io *io, const finding *found)
{
    unsigned requests = 0;
    for (int rank = 0; rank < r->size; rank++)
        requests |= 1u << ((step + rank) % 32);
    double sum = 0, last_elem = 0;
    for (int leaf = 0; leaf < r->size * r->leaves; leaf++) {
        sum += (double)integer_leaf(step, leaf, 0);
        last_elem += (double)integer_leaf(step, leaf, tensors[N_TENSORS - 1].offset_elems);
    }
    int passes = passes_of(r, step);
    return io->flag == step * MAX_SIZE + r->size - 1 && io->requests == requests && io->sums[0] == sum &&
           found->norm2[N_TENSORS - 1] == last_elem * last_elem &&
           found->absolute[N_TENSORS - 1] == passes * fabs(last_elem);
}

static lks_status do_leaves(const run *r, lks__reducer *reducer, int rank, int step, lks__step_io *io)
{
    int first = rank * (int)r->leaves;
    for (int leaf = first; leaf < first + r->leaves; leaf++) {
        if (!r->empty(leaf))
            write_leaf(r, step, leaf, lks__reducer_leaf(reducer));
        lks__reducer_leaf_done(reducer, r->empty(leaf));
    }
    for (int k = 0; k < LKS__STEP_SUMS; k++)
        io->sums[k] = naive_sum(step, k, first, first + (int)r->leaves);
    io->flag = step * MAX_SIZE + rank;
    io->requests = 1u << ((step + rank) % 32);
    if (r->check_each_step) {
        io->sums[0] = 0;
        for (int leaf = first; leaf < first + r->leaves; leaf++)
            io->sums[0] += (double)integer_leaf(step, leaf, 0);
        if (hash((uint32_t)step, (uint32_t)rank, 3) % 4 == 0)
            sched_yield(); /* members come in ever other orders */
    }
    return lks__reducer_begin(reducer, io);
}

/* All passes of a step. */
static lks_status do_passes(const run *r, lks__reducer *reducer, int step, walk *w)
{
    finding *found = w->found;
    lks__pass pass = {take_block, w, true, {found->norm2, found->absolute}};
    int passes = passes_of(r, step);
    lks_status status = LKS_OK;
    for (w->pass = 0; w->pass < passes && status == LKS_OK; w->pass++) {
        w->end = found->chunk_elems = 0;
        pass.keeps = w->pass < passes - 1;
        status = lks__reducer_pass(reducer, &pass);
    }
    return status;
}

static lks_status take_steps(run *r, lks__reducer *reducer, int rank)
{
    finding *found = &r->found[rank];
    walk w = {.run = r, .found = found};
    lks__step_io io = {{0}, 0, 0};
    int64_t allocations = lks__alloc_count();
    for (int step = 1; step <= r->steps; step++) {
        lks_status status = do_leaves(r, reducer, rank, step, &io);
        if (status == LKS_OK)
            status = do_passes(r, reducer, step, &w);
        if (status != LKS_OK)
            return status;
        if (r->check_each_step && found->wrong_step == 0 && !step_is_right(r, step, &io, found))
            found->wrong_step = step;
    }
    lks__reducer_times times = lks__reducer_get_times(reducer);
    found->allocations = lks__alloc_count() - allocations;
    found->seconds = times.wait + times.reduce + times.block;
    found->flag = io.flag;
    found->requests = io.requests;
    memcpy(found->sums, io.sums, sizeof io.sums);
    return LKS_OK;
}

static void play(run *r, lks_group *group)
{
    int rank = lks_group_rank(group);
    finding *found = &r->found[rank];
    found->consecutive = true;
    lks__reducer_config config = {.group = group,
                                  .arena_elems = ARENA,
                                  .n_tensors = N_TENSORS,
                                  .tensors = tensors,
                                  .leaves = r->leaves};
    if (r->last_fails && rank == r->size - 1)
        config.leaves = 0;
    lks__reducer *reducer;
    found->status = lks__reducer_create(&config, &reducer);
    if (found->status == LKS_OK)
        found->status = lks_group_barrier(group); /* nobody creates while others count allocations */
    if (found->status == LKS_OK)
        found->status = take_steps(r, reducer, rank);
    if (found->status == LKS_OK)
        found->status = lks_group_barrier(group); /* nobody leaves while others still look */
    if (found->status != LKS_OK)
        snprintf(found->message, sizeof found->message, "%s", lks_error_message());
    lks__reducer_destroy(reducer);
}

/* ---- members as threads, members as processes ---- */

typedef struct seat {
    run *run;
    lks_group *group;
} seat;

static void *thread_main(void *argument)
{
    seat *s = argument;
    play(s->run, s->group);
    lks_group_destroy(s->group);
    return NULL;
}

static void run_threads(run *r)
{
    lks_group *members[MAX_SIZE];
    pthread_t threads[MAX_SIZE];
    seat seats[MAX_SIZE];
    CHECK_OK(lks_group_create_threads(r->size, timeout_s, members));
    for (int rank = 0; rank < r->size; rank++) {
        seats[rank] = (seat){r, members[rank]};
        CHECK_INT(pthread_create(&threads[rank], NULL, thread_main, &seats[rank]), 0);
    }
    for (int rank = 0; rank < r->size; rank++)
        pthread_join(threads[rank], NULL);
}

static void process_main(run *r, int rank, int fd)
{
    lks_group_config config = lks_group_config_default();
    config.rank = rank;
    config.size = r->size;
    config.fd = fd;
    config.timeout_s = timeout_s;
    lks_group *group;
    finding *found = &r->found[rank];
    found->status = lks_group_create(&config, &group);
    if (found->status != LKS_OK) {
        snprintf(found->message, sizeof found->message, "%s", lks_error_message());
        _exit(1);
    }
    play(r, group);
    lks_group_destroy(group);
    _exit(0);
}

static void run_processes(run *r)
{
    int fd = memfd_create("test_reducer", 0);
    assert_true(fd >= 0);
    pid_t pids[MAX_SIZE];
    for (int rank = 0; rank < r->size; rank++) {
        pids[rank] = fork();
        assert_true(pids[rank] >= 0);
        if (pids[rank] == 0)
            process_main(r, rank, fd);
    }
    for (int rank = 0; rank < r->size; rank++) {
        int status;
        CHECK_INT(waitpid(pids[rank], &status, 0), pids[rank]);
        CHECK_INT(status, 0);
    }
    close(fd);
}

/* ---- what must come out ---- */

/* The sum over leaves [lo, hi), as the definition of the tree says. */
static float naive_leaves(const run *r, int64_t elem, int lo, int hi)
{
    if (hi - lo == 1)
        return r->empty(lo) ? 0.0f : r->leaf(r->steps, lo, elem);
    int half = 1;
    while (half * 2 < hi - lo)
        half *= 2;
    return naive_leaves(r, elem, lo, lo + half) + naive_leaves(r, elem, lo + half, hi);
}

/* The same over members [lo, hi), each a tree over its own leaves. */
static float naive_members(const run *r, int64_t elem, int lo, int hi)
{
    if (hi - lo == 1)
        return naive_leaves(r, elem, lo * (int)r->leaves, hi * (int)r->leaves);
    int half = 1;
    while (half * 2 < hi - lo)
        half *= 2;
    return naive_members(r, elem, lo, lo + half) + naive_members(r, elem, lo + half, hi);
}

static bool same_bits_promised(const run *r)
{
    return r->size == 1 || (r->leaves & (r->leaves - 1)) == 0;
}

static void check_members_agree(const run *r)
{
    for (int rank = 0; rank < r->size; rank++) {
        const finding *f = &r->found[rank];
        if (f->status != LKS_OK)
            fail_msg("P %d, m %d, rank %d: %s: %s", r->size, (int)r->leaves, rank, lks_status_name(f->status),
                     f->message);
        assert_true(f->consecutive);
        CHECK_INT(f->flag, r->steps * MAX_SIZE + r->size - 1);
        CHECK_INT(f->allocations, 0);
        CHECK_INT(f->wrong_step, 0);
        assert_memory_equal(f->sums, r->found[0].sums, sizeof f->sums);
        assert_memory_equal(f->norm2, r->found[0].norm2, sizeof f->norm2);
        assert_memory_equal(f->absolute, r->found[0].absolute, sizeof f->absolute);
        CHECK_INT(f->requests, r->found[0].requests);
        assert_true(f->seconds > 0);
    }
}

static int n_walks(const run *r)
{
    int n = 0;
    for (int step = 1; step <= r->steps; step++)
        n += passes_of(r, step);
    return n;
}

/* Each element is in one block of one member, and chunks differ from their share by at most half a block at
 * both ends. */
static void check_chunks(const run *r)
{
    int64_t total = 0;
    for (int t = 0; t < N_TENSORS; t++) {
        total += tensors[t].n_elems;
        for (int64_t i = 0; i < tensors[t].n_elems; i++)
            CHECK_INT(r->covered[tensors[t].offset_elems + i], n_walks(r));
    }
    for (int rank = 0; rank < r->size; rank++)
        CHECK_NEAR(r->found[rank].chunk_elems, (double)total / r->size, LKS__BLOCK_ELEMS);
}

static void check_elements(const run *r)
{
    for (int t = 0; t < N_TENSORS; t++)
        for (int64_t i = 0; i < tensors[t].n_elems; i++) {
            int64_t elem = tensors[t].offset_elems + i;
            float expected = same_bits_promised(r) ? naive_leaves(r, elem, 0, r->size * (int)r->leaves)
                                                   : naive_members(r, elem, 0, r->size);
            float got = r->result[elem];
            bool both_nan = isnan(expected) && isnan(got);
            if (memcmp(&got, &expected, sizeof got) != 0 && !both_nan)
                fail_msg("P %d, m %d, element %d: %.9g, wanted %.9g", r->size, (int)r->leaves, (int)elem,
                         (double)got, (double)expected);
        }
}

static void check_sums(const run *r)
{
    if (!same_bits_promised(r))
        return;
    for (int k = 0; k < LKS__STEP_SUMS; k++) {
        double expected = naive_sum(r->steps, k, 0, r->size * (int)r->leaves);
        assert_memory_equal(&r->found[0].sums[k], &expected, sizeof expected);
    }
}

/* A block's squares are exact in double and added one after the other, blocks in a tree of depth 3: at most
 * 4096 + 3 roundings of 2^-53 of positive terms. */
static void check_norms(const run *r)
{
    for (int t = 0; t < N_TENSORS; t++) {
        long double exact = 0;
        for (int64_t i = 0; i < tensors[t].n_elems; i++) {
            long double x = (long double)r->result[tensors[t].offset_elems + i];
            exact += x * x;
        }
        CHECK_NEAR(r->found[0].norm2[t], exact, 4099 * 0x1p-53 * (double)exact);
    }
}

static void check_run(const run *r)
{
    check_members_agree(r);
    check_chunks(r);
    check_elements(r);
    check_sums(r);
    check_norms(r);
}

/* ---- tests ---- */

static const int sizes[] = {1, 2, 3, 4, 5, 8};
static const int leaves[] = {1, 2, 3, 4, 6, 7, 8};
enum { N_SIZES = sizeof sizes / sizeof sizes[0], N_LEAVES = sizeof leaves / sizeof leaves[0] };

static void for_all_shapes(leaf_fn *leaf, empty_fn *empty)
{
    for (int s = 0; s < N_SIZES; s++)
        for (int l = 0; l < N_LEAVES; l++) {
            run *r = new_run(sizes[s], leaves[l], leaf);
            r->empty = empty;
            run_threads(r);
            check_run(r);
            end_run(r);
        }
}

static void integers_are_added(void **state)
{
    (void)state;
    run *r = new_run(3, 5, integer_leaf);
    run_threads(r);
    check_run(r);
    /* exact data: any order gives the sum */
    for (int64_t elem = 16; elem < 5016; elem++) {
        int sum = 0;
        for (int leaf = 0; leaf < 15; leaf++)
            sum += (int)integer_leaf(1, leaf, elem);
        CHECK_INT(r->result[elem], sum);
    }
    end_run(r);
}

static void every_shape_adds_in_tree_order(void **state)
{
    (void)state;
    for_all_shapes(ordered_leaf, none_empty);
}

static void empty_leaves_count_as_zero(void **state)
{
    (void)state;
    for_all_shapes(ordered_leaf, some_empty);
    for_all_shapes(zeros_leaf, some_empty);
    run *r = new_run(2, 4, ordered_leaf);
    r->empty = all_empty;
    run_threads(r);
    check_run(r);
    assert_true(r->result[0] == 0.0f && !signbit(r->result[0]));
    end_run(r);
}

static void what_is_not_finite_stays_so(void **state)
{
    (void)state;
    run *r = new_run(2, 2, special_leaf);
    run_threads(r);
    check_members_agree(r);
    check_elements(r);
    assert_true(isnan(r->result[20]) && isinf(r->result[21]) && isfinite(r->result[22]));
    assert_true(isnan(r->found[1].norm2[1]) && isfinite(r->found[1].norm2[2]));
    end_run(r);
}

/* Eight leaves of a step on 1, 2, 4 and 8 members. */
static void members_do_not_change_a_bit(void **state)
{
    (void)state;
    run *alone = new_run(1, 8, ordered_leaf);
    run_threads(alone);
    check_run(alone);
    for (int size = 2; size <= 8; size *= 2) {
        run *r = new_run(size, 8 / size, ordered_leaf);
        run_threads(r);
        check_members_agree(r);
        assert_memory_equal(r->result, alone->result, sizeof r->result);
        assert_memory_equal(r->found[0].sums, alone->found[0].sums, sizeof r->found[0].sums);
        assert_memory_equal(r->found[0].norm2, alone->found[0].norm2, sizeof r->found[0].norm2);
        end_run(r);
    }
    end_run(alone);
}

static void steps_follow_each_other(void **state)
{
    (void)state;
    static const int shapes[][2] = {{2, 1}, {3, 2}, {8, 1}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        run *r = new_run(shapes[i][0], shapes[i][1], integer_leaf);
        r->steps = 40;
        r->passes = 0;
        r->check_each_step = true;
        run_threads(r);
        check_members_agree(r);
        check_chunks(r);
        check_elements(r);
        end_run(r);
    }
}

static void later_passes_find_what_earlier_ones_leave(void **state)
{
    (void)state;
    for (int passes = 2; passes <= 4; passes++)
        for (int s = 0; s < N_SIZES; s++) {
            run *r = new_run(sizes[s], 2, ordered_leaf);
            r->passes = passes;
            run_threads(r);
            check_run(r);
            end_run(r);
        }
}

static void processes_do_as_threads(void **state)
{
    (void)state;
    static const int shapes[][2] = {{2, 1}, {2, 4}, {3, 3}, {8, 1}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        run *r = new_run(shapes[i][0], shapes[i][1], ordered_leaf);
        r->steps = 3;
        r->passes = 0;
        r->empty = some_empty;
        run_processes(r);
        check_run(r);
        end_run(r);
    }
}

static void a_member_that_fails_alone_stops_the_others(void **state)
{
    (void)state;
    run *r = new_run(3, 2, integer_leaf);
    r->last_fails = true;
    run_threads(r);
    for (int rank = 0; rank < r->size; rank++)
        CHECK_INT(r->found[rank].status, LKS_E_ARG);
    end_run(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_member_that_fails_alone_stops_the_others),
        cmocka_unit_test(integers_are_added),
        cmocka_unit_test(every_shape_adds_in_tree_order),
        cmocka_unit_test(empty_leaves_count_as_zero),
        cmocka_unit_test(what_is_not_finite_stays_so),
        cmocka_unit_test(members_do_not_change_a_bit),
        cmocka_unit_test(steps_follow_each_other),
        cmocka_unit_test(later_passes_find_what_earlier_ones_leave),
        cmocka_unit_test(processes_do_as_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
