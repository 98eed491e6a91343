/* SPDX-License-Identifier: Apache-2.0 */
/** lockstep export: a checkpoint's parameters as a file of their own. */
#include <lockstep/checkpoint.h>

#include "cli.h"

static const cli_flag flags[] = {
    {"--overwrite", NULL, NULL, "replace OUT if it is there", CLI_SWITCH, offsetof(cli_args, overwrite)},
};

static const cli_syntax syntax = {
    .command = "export",
    .summary =
        "Writes a checkpoint's parameters, without optimizer state and metadata, to a safetensors file.",
    .n_flags = sizeof flags / sizeof flags[0],
    .flags = flags,
    .n_files = 2,
    .files = "CHECKPOINT OUT",
};

int cmd_export(int argc, char **argv)
{
    cli_args args;
    int exit_code;
    if (!cli_parse(&syntax, argc, argv, &args, &exit_code))
        return exit_code;
    lks_status status = lks_checkpoint_export(args.files[0], args.files[1], args.overwrite);
    return status == LKS_OK ? 0 : cli_fail(status);
}
