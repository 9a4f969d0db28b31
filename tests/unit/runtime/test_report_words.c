/* The report and docs/profiling.md define the same terms by the same words. */
#include "tests/unit/runtime/folder.h"

#include "core/file.h"
#include "core/memory.h"
#include "runtime/profile/report.h"

enum { PAGE_BYTES_MAX = 1 << 20, ROWS_MAX = 64 };

typedef struct page {
    char *text;
    const char *row[ROWS_MAX]; /* "| term | definition |" without asterisks */
    int count;
} page;

static void drop_asterisks(char *text)
{
    char *to = text;

    for (; *text; text++) {
        if (*text != '*') {
            *to++ = *text;
        }
    }
    *to = '\0';
}

/* The rows of the table in the section Definitions. */
static page read_page(void)
{
    page found = {0};
    char *rest = NULL, *section;
    size_t size;

    assert_ok(mhp_file_read_all(MHP_SOURCE_DIR "/docs/profiling.md", PAGE_BYTES_MAX, &found.text, &size));
    section = strstr(found.text, "## Definitions\n");
    assert_non_null(section);
    for (char *line = strtok_r(section + 2, "\n", &rest); line && strncmp(line, "## ", 3) != 0; line = strtok_r(NULL, "\n", &rest)) {
        if (strncmp(line, "| **", 4) == 0) {
            assert_true(found.count < ROWS_MAX);
            drop_asterisks(line);
            found.row[found.count++] = line;
        }
    }
    return found;
}

static void terms_are_defined_by_the_same_words(void **state)
{
    page found = read_page();
    int count = 0;

    (void)state;
    for (const mhp_definition *definition = mhp_profile_definitions; definition->term; definition++) {
        char row[2048];

        snprintf(row, sizeof row, "| %s | %s |", definition->term, definition->text);
        if (count >= found.count) {
            fail_msg("docs/profiling.md has no row %s", row);
        }
        assert_string_equal(found.row[count++], row);
    }
    assert_int_equal(count, found.count);
    mhp_free(found.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(terms_are_defined_by_the_same_words)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
