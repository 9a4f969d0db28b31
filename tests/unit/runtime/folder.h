/* A folder of its own for each test, and the files that stand in it. */
#ifndef MHP_TESTS_UNIT_RUNTIME_FOLDER_H
#define MHP_TESTS_UNIT_RUNTIME_FOLDER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <fts.h>

#include "core/status.h"

enum { TEST_PATH_MAX = 512 };

static char test_folder[64];

/* cmocka's setup and teardown of one test. */
static inline int test_folder_make(void **state)
{
    (void)state;
    snprintf(test_folder, sizeof test_folder, "/tmp/mhp-test-XXXXXX");
    return mkdtemp(test_folder) ? 0 : -1;
}

static inline int test_folder_remove(void **state)
{
    char *paths[] = {test_folder, NULL};
    FTS *tree = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    FTSENT *entry;

    (void)state;
    while (tree && (entry = fts_read(tree)) != NULL) {
        if (entry->fts_info != FTS_D) {
            remove(entry->fts_accpath);
        }
    }
    return tree ? fts_close(tree) : -1;
}

/* A path in the folder; valid until the eighth call behind this one. */
static inline char *test_path(const char *name)
{
    static char paths[8][TEST_PATH_MAX];
    static int next;
    char *path = paths[next++ % 8];

    snprintf(path, TEST_PATH_MAX, "%s/%s", test_folder, name);
    return path;
}

static inline void test_write(const char *name, const void *bytes, size_t count)
{
    FILE *file = fopen(test_path(name), "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

static inline void assert_ok(mhp_status status)
{
    if (status != MHP_OK) {
        fail_msg("%s: %s", mhp_status_text(status), mhp_error_text());
    }
}

/* The status, and a part of the text that comes with it. */
static inline void assert_error(mhp_status status, mhp_status expected, const char *part)
{
    if (status != expected || !strstr(mhp_error_text(), part)) {
        fail_msg("%s: %s: expected %s with \"%s\"", mhp_status_text(status), mhp_error_text(),
                 mhp_status_text(expected), part);
    }
}

#define TEST_IN_FOLDER(function) \
    cmocka_unit_test_setup_teardown(function, test_folder_make, test_folder_remove)

#endif
