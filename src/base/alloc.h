/* SPDX-License-Identifier: Apache-2.0 */
/** The one way to the heap: counted by category, and the nth allocation can be made to fail. */
#ifndef LKS_BASE_ALLOC_H
#define LKS_BASE_ALLOC_H

#include <stddef.h>
#include <stdint.h>

#include <lockstep/status.h>

typedef enum lks__mem {
    LKS__MEM_MISC,
    LKS__MEM_PARAMS,
    LKS__MEM_OPTIMIZER,
    LKS__MEM_GRADS,
    LKS__MEM_ACTIVATIONS,
    LKS__MEM_DATA,
    LKS__MEM_CHECKPOINT,
    LKS__MEM_COMM,
    LKS__MEM_CATEGORIES
} lks__mem;

enum { LKS__ALIGNMENT = 64 }; /* a cache line, and the widest vector */

/** The smallest multiple of `multiple` that is not below n. */
static inline size_t lks__round_up(size_t n, size_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

/** Zeroed memory, aligned to LKS__ALIGNMENT. NULL on failure, with the error message set. 0 bytes gives a
 * valid pointer. */
void *lks__alloc(size_t bytes, lks__mem category);

/** As lks__alloc for `n` elements; an overflow of n * bytes is a failure. */
void *lks__alloc_array(int64_t n, size_t bytes, lks__mem category);

/** Resizes memory of lks__alloc, NULL included; new bytes are zero. On failure NULL, and `memory` is
 * untouched. */
void *lks__realloc(void *memory, size_t bytes, lks__mem category);

/** NULL is fine. */
void lks__free(void *memory);

/** A copy of `text`, in LKS__MEM_MISC. */
char *lks__strdup(const char *text);

/** Counts memory that comes from elsewhere (shared memory): `bytes` more, or less when negative. */
void lks__alloc_note(int64_t bytes, lks__mem category);

/** Counts bytes of one category in another from now on. */
void lks__alloc_recount(int64_t bytes, lks__mem from, lks__mem to);

/** Bytes that the whole program has allocated now in a category. */
int64_t lks__alloc_bytes(lks__mem category);
/** How many allocations this thread has ever made. */
int64_t lks__alloc_count(void);

/** Makes the nth allocation from now (1: the next) fail, once; 0: none. For tests. */
void lks__alloc_fail_nth(int64_t n);

#endif
