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
    expect_refused(MHP_ERR_FORMAT, "is a trace of version 1: expected 3");
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
    for (int i = 0; i < 9; i++) {
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
        case 7:
            trace.identity.low = 1, words = "another run";
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

/* Rank 1's seventh span is what a test makes of it. */
static mhp_status read_with(mhp_trace_span span)
{
    mhp_trace_span spans[SPANS];
    mhp_trace trace = trace_of(1, spans), read;
    mhp_status status;

    span.start_ns = spans[7].start_ns;
    span.end_ns = spans[7].end_ns;
    spans[7] = span;
    assert_int_equal(mhp_trace_write(&trace, test_path("one.trace")), MHP_OK);
    status = mhp_trace_read(test_path("one.trace"), &read);
    mhp_trace_release(&read);
    return status;
}

/* A span as the recorder's callers make it. */
static mhp_trace_span of_kind(mhp_trace_kind kind, mhp_trace_cause cause)
{
    mhp_trace_span span = {.kind = (uint8_t)kind, .cause = (uint8_t)cause, .action = -1, .stage = -1, .microbatch = -1, .slot = -1, .peer = -1};

    if (kind == MHP_TRACE_GROUP || kind == MHP_TRACE_MESSAGE) {
        span.action = 5;
        span.stage = 2;
        span.microbatch = 3;
        span.peer = kind == MHP_TRACE_MESSAGE ? 0 : -1;
    }
    return span;
}

static void every_kind_names_what_it_must(void **state)
{
    mhp_trace_span span;

    (void)state;
    for (int kind = 0; kind < MHP_TRACE_KIND_COUNT; kind++) {
        for (int cause = 0; cause < MHP_CAUSE_COUNT; cause++) {
            bool message = cause <= MHP_CAUSE_GRADIENT;
            bool good = kind == MHP_TRACE_MESSAGE ? message : kind == MHP_TRACE_COLLECTIVE ? !message : true;

            assert_int_equal(read_with(of_kind((mhp_trace_kind)kind, (mhp_trace_cause)cause)), good ? MHP_OK : MHP_ERR_FORMAT);
        }
    }
    for (int i = 0; i < 3; i++) {
        int32_t *named[] = {&span.stage, &span.microbatch, &span.action};

        span = of_kind(MHP_TRACE_GROUP, MHP_CAUSE_STATE);
        *named[i] = -1;
        assert_int_equal(read_with(span), MHP_ERR_FORMAT);
    }
    for (int i = 0; i < 3; i++) {
        int32_t *named[] = {&span.stage, &span.microbatch, &span.peer};

        span = of_kind(MHP_TRACE_MESSAGE, MHP_CAUSE_GRADIENT);
        *named[i] = -1;
        assert_int_equal(read_with(span), MHP_ERR_FORMAT);
    }
    span = of_kind(MHP_TRACE_COLLECTIVE, MHP_CAUSE_REDUCE);
    span.microbatch = 0;
    assert_int_equal(read_with(span), MHP_ERR_FORMAT);
    span = of_kind(MHP_TRACE_WAIT, MHP_CAUSE_STATE);
    span.slot = 0; /* of which stage? */
    assert_int_equal(read_with(span), MHP_ERR_FORMAT);
    span.stage = span.microbatch = 0;
    assert_int_equal(read_with(span), MHP_OK);
}

static void expect_bad_head(const mhp_trace *trace)
{
    mhp_trace read;

    assert_int_equal(mhp_trace_write(trace, test_path("one.trace")), MHP_OK);
    assert_int_equal(mhp_trace_read(test_path("one.trace"), &read), MHP_ERR_FORMAT);
    assert_non_null(strstr(mhp_error_text(), "head"));
    mhp_trace_release(&read);
    assert_int_equal(mhp_trace_read_head(test_path("one.trace"), &read), MHP_ERR_FORMAT);
    mhp_trace_release(&read);
}

/* What is counted over them ends, and their times can be subtracted. */
static void steps_and_times_have_limits(void **state)
{
    mhp_trace_span spans[SPANS];
    mhp_trace trace = trace_of(1, spans);

    (void)state;
    trace.step_count = INT32_MAX;
    expect_bad_head(&trace);
    trace.step_count = SPANS + 1; /* each has a span of its own */
    expect_bad_head(&trace);
    trace = trace_of(1, spans);
    trace.first_step = INT64_MAX;
    expect_bad_head(&trace);
    trace = trace_of(1, spans);
    trace.after.reference_ns = INT64_MAX;
    expect_bad_head(&trace);
    trace = trace_of(1, spans);
    trace.before.reference_ns = 1;
    trace.before.session_ns = INT64_MAX;
    expect_bad_head(&trace);
    trace = trace_of(1, spans);
    spans[7].end_ns = INT64_MAX;
    assert_int_equal(mhp_trace_write(&trace, test_path("one.trace")), MHP_OK);
    assert_int_equal(mhp_trace_read(test_path("one.trace"), &trace), MHP_ERR_FORMAT);
    mhp_trace_release(&trace);
}

static void a_head_is_read_alone(void **state)
{
    mhp_trace_span spans[SPANS];
    mhp_trace trace = trace_of(1, spans), read;

    (void)state;
    trace.identity = (mhp_hash){7, 9};
    assert_int_equal(mhp_trace_write(&trace, test_path("one.trace")), MHP_OK);
    assert_int_equal(mhp_trace_read_head(test_path("one.trace"), &read), MHP_OK);
    assert_true(mhp_hash_equal(read.identity, trace.identity));
    assert_int_equal(read.first_step, 3);
    assert_int_equal(read.step_count, 2);
    assert_int_equal(read.span_count, 0);
    assert_null(read.spans);
    mhp_trace_release(&read);
    assert_int_equal(mhp_trace_read_head(test_path("none.trace"), &read), MHP_ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_IN_FOLDER(a_set_is_read_as_it_was_written),
        TEST_IN_FOLDER(damaged_and_foreign_files_are_refused),
        TEST_IN_FOLDER(values_out_of_range_are_refused),
        TEST_IN_FOLDER(every_kind_names_what_it_must),
        TEST_IN_FOLDER(steps_and_times_have_limits),
        TEST_IN_FOLDER(a_head_is_read_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
