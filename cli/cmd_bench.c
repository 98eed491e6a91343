/* SPDX-License-Identifier: Apache-2.0 */
/** `lockstep bench`: times of a group's operations. As train: called by a user it checks the arguments and
 * starts this same command once per process; called by a launcher it is one process's work. */
#include <stdio.h>
#include <stdlib.h>

#include <lockstep/group.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/machine.h"
#include "bench/bench_measure.h"
#include "bench/bench_output.h"
#include "cli.h"
#include "launch/launch.h"

#define TEXT(name, value, doc, field)                                                                        \
    {                                                                                                        \
        name, NULL, value, doc, CLI_TEXT, offsetof(cli_args, bench.field)                                    \
    }
#define COUNT(name, value, doc, field)                                                                       \
    {                                                                                                        \
        name, NULL, value, doc, CLI_COUNT, offsetof(cli_args, bench.field)                                   \
    }

static const cli_flag flags[] = {
    CLI_FLAG_PROCESSES("processes to start on this machine"),
    TEXT("--dtype", "TYPE", "f32 (default), f64, bf16, i32, i64 or u8", dtype),
    TEXT("--op", "OP", "of reductions: sum (default), mean, max, min or prod", op),
    TEXT("--root", "RANK", "of broadcast, reduce, gather, scatter (default: 0)", root),
    TEXT("--memory", "KIND", "group (default): buffers that all members can read; or ordinary", memory),
    TEXT("--min-bytes", "SIZE", "first size (default: 4); K, M and G are powers of 1024", min_bytes),
    TEXT("--max-bytes", "SIZE", "last size (default: 256M)", max_bytes),
    COUNT("--factor", "F", "from one size to the next (default: 4)", factor),
    COUNT("--warmup", "N", "calls of each size that are not counted (default: 5)", warmup),
    COUNT("--iterations", "N", "calls that are (default: what a quarter of a second holds)", calls),
    CLI_FLAG_NO_PIN,
    CLI_FLAG_JSON,
};

static const cli_syntax syntax = {
    .command = "bench",
    .summary =
        "Measures an operation of a process group at many sizes: all_reduce, broadcast, reduce, all_gather,\n"
        "reduce_scatter, gather, scatter, all_to_all, barrier, or send_recv, a ping-pong of two processes "
        "of\n"
        "which half a round trip counts. Before each call every process rewrites what it sends, which is "
        "not\n"
        "counted. A call takes as long as its slowest process. SIZE is that of the largest buffer of a\n"
        "process. Results are checked: ends with exit code 1 when an element is wrong.",
    .n_flags = sizeof flags / sizeof flags[0],
    .flags = flags,
    .n_files = 1,
    .files = "OPERATION",
};

/* ---- one process's work ---- */

enum { MAX_ROWS = 64 }; /* sizes grow by a factor of 2 at least */

typedef struct sheet {
    bool prints; /* rows as they come */
    int n_rows;
    lks__bench_row rows[MAX_ROWS];
    int64_t wrong;
    int exit_code;
} sheet;

static void add_row(void *context, const lks__bench_row *row)
{
    sheet *s = context;
    char line[LKS__BENCH_LINE_BYTES];
    s->wrong += row->wrong;
    if (s->n_rows < MAX_ROWS)
        s->rows[s->n_rows++] = *row;
    if (s->prints && s->exit_code == 0)
        s->exit_code = cli_print("%s\n", lks__bench_line(row, line));
}

static int print_text(lks_status status, char *text, const char *end)
{
    if (status != LKS_OK)
        return cli_fail(status);
    int exit_code = cli_print("%s%s", text, end);
    free(text);
    return exit_code;
}

static int measure(const cli_args *args, const lks__bench_config *config, lks_group *group)
{
    int size = lks_group_size(group);
    bool tells = lks_group_rank(group) == 0;
    sheet s = {.prints = tells && !args->json};
    char *text;
    if (s.prints) {
        lks_status status = lks__bench_heading(config, size, lks__group_cores(), &text);
        s.exit_code = print_text(status, text, "");
    }
    lks_status status = lks__bench_measure(group, config, add_row, &s);
    if (status != LKS_OK) /* all fail alike */
        return tells ? cli_fail(status) : lks_status_exit_code(status);
    if (tells && args->json) {
        status = lks__bench_to_json(config, size, s.n_rows, s.rows, &text);
        s.exit_code = print_text(status, text, "\n");
    }
    if (s.wrong > 0 && tells)
        fprintf(stderr, "lockstep: %lld elements of %s were wrong\n", (long long)s.wrong,
                lks__bench_name(config));
    return s.wrong > 0 ? 1 : s.exit_code;
}

static int join_and_measure(const cli_args *args, const lks_group_config *where)
{
    lks__bench_config config;
    lks_group *group;
    lks_status status = lks__bench_config_set(&args->bench, where->size, &config);
    if (status != LKS_OK)
        return cli_fail(lks__error_prefix(status, "bench"));
    status = lks_group_create(where, &group);
    if (status != LKS_OK)
        return cli_fail(status);
    int exit_code = measure(args, &config, group);
    lks_group_destroy(group);
    return exit_code;
}

/* ---- starting the processes ---- */

static int start(const cli_args *args, int argc, char **argv)
{
    static const char *const of_launch[] = {"--processes", "--no-pin", NULL};
    enum { EXTRA_ARGS = 3 }; /* own path, the command's name, NULL */
    char path[PATH_MAX];
    int exit_code, n = 0;
    const char **words = lks__alloc_array(argc + EXTRA_ARGS, sizeof *words, LKS__MEM_MISC);
    if (words == NULL)
        return cli_fail(LKS_E_NOMEM);
    words[n++] = cli_own_path(path);
    words[n++] = argv[0];
    n += cli_pass_on(&syntax, argc, argv, of_launch, words + n);
    words[n] = NULL;
    lks__launch_config config = {.processes = args->processes,
                                 .argv = words,
                                 .pin = args->no_pin ? LKS__PIN_NOT : LKS__PIN_CORES,
                                 .threads = 1};
    lks_status status = lks__launch(&config, &exit_code);
    if (status != LKS_OK)
        exit_code = cli_fail(status);
    lks__free(words);
    return exit_code;
}

int cmd_bench(int argc, char **argv)
{
    cli_args args;
    lks_group_config where;
    lks__bench_config config;
    int exit_code;
    if (!cli_parse(&syntax, argc, argv, &args, &exit_code))
        return exit_code;
    args.bench.operation = args.files[0];
    lks_status status = lks_group_config_from_env(&where);
    if (status != LKS_OK)
        return cli_fail(status);
    bool launched = cli_launched() != NULL;
    if (launched && (args.processes > 0 || args.no_pin))
        return cli_bad_input("bench: a launcher has started this process already, so %s is up to that one",
                             args.no_pin ? "--no-pin" : "-n");
    if (launched)
        return join_and_measure(&args, &where);
    /* what the hint says has to work */
    status = lks__bench_config_set(&args.bench, args.processes == 0 ? 2 : args.processes, &config);
    if (status != LKS_OK)
        return cli_fail(lks__error_prefix(status, "bench"));
    if (args.processes == 0)
        return cli_bad_input("bench: -n is missing\nhint: lockstep bench %s -n 2 measures two processes",
                             args.files[0]);
    if (args.processes > LKS_GROUP_MAX_SIZE)
        return cli_bad_input("bench: -n is %d; a group has at most %d processes", args.processes,
                             LKS_GROUP_MAX_SIZE);
    return start(&args, argc, argv);
}
