/* SPDX-License-Identifier: Apache-2.0 */
/** lockstep compare: where two runs part, and why. Exit codes as diff's. */
#include <stdlib.h>

#include <lockstep/report.h>

#include "cli.h"

static const cli_flag flags[] = {
    CLI_FLAG_JSON,
};

static const cli_syntax syntax = {
    .command = "compare",
    .summary =
        "Lays two run directories side by side: what differs in their settings and plans, the first step "
        "and\n"
        "quantity that differ, by how much and why, and how that develops. Exit code 0: the same bits at\n"
        "all common steps; 1: they differ; 2: they can't be compared.",
    .n_flags = sizeof flags / sizeof flags[0],
    .flags = flags,
    .n_files = 2,
    .files = "RUN_A RUN_B",
};

static int code_of(lks_verdict verdict)
{
    if (verdict == LKS_VERDICT_SAME)
        return 0;
    return verdict == LKS_VERDICT_UNKNOWN ? CLI_BAD_INPUT : 1;
}

int cmd_compare(int argc, char **argv)
{
    cli_args args;
    int exit_code;
    char *text;
    lks_verdict verdict;
    if (!cli_parse(&syntax, argc, argv, &args, &exit_code))
        return exit_code;
    lks_status status = args.json ? lks_compare_to_json(args.files[0], args.files[1], &verdict, &text)
                                  : lks_compare_to_text(args.files[0], args.files[1], &verdict, &text);
    if (status != LKS_OK) /* an exit code of 1 would say that they differ */
        return (void)cli_fail(status), CLI_BAD_INPUT;
    exit_code = cli_print("%s%s", text, args.json ? "\n" : "");
    free(text);
    return exit_code != 0 ? CLI_BAD_INPUT : code_of(verdict);
}
