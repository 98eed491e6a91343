/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* Before every block; as large as the alignment so that the block keeps it. */
typedef struct header {
    size_t bytes;
    lks__mem category;
    char pad[LKS__ALIGNMENT - sizeof(size_t) - sizeof(lks__mem)];
} header;

_Static_assert(sizeof(header) == LKS__ALIGNMENT, "a block starts one alignment after its header");

/* Counters only: no other memory is published through them, so relaxed order is enough. */
static _Atomic int64_t bytes_in_use[LKS__MEM_CATEGORIES];
static _Atomic int64_t fail_countdown;

static _Thread_local int64_t n_allocations;

static int must_fail(void)
{
    if (atomic_load_explicit(&fail_countdown, memory_order_relaxed) == 0)
        return 0;
    return atomic_fetch_sub_explicit(&fail_countdown, 1, memory_order_relaxed) == 1;
}

void *lks__alloc(size_t bytes, lks__mem category)
{
    size_t total = 0;
    header *block = NULL;
    /* aligned_alloc wants a multiple of the alignment */
    if (!__builtin_add_overflow(bytes, sizeof(header) + LKS__ALIGNMENT - 1, &total) && !must_fail())
        block = aligned_alloc(LKS__ALIGNMENT, total / LKS__ALIGNMENT * LKS__ALIGNMENT);
    if (block == NULL) {
        (void)lks__fail(LKS_E_NOMEM, "out of memory: %zu bytes", bytes);
        return NULL;
    }
    memset(block, 0, sizeof(header) + bytes);
    block->bytes = bytes;
    block->category = category;
    atomic_fetch_add_explicit(&bytes_in_use[category], (int64_t)bytes, memory_order_relaxed);
    n_allocations++;
    return block + 1;
}

void *lks__alloc_array(int64_t n, size_t bytes, lks__mem category)
{
    size_t total;
    if (n < 0 || __builtin_mul_overflow((size_t)n, bytes, &total)) {
        (void)lks__fail(LKS_E_NOMEM, "out of memory: %lld elements of %zu bytes", (long long)n, bytes);
        return NULL;
    }
    return lks__alloc(total, category);
}

void *lks__realloc(void *memory, size_t bytes, lks__mem category)
{
    void *grown = lks__alloc(bytes, category);
    if (grown != NULL && memory != NULL) {
        size_t old = ((header *)memory - 1)->bytes;
        memcpy(grown, memory, old < bytes ? old : bytes);
        lks__free(memory);
    }
    return grown;
}

void lks__free(void *memory)
{
    if (memory == NULL)
        return;
    header *block = (header *)memory - 1;
    atomic_fetch_sub_explicit(&bytes_in_use[block->category], (int64_t)block->bytes, memory_order_relaxed);
    free(block);
}

char *lks__strdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = lks__alloc(bytes, LKS__MEM_MISC);
    if (copy != NULL)
        memcpy(copy, text, bytes);
    return copy;
}

void lks__alloc_note(int64_t bytes, lks__mem category)
{
    atomic_fetch_add_explicit(&bytes_in_use[category], bytes, memory_order_relaxed);
}

void lks__alloc_recount(int64_t bytes, lks__mem from, lks__mem to)
{
    lks__alloc_note(-bytes, from);
    lks__alloc_note(bytes, to);
}

int64_t lks__alloc_bytes(lks__mem category)
{
    return atomic_load_explicit(&bytes_in_use[category], memory_order_relaxed);
}

int64_t lks__alloc_count(void)
{
    return n_allocations;
}

void lks__alloc_fail_nth(int64_t n)
{
    atomic_store_explicit(&fail_countdown, n, memory_order_relaxed);
}
