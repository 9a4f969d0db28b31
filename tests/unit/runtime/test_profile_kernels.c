/* A card's records: clocks, intervals, what they say of a step whose answer is known, and their place in a trace's file. */
#include "tests/unit/runtime/folder.h"

#include "core/records.h"
#include "runtime/profile/analyse.h"
#include "tests/unit/runtime/near.h"
#include "tests/unit/runtime/profile_sample.h"

/* ---- the card's clock ---- */

/* Each look takes some nanoseconds, of which the fifth is the shortest; the card's clock is ahead by a million. */
typedef struct fake_clock {
    int64_t now_ns;
    int look;
} fake_clock;

static int64_t local_time(void *context)
{
    fake_clock *fake = context;

    return fake->now_ns;
}

static int64_t card_time(void *context)
{
    fake_clock *fake = context;
    int64_t half_ns = fake->look++ == 4 ? 50 : 1000;
    int64_t card_ns = (fake->now_ns += half_ns) + 1000000;

    fake->now_ns += half_ns;
    return card_ns;
}

static void the_shortest_look_at_the_clocks_counts(void **state)
{
    fake_clock fake = {.now_ns = 7000};
    mhp_card_clock clock = mhp_card_clock_read(local_time, card_time, &fake);

    (void)state;
    assert_int_equal(clock.error_ns, 50);
    assert_int_equal(clock.card_ns - clock.local_ns, 1000000);
    assert_int_equal(clock.local_ns, 7000 + 4 * 2000 + 50);
}

static void times_are_mapped_through_two_readings(void **state)
{
    /* From 1970 to now in nanoseconds, and a drift of 50 ppm over ten seconds. */
    const int64_t card_ns = INT64_C(1763900000000000000), local_ns = INT64_C(86400000000000);
    mhp_card_clock before = {local_ns, card_ns, 100}, after = {local_ns + 10000500000, card_ns + 10000000000, 200};

    (void)state;
    assert_int_equal(mhp_card_clock_map(&before, &after, card_ns), local_ns);
    assert_int_equal(mhp_card_clock_map(&before, &after, card_ns + 10000000000), local_ns + 10000500000);
    assert_int_equal(mhp_card_clock_map(&before, &after, card_ns + 5000000000), local_ns + 5000250000);
    assert_int_equal(mhp_card_clock_map(&before, &after, card_ns - 1000000000), local_ns - 1000050000);
    assert_int_equal(mhp_card_clock_map(&before, &before, card_ns + 42), local_ns + 42);
}

static void names_are_short(void **state)
{
    static const char *const names[][2] = {
        {"void a::b<int, 4>(float*)", "a::b"},
        {"mix_streams(float const*)", "mix_streams"},
        {"void (anonymous namespace)::sinkhorn<16>(int)", "(anonymous_namespace)::sinkhorn"},
        {"nvjet_tst_128x256_64x4_2x1_v_bz_coopA_NNT", "nvjet_tst_128x256_64x4_2x1_v_bz_coopA_NNT"},
        {"quote\"back\\slash\n", "quotebackslash"},
        {"", ""},
    };
    char text[MHP_RECORD_NAME_MAX], longest[300];

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        mhp_record_shorten(names[i][0], text);
        assert_string_equal(text, names[i][1]);
    }
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    mhp_record_shorten(longest, text);
    assert_int_equal(strlen(text), MHP_RECORD_NAME_MAX - 1);
}

/* ---- intervals ---- */

static void intervals_are_merged(void **state)
{
    mhp_interval list[] = {{50, 60}, {10, 20}, {15, 30}, {30, 31}, {40, 40}, {52, 55}, {70, 65}};
    size_t count = mhp_intervals_merge(list, sizeof list / sizeof *list);

    (void)state;
    assert_int_equal(count, 2);
    assert_near(list[0].start_us, 10, "the first one's begin");
    assert_near(list[0].end_us, 31, "the first one's end");
    assert_near(list[1].start_us, 50, "the second one's begin");
    assert_near(list[1].end_us, 60, "the second one's end");
    assert_near(mhp_intervals_length(list, count), 31, "their length");
    assert_int_equal(mhp_intervals_merge(list, 0), 0);
}

static void what_two_lists_share_is_found(void **state)
{
    const mhp_interval left[] = {{0, 10}, {20, 30}, {40, 50}}, right[] = {{5, 25}, {26, 27}, {29, 60}};

    (void)state;
    assert_near(mhp_intervals_common(left, 3, right, 3), 5 + 5 + 1 + 1 + 10, "what both have");
    assert_near(mhp_intervals_common(right, 3, left, 3), 22, "the other way round");
    assert_near(mhp_intervals_common(left, 3, right, 0), 0, "with nothing");
}

static void short_gaps_are_found(void **state)
{
    /* Stretches [0, 100) and [200, 300): gaps of 4 and 6 and 30 and 2; then one kernel into the second stretch, 8 and 10. */
    const mhp_interval kernels[] = {{4, 20}, {26, 50}, {80, 98}, {150, 220}, {228, 290}};
    const mhp_interval stretches[] = {{0, 100}, {200, 300}};

    (void)state;
    assert_near(mhp_intervals_gaps(kernels, 5, stretches, 2, 10), 4 + 6 + 2 + 8, "gaps");
    assert_near(mhp_intervals_gaps(kernels, 5, stretches, 2, 100), 4 + 6 + 30 + 2 + 8 + 10, "all gaps");
    assert_near(mhp_intervals_gaps(kernels, 0, stretches, 2, 10), 0, "gaps without kernels");
    assert_near(mhp_intervals_gaps(kernels + 3, 1, (mhp_interval[]){{140, 160}, {215, 225}}, 2, 20), 10 + 5,
                "a kernel over two stretches");
}

/* ---- a step ---- */

enum { RECORDS_MAX = 32 };

typedef struct sample_records {
    mhp_record items[RECORDS_MAX];
    size_t count;
} sample_records;

static void add_record(sample_records *list, const sample_rank *rank, mhp_record_kind kind, int lane, uint32_t stream,
                       double start_us, double end_us, int64_t bytes)
{
    list->items[list->count++] = (mhp_record){.start_ns = sample_ns(rank, start_us),
                                              .end_ns = sample_ns(rank, end_us),
                                              .bytes = bytes,
                                              .stream = stream,
                                              .name = kind == MHP_RECORD_KERNEL,
                                              .kind = (uint8_t)kind,
                                              .lane = (int8_t)lane};
}

/* Rank 0 works from 100 to 1100 and sends 4096 bytes, which rank 1 has at 1600; it waits for them from 350 on, and works until 3000. */
static void make_step(sample_clock clock, sample_rank *ranks)
{
    ranks[0] = sample_begin(0, 2, 1, 5000, (sample_clock){0, 0});
    ranks[1] = sample_begin(1, 2, 1, 5000, clock);
    sample_step(&ranks[0], 0, 100, 4000);
    sample_wait(&ranks[0], MHP_CAUSE_STATE, 0, 0, 0, 0, 100);
    sample_group(&ranks[0], MHP_PASS_FORWARD, MHP_PART_ATTENTION, 0, 0, 0, 1100);
    sample_step(&ranks[1], 0, 100, 4000);
    sample_group(&ranks[1], MHP_PASS_WEIGHT_GRADIENT, MHP_PART_FEED_FORWARD, 0, 1, 7, 350);
    sample_wait(&ranks[1], MHP_CAUSE_STATE, 1, 1, 0, -1, 1600);
    sample_group(&ranks[1], MHP_PASS_FORWARD, MHP_PART_CONNECTION, 1, 1, 0, 3000);
    sample_message(&ranks[1], MHP_CAUSE_STATE, 1, 0, 0, 4096, 50, 1600);
}

static char names[] = "\0mix";

static void attach(sample_rank *rank, sample_records *records)
{
    rank->trace.kernels = MHP_TRACE_KERNELS_ON;
    rank->trace.records = (mhp_record_list){records->items, records->count, names, sizeof names, 0, 700};
}

/* Rank 0's stretch of compute has gaps of 2 and 4 us, which are launches, and of 40, in which the host was late; the message takes 480 us
 * of a copy engine. Of rank 1 preparation is no compute, nor are the kernel that reads the card's clock and NCCL's; a kernel in the wait
 * is. */
static void fill_records(const sample_rank *ranks, sample_records *of)
{
    add_record(&of[0], &ranks[0], MHP_RECORD_KERNEL, 0, 7, 102, 500, 0);
    add_record(&of[0], &ranks[0], MHP_RECORD_KERNEL, 0, 7, 504, 900, 0);
    add_record(&of[0], &ranks[0], MHP_RECORD_COPY_CARD, 0, 7, 940, 1100, 500);
    add_record(&of[0], &ranks[0], MHP_RECORD_COPY_CARD, -1, 9, 1110, 1590, 4096);
    add_record(&of[0], &ranks[0], MHP_RECORD_COPY_CARD, -1, 12, 1200, 1210, 24);    /* a sum's */
    add_record(&of[0], &ranks[0], MHP_RECORD_KERNEL, 0, 7, 4500, 4600, 0);          /* of no step */
    add_record(&of[1], &ranks[1], MHP_RECORD_SET, 0, 7, 20, 60, 64);
    add_record(&of[1], &ranks[1], MHP_RECORD_COPY_HOST, 0, 7, 60, 90, 1000);
    add_record(&of[1], &ranks[1], MHP_RECORD_KERNEL, 0, 7, 100, 350, 0);
    add_record(&of[1], &ranks[1], MHP_RECORD_STAMP, 0, 7, 352, 354, 0);
    add_record(&of[1], &ranks[1], MHP_RECORD_KERNEL, -1, 13, 400, 1600, 0);
    add_record(&of[1], &ranks[1], MHP_RECORD_KERNEL, 0, 7, 500, 525, 0);
    add_record(&of[1], &ranks[1], MHP_RECORD_KERNEL, 0, 7, 1600, 2500, 0);
    add_record(&of[1], &ranks[1], MHP_RECORD_KERNEL, 2, 8, 2400, 3000, 0);
}

static void check_step(const mhp_analysis *analysis)
{
    const mhp_kernel_figures *first = &analysis->kernels[0], *second = &analysis->kernels[1];

    assert_int_equal(mhp_kernels_recorded(analysis), 2);
    assert_near(first->kernel_count, 2, "rank 0's kernels");
    assert_near(first->kernel_us, 398 + 396, "rank 0's kernel time");
    assert_near(first->gaps_us, 2 + 4, "rank 0's gaps");
    assert_near(first->compute_us, 1000 - 40, "rank 0's compute");
    assert_near(first->copy_us, 160 + 480, "rank 0's copies");
    assert_near(first->copy_bytes, 500 + 4096 + 24, "rank 0's bytes");
    assert_near(100 * mhp_kernels_difference(analysis->mean[0].compute_us, first->compute_us), 4, "rank 0's difference");
    assert_near(second->kernel_us, 250 + 1200 + 1400, "rank 1's kernel time");
    assert_near(second->compute_us, 250 + 25 + 1400, "rank 1's compute");
    assert_near(second->gaps_us, 0, "rank 1's gaps");
    assert_near(second->copy_us, 30, "rank 1's copies");
    assert_null(analysis->messages.unknown);
    assert_int_equal(analysis->messages.mover, MHP_MOVED_BY_COPIES);
    assert_near(analysis->messages.events_us, 500, "messages by events");
    assert_near(analysis->messages.records_us, 480, "messages by records");
}

static void a_step_gives_its_figures_whatever_the_clock(void **state)
{
    static const sample_clock clocks[] = {{0, 0}, {5000, 0}, {-5000, -80e-6}};

    (void)state;
    for (size_t c = 0; c < sizeof clocks / sizeof *clocks; c++) {
        sample_rank ranks[2];
        sample_records records[2] = {{.count = 0}};
        mhp_analysis analysis;
        mhp_trace traces[2];
        mhp_trace_set set = {traces, 2};

        make_step(clocks[c], ranks);
        fill_records(ranks, records);
        for (int r = 0; r < 2; r++) {
            attach(&ranks[r], &records[r]);
            traces[r] = ranks[r].trace;
        }
        assert_int_equal(mhp_analyse(&set, &analysis), MHP_OK);
        check_step(&analysis);
        mhp_analysis_release(&analysis);
        for (int r = 0; r < 2; r++) {
            ranks[r].trace.records = (mhp_record_list){0};
            mhp_trace_release(&ranks[r].trace);
        }
    }
}

/* Half a message on its stream, or none at all: then it was not these copies that carried messages. */
static void copies_that_are_not_the_messages_are_not_compared(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        sample_rank ranks[2];
        sample_records records = {.count = 0};
        mhp_trace traces[2];
        mhp_trace_set set = {traces, 2};
        mhp_analysis analysis;

        make_step((sample_clock){0, 0}, ranks);
        add_record(&records, &ranks[0], i == 0 ? MHP_RECORD_COPY_CARD : MHP_RECORD_COPY_HOST, -1, 9, 1110, 1590,
                   i == 0 ? 2048 : 4096);
        attach(&ranks[0], &records);
        traces[0] = ranks[0].trace;
        traces[1] = ranks[1].trace;
        assert_int_equal(mhp_analyse(&set, &analysis), MHP_OK);
        assert_string_equal(analysis.messages.unknown, "not every rank has its card's records");
        assert_int_equal(mhp_kernels_recorded(&analysis), 1);
        assert_near(analysis.kernels[1].compute_us, 0, "without records");
        mhp_analysis_release(&analysis);
        ranks[0].trace.records = (mhp_record_list){0};
        mhp_trace_release(&ranks[0].trace);
        mhp_trace_release(&ranks[1].trace);
    }
}

/* ---- the trace's file ---- */

static void records_stand_in_the_file(void **state)
{
    sample_rank ranks[2];
    sample_records records[2] = {{.count = 0}};
    mhp_trace read;

    (void)state;
    make_step((sample_clock){0, 0}, ranks);
    fill_records(ranks, records);
    attach(&ranks[0], &records[0]);
    ranks[0].trace.records.lost = 3;
    ranks[1].trace.kernels = MHP_TRACE_KERNELS_OFF;
    snprintf(ranks[1].trace.no_kernels, sizeof ranks[1].trace.no_kernels, "another profiler holds CUPTI");
    assert_int_equal(mhp_trace_write(&ranks[0].trace, test_path("0")), MHP_OK);
    assert_int_equal(mhp_trace_write(&ranks[1].trace, test_path("1")), MHP_OK);
    assert_int_equal(mhp_trace_read(test_path("0"), &read), MHP_OK);
    assert_int_equal(read.kernels, MHP_TRACE_KERNELS_ON);
    assert_int_equal(read.records.count, records[0].count);
    assert_memory_equal(read.records.items, records[0].items, records[0].count * sizeof *records[0].items);
    assert_memory_equal(read.records.names, names, sizeof names);
    assert_int_equal(read.records.lost, 3);
    assert_int_equal(read.records.clock_error_ns, 700);
    mhp_trace_release(&read);
    assert_int_equal(mhp_trace_read(test_path("1"), &read), MHP_OK);
    assert_int_equal(read.kernels, MHP_TRACE_KERNELS_OFF);
    assert_string_equal(read.no_kernels, "another profiler holds CUPTI");
    mhp_trace_release(&read);
    ranks[0].trace.records = (mhp_record_list){0};
    mhp_trace_release(&ranks[0].trace);
    mhp_trace_release(&ranks[1].trace);
}

static void records_out_of_range_are_refused(void **state)
{
    static const char *const words[] = {"record 2 ", "record 2 ", "record 2 ", "record 2 ", "no text", "head", "head"};

    (void)state;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        sample_rank ranks[2];
        sample_records records[2] = {{.count = 0}};
        char own_names[] = "\0mix";
        mhp_trace read;

        make_step((sample_clock){0, 0}, ranks);
        fill_records(ranks, records);
        attach(&ranks[0], &records[0]);
        ranks[0].trace.records.names = own_names;
        records[0].items[2].name = i == 0 ? sizeof names : 0;
        records[0].items[2].kind = i == 1 ? MHP_RECORD_KIND_COUNT : MHP_RECORD_SET;
        records[0].items[2].lane = i == 2 ? MHP_LANE_COUNT : 0;
        records[0].items[2].start_ns -= i == 3 ? 1000000 : 0;
        own_names[2] = i == 4 ? '"' : 'i';
        own_names[0] = i == 5 ? 'x' : '\0';
        ranks[0].trace.kernels = i == 6 ? MHP_TRACE_KERNELS_OFF : MHP_TRACE_KERNELS_ON;
        assert_int_equal(mhp_trace_write(&ranks[0].trace, test_path("0")), MHP_OK);
        assert_int_equal(mhp_trace_read(test_path("0"), &read), MHP_ERR_FORMAT);
        if (!strstr(mhp_error_text(), words[i])) {
            fail_msg("case %zu: %s", i, mhp_error_text());
        }
        mhp_trace_release(&read);
        ranks[0].trace.records = (mhp_record_list){0};
        mhp_trace_release(&ranks[0].trace);
        mhp_trace_release(&ranks[1].trace);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_shortest_look_at_the_clocks_counts),
        cmocka_unit_test(times_are_mapped_through_two_readings),
        cmocka_unit_test(names_are_short),
        cmocka_unit_test(intervals_are_merged),
        cmocka_unit_test(what_two_lists_share_is_found),
        cmocka_unit_test(short_gaps_are_found),
        cmocka_unit_test(a_step_gives_its_figures_whatever_the_clock),
        cmocka_unit_test(copies_that_are_not_the_messages_are_not_compared),
        TEST_IN_FOLDER(records_stand_in_the_file),
        TEST_IN_FOLDER(records_out_of_range_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
