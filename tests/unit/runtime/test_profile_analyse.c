/* Figures of traces whose answers are known: by hand, with clocks that are off, and of simulated plans, whose figures
 * the simulator has. */
#include "tests/unit/runtime/folder.h"

#include "runtime/profile/measured.h"
#include "scheduler/generator.h"
#include "scheduler/lower.h"
#include "tests/unit/runtime/near.h"
#include "tests/unit/runtime/profile_sample.h"

enum { SECOND_US = 1000000 };

static void assert_adds_up(const mhp_rank_figures *figures)
{
    assert_near(figures->compute_us + figures->exposed_us + figures->bubble_us + figures->other_us, figures->step_us,
                "the sum");
}

/* Rank 0 makes a state from 100 to 1100; rank 1 works on something else until `busy_us`, and from `go_us` on with the
 * state, which arrives at `arrived_us`. */
typedef struct case_of_two {
    const char *name;
    double busy_us, arrived_us, go_us;
    double transfer_us, hidden_us, exposed_us, bubble_us,
        other_us; /* expected of rank 1; other without head and tail */
} case_of_two;

static const case_of_two cases[] = {
    {"fully hidden", 2000, 1600, 2000, 500, 500, 0, 0, 0},
    {"fully exposed", 100, 1600, 1600, 500, 0, 500, 1000, 0},
    {"half", 1350, 1600, 1600, 500, 250, 250, 0, 0},
    {"waiting only", 100, 1100, 1100, 0, 0, 0, 1000, 0},
    {"late to wake up", 1100, 1600, 1675, 500, 0, 500, 0, 75},
    {"there already, but late all the same", 1700, 1600, 1725, 500, 500, 0, 0, 25},
};

static void make_two(const case_of_two *one, sample_clock clock, sample_rank *ranks)
{
    ranks[0] = sample_begin(0, 2, 1, 5000, (sample_clock){0, 0});
    ranks[1] = sample_begin(1, 2, 1, 5000, clock);
    sample_step(&ranks[0], 0, 100, 4000);
    sample_wait(&ranks[0], MHP_CAUSE_STATE, 0, 0, 0, 0, 100);
    sample_group(&ranks[0], MHP_PASS_FORWARD, MHP_PART_ATTENTION, 0, 0, 0, 1100);
    sample_step(&ranks[1], 0, 100, 4000);
    sample_group(&ranks[1], MHP_PASS_WEIGHT_GRADIENT, MHP_PART_FEED_FORWARD, 0, 1, 7, one->busy_us);
    sample_wait(&ranks[1], MHP_CAUSE_STATE, 1, 1, 0, -1, one->go_us);
    sample_group(&ranks[1], MHP_PASS_FORWARD, MHP_PART_CONNECTION, 1, 1, 0, 3000);
    sample_message(&ranks[1], MHP_CAUSE_STATE, 1, 0, 0, 4096, 50, one->arrived_us);
}

static void release(sample_rank *ranks, int count)
{
    for (int i = 0; i < count; i++) {
        mhp_trace_release(&ranks[i].trace);
    }
}

static void check_two(const case_of_two *one, sample_clock clock)
{
    sample_rank ranks[2];
    mhp_trace traces[2];
    mhp_trace_set set = {traces, 2};
    mhp_analysis analysis;
    const mhp_rank_figures *figures;

    make_two(one, clock, ranks);
    traces[0] = ranks[0].trace;
    traces[1] = ranks[1].trace;
    assert_ok(mhp_analyse(&set, &analysis));
    figures = &analysis.mean[1];
    assert_near(mhp_figures_transfer_us(figures), one->transfer_us, one->name);
    assert_near(figures->hidden_us[MHP_CAUSE_STATE], one->hidden_us, one->name);
    assert_near(figures->exposed_us, one->exposed_us, one->name);
    assert_near(figures->bubble_us, one->bubble_us, one->name);
    assert_near(figures->other_us, 100 + 1000 + one->other_us, one->name);
    assert_near(figures->compute_us, one->busy_us - 100 + 3000 - one->go_us, one->name);
    if (one->transfer_us > 0) {
        assert_near(mhp_figures_hidden_share(figures), one->hidden_us / one->transfer_us, one->name);
    } else {
        assert_true(isnan(mhp_figures_hidden_share(figures)));
    }
    assert_true(isnan(mhp_figures_hidden_share(&analysis.mean[0]))); /* rank 0 receives nothing */
    assert_near(analysis.mean[0].compute_us, 1000, one->name);
    assert_near(analysis.mean[0].waited_for_us, one->bubble_us, one->name);
    assert_int_equal(analysis.ranking[0], one->bubble_us > 0 ? 0 : analysis.ranking[0]);
    assert_near(analysis.steps[0].path_figures.length_us, analysis.steps[0].timeline.end_us, "the path");
    assert_adds_up(&analysis.mean[0]);
    assert_adds_up(&analysis.mean[1]);
    assert_near(analysis.clocks.drift_ppm, clock.drift * 1e6, "the drift");
    assert_near(analysis.clocks.error_us, 4, "the error");
    assert_int_equal(analysis.clocks.clamped_count, 0);
    mhp_analysis_release(&analysis);
    release(ranks, 2);
}

static void known_cases_give_exactly_their_figures(void **state)
{
    static const sample_clock clocks[] = {{0, 0}, {5000, 0}, {-5000, 0}, {5000, 80e-6}, {-5000, -80e-6}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t c = 0; c < sizeof clocks / sizeof *clocks; c++) {
            check_two(&cases[i], clocks[c]);
        }
    }
}

/* Rank 1 has 10 marks a step, and a message, which counts as two. */
static void recording_costs_marks_and_transfers(void **state)
{
    sample_rank ranks[2];
    mhp_trace traces[2];
    mhp_trace_set set = {traces, 2};
    mhp_analysis analysis;

    (void)state;
    make_two(&cases[0], (sample_clock){0, 0}, ranks);
    traces[0] = ranks[0].trace;
    traces[1] = ranks[1].trace;
    traces[1].mark_ns = 4000;
    traces[1].mark_count = 10;
    assert_ok(mhp_analyse(&set, &analysis));
    assert_near(analysis.mean_step_us, 4000, "the step");
    assert_near(100 * analysis.marks_share, 1, "the marks' share");
    assert_near(100 * analysis.transfers_share, 0.2, "the transfers' share");
    assert_int_equal(analysis.transfers_a_step, 1);
    mhp_analysis_release(&analysis);
    release(ranks, 2);
}

static void add_beside(sample_rank *rank, mhp_lane lane, int microbatch, double start_us, double end_us)
{
    mhp_trace_span span = sample_span(MHP_TRACE_GROUP, 1, microbatch);

    span.lane = lane;
    span.part = MHP_PART_CONNECTION;
    span.action = 1;
    sample_add(rank, span, start_us, end_us);
}

static void add_lane_wait(sample_rank *rank, mhp_lane lane, double start_us, double end_us)
{
    mhp_trace_span span = sample_span(MHP_TRACE_WAIT, -1, -1);

    span.lane = lane;
    span.action = 1;
    sample_add(rank, span, start_us, end_us);
}

/* Rank 1's compute works until 1100 and waits for the state until 1600 and for its lanes from 3000 to 3500. Beside it lanes work from
 * 500 to 700, which compute hides, from 1000 to 1200 and 1150 to 1250, from 1500 to 1700, and from 3100 to 3600; what
 * they wait for in between is nothing that was done. */
static void what_lanes_do_while_compute_waits_is_compute(void **state)
{
    static const double edges[][2] = {{100, 1100}, {1100, 1200}, {1200, 1250}, {1250, 1500}, {1500, 1600},
                                      {1600, 3000}, {3000, 3100}, {3100, 3500}, {3500, 3700}};
    sample_rank ranks[2];
    mhp_trace traces[2];
    mhp_trace_set set = {traces, 2};
    mhp_analysis analysis;
    const mhp_timed_rank *timed;

    (void)state;
    make_two(&cases[4], (sample_clock){0, 0}, ranks);      /* busy until 1100; the state comes at 1600 */
    ranks[1].trace.span_count = 2;
    ranks[1].last_us = 100;
    sample_group(&ranks[1], MHP_PASS_WEIGHT_GRADIENT, MHP_PART_FEED_FORWARD, 0, 1, 7, 1100);
    sample_wait(&ranks[1], MHP_CAUSE_STATE, 1, 1, 0, -1, 1600);
    sample_group(&ranks[1], MHP_PASS_FORWARD, MHP_PART_CONNECTION, 1, 1, 0, 3000);
    sample_wait(&ranks[1], MHP_CAUSE_GRADIENT, 1, -1, -1, -1, 3500);
    sample_group(&ranks[1], MHP_PASS_FORWARD, MHP_PART_CONNECTION, 1, 1, 0, 3700);
    add_beside(&ranks[1], MHP_LANE_GRADIENT, 3, 1150, 1250);
    add_beside(&ranks[1], MHP_LANE_STATE, 4, 500, 700);
    add_beside(&ranks[1], MHP_LANE_STATE, 5, 1000, 1200);
    add_lane_wait(&ranks[1], MHP_LANE_PARTNER, 100, 1500);
    add_beside(&ranks[1], MHP_LANE_PARTNER, 6, 1500, 1700);
    add_lane_wait(&ranks[1], MHP_LANE_PARTNER, 1700, 3100);
    add_beside(&ranks[1], MHP_LANE_PARTNER, 7, 3100, 3600);
    sample_message(&ranks[1], MHP_CAUSE_STATE, 1, 0, 0, 4096, 50, 1600);
    traces[0] = ranks[0].trace;
    traces[1] = ranks[1].trace;
    assert_ok(mhp_analyse(&set, &analysis));
    timed = &analysis.steps[0].timeline.ranks[1];
    assert_int_equal(timed->beside_count, 5);
    assert_int_equal(timed->span_count, 1 + sizeof edges / sizeof *edges);
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        assert_near(timed->spans[i + 1].start_us, edges[i][0], "a piece's begin");
        assert_near(timed->spans[i + 1].end_us, edges[i][1], "a piece's end");
    }
    assert_near(analysis.mean[1].compute_us, 3600 - 250 - 100, "compute");
    assert_near(analysis.mean[1].exposed_us, 250, "exposed");       /* the state moves from 1100 to 1600 */
    assert_near(analysis.mean[1].other_us, 100 + 300 + 100, "other");
    assert_adds_up(&analysis.mean[1]);
    mhp_analysis_release(&analysis);
    release(ranks, 2);
}

/* Where the path goes: backwards from the end of rank 1 over the message to rank 0, if it waited. */
static void the_critical_path_follows_what_was_awaited(void **state)
{
    sample_rank ranks[2];
    mhp_trace traces[2];
    mhp_trace_set set = {traces, 2};
    mhp_analysis analysis;
    const mhp_path_figures *path;

    (void)state;
    make_two(&cases[1], (sample_clock){5000, 0}, ranks);
    traces[0] = ranks[0].trace;
    traces[1] = ranks[1].trace;
    assert_ok(mhp_analyse(&set, &analysis));
    path = &analysis.mean_path;
    assert_near(path->group_us[MHP_PASS_FORWARD][MHP_PART_ATTENTION], 1000, "rank 0's forward");
    assert_near(path->transfer_us[MHP_CAUSE_STATE], 500, "the state");
    assert_near(path->group_us[MHP_PASS_FORWARD][MHP_PART_CONNECTION], 1400, "rank 1's forward");
    assert_near(path->other_us, 100 + 1000, "head and tail");
    assert_near(analysis.mean[0].path_us, 1000, "rank 0's part");
    assert_near(analysis.mean[1].path_us, 1400, "rank 1's part");
    mhp_analysis_release(&analysis);
    release(ranks, 2);
}

/* As on a card whose clock is mapped a little early. */
static void the_path_is_the_step_where_a_stream_seems_to_begin_before_it(void **state)
{
    sample_rank ranks[2];
    mhp_trace traces[2];
    mhp_trace_set set = {traces, 2};
    mhp_analysis analysis;

    (void)state;
    make_two(&cases[1], (sample_clock){0, 0}, ranks);
    ranks[0].trace.spans[1].start_ns = sample_ns(&ranks[0], -3);
    traces[0] = ranks[0].trace;
    traces[1] = ranks[1].trace;
    assert_ok(mhp_analyse(&set, &analysis));
    assert_near(analysis.steps[0].timeline.ranks[0].spans[0].start_us, -3, "the first span");
    assert_near(analysis.mean_path.length_us, analysis.mean_step_us, "the path");
    assert_near(analysis.steps[0].path[0].start_us, 0, "its begin");
    assert_near(analysis.mean_path.other_us, 100 + 1000, "head and tail");
    mhp_analysis_release(&analysis);
    release(ranks, 2);
}

/* Readings that are off by more than messages take: no message may arrive before it is made. */
static void no_message_takes_negative_time(void **state)
{
    sample_rank ranks[2];
    mhp_trace traces[2];
    mhp_trace_set set = {traces, 2};
    mhp_analysis analysis;

    (void)state;
    make_two(&cases[1], (sample_clock){0, 0}, ranks);
    traces[0] = ranks[0].trace;
    traces[1] = ranks[1].trace;
    traces[1].before.local_ns += 700000; /* its times now seem 700 us earlier than they are */
    traces[1].after.local_ns += 700000;
    assert_ok(mhp_analyse(&set, &analysis));
    assert_near(analysis.clocks.shift_most_us, 200, "the shift");
    assert_int_equal(analysis.clocks.clamped_count, 0);
    for (size_t i = 0; i < analysis.steps[0].timeline.transfer_count; i++) {
        assert_true(analysis.steps[0].timeline.transfers[i].arrived_us >=
                    analysis.steps[0].timeline.transfers[i].made_us);
    }
    assert_adds_up(&analysis.mean[1]);
    mhp_analysis_release(&analysis);
    release(ranks, 2);
}

static void a_message_that_nobody_made_is_refused(void **state)
{
    sample_rank ranks[2];
    mhp_trace traces[2];
    mhp_trace_set set = {traces, 2};
    mhp_analysis analysis;

    (void)state;
    make_two(&cases[1], (sample_clock){0, 0}, ranks);
    sample_message(&ranks[1], MHP_CAUSE_STATE, 1, 1, 0, 4096, 50, 1600);
    traces[0] = ranks[0].trace;
    traces[1] = ranks[1].trace;
    assert_error(mhp_analyse(&set, &analysis), MHP_ERR_FORMAT,
                 "state of stage 1, micro-batch 1, that rank 0's does not make");
    mhp_analysis_release(&analysis);
    release(ranks, 2);
}

/* ---- collectives ---- */

/* Three ranks reduce and then wait for the norm; the last to enter is rank 2. */
static void collectives_begin_with_the_last_member(void **state)
{
    sample_rank ranks[3];
    mhp_trace traces[3];
    mhp_trace_set set = {traces, 3};
    mhp_analysis analysis;

    (void)state;
    for (int r = 0; r < 3; r++) {
        double entry_us = 1000 + 300 * r;
        mhp_trace_span part = sample_span(MHP_TRACE_COLLECTIVE, 0, -1);

        ranks[r] = sample_begin(r, 3, 1, 5000, (sample_clock){100 * r, 0});
        part.cause = MHP_CAUSE_REDUCE;
        sample_step(&ranks[r], 0, 0, 3000);
        sample_group(&ranks[r], MHP_PASS_WEIGHT_GRADIENT, MHP_PART_HEAD, 0, 0, 0, entry_us);
        sample_wait(&ranks[r], MHP_CAUSE_REDUCE, -1, 0, -1, -1, 2000);
        sample_phase(&ranks[r], MHP_TRACE_NORM, 2000);
        sample_wait(&ranks[r], MHP_CAUSE_NORM, -1, -1, -1, -1, 2100 + r);
        sample_add(&ranks[r], part, entry_us, 1900);
        traces[r] = ranks[r].trace;
    }
    assert_ok(mhp_analyse(&set, &analysis));
    for (int r = 0; r < 3; r++) {
        const mhp_rank_figures *figures = &analysis.mean[r];

        assert_near(figures->transfer_us[MHP_CAUSE_REDUCE], 300, "the reduction");
        assert_near(figures->bubble_us, 600 - 300 * r, "waiting for the last");
        assert_near(figures->exposed_of_us[MHP_CAUSE_REDUCE], 300, "the reduction, exposed");
        assert_near(figures->exposed_of_us[MHP_CAUSE_NORM], 100 + r, "the norm");
        assert_near(figures->waited_for_us, r == 2 ? 900 : 0, "blame");
        assert_adds_up(figures);
    }
    assert_int_equal(analysis.ranking[0], 2);
    mhp_analysis_release(&analysis);
    release(ranks, 3);
}

/* ---- simulated plans ---- */

static void check_costs(const mhp_analysis *analysis, const mhp_plan *plan, const char *kind, const mhp_simulation *simulation)
{
    mhp_costs sizes;
    mhp_stage_costs *stages;
    mhp_measured measured;
    bool rebuilds = false;

    assert_ok(mhp_costs_default(&sizes));
    assert_ok(mhp_costs_create_stages(&sizes, (size_t)plan->stage_count, &stages));
    sizes.message_bytes = 1000000;
    assert_ok(mhp_measured_check(analysis, plan));
    assert_ok(mhp_measured_create(analysis, plan, &sizes, &measured));
    for (int stage = 0; stage < plan->stage_count; stage++) {
        const mhp_stage_costs *costs = mhp_costs_stage(&measured.costs, stage);
        const mhp_stage_costs *without = mhp_costs_stage(&measured.without_connections, stage);

        assert_near(costs->forward_us, 100, kind);
        assert_near(costs->input_gradient_us, 110, kind);
        assert_near(costs->weight_gradient_us, 90, kind);
        assert_near(costs->pair_us > 0 ? costs->pair_us : 270, 270, kind);
        assert_near(without->weight_gradient_us, 60, kind);
        assert_near(costs->ends.weight_gradient_us, stage == 0 ? 60 : 0, kind);
        assert_near(without->ends.weight_gradient_us, stage == 0 ? 60 : 0, kind);
        assert_true(stage == 0 ? costs->ends.forward_us > 60 && costs->ends.forward_us <= 100 : costs->ends.forward_us == 0);
        rebuilds = rebuilds || costs->rebuild_us > 0;
    }
    assert_false(rebuilds);
    assert_near(measured.plan_us, simulation->makespan_us, kind);
    for (size_t i = 0; i < measured.costs.links.count; i++) {
        const mhp_link_costs *link = (const mhp_link_costs *)measured.costs.links.items + i;

        double took_us = 1000000 / (link->bandwidth_gb_s * 1e3);

        assert_true(took_us > 20 - 0.01 && took_us < 27 + 0.01); /* 20 us of bytes; 7 of latency, which may overlap */
    }
    assert_true(measured.costs.links.count >= 2 * (size_t)(plan->rank_count - 1));
    mhp_measured_release(&measured);
    mhp_costs_release(&sizes);
}

/* A message that the plan sends to another rank, or from another, is refused. */
static void check_messages(mhp_analysis *analysis, const mhp_plan *plan)
{
    mhp_trace *trace = &analysis->set->ranks[0];
    bool found = false;

    for (size_t i = 0; i < trace->span_count && !found; i++) {
        mhp_trace_span *span = &trace->spans[i], kept = *span;

        if (span->kind == MHP_TRACE_MESSAGE && span->stage + 1 < plan->stage_count && span->cause == MHP_CAUSE_GRADIENT) {
            found = true;
            span->stage++;
            assert_int_equal(mhp_measured_check(analysis, plan), MHP_ERR_FORMAT);
            *span = kept;
            span->peer = 0;
            assert_int_equal(mhp_measured_check(analysis, plan), MHP_ERR_FORMAT);
            *span = kept;
        }
    }
    assert_true(found);
}

static void check_simulated(const char *kind, int rank_count, int microbatches)
{
    enum { STEPS = 2, RANKS_MAX = 8 };
    static const char text[] =
        "stages: [{forward_us: 100, input_gradient_us: 110, weight_gradient_us: 90, pair_us: 270}]\n"
        "links: [{default: true, bandwidth_gb_s: 50, latency_us: 7}]\nmessage_bytes: 1000000\n";
    mhp_schedule_shape shape = {.ranks = rank_count, .microbatches = microbatches, .chunks = 2};
    mhp_plan *plan = NULL;
    mhp_costs costs;
    mhp_simulate_params params = {.costs = &costs, .early_gradient = true};
    mhp_simulation simulation;
    sample_rank ranks[RANKS_MAX];
    mhp_trace traces[RANKS_MAX];
    mhp_trace_set set = {traces, rank_count};
    mhp_analysis analysis;

    assert_ok(mhp_costs_parse("costs", text, sizeof text - 1, &costs));
    assert_ok(mhp_schedule_generate(kind, &shape, &plan));
    assert_ok(mhp_plan_lower(plan, NULL));
    assert_ok(mhp_simulate(plan, &params, &simulation));
    for (int r = 0; r < rank_count; r++) {
        ranks[r] = sample_begin(r, rank_count, STEPS, SECOND_US, (sample_clock){r % 2 ? 5000 : -5000, r * 1e-5});
        ranks[0].clock = (sample_clock){0, 0};
        for (int step = 0; step < STEPS; step++) {
            sample_simulated(&ranks[r], plan, &costs, &simulation, step * 100000);
        }
        traces[r] = ranks[r].trace;
    }
    traces[0].before = sample_reading(&ranks[0], -1000);
    traces[0].after = sample_reading(&ranks[0], SECOND_US + 1000);
    assert_ok(mhp_analyse(&set, &analysis));
    for (int r = 0; r < rank_count; r++) {
        const mhp_rank_figures *figures = &analysis.mean[r];

        assert_near(figures->step_us, simulation.makespan_us, kind);
        assert_near(figures->compute_us, simulation.ranks[r].busy_us, kind);
        if (fabs(figures->exposed_us - simulation.ranks[r].exposed_us) > 0.05) {
            fail_msg("%s, rank %d: exposed %.3f us, expected %.3f", kind, r, figures->exposed_us,
                     simulation.ranks[r].exposed_us);
        }
        if (fabs(figures->bubble_us + figures->exposed_us - simulation.ranks[r].bubble_us) > 0.05 ||
            figures->other_us > 0.05) {
            fail_msg("%s, rank %d: bubble %.3f us with what is exposed, other %.3f: expected %.3f and nothing", kind, r,
                     figures->bubble_us + figures->exposed_us, figures->other_us, simulation.ranks[r].bubble_us);
        }
        assert_adds_up(figures);
    }
    assert_near(analysis.mean_path.length_us, simulation.makespan_us, "the path");
    check_costs(&analysis, plan, kind, &simulation);
    check_messages(&analysis, plan);
    mhp_analysis_release(&analysis);
    mhp_simulation_release(&simulation);
    mhp_plan_destroy(plan);
    mhp_costs_release(&costs);
    release(ranks, rank_count);
}

static void simulated_plans_give_the_simulators_figures(void **state)
{
    (void)state;
    check_simulated("gpipe", 4, 6);
    check_simulated("1f1b", 4, 8);
    check_simulated("interleaved", 4, 8);
    check_simulated("zb-h1", 4, 8);
    check_simulated("zb-v", 4, 8);
    check_simulated("dualpipe", 4, 10);
    check_simulated("dualpipev", 4, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_cases_give_exactly_their_figures),
        cmocka_unit_test(recording_costs_marks_and_transfers),
        cmocka_unit_test(what_lanes_do_while_compute_waits_is_compute),
        cmocka_unit_test(the_critical_path_follows_what_was_awaited),
        cmocka_unit_test(the_path_is_the_step_where_a_stream_seems_to_begin_before_it),
        cmocka_unit_test(no_message_takes_negative_time),
        cmocka_unit_test(a_message_that_nobody_made_is_refused),
        cmocka_unit_test(collectives_begin_with_the_last_member),
        cmocka_unit_test(simulated_plans_give_the_simulators_figures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
