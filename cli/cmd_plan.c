/* SPDX-License-Identifier: Apache-2.0 */
/** lockstep plan: what a run will do. Reads the config and the data set's headers; writes nothing. */
#include <stdlib.h>

#include <lockstep/plan.h>
#include <lockstep/train.h>

#include "cli.h"

static const cli_flag flags[] = {
    CLI_FLAG_PROCESSES("plan for N processes (default: as many cores as share the world evenly, else 1)"),
    CLI_FLAG_JSON,
};

static const cli_syntax syntax = {
    .command = "plan",
    .summary =
        "Prints what a run will do: batches, steps, learning rate, and how they come about. Trains nothing.",
    .n_flags = sizeof flags / sizeof flags[0],
    .flags = flags,
};

static lks_status plan_as_text(const cli_args *args, char **out)
{
    lks_config *config;
    lks_plan plan;
    lks_status status = cli_load_config(args, &config);
    if (status != LKS_OK)
        return status;
    status = lks_train_plan(config, args->processes, &plan);
    lks_config_destroy(config);
    if (status != LKS_OK)
        return status;
    return args->json ? lks_plan_to_json(&plan, out) : lks_plan_to_text(&plan, out);
}

int cmd_plan(int argc, char **argv)
{
    cli_args args;
    int exit_code;
    char *text;
    if (!cli_parse(&syntax, argc, argv, &args, &exit_code))
        return exit_code;
    lks_status status = plan_as_text(&args, &text);
    if (status != LKS_OK)
        return cli_fail(status);
    exit_code = cli_print("%s%s", text, args.json ? "\n" : "");
    free(text);
    return exit_code;
}
