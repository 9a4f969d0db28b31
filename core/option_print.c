/* Parameters as YAML, and the documentation of their keys. */
#include "core/option_internal.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "core/utf8.h"

/* ---- values ---- */

static bool is_plain_character(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("_./+-", c) != NULL;
}

/* Whether a string reads back as itself without quotes. */
static bool is_plain(const char *text)
{
    if (text[0] == '-' || text[0] == '.' || mhp_option_is_null(text) || mhp_option_is_bool(text) || mhp_option_is_number(text)) {
        return false;
    }
    for (const char *c = text; *c; c++) {
        if (!is_plain_character(*c)) {
            return false;
        }
    }
    return true;
}

mhp_status mhp_option_print_string(const char *text, FILE *stream)
{
    if (is_plain(text)) {
        fputs(text, stream);
    } else if (!mhp_utf8_write_quoted(text, stream)) {
        return mhp_error_set(MHP_ERR_INVALID, "a string holds bytes that are not UTF-8: expected text");
    }
    return MHP_OK;
}

static mhp_status print_float(double value, FILE *stream)
{
    char text[MHP_OPTION_FLOAT_TEXT_MAX];

    if (!isfinite(value)) {
        return mhp_error_set(MHP_ERR_INVALID, "%g cannot be written: expected a finite number", value);
    }
    mhp_option_float_text(value, text);
    fputs(text, stream);
    return MHP_OK;
}

static mhp_status print_enum(const mhp_option *option, int value, FILE *stream)
{
    for (const mhp_option_choice *choice = option->choices; choice->name; choice++) {
        if (choice->value == value) {
            fputs(choice->name, stream);
            return MHP_OK;
        }
    }
    return mhp_error_set(MHP_ERR_INVALID, "%d is none of its choices", value);
}

static mhp_status print_list(const mhp_option *option, const void *field, FILE *stream)
{
    const mhp_int_list *ints = field;
    const mhp_float_list *floats = field;
    const mhp_string_list *strings = field;
    size_t count = option->type == MHP_OPTION_INT_LIST ? ints->count : option->type == MHP_OPTION_FLOAT_LIST ? floats->count
                                                                                                           : strings->count;

    fputc('[', stream);
    for (size_t i = 0; i < count; i++) {
        fputs(i ? ", " : "", stream);
        if (option->type == MHP_OPTION_INT_LIST) {
            fprintf(stream, "%lld", (long long)ints->items[i]);
        } else if (option->type == MHP_OPTION_FLOAT_LIST) {
            MHP_RETURN_IF_ERROR(print_float(floats->items[i], stream));
        } else {
            MHP_RETURN_IF_ERROR(mhp_option_print_string(strings->items[i], stream));
        }
    }
    fputc(']', stream);
    return MHP_OK;
}

static mhp_status print_value(const mhp_option *option, const void *field, FILE *stream);

/* In one line, "{key: value, section: {key: value}}". */
static mhp_status print_flow(const mhp_option *table, const void *parameters, FILE *stream)
{
    fputc('{', stream);
    for (const mhp_option *option = table; option->key; option++) {
        fprintf(stream, "%s%s: ", option == table ? "" : ", ", option->key);
        MHP_RETURN_IF_ERROR(
            mhp_error_prefix(print_value(option, mhp_option_const_field(option, parameters), stream), "%s: ", option->key));
    }
    fputc('}', stream);
    return MHP_OK;
}

/* Every item in a line of its own; an empty list, and one inside another item, in brackets. */
static mhp_status print_sections(const mhp_option *option, const mhp_section_list *list, int depth, FILE *stream)
{
    bool in_lines = depth > 0 && list->count > 0;

    fputs(in_lines ? "" : "[", stream);
    for (size_t i = 0; i < list->count; i++) {
        if (in_lines) {
            fprintf(stream, "\n%*s- ", 2 * depth, "");
        } else {
            fputs(i ? ", " : "", stream);
        }
        MHP_RETURN_IF_ERROR(print_flow(option->section, (const char *)list->items + i * option->section_bytes, stream));
    }
    fputs(in_lines ? "" : "]", stream);
    return MHP_OK;
}

static void print_int(const mhp_option *option, int64_t value, FILE *stream)
{
    for (const mhp_option_choice *choice = option->choices; choice && choice->name; choice++) {
        if (choice->value == value) {
            fputs(choice->name, stream);
            return;
        }
    }
    fprintf(stream, "%lld", (long long)value);
}

static mhp_status print_value(const mhp_option *option, const void *field, FILE *stream)
{
    switch (option->type) {
    case MHP_OPTION_BOOL:
        fputs(*(const bool *)field ? "true" : "false", stream);
        return MHP_OK;
    case MHP_OPTION_INT:
        print_int(option, *(const int64_t *)field, stream);
        return MHP_OK;
    case MHP_OPTION_FLOAT:
        return print_float(*(const double *)field, stream);
    case MHP_OPTION_STRING:
        return mhp_option_print_string(*(char *const *)field, stream);
    case MHP_OPTION_ENUM:
        return print_enum(option, *(const int *)field, stream);
    case MHP_OPTION_SECTION:
        return print_flow(option->section, field, stream);
    case MHP_OPTION_SECTION_LIST:
        return print_sections(option, field, 0, stream);
    default:
        return print_list(option, field, stream);
    }
}

static mhp_status print_table(const mhp_option *table, const void *parameters, int depth, FILE *stream)
{
    for (const mhp_option *option = table; option->key; option++) {
        const void *field = mhp_option_const_field(option, parameters);

        fprintf(stream, "%*s%s:", 2 * depth, "", option->key);
        if (option->type == MHP_OPTION_SECTION) {
            fputs(option->section->key ? "\n" : " {}\n", stream);
            MHP_RETURN_IF_ERROR(print_table(option->section, field, depth + 1, stream));
            continue;
        }
        if (option->type == MHP_OPTION_SECTION_LIST && ((const mhp_section_list *)field)->count > 0) {
            MHP_RETURN_IF_ERROR(mhp_error_prefix(print_sections(option, field, depth + 1, stream), "%s: ", option->key));
        } else {
            fputc(' ', stream);
            MHP_RETURN_IF_ERROR(mhp_error_prefix(print_value(option, field, stream), "%s: ", option->key));
        }
        fputc('\n', stream);
    }
    return MHP_OK;
}

static mhp_status check_stream(FILE *stream)
{
    if (fflush(stream) != 0 || ferror(stream)) {
        return mhp_error_set(MHP_ERR_IO, "cannot write the configuration: %s", strerror(errno));
    }
    return MHP_OK;
}

mhp_status mhp_options_print(const mhp_option *table, const void *parameters, FILE *stream)
{
    mhp_option_locale locale;
    mhp_status status;

    MHP_RETURN_IF_ERROR(mhp_option_locale_enter(&locale));
    status = print_table(table, parameters, 0, stream);
    mhp_option_locale_leave(&locale);
    return status < 0 ? status : check_stream(stream);
}

/* ---- documentation ---- */

static const char *type_text(mhp_option_type type)
{
    static const char *const texts[] = {
        [MHP_OPTION_BOOL] = "boolean",
        [MHP_OPTION_INT] = "integer",
        [MHP_OPTION_FLOAT] = "number",
        [MHP_OPTION_STRING] = "string",
        [MHP_OPTION_ENUM] = "choice",
        [MHP_OPTION_INT_LIST] = "list of integers",
        [MHP_OPTION_FLOAT_LIST] = "list of numbers",
        [MHP_OPTION_STRING_LIST] = "list of strings",
        [MHP_OPTION_SECTION] = "section",
        [MHP_OPTION_SECTION_LIST] = "list of mappings",
    };

    return texts[type];
}

static void list_option(const mhp_option *option, const char *path, FILE *stream)
{
    const char *value = option->default_text;
    char values[MHP_OPTION_DESCRIPTION_MAX];

    mhp_option_describe_values(option, values);
    fprintf(stream, "%s  %s", path, type_text(option->type));
    fprintf(stream, value ? ", default %s" : ", required%s", value ? (*value ? value : "\"\"") : "");
    fprintf(stream, "%s%s\n    %s\n", values[0] ? "; " : "", values, option->help);
}

static void list_table(const mhp_option *table, const char *prefix, FILE *stream)
{
    for (const mhp_option *option = table; option->key; option++) {
        char path[MHP_OPTION_PATH_MAX];

        snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", option->key);
        if (option->type == MHP_OPTION_SECTION) {
            fprintf(stream, "\n%s: %s\n", path, option->help);
            list_table(option->section, path, stream);
        } else {
            list_option(option, path, stream);
        }
        if (option->type == MHP_OPTION_SECTION_LIST) {
            snprintf(path + strlen(path), sizeof path - strlen(path), "[]");
            list_table(option->section, path, stream);
        }
    }
}

mhp_status mhp_options_list(const mhp_option *table, FILE *stream)
{
    mhp_option_locale locale;

    MHP_RETURN_IF_ERROR(mhp_option_locale_enter(&locale));
    list_table(table, "", stream);
    mhp_option_locale_leave(&locale);
    return check_stream(stream);
}
