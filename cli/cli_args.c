/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* Where a parse stands. */
typedef struct parser {
    const cli_syntax *syntax;
    int argc;
    char **argv;
    int next; /* index of the argument to look at next */
    bool flags_ended;
    cli_args args;
} parser;

#define CLI_MOST_SECONDS INT64_C(1000000000) /* 31 years; no count of a unit overflows below it */

enum { PARSE_ON = -1 }; /* what a parsing step returns to go on; else an exit code */

int cli_fail(lks_status status)
{
    fprintf(stderr, "lockstep: %s\n", lks_error_message());
    return lks_status_exit_code(status);
}

int cli_bad_input(const char *format, ...)
{
    va_list args;
    fputs("lockstep: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return CLI_BAD_INPUT;
}

int cli_print(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    return cli_flush();
}

int cli_flush(void)
{
    errno = 0; /* the failure may be an earlier one */
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    fprintf(stderr, "lockstep: writing to standard output failed%s%s\n", errno != 0 ? ": " : "",
            errno != 0 ? strerror(errno) : "");
    return 1;
}

static bool takes_config(const cli_syntax *syntax)
{
    return !syntax->takes_program && syntax->n_files == 0;
}

static const char *operands(const cli_syntax *syntax)
{
    if (syntax->n_files > 0)
        return syntax->files;
    if (syntax->config_optional)
        return "[CONFIG] [key=value ...]";
    return syntax->takes_program ? "PROGRAM [ARGS ...]" : "CONFIG [key=value ...]";
}

static void add_flag_help(lks__text *text, const char *shorthand, const char *name, const char *value,
                          const char *doc)
{
    char left[64];
    snprintf(left, sizeof left, "%s%s%s%s%s", shorthand ? shorthand : "", shorthand ? ", " : "    ", name,
             value ? " " : "", value ? value : "");
    lks__text_add(text, "  %-24s %s\n", left, doc);
}

static int print_help(const cli_syntax *syntax)
{
    lks__text text = {0};
    lks__text_add(&text, "usage: lockstep %s [flags] %s\n\n%s\n\nflags:\n", syntax->command, operands(syntax),
                  syntax->summary);
    for (int i = 0; i < syntax->n_flags; i++) {
        const cli_flag *flag = &syntax->flags[i];
        add_flag_help(&text, flag->shorthand, flag->name, flag->value, flag->doc);
    }
    add_flag_help(&text, "-h", "--help", NULL, "print this");
    if (takes_config(syntax))
        lks__text_add(&text, "\nSettings of the config file, and key=value pairs that override them: "
                             "lockstep help options\n");

    char *help;
    lks_status status = lks__text_take(&text, &help);
    if (status != LKS_OK)
        return cli_fail(status);
    int exit_code = cli_print("%s", help);
    free(help);
    return exit_code;
}

/* `length`: of the flag's name in `given`, which may go on with "=value". */
static bool is_named(const char *name, const char *given, size_t length)
{
    return name != NULL && strlen(name) == length && strncmp(name, given, length) == 0;
}

static const cli_flag *find_flag(const cli_syntax *syntax, const char *given, size_t length)
{
    for (int i = 0; i < syntax->n_flags; i++)
        if (is_named(syntax->flags[i].name, given, length) ||
            is_named(syntax->flags[i].shorthand, given, length))
            return &syntax->flags[i];
    return NULL;
}

static int unknown_flag(const cli_syntax *syntax, const char *given, size_t length)
{
    enum { MAX_FLAGS = 32 };
    const char *names[MAX_FLAGS];
    int n_names = 0;
    for (; n_names < syntax->n_flags && n_names < MAX_FLAGS - 1; n_names++)
        names[n_names] = syntax->flags[n_names].name;
    names[n_names++] = "--help";

    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1), given);
    int nearest = lks__nearest(name, n_names, names);
    if (nearest >= 0)
        return cli_bad_input("%s: unknown flag \"%s\"; did you mean \"%s\"?", syntax->command, name,
                             names[nearest]);
    return cli_bad_input("%s: unknown flag \"%s\"\nhint: lockstep %s --help lists the flags", syntax->command,
                         name, syntax->command);
}

static int set_count(const cli_syntax *syntax, const cli_flag *flag, const char *value, int *out)
{
    int64_t count;
    if (!lks__parse_i64(value, &count) || count < 1 || count > INT_MAX)
        return cli_bad_input("%s: %s is \"%s\"; an integer >= 1 is needed", syntax->command,
                             flag->shorthand ? flag->shorthand : flag->name, value);
    *out = (int)count;
    return PARSE_ON;
}

static const struct {
    char unit;
    int64_t seconds;
} time_units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};

/* "90", "90s", "30m", "2h", "7d". Returns the seconds; 0: it is not such a time. */
static int64_t seconds_of_unit(const char *text)
{
    char number[24];
    size_t length = strspn(text, "0123456789");
    int64_t count, unit = text[length] == '\0';
    for (size_t i = 0; i < sizeof time_units / sizeof time_units[0]; i++)
        if (text[length] == time_units[i].unit && text[length + 1] == '\0')
            unit = time_units[i].seconds;
    snprintf(number, sizeof number, "%.*s", (int)length, text);
    bool usable = length < sizeof number && lks__parse_i64(number, &count) && count <= CLI_MOST_SECONDS;
    return usable ? count * unit : 0;
}

/* "1:30:00". Returns the seconds; 0: it is not such a time. */
static int64_t seconds_of_clock(const char *text)
{
    int hours, minutes, seconds, end = -1;
    size_t length = strspn(text, "0123456789");
    bool usable = length >= 1 && length <= 6 && strspn(text, "0123456789:") == strlen(text) &&
                  sscanf(text, "%6d:%2d:%2d%n", &hours, &minutes, &seconds, &end) == 3 &&
                  end == (int)strlen(text) && end == (int)length + 6 && minutes < 60 && seconds < 60;
    return usable ? (hours * INT64_C(60) + minutes) * 60 + seconds : 0;
}

static int set_time(const cli_syntax *syntax, const cli_flag *flag, const char *value, int64_t *out)
{
    int64_t seconds = seconds_of_unit(value);
    if (seconds == 0)
        seconds = seconds_of_clock(value);
    if (seconds < 1 || seconds > CLI_MOST_SECONDS)
        return cli_bad_input("%s: %s is \"%s\"; a time is needed: 90, 90s, 30m, 2h, 7d or 1:30:00",
                             syntax->command, flag->name, value);
    *out = seconds;
    return PARSE_ON;
}

static int set_flag(parser *p, const cli_flag *flag, const char *value)
{
    void *field = (char *)&p->args + flag->offset;
    switch (flag->kind) {
    case CLI_SWITCH:
        *(bool *)field = true;
        return PARSE_ON;
    case CLI_TEXT:
        *(const char **)field = value;
        return PARSE_ON;
    case CLI_TIME:
        return set_time(p->syntax, flag, value, field);
    case CLI_COUNT:
        break;
    }
    return set_count(p->syntax, flag, value, field);
}

/* "--name", "--name value", "--name=value", "-n value". */
static int parse_flag(parser *p)
{
    const char *given = p->argv[p->next++];
    size_t length = strcspn(given, "=");
    const char *value = given[length] == '=' ? given + length + 1 : NULL;
    const cli_flag *flag = find_flag(p->syntax, given, length);
    if (flag == NULL)
        return unknown_flag(p->syntax, given, length);
    if (flag->kind == CLI_SWITCH && value != NULL)
        return cli_bad_input("%s: %s takes no value", p->syntax->command, flag->name);
    if (flag->kind != CLI_SWITCH && value == NULL)
        value = p->next < p->argc ? p->argv[p->next++] : NULL;
    if (flag->kind != CLI_SWITCH && (value == NULL || value[0] == '\0'))
        return cli_bad_input("%s: %.*s needs a value: %.*s %s", p->syntax->command, (int)length, given,
                             (int)length, given, flag->value);
    return set_flag(p, flag, value);
}

static int parse_file(parser *p, const char *given)
{
    if (p->args.n_files == p->syntax->n_files)
        return cli_bad_input("%s: \"%s\" is one argument too many\nhint: usage: lockstep %s [flags] %s",
                             p->syntax->command, given, p->syntax->command, operands(p->syntax));
    p->args.files[p->args.n_files++] = given;
    return PARSE_ON;
}

static int parse_operand(parser *p)
{
    char *given = p->argv[p->next++];
    if (p->syntax->n_files > 0)
        return parse_file(p, given);
    if (p->syntax->takes_program) {
        p->args.program = &p->argv[p->next - 1];
        p->next = p->argc;
    } else if (strchr(given, '=') != NULL) {
        if (p->args.n_overrides == CLI_MAX_OVERRIDES)
            return cli_bad_input("%s: more than %d settings", p->syntax->command, CLI_MAX_OVERRIDES);
        p->args.overrides[p->args.n_overrides++] = given;
    } else if (p->args.config == NULL) {
        p->args.config = given;
    } else {
        return cli_bad_input("%s: \"%s\" is one argument too many: there is a config already, \"%s\", and "
                             "settings are key=value",
                             p->syntax->command, given, p->args.config);
    }
    return PARSE_ON;
}

/* Whether an argument is a flag, as long as flags have not ended. */
static bool is_flag(const char *given)
{
    return given[0] == '-' && given[1] != '\0';
}

static int parse_argument(parser *p)
{
    const char *given = p->argv[p->next];
    if (p->flags_ended || !is_flag(given))
        return parse_operand(p);
    if (strcmp(given, "--help") == 0 || strcmp(given, "-h") == 0)
        return print_help(p->syntax);
    if (strcmp(given, "--") != 0)
        return parse_flag(p);
    p->flags_ended = true;
    p->next++;
    return PARSE_ON;
}

static bool is_incomplete(const parser *p)
{
    if (p->syntax->n_files > 0)
        return p->args.n_files < p->syntax->n_files;
    return p->args.config == NULL && p->args.program == NULL && !p->syntax->config_optional;
}

static const char *what_is_missing(const cli_syntax *syntax)
{
    if (syntax->n_files > 0)
        return strcmp(syntax->files, "OPERATION") == 0 ? "the operation" : "a file";
    return syntax->takes_program ? "the program" : "the config file";
}

bool cli_parse(const cli_syntax *syntax, int argc, char **argv, cli_args *out, int *exit_code)
{
    parser p = {.syntax = syntax, .argc = argc, .argv = argv, .next = 1};
    while (p.next < argc) {
        int result = parse_argument(&p);
        if (result != PARSE_ON) {
            *exit_code = result;
            return false;
        }
    }
    if (is_incomplete(&p)) {
        *exit_code = cli_bad_input("%s: %s is missing\nhint: usage: lockstep %s [flags] %s", syntax->command,
                                   what_is_missing(syntax), syntax->command, operands(syntax));
        return false;
    }
    *out = p.args;
    return true;
}

static bool is_among(const char *name, const char *const *names)
{
    for (; *names != NULL; names++)
        if (strcmp(*names, name) == 0)
            return true;
    return false;
}

int cli_pass_on(const cli_syntax *syntax, int argc, char **argv, const char *const *without, const char **out)
{
    int n = 0;
    bool flags_ended = false;
    for (int i = 1; i < argc; i++) {
        const cli_flag *flag = NULL;
        size_t length = strcspn(argv[i], "=");
        if (!flags_ended && is_flag(argv[i]))
            flag = find_flag(syntax, argv[i], length);
        flags_ended = flags_ended || strcmp(argv[i], "--") == 0;
        bool has_next = flag != NULL && flag->kind != CLI_SWITCH && argv[i][length] == '\0';
        if (flag == NULL || !is_among(flag->name, without)) {
            out[n++] = argv[i];
            if (has_next)
                out[n++] = argv[i + 1];
        }
        i += has_next;
    }
    return n;
}

lks_status cli_load_config(const cli_args *args, lks_config **out)
{
    lks_config *config;
    *out = NULL;
    lks_status status = lks_config_load(args->config, args->n_overrides, args->overrides, &config);
    if (status == LKS_OK && args->output != NULL)
        status = lks_config_set(config, "output", args->output);
    if (status != LKS_OK) {
        lks_config_destroy(config);
        return status;
    }
    *out = config;
    return LKS_OK;
}
