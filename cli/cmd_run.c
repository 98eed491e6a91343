/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "launch/launch.h"

enum { MAX_PROCESSES = 1024 };

static const cli_flag flags[] = {
    CLI_FLAG_PROCESSES("number of copies to start, 1 to 1024"),
    CLI_FLAG_MAX_RESTARTS("when one fails, start all of them again, K times at most"),
    CLI_FLAG_NO_PIN,
    {"--prefix", NULL, NULL, "begin each line that a process prints with its rank: [0]", CLI_SWITCH,
     offsetof(cli_args, prefix)},
    CLI_FLAG_LOG_DIR,
};

static const cli_syntax syntax = {
    .command = "run",
    .summary =
        "Starts N copies of a program on this machine as one process group, with the variables set that\n"
        "torchrun sets: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT and others. When there\n"
        "are enough cores, each copy gets its own. When one fails, the others are ended. Processes\n"
        "that PROGRAM itself starts are not tied to it: PROGRAM has to end them.",
    .n_flags = sizeof flags / sizeof flags[0],
    .flags = flags,
    .takes_program = true,
};

static bool restart(void *context, int count, lks__launch_config *next)
{
    (void)context;
    fprintf(stderr, "lockstep: restart %d of %d\n", count, next->max_restarts);
    return true;
}

int cmd_run(int argc, char **argv)
{
    cli_args args;
    int exit_code;
    if (!cli_parse(&syntax, argc, argv, &args, &exit_code))
        return exit_code;
    if (args.processes == 0)
        return cli_bad_input("run: -n is missing\nhint: lockstep run -n 2 %s starts two copies",
                             args.program[0]);
    if (args.processes > MAX_PROCESSES)
        return cli_bad_input("run: -n is %d; at most %d processes can be started", args.processes,
                             MAX_PROCESSES);
    if (getenv("RANK") != NULL)
        return cli_bad_input("run: RANK is set (\"%s\"): this is a process of another launcher already\n"
                             "hint: start the program without lockstep run here, or unset RANK",
                             getenv("RANK"));
    if (cli_launched() != NULL)
        return cli_bad_input("run: %s: it has been started already\n"
                             "hint: mpirun, mpiexec or srun can start the program without lockstep run",
                             cli_launched());

    lks__launch_config config = {.processes = args.processes,
                                 .argv = (const char *const *)args.program,
                                 .max_restarts = args.max_restarts,
                                 .restart = restart,
                                 .prefix = args.prefix,
                                 .log_dir = args.log_dir,
                                 .output_hint = "hint: with --prefix or --log-dir DIR it is told whose "
                                                "lines are whose",
                                 .pin = args.no_pin ? LKS__PIN_NOT : LKS__PIN_CORES};
    lks_status status = lks__launch(&config, &exit_code);
    return status == LKS_OK ? exit_code : cli_fail(status);
}
