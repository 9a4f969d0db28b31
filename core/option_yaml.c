/* Configurations from YAML, by libyaml's events: once over the whole document for its form, then once more for the values. */
#include "core/option_internal.h"

#include <assert.h>
#include <string.h>

#include "core/memory.h"
#include "core/yaml_internal.h"

typedef struct yaml_reader {
    mhp_yaml yaml;
    yaml_event_t event;         /* the newest one, which `yaml` owns */
    const char *name;           /* of the file */
    bool is_override;           /* of one line, so that errors carry no place */
    const char *text;
    size_t length;
    const mhp_option *root;     /* table that the nearest key is looked for in */
    mhp_option_given *given;
    int document;
} yaml_reader;

/* ---- errors ---- */

static mhp_status raise_at(const yaml_reader *reader, yaml_mark_t mark, const char *format, ...) __attribute__((format(printf, 3, 4)));

static mhp_status raise_at(const yaml_reader *reader, yaml_mark_t mark, const char *format, ...)
{
    va_list arguments;
    mhp_status status;

    va_start(arguments, format);
    status = mhp_yaml_verror(&reader->yaml, mark, format, arguments);
    va_end(arguments);
    return status;
}

static mhp_status raise_value(const yaml_reader *reader, const mhp_option *option, const char *path)
{
    const yaml_event_t *event = &reader->event;
    const char *nearest = NULL, *text = "";
    char expected[MHP_OPTION_DESCRIPTION_MAX];

    mhp_option_describe(option, expected);
    if (event->type == YAML_SEQUENCE_START_EVENT) {
        return raise_at(reader, event->start_mark, "%s is a list: expected %s", path, expected);
    }
    if (event->type == YAML_MAPPING_START_EVENT) {
        return raise_at(reader, event->start_mark, "%s is a mapping: expected %s", path, expected);
    }
    text = (const char *)event->data.scalar.value;
    if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && mhp_option_is_null(text)) {
        return raise_at(reader, event->start_mark, "%s is null: expected %s", path, expected);
    }
    if (option->type == MHP_OPTION_ENUM) {
        nearest = mhp_option_nearest_choice(option->choices, text);
    }
    if (nearest) {
        return raise_at(reader, event->start_mark, "%s is \"%.100s\": expected %s; the nearest is %s", path, text, expected, nearest);
    }
    if (option->type == MHP_OPTION_STRING || option->type == MHP_OPTION_STRING_LIST) {
        return raise_at(reader, event->start_mark, "%s is %.100s: expected %s; write \"%.100s\" in quotes if it is meant", path, text,
                        expected, text);
    }
    return raise_at(reader, event->start_mark, "%s is \"%.100s\": expected %s", path, text, expected);
}

static mhp_status raise_unknown_key(const yaml_reader *reader, const mhp_option *table, const char *path, const char *key)
{
    char nearest[MHP_OPTION_PATH_MAX];

    if (mhp_option_nearest_key(reader->root, table, key, nearest)) {
        return raise_at(reader, reader->event.start_mark, "unknown key \"%.100s%s%.100s\": expected a known one; the nearest is %s", path,
                        *path ? "." : "", key, nearest);
    }
    return raise_at(reader, reader->event.start_mark, "unknown key \"%.100s%s%.100s\": expected a known one, such as %s", path,
                    *path ? "." : "", key, table->key ? table->key : "none");
}

/* ---- events ---- */

static mhp_status open_reader(yaml_reader *reader)
{
    MHP_RETURN_IF_ERROR(mhp_yaml_open(&reader->yaml, reader->name, reader->text, reader->length, MHP_ERR_CONFIG));
    reader->yaml.has_no_place = reader->is_override;
    return MHP_OK;
}

static mhp_status next_event(yaml_reader *reader)
{
    MHP_RETURN_IF_ERROR(mhp_yaml_next(&reader->yaml));
    reader->event = reader->yaml.event;
    return MHP_OK;
}

static mhp_status check_form(yaml_reader *reader)
{
    mhp_status status = MHP_OK;

    if (reader->length > MHP_OPTION_TEXT_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT, "%s: %zu bytes: expected at most %d", reader->name, reader->length, MHP_OPTION_TEXT_MAX);
    }
    MHP_RETURN_IF_ERROR(open_reader(reader));
    do {
        MHP_TRY(out, next_event(reader));
    } while (reader->event.type != YAML_STREAM_END_EVENT);
    if (reader->yaml.documents == 0 && !reader->is_override) {
        MHP_RAISE(out, MHP_ERR_CONFIG, "%s:1:1: nothing in it: expected a mapping of sections", reader->name);
    }
out:
    mhp_yaml_close(&reader->yaml);
    return status;
}

/* ---- values ---- */

const mhp_option_given_key *mhp_option_was_given(const mhp_option_given *given, const mhp_option *option, const void *field,
                                                 int document)
{
    for (size_t i = 0; i < given->count; i++) {
        const mhp_option_given_key *key = &given->items[i];

        if (key->option == option && key->field == field && (document == 0 || key->document == document)) {
            return key;
        }
    }
    return NULL;
}

static mhp_status note_given(yaml_reader *reader, const mhp_option *option, const void *field, const char *path)
{
    mhp_option_given *given = reader->given;
    const mhp_option_given_key *before = mhp_option_was_given(given, option, field, reader->document);

    if (before) {
        return raise_at(reader, reader->event.start_mark, "duplicate key %s: expected it once, it stands in line %d already", path,
                        before->line);
    }
    MHP_RETURN_IF_ERROR(mhp_realloc(&given->items, given->count + 1, sizeof *given->items));
    given->items[given->count++] = (mhp_option_given_key){
        .option = option, .field = field, .document = reader->document, .line = (int)reader->event.start_mark.line + 1};
    return MHP_OK;
}

static mhp_status read_scalar(yaml_reader *reader, const mhp_option *option, void *field, const char *path)
{
    const mhp_option_scalar scalar = {.text = (const char *)reader->event.data.scalar.value,
                                      .length = reader->event.data.scalar.length,
                                      .quoted = reader->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE};
    mhp_status status = mhp_option_take(option, field, &scalar);

    return status == MHP_ERR_CONFIG ? raise_value(reader, option, path) : status;
}

static mhp_status read_mapping(yaml_reader *reader, const mhp_option *table, void *parameters, const char *path);

/* A mapping of a list of them. What it was given is forgotten behind it: it is whole then, and may move as the list grows. */
static mhp_status read_section(yaml_reader *reader, const mhp_option *option, mhp_section_list *list, const char *path)
{
    const yaml_mark_t mark = reader->event.start_mark;
    size_t given_before = reader->given->count;
    char item_path[MHP_OPTION_PATH_MAX], place[MHP_OPTION_PATH_MAX + 64];
    void *item = NULL;

    snprintf(item_path, sizeof item_path, "%s[%zu]", path, list->count);
    if (reader->event.type != YAML_MAPPING_START_EVENT) {
        const mhp_option section = {.key = option->key, .type = MHP_OPTION_SECTION, .section = option->section};

        return raise_value(reader, &section, item_path);
    }
    MHP_RETURN_IF_ERROR(mhp_option_append_section(option, list, &item));
    MHP_RETURN_IF_ERROR(read_mapping(reader, option->section, item, item_path));
    if (reader->is_override) {
        snprintf(place, sizeof place, "%s", reader->name);
    } else {
        snprintf(place, sizeof place, "%s:%zu:%zu", reader->name, mark.line + 1, mark.column + 1);
    }
    MHP_RETURN_IF_ERROR(mhp_option_check_required(option->section, item, place, item_path, reader->given));
    reader->given->count = given_before;
    return MHP_OK;
}

static size_t list_count(const mhp_option *option, const void *field)
{
    switch (option->type) {
    case MHP_OPTION_INT_LIST:
        return ((const mhp_int_list *)field)->count;
    case MHP_OPTION_FLOAT_LIST:
        return ((const mhp_float_list *)field)->count;
    case MHP_OPTION_SECTION_LIST:
        return ((const mhp_section_list *)field)->count;
    default:
        return ((const mhp_string_list *)field)->count;
    }
}

static mhp_status read_item(yaml_reader *reader, const mhp_option *option, void *field, const char *path)
{
    if (option->type == MHP_OPTION_SECTION_LIST) {
        return read_section(reader, option, field, path);
    }
    return reader->event.type == YAML_SCALAR_EVENT ? read_scalar(reader, option, field, path) : raise_value(reader, option, path);
}

static mhp_status read_list(yaml_reader *reader, const mhp_option *option, void *field, const char *path)
{
    mhp_option_clear(option, field);
    if (reader->event.type == YAML_SCALAR_EVENT && option->type == MHP_OPTION_STRING_LIST) {
        return read_scalar(reader, option, field, path);
    }
    if (reader->event.type != YAML_SEQUENCE_START_EVENT) {
        return raise_value(reader, option, path);
    }
    if (option->type == MHP_OPTION_SECTION_LIST && !reader->is_override) {
        ((mhp_section_list *)field)->line = reader->event.start_mark.line + 1;
        ((mhp_section_list *)field)->column = reader->event.start_mark.column + 1;
    }
    for (;;) {
        MHP_RETURN_IF_ERROR(next_event(reader));
        if (reader->event.type == YAML_SEQUENCE_END_EVENT) {
            return MHP_OK;
        }
        if (list_count(option, field) == MHP_OPTION_ITEMS_MAX) {
            return raise_at(reader, reader->event.start_mark, "%s has more items: expected at most %d", path, MHP_OPTION_ITEMS_MAX);
        }
        MHP_RETURN_IF_ERROR(read_item(reader, option, field, path));
    }
}

/* The event at hand is the value's first. */
static mhp_status read_option(yaml_reader *reader, const mhp_option *option, void *field, const char *path)
{
    if (option->type == MHP_OPTION_SECTION) {
        if (reader->event.type != YAML_MAPPING_START_EVENT) {
            return raise_value(reader, option, path);
        }
        return read_mapping(reader, option->section, field, path);
    }
    if (mhp_option_is_list(option->type)) {
        return read_list(reader, option, field, path);
    }
    return reader->event.type == YAML_SCALAR_EVENT ? read_scalar(reader, option, field, path) : raise_value(reader, option, path);
}

const mhp_option *mhp_option_find(const mhp_option *table, const char *key, size_t length)
{
    for (const mhp_option *option = table; option->key; option++) {
        if (strlen(option->key) == length && memcmp(option->key, key, length) == 0) {
            return option;
        }
    }
    return NULL;
}

static mhp_status read_key(yaml_reader *reader, const mhp_option *table, void *parameters, const char *path)
{
    const mhp_option *option;
    const char *key;
    void *field;
    char key_path[MHP_OPTION_PATH_MAX];

    if (reader->event.type != YAML_SCALAR_EVENT) {
        return raise_at(reader, reader->event.start_mark, "a key that is no word: expected a known one, such as %s",
                        table->key ? table->key : "none");
    }
    key = (const char *)reader->event.data.scalar.value;
    option = mhp_option_find(table, key, reader->event.data.scalar.length);
    if (!option) {
        return raise_unknown_key(reader, table, path, key);
    }
    field = mhp_option_field(option, parameters);
    snprintf(key_path, sizeof key_path, "%s%s%s", path, *path ? "." : "", option->key);
    MHP_RETURN_IF_ERROR(note_given(reader, option, field, key_path));
    MHP_RETURN_IF_ERROR(next_event(reader));
    return read_option(reader, option, field, key_path);
}

/* Behind the start of a mapping, to its end. Depth is that of the tables. */
static mhp_status read_mapping(yaml_reader *reader, const mhp_option *table, void *parameters, const char *path)
{
    for (;;) {
        MHP_RETURN_IF_ERROR(next_event(reader));
        if (reader->event.type == YAML_MAPPING_END_EVENT) {
            return MHP_OK;
        }
        MHP_RETURN_IF_ERROR(read_key(reader, table, parameters, path));
    }
}

/* To the first event of the document's content; false if there is none. */
static mhp_status enter_document(yaml_reader *reader, bool *has_content_out)
{
    MHP_RETURN_IF_ERROR(mhp_yaml_enter(&reader->yaml, has_content_out));
    reader->event = reader->yaml.event;
    return MHP_OK;
}

mhp_status mhp_option_read_document(const mhp_option *table, void *parameters, const char *name, const char *text, size_t length,
                                    mhp_option_given *given)
{
    const mhp_option document = {.key = "", .type = MHP_OPTION_SECTION, .section = table};
    yaml_reader reader = {.name = name, .text = text, .length = length, .root = table, .given = given};
    mhp_status status = MHP_OK;
    bool has_content = false;

    reader.document = ++given->documents;
    MHP_RETURN_IF_ERROR(check_form(&reader));
    MHP_RETURN_IF_ERROR(open_reader(&reader));
    MHP_TRY(out, enter_document(&reader, &has_content));
    assert(has_content);
    if (reader.event.type != YAML_MAPPING_START_EVENT) {
        status = raise_value(&reader, &document, "the document");
        goto out;
    }
    MHP_TRY(out, read_mapping(&reader, table, parameters, ""));
out:
    mhp_yaml_close(&reader.yaml);
    return status;
}

mhp_status mhp_option_read_override(const mhp_option *root, const mhp_option *option, void *field, const char *name, const char *text,
                                    mhp_option_given *given)
{
    yaml_reader reader = {.name = name, .is_override = true, .text = text, .length = strlen(text), .root = root, .given = given};
    mhp_status status = MHP_OK;
    bool has_content = false;
    char expected[MHP_OPTION_DESCRIPTION_MAX];

    reader.document = ++given->documents;
    MHP_RETURN_IF_ERROR(check_form(&reader));
    MHP_RETURN_IF_ERROR(open_reader(&reader));
    MHP_TRY(out, enter_document(&reader, &has_content));
    if (!has_content) {
        mhp_option_describe(option, expected);
        MHP_RAISE(out, MHP_ERR_CONFIG, "%s: no value: expected %s", name, expected);
    }
    MHP_TRY(out, note_given(&reader, option, field, option->key));
    MHP_TRY(out, read_option(&reader, option, field, option->key));
out:
    mhp_yaml_close(&reader.yaml);
    return status;
}

mhp_status mhp_option_read_value(const mhp_option *option, void *field, const char *name, const char *text)
{
    mhp_option_given given = {0};
    mhp_status status = mhp_option_read_override(option, option, field, name, text, &given);

    mhp_free(given.items);
    return status;
}
