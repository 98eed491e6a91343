/* SPDX-License-Identifier: Apache-2.0 */
/** `lockstep train`: called by a user it checks everything, then starts this same command once per process,
 * with RANK set; called with RANK set, by itself or by another launcher, it is one process's work. */
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lockstep/lockstep.h>

#include "base/machine.h"
#include "cli.h"
#include "launch/launch.h"
#include "progress.h"

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
};

static const cli_syntax syntax = {
    .command = "train",
    .summary =
        "Trains the config's model on N processes of this machine, evaluates it after each epoch and writes\n"
        "the run directory. The plan comes first; `lockstep plan` prints it without training.",
    .n_flags = sizeof flags / sizeof flags[0],
    .flags = flags,
};

/* The signal that asks for a gentle stop; the step loop looks at it and tells the other members. */
static volatile sig_atomic_t stop_signal;

/* Under our launcher, which kills when asked twice, once is all. */
static void on_launchers_stop(int number)
{
    stop_signal = number;
}

static void on_stop(int number)
{
    static int64_t asked_ns;
    if (stop_signal == 0) {
        stop_signal = number;
        asked_ns = lks__now_ns();
    } else if (lks__now_ns() - asked_ns >= LKS__STOP_ECHO_NS) { /* asked twice: at once */
        _exit(128 + number);
    }
}

static void handle(int number, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigfillset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

/* What nohup or a shell's & has switched off stays off. */
static void handle_unless_ignored(int number)
{
    struct sigaction inherited;
    if (sigaction(number, NULL, &inherited) == 0 && inherited.sa_handler != SIG_IGN)
        handle(number, on_stop);
}

static bool launched_by_us(void)
{
    return getenv(LKS__STOP_VARIABLE) != NULL;
}

/* Under our launcher a terminal's Ctrl-C, which reaches every process, is the launcher's to decide; a process
 * on its own or under another launcher decides itself. */
static void handle_signals(void)
{
    handle(SIGPIPE, SIG_IGN);
    handle(SIGXFSZ, SIG_IGN); /* write() tells of a file that is too large */
    if (launched_by_us()) {
        handle(SIGTERM, on_launchers_stop);
        handle(SIGINT, SIG_IGN);
        handle(SIGHUP, SIG_IGN);
    } else {
        handle_unless_ignored(SIGTERM);
        handle_unless_ignored(SIGINT);
        handle_unless_ignored(SIGHUP);
    }
}

static int print_result(const lks_train_result *result, const lks_plan *plan, double seconds, bool json)
{
    if (!json) {
        progress_print_result(result, seconds);
        return cli_flush();
    }
    char *text;
    lks_status status = lks_train_result_to_json(result, plan, seconds, &text);
    if (status != LKS_OK)
        return cli_fail(status);
    int exit_code = cli_print("%s\n", text);
    free(text);
    return exit_code;
}

/* The rank that a wait which all members have given up names as the first one to do so ("rank 3 (process 7)
 * waited 60 s ..."); it is not rank 0 where that is the one waited for. -1: none is named. */
static int first_to_give_up(void)
{
    const char *name = strstr(lks_error_message(), "rank ");
    int rank;
    return name != NULL && sscanf(name, "rank %d", &rank) == 1 ? rank : -1;
}

/* One line is enough for what the members meet alike or agree on. Each one tells what it can have met alone,
 * and, unless our launcher watches them, how it sees that another member has ended or does not come. */
static bool tells(int rank, lks_status status)
{
    if (status == LKS_E_KERNEL || status == LKS_E_SYSTEM || status == LKS_E_INTERNAL)
        return true;
    if ((status == LKS_E_PEER || status == LKS_E_TIMEOUT) && !launched_by_us())
        return true;
    int first = status == LKS_E_TIMEOUT ? first_to_give_up() : 0;
    return first < 0 || first == rank;
}

/* What rank 0 shows of a run. */
typedef struct screen {
    progress progress;
    lks_plan plan;
} screen;

static void show_plan(void *context, const lks_plan *plan)
{
    screen *s = context;
    s->plan = *plan;
    progress_print_plan(&s->progress, plan);
}

static void show_progress(void *context, const lks_train_progress *update)
{
    screen *s = context;
    progress_update(&s->progress, update);
}

static void show_note(void *context, const char *text)
{
    (void)context;
    fprintf(stderr, "lockstep: %s\n", text);
}

static lks_train_options options_of(const cli_args *args)
{
    return (lks_train_options){.init_path = args->init, .overwrite = args->overwrite, .resume = args->resume};
}

static void tell_stop(const lks_config *config, const lks_train_result *result, const lks_plan *plan)
{
    const char *output = lks_config_get(config, "output");
    fprintf(stderr,
            "lockstep: stopped by a signal after %lld of %lld steps\n"
            "hint: --resume goes on from %s/%s; --init starts another run from it\n",
            (long long)result->steps, (long long)plan->total_steps, output, result->checkpoint);
}

/* What one member of the group does. Returns the exit code. */
static int train(const lks_config *config, const cli_args *args, lks_group *group, int64_t start_ns)
{
    int rank = lks_group_rank(group);
    lks_train_result result;
    screen s;
    progress_init(&s.progress, args->json ? stderr : stdout);
    lks_train_options options = options_of(args);
    options.stop_signal = &stop_signal;
    if (rank == 0) {
        options.started = show_plan;
        options.progress = show_progress;
        options.note = show_note;
        options.context = &s;
    }
    lks_status status = lks_train(config, group, &options, &result);
    progress_end(&s.progress);
    if (status != LKS_OK)
        return tells(rank, status) ? cli_fail(status) : lks_status_exit_code(status);

    int exit_code = 0;
    if (rank == 0 && result.stop_signal != 0)
        tell_stop(config, &result, &s.plan);
    if (rank == 0)
        exit_code = print_result(&result, &s.plan, lks__seconds_since(start_ns), args->json);
    return result.stop_signal != 0 ? 128 + result.stop_signal : exit_code;
}

/* One process's work. */
static int work(const lks_config *config, const cli_args *args, int64_t start_ns)
{
    handle_signals();
    lks_group *group;
    lks_status status = lks_train_join(config, &group);
    if (status != LKS_OK)
        return cli_fail(status);
    int exit_code = train(config, args, group, start_ns);
    lks_group_destroy(group);
    return exit_code;
}

/* The program's file, so that its processes are called like it in `ps`; another one may have taken its place
 * since. */
static const char *own_path(char path[PATH_MAX])
{
    static const char link[] = "/proc/self/exe";
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    struct stat file, own;
    if (length <= 0)
        return link;
    path[length] = '\0';
    bool same = stat(path, &file) == 0 && stat(link, &own) == 0 && file.st_dev == own.st_dev &&
                file.st_ino == own.st_ino;
    return same ? path : link;
}

/* This command line without -n, for the processes. */
static int launch(const cli_args *args, int64_t processes)
{
    enum { FIXED = 12 };
    const char *argv[FIXED + CLI_MAX_OVERRIDES];
    char path[PATH_MAX];
    int n = 0;
    argv[n++] = own_path(path);
    argv[n++] = "train";
    if (args->json)
        argv[n++] = "--json";
    if (args->overwrite)
        argv[n++] = "--overwrite";
    if (args->resume)
        argv[n++] = "--resume";
    if (args->init != NULL) {
        argv[n++] = "--init";
        argv[n++] = args->init;
    }
    if (args->output != NULL) {
        argv[n++] = "--output";
        argv[n++] = args->output;
    }
    argv[n++] = "--";
    argv[n++] = args->config;
    for (int i = 0; i < args->n_overrides; i++)
        argv[n++] = args->overrides[i];
    argv[n] = NULL;

    lks__launch_config config = {.processes = (int)processes, .argv = argv, .stop_gently = true};
    int exit_code;
    lks_status status = lks__launch(&config, &exit_code);
    return status == LKS_OK ? exit_code : cli_fail(status);
}

/* What only the one who types the command sees: checks first, so that a mistake starts no process and writes
 * nothing. */
static int start(const lks_config *config, const cli_args *args, int64_t start_ns)
{
    lks_train_options options = options_of(args);
    lks_plan plan;
    lks_status status = lks_train_check(config, args->processes, &options, &plan);
    if (status != LKS_OK)
        return cli_fail(status);
    if (plan.processes_chosen && lks_config_get(config, "world")[0] == '\0')
        fprintf(stderr, "hint: this run has one process; -n N trains on N\n");
    return plan.processes == 1 ? work(config, args, start_ns) : launch(args, plan.processes);
}

int cmd_train(int argc, char **argv)
{
    int64_t start_ns = lks__now_ns();
    cli_args args;
    int exit_code;
    if (!cli_parse(&syntax, argc, argv, &args, &exit_code))
        return exit_code;
    bool launched = getenv("RANK") != NULL;
    if (launched && args.processes > 0)
        return cli_bad_input(
            "train: RANK is set, so a launcher has started this process, and -n %d is given; "
            "use one of the two",
            args.processes);

    lks_config *config;
    lks_status status = cli_load_config(&args, &config);
    if (status != LKS_OK)
        return cli_fail(status);
    if (args.resume && lks_train_is_finished(config)) {
        fprintf(stderr, "lockstep: the run in %s is finished; there is nothing to go on with\n",
                lks_config_get(config, "output"));
        lks_config_destroy(config);
        return 0;
    }
    exit_code = launched ? work(config, &args, start_ns) : start(config, &args, start_ns);
    lks_config_destroy(config);
    return exit_code;
}
