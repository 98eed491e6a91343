/* SPDX-License-Identifier: Apache-2.0 */
/** What the commands share: one file per command, which parses, calls the public API, and prints.
 *
 * Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed while running, 2 bad input,
 * 128 + n ended by signal n. */
#ifndef LKS_CLI_CLI_H
#define LKS_CLI_CLI_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lockstep/config.h>
#include <lockstep/export.h>
#include <lockstep/status.h>

#include "bench/bench_config.h"

/* The commands. argv[0] is the command's name ("plan"). Each returns the exit code. */
int cmd_plan(int argc, char **argv);
int cmd_train(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_compare(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_bench(int argc, char **argv);

enum { CLI_BAD_INPUT = 2, CLI_MAX_OVERRIDES = 256, CLI_MAX_WORLDS = 16, CLI_MAX_FILES = 2 };

/** What a command line can hold. Texts are borrowed from argv. */
typedef struct cli_args {
    const char *config; /* path; NULL for a command that takes a program or files */
    int processes;      /* -n; 0: not given */
    bool json;
    const char *worlds; /* --world LIST; NULL: not given */
    const char *hold;   /* --hold WHAT; NULL: not given */
    bool curve;
    bool overwrite;
    bool resume;
    const char *init;      /* --init FILE; NULL: not given */
    const char *output;    /* --output DIR; NULL: not given */
    const char *model;     /* --model FILE; NULL: not given */
    const char *run;       /* --run DIR; NULL: not given */
    const char *split;     /* --split WHAT; NULL: not given */
    int max_restarts;      /* --max-restarts K; 0: not given */
    int restart_processes; /* --restart-processes M; 0: not given */
    bool no_pin;
    bool prefix;
    const char *log_dir; /* --log-dir DIR; NULL: not given */
    int64_t max_seconds; /* --max-time DURATION; 0: not given */
    lks__bench_words bench;
    int n_files;
    const char *files[CLI_MAX_FILES]; /* of a command that takes files */
    int n_overrides;
    const char *overrides[CLI_MAX_OVERRIDES]; /* key=value, in their order */
    char **program; /* PROGRAM and its arguments, NULL-terminated; NULL for a command that takes a config */
} cli_args;

typedef enum cli_flag_kind {
    CLI_SWITCH, /* bool: takes no value */
    CLI_TEXT,   /* const char * */
    CLI_COUNT,  /* int, >= 1 */
    CLI_TIME,   /* int64_t: seconds, >= 1 */
} cli_flag_kind;

typedef struct cli_flag {
    const char *name;      /* "--processes" */
    const char *shorthand; /* "-n"; NULL: none */
    const char *value;     /* what the help calls the value, "N"; NULL: none is taken */
    const char *doc;
    cli_flag_kind kind;
    size_t offset; /* of the field in cli_args */
} cli_flag;

/* Flags that more than one command has. */
#define CLI_FLAG_PROCESSES(doc)                                                                              \
    {                                                                                                        \
        "--processes", "-n", "N", doc, CLI_COUNT, offsetof(cli_args, processes)                              \
    }
#define CLI_FLAG_MAX_RESTARTS(doc)                                                                           \
    {                                                                                                        \
        "--max-restarts", NULL, "K", doc, CLI_COUNT, offsetof(cli_args, max_restarts)                        \
    }
#define CLI_FLAG_NO_PIN                                                                                      \
    {                                                                                                        \
        "--no-pin", NULL, NULL, "let processes run on any core, also when there is one for each",            \
            CLI_SWITCH, offsetof(cli_args, no_pin)                                                           \
    }
#define CLI_FLAG_LOG_DIR                                                                                     \
    {                                                                                                        \
        "--log-dir", NULL, "DIR", "keep what each process prints in DIR/attempt_K/RANK/, too", CLI_TEXT,     \
            offsetof(cli_args, log_dir)                                                                      \
    }
#define CLI_FLAG_JSON                                                                                        \
    {                                                                                                        \
        "--json", NULL, NULL, "print one JSON object", CLI_SWITCH, offsetof(cli_args, json)                  \
    }

/** How a command is called. */
typedef struct cli_syntax {
    const char *command; /* "plan" */
    const char *summary; /* one or more sentences, lines of at most 100 characters */
    int n_flags;
    const cli_flag *flags;
    bool config_optional; /* the flags may say what the config is */
    bool takes_program;   /* PROGRAM [ARGS ...], which ends the flags */
    int n_files;          /* or so many files or other words, */
    const char *files;    /* which the help calls "FILE"; 0 and NULL: CONFIG [key=value ...] */
} cli_syntax;

/** Parses a command line. Returns true to go on; false when all is said (--help, a mistake): end with
 *  *exit_code. */
bool cli_parse(const cli_syntax *syntax, int argc, char **argv, cli_args *out, int *exit_code);

/** The arguments of a command line that cli_parse has taken, as they were given, for a process that is to do
 * the same. without: names of flags that are left out, NULL-terminated. out: [argc], borrowed from argv.
 * Returns how many. */
int cli_pass_on(const cli_syntax *syntax, int argc, char **argv, const char *const *without,
                const char **out);

/** What says that a launcher, ours or another, has started this process as one of its own ("RANK is set");
 * NULL: nothing, a user has called the command. */
const char *cli_launched(void);

/** The program's file, so that processes that it starts are called like it in `ps`; another file may have
 * taken its place since. Returns `path`, or a static text. */
const char *cli_own_path(char path[PATH_MAX]);

/** Loads the config with its overrides; --output DIR is output=DIR and comes last. The caller destroys *out.
 */
lks_status cli_load_config(const cli_args *args, lks_config **out) LKS_MUST_USE;

/** Prints the library's last failure to stderr. Returns the status's exit code. */
int cli_fail(lks_status status);

/** Prints a mistake in the command line to stderr, without an end of line of its own. Returns 2. */
int cli_bad_input(const char *format, ...) LKS_PRINTF(1, 2);

/** Prints to stdout. Returns the exit code: 0, or 1 when it could not be written (told on stderr). */
int cli_print(const char *format, ...) LKS_PRINTF(1, 2);

/** Writes out what stdout still holds. Returns as cli_print, for all that was printed so far. */
int cli_flush(void);

#endif
