#include "runtime/flight_report.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "core/folder.h"
#include "core/memory.h"
#include "runtime/flight.h"

enum { DUMP_BYTES_MAX = 64 << 20, RANKS_MAX = 1 << 16, MESSAGES_MAX = 4096, OLD_SECONDS = 10 };

/* One dump as it was read. */
typedef struct loaded {
    json_t *root;
    int64_t run, time;
    int rank, size, pid;
    const char *host, *why;
} loaded;

static mhp_status wrong(const char *path, const char *what)
{
    return mhp_error_set(MHP_ERR_FORMAT, "%s is no dump of a flight recorder: %s", path, what);
}

static mhp_status load(const char *path, const char *text, size_t bytes, loaded *out)
{
    json_int_t run, rank, size, pid, time;
    json_error_t error;

    out->root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (!out->root) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s:%d: %s", path, error.line, error.text);
    }
    if (json_unpack_ex(out->root, &error, 0, "{s:I, s:I, s:I, s:I, s:s, s:I, s:s}", "run", &run, "rank", &rank, "size", &size, "pid", &pid,
                       "host", &out->host, "time", &time, "why", &out->why) != 0) {
        return wrong(path, error.text);
    }
    if (run < 1 || time < 0 || size < 1 || size > RANKS_MAX || rank < 0 || rank >= size) {
        return wrong(path, "expected a run and a time, and a rank from 0 to its number of ranks - 1, of 65536 at most");
    }
    if (json_array_size(json_object_get(out->root, "messages")) > MESSAGES_MAX) {
        return wrong(path, "more than 4096 messages");
    }
    out->run = run;
    out->time = time;
    out->rank = (int)rank;
    out->size = (int)size;
    out->pid = (int)pid;
    return MHP_OK;
}

static int find_name(const char *name, const char *(*text_of)(int), int count)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(name, text_of(i)) == 0) {
            return i;
        }
    }
    return -1;
}

static mhp_status read_place(const char *path, const json_t *root, mhp_place *place)
{
    const char *section, *kind, *work;
    json_int_t number, stage, microbatch, peer;
    json_error_t error;

    if (json_unpack_ex((json_t *)(uintptr_t)root, &error, 0, "{s:s, s:I, s:F, s:{s:s, s:s, s:I, s:I, s:I, s:F}}", "section", &section,
                       "number", &number, "section_s", &place->section_s, "mark", "kind", &kind, "work", &work, "stage", &stage,
                       "microbatch", &microbatch, "peer", &peer, "for_s", &place->mark_s) != 0) {
        return wrong(path, error.text);
    }
    place->section = find_name(section, mhp_section_text, MHP_SECTION_COUNT);
    place->number = number;
    place->mark = (mhp_mark){.kind = find_name(kind, mhp_mark_kind_text, MHP_MARK_KIND_COUNT),
                             .work = find_name(work, mhp_work_text, MHP_WORK_COUNT),
                             .stage = (int32_t)stage, .microbatch = (int32_t)microbatch, .peer = (int32_t)peer};
    if (place->section < 0 || place->mark.kind < 0 || place->mark.work < 0) {
        return wrong(path, "expected a known section, kind and work");
    }
    return MHP_OK;
}

/* Whether the index-th message, which was posted, ended later: those of one name end in order. */
static bool has_ended(const json_t *messages, size_t index, const char *name)
{
    int before = 0;                 /* of that name, posted up to here and not ended */
    int ended = 0;

    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        const char *other = json_string_value(json_object_get(message, "name"));
        bool is_end = json_object_get(message, "ended_s") != NULL;

        if (!other || strcmp(other, name) != 0) {
            continue;
        }
        if (i <= index) {
            before += is_end ? (before > 0 ? -1 : 0) : 1;
        } else if (is_end) {
            ended++;
        }
    }
    return ended >= before;
}

static void read_messages(const json_t *root, mhp_dump *dump)
{
    const json_t *messages = json_object_get(root, "messages");

    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *message = json_array_get(messages, i);
        const char *name = json_string_value(json_object_get(message, "name"));
        const json_t *posted = json_object_get(message, "posted_s");

        if (!name || !json_is_number(posted) || has_ended(messages, i, name)) {
            continue;
        }
        if (dump->under_way++ == 0) {
            snprintf(dump->oldest, sizeof dump->oldest, "%s", name);
            dump->oldest_s = json_number_value(posted);
        }
    }
}

/* The newest run's size, once for all ranks. */
static mhp_status start_report(mhp_flight_report *report, const loaded *dump)
{
    mhp_flight_report_release(report);
    report->run = dump->run;
    report->size = dump->size;
    MHP_RETURN_IF_ERROR(mhp_calloc(&report->ranks, (size_t)report->size, sizeof *report->ranks));
    MHP_RETURN_IF_ERROR(mhp_calloc(&report->dumps, (size_t)report->size, sizeof *report->dumps));
    for (int rank = 0; rank < report->size; rank++) {
        report->ranks[rank].state = MHP_RANK_UNKNOWN;
        snprintf(report->ranks[rank].name, MHP_RANK_NAME_MAX, "rank %d", rank);
    }
    return MHP_OK;
}

static mhp_status add_dump(mhp_flight_report *report, const char *path, const loaded *found)
{
    mhp_rank_view *view = &report->ranks[found->rank];
    mhp_dump *dump = &report->dumps[found->rank];

    if (found->size != report->size) {
        return wrong(path, "its number of ranks is not that of the other dumps");
    }
    MHP_RETURN_IF_ERROR(read_place(path, found->root, &view->place));
    view->state = MHP_RANK_PRESENT;
    snprintf(view->name, sizeof view->name, "rank %d (host %.64s, pid %d)", found->rank, found->host, found->pid);
    report->found_count += !dump->found;
    dump->found = true;
    dump->time = found->time;
    snprintf(dump->why, sizeof dump->why, "%s", found->why);
    read_messages(found->root, dump);
    report->time = found->time > report->time ? found->time : report->time;
    return MHP_OK;
}

mhp_status mhp_flight_report_add(mhp_flight_report *report, const char *path, const char *text, size_t bytes)
{
    mhp_status status = MHP_OK;
    loaded dump = {0};

    MHP_TRY(out, load(path, text, bytes, &dump));
    if (dump.run > report->run) {
        MHP_TRY(out, start_report(report, &dump));
    }
    if (dump.run == report->run) {
        MHP_TRY(out, add_dump(report, path, &dump));
    }
out:
    json_decref(dump.root);
    return status;
}

static mhp_status take_file(mhp_flight_report *report, const char *path)
{
    char *text = NULL;
    size_t bytes;
    mhp_status status = mhp_file_read_all(path, DUMP_BYTES_MAX, &text, &bytes);

    if (status == MHP_OK) {
        status = mhp_flight_report_add(report, path, text, bytes);
    }
    mhp_free(text);
    return status;
}

static bool is_dump_name(const char *name)
{
    size_t length = strlen(name);

    return strncmp(name, "rank-", 5) == 0 && length > 5 && strcmp(name + length - 5, ".json") == 0;
}

/* A rank that answered long before the others did not answer with them. */
static void mark_old(mhp_flight_report *report)
{
    for (int rank = 0; rank < report->size; rank++) {
        int64_t age = report->time - report->dumps[rank].time;

        if (report->dumps[rank].found && age > OLD_SECONDS) {
            report->ranks[rank].state = MHP_RANK_SILENT;
            report->ranks[rank].silent_s = (double)age;
        }
    }
}

mhp_status mhp_flight_report_read(const char *run, mhp_flight_report *report_out)
{
    mhp_status status = MHP_OK;
    mhp_folder_list list = {0};
    char *folder = NULL;
    char *path = NULL;

    MHP_TRY(out, mhp_asprintf(&folder, "%s/flight", run));
    MHP_TRY(out, mhp_folder_read(folder, &list));
    for (size_t i = 0; i < list.count; i++) {
        if (is_dump_name(list.names[i])) {
            mhp_free(path);
            path = NULL;
            MHP_TRY(out, mhp_asprintf(&path, "%s/%s", folder, list.names[i]));
            MHP_TRY(out, take_file(report_out, path));
        }
    }
    if (report_out->found_count == 0) {
        MHP_RAISE(out, MHP_ERR_NOT_FOUND, "no dumps in %s: a run writes them when it fails, and on SIGUSR1", folder);
    }
    mark_old(report_out);
out:
    mhp_free(path);
    mhp_folder_release(&list);
    mhp_free(folder);
    return status;
}

void mhp_flight_report_release(mhp_flight_report *report)
{
    mhp_free(report->ranks);
    mhp_free(report->dumps);
    memset(report, 0, sizeof *report);
}

const char *mhp_flight_report_why(const mhp_flight_report *report)
{
    const char *why = "";

    for (int rank = 0; rank < report->size; rank++) {
        const mhp_dump *dump = &report->dumps[rank];

        if (!dump->found || dump->time + OLD_SECONDS < report->time) {
            continue;
        }
        if (mhp_flight_is_failure(dump->why)) {
            return dump->why;
        }
        why = dump->why;
    }
    return why;
}

bool mhp_flight_is_failure(const char *why)
{
    return why[0] != '\0' && strcmp(why, MHP_FLIGHT_ASKED) != 0;
}
