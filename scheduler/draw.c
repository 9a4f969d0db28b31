/* The layout pass. */
#include "scheduler/draw.h"

#include <math.h>
#include <string.h>

#include "core/memory.h"
#include "scheduler/occupancy.h"

enum { TICKS_WANTED = 16, CELLS_A_TICK = 6 };

typedef struct box_word {
    const char *letter, *words;
} box_word;

#define MHP_BOX_WORD(name, letter, words) {letter, words},
static const box_word box_words[MHP_BOX_KIND_COUNT] = {MHP_BOX_LIST(MHP_BOX_WORD)};
#undef MHP_BOX_WORD

const char *mhp_box_letter(mhp_box_kind kind)
{
    return box_words[kind].letter;
}

const char *mhp_box_words(mhp_box_kind kind)
{
    return box_words[kind].words;
}

typedef struct layout {
    const mhp_draw_params *params;
    mhp_drawing *out;
    size_t box_capacity, frame_capacity, arrow_capacity, tick_capacity;
    int first_entry; /* the rank at which micro-batch 0 enters */
    bool two_ways;   /* micro-batches enter at different ranks */
    int *place;      /* [stage]: its place among the stages of the rank at hand */
    bool **critical; /* [rank][position] */
} layout;

static mhp_status grow(void *items, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity) {
        return MHP_OK;
    }
    *capacity = *capacity ? 2 * *capacity : 64;
    return mhp_realloc(items, *capacity, size);
}

/* ---- shades ---- */

static void find_ways(layout *at)
{
    const mhp_plan *plan = at->params->plan;

    at->first_entry = mhp_plan_owner(plan, 0, 0);
    for (int m = 1; m < plan->microbatch_count; m++) {
        at->two_ways = at->two_ways || mhp_plan_owner(plan, 0, m) != at->first_entry;
    }
}

/* Numbers the stages that the rank runs, in ascending order. */
static void place_stages(layout *at, int rank)
{
    const mhp_plan *plan = at->params->plan;
    const mhp_action_list *list = &plan->ranks[rank].actions;
    int count = 0;

    memset(at->place, 0, (size_t)plan->stage_count * sizeof *at->place);
    for (size_t i = 0; i < list->count; i++) {
        at->place[list->items[i].stage] = 1;
    }
    for (int s = 0; s < plan->stage_count; s++) {
        if (at->place[s]) {
            at->place[s] = count++;
        }
    }
}

static int shade_of(const layout *at, int stage, int microbatch)
{
    if (at->two_ways && microbatch >= 0) {
        return mhp_plan_owner(at->params->plan, 0, microbatch) != at->first_entry;
    }
    return at->place[stage] % 2;
}

/* ---- boxes ---- */

static mhp_status add_box(layout *at, const mhp_draw_box *box)
{
    mhp_drawing *out = at->out;

    if (box->end_us <= box->start_us) {
        return MHP_OK;
    }
    if (out->box_count == MHP_DRAW_BOXES_MAX) {
        return mhp_error_set(MHP_ERR_LIMIT, "plan %s has more than %d actions: too many for a picture",
                             at->params->plan->name, MHP_DRAW_BOXES_MAX);
    }
    MHP_RETURN_IF_ERROR(grow(&out->boxes, out->box_count, &at->box_capacity, sizeof *out->boxes));
    out->boxes[out->box_count++] = *box;
    return MHP_OK;
}

static mhp_status add_pair(layout *at, const mhp_draw_box *base, const mhp_action *action)
{
    mhp_drawing *out = at->out;
    const mhp_stage_costs *forward = mhp_costs_stage(at->params->costs, action->stage);
    const mhp_stage_costs *backward = mhp_costs_stage(at->params->costs, action->backward_stage);
    double forward_us = forward->forward_us, backward_us = backward->input_gradient_us + backward->weight_gradient_us;
    double share = forward_us + backward_us > 0 ? forward_us / (forward_us + backward_us) : 0.5;
    double middle_us = base->start_us + share * (base->end_us - base->start_us);
    mhp_draw_box first = *base, second = *base;

    first.end_us = middle_us;
    second.start_us = middle_us;
    second.kind = MHP_BOX_BACKWARD;
    second.stage = action->backward_stage;
    second.microbatch = action->backward_microbatch;
    second.shade = shade_of(at, second.stage, second.microbatch);
    MHP_RETURN_IF_ERROR(add_box(at, &first));
    MHP_RETURN_IF_ERROR(add_box(at, &second));
    MHP_RETURN_IF_ERROR(grow(&out->frames, out->frame_count, &at->frame_capacity, sizeof *out->frames));
    out->frames[out->frame_count++] = (mhp_draw_frame){base->rank, base->start_us, base->end_us};
    return MHP_OK;
}

static mhp_status add_arrow(layout *at, int rank, const mhp_action *action, mhp_span span)
{
    mhp_drawing *out = at->out;
    bool gradient = action->kind == MHP_ACTION_SEND_B;
    int target = gradient ? action->stage - 1 : action->stage + 1;

    MHP_RETURN_IF_ERROR(grow(&out->arrows, out->arrow_count, &at->arrow_capacity, sizeof *out->arrows));
    out->arrows[out->arrow_count++] = (mhp_draw_arrow){
        .gradient = gradient,
        .from_rank = rank,
        .to_rank = mhp_plan_owner(at->params->plan, target, action->microbatch),
        .stage = action->stage,
        .microbatch = action->microbatch,
        .start_us = span.start_us,
        .end_us = span.end_us,
    };
    return MHP_OK;
}

static mhp_status add_action(layout *at, int rank, size_t position)
{
    static const int kinds[MHP_ACTION_KIND_COUNT] = {
        [MHP_ACTION_FORWARD] = MHP_BOX_FORWARD,
        [MHP_ACTION_BACKWARD] = MHP_BOX_BACKWARD,
        [MHP_ACTION_INPUT_GRADIENT] = MHP_BOX_INPUT_GRADIENT,
        [MHP_ACTION_WEIGHT_GRADIENT] = MHP_BOX_WEIGHT_GRADIENT,
        [MHP_ACTION_REBUILD] = MHP_BOX_REBUILD,
        [MHP_ACTION_REDUCE_GRAD] = MHP_BOX_REDUCE,
        [MHP_ACTION_OVERLAP_F_B] = MHP_BOX_FORWARD,
    };
    const mhp_action *action = &at->params->plan->ranks[rank].actions.items[position];
    mhp_span span = at->params->simulation->ranks[rank].spans[position];
    mhp_draw_box box = {.kind = (mhp_box_kind)kinds[action->kind],
                        .rank = rank,
                        .stage = action->stage,
                        .microbatch = action->microbatch,
                        .shade = shade_of(at, action->stage, action->microbatch),
                        .critical = at->critical[rank][position],
                        .position = position,
                        .start_us = span.start_us,
                        .end_us = span.end_us};

    switch (action->kind) {
    case MHP_ACTION_SEND_F:
    case MHP_ACTION_SEND_B:
        return at->params->arrows ? add_arrow(at, rank, action, span) : MHP_OK;
    case MHP_ACTION_RECV_F:
    case MHP_ACTION_RECV_B:
    case MHP_ACTION_UNSHARD:
    case MHP_ACTION_RESHARD:
        return MHP_OK;
    case MHP_ACTION_OVERLAP_F_B:
        return add_pair(at, &box, action);
    default:
        return add_box(at, &box);
    }
}

static mhp_status add_rank(layout *at, int rank)
{
    const mhp_simulation *simulation = at->params->simulation;
    const mhp_action_list *list = &at->params->plan->ranks[rank].actions;

    place_stages(at, rank);
    for (size_t i = 0; i < list->count; i++) {
        MHP_RETURN_IF_ERROR(add_action(at, rank, i));
    }
    return add_box(at, &(mhp_draw_box){.kind = MHP_BOX_OPTIMIZER,
                                       .rank = rank,
                                       .stage = -1,
                                       .microbatch = -1,
                                       .critical = true,
                                       .position = list->count,
                                       .start_us = simulation->makespan_us - simulation->optimizer_us,
                                       .end_us = simulation->makespan_us});
}

static mhp_status mark_critical(layout *at)
{
    const mhp_plan *plan = at->params->plan;
    const mhp_simulation *simulation = at->params->simulation;

    MHP_RETURN_IF_ERROR(mhp_calloc(&at->critical, (size_t)plan->rank_count, sizeof *at->critical));
    for (int r = 0; r < plan->rank_count; r++) {
        MHP_RETURN_IF_ERROR(mhp_calloc(&at->critical[r], plan->ranks[r].actions.count, sizeof **at->critical));
    }
    for (size_t i = 0; i < simulation->path_count; i++) {
        const mhp_path_step *step = &simulation->path[i];

        if (step->kind != MHP_PATH_OPTIMIZER) {
            at->critical[step->rank][step->position] = true;
        }
    }
    return MHP_OK;
}

/* ---- axis ---- */

/* The smallest of 1, 2, 5, 10, 20 ... that is not below `least`. */
static double nice_step(double least)
{
    double power = pow(10, floor(log10(least)));

    return least <= power ? power : least <= 2 * power ? 2 * power : least <= 5 * power ? 5 * power : 10 * power;
}

static mhp_status add_ticks(layout *at)
{
    mhp_drawing *out = at->out;
    double least_us = out->end_us / TICKS_WANTED > CELLS_A_TICK * out->unit_us ? out->end_us / TICKS_WANTED
                                                                               : CELLS_A_TICK * out->unit_us;
    double step_us = out->end_us > 0 ? nice_step(least_us) : 1;

    for (size_t i = 0; (double)i * step_us <= out->end_us; i++) {
        mhp_draw_tick tick = {.time_us = (double)i * step_us};

        snprintf(tick.label, sizeof tick.label, "%.6g", tick.time_us);
        MHP_RETURN_IF_ERROR(grow(&out->ticks, out->tick_count, &at->tick_capacity, sizeof *out->ticks));
        out->ticks[out->tick_count++] = tick;
    }
    return MHP_OK;
}

/* ---- curves ---- */

static double kept(const mhp_occupancy *now, bool bytes)
{
    return bytes ? (double)now->bytes : now->activations;
}

static mhp_status add_point(mhp_draw_curve *curve, size_t *capacity, double time_us, double value)
{
    if (curve->count > 0 && curve->points[curve->count - 1].value == value) {
        return MHP_OK;
    }
    curve->peak = value > curve->peak ? value : curve->peak;
    MHP_RETURN_IF_ERROR(grow(&curve->points, curve->count, capacity, sizeof *curve->points));
    curve->points[curve->count++] = (mhp_draw_point){time_us, value};
    return MHP_OK;
}

static mhp_status add_curve(layout *at, const mhp_occupancy_plan *whole, int rank)
{
    const mhp_action_list *list = &at->params->plan->ranks[rank].actions;
    mhp_drawing *out = at->out;
    mhp_draw_curve *curve = &out->curves[rank];
    size_t capacity = 0;
    mhp_occupancy now;

    mhp_occupancy_begin(&now, whole, rank);
    MHP_RETURN_IF_ERROR(add_point(curve, &capacity, 0, kept(&now, out->curve_is_bytes)));
    for (size_t i = 0; i < list->count; i++) {
        mhp_span span = at->params->simulation->ranks[rank].spans[i];

        if (mhp_action_takes_time(&list->items[i])) {
            mhp_occupancy_start(&now, &list->items[i]);
            MHP_RETURN_IF_ERROR(add_point(curve, &capacity, span.start_us, kept(&now, out->curve_is_bytes)));
            mhp_occupancy_end(&now, &list->items[i]);
            MHP_RETURN_IF_ERROR(add_point(curve, &capacity, span.end_us, kept(&now, out->curve_is_bytes)));
        }
    }
    out->curve_peak = curve->peak > out->curve_peak ? curve->peak : out->curve_peak;
    return MHP_OK;
}

static mhp_status add_curves(layout *at)
{
    const mhp_draw_params *params = at->params;
    mhp_drawing *out = at->out;
    mhp_occupancy_plan whole;
    mhp_status status = MHP_OK;

    MHP_TRY(out, mhp_occupancy_plan_create(params->plan, params->costs, &whole));
    out->curve_is_bytes = mhp_simulation_peak_bytes(params->simulation) > 0;
    MHP_TRY(out, mhp_calloc(&out->curves, (size_t)out->rank_count, sizeof *out->curves));
    for (int r = 0; r < out->rank_count; r++) {
        MHP_TRY(out, add_curve(at, &whole, r));
    }
out:
    mhp_occupancy_plan_destroy(&whole);
    return status;
}

/* ---- the whole ---- */

static bool uses_both_shades(const mhp_drawing *drawing)
{
    for (size_t i = 0; i < drawing->box_count; i++) {
        if (drawing->boxes[i].shade != drawing->boxes[0].shade) {
            return true;
        }
    }
    return false;
}

static void add_words(layout *at)
{
    const mhp_plan *plan = at->params->plan;
    const mhp_simulation *simulation = at->params->simulation;
    mhp_drawing *out = at->out;

    snprintf(out->time_unit, sizeof out->time_unit, "%s", at->params->time_unit);
    if (uses_both_shades(out)) {
        snprintf(out->shades, sizeof out->shades, "dark and light: %s",
                 at->two_ways ? "micro-batches from one end and the other" : "the stages of a rank in turn");
    }
    snprintf(out->title, sizeof out->title, "%s: %d ranks, %d stages, %d micro-batches", plan->name, plan->rank_count,
             plan->stage_count, plan->microbatch_count);
    snprintf(out->subtitle, sizeof out->subtitle, "makespan %.6g%s%s, worst bubble %.1f %%", simulation->makespan_us,
             out->time_unit[0] ? " " : " units", out->time_unit, 100 * mhp_simulation_worst_bubble(simulation));
}

static double typical_unit_us(const mhp_plan *plan, const mhp_costs *costs)
{
    double work_us = 0;

    for (int s = 0; s < plan->stage_count; s++) {
        work_us += mhp_stage_work_us(mhp_costs_stage(costs, s));
    }
    return work_us > 0 ? work_us / (3.0 * plan->stage_count) : 1;
}

mhp_status mhp_draw(const mhp_draw_params *params, mhp_drawing *drawing_out)
{
    const mhp_plan *plan = params->plan;
    mhp_status status = MHP_OK;
    layout at = {.params = params, .out = drawing_out};

    *drawing_out = (mhp_drawing){.rank_count = plan->rank_count,
                                 .end_us = params->simulation->makespan_us,
                                 .unit_us = typical_unit_us(plan, params->costs)};
    find_ways(&at);
    MHP_TRY(out, mhp_calloc(&at.place, (size_t)plan->stage_count, sizeof *at.place));
    MHP_TRY(out, mark_critical(&at));
    MHP_TRY(out, mhp_calloc(&drawing_out->bubble, (size_t)plan->rank_count, sizeof *drawing_out->bubble));
    for (int r = 0; r < plan->rank_count; r++) {
        MHP_TRY(out, add_rank(&at, r));
        drawing_out->bubble[r] =
            drawing_out->end_us > 0 ? params->simulation->ranks[r].bubble_us / drawing_out->end_us : 0;
    }
    add_words(&at);
    MHP_TRY(out, add_ticks(&at));
    MHP_TRY(out, add_curves(&at));
out:
    for (int r = 0; at.critical && r < plan->rank_count; r++) {
        mhp_free(at.critical[r]);
    }
    mhp_free(at.critical);
    mhp_free(at.place);
    return status;
}

void mhp_drawing_release(mhp_drawing *drawing)
{
    for (int r = 0; drawing->curves && r < drawing->rank_count; r++) {
        mhp_free(drawing->curves[r].points);
    }
    mhp_free(drawing->curves);
    mhp_free(drawing->bubble);
    mhp_free(drawing->ticks);
    mhp_free(drawing->arrows);
    mhp_free(drawing->frames);
    mhp_free(drawing->boxes);
    *drawing = (mhp_drawing){0};
}
