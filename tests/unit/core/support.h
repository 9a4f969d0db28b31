/* What the tests of core/ share: cmocka with what it needs, a folder for files, and checks of error
 * texts. */
#ifndef MHP_TESTS_UNIT_CORE_SUPPORT_H
#define MHP_TESTS_UNIT_CORE_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <ftw.h>
#include <unistd.h>

#include "core/status.h"

enum { SCRATCH_PATH_MAX = 4096, COUNT_MAX_OF_PATHS = 8 };

static char scratch_folder[SCRATCH_PATH_MAX / 2];

static inline int scratch_remove_one(const char *path, const struct stat *found, int type,
                                     struct FTW *place)
{
    (void)found;
    (void)type;
    (void)place;
    return remove(path);
}

/* A folder of the group's own, as a group set-up, and its removal. */
static inline int scratch_open(void **state)
{
    const char *parent = getenv("TMPDIR");

    (void)state;
    snprintf(scratch_folder, sizeof scratch_folder, "%s/mhp_test_XXXXXX",
             parent && *parent ? parent : "/tmp");
    return mkdtemp(scratch_folder) ? 0 : -1;
}

static inline int scratch_remove(void **state)
{
    (void)state;
    return nftw(scratch_folder, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* A path in the folder; it lives until COUNT_MAX_OF_PATHS more are asked for. */
static inline const char *scratch_path(const char *name)
{
    static char paths[COUNT_MAX_OF_PATHS][SCRATCH_PATH_MAX];
    static unsigned int next;
    char *path = paths[next++ % COUNT_MAX_OF_PATHS];

    snprintf(path, SCRATCH_PATH_MAX, "%s/%s", scratch_folder, name);
    return path;
}

/* Writes and compares without the functions under test. */
static inline void scratch_write(const char *path, const void *data, size_t bytes)
{
    FILE *stream = fopen(path, "wb");

    assert_non_null(stream);
    assert_int_equal(fwrite(data, 1, bytes, stream), bytes);
    assert_int_equal(fclose(stream), 0);
}

static inline void assert_file_holds(const char *path, const void *data, size_t bytes)
{
    FILE *stream = fopen(path, "rb");
    char *found = malloc(bytes + 1);

    assert_non_null(stream);
    assert_non_null(found);
    assert_int_equal(fread(found, 1, bytes + 1, stream), bytes);
    fclose(stream);
    assert_memory_equal(found, data, bytes);
    free(found);
}

static inline void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part)) {
        fail_msg("\"%s\" holds no \"%s\"", text, part);
    }
}

/* That a call failed in this way, with a text that holds all parts; NULL ends them. */
static inline void assert_failed(mhp_status found, mhp_status expected, ...)
{
    va_list parts;
    const char *part;

    if (found != expected) {
        fail_msg("status %d, expected %d; the text is \"%s\"", found, expected, mhp_error_text());
    }
    va_start(parts, expected);
    while ((part = va_arg(parts, const char *))) {
        assert_contains(mhp_error_text(), part);
    }
    va_end(parts);
}

static inline void assert_ok(mhp_status status)
{
    if (status != MHP_OK) {
        fail_msg("status %d: %s", status, mhp_error_text());
    }
}

#endif
