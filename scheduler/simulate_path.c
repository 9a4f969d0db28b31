/* The critical path: from the end of the step back to its start, always to what the present part waited for last. Times
 * were copied, never computed twice, so what ended exactly when the part began is what it waited for. */
#include "core/memory.h"
#include "scheduler/simulate_internal.h"

typedef struct trace {
    const sim *s;
    size_t capacity;
} trace;

/* Where the path goes on: the action or message that ended at `time_us`. */
typedef enum point_kind { POINT_START, POINT_COMPUTE, POINT_MESSAGE, POINT_REDUCE } point_kind;

typedef struct path_point {
    point_kind kind;
    int rank; /* compute */
    size_t position;
    int message_kind, stage, microbatch; /* message, with its target; reduction: stage */
    double time_us;                      /* when what comes after it began */
} path_point;

static mhp_status append(trace *t, mhp_path_step step)
{
    mhp_simulation *out = t->s->out;

    if (step.end_us <= step.start_us) {
        return MHP_OK;
    }
    if (out->path_count == t->capacity) {
        t->capacity = t->capacity ? 2 * t->capacity : 256;
        MHP_RETURN_IF_ERROR(mhp_realloc(&out->path, t->capacity, sizeof *out->path));
    }
    out->path[out->path_count++] = step;
    return MHP_OK;
}

static path_point compute_point(int rank, size_t position, double time_us)
{
    return (path_point){.kind = POINT_COMPUTE, .rank = rank, .position = position, .time_us = time_us};
}

/* The action that made a message. */
static path_point producer_of(const sim *s, int kind, int stage, int microbatch, double time_us)
{
    int source = sim_source(kind, stage);
    int position = mhp_index_at(s->plan, &s->index, mhp_message_kinds[kind].pass, source, microbatch);

    return compute_point(mhp_plan_owner(s->plan, source, microbatch), (size_t)position, time_us);
}

/* The action that freed the slot for a receive, or for an earlier one of its channel that held it up. */
static path_point releaser_of(const sim *s, int kind, int stage, int microbatch)
{
    const sim_message *message = &s->messages[kind][sim_cell(s, stage, microbatch)];
    double posted_us = message->posted_us;
    mhp_event_kind event = s->plan->forward_only ? MHP_DO_FORWARD : MHP_DO_INPUT_GRADIENT;

    while (message->slot_before < 0 || sim_release_us(s, stage, message->slot_before) != posted_us) {
        message = &s->messages[kind][sim_cell(s, stage, message->channel_before)];
    }
    return compute_point(mhp_plan_owner(s->plan, stage, message->slot_before),
                         (size_t)mhp_index_at(s->plan, &s->index, event, stage, message->slot_before), posted_us);
}

static path_point message_point(int kind, int stage, int microbatch, double time_us)
{
    return (path_point){
        .kind = POINT_MESSAGE, .message_kind = kind, .stage = stage, .microbatch = microbatch, .time_us = time_us};
}

/* What a message waited for: the one before it on the link, its maker, or its slot. */
static path_point before_message(const sim *s, int kind, int stage, int microbatch)
{
    const sim_message *message = &s->messages[kind][sim_cell(s, stage, microbatch)];
    size_t cells = (size_t)s->plan->stage_count * (size_t)s->plan->microbatch_count;

    if (message->start_us <= 0) {
        return (path_point){.kind = POINT_START};
    }
    if (message->queue_before >= 0) {
        int before_kind = (size_t)message->queue_before >= cells;
        size_t cell = (size_t)message->queue_before - (size_t)before_kind * cells;

        return message_point(before_kind, (int)(cell / (size_t)s->plan->microbatch_count),
                             (int)(cell % (size_t)s->plan->microbatch_count), message->start_us);
    }
    if (sim_produced_us(s, kind, stage, microbatch) == message->start_us) {
        return producer_of(s, kind, stage, microbatch, message->start_us);
    }
    return releaser_of(s, kind, stage, microbatch);
}

/* A message into the stage, or out of the slot of its output, that ended at `time_us`. */
static bool find_message(const sim *s, int kind, int stage, int microbatch, double time_us, path_point *point_out)
{
    int source = sim_source(kind, stage);
    int target = sim_target(kind, stage);
    int before;

    if (sim_is_stage(s, source) && s->messages[kind][sim_cell(s, stage, microbatch)].end_us == time_us) {
        *point_out = message_point(kind, stage, microbatch, time_us);
        return true;
    }
    if (!sim_is_stage(s, target)) {
        return false;
    }
    before = s->messages[kind][sim_cell(s, target, microbatch)].output_before;
    if (before >= 0 && s->messages[kind][sim_cell(s, target, before)].end_us == time_us) {
        *point_out = message_point(kind, target, before, time_us);
        return true;
    }
    return false;
}

static bool find_message_of(const sim *s, const mhp_action *action, double time_us, path_point *point_out)
{
    for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
        int stage, microbatch;

        if (mhp_action_does(action, mhp_message_kinds[k].pass, &stage, &microbatch) &&
            find_message(s, k, stage, microbatch, time_us, point_out)) {
            return true;
        }
    }
    return false;
}

/* The compute before an action if it ended when this began, else the message that it waited for. */
static path_point before_compute(const sim *s, int rank, size_t position)
{
    const mhp_action *actions = s->plan->ranks[rank].actions.items;
    const mhp_span *spans = s->out->ranks[rank].spans;
    double time_us = spans[position].start_us;
    path_point point = {.kind = POINT_START};

    if (time_us <= 0) {
        return point;
    }
    for (size_t i = position; i-- > 0;) {
        if (mhp_action_takes_time(&actions[i])) {
            if (spans[i].end_us == time_us) {
                return compute_point(rank, i, time_us);
            }
            break;
        }
    }
    find_message_of(s, &actions[position], time_us, &point);
    return point;
}

/* The last compute of a rank in front of a position. */
static size_t compute_before(const sim *s, int rank, size_t position)
{
    while (position > 0 && !mhp_action_takes_time(&s->plan->ranks[rank].actions.items[position - 1])) {
        position--;
    }
    return position > 0 ? position - 1 : 0;
}

/* Whether the reduction of `other` ended then on a rank that also holds `stage`. */
static bool ends_on_a_holder(const sim *s, int other, int stage, double time_us)
{
    for (int i = s->reductions[other].first_holder; i >= 0; i = s->holders[i].next) {
        if (s->out->ranks[s->holders[i].rank].spans[s->holders[i].position].end_us != time_us) {
            continue;
        }
        for (int j = s->reductions[stage].first_holder; j >= 0; j = s->holders[j].next) {
            if (s->holders[j].rank == s->holders[i].rank) {
                return true;
            }
        }
    }
    return false;
}

/* What a reduction waited for: the last of its holders to come, or another reduction of one of them. */
static path_point before_reduction(const sim *s, int stage, double start_us)
{
    const sim_reduction *reduction = &s->reductions[stage];

    for (int i = reduction->first_holder; i >= 0; i = s->holders[i].next) {
        const sim_holder *holder = &s->holders[i];
        size_t position = compute_before(s, holder->rank, holder->position);

        if (s->out->ranks[holder->rank].spans[position].end_us == start_us) {
            return compute_point(holder->rank, position, start_us);
        }
    }
    for (int other = 0; other < s->plan->stage_count; other++) {
        if (other != stage && ends_on_a_holder(s, other, stage, start_us)) {
            return (path_point){.kind = POINT_REDUCE, .stage = other, .time_us = start_us};
        }
    }
    return (path_point){.kind = POINT_START};
}

/* Appends what stands at the point, from its start to the time of the point, and moves on to what came before. */
static mhp_status follow(trace *t, path_point *point)
{
    const sim *s = t->s;
    mhp_path_step step = {.end_us = point->time_us};

    if (point->kind == POINT_COMPUTE) {
        step.kind = MHP_PATH_COMPUTE;
        step.rank = point->rank;
        step.position = point->position;
        step.start_us = s->out->ranks[point->rank].spans[point->position].start_us;
        *point = before_compute(s, point->rank, point->position);
    } else if (point->kind == POINT_MESSAGE) {
        int source = sim_source(point->message_kind, point->stage);
        int send =
            mhp_index_at(s->plan, &s->index, mhp_message_kinds[point->message_kind].send, source, point->microbatch);
        path_point producer = producer_of(s, point->message_kind, point->stage, point->microbatch, 0);

        step.kind = MHP_PATH_MESSAGE;
        step.rank = producer.rank;
        step.position = send >= 0 ? (size_t)send : producer.position;
        step.start_us = s->messages[point->message_kind][sim_cell(s, point->stage, point->microbatch)].start_us;
        *point = before_message(s, point->message_kind, point->stage, point->microbatch);
    } else {
        const sim_holder *holder = &s->holders[s->reductions[point->stage].first_holder];

        step.kind = MHP_PATH_REDUCE;
        step.rank = holder->rank;
        step.position = holder->position;
        step.start_us = s->out->ranks[holder->rank].spans[holder->position].start_us;
        *point = before_reduction(s, point->stage, step.start_us);
    }
    return append(t, step);
}

/* What ended last, before the optimizer. */
static path_point last_point(const sim *s)
{
    double end_us = s->end_us;

    for (int stage = 0; stage < s->plan->stage_count; stage++) {
        int i = s->reductions[stage].first_holder;

        if (i >= 0 && s->costs->all_reduce_us > 0 &&
            s->out->ranks[s->holders[i].rank].spans[s->holders[i].position].end_us == end_us) {
            return (path_point){.kind = POINT_REDUCE, .stage = stage, .time_us = end_us};
        }
    }
    for (int r = 0; r < s->plan->rank_count; r++) {
        if (s->ranks[r].free_us == end_us && end_us > 0) {
            return compute_point(r, compute_before(s, r, s->plan->ranks[r].actions.count), end_us);
        }
    }
    return (path_point){.kind = POINT_START};
}

mhp_status mhp_sim_trace_path(const sim *s)
{
    mhp_simulation *out = s->out;
    trace t = {.s = s};
    path_point point = last_point(s);

    MHP_RETURN_IF_ERROR(
        append(&t, (mhp_path_step){.kind = MHP_PATH_OPTIMIZER, .start_us = s->end_us, .end_us = out->makespan_us}));
    while (point.kind != POINT_START) {
        MHP_RETURN_IF_ERROR(follow(&t, &point));
    }
    for (size_t i = 0; i < out->path_count / 2; i++) {
        mhp_path_step first = out->path[i];

        out->path[i] = out->path[out->path_count - 1 - i];
        out->path[out->path_count - 1 - i] = first;
    }
    return MHP_OK;
}
