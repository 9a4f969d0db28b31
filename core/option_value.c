/* Scalars of a configuration: from text to fields, and in words. */
#include "core/option_internal.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

bool mhp_option_is_list(mhp_option_type type)
{
    return type == MHP_OPTION_INT_LIST || type == MHP_OPTION_FLOAT_LIST || type == MHP_OPTION_STRING_LIST ||
           type == MHP_OPTION_SECTION_LIST;
}

static void clear_sections(const mhp_option *option, mhp_section_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        mhp_options_release(option->section, (char *)list->items + i * option->section_bytes);
    }
    mhp_free(list->items);
    *list = (mhp_section_list){0};
}

void mhp_option_clear(const mhp_option *option, void *field)
{
    switch (option->type) {
    case MHP_OPTION_BOOL:
        *(bool *)field = false;
        break;
    case MHP_OPTION_INT:
        *(int64_t *)field = 0;
        break;
    case MHP_OPTION_FLOAT:
        *(double *)field = 0;
        break;
    case MHP_OPTION_STRING:
        mhp_free(*(char **)field);
        *(char **)field = NULL;
        break;
    case MHP_OPTION_ENUM:
        *(int *)field = 0;
        break;
    case MHP_OPTION_INT_LIST:
        mhp_free(((mhp_int_list *)field)->items);
        *(mhp_int_list *)field = (mhp_int_list){0};
        break;
    case MHP_OPTION_FLOAT_LIST:
        mhp_free(((mhp_float_list *)field)->items);
        *(mhp_float_list *)field = (mhp_float_list){0};
        break;
    case MHP_OPTION_STRING_LIST:
        for (size_t i = 0; i < ((mhp_string_list *)field)->count; i++) {
            mhp_free(((mhp_string_list *)field)->items[i]);
        }
        mhp_free(((mhp_string_list *)field)->items);
        *(mhp_string_list *)field = (mhp_string_list){0};
        break;
    case MHP_OPTION_SECTION_LIST:
        clear_sections(option, field);
        break;
    case MHP_OPTION_SECTION:
        assert(!"a section is cleared key by key");
        break;
    }
}

bool mhp_option_is_null(const char *text)
{
    return strcmp(text, "") == 0 || strcmp(text, "~") == 0 || strcasecmp(text, "null") == 0;
}

bool mhp_option_is_bool(const char *text)
{
    return strcasecmp(text, "true") == 0 || strcasecmp(text, "false") == 0;
}

static const char *skip_sign(const char *text)
{
    return *text == '-' || *text == '+' ? text + 1 : text;
}

static const char *skip_digits(const char *text)
{
    while (isdigit((unsigned char)*text)) {
        text++;
    }
    return text;
}

/* YAML 1.2's 0x and decimal; no octal, and no leading zero that could be taken for one. */
static bool is_integer(const char *text)
{
    const char *digits = skip_sign(text);

    if (digits[0] == '0' && digits[1] == 'x') {
        return digits[2] != '\0' && digits[2 + strspn(digits + 2, "0123456789abcdefABCDEF")] == '\0';
    }
    return isdigit((unsigned char)*digits) && (digits[0] != '0' || digits[1] == '\0') && *skip_digits(digits) == '\0';
}

/* Digits with at most one point, then perhaps an exponent. */
static bool is_decimal(const char *text)
{
    const char *start = skip_sign(text), *end = skip_digits(start);
    ptrdiff_t digits = end - start;

    if (*end == '.') {
        start = end + 1;
        end = skip_digits(start);
        digits += end - start;
    }
    if (digits > 0 && (*end == 'e' || *end == 'E')) {
        start = skip_sign(end + 1);
        end = skip_digits(start);
        digits = end - start;
    }
    return digits > 0 && *end == '\0';
}

bool mhp_option_is_number(const char *text)
{
    const char *unsigned_text = skip_sign(text);

    return is_integer(text) || is_decimal(text) || strcasecmp(unsigned_text, ".inf") == 0 || strcasecmp(text, ".nan") == 0;
}

static bool has_bounds(const mhp_option *option)
{
    return option->minimum != 0 || option->maximum != 0;
}

static bool in_bounds(const mhp_option *option, double value)
{
    return !has_bounds(option) || (value >= option->minimum && value <= option->maximum);
}

static bool parse_int(const mhp_option *option, const mhp_option_scalar *scalar, int64_t *value_out)
{
    long long value;

    if (scalar->quoted || !is_integer(scalar->text)) {
        return false;
    }
    errno = 0;
    value = strtoll(scalar->text, NULL, strpbrk(scalar->text, "x") ? 16 : 10);
    *value_out = value;
    return errno == 0 && in_bounds(option, (double)value);
}

static bool parse_float(const mhp_option *option, const mhp_option_scalar *scalar, double *value_out)
{
    if (scalar->quoted || !is_decimal(scalar->text)) {
        return false;
    }
    *value_out = strtod(scalar->text, NULL);
    return isfinite(*value_out) && in_bounds(option, *value_out);
}

static bool parse_string(const mhp_option_scalar *scalar)
{
    const char *text = scalar->text;

    if (strlen(text) != scalar->length) { /* "\0" */
        return false;
    }
    return scalar->quoted || !(mhp_option_is_null(text) || mhp_option_is_bool(text) || mhp_option_is_number(text));
}

static mhp_status take_bool(const mhp_option_scalar *scalar, bool *field)
{
    *field = strcmp(scalar->text, "true") == 0;
    return !scalar->quoted && (*field || strcmp(scalar->text, "false") == 0) ? MHP_OK : MHP_ERR_CONFIG;
}

static mhp_status take_enum(const mhp_option *option, const mhp_option_scalar *scalar, int *field)
{
    for (const mhp_option_choice *choice = option->choices; choice->name; choice++) {
        if (strcmp(choice->name, scalar->text) == 0 && strlen(scalar->text) == scalar->length) {
            *field = choice->value;
            return MHP_OK;
        }
    }
    return MHP_ERR_CONFIG;
}

static mhp_status take_string(const mhp_option_scalar *scalar, char **field)
{
    if (!parse_string(scalar)) {
        return MHP_ERR_CONFIG;
    }
    mhp_free(*field);
    *field = NULL;
    return mhp_strdup(field, scalar->text);
}

/* Makes room for one item more; capacities are powers of two. */
static mhp_status grow(void *items, size_t count, size_t item_bytes)
{
    if (count > 0 && (count & (count - 1)) != 0) {
        return MHP_OK;
    }
    return mhp_realloc(items, count ? 2 * count : 1, item_bytes);
}

static mhp_status append_int(const mhp_option *option, const mhp_option_scalar *scalar, mhp_int_list *list)
{
    int64_t value;

    if (!parse_int(option, scalar, &value)) {
        return MHP_ERR_CONFIG;
    }
    MHP_RETURN_IF_ERROR(grow(&list->items, list->count, sizeof *list->items));
    list->items[list->count++] = value;
    return MHP_OK;
}

static mhp_status append_float(const mhp_option *option, const mhp_option_scalar *scalar, mhp_float_list *list)
{
    double value;

    if (!parse_float(option, scalar, &value)) {
        return MHP_ERR_CONFIG;
    }
    MHP_RETURN_IF_ERROR(grow(&list->items, list->count, sizeof *list->items));
    list->items[list->count++] = value;
    return MHP_OK;
}

static mhp_status append_string(const mhp_option_scalar *scalar, mhp_string_list *list)
{
    if (!parse_string(scalar)) {
        return MHP_ERR_CONFIG;
    }
    MHP_RETURN_IF_ERROR(grow(&list->items, list->count, sizeof *list->items));
    MHP_RETURN_IF_ERROR(mhp_strdup(&list->items[list->count], scalar->text));
    list->count++;
    return MHP_OK;
}

mhp_status mhp_option_append_section(const mhp_option *option, mhp_section_list *list, void **item_out)
{
    char *item;

    MHP_RETURN_IF_ERROR(grow(&list->items, list->count, option->section_bytes));
    item = (char *)list->items + list->count * option->section_bytes;
    memset(item, 0, option->section_bytes);
    list->count++;
    *item_out = item;
    return mhp_option_set_defaults(option->section, item);
}

static bool take_named_int(const mhp_option *option, const mhp_option_scalar *scalar, int64_t *value_out)
{
    for (const mhp_option_choice *choice = option->choices; choice && choice->name; choice++) {
        if (strcmp(choice->name, scalar->text) == 0 && strlen(scalar->text) == scalar->length) {
            *value_out = choice->value;
            return true;
        }
    }
    return false;
}

mhp_status mhp_option_take(const mhp_option *option, void *field, const mhp_option_scalar *scalar)
{
    switch (option->type) {
    case MHP_OPTION_BOOL:
        return take_bool(scalar, field);
    case MHP_OPTION_INT:
        return take_named_int(option, scalar, field) || parse_int(option, scalar, field) ? MHP_OK : MHP_ERR_CONFIG;
    case MHP_OPTION_FLOAT:
        return parse_float(option, scalar, field) ? MHP_OK : MHP_ERR_CONFIG;
    case MHP_OPTION_STRING:
        return take_string(scalar, field);
    case MHP_OPTION_ENUM:
        return take_enum(option, scalar, field);
    case MHP_OPTION_INT_LIST:
        return append_int(option, scalar, field);
    case MHP_OPTION_FLOAT_LIST:
        return append_float(option, scalar, field);
    case MHP_OPTION_STRING_LIST:
        return append_string(scalar, field);
    case MHP_OPTION_SECTION:
    case MHP_OPTION_SECTION_LIST:
        break;
    }
    return MHP_ERR_CONFIG;
}

void mhp_option_float_text(double value, char text[MHP_OPTION_FLOAT_TEXT_MAX])
{
    char *exponent;

    if (value == floor(value) && fabs(value) < 1e15) {
        snprintf(text, MHP_OPTION_FLOAT_TEXT_MAX, "%.1f", value);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, MHP_OPTION_FLOAT_TEXT_MAX, "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            break;
        }
    }
    if (!strchr(text, '.')) { /* YAML 1.1 takes 1e-05 for a string, 1.0e-05 for a number */
        exponent = text + strcspn(text, "e");
        memmove(exponent + 2, exponent, strlen(exponent) + 1);
        memcpy(exponent, ".0", 2);
    }
}

/* A bound as people write it: 65536, 0.95, 1e+09. */
static void bound_text(double value, char text[MHP_OPTION_FLOAT_TEXT_MAX])
{
    if (value == floor(value) && fabs(value) < 1e8) {
        snprintf(text, MHP_OPTION_FLOAT_TEXT_MAX, "%.0f", value);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, MHP_OPTION_FLOAT_TEXT_MAX, "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            return;
        }
    }
}

static void describe_choices(const mhp_option *option, char text[MHP_OPTION_DESCRIPTION_MAX])
{
    size_t length = 0;

    for (const mhp_option_choice *choice = option->choices; choice->name; choice++) {
        const char *joint = choice == option->choices ? "" : choice[1].name ? ", " : " or ";
        int count = snprintf(text + length, MHP_OPTION_DESCRIPTION_MAX - length, "%s%s", joint, choice->name);

        length += (size_t)count;
        if (length >= MHP_OPTION_DESCRIPTION_MAX) {
            return;
        }
    }
}

void mhp_option_describe_values(const mhp_option *option, char text[MHP_OPTION_DESCRIPTION_MAX])
{
    const char *unit = option->unit ? option->unit : "";
    char minimum[MHP_OPTION_FLOAT_TEXT_MAX], maximum[MHP_OPTION_FLOAT_TEXT_MAX];

    text[0] = '\0';
    if (option->type == MHP_OPTION_ENUM) {
        describe_choices(option, text);
    } else if (option->type == MHP_OPTION_BOOL) {
        snprintf(text, MHP_OPTION_DESCRIPTION_MAX, "true or false");
    } else if (has_bounds(option)) {
        bound_text(option->minimum, minimum);
        bound_text(option->maximum, maximum);
        if (option->type == MHP_OPTION_INT && option->choices) {
            describe_choices(option, text);
        }
        snprintf(text + strlen(text), MHP_OPTION_DESCRIPTION_MAX - strlen(text), "%s%s to %s%s%s", *text ? " or " : "", minimum, maximum,
                 *unit ? " " : "", unit);
    } else {
        snprintf(text, MHP_OPTION_DESCRIPTION_MAX, "%s", unit);
    }
}

void mhp_option_describe(const mhp_option *option, char text[MHP_OPTION_DESCRIPTION_MAX])
{
    static const char *const kinds[] = {
        [MHP_OPTION_BOOL] = "",
        [MHP_OPTION_INT] = "an integer",
        [MHP_OPTION_FLOAT] = "a number",
        [MHP_OPTION_STRING] = "a string",
        [MHP_OPTION_ENUM] = "",
        [MHP_OPTION_INT_LIST] = "a list of integers",
        [MHP_OPTION_FLOAT_LIST] = "a list of numbers",
        [MHP_OPTION_STRING_LIST] = "a string or a list of strings",
        [MHP_OPTION_SECTION] = "a mapping of keys to values",
        [MHP_OPTION_SECTION_LIST] = "a list of mappings",
    };
    char values[MHP_OPTION_DESCRIPTION_MAX];
    const char *joint = "";

    mhp_option_describe_values(option, values);
    if (values[0] && kinds[option->type][0]) {
        joint = has_bounds(option) ? ", " : " of ";
    }
    snprintf(text, MHP_OPTION_DESCRIPTION_MAX, "%s%s%.400s", kinds[option->type], joint, values);
}
