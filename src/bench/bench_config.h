/* SPDX-License-Identifier: Apache-2.0 */
/** What is to be measured. */
#ifndef LKS_BENCH_BENCH_CONFIG_H
#define LKS_BENCH_BENCH_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include <lockstep/group.h>

/** What a user says, word by word; NULL or 0: the default. Borrowed. */
typedef struct lks__bench_words {
    const char *operation; /* "all_reduce"; "send_recv" is a ping-pong */
    const char *dtype;     /* f32 */
    const char *op;        /* sum */
    const char *root;      /* 0 */
    const char *memory;    /* group */
    const char *min_bytes; /* 4 */
    const char *max_bytes; /* 256M */
    int factor;            /* 4 */
    int warmup;            /* 5 */
    int calls;             /* as many as a quarter of a second holds */
} lks__bench_words;

typedef struct lks__bench_config {
    lks_operation operation; /* without count and buffers; LKS_SEND: a ping-pong of ranks 0 and 1 */
    bool group_memory;
    size_t min_bytes, max_bytes; /* of the largest buffer that a member has */
    int factor;                  /* from one size to the next, >= 2 */
    int warmup;                  /* calls that are not counted, >= 1 */
    int calls;                   /* 0: as many as a quarter of a second holds */
} lks__bench_config;

/** For a group of `size`. Returns: LKS_OK; LKS_E_ARG with what is allowed. */
lks_status lks__bench_config_set(const lks__bench_words *words, int size,
                                 lks__bench_config *out) LKS_MUST_USE;

/** "send_recv" or the collective's name. */
const char *lks__bench_name(const lks__bench_config *config);

#endif
