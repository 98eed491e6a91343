/* SPDX-License-Identifier: Apache-2.0 */
/** Runs of a reducer by the members of a group, and the sums that must come out: added by hand, recursively,
 * one element at a time, from the leaves. What members find out goes to shared memory and is looked at when
 * all have ended. The including file defines _GNU_SOURCE. */
#ifndef LKS_TESTS_REDUCER_RUN_H
#define LKS_TESTS_REDUCER_RUN_H

#include "check.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/alloc.h"
#include "comm/machines.h"
#include "ddp/reducer.h"

enum { MAX_SIZE = 8, N_TENSORS = 6, ARENA = 36032 };

/* Less than a block, a block and a bit, exactly one, several, none, one element; with gaps between. */
static const lks__span tensors[N_TENSORS] = {{0, 5},        {16, 5000}, {5024, 4096},
                                             {9120, 26611}, {35744, 0}, {36000, 1}};

static const double timeout_s = 60;

/* ---- what the leaves hold ---- */

typedef float leaf_fn(int step, int leaf, int64_t elem);

static inline uint32_t hash(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t x = a * 0x9e3779b1u ^ b * 0x85ebca6bu ^ c * 0xc2b2ae35u;
    x ^= x >> 15, x *= 0x2c1b3c6du, x ^= x >> 12, x *= 0x297a2d39u, x ^= x >> 15;
    return x;
}

/* -8 .. 7: sums of 64 are exact in any order. */
static inline float integer_leaf(int step, int leaf, int64_t elem)
{
    return (float)((int)(hash((uint32_t)step, (uint32_t)leaf, (uint32_t)elem) % 16) - 8);
}

/* Magnitudes over 24 powers of two: nearly every other order of additions gives another sum. */
static inline float ordered_leaf(int step, int leaf, int64_t elem)
{
    uint32_t h = hash((uint32_t)step, (uint32_t)leaf, (uint32_t)elem);
    return ldexpf((float)(h >> 8) * 0x1p-23f - 1.0f, (int)(h % 24) - 12);
}

/* Half of it -0.0, which is +0.0 once an empty leaf is added. */
static inline float zeros_leaf(int step, int leaf, int64_t elem)
{
    return elem % 2 ? -0.0f : integer_leaf(step, leaf, elem);
}

/* Not finite in two elements. */
static inline float special_leaf(int step, int leaf, int64_t elem)
{
    if (elem == 20 && leaf == 1)
        return NAN;
    if (elem == 21 && leaf == 0)
        return INFINITY;
    return integer_leaf(step, leaf, elem);
}

typedef bool empty_fn(int leaf);

static inline bool none_empty(int leaf)
{
    (void)leaf;
    return false;
}

static inline bool some_empty(int leaf)
{
    return leaf % 3 == 1 || leaf >= 13;
}

static inline bool all_empty(int leaf)
{
    (void)leaf;
    return true;
}

/* What a leaf adds to sums[k]: order-sensitive in double as well. */
static inline double leaf_sum(int step, int leaf, int k)
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
    lks__reducer_times times;
    int wrong_step; /* first step that gave another result than expected; 0: none */
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

    /* over several machines, numbered from 0; all zeros: one */
    int machines[MAX_SIZE]; /* of the members */
    int64_t bucket_bytes;
    bool silent;   /* no tensor is reported before its leaf is done */
    int fails_nth; /* allocation since all began to make their reducers, of any member; 0: none */

    float result[MAX_SIZE][ARENA];    /* on each machine */
    uint8_t covered[MAX_SIZE][ARENA]; /* blocks that held the element */
    finding found[MAX_SIZE];
} run;

static inline void *shared_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    return memory;
}

static inline run *new_run(int size, int64_t leaves, leaf_fn *leaf)
{
    run *r = shared_memory(sizeof *r);
    r->size = size, r->leaves = leaves, r->leaf = leaf;
    r->steps = r->passes = 1;
    r->empty = none_empty;
    return r;
}

static inline void end_run(run *r)
{
    munmap(r, sizeof *r);
}

/* ---- a member ---- */

typedef struct walk {
    run *run;
    finding *found;
    int64_t end; /* of the last block */
    int pass;    /* 0, 1, ... of the step */
    int machine;
} walk;

static inline void check_place(walk *w, const lks__block *block)
{
    int64_t start = block->offset_elems - tensors[block->tensor].offset_elems;
    if (block->offset_elems < w->end || start % LKS__BLOCK_ELEMS != 0 || block->n_elems < 1 ||
        block->n_elems > LKS__BLOCK_ELEMS || start + block->n_elems > tensors[block->tensor].n_elems)
        w->found->consecutive = false;
    w->end = block->offset_elems + block->n_elems;
    w->found->chunk_elems += block->n_elems;
}

/* Takes the block, whose sign every pass turns round; contributes plain sums, one element after the other. */
static inline void take_block(void *context, const lks__block *block, double values[LKS__BLOCK_VALUES])
{
    walk *w = context;
    check_place(w, block);
    for (int64_t i = 0; i < block->n_elems; i++) {
        float sum = w->pass % 2 ? -block->grad[i] : block->grad[i];
        w->run->result[w->machine][block->offset_elems + i] = sum;
        w->run->covered[w->machine][block->offset_elems + i]++;
        values[0] += (double)sum * (double)sum;
        values[1] += (w->pass + 1) * fabs((double)sum);
        block->grad[i] = -block->grad[i];
    }
}

/* Tensors are written from the last to the first, as backward does, while those behind are under way. */
static inline void write_leaf(const run *r, int step, int leaf, lks__reducer *reducer)
{
    float *arena = lks__reducer_leaf(reducer);
    for (int t = N_TENSORS - 1; t >= 0; t--) {
        for (int64_t i = 0; i < tensors[t].n_elems; i++)
            arena[tensors[t].offset_elems + i] = r->leaf(step, leaf, tensors[t].offset_elems + i);
        if (!r->silent)
            lks__reducer_tensor_ready(reducer, t);
    }
}

static inline double naive_sum(int step, int k, int lo, int hi)
{
    if (hi - lo == 1)
        return leaf_sum(step, lo, k);
    int half = 1;
    while (half * 2 < hi - lo)
        half *= 2;
    return naive_sum(step, k, lo, lo + half) + naive_sum(step, k, lo + half, hi);
}

static inline int passes_of(const run *r, int step)
{
    return r->passes > 0 ? r->passes : step % 4 + 1;
}

/* Integer data: every member can tell the step's flag, first sum and last tensor's norm by itself. */
static inline bool step_is_right(const run *r, int step, const lks__step_io *io, const finding *found)
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

static inline lks_status do_leaves(const run *r, lks__reducer *reducer, int rank, int step, lks__step_io *io)
{
    int first = rank * (int)r->leaves;
    for (int leaf = first; leaf < first + r->leaves; leaf++) {
        if (!r->empty(leaf))
            write_leaf(r, step, leaf, reducer);
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
static inline lks_status do_passes(const run *r, lks__reducer *reducer, int step, walk *w)
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

static inline lks_status take_steps(run *r, lks__reducer *reducer, int rank)
{
    finding *found = &r->found[rank];
    walk w = {.run = r, .found = found, .machine = r->machines[rank]};
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
    found->allocations = lks__alloc_count() - allocations;
    found->times = lks__reducer_get_times(reducer);
    found->flag = io.flag;
    found->requests = io.requests;
    memcpy(found->sums, io.sums, sizeof io.sums);
    return LKS_OK;
}

static inline void play(run *r, lks_group *group)
{
    int rank = lks_group_rank(group);
    finding *found = &r->found[rank];
    found->consecutive = true;
    lks__reducer_config config = {.group = group,
                                  .arena_elems = ARENA,
                                  .n_tensors = N_TENSORS,
                                  .tensors = tensors,
                                  .leaves = r->leaves,
                                  .bucket_bytes = r->bucket_bytes};
    if (r->last_fails && rank == r->size - 1)
        config.leaves = 0;
    if (r->fails_nth > 0 && lks_group_barrier(group) == LKS_OK && rank == 0)
        lks__alloc_fail_nth(r->fails_nth);
    if (r->fails_nth > 0 && lks_group_barrier(group) != LKS_OK)
        return;
    lks__reducer *reducer;
    found->status = lks__reducer_create(&config, &reducer);
    if (rank == 0)
        lks__alloc_fail_nth(0);
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

static inline void *thread_main(void *argument)
{
    seat *s = argument;
    play(s->run, s->group);
    lks_group_destroy(s->group);
    return NULL;
}

static inline void create_members(const run *r, lks_group **members)
{
    bool several = false;
    for (int rank = 1; rank < r->size; rank++)
        several = several || r->machines[rank] != r->machines[0];
    if (several)
        machines_create(r->size, r->machines, timeout_s, members);
    else
        CHECK_OK(lks_group_create_threads(r->size, timeout_s, members));
}

static inline void run_threads(run *r)
{
    lks_group *members[MAX_SIZE];
    pthread_t threads[MAX_SIZE];
    seat seats[MAX_SIZE];
    create_members(r, members);
    for (int rank = 0; rank < r->size; rank++) {
        seats[rank] = (seat){r, members[rank]};
        CHECK_INT(pthread_create(&threads[rank], NULL, thread_main, &seats[rank]), 0);
    }
    for (int rank = 0; rank < r->size; rank++)
        pthread_join(threads[rank], NULL);
}

/* ---- what must come out ---- */

/* The sum over leaves [lo, hi), as the definition of the tree says. */
static inline float naive_leaves(const run *r, int64_t elem, int lo, int hi)
{
    if (hi - lo == 1)
        return r->empty(lo) ? 0.0f : r->leaf(r->steps, lo, elem);
    int half = 1;
    while (half * 2 < hi - lo)
        half *= 2;
    return naive_leaves(r, elem, lo, lo + half) + naive_leaves(r, elem, lo + half, hi);
}

/* The same over members [lo, hi), each a tree over its own leaves. */
static inline float naive_members(const run *r, int64_t elem, int lo, int hi)
{
    if (hi - lo == 1)
        return naive_leaves(r, elem, lo * (int)r->leaves, hi * (int)r->leaves);
    int half = 1;
    while (half * 2 < hi - lo)
        half *= 2;
    return naive_members(r, elem, lo, lo + half) + naive_members(r, elem, lo + half, hi);
}

static inline bool same_bits_promised(const run *r)
{
    return r->size == 1 || (r->leaves & (r->leaves - 1)) == 0;
}

static inline void check_members_agree(const run *r)
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
        assert_true(f->times.wait + f->times.reduce + f->times.block > 0);
    }
}

static inline int n_walks(const run *r)
{
    int n = 0;
    for (int step = 1; step <= r->steps; step++)
        n += passes_of(r, step);
    return n;
}

static inline int members_beside(const run *r, int rank)
{
    int n = 0;
    for (int other = 0; other < r->size; other++)
        n += r->machines[other] == r->machines[rank];
    return n;
}

/* On each machine each element is in one block of one member, and chunks differ from their share by at most
 * half a block at both ends. */
static inline void check_chunks(const run *r)
{
    int64_t total = 0;
    for (int t = 0; t < N_TENSORS; t++) {
        total += tensors[t].n_elems;
        for (int rank = 0; rank < r->size; rank++)
            for (int64_t i = 0; i < tensors[t].n_elems; i++)
                CHECK_INT(r->covered[r->machines[rank]][tensors[t].offset_elems + i], n_walks(r));
    }
    for (int rank = 0; rank < r->size; rank++)
        CHECK_NEAR(r->found[rank].chunk_elems, (double)total / members_beside(r, rank), LKS__BLOCK_ELEMS);
}

static inline void check_elements(const run *r)
{
    for (int t = 0; t < N_TENSORS; t++)
        for (int64_t i = 0; i < tensors[t].n_elems; i++) {
            int64_t elem = tensors[t].offset_elems + i;
            float expected = same_bits_promised(r) ? naive_leaves(r, elem, 0, r->size * (int)r->leaves)
                                                   : naive_members(r, elem, 0, r->size);
            float got = r->result[0][elem];
            bool both_nan = isnan(expected) && isnan(got);
            if (memcmp(&got, &expected, sizeof got) != 0 && !both_nan)
                fail_msg("P %d, m %d, element %d: %.9g, wanted %.9g", r->size, (int)r->leaves, (int)elem,
                         (double)got, (double)expected);
        }
    for (int rank = 0; rank < r->size; rank++) /* machines are copies */
        assert_memory_equal(r->result[r->machines[rank]], r->result[0], sizeof r->result[0]);
}

static inline void check_sums(const run *r)
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
static inline void check_norms(const run *r)
{
    for (int t = 0; t < N_TENSORS; t++) {
        long double exact = 0;
        for (int64_t i = 0; i < tensors[t].n_elems; i++) {
            long double x = (long double)r->result[0][tensors[t].offset_elems + i];
            exact += x * x;
        }
        CHECK_NEAR(r->found[0].norm2[t], exact, 4099 * 0x1p-53 * (double)exact);
    }
}

static inline void check_run(const run *r)
{
    check_members_agree(r);
    check_chunks(r);
    check_elements(r);
    check_sums(r);
    check_norms(r);
}

#endif
