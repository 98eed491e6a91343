/* SPDX-License-Identifier: Apache-2.0 */
#include "comm/naive.h"

#include <string.h>

#include "comm/elements.h"

typedef union element {
    unsigned char bytes[8];
    float f32;
    double f64;
    int32_t i32;
    int64_t i64;
    uint8_t u8;
    uint16_t bf16;
} element;

/* The finaliser of MurmurHash3. */
static uint64_t mixed(uint64_t x)
{
    x = (x ^ x >> 33) * UINT64_C(0xff51afd7ed558ccd);
    x = (x ^ x >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return x ^ x >> 33;
}

uint64_t naive_hash(uint64_t a, uint64_t b, uint64_t c)
{
    return mixed(mixed(mixed(a + 1) + b) + c);
}

/* Magnitudes from 1/8 to 16, either sign. */
static element input(lks_dtype dtype, int rank, uint32_t salt, size_t i)
{
    uint64_t h = naive_hash(salt, (uint64_t)rank, i);
    uint64_t exponent = (h & 0xffff) % 7, sign = h >> 63;
    element e = {{0}};
    switch (dtype) {
    case LKS_F32: {
        uint32_t bits = (uint32_t)(sign << 31 | (124 + exponent) << 23 | (h >> 20 & 0x7fffff));
        memcpy(&e.f32, &bits, sizeof bits);
        break;
    }
    case LKS_F64: {
        uint64_t bits = sign << 63 | (1020 + exponent) << 52 | (mixed(h) & ((UINT64_C(1) << 52) - 1));
        memcpy(&e.f64, &bits, sizeof bits);
        break;
    }
    case LKS_BF16:
        e.bf16 = (uint16_t)(sign << 15 | (124 + exponent) << 7 | (h >> 20 & 0x7f));
        break;
    default: /* integers: any bits are right */
        memcpy(e.bytes, &h, element_bytes[dtype]);
    }
    return e;
}

void naive_input(void *data, size_t n, lks_dtype dtype, int rank, uint32_t salt)
{
    for (size_t i = 0; i < n; i++) {
        element e = input(dtype, rank, salt, i);
        memcpy((unsigned char *)data + i * element_bytes[dtype], e.bytes, element_bytes[dtype]);
    }
}

static uint64_t integer_applied(lks_op op, uint64_t a, uint64_t b, bool less)
{
    return op == LKS_SUM ? a + b : op == LKS_PROD ? a * b : (op == LKS_MIN) == less ? a : b;
}

/* In double: a sum or product of two floats, rounded to double and then to float, is that rounded to float at
 * once, since 53 >= 2 * 24 + 2 (Figueroa 1995). */
static double float_applied(lks_op op, double a, double b)
{
    return op == LKS_SUM || op == LKS_MEAN ? a + b
           : op == LKS_PROD                ? a * b
                                           : ((op == LKS_MIN) == (a < b) ? a : b);
}

static element applied(lks_dtype dtype, lks_op op, element a, element b)
{
    element e = {{0}};
    switch (dtype) {
    case LKS_F32:
        e.f32 = (float)float_applied(op, (double)a.f32, (double)b.f32);
        break;
    case LKS_F64:
        e.f64 = float_applied(op, a.f64, b.f64);
        break;
    case LKS_I32:
        e.i32 = (int32_t)(uint32_t)integer_applied(op, (uint32_t)a.i32, (uint32_t)b.i32, a.i32 < b.i32);
        break;
    case LKS_I64:
        e.i64 = (int64_t)integer_applied(op, (uint64_t)a.i64, (uint64_t)b.i64, a.i64 < b.i64);
        break;
    default:
        e.u8 = (uint8_t)integer_applied(op, a.u8, b.u8, a.u8 < b.u8);
    }
    return e;
}

/* Over ranks [lo, hi), in the tree of DESIGN: a node splits at the largest power of two below its width. bf16
 * comes as f32. */
static element reduced(const lks_operation *o, uint32_t salt, size_t i, int lo, int hi)
{
    if (hi - lo == 1) {
        element e = input(o->dtype, lo, salt, i);
        if (o->dtype == LKS_BF16)
            e.f32 = (float)bf16_value(e.bf16);
        return e;
    }
    int half = 1;
    while (2 * half < hi - lo)
        half *= 2;
    lks_dtype dtype = o->dtype == LKS_BF16 ? LKS_F32 : o->dtype;
    return applied(dtype, o->op, reduced(o, salt, i, lo, lo + half), reduced(o, salt, i, lo + half, hi));
}

static element reduction(const lks_operation *o, uint32_t salt, size_t i, int size)
{
    element e = reduced(o, salt, i, 0, size);
    if (o->op == LKS_MEAN && o->dtype == LKS_F64)
        e.f64 /= size;
    else if (o->op == LKS_MEAN)
        e.f32 /= (float)size;
    if (o->dtype == LKS_BF16)
        e.bf16 = bf16_bits((double)e.f32);
    return e;
}

static element wanted(const lks_operation *o, int rank, int size, uint32_t salt, int row, size_t i)
{
    size_t own = (size_t)rank * o->count + i;
    switch (o->collective) {
    case LKS_ALL_GATHER:
    case LKS_GATHER:
        return input(o->dtype, row, salt, i);
    case LKS_ALL_TO_ALL:
        return input(o->dtype, row, salt, own);
    case LKS_SCATTER:
        return input(o->dtype, o->root, salt, own);
    case LKS_BROADCAST:
    case LKS_RECV:
        return input(o->dtype, o->root, salt, i);
    case LKS_REDUCE_SCATTER:
        return reduction(o, salt, own, size);
    default:
        return reduction(o, salt, i, size);
    }
}

static bool has(const void *data, size_t i, lks_dtype dtype, element e)
{
    size_t bytes = element_bytes[dtype];
    return memcmp((const unsigned char *)data + i * bytes, e.bytes, bytes) == 0;
}

bool naive_agrees(const lks_operation *o, const void *data, int rank, int size, uint32_t salt, int row,
                  size_t i)
{
    return has(data, (size_t)row * o->count + i, o->dtype, wanted(o, rank, size, salt, row, i));
}

bool naive_is_input(const void *data, size_t i, lks_dtype dtype, int rank, uint32_t salt)
{
    return has(data, i, dtype, input(dtype, rank, salt, i));
}
