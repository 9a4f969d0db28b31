/* Option tables at work: defaults, release, overrides, and what is still missing. Reading YAML is in option_yaml.c. */
#include "core/option_internal.h"

#include <assert.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"

mhp_status mhp_option_locale_enter(mhp_option_locale *locale)
{
    locale->ours = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!locale->ours) {
        return mhp_error_set(MHP_ERR_NO_MEMORY, "cannot make the locale that numbers are read in");
    }
    locale->theirs = uselocale(locale->ours);
    return MHP_OK;
}

void mhp_option_locale_leave(mhp_option_locale *locale)
{
    uselocale(locale->theirs);
    freelocale(locale->ours);
}

/* ---- defaults and release ---- */

static mhp_status set_default(const mhp_option *option, void *field)
{
    mhp_option_scalar scalar = {.text = option->default_text, .length = strlen(option->default_text)};

    if (mhp_option_is_list(option->type)) { /* "[a, b]" */
        return mhp_option_read_value(option, field, option->key, scalar.text);
    }
    scalar.quoted = option->type == MHP_OPTION_STRING;
    return mhp_option_take(option, field, &scalar);
}

mhp_status mhp_option_set_defaults(const mhp_option *table, void *parameters)
{
    for (const mhp_option *option = table; option->key; option++) {
        void *field = mhp_option_field(option, parameters);

        if (option->type == MHP_OPTION_SECTION) {
            MHP_RETURN_IF_ERROR(mhp_option_set_defaults(option->section, field));
            continue;
        }
        mhp_option_clear(option, field);
        if (option->default_text && set_default(option, field) < 0) {
            return mhp_error_set(MHP_ERR_INTERNAL, "the default \"%s\" of option %s does not fit the option", option->default_text,
                                 option->key);
        }
        if (!option->default_text && option->type == MHP_OPTION_STRING) {
            MHP_RETURN_IF_ERROR(mhp_strdup(field, ""));
        }
    }
    return MHP_OK;
}

mhp_status mhp_options_default(const mhp_option *table, void *parameters)
{
    mhp_option_locale locale;
    mhp_status status;

    MHP_RETURN_IF_ERROR(mhp_option_locale_enter(&locale));
    status = mhp_option_set_defaults(table, parameters);
    mhp_option_locale_leave(&locale);
    return status;
}

void mhp_options_release(const mhp_option *table, void *parameters)
{
    for (const mhp_option *option = table; option->key; option++) {
        void *field = mhp_option_field(option, parameters);

        if (option->type == MHP_OPTION_SECTION) {
            mhp_options_release(option->section, field);
        } else {
            mhp_option_clear(option, field);
        }
    }
}

/* ---- overrides ---- */

static mhp_status raise_unknown_override(const mhp_option *root, const mhp_option *table, const char *assignment, const char *key,
                                         size_t length)
{
    char nearest[MHP_OPTION_PATH_MAX], word[MHP_OPTION_PATH_MAX];

    snprintf(word, sizeof word, "%.*s", (int)length, key);
    if (mhp_option_nearest_key(root, table, word, nearest)) {
        return mhp_error_set(MHP_ERR_CONFIG, "--set %.200s: unknown key \"%s\": expected a known one; the nearest is %s", assignment,
                             word, nearest);
    }
    return mhp_error_set(MHP_ERR_CONFIG, "--set %.200s: unknown key \"%s\": expected a known one, such as %s", assignment, word,
                         table->key ? table->key : "none");
}

/* Follows "section.key" of `assignment` down to one option. */
static mhp_status find_path(const mhp_option *root, void *parameters, const char *assignment, const char *end,
                            const mhp_option **option_out, void **field_out)
{
    const mhp_option *table = root;
    void *base = parameters;

    for (const char *key = assignment;;) {
        const char *point = memchr(key, '.', (size_t)(end - key));
        size_t length = (size_t)((point ? point : end) - key);
        const mhp_option *option = mhp_option_find(table, key, length);

        if (!option) {
            return raise_unknown_override(root, table, assignment, key, length);
        }
        *option_out = option;
        *field_out = mhp_option_field(option, base);
        if (!point) {
            return MHP_OK;
        }
        if (option->type != MHP_OPTION_SECTION) {
            return mhp_error_set(MHP_ERR_CONFIG, "--set %.200s: %s is no section: expected \"=\" behind it", assignment, option->key);
        }
        table = option->section;
        base = *field_out;
        key = point + 1;
    }
}

static mhp_status set_override(const mhp_option *table, void *parameters, const char *assignment, mhp_option_given *given)
{
    const char *equals = strchr(assignment, '=');
    const mhp_option *option = NULL;
    void *field = NULL;
    char name[MHP_OPTION_PATH_MAX + 64];        /* "--set key=value", long values cut */

    if (!equals || equals == assignment) {
        return mhp_error_set(MHP_ERR_CONFIG, "--set %.200s: expected section.key=value", assignment);
    }
    if (equals - assignment >= MHP_OPTION_PATH_MAX) {
        return mhp_error_set(MHP_ERR_CONFIG, "--set %.200s...: expected a key of fewer than %d bytes", assignment, MHP_OPTION_PATH_MAX);
    }
    MHP_RETURN_IF_ERROR(find_path(table, parameters, assignment, equals, &option, &field));
    snprintf(name, sizeof name, "--set %.*s", MHP_OPTION_PATH_MAX, assignment);
    return mhp_option_read_override(table, option, field, name, equals + 1, given);
}

mhp_status mhp_options_set(const mhp_option *table, void *parameters, const char *assignment)
{
    mhp_option_given given = {0};
    mhp_option_locale locale;
    mhp_status status;

    MHP_RETURN_IF_ERROR(mhp_option_locale_enter(&locale));
    status = set_override(table, parameters, assignment, &given);
    mhp_option_locale_leave(&locale);
    mhp_free(given.items);
    return status;
}

/* ---- whole documents ---- */

mhp_status mhp_option_check_required(const mhp_option *table, void *parameters, const char *name, const char *prefix,
                                     const mhp_option_given *given)
{
    for (const mhp_option *option = table; option->key; option++) {
        void *field = mhp_option_field(option, parameters);
        char path[MHP_OPTION_PATH_MAX], expected[MHP_OPTION_DESCRIPTION_MAX];

        snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", option->key);
        if (option->type == MHP_OPTION_SECTION) {
            MHP_RETURN_IF_ERROR(mhp_option_check_required(option->section, field, name, path, given));
        } else if (!option->default_text && !mhp_option_was_given(given, option, field, 0)) {
            mhp_option_describe(option, expected);
            return mhp_error_set(MHP_ERR_CONFIG, "%s: %s is missing: expected %s", name, path, expected);
        }
    }
    return MHP_OK;
}

/* A document to read; text NULL: none. */
typedef struct option_source {
    const char *name;
    const char *text;
    size_t length;
    char *const *overrides;
    size_t override_count;
} option_source;

static mhp_status load(const mhp_option *table, void *parameters, const option_source *source)
{
    mhp_status status = MHP_OK;
    mhp_option_given given = {0};
    mhp_option_locale locale;

    MHP_RETURN_IF_ERROR(mhp_option_locale_enter(&locale));
    MHP_TRY(out, mhp_option_set_defaults(table, parameters));
    if (source->text) {
        MHP_TRY(out, mhp_option_read_document(table, parameters, source->name, source->text, source->length, &given));
    }
    for (size_t i = 0; i < source->override_count; i++) {
        MHP_TRY(out, set_override(table, parameters, source->overrides[i], &given));
    }
    MHP_TRY(out, mhp_option_check_required(table, parameters, source->name, "", &given));
out:
    mhp_option_locale_leave(&locale);
    mhp_free(given.items);
    return status;
}

mhp_status mhp_options_read_text(const mhp_option *table, void *parameters, const char *name, const char *text, size_t length)
{
    const option_source source = {.name = name, .text = text, .length = length};

    return load(table, parameters, &source);
}

mhp_status mhp_options_load(const mhp_option *table, void *parameters, const char *path, char *const *overrides, size_t override_count)
{
    option_source source = {.name = path ? path : "configuration", .overrides = overrides, .override_count = override_count};
    char *text = NULL;
    mhp_status status = MHP_OK;

    if (path) {
        MHP_TRY(out, mhp_file_read_all(path, MHP_OPTION_TEXT_MAX, &text, &source.length));
        source.text = text;
    }
    MHP_TRY(out, load(table, parameters, &source));
out:
    mhp_free(text);
    return status;
}

mhp_status mhp_options_read_file(const mhp_option *table, void *parameters, const char *path)
{
    return mhp_options_load(table, parameters, path, NULL, 0);
}
