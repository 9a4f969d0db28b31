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
} mhp_option_type;

typedef struct mhp_int_list { int64_t *items; size_t count; } mhp_int_list;
typedef struct mhp_float_list { double *items; size_t count; } mhp_float_list;
typedef struct mhp_string_list { char **items; size_t count; } mhp_string_list;

typedef struct mhp_option_choice { const char *name; int value; } mhp_option_choice;

typedef struct mhp_option {
    const char *key;            /* NULL ends a table */
    mhp_option_type type;
    size_t offset;              /* in the struct of the table */
    const char *default_text;   /* as it would stand in YAML ("4096", "[]", ""); NULL: the key is required */
    double minimum, maximum;    /* numbers, and each item of a list of numbers; both 0: no bounds */
    const char *unit;           /* "tokens", "bytes", ...; NULL if none */
    const char *help;
    const mhp_option_choice *choices;       /* MHP_OPTION_ENUM; ended by a NULL name */
    const struct mhp_option *section;       /* MHP_OPTION_SECTION */
} mhp_option;

/* Sets every key of `parameters` to its default (required ones to zero). The struct must be zeroed or have been read before. */
mhp_status mhp_options_default(const mhp_option *table, void *parameters);
/* Releases strings and lists and zeroes the struct. */
void mhp_options_release(const mhp_option *table, void *parameters);

/* Reads a YAML file (or text; `name` stands for the file in errors) over the defaults. One error with file:line:column, what was
 * expected and the nearest known key: unknown or duplicate keys, wrong types, values out of range, missing required keys, aliases,
 * anchors, tags, depth > 16, several documents. */
mhp_status mhp_options_read_file(const mhp_option *table, void *parameters, const char *path);
mhp_status mhp_options_read_text(const mhp_option *table, void *parameters, const char *name, const char *text, size_t length);
/* Like the readers above, but takes --set overrides ("section.key=value", value as YAML) into account before required keys are
 * checked; errors in them say "--set ...". */
mhp_status mhp_options_load(const mhp_option *table, void *parameters, const char *path, char *const *overrides, size_t override_count);
/* One override on its own. */
mhp_status mhp_options_set(const mhp_option *table, void *parameters, const char *assignment);

/* The resolved whole as YAML that reads back to the same values (doubles round-trip); and the documentation of every key. */
mhp_status mhp_options_print(const mhp_option *table, const void *parameters, FILE *stream);
mhp_status mhp_options_list(const mhp_option *table, FILE *stream);

#endif
