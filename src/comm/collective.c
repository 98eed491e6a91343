/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/collective.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"

static const struct {
    const char *name;
    const char *arguments;
} collectives[LKS__N_COLLECTIVES] = {
#define ROW(name, text, arguments) [LKS__##name] = {text, arguments},
    LKS__COLLECTIVES(ROW)
#undef ROW
};

static const struct {
    const char *name;
    size_t bytes;
    bool is_float;
} dtypes[LKS__N_DTYPES] = {
    [LKS_F32] = {"f32", 4, true},  [LKS_F64] = {"f64", 8, true}, [LKS_I32] = {"i32", 4, false},
    [LKS_I64] = {"i64", 8, false}, [LKS_U8] = {"u8", 1, false},
};

static const char *const ops[LKS__N_OPS] = {[LKS_SUM] = "sum", [LKS_MEAN] = "mean", [LKS_MAX] = "max"};

size_t lks__dtype_bytes(lks_dtype dtype)
{
    return dtypes[dtype].bytes;
}

static lks_status check_data(const lks__request *request)
{
    const char *name = collectives[request->collective].name;
    if ((unsigned)request->dtype >= LKS__N_DTYPES)
        return lks__fail(LKS_E_ARG, "%s: %d is no element type", name, (int)request->dtype);
    if (request->count > PTRDIFF_MAX / dtypes[request->dtype].bytes)
        return lks__fail(LKS_E_ARG, "%s: %zu elements of %s do not fit into memory", name, request->count,
                         dtypes[request->dtype].name);
    if (request->data == NULL && request->count > 0)
        return lks__fail(LKS_E_ARG, "%s: data is NULL, but the count is %zu", name, request->count);
    return LKS_OK;
}

static lks_status check_op(const lks__request *request)
{
    const char *name = collectives[request->collective].name;
    if ((unsigned)request->op >= LKS__N_OPS)
        return lks__fail(LKS_E_ARG, "%s: %d is no operation", name, (int)request->op);
    if (request->op == LKS_MEAN && !dtypes[request->dtype].is_float)
        return lks__fail(LKS_E_ARG, "%s: mean of %s is not defined; f32 and f64 are", name,
                         dtypes[request->dtype].name);
    return LKS_OK;
}

lks_status lks__request_check(const lks__request *request, int size)
{
    const char *arguments = collectives[request->collective].arguments;
    lks_status status = LKS_OK;
    if (strchr(arguments, 't') != NULL)
        status = check_data(request);
    if (status == LKS_OK && strchr(arguments, 'o') != NULL)
        status = check_op(request);
    if (status == LKS_OK && strchr(arguments, 'r') != NULL && (request->root < 0 || request->root >= size))
        status = lks__fail(LKS_E_ARG, "%s: root %d is not in 0..%d", collectives[request->collective].name,
                           request->root, size - 1);
    return status;
}

lks__signature lks__request_signature(const lks__request *request)
{
    uint64_t what = (uint64_t)request->collective | (uint64_t)request->dtype << 8 |
                    (uint64_t)request->op << 16 | (uint64_t)(uint32_t)request->root << 32;
    return (lks__signature){what, request->count};
}

const char *lks__signature_text(lks__signature signature, char out[LKS__REQUEST_TEXT_BYTES])
{
    unsigned collective = signature.what & 0xff, dtype = signature.what >> 8 & 0xff,
             op = signature.what >> 16 & 0xff;
    if (collective >= LKS__N_COLLECTIVES || dtype >= LKS__N_DTYPES || op >= LKS__N_OPS) {
        snprintf(out, LKS__REQUEST_TEXT_BYTES, "an unknown operation");
        return out;
    }
    snprintf(out, LKS__REQUEST_TEXT_BYTES, "%s", collectives[collective].name);
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
            snprintf(text, sizeof text, "root %u", (unsigned)(signature.what >> 32));
        lks__append(out, LKS__REQUEST_TEXT_BYTES, "%s%s", separator, text);
        separator = ", ";
    }
    if (separator[0] == ',')
        lks__append(out, LKS__REQUEST_TEXT_BYTES, ")");
    return out;
}
