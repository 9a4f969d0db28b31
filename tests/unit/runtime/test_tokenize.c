/* Text files into tokens: what is taken, in which order, and what is skipped. */
#include <sys/stat.h>

#include "runtime/data/indexed.h"
#include "runtime/data/tokenize.h"
#include "tests/unit/runtime/folder.h"

static void make_folder(const char *name)
{
    assert_int_equal(mkdir(test_path(name), 0700), 0);
}

static void write_text(const char *name, const char *text)
{
    test_write(name, text, strlen(text));
}

/* Tokenizes the path "in", or "in" and a second one, into "out". */
static mhp_status tokenize(const char *second, char *suffix, mhp_tokenize_report *report)
{
    char *paths[] = {test_path("in"), second ? test_path(second) : NULL};
    mhp_tokenize_params params = {.paths = paths,
                                  .path_count = second ? 2 : 1,
                                  .suffixes = &suffix,
                                  .suffix_count = suffix != NULL,
                                  .prefix = test_path("made/out")};

    *report = (mhp_tokenize_report){0};
    return mhp_tokenize(&params, report);
}

/* The output as text, with a '|' for each end of a document. */
static void assert_output(const char *expected)
{
    mhp_indexed *file = NULL;
    mhp_indexed_info info;
    char text[256] = "";

    assert_ok(mhp_indexed_open(test_path("made/out"), &file));
    info = mhp_indexed_describe(file);
    assert_true(info.tokens < sizeof text);
    for (uint64_t i = 0; i < info.tokens; i++) {
        int64_t token = mhp_indexed_token(file, i);

        assert_in_range(token, 0, MHP_BYTE_END_OF_DOCUMENT);
        text[i] = (char)(token == MHP_BYTE_END_OF_DOCUMENT ? '|' : token);
    }
    mhp_indexed_close(file);
    assert_string_equal(text, expected);
}

static void assert_no_output(void)
{
    assert_int_not_equal(access(test_path("made/out.bin"), F_OK), 0);
    assert_int_not_equal(access(test_path("made/out.idx"), F_OK), 0);
    assert_int_not_equal(access(test_path("made/out.bin.tmp"), F_OK), 0);
    assert_int_not_equal(access(test_path("made/out.idx.tmp"), F_OK), 0);
}

static void folders_are_walked_by_name(void **state)
{
    mhp_tokenize_report report;

    (void)state;
    make_folder("in");
    make_folder("in/b");
    write_text("in/c", "see");
    write_text("in/B", "upper");
    write_text("in/b/z", "zed");
    write_text("in/b/a", "\xc3\xa9");
    write_text("in/a", "ay");
    write_text("other", "last");
    assert_ok(tokenize("other", NULL, &report));
    assert_output("upper|ay|\xc3\xa9|zed|see|last|");
    assert_int_equal(report.files, 6);
    assert_int_equal(report.documents, 6);
    assert_int_equal(report.tokens, 25);
}

static void suffixes_filter_folders_alone(void **state)
{
    mhp_tokenize_report report;

    (void)state;
    make_folder("in");
    write_text("in/a.txt", "a");
    write_text("in/b.c", "b");
    write_text("named.c", "n");
    assert_ok(tokenize("named.c", ".txt", &report));
    assert_output("a|n|");
    assert_int_equal(report.files, 3);
    assert_int_equal(report.suffix, 1);
}

static void binary_and_empty_files_are_skipped(void **state)
{
    mhp_tokenize_report report;

    (void)state;
    make_folder("in");
    test_write("in/nul", "text\0text", 9);
    write_text("in/control", "ab\x01\x02\x03");
    write_text("in/latin", "\xe9\xe8\xe7 x");
    write_text("in/few", "one odd byte of many: \xe9");
    write_text("in/none", "");
    write_text("in/text", "t");
    assert_ok(tokenize(NULL, NULL, &report));
    assert_output("one odd byte of many: \xe9|t|");
    assert_int_equal(report.binary, 3);
    assert_int_equal(report.empty, 1);
    assert_int_equal(report.documents, 2);
}

static void links_and_devices(void **state)
{
    mhp_tokenize_report report;

    (void)state;
    make_folder("in");
    make_folder("folder");
    write_text("folder/inside", "f");
    write_text("target", "t");
    assert_int_equal(symlink(test_path("target"), test_path("in/file")), 0);
    assert_int_equal(symlink(test_path("folder"), test_path("in/folder")), 0);
    assert_int_equal(symlink(test_path("nothing"), test_path("in/nothing")), 0);
    assert_int_equal(mkfifo(test_path("in/pipe"), 0600), 0);
    assert_int_equal(symlink(test_path("folder"), test_path("named")), 0);
    assert_ok(tokenize("named", NULL, &report));
    assert_output("t|f|");
    assert_int_equal(report.folder_links, 1);
    assert_int_equal(report.unreadable, 2);
    assert_int_equal(report.documents, 2);
}

/* Root may read everything, so there the files without permission are read like all others. */
static void files_without_permission_are_counted(void **state)
{
    mhp_tokenize_report report;

    (void)state;
    make_folder("in");
    write_text("in/a", "a");
    write_text("in/b", "b");
    assert_int_equal(chmod(test_path("in/b"), 0), 0);
    assert_ok(tokenize(NULL, NULL, &report));
    assert_output(geteuid() == 0 ? "a|b|" : "a|");
    assert_int_equal(report.unreadable, geteuid() != 0);
}

static void errors_leave_nothing(void **state)
{
    mhp_tokenize_report report;

    (void)state;
    make_folder("in");
    write_text("in/none", "");
    assert_error(tokenize(NULL, NULL, &report), MHP_ERR_CONFIG, "1 empty");
    assert_no_output();
    write_text("in/a", "a");
    assert_error(tokenize("missing", NULL, &report), MHP_ERR_NOT_FOUND, test_path("missing"));
    assert_no_output();
    assert_int_equal(mkfifo(test_path("pipe"), 0600), 0);
    assert_error(tokenize("pipe", NULL, &report), MHP_ERR_IO, test_path("pipe"));
    assert_no_output();
}

static void earlier_output_survives_an_error(void **state)
{
    mhp_tokenize_report report;

    (void)state;
    make_folder("in");
    write_text("in/a", "first");
    assert_ok(tokenize(NULL, NULL, &report));
    write_text("in/a", "second");
    assert_error(tokenize("missing", NULL, &report), MHP_ERR_NOT_FOUND, "missing");
    assert_output("first|");
    assert_ok(tokenize(NULL, NULL, &report));
    assert_output("second|");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_IN_FOLDER(folders_are_walked_by_name),
        TEST_IN_FOLDER(suffixes_filter_folders_alone),
        TEST_IN_FOLDER(binary_and_empty_files_are_skipped),
        TEST_IN_FOLDER(links_and_devices),
        TEST_IN_FOLDER(files_without_permission_are_counted),
        TEST_IN_FOLDER(errors_leave_nothing),
        TEST_IN_FOLDER(earlier_output_survives_an_error),
    };

    return cmocka_run_group_tests_name("tokenize", tests, NULL, NULL);
}
