/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/text.h"
#include "launch/launch.h"
#include "train_command.h"

/* Which file a path leads to; all zeros: none. */
typedef struct file_stamp {
    dev_t device;
    ino_t inode;
    struct timespec changed;
} file_stamp;

/* The run that is launched, and perhaps launched again. */
typedef struct run {
    const train_command *command;
    file_stamp plan_before; /* of the run directory's plan.json before the launch */
    int restart_processes;
    const char **argv; /* [command->argc + EXTRA_ARGS] */
    char path[PATH_MAX];
    char world[32]; /* "world=4": for a run that begins again, perhaps on fewer processes */
} run;

enum { EXTRA_ARGS = 4 }; /* own path, --resume or --overwrite, world=W, NULL */

/* What only the launcher is told; and how a run begins, which one that goes on does not. */
static const char *const of_launch[] = {"--processes", "--max-restarts", "--restart-processes",
                                        "--no-pin",    "--log-dir",      NULL};
static const char *const of_begin[] = {"--processes", "--max-restarts", "--restart-processes",
                                       "--no-pin",    "--log-dir",      "--overwrite",
                                       "--resume",    "--init",         NULL};

/* The command line for the processes: as it was given, `without` some flags, and with another flag and
 * setting (NULL: none). */
static void set_argv(run *r, const char *const *without, const char *flag, const char *setting)
{
    const train_command *command = r->command;
    int n = 0;
    r->argv[n++] = cli_own_path(r->path);
    r->argv[n++] = command->argv[0];
    if (flag != NULL)
        r->argv[n++] = flag;
    n += cli_pass_on(&train_syntax, command->argc, command->argv, without, r->argv + n);
    if (setting != NULL)
        r->argv[n++] = setting;
    r->argv[n] = NULL;
}

static file_stamp plan_stamp(const lks_config *config)
{
    file_stamp stamp = {0};
    struct stat info;
    lks__text path = {0};
    char *name;
    lks__text_add(&path, "%s/plan.json", lks_config_get(config, "output"));
    if (lks__text_take(&path, &name) == LKS_OK && stat(name, &info) == 0)
        stamp = (file_stamp){info.st_dev, info.st_ino, info.st_mtim};
    free(name);
    return stamp;
}

/* Whether what is in the run directory is this run's: a run that begins writes its plan first, as a new file.
 */
static bool has_begun(const run *r)
{
    file_stamp now = plan_stamp(r->command->config), before = r->plan_before;
    return r->command->args.resume || now.device != before.device || now.inode != before.inode ||
           now.changed.tv_sec != before.changed.tv_sec || now.changed.tv_nsec != before.changed.tv_nsec;
}

/* Where the run goes on: as --resume does, or from its beginning as long as it has no checkpoint. What it has
 * begun it may overwrite: before the launch there was nothing, or --overwrite was given. */
static bool restart(void *context, int count, lks__launch_config *next)
{
    run *r = context;
    const train_command *command = r->command;
    bool begun = has_begun(r);
    int64_t step = 0;
    if (begun && lks_train_is_finished(command->config)) {
        fprintf(stderr, "lockstep: the run in %s had reached its end; it is not started again\n",
                lks_config_get(command->config, "output"));
        return false;
    }
    lks_status status = begun ? lks_train_last_checkpoint(command->config, &step) : LKS_OK;
    if (status != LKS_OK) {
        (void)cli_fail(status);
        return false;
    }
    if (step > 0)
        set_argv(r, of_begin, "--resume", NULL);
    else
        set_argv(r, of_launch, command->args.resume ? NULL : "--overwrite", r->world);

    if (r->restart_processes > 0)
        next->processes = r->restart_processes;
    char from[48] = "the beginning";
    if (step > 0)
        snprintf(from, sizeof from, "step %" PRId64, step);
    fprintf(stderr, "lockstep: restart %d of %d from %s on %d process%s\n", count, next->max_restarts, from,
            next->processes, next->processes == 1 ? "" : "es");
    return true;
}

static int compute_threads(const lks_config *config)
{
    int64_t threads;
    return lks__parse_i64(lks_config_get(config, "threads"), &threads) ? (int)threads : 1;
}

int train_launch(const train_command *command, const lks_plan *plan)
{
    run r = {.command = command,
             .plan_before = plan_stamp(command->config),
             .restart_processes = command->args.restart_processes};
    r.argv = lks__alloc_array(command->argc + EXTRA_ARGS, sizeof *r.argv, LKS__MEM_MISC);
    if (r.argv == NULL)
        return cli_fail(LKS_E_NOMEM);
    snprintf(r.world, sizeof r.world, "world=%" PRId64, plan->world);
    set_argv(&r, of_launch, NULL, NULL);
    lks__launch_config config = {.processes = (int)plan->processes,
                                 .argv = r.argv,
                                 .stop_gently = true,
                                 .pin = command->args.no_pin ? LKS__PIN_NOT : LKS__PIN_PARTS,
                                 .log_dir = command->args.log_dir,
                                 .threads = compute_threads(command->config),
                                 .started_ns = command->start_ns,
                                 .max_restarts = command->args.max_restarts,
                                 .restart = restart,
                                 .restart_context = &r};
    int exit_code;
    lks_status status = lks__launch(&config, &exit_code);
    if (status != LKS_OK)
        exit_code = cli_fail(status);
    lks__free(r.argv);
    return exit_code;
}
