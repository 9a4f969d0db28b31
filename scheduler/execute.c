#include "scheduler/execute.h"

#include <string.h>

#include "core/memory.h"

/* The state beside the result. A message is NONE until one end has it, then MET_AT of that unit, then the unit in which both have
 * it. */
enum { NOT_YET = -1, NOBODY = -1, NONE = -1 };
#define MET_AT(unit) (-2 - (unit))

typedef struct run {
    const mhp_plan *plan;
    const mhp_plan_index *index;
    mhp_execution result;
    bool messages;
    int *made[MHP_MESSAGE_KINDS];       /* [stage][microbatch]: end of the pass that makes a state or gradient */
    int *now;                           /* [rank]: when it is free */
    int *ready;                         /* ring of ranks that may go on */
    bool *is_ready;
    int ready_first, ready_count;
    size_t *holders_at[MHP_MESSAGE_KINDS];      /* [place of (rank, stage) in the placement]: where its slots begin in `holder` */
    int *holder[MHP_MESSAGE_KINDS];             /* the micro-batch whose output was the last in a slot */
} run;

int mhp_action_units(const mhp_action *action)
{
    switch (action->kind) {
    case MHP_ACTION_FORWARD:
    case MHP_ACTION_INPUT_GRADIENT:
    case MHP_ACTION_WEIGHT_GRADIENT:
        return 1;
    case MHP_ACTION_BACKWARD:
        return 2;
    case MHP_ACTION_OVERLAP_F_B:
        return 3;
    default:
        return 0;
    }
}

static size_t cell_of(const run *x, int stage, int microbatch)
{
    return (size_t)stage * (size_t)x->plan->microbatch_count + (size_t)microbatch;
}

static int later(int a, int b)
{
    return a > b ? a : b;
}

static void wake(run *x, int rank)
{
    int ranks = x->plan->rank_count;

    if (rank >= 0 && !x->is_ready[rank]) {
        x->is_ready[rank] = true;
        x->ready[(x->ready_first + x->ready_count++) % ranks] = rank;
    }
}

/* The slot's last user, whose send must be over; NULL if the output needs no slot here. */
static int *holder_of(const run *x, int kind, int rank, int stage, int microbatch)
{
    const mhp_stage_slots *slots = x->holder[kind] ? mhp_plan_stage_slots(x->plan, rank, stage) : NULL;
    int slot = slots ? slots->slot[mhp_message_kinds[kind].source_class][microbatch] : -1;
    size_t place;

    if (slot < 0) {
        return NULL;
    }
    place = (size_t)(x->index->placement.first[rank] + mhp_placement_find(&x->index->placement, rank, stage));
    return &x->holder[kind][x->holders_at[kind][place] + (size_t)slot];
}

/* Raises *at to when the pass has its input and its output a place; false if that is not known yet. */
static bool pass_can_run(const run *x, int kind, int rank, int stage, int microbatch, int *at)
{
    int source = stage - mhp_message_kinds[kind].step;
    const int *holder = holder_of(x, kind, rank, stage, microbatch);
    int input = 0;
    int place = holder && *holder != NOBODY ? x->result.message[kind][cell_of(x, stage, *holder)] : 0;

    if (source >= 0 && source < x->plan->stage_count) {
        bool crosses = mhp_plan_owner(x->plan, source, microbatch) != rank;

        input = (x->messages && crosses ? x->result.message : x->made)[kind][cell_of(x, source, microbatch)];
    }
    *at = later(*at, later(input, place));
    return input >= 0 && place >= 0;
}

/* Inside a pair neither half may depend on the other: both need what came before. */
static bool can_run(const run *x, int rank, const mhp_action *action, int *at)
{
    int s, m;

    for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
        if (mhp_action_does(action, mhp_message_kinds[k].pass, &s, &m) && !pass_can_run(x, k, rank, s, m, at)) {
            return false;
        }
    }
    return true;
}

/* One end of a message is there; the second end wakes both sides. */
static void meet(run *x, int kind, int source, int microbatch, int rank)
{
    int *message = &x->result.message[kind][cell_of(x, source, microbatch)];

    if (*message == NONE) {
        *message = MET_AT(x->now[rank]);
        return;
    }
    *message = later(MET_AT(*message), x->now[rank]);
    wake(x, mhp_plan_owner(x->plan, source, microbatch));
    wake(x, mhp_plan_owner(x->plan, source + mhp_message_kinds[kind].step, microbatch));
}

static void finish_pass(run *x, int kind, int rank, int stage, int microbatch)
{
    int target = stage + mhp_message_kinds[kind].step;
    int *holder = holder_of(x, kind, rank, stage, microbatch);

    x->made[kind][cell_of(x, stage, microbatch)] = x->now[rank];
    if (holder) {
        *holder = microbatch;
    }
    if (!x->messages && target >= 0 && target < x->plan->stage_count) {
        wake(x, mhp_plan_owner(x->plan, target, microbatch));
    }
}

static void finish(run *x, int rank, const mhp_action *action)
{
    for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
        const mhp_message_kind *kind = &mhp_message_kinds[k];
        int s, m;

        if (mhp_action_does(action, kind->pass, &s, &m)) {
            finish_pass(x, k, rank, s, m);
        }
        if (action->kind == kind->send_action) {
            meet(x, k, action->stage, action->microbatch, rank);
        } else if (action->kind == kind->receive_action) {
            meet(x, k, action->stage - kind->step, action->microbatch, rank);
        }
    }
}

static void advance(run *x, int rank)
{
    const mhp_action_list *list = &x->plan->ranks[rank].actions;
    size_t *next = &x->result.next[rank];

    for (; *next < list->count; (*next)++) {
        const mhp_action *action = &list->items[*next];
        int at = x->now[rank];

        if (!can_run(x, rank, action, &at)) {
            return;
        }
        x->result.start[rank][*next] = at;
        x->now[rank] = at + mhp_action_units(action);
        finish(x, rank, action);
    }
}

static mhp_status create_holders(run *x, int kind)
{
    const mhp_placement *placement = &x->index->placement;
    size_t places = (size_t)placement->first[x->plan->rank_count];
    size_t total = 0, place = 0;

    MHP_RETURN_IF_ERROR(mhp_calloc(&x->holders_at[kind], places, sizeof *x->holders_at[kind]));
    for (int r = 0; r < x->plan->rank_count; r++) {
        for (int i = 0; i < mhp_placement_count(placement, r); i++) {
            const mhp_stage_slots *slots = mhp_plan_stage_slots(x->plan, r, placement->stages[place]);

            x->holders_at[kind][place++] = total;
            total += slots ? (size_t)slots->count[mhp_message_kinds[kind].source_class] : 0;
        }
    }
    MHP_RETURN_IF_ERROR(mhp_calloc(&x->holder[kind], total, sizeof(int)));
    memset(x->holder[kind], NOBODY, total * sizeof(int));
    return MHP_OK;
}

static mhp_status create_result(run *x)
{
    const mhp_plan *plan = x->plan;
    size_t ranks = (size_t)plan->rank_count;

    MHP_RETURN_IF_ERROR(mhp_calloc(&x->result.next, ranks, sizeof *x->result.next));
    MHP_RETURN_IF_ERROR(mhp_calloc(&x->result.start, ranks, sizeof *x->result.start));
    for (size_t r = 0; r < ranks; r++) {
        size_t count = plan->ranks[r].actions.count;

        MHP_RETURN_IF_ERROR(mhp_calloc(&x->result.start[r], count, sizeof(int)));
        memset(x->result.start[r], NOT_YET, count * sizeof(int));
    }
    return MHP_OK;
}

static mhp_status create_run(run *x, bool slots)
{
    size_t cells = (size_t)x->plan->stage_count * (size_t)x->plan->microbatch_count;
    size_t ranks = (size_t)x->plan->rank_count;

    MHP_RETURN_IF_ERROR(create_result(x));
    MHP_RETURN_IF_ERROR(mhp_calloc(&x->now, ranks, sizeof *x->now));
    MHP_RETURN_IF_ERROR(mhp_calloc(&x->ready, ranks, sizeof *x->ready));
    MHP_RETURN_IF_ERROR(mhp_calloc(&x->is_ready, ranks, sizeof *x->is_ready));
    for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
        MHP_RETURN_IF_ERROR(mhp_calloc(&x->made[k], cells, sizeof(int)));
        MHP_RETURN_IF_ERROR(mhp_calloc(&x->result.message[k], cells, sizeof(int)));
        memset(x->made[k], NOT_YET, cells * sizeof(int));
        memset(x->result.message[k], NONE, cells * sizeof(int));
        x->messages = x->messages || x->index->position[mhp_message_kinds[k].send];
        if (slots) {
            MHP_RETURN_IF_ERROR(create_holders(x, k));
        }
    }
    return MHP_OK;
}

static void run_all(run *x)
{
    for (int r = 0; r < x->plan->rank_count; r++) {
        wake(x, r);
    }
    while (x->ready_count > 0) {
        int rank = x->ready[x->ready_first];

        x->ready_first = (x->ready_first + 1) % x->plan->rank_count;
        x->ready_count--;
        x->is_ready[rank] = false;
        advance(x, rank);
    }
    x->result.finished = true;
    for (int r = 0; r < x->plan->rank_count; r++) {
        x->result.finished = x->result.finished && x->result.next[r] == x->plan->ranks[r].actions.count;
        x->result.makespan = later(x->result.makespan, x->now[r]);
    }
}

mhp_status mhp_plan_execute(const mhp_plan *plan, const mhp_plan_index *index, bool slots, mhp_execution *execution_out)
{
    mhp_status status = MHP_OK;
    run x = {.plan = plan, .index = index};

    MHP_TRY(out, create_run(&x, slots));
    run_all(&x);
    *execution_out = x.result;
    memset(&x.result, 0, sizeof x.result);
out:
    for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
        mhp_free(x.made[k]);
        mhp_free(x.holders_at[k]);
        mhp_free(x.holder[k]);
    }
    mhp_free(x.now);
    mhp_free(x.ready);
    mhp_free(x.is_ready);
    mhp_execution_destroy(plan, &x.result);
    return status;
}

void mhp_execution_destroy(const mhp_plan *plan, mhp_execution *execution)
{
    for (int r = 0; execution->start && r < plan->rank_count; r++) {
        mhp_free(execution->start[r]);
    }
    mhp_free(execution->start);
    mhp_free(execution->next);
    for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
        mhp_free(execution->message[k]);
    }
    memset(execution, 0, sizeof *execution);
}
