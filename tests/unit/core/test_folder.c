/* Folders as a whole, and the hook that lets system calls fail. */
#include "tests/unit/core/support.h"

#include <errno.h>
#include <sys/stat.h>

#include "core/folder.h"

static void test_read(void **state)
{
    const char *path = scratch_path("names");
    mhp_folder_list list;

    (void)state;
    assert_ok(mhp_folder_read(path, &list));
    assert_int_equal(list.count, 0);
    mhp_folder_release(&list);
    assert_ok(mhp_mkdirs(path));
    scratch_write(scratch_path("names/b"), "", 0);
    scratch_write(scratch_path("names/a"), "", 0);
    scratch_write(scratch_path("names/.c"), "", 0);
    assert_ok(mhp_folder_read(path, &list));
    assert_int_equal(list.count, 3);
    assert_string_equal(list.names[0], ".c");
    assert_string_equal(list.names[1], "a");
    assert_string_equal(list.names[2], "b");
    mhp_folder_release(&list);
    assert_null(list.names);
    assert_failed(mhp_folder_read(scratch_path("names/a"), &list), MHP_ERR_IO, "names/a", NULL);
    mhp_folder_release(&list);
}

static void test_rename_and_remove(void **state)
{
    (void)state;
    assert_ok(mhp_mkdirs(scratch_path("tree/inner")));
    scratch_write(scratch_path("tree/inner/file"), "x", 1);
    scratch_write(scratch_path("outside"), "x", 1);
    assert_int_equal(symlink(scratch_path("outside"), scratch_path("tree/link")), 0);
    assert_ok(mhp_folder_rename(scratch_path("tree"), scratch_path("moved")));
    assert_false(mhp_file_exists(scratch_path("tree")));
    assert_file_holds(scratch_path("moved/inner/file"), "x", 1);
    assert_failed(mhp_folder_rename(scratch_path("tree"), scratch_path("moved")), MHP_ERR_IO, "tree", "No such file", NULL);
    assert_ok(mhp_folder_remove(scratch_path("moved")));
    assert_false(mhp_file_exists(scratch_path("moved")));
    assert_true(mhp_file_exists(scratch_path("outside")));
    assert_ok(mhp_folder_remove(scratch_path("moved")));
}

/* Fails the calls of one kind. */
static int fail_call(void *context, mhp_file_call call, const char *path, size_t *bytes)
{
    (void)path;
    (void)bytes;
    return call == *(mhp_file_call *)context ? ENOSPC : 0;
}

static int shorten(void *context, mhp_file_call call, const char *path, size_t *bytes)
{
    (void)path;
    if (call == MHP_FILE_WRITE) {
        *bytes = *bytes > 3 ? 3 : *bytes;
        ++*(int *)context;
    }
    return 0;
}

static void test_failing_calls_keep_the_old_file(void **state)
{
    static const mhp_file_call calls[] = {MHP_FILE_OPEN, MHP_FILE_WRITE, MHP_FILE_SYNC, MHP_FILE_CLOSE, MHP_FILE_RENAME};
    const char *path = scratch_path("kept");

    (void)state;
    scratch_write(path, "old", 3);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        mhp_file_call call = calls[i];

        mhp_file_set_fault(fail_call, &call);
        assert_failed(mhp_file_write_atomic(path, "new", 3), MHP_ERR_IO, path, "No space", NULL);
        mhp_file_set_fault(NULL, NULL);
        assert_file_holds(path, "old", 3);
        assert_false(mhp_file_exists(scratch_path("kept.tmp")));
    }
}

static void test_short_writes_are_carried_on(void **state)
{
    const char *path = scratch_path("short");
    int writes = 0;

    (void)state;
    mhp_file_set_fault(shorten, &writes);
    assert_ok(mhp_file_write_atomic(path, "ten bytes!", 10));
    mhp_file_set_fault(NULL, NULL);
    assert_file_holds(path, "ten bytes!", 10);
    assert_int_equal(writes, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_rename_and_remove),
        cmocka_unit_test(test_failing_calls_keep_the_old_file),
        cmocka_unit_test(test_short_writes_are_carried_on),
    };

    return cmocka_run_group_tests(tests, scratch_open, scratch_remove);
}
