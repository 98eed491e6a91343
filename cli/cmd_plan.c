/* SPDX-License-Identifier: Apache-2.0 */
/** lockstep plan: what a run will do. Reads the config and the data set's headers; writes nothing. */
#include <stdlib.h>
#include <string.h>

#include <lockstep/plan.h>
#include <lockstep/train.h>

#include "base/text.h"
#include "cli.h"

static const cli_flag flags[] = {
    CLI_FLAG_PROCESSES("plan for N processes (default: as many cores as share the world evenly, else 1)"),
    {"--world", NULL, "LIST", "plans of several worlds side by side: 1,2,4,8", CLI_TEXT,
     offsetof(cli_args, worlds)},
    {"--hold", NULL, "WHAT", "with --world: local (default) or global, the batch that stays as it is",
     CLI_TEXT, offsetof(cli_args, hold)},
    {"--curve", NULL, NULL, "draw the learning rate over the run, too", CLI_SWITCH,
     offsetof(cli_args, curve)},
    CLI_FLAG_JSON,
};

static const cli_syntax syntax = {
    .command = "plan",
    .summary =
        "Prints what a run will do: batches, steps, learning rate, and how they come about. Trains nothing.",
    .n_flags = sizeof flags / sizeof flags[0],
    .flags = flags,
};

/* What is asked for, besides the config. */
typedef struct request {
    int n_worlds; /* 0: one plan, of the config's own world */
    int64_t worlds[CLI_MAX_WORLDS];
    lks_hold hold;
} request;

/* "1,2,4" */
static bool parse_worlds(const char *text, request *out)
{
    for (bool more = true; more;) {
        char number[24];
        size_t length = strcspn(text, ",");
        if (length >= sizeof number || out->n_worlds == CLI_MAX_WORLDS)
            return false;
        memcpy(number, text, length);
        number[length] = '\0';
        if (!lks__parse_i64(number, &out->worlds[out->n_worlds]) || out->worlds[out->n_worlds++] < 1)
            return false;
        more = text[length] == ',';
        text += length + more;
    }
    return true;
}

/* Returns 0, or the exit code after a mistake. */
static int parse_request(const cli_args *args, request *out)
{
    *out = (request){0};
    if (args->worlds != NULL && !parse_worlds(args->worlds, out))
        return cli_bad_input(
            "plan: --world is \"%s\"; up to %d integers >= 1 with commas between them are needed",
            args->worlds, CLI_MAX_WORLDS);
    if (args->curve && (args->json || args->worlds != NULL))
        return cli_bad_input("plan: --curve is for people and for one plan: not with --json or --world");
    if (args->hold == NULL)
        return 0;
    if (args->worlds == NULL)
        return cli_bad_input("plan: --hold says what stays when worlds are compared: it needs --world LIST");
    if (strcmp(args->hold, "global") == 0)
        out->hold = LKS_HOLD_GLOBAL;
    else if (strcmp(args->hold, "local") != 0)
        return cli_bad_input("plan: --hold is \"%s\"; local or global is needed", args->hold);
    return 0;
}

/* Frees *text after a failure. */
static lks_status add_curve(const lks_plan *plan, char **text)
{
    char *curve;
    lks__text both = {0};
    lks_status status = lks_plan_curve_to_text(plan, &curve);
    if (status == LKS_OK)
        lks__text_add(&both, "%s\n%s", *text, curve);
    free(curve);
    free(*text);
    return status == LKS_OK ? lks__text_take(&both, text) : status;
}

static lks_status plan_one(const lks_config *config, const cli_args *args, char **out)
{
    lks_plan plan;
    lks_status status = lks_train_plan(config, args->processes, &plan);
    if (status == LKS_OK)
        status = args->json ? lks_plan_to_json(&plan, out) : lks_plan_to_text(&plan, out);
    return status == LKS_OK && args->curve ? add_curve(&plan, out) : status;
}

static lks_status plan_worlds(const lks_config *config, const cli_args *args, const request *wanted,
                              char **out)
{
    lks_plan plans[CLI_MAX_WORLDS];
    lks_status status = lks_train_plans_at(config, args->processes, wanted->n_worlds, wanted->worlds,
                                           wanted->hold, plans);
    if (status != LKS_OK)
        return status;
    return args->json ? lks_plans_to_json(wanted->n_worlds, plans, out)
                      : lks_plans_to_text(wanted->n_worlds, plans, out);
}

int cmd_plan(int argc, char **argv)
{
    cli_args args;
    request wanted;
    lks_config *config;
    int exit_code;
    char *text;
    if (!cli_parse(&syntax, argc, argv, &args, &exit_code))
        return exit_code;
    if ((exit_code = parse_request(&args, &wanted)) != 0)
        return exit_code;
    lks_status status = cli_load_config(&args, &config);
    if (status == LKS_OK)
        status = wanted.n_worlds > 0 ? plan_worlds(config, &args, &wanted, &text)
                                     : plan_one(config, &args, &text);
    lks_config_destroy(config);
    if (status != LKS_OK)
        return cli_fail(status);
    exit_code = cli_print("%s%s", text, args.json ? "\n" : "");
    free(text);
    return exit_code;
}
