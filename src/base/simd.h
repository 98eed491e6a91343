/* SPDX-License-Identifier: Apache-2.0 */
/** A loop written once, compiled for several vector instruction sets, chosen by what the processor has.
 *
 * The loop is a plain C function `name_body`, declared LKS__SIMD_BODY; LKS__SIMD_VERSIONS(name, ...) makes
 * its versions and LKS__SIMD_TABLE(name) lists them by level. All give the same bits: the compiler may
 * neither contract nor reorder floating-point operations (docs/numerics.md). Explicit tables instead of the
 * compiler's ifuncs, because those run before a sanitizer is ready, and because tests can call every version.
 */
#ifndef LKS_BASE_SIMD_H
#define LKS_BASE_SIMD_H

typedef enum lks__simd {
    LKS__SIMD_BASE, /* what every processor of the architecture has */
    LKS__SIMD_AVX2,
    LKS__SIMD_AVX512,
    LKS__SIMD_LEVELS
} lks__simd;

#ifdef __x86_64__
#define LKS__TARGET_AVX2   __attribute__((target("avx2")))
#define LKS__TARGET_AVX512 __attribute__((target("avx512f,prefer-vector-width=512")))
#else
#define LKS__TARGET_AVX2
#define LKS__TARGET_AVX512
#endif

/** The highest level that this processor runs. Costs a load and a test. */
static inline lks__simd lks__simd_best(void)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f"))
        return LKS__SIMD_AVX512;
    if (__builtin_cpu_supports("avx2"))
        return LKS__SIMD_AVX2;
#endif
    return LKS__SIMD_BASE;
}

#define LKS__SIMD_BODY static inline __attribute__((always_inline))

/** Defines name_base, name_avx2 and name_avx512 of name_body; `args` are the names in `params`. */
#define LKS__SIMD_VERSIONS(name, result, params, args)                                                       \
    static result name##_base params                                                                         \
    {                                                                                                        \
        return name##_body args;                                                                             \
    }                                                                                                        \
    LKS__TARGET_AVX2 static result name##_avx2 params                                                        \
    {                                                                                                        \
        return name##_body args;                                                                             \
    }                                                                                                        \
    LKS__TARGET_AVX512 static result name##_avx512 params                                                    \
    {                                                                                                        \
        return name##_body args;                                                                             \
    }

/** The initialiser of a table of them by level. */
#define LKS__SIMD_TABLE(name)                                                                                \
    {                                                                                                        \
        name##_base, name##_avx2, name##_avx512                                                              \
    }

#endif
