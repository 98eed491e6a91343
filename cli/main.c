/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include <lockstep/config.h>
#include <lockstep/version.h>

#include "base/text.h"
#include "cli.h"

typedef struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *doc;
} command;

static int cmd_help(int argc, char **argv);

static const command commands[] = {
    {"plan", cmd_plan, "print what a run will do: batches, steps, learning rate"},
    {"train", cmd_train, "train a network on processes of this machine"},
    {"run", cmd_run, "start copies of any program as one process group"},
    {"eval", cmd_eval, "loss and accuracy of a trained model, by class too"},
    {"inspect", cmd_inspect, "print what a checkpoint holds"},
    {"export", cmd_export, "write a checkpoint's parameters to a file of their own"},
    {"compare", cmd_compare, "lay two runs side by side: where they part, and why"},
    {"bench", cmd_bench, "times of a process group's operations, by size"},
    {"help", cmd_help, "explain a command, or all settings: lockstep help options"},
};

enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static const command *find_command(const char *name)
{
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int unknown_command(const char *name)
{
    const char *names[N_COMMANDS];
    for (int i = 0; i < N_COMMANDS; i++)
        names[i] = commands[i].name;
    int nearest = lks__nearest(name, N_COMMANDS, names);
    if (nearest >= 0)
        return cli_bad_input("unknown command \"%s\"; did you mean \"%s\"?", name, names[nearest]);
    return cli_bad_input("unknown command \"%s\"\nhint: lockstep --help lists the commands", name);
}

static int print_overview(void)
{
    lks__text text = {0};
    lks__text_add(&text,
                  "lockstep %s: synchronous data-parallel training on CPUs\n\n"
                  "usage: lockstep COMMAND ...\n\ncommands:\n",
                  lks_version());
    for (int i = 0; i < N_COMMANDS; i++)
        lks__text_add(&text, "  %-8s %s\n", commands[i].name, commands[i].doc);
    lks__text_add(&text, "\nlockstep COMMAND --help says more about a command; lockstep --version prints the "
                         "version.\n");
    char *overview;
    lks_status status = lks__text_take(&text, &overview);
    if (status != LKS_OK)
        return cli_fail(status);
    int exit_code = cli_print("%s", overview);
    free(overview);
    return exit_code;
}

/* `help options [--markdown]`: the table of settings, as text or as docs/options.md. */
static int print_options(int argc, char **argv)
{
    bool markdown = argc == 1 && strcmp(argv[0], "--markdown") == 0;
    if (argc > 0 && !markdown)
        return cli_bad_input("help options: unknown argument \"%s\"; only --markdown is allowed",
                             argv[argc - 1]);
    char *options;
    lks_status status = markdown ? lks_config_help_markdown(&options) : lks_config_help_text(&options);
    if (status != LKS_OK)
        return cli_fail(status);
    int exit_code = cli_print("%s", options);
    free(options);
    return exit_code;
}

static int cmd_help(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "help") == 0 || argv[1][0] == '-')
        return print_overview();
    if (strcmp(argv[1], "options") == 0)
        return print_options(argc - 2, argv + 2);
    const command *asked = find_command(argv[1]);
    if (asked == NULL)
        return unknown_command(argv[1]);
    char help[] = "--help";
    char *arguments[] = {argv[1], help, NULL};
    return asked->run(2, arguments);
}

/* A standard descriptor that is closed would be given to the next file that is opened, and messages would
 * land in it. These fail as a closed one does: the mode is the wrong one. */
static void fill_standard_descriptors(void)
{
    static const int modes[] = {O_WRONLY, O_RDONLY, O_RDONLY};
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)open("/dev/null", modes[fd]); /* gives the lowest free one: fd */
}

int main(int argc, char **argv)
{
    fill_standard_descriptors();
    if (argc < 2)
        return cli_bad_input("a command is missing\nhint: lockstep --help lists the commands");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return print_overview();
    if (strcmp(argv[1], "--version") == 0)
        return cli_print("lockstep %s\n", lks_version());
    const command *asked = find_command(argv[1]);
    if (asked == NULL)
        return unknown_command(argv[1]);
    return asked->run(argc - 1, argv + 1);
}
