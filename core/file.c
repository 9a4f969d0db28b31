#include "core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file_internal.h"
#include "core/memory.h"

/* Linux moves at most 2^31 - 4096 bytes in a call. */
#define WRITE_BYTES_MAX  ((size_t)1 << 30)
#define READ_BYTES_START ((size_t)64 << 10)
/* Past the cache: enough for a disk's queue, little for who else waits for the disk. */
#define DIRECT_BYTES_MAX ((size_t)16 << 20)
/* Through the cache: what storage is given while the next is copied. */
#define BEHIND_BYTES     ((size_t)1 << 20)

struct mhp_file {
    char *path;
    char *temporary; /* NULL: written in place */
    int fd;          /* -1: closed */
    uint64_t written_bytes;
    bool streams;        /* see mhp_file_stream */
    bool direct_refused; /* by the file system */
    bool direct;         /* writes go past the cache now */
    uint64_t behind;     /* bytes that storage was given already */
};

static mhp_file_fault_fn fault_hook;
static void *fault_context;

void mhp_file_set_fault(mhp_file_fault_fn fault, void *context)
{
    fault_hook = fault;
    fault_context = context;
}

const char *mhp_file_call_text(mhp_file_call call)
{
    static const char *const texts[MHP_FILE_CALL_COUNT] = {
        "open", "write", "sync", "close", "rename", "sync-folder", "make-folder", "remove",
        "direct"};

    return texts[call];
}

bool mhp_file_fails(mhp_file_call call, const char *path, size_t *bytes)
{
    int error = fault_hook ? fault_hook(fault_context, call, path, bytes) : 0;

    if (error != 0) {
        errno = error;
    }
    return error != 0;
}

static mhp_status fail(mhp_status status, const char *action, const char *path)
{
    return mhp_error_set(status, "cannot %s %s: %s", action, path, strerror(errno));
}

static mhp_status fail_to_open(const char *path)
{
    return fail(errno == ENOENT ? MHP_ERR_NOT_FOUND : MHP_ERR_IO, "open", path);
}

static const char *working_name(const mhp_file *file)
{
    return file->temporary ? file->temporary : file->path;
}

static void file_release(mhp_file *file)
{
    if (file->fd >= 0) {
        close(file->fd);
    }
    mhp_free(file->temporary);
    mhp_free(file->path);
    mhp_free(file);
}

mhp_status mhp_file_create(const char *path, mhp_file **file_out)
{
    mhp_status status = MHP_OK;
    mhp_file *file = NULL;
    struct stat found;
    int flags = O_WRONLY | O_CLOEXEC;

    MHP_RETURN_IF_ERROR(mhp_calloc(&file, 1, sizeof *file));
    file->fd = -1;
    MHP_TRY(out, mhp_strdup(&file->path, path));
    if (stat(path, &found) != 0 || S_ISREG(found.st_mode)) {
        MHP_TRY(out, mhp_asprintf(&file->temporary, "%s.tmp", path));
        flags |= O_CREAT | O_TRUNC | O_NOFOLLOW;
    }
    if (!mhp_file_fails(MHP_FILE_OPEN, working_name(file), NULL)) {
        file->fd = open(working_name(file), flags, 0666);
    }
    if (file->fd < 0) {
        status = fail(MHP_ERR_IO, "create", working_name(file));
        goto out;
    }
    *file_out = file;
    file = NULL;
out:
    if (file) {
        file_release(file);
    }
    return status;
}

static mhp_status fail_to_write(const mhp_file *file, size_t bytes, size_t done, uint64_t offset)
{
    return mhp_error_set(MHP_ERR_IO,
                         "cannot write %zu bytes to %s at offset %llu: %s after %zu bytes", bytes,
                         working_name(file), (unsigned long long)offset, strerror(errno), done);
}

void mhp_file_stream(mhp_file *file)
{
    file->streams = file->temporary != NULL; /* O_DIRECT on a pipe would be something else */
    file->behind = file->written_bytes;
}

/* The flags that F_SETFL can change are all off but this one. */
static bool set_direct(mhp_file *file, bool direct)
{
    if (file->direct != direct) {
        if (mhp_file_fails(MHP_FILE_DIRECT, working_name(file), NULL) ||
            fcntl(file->fd, F_SETFL, direct ? O_DIRECT : 0) != 0) {
            return false;
        }
        file->direct = direct;
    }
    return true;
}

/* How many of `bytes` the next write is to take, and that it goes the right way. */
static size_t prepare_write(mhp_file *file, const void *data, size_t bytes)
{
    bool aligned = bytes >= MHP_FILE_BLOCK && file->written_bytes % MHP_FILE_BLOCK == 0 &&
                   (uintptr_t)data % MHP_FILE_BLOCK == 0;

    if (!file->streams) {
        return bytes < WRITE_BYTES_MAX ? bytes : WRITE_BYTES_MAX;
    }
    if (aligned && !file->direct_refused) {
        if (set_direct(file, true)) {
            bytes = bytes < DIRECT_BYTES_MAX ? bytes : DIRECT_BYTES_MAX;
            return bytes / MHP_FILE_BLOCK * MHP_FILE_BLOCK;
        }
        file->direct_refused = true;
    }
    (void)set_direct(file, false); /* else the write says that it is not aligned */
    return bytes < BEHIND_BYTES ? bytes : BEHIND_BYTES;
}

/* After a write past the cache that failed: whether it may do as well through it. */
static bool may_retreat(mhp_file *file)
{
    const int reason = errno;
    bool refused = reason == EINVAL || reason == ENOTSUP || reason == EFAULT;

    if (!file->direct || !refused) {
        return false;
    }
    file->direct_refused = true;
    if (!set_direct(file, false)) {
        errno = reason; /* what is told is why the write failed */
        return false;
    }
    return true;
}

/* Has storage begin with what lies in the cache. Advice alone: whatever is wrong, sync says. */
static void start_writing_behind(mhp_file *file)
{
    uint64_t end = file->written_bytes / MHP_FILE_BLOCK * MHP_FILE_BLOCK;

    if (file->direct) {
        file->behind = end;
    } else if (file->streams && end >= file->behind + BEHIND_BYTES) {
        (void)sync_file_range(file->fd, (off_t)file->behind, (off_t)(end - file->behind),
                              SYNC_FILE_RANGE_WRITE);
        file->behind = end;
    }
}

mhp_status mhp_file_write(mhp_file *file, const void *data, size_t bytes)
{
    const uint64_t start = file->written_bytes;
    size_t done = 0;

    while (done < bytes) {
        const char *from = (const char *)data + done;
        size_t part = prepare_write(file, from, bytes - done);
        ssize_t count = mhp_file_fails(MHP_FILE_WRITE, working_name(file), &part)
                            ? -1
                            : write(file->fd, from, part);

        if (count > 0) {
            done += (size_t)count;
            file->written_bytes += (size_t)count;
            start_writing_behind(file);
        } else if (count == 0 || (errno != EINTR && !may_retreat(file))) {
            return fail_to_write(file, bytes, done, start);
        }
    }
    return MHP_OK;
}

mhp_status mhp_file_pwrite(mhp_file *file, const void *data, size_t bytes, uint64_t offset)
{
    size_t done = 0;

    if (offset > INT64_MAX || bytes > INT64_MAX - offset) {
        return mhp_error_set(
            MHP_ERR_LIMIT,
            "cannot write %zu bytes to %s at offset %llu: expected an end below 2^63", bytes,
            working_name(file), (unsigned long long)offset);
    }
    (void)set_direct(file, false); /* else the write says that it is not aligned */
    while (done < bytes) {
        size_t part = bytes - done < WRITE_BYTES_MAX ? bytes - done : WRITE_BYTES_MAX;
        ssize_t count =
            mhp_file_fails(MHP_FILE_WRITE, working_name(file), &part)
                ? -1
                : pwrite(file->fd, (const char *)data + done, part, (off_t)(offset + done));

        if (count > 0) {
            done += (size_t)count;
        } else if (count == 0 || errno != EINTR) {
            return fail_to_write(file, bytes, done, offset);
        }
    }
    return MHP_OK;
}

/* Some file systems and all pipes have nothing to sync and say EINVAL; EROFS comes from device
 * nodes. */
static bool cannot_be_synced(int error)
{
    return error == EINVAL || error == EROFS || error == ENOTSUP;
}

int mhp_sync_folder_fd(const char *path)
{
    int error = 0;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0) {
        return -1;
    }
    if ((mhp_file_fails(MHP_FILE_SYNC_FOLDER, path, NULL) || fsync(fd) != 0) &&
        !cannot_be_synced(errno)) {
        error = errno;
    }
    close(fd);
    errno = error;
    return error != 0 ? -1 : 0;
}

static mhp_status sync_folder_of(const char *path)
{
    mhp_status status = MHP_OK;
    const char *slash = strrchr(path, '/');
    char *folder = NULL;

    MHP_TRY(out, mhp_strdup(&folder, slash ? path : "."));
    if (slash) {
        folder[slash == path ? 1 : slash - path] = '\0';
    }
    if (mhp_sync_folder_fd(folder) != 0) {
        status = mhp_error_set(MHP_ERR_IO, "cannot sync folder %s after writing %s: %s", folder,
                               path, strerror(errno));
    }
out:
    mhp_free(folder);
    return status;
}

/* Also closes: a late error of a network file system shows only there. */
static mhp_status sync_and_close(mhp_file *file)
{
    mhp_status status = MHP_OK;
    int fd = file->fd;

    if ((mhp_file_fails(MHP_FILE_SYNC, working_name(file), NULL) || fsync(fd) != 0) &&
        (file->temporary || !cannot_be_synced(errno))) {
        return fail(MHP_ERR_IO, "sync", working_name(file));
    }
    file->fd = -1;
    if (close(fd) != 0 || mhp_file_fails(MHP_FILE_CLOSE, working_name(file), NULL)) {
        status = fail(MHP_ERR_IO, "close", working_name(file));
    }
    return status;
}

mhp_status mhp_file_finish(mhp_file *file)
{
    mhp_status status = MHP_OK;

    MHP_TRY(out, sync_and_close(file));
    if (!file->temporary) {
        goto out;
    }
    if (mhp_file_fails(MHP_FILE_RENAME, file->path, NULL) ||
        rename(file->temporary, file->path) != 0) {
        MHP_RAISE(out, MHP_ERR_IO, "cannot rename %s to %s: %s", file->temporary, file->path,
                  strerror(errno));
    }
    mhp_free(file->temporary);
    file->temporary = NULL;
    MHP_TRY(out, sync_folder_of(file->path));
out:
    mhp_file_abandon(file);
    return status;
}

void mhp_file_abandon(mhp_file *file)
{
    if (!file) {
        return;
    }
    if (file->temporary) {
        unlink(file->temporary);
    }
    file_release(file);
}

mhp_status mhp_file_write_atomic(const char *path, const void *data, size_t bytes)
{
    mhp_status status = MHP_OK;
    mhp_file *file = NULL;

    MHP_RETURN_IF_ERROR(mhp_file_create(path, &file));
    MHP_TRY(out, mhp_file_write(file, data, bytes));
    status = mhp_file_finish(file);
    file = NULL;
out:
    mhp_file_abandon(file);
    return status;
}

/* Reads to the end or to one byte beyond the limit, whichever comes first. */
static mhp_status read_to_end(int fd, const char *path, size_t limit_bytes, char **text,
                              size_t *size)
{
    size_t capacity = 0;

    for (;;) {
        ssize_t count;

        if (*size == capacity) {
            capacity = capacity ? 2 * capacity : READ_BYTES_START;
            capacity = capacity < limit_bytes ? capacity : limit_bytes + 1;
            MHP_RETURN_IF_ERROR(mhp_realloc(text, capacity + 1, 1));
        }
        count = read(fd, *text + *size, capacity - *size);
        if (count == 0) {
            (*text)[*size] = '\0';
            return MHP_OK;
        }
        if (count < 0 && errno != EINTR) {
            return mhp_error_set(MHP_ERR_IO, "cannot read %s after %zu bytes: %s", path, *size,
                                 strerror(errno));
        }
        *size += count > 0 ? (size_t)count : 0;
        if (*size > limit_bytes) {
            return mhp_error_set(MHP_ERR_LIMIT, "%s holds more than %zu bytes, the limit", path,
                                 limit_bytes);
        }
    }
}

mhp_status mhp_file_read_all(const char *path, size_t limit_bytes, char **text_out,
                             size_t *size_out)
{
    mhp_status status = MHP_OK;
    char *text = NULL;
    size_t size = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return fail_to_open(path);
    }
    MHP_TRY(out, read_to_end(fd, path, limit_bytes, &text, &size));
    *text_out = text;
    *size_out = size;
    text = NULL;
out:
    mhp_free(text);
    close(fd);
    return status;
}

bool mhp_file_exists(const char *path)
{
    struct stat found;

    return stat(path, &found) == 0;
}

static mhp_status make_folder(const char *path)
{
    struct stat found;

    if (mhp_file_fails(MHP_FILE_MAKE_FOLDER, path, NULL)) {
        return fail(MHP_ERR_IO, "make folder", path);
    }
    if (mkdir(path, 0777) == 0 ||
        (errno == EEXIST && stat(path, &found) == 0 && S_ISDIR(found.st_mode))) {
        return MHP_OK;
    }
    return fail(MHP_ERR_IO, "make folder", path);
}

mhp_status mhp_mkdirs(const char *path)
{
    mhp_status status = MHP_OK;
    char *copy = NULL;

    MHP_RETURN_IF_ERROR(mhp_strdup(&copy, path));
    for (char *at = copy + 1; *copy && *at; at++) {
        if (*at == '/' && at[-1] != '/') {
            *at = '\0';
            MHP_TRY(out, make_folder(copy));
            *at = '/';
        }
    }
    MHP_TRY(out, make_folder(copy));
out:
    mhp_free(copy);
    return status;
}

static mhp_status map_open_file(int fd, const char *path, mhp_map *map_out)
{
    struct stat found;
    void *data;

    if (fstat(fd, &found) != 0) {
        return fail(MHP_ERR_IO, "look at", path);
    }
    if (!S_ISREG(found.st_mode)) {
        return mhp_error_set(MHP_ERR_IO, "cannot map %s: expected a regular file", path);
    }
    if (found.st_size == 0) {
        *map_out = (mhp_map){.data = "", .size = 0}; /* nothing to map is an error of mmap */
        return MHP_OK;
    }
    data = mmap(NULL, (size_t)found.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
        return mhp_error_set(MHP_ERR_IO, "cannot map %s of %lld bytes: %s", path,
                             (long long)found.st_size, strerror(errno));
    }
    *map_out = (mhp_map){.data = data, .size = (size_t)found.st_size};
    return MHP_OK;
}

mhp_status mhp_map_file(const char *path, mhp_map *map_out)
{
    mhp_status status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return fail_to_open(path);
    }
    status = map_open_file(fd, path, map_out);
    close(fd);
    return status;
}

void mhp_unmap(mhp_map *map)
{
    if (map->size > 0) {
        munmap((void *)(uintptr_t)map->data, map->size);
    }
    *map = (mhp_map){0};
}
