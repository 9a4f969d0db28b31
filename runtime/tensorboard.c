/* Formats: tensorflow/core/lib/io/record_writer.h (length, masked CRC-32C of the length, data, masked CRC-32C of the data, all little
 * endian); tensorflow/core/util/event.proto and framework/summary.proto. */
#include "runtime/tensorboard.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/file.h"
#include "core/memory.h"

enum { EVENT_BYTES_MAX = 4096, SCALAR_BYTES_MAX = 128, HOST_NAME_MAX_BYTES = 64 };

/* Fields of the messages, by number. */
enum { EVENT_TIME = 1, EVENT_STEP = 2, EVENT_VERSION = 3, EVENT_SUMMARY = 5, EVENT_SESSION = 7 };
enum { SUMMARY_VALUE = 1, VALUE_TAG = 1, VALUE_SIMPLE = 2, SESSION_STATUS = 1, SESSION_START = 1 };
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

struct mhp_tensorboard {
    char *path;
    FILE *file;
    uint32_t table[256];            /* of the checksum */
};

/* ---- protocol buffers ---- */

typedef struct message {
    unsigned char bytes[EVENT_BYTES_MAX];
    size_t size;
} message;

static void put(message *to, const void *bytes, size_t count)
{
    memcpy(to->bytes + to->size, bytes, count);
    to->size += count;
}

static void put_little_endian(message *to, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        to->bytes[to->size++] = (unsigned char)(value >> 8 * i);
    }
}

static void put_varint(message *to, uint64_t value)
{
    while (value >= 0x80) {
        to->bytes[to->size++] = (unsigned char)(value | 0x80);
        value >>= 7;
    }
    to->bytes[to->size++] = (unsigned char)value;
}

static void put_key(message *to, int field, int wire)
{
    put_varint(to, (uint64_t)(field << 3 | wire));
}

static void put_bytes(message *to, int field, const void *bytes, size_t count)
{
    put_key(to, field, WIRE_BYTES);
    put_varint(to, count);
    put(to, bytes, count);
}

static void put_double(message *to, int field, double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    put_key(to, field, WIRE_64);
    put_little_endian(to, bits, sizeof bits);
}

static void put_float(message *to, int field, float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    put_key(to, field, WIRE_32);
    put_little_endian(to, bits, sizeof bits);
}

static void begin_event(message *event, int64_t step)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    event->size = 0;
    put_double(event, EVENT_TIME, (double)now.tv_sec + (double)now.tv_nsec * 1e-9);
    put_key(event, EVENT_STEP, WIRE_VARINT);
    put_varint(event, (uint64_t)step);
}

/* ---- records ---- */

/* CRC-32C, the reflected polynomial of iSCSI (RFC 3720). */
static void fill_table(uint32_t table[256])
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t remainder = byte;

        for (int bit = 0; bit < 8; bit++) {
            remainder = remainder & 1 ? remainder >> 1 ^ 0x82f63b78u : remainder >> 1;
        }
        table[byte] = remainder;
    }
}

/* Masked, since a checksum of data that hold checksums says little. */
static uint32_t checksum(const mhp_tensorboard *board, const unsigned char *bytes, size_t count)
{
    uint32_t sum = 0xffffffffu;

    for (size_t i = 0; i < count; i++) {
        sum = sum >> 8 ^ board->table[(sum ^ bytes[i]) & 0xff];
    }
    sum ^= 0xffffffffu;
    return (sum >> 15 | sum << 17) + 0xa282ead8u;
}

static mhp_status write_record(mhp_tensorboard *board, const message *event)
{
    message head = {.size = 0}, tail = {.size = 0};

    put_little_endian(&head, event->size, 8);
    put_little_endian(&head, checksum(board, head.bytes, 8), 4);
    put_little_endian(&tail, checksum(board, event->bytes, event->size), 4);
    if (fwrite(head.bytes, 1, head.size, board->file) != head.size || fwrite(event->bytes, 1, event->size, board->file) != event->size ||
        fwrite(tail.bytes, 1, tail.size, board->file) != tail.size || fflush(board->file) != 0) {
        return mhp_error_set(MHP_ERR_IO, "cannot write %s: %s", board->path, strerror(errno));
    }
    return MHP_OK;
}

static mhp_status write_start(mhp_tensorboard *board, int64_t first_step)
{
    static const char version[] = "brain.Event:2";
    const unsigned char started[] = {SESSION_STATUS << 3 | WIRE_VARINT, SESSION_START};
    message event;

    begin_event(&event, 0);
    put_bytes(&event, EVENT_VERSION, version, sizeof version - 1);
    MHP_RETURN_IF_ERROR(write_record(board, &event));
    if (first_step == 0) {
        return MHP_OK;
    }
    begin_event(&event, first_step + 1);        /* of this step and later ones earlier files do not count */
    put_bytes(&event, EVENT_SESSION, started, sizeof started);
    return write_record(board, &event);
}

/* ---- the writer ---- */

/* TensorBoard reads a folder's files in the order of their names. */
static mhp_status name_file(const char *directory, char **path_out)
{
    char host[HOST_NAME_MAX_BYTES] = "";

    if (gethostname(host, sizeof host - 1) != 0) {
        snprintf(host, sizeof host, "host");
    }
    return mhp_asprintf(path_out, "%s/tensorboard/events.out.tfevents.%010lld.%s.%ld", directory, (long long)time(NULL), host,
                        (long)getpid());
}

mhp_status mhp_tensorboard_open(const char *directory, int64_t first_step, mhp_tensorboard **board_out)
{
    mhp_status status = MHP_OK;
    mhp_tensorboard *board = NULL;
    char *folder = NULL;

    MHP_TRY(out, mhp_calloc(&board, 1, sizeof *board));
    fill_table(board->table);
    MHP_TRY(out, mhp_asprintf(&folder, "%s/tensorboard", directory));
    MHP_TRY(out, mhp_mkdirs(folder));
    MHP_TRY(out, name_file(directory, &board->path));
    board->file = fopen(board->path, "ab");
    if (!board->file) {
        MHP_RAISE(out, MHP_ERR_IO, "cannot write %s: %s", board->path, strerror(errno));
    }
    MHP_TRY(out, write_start(board, first_step));
    *board_out = board;
    board = NULL;
out:
    mhp_tensorboard_close(board);
    mhp_free(folder);
    return status;
}

void mhp_tensorboard_close(mhp_tensorboard *board)
{
    if (!board) {
        return;
    }
    if (board->file) {
        fclose(board->file);
    }
    mhp_free(board->path);
    mhp_free(board);
}

const char *mhp_tensorboard_path(const mhp_tensorboard *board)
{
    return board->path;
}

mhp_status mhp_tensorboard_write(mhp_tensorboard *board, int64_t step, const mhp_scalar *scalars, int count)
{
    message event, summary = {.size = 0};

    for (int i = 0; i < count; i++) {
        message value = {.size = 0};

        if (strlen(scalars[i].tag) + 16 > SCALAR_BYTES_MAX || summary.size + SCALAR_BYTES_MAX + 64 > EVENT_BYTES_MAX) {
            return mhp_error_set(MHP_ERR_LIMIT, "%s: %d scalars, the last of them %s, take more than the limit of %d bytes", board->path,
                                 i + 1, scalars[i].tag, EVENT_BYTES_MAX);
        }
        put_bytes(&value, VALUE_TAG, scalars[i].tag, strlen(scalars[i].tag));
        put_float(&value, VALUE_SIMPLE, (float)scalars[i].value);
        put_bytes(&summary, SUMMARY_VALUE, value.bytes, value.size);
    }
    begin_event(&event, step);
    put_bytes(&event, EVENT_SUMMARY, summary.bytes, summary.size);
    return write_record(board, &event);
}
