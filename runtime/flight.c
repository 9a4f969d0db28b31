#include "runtime/flight.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/memory.h"

enum { NAME_BYTES = 64, PATH_BYTES = 4096, OUTPUT_BYTES = 65536, LINE_BYTES_MAX = 512 };

typedef struct mark_record {
    mhp_mark mark;
    int32_t section;
    int64_t number;
    uint64_t submitted_ns, reached_ns;      /* reached: as it was seen; 0: not yet */
} mark_record;

typedef struct message_record {
    uint64_t time_ns;
    mhp_status status;
    bool ended;
    char name[NAME_BYTES];
} message_record;

/* What goes into a file that is being written. */
typedef struct output {
    int fd;
    size_t bytes;
    bool failed;
    char buffer[OUTPUT_BYTES];
} output;

struct mhp_flight {
    mhp_device *device;
    mhp_flight_identity identity;
    mhp_event *reached;             /* recorded by every mark: its count is the number of marks that the stream has come to */
    pthread_mutex_t lock;           /* of all below but what belongs to a dump */
    mark_record *marks;             /* the n-th one, from 1, lies at n % mark_capacity */
    size_t mark_capacity;
    uint64_t mark_count, seen_count;
    message_record messages[MHP_FLIGHT_MESSAGES];
    uint64_t message_count;
    int32_t section;
    int64_t number;
    uint64_t section_ns;
    mark_record *dumped_marks;      /* copies, so that no disk holds the run up */
    message_record dumped_messages[MHP_FLIGHT_MESSAGES];
    output output;
};

static double seconds_between(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) * 1e-9 : 0;
}

mhp_status mhp_flight_create(mhp_device *device, const mhp_flight_identity *identity, mhp_flight **flight_out)
{
    mhp_status status = MHP_OK;
    mhp_flight *flight = NULL;

    MHP_RETURN_IF_ERROR(mhp_calloc(&flight, 1, sizeof *flight));
    pthread_mutex_init(&flight->lock, NULL);
    flight->device = device;
    flight->identity = *identity;
    flight->section_ns = mhp_time_ns();
    MHP_TRY(out, mhp_event_create(device, &flight->reached));
    MHP_TRY(out, mhp_flight_reserve(flight, 0));
    *flight_out = flight;
    flight = NULL;
out:
    mhp_flight_destroy(flight);
    return status;
}

void mhp_flight_destroy(mhp_flight *flight)
{
    if (!flight) {
        return;
    }
    mhp_event_destroy(flight->reached);
    pthread_mutex_destroy(&flight->lock);
    mhp_free(flight->dumped_marks);
    mhp_free(flight->marks);
    mhp_free(flight);
}

mhp_status mhp_flight_reserve(mhp_flight *flight, size_t marks)
{
    size_t capacity = marks > MHP_FLIGHT_MARKS_MIN ? marks : MHP_FLIGHT_MARKS_MIN;
    mark_record *records = NULL, *copies = NULL;

    if (!flight || capacity <= flight->mark_capacity) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&records, capacity, sizeof *records));
    if (mhp_calloc(&copies, capacity, sizeof *copies) < 0) {
        mhp_free(records);
        return MHP_ERR_NO_MEMORY;
    }
    pthread_mutex_lock(&flight->lock);
    mhp_free(flight->marks);
    mhp_free(flight->dumped_marks);
    flight->marks = records;
    flight->dumped_marks = copies;
    flight->mark_capacity = capacity;
    pthread_mutex_unlock(&flight->lock);
    return MHP_OK;
}

/* ---- recording ---- */

void mhp_flight_enter(mhp_flight *flight, mhp_section section, int64_t number)
{
    if (!flight) {
        return;
    }
    pthread_mutex_lock(&flight->lock);
    flight->section = section;
    flight->number = number;
    flight->section_ns = mhp_time_ns();
    pthread_mutex_unlock(&flight->lock);
}

mhp_status mhp_flight_mark(mhp_flight *flight, mhp_stream *stream, const mhp_mark *mark)
{
    if (!flight) {
        return MHP_OK;
    }
    pthread_mutex_lock(&flight->lock);
    flight->mark_count++;
    flight->marks[flight->mark_count % flight->mark_capacity] = (mark_record){
        .mark = *mark, .section = flight->section, .number = flight->number, .submitted_ns = mhp_time_ns()};
    pthread_mutex_unlock(&flight->lock);
    return mhp_event_record(flight->reached, stream);
}

void mhp_flight_message(mhp_flight *flight, const char *name, bool ended, mhp_status status)
{
    message_record *record;

    if (!flight) {
        return;
    }
    pthread_mutex_lock(&flight->lock);
    record = &flight->messages[flight->message_count++ % MHP_FLIGHT_MESSAGES];
    record->time_ns = mhp_time_ns();
    record->status = status;
    record->ended = ended;
    snprintf(record->name, sizeof record->name, "%s", name);
    pthread_mutex_unlock(&flight->lock);
}

/* Notes what the stream has come to since; the lock is held. */
static void see(mhp_flight *flight, uint64_t reached, uint64_t now_ns)
{
    uint64_t first = flight->seen_count + 1;

    if (reached >= flight->mark_capacity && first < reached - flight->mark_capacity + 1) {
        first = reached - flight->mark_capacity + 1;
    }
    for (uint64_t n = first; n <= reached; n++) {
        flight->marks[n % flight->mark_capacity].reached_ns = now_ns;
    }
    flight->seen_count = reached;
}

void mhp_flight_place(mhp_flight *flight, mhp_place *place_out)
{
    uint64_t reached, now_ns;
    bool is_failed;

    *place_out = (mhp_place){.section = MHP_SECTION_START};
    if (!flight) {
        return;
    }
    is_failed = mhp_event_query(flight->reached) < 0;
    reached = mhp_event_count(flight->reached);
    now_ns = mhp_time_ns();
    pthread_mutex_lock(&flight->lock);
    if (!is_failed && reached > flight->seen_count) {       /* behind an error marks are passed without their work */
        see(flight, reached, now_ns);
    }
    place_out->section = flight->section;
    place_out->number = flight->number;
    place_out->section_s = seconds_between(flight->section_ns, now_ns);
    if (flight->seen_count > 0) {
        const mark_record *record = &flight->marks[flight->seen_count % flight->mark_capacity];

        if (record->section == flight->section && record->number == flight->number) {
            place_out->mark = record->mark;
            place_out->mark_s = seconds_between(record->reached_ns, now_ns);
        }
    }
    pthread_mutex_unlock(&flight->lock);
}

/* ---- dumps ---- */

static void flush_output(output *out)
{
    for (size_t written = 0; written < out->bytes && !out->failed;) {
        ssize_t count = write(out->fd, out->buffer + written, out->bytes - written);

        if (count < 0 && errno != EINTR) {
            out->failed = true;
        }
        written += count > 0 ? (size_t)count : 0;
    }
    out->bytes = 0;
}

static void put(output *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* snprintf of short things takes no memory. */
static void put(output *out, const char *format, ...)
{
    va_list arguments;
    int length;

    if (out->bytes + LINE_BYTES_MAX > OUTPUT_BYTES) {
        flush_output(out);
    }
    va_start(arguments, format);
    length = vsnprintf(out->buffer + out->bytes, LINE_BYTES_MAX, format, arguments);
    va_end(arguments);
    out->bytes += length < LINE_BYTES_MAX ? (size_t)length : LINE_BYTES_MAX - 1;
}

/* As a JSON string; what is not plain ASCII becomes "?". */
static void put_text(output *out, const char *text)
{
    put(out, "\"");
    for (; *text; text++) {
        unsigned char letter = (unsigned char)*text;

        if (letter == '"' || letter == '\\') {
            put(out, "\\%c", letter);
        } else {
            put(out, "%c", letter < 32 || letter > 126 ? '?' : letter);
        }
    }
    put(out, "\"");
}

static void put_mark(output *out, const mhp_mark *mark)
{
    put(out, "\"kind\": \"%s\", \"work\": \"%s\", \"stage\": %d, \"microbatch\": %d, \"peer\": %d", mhp_mark_kind_text(mark->kind),
        mhp_work_text(mark->work), (int)mark->stage, (int)mark->microbatch, (int)mark->peer);
}

static void put_head(mhp_flight *flight, const mhp_place *place, const char *why)
{
    const mhp_flight_identity *identity = &flight->identity;
    output *out = &flight->output;

    put(out, "{\"run\": %lld, \"rank\": %d, \"size\": %d, \"pid\": %d, \"host\": ", (long long)identity->run, (int)identity->rank,
        (int)identity->size, (int)identity->pid);
    put_text(out, identity->host);
    put(out, ",\n \"time\": %lld, \"why\": ", (long long)time(NULL));
    put_text(out, why);
    put(out, ",\n \"section\": \"%s\", \"number\": %lld, \"section_s\": %.3f,\n \"mark\": {", mhp_section_text(place->section),
        (long long)place->number, place->section_s);
    put_mark(out, &place->mark);
    put(out, ", \"for_s\": %.3f},\n", place->mark_s);
}

/* From old to new; ages in seconds. reached_s is -1 for what the stream has not come to. */
static void put_marks(mhp_flight *flight, uint64_t count, uint64_t now_ns)
{
    output *out = &flight->output;
    uint64_t first = count > flight->mark_capacity ? count - flight->mark_capacity + 1 : 1;

    put(out, " \"marks\": [");
    for (uint64_t n = first; n <= count; n++) {
        const mark_record *record = &flight->dumped_marks[n % flight->mark_capacity];

        put(out, "%s\n  {\"section\": \"%s\", \"number\": %lld, ", n > first ? "," : "", mhp_section_text(record->section),
            (long long)record->number);
        put_mark(out, &record->mark);
        put(out, ", \"submitted_s\": %.6f, \"reached_s\": %.3f}", seconds_between(record->submitted_ns, now_ns),
            record->reached_ns > 0 ? seconds_between(record->reached_ns, now_ns) : -1.0);
    }
    put(out, "],\n");
}

static void put_messages(mhp_flight *flight, uint64_t count, uint64_t now_ns)
{
    output *out = &flight->output;
    uint64_t first = count > MHP_FLIGHT_MESSAGES ? count - MHP_FLIGHT_MESSAGES : 0;

    put(out, " \"messages\": [");
    for (uint64_t n = first; n < count; n++) {
        const message_record *record = &flight->dumped_messages[n % MHP_FLIGHT_MESSAGES];

        put(out, "%s\n  {\"name\": ", n > first ? "," : "");
        put_text(out, record->name);
        put(out, ", \"%s_s\": %.6f, \"status\": \"%s\"}", record->ended ? "ended" : "posted", seconds_between(record->time_ns, now_ns),
            mhp_status_text(record->status));
    }
    put(out, "]}\n");
}

static void put_all(mhp_flight *flight, const char *why)
{
    uint64_t now_ns, mark_count, message_count;
    mhp_place place;

    mhp_flight_place(flight, &place);
    now_ns = mhp_time_ns();
    pthread_mutex_lock(&flight->lock);
    mark_count = flight->mark_count;
    message_count = flight->message_count;
    memcpy(flight->dumped_marks, flight->marks, flight->mark_capacity * sizeof *flight->marks);
    memcpy(flight->dumped_messages, flight->messages, sizeof flight->messages);
    pthread_mutex_unlock(&flight->lock);
    put_head(flight, &place, why);
    put_marks(flight, mark_count, now_ns);
    put_messages(flight, message_count, now_ns);
    flush_output(&flight->output);
}

static mhp_status fail(const char *what, const char *path)
{
    return mhp_error_set(MHP_ERR_IO, "cannot %s %s: %s", what, path, strerror(errno));
}

mhp_status mhp_flight_dump(mhp_flight *flight, const char *directory, const char *why)
{
    char path[PATH_BYTES], unfinished[PATH_BYTES + 8];

    if (!flight) {
        return MHP_OK;
    }
    snprintf(path, sizeof path, "%s/rank-%05d.json", directory, (int)flight->identity.rank);
    snprintf(unfinished, sizeof unfinished, "%s.tmp", path);
    (void)mkdir(directory, 0777);
    flight->output.fd = open(unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (flight->output.fd < 0) {
        return fail("create", unfinished);
    }
    flight->output.failed = false;
    flight->output.bytes = 0;
    put_all(flight, why);
    if (close(flight->output.fd) != 0 || flight->output.failed) {
        return fail("write", unfinished);
    }
    return rename(unfinished, path) == 0 ? MHP_OK : fail("rename", unfinished);
}
