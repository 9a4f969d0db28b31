#include "runtime/data/tokenize.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/memory.h"
#include "core/utf8.h"
#include "runtime/data/indexed.h"

enum {
    BUFFER_BYTES = 1 << 16,
    SAMPLE_BYTES = 8192,     /* of a file's beginning that tell text from anything else */
    BINARY_PERCENT = 30,
};

typedef struct tokenizer {
    const mhp_tokenize_params *params;
    mhp_indexed_writer *writer;
    mhp_tokenize_report report;
    uint8_t bytes[BUFFER_BYTES];
    uint16_t tokens[BUFFER_BYTES];
} tokenizer;

/* ---- what is text ---- */

static bool is_control(uint8_t byte)
{
    return byte == 0x7f || (byte < 0x20 && !(byte >= '\b' && byte <= '\r') && byte != 0x1b);
}

static bool is_binary(const uint8_t *bytes, size_t count)
{
    size_t sample = count < SAMPLE_BYTES ? count : SAMPLE_BYTES;
    size_t odd = 0;

    if (memchr(bytes, 0, sample)) {
        return true;
    }
    for (size_t i = 0; i < sample;) {
        uint32_t code;
        size_t length = mhp_utf8_decode((const char *)bytes + i, count - i, &code);

        odd += length == 0 || is_control(bytes[i]);
        i += length > 0 ? length : 1;
    }
    return odd * 100 >= sample * BINARY_PERCENT;
}

/* ---- one file ---- */

static mhp_status read_some(int descriptor, const char *path, uint8_t *bytes, size_t *count_out)
{
    *count_out = 0;
    while (*count_out < BUFFER_BYTES) {
        ssize_t got = read(descriptor, bytes + *count_out, BUFFER_BYTES - *count_out);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return mhp_error_set(MHP_ERR_IO, "cannot read %s: %s", path, strerror(errno));
        }
        if (got == 0) {
            break;
        }
        *count_out += (size_t)got;
    }
    return MHP_OK;
}

static mhp_status append_bytes(tokenizer *self, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        self->tokens[i] = self->bytes[i];
    }
    self->report.tokens += count;
    return mhp_indexed_append(self->writer, self->tokens, count);
}

static mhp_status end_document(tokenizer *self)
{
    const uint16_t end = MHP_BYTE_END_OF_DOCUMENT;

    self->report.documents++;
    self->report.tokens++;
    MHP_RETURN_IF_ERROR(mhp_indexed_append(self->writer, &end, 1));
    return mhp_indexed_end_document(self->writer);
}

static mhp_status take_open_file(tokenizer *self, int descriptor, const char *path)
{
    size_t count;

    MHP_RETURN_IF_ERROR(read_some(descriptor, path, self->bytes, &count));
    if (count == 0) {
        self->report.empty++;
        return MHP_OK;
    }
    if (is_binary(self->bytes, count)) {
        self->report.binary++;
        return MHP_OK;
    }
    while (count > 0) {
        MHP_RETURN_IF_ERROR(append_bytes(self, count));
        MHP_RETURN_IF_ERROR(read_some(descriptor, path, self->bytes, &count));
    }
    return end_document(self);
}

/* A file that cannot be opened is counted, unless it was asked for by name. */
static mhp_status take_file(tokenizer *self, const char *path, bool named)
{
    mhp_status status;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);

    self->report.files++;
    if (descriptor < 0) {
        if (named) {
            return mhp_error_set(MHP_ERR_IO, "cannot open %s: %s", path, strerror(errno));
        }
        self->report.unreadable++;
        return MHP_OK;
    }
    status = take_open_file(self, descriptor, path);
    close(descriptor);
    return status;
}

/* ---- the walk ---- */

static bool has_suffix(const mhp_tokenize_params *params, const char *name)
{
    size_t length = strlen(name);

    for (size_t i = 0; i < params->suffix_count; i++) {
        size_t tail = strlen(params->suffixes[i]);

        if (tail <= length && strcmp(name + length - tail, params->suffixes[i]) == 0) {
            return true;
        }
    }
    return params->suffix_count == 0;
}

static mhp_status take_file_entry(tokenizer *self, const FTSENT *entry)
{
    bool named = entry->fts_level == FTS_ROOTLEVEL;

    if (!named && !has_suffix(self->params, entry->fts_name)) {
        self->report.files++;
        self->report.suffix++;
        return MHP_OK;
    }
    return take_file(self, entry->fts_accpath, named);
}

static mhp_status take_link(tokenizer *self, const FTSENT *entry)
{
    struct stat target;

    if (stat(entry->fts_accpath, &target) == 0) {
        if (S_ISDIR(target.st_mode)) {
            self->report.folder_links++;
            return MHP_OK;
        }
        if (S_ISREG(target.st_mode)) {
            return take_file_entry(self, entry);
        }
    }
    self->report.files++;
    self->report.unreadable++;
    return MHP_OK;
}

static mhp_status take_entry(tokenizer *self, const FTSENT *entry)
{
    switch (entry->fts_info) {
    case FTS_D:
    case FTS_DP:
        return MHP_OK;
    case FTS_F:
        return take_file_entry(self, entry);
    case FTS_SL:
    case FTS_SLNONE:
        return take_link(self, entry);
    default:
        break;
    }
    if (entry->fts_level == FTS_ROOTLEVEL) {
        int reason = entry->fts_errno;

        return mhp_error_set(reason == ENOENT ? MHP_ERR_NOT_FOUND : MHP_ERR_IO, "cannot read %s: %s", entry->fts_path,
                             reason ? strerror(reason) : "expected a file or a folder");
    }
    self->report.files++;
    self->report.unreadable++;
    return MHP_OK;
}

static int compare_names(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static mhp_status walk(tokenizer *self, char *path)
{
    mhp_status status = MHP_OK;
    char *paths[] = {path, NULL};
    FTS *tree = NULL;
    FTSENT *entry;

    if (path[0] == '\0') {
        MHP_RAISE(out, MHP_ERR_NOT_FOUND, "an empty path: expected a file or a folder");
    }
    tree = fts_open(paths, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, compare_names);
    if (!tree) {
        MHP_RAISE(out, MHP_ERR_IO, "cannot walk %s: %s", path, strerror(errno));
    }
    while (errno = 0, (entry = fts_read(tree)) != NULL) {
        MHP_TRY(out, take_entry(self, entry));
    }
    if (errno != 0) {
        MHP_RAISE(out, MHP_ERR_IO, "cannot walk %s: %s", path, strerror(errno));
    }
out:
    if (tree) {
        fts_close(tree);
    }
    return status;
}

static mhp_status make_folder(const char *prefix)
{
    mhp_status status;
    char *folder = NULL;
    const char *slash = strrchr(prefix, '/');

    if (!slash || slash == prefix) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_asprintf(&folder, "%.*s", (int)(slash - prefix), prefix));
    status = mhp_mkdirs(folder);
    mhp_free(folder);
    return status;
}

mhp_status mhp_tokenize(const mhp_tokenize_params *params, mhp_tokenize_report *report_out)
{
    mhp_status status = MHP_OK;
    tokenizer *self = NULL;

    MHP_TRY(out, mhp_calloc(&self, 1, sizeof *self));
    self->params = params;
    MHP_TRY(out, make_folder(params->prefix));
    MHP_TRY(out, mhp_indexed_create(params->prefix, &self->writer));
    for (size_t i = 0; i < params->path_count; i++) {
        MHP_TRY(out, walk(self, params->paths[i]));
    }
    if (self->report.documents == 0) {
        MHP_RAISE(out, MHP_ERR_CONFIG, "no text among the %llu files seen (%llu binary, %llu empty, %llu of another suffix, %llu unreadable)",
                  (unsigned long long)self->report.files, (unsigned long long)self->report.binary,
                  (unsigned long long)self->report.empty, (unsigned long long)self->report.suffix,
                  (unsigned long long)self->report.unreadable);
    }
    status = mhp_indexed_finish(self->writer);
    self->writer = NULL;
    *report_out = self->report;
out:
    if (self) {
        mhp_indexed_abandon(self->writer);
    }
    mhp_free(self);
    return status;
}
