/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/collective.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"

static const struct {
    const char *name;
    const char *arguments;
    const char *in, *out;
} collectives[LKS__N_COLLECTIVES] = {
#define ROW(value, text, arguments, in, out) [value] = {text, arguments, in, out},
    LKS__COLLECTIVES(ROW)
#undef ROW
};

static const struct {
    const char *name;
    size_t bytes;
    bool is_float;
} dtypes[LKS__N_DTYPES] = {
    [LKS_F32] = {"f32", 4, true},  [LKS_F64] = {"f64", 8, true}, [LKS_I32] = {"i32", 4, false},
    [LKS_I64] = {"i64", 8, false}, [LKS_U8] = {"u8", 1, false},  [LKS_BF16] = {"bf16", 2, true},
};

static const char *const ops[LKS__N_OPS] = {
    [LKS_SUM] = "sum", [LKS_MEAN] = "mean", [LKS_MAX] = "max", [LKS_MIN] = "min", [LKS_PROD] = "prod"};

size_t lks__dtype_bytes(lks_dtype dtype)
{
    return dtypes[dtype].bytes;
}

const char *lks__collective_name(lks_collective collective)
{
    return collectives[collective].name;
}

const char *lks__dtype_name(lks_dtype dtype)
{
    return dtypes[dtype].name;
}

const char *lks__op_name(lks_op op)
{
    return ops[op];
}

bool lks__collective_takes(lks_collective collective, char argument)
{
    return strchr(collectives[collective].arguments, argument) != NULL;
}

/* Whether this rank uses a buffer of which `use` says who does. */
static bool uses(const char *use, const lks_operation *operation, int rank)
{
    bool is_root = rank == operation->root;
    return use[0] == 'a' || (use[0] == 'r' && is_root) || (use[0] == 'o' && !is_root);
}

static lks_status check_buffer(const char *use, const void *buffer, const char *what,
                               const lks_operation *operation, int rank)
{
    if (buffer != NULL || operation->count == 0 || !uses(use, operation, rank))
        return LKS_OK;
    return lks__fail(LKS_E_ARG, "%s: the %s is NULL, but the count is %zu",
                     collectives[operation->collective].name, what, operation->count);
}

static lks_status check_data(const lks_operation *operation, int size)
{
    const char *name = collectives[operation->collective].name;
    if ((unsigned)operation->dtype >= LKS__N_DTYPES)
        return lks__fail(LKS_E_ARG, "%s: %d is no element type", name, (int)operation->dtype);
    /* of every member, whether the operation has as many or not: no product of the three can overflow */
    if (operation->count > PTRDIFF_MAX / dtypes[operation->dtype].bytes / (size_t)size)
        return lks__fail(LKS_E_ARG, "%s: %zu elements of %s of %d members do not fit into memory", name,
                         operation->count, dtypes[operation->dtype].name, size);
    return LKS_OK;
}

static lks_status check_op(const lks_operation *operation)
{
    const char *name = collectives[operation->collective].name;
    if ((unsigned)operation->op >= LKS__N_OPS)
        return lks__fail(LKS_E_ARG, "%s: %d is no operation", name, (int)operation->op);
    if (operation->op == LKS_MEAN && !dtypes[operation->dtype].is_float)
        return lks__fail(LKS_E_ARG, "%s: mean of %s is not defined; f32, f64 and bf16 are", name,
                         dtypes[operation->dtype].name);
    return LKS_OK;
}

static lks_status check_root(const lks_operation *operation, const char *word, int rank, int size)
{
    const char *name = collectives[operation->collective].name;
    if (operation->root < 0 || operation->root >= size)
        return lks__fail(LKS_E_ARG, "%s: %s %d is not in 0..%d", name, word, operation->root, size - 1);
    if (lks__is_message(operation) && operation->root == rank)
        return lks__fail(LKS_E_ARG, "%s: rank %d cannot exchange messages with itself", name, rank);
    return LKS_OK;
}

static lks_status check_argument(const lks_operation *operation, char argument, int rank, int size)
{
    switch (argument) {
    case 't':
        return check_data(operation, size);
    case 'o':
        return check_op(operation);
    case 'r':
        return check_root(operation, "root", rank, size);
    case 'd':
    case 's':
        return check_root(operation, "rank", rank, size);
    default:
        return LKS_OK;
    }
}

/* What the operation uses of the asked one; all else is 0. */
static lks_operation used_part(const lks_operation *asked)
{
    lks_operation used = {.collective = asked->collective, .in = asked->in, .out = asked->out};
    for (const char *a = collectives[asked->collective].arguments; *a != '\0'; a++) {
        if (*a == 'o')
            used.op = asked->op;
        else if (*a == 't')
            used.dtype = asked->dtype;
        else if (*a == 'n')
            used.count = asked->count;
        else
            used.root = asked->root;
    }
    return used;
}

lks_status lks__operation_check(const lks_operation *asked, int rank, int size, lks_operation *out)
{
    if ((unsigned)asked->collective > LKS_RECV)
        return lks__fail(LKS_E_ARG, "%d is no collective", (int)asked->collective);
    const char *arguments = collectives[asked->collective].arguments;
    lks_operation used = used_part(asked);
    lks_status status = LKS_OK;
    if (strchr(arguments, 't') != NULL) /* first: the others look the type up */
        status = check_argument(&used, 't', rank, size);
    for (const char *a = arguments; *a != '\0' && status == LKS_OK; a++)
        status = check_argument(&used, *a, rank, size);
    if (status == LKS_OK)
        status = check_buffer(collectives[used.collective].in, used.in, "input", &used, rank);
    if (status == LKS_OK)
        status = check_buffer(collectives[used.collective].out, used.out, "output", &used, rank);
    if (status == LKS_OK)
        *out = used;
    return status;
}

lks__signature lks__operation_signature(const lks_operation *operation)
{
    uint64_t what = (uint64_t)operation->collective | (uint64_t)operation->dtype << 8 |
                    (uint64_t)operation->op << 16 | (uint64_t)(uint32_t)operation->root << 32;
    return (lks__signature){what, operation->count};
}

const char *lks__signature_text(lks__signature signature, char out[LKS__OPERATION_TEXT_BYTES])
{
    unsigned collective = signature.what & 0xff, dtype = signature.what >> 8 & 0xff,
             op = signature.what >> 16 & 0xff;
    if (collective >= LKS__N_COLLECTIVES || dtype >= LKS__N_DTYPES || op >= LKS__N_OPS) {
        snprintf(out, LKS__OPERATION_TEXT_BYTES, "an unknown operation");
        return out;
    }
    snprintf(out, LKS__OPERATION_TEXT_BYTES, "%s", collectives[collective].name);
    const char *separator = "(";
    for (const char *argument = collectives[collective].arguments; *argument != '\0'; argument++) {
        char text[32];
        if (*argument == 'o')
            snprintf(text, sizeof text, "%s", ops[op]);
        else if (*argument == 't')
            snprintf(text, sizeof text, "%s", dtypes[dtype].name);
        else if (*argument == 'n')
            snprintf(text, sizeof text, "%llu", (unsigned long long)signature.count);
        else
            snprintf(text, sizeof text, "%s %u",
                     *argument == 'd'   ? "to rank"
                     : *argument == 's' ? "from rank"
                                        : "root",
                     (unsigned)(signature.what >> 32));
        lks__append(out, LKS__OPERATION_TEXT_BYTES, "%s%s", separator, text);
        separator = ", ";
    }
    if (separator[0] == ',')
        lks__append(out, LKS__OPERATION_TEXT_BYTES, ")");
    return out;
}

/* ---- mismatches ---- */

/* Those who have the signature of rank `first`, the first to have it: "rank 0, rank 2, ranks 4 to 7 and 3
 * others". */
static void append_ranks(int n, const lks__signature *signatures, int first, size_t capacity, char *text)
{
    enum { MOST_RUNS = 8 };
    int n_runs = 0, n_others = 0;
    for (int r = first, end; r < n; r = end + 1) {
        for (end = r; end < n && lks__same_signature(signatures[end], signatures[first]); end++)
            ;
        if (end == r)
            continue;
        const char *separator = n_runs > 0 ? ", " : "";
        if (n_runs++ >= MOST_RUNS)
            n_others += end - r;
        else if (end - r > 2)
            lks__append(text, capacity, "%sranks %d to %d", separator, r, end - 1);
        else if (end - r == 2)
            lks__append(text, capacity, "%srank %d, rank %d", separator, r, r + 1);
        else
            lks__append(text, capacity, "%srank %d", separator, r);
    }
    if (n_others > 0)
        lks__append(text, capacity, " and %d %s", n_others, n_others == 1 ? "other" : "others");
}

const char *lks__mismatch_text(int n, const lks__signature *signatures, size_t capacity, char *text)
{
    const size_t most_bytes = LKS__OPERATION_TEXT_BYTES + 10 * 24 + 16; /* of one signature and its ranks */
    text[0] = '\0';
    for (int r = 0; r < n; r++) {
        int first = 0;
        while (!lks__same_signature(signatures[first], signatures[r]))
            first++;
        if (first < r)
            continue; /* told with the first that has it */
        lks__append(text, capacity, "%s", r > 0 ? "; " : "");
        if (strlen(text) + most_bytes > capacity) {
            lks__append(text, capacity, "and others");
            break;
        }
        char operation[LKS__OPERATION_TEXT_BYTES];
        append_ranks(n, signatures, r, capacity, text);
        lks__append(text, capacity, ": %s", lks__signature_text(signatures[r], operation));
    }
    return text;
}
