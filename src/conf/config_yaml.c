/* SPDX-License-Identifier: Apache-2.0 */
#include "conf/config_yaml.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/text.h"

enum { MAX_FILE_BYTES = 1 << 20, MAX_KEY_BYTES = 128, MAX_DEPTH = 16 };

/* --- reading --- */

typedef struct reader {
    const char *path;
    lks__yaml_setting_fn *fn;
    void *context;
    yaml_document_t *document;
    int lines[LKS__MAX_OPTIONS]; /* where each option was set; 0: not yet */
} reader;

static int line_of(const yaml_node_t *node)
{
    return (int)node->start_mark.line + 1;
}

static lks_status at_line(const reader *r, int line, lks_status status)
{
    return lks__error_prefix(status, "%s:%d", r->path, line);
}

static bool is_null(const yaml_node_t *node)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", "auto"};
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    for (size_t i = 0; i < sizeof nulls / sizeof nulls[0]; i++)
        if (strcmp((const char *)node->data.scalar.value, nulls[i]) == 0)
            return true;
    return false;
}

/* The text of a scalar; NULL when the node is none, or when it has a zero byte inside. */
static const char *scalar_text(const yaml_node_t *node)
{
    if (node->type != YAML_SCALAR_NODE)
        return NULL;
    const char *text = (const char *)node->data.scalar.value;
    return strlen(text) == node->data.scalar.length ? text : NULL;
}

static lks_status wrong_structure(const reader *r, const lks__option *option, const yaml_node_t *node)
{
    static const char *const kinds[] = {
        [YAML_NO_NODE] = "nothing",
        [YAML_SCALAR_NODE] = "a text with a zero byte",
        [YAML_SEQUENCE_NODE] = "a list",
        [YAML_MAPPING_NODE] = "a group of keys",
    };
    char allowed[LKS__ALLOWED_BYTES];
    lks__option_allowed(option, allowed);
    return at_line(r, line_of(node),
                   lks__fail(LKS_E_ARG, "%s is %s; %s is needed", option->key, kinds[node->type], allowed));
}

/* [512, 256] as the text "[512,256]". */
static lks_status read_list(reader *r, const lks__option *option, const yaml_node_t *node)
{
    const yaml_node_item_t *first = node->data.sequence.items.start, *top = node->data.sequence.items.top;
    lks__text joined = {0};
    char *text;
    lks__text_add(&joined, "[");
    for (const yaml_node_item_t *item = first; item < top; item++) {
        const char *element = scalar_text(yaml_document_get_node(r->document, *item));
        if (element == NULL) {
            free(joined.data);
            return wrong_structure(r, option, node);
        }
        lks__text_add(&joined, "%s%s", item == first ? "" : ",", element);
    }
    lks__text_add(&joined, "]");
    lks_status status = lks__text_take(&joined, &text);
    if (status != LKS_OK)
        return status;
    status = r->fn(r->context, option, text, line_of(node));
    free(text);
    return status == LKS_OK ? LKS_OK : at_line(r, line_of(node), status);
}

static lks_status read_value(reader *r, const lks__option *option, const yaml_node_t *node)
{
    if (option->type == LKS__OPTION_INT_LIST && node->type == YAML_SEQUENCE_NODE)
        return read_list(r, option, node);
    const char *text = scalar_text(node);
    if (text == NULL)
        return wrong_structure(r, option, node);
    lks_status status = r->fn(r->context, option, is_null(node) ? NULL : text, line_of(node));
    return status == LKS_OK ? LKS_OK : at_line(r, line_of(node), status);
}

/* A key that was there before; first_line: 0 if it was not. */
static lks_status check_repeated(const reader *r, const char *key, int line, int first_line)
{
    if (first_line == 0)
        return LKS_OK;
    return at_line(r, line, lks__fail(LKS_E_ARG, "%s is set twice, first in line %d", key, first_line));
}

static lks_status read_option(reader *r, const lks__option *option, const yaml_node_t *key,
                              const yaml_node_t *value)
{
    int *line = &r->lines[option - lks__options];
    lks_status status = check_repeated(r, option->key, line_of(key), *line);
    if (status != LKS_OK)
        return status;
    *line = line_of(key);
    return read_value(r, option, value);
}

static lks_status read_mapping(reader *r, const char *prefix, const yaml_node_t *node);

/* Depth and cycles (through anchors): only keys of the table and their groups are followed, so both end. */
static lks_status read_pair(reader *r, const char *prefix, const yaml_node_t *key_node,
                            const yaml_node_t *value)
{
    char key[MAX_KEY_BYTES];
    const char *word = scalar_text(key_node);
    if (word == NULL)
        return at_line(r, line_of(key_node), lks__fail(LKS_E_ARG, "a key is no plain word"));
    snprintf(key, sizeof key, "%s%s%s", prefix, prefix[0] ? "." : "", word);

    const lks__option *option = lks__option_find(key);
    if (option != NULL)
        return read_option(r, option, key_node, value);
    if (lks__option_is_group(key) && value->type == YAML_MAPPING_NODE)
        return read_mapping(r, key, value);
    if (lks__option_is_group(key) && is_null(value))
        return LKS_OK;
    return at_line(r, line_of(key_node), lks__option_unknown(key));
}

/* Groups have no place in `lines`: looks for the same word among the mapping's earlier keys, which are few
 * because each of them is an option or a group. */
static lks_status check_group_once(const reader *r, const yaml_node_pair_t *first,
                                   const yaml_node_pair_t *pair, const yaml_node_t *key)
{
    const char *word = scalar_text(key);
    for (; word != NULL && first < pair; first++) {
        const yaml_node_t *earlier = yaml_document_get_node(r->document, first->key);
        if (strcmp(scalar_text(earlier), word) == 0)
            return check_repeated(r, word, line_of(key), line_of(earlier));
    }
    return LKS_OK;
}

/* prefix: the key of the mapping itself; "" at the top. */
static lks_status read_mapping(reader *r, const char *prefix, const yaml_node_t *node)
{
    const yaml_node_pair_t *first = node->data.mapping.pairs.start;
    for (const yaml_node_pair_t *pair = first; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(r->document, pair->key);
        lks_status status = check_group_once(r, first, pair, key);
        if (status == LKS_OK)
            status = read_pair(r, prefix, key, yaml_document_get_node(r->document, pair->value));
        if (status != LKS_OK)
            return status;
    }
    return LKS_OK;
}

static lks_status read_document(reader *r)
{
    const yaml_node_t *root = yaml_document_get_root_node(r->document);
    if (root == NULL || is_null(root))
        return lks__fail(LKS_E_ARG, "%s: the file holds no settings", r->path);
    if (root->type != YAML_MAPPING_NODE)
        return at_line(r, line_of(root),
                       lks__fail(LKS_E_ARG, "this is %s; settings as \"key: value\" are needed",
                                 root->type == YAML_SEQUENCE_NODE ? "a list" : "a text"));
    return read_mapping(r, "", root);
}

static lks_status syntax_error(const char *path, const yaml_parser_t *parser)
{
    const char *problem = parser->problem != NULL ? parser->problem : "unreadable";
    if (parser->error == YAML_MEMORY_ERROR)
        return lks__fail(LKS_E_NOMEM, "%s: out of memory", path);
    if (parser->error == YAML_READER_ERROR)
        return lks__fail(LKS_E_ARG, "%s: this is no YAML: %s (byte %zu)", path, problem,
                         parser->problem_offset);
    return lks__fail(LKS_E_ARG, "%s:%d: this is no YAML: %s", path, (int)parser->problem_mark.line + 1,
                     problem);
}

/* After the first document there must be nothing. */
static lks_status check_end(const char *path, yaml_parser_t *parser)
{
    yaml_document_t second;
    if (!yaml_parser_load(parser, &second))
        return syntax_error(path, parser);
    const yaml_node_t *root = yaml_document_get_root_node(&second);
    lks_status status = LKS_OK;
    if (root != NULL)
        status = lks__fail(LKS_E_ARG, "%s:%d: a second YAML document begins; a config is one", path,
                           line_of(root));
    yaml_document_delete(&second);
    return status;
}

/* How much deeper the document is after this event. */
static int nesting_of(yaml_event_type_t type)
{
    if (type == YAML_SEQUENCE_START_EVENT || type == YAML_MAPPING_START_EVENT)
        return 1;
    return type == YAML_SEQUENCE_END_EVENT || type == YAML_MAPPING_END_EVENT ? -1 : 0;
}

/* libyaml's time for nested brackets grows with the square of their number: half a minute for 100 kB of them.
 * What is wrong otherwise is found later, and told better. */
static lks_status check_depth(const char *path, const char *yaml, size_t bytes)
{
    yaml_parser_t parser;
    yaml_event_t event;
    lks_status status = LKS_OK;
    bool more = true;
    if (!yaml_parser_initialize(&parser))
        return lks__fail(LKS_E_NOMEM, "%s: out of memory", path);
    yaml_parser_set_input_string(&parser, (const unsigned char *)yaml, bytes);
    for (int depth = 0; more && yaml_parser_parse(&parser, &event);) {
        depth += nesting_of(event.type);
        if (depth > MAX_DEPTH)
            status = lks__fail(LKS_E_ARG, "%s:%d: groups and lists lie more than %d deep; this is no config",
                               path, (int)event.start_mark.line + 1, MAX_DEPTH);
        more = depth <= MAX_DEPTH && event.type != YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return status;
}

static lks_status parse(const char *path, const char *yaml, size_t bytes, reader *r)
{
    yaml_parser_t parser;
    yaml_document_t document;
    lks_status status = check_depth(path, yaml, bytes);
    if (status != LKS_OK)
        return status;
    if (!yaml_parser_initialize(&parser))
        return lks__fail(LKS_E_NOMEM, "%s: out of memory", path);
    yaml_parser_set_input_string(&parser, (const unsigned char *)yaml, bytes);
    if (!yaml_parser_load(&parser, &document)) {
        status = syntax_error(path, &parser);
        goto delete_parser;
    }
    r->document = &document;
    status = read_document(r);
    yaml_document_delete(&document);
    if (status == LKS_OK)
        status = check_end(path, &parser);

delete_parser:
    yaml_parser_delete(&parser);
    return status;
}

static lks_status open_failed(const char *path, int error_number)
{
    if (error_number == EISDIR)
        return lks__fail(LKS_E_ARG, "%s is a folder; a config file is needed", path);
    return lks__fail_errno(LKS_E_NOT_FOUND, error_number, "cannot read the config %s", path);
}

/* The whole file; *out is for lks__free. */
static lks_status read_file(const char *path, char **out, size_t *out_bytes)
{
    *out = NULL;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return open_failed(path, errno);
    lks_status status = LKS_OK;
    char *content = lks__alloc(MAX_FILE_BYTES + 1, LKS__MEM_MISC);
    if (content == NULL) {
        status = LKS_E_NOMEM;
        goto close;
    }
    size_t bytes = fread(content, 1, MAX_FILE_BYTES + 1, file);
    if (ferror(file))
        status = open_failed(path, errno);
    else if (bytes > MAX_FILE_BYTES)
        status = lks__fail(LKS_E_ARG, "%s is larger than %d bytes; this is no config", path, MAX_FILE_BYTES);
    if (status != LKS_OK) {
        lks__free(content);
        goto close;
    }
    *out = content;
    *out_bytes = bytes;

close:
    fclose(file);
    return status;
}

lks_status lks__yaml_read(const char *path, lks__yaml_setting_fn *fn, void *context)
{
    char *yaml;
    size_t bytes = 0;
    lks_status status = read_file(path, &yaml, &bytes);
    if (status != LKS_OK)
        return status;
    reader r = {.path = path, .fn = fn, .context = context};
    status = parse(path, yaml, bytes, &r);
    lks__free(yaml);
    return status;
}

lks_status lks__yaml_parse(const char *name, const char *yaml, lks__yaml_setting_fn *fn, void *context)
{
    reader r = {.path = name, .fn = fn, .context = context};
    return parse(name, yaml, strlen(yaml), &r);
}

/* --- writing --- */

static int append(void *context, unsigned char *data, size_t bytes)
{
    lks__text *text = context;
    lks__text_add(text, "%.*s", (int)bytes, (const char *)data);
    return !text->failed;
}

/* As yaml_emitter_emit; an event that could not be made (`made` 0) is not emitted. */
static bool emit(yaml_emitter_t *emitter, yaml_event_t *event, int made)
{
    return made && yaml_emitter_emit(emitter, event);
}

static bool emit_scalar(yaml_emitter_t *emitter, const char *text, size_t length, yaml_scalar_style_t style)
{
    yaml_event_t event;
    return emit(emitter, &event,
                yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text, (int)length, 1, 1,
                                             style));
}

static bool emit_mapping_start(yaml_emitter_t *emitter)
{
    yaml_event_t event;
    return emit(emitter, &event,
                yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE));
}

static bool emit_mapping_ends(yaml_emitter_t *emitter, int n)
{
    yaml_event_t event;
    for (; n > 0; n--)
        if (!emit(emitter, &event, yaml_mapping_end_event_initialize(&event)))
            return false;
    return true;
}

/* text: "[512, 256]" */
static bool emit_list(yaml_emitter_t *emitter, const char *text)
{
    yaml_event_t event;
    if (!emit(emitter, &event,
              yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, YAML_FLOW_SEQUENCE_STYLE)))
        return false;
    while (*(text += strspn(text, "[, ]")) != '\0') {
        size_t length = strcspn(text, "[, ]");
        if (!emit_scalar(emitter, text, length, YAML_PLAIN_SCALAR_STYLE))
            return false;
        text += length;
    }
    return emit(emitter, &event, yaml_sequence_end_event_initialize(&event));
}

static int count_dots(const char *text)
{
    int n = 0;
    for (; *text != '\0'; text++)
        n += *text == '.';
    return n;
}

/* How many characters of two keys are groups that they share: 5 for "data.path" and "data.tail". */
static size_t shared_groups(const char *a, const char *b)
{
    size_t shared = 0;
    for (size_t i = 0; a[i] != '\0' && a[i] == b[i]; i++)
        if (a[i] == '.')
            shared = i + 1;
    return shared;
}

/* Leaves the groups that end after `previous`, enters those that begin before `option`, writes the pair. */
static bool emit_option(yaml_emitter_t *emitter, const char *previous, const lks__option *option,
                        const char *value)
{
    size_t shared = shared_groups(previous, option->key);
    if (!emit_mapping_ends(emitter, count_dots(previous + shared)))
        return false;
    const char *word = option->key + shared;
    for (const char *dot; (dot = strchr(word, '.')) != NULL; word = dot + 1)
        if (!emit_scalar(emitter, word, (size_t)(dot - word), YAML_PLAIN_SCALAR_STYLE) ||
            !emit_mapping_start(emitter))
            return false;
    if (!emit_scalar(emitter, word, strlen(word), YAML_PLAIN_SCALAR_STYLE))
        return false;
    if (option->type == LKS__OPTION_INT_LIST)
        return emit_list(emitter, value);
    return emit_scalar(emitter, value, strlen(value),
                       option->type == LKS__OPTION_TEXT ? YAML_DOUBLE_QUOTED_SCALAR_STYLE
                                                        : YAML_PLAIN_SCALAR_STYLE);
}

static bool emit_settings(yaml_emitter_t *emitter, const lks__settings *settings)
{
    const char *previous = "";
    if (!emit_mapping_start(emitter))
        return false;
    for (int i = 0; i < lks__n_options; i++) {
        char buffer[LKS__VALUE_BYTES];
        const lks__option *option = &lks__options[i];
        const char *value = lks__option_format(option, settings, buffer);
        if (value == NULL || value[0] == '\0' || !lks__option_applies(option, settings))
            continue;
        if (!emit_option(emitter, previous, option, value))
            return false;
        previous = option->key;
    }
    return emit_mapping_ends(emitter, count_dots(previous) + 1);
}

static bool emit_document(yaml_emitter_t *emitter, const lks__settings *settings)
{
    yaml_event_t event;
    return emit(emitter, &event, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING)) &&
           emit(emitter, &event, yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1)) &&
           emit_settings(emitter, settings) &&
           emit(emitter, &event, yaml_document_end_event_initialize(&event, 1)) &&
           emit(emitter, &event, yaml_stream_end_event_initialize(&event));
}

lks_status lks__settings_to_yaml(const lks__settings *settings, char **out)
{
    yaml_emitter_t emitter;
    lks__text text = {0};
    *out = NULL;
    if (!yaml_emitter_initialize(&emitter))
        return lks__fail(LKS_E_NOMEM, "out of memory");
    yaml_emitter_set_output(&emitter, append, &text);
    yaml_emitter_set_unicode(&emitter, 1);
    yaml_emitter_set_width(&emitter, -1);
    bool ok = emit_document(&emitter, settings);
    yaml_emitter_delete(&emitter);
    if (ok)
        return lks__text_take(&text, out);
    /* Values are valid UTF-8 and events come in order, so only memory can have run out. */
    free(text.data);
    return lks__fail(LKS_E_NOMEM, "out of memory");
}

lks_status lks_config_to_yaml(const lks_config *config, char **out)
{
    return lks__settings_to_yaml(lks__config_settings(config), out);
}

bool lks__yaml_can_hold(const char *text)
{
    yaml_event_t event;
    if (!yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text, (int)strlen(text), 1, 1,
                                      YAML_DOUBLE_QUOTED_SCALAR_STYLE))
        return false;
    yaml_event_delete(&event);
    return true;
}
