/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* sigaltstack, SA_ONSTACK */

#include <float.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/machine.h"
#include "base/text.h"
#include "launch/launch.h"
#include "progress.h"
#include "train_command.h"

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

/* oneDNN's matrix products move the stack pointer into a buffer of theirs (seen in 2.6), and a handler that
 * ran there would overwrite what lies below it. So handlers have a stack of their own. They run on the thread
 * that calls this: the kernel gives a process's signals to the first one, if it takes them. */
static void give_handlers_a_stack(void)
{
    enum { STACK_BYTES = 64 * 1024 }; /* a frame with AVX-512 and AMX registers has some 12 KiB */
    static _Alignas(64) char memory[STACK_BYTES];
    sigaltstack(&(stack_t){.ss_sp = memory, .ss_size = sizeof memory}, NULL);
}

static void handle(int number, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART | SA_ONSTACK};
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

bool train_is_launched(void)
{
    return getenv(LKS__STOP_VARIABLE) != NULL;
}

/* Under our launcher a terminal's Ctrl-C, which reaches every process, is the launcher's to decide; a process
 * on its own or under another launcher decides itself. */
static void ignore_signals(void)
{
    handle(SIGPIPE, SIG_IGN);
    handle(SIGXFSZ, SIG_IGN); /* write() tells of a file that is too large */
    if (train_is_launched()) {
        handle(SIGINT, SIG_IGN);
        handle(SIGHUP, SIG_IGN);
    }
}

/* From now on there is something to end well. While members wait to meet there was not, and a signal ended
 * the process as it ends any other. */
static void handle_stops(void)
{
    give_handlers_a_stack();
    if (train_is_launched()) {
        handle(SIGTERM, on_launchers_stop);
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

/* One line is enough for what the members meet alike or agree on. Each one tells what it can have met alone,
 * and, unless our launcher watches them, how it sees that another member has ended or does not come. */
static bool tells(const lks_group *group, lks_status status)
{
    if (status == LKS_E_KERNEL || status == LKS_E_SYSTEM || status == LKS_E_INTERNAL)
        return true;
    if ((status == LKS_E_PEER || status == LKS_E_TIMEOUT) && !train_is_launched())
        return true;
    int first = status == LKS_E_TIMEOUT ? lks_group_failed_by(group)
                                        : 0; /* rank 0 may be the one waited for */
    return first < 0 || first == lks_group_rank(group);
}

/* Our launcher's members tell once why they do not come together: the one that found out does. */
static int fail_to_join(lks_status status)
{
    lks_group_config own;
    int first = lks_group_failed_by(NULL);
    bool told = first >= 0 && train_is_launched() && lks_group_config_from_env(&own) == LKS_OK &&
                own.rank != first;
    return told ? lks_status_exit_code(status) : cli_fail(status);
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
    screen *s = context;
    progress_end(&s->progress); /* what is said has a line of its own */
    fprintf(stderr, "lockstep: %s\n", text);
}

static void tell_stop(const lks_config *config, const lks_train_result *result, const lks_plan *plan)
{
    const char *output = lks_config_get(config, "output");
    fprintf(stderr,
            "lockstep: stopped by %s after %lld of %lld steps\n"
            "hint: --resume goes on from %s/%s; --init starts another run from it\n",
            result->stopped == LKS_STOP_TIME ? "--max-time" : "a signal", (long long)result->steps,
            (long long)plan->total_steps, output, result->checkpoint);
}

/* Whether the failure would come again if the run went on from its newest checkpoint once more. */
static bool would_repeat(lks_status status)
{
    return status == LKS_E_NOT_FINITE || status == LKS_E_IO || status == LKS_E_MISMATCH;
}

static int code_of_failure(lks_status status)
{
    return train_is_launched() && would_repeat(status) ? LKS__EXIT_FINAL : lks_status_exit_code(status);
}

/* What is left of --max-time, which counts from the start of the command; 0: not given. */
static double left_of(int64_t max_seconds, int64_t start_ns)
{
    double left = (double)max_seconds - lks__seconds_since(start_ns);
    if (max_seconds == 0)
        return 0;
    return left > 0 ? left : DBL_MIN;
}

static void options_init(lks_train_options *options, const train_command *command, int rank, screen *s)
{
    *options = train_options(&command->args);
    options->stop_signal = &stop_signal;
    options->max_seconds = left_of(command->args.max_seconds, command->start_ns);
    if (rank == 0) {
        options->started = show_plan;
        options->progress = show_progress;
        options->note = show_note;
        options->context = s;
    }
}

/* What one member of the group does. Returns the exit code. */
static int train(const train_command *command, lks_group *group)
{
    bool json = command->args.json;
    int rank = lks_group_rank(group);
    lks_train_result result;
    lks_train_options options;
    screen s;
    progress_init(&s.progress, json ? stderr : stdout);
    options_init(&options, command, rank, &s);
    lks_status status = lks_train(command->config, group, &options, &result);
    progress_end(&s.progress);
    if (status != LKS_OK) {
        if (tells(group, status))
            (void)cli_fail(status);
        return code_of_failure(status);
    }

    int exit_code = 0;
    if (rank == 0 && result.stopped != LKS_STOP_NONE)
        tell_stop(command->config, &result, &s.plan);
    if (rank == 0)
        exit_code = print_result(&result, &s.plan, lks__seconds_since(command->start_ns), json);
    if (exit_code != 0 && train_is_launched()) /* training has gone well */
        exit_code = LKS__EXIT_FINAL;
    return result.stop_signal != 0 ? 128 + result.stop_signal : exit_code;
}

/* How a run begins, the larger the stronger; the lowest rank that refuses comes first. */
enum { GOES_ON, IS_FINISHED, IS_REFUSED };

/* What rank 0 sees of an earlier run is so for all: other machines may not have the run directory. And any
 * member may refuse, with command NULL. */
static lks_status agree_to_begin(const train_command *command, lks_group *group, int64_t *out)
{
    int rank = lks_group_rank(group);
    int64_t begins = GOES_ON;
    if (command == NULL)
        begins = IS_REFUSED + LKS_GROUP_MAX_SIZE - rank;
    else if (rank == 0 && train_is_finished(command))
        begins = IS_FINISHED;
    lks_status status = lks_group_all_reduce(group, &begins, 1, LKS_I64, LKS_MAX);
    *out = begins;
    return status;
}

int train_refuse(lks_status status)
{
    int exit_code = lks_status_exit_code(status);
    char *text = strdup(lks_error_message());
    lks_group_config where;
    lks_group *group = NULL;
    int64_t begins = IS_REFUSED;
    bool tells_all = lks_group_config_from_env(&where) == LKS_OK && where.backend == LKS_BACKEND_MPI &&
                     lks_group_create(&where, &group) == LKS_OK &&
                     agree_to_begin(NULL, group, &begins) == LKS_OK;
    if (!tells_all || begins == IS_REFUSED + LKS_GROUP_MAX_SIZE - lks_group_rank(group))
        fprintf(stderr, "lockstep: %s\n", text != NULL ? text : lks_error_message());
    lks_group_destroy(group);
    free(text);
    return exit_code;
}

/* Under our launcher the command was called when that was. */
static int64_t called_ns(int64_t start_ns)
{
    const char *text = train_is_launched() ? getenv(LKS__STARTED_VARIABLE) : NULL;
    int64_t launcher_ns;
    bool usable = text != NULL && lks__parse_i64(text, &launcher_ns) && launcher_ns <= start_ns;
    return usable ? launcher_ns : start_ns;
}

int train_work(const train_command *given)
{
    train_command command = *given;
    command.start_ns = called_ns(given->start_ns);
    ignore_signals();
    lks_group *group;
    lks_status status = lks_train_join(command.config, &group);
    if (status != LKS_OK)
        return fail_to_join(status);
    handle_stops();
    int64_t begins;
    int exit_code = 0;
    if ((status = agree_to_begin(&command, group, &begins)) != LKS_OK)
        exit_code = cli_fail(status);
    else if (begins >= IS_REFUSED)
        exit_code = lks_status_exit_code(LKS_E_ARG);
    else if (begins == GOES_ON)
        exit_code = train(&command, group);
    lks_group_destroy(group);
    return exit_code;
}
