/* SPDX-License-Identifier: Apache-2.0 */
/** The parts of `lockstep train`: the command (cmd_train.c), one process's work (train_work.c), and starting
 * the processes (train_launch.c). */
#ifndef LKS_CLI_TRAIN_COMMAND_H
#define LKS_CLI_TRAIN_COMMAND_H

#include <lockstep/lockstep.h>

#include "cli.h"

/** One call of the command. */
typedef struct train_command {
    int argc;
    char **argv;
    cli_args args;
    lks_config *config;
    int64_t start_ns; /* when the user called it */
} train_command;

extern const cli_syntax train_syntax;

/** What the arguments say about a run. */
lks_train_options train_options(const cli_args *args);

/** Whether the run is to be resumed and has reached its end; then says so. */
bool train_is_finished(const train_command *command);

/** Plays one member of the run's group. Returns the exit code. */
int train_work(const train_command *command);

/** What a process that a launcher has started does if it cannot take part, by an error just met: in an MPI
 * job it joins to tell the others, who would wait for it in MPI_Init without a limit; one of those that
 * refuse says why. Returns the exit code. */
int train_refuse(lks_status status);

/** Starts the run's processes and waits until they have ended. Returns the exit code. */
int train_launch(const train_command *command, const lks_plan *plan);

/** Whether our launcher has started this process; then it decides what a terminal's signals mean. */
bool train_is_launched(void);

#endif
