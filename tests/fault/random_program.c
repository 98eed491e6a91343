/* SPDX-License-Identifier: Apache-2.0 */
#include "fault/random_program.h"

#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 6 << 20, MEMORY_BYTES = 1 << 20, MOST_REQUESTS = 4, ROW_ALIGNMENT = 64 };

static const size_t element_sizes[] = {
    [LKS_F32] = 4, [LKS_F64] = 8, [LKS_I32] = 4, [LKS_I64] = 8, [LKS_U8] = 1, [LKS_BF16] = 2};

uint64_t dice_below(dice *self, uint64_t n)
{
    uint64_t z = self->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (z ^ z >> 31) % n;
}

void random_program_init(random_program *self, lks_group *group, uint64_t seed)
{
    *self = (random_program){.group = group, .dice = {seed}};
    self->in = calloc(1, MOST_BYTES);
    self->out = calloc(1, MOST_BYTES);
    if (self->in == NULL || self->out == NULL)
        abort();
}

void random_program_deinit(random_program *self)
{
    lks_group_destroy(self->part);
    lks_group_memory_destroy(self->memory);
    free(self->in);
    free(self->out);
}

/* Nothing, one, a few, some that take one piece, some that take many. */
static size_t some_bytes(dice *d)
{
    static const size_t limits[] = {1, 9, 4000, 300000, MOST_BYTES};
    return dice_below(d, limits[dice_below(d, sizeof limits / sizeof limits[0])]);
}

/* ---- collectives ---- */

/* Any collective, with buffers that are the program's or, sometimes, in group memory. */
static lks_operation some_collective(random_program *self, lks_group *group)
{
    dice *d = &self->dice;
    int size = lks_group_size(group), rank = lks_group_rank(self->group);
    lks_operation o = {.in = self->in, .out = self->out};
    o.collective = (lks_collective)dice_below(d, LKS_ALL_TO_ALL + 1);
    o.dtype = (lks_dtype)dice_below(d, LKS_BF16 + 1);
    o.op = (lks_op)dice_below(d, LKS_PROD + 1);
    if (o.op == LKS_MEAN && (o.dtype == LKS_I32 || o.dtype == LKS_I64 || o.dtype == LKS_U8))
        o.op = LKS_MAX;
    o.root = (int)dice_below(d, (uint64_t)size);
    o.count = some_bytes(d) / element_sizes[o.dtype] / (size_t)size;
    bool in_place = dice_below(d, 2) == 0, in_memory = dice_below(d, 2) == 0;
    if (in_memory && self->memory != NULL && o.count * element_sizes[o.dtype] * (size_t)size <= MEMORY_BYTES)
        o.in = lks_group_memory_at(self->memory, rank);
    if (in_place && (o.collective == LKS_ALL_REDUCE || o.collective == LKS_ALL_TO_ALL))
        o.out = (void *)o.in;
    return o;
}

/* In the group, or in all parts of it at once. */
static lks_status run_collective(random_program *self)
{
    bool in_parts = dice_below(&self->dice, 3) == 0;
    if (!in_parts) {
        lks_operation o = some_collective(self, self->group);
        return lks_group_run(self->group, &o);
    }
    if (self->part == NULL)
        return LKS_OK;
    dice common = self->dice; /* to which all come back; what is thrown depends on the part's size */
    lks_operation o = some_collective(self, self->part);
    self->dice = common;
    return lks_group_run(self->part, &o);
}

/* ---- messages ---- */

static lks_operation message(random_program *self, lks_collective direction, int other, size_t bytes)
{
    return (lks_operation){.collective = direction,
                           .dtype = LKS_U8,
                           .root = other,
                           .count = bytes,
                           .in = self->in,
                           .out = self->out};
}

/* From every rank to the next one. */
static lks_status round_the_ring(random_program *self)
{
    int rank = lks_group_rank(self->group), size = lks_group_size(self->group);
    size_t bytes = some_bytes(&self->dice);
    lks_operation send = message(self, LKS_SEND, (rank + 1) % size, bytes);
    lks_operation recv = message(self, LKS_RECV, (rank + size - 1) % size, bytes);
    bool sends_first = rank % 2 == 0;
    lks_status status = lks_group_run(self->group, sends_first ? &send : &recv);
    return status == LKS_OK ? lks_group_run(self->group, sends_first ? &recv : &send) : status;
}

/* From rank to rank, like a word that is passed on: all wait for the one before. */
static lks_status along_the_chain(random_program *self)
{
    int rank = lks_group_rank(self->group), size = lks_group_size(self->group);
    size_t bytes = some_bytes(&self->dice);
    lks_operation send = message(self, LKS_SEND, rank + 1, bytes);
    lks_operation recv = message(self, LKS_RECV, rank - 1, bytes);
    lks_status status = rank > 0 ? lks_group_run(self->group, &recv) : LKS_OK;
    return status == LKS_OK && rank < size - 1 ? lks_group_run(self->group, &send) : status;
}

/* ---- requests ---- */

static lks_status finish(lks_request *request, bool by_tests)
{
    if (!by_tests)
        return lks_request_wait(request);
    lks_status status;
    while ((status = lks_request_test(request)) == LKS_IN_PROGRESS)
        sched_yield();
    return status;
}

/* Collectives, and messages round the ring, all under way at once; finished in another order. */
static lks_status several_requests(random_program *self)
{
    lks_request *requests[MOST_REQUESTS + 2] = {NULL};
    int rank = lks_group_rank(self->group), size = lks_group_size(self->group), n = 0;
    int n_collectives = (int)dice_below(&self->dice, MOST_REQUESTS + 1);
    size_t bytes = some_bytes(&self->dice);
    bool by_tests = dice_below(&self->dice, 2) == 0, backwards = dice_below(&self->dice, 2) == 0;
    lks_operation send = message(self, LKS_SEND, (rank + 1) % size, bytes);
    lks_operation recv = message(self, LKS_RECV, (rank + size - 1) % size, bytes);
    recv.out = self->out + MOST_BYTES / 2; /* not where the collectives write, as long as it is short */
    recv.count = send.count = bytes / 2;
    lks_status status = lks_request_create(self->group, &send, &requests[n++]);
    if (status == LKS_OK)
        status = lks_request_create(self->group, &recv, &requests[n++]);
    for (int i = 0; i < n_collectives && status == LKS_OK; i++) {
        lks_operation o = some_collective(self, self->group);
        status = lks_request_create(self->group, &o, &requests[n++]);
    }
    for (int i = 0; i < n && status == LKS_OK; i++)
        status = lks_request_post(requests[i]);
    for (int i = 0; i < n && status == LKS_OK; i++)
        status = finish(requests[backwards ? n - 1 - i : i], by_tests);
    for (int i = 0; i < n; i++)
        lks_request_destroy(requests[i]);
    return status;
}

/* ---- groups and memory ---- */

/* Some members may get none. */
static lks_status another_part(random_program *self)
{
    lks_group_destroy(self->part);
    self->part = NULL;
    int rank = lks_group_rank(self->group);
    int n_colours = 1 + (int)dice_below(&self->dice, 3), turn = (int)dice_below(&self->dice, 8);
    bool with_none = dice_below(&self->dice, 2) == 0, reversed = dice_below(&self->dice, 2) == 0;
    int colour = (rank + turn) % (n_colours + with_none) - with_none;
    return lks_group_split(self->group, colour, reversed ? -rank : rank, &self->part);
}

static lks_status other_memory(random_program *self)
{
    lks_group_memory_destroy(self->memory);
    self->memory = NULL;
    return lks_group_memory_create(self->group, MEMORY_BYTES, &self->memory);
}

lks_status random_program_step(random_program *self)
{
    switch (dice_below(&self->dice, 12)) {
    case 0:
        return round_the_ring(self);
    case 1:
        return along_the_chain(self);
    case 2:
    case 3:
        return several_requests(self);
    case 4:
        return another_part(self);
    case 5:
        return other_memory(self);
    default:
        return run_collective(self);
    }
}

/* ---- after a failure ---- */

static int is_wrong(lks_status got, lks_status status, const char *text)
{
    return got != status || (text != NULL && strcmp(lks_error_message(), text) != 0);
}

static int wrong_calls_of(random_program *self, lks_group *group, lks_status status, const char *text)
{
    int n = 0, size = lks_group_size(group), rank = lks_group_rank(group);
    for (int c = LKS_BARRIER; c <= LKS_RECV; c++) {
        lks_operation o = {.collective = (lks_collective)c, .dtype = LKS_F32, .op = LKS_SUM, .count = 10};
        o.in = self->in, o.out = self->out, o.root = (rank + 1) % size;
        lks_request *request;
        n += is_wrong(lks_group_run(group, &o), status, text);
        if (lks_request_create(group, &o, &request) != LKS_OK)
            return n + 1;
        n += is_wrong(lks_request_post(request), status, text);
        n += is_wrong(lks_request_test(request), status, text);
        n += is_wrong(lks_request_wait(request), status, text);
        lks_request_destroy(request);
    }
    return n;
}

int random_program_wrong_calls(random_program *self, lks_status status, const char *text)
{
    lks_group *part;
    lks_group_memory *memory;
    int n = wrong_calls_of(self, self->group, status, text);
    n += is_wrong(lks_group_split(self->group, 0, 0, &part), status, text);
    n += is_wrong(lks_group_memory_create(self->group, 100, &memory), status, text);
    /* a part's message is in the words of its own ranks; one of a single member need not fail */
    if (self->part != NULL && lks_group_size(self->part) > 1)
        n += wrong_calls_of(self, self->part, status, NULL);
    return n;
}
