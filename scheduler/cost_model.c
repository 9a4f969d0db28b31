#include "scheduler/cost_model.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "core/memory.h"

/* What adds up over layers. */
enum { FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, REBUILD, PAIR, WEIGHTS, ACTIVATION, REBUILD_KEEPS, HELD, AMOUNT_COUNT };

typedef struct amounts {
    double of[AMOUNT_COUNT];
} amounts;

struct mhp_cost_model {
    const mhp_costs *costs;
    int stage_count;
    bool deepened;       /* one stage is the model's own, and not of the costs */
    bool ends_are_out;   /* what the first and the last stage cost for layers is without embedding and head, as told */
    double *begin;       /* [stage_count + 1]: where each stage begins, in layers */
    amounts *per_layer;  /* [stage_count] */
    int64_t *slot_bytes; /* [stage_count] */
    amounts first, last; /* at the model's ends, beside the layers */
};

/* One entry for all stages says nothing of the ends of each. */
static bool knows_ends(const mhp_costs *costs, int stage)
{
    const mhp_stage_ends *ends = &mhp_costs_stage(costs, stage)->ends;

    return costs->stages.count > 1 && ends->forward_us + ends->input_gradient_us + ends->weight_gradient_us > 0;
}

/* Times of embedding or head as measured, in pairs shortened like all else. Of a measured rebuild it is not known which
 * part was theirs: what is above plain layers stays. */
static void take_known(const mhp_stage_costs *stage, amounts *end)
{
    const mhp_stage_ends *ends = &stage->ends;

    end->of[FORWARD] = ends->forward_us;
    end->of[INPUT_GRADIENT] = ends->input_gradient_us;
    end->of[WEIGHT_GRADIENT] = ends->weight_gradient_us;
    end->of[REBUILD] = stage->rebuild_us > 0 ? end->of[REBUILD] : ends->forward_us;
    end->of[PAIR] = mhp_pair_share(stage) * (ends->forward_us + ends->input_gradient_us + ends->weight_gradient_us);
}

static mhp_stage_ends ends_of(const amounts *end)
{
    return (mhp_stage_ends){end->of[FORWARD], end->of[INPUT_GRADIENT], end->of[WEIGHT_GRADIENT]};
}

static amounts amounts_of(const mhp_stage_costs *stage)
{
    return (amounts){{
        [FORWARD] = stage->forward_us,
        [INPUT_GRADIENT] = stage->input_gradient_us,
        [WEIGHT_GRADIENT] = stage->weight_gradient_us,
        [REBUILD] = mhp_stage_rebuild_us(stage),
        [PAIR] = mhp_pair_us(stage, stage),
        [WEIGHTS] = (double)stage->bytes.weights,
        [ACTIVATION] = (double)stage->bytes.activation,
        [REBUILD_KEEPS] = (double)stage->bytes.rebuild_keeps,
        [HELD] = (double)stage->bytes.held_weight_gradient,
    }};
}

static mhp_stage_costs stage_of(const amounts *sum, int64_t slot_bytes)
{
    double work_us = sum->of[FORWARD] + sum->of[INPUT_GRADIENT] + sum->of[WEIGHT_GRADIENT];

    return (mhp_stage_costs){
        .forward_us = sum->of[FORWARD],
        .input_gradient_us = sum->of[INPUT_GRADIENT],
        .weight_gradient_us = sum->of[WEIGHT_GRADIENT],
        .rebuild_us = sum->of[REBUILD],
        .pair_us = fabs(sum->of[PAIR] - work_us) <= 1e-9 * work_us ? 0 : sum->of[PAIR],
        .bytes = {.weights = llround(sum->of[WEIGHTS]),
                  .activation = llround(sum->of[ACTIVATION]),
                  .rebuild_keeps = llround(sum->of[REBUILD_KEEPS]),
                  .held_weight_gradient = llround(sum->of[HELD]),
                  .slot = slot_bytes},
    };
}

static void add(amounts *sum, const amounts *part, double factor)
{
    for (int i = 0; i < AMOUNT_COUNT; i++) {
        sum->of[i] += factor * part->of[i];
    }
}

static double length_of(const mhp_cost_model *model, int stage)
{
    return model->begin[stage + 1] - model->begin[stage];
}

/* What a layer costs that is neither first nor last in the model: the mean over the stages between; of two stages the
 * cheaper, or the mean once what is known of their ends is out of them. */
static amounts plain_layer(const mhp_cost_model *model)
{
    int beside = model->stage_count > 2; /* the stages at the ends do not count */
    amounts plain = model->per_layer[0];
    double length = 0;

    if (model->stage_count == 2 && !model->ends_are_out) {
        for (int i = 0; i < AMOUNT_COUNT; i++) {
            plain.of[i] = fmin(plain.of[i], model->per_layer[1].of[i]);
        }
        return plain;
    }
    plain = (amounts){{0}};
    for (int s = beside; s < model->stage_count - beside; s++) {
        add(&plain, &model->per_layer[s], length_of(model, s));
        length += length_of(model, s);
    }
    for (int i = 0; i < AMOUNT_COUNT; i++) {
        plain.of[i] /= length;
    }
    return plain;
}

/* Moves what a stage at the end has above plain layers out of its layers. */
static void split_end(mhp_cost_model *model, int stage, const amounts *plain, amounts *end)
{
    amounts *layer = &model->per_layer[stage];

    for (int i = 0; i < AMOUNT_COUNT; i++) {
        end->of[i] = fmax(layer->of[i] - plain->of[i], 0) * length_of(model, stage);
    }
    if (knows_ends(model->costs, stage)) {
        take_known(mhp_costs_stage(model->costs, stage), end);
    }
    add(layer, end, -1 / length_of(model, stage));
}

/* With room for one stage more. */
static mhp_status create_stages(mhp_cost_model *model, int count)
{
    MHP_RETURN_IF_ERROR(mhp_calloc(&model->begin, (size_t)count + 2, sizeof *model->begin));
    MHP_RETURN_IF_ERROR(mhp_calloc(&model->per_layer, (size_t)count + 1, sizeof *model->per_layer));
    return mhp_calloc(&model->slot_bytes, (size_t)count + 1, sizeof *model->slot_bytes);
}

mhp_status mhp_cost_model_create(const mhp_costs *costs, const double *layers, int stage_count,
                                 mhp_cost_model **model_out)
{
    mhp_status status = MHP_OK;
    mhp_cost_model *model = NULL;
    amounts plain;

    MHP_TRY(out, mhp_calloc(&model, 1, sizeof *model));
    model->costs = costs;
    model->stage_count = stage_count;
    MHP_TRY(out, create_stages(model, stage_count));
    for (int s = 0; s < stage_count; s++) {
        amounts whole = amounts_of(mhp_costs_stage(costs, s));

        model->begin[s + 1] = model->begin[s] + layers[s];
        add(&model->per_layer[s], &whole, 1 / layers[s]);
        model->slot_bytes[s] = mhp_costs_stage(costs, s)->bytes.slot;
    }
    if (stage_count > 1) {
        plain = plain_layer(model);
        split_end(model, 0, &plain, &model->first);
        split_end(model, stage_count - 1, &plain, &model->last);
        model->ends_are_out = knows_ends(costs, 0) && knows_ends(costs, stage_count - 1);
    }
    *model_out = model;
    model = NULL;
out:
    mhp_cost_model_destroy(model);
    return status;
}

void mhp_cost_model_destroy(mhp_cost_model *model)
{
    if (!model) {
        return;
    }
    mhp_free(model->begin);
    mhp_free(model->per_layer);
    mhp_free(model->slot_bytes);
    mhp_free(model);
}

mhp_status mhp_cost_model_deepen(mhp_cost_model *model, double layers)
{
    int count = model->stage_count, middle = count / 2;
    amounts plain = plain_layer(model);

    assert(layers > 0 && !model->deepened);
    if (count == 1) {
        return mhp_error_set(MHP_ERR_CONFIG, "costs of one stage do not tell embedding and head from layers: expected two stages at least");
    }
    memmove(&model->begin[middle + 1], &model->begin[middle], (size_t)(count + 1 - middle) * sizeof *model->begin);
    memmove(&model->per_layer[middle + 1], &model->per_layer[middle], (size_t)(count - middle) * sizeof *model->per_layer);
    memmove(&model->slot_bytes[middle + 1], &model->slot_bytes[middle], (size_t)(count - middle) * sizeof *model->slot_bytes);
    model->per_layer[middle] = plain; /* between stages `middle` - 1 and `middle` */
    if (model->slot_bytes[middle - 1] > model->slot_bytes[middle]) {
        model->slot_bytes[middle] = model->slot_bytes[middle - 1];
    }
    for (int s = middle + 1; s <= count + 1; s++) {
        model->begin[s] += layers;
    }
    model->stage_count++;
    model->deepened = true;
    return MHP_OK;
}

/* The layers from `begin` to `end`, with what stands at the ends of the model. */
static mhp_stage_costs cut_stage(const mhp_cost_model *model, double begin, double end, bool first, bool last)
{
    amounts sum = {{0}};
    mhp_stage_costs stage;
    int64_t slot_bytes = 0;

    for (int s = 0; s < model->stage_count; s++) {
        double shared = fmin(end, model->begin[s + 1]) - fmax(begin, model->begin[s]);

        if (shared > 0) {
            add(&sum, &model->per_layer[s], shared);
            slot_bytes = model->slot_bytes[s] > slot_bytes ? model->slot_bytes[s] : slot_bytes;
        }
    }
    if (first) {
        add(&sum, &model->first, 1);
    }
    if (last) {
        add(&sum, &model->last, 1);
    }
    stage = stage_of(&sum, slot_bytes);
    if (first && !last && knows_ends(model->costs, 0)) {
        stage.ends = ends_of(&model->first);
    } else if (last && !first && knows_ends(model->costs, (int)model->costs->stages.count - 1)) {
        stage.ends = ends_of(&model->last);
    }
    return stage;
}

static bool is_same_cut(const mhp_cost_model *model, const double *layers, int stage_count)
{
    if (model->deepened || stage_count != model->stage_count) {
        return false;
    }
    for (int s = 0; s < stage_count; s++) {
        if (fabs(layers[s] - length_of(model, s)) > 1e-9 * layers[s]) {
            return false;
        }
    }
    return true;
}

mhp_status mhp_cost_model_cut(const mhp_cost_model *model, const double *layers, int stage_count, mhp_costs *costs_out)
{
    mhp_stage_costs *stages = NULL;
    bool same = is_same_cut(model, layers, stage_count);
    double begin = 0;

    MHP_RETURN_IF_ERROR(mhp_costs_copy(model->costs, costs_out));
    MHP_RETURN_IF_ERROR(mhp_costs_create_stages(costs_out, (size_t)stage_count, &stages));
    for (int s = 0; s < stage_count; s++) {
        bool last = s == stage_count - 1;
        double end = last ? model->begin[model->stage_count] : begin + layers[s];

        stages[s] = same ? *mhp_costs_stage(model->costs, s) : cut_stage(model, begin, end, s == 0, last);
        begin = end;
    }
    return MHP_OK;
}

mhp_status mhp_cost_model_cut_evenly(const mhp_cost_model *model, int stage_count, mhp_costs *costs_out)
{
    double *layers = NULL;
    mhp_status status;

    MHP_RETURN_IF_ERROR(mhp_calloc(&layers, (size_t)stage_count, sizeof *layers));
    for (int s = 0; s < stage_count; s++) {
        layers[s] = model->begin[model->stage_count] / stage_count;
    }
    status = mhp_cost_model_cut(model, layers, stage_count, costs_out);
    mhp_free(layers);
    return status;
}
