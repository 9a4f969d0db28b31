/* What the files of the option reader share. Private to core/option*.c. */
#ifndef MHP_CORE_OPTION_INTERNAL_H
#define MHP_CORE_OPTION_INTERNAL_H

#include <locale.h>

#include "core/option.h"

enum { MHP_OPTION_DESCRIPTION_MAX = 512 };

/* A scalar as it stands in a document; quoted ones are strings whatever they look like. */
typedef struct mhp_option_scalar {
    const char *text;           /* ends with a NUL byte that `length` does not count */
    size_t length;
    bool quoted;
} mhp_option_scalar;

static inline void *mhp_option_field(const mhp_option *option, void *base)
{
    return (char *)base + option->offset;
}

static inline const void *mhp_option_const_field(const mhp_option *option, const void *base)
{
    return (const char *)base + option->offset;
}

/* Releases what a field owns and zeroes it; not for sections. */
void mhp_option_clear(const mhp_option *option, void *field);

/* Reads a scalar into a field of a scalar type, or appends it to a field of a list type. MHP_ERR_CONFIG, without a text, if it is
 * not of the option's type, range or choices. */
mhp_status mhp_option_take(const mhp_option *option, void *field, const mhp_option_scalar *scalar);

/* Whether a plain scalar means null, a boolean or a number in YAML. */
bool mhp_option_is_null(const char *text);
bool mhp_option_is_bool(const char *text);
bool mhp_option_is_number(const char *text);

/* "an integer from 1 to 64 (tokens)", and the values alone: "1 to 64 tokens". */
void mhp_option_describe(const mhp_option *option, char text[MHP_OPTION_DESCRIPTION_MAX]);
void mhp_option_describe_values(const mhp_option *option, char text[MHP_OPTION_DESCRIPTION_MAX]);

bool mhp_option_is_list(mhp_option_type type);

/* Appends an item with its defaults to a MHP_OPTION_SECTION_LIST. The C locale must be entered. */
mhp_status mhp_option_append_section(const mhp_option *option, mhp_section_list *list, void **item_out);
mhp_status mhp_option_set_defaults(const mhp_option *table, void *parameters);

/* The shortest decimal that reads back as `value`, with a point, so that every YAML reader takes it for a float. */
enum { MHP_OPTION_FLOAT_TEXT_MAX = 40 };
void mhp_option_float_text(double value, char text[MHP_OPTION_FLOAT_TEXT_MAX]);

/* Writes the key of `table`, or of a table below it, that is written most like `word` into `nearest` as a path from `table`; false
 * if none is near. Keys of `here` are preferred. */
bool mhp_option_nearest_key(const mhp_option *table, const mhp_option *here, const char *word, char nearest[MHP_OPTION_PATH_MAX]);
/* The same among the names of choices; NULL if none is near. */
const char *mhp_option_nearest_choice(const mhp_option_choice *choices, const char *word);

/* The option of that key in one table; NULL if it has none. `key` needs no NUL byte. */
const mhp_option *mhp_option_find(const mhp_option *table, const char *key, size_t length);

/* Which keys a document or an override has set. `document` tells a key that stands twice in one from one that overrides another. */
typedef struct mhp_option_given_key {
    const mhp_option *option;
    const void *field;
    int document;
    int line;                   /* from 1 */
} mhp_option_given_key;

typedef struct mhp_option_given {
    mhp_option_given_key *items;
    size_t count;
    int documents;
} mhp_option_given;

/* The entry of a key in that document, or in any if `document` is 0; NULL if there is none. */
const mhp_option_given_key *mhp_option_was_given(const mhp_option_given *given, const mhp_option *option, const void *field,
                                                 int document);

/* MHP_ERR_CONFIG, "name: prefix.key is missing: expected ..." for the first required key that was not given. */
mhp_status mhp_option_check_required(const mhp_option *table, void *parameters, const char *name, const char *prefix,
                                     const mhp_option_given *given);

/* Reads a document over a struct; `given` gets what it set. Errors carry name:line:column. The C locale must be entered. */
mhp_status mhp_option_read_document(const mhp_option *table, void *parameters, const char *name, const char *text, size_t length,
                                    mhp_option_given *given);
/* Reads `text` as the value of one option, whose key is among those of `root` or below; errors begin with `name`. */
mhp_status mhp_option_read_override(const mhp_option *root, const mhp_option *option, void *field, const char *name, const char *text,
                                    mhp_option_given *given);
/* The same for a default. */
mhp_status mhp_option_read_value(const mhp_option *option, void *field, const char *name, const char *text);

/* Numbers are read and written with a point whatever the program's locale is. */
typedef struct mhp_option_locale {
    locale_t ours, theirs;
} mhp_option_locale;
mhp_status mhp_option_locale_enter(mhp_option_locale *locale);
void mhp_option_locale_leave(mhp_option_locale *locale);

#endif
