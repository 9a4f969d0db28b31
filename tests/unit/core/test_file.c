/* Files that appear whole or not at all, and the words of every failure. */
#include "tests/unit/core/support.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "core/file.h"
#include "core/memory.h"

static bool is_there(const char *path)
{
    struct stat found;

    return lstat(path, &found) == 0;
}

/* The name that a file under way has. */
static const char *temporary_of(const char *path)
{
    static char temporary[SCRATCH_PATH_MAX + 8];

    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    return temporary;
}

static void test_write_atomic(void **state)
{
    const char *path = scratch_path("atomic");

    (void)state;
    assert_ok(mhp_file_write_atomic(path, "first", 5));
    assert_file_holds(path, "first", 5);
    assert_ok(mhp_file_write_atomic(path, "2nd", 3));
    assert_file_holds(path, "2nd", 3);
    assert_ok(mhp_file_write_atomic(path, "", 0));
    assert_file_holds(path, "", 0);
    assert_false(is_there(temporary_of(path)));
}

static void test_old_contents_until_finish(void **state)
{
    const char *path = scratch_path("kept");
    mhp_file *file = NULL;

    (void)state;
    scratch_write(path, "old", 3);
    assert_ok(mhp_file_create(path, &file));
    assert_ok(mhp_file_write(file, "new ", 4));
    assert_ok(mhp_file_write(file, "bytes", 5));
    assert_file_holds(path, "old", 3);
    assert_ok(mhp_file_finish(file));
    assert_file_holds(path, "new bytes", 9);
    assert_false(is_there(temporary_of(path)));
}

static void test_abandon(void **state)
{
    const char *path = scratch_path("abandoned"), *absent = scratch_path("never");
    mhp_file *file = NULL;

    (void)state;
    scratch_write(path, "old", 3);
    assert_ok(mhp_file_create(path, &file));
    assert_ok(mhp_file_write(file, "new", 3));
    mhp_error_set(MHP_ERR_IO, "why it was abandoned");
    mhp_file_abandon(file);
    assert_string_equal(mhp_error_text(), "why it was abandoned");
    assert_file_holds(path, "old", 3);
    assert_false(is_there(temporary_of(path)));
    assert_ok(mhp_file_create(absent, &file));
    mhp_file_abandon(file);
    assert_false(is_there(absent));
    assert_false(is_there(temporary_of(absent)));
    mhp_file_abandon(NULL);
}

/* A folder that took the file's name in between cannot be replaced. */
static void test_failed_finish_leaves_nothing(void **state)
{
    const char *path = scratch_path("taken");
    mhp_file *file = NULL;

    (void)state;
    assert_ok(mhp_file_create(path, &file));
    assert_ok(mhp_file_write(file, "new", 3));
    assert_int_equal(mkdir(path, 0777), 0);
    assert_failed(mhp_file_finish(file), MHP_ERR_IO, "cannot rename", path, "directory", NULL);
    assert_true(is_there(path));
    assert_false(is_there(temporary_of(path)));
}

static void test_left_over_temporary_is_emptied(void **state)
{
    const char *path = scratch_path("again");

    (void)state;
    scratch_write(temporary_of(path), "left by a crash", 15);
    assert_ok(mhp_file_write_atomic(path, "x", 1));
    assert_file_holds(path, "x", 1);
}

/* Whoever may write to the folder must not be able to send the bytes elsewhere. */
static void test_temporary_that_is_a_link(void **state)
{
    const char *path = scratch_path("linked"), *victim = scratch_path("victim");

    (void)state;
    scratch_write(victim, "keep", 4);
    assert_int_equal(symlink(victim, temporary_of(path)), 0);
    assert_failed(mhp_file_write_atomic(path, "x", 1), MHP_ERR_IO, path, NULL);
    assert_file_holds(victim, "keep", 4);
    assert_false(is_there(path));
}

/* ---- streams ---- */

enum { STREAM_BYTES = 5 * (1 << 20) + 777, CALLS_MAX = 64 };

/* What a hook saw and does: the write with that number gets `error`, and each is cut to `bytes_max`. */
typedef struct hooked {
    int calls[MHP_FILE_CALL_COUNT];
    int failing_write, error;
    size_t bytes_max;
    bool refuses_direct;
} hooked;

static int watch(void *context, mhp_file_call call, const char *path, size_t *bytes)
{
    hooked *seen = context;
    int number = seen->calls[call]++;

    (void)path;
    if (call == MHP_FILE_DIRECT && seen->refuses_direct) {
        return EINVAL;
    }
    if (call == MHP_FILE_WRITE && number == seen->failing_write) {
        return seen->error;
    }
    if (call == MHP_FILE_WRITE && seen->bytes_max > 0 && *bytes > seen->bytes_max) {
        *bytes = seen->bytes_max;
    }
    return 0;
}

static unsigned char *stream_memory(void)
{
    unsigned char *data = NULL;

    assert_ok(mhp_calloc_pages(&data, STREAM_BYTES));
    for (size_t i = 0; i < STREAM_BYTES; i++) {
        data[i] = (unsigned char)(i * 31 + i / 251);
    }
    return data;
}

/* A block, then all of the memory in three parts of which the second begins at no block. */
static mhp_status write_stream(const char *path, const unsigned char *data, hooked *seen)
{
    static const size_t ends[] = {(2 << 20) + 5, (2 << 20) + 6, STREAM_BYTES};
    mhp_status status;
    mhp_file *file = NULL;
    size_t at = 0;

    assert_ok(mhp_file_create(path, &file));
    mhp_file_set_fault(watch, seen);
    status = mhp_file_write(file, data, MHP_FILE_BLOCK);
    mhp_file_stream(file);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0] && status == MHP_OK; i++) {
        status = mhp_file_write(file, data + at, ends[i] - at);
        at = ends[i];
    }
    if (status == MHP_OK) {
        status = mhp_file_finish(file);
    } else {
        mhp_file_abandon(file);
    }
    mhp_file_set_fault(NULL, NULL);
    return status;
}

static void assert_stream(const char *path, const unsigned char *data)
{
    char *text = NULL;
    size_t size = 0;

    assert_ok(mhp_file_read_all(path, 2 * STREAM_BYTES, &text, &size));
    assert_int_equal(size, MHP_FILE_BLOCK + STREAM_BYTES);
    assert_memory_equal(text, data, MHP_FILE_BLOCK);
    assert_memory_equal(text + MHP_FILE_BLOCK, data, STREAM_BYTES);
    mhp_free(text);
}

/* Whether the file system of the tests takes writes past the cache. */
static bool takes_direct(void)
{
    int fd = open(scratch_path("probe"), O_WRONLY | O_CREAT | O_DIRECT, 0600);

    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
}

static void test_stream(void **state)
{
    const char *path = scratch_path("stream");
    unsigned char *data = stream_memory();
    hooked plain = {.failing_write = -1}, refused = {.failing_write = -1, .refuses_direct = true};
    hooked odd = {.failing_write = -1, .bytes_max = (1 << 20) - 3}, even = {.failing_write = -1, .bytes_max = 1 << 20};

    (void)state;
    assert_ok(write_stream(path, data, &plain));
    assert_stream(path, data);
    assert_true(plain.calls[MHP_FILE_DIRECT] >= 1);
    assert_ok(write_stream(path, data, &refused));
    assert_stream(path, data);
    assert_int_equal(refused.calls[MHP_FILE_DIRECT], 1); /* asked once */
    assert_ok(write_stream(path, data, &odd));
    assert_stream(path, data);
    assert_ok(write_stream(path, data, &even));
    assert_stream(path, data);
    mhp_free(data);
}

/* Each write fails in turn, with what is an error in every case and with what is none past the cache. */
static void test_stream_fails(void **state)
{
    static const int errors[] = {EINTR, ENOSPC, EINVAL, EFAULT, ENOTSUP};
    const char *path = scratch_path("failing");
    unsigned char *data = stream_memory();

    (void)state;
    for (size_t e = 0; e < sizeof errors / sizeof errors[0]; e++) {
        int call, passed = 0;

        for (call = 0; call < CALLS_MAX; call++) {
            hooked seen = {.failing_write = call, .error = errors[e]};
            mhp_status status = write_stream(path, data, &seen);

            if (status == MHP_OK) {
                assert_stream(path, data);
            } else {
                assert_int_equal(status, MHP_ERR_IO);
                assert_non_null(strstr(mhp_error_text(), strerror(errors[e])));
                assert_false(is_there(temporary_of(path)));
            }
            if (call >= seen.calls[MHP_FILE_WRITE]) {
                break; /* no such write */
            }
            passed += status == MHP_OK;
        }
        assert_true(call >= 4 && call < CALLS_MAX);
        assert_true(errors[e] == EINTR ? passed == call : errors[e] == ENOSPC ? passed == 0 : passed < call);
        assert_true(errors[e] == ENOSPC || !takes_direct() || passed > 0);
    }
    mhp_free(data);
}

/* The bytes that mhp_file_pwrite puts into a stream lie anywhere. */
static void test_stream_with_pwrite(void **state)
{
    const char *path = scratch_path("both");
    unsigned char *data = stream_memory();
    mhp_file *file = NULL;

    (void)state;
    assert_ok(mhp_file_create(path, &file));
    mhp_file_stream(file);
    assert_ok(mhp_file_write(file, data, 1 << 20));
    assert_ok(mhp_file_pwrite(file, "XY", 2, 4095));
    assert_ok(mhp_file_write(file, data + (1 << 20), STREAM_BYTES - (1 << 20)));
    assert_ok(mhp_file_finish(file));
    memcpy(data + 4095, "XY", 2);
    assert_file_holds(path, data, STREAM_BYTES);
    mhp_free(data);
}

/* O_DIRECT on a pipe would make packets of what is written. */
static void test_stream_to_pipe(void **state)
{
    const char *path = scratch_path("stream-pipe");
    unsigned char *data = stream_memory();
    char read_back[2 * MHP_FILE_BLOCK];
    mhp_file *file = NULL;
    int fd;

    (void)state;
    assert_int_equal(mkfifo(path, 0600), 0);
    fd = open(path, O_RDONLY | O_NONBLOCK);
    assert_true(fd >= 0);
    assert_ok(mhp_file_create(path, &file));
    mhp_file_stream(file);
    assert_ok(mhp_file_write(file, data, 2 * MHP_FILE_BLOCK));
    assert_int_equal(read(fd, read_back, 10), 10); /* of a packet the rest would be lost */
    assert_int_equal(read(fd, read_back + 10, sizeof read_back - 10), sizeof read_back - 10);
    assert_memory_equal(read_back, data, sizeof read_back);
    assert_ok(mhp_file_finish(file));
    close(fd);
    mhp_free(data);
}

static void test_pwrite(void **state)
{
    const char *path = scratch_path("places");
    mhp_file *file = NULL;

    (void)state;
    assert_ok(mhp_file_create(path, &file));
    assert_ok(mhp_file_write(file, "abcd", 4));
    assert_ok(mhp_file_pwrite(file, "XY", 2, 1));
    assert_ok(mhp_file_write(file, "ef", 2)); /* where the last write ended */
    assert_ok(mhp_file_pwrite(file, "Z", 1, 8));
    assert_ok(mhp_file_pwrite(file, NULL, 0, 100));
    assert_ok(mhp_file_finish(file));
    assert_file_holds(path, "aXYdef\0\0Z", 9);
}

static void test_pwrite_limits(void **state)
{
    const char *path = scratch_path("far");
    mhp_file *file = NULL;

    (void)state;
    assert_ok(mhp_file_create(path, &file));
    assert_failed(mhp_file_pwrite(file, "x", 1, UINT64_MAX), MHP_ERR_LIMIT, path, "2^63", NULL);
    assert_failed(mhp_file_pwrite(file, "x", 1, INT64_MAX), MHP_ERR_LIMIT, path, NULL);
    assert_failed(mhp_file_pwrite(file, "xy", 2, INT64_MAX - 1), MHP_ERR_LIMIT, path, NULL);
    mhp_file_abandon(file);
}

static void test_pwrite_error_names_place(void **state)
{
    mhp_file *file = NULL;

    (void)state;
    assert_ok(mhp_file_create("/dev/full", &file));
    assert_failed(mhp_file_pwrite(file, "abc", 3, 7), MHP_ERR_IO, "3 bytes", "/dev/full",
                  "offset 7", "No space", NULL);
    mhp_file_abandon(file);
}

static void test_full_device(void **state)
{
    mhp_file *file = NULL;

    (void)state;
    assert_failed(mhp_file_write_atomic("/dev/full", "abc", 3), MHP_ERR_IO, "/dev/full", "3 bytes",
                  "No space", NULL);
    assert_ok(mhp_file_create("/dev/full", &file));
    assert_failed(mhp_file_write(file, "abc", 3), MHP_ERR_IO, "/dev/full", NULL);
    mhp_file_abandon(file);
    assert_true(is_there("/dev/full"));
}

static void test_pipe_is_written_in_place(void **state)
{
    const char *path = scratch_path("pipe");
    char read_back[8];
    int fd;

    (void)state;
    assert_int_equal(mkfifo(path, 0600), 0);
    fd = open(path, O_RDONLY | O_NONBLOCK);
    assert_true(fd >= 0);
    assert_ok(mhp_file_write_atomic(path, "through", 7));
    assert_int_equal(read(fd, read_back, sizeof read_back), 7);
    assert_memory_equal(read_back, "through", 7);
    assert_false(is_there(temporary_of(path)));
    assert_true(is_there(path));
    close(fd);
}

static void test_missing_folder(void **state)
{
    const char *path = scratch_path("no/such/file");
    mhp_file *file = NULL;

    (void)state;
    assert_failed(mhp_file_create(path, &file), MHP_ERR_IO, path, "No such file", NULL);
    assert_null(file);
    assert_failed(mhp_file_write_atomic(path, "x", 1), MHP_ERR_IO, path, NULL);
    assert_failed(mhp_file_write_atomic(scratch_folder, "x", 1), MHP_ERR_IO, scratch_folder,
                  "directory", NULL);
}

static void test_read_all(void **state)
{
    const char *path = scratch_path("text");
    char *text = NULL;
    size_t size = 99;

    (void)state;
    scratch_write(path, "one\0two", 7);
    assert_ok(mhp_file_read_all(path, 7, &text, &size));
    assert_int_equal(size, 7);
    assert_memory_equal(text, "one\0two", 8); /* with the NUL byte that is added */
    mhp_free(text);
    text = NULL;
    assert_failed(mhp_file_read_all(path, 6, &text, &size), MHP_ERR_LIMIT, path, "6 bytes", NULL);
    assert_null(text);
    scratch_write(path, "", 0);
    assert_ok(mhp_file_read_all(path, 0, &text, &size));
    assert_int_equal(size, 0);
    assert_string_equal(text, "");
    mhp_free(text);
}

static void test_read_all_of_sizes(void **state)
{
    static const size_t sizes[] = {1, 65535, 65536, 65537, 131072, 1000003};
    const char *path = scratch_path("sizes");

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char *data = malloc(sizes[i]), *text = NULL;
        size_t size = 0;

        assert_non_null(data);
        for (size_t at = 0; at < sizes[i]; at++) {
            data[at] = (char)(at * 31 + at / 251);
        }
        scratch_write(path, data, sizes[i]);
        assert_ok(mhp_file_read_all(path, sizes[i], &text, &size));
        assert_int_equal(size, sizes[i]);
        assert_memory_equal(text, data, size);
        mhp_free(text);
        assert_int_equal(mhp_file_read_all(path, sizes[i] - 1, &text, &size), MHP_ERR_LIMIT);
        free(data);
    }
}

static void test_read_errors(void **state)
{
    const char *path = scratch_path("missing");
    char *text = NULL;
    size_t size;
    mhp_map map = {0};

    (void)state;
    assert_failed(mhp_file_read_all(path, 10, &text, &size), MHP_ERR_NOT_FOUND, path, NULL);
    assert_failed(mhp_file_read_all(scratch_folder, 10, &text, &size), MHP_ERR_IO, scratch_folder,
                  "directory", NULL);
    assert_failed(mhp_file_read_all("/dev/zero", 10, &text, &size), MHP_ERR_LIMIT, "/dev/zero",
                  NULL);
    assert_failed(mhp_map_file(path, &map), MHP_ERR_NOT_FOUND, path, NULL);
    assert_failed(mhp_map_file(scratch_folder, &map), MHP_ERR_IO, scratch_folder, NULL);
    assert_failed(mhp_map_file("/dev/null", &map), MHP_ERR_IO, "/dev/null", "regular", NULL);
    assert_null(map.data);
}

static void test_map(void **state)
{
    const char *path = scratch_path("mapped");
    mhp_map map = {0};

    (void)state;
    mhp_unmap(&map);
    scratch_write(path, "bytes", 5);
    assert_ok(mhp_map_file(path, &map));
    assert_int_equal(map.size, 5);
    assert_memory_equal(map.data, "bytes", 5);
    mhp_unmap(&map);
    assert_null(map.data);
    assert_int_equal(map.size, 0);
    scratch_write(path, "", 0);
    assert_ok(mhp_map_file(path, &map));
    assert_non_null(map.data);
    assert_int_equal(map.size, 0);
    mhp_unmap(&map);
}

static void test_mkdirs(void **state)
{
    const char *path = scratch_path("a/b//c/");
    struct stat found;

    (void)state;
    assert_false(mhp_file_exists(path));
    assert_ok(mhp_mkdirs(path));
    assert_int_equal(stat(path, &found), 0);
    assert_true(S_ISDIR(found.st_mode));
    assert_true(mhp_file_exists(path));
    assert_ok(mhp_mkdirs(path));
    assert_ok(mhp_mkdirs("/"));
    assert_failed(mhp_mkdirs(""), MHP_ERR_IO, "make folder", NULL);
}

static void test_mkdirs_through_a_file(void **state)
{
    const char *file = scratch_path("plain"), *path = scratch_path("plain/below/it");

    (void)state;
    scratch_write(file, "x", 1);
    assert_failed(mhp_mkdirs(path), MHP_ERR_IO, file, NULL);
    assert_failed(mhp_mkdirs(file), MHP_ERR_IO, file, "exists", NULL);
    assert_file_holds(file, "x", 1);
    assert_true(mhp_file_exists(file));
    assert_false(mhp_file_exists(path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_atomic),
        cmocka_unit_test(test_old_contents_until_finish),
        cmocka_unit_test(test_abandon),
        cmocka_unit_test(test_failed_finish_leaves_nothing),
        cmocka_unit_test(test_left_over_temporary_is_emptied),
        cmocka_unit_test(test_temporary_that_is_a_link),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_stream_fails),
        cmocka_unit_test(test_stream_with_pwrite),
        cmocka_unit_test(test_stream_to_pipe),
        cmocka_unit_test(test_pwrite),
        cmocka_unit_test(test_pwrite_limits),
        cmocka_unit_test(test_pwrite_error_names_place),
        cmocka_unit_test(test_full_device),
        cmocka_unit_test(test_pipe_is_written_in_place),
        cmocka_unit_test(test_missing_folder),
        cmocka_unit_test(test_read_all),
        cmocka_unit_test(test_read_all_of_sizes),
        cmocka_unit_test(test_read_errors),
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_mkdirs),
        cmocka_unit_test(test_mkdirs_through_a_file),
    };

    return cmocka_run_group_tests(tests, scratch_open, scratch_remove);
}
