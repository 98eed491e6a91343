/* SPDX-License-Identifier: Apache-2.0 */
/** `lockstep train`: called by a user it checks everything, then starts this same command once per process,
 * with RANK set; called with RANK set, by itself or by another launcher, or as a process of an MPI job, it is
 * one process's work. */
#include <stdio.h>
#include <stdlib.h>

#include "base/machine.h"
#include "train_command.h"

static const cli_flag flags[] = {
    CLI_FLAG_PROCESSES("processes; without it as many as the config's world and the cores allow"),
    CLI_FLAG_JSON,
    {"--output", NULL, "DIR", "run directory; the same as output=DIR", CLI_TEXT, offsetof(cli_args, output)},
    {"--overwrite", NULL, NULL, "replace an earlier run in the run directory", CLI_SWITCH,
     offsetof(cli_args, overwrite)},
    {"--resume", NULL, NULL, "go on from the newest whole checkpoint in the run directory", CLI_SWITCH,
     offsetof(cli_args, resume)},
    {"--init", NULL, "FILE", "start from a safetensors file (PyTorch's names and shapes)", CLI_TEXT,
     offsetof(cli_args, init)},
    CLI_FLAG_MAX_RESTARTS("when a process dies, go on from the newest checkpoint, K times at most"),
    {"--restart-processes", NULL, "M", "on M processes instead of N after a restart", CLI_COUNT,
     offsetof(cli_args, restart_processes)},
    CLI_FLAG_NO_PIN,
    CLI_FLAG_LOG_DIR,
    {"--max-time", NULL, "TIME", "stop, with a checkpoint, once so much time is over: 90s, 30m, 2h, 1:30:00",
     CLI_TIME, offsetof(cli_args, max_seconds)},
};

const cli_syntax train_syntax = {
    .command = "train",
    .summary =
        "Trains the config's model on N processes of this machine, evaluates it after each epoch and writes\n"
        "the run directory. The plan comes first; `lockstep plan` prints it without training.",
    .n_flags = sizeof flags / sizeof flags[0],
    .flags = flags,
};

static int check_restarts(const cli_args *args, const lks_plan *plan)
{
    if (args->restart_processes == 0)
        return 0;
    if (args->max_restarts == 0)
        return cli_bad_input("train: --restart-processes is given, but --max-restarts is not");
    if (args->restart_processes > plan->processes || plan->world % args->restart_processes != 0)
        return cli_bad_input("train: --restart-processes is %d; a number that divides the %lld workers, at "
                             "most %lld, is needed",
                             args->restart_processes, (long long)plan->world, (long long)plan->processes);
    return 0;
}

bool train_is_finished(const train_command *command)
{
    const cli_args *args = &command->args;
    bool contradicts = args->overwrite || args->init != NULL; /* --resume: refused as in any run */
    if (!args->resume || contradicts || !lks_train_is_finished(command->config))
        return false;
    fprintf(stderr, "lockstep: the run in %s is finished; there is nothing to go on with\n",
            lks_config_get(command->config, "output"));
    return true;
}

lks_train_options train_options(const cli_args *args)
{
    return (lks_train_options){.init_path = args->init, .overwrite = args->overwrite, .resume = args->resume};
}

/* What only the one who types the command sees: checks first, so that a mistake starts no process and writes
 * nothing. */
static int start(const train_command *command)
{
    lks_train_options options = train_options(&command->args);
    lks_plan plan;
    lks_status status = lks_train_check(command->config, command->args.processes, &options, &plan);
    if (status != LKS_OK)
        return cli_fail(status);
    int exit_code = check_restarts(&command->args, &plan);
    if (exit_code != 0)
        return exit_code;
    if (plan.processes_chosen && plan.world == 1 && lks_config_get(command->config, "world")[0] == '\0')
        fprintf(stderr, "hint: this run has one process; -n N trains on N\n");
    /* one that may die and be started again, or whose output is kept, is another process */
    bool alone = plan.processes == 1 && command->args.max_restarts == 0 && command->args.log_dir == NULL;
    return alone ? train_work(command) : train_launch(command, &plan);
}

int cmd_train(int argc, char **argv)
{
    train_command command = {.argc = argc, .argv = argv, .start_ns = lks__now_ns()};
    const cli_args *args = &command.args;
    int exit_code;
    if (!cli_parse(&train_syntax, argc, argv, &command.args, &exit_code))
        return exit_code;
    const char *launched = cli_launched();
    if (launched != NULL && args->processes > 0)
        return cli_bad_input("train: %s, so a launcher has started this process, and -n %d is given; use one "
                             "of the two",
                             launched, args->processes);
    if (launched != NULL && (args->max_restarts > 0 || args->restart_processes > 0))
        return cli_bad_input("train: %s, so a launcher has started this process, and restarts are up to that "
                             "one",
                             launched);
    if (launched != NULL && (args->no_pin || args->log_dir != NULL))
        return cli_bad_input("train: %s, so a launcher has started this process, and %s is up to that one",
                             launched, args->no_pin ? "--no-pin" : "--log-dir");

    lks_status status = cli_load_config(args, &command.config);
    if (status != LKS_OK)
        return launched != NULL ? train_refuse(status) : cli_fail(status);
    if (launched != NULL)
        exit_code = train_work(&command);
    else
        exit_code = train_is_finished(&command) ? 0 : start(&command);
    lks_config_destroy(command.config);
    return exit_code;
}
