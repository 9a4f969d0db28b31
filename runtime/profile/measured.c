#include "runtime/profile/measured.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "core/memory.h"
#include "scheduler/index.h"

/* ---- the plan ---- */

static bool is_of_action(const mhp_trace_span *span, const mhp_action *action)
{
    bool pair = action->kind == MHP_ACTION_OVERLAP_F_B;
    bool forward = span->pass == MHP_PASS_FORWARD;

    if (!mhp_action_takes_time(action)) {
        return false;
    }
    if (pair && !forward) {
        return span->stage == action->backward_stage && span->microbatch == action->backward_microbatch;
    }
    return span->stage == action->stage && span->microbatch == action->microbatch;
}

/* The plan sends it from the peer to this rank, both of one replica. */
static bool is_planned(const mhp_trace *trace, const mhp_trace_span *message, const mhp_plan *plan)
{
    int source_stage = message->cause == MHP_CAUSE_STATE ? message->stage - 1 : message->stage + 1;

    return source_stage >= 0 && source_stage < plan->stage_count &&
           message->peer / plan->rank_count == trace->rank / plan->rank_count &&
           mhp_plan_owner(plan, source_stage, message->microbatch) == message->peer % plan->rank_count &&
           mhp_plan_owner(plan, message->stage, message->microbatch) == trace->rank % plan->rank_count;
}

static bool is_of_plan_action(const mhp_trace_span *span, const mhp_action_list *list)
{
    return (size_t)span->action < list->count && is_of_action(span, &list->items[span->action]);
}

static mhp_status check_rank(const mhp_trace *trace, const mhp_plan *plan)
{
    const mhp_action_list *list = &plan->ranks[trace->rank % plan->rank_count].actions;

    for (size_t i = 0; i < trace->span_count; i++) {
        const mhp_trace_span *span = &trace->spans[i];

        if (span->stage >= plan->stage_count || span->microbatch >= plan->microbatch_count ||
            (span->kind == MHP_TRACE_GROUP && !is_of_plan_action(span, list)) ||
            (span->kind == MHP_TRACE_MESSAGE && !is_planned(trace, span, plan))) {
            return mhp_error_set(MHP_ERR_FORMAT,
                                 "the trace of rank %d is not of plan %s: its span %zu belongs to no action of it",
                                 trace->rank, plan->name, i);
        }
    }
    return MHP_OK;
}

mhp_status mhp_measured_check(const mhp_analysis *analysis, const mhp_plan *plan)
{
    const mhp_trace_set *set = analysis->set;

    if (set->ranks[0].pipeline_ranks != plan->rank_count) {
        return mhp_error_set(MHP_ERR_FORMAT, "the traces are of %d pipeline ranks: expected the %d of plan %s",
                             set->ranks[0].pipeline_ranks, plan->rank_count, plan->name);
    }
    for (int rank = 0; rank < set->count; rank++) {
        MHP_RETURN_IF_ERROR(check_rank(&set->ranks[rank], plan));
    }
    return MHP_OK;
}

/* ---- times of stages ---- */

/* Sums over all passes of a kind on a stage, apart inside pairs. */
typedef struct pass_sum {
    double alone_us, paired_us, connection_us, end_us; /* the last two of both; embedding and head are the ends */
    int64_t alone_count, paired_count;
} pass_sum;

typedef struct pair_sum {
    double measured_us, apart_us;
} pair_sum;

typedef struct sums {
    const mhp_plan *plan;
    pass_sum (*passes)[MHP_PASS_COUNT]; /* [stage] */
    pair_sum *pairs;                    /* [stage] */
} sums;

static void count_pass(sums *s, int stage, mhp_pass pass, bool pair)
{
    if (pair) {
        s->passes[stage][pass].paired_count++;
    } else {
        s->passes[stage][pass].alone_count++;
    }
}

/* The passes of a rank's list, once a recorded step. */
static void count_passes(sums *s, const mhp_action_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        static const mhp_event_kind events[] = {MHP_DO_FORWARD, MHP_DO_INPUT_GRADIENT, MHP_DO_WEIGHT_GRADIENT};
        static const mhp_pass passes[] = {MHP_PASS_FORWARD, MHP_PASS_INPUT_GRADIENT, MHP_PASS_WEIGHT_GRADIENT};
        const mhp_action *action = &list->items[i];
        int stage, microbatch;

        for (size_t e = 0; e < sizeof events / sizeof *events; e++) {
            if (mhp_action_does(action, events[e], &stage, &microbatch)) {
                count_pass(s, stage, passes[e], action->kind == MHP_ACTION_OVERLAP_F_B);
            }
        }
        if (action->kind == MHP_ACTION_REBUILD) {
            count_pass(s, action->stage, MHP_PASS_REBUILD, false);
        }
    }
}

static void add_group(sums *s, const mhp_timed_span *timed, const mhp_action_list *list)
{
    const mhp_trace_span *span = timed->span;
    double took_us = timed->end_us - timed->start_us;
    pass_sum *sum = &s->passes[span->stage][span->pass];

    if (list->items[span->action].kind == MHP_ACTION_OVERLAP_F_B) {
        sum->paired_us += took_us;
    } else {
        sum->alone_us += took_us;
    }
    sum->connection_us += span->part == MHP_PART_CONNECTION ? took_us : 0;
    sum->end_us += span->part == MHP_PART_EMBEDDING || span->part == MHP_PART_HEAD ? took_us : 0;
}

/* Whatever lane they ran on, and beside what. */
static void add_groups(sums *s, const mhp_timed_rank *timed, const mhp_action_list *list)
{
    for (size_t i = 0; i < timed->span_count; i++) {
        if (timed->spans[i].span->kind == MHP_TRACE_GROUP && timed->spans[i].span->lane == MHP_LANE_COMPUTE) {
            add_group(s, &timed->spans[i], list);
        }
    }
    for (size_t i = 0; i < timed->beside_count; i++) {
        add_group(s, &timed->beside[i], list);
    }
}

/* Alone where it ever is alone, else the part of pairs that was its. */
static double mean_us(const pass_sum *sum)
{
    return sum->alone_count > 0    ? sum->alone_us / (double)sum->alone_count
           : sum->paired_count > 0 ? sum->paired_us / (double)sum->paired_count
                                   : 0;
}

/* What a part has of the mean, by its share of all such passes. */
static double part_mean_us(const pass_sum *sum, double part_us)
{
    double whole_us = sum->alone_us + sum->paired_us;

    return whole_us > 0 ? mean_us(sum) * part_us / whole_us : 0;
}

static double other_mean_us(const pass_sum *sum)
{
    return mean_us(sum) - part_mean_us(sum, sum->connection_us);
}

static double end_mean_us(const pass_sum *sum)
{
    return part_mean_us(sum, sum->end_us);
}

/* Pairs against what their parts take apart. On two streams one may begin before the last has ended: what it adds is what counts. */
static void add_pairs(sums *s, const mhp_simulation *measured)
{
    for (int r = 0; r < s->plan->rank_count; r++) {
        const mhp_action_list *list = &s->plan->ranks[r].actions;
        double free_us = 0;

        for (size_t i = 0; i < list->count; i++) {
            const mhp_action *action = &list->items[i];
            mhp_span span = measured->ranks[r].spans[i];
            double added_us = span.end_us - fmin(span.end_us, fmax(span.start_us, free_us));
            int stages[] = {action->stage, action->backward_stage};

            free_us = mhp_action_takes_time(action) ? fmax(free_us, span.end_us) : free_us;
            for (int k = 0; k < 2 && action->kind == MHP_ACTION_OVERLAP_F_B; k++) {
                s->pairs[stages[k]].measured_us += added_us;
                s->pairs[stages[k]].apart_us += mean_us(&s->passes[stages[0]][MHP_PASS_FORWARD]) +
                                                mean_us(&s->passes[stages[1]][MHP_PASS_INPUT_GRADIENT]) +
                                                mean_us(&s->passes[stages[1]][MHP_PASS_WEIGHT_GRADIENT]);
            }
        }
    }
}

static void set_stage(const sums *s, int stage, mhp_stage_costs *whole, mhp_stage_costs *without)
{
    const pass_sum *passes = s->passes[stage];
    const pair_sum *pair = &s->pairs[stage];
    double share = pair->apart_us > 0 ? pair->measured_us / pair->apart_us : 0;

    whole->forward_us = mean_us(&passes[MHP_PASS_FORWARD]);
    whole->input_gradient_us = mean_us(&passes[MHP_PASS_INPUT_GRADIENT]);
    whole->weight_gradient_us = mean_us(&passes[MHP_PASS_WEIGHT_GRADIENT]);
    whole->rebuild_us = mean_us(&passes[MHP_PASS_REBUILD]);
    whole->pair_us = share * mhp_stage_work_us(whole);
    whole->ends.forward_us = end_mean_us(&passes[MHP_PASS_FORWARD]);
    whole->ends.input_gradient_us = end_mean_us(&passes[MHP_PASS_INPUT_GRADIENT]);
    whole->ends.weight_gradient_us = end_mean_us(&passes[MHP_PASS_WEIGHT_GRADIENT]);
    *without = *whole;
    without->forward_us = other_mean_us(&passes[MHP_PASS_FORWARD]);
    without->input_gradient_us = other_mean_us(&passes[MHP_PASS_INPUT_GRADIENT]);
    without->weight_gradient_us = other_mean_us(&passes[MHP_PASS_WEIGHT_GRADIENT]);
    without->rebuild_us = other_mean_us(&passes[MHP_PASS_REBUILD]);
    without->pair_us = share * mhp_stage_work_us(without);
}

static mhp_status measure_pairs(const mhp_analysis *analysis, sums *s)
{
    for (int step = 0; step < analysis->step_count; step++) {
        mhp_simulation measured = {0};
        mhp_status status = mhp_measured_simulation(&analysis->steps[step], s->plan, &measured);

        if (status == MHP_OK) {
            add_pairs(s, &measured);
        }
        mhp_simulation_release(&measured);
        MHP_RETURN_IF_ERROR(status);
    }
    return MHP_OK;
}

static mhp_status measure_stages(const mhp_analysis *analysis, const mhp_plan *plan, mhp_measured *out)
{
    mhp_status status = MHP_OK;
    sums s = {.plan = plan};
    mhp_stage_costs *whole = out->costs.stages.items, *without = out->without_connections.stages.items;

    MHP_TRY(out_label, mhp_calloc(&s.passes, (size_t)plan->stage_count, sizeof *s.passes));
    MHP_TRY(out_label, mhp_calloc(&s.pairs, (size_t)plan->stage_count, sizeof *s.pairs));
    for (int step = 0; step < analysis->step_count; step++) {
        for (int rank = 0; rank < analysis->rank_count; rank++) {
            const mhp_action_list *list = &plan->ranks[rank % plan->rank_count].actions;

            count_passes(&s, list);
            add_groups(&s, &analysis->steps[step].timeline.ranks[rank], list);
        }
    }
    MHP_TRY(out_label, measure_pairs(analysis, &s));
    for (int stage = 0; stage < plan->stage_count; stage++) {
        set_stage(&s, stage, &whole[stage], &without[stage]);
    }
out_label:
    mhp_free(s.passes);
    mhp_free(s.pairs);
    return status;
}

/* ---- messages ---- */

/* What travels over one directed link, or what one rank reduces, is counted like the simulator does: one after the
 * other. */
typedef struct lane_use {
    int lane; /* from * pipeline ranks + to; behind these, of reductions, a rank's */
    double start_us, end_us;
} lane_use;

typedef struct lane_sum {
    double busy_us; /* some transfer was under way */
    int64_t count;
} lane_sum;

static int compare_lane_uses(const void *left, const void *right)
{
    const lane_use *a = left, *b = right;

    return a->lane != b->lane ? a->lane - b->lane : (a->start_us > b->start_us) - (a->start_us < b->start_us);
}

/* Lane of a transfer, -1 if costs have no place for it. */
static int lane_of(const mhp_transfer *transfer, int pipeline_ranks)
{
    if (transfer->cause == MHP_CAUSE_STATE || transfer->cause == MHP_CAUSE_GRADIENT) {
        return transfer->source % pipeline_ranks * pipeline_ranks + transfer->target % pipeline_ranks;
    }
    return transfer->cause == MHP_CAUSE_REDUCE ? pipeline_ranks * pipeline_ranks + transfer->target % pipeline_ranks
                                               : -1;
}

/* Of one replica's transfers in one step. */
static void add_lanes(lane_use *uses, size_t count, lane_sum *lanes)
{
    double end_us = 0;

    qsort(uses, count, sizeof *uses, compare_lane_uses);
    for (size_t i = 0; i < count; i++) {
        lane_sum *sum = &lanes[uses[i].lane];

        if (i == 0 || uses[i].lane != uses[i - 1].lane) {
            end_us = uses[i].start_us;
        }
        sum->busy_us += fmax(uses[i].end_us - fmax(uses[i].start_us, end_us), 0);
        sum->count++;
        end_us = fmax(end_us, uses[i].end_us);
    }
}

static mhp_status sum_lanes(const mhp_analysis *analysis, int pipeline_ranks, lane_sum *lanes)
{
    for (int step = 0; step < analysis->step_count; step++) {
        const mhp_timeline *timeline = &analysis->steps[step].timeline;
        lane_use *uses = NULL;

        MHP_RETURN_IF_ERROR(mhp_calloc(&uses, timeline->transfer_count, sizeof *uses));
        for (int first = 0; first < analysis->rank_count; first += pipeline_ranks) {
            size_t count = 0;

            for (size_t i = 0; i < timeline->transfer_count; i++) {
                const mhp_transfer *transfer = &timeline->transfers[i];
                int lane = lane_of(transfer, pipeline_ranks);

                if (lane >= 0 && transfer->target / pipeline_ranks == first / pipeline_ranks) {
                    uses[count++] = (lane_use){lane, transfer->start_us, transfer->arrived_us};
                }
            }
            add_lanes(uses, count, lanes);
        }
        mhp_free(uses);
    }
    return MHP_OK;
}

static mhp_status set_links(const lane_sum *lanes, int count, mhp_costs *costs)
{
    mhp_link_costs *entries;
    size_t used = 0;

    for (int i = 0; i < count * count; i++) {
        used += lanes[i].busy_us > 0;
    }
    MHP_RETURN_IF_ERROR(mhp_costs_create_links(costs, used, &entries));
    for (int i = 0; i < count * count; i++) {
        if (lanes[i].busy_us > 0) {
            double mean_us = lanes[i].busy_us / (double)lanes[i].count;

            *entries++ = (mhp_link_costs){
                .from = i / count, .to = i % count, .bandwidth_gb_s = (double)costs->message_bytes * 1e-3 / mean_us};
        }
    }
    return MHP_OK;
}

static mhp_status measure_links(const mhp_analysis *analysis, int pipeline_ranks, mhp_measured *out)
{
    mhp_status status = MHP_OK;
    lane_sum *lanes = NULL, reductions = {0};

    MHP_TRY(out_label, mhp_calloc(&lanes, (size_t)pipeline_ranks * (size_t)(pipeline_ranks + 1), sizeof *lanes));
    MHP_TRY(out_label, sum_lanes(analysis, pipeline_ranks, lanes));
    MHP_TRY(out_label, set_links(lanes, pipeline_ranks, &out->costs));
    MHP_TRY(out_label, set_links(lanes, pipeline_ranks, &out->without_connections));
    for (int rank = 0; rank < pipeline_ranks; rank++) {
        reductions.busy_us += lanes[pipeline_ranks * pipeline_ranks + rank].busy_us;
        reductions.count += lanes[pipeline_ranks * pipeline_ranks + rank].count;
    }
    out->costs.all_reduce_us = reductions.count > 0 ? reductions.busy_us / (double)reductions.count : 0;
    out->without_connections.all_reduce_us = out->costs.all_reduce_us;
out_label:
    mhp_free(lanes);
    return status;
}

/* ---- the ends of the plan ---- */

static bool is_update(const mhp_trace_span *span)
{
    return span->kind == MHP_TRACE_PHASE && span->part == MHP_TRACE_UPDATE;
}

double mhp_measured_begin_us(const mhp_step_analysis *step)
{
    double begin_us = INFINITY;

    for (int rank = 0; rank < step->timeline.rank_count; rank++) {
        const mhp_timed_rank *timed = &step->timeline.ranks[rank];

        for (size_t i = 0; i < timed->span_count; i++) {
            if (timed->spans[i].span->kind == MHP_TRACE_GROUP) {
                begin_us = fmin(begin_us, timed->spans[i].start_us);
                break;
            }
        }
    }
    return isfinite(begin_us) ? begin_us : 0;
}

/* The last moment of all ranks at which a span that `counts` ends. */
static double last_end_us(const mhp_step_analysis *step, bool (*counts)(const mhp_trace_span *span))
{
    double end_us = 0;

    for (int rank = 0; rank < step->timeline.rank_count; rank++) {
        const mhp_timed_rank *timed = &step->timeline.ranks[rank];

        for (size_t i = 0; i < timed->span_count; i++) {
            end_us = counts(timed->spans[i].span) ? fmax(end_us, timed->spans[i].end_us) : end_us;
        }
    }
    return end_us;
}

/* Groups, and the waits for reductions behind them: the optimizer comes then. */
static bool is_of_plan(const mhp_trace_span *span)
{
    return span->kind == MHP_TRACE_GROUP || (span->kind == MHP_TRACE_WAIT && span->cause == MHP_CAUSE_REDUCE);
}

double mhp_measured_end_us(const mhp_step_analysis *step)
{
    return fmax(last_end_us(step, is_of_plan), last_end_us(step, is_update));
}

static void measure_ends(const mhp_analysis *analysis, mhp_measured *out)
{
    double factor = 1.0 / analysis->step_count;

    for (int s = 0; s < analysis->step_count; s++) {
        const mhp_step_analysis *step = &analysis->steps[s];

        out->plan_us += factor * (mhp_measured_end_us(step) - mhp_measured_begin_us(step));
        out->costs.optimizer_us += factor * (mhp_measured_end_us(step) - last_end_us(step, is_of_plan));
    }
    out->without_connections.optimizer_us = out->costs.optimizer_us;
}

mhp_status mhp_measured_create(const mhp_analysis *analysis, const mhp_plan *plan, const mhp_costs *sizes,
                               mhp_measured *measured_out)
{
    *measured_out = (mhp_measured){0};
    assert(sizes->stages.count == (size_t)plan->stage_count);
    MHP_RETURN_IF_ERROR(mhp_costs_check(sizes, plan->rank_count, plan->stage_count));
    MHP_RETURN_IF_ERROR(mhp_costs_copy(sizes, &measured_out->costs));
    MHP_RETURN_IF_ERROR(mhp_costs_copy(sizes, &measured_out->without_connections));
    measured_out->costs.optimizer_us = 0;
    MHP_RETURN_IF_ERROR(measure_stages(analysis, plan, measured_out));
    MHP_RETURN_IF_ERROR(measure_links(analysis, plan->rank_count, measured_out));
    measure_ends(analysis, measured_out);
    return MHP_OK;
}

void mhp_measured_release(mhp_measured *measured)
{
    mhp_costs_release(&measured->costs);
    mhp_costs_release(&measured->without_connections);
}

/* ---- a step as a simulation ---- */

/* An action lasts as long as compute works on it; what it left to lanes for messages does not keep the next one. A pair ends with its
 * partner. */
static void note_spans(const mhp_step_analysis *step, int rank, double begin_us, mhp_simulation *out)
{
    const mhp_timed_rank *timed = &step->timeline.ranks[rank];

    for (size_t i = 0; i < timed->span_count; i++) {
        const mhp_timed_span *one = &timed->spans[i];

        if (one->span->kind == MHP_TRACE_GROUP && one->span->lane <= MHP_LANE_LEADER) {
            mhp_span *span = &out->ranks[rank].spans[one->span->action];

            *span = (mhp_span){span->end_us > 0 ? span->start_us : one->start_us - begin_us, one->end_us - begin_us};
        }
    }
}

/* Where a message stands in the lists of those that send and receive it; a reduction in its rank's. */
static mhp_status note_transfers(const mhp_step_analysis *step, const mhp_plan *plan, double begin_us,
                                 mhp_simulation *out)
{
    mhp_status status = MHP_OK;
    mhp_plan_index index = {0};

    MHP_TRY(out_label, mhp_plan_index_create(plan, &index));
    for (size_t i = 0; i < step->timeline.transfer_count; i++) {
        const mhp_transfer *transfer = &step->timeline.transfers[i];
        bool state = transfer->cause == MHP_CAUSE_STATE;
        mhp_span span = {transfer->start_us - begin_us, transfer->arrived_us - begin_us};
        int send, receive;

        if (transfer->target >= plan->rank_count || (!state && transfer->cause != MHP_CAUSE_GRADIENT)) {
            continue;
        }
        send = mhp_index_at(plan, &index, state ? MHP_DO_SEND_F : MHP_DO_SEND_B,
                            state ? transfer->stage - 1 : transfer->stage + 1, transfer->microbatch);
        receive =
            mhp_index_at(plan, &index, state ? MHP_DO_RECV_F : MHP_DO_RECV_B, transfer->stage, transfer->microbatch);
        if (send >= 0 && receive >= 0) {
            out->ranks[transfer->source].spans[send] = span;
            out->ranks[transfer->target].spans[receive] = span;
        }
    }
out_label:
    mhp_plan_index_destroy(&index);
    return status;
}

static void note_reductions(const mhp_step_analysis *step, const mhp_plan *plan, double begin_us, mhp_simulation *out)
{
    for (size_t i = 0; i < step->timeline.transfer_count; i++) {
        const mhp_transfer *transfer = &step->timeline.transfers[i];
        const mhp_action_list *list =
            transfer->target < plan->rank_count ? &plan->ranks[transfer->target].actions : NULL;

        for (size_t a = 0; list && transfer->cause == MHP_CAUSE_REDUCE && a < list->count; a++) {
            if (list->items[a].kind == MHP_ACTION_REDUCE_GRAD && list->items[a].stage == transfer->stage) {
                out->ranks[transfer->target].spans[a] =
                    (mhp_span){transfer->start_us - begin_us, transfer->arrived_us - begin_us};
            }
        }
    }
}

static mhp_status note_path(const mhp_step_analysis *step, const mhp_plan *plan, double begin_us, mhp_simulation *out)
{
    MHP_RETURN_IF_ERROR(mhp_calloc(&out->path, step->path_count, sizeof *out->path));
    for (size_t i = 0; i < step->path_count; i++) {
        const mhp_path_item *item = &step->path[i];

        if (item->part == MHP_PATH_OF_COMPUTE && item->rank < plan->rank_count) {
            out->path[out->path_count++] = (mhp_path_step){
                .kind = MHP_PATH_COMPUTE,
                .rank = item->rank,
                .position = (size_t)step->timeline.ranks[item->rank].spans[item->index].span->action,
                .start_us = item->start_us - begin_us,
                .end_us = item->end_us - begin_us,
            };
        }
    }
    return MHP_OK;
}

mhp_status mhp_measured_simulation(const mhp_step_analysis *step, const mhp_plan *plan, mhp_simulation *simulation_out)
{
    double begin_us = mhp_measured_begin_us(step);

    *simulation_out =
        (mhp_simulation){.rank_count = plan->rank_count, .makespan_us = mhp_measured_end_us(step) - begin_us};
    MHP_RETURN_IF_ERROR(mhp_calloc(&simulation_out->ranks, (size_t)plan->rank_count, sizeof *simulation_out->ranks));
    for (int r = 0; r < plan->rank_count; r++) {
        MHP_RETURN_IF_ERROR(mhp_calloc(&simulation_out->ranks[r].spans, plan->ranks[r].actions.count,
                                       sizeof *simulation_out->ranks[r].spans));
        note_spans(step, r, begin_us, simulation_out);
        simulation_out->ranks[r].busy_us = step->ranks[r].compute_us;
        simulation_out->ranks[r].bubble_us = step->ranks[r].bubble_us;
        simulation_out->ranks[r].exposed_us = step->ranks[r].exposed_us;
    }
    MHP_RETURN_IF_ERROR(note_transfers(step, plan, begin_us, simulation_out));
    note_reductions(step, plan, begin_us, simulation_out);
    return note_path(step, plan, begin_us, simulation_out);
}
