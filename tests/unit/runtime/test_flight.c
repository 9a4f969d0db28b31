/* The recorder's rings, its dumps, and what is read from the dumps of several ranks. */
#include <pthread.h>

#include "runtime/flight.h"
#include "runtime/flight_report.h"
#include "tests/unit/runtime/folder.h"

typedef struct recorder {
    mhp_device *device;
    mhp_stream *stream;
    mhp_event *gate;                /* holds the stream until it is signalled */
    mhp_flight *flight;
} recorder;

static recorder make_recorder(int64_t run, int rank, int size)
{
    mhp_device_params params = {.kind = MHP_DEVICE_CPU, .threads = 1, .queue_items = 8192};
    mhp_flight_identity identity = {.run = run, .rank = rank, .size = size, .pid = 4711, .host = "a \"host\""};
    recorder made = {0};

    assert_ok(mhp_device_open(&params, &made.device));
    assert_ok(mhp_stream_create(made.device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "compute", &made.stream));
    assert_ok(mhp_event_create(made.device, &made.gate));
    assert_ok(mhp_flight_create(made.device, &identity, &made.flight));
    return made;
}

static void drop_recorder(recorder *made)
{
    mhp_flight_destroy(made->flight);
    mhp_event_destroy(made->gate);
    mhp_stream_destroy(made->stream);
    mhp_device_close(made->device);
}

static void add_mark(recorder *to, int kind, int work, int stage, int microbatch, int peer)
{
    mhp_mark mark = {kind, work, stage, microbatch, peer};

    assert_ok(mhp_flight_mark(to->flight, to->stream, &mark));
}


static void place_is_where_the_stream_is(void **state)
{
    recorder made = make_recorder(1, 0, 1);
    mhp_place place;

    (void)state;
    mhp_flight_place(made.flight, &place);
    assert_int_equal(place.section, MHP_SECTION_START);
    assert_int_equal(place.mark.kind, MHP_MARK_NONE);
    mhp_flight_enter(made.flight, MHP_SECTION_STEP, 5);
    add_mark(&made, MHP_MARK_RUN, MHP_WORK_FORWARD, 0, 0, -1);
    add_mark(&made, MHP_MARK_INPUT, MHP_WORK_FORWARD, 0, 1, 3);
    assert_ok(mhp_event_arm(made.gate));
    assert_ok(mhp_stream_wait(made.stream, made.gate));
    add_mark(&made, MHP_MARK_RUN, MHP_WORK_FORWARD, 0, 1, -1);
    do {
        mhp_flight_place(made.flight, &place);
    } while (place.mark.kind != MHP_MARK_INPUT);    /* the stream comes there by itself, and stays */
    assert_int_equal(place.number, 5);
    assert_int_equal(place.mark.microbatch, 1);
    assert_int_equal(place.mark.peer, 3);
    mhp_event_signal(made.gate, MHP_OK);
    assert_ok(mhp_stream_synchronize(made.stream));
    mhp_flight_place(made.flight, &place);
    assert_int_equal(place.mark.kind, MHP_MARK_RUN);
    mhp_flight_enter(made.flight, MHP_SECTION_SAVE, 5);
    mhp_flight_place(made.flight, &place);
    assert_int_equal(place.section, MHP_SECTION_SAVE);
    assert_int_equal(place.mark.kind, MHP_MARK_NONE);       /* of the section before */
    drop_recorder(&made);
}

static mhp_status fail_task(void *native, const void *argument)
{
    (void)native;
    (void)argument;
    return mhp_error_set(MHP_ERR_INTERNAL, "as ordered");
}

static void an_error_freezes_the_place(void **state)
{
    recorder made = make_recorder(1, 0, 1);
    mhp_place place;

    (void)state;
    mhp_flight_enter(made.flight, MHP_SECTION_STEP, 1);
    add_mark(&made, MHP_MARK_RUN, MHP_WORK_FORWARD, 7, 0, -1);
    assert_ok(mhp_stream_synchronize(made.stream));
    mhp_flight_place(made.flight, &place);
    assert_ok(mhp_stream_submit(made.stream, fail_task, "", 1));
    (void)mhp_flight_mark(made.flight, made.stream, &(mhp_mark){MHP_MARK_RUN, MHP_WORK_FORWARD, 8, 0, -1});
    assert_int_equal(mhp_stream_synchronize(made.stream), MHP_ERR_INTERNAL);
    mhp_flight_place(made.flight, &place);
    assert_int_equal(place.mark.stage, 7);
    drop_recorder(&made);
}

static void the_ring_keeps_the_last_marks(void **state)
{
    recorder made = make_recorder(1, 0, 1);
    mhp_place place;

    (void)state;
    for (int i = 0; i < 3 * MHP_FLIGHT_MARKS_MIN + 7; i++) {
        add_mark(&made, MHP_MARK_RUN, MHP_WORK_FORWARD, 0, i, -1);
    }
    assert_ok(mhp_stream_synchronize(made.stream));
    mhp_flight_place(made.flight, &place);
    assert_int_equal(place.mark.microbatch, 3 * MHP_FLIGHT_MARKS_MIN + 6);
    drop_recorder(&made);
}

static void *record_messages(void *context)
{
    for (int i = 0; i < 5000; i++) {
        mhp_flight_message(context, "state of stage 0, rank 0 to 1", i % 2 == 1, MHP_OK);
    }
    return NULL;
}

static void dumps_while_others_record_are_whole(void **state)
{
    recorder made = make_recorder(1, 0, 1);
    mhp_flight_report report = {0};
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, record_messages, made.flight), 0);
    for (int i = 0; i < 20; i++) {
        add_mark(&made, MHP_MARK_RUN, MHP_WORK_REBUILD, 1, i, -1);
        assert_ok(mhp_flight_dump(made.flight, test_path("flight"), "asked for"));
        assert_ok(mhp_flight_report_read(test_folder, &report));
        assert_int_equal(report.found_count, 1);
        mhp_flight_report_release(&report);
    }
    pthread_join(thread, NULL);
    assert_ok(mhp_stream_synchronize(made.stream));
    drop_recorder(&made);
}

/* A dump of a rank that waits for another, or computes if `peer` is -1. */
static void dump_rank(int64_t run, int rank, int size, int peer)
{
    recorder made = make_recorder(run, rank, size);

    mhp_flight_enter(made.flight, MHP_SECTION_STEP, 9);
    add_mark(&made, peer < 0 ? MHP_MARK_RUN : MHP_MARK_INPUT, MHP_WORK_FORWARD, rank, 2, peer);
    mhp_flight_message(made.flight, "state", false, MHP_OK);
    mhp_flight_message(made.flight, "gradient", false, MHP_OK);
    mhp_flight_message(made.flight, "state", true, MHP_OK);
    mhp_flight_message(made.flight, "state", false, MHP_OK);
    assert_ok(mhp_stream_synchronize(made.stream));
    assert_ok(mhp_flight_dump(made.flight, test_path("flight"), "it stood \"still\""));
    drop_recorder(&made);
}

static void a_report_takes_the_newest_run_and_misses_nobody(void **state)
{
    mhp_flight_report report = {0};
    char text[MHP_DIAGNOSIS_TEXT_MAX];

    (void)state;
    assert_int_equal(mhp_flight_report_read(test_folder, &report), MHP_ERR_NOT_FOUND);
    mhp_flight_report_release(&report);
    dump_rank(100, 3, 8, -1);               /* of an earlier run */
    dump_rank(200, 0, 3, 1);
    dump_rank(200, 1, 3, 2);
    assert_ok(mhp_flight_report_read(test_folder, &report));
    assert_int_equal(report.size, 3);
    assert_int_equal(report.found_count, 2);
    assert_string_equal(mhp_flight_report_why(&report), "it stood \"still\"");
    assert_int_equal(report.dumps[0].under_way, 2);
    assert_string_equal(report.dumps[0].oldest, "gradient");
    assert_int_equal(report.ranks[2].state, MHP_RANK_UNKNOWN);
    assert_int_equal(mhp_diagnose(report.ranks, report.size, text), 2);
    assert_non_null(strstr(text, "rank 1 (host a \"host\", pid 4711), which waits for the state of micro-batch 2 for stage 1 from rank 2, "
                                 "of which nothing is known"));
    mhp_flight_report_release(&report);
    dump_rank(200, 2, 3, -1);
    assert_ok(mhp_flight_report_read(test_folder, &report));
    assert_int_equal(mhp_diagnose(report.ranks, report.size, text), 2);
    assert_non_null(strstr(text, "which has been in step 9 in F of stage 2, micro-batch 2"));
    mhp_flight_report_release(&report);
}

static void what_is_no_dump_is_named(void **state)
{
    static const char *const wrong[] = {
        "{", "[]", "{\"run\": 1}", "{\"run\": 1, \"rank\": 2, \"size\": 2, \"pid\": 1, \"host\": \"a\", \"time\": 1, \"why\": \"\"}",
        "{\"run\": 1, \"rank\": 0, \"size\": 2, \"pid\": 1, \"host\": \"a\", \"time\": 1, \"why\": \"\", \"section\": \"dinner\", "
        "\"number\": 1, \"section_s\": 1, \"mark\": {\"kind\": \"run\", \"work\": \"F\", \"stage\": 0, \"microbatch\": 0, \"peer\": 0, "
        "\"for_s\": 1}}"};

    (void)state;
    dump_rank(1, 0, 1, -1);                 /* makes the folder */
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        mhp_flight_report report = {0};

        test_write("flight/rank-00000.json", wrong[i], strlen(wrong[i]));
        assert_int_equal(mhp_flight_report_read(test_folder, &report), MHP_ERR_FORMAT);
        assert_non_null(strstr(mhp_error_text(), "flight/rank-00000.json"));
        mhp_flight_report_release(&report);
    }
}

static void a_folder_that_cannot_be_made_is_an_error(void **state)
{
    recorder made = make_recorder(1, 0, 1);

    (void)state;
    assert_int_equal(mhp_flight_dump(made.flight, test_path("no/such/folder"), "x"), MHP_ERR_IO);
    drop_recorder(&made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(place_is_where_the_stream_is),
        cmocka_unit_test(an_error_freezes_the_place),
        cmocka_unit_test(the_ring_keeps_the_last_marks),
        TEST_IN_FOLDER(dumps_while_others_record_are_whole),
        TEST_IN_FOLDER(a_report_takes_the_newest_run_and_misses_nobody),
        TEST_IN_FOLDER(what_is_no_dump_is_named),
        TEST_IN_FOLDER(a_folder_that_cannot_be_made_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
