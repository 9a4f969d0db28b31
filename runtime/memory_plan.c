#include "runtime/memory_plan.h"

#include <stdint.h>
#include <stdlib.h>

#include "comm/seal.h"
#include "core/memory.h"
#include "runtime/arena.h"
#include "runtime/colouring.h"
#include "scheduler/index.h"

enum {
    PIECES_MAX = 8192,          /* coloured one by one; of more, those of a stage and lifetime share places first */
    ITEMS_MAX = 32768,          /* coloured at all; more lie one behind the other */
};

const char *mhp_memory_kind_text(mhp_memory_kind kind)
{
    static const char *const texts[] = {"weights",     "gradients", "optimizer", "batches",   "messages",
                                        "activations", "held",      "blocks",    "workspaces"};

    return texts[kind];
}

mhp_statistics_layout mhp_statistics_layout_of(int replicas, int microbatches, int world)
{
    size_t all = (size_t)replicas * (size_t)microbatches;
    mhp_statistics_layout layout = {.squares = 0, .loss = 1, .gain = 1 + all, .worst = 1 + 3 * all};

    layout.own = layout.worst + 2 * (size_t)world;
    layout.count = layout.own + MHP_STATISTICS_OWN * (size_t)world;
    return layout;
}

size_t mhp_slot_bytes(const mhp_stage_sizes *sizes, mhp_slot_class class_)
{
    return class_ == MHP_SLOT_INPUT || class_ == MHP_SLOT_OUTPUT ? sizes->state_bytes : sizes->gradient_bytes;
}

static size_t aligned(size_t bytes)
{
    return (bytes + MHP_ARENA_ALIGNMENT - 1) / MHP_ARENA_ALIGNMENT * MHP_ARENA_ALIGNMENT;
}

size_t mhp_slot_stride(const mhp_stage_sizes *sizes, mhp_slot_class class_)
{
    return aligned(mhp_sealed_bytes(mhp_slot_bytes(sizes, class_)));
}

/* ---- pieces ---- */

/* Something with a lifetime, and where its offset is to be written (from the region's start). */
typedef struct piece {
    mhp_interval interval;
    size_t bytes;
    mhp_memory_kind kind;
    size_t *target;
    int item;
} piece;

typedef struct planning {
    const mhp_memory_params *params;
    const mhp_kernels *kernels;
    mhp_memory_plan *plan;
    mhp_plan_index index[MHP_PHASE_COUNT];
    int first_moment[MHP_PHASE_COUNT + 1];      /* of a phase, and of saving; one more ends */
    piece *pieces;
    int count, capacity;
    mhp_coloured *items;
    int item_count;
    bool grouped;
} planning;

static const mhp_plan *plan_of(const planning *p, int phase)
{
    return phase == MHP_PHASE_TRAINING ? p->params->layout->plan : p->params->layout->evaluation_plan;
}

static mhp_status add_piece(planning *p, mhp_memory_kind kind, size_t bytes, int begin, int end, size_t *target)
{
    if (p->count == p->capacity) {
        p->capacity = p->capacity ? 2 * p->capacity : 256;
        MHP_RETURN_IF_ERROR(mhp_realloc(&p->pieces, (size_t)p->capacity, sizeof *p->pieces));
    }
    p->pieces[p->count++] = (piece){.interval = {begin, end, NULL}, .bytes = aligned(bytes), .kind = kind, .target = target, .item = -1};
    return MHP_OK;
}

static mhp_memory_kind kind_of(mhp_lifetime lifetime)
{
    switch (lifetime) {
    case MHP_LIFE_ACTIVATION:
        return MHP_MEMORY_ACTIVATIONS;
    case MHP_LIFE_PRODUCT_INPUT:
    case MHP_LIFE_REBUILT_INPUT:
    case MHP_LIFE_PRODUCT_GRADIENT:
        return MHP_MEMORY_HELD;
    case MHP_LIFE_BLOCK:
        return MHP_MEMORY_BLOCKS;
    default:
        return MHP_MEMORY_WORKSPACES;
    }
}

/* From where to where in the phase's list the lifetime of a micro-batch runs. */
static void moments_of(const planning *p, int phase, mhp_lifetime lifetime, int s, int m, int *begin_out, int *end_out)
{
    const mhp_plan *plan = plan_of(p, phase);
    int f = mhp_index_at(plan, &p->index[phase], MHP_DO_FORWARD, s, m);
    int i = plan->forward_only ? f : mhp_index_at(plan, &p->index[phase], MHP_DO_INPUT_GRADIENT, s, m);
    int w = plan->forward_only ? f : mhp_index_at(plan, &p->index[phase], MHP_DO_WEIGHT_GRADIENT, s, m);
    int rebuild = plan->forward_only ? f : mhp_index_at(plan, &p->index[phase], MHP_DO_REBUILD, s, m);
    int r = rebuild < 0 ? i : rebuild;
    const int begins[MHP_LIFE_COUNT] = {f, f, r, i, r, f, i};
    const int ends[MHP_LIFE_COUNT] = {i, w, w, w, i, f, i};

    *begin_out = begins[lifetime];
    *end_out = ends[lifetime];
}

static bool needed_without_gradients(mhp_lifetime lifetime)
{
    return lifetime == MHP_LIFE_ACTIVATION || lifetime == MHP_LIFE_PRODUCT_INPUT || lifetime == MHP_LIFE_FORWARD;
}

static int compare_begins(const void *left, const void *right)
{
    const piece *a = left;
    const piece *b = right;

    if (a->interval.begin != b->interval.begin) {
        return a->interval.begin < b->interval.begin ? -1 : 1;
    }
    return a->target < b->target ? -1 : a->target > b->target;
}

/* The pieces of one stage and lifetime become items: each its own, or, of very many, those that never meet share one. */
static void make_items(planning *p, int first)
{
    int first_item = p->item_count;

    qsort(p->pieces + first, (size_t)(p->count - first), sizeof *p->pieces, compare_begins);
    for (int i = first; i < p->count; i++) {
        piece *new = &p->pieces[i];
        int item = p->grouped ? first_item : p->item_count;

        while (item < p->item_count && p->pieces[p->items[item].offset].interval.end >= new->interval.begin) {
            item++;
        }
        if (item == p->item_count) {
            p->items[p->item_count++] = (mhp_coloured){.bytes = new->bytes};
        }
        new->item = item;
        p->items[item].offset = (size_t)i;      /* until colouring: the newest piece */
    }
}

/* Links the intervals of each item, in order; pieces no longer move. */
static void link_items(planning *p)
{
    for (int i = p->count - 1; i >= 0; i--) {
        mhp_coloured *item = &p->items[p->pieces[i].item];

        p->pieces[i].interval.next = (mhp_interval *)(uintptr_t)item->alive;
        item->alive = &p->pieces[i].interval;
    }
}

static mhp_status add_lifetime(planning *p, mhp_stage_memory *memory, int phase, mhp_lifetime lifetime)
{
    const mhp_plan *plan = plan_of(p, phase);
    size_t bytes = memory->sizes.bytes[lifetime];
    int first = p->count;

    if (bytes == 0 || (plan->forward_only && !needed_without_gradients(lifetime))) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&memory->at[phase][lifetime], (size_t)plan->microbatch_count, sizeof *memory->at[phase][lifetime]));
    for (int m = 0; m < plan->microbatch_count; m++) {
        int begin, end;

        if (mhp_plan_owner(plan, memory->stage, m) == p->plan->rank) {
            moments_of(p, phase, lifetime, memory->stage, m, &begin, &end);
            MHP_RETURN_IF_ERROR(add_piece(p, kind_of(lifetime), bytes, p->first_moment[phase] + begin, p->first_moment[phase] + end,
                                          &memory->at[phase][lifetime][m]));
        }
    }
    MHP_RETURN_IF_ERROR(mhp_realloc(&p->items, (size_t)p->count, sizeof *p->items));
    make_items(p, first);
    return MHP_OK;
}

/* A class's slots stay where they are throughout the phase: a receive is posted, and a send under way, at times that no stream's order
 * tells. */
static mhp_status add_messages(planning *p, mhp_stage_memory *memory, int phase)
{
    static const mhp_slot_class classes[] = {MHP_SLOT_INPUT, MHP_SLOT_OUTPUT, MHP_SLOT_GRADIENT_INPUT, MHP_SLOT_GRADIENT_OUTPUT};
    const mhp_stage_slots *slots = mhp_plan_stage_slots(plan_of(p, phase), p->plan->rank, memory->stage);

    for (size_t i = 0; slots && i < sizeof classes / sizeof *classes; i++) {
        size_t bytes = (size_t)slots->count[classes[i]] * mhp_slot_stride(&memory->sizes, classes[i]);
        int first = p->count;

        if (bytes > 0) {
            MHP_RETURN_IF_ERROR(add_piece(p, MHP_MEMORY_MESSAGES, bytes, p->first_moment[phase], p->first_moment[phase + 1] - 1,
                                          &memory->slots[phase][classes[i]]));
            MHP_RETURN_IF_ERROR(mhp_realloc(&p->items, (size_t)p->count, sizeof *p->items));
            make_items(p, first);
        }
    }
    return MHP_OK;
}

static mhp_status add_saving(planning *p)
{
    size_t full_bytes = mhp_dtype_bytes(p->kernels->full_dtype);
    const mhp_layout *layout = p->params->layout;
    int moment = p->first_moment[MHP_PHASE_COUNT];
    int first = p->count;

    for (int s = 0; s < layout->plan->stage_count && p->plan->rank == 0; s++) {
        mhp_parameter_layout parameters = {0};
        int64_t holders = mhp_layout_holders(layout, s) * p->params->parallel->data;
        size_t bytes;

        MHP_RETURN_IF_ERROR(mhp_parameter_layout_create(p->params->model, &layout->extents[s], &parameters));
        bytes = (size_t)((parameters.elements + holders - 1) / holders * holders) * full_bytes;
        mhp_parameter_layout_destroy(&parameters);
        p->plan->saving_bytes = bytes > p->plan->saving_bytes ? bytes : p->plan->saving_bytes;
    }
    if (p->plan->saving_bytes > 0) {
        MHP_RETURN_IF_ERROR(add_piece(p, MHP_MEMORY_WORKSPACES, p->plan->saving_bytes, moment, moment, &p->plan->saving));
        MHP_RETURN_IF_ERROR(mhp_realloc(&p->items, (size_t)p->count, sizeof *p->items));
        make_items(p, first);
    }
    return MHP_OK;
}

/* ---- stages ---- */

static bool rebuilds(const mhp_memory_params *params, int rank, int stage)
{
    const mhp_action_list *list = &params->layout->plan->ranks[rank].actions;

    for (size_t i = 0; i < list->count; i++) {
        if (list->items[i].kind == MHP_ACTION_REBUILD && list->items[i].stage == stage) {
            return true;
        }
    }
    return false;
}

static mhp_status find_kernels(const mhp_memory_params *params, const mhp_kernels **kernels_out)
{
    mhp_dtype dtype = (mhp_dtype)params->model->dtype;

    *kernels_out = mhp_kernels_find((mhp_device_kind)params->parallel->device, dtype);
    return *kernels_out ? MHP_OK
                        : mhp_error_set(MHP_ERR_UNSUPPORTED, "no kernels for dtype %s on this device", mhp_dtype_text(dtype));
}

/* What a stage of the rank needs, by asking a stage made for that. */
static mhp_status measure_stage(const mhp_memory_params *params, const mhp_kernels *kernels, int rank, mhp_stage_memory *memory)
{
    const mhp_layout *layout = params->layout;
    mhp_stage *stage = NULL;
    mhp_stage_params stage_params = {
        .model = params->model,
        .kernels = kernels,
        .extent = layout->extents[memory->stage],
        .sequences = (int)params->train->micro_batch_size,
        .length = (int)params->train->sequence_length,
        .threads = (int)params->parallel->threads,
        .recompute = rebuilds(params, rank, memory->stage) ? (mhp_recompute)params->schedule->recompute.what : MHP_RECOMPUTE_NONE,
    };
    int sublayers = stage_params.extent.sublayer_count;
    int64_t block = params->schedule->recompute.block;

    memory->recompute = stage_params.recompute;
    memory->in_flight = mhp_plan_stage_slots(layout->plan, rank, memory->stage)->count[MHP_SLOT_ACTIVATION];
    memory->block = block > 0 ? (int)(block < sublayers ? block : sublayers)
                              : mhp_recompute_block(params->model, stage_params.recompute, sublayers, memory->in_flight);
    stage_params.block = memory->block;
    MHP_RETURN_IF_ERROR(mhp_stage_create(&stage_params, &stage));
    memory->sizes = *mhp_stage_get_sizes(stage);
    memory->elements = mhp_stage_layout(stage)->elements;
    memory->holders = (int)(mhp_layout_holders(layout, memory->stage) * params->parallel->data);
    memory->chunk = (memory->elements + memory->holders - 1) / memory->holders;
    mhp_stage_destroy(stage);
    return MHP_OK;
}

mhp_status mhp_memory_measure_stages(const mhp_memory_params *params, int rank, mhp_stage_memory **stages_out, int *count_out)
{
    mhp_status status = MHP_OK;
    const mhp_rank_plan *held = &params->layout->plan->ranks[rank];
    const mhp_kernels *kernels;
    mhp_stage_memory *stages = NULL;

    MHP_TRY(out, find_kernels(params, &kernels));
    MHP_TRY(out, mhp_calloc(&stages, (size_t)held->stage_count, sizeof *stages));
    for (int i = 0; i < held->stage_count; i++) {
        stages[i].stage = held->stages[i].stage;
        MHP_TRY(out, measure_stage(params, kernels, rank, &stages[i]));
    }
    *stages_out = stages;
    *count_out = held->stage_count;
    stages = NULL;
out:
    mhp_free(stages);
    return status;
}

static mhp_status measure_stages(planning *p)
{
    mhp_memory_plan *plan = p->plan;

    MHP_RETURN_IF_ERROR(mhp_memory_measure_stages(p->params, plan->rank, &plan->stages, &plan->stage_count));
    for (int i = 0; i < plan->stage_count; i++) {
        plan->layers += mhp_stage_layers(&p->params->layout->extents[plan->stages[i].stage]);
        plan->elements += plan->stages[i].elements;
    }
    return MHP_OK;
}

/* ---- what stays ---- */

static size_t put(mhp_memory_plan *plan, mhp_memory_kind kind, size_t bytes)
{
    size_t offset = plan->bytes;

    plan->bytes += aligned(bytes);
    plan->most[kind] += aligned(bytes);
    return offset;
}

static void put_lasting(planning *p)
{
    mhp_memory_plan *plan = p->plan;
    const mhp_memory_params *params = p->params;
    size_t full = mhp_dtype_bytes(p->kernels->full_dtype);
    size_t real = mhp_dtype_bytes(p->kernels->dtype);
    int replicas = (int)params->parallel->data;
    mhp_batch_shape shape = {
        .microbatches = params->layout->plan->microbatch_count,
        .sequences = (int)params->train->micro_batch_size,
        .length = (int)params->train->sequence_length,
    };

    for (int i = 0; i < plan->stage_count; i++) {
        mhp_stage_memory *memory = &plan->stages[i];
        size_t elements = (size_t)memory->chunk * (size_t)memory->holders;

        memory->parameters = put(plan, MHP_MEMORY_WEIGHTS, elements * full);
        memory->weights = full == real ? memory->parameters : put(plan, MHP_MEMORY_WEIGHTS, elements * real);
        memory->gradients = put(plan, MHP_MEMORY_GRADIENTS, elements * full);
        memory->moment1 = put(plan, MHP_MEMORY_OPTIMIZER, (size_t)memory->chunk * full);
        memory->moment2 = put(plan, MHP_MEMORY_OPTIMIZER, (size_t)memory->chunk * full);
    }
    for (int b = 0; b < MHP_TRAINER_BATCHES; b++) {
        plan->batches[b] = put(plan, MHP_MEMORY_BATCHES, mhp_batch_bytes(&shape));
    }
    plan->scalars = put(plan, MHP_MEMORY_BATCHES, MHP_OPTIMIZER_SCALARS * sizeof(double));
    plan->statistics = put(plan, MHP_MEMORY_BATCHES, sizeof(double) * mhp_statistics_layout_of(replicas, shape.microbatches,
                           replicas * params->layout->plan->rank_count).count);
}

/* ---- what comes and goes ---- */

static mhp_status add_pieces(planning *p)
{
    mhp_memory_plan *plan = p->plan;

    for (int phase = 0; phase < MHP_PHASE_COUNT; phase++) {
        p->first_moment[phase + 1] = p->first_moment[phase] + (int)plan_of(p, phase)->ranks[plan->rank].actions.count;
        MHP_RETURN_IF_ERROR(mhp_plan_index_create(plan_of(p, phase), &p->index[phase]));
        for (int i = 0; i < plan->stage_count; i++) {
            MHP_RETURN_IF_ERROR(add_messages(p, &plan->stages[i], phase));
            for (int lifetime = 0; lifetime < MHP_LIFE_COUNT; lifetime++) {
                MHP_RETURN_IF_ERROR(add_lifetime(p, &plan->stages[i], phase, (mhp_lifetime)lifetime));
            }
        }
    }
    return add_saving(p);
}

/* Finds the fullest moment of a step and what is alive there, and the most of each kind. */
static mhp_status count_alive(planning *p)
{
    mhp_status status = MHP_OK;
    mhp_memory_plan *plan = p->plan;
    size_t moments = (size_t)p->first_moment[MHP_PHASE_COUNT] + 2;
    size_t *change = NULL;      /* [moment][kind], wrapping */
    size_t alive[MHP_MEMORY_KIND_COUNT], all, fullest = 0;

    for (int k = 0; k < MHP_MEMORY_KIND_COUNT; k++) {
        alive[k] = plan->fullest[k] = plan->most[k];
    }
    MHP_TRY(out, mhp_calloc(&change, moments * MHP_MEMORY_KIND_COUNT, sizeof *change));
    for (int i = 0; i < p->count; i++) {
        const piece *one = &p->pieces[i];

        change[(size_t)one->interval.begin * MHP_MEMORY_KIND_COUNT + one->kind] += one->bytes;
        change[((size_t)one->interval.end + 1) * MHP_MEMORY_KIND_COUNT + one->kind] -= one->bytes;
    }
    for (size_t moment = 0; moment < moments; moment++) {
        all = 0;
        for (int k = 0; k < MHP_MEMORY_KIND_COUNT; k++) {
            alive[k] += change[moment * MHP_MEMORY_KIND_COUNT + (size_t)k];
            plan->most[k] = alive[k] > plan->most[k] ? alive[k] : plan->most[k];
            all += alive[k];
        }
        if (all > fullest) {
            fullest = all;
            for (int k = 0; k < MHP_MEMORY_KIND_COUNT; k++) {
                plan->fullest[k] = alive[k];
            }
        }
    }
    plan->gaps = plan->bytes - fullest;
out:
    mhp_free(change);
    return status;
}

static mhp_status colour(planning *p)
{
    size_t base = p->plan->bytes;
    size_t region = 0;

    link_items(p);
    if (p->item_count <= ITEMS_MAX) {
        MHP_RETURN_IF_ERROR(mhp_colour(p->items, p->item_count, &region));
    } else {
        for (int i = 0; i < p->item_count; i++) {
            p->items[i].offset = region;
            region += p->items[i].bytes;
        }
    }
    for (int i = 0; i < p->count; i++) {
        *p->pieces[i].target = base + p->items[p->pieces[i].item].offset;
    }
    p->plan->bytes += region;
    return count_alive(p);
}

static bool has_many_pieces(const planning *p)
{
    int64_t pieces = (int64_t)p->plan->stage_count * p->params->layout->plan->microbatch_count * (MHP_LIFE_COUNT + 3);

    return pieces > PIECES_MAX;
}

mhp_status mhp_memory_plan_create(const mhp_memory_params *params, int rank, mhp_memory_plan **plan_out)
{
    mhp_status status = MHP_OK;
    planning p = {.params = params};

    MHP_TRY(out, find_kernels(params, &p.kernels));
    MHP_TRY(out, mhp_calloc(&p.plan, 1, sizeof *p.plan));
    p.plan->rank = rank;
    MHP_TRY(out, measure_stages(&p));
    p.grouped = has_many_pieces(&p);
    put_lasting(&p);
    MHP_TRY(out, add_pieces(&p));
    MHP_TRY(out, colour(&p));
    *plan_out = p.plan;
    p.plan = NULL;
out:
    for (int phase = 0; phase < MHP_PHASE_COUNT; phase++) {
        mhp_plan_index_destroy(&p.index[phase]);
    }
    mhp_free(p.items);
    mhp_free(p.pieces);
    mhp_memory_plan_destroy(p.plan);
    return status;
}

void mhp_memory_plan_destroy(mhp_memory_plan *plan)
{
    if (!plan) {
        return;
    }
    for (int i = 0; i < plan->stage_count; i++) {
        for (int phase = 0; phase < MHP_PHASE_COUNT; phase++) {
            for (int lifetime = 0; lifetime < MHP_LIFE_COUNT; lifetime++) {
                mhp_free(plan->stages[i].at[phase][lifetime]);
            }
        }
    }
    mhp_free(plan->stages);
    mhp_free(plan);
}

const mhp_stage_memory *mhp_memory_plan_stage(const mhp_memory_plan *plan, int stage)
{
    for (int i = 0; i < plan->stage_count; i++) {
        if (plan->stages[i].stage == stage) {
            return &plan->stages[i];
        }
    }
    return NULL;
}
