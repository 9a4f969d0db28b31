/* The trace's file: what is written is read, and whatever else is there is refused with its path and the reason. */
#include "tests/unit/runtime/folder.h"

#include "core/file.h"
#include "core/memory.h"
#include "runtime/profile/trace.h"

enum { SPANS = 40 };

static mhp_trace trace_of(int rank, mhp_trace_span *spans)
{
    for (int i = 0; i < SPANS; i++) {
        spans[i] = (mhp_trace_span){.kind = MHP_TRACE_GROUP,
                                    .pass = MHP_PASS_FORWARD,
                                    .part = MHP_PART_ATTENTION,
                                    .step = i / 20,
                                    .action = i,
                                    .stage = 1,
                                    .microbatch = i % 4,
                                    .slot = -1,
                                    .peer = -1,
                                    .bytes = 7 * i,
                                    .start_ns = 1000 * i,
                                    .end_ns = 1000 * i + 900};
    }
    return (mhp_trace){.rank = rank,
                       .world_size = 2,
                       .pipeline_ranks = 2,
                       .streams = 4,
                       .first_step = 3,
                       .step_count = 2,
                       .before = {100, 200, 5, 50},
                       .after = {90000, 90100, 6, 60},
                       .mark_ns = 123.5,
                       .mark_count = 40,
                       .resolve_ns = 77,
                       .spans = spans,
                       .span_count = SPANS};
}

static void write_both(void)
{
    mhp_trace_span spans[SPANS];

    for (int rank = 0; rank < 2; rank++) {
        mhp_trace trace = trace_of(rank, spans);
        char *path;

        assert_int_equal(mhp_trace_path(test_folder, rank, &path), MHP_OK);
        assert_int_equal(mhp_trace_write(&trace, path), MHP_OK);
        mhp_free(path);
    }
}

static void a_set_is_read_as_it_was_written(void **state)
{
    mhp_trace_set set;
    mhp_trace_span spans[SPANS];
    mhp_trace expected;

    (void)state;
    write_both();
    assert_int_equal(mhp_trace_set_read(test_folder, &set), MHP_OK);
    assert_int_equal(set.count, 2);
    expected = trace_of(1, spans);
    assert_int_equal(set.ranks[1].rank, 1);
    assert_int_equal(set.ranks[1].span_count, SPANS);
    assert_memory_equal(set.ranks[1].spans, spans, sizeof spans);
    assert_memory_equal(&set.ranks[1].before, &expected.before, sizeof expected.before);
    assert_memory_equal(&set.ranks[1].after, &expected.after, sizeof expected.after);
    assert_int_equal(set.ranks[1].first_step, 3);
    assert_true(set.ranks[1].mark_ns == 123.5);
    mhp_trace_set_release(&set);
}

static void expect_refused(mhp_status expected, const char *words)
{
    mhp_trace_set set;
    mhp_status status = mhp_trace_set_read(test_folder, &set);

    if (status != expected || !strstr(mhp_error_text(), words) || !strstr(mhp_error_text(), test_folder)) {
        fail_msg("expected \"%s\", got %d \"%s\"", words, status, mhp_error_text());
    }
    assert_null(strchr(mhp_error_text(), '\n'));
    mhp_trace_set_release(&set);
}

/* Writes rank 1's file anew with some bytes of it another. */
static void damage(size_t keep, size_t offset, unsigned char flip, bool more)
{
    char *path, *bytes;
    size_t size;

    write_both();
    assert_int_equal(mhp_trace_path(test_folder, 1, &path), MHP_OK);
    assert_int_equal(mhp_file_read_all(path, 1 << 20, &bytes, &size), MHP_OK);
    bytes[offset] = (char)(bytes[offset] ^ flip);
    assert_int_equal(mhp_file_write_atomic(path, bytes, keep < size ? keep : more ? size + 1 : size), MHP_OK);
    mhp_free(bytes);
    mhp_free(path);
}

static void damaged_and_foreign_files_are_refused(void **state)
{

    (void)state;
    expect_refused(MHP_ERR_NOT_FOUND, "--profile");
    damage(0, 0, 0, false);
    expect_refused(MHP_ERR_FORMAT, "no trace");
    damage(100, 0, 0, false);
    expect_refused(MHP_ERR_FORMAT, "no trace");
    damage(1000, 0, 0, false);
    expect_refused(MHP_ERR_FORMAT, "cut off");
    damage(SIZE_MAX, 0, 0, true);
    expect_refused(MHP_ERR_FORMAT, "cut off");
    damage(SIZE_MAX, 0, 1, false);
    expect_refused(MHP_ERR_FORMAT, "no trace");
    damage(SIZE_MAX, 8, 2, false);
    expect_refused(MHP_ERR_FORMAT, "version");
    damage(SIZE_MAX, 24, 1, false);
    expect_refused(MHP_ERR_FORMAT, "checksum");
    damage(SIZE_MAX, 1500, 64, false);
    expect_refused(MHP_ERR_FORMAT, "checksum");
    write_both();
    assert_int_equal(truncate(test_path("rank-0001.trace"), (off_t)3 << 30), 0); /* a hole: no disk is used */
    expect_refused(MHP_ERR_FORMAT, "3221225472 bytes");
}

/* With a right checksum, as a program with a mistake would write it. */
static void values_out_of_range_are_refused(void **state)
{
    mhp_trace_span spans[SPANS];

    (void)state;
    for (int i = 0; i < 8; i++) {
        mhp_trace trace = trace_of(1, spans);
        const char *words = "span 7 ";

        switch (i) {
        case 0:
            spans[7].kind = MHP_TRACE_KIND_COUNT;
            break;
        case 1:
            spans[7].part = MHP_PART_COUNT;
            break;
        case 2:
            spans[7].step = 2;
            break;
        case 3:
            spans[7].end_ns = spans[7].start_ns - 1;
            break;
        case 4:
            spans[7].peer = 2;
            break;
        case 5:
            trace.world_size = 3, words = "head";
            break;
        case 6:
            trace.after.local_ns = trace.before.local_ns, words = "head";
            break;
        default:
            trace.first_step = 4, words = "another run";
            break;
        }
        write_both();
        assert_int_equal(mhp_trace_write(&trace, test_path("rank-0001.trace")), MHP_OK);
        expect_refused(MHP_ERR_FORMAT, words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_IN_FOLDER(a_set_is_read_as_it_was_written),
        TEST_IN_FOLDER(damaged_and_foreign_files_are_refused),
        TEST_IN_FOLDER(values_out_of_range_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
