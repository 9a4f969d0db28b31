/* Option tables: one table describes the keys of a parameter struct and drives everything that touches them - reading YAML, --set,
 * printing the resolved whole, and the documentation. Each folder declares its own struct with its own table; launch composes them. */
#ifndef MHP_CORE_OPTION_H
#define MHP_CORE_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/status.h"

typedef enum mhp_option_type {
    MHP_OPTION_BOOL,            /* bool */
    MHP_OPTION_INT,             /* int64_t */
    MHP_OPTION_FLOAT,           /* double */
    MHP_OPTION_STRING,          /* char *, owned by the struct; never NULL after defaults */
    MHP_OPTION_ENUM,            /* int, one of `choices` */
    MHP_OPTION_INT_LIST,        /* mhp_int_list */
    MHP_OPTION_FLOAT_LIST,      /* mhp_float_list */
    MHP_OPTION_STRING_LIST,     /* mhp_string_list; a single scalar is read as a list of one */
    MHP_OPTION_SECTION,         /* a nested struct with its own table */
    MHP_OPTION_SECTION_LIST,    /* mhp_section_list: structs of one table, each a mapping in a list */
} mhp_option_type;

typedef struct mhp_int_list { int64_t *items; size_t count; } mhp_int_list;
typedef struct mhp_float_list { double *items; size_t count; } mhp_float_list;
typedef struct mhp_string_list { char **items; size_t count; } mhp_string_list;

/* `items` is an array of the table's structs. The place is that of the list in its document, from 1, for errors that only show when
 * all is read; 0 if it was not given. */
typedef struct mhp_section_list {
    void *items;
    size_t count;
    size_t line, column;
} mhp_section_list;

typedef struct mhp_option_choice { const char *name; int value; } mhp_option_choice;

typedef struct mhp_option {
    const char *key;            /* NULL ends a table */
    mhp_option_type type;
    size_t offset;              /* in the struct of the table */
    const char *default_text;   /* as it would stand in YAML ("4096", "[]", ""); NULL: the key is required */
    double minimum, maximum;    /* numbers, and each item of a list of numbers; both 0: no bounds */
    const char *unit;           /* "tokens", "bytes", ...; NULL if none */
    const char *help;
    const mhp_option_choice *choices;       /* MHP_OPTION_ENUM, or names of an MHP_OPTION_INT's special values, which may lie out of
                                             * bounds; ended by a NULL name */
    const struct mhp_option *section;       /* MHP_OPTION_SECTION, MHP_OPTION_SECTION_LIST */
    size_t section_bytes;       /* MHP_OPTION_SECTION_LIST: of one struct */
} mhp_option;

/* Limits: a larger document, more items or a longer override is refused; as is nesting deeper than core/yaml_internal.h allows. */
enum {
    MHP_OPTION_TEXT_MAX = 1 << 20,      /* bytes of a document */
    MHP_OPTION_ITEMS_MAX = 65536,       /* of a list */
    MHP_OPTION_PATH_MAX = 256,          /* bytes of a key with its sections, "model.hidden_size" */
};

/* Sets every key of `parameters` to its default (required ones to zero). The struct must be zeroed or have been read before. */
mhp_status mhp_options_default(const mhp_option *table, void *parameters);
/* Releases strings and lists and zeroes every key. */
void mhp_options_release(const mhp_option *table, void *parameters);

/* Reads a YAML file (or text; `name` stands for the file in errors) over the defaults. One error (MHP_ERR_CONFIG) with
 * file:line:column, what was found, what was expected and the nearest known key: unknown or duplicate keys, wrong types, values out
 * of range, missing required keys, null, aliases, anchors, tags, depth > 16, several documents, bytes that are not UTF-8, nothing at
 * all. After an error the parameters hold any mixture of values and are still to be released.
 *
 * Values are YAML's, read strictly: true and false; integers in decimal or 0x; floats as 0.1, 3 or 1e-5, always finite; a string
 * that looks like one of these needs quotes. */
mhp_status mhp_options_read_file(const mhp_option *table, void *parameters, const char *path);
mhp_status mhp_options_read_text(const mhp_option *table, void *parameters, const char *name, const char *text, size_t length);
/* Like the readers above, but takes --set overrides ("section.key=value", value as YAML; the last one of a key wins) into account
 * before required keys are checked; errors in them say "--set section.key=value: ...". Without a `path` only defaults and overrides
 * count. */
mhp_status mhp_options_load(const mhp_option *table, void *parameters, const char *path, char *const *overrides, size_t override_count);
/* One override on its own; a section may be set as a mapping, "section={key: value}". */
mhp_status mhp_options_set(const mhp_option *table, void *parameters, const char *assignment);

/* Whether the numbers of a struct that was filled in another way lie within their bounds; MHP_ERR_CONFIG names the key with `prefix`
 * ("" for none) before it. Lists are not looked at. */
mhp_status mhp_options_check(const mhp_option *table, const void *parameters, const char *prefix);

/* The resolved whole as YAML that reads back to the same values (doubles round-trip). MHP_ERR_INVALID if a value cannot be written:
 * a number that is not finite, a string that is not UTF-8, an enum without a name. */
mhp_status mhp_options_print(const mhp_option *table, const void *parameters, FILE *stream);
/* A string as mhp_options_print writes it. */
mhp_status mhp_option_print_string(const char *text, FILE *stream);
/* The documentation of every key for a terminal: a line of key, type, default and values, and its help below. */
mhp_status mhp_options_list(const mhp_option *table, FILE *stream);

#endif
