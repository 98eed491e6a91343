/* SPDX-License-Identifier: Apache-2.0 */
#include "ddp/reducer.h"

#include <stddef.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/machine.h"
#include "base/tree.h"
#include "comm/agree.h"
#include "comm/kernels.h"
#include "ddp/exchange.h"

/* What a member tells the others in a step. Written by its owner before the first barrier, read by all
 * before the next. */
typedef struct step_slot {
    double sums[LKS__STEP_SUMS];
    int flag;
    unsigned requests;
    char padding[64 - LKS__STEP_SUMS * sizeof(double) - 2 * sizeof(int)];
} step_slot;

_Static_assert(sizeof(step_slot) == 64, "a slot is one cache line");

/* A member's region of the machine's memory: its arena, its slot and, on the first member, the values of all
 * blocks, which passes write in turns. */
enum { VALUE_SETS = 2 };
typedef struct region {
    float *arena; /* [arena_elems] */
    step_slot *slot;
    double *values; /* [VALUE_SETS, LKS__BLOCK_VALUES, blocks of all tensors] */
} region;

struct lks__reducer {
    lks_group *group;
    lks_group *node; /* its members on this machine, who share what a pass does; on one machine the group */
    int rank, size;  /* in node */
    int group_size;
    int64_t arena_elems;

    /* own leaves: a stack of sums over 2^k leaves each, as the digits of a binary counter */
    int64_t leaves, n_done;
    int n_arenas, n_pending;
    float **arenas; /* [n_arenas]; the first is this member's region, the others are private */

    lks_group_memory *memory;
    const float **member_arenas; /* [size] */
    const step_slot **slots;     /* [group_size] */
    step_slot *own_slot;
    double *values; /* in the first member's region; each block's are written by the owner of its chunk */

    /* over several machines, else NULL */
    lks__exchange *exchange;
    step_slot *all_slots; /* [group_size] */

    int n_tensors;
    int64_t *first_block; /* [n_tensors + 1]: a tensor's first block among all */
    lks__block *chunk;    /* own blocks: [n_chunk], consecutive among all blocks from chunk_first on */
    int64_t n_chunk, chunk_first;

    const void **block_sources; /* [size]: a block in every member's arena */
    float *block_sum;           /* [LKS__BLOCK_ELEMS] */
    double *rank_values;        /* [group_size]: what is summed over members */

    bool in_step;     /* begun, and not ended by its last pass */
    bool has_sums;    /* own blocks of the own arena hold the sum over all members, or what this step's last
                         pass has left there */
    int64_t n_passes; /* since the reducer was created */
    struct {
        int64_t wait, reduce, block;
    } times_ns; /* same */
};

static lks_status check_config(const lks__reducer_config *config)
{
    if (config->leaves < 1)
        return lks__fail(LKS_E_ARG, "%lld leaves per process; at least 1 is needed",
                         (long long)config->leaves);
    int64_t end = 0;
    for (int i = 0; i < config->n_tensors; i++) {
        const lks__span *tensor = &config->tensors[i];
        if (tensor->offset_elems < end || tensor->n_elems < 0 ||
            tensor->n_elems > config->arena_elems - tensor->offset_elems)
            return lks__fail(LKS_E_ARG,
                             "tensor %d of %lld elements at %lld does not fit between %lld and %lld", i,
                             (long long)tensor->n_elems, (long long)tensor->offset_elems, (long long)end,
                             (long long)config->arena_elems);
        end = tensor->offset_elems + tensor->n_elems;
    }
    return LKS_OK;
}

static int floor_log2(int64_t n)
{
    return 63 - __builtin_clzll((uint64_t)n);
}

static int64_t n_blocks(const lks__reducer *reducer)
{
    return reducer->first_block[reducer->n_tensors];
}

static void number_blocks(lks__reducer *reducer, const lks__span *tensors)
{
    for (int i = 0; i < reducer->n_tensors; i++)
        reducer->first_block[i + 1] = reducer->first_block[i] +
                                      (tensors[i].n_elems + LKS__BLOCK_ELEMS - 1) / LKS__BLOCK_ELEMS;
}

/* A block belongs to the member in whose equal share of all elements its middle lies. So chunks are
 * consecutive, and each is within half a block of its share at both ends. */
static int owner_of(const lks__reducer *reducer, int64_t first_elem, int64_t n_elems, int64_t total_elems)
{
    return (int)((first_elem + n_elems / 2) * reducer->size / total_elems);
}

/* Finds the own blocks: counts them, and writes them once there is a place for them. */
static void list_chunk(lks__reducer *reducer, const lks__span *tensors)
{
    int64_t total = 0, elem = 0, index = 0;
    for (int i = 0; i < reducer->n_tensors; i++)
        total += tensors[i].n_elems;
    reducer->n_chunk = 0;
    for (int i = 0; i < reducer->n_tensors; i++)
        for (int64_t start = 0; start < tensors[i].n_elems; start += LKS__BLOCK_ELEMS, index++) {
            int64_t rest = tensors[i].n_elems - start;
            int64_t n_elems = rest < LKS__BLOCK_ELEMS ? rest : LKS__BLOCK_ELEMS;
            if (owner_of(reducer, elem, n_elems, total) == reducer->rank) {
                if (reducer->n_chunk == 0)
                    reducer->chunk_first = index;
                if (reducer->chunk)
                    reducer->chunk[reducer->n_chunk] = (lks__block){i, tensors[i].offset_elems + start,
                                                                    n_elems, NULL};
                reducer->n_chunk++;
            }
            elem += n_elems;
        }
}

static size_t arena_bytes(const lks__reducer *reducer)
{
    return lks__round_up((size_t)reducer->arena_elems * sizeof(float), LKS__ALIGNMENT);
}

static region region_at(const lks__reducer *reducer, int rank)
{
    char *start = lks_group_memory_at(reducer->memory, rank);
    size_t slot_at = arena_bytes(reducer);
    return (region){
        .arena = (float *)start,
        .slot = (step_slot *)(start + slot_at),
        .values = (double *)(start + slot_at + sizeof(step_slot)),
    };
}

static size_t region_bytes(const lks__reducer *reducer)
{
    size_t bytes = arena_bytes(reducer) + sizeof(step_slot);
    size_t n_values = VALUE_SETS * LKS__BLOCK_VALUES * (size_t)n_blocks(reducer);
    return reducer->rank == 0 ? bytes + n_values * sizeof(double) : bytes;
}

/* Collective. */
static lks_status map_regions(lks__reducer *reducer)
{
    lks_status status = lks_group_memory_create(reducer->group, region_bytes(reducer), &reducer->memory);
    if (status != LKS_OK)
        return status;
    int member = 0; /* of node, whose ranks follow the group's */
    for (int rank = 0; rank < reducer->group_size; rank++) {
        if (reducer->all_slots != NULL)
            reducer->slots[rank] = &reducer->all_slots[rank];
        if (lks_group_memory_at(reducer->memory, rank) == NULL)
            continue; /* on another machine */
        region its = region_at(reducer, rank);
        if (reducer->all_slots == NULL)
            reducer->slots[rank] = its.slot;
        if (member == 0)
            reducer->values = its.values;
        if (member == reducer->rank) {
            reducer->arenas[0] = its.arena;
            reducer->own_slot = its.slot;
        }
        reducer->member_arenas[member++] = its.arena;
    }
    return LKS_OK;
}

/* The own arena is there. */
static lks_status create_exchange(lks__reducer *reducer, const lks__reducer_config *config)
{
    const lks__exchange_config exchange = {.group = reducer->group,
                                           .arena = reducer->arenas[0],
                                           .n_tensors = config->n_tensors,
                                           .tensors = config->tensors,
                                           .bucket_bytes = config->bucket_bytes > 0 ? config->bucket_bytes
                                                                                    : LKS__BUCKET_BYTES,
                                           .own_words = reducer->own_slot,
                                           .words = reducer->all_slots,
                                           .word_bytes = sizeof *reducer->own_slot};
    return lks__exchange_create(&exchange, &reducer->exchange);
}

/* What other members can see. Collective. */
static lks_status create_shared(lks__reducer *reducer, const lks__reducer_config *config)
{
    lks_status status = map_regions(reducer);
    if (reducer->all_slots == NULL)
        return status;
    if (status == LKS_OK)
        status = create_exchange(reducer, config);
    return lks__agree(reducer->group, status);
}

static lks_status allocate(lks__reducer *reducer, const lks__reducer_config *config)
{
    int size = reducer->size, group_size = reducer->group_size;
    reducer->arenas = lks__alloc_array(reducer->n_arenas, sizeof *reducer->arenas, LKS__MEM_GRADS);
    reducer->member_arenas = lks__alloc_array(size, sizeof *reducer->member_arenas, LKS__MEM_COMM);
    reducer->slots = lks__alloc_array(group_size, sizeof *reducer->slots, LKS__MEM_COMM);
    reducer->rank_values = lks__alloc_array(group_size, sizeof *reducer->rank_values, LKS__MEM_COMM);
    reducer->block_sources = lks__alloc_array(size, sizeof *reducer->block_sources, LKS__MEM_COMM);
    reducer->block_sum = lks__alloc_array(LKS__BLOCK_ELEMS, sizeof *reducer->block_sum, LKS__MEM_COMM);
    reducer->first_block = lks__alloc_array(config->n_tensors + 1, sizeof *reducer->first_block,
                                            LKS__MEM_COMM);
    if (!reducer->arenas || !reducer->member_arenas || !reducer->slots || !reducer->rank_values ||
        !reducer->block_sources || !reducer->block_sum || !reducer->first_block)
        return LKS_E_NOMEM;
    if (group_size > size)
        reducer->all_slots = lks__alloc_array(group_size, sizeof *reducer->all_slots, LKS__MEM_COMM);
    if (group_size > size && !reducer->all_slots)
        return LKS_E_NOMEM;

    for (int i = 1; i < reducer->n_arenas; i++)
        if (!(reducer->arenas[i] = lks__alloc_array(config->arena_elems, sizeof(float), LKS__MEM_GRADS)))
            return LKS_E_NOMEM;

    number_blocks(reducer, config->tensors);
    list_chunk(reducer, config->tensors);
    reducer->chunk = lks__alloc_array(reducer->n_chunk, sizeof *reducer->chunk, LKS__MEM_COMM);
    if (!reducer->chunk)
        return LKS_E_NOMEM;
    list_chunk(reducer, config->tensors);
    return LKS_OK;
}

/* All that needs no other member. */
static lks_status create_local(const lks__reducer_config *config, lks__reducer **out)
{
    *out = NULL;
    lks_status status = check_config(config);
    if (status != LKS_OK)
        return status;
    lks__reducer *reducer = lks__alloc(sizeof *reducer, LKS__MEM_COMM);
    if (!reducer)
        return LKS_E_NOMEM;
    reducer->group = config->group;
    reducer->group_size = lks_group_size(config->group);
    reducer->node = lks_group_node(config->group);
    reducer->rank = lks_group_rank(reducer->node);
    reducer->size = lks_group_size(reducer->node);
    reducer->arena_elems = config->arena_elems;
    reducer->leaves = config->leaves;
    reducer->n_arenas = floor_log2(config->leaves) + 1;
    reducer->n_tensors = config->n_tensors;
    *out = reducer;
    return allocate(reducer, config);
}

lks_status lks__reducer_create(const lks__reducer_config *config, lks__reducer **out)
{
    *out = NULL;
    lks__reducer *reducer;
    lks_status status = lks__agree(config->group, create_local(config, &reducer));
    if (status == LKS_OK)
        status = create_shared(reducer, config);
    if (status != LKS_OK) {
        lks__reducer_destroy(reducer);
        return status;
    }
    *out = reducer;
    return LKS_OK;
}

void lks__reducer_destroy(lks__reducer *reducer)
{
    if (!reducer)
        return;
    lks__exchange_destroy(reducer->exchange);
    lks_group_memory_destroy(reducer->memory);
    lks__free(reducer->chunk);
    for (int i = 1; reducer->arenas && i < reducer->n_arenas; i++)
        lks__free(reducer->arenas[i]);
    lks__free(reducer->all_slots);
    lks__free(reducer->first_block);
    lks__free(reducer->block_sum);
    lks__free(reducer->block_sources);
    lks__free(reducer->rank_values);
    lks__free(reducer->slots);
    lks__free(reducer->member_arenas);
    lks__free(reducer->arenas);
    lks__free(reducer);
}

float *lks__reducer_leaf(lks__reducer *reducer)
{
    return reducer->arenas[reducer->n_pending];
}

/* The last two pending sums become one. */
static void merge_pending(lks__reducer *reducer)
{
    float *left = reducer->arenas[reducer->n_pending - 2];
    const void *const sums[] = {left, reducer->arenas[reducer->n_pending - 1]};
    lks__reduce(left, sums, 2, (size_t)reducer->arena_elems, LKS_F32, LKS_SUM);
    reducer->n_pending--;
}

/* Merges a part of all pending sums and of the leaf above them, as leaf_done does after a step's last leaf:
 * from the top. */
static void fold(const lks__reducer *reducer, const lks__span *part)
{
    for (int top = reducer->n_pending; top > 0; top--) {
        float *left = reducer->arenas[top - 1] + part->offset_elems;
        const void *const sums[] = {left, reducer->arenas[top] + part->offset_elems};
        lks__reduce(left, sums, 2, (size_t)part->n_elems, LKS_F32, LKS_SUM);
    }
}

/* Sends off what is final of the last leaf's gradients: all from this tensor on. */
static void exchange_from(lks__reducer *reducer, int tensor)
{
    lks__span part;
    lks_status status = LKS_OK; /* a failure is the group's: begin tells */
    while (status == LKS_OK && lks__exchange_next(reducer->exchange, tensor, &part)) {
        fold(reducer, &part);
        status = lks__exchange_post(reducer->exchange);
    }
}

void lks__reducer_tensor_ready(lks__reducer *reducer, int tensor)
{
    if (reducer->exchange != NULL && reducer->n_done == reducer->leaves - 1)
        exchange_from(reducer, tensor);
}

bool lks__reducer_keeps_own_sum(const lks__reducer *reducer)
{
    return reducer->exchange == NULL;
}

void lks__reducer_leaf_done(lks__reducer *reducer, bool empty)
{
    if (empty)
        memset(lks__reducer_leaf(reducer), 0, (size_t)reducer->arena_elems * sizeof(float));
    if (reducer->exchange != NULL && reducer->n_done == reducer->leaves - 1) {
        exchange_from(reducer, 0);
        reducer->n_done++;
        return;
    }
    reducer->n_pending++;
    reducer->n_done++;
    for (int64_t n = reducer->n_done; n % 2 == 0; n /= 2)
        merge_pending(reducer);
    while (reducer->n_done == reducer->leaves && reducer->n_pending > 1)
        merge_pending(reducer);
}

static lks_status timed_barrier(lks__reducer *reducer)
{
    int64_t start = lks__now_ns();
    lks_status status = lks_group_barrier(reducer->node);
    reducer->times_ns.wait += lks__now_ns() - start;
    return status;
}

static lks_status timed_exchange(lks__reducer *reducer)
{
    int64_t start = lks__now_ns();
    lks_status status = lks__exchange_finish(reducer->exchange);
    reducer->times_ns.wait += lks__now_ns() - start;
    return status;
}

static void combine_slots(lks__reducer *reducer, lks__step_io *io)
{
    for (int k = 0; k < LKS__STEP_SUMS; k++) {
        for (int rank = 0; rank < reducer->group_size; rank++)
            reducer->rank_values[rank] = reducer->slots[rank]->sums[k];
        io->sums[k] = lks__tree_sum(reducer->rank_values, reducer->group_size);
    }
    for (int rank = 0; rank < reducer->group_size; rank++) {
        const step_slot *slot = reducer->slots[rank];
        io->flag = rank == 0 || slot->flag > io->flag ? slot->flag : io->flag;
        io->requests |= slot->requests;
    }
}

lks_status lks__reducer_begin(lks__reducer *reducer, lks__step_io *io)
{
    if (reducer->n_done != reducer->leaves)
        return lks__fail(LKS_E_INTERNAL, "a step with %lld of %lld leaves done", (long long)reducer->n_done,
                         (long long)reducer->leaves);
    memcpy(reducer->own_slot->sums, io->sums, sizeof io->sums);
    reducer->own_slot->flag = io->flag;
    reducer->own_slot->requests = io->requests;
    /* every member's arena and slot are written; over several machines, they have come here */
    lks_status status = reducer->exchange != NULL ? timed_exchange(reducer) : timed_barrier(reducer);
    if (status != LKS_OK)
        return status;
    combine_slots(reducer, io);
    reducer->n_done = reducer->n_pending = 0;
    reducer->in_step = true;
    reducer->has_sums = reducer->exchange != NULL;
    return LKS_OK;
}

/* Adds a block over the members. Returns the sum: valid until the next call, with one member in the arena
 * itself. */
static float *sum_block(const lks__reducer *reducer, const lks__block *block)
{
    if (reducer->size == 1)
        return reducer->arenas[0] + block->offset_elems;
    for (int rank = 0; rank < reducer->size; rank++)
        reducer->block_sources[rank] = reducer->member_arenas[rank] + block->offset_elems;
    lks__reduce(reducer->block_sum, reducer->block_sources, reducer->size, (size_t)block->n_elems, LKS_F32,
                LKS_SUM);
    return reducer->block_sum;
}

/* What a pass left in a block goes to the own arena, where nobody else looks at the own chunk any more. */
static void keep_block(const lks__reducer *reducer, const lks__block *block)
{
    float *place = reducer->arenas[0] + block->offset_elems;
    if (block->grad != place)
        memcpy(place, block->grad, (size_t)block->n_elems * sizeof *place);
}

/* The contributions of a pass: [n_blocks] for each of the LKS__BLOCK_VALUES. */
static double *values_of_pass(const lks__reducer *reducer)
{
    return reducer->values + reducer->n_passes % VALUE_SETS * LKS__BLOCK_VALUES * n_blocks(reducer);
}

static void walk_chunk(lks__reducer *reducer, const lks__pass *pass)
{
    double *out = values_of_pass(reducer) + reducer->chunk_first;
    int64_t start = lks__now_ns();
    for (int64_t i = 0; i < reducer->n_chunk; i++) {
        lks__block block = reducer->chunk[i];
        block.grad = reducer->has_sums ? reducer->arenas[0] + block.offset_elems : sum_block(reducer, &block);
        int64_t reduced = lks__now_ns();
        double values[LKS__BLOCK_VALUES] = {0};
        pass->block(pass->context, &block, values);
        if (pass->keeps)
            keep_block(reducer, &block);
        for (int k = 0; k < LKS__BLOCK_VALUES; k++)
            out[k * n_blocks(reducer) + i] = values[k];
        int64_t end = lks__now_ns();
        reducer->times_ns.reduce += reduced - start;
        reducer->times_ns.block += end - reduced;
        start = end;
    }
}

static void sum_values(const lks__reducer *reducer, const double *block_values, double *tensor_values)
{
    for (int i = 0; i < reducer->n_tensors; i++) {
        int64_t first = reducer->first_block[i];
        tensor_values[i] = lks__tree_sum(block_values + first, reducer->first_block[i + 1] - first);
    }
}

lks_status lks__reducer_pass(lks__reducer *reducer, const lks__pass *pass)
{
    if (!reducer->in_step)
        return lks__fail(LKS_E_INTERNAL, "a pass outside of a step");
    if (pass->block != NULL)
        walk_chunk(reducer, pass);
    lks_status status = timed_barrier(reducer); /* every chunk is done; arenas and slots have been read */
    if (status != LKS_OK)
        return status;
    for (int k = 0; k < LKS__BLOCK_VALUES && pass->block != NULL; k++)
        if (pass->tensor_values[k] != NULL)
            sum_values(reducer, values_of_pass(reducer) + k * n_blocks(reducer), pass->tensor_values[k]);
    reducer->n_passes++;
    reducer->has_sums = pass->keeps;
    reducer->in_step = pass->keeps;
    return LKS_OK;
}

lks__reducer_times lks__reducer_get_times(const lks__reducer *reducer)
{
    lks__exchange_times exchange = {0, 0};
    if (reducer->exchange != NULL)
        exchange = lks__exchange_get_times(reducer->exchange);
    return (lks__reducer_times){.wait = (double)reducer->times_ns.wait * 1e-9,
                                .reduce = (double)reducer->times_ns.reduce * 1e-9,
                                .block = (double)reducer->times_ns.block * 1e-9,
                                .exchange = (double)exchange.under_way * 1e-9,
                                .exposed = (double)exchange.exposed * 1e-9};
}
