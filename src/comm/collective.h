/* SPDX-License-Identifier: Apache-2.0 */
/** What a member asks of its group, as data: checked once, compared between members, put into words. */
#ifndef LKS_COMM_COLLECTIVE_H
#define LKS_COMM_COLLECTIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lockstep/group.h>

/* The groups' own: they cannot be asked for by lks_group_run. */
#define LKS__CREATE ((lks_collective)(LKS_RECV + 1))
#define LKS__MEMORY ((lks_collective)(LKS_RECV + 2))
#define LKS__SPLIT  ((lks_collective)(LKS_RECV + 3))

/* X(value, what it is called in messages, format of its arguments, who reads `in`, who writes `out`)
 *
 * arguments: o operation, t type, n count, r root, d destination, s source
 * who:       a all, r the root, o all but the root, - nobody; then 1: [count], or P: [size, count] */
#define LKS__COLLECTIVES(X)                                                                                  \
    X(LKS_BARRIER, "barrier", "", "-", "-")                                                                  \
    X(LKS_ALL_REDUCE, "all_reduce", "otn", "a1", "a1")                                                       \
    X(LKS_BROADCAST, "broadcast", "tnr", "r1", "o1")                                                         \
    X(LKS_REDUCE, "reduce", "otnr", "a1", "r1")                                                              \
    X(LKS_ALL_GATHER, "all_gather", "tn", "a1", "aP")                                                        \
    X(LKS_REDUCE_SCATTER, "reduce_scatter", "otn", "aP", "a1")                                               \
    X(LKS_GATHER, "gather", "tnr", "a1", "rP")                                                               \
    X(LKS_SCATTER, "scatter", "tnr", "rP", "a1")                                                             \
    X(LKS_ALL_TO_ALL, "all_to_all", "tn", "aP", "aP")                                                        \
    X(LKS_SEND, "send", "tnd", "a1", "-")                                                                    \
    X(LKS_RECV, "recv", "tns", "-", "a1")                                                                    \
    X(LKS__CREATE, "group_create", "", "-", "-")                                                             \
    X(LKS__MEMORY, "memory_create", "", "-", "-")                                                            \
    X(LKS__SPLIT, "group_split", "", "-", "-")

enum {
    LKS__N_COLLECTIVES = LKS_RECV + 4,
    LKS__N_DTYPES = LKS_BF16 + 1,
    LKS__N_OPS = LKS_PROD + 1,
    LKS__OPERATION_TEXT_BYTES = 96,
};

/** What must be equal on all members, in a form that fits two atomic words. */
typedef struct lks__signature {
    uint64_t what; /* collective, dtype, op, root */
    uint64_t count;
} lks__signature;

/** Bytes of one element; dtype must be valid. */
size_t lks__dtype_bytes(lks_dtype dtype);

/** What they are called in messages; each must be valid. */
const char *lks__collective_name(lks_collective collective);
const char *lks__dtype_name(lks_dtype dtype);
const char *lks__op_name(lks_op op);

/** Whether it has such an argument, one of the letters of LKS__COLLECTIVES. */
bool lks__collective_takes(lks_collective collective, char argument);

/** Checks what this rank of a group of `size` asks for; *out is that, with every unused field 0.
 *
 * Returns: LKS_OK, or LKS_E_ARG with the argument that is not allowed. */
lks_status lks__operation_check(const lks_operation *asked, int rank, int size,
                                lks_operation *out) LKS_MUST_USE;

/** Whether it is between two members only. */
static inline bool lks__is_message(const lks_operation *operation)
{
    return operation->collective == LKS_SEND || operation->collective == LKS_RECV;
}

lks__signature lks__operation_signature(const lks_operation *operation);

/** "all_reduce(sum, f32, 1000)". Any signature is fine, one from damaged memory too. Returns out. */
const char *lks__signature_text(lks__signature signature, char out[LKS__OPERATION_TEXT_BYTES]);

static inline bool lks__same_signature(lks__signature a, lks__signature b)
{
    return a.what == b.what && a.count == b.count;
}

/** What each of n members asked for: "rank 0, rank 2: barrier; ranks 3 to 7: all_reduce(sum, f32, 10)". Every
 * signature once, with those who have it, in the order of the first of them; what does not fit is "and
 * others". Returns text. */
const char *lks__mismatch_text(int n, const lks__signature *signatures, size_t capacity, char *text);

#endif
