#include "scheduler/slots.h"

#include <assert.h>
#include <string.h>

#include "core/memory.h"

enum { NOBODY = -1, NO_SLOT = -1 };

const char *mhp_slot_class_text(mhp_slot_class slot_class)
{
    static const char *const texts[MHP_SLOT_CLASS_COUNT] = {
        "input", "output", "activation", "product input", "product gradient", "gradient input", "gradient output"};

    return texts[slot_class];
}

/* ---- lifetimes ---- */

typedef struct use_list {
    mhp_slot_use *items;
    int count;
} use_list;

static void add(use_list *list, bool takes, mhp_slot_class slot_class, int stage, int microbatch)
{
    assert(list->count < MHP_SLOT_USES_MAX);
    list->items[list->count++] = (mhp_slot_use){slot_class, stage, microbatch, takes};
}

static bool is_stage(const mhp_plan *plan, int stage)
{
    return stage >= 0 && stage < plan->stage_count;
}

/* Where a pass puts what its neighbour needs: in the neighbour's own slot if that is on this rank, else in one of its own. */
static void take_output(use_list *list, const mhp_plan *plan, int rank, const mhp_message_kind *kind, int s, int m)
{
    int target = s + kind->step;

    if (!is_stage(plan, target)) {
        return;
    }
    if (mhp_plan_owner(plan, target, m) == rank) {
        add(list, true, kind->target_class, target, m);
    } else {
        add(list, true, kind->source_class, s, m);
    }
}

static void take_all(use_list *list, const mhp_plan *plan, int rank, const mhp_action *action)
{
    int s, m;

    if (action->kind == MHP_ACTION_RECV_F) {
        add(list, true, MHP_SLOT_INPUT, action->stage, action->microbatch);
    }
    if (action->kind == MHP_ACTION_RECV_B) {
        add(list, true, MHP_SLOT_GRADIENT_INPUT, action->stage, action->microbatch);
    }
    if (mhp_action_does(action, MHP_DO_FORWARD, &s, &m)) {
        take_output(list, plan, rank, &mhp_message_kinds[MHP_MESSAGE_STATE], s, m);
        add(list, true, MHP_SLOT_ACTIVATION, s, m);
        add(list, true, MHP_SLOT_PRODUCT_INPUT, s, m);
    }
    if (mhp_action_does(action, MHP_DO_INPUT_GRADIENT, &s, &m)) {
        take_output(list, plan, rank, &mhp_message_kinds[MHP_MESSAGE_GRADIENT], s, m);
        add(list, true, MHP_SLOT_PRODUCT_GRADIENT, s, m);
    }
}

static void give_all(use_list *list, const mhp_plan *plan, const mhp_action *action)
{
    int s, m;
    bool forward = mhp_action_does(action, MHP_DO_FORWARD, &s, &m);

    if (plan->forward_only && forward) {
        if (s > 0) {
            add(list, false, MHP_SLOT_INPUT, s, m);
        }
        add(list, false, MHP_SLOT_ACTIVATION, s, m);
        add(list, false, MHP_SLOT_PRODUCT_INPUT, s, m);
    }
    if (mhp_action_does(action, MHP_DO_INPUT_GRADIENT, &s, &m)) {
        if (s > 0) {
            add(list, false, MHP_SLOT_INPUT, s, m);
        }
        if (s + 1 < plan->stage_count) {
            add(list, false, MHP_SLOT_GRADIENT_INPUT, s, m);
        }
        add(list, false, MHP_SLOT_ACTIVATION, s, m);
    }
    if (mhp_action_does(action, MHP_DO_WEIGHT_GRADIENT, &s, &m)) {
        add(list, false, MHP_SLOT_PRODUCT_INPUT, s, m);
        add(list, false, MHP_SLOT_PRODUCT_GRADIENT, s, m);
    }
}

int mhp_slot_uses(const mhp_plan *plan, int rank, const mhp_action *action, mhp_slot_use uses[MHP_SLOT_USES_MAX])
{
    use_list list = {uses, 0};

    take_all(&list, plan, rank, action);
    give_all(&list, plan, action);
    return list.count;
}

static bool is_output(mhp_slot_class slot_class)
{
    return slot_class == MHP_SLOT_OUTPUT || slot_class == MHP_SLOT_GRADIENT_OUTPUT;
}

/* ---- assignment ---- */

/* The free slots of a class of a stage, first in, first out: `next` links them. */
typedef struct free_list {
    int first, last;
    int *next;          /* [slot] */
} free_list;

typedef struct assignment {
    mhp_plan *plan;
    const mhp_plan_index *index;
    const mhp_execution *execution;
    int rank;
    free_list *frees;   /* [stage of the rank][class] */
} assignment;

static mhp_stage_slots *slots_of(const assignment *a, int stage)
{
    return &a->plan->ranks[a->rank].stages[mhp_placement_find(&a->index->placement, a->rank, stage)];
}

static free_list *frees_of(const assignment *a, int stage, mhp_slot_class slot_class)
{
    return &a->frees[mhp_placement_find(&a->index->placement, a->rank, stage) * MHP_SLOT_CLASS_COUNT + (int)slot_class];
}

static void take_slot(const assignment *a, const mhp_slot_use *use)
{
    mhp_stage_slots *slots = slots_of(a, use->stage);
    free_list *frees = frees_of(a, use->stage, use->slot_class);
    int slot = frees->first;

    if (slot == NO_SLOT) {
        slot = slots->count[use->slot_class]++;
    } else {
        frees->first = frees->next[slot];
    }
    slots->slot[use->slot_class][use->microbatch] = slot;
}

static void give_slot(const assignment *a, const mhp_slot_use *use)
{
    free_list *frees = frees_of(a, use->stage, use->slot_class);
    int slot = slots_of(a, use->stage)->slot[use->slot_class][use->microbatch];

    frees->next[slot] = NO_SLOT;
    if (frees->first == NO_SLOT) {
        frees->first = slot;
    } else {
        frees->next[frees->last] = slot;
    }
    frees->last = slot;
}

static void walk_slots(const assignment *a)
{
    const mhp_action_list *list = &a->plan->ranks[a->rank].actions;
    mhp_slot_use uses[MHP_SLOT_USES_MAX];

    for (size_t i = 0; i < list->count; i++) {
        int count = mhp_slot_uses(a->plan, a->rank, &list->items[i], uses);

        for (int u = 0; u < count; u++) {
            if (is_output(uses[u].slot_class)) {
                continue;
            }
            if (uses[u].takes) {
                take_slot(a, &uses[u]);
            } else {
                give_slot(a, &uses[u]);
            }
        }
    }
}

/* The outputs of a stage in the order of its passes; `place` [how many so far] is where they are made. */
typedef struct output_list {
    int *microbatch, *place;
    int count;
} output_list;

/* How many slots keep every pass from waiting: the most outputs whose send is not over when a pass begins, that pass's among them;
 * and one more, since a message takes time. Outputs take turns, so what counts is the oldest that is not over. */
static int output_slot_count(const assignment *a, const output_list *outputs, int kind, int stage)
{
    const int *message = &a->execution->message[kind][(size_t)stage * (size_t)a->plan->microbatch_count];
    int most = 0, over = 0;

    for (int i = 0; i < outputs->count; i++) {
        int begin = a->execution->start[a->rank][outputs->place[i]];

        while (over < i && message[outputs->microbatch[over]] <= begin) {
            over++;
        }
        most = i + 1 - over > most ? i + 1 - over : most;
    }
    return most + 1 < outputs->count ? most + 1 : outputs->count;
}

static void assign_outputs(const assignment *a, output_list *outputs, int kind, int stage)
{
    const mhp_message_kind *message = &mhp_message_kinds[kind];
    mhp_stage_slots *slots = slots_of(a, stage);
    int turns = output_slot_count(a, outputs, kind, stage);

    for (int i = 0; i < outputs->count; i++) {
        slots->slot[message->source_class][outputs->microbatch[i]] = i % turns;
    }
    slots->count[message->source_class] = turns;
}

/* `outputs` has room for every micro-batch of every stage of the rank, stage by stage. */
static void list_outputs(const assignment *a, int kind, output_list *outputs)
{
    const mhp_message_kind *message = &mhp_message_kinds[kind];
    const mhp_action_list *list = &a->plan->ranks[a->rank].actions;

    for (size_t i = 0; i < list->count; i++) {
        output_list *own;
        int s, m;

        if (mhp_action_does(&list->items[i], message->pass, &s, &m) && mhp_crosses(a->plan, s, s + message->step, m)) {
            own = &outputs[mhp_placement_find(&a->index->placement, a->rank, s)];
            own->microbatch[own->count] = m;
            own->place[own->count++] = (int)i;
        }
    }
}

static mhp_status assign_rank_outputs(const assignment *a, int kind)
{
    mhp_status status = MHP_OK;
    const mhp_rank_plan *rank_plan = &a->plan->ranks[a->rank];
    size_t microbatches = (size_t)a->plan->microbatch_count;
    output_list *outputs = NULL;
    int *room = NULL;

    MHP_TRY(out, mhp_calloc(&outputs, (size_t)rank_plan->stage_count, sizeof *outputs));
    MHP_TRY(out, mhp_calloc(&room, (size_t)rank_plan->stage_count * 2, microbatches * sizeof *room));
    for (int i = 0; i < rank_plan->stage_count; i++) {
        outputs[i].microbatch = room + (size_t)i * 2 * microbatches;
        outputs[i].place = outputs[i].microbatch + microbatches;
    }
    list_outputs(a, kind, outputs);
    for (int i = 0; i < rank_plan->stage_count; i++) {
        if (outputs[i].count > 0) {
            assign_outputs(a, &outputs[i], kind, rank_plan->stages[i].stage);
        }
    }
out:
    mhp_free(room);
    mhp_free(outputs);
    return status;
}

static mhp_status create_stages(const assignment *a)
{
    mhp_rank_plan *rank_plan = &a->plan->ranks[a->rank];
    const int *stages = &a->index->placement.stages[a->index->placement.first[a->rank]];
    size_t microbatches = (size_t)a->plan->microbatch_count;
    int count = mhp_placement_count(&a->index->placement, a->rank);

    MHP_RETURN_IF_ERROR(mhp_calloc(&rank_plan->stages, (size_t)count, sizeof *rank_plan->stages));
    for (; rank_plan->stage_count < count; rank_plan->stage_count++) {
        mhp_stage_slots *slots = &rank_plan->stages[rank_plan->stage_count];

        slots->stage = stages[rank_plan->stage_count];
        for (int c = 0; c < MHP_SLOT_CLASS_COUNT; c++) {
            mhp_status status = mhp_calloc(&slots->slot[c], microbatches, sizeof *slots->slot[c]);

            if (status < 0) {
                rank_plan->stage_count++;       /* so that what is there is released */
                return status;
            }
            memset(slots->slot[c], NO_SLOT, microbatches * sizeof *slots->slot[c]);
        }
    }
    return MHP_OK;
}

static mhp_status assign_rank(assignment *a)
{
    mhp_status status = MHP_OK;
    size_t lists = (size_t)mhp_placement_count(&a->index->placement, a->rank) * MHP_SLOT_CLASS_COUNT;
    size_t microbatches = (size_t)a->plan->microbatch_count;
    int *next = NULL;

    MHP_TRY(out, create_stages(a));
    MHP_TRY(out, mhp_calloc(&a->frees, lists, sizeof *a->frees));
    MHP_TRY(out, mhp_calloc(&next, lists, microbatches * sizeof *next));
    for (size_t i = 0; i < lists; i++) {
        a->frees[i] = (free_list){NO_SLOT, NO_SLOT, next + i * microbatches};
    }
    walk_slots(a);
    for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
        MHP_TRY(out, assign_rank_outputs(a, k));
    }
out:
    mhp_free(next);
    mhp_free(a->frees);
    a->frees = NULL;
    return status;
}

mhp_status mhp_slots_assign(mhp_plan *plan, const mhp_plan_index *index, const mhp_execution *execution)
{
    for (int r = 0; r < plan->rank_count; r++) {
        assignment a = {.plan = plan, .index = index, .execution = execution, .rank = r};

        MHP_RETURN_IF_ERROR(assign_rank(&a));
    }
    return MHP_OK;
}

/* ---- check ---- */

/* Who is in every slot of one rank; `first` [stage of the rank][class] is where a class begins in `holder`. */
typedef struct occupancy {
    const mhp_plan *plan;
    int rank;
    size_t *first;
    int *holder;
} occupancy;

static mhp_status create_occupancy(occupancy *o)
{
    const mhp_rank_plan *rank_plan = &o->plan->ranks[o->rank];
    size_t total = 0;

    MHP_RETURN_IF_ERROR(mhp_calloc(&o->first, (size_t)rank_plan->stage_count * MHP_SLOT_CLASS_COUNT, sizeof *o->first));
    for (int i = 0; i < rank_plan->stage_count; i++) {
        for (int c = 0; c < MHP_SLOT_CLASS_COUNT; c++) {
            o->first[i * MHP_SLOT_CLASS_COUNT + c] = total;
            total += (size_t)rank_plan->stages[i].count[c];
        }
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&o->holder, total, sizeof *o->holder));
    memset(o->holder, NOBODY, total * sizeof *o->holder);
    return MHP_OK;
}

static mhp_status check_use(const occupancy *o, size_t position, const mhp_slot_use *use)
{
    const mhp_stage_slots *slots = mhp_plan_stage_slots(o->plan, o->rank, use->stage);
    const char *name = mhp_slot_class_text(use->slot_class);
    int slot = slots ? slots->slot[use->slot_class][use->microbatch] : NO_SLOT;
    int *holder;

    if (slot < 0) {
        return mhp_plan_error(o->plan, o->rank, position, "micro-batch %d of stage %d has no %s slot: expected one",
                              use->microbatch, use->stage, name);
    }
    if (slot >= slots->count[use->slot_class]) {
        return mhp_plan_error(o->plan, o->rank, position, "micro-batch %d of stage %d has %s slot %d: expected less than %d",
                              use->microbatch, use->stage, name, slot, slots->count[use->slot_class]);
    }
    if (is_output(use->slot_class)) {
        return MHP_OK;
    }
    holder =
        &o->holder[o->first[(slots - o->plan->ranks[o->rank].stages) * MHP_SLOT_CLASS_COUNT + (int)use->slot_class] + (size_t)slot];
    if (use->takes && *holder != NOBODY) {
        return mhp_plan_error(o->plan, o->rank, position,
                              "%s slot %d is still used by micro-batch %d of stage %d: expected a free one", name, slot, *holder,
                              use->stage);
    }
    *holder = use->takes ? use->microbatch : NOBODY;
    return MHP_OK;
}

static mhp_status check_rank(occupancy *o)
{
    mhp_status status = MHP_OK;
    const mhp_action_list *list = &o->plan->ranks[o->rank].actions;
    mhp_slot_use uses[MHP_SLOT_USES_MAX];

    MHP_TRY(out, create_occupancy(o));
    for (size_t i = 0; i < list->count; i++) {
        int count = mhp_slot_uses(o->plan, o->rank, &list->items[i], uses);

        for (int u = 0; u < count; u++) {
            MHP_TRY(out, check_use(o, i, &uses[u]));
        }
    }
out:
    mhp_free(o->first);
    mhp_free(o->holder);
    return status;
}

mhp_status mhp_slots_check(const mhp_plan *plan)
{
    for (int r = 0; r < plan->rank_count; r++) {
        occupancy o = {.plan = plan, .rank = r};

        MHP_RETURN_IF_ERROR(check_rank(&o));
    }
    return MHP_OK;
}
