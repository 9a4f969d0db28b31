#include "runtime/data/indexed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/memory.h"

enum {
    BUFFER_TOKENS = 1 << 15,
    CAPACITY_START = 1024,
    OFFSETS_AT_ONCE = 1024,
    SEQUENCE_TOKENS_MAX = INT32_MAX,
    INDEX_VERSION = 1,
};

static const char index_magic[9] = "MMIDIDX\0";

struct mhp_indexed_writer {
    char *data_path, *index_path;
    mhp_file *data, *index;
    int32_t *sizes; /* tokens of each sequence that is ended */
    uint64_t sequences, sequence_capacity;
    int64_t *document_index; /* 0, then the number of sequences at the end of each document */
    uint64_t entries, entry_capacity;
    int32_t open_tokens; /* of the sequence that is open; never 0 in an open document */
    size_t buffered;
    uint16_t buffer[BUFFER_TOKENS];
};

/* Makes room for one item more. */
static mhp_status grow(void *items_inout, size_t item_bytes, uint64_t count, uint64_t *capacity)
{
    uint64_t larger = *capacity ? 2 * *capacity : CAPACITY_START;

    if (count < *capacity) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_realloc(items_inout, larger, item_bytes));
    *capacity = larger;
    return MHP_OK;
}

static mhp_status add_entry(mhp_indexed_writer *writer)
{
    MHP_RETURN_IF_ERROR(grow(&writer->document_index, sizeof *writer->document_index,
                             writer->entries, &writer->entry_capacity));
    writer->document_index[writer->entries++] = (int64_t)writer->sequences;
    return MHP_OK;
}

static mhp_status end_sequence(mhp_indexed_writer *writer)
{
    MHP_RETURN_IF_ERROR(grow(&writer->sizes, sizeof *writer->sizes, writer->sequences,
                             &writer->sequence_capacity));
    writer->sizes[writer->sequences++] = writer->open_tokens;
    writer->open_tokens = 0;
    return MHP_OK;
}

static mhp_status flush(mhp_indexed_writer *writer)
{
    size_t count = writer->buffered;

    writer->buffered = 0;
    return mhp_file_write(writer->data, writer->buffer, count * sizeof writer->buffer[0]);
}

mhp_status mhp_indexed_create(const char *prefix, mhp_indexed_writer **writer_out)
{
    mhp_status status = MHP_OK;
    mhp_indexed_writer *writer = NULL;

    MHP_TRY(out, mhp_calloc(&writer, 1, sizeof *writer));
    MHP_TRY(out, mhp_asprintf(&writer->data_path, "%s.bin", prefix));
    MHP_TRY(out, mhp_asprintf(&writer->index_path, "%s.idx", prefix));
    MHP_TRY(out, mhp_file_create(writer->data_path, &writer->data));
    MHP_TRY(out, mhp_file_create(writer->index_path, &writer->index));
    MHP_TRY(out, add_entry(writer));
    *writer_out = writer;
    writer = NULL;
out:
    mhp_indexed_abandon(writer);
    return status;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

mhp_status mhp_indexed_append(mhp_indexed_writer *writer, const uint16_t *tokens, size_t count)
{
    while (count > 0) {
        size_t run;

        if (writer->open_tokens == SEQUENCE_TOKENS_MAX) {
            MHP_RETURN_IF_ERROR(end_sequence(writer));
        }
        if (writer->buffered == BUFFER_TOKENS) {
            MHP_RETURN_IF_ERROR(flush(writer));
        }
        run = least(least(count, BUFFER_TOKENS - writer->buffered),
                    (size_t)(SEQUENCE_TOKENS_MAX - writer->open_tokens));
        memcpy(writer->buffer + writer->buffered, tokens, run * sizeof *tokens);
        writer->buffered += run;
        writer->open_tokens += (int32_t)run;
        tokens += run;
        count -= run;
    }
    return MHP_OK;
}

mhp_status mhp_indexed_end_document(mhp_indexed_writer *writer)
{
    if (writer->open_tokens > 0) {
        MHP_RETURN_IF_ERROR(end_sequence(writer));
    }
    return add_entry(writer);
}

static mhp_status write_offsets(mhp_indexed_writer *writer)
{
    int64_t offsets[OFFSETS_AT_ONCE];
    int64_t offset = 0;
    size_t count = 0;

    for (uint64_t i = 0; i < writer->sequences; i++) {
        offsets[count++] = offset;
        offset += (int64_t)writer->sizes[i] * (int64_t)sizeof writer->buffer[0];
        if (count == OFFSETS_AT_ONCE || i + 1 == writer->sequences) {
            MHP_RETURN_IF_ERROR(mhp_file_write(writer->index, offsets, count * sizeof *offsets));
            count = 0;
        }
    }
    return MHP_OK;
}

static mhp_status write_index(mhp_indexed_writer *writer)
{
    mhp_file *index = writer->index;
    uint64_t version = INDEX_VERSION;
    uint8_t type = MHP_TOKEN_U16;

    MHP_RETURN_IF_ERROR(mhp_file_write(index, index_magic, sizeof index_magic));
    MHP_RETURN_IF_ERROR(mhp_file_write(index, &version, sizeof version));
    MHP_RETURN_IF_ERROR(mhp_file_write(index, &type, sizeof type));
    MHP_RETURN_IF_ERROR(mhp_file_write(index, &writer->sequences, sizeof writer->sequences));
    MHP_RETURN_IF_ERROR(mhp_file_write(index, &writer->entries, sizeof writer->entries));
    MHP_RETURN_IF_ERROR(
        mhp_file_write(index, writer->sizes, writer->sequences * sizeof *writer->sizes));
    MHP_RETURN_IF_ERROR(write_offsets(writer));
    return mhp_file_write(index, writer->document_index,
                          writer->entries * sizeof *writer->document_index);
}

/* Without the sync a crash could keep the rename of the .bin and lose the removal before it. */
static mhp_status remove_old_index(const mhp_indexed_writer *writer)
{
    mhp_status status = MHP_OK;
    const char *slash = strrchr(writer->index_path, '/');
    int length = slash ? (int)(slash - writer->index_path) + 1 : 1;
    char *folder = NULL;
    int descriptor = -1;

    if (unlink(writer->index_path) != 0) {
        if (errno == ENOENT) {
            return MHP_OK;
        }
        MHP_RAISE(out, MHP_ERR_IO, "cannot remove the %s that is to be replaced: %s",
                  writer->index_path, strerror(errno));
    }
    MHP_TRY(out, mhp_asprintf(&folder, "%.*s", length, slash ? writer->index_path : "."));
    descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0 || (fsync(descriptor) != 0 && errno != EINVAL && errno != ENOTSUP)) {
        MHP_RAISE(out, MHP_ERR_IO, "cannot sync folder %s after removing %s: %s", folder,
                  writer->index_path, strerror(errno));
    }
out:
    if (descriptor >= 0) {
        close(descriptor);
    }
    mhp_free(folder);
    return status;
}

/* The .bin first: an .idx says that its .bin is whole. */
static mhp_status rename_both(mhp_indexed_writer *writer)
{
    mhp_status status = mhp_file_finish(writer->data);

    writer->data = NULL;
    if (status == MHP_OK) {
        status = mhp_file_finish(writer->index);
        writer->index = NULL;
    }
    if (status != MHP_OK) {
        unlink(writer->index_path);
        unlink(writer->data_path);
    }
    return status;
}

mhp_status mhp_indexed_finish(mhp_indexed_writer *writer)
{
    mhp_status status = MHP_OK;

    if (writer->open_tokens > 0) {
        MHP_TRY(out, mhp_indexed_end_document(writer));
    }
    MHP_TRY(out, flush(writer));
    MHP_TRY(out, write_index(writer));
    MHP_TRY(out, remove_old_index(writer));
    MHP_TRY(out, rename_both(writer));
out:
    mhp_indexed_abandon(writer);
    return status;
}

void mhp_indexed_abandon(mhp_indexed_writer *writer)
{
    if (!writer) {
        return;
    }
    mhp_file_abandon(writer->index);
    mhp_file_abandon(writer->data);
    mhp_free(writer->document_index);
    mhp_free(writer->sizes);
    mhp_free(writer->index_path);
    mhp_free(writer->data_path);
    mhp_free(writer);
}
