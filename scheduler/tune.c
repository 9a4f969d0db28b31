/* The tuner: which schedules are tried in which order, and what is kept. */
#include "scheduler/tune.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "scheduler/bound.h"
#include "scheduler/compute_order.h"
#include "scheduler/generator.h"
#include "scheduler/index.h"
#include "scheduler/lower.h"
#include "scheduler/tune_internal.h"
#include "scheduler/weights.h"

enum {
    LAYERED_MAX = 6, /* layers are moved for so many of the best ... */
    ORDERED_MAX = 4, /* ... and the order is improved for so many */
};

typedef struct point_list {
    tune_point *items;
    size_t count, capacity;
} point_list;

/* ---- points ---- */

void mhp_tune_point_destroy(tune_point *point)
{
    mhp_plan_destroy(point->order);
    mhp_free(point->layers);
    mhp_costs_release(&point->costs);
    *point = (tune_point){0};
}

mhp_status mhp_tune_point_copy(const tune_point *point, tune_point *copy_out)
{
    size_t stage_count = (size_t)point->order->stage_count;

    *copy_out = (tune_point){.slots_bytes = point->slots_bytes, .row = point->row};
    MHP_RETURN_IF_ERROR(mhp_plan_compute_order(point->order, &copy_out->order));
    MHP_RETURN_IF_ERROR(mhp_calloc(&copy_out->layers, stage_count, sizeof *copy_out->layers));
    memcpy(copy_out->layers, point->layers, stage_count * sizeof *copy_out->layers);
    return mhp_costs_copy(&point->costs, &copy_out->costs);
}

static mhp_status append_point(point_list *list, tune_point *point)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? 2 * list->capacity : 16;
        MHP_RETURN_IF_ERROR(mhp_realloc(&list->items, list->capacity, sizeof *list->items));
    }
    list->items[list->count++] = *point;
    *point = (tune_point){0};
    return MHP_OK;
}

static void destroy_points(point_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        mhp_tune_point_destroy(&list->items[i]);
    }
    mhp_free(list->items);
}

/* ---- costs of a point ---- */

static double scale_time(const tune *t, double time_us, double ratio)
{
    double fixed_us = fmin(t->params->fixed_us, time_us);

    return fixed_us + (time_us - fixed_us) * ratio;
}

/* From the micro-batches that were measured to those of the point. */
static void scale_costs(const tune *t, mhp_costs *costs, int microbatches)
{
    double ratio = (double)t->params->microbatches / microbatches;
    mhp_stage_costs *stages = costs->stages.items;

    if (microbatches == t->params->microbatches) {
        return;
    }
    for (size_t s = 0; s < costs->stages.count; s++) {
        double share = mhp_pair_share(&stages[s]);

        stages[s].ends = (mhp_stage_ends){0};   /* nobody cuts scaled costs again */
        stages[s].forward_us = scale_time(t, stages[s].forward_us, ratio);
        stages[s].input_gradient_us = scale_time(t, stages[s].input_gradient_us, ratio);
        stages[s].weight_gradient_us = scale_time(t, stages[s].weight_gradient_us, ratio);
        stages[s].rebuild_us = scale_time(t, stages[s].rebuild_us, ratio);
        stages[s].pair_us = stages[s].pair_us > 0 ? share * mhp_stage_work_us(&stages[s]) : 0;
        stages[s].bytes.activation = llround((double)stages[s].bytes.activation * ratio);
        stages[s].bytes.rebuild_keeps = llround((double)stages[s].bytes.rebuild_keeps * ratio);
        stages[s].bytes.held_weight_gradient = llround((double)stages[s].bytes.held_weight_gradient * ratio);
        stages[s].bytes.slot = llround((double)stages[s].bytes.slot * ratio);
    }
    costs->message_bytes = llround((double)costs->message_bytes * ratio);
}

mhp_status mhp_tune_cost(const tune *t, tune_point *point)
{
    mhp_costs_release(&point->costs);
    MHP_RETURN_IF_ERROR(mhp_cost_model_cut(t->params->model, point->layers, point->order->stage_count, &point->costs));
    scale_costs(t, &point->costs, point->order->microbatch_count);
    return MHP_OK;
}

/* ---- measuring ---- */

static mhp_simulate_params how(const tune_point *point)
{
    return (mhp_simulate_params){.costs = &point->costs, .early_gradient = true};
}

mhp_status mhp_tune_simulate(const tune *t, const tune_point *point, mhp_simulation *simulation_out, bool *fits_out)
{
    mhp_simulate_params params = how(point);
    mhp_status status = mhp_simulate(point->order, &params, simulation_out);
    int64_t limit = t->params->memory_bytes;

    *fits_out =
        status == MHP_OK && (limit == 0 || mhp_simulation_peak_bytes(simulation_out) + point->slots_bytes <= limit);
    return status == MHP_ERR_PLAN ? MHP_OK : status;
}

static int64_t most_slot_bytes(const mhp_plan *lowered, const mhp_costs *costs)
{
    int64_t most = 0;

    for (int r = 0; r < lowered->rank_count; r++) {
        int64_t bytes = 0;

        for (int i = 0; i < lowered->ranks[r].stage_count; i++) {
            const mhp_stage_slots *slots = &lowered->ranks[r].stages[i];
            int count = slots->count[MHP_SLOT_INPUT] + slots->count[MHP_SLOT_OUTPUT] +
                        slots->count[MHP_SLOT_GRADIENT_INPUT] + slots->count[MHP_SLOT_GRADIENT_OUTPUT];

            bytes += count * mhp_costs_slot_bytes(costs, slots->stage);
        }
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* Lowers and simulates once. *worst_out is the rank that keeps most. */
static mhp_status measure_once(const tune *t, tune_point *point, int *worst_out)
{
    mhp_simulate_params params = how(point);
    mhp_plan *lowered = NULL;
    mhp_simulation simulation = {0};
    mhp_tune_row *row = &point->row;
    mhp_status status = MHP_OK;

    MHP_TRY(out, mhp_plan_compute_order(point->order, &lowered));
    MHP_TRY(out, mhp_plan_lower(lowered, NULL));
    MHP_TRY(out, mhp_simulate(lowered, &params, &simulation));
    MHP_TRY(out, mhp_lower_bound(lowered, &point->costs, &row->bound_us));
    row->makespan_us = simulation.makespan_us;
    row->worst_bubble = mhp_simulation_worst_bubble(&simulation);
    row->peak_bytes = mhp_simulation_peak_bytes(&simulation);
    row->fits = t->params->memory_bytes == 0 || row->peak_bytes <= t->params->memory_bytes;
    row->stage_count = point->order->stage_count;
    row->microbatches = point->order->microbatch_count;
    point->slots_bytes = most_slot_bytes(lowered, &point->costs);
    for (int r = 0; r < simulation.rank_count; r++) {
        *worst_out = simulation.ranks[r].bytes_peak == row->peak_bytes ? r : *worst_out;
    }
out:
    mhp_simulation_release(&simulation);
    mhp_plan_destroy(lowered);
    return status;
}

/* Of the stages of a rank that are not rebuilt yet, the one whose activation is largest; -1 if all are. */
static int stage_to_rebuild(const tune_point *point, int rank, bool *rebuilt)
{
    const mhp_action_list *list = &point->order->ranks[rank].actions;
    int best = -1;

    memset(rebuilt, 0, (size_t)point->order->stage_count * sizeof *rebuilt);
    for (size_t i = 0; i < list->count; i++) {
        if (list->items[i].kind == MHP_ACTION_REBUILD) {
            rebuilt[list->items[i].stage] = true;
        }
    }
    for (size_t i = 0; i < list->count; i++) {
        int stage = list->items[i].stage;

        if (!rebuilt[stage] && (best < 0 || mhp_costs_stage(&point->costs, stage)->bytes.activation >
                                                mhp_costs_stage(&point->costs, best)->bytes.activation)) {
            best = stage;
        }
    }
    return best;
}

/* An R in front of every input gradient of the stage on the rank, as lowering would place it. */
static mhp_status rebuild_stage(tune_point *point, int rank, int stage)
{
    mhp_status status = MHP_OK;
    mhp_action_list old = point->order->ranks[rank].actions;
    int s, m;

    memset(&point->order->ranks[rank].actions, 0, sizeof old);
    for (size_t i = 0; i < old.count; i++) {
        if (mhp_action_does(&old.items[i], MHP_DO_INPUT_GRADIENT, &s, &m) && s == stage) {
            MHP_TRY(out, mhp_plan_append(point->order, rank, (mhp_action){MHP_ACTION_REBUILD, stage, m, -1, -1}));
        }
        MHP_TRY(out, mhp_plan_append(point->order, rank, old.items[i]));
    }
out:
    mhp_free(old.items);
    return status;
}

/* Rebuilds one more stage of the rank that keeps most, on all ranks that hold it; *changed_out is false if it has none
 * left. */
static mhp_status rebuild_one(tune_point *point, int worst, bool *changed_out)
{
    bool *rebuilt = NULL;
    int stage;

    MHP_RETURN_IF_ERROR(mhp_calloc(&rebuilt, (size_t)point->order->stage_count, sizeof *rebuilt));
    stage = stage_to_rebuild(point, worst, rebuilt);
    mhp_free(rebuilt);
    *changed_out = stage >= 0;
    for (int r = 0; *changed_out && r < point->order->rank_count; r++) {
        MHP_RETURN_IF_ERROR(rebuild_stage(point, r, stage));
    }
    point->row.rebuilt_stages += *changed_out;
    return MHP_OK;
}

mhp_status mhp_tune_measure(const tune *t, tune_point *point)
{
    int worst = 0;
    bool changed = true;

    MHP_RETURN_IF_ERROR(measure_once(t, point, &worst));
    while (!point->row.fits && changed) {
        MHP_RETURN_IF_ERROR(rebuild_one(point, worst, &changed));
        if (changed) {
            MHP_RETURN_IF_ERROR(measure_once(t, point, &worst));
        }
    }
    return MHP_OK;
}

static mhp_status note_row(tune *t, const tune_point *point)
{
    mhp_tune_result *out = t->out;

    MHP_RETURN_IF_ERROR(mhp_realloc(&out->rows, out->row_count + 1, sizeof *out->rows));
    out->rows[out->row_count++] = point->row;
    return MHP_OK;
}

/* ---- named schedules ---- */

/* As given if the schedule has so many stages, else whole layers, as even as possible, the longer stages first. */
static mhp_status choose_layers(const tune *t, tune_point *point)
{
    const mhp_tune_params *params = t->params;
    int stages = point->order->stage_count;

    MHP_RETURN_IF_ERROR(mhp_calloc(&point->layers, (size_t)stages, sizeof *point->layers));
    for (int s = 0; s < stages; s++) {
        int even = params->layer_count / stages + (s < params->layer_count % stages);

        point->layers[s] = stages == params->given_stage_count ? params->layers[s] : even;
    }
    return MHP_OK;
}

/* Whether there is a cut to begin with: the given one, or an even one in whole layers. */
static bool suits_layers(const mhp_tune_params *params, int stage_count)
{
    return stage_count == params->given_stage_count || stage_count <= params->layer_count;
}

static bool has_split_weights(const mhp_plan *plan)
{
    for (int r = 0; r < plan->rank_count; r++) {
        for (size_t i = 0; i < plan->ranks[r].actions.count; i++) {
            if (plan->ranks[r].actions.items[i].kind == MHP_ACTION_WEIGHT_GRADIENT) {
                return true;
            }
        }
    }
    return false;
}

/* Adds one variant of one schedule; nothing if it does not suit. */
static mhp_status try_named(tune *t, const char *kind, const mhp_schedule_shape *shape, bool early, point_list *list)
{
    mhp_status status;
    tune_point point = {.row = {.phase = MHP_TUNE_NAMED}};

    status = mhp_schedule_generate(kind, shape, &point.order);
    if (status == MHP_ERR_PLAN) {
        return MHP_OK;
    }
    MHP_TRY(out, status);
    if (!suits_layers(t->params, point.order->stage_count) || (early && !has_split_weights(point.order))) {
        goto out;
    }
    if (early) {
        MHP_TRY(out, mhp_plan_advance_weights(point.order));
    }
    if (strcmp(kind, "interleaved") == 0) {
        snprintf(point.row.name, sizeof point.row.name, "%s x %d%s", kind, shape->chunks, early ? ", W early" : "");
    } else {
        snprintf(point.row.name, sizeof point.row.name, "%s%s", kind, early ? ", W early" : "");
    }
    MHP_TRY(out, choose_layers(t, &point));
    MHP_TRY(out, mhp_tune_cost(t, &point));
    MHP_TRY(out, mhp_tune_measure(t, &point));
    MHP_TRY(out, note_row(t, &point));
    MHP_TRY(out, append_point(list, &point));
out:
    mhp_tune_point_destroy(&point);
    return status;
}

static bool is_wanted(const tune *t, const char *kind)
{
    for (int i = 0; i < t->params->kind_count; i++) {
        if (strcmp(t->params->kinds[i], kind) == 0) {
            return true;
        }
    }
    return t->params->kind_count == 0;
}

static mhp_status try_all_named(tune *t, int microbatches, point_list *list)
{
    for (size_t g = 0; mhp_generator_at(g); g++) {
        const char *kind = mhp_generator_at(g)->name;
        bool has_chunks = strcmp(kind, "interleaved") == 0;

        for (int chunks = 2; is_wanted(t, kind) && chunks <= (has_chunks ? t->params->chunks_max : 2); chunks++) {
            mhp_schedule_shape shape = {.ranks = t->params->ranks, .microbatches = microbatches, .chunks = chunks};

            MHP_RETURN_IF_ERROR(try_named(t, kind, &shape, false, list));
            MHP_RETURN_IF_ERROR(try_named(t, kind, &shape, true, list));
        }
    }
    return MHP_OK;
}

/* ---- choosing ---- */

static bool is_better(const tune_point *a, const tune_point *b)
{
    return !b || (a->row.fits != b->row.fits ? a->row.fits : a->row.makespan_us < b->row.makespan_us * (1 - 1e-12));
}

static bool is_eligible(const tune *t, const tune_point *point)
{
    return t->params->may_choose_others || point->order->microbatch_count == t->params->microbatches;
}

/* The best one of the list that fits and has not been taken, for placements that differ: one for each name without its
 * ", W early". */
static tune_point *next_best(const tune *t, point_list *list, bool *taken)
{
    tune_point *best = NULL;

    for (size_t i = 0; i < list->count; i++) {
        if (!taken[i] && list->items[i].row.fits && is_eligible(t, &list->items[i]) &&
            is_better(&list->items[i], best)) {
            best = &list->items[i];
        }
    }
    for (size_t i = 0; best && i < list->count; i++) {
        size_t length = strcspn(best->row.name, ",");
        bool same_kind = strcspn(list->items[i].row.name, ",") == length &&
                         strncmp(list->items[i].row.name, best->row.name, length) == 0;

        taken[i] = taken[i] || (same_kind && list->items[i].row.microbatches == best->row.microbatches);
    }
    return best;
}

static void note_best_named(tune *t, const point_list *list)
{
    const tune_point *best = NULL;

    for (size_t i = 0; i < list->count; i++) {
        const tune_point *point = &list->items[i];
        bool as_it_is = strchr(point->row.name, ',') == NULL && point->row.microbatches == t->params->microbatches;

        if (as_it_is && is_better(point, best)) {
            best = point;
        }
    }
    if (best) {
        t->out->named = best->row;
    }
}

/* Runs a part of the search on a copy of each of the best points, and adds the results that are better than what they
 * came from. */
typedef mhp_status (*improve_fn)(const tune *t, tune_point *point);

static mhp_status improve_one(tune *t, const tune_point *from, mhp_tune_phase phase, improve_fn improve,
                              point_list *list)
{
    tune_point copy = {0};
    mhp_status status = MHP_OK;

    MHP_TRY(out, mhp_tune_point_copy(from, &copy));
    MHP_TRY(out, improve(t, &copy));
    if (is_better(&copy, from)) {
        copy.row.phase = phase;
        MHP_TRY(out, note_row(t, &copy));
        MHP_TRY(out, append_point(list, &copy));
    }
out:
    mhp_tune_point_destroy(&copy);
    return status;
}

static mhp_status improve_best(tune *t, mhp_tune_phase phase, improve_fn improve, int most, point_list *list)
{
    mhp_status status = MHP_OK;
    size_t count = list->count;
    bool *taken = NULL;
    point_list found = {0};

    MHP_TRY(out, mhp_calloc(&taken, count, sizeof *taken));
    for (int i = 0; i < most; i++) {
        const tune_point *from = next_best(t, list, taken);

        if (!from) {
            break;
        }
        MHP_TRY(out, improve_one(t, from, phase, improve, &found));
    }
    for (size_t i = 0; i < found.count; i++) {
        MHP_TRY(out, append_point(list, &found.items[i]));
    }
out:
    destroy_points(&found);
    mhp_free(taken);
    return status;
}

/* Layers for the order at hand; what it was before stays if that is no better. */
static mhp_status improve_layers(const tune *t, tune_point *point)
{
    tune_point copy = {0};
    mhp_status status = MHP_OK;

    MHP_TRY(out, mhp_tune_point_copy(point, &copy));
    MHP_TRY(out, mhp_tune_layers(t, &copy));
    if (is_better(&copy, point)) {
        tune_point old = *point;

        *point = copy;
        copy = old;
    }
out:
    mhp_tune_point_destroy(&copy);
    return status;
}

static mhp_status improve_order(const tune *t, tune_point *point)
{
    MHP_RETURN_IF_ERROR(mhp_tune_search(t, point));
    MHP_RETURN_IF_ERROR(mhp_tune_list(t, point));
    if (!t->params->keep_layers) {
        MHP_RETURN_IF_ERROR(improve_layers(t, point));
    }
    return mhp_tune_search(t, point);
}

static mhp_status take_best(tune *t, point_list *list)
{
    tune_point *best = NULL;
    mhp_tune_result *out = t->out;

    for (size_t i = 0; i < list->count; i++) {
        if (is_eligible(t, &list->items[i]) && is_better(&list->items[i], best)) {
            best = &list->items[i];
        }
    }
    assert(best);
    MHP_RETURN_IF_ERROR(mhp_calloc(&out->layers, (size_t)best->order->stage_count, sizeof *out->layers));
    for (int s = 0; s < best->order->stage_count; s++) {
        out->layers[s] = best->layers[s];
    }
    out->best = best->row;
    out->order = best->order;
    out->costs = best->costs;
    snprintf(out->order->name, sizeof out->order->name, "tuned %.48s", best->row.name);
    best->order = NULL;
    best->costs = (mhp_costs){0};
    return MHP_OK;
}

/* Whether anything fits, at least with all of its stages rebuilt; the error names what needs least. */
static mhp_status check_fits(const tune *t, const point_list *list)
{
    const tune_point *least = NULL;

    for (size_t i = 0; i < list->count; i++) {
        const tune_point *point = &list->items[i];

        if (is_eligible(t, point) && point->row.fits) {
            return MHP_OK;
        }
        least = is_eligible(t, point) && (!least || point->row.peak_bytes < least->row.peak_bytes) ? point : least;
    }
    if (!least) {
        return mhp_error_set(MHP_ERR_CONFIG, "no schedule suits %d ranks, %d micro-batches and %d layers",
                             t->params->ranks, t->params->microbatches, t->params->layer_count);
    }
    return mhp_error_set(MHP_ERR_CONFIG,
                         "no schedule fits into %lld bytes a rank: %s needs %lld, with %d stages rebuilt",
                         (long long)t->params->memory_bytes, least->row.name, (long long)least->row.peak_bytes,
                         least->row.rebuilt_stages);
}

mhp_status mhp_tune(const mhp_tune_params *params, mhp_tune_result *result_out)
{
    mhp_status status = MHP_OK;
    tune t = {.params = params, .out = result_out};
    point_list list = {0};

    *result_out = (mhp_tune_result){0};
    MHP_TRY(out, try_all_named(&t, params->microbatches, &list));
    for (int i = 0; i < params->other_count; i++) {
        MHP_TRY(out, try_all_named(&t, params->others[i], &list));
    }
    note_best_named(&t, &list);
    MHP_TRY(out, check_fits(&t, &list));
    if (!params->keep_layers) {
        MHP_TRY(out, improve_best(&t, MHP_TUNE_LAYERS, improve_layers, LAYERED_MAX, &list));
    }
    MHP_TRY(out, improve_best(&t, MHP_TUNE_ORDER, improve_order, ORDERED_MAX, &list));
    MHP_TRY(out, take_best(&t, &list));
out:
    destroy_points(&list);
    return status;
}

void mhp_tune_result_release(mhp_tune_result *result)
{
    mhp_plan_destroy(result->order);
    mhp_costs_release(&result->costs);
    mhp_free(result->layers);
    mhp_free(result->rows);
    *result = (mhp_tune_result){0};
}
