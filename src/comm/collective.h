/* SPDX-License-Identifier: Apache-2.0 */
/** What a member asks of its group, as data: checked once, compared between members, put into words. */
#ifndef LKS_COMM_COLLECTIVE_H
#define LKS_COMM_COLLECTIVE_H

#include <stddef.h>
#include <stdint.h>

#include <lockstep/group.h>

/* X(name, what it is called in messages, format of its arguments: t type, n count, o operation, r root) */
#define LKS__COLLECTIVES(X)                                                                                  \
    X(CREATE, "group_create", "")                                                                            \
    X(BARRIER, "barrier", "")                                                                                \
    X(MEMORY, "memory_create", "")                                                                           \
    X(ALL_REDUCE, "all_reduce", "otn")                                                                       \
    X(BROADCAST, "broadcast", "tnr")

typedef enum lks__collective {
#define LKS__COLLECTIVE_ENUM(name, text, arguments) LKS__##name,
    LKS__COLLECTIVES(LKS__COLLECTIVE_ENUM)
#undef LKS__COLLECTIVE_ENUM
        LKS__N_COLLECTIVES
} lks__collective;

enum { LKS__N_DTYPES = LKS_U8 + 1, LKS__N_OPS = LKS_MAX + 1, LKS__REQUEST_TEXT_BYTES = 96 };

/** One operation as a member asks for it; fields that it does not use are 0. */
typedef struct lks__request {
    lks__collective collective;
    lks_dtype dtype;
    lks_op op;
    int root;
    size_t count; /* elements */
    void *data;   /* [count]; borrowed */
} lks__request;

/** What must be equal on all members, in a form that fits two atomic words. */
typedef struct lks__signature {
    uint64_t what; /* collective, dtype, op, root */
    uint64_t count;
} lks__signature;

/** Bytes of one element; dtype must be valid. */
size_t lks__dtype_bytes(lks_dtype dtype);

/** Returns: LKS_OK, or LKS_E_ARG with the argument that is not allowed in a group of `size`. */
lks_status lks__request_check(const lks__request *request, int size) LKS_MUST_USE;

lks__signature lks__request_signature(const lks__request *request);

/** "all_reduce(sum, f32, 1000)". Any signature is fine, one from damaged memory too. Returns out. */
const char *lks__signature_text(lks__signature signature, char out[LKS__REQUEST_TEXT_BYTES]);

#endif
