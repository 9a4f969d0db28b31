#include "core/yaml_internal.h"

mhp_status mhp_yaml_verror(const mhp_yaml *yaml, yaml_mark_t mark, const char *format, va_list arguments)
{
    mhp_status status = mhp_error_vset(yaml->code, format, arguments);

    if (yaml->has_no_place) {
        return mhp_error_prefix(status, "%s: ", yaml->name);
    }
    return mhp_error_prefix(status, "%s:%zu:%zu: ", yaml->name, mark.line + 1, mark.column + 1);
}

mhp_status mhp_yaml_error(const mhp_yaml *yaml, yaml_mark_t mark, const char *format, ...)
{
    va_list arguments;
    mhp_status status;

    va_start(arguments, format);
    status = mhp_yaml_verror(yaml, mark, format, arguments);
    va_end(arguments);
    return status;
}

/* libyaml gives a place, except where bytes are no characters: there only their offset. */
static yaml_mark_t mark_of_offset(const mhp_yaml *yaml, size_t offset)
{
    yaml_mark_t mark = {0};

    for (size_t i = 0; i < offset && i < yaml->length; i++) {
        mark.column++;
        if (yaml->text[i] == '\n') {
            mark.line++;
            mark.column = 0;
        }
    }
    return mark;
}

static mhp_status raise_parser(const mhp_yaml *yaml)
{
    const yaml_parser_t *parser = &yaml->parser;

    switch (parser->error) {
    case YAML_MEMORY_ERROR:
        return mhp_error_set(MHP_ERR_NO_MEMORY, "%s: libyaml is out of memory", yaml->name);
    case YAML_READER_ERROR:
        return mhp_yaml_error(yaml, mark_of_offset(yaml, parser->problem_offset), "%s: expected printable text in UTF-8",
                              parser->problem);
    default:
        return mhp_yaml_error(yaml, parser->problem_mark, "not YAML: %s%s%s", parser->context ? parser->context : "",
                              parser->context ? ", " : "", parser->problem);
    }
}

mhp_status mhp_yaml_open(mhp_yaml *yaml, const char *name, const char *text, size_t length, mhp_status code)
{
    *yaml = (mhp_yaml){.name = name, .text = text, .length = length, .code = code};
    if (!yaml_parser_initialize(&yaml->parser)) {
        return mhp_error_set(MHP_ERR_NO_MEMORY, "%s: libyaml is out of memory", name);
    }
    yaml_parser_set_encoding(&yaml->parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&yaml->parser, (const unsigned char *)text, length);
    return MHP_OK;
}

void mhp_yaml_close(mhp_yaml *yaml)
{
    if (yaml->has_event) {
        yaml_event_delete(&yaml->event);
    }
    yaml->has_event = false;
    yaml_parser_delete(&yaml->parser);
}

/* ---- form ---- */

static const char *anchor_of(const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return (const char *)event->data.scalar.anchor;
    case YAML_SEQUENCE_START_EVENT:
        return (const char *)event->data.sequence_start.anchor;
    case YAML_MAPPING_START_EVENT:
        return (const char *)event->data.mapping_start.anchor;
    default:
        return NULL;
    }
}

static const char *tag_of(const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return (const char *)event->data.scalar.tag;
    case YAML_SEQUENCE_START_EVENT:
        return (const char *)event->data.sequence_start.tag;
    case YAML_MAPPING_START_EVENT:
        return (const char *)event->data.mapping_start.tag;
    default:
        return NULL;
    }
}

static mhp_status check_event(mhp_yaml *yaml)
{
    const yaml_event_t *event = &yaml->event;

    if (event->type == YAML_ALIAS_EVENT) {
        return mhp_yaml_error(yaml, event->start_mark, "alias *%.100s: expected the value itself, aliases are not read",
                              (const char *)event->data.alias.anchor);
    }
    if (anchor_of(event)) {
        return mhp_yaml_error(yaml, event->start_mark, "anchor &%.100s: expected a value without one, anchors are not read",
                              anchor_of(event));
    }
    if (tag_of(event)) {
        return mhp_yaml_error(yaml, event->start_mark, "tag %.100s: expected a value without one, tags are not read",
                              tag_of(event));
    }
    if (event->type == YAML_DOCUMENT_START_EVENT && ++yaml->documents > 1) {
        return mhp_yaml_error(yaml, event->start_mark, "a second document: expected one");
    }
    if (event->type == YAML_MAPPING_END_EVENT || event->type == YAML_SEQUENCE_END_EVENT) {
        yaml->depth--;
    }
    if ((event->type == YAML_MAPPING_START_EVENT || event->type == YAML_SEQUENCE_START_EVENT) &&
        ++yaml->depth > MHP_YAML_DEPTH_MAX) {
        return mhp_yaml_error(yaml, event->start_mark, "nested %d deep: expected at most %d", yaml->depth, MHP_YAML_DEPTH_MAX);
    }
    return MHP_OK;
}

mhp_status mhp_yaml_next(mhp_yaml *yaml)
{
    if (yaml->has_event) {
        yaml_event_delete(&yaml->event);
    }
    yaml->has_event = yaml_parser_parse(&yaml->parser, &yaml->event) != 0;
    return yaml->has_event ? check_event(yaml) : raise_parser(yaml);
}

mhp_status mhp_yaml_enter(mhp_yaml *yaml, bool *has_content_out)
{
    do {
        MHP_RETURN_IF_ERROR(mhp_yaml_next(yaml));
    } while (yaml->event.type == YAML_STREAM_START_EVENT || yaml->event.type == YAML_DOCUMENT_START_EVENT);
    *has_content_out = yaml->event.type != YAML_STREAM_END_EVENT;
    return MHP_OK;
}
