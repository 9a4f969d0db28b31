/* One YAML document as libyaml's events, in the form that every reader here asks for: UTF-8, one document, no anchors, aliases or
 * tags, not nested deeper than MHP_YAML_DEPTH_MAX. Internal to readers. */
#ifndef MHP_CORE_YAML_INTERNAL_H
#define MHP_CORE_YAML_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <yaml.h>

#include "core/status.h"

enum { MHP_YAML_DEPTH_MAX = 16 };

typedef struct mhp_yaml {
    yaml_parser_t parser;
    yaml_event_t event;         /* the newest one */
    bool has_event;
    const char *name;           /* of the file */
    const char *text;
    size_t length;
    mhp_status code;            /* of errors in the document */
    bool has_no_place;          /* one line, as from a command line: errors give its name alone */
    int depth, documents;
} mhp_yaml;

/* `text` must outlive the reader. Close in any case of success. */
mhp_status mhp_yaml_open(mhp_yaml *yaml, const char *name, const char *text, size_t length, mhp_status code);
void mhp_yaml_close(mhp_yaml *yaml);

/* The next event, whose form is good. */
mhp_status mhp_yaml_next(mhp_yaml *yaml);
/* To the first event of the document's content; false if there is none. */
mhp_status mhp_yaml_enter(mhp_yaml *yaml, bool *has_content_out);

/* "file:line:column: text", with the reader's code. */
mhp_status mhp_yaml_verror(const mhp_yaml *yaml, yaml_mark_t mark, const char *format, va_list arguments)
    __attribute__((format(printf, 3, 0)));
mhp_status mhp_yaml_error(const mhp_yaml *yaml, yaml_mark_t mark, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
