#include "scheduler/yaml.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "core/utf8.h"
#include "core/yaml_internal.h"
#include "scheduler/csv.h"
#include "scheduler/placement.h"
#include "scheduler/rows.h"

enum { CELL_BYTES_MAX = 96, INTEGER_DIGITS_MAX = 9, LINE_COLUMNS = 100 };

typedef enum plan_key { KEY_NAME, KEY_MICROBATCHES, KEY_PLACEMENT, KEY_ACTIONS, KEY_COUNT } plan_key;

static const char *const key_text[KEY_COUNT] = {"name", "microbatches", "placement", "actions"};

/* A stage that the file says a rank holds. */
typedef struct said_stage {
    int rank, stage;
    yaml_mark_t mark;
} said_stage;

typedef struct plan_reader {
    mhp_yaml yaml;
    bool given[KEY_COUNT];
    yaml_mark_t place[KEY_COUNT];       /* of the value */
    char name[sizeof((mhp_plan *)0)->name];
    int microbatches;
    said_stage *said;
    size_t said_count, said_capacity;
    int said_ranks;
    mhp_rows rows;
} plan_reader;

static bool is_event(const plan_reader *reader, yaml_event_type_t type)
{
    return reader->yaml.event.type == type;
}

static mhp_status raise_here(const plan_reader *reader, const char *what, const char *expected)
{
    return mhp_yaml_error(&reader->yaml, reader->yaml.event.start_mark, "%s: expected %s", what, expected);
}

static mhp_status expect(const plan_reader *reader, yaml_event_type_t type, const char *what, const char *expected)
{
    return is_event(reader, type) ? MHP_OK : raise_here(reader, what, expected);
}

/* ---- values ---- */

static mhp_status read_integer(const plan_reader *reader, const char *what, int least, int most, int *value_out)
{
    const char *text = (const char *)reader->yaml.event.data.scalar.value;
    size_t digits = is_event(reader, YAML_SCALAR_EVENT) ? strspn(text, "0123456789") : 0;
    long value = digits > 0 && digits <= INTEGER_DIGITS_MAX ? strtol(text, NULL, 10) : -1;

    if (digits == 0 || text[digits] != '\0' || value < least || value > most) {
        return mhp_yaml_error(&reader->yaml, reader->yaml.event.start_mark, "%s%s%.40s: expected a number from %d to %d", what,
                              is_event(reader, YAML_SCALAR_EVENT) ? " is " : "", is_event(reader, YAML_SCALAR_EVENT) ? text : "",
                              least, most);
    }
    *value_out = (int)value;
    return MHP_OK;
}

static mhp_status read_name(plan_reader *reader)
{
    MHP_RETURN_IF_ERROR(expect(reader, YAML_SCALAR_EVENT, "name", "a text"));
    snprintf(reader->name, sizeof reader->name, "%s", (const char *)reader->yaml.event.data.scalar.value);
    return MHP_OK;
}

static mhp_status note_stage(plan_reader *reader)
{
    said_stage said = {.rank = reader->said_ranks, .mark = reader->yaml.event.start_mark};

    MHP_RETURN_IF_ERROR(read_integer(reader, "a stage of placement", 0, MHP_STAGES_MAX - 1, &said.stage));
    if (reader->said_count == reader->said_capacity) {
        size_t capacity = reader->said_capacity ? 2 * reader->said_capacity : 64;

        MHP_RETURN_IF_ERROR(mhp_realloc(&reader->said, capacity, sizeof *reader->said));
        reader->said_capacity = capacity;
    }
    reader->said[reader->said_count++] = said;
    return MHP_OK;
}

/* A list of lists of numbers. */
static mhp_status read_placement(plan_reader *reader)
{
    static const char *const expected = "a list of stages for every rank, as in [[0, 3], [1, 2]]";

    MHP_RETURN_IF_ERROR(expect(reader, YAML_SEQUENCE_START_EVENT, "placement", expected));
    for (;;) {
        MHP_RETURN_IF_ERROR(mhp_yaml_next(&reader->yaml));
        if (is_event(reader, YAML_SEQUENCE_END_EVENT)) {
            return MHP_OK;
        }
        MHP_RETURN_IF_ERROR(expect(reader, YAML_SEQUENCE_START_EVENT, "placement", expected));
        for (;;) {
            MHP_RETURN_IF_ERROR(mhp_yaml_next(&reader->yaml));
            if (is_event(reader, YAML_SEQUENCE_END_EVENT)) {
                break;
            }
            MHP_RETURN_IF_ERROR(note_stage(reader));
        }
        reader->said_ranks++;
    }
}

/* One word of a scalar. */
static mhp_status add_action(plan_reader *reader, const char *word, size_t length)
{
    char text[CELL_BYTES_MAX];
    mhp_action action;

    if (length >= sizeof text) {
        return mhp_error_set(MHP_ERR_FORMAT, "a word of %zu bytes: expected an action such as 3F0", length);
    }
    memcpy(text, word, length);
    text[length] = '\0';
    MHP_RETURN_IF_ERROR(mhp_action_parse(text, &action));
    return mhp_rows_add(&reader->rows, &action);
}

/* The scalar's actions, parted by blanks; errors say which one of the rank's it is. */
static mhp_status add_actions(plan_reader *reader)
{
    const char *text = (const char *)reader->yaml.event.data.scalar.value;
    size_t length = reader->yaml.event.data.scalar.length;
    yaml_mark_t mark = reader->yaml.event.start_mark;
    size_t at = 0;

    while (at < length) {
        size_t end = at;

        while (end < length && !strchr(" \t\r\n", text[end])) {
            end++;
        }
        if (end > at) {
            int rank = reader->rows.count - 1;

            MHP_RETURN_IF_ERROR(mhp_error_prefix(add_action(reader, text + at, end - at), "%s:%zu:%zu: rank %d, item %zu: ",
                                                 reader->yaml.name, mark.line + 1, mark.column + 1, rank,
                                                 reader->rows.items[rank].count + 1));
        }
        at = end + 1;
    }
    return MHP_OK;
}

static mhp_status read_rank(plan_reader *reader)
{
    static const char *const expected = "a list of actions, or a text of them, as in [0F0, 0B0]";

    MHP_RETURN_IF_ERROR(mhp_error_prefix(mhp_rows_add_rank(&reader->rows), "%s:%zu: ", reader->yaml.name,
                                         reader->yaml.event.start_mark.line + 1));
    if (is_event(reader, YAML_SCALAR_EVENT)) {
        return add_actions(reader);
    }
    MHP_RETURN_IF_ERROR(expect(reader, YAML_SEQUENCE_START_EVENT, "a rank's actions", expected));
    for (;;) {
        MHP_RETURN_IF_ERROR(mhp_yaml_next(&reader->yaml));
        if (is_event(reader, YAML_SEQUENCE_END_EVENT)) {
            return MHP_OK;
        }
        MHP_RETURN_IF_ERROR(expect(reader, YAML_SCALAR_EVENT, "an action", "a text such as 3F0"));
        MHP_RETURN_IF_ERROR(add_actions(reader));
    }
}

static mhp_status read_actions(plan_reader *reader)
{
    MHP_RETURN_IF_ERROR(expect(reader, YAML_SEQUENCE_START_EVENT, "actions", "a list with an entry for every rank"));
    for (;;) {
        MHP_RETURN_IF_ERROR(mhp_yaml_next(&reader->yaml));
        if (is_event(reader, YAML_SEQUENCE_END_EVENT)) {
            return MHP_OK;
        }
        MHP_RETURN_IF_ERROR(read_rank(reader));
    }
}

/* ---- document ---- */

static mhp_status find_key(const plan_reader *reader, plan_key *key_out)
{
    const char *text;

    MHP_RETURN_IF_ERROR(expect(reader, YAML_SCALAR_EVENT, "a key that is no word", "name, microbatches, placement or actions"));
    text = (const char *)reader->yaml.event.data.scalar.value;
    for (int key = 0; key < KEY_COUNT; key++) {
        if (strcmp(text, key_text[key]) != 0) {
            continue;
        }
        if (reader->given[key]) {
            return mhp_yaml_error(&reader->yaml, reader->yaml.event.start_mark,
                                  "duplicate key %s: expected it once, its value stands in line %zu already", text,
                                  reader->place[key].line + 1);
        }
        *key_out = (plan_key)key;
        return MHP_OK;
    }
    return mhp_yaml_error(&reader->yaml, reader->yaml.event.start_mark,
                          "unknown key \"%.100s\": expected name, microbatches, placement or actions", text);
}

static mhp_status read_value(plan_reader *reader, plan_key key)
{
    reader->given[key] = true;
    reader->place[key] = reader->yaml.event.start_mark;
    switch (key) {
    case KEY_NAME:
        return read_name(reader);
    case KEY_MICROBATCHES:
        return read_integer(reader, "microbatches", 1, MHP_MICROBATCHES_MAX, &reader->microbatches);
    case KEY_PLACEMENT:
        return read_placement(reader);
    default:
        return read_actions(reader);
    }
}

static mhp_status read_document(plan_reader *reader)
{
    bool has_content = false;
    plan_key key = KEY_COUNT;

    MHP_RETURN_IF_ERROR(mhp_yaml_enter(&reader->yaml, &has_content));
    if (!has_content || !is_event(reader, YAML_MAPPING_START_EVENT)) {
        return raise_here(reader, has_content ? "the document" : "nothing in it", "a mapping with the key actions");
    }
    for (;;) {
        MHP_RETURN_IF_ERROR(mhp_yaml_next(&reader->yaml));
        if (is_event(reader, YAML_MAPPING_END_EVENT)) {
            break;
        }
        MHP_RETURN_IF_ERROR(find_key(reader, &key));
        MHP_RETURN_IF_ERROR(mhp_yaml_next(&reader->yaml));
        MHP_RETURN_IF_ERROR(read_value(reader, key));
    }
    while (!is_event(reader, YAML_STREAM_END_EVENT)) {
        MHP_RETURN_IF_ERROR(mhp_yaml_next(&reader->yaml));
    }
    if (!reader->given[KEY_ACTIONS]) {
        return mhp_error_set(reader->yaml.code, "%s: no actions: expected the key actions with a list for every rank",
                             reader->yaml.name);
    }
    return MHP_OK;
}

/* ---- what the file says of its own actions ---- */

static mhp_status check_microbatches(const plan_reader *reader, const mhp_plan *plan)
{
    if (!reader->given[KEY_MICROBATCHES] || reader->microbatches == plan->microbatch_count) {
        return MHP_OK;
    }
    return mhp_yaml_error(&reader->yaml, reader->place[KEY_MICROBATCHES], "microbatches is %d: expected %d, as its actions have",
                          reader->microbatches, plan->microbatch_count);
}

/* Every stage that is said is one of those that the rank holds; as many are said as held, so that they are the same. */
static mhp_status check_said(const plan_reader *reader, const mhp_placement *placement, int *count)
{
    for (size_t i = 0; i < reader->said_count; i++) {
        const said_stage *said = &reader->said[i];

        if (mhp_placement_find(placement, said->rank, said->stage) < 0) {
            return mhp_yaml_error(&reader->yaml, said->mark,
                                  "placement of rank %d has stage %d: expected an F of that stage on that rank", said->rank,
                                  said->stage);
        }
        for (size_t j = i; j-- > 0 && reader->said[j].rank == said->rank;) {
            if (reader->said[j].stage == said->stage) {
                return mhp_yaml_error(&reader->yaml, said->mark, "placement of rank %d has stage %d twice: expected it once",
                                      said->rank, said->stage);
            }
        }
        count[said->rank]++;
    }
    return MHP_OK;
}

static mhp_status check_placement_counts(const plan_reader *reader, const mhp_plan *plan, const mhp_placement *placement,
                                         const int *count)
{
    for (int r = 0; r < plan->rank_count; r++) {
        if (count[r] != mhp_placement_count(placement, r)) {
            return mhp_yaml_error(&reader->yaml, reader->place[KEY_PLACEMENT],
                                  "placement of rank %d has %d stages: expected the %d of which it runs an F", r, count[r],
                                  mhp_placement_count(placement, r));
        }
    }
    return MHP_OK;
}

static mhp_status check_placement(const plan_reader *reader, const mhp_plan *plan)
{
    mhp_status status = MHP_OK;
    mhp_placement placement = {NULL, NULL};
    int *count = NULL;

    if (!reader->given[KEY_PLACEMENT]) {
        return MHP_OK;
    }
    if (reader->said_ranks != plan->rank_count) {
        return mhp_yaml_error(&reader->yaml, reader->place[KEY_PLACEMENT], "placement has %d ranks: expected %d, as actions has",
                              reader->said_ranks, plan->rank_count);
    }
    MHP_TRY(out, mhp_placement_create(plan, &placement));
    MHP_TRY(out, mhp_calloc(&count, (size_t)plan->rank_count, sizeof *count));
    MHP_TRY(out, check_said(reader, &placement, count));
    MHP_TRY(out, check_placement_counts(reader, plan, &placement, count));
out:
    mhp_free(count);
    mhp_placement_destroy(&placement);
    return status;
}

mhp_status mhp_plan_parse_yaml(const char *name, const char *text, size_t length, mhp_plan **plan_out)
{
    mhp_status status = MHP_OK;
    plan_reader reader = {.microbatches = 0};
    mhp_plan *plan = NULL;

    mhp_rows_init(&reader.rows);
    MHP_RETURN_IF_ERROR(mhp_yaml_open(&reader.yaml, name, text, length, MHP_ERR_FORMAT));
    MHP_TRY(out, read_document(&reader));
    MHP_TRY(out, mhp_rows_check(&reader.rows, name));
    MHP_TRY(out, mhp_rows_make_plan(&reader.rows, name, &plan));
    MHP_TRY(out, check_microbatches(&reader, plan));
    MHP_TRY(out, check_placement(&reader, plan));
    if (reader.given[KEY_NAME]) {
        memcpy(plan->name, reader.name, sizeof plan->name);
    }
    *plan_out = plan;
    plan = NULL;
out:
    mhp_plan_destroy(plan);
    mhp_rows_release(&reader.rows);
    mhp_free(reader.said);
    mhp_yaml_close(&reader.yaml);
    return status;
}

/* ---- either format ---- */

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);

    return length >= tail && strcasecmp(text + length - tail, end) == 0;
}

/* CSV begins with a stage, a pair, a quote or a bubble; a YAML mapping with none of them. */
static bool looks_like_csv(const char *text, size_t length)
{
    size_t at = 0;

    while (at < length && isspace((unsigned char)text[at])) {
        at++;
    }
    return at == length || text[at] == ',' || text[at] == '(' || text[at] == '"' || isdigit((unsigned char)text[at]);
}

mhp_status mhp_plan_read(const char *path, mhp_plan **plan_out)
{
    mhp_status status;
    char *text = NULL;
    size_t size = 0;
    bool csv;

    MHP_RETURN_IF_ERROR(mhp_file_read_all(path, MHP_CSV_BYTES_MAX, &text, &size));
    csv = ends_with(path, ".csv") || (!ends_with(path, ".yaml") && !ends_with(path, ".yml") && looks_like_csv(text, size));
    status = csv ? mhp_plan_parse_csv(path, text, size, plan_out) : mhp_plan_parse_yaml(path, text, size, plan_out);
    mhp_free(text);
    return status;
}

/* ---- writing ---- */

/* "  - [0F0, 0F1,", broken into lines. */
static void write_rank(const mhp_action_list *list, FILE *stream)
{
    int column = fprintf(stream, "  - [");

    for (size_t i = 0; i < list->count; i++) {
        char text[CELL_BYTES_MAX];
        int length = mhp_action_format(&list->items[i], text, sizeof text);

        if (i > 0 && column + length + 2 > LINE_COLUMNS) {
            column = fprintf(stream, ",\n     %s", text) - 2;
        } else {
            column += fprintf(stream, "%s%s", i > 0 ? ", " : "", text);
        }
    }
    fprintf(stream, "]\n");
}

mhp_status mhp_plan_write_yaml(const mhp_plan *plan, FILE *stream)
{
    mhp_placement placement;

    MHP_RETURN_IF_ERROR(mhp_placement_create(plan, &placement));
    fprintf(stream, "name: ");
    (void)mhp_utf8_write_quoted(plan->name, stream);     /* a file's name may be any bytes */
    fprintf(stream, "\nmicrobatches: %d\nplacement:\n", plan->microbatch_count);
    for (int r = 0; r < plan->rank_count; r++) {
        fprintf(stream, "  - [");
        for (int i = 0; i < mhp_placement_count(&placement, r); i++) {
            fprintf(stream, "%s%d", i > 0 ? ", " : "", placement.stages[placement.first[r] + i]);
        }
        fprintf(stream, "]\n");
    }
    fprintf(stream, "actions:\n");
    for (int r = 0; r < plan->rank_count; r++) {
        write_rank(&plan->ranks[r].actions, stream);
    }
    mhp_placement_destroy(&placement);
    return ferror(stream) ? mhp_error_set(MHP_ERR_IO, "cannot write the plan") : MHP_OK;
}
