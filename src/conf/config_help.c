/* SPDX-License-Identifier: Apache-2.0 */
/** The option table for people: `lockstep help options`, and docs/options.md. */
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "conf/options.h"

static const char *default_of(const lks__option *option)
{
    if (option->default_text != NULL)
        return option->default_text;
    return option->default_doc != NULL ? option->default_doc : "not set";
}

/* "0 (adamw: 0.01)" */
static void describe_default(const lks__option *option, char *out, size_t bytes)
{
    snprintf(out, bytes, "%s", default_of(option));
    if (option->other_default != NULL)
        snprintf(out, bytes, "%s (%s: %s)", default_of(option),
                 lks__option_word("optimizer.kind", (int)option->other_kind), option->other_default);
}

/* Which kinds have the setting: "sgd", "adam, adamw"; "" for all, or when it does not depend on a choice. */
static void describe_kinds(const lks__option *option, char *out, size_t bytes)
{
    out[0] = '\0';
    if (option->of == NULL)
        return;
    const lks__option *kinds = lks__option_find(option->of);
    unsigned all = 0;
    for (const lks__choice *kind = kinds->choices; kind->name != NULL; kind++)
        all |= 1u << kind->value;
    if (option->kinds == all)
        return;
    for (const lks__choice *kind = kinds->choices; kind->name != NULL; kind++)
        if (option->kinds & 1u << kind->value)
            lks__append(out, bytes, "%s%s", out[0] == '\0' ? "" : ", ", kind->name);
}

/* "sgd only: momentum, in PyTorch's form" */
static void describe(const lks__option *option, char *out, size_t bytes)
{
    char kinds[60];
    describe_kinds(option, kinds, sizeof kinds);
    snprintf(out, bytes, "%s%s%s", kinds, kinds[0] != '\0' ? " only: " : "", option->doc);
}

enum { DOC_BYTES = 400, KEY_WIDTH = 22, LINE_WIDTH = 98 };

lks_status lks_config_help_text(char **out)
{
    lks__text text = {0};
    lks__text_add(&text,
                  "Settings: in the config file as YAML, where dots are nesting, or on the command line "
                  "as\nkey=value. The value auto unsets a key.\n");
    for (int i = 0; i < lks__n_options; i++) {
        const lks__option *option = &lks__options[i];
        char allowed[LKS__ALLOWED_BYTES], standard[60], doc[DOC_BYTES], facts[DOC_BYTES];
        lks__option_allowed(option, allowed);
        describe_default(option, standard, sizeof standard);
        describe(option, doc, sizeof doc);
        snprintf(facts, sizeof facts, "%s%s%s; default: %s", allowed, option->unit != NULL ? ", in " : "",
                 option->unit != NULL ? option->unit : "", standard);
        lks__text_add(&text, "\n%-*s", KEY_WIDTH, option->key);
        lks__text_add_wrapped(&text, LINE_WIDTH, KEY_WIDTH, doc);
        lks__text_add(&text, "%*s", KEY_WIDTH, "");
        lks__text_add_wrapped(&text, LINE_WIDTH, KEY_WIDTH, facts);
    }
    return lks__text_take(&text, out);
}

lks_status lks_config_help_markdown(char **out)
{
    lks__text text = {0};
    lks__text_add(
        &text,
        "<!-- Written by `lockstep help options --markdown`; a test compares. -->\n"
        "# Settings\n\n"
        "In the config file, keys are YAML, where dots are nesting (`batch: {local: 64}`). On the command "
        "line\nthey are `key=value` pairs that override the file (`batch.local=64`); the value `auto` "
        "unsets a key.\n\n"
        "| key | allowed | unit | default | meaning |\n|---|---|---|---|---|\n");
    for (int i = 0; i < lks__n_options; i++) {
        const lks__option *option = &lks__options[i];
        char allowed[LKS__ALLOWED_BYTES], standard[60], doc[DOC_BYTES];
        lks__option_allowed(option, allowed);
        describe_default(option, standard, sizeof standard);
        describe(option, doc, sizeof doc);
        lks__text_add(&text, "| `%s` | %s | %s | %s | %s |\n", option->key, allowed,
                      option->unit != NULL ? option->unit : "", standard, doc);
    }
    return lks__text_take(&text, out);
}
