#include "runtime/data/indexed.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are little-endian and are mapped");

enum {
    INDEX_MAGIC_BYTES = 9,
    INDEX_VERSION_AT = 9,
    INDEX_TYPE_AT = 17,
    INDEX_SEQUENCES_AT = 18,
    INDEX_DOCUMENTS_AT = 26,
    INDEX_HEADER_BYTES = 34,
    LLMC_HEADER_BYTES = 1024,
};

static const char index_magic[INDEX_MAGIC_BYTES] = "MMIDIDX\0";

typedef struct file_map {
    void *address; /* NULL for an empty file */
    size_t bytes;
} file_map;

typedef struct llmc_format {
    int32_t magic, version;
    mhp_token_type type;
    int64_t first_of_document;
} llmc_format;

static const llmc_format llmc_formats[] = {
    {20240520, 1, MHP_TOKEN_U16, 50256},
    {20240801, 7, MHP_TOKEN_U32, 128000},
};

struct mhp_indexed {
    char *path, *index_path;
    file_map maps[2];
    const char *format;
    mhp_token_type type;
    uint64_t documents, sequences, tokens;
    const uint8_t *data; /* the tokens; maybe unaligned, like all below */
    size_t data_bytes;
    const uint8_t *index;
    size_t index_bytes;
    const uint8_t *sizes, *pointers, *document_index; /* Megatron: within index */
    uint64_t *starts;                                 /* llm.c: [documents + 1] */
};

static int32_t load_i32(const uint8_t *at)
{
    int32_t value;

    memcpy(&value, at, sizeof value);
    return value;
}

static int64_t load_i64(const uint8_t *at)
{
    int64_t value;

    memcpy(&value, at, sizeof value);
    return value;
}

static uint64_t load_u64(const uint8_t *at)
{
    return (uint64_t)load_i64(at);
}

const char *mhp_token_type_text(mhp_token_type type)
{
    switch (type) {
    case MHP_TOKEN_U8:
        return "u8";
    case MHP_TOKEN_I8:
        return "i8";
    case MHP_TOKEN_I16:
        return "i16";
    case MHP_TOKEN_I32:
        return "i32";
    case MHP_TOKEN_I64:
        return "i64";
    case MHP_TOKEN_U16:
        return "u16";
    case MHP_TOKEN_U32:
        return "u32";
    }
    return "?";
}

size_t mhp_token_type_bytes(mhp_token_type type)
{
    switch (type) {
    case MHP_TOKEN_U8:
    case MHP_TOKEN_I8:
        return 1;
    case MHP_TOKEN_I16:
    case MHP_TOKEN_U16:
        return 2;
    case MHP_TOKEN_I32:
    case MHP_TOKEN_U32:
        return 4;
    case MHP_TOKEN_I64:
        return 8;
    }
    return 0;
}

/* ---- Megatron's index ---- */

static mhp_status check_index_type(mhp_indexed *file)
{
    int code = file->index[INDEX_TYPE_AT];

    switch (code) {
    case MHP_TOKEN_U8:
    case MHP_TOKEN_I8:
    case MHP_TOKEN_I16:
    case MHP_TOKEN_I32:
    case MHP_TOKEN_I64:
    case MHP_TOKEN_U16:
        file->type = (mhp_token_type)code;
        return MHP_OK;
    case 6:
    case 7:
        return mhp_error_set(MHP_ERR_UNSUPPORTED,
                             "%s, offset %d: type code %d (floats): expected token ids, codes 1 .. "
                             "5 or 8",
                             file->index_path, INDEX_TYPE_AT, code);
    default:
        return mhp_error_set(MHP_ERR_FORMAT, "%s, offset %d: type code %d: expected 1 .. 5 or 8",
                             file->index_path, INDEX_TYPE_AT, code);
    }
}

static mhp_status check_index_header(mhp_indexed *file)
{
    if (file->index_bytes < INDEX_HEADER_BYTES) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s ends at byte %zu: expected a header of %d bytes",
                             file->index_path, file->index_bytes, INDEX_HEADER_BYTES);
    }
    if (memcmp(file->index, index_magic, INDEX_MAGIC_BYTES) != 0) {
        return mhp_error_set(MHP_ERR_FORMAT,
                             "%s, offset 0: begins with the bytes %02x %02x %02x %02x: expected "
                             "\"MMIDIDX\" and two zeros",
                             file->index_path, file->index[0], file->index[1], file->index[2],
                             file->index[3]);
    }
    if (load_u64(file->index + INDEX_VERSION_AT) != 1) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s, offset %d: version %llu: expected 1",
                             file->index_path, INDEX_VERSION_AT,
                             (unsigned long long)load_u64(file->index + INDEX_VERSION_AT));
    }
    return check_index_type(file);
}

/* Places the three arrays; counts come from the file, so nothing is multiplied before it is known to fit. */
static mhp_status check_index_length(mhp_indexed *file)
{
    uint64_t sequences = load_u64(file->index + INDEX_SEQUENCES_AT);
    uint64_t entries = load_u64(file->index + INDEX_DOCUMENTS_AT);
    uint64_t room = file->index_bytes - INDEX_HEADER_BYTES;
    uint64_t needed;

    if (sequences > room / 12 || entries > room / 8 || 12 * sequences + 8 * entries > room) {
        return mhp_error_set(MHP_ERR_FORMAT,
                             "%s ends at byte %zu: too short for %llu sequences (offset %d) and "
                             "%llu entries of the document index (offset %d), 12 and 8 bytes each",
                             file->index_path, file->index_bytes, (unsigned long long)sequences,
                             INDEX_SEQUENCES_AT, (unsigned long long)entries, INDEX_DOCUMENTS_AT);
    }
    if (entries == 0) {
        return mhp_error_set(
            MHP_ERR_FORMAT, "%s, offset %d: document index of 0 entries: expected at least 1",
            file->index_path, INDEX_DOCUMENTS_AT);
    }
    needed = 12 * sequences + 8 * entries;
    if (sequences > 0 && room - needed == sequences) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED,
                             "%s, offset %llu: a mode for each sequence (multimodal data): "
                             "expected an index of text alone",
                             file->index_path, (unsigned long long)needed + INDEX_HEADER_BYTES);
    }
    if (room != needed) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s has %zu bytes: expected %llu", file->index_path,
                             file->index_bytes, (unsigned long long)needed + INDEX_HEADER_BYTES);
    }
    file->sequences = sequences;
    file->documents = entries - 1;
    file->sizes = file->index + INDEX_HEADER_BYTES;
    file->pointers = file->sizes + 4 * sequences;
    file->document_index = file->pointers + 8 * sequences;
    return MHP_OK;
}

static unsigned long long index_offset(const mhp_indexed *file, const uint8_t *at)
{
    return (unsigned long long)(at - file->index);
}

/* Sequences lie one behind the other, so that a document is one run of tokens; Megatron writes no other files. */
static mhp_status check_sequences(mhp_indexed *file)
{
    size_t token_bytes = mhp_token_type_bytes(file->type);
    uint64_t expected = 0;

    for (uint64_t i = 0; i < file->sequences; i++) {
        const uint8_t *size_at = file->sizes + 4 * i;
        const uint8_t *pointer_at = file->pointers + 8 * i;
        int32_t size = load_i32(size_at);

        if (size < 0) {
            return mhp_error_set(MHP_ERR_FORMAT,
                                 "%s, offset %llu: sequence %llu has %d tokens: expected at "
                                 "least 0",
                                 file->index_path, index_offset(file, size_at),
                                 (unsigned long long)i, size);
        }
        if (load_u64(pointer_at) != expected) {
            return mhp_error_set(MHP_ERR_FORMAT,
                                 "%s, offset %llu: sequence %llu begins at byte %lld: expected "
                                 "%llu, the end of the one before",
                                 file->index_path, index_offset(file, pointer_at),
                                 (unsigned long long)i, (long long)load_i64(pointer_at),
                                 (unsigned long long)expected);
        }
        expected += (uint64_t)size * token_bytes; /* < 2^34 each and at most 2^60 of them */
        if (expected > file->data_bytes) {
            return mhp_error_set(MHP_ERR_FORMAT,
                                 "%s has %zu bytes: sequence %llu of %s (offset %llu) ends at byte "
                                 "%llu",
                                 file->path, file->data_bytes, (unsigned long long)i,
                                 file->index_path, index_offset(file, size_at),
                                 (unsigned long long)expected);
        }
    }
    if (expected != file->data_bytes) {
        return mhp_error_set(MHP_ERR_FORMAT,
                             "%s has %zu bytes: expected %llu, where the last sequence of %s ends",
                             file->path, file->data_bytes, (unsigned long long)expected,
                             file->index_path);
    }
    file->tokens = expected / token_bytes;
    return MHP_OK;
}

static mhp_status check_documents(const mhp_indexed *file)
{
    int64_t before = 0;
    const uint8_t *last = file->document_index + 8 * file->documents;

    for (uint64_t i = 0; i <= file->documents; i++) {
        const uint8_t *at = file->document_index + 8 * i;
        int64_t first = load_i64(at);
        int64_t highest = i == 0 ? 0 : (int64_t)file->sequences;

        if (first < before || first > highest) {
            return mhp_error_set(MHP_ERR_FORMAT,
                                 "%s, offset %llu: document %llu begins with sequence %lld: "
                                 "expected %lld .. %lld",
                                 file->index_path, index_offset(file, at), (unsigned long long)i,
                                 (long long)first, (long long)before, (long long)highest);
        }
        before = first;
    }
    if (before != (int64_t)file->sequences) {
        return mhp_error_set(MHP_ERR_FORMAT,
                             "%s, offset %llu: the document index ends with %lld: expected %llu, "
                             "the number of sequences",
                             file->index_path, index_offset(file, last), (long long)before,
                             (unsigned long long)file->sequences);
    }
    return MHP_OK;
}

static mhp_status check_megatron(mhp_indexed *file)
{
    file->format = "Megatron .bin/.idx";
    MHP_RETURN_IF_ERROR(check_index_header(file));
    MHP_RETURN_IF_ERROR(check_index_length(file));
    MHP_RETURN_IF_ERROR(check_sequences(file));
    return check_documents(file);
}

/* ---- llm.c ---- */

static mhp_status check_llmc_header(mhp_indexed *file, const llmc_format **format_out)
{
    const llmc_format *format = NULL;
    int32_t magic;

    if (file->data_bytes < LLMC_HEADER_BYTES) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s ends at byte %zu: expected a header of %d bytes",
                             file->path, file->data_bytes, LLMC_HEADER_BYTES);
    }
    magic = load_i32(file->data);
    for (size_t i = 0; i < sizeof llmc_formats / sizeof llmc_formats[0]; i++) {
        format = llmc_formats[i].magic == magic ? &llmc_formats[i] : format;
    }
    if (!format) {
        return mhp_error_set(MHP_ERR_FORMAT,
                             "%s, offset 0: magic %d: expected 20240520 or 20240801 (llm.c), or a "
                             ".idx beside the .bin (Megatron)",
                             file->path, magic);
    }
    if (load_i32(file->data + 4) != format->version) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s, offset 4: version %d: expected %d", file->path,
                             load_i32(file->data + 4), format->version);
    }
    *format_out = format;
    return MHP_OK;
}

static mhp_status check_llmc_length(mhp_indexed *file)
{
    int32_t tokens = load_i32(file->data + 8);
    uint64_t expected;

    if (tokens < 0) {
        return mhp_error_set(MHP_ERR_FORMAT, "%s, offset 8: %d tokens: expected at least 0",
                             file->path, tokens);
    }
    expected = LLMC_HEADER_BYTES + (uint64_t)tokens * mhp_token_type_bytes(file->type);
    if (file->data_bytes != expected) {
        return mhp_error_set(MHP_ERR_FORMAT,
                             "%s has %zu bytes: expected %llu for the %d tokens of offset 8",
                             file->path, file->data_bytes, (unsigned long long)expected, tokens);
    }
    file->tokens = (uint64_t)tokens;
    file->data += LLMC_HEADER_BYTES;
    return MHP_OK;
}

static bool begins_document(const mhp_indexed *file, const llmc_format *format, uint64_t position)
{
    return position == 0 || mhp_indexed_token(file, position) == format->first_of_document;
}

static mhp_status check_llmc(mhp_indexed *file)
{
    const llmc_format *format = NULL;
    uint64_t document = 0;

    file->format = "llm.c .bin";
    MHP_RETURN_IF_ERROR(check_llmc_header(file, &format));
    file->type = format->type;
    MHP_RETURN_IF_ERROR(check_llmc_length(file));
    for (uint64_t i = 0; i < file->tokens; i++) {
        file->documents += begins_document(file, format, i);
    }
    file->sequences = file->documents;
    MHP_RETURN_IF_ERROR(mhp_calloc(&file->starts, file->documents + 1, sizeof *file->starts));
    for (uint64_t i = 0; i < file->tokens; i++) {
        if (begins_document(file, format, i)) {
            file->starts[document++] = i;
        }
    }
    file->starts[document] = file->tokens;
    return MHP_OK;
}

/* ---- opening ---- */

static bool ends_with(const char *text, const char *suffix)
{
    size_t length = strlen(text);
    size_t suffix_length = strlen(suffix);

    return length > suffix_length && strcmp(text + length - suffix_length, suffix) == 0;
}

static mhp_status map_file(const char *path, file_map *map_out)
{
    mhp_status status = MHP_OK;
    struct stat info;
    void *address = NULL;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (descriptor < 0 || fstat(descriptor, &info) != 0) {
        MHP_RAISE(out, errno == ENOENT ? MHP_ERR_NOT_FOUND : MHP_ERR_IO, "cannot open %s: %s", path,
                  strerror(errno));
    }
    if (!S_ISREG(info.st_mode)) {
        MHP_RAISE(out, MHP_ERR_IO, "%s is no file", path);
    }
    if (info.st_size > 0) {
        address = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, descriptor, 0);
        if (address == MAP_FAILED) {
            MHP_RAISE(out, MHP_ERR_IO, "cannot map the %lld bytes of %s: %s",
                      (long long)info.st_size, path, strerror(errno));
        }
    }
    *map_out = (file_map){.address = address, .bytes = (size_t)info.st_size};
out:
    if (descriptor >= 0) {
        close(descriptor);
    }
    return status;
}

/* Finds which files `path` stands for; *index_path_out is NULL for llm.c's format. */
static mhp_status find_files(const char *path, char **index_path_out, char **data_path_out)
{
    mhp_status status = MHP_OK;
    bool suffixed = ends_with(path, ".bin") || ends_with(path, ".idx");
    int lengths[2] = {(int)strlen(path), (int)strlen(path) - 4};
    char *index_path = NULL;

    for (int i = 0; i < 1 + suffixed; i++) {
        MHP_TRY(out, mhp_asprintf(&index_path, "%.*s.idx", lengths[i], path));
        if (access(index_path, F_OK) == 0) {
            MHP_TRY(out, mhp_asprintf(data_path_out, "%.*s.bin", lengths[i], path));
            *index_path_out = index_path;
            return MHP_OK;
        }
        mhp_free(index_path);
        index_path = NULL;
    }
    if (access(path, F_OK) != 0) {
        MHP_RAISE(out, MHP_ERR_NOT_FOUND,
                  "no data at %s: expected %s.idx and %s.bin (mhcpipe data tokenize, Megatron), or "
                  "a .bin file of llm.c",
                  path, path, path);
    }
    MHP_TRY(out, mhp_strdup(data_path_out, path));
out:
    mhp_free(index_path);
    return status;
}

mhp_status mhp_indexed_open(const char *path, mhp_indexed **file_out)
{
    mhp_status status = MHP_OK;
    mhp_indexed *file = NULL;

    MHP_TRY(out, mhp_calloc(&file, 1, sizeof *file));
    MHP_TRY(out, find_files(path, &file->index_path, &file->path));
    if (file->index_path) {
        MHP_TRY(out, map_file(file->index_path, &file->maps[0]));
    }
    MHP_TRY(out, map_file(file->path, &file->maps[1]));
    file->index = file->maps[0].address;
    file->index_bytes = file->maps[0].bytes;
    file->data = file->maps[1].address;
    file->data_bytes = file->maps[1].bytes;
    MHP_TRY(out, file->index_path ? check_megatron(file) : check_llmc(file));
    *file_out = file;
    file = NULL;
out:
    mhp_indexed_close(file);
    return status;
}

mhp_status mhp_indexed_open_bytes(const char *name, const void *index, size_t index_bytes,
                                  const void *data, size_t data_bytes, mhp_indexed **file_out)
{
    mhp_status status = MHP_OK;
    mhp_indexed *file = NULL;

    MHP_TRY(out, mhp_calloc(&file, 1, sizeof *file));
    MHP_TRY(out, mhp_asprintf(&file->index_path, "%s.idx", name));
    MHP_TRY(out, mhp_asprintf(&file->path, "%s.bin", name));
    file->index = index;
    file->index_bytes = index_bytes;
    file->data = data;
    file->data_bytes = data_bytes;
    MHP_TRY(out, index ? check_megatron(file) : check_llmc(file));
    *file_out = file;
    file = NULL;
out:
    mhp_indexed_close(file);
    return status;
}

void mhp_indexed_close(mhp_indexed *file)
{
    if (!file) {
        return;
    }
    for (int i = 0; i < 2; i++) {
        if (file->maps[i].address) {
            munmap(file->maps[i].address, file->maps[i].bytes);
        }
    }
    mhp_free(file->starts);
    mhp_free(file->index_path);
    mhp_free(file->path);
    mhp_free(file);
}

/* ---- reading ---- */

mhp_indexed_info mhp_indexed_describe(const mhp_indexed *file)
{
    return (mhp_indexed_info){.path = file->path,
                              .format = file->format,
                              .type = file->type,
                              .documents = file->documents,
                              .sequences = file->sequences,
                              .tokens = file->tokens};
}

/* Token at which a document begins; for the number behind the last one: where the data end. */
static uint64_t document_start(const mhp_indexed *file, uint64_t document)
{
    uint64_t sequence;

    if (file->starts) {
        return file->starts[document];
    }
    sequence = load_u64(file->document_index + 8 * document);
    if (sequence == file->sequences) {
        return file->tokens;
    }
    return load_u64(file->pointers + 8 * sequence) / mhp_token_type_bytes(file->type);
}

void mhp_indexed_document(const mhp_indexed *file, uint64_t document, uint64_t *first_out,
                          uint64_t *count_out)
{
    assert(document < file->documents);
    *first_out = document_start(file, document);
    *count_out = document_start(file, document + 1) - *first_out;
}

#define LOAD_AS(ctype)                                             \
    do {                                                           \
        ctype value_;                                              \
        memcpy(&value_, file->data + position * sizeof value_, sizeof value_); \
        return (int64_t)value_;                                    \
    } while (0)

int64_t mhp_indexed_token(const mhp_indexed *file, uint64_t position)
{
    assert(position < file->tokens);
    switch (file->type) {
    case MHP_TOKEN_U8:
        LOAD_AS(uint8_t);
    case MHP_TOKEN_I8:
        LOAD_AS(int8_t);
    case MHP_TOKEN_I16:
        LOAD_AS(int16_t);
    case MHP_TOKEN_I32:
        LOAD_AS(int32_t);
    case MHP_TOKEN_I64:
        LOAD_AS(int64_t);
    case MHP_TOKEN_U16:
        LOAD_AS(uint16_t);
    case MHP_TOKEN_U32:
        LOAD_AS(uint32_t);
    }
    return -1;
}
