/* SPDX-License-Identifier: Apache-2.0 */
/** lockstep inspect: what a checkpoint, or another safetensors file, holds. */
#include <stdlib.h>

#include <lockstep/checkpoint.h>

#include "cli.h"

static const cli_flag flags[] = {
    CLI_FLAG_JSON,
};

static const cli_syntax syntax = {
    .command = "inspect",
    .summary = "Prints what a checkpoint or another safetensors file holds. Ends with exit code 2 when the\n"
               "file is damaged.",
    .n_flags = sizeof flags / sizeof flags[0],
    .flags = flags,
    .n_files = 1,
    .files = "FILE",
};

int cmd_inspect(int argc, char **argv)
{
    cli_args args;
    int exit_code;
    char *text;
    if (!cli_parse(&syntax, argc, argv, &args, &exit_code))
        return exit_code;
    lks_status status = args.json ? lks_checkpoint_to_json(args.files[0], &text)
                                  : lks_checkpoint_to_text(args.files[0], &text);
    if (status != LKS_OK)
        return cli_fail(status);
    exit_code = cli_print("%s%s", text, args.json ? "\n" : "");
    free(text);
    return exit_code;
}
