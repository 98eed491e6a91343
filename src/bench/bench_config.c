/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/bench_config.h"

#include <stdint.h>
#include <string.h>

#include "base/error.h"
#include "base/text.h"
#include "comm/collective.h"

enum { MAX_WORDS = 16, DEFAULT_FACTOR = 4, DEFAULT_WARMUP = 5 };

static const char ping_pong[] = "send_recv";

/* ---- words ---- */

static const char *collective_word(int i)
{
    return i == LKS_SEND ? ping_pong : lks__collective_name((lks_collective)i);
}

static const char *dtype_word(int i)
{
    return lks__dtype_name((lks_dtype)i);
}

static const char *op_word(int i)
{
    return lks__op_name((lks_op)i);
}

static const char *memory_word(int i)
{
    return i == 0 ? "group" : "ordinary";
}

/* What a word may be: word_of(0) .. word_of(n - 1). */
typedef struct choice {
    const char *what;
    const char *(*word_of)(int i);
    int n;
} choice;

static const choice collectives = {"the operation", collective_word, LKS_SEND + 1};
static const choice dtypes = {"--dtype", dtype_word, LKS__N_DTYPES};
static const choice ops = {"--op", op_word, LKS__N_OPS};
static const choice memories = {"--memory", memory_word, 2};

/* *out stays as it is where no word was said. */
static lks_status choose(const choice *from, const char *word, int *out)
{
    const char *words[MAX_WORDS];
    char allowed[256] = "";
    if (word == NULL)
        return LKS_OK;
    for (int i = 0; i < from->n; i++) {
        words[i] = from->word_of(i);
        if (strcmp(word, words[i]) == 0) {
            *out = i;
            return LKS_OK;
        }
        const char *separator = i == 0 ? "" : i + 1 == from->n ? " and " : ", ";
        lks__append(allowed, sizeof allowed, "%s%s", separator, words[i]);
    }
    lks_status status = lks__fail(LKS_E_ARG, "%s is \"%s\"; %s are allowed", from->what, word, allowed);
    int nearest = lks__nearest(word, from->n, words);
    return nearest < 0 ? status : lks__error_hint(status, "did you mean \"%s\"?", words[nearest]);
}

/* "4", "64K", "256M", "1G": powers of 1024. */
static lks_status set_bytes(const char *name, const char *word, size_t otherwise, size_t *out)
{
    static const char units[] = "KMG";
    const int64_t most = PTRDIFF_MAX / 4; /* in and out together, in whole pages, have a size_t */
    char number[24];
    int64_t count;
    *out = otherwise;
    if (word == NULL)
        return LKS_OK;
    size_t length = strspn(word, "0123456789");
    const char *unit = word[length] == '\0' ? NULL : strchr(units, word[length]);
    int shift = unit == NULL ? 0 : 10 * (int)(unit - units + 1);
    bool ends = word[length] == '\0' || (unit != NULL && word[length + 1] == '\0');
    bool usable = ends && length > 0 && length < sizeof number;
    if (usable) {
        memcpy(number, word, length);
        number[length] = '\0';
        usable = lks__parse_i64(number, &count) && count >= 1 && count <= most >> shift;
    }
    if (!usable)
        return lks__fail(LKS_E_ARG, "%s is \"%s\"; a size is needed: 4, 64K, 256M, 1G", name, word);
    *out = (size_t)count << shift;
    return LKS_OK;
}

/* ---- what goes together ---- */

static lks_status check_unused(const lks__bench_words *words, lks_collective collective)
{
    static const struct {
        char argument;
        const char *flag;
        size_t at;
    } flags[] = {{'t', "--dtype", offsetof(lks__bench_words, dtype)},
                 {'o', "--op", offsetof(lks__bench_words, op)},
                 {'r', "--root", offsetof(lks__bench_words, root)},
                 {'n', "--min-bytes", offsetof(lks__bench_words, min_bytes)},
                 {'n', "--max-bytes", offsetof(lks__bench_words, max_bytes)}};
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        const char *said;
        memcpy(&said, (const char *)words + flags[i].at, sizeof said);
        if (said != NULL && !lks__collective_takes(collective, flags[i].argument))
            return lks__fail(LKS_E_ARG, "%s is of no use for %s", flags[i].flag, collective_word(collective));
    }
    return LKS_OK;
}

static lks_status set_root(const char *word, int size, int *out)
{
    int64_t root = 0;
    if (word != NULL && (!lks__parse_i64(word, &root) || root < 0 || root >= size))
        return lks__fail(LKS_E_ARG, "--root is \"%s\"; a rank from 0 to %d is needed", word, size - 1);
    *out = (int)root;
    return LKS_OK;
}

static lks_status set_operation(const lks__bench_words *words, int size, lks_operation *out)
{
    int collective = 0, dtype = LKS_F32, op = LKS_SUM, root = 0;
    lks_status status = choose(&collectives, words->operation, &collective);
    if (status == LKS_OK)
        status = choose(&dtypes, words->dtype, &dtype);
    if (status == LKS_OK)
        status = choose(&ops, words->op, &op);
    if (status == LKS_OK)
        status = check_unused(words, (lks_collective)collective);
    if (status == LKS_OK)
        status = set_root(words->root, size, &root);
    if (status == LKS_OK && collective == LKS_SEND && size < 2)
        status = lks__fail(LKS_E_ARG, "%s takes two processes", ping_pong);
    if (status != LKS_OK)
        return status;
    lks_operation operation = {(lks_collective)collective, (lks_dtype)dtype, (lks_op)op, root, 0, NULL, NULL};
    if (collective == LKS_SEND)
        operation.root = 1;
    return lks__operation_check(&operation, 0, size, out);
}

static lks_status set_sizes(const lks__bench_words *words, lks__bench_config *config)
{
    lks_status status = set_bytes("--min-bytes", words->min_bytes, 4, &config->min_bytes);
    if (status == LKS_OK)
        status = set_bytes("--max-bytes", words->max_bytes, (size_t)256 << 20, &config->max_bytes);
    if (status == LKS_OK && config->min_bytes > config->max_bytes)
        status = lks__fail(LKS_E_ARG, "--min-bytes is %zu, more than --max-bytes, %zu", config->min_bytes,
                           config->max_bytes);
    if (status == LKS_OK && words->factor == 1)
        status = lks__fail(LKS_E_ARG, "--factor is 1; an integer >= 2 is needed");
    return status;
}

lks_status lks__bench_config_set(const lks__bench_words *words, int size, lks__bench_config *out)
{
    lks__bench_config config = {.factor = words->factor > 0 ? words->factor : DEFAULT_FACTOR,
                                .warmup = words->warmup > 0 ? words->warmup : DEFAULT_WARMUP,
                                .calls = words->calls};
    int memory = 0;
    lks_status status = set_operation(words, size, &config.operation);
    if (status == LKS_OK)
        status = choose(&memories, words->memory, &memory);
    if (status == LKS_OK)
        status = set_sizes(words, &config);
    if (status != LKS_OK)
        return status;
    config.group_memory = memory == 0;
    *out = config;
    return LKS_OK;
}

const char *lks__bench_name(const lks__bench_config *config)
{
    return collective_word((int)config->operation.collective);
}
