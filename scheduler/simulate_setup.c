/* What must be known before a plan runs: the order of receives in each channel, who uses a slot after whom, links,
 * holders. */
#include <string.h>

#include "core/memory.h"
#include "scheduler/simulate_internal.h"

/* Scratch of one rank's walk: the last micro-batch that used each slot, and the last one received in each channel. */
typedef struct rank_walk {
    sim *s;
    int rank;
    const mhp_stage_slots **slots;         /* [stage]; NULL for a stage that the rank does not hold */
    int *last_user[MHP_SLOT_CLASS_COUNT];  /* [offset of the stage + slot] */
    int *offset[MHP_SLOT_CLASS_COUNT];     /* [stage] */
    int *last_received[MHP_MESSAGE_KINDS]; /* [stage][source rank], from 1; 0 for none */
} rank_walk;

static const mhp_slot_class message_classes[] = {MHP_SLOT_INPUT, MHP_SLOT_OUTPUT, MHP_SLOT_GRADIENT_INPUT,
                                                 MHP_SLOT_GRADIENT_OUTPUT};

enum { MESSAGE_CLASSES = sizeof message_classes / sizeof *message_classes };

static void destroy_walk(rank_walk *walk)
{
    for (int i = 0; i < MESSAGE_CLASSES; i++) {
        mhp_free(walk->last_user[message_classes[i]]);
        mhp_free(walk->offset[message_classes[i]]);
    }
    for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
        mhp_free(walk->last_received[k]);
    }
    mhp_free(walk->slots);
}

/* The largest number of slots of a class that a rank has. */
static size_t most_slots(const mhp_plan *plan, mhp_slot_class class_)
{
    size_t most = 0;

    for (int r = 0; r < plan->rank_count; r++) {
        size_t count = 0;

        for (int i = 0; i < plan->ranks[r].stage_count; i++) {
            count += (size_t)plan->ranks[r].stages[i].count[class_];
        }
        most = count > most ? count : most;
    }
    return most;
}

static mhp_status create_walk(sim *s, rank_walk *walk)
{
    const mhp_plan *plan = s->plan;
    size_t stages = (size_t)plan->stage_count;

    *walk = (rank_walk){.s = s};
    MHP_RETURN_IF_ERROR(mhp_calloc(&walk->slots, stages, sizeof *walk->slots));
    for (int i = 0; i < MESSAGE_CLASSES; i++) {
        mhp_slot_class class_ = message_classes[i];

        MHP_RETURN_IF_ERROR(mhp_calloc(&walk->last_user[class_], most_slots(plan, class_), sizeof(int)));
        MHP_RETURN_IF_ERROR(mhp_calloc(&walk->offset[class_], stages, sizeof(int)));
    }
    for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
        MHP_RETURN_IF_ERROR(mhp_calloc(&walk->last_received[k], stages * (size_t)plan->rank_count, sizeof(int)));
    }
    return MHP_OK;
}

static void enter_rank(rank_walk *walk, int rank)
{
    const mhp_rank_plan *rank_plan = &walk->s->plan->ranks[rank];
    int used[MHP_SLOT_CLASS_COUNT] = {0};

    walk->rank = rank;
    for (int i = 0; i < rank_plan->stage_count; i++) {
        const mhp_stage_slots *slots = &rank_plan->stages[i];

        walk->slots[slots->stage] = slots;
        for (int c = 0; c < MESSAGE_CLASSES; c++) {
            mhp_slot_class class_ = message_classes[c];

            walk->offset[class_][slots->stage] = used[class_];
            for (int slot = 0; slot < slots->count[class_]; slot++) {
                walk->last_user[class_][used[class_]++] = -1;
            }
        }
    }
}

/* Takes the micro-batch's slot and returns who had it before; -1 for nobody, or if there is no slot. */
static int take_slot(rank_walk *walk, mhp_slot_class class_, int stage, int microbatch)
{
    const mhp_stage_slots *slots = walk->slots[stage];
    int slot = slots && slots->slot[class_] ? slots->slot[class_][microbatch] : -1;
    int *user;
    int before;

    if (slot < 0 || slot >= slots->count[class_]) {
        return -1;
    }
    user = &walk->last_user[class_][walk->offset[class_][stage] + slot];
    before = *user;
    *user = microbatch;
    return before;
}

/* The place of the channel that the micro-batch comes in. */
static int *last_received(const rank_walk *walk, int kind, int stage, int microbatch)
{
    const mhp_plan *plan = walk->s->plan;
    int source_rank = mhp_plan_owner(plan, sim_source(kind, stage), microbatch);

    return &walk->last_received[kind][(size_t)stage * (size_t)plan->rank_count + (size_t)source_rank];
}

static void note_receive(rank_walk *walk, int kind, int stage, int microbatch)
{
    sim *s = walk->s;
    int source = sim_source(kind, stage);
    sim_message *message = &s->messages[kind][sim_cell(s, stage, microbatch)];
    int *last;

    if (!sim_is_stage(s, source) || !sim_crosses(s, stage, source, microbatch)) {
        return;
    }
    message->slot_before = take_slot(walk, mhp_message_kinds[kind].target_class, stage, microbatch);
    if (message->slot_before >= 0) {
        s->messages[kind][sim_cell(s, stage, message->slot_before)].slot_after = microbatch;
    }
    last = last_received(walk, kind, stage, microbatch);
    message->channel_before = *last - 1;
    if (message->channel_before >= 0) {
        s->messages[kind][sim_cell(s, stage, message->channel_before)].channel_after = microbatch;
    }
    *last = microbatch + 1;
}

/* A stage makes its output: in an own slot that a message leaves from, or in the neighbour's on the same rank. */
static void note_output(rank_walk *walk, int kind, int stage, int microbatch)
{
    sim *s = walk->s;
    int target = sim_target(kind, stage);

    if (!sim_is_stage(s, target)) {
        return;
    }
    if (sim_crosses(s, stage, target, microbatch)) {
        s->messages[kind][sim_cell(s, target, microbatch)].output_before =
            take_slot(walk, mhp_message_kinds[kind].source_class, stage, microbatch);
    } else {
        take_slot(walk, mhp_message_kinds[kind].target_class, target, microbatch);
    }
}

static mhp_status note_reduction(sim *s, int rank, size_t position, int stage)
{
    if (s->holder_count == s->holder_capacity) {
        int capacity = s->holder_capacity ? 2 * s->holder_capacity : 64;

        MHP_RETURN_IF_ERROR(mhp_realloc(&s->holders, (size_t)capacity, sizeof *s->holders));
        s->holder_capacity = capacity;
    }
    s->holders[s->holder_count] =
        (sim_holder){.rank = rank, .next = s->reductions[stage].first_holder, .position = position};
    s->reductions[stage].first_holder = s->holder_count++;
    s->reductions[stage].waiting++;
    return MHP_OK;
}

static void note_action(rank_walk *walk, const mhp_action *action)
{
    int stage, microbatch;

    for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
        if (action->kind == mhp_message_kinds[k].receive_action) {
            note_receive(walk, k, action->stage, action->microbatch);
        } else if (mhp_action_does(action, mhp_message_kinds[k].pass, &stage, &microbatch)) {
            note_output(walk, k, stage, microbatch);
        }
    }
}

/* Forgets the rank's channels, so that the tables need no clearing as a whole. */
static void leave_rank(rank_walk *walk)
{
    const mhp_plan *plan = walk->s->plan;
    const mhp_action_list *list = &plan->ranks[walk->rank].actions;

    for (size_t i = 0; i < list->count; i++) {
        const mhp_action *action = &list->items[i];

        for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
            int source = sim_source(k, action->stage);

            if (action->kind == mhp_message_kinds[k].receive_action && sim_is_stage(walk->s, source) &&
                mhp_plan_owner(plan, source, action->microbatch) >= 0) {
                *last_received(walk, k, action->stage, action->microbatch) = 0;
            }
        }
    }
    for (int i = 0; i < plan->ranks[walk->rank].stage_count; i++) {
        walk->slots[plan->ranks[walk->rank].stages[i].stage] = NULL;
    }
}

static mhp_status walk_ranks(sim *s)
{
    mhp_status status = MHP_OK;
    rank_walk walk;

    MHP_TRY(out, create_walk(s, &walk));
    for (int r = 0; r < s->plan->rank_count; r++) {
        const mhp_action_list *list = &s->plan->ranks[r].actions;

        enter_rank(&walk, r);
        for (size_t i = 0; i < list->count; i++) {
            if (s->plan->lowered) {
                note_action(&walk, &list->items[i]);
            }
            if (list->items[i].kind == MHP_ACTION_REDUCE_GRAD) {
                MHP_TRY(out, note_reduction(s, r, i, list->items[i].stage));
            }
        }
        leave_rank(&walk);
    }
out:
    destroy_walk(&walk);
    return status;
}

static mhp_status create_messages(sim *s)
{
    size_t cells = (size_t)s->plan->stage_count * (size_t)s->plan->microbatch_count;
    double posted_us = s->plan->lowered ? SIM_NOT_YET : 0;

    for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
        MHP_RETURN_IF_ERROR(mhp_calloc(&s->messages[k], cells, sizeof *s->messages[k]));
        for (size_t i = 0; i < cells; i++) {
            s->messages[k][i] = (sim_message){posted_us, SIM_NOT_YET, SIM_NOT_YET, -1, -1, -1, -1, -1, -1};
        }
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&s->forward_end_us, cells, sizeof *s->forward_end_us));
    MHP_RETURN_IF_ERROR(mhp_calloc(&s->gradient_end_us, cells, sizeof *s->gradient_end_us));
    for (size_t i = 0; i < cells; i++) {
        s->forward_end_us[i] = SIM_NOT_YET;
        s->gradient_end_us[i] = SIM_NOT_YET;
    }
    return MHP_OK;
}

mhp_status mhp_sim_setup(sim *s)
{
    size_t ranks = (size_t)s->plan->rank_count;

    MHP_RETURN_IF_ERROR(mhp_plan_index_create(s->plan, &s->index));
    MHP_RETURN_IF_ERROR(create_messages(s));
    MHP_RETURN_IF_ERROR(mhp_costs_link_times(s->costs, s->plan->rank_count, &s->link_times));
    MHP_RETURN_IF_ERROR(mhp_calloc(&s->links, ranks * ranks, sizeof *s->links));
    MHP_RETURN_IF_ERROR(mhp_calloc(&s->ranks, ranks, sizeof *s->ranks));
    MHP_RETURN_IF_ERROR(mhp_calloc(&s->work, ranks, sizeof *s->work));
    MHP_RETURN_IF_ERROR(mhp_calloc(&s->reductions, (size_t)s->plan->stage_count, sizeof *s->reductions));
    for (int i = 0; i < s->plan->stage_count; i++) {
        s->reductions[i].first_holder = -1;
    }
    return walk_ranks(s);
}

void mhp_sim_destroy(sim *s)
{
    for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
        mhp_free(s->messages[k]);
    }
    mhp_plan_index_destroy(&s->index);
    mhp_heap_destroy(&s->events);
    mhp_free(s->forward_end_us);
    mhp_free(s->gradient_end_us);
    mhp_free(s->link_times);
    mhp_free(s->links);
    mhp_free(s->ranks);
    mhp_free(s->reductions);
    mhp_free(s->holders);
    mhp_free(s->work);
}
