/* SPDX-License-Identifier: Apache-2.0 */
/** lockstep eval: exact loss and accuracy of a model. Called by a user it checks everything and starts this
 * same command once per process; called by a launcher it is one process's work. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lockstep/lockstep.h>

#include "base/alloc.h"
#include "cli.h"
#include "launch/launch.h"

static const cli_flag flags[] = {
    CLI_FLAG_PROCESSES("processes, which share the work; 1 without it"),
    CLI_FLAG_JSON,
    {"--model", NULL, "FILE", "the parameters: a checkpoint, or another safetensors file", CLI_TEXT,
     offsetof(cli_args, model)},
    {"--run", NULL, "DIR", "the config of a run, and its model or else its newest whole checkpoint", CLI_TEXT,
     offsetof(cli_args, run)},
    {"--split", NULL, "SET", "test (without it) or train", CLI_TEXT, offsetof(cli_args, split)},
};

static const cli_syntax syntax = {
    .command = "eval",
    .summary =
        "Evaluates a trained model on the whole test set, each sample once: the same bits on any number of\n"
        "processes. Either CONFIG and --model, or --run.",
    .n_flags = sizeof flags / sizeof flags[0],
    .flags = flags,
    .config_optional = true,
};

/* One call of the command. */
typedef struct call {
    int argc;
    char **argv;
    cli_args args;
    lks_config *config;
    lks_evaluate_options options;
    char *model; /* of the run; free() */
} call;

static int print_result(const call *c, const lks_evaluation *evaluation)
{
    char *text;
    lks_status status = c->args.json ? lks_evaluation_to_json(evaluation, &c->options, &text)
                                     : lks_evaluation_to_text(evaluation, &c->options, &text);
    if (status != LKS_OK)
        return cli_fail(status);
    int exit_code = cli_print("%s%s", text, c->args.json ? "\n" : "");
    free(text);
    return exit_code;
}

/* One process's work. What all meet alike rank 0 tells. */
static int work(const call *c)
{
    lks_group *group;
    lks_evaluation evaluation;
    lks_status status = lks_train_join(c->config, &group);
    if (status != LKS_OK)
        return cli_fail(status);
    bool first = lks_group_rank(group) == 0;
    int exit_code = 0;
    status = lks_evaluate(c->config, group, &c->options, &evaluation);
    if (status != LKS_OK) {
        exit_code = lks_status_exit_code(status);
        if (first || status == LKS_E_KERNEL || status == LKS_E_SYSTEM)
            (void)cli_fail(status);
    } else {
        exit_code = first ? print_result(c, &evaluation) : 0;
        lks_evaluation_deinit(&evaluation);
    }
    lks_group_destroy(group);
    return exit_code;
}

/* The same command line, for the processes: with the model that was found, so that all take the same. */
static int launch(const call *c)
{
    enum { MORE = 5 };
    static const char *const without[] = {"--processes", "--model", NULL};
    char path[PATH_MAX];
    int exit_code, n = 0;
    const char **argv = lks__alloc_array(c->argc + MORE, sizeof *argv, LKS__MEM_MISC);
    if (argv == NULL)
        return cli_fail(LKS_E_NOMEM);
    argv[n++] = cli_own_path(path);
    argv[n++] = c->argv[0];
    argv[n++] = "--model";
    argv[n++] = c->options.model_path;
    n += cli_pass_on(&syntax, c->argc, c->argv, without, argv + n);
    argv[n] = NULL;
    lks__launch_config config = {.processes = c->args.processes, .argv = argv};
    lks_status status = lks__launch(&config, &exit_code);
    if (status != LKS_OK)
        exit_code = cli_fail(status);
    lks__free(argv);
    return exit_code;
}

static int start(const call *c)
{
    int processes = c->args.processes > 0 ? c->args.processes : 1;
    lks_status status = lks_evaluate_check(c->config, processes, &c->options);
    if (status != LKS_OK)
        return cli_fail(status);
    return processes == 1 ? work(c) : launch(c);
}

static int check_arguments(const cli_args *args)
{
    const char *launched = cli_launched();
    if (args->run != NULL && args->config != NULL)
        return cli_bad_input("eval: the config is that of --run, or CONFIG, not both");
    if (args->run == NULL && args->config == NULL)
        return cli_bad_input(
            "eval: CONFIG or --run is missing\nhint: usage: lockstep eval CONFIG --model FILE, or "
            "lockstep eval --run DIR");
    if (args->run == NULL && args->model == NULL)
        return cli_bad_input("eval: --model is missing\nhint: --run DIR evaluates what a run has left");
    if (args->split != NULL && strcmp(args->split, "test") != 0 && strcmp(args->split, "train") != 0)
        return cli_bad_input("eval: --split is \"%s\"; test or train is needed", args->split);
    if (launched != NULL && args->processes > 0)
        return cli_bad_input("eval: %s, so a launcher has started this process, and -n %d is given; use one "
                             "of the two",
                             launched, args->processes);
    return 0;
}

/* Config and model, as the arguments say. */
static lks_status find(call *c)
{
    char path[PATH_MAX];
    cli_args args = c->args;
    if (args.run != NULL) {
        snprintf(path, sizeof path, "%s/config.yaml", args.run);
        args.config = path;
    }
    lks_status status = LKS_OK;
    if (args.model == NULL)
        status = lks_run_model(args.run, &c->model);
    if (status == LKS_OK)
        status = cli_load_config(&args, &c->config);
    bool train = args.split != NULL && strcmp(args.split, "train") == 0;
    c->options = (lks_evaluate_options){.model_path = args.model != NULL ? args.model : c->model,
                                        .split = train ? LKS_SPLIT_TRAIN : LKS_SPLIT_TEST};
    return status;
}

int cmd_eval(int argc, char **argv)
{
    call c = {.argc = argc, .argv = argv};
    int exit_code;
    if (!cli_parse(&syntax, argc, argv, &c.args, &exit_code))
        return exit_code;
    if ((exit_code = check_arguments(&c.args)) != 0)
        return exit_code;
    lks_status status = find(&c);
    if (status != LKS_OK)
        exit_code = cli_fail(status);
    else
        exit_code = cli_launched() != NULL ? work(&c) : start(&c);
    lks_config_destroy(c.config);
    free(c.model);
    return exit_code;
}
