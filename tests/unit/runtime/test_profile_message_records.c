/* Messages by the records of NCCL's kernels, of steps whose answer is known; and what is not compared. */
#include "tests/unit/runtime/folder.h"

#include "runtime/profile/analyse.h"
#include "tests/unit/runtime/near.h"
#include "tests/unit/runtime/profile_sample.h"

enum { RANKS = 2, STEPS = 2, STEP_US = 9000, RECORDS_MAX = 64, BYTES = 4096 };
enum { STATES = 41, GRADIENTS_IN = 42, GRADIENTS_OUT = 44, REDUCTIONS = 32 }; /* streams; numbers are a rank's own */

#define SEND_RECEIVE_NAME "ncclDevKernel_SendRecv"
#define ALL_REDUCE_NAME   "ncclDevKernel_AllReduce_Sum_f64_RING_LL"

static char names[] = "\0" SEND_RECEIVE_NAME "\0" ALL_REDUCE_NAME "\0mix";
enum {
    SEND_RECEIVE = 1,
    ALL_REDUCE = SEND_RECEIVE + sizeof SEND_RECEIVE_NAME,
    MIX = ALL_REDUCE + sizeof ALL_REDUCE_NAME,
};

typedef struct sample_run {
    sample_rank ranks[RANKS];
    mhp_record records[RANKS][RECORDS_MAX];
    size_t counts[RANKS];
} sample_run;

static void add_kernel(sample_run *run, int rank, uint32_t name, uint32_t stream, double start_us, double end_us)
{
    assert_true(run->counts[rank] < RECORDS_MAX);
    run->records[rank][run->counts[rank]++] = (mhp_record){.start_ns = sample_ns(&run->ranks[rank], start_us),
                                                           .end_ns = sample_ns(&run->ranks[rank], end_us),
                                                           .stream = stream,
                                                           .name = name,
                                                           .kind = MHP_RECORD_KERNEL,
                                                           .lane = name == MIX ? 0 : -1};
}

static void add_passing(sample_run *run, int rank, uint32_t stream, double start_us, double end_us)
{
    add_kernel(run, rank, SEND_RECEIVE, stream, start_us, end_us);
}

/* Rank 0 makes two states, at 1100 and 1500, and rank 1 two gradients, at 4000 and 6000. */
static void add_spans(sample_run *run, double at_us)
{
    sample_rank *first = &run->ranks[0], *second = &run->ranks[1];

    sample_step(first, at_us, at_us + 100, at_us + 8000);
    sample_group(first, MHP_PASS_FORWARD, MHP_PART_ATTENTION, 0, 0, 0, at_us + 1100);
    sample_group(first, MHP_PASS_FORWARD, MHP_PART_ATTENTION, 1, 0, 1, at_us + 1500);
    sample_wait(first, MHP_CAUSE_GRADIENT, 2, 0, 0, -1, at_us + 4810);
    sample_group(first, MHP_PASS_INPUT_GRADIENT, MHP_PART_ATTENTION, 2, 0, 0, at_us + 5000);
    sample_wait(first, MHP_CAUSE_GRADIENT, 3, 0, 1, -1, at_us + 6520);
    sample_group(first, MHP_PASS_INPUT_GRADIENT, MHP_PART_ATTENTION, 3, 0, 1, at_us + 7000);
    sample_message(first, MHP_CAUSE_GRADIENT, 0, 0, 1, BYTES, at_us + 4300, at_us + 4810);
    sample_message(first, MHP_CAUSE_GRADIENT, 0, 1, 1, BYTES, at_us + 4301, at_us + 6520);
    first->step++;
    sample_step(second, at_us, at_us + 100, at_us + 8000);
    sample_wait(second, MHP_CAUSE_STATE, 0, 1, 0, -1, at_us + 1630);
    sample_group(second, MHP_PASS_FORWARD, MHP_PART_ATTENTION, 0, 1, 0, at_us + 2500);
    sample_group(second, MHP_PASS_FORWARD, MHP_PART_ATTENTION, 1, 1, 1, at_us + 3500);
    sample_group(second, MHP_PASS_INPUT_GRADIENT, MHP_PART_ATTENTION, 2, 1, 0, at_us + 4000);
    sample_group(second, MHP_PASS_INPUT_GRADIENT, MHP_PART_ATTENTION, 3, 1, 1, at_us + 6000);
    sample_message(second, MHP_CAUSE_STATE, 1, 0, 0, BYTES, at_us + 140, at_us + 1630);
    sample_message(second, MHP_CAUSE_STATE, 1, 1, 0, BYTES, at_us + 145, at_us + 2140);
    second->step++;
}

static const double events_us = (1630 - 1100) + (2140 - 1630) + (4810 - 4300) + (6520 - 6000);
static const double records_us = (1620 - 1110) + (2130 - 1625) + (4800 - 4305) + (6510 - 6012);

/* The first state finds its receiver there; the second one is made meanwhile, and follows. The first gradient's receive is posted
 * late, when all of it has left its sender; the second one's is there. A sum is among them. */
static void add_records(sample_run *run, double at_us)
{
    for (int rank = 0; rank < RANKS; rank++) {
        add_kernel(run, rank, MIX, 7, at_us + 110, at_us + 1100);
        add_kernel(run, rank, ALL_REDUCE, REDUCTIONS, at_us + 7100, at_us + 7200);
    }
    add_passing(run, 0, STATES, at_us + 1110, at_us + 1600);
    add_passing(run, 1, STATES, at_us + 150, at_us + 1620);
    add_passing(run, 0, STATES, at_us + 1603, at_us + 2100);
    add_passing(run, 1, STATES, at_us + 1625, at_us + 2130);
    add_passing(run, 1, GRADIENTS_OUT, at_us + 4010, at_us + 4200);
    add_passing(run, 0, GRADIENTS_IN, at_us + 4305, at_us + 4800);
    add_passing(run, 1, GRADIENTS_OUT, at_us + 6012, at_us + 6500);
    add_passing(run, 0, GRADIENTS_IN, at_us + 4815, at_us + 6510);
}

static void begin(sample_run *run, sample_clock clock)
{
    *run = (sample_run){.counts = {0}};
    for (int rank = 0; rank < RANKS; rank++) {
        run->ranks[rank] = sample_begin(rank, RANKS, STEPS, STEPS * STEP_US, rank > 0 ? clock : (sample_clock){0, 0});
    }
    for (int step = 0; step < STEPS; step++) {
        add_spans(run, step * STEP_US);
        add_records(run, step * STEP_US);
    }
    for (int rank = 0; rank < RANKS; rank++) { /* between steps, as a checkpoint's */
        add_passing(run, rank, REDUCTIONS, 8100, 8200);
        run->ranks[rank].trace.kernels = MHP_TRACE_KERNELS_ON;
    }
}

static mhp_message_records read_and_end(sample_run *run)
{
    mhp_trace traces[RANKS];
    mhp_trace_set set = {traces, RANKS};
    mhp_message_records messages;
    mhp_analysis analysis;

    for (int rank = 0; rank < RANKS; rank++) {
        mhp_record_list *list = &run->ranks[rank].trace.records;

        *list = (mhp_record_list){run->records[rank], run->counts[rank], names, sizeof names, list->lost, 0};
        traces[rank] = run->ranks[rank].trace;
    }
    assert_int_equal(mhp_analyse(&set, &analysis), MHP_OK);
    messages = analysis.messages;
    mhp_analysis_release(&analysis);
    for (int rank = 0; rank < RANKS; rank++) {
        run->ranks[rank].trace.records = (mhp_record_list){0};
        mhp_trace_release(&run->ranks[rank].trace);
    }
    return messages;
}

static void assert_unknown(sample_run *run, const char *words)
{
    mhp_message_records messages = read_and_end(run);

    if (!messages.unknown || !strstr(messages.unknown, words)) {
        fail_msg("%s: expected %s", messages.unknown ? messages.unknown : "known", words);
    }
}

static mhp_record *find_record(sample_run *run, int rank, uint32_t stream, int which)
{
    for (size_t i = 0; i < run->counts[rank]; i++) {
        mhp_record *record = &run->records[rank][i];

        if (record->stream == stream && record->name == SEND_RECEIVE && which-- == 0) {
            return record;
        }
    }
    fail_msg("no record of stream %u", stream);
    return NULL;
}

static void move_record(mhp_record *record, int64_t by_us)
{
    record->start_ns += 1000 * by_us;
    record->end_ns += 1000 * by_us;
}

/* ---- known ---- */

static void messages_take_from_the_later_begin_to_the_receivers_end(void **state)
{
    static const sample_clock clocks[] = {{0, 0}, {5000, 0}, {-700000, -80e-6}};

    (void)state;
    for (size_t c = 0; c < sizeof clocks / sizeof *clocks; c++) {
        sample_run run;
        mhp_message_records messages;

        begin(&run, clocks[c]);
        messages = read_and_end(&run);
        if (messages.unknown) {
            fail_msg("clock %zu: %s", c, messages.unknown);
        }
        assert_int_equal(messages.mover, MHP_MOVED_BY_NCCL);
        assert_string_equal(mhp_message_mover_text(messages.mover), "NCCL kernels");
        assert_near(messages.events_us, events_us, "messages by events");
        assert_near(messages.records_us, records_us, "messages by records");
    }
}

/* What events say moves nothing in what records say, as long as they tell streams apart. */
static void lengths_are_of_records_alone(void **state)
{
    sample_run run;
    mhp_message_records messages;

    (void)state;
    begin(&run, (sample_clock){0, 0});
    for (size_t i = 0; i < run.ranks[1].trace.span_count; i++) {
        mhp_trace_span *span = &run.ranks[1].trace.spans[i];

        span->end_ns += span->kind == MHP_TRACE_MESSAGE ? 100000 : 0;
    }
    messages = read_and_end(&run);
    assert_null(messages.unknown);
    assert_near(messages.events_us, events_us + 100, "messages by events"); /* the second state's begin moves as well */
    assert_near(messages.records_us, records_us, "messages by records");
}

/* ---- not known ---- */

static void a_missing_record_is_not_guessed(void **state)
{
    sample_run run;

    (void)state;
    begin(&run, (sample_clock){0, 0});
    *find_record(&run, 1, STATES, 1) = run.records[1][--run.counts[1]];
    assert_unknown(&run, "not two kernels");
    begin(&run, (sample_clock){0, 0});      /* of another channel there is one more: all together are as many as must be */
    find_record(&run, 1, STATES, 1)->stream = GRADIENTS_OUT;
    assert_unknown(&run, "not clear");
    begin(&run, (sample_clock){0, 0});
    run.ranks[0].trace.records.lost = 1;
    assert_unknown(&run, "lost");
    begin(&run, (sample_clock){0, 0});
    run.ranks[0].trace.kernels = MHP_TRACE_KERNELS_OFF;
    run.counts[0] = 0;
    assert_unknown(&run, "not every rank");
}

static void other_kernels_are_no_messages(void **state)
{
    sample_run run;

    (void)state;
    begin(&run, (sample_clock){0, 0});
    for (int rank = 0; rank < RANKS; rank++) {
        for (size_t i = 0; i < run.counts[rank]; i++) {
            run.records[rank][i].name = run.records[rank][i].name == SEND_RECEIVE ? ALL_REDUCE : MIX;
        }
    }
    assert_unknown(&run, "neither");
    begin(&run, (sample_clock){0, 0});
    add_passing(&run, 0, REDUCTIONS, 7300, 7400);
    add_passing(&run, 1, REDUCTIONS, 7300, 7400);
    assert_unknown(&run, "not two kernels");
}

static void slices_are_not_compared(void **state)
{
    sample_run run;

    (void)state;
    begin(&run, (sample_clock){0, 0});
    for (int rank = 0; rank < RANKS; rank++) {
        for (size_t i = 0, count = run.counts[rank]; i < count; i++) {
            mhp_record *slice = &run.records[rank][run.counts[rank]];

            if (run.records[rank][i].name == SEND_RECEIVE) {
                *slice = run.records[rank][i];
                slice->start_ns = run.records[rank][i].end_ns = (slice->start_ns + slice->end_ns) / 2;
                run.counts[rank]++;
            }
        }
    }
    assert_unknown(&run, "slices");
}

/* Two streams of a rank whose kernels stand beside each other: either may be the channel's. */
static void streams_that_are_alike_are_not_guessed(void **state)
{
    (void)state;
    for (int case_ = 0; case_ < 2; case_++) {
        sample_run run;
        int rank = case_, alike = case_ == 0 ? GRADIENTS_IN : GRADIENTS_OUT;

        begin(&run, (sample_clock){0, 0});
        for (int i = 0; i < 2 * STEPS; i++) {
            mhp_record *record = find_record(&run, rank, (uint32_t)alike, i);

            record->start_ns = find_record(&run, rank, STATES, i)->start_ns + 2000;
            record->end_ns = find_record(&run, rank, STATES, i)->end_ns + 2000;
        }
        assert_unknown(&run, "not clear");
    }
}

/* A stream's kernels are late by so much that those of another channel are nearer. */
static void a_stream_is_one_channels(void **state)
{
    sample_run run;
    mhp_trace *trace = &run.ranks[1].trace;

    (void)state;
    begin(&run, (sample_clock){0, 0});
    for (size_t i = 0; i < trace->span_count; i++) {
        if (trace->spans[i].kind == MHP_TRACE_STEP && trace->spans[i].step == STEPS - 1) {
            trace->spans[i].end_ns += 200000000;
        }
    }
    for (int i = 0; i < 2; i++) {
        move_record(find_record(&run, 1, STATES, 2 * (STEPS - 1) + i), 100000);
    }
    assert_unknown(&run, "not clear");
}

static void kernels_that_miss_each_other_are_no_message(void **state)
{
    sample_run run;

    (void)state;
    begin(&run, (sample_clock){0, 0});
    move_record(find_record(&run, 0, STATES, 1), 600); /* begins when the receiver's has ended */
    assert_unknown(&run, "ends before");
}

static void without_messages_there_is_nothing_to_compare(void **state)
{
    sample_run run;

    (void)state;
    begin(&run, (sample_clock){0, 0});
    for (int rank = 0; rank < RANKS; rank++) {
        mhp_trace *trace = &run.ranks[rank].trace;
        size_t kept = 0;

        for (size_t i = 0; i < trace->span_count; i++) {
            if (trace->spans[i].kind != MHP_TRACE_MESSAGE) {
                trace->spans[kept++] = trace->spans[i];
            }
        }
        trace->span_count = kept;
    }
    assert_unknown(&run, "no messages");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_take_from_the_later_begin_to_the_receivers_end),
        cmocka_unit_test(lengths_are_of_records_alone),
        cmocka_unit_test(a_missing_record_is_not_guessed),
        cmocka_unit_test(other_kernels_are_no_messages),
        cmocka_unit_test(slices_are_not_compared),
        cmocka_unit_test(streams_that_are_alike_are_not_guessed),
        cmocka_unit_test(a_stream_is_one_channels),
        cmocka_unit_test(kernels_that_miss_each_other_are_no_message),
        cmocka_unit_test(without_messages_there_is_nothing_to_compare),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
