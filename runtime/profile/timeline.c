#include "runtime/profile/timeline_internal.h"

#include <math.h>
#include <stdlib.h>

#include "core/memory.h"
#include "scheduler/plan.h"

/* A message or collective as a number: cause, stage, micro-batch, and the replica of a message or the rank of a
 * collective. */
typedef uint64_t transfer_key;

enum { MICROBATCH_BITS = 17, STAGE_BITS = 13, RANK_BITS = 31 };

static transfer_key key_of(mhp_trace_cause cause, int stage, int microbatch, int who)
{
    uint64_t key = (uint64_t)cause;

    key = key << STAGE_BITS | (uint64_t)(stage + 1);
    key = key << MICROBATCH_BITS | (uint64_t)(microbatch + 1);
    return key << RANK_BITS | (uint64_t)who;
}

static int replica_of(const mhp_trace *trace)
{
    return trace->rank / trace->pipeline_ranks;
}

bool mhp_span_computes(const mhp_trace_span *span)
{
    return span->kind == MHP_TRACE_GROUP ||
           (span->kind == MHP_TRACE_PHASE && (span->part == MHP_TRACE_NORM || span->part == MHP_TRACE_UPDATE));
}

/* ---- one clock ---- */

/* Nanoseconds behind the first reading on rank 0's clock: small numbers, which doubles hold exactly. */
static double common_ns(const mhp_trace *trace, const mhp_trace *reference, int64_t local_ns)
{
    const mhp_clock_reading *before = &trace->before, *after = &trace->after;
    double rate = (double)(after->reference_ns - before->reference_ns) / (double)(after->local_ns - before->local_ns);

    return (double)(before->reference_ns - reference->before.reference_ns) +
           rate * (double)(local_ns - before->local_ns);
}

static double common_us(const mhp_trace_set *set, const double *shift_us, int rank, int64_t local_ns)
{
    return 1e-3 * common_ns(&set->ranks[rank], &set->ranks[0], local_ns) + (shift_us ? shift_us[rank] : 0);
}

/* ---- who made what ---- */

/* A message leaves its rank when the last group of the pass that makes it ends. */
typedef struct origin {
    transfer_key key;
    int rank;
    double made_us;
} origin;

typedef struct origin_list {
    origin *items;
    size_t count;
} origin_list;

static int compare_origins(const void *left, const void *right)
{
    const origin *a = left, *b = right;

    if (a->key != b->key) {
        return a->key < b->key ? -1 : 1;
    }
    return (a->made_us > b->made_us) - (a->made_us < b->made_us);
}

static bool makes_message(const mhp_trace_span *span)
{
    return span->kind == MHP_TRACE_GROUP && (span->pass == MHP_PASS_FORWARD || span->pass == MHP_PASS_INPUT_GRADIENT);
}

/* The message that a pass of (stage, micro-batch) makes. */
static transfer_key made_key(const mhp_trace *trace, const mhp_trace_span *span)
{
    bool forward = span->pass == MHP_PASS_FORWARD;

    return key_of(forward ? MHP_CAUSE_STATE : MHP_CAUSE_GRADIENT, forward ? span->stage + 1 : span->stage - 1,
                  span->microbatch, replica_of(trace));
}

static size_t count_spans(const mhp_trace_set *set, int step)
{
    size_t sum = 0;

    for (int rank = 0; rank < set->count; rank++) {
        size_t count;

        (void)mhp_trace_step(&set->ranks[rank], step, &count);
        sum += count;
    }
    return sum;
}

/* Of all groups of a pass the last remains. */
static void keep_last(origin_list *list)
{
    size_t kept = 0;

    for (size_t i = 0; i < list->count; i++) {
        if (i + 1 == list->count || list->items[i + 1].key != list->items[i].key) {
            list->items[kept++] = list->items[i];
        }
    }
    list->count = kept;
}

static mhp_status find_origins(const mhp_trace_set *set, const double *shift_us, int step, origin_list *list)
{
    *list = (origin_list){0};
    MHP_RETURN_IF_ERROR(mhp_calloc(&list->items, count_spans(set, step), sizeof *list->items));
    for (int rank = 0; rank < set->count; rank++) {
        const mhp_trace *trace = &set->ranks[rank];
        size_t count;
        const mhp_trace_span *spans = mhp_trace_step(trace, step, &count);

        for (size_t i = 0; i < count; i++) {
            if (makes_message(&spans[i])) {
                list->items[list->count++] =
                    (origin){made_key(trace, &spans[i]), rank, common_us(set, shift_us, rank, spans[i].end_ns)};
            }
        }
    }
    qsort(list->items, list->count, sizeof *list->items, compare_origins);
    keep_last(list);
    return MHP_OK;
}

static mhp_status find_origin(const origin_list *list, const mhp_trace *trace, const mhp_trace_span *message,
                              const origin **origin_out)
{
    transfer_key key = key_of((mhp_trace_cause)message->cause, message->stage, message->microbatch, replica_of(trace));
    size_t low = 0, high = list->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (list->items[middle].key < key) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == list->count || list->items[low].key != key || list->items[low].rank != message->peer) {
        return mhp_error_set(MHP_ERR_FORMAT,
                             "the trace of rank %d has a %s of stage %d, micro-batch %d, that rank %d's does not make",
                             trace->rank, mhp_trace_cause_text((mhp_trace_cause)message->cause), message->stage,
                             message->microbatch, message->peer);
    }
    *origin_out = &list->items[low];
    return MHP_OK;
}

/* ---- clocks ---- */

/* The least time that any message from one rank to another took by the readings: slack[from][to], INFINITY without
 * messages. */
static mhp_status find_slack(const mhp_trace_set *set, int step, double *slack_us)
{
    mhp_status status = MHP_OK;
    origin_list origins;

    MHP_TRY(out, find_origins(set, NULL, step, &origins));
    for (int rank = 0; rank < set->count; rank++) {
        const mhp_trace *trace = &set->ranks[rank];
        size_t count;
        const mhp_trace_span *spans = mhp_trace_step(trace, step, &count);

        for (size_t i = 0; i < count; i++) {
            const origin *from;
            double *least;

            if (spans[i].kind == MHP_TRACE_MESSAGE) {
                MHP_TRY(out, find_origin(&origins, trace, &spans[i], &from));
                least = &slack_us[(size_t)from->rank * (size_t)set->count + (size_t)rank];
                *least = fmin(*least, common_us(set, NULL, rank, spans[i].end_ns) - from->made_us);
            }
        }
    }
out:
    mhp_free(origins.items);
    return status;
}

/* A message from a to b with slack s asks for shift[a] <= shift[b] + s: shortest paths, by Bellman and Ford. With
 * readings that are right within their error there is a solution; a circle of messages faster than nothing has none,
 * and ends with the rounds. */
static void find_shifts(int count, const double *slack_us, double *shift_us)
{
    bool changed = true;

    for (int round = 0; round < count && changed; round++) {
        changed = false;
        for (int a = 0; a < count; a++) {
            for (int b = 0; b < count; b++) {
                double most = shift_us[b] + slack_us[(size_t)a * (size_t)count + (size_t)b];

                if (most < shift_us[a]) {
                    shift_us[a] = most;
                    changed = true;
                }
            }
        }
    }
}

static void summarize(const mhp_trace_set *set, const double *slack_us, mhp_clocks *clocks)
{
    for (int rank = 0; rank < set->count; rank++) {
        const mhp_trace *trace = &set->ranks[rank];
        double rate = (double)(trace->after.reference_ns - trace->before.reference_ns) /
                      (double)(trace->after.local_ns - trace->before.local_ns);

        clocks->error_us = fmax(clocks->error_us, 1e-3 * (double)trace->before.error_ns);
        clocks->error_us = fmax(clocks->error_us, 1e-3 * (double)trace->after.error_ns);
        clocks->drift_ppm =
            fabs(1 / rate - 1) * 1e6 > fabs(clocks->drift_ppm) ? (1 / rate - 1) * 1e6 : clocks->drift_ppm;
        clocks->shift_most_us = fmax(clocks->shift_most_us, fabs(clocks->shift_us[rank]));
        for (int to = 0; to < set->count; to++) {
            double left_us = slack_us[(size_t)rank * (size_t)set->count + (size_t)to] + clocks->shift_us[to] -
                             clocks->shift_us[rank];

            if (left_us < -1e-6) {
                clocks->clamped_count++;
                clocks->clamped_most_us = fmax(clocks->clamped_most_us, -left_us);
            }
        }
    }
}

mhp_status mhp_clocks_create(const mhp_trace_set *set, mhp_clocks *clocks_out)
{
    mhp_status status = MHP_OK;
    size_t count = (size_t)set->count;
    double *slack_us = NULL;

    *clocks_out = (mhp_clocks){0};
    MHP_TRY(out, mhp_calloc(&clocks_out->shift_us, count, sizeof *clocks_out->shift_us));
    MHP_TRY(out, mhp_calloc(&slack_us, count * count, sizeof *slack_us));
    for (size_t i = 0; i < count * count; i++) {
        slack_us[i] = INFINITY;
    }
    for (int step = 0; step < set->ranks[0].step_count; step++) {
        MHP_TRY(out, find_slack(set, step, slack_us));
    }
    find_shifts(set->count, slack_us, clocks_out->shift_us);
    summarize(set, slack_us, clocks_out);
out:
    mhp_free(slack_us);
    return status;
}

void mhp_clocks_release(mhp_clocks *clocks)
{
    mhp_free(clocks->shift_us);
    *clocks = (mhp_clocks){0};
}

/* ---- a step ---- */

typedef struct keyed {
    transfer_key key;
    int index; /* of the transfer */
} keyed;

typedef struct builder {
    const mhp_trace_set *set;
    const mhp_clocks *clocks;
    int step;
    mhp_timeline *out;
    origin_list origins;
    keyed *keys; /* [transfer], sorted */
} builder;

static double at_us(const builder *b, int rank, int64_t local_ns)
{
    return common_us(b->set, b->clocks->shift_us, rank, local_ns) - b->out->origin_us;
}

static bool is_on_compute(const mhp_trace_span *span)
{
    return span->lane == MHP_LANE_COMPUTE &&
           (span->kind == MHP_TRACE_GROUP || span->kind == MHP_TRACE_WAIT || span->kind == MHP_TRACE_PHASE);
}

static mhp_status find_begin(builder *b)
{
    b->out->origin_us = INFINITY;
    for (int rank = 0; rank < b->set->count; rank++) {
        size_t count;
        const mhp_trace_span *spans = mhp_trace_step(&b->set->ranks[rank], b->step, &count);

        if (count == 0 || spans->kind != MHP_TRACE_STEP) {
            return mhp_error_set(MHP_ERR_FORMAT, "the trace of rank %d lacks the span of step %d itself", rank,
                                 b->step);
        }
        b->out->origin_us = fmin(b->out->origin_us, common_us(b->set, b->clocks->shift_us, rank, spans->start_ns));
    }
    return MHP_OK;
}

static mhp_timed_span timed(const builder *b, int rank, const mhp_trace_span *span)
{
    return (mhp_timed_span){span, at_us(b, rank, span->start_ns), at_us(b, rank, span->end_ns), {-1, -1}};
}

static mhp_status time_rank(builder *b, int rank)
{
    mhp_status status = MHP_OK;
    mhp_timed_rank *out = &b->out->ranks[rank];
    size_t count, on_compute = 0;
    const mhp_trace_span *spans = mhp_trace_step(&b->set->ranks[rank], b->step, &count);
    mhp_timed_span *compute = NULL;

    MHP_TRY(out_label, mhp_calloc(&compute, count, sizeof *compute));
    MHP_TRY(out_label, mhp_calloc(&out->beside, count, sizeof *out->beside));
    out->begin_us = at_us(b, rank, spans->start_ns);
    out->end_us = at_us(b, rank, spans->end_ns);
    b->out->end_us = fmax(b->out->end_us, out->end_us);
    for (size_t i = 1; i < count; i++) {
        if (spans[i].kind == MHP_TRACE_GROUP && spans[i].lane != MHP_LANE_COMPUTE) {
            out->beside[out->beside_count++] = timed(b, rank, &spans[i]);
        }
        if (!is_on_compute(&spans[i])) {
            continue;
        }
        if (on_compute > 0 && spans[i].start_ns != compute[on_compute - 1].span->end_ns) {
            MHP_RAISE(out_label, MHP_ERR_FORMAT, "the trace of rank %d has a gap on the compute stream before span %zu", rank, i);
        }
        compute[on_compute++] = timed(b, rank, &spans[i]);
    }
    MHP_TRY(out_label, mhp_timed_rank_join_lanes(out, compute, on_compute));
out_label:
    mhp_free(compute);
    return status;
}

/* ---- transfers ---- */

static mhp_status add_message(builder *b, const mhp_trace *trace, const mhp_trace_span *span)
{
    const origin *from;
    mhp_transfer message = {
        .cause = (mhp_trace_cause)span->cause,
        .stage = span->stage,
        .microbatch = span->microbatch,
        .source = span->peer,
        .target = trace->rank,
        .slot = span->slot,
        .bytes = span->bytes,
        .arrived_us = at_us(b, trace->rank, span->end_ns),
        .posted_us = at_us(b, trace->rank, span->start_ns),
    };

    MHP_RETURN_IF_ERROR(find_origin(&b->origins, trace, span, &from));
    message.made_us = fmin(from->made_us - b->out->origin_us, message.arrived_us);
    message.setoff_us = fmax(message.made_us, message.posted_us);
    message.start_us = message.setoff_us;
    b->keys[b->out->transfer_count] = (keyed){
        key_of(message.cause, message.stage, message.microbatch, replica_of(trace)), (int)b->out->transfer_count};
    b->out->transfers[b->out->transfer_count++] = message;
    return MHP_OK;
}

static void add_collective(builder *b, int rank, const mhp_trace_span *span)
{
    mhp_transfer part = {
        .cause = (mhp_trace_cause)span->cause,
        .stage = span->stage,
        .microbatch = -1,
        .source = rank,
        .target = rank,
        .slot = -1,
        .bytes = span->bytes,
        .made_us = at_us(b, rank, span->start_ns),
        .posted_us = at_us(b, rank, span->start_ns),
        .arrived_us = at_us(b, rank, span->end_ns),
    };

    b->keys[b->out->transfer_count] = (keyed){key_of(part.cause, part.stage, -1, rank), (int)b->out->transfer_count};
    b->out->transfers[b->out->transfer_count++] = part;
}

/* The wait for what the whole world does is this rank's part in it. */
static bool is_world_wait(const mhp_trace_span *span)
{
    return span->kind == MHP_TRACE_WAIT && (span->cause == MHP_CAUSE_NORM || span->cause == MHP_CAUSE_STATISTICS);
}

static int compare_keys(const void *left, const void *right)
{
    const keyed *a = left, *b = right;

    return (a->key > b->key) - (a->key < b->key);
}

/* Neighbours in the order of keys are members of one collective if only the rank differs. */
static void join_members(builder *b)
{
    size_t count = b->out->transfer_count;

    for (size_t first = 0, end; first < count; first = end) {
        transfer_key group = b->keys[first].key >> RANK_BITS;
        const mhp_transfer *last = &b->out->transfers[b->keys[first].index];

        for (end = first; end < count && b->keys[end].key >> RANK_BITS == group; end++) {
            const mhp_transfer *member = &b->out->transfers[b->keys[end].index];

            last = member->posted_us > last->posted_us ? member : last;
        }
        if (last->cause == MHP_CAUSE_STATE || last->cause == MHP_CAUSE_GRADIENT) {
            continue;
        }
        for (size_t i = first; i < end; i++) {
            mhp_transfer *member = &b->out->transfers[b->keys[i].index];

            member->source = last->target;
            member->made_us = fmin(last->posted_us, member->arrived_us);
            member->setoff_us = member->start_us = member->made_us;
        }
    }
}

/* Messages of a channel follow each other. The list is short: a rank has a channel for each of its stages and
 * neighbours. */
static void queue_messages(builder *b, size_t first)
{
    mhp_transfer *transfers = b->out->transfers;

    for (size_t i = first; i < b->out->transfer_count; i++) {
        for (size_t j = i; j-- > first;) {
            if (transfers[j].cause == transfers[i].cause && transfers[j].stage == transfers[i].stage &&
                transfers[j].source == transfers[i].source) {
                transfers[i].start_us =
                    fmin(fmax(transfers[i].setoff_us, transfers[j].arrived_us), transfers[i].arrived_us);
                break;
            }
        }
    }
}

static mhp_status add_transfers(builder *b)
{
    size_t count = count_spans(b->set, b->step);

    MHP_RETURN_IF_ERROR(mhp_calloc(&b->out->transfers, count, sizeof *b->out->transfers));
    MHP_RETURN_IF_ERROR(mhp_calloc(&b->keys, count, sizeof *b->keys));
    for (int rank = 0; rank < b->set->count; rank++) {
        const mhp_trace *trace = &b->set->ranks[rank];
        size_t first = b->out->transfer_count;
        const mhp_trace_span *spans = mhp_trace_step(trace, b->step, &count);

        for (size_t i = 0; i < count; i++) {
            if (spans[i].kind == MHP_TRACE_MESSAGE) {
                MHP_RETURN_IF_ERROR(add_message(b, trace, &spans[i]));
            }
        }
        queue_messages(b, first);
        for (size_t i = 0; i < count; i++) {
            if (spans[i].kind == MHP_TRACE_COLLECTIVE || is_world_wait(&spans[i])) {
                add_collective(b, rank, &spans[i]);
            }
        }
    }
    qsort(b->keys, b->out->transfer_count, sizeof *b->keys, compare_keys);
    join_members(b);
    return MHP_OK;
}

/* ---- what waits were for ---- */

static int find_transfer(const builder *b, transfer_key key)
{
    keyed wanted = {.key = key};
    const keyed *found = bsearch(&wanted, b->keys, b->out->transfer_count, sizeof wanted, compare_keys);

    return found ? found->index : -1;
}

/* A wait for an output slot: of the lane that fills it, or of compute for that lane. */
typedef struct slot_use {
    const mhp_trace_span *span;
    double start_us;
    size_t at; /* in the rank's spans; SIZE_MAX: another lane's */
} slot_use;

static int compare_uses(const void *left, const void *right)
{
    const slot_use *a = left, *b = right;
    int difference = a->span->stage != b->span->stage ? a->span->stage - b->span->stage
                     : a->span->pass != b->span->pass ? a->span->pass - b->span->pass
                                                      : a->span->slot - b->span->slot;

    return difference ? difference : (a->start_us > b->start_us) - (a->start_us < b->start_us);
}

static bool is_same_slot(const mhp_trace_span *a, const mhp_trace_span *b)
{
    return a->stage == b->stage && a->pass == b->pass && a->slot == b->slot;
}

static bool waits_for_slot(const mhp_trace_span *span)
{
    return span->kind == MHP_TRACE_WAIT && span->slot >= 0;
}

static mhp_status find_uses(const builder *b, int rank, slot_use **uses_out, size_t *count_out)
{
    const mhp_timed_rank *out = &b->out->ranks[rank];
    size_t span_count;
    const mhp_trace_span *spans = mhp_trace_step(&b->set->ranks[rank], b->step, &span_count);

    *count_out = 0;
    MHP_RETURN_IF_ERROR(mhp_calloc(uses_out, out->span_count + span_count, sizeof **uses_out));
    for (size_t i = 0; i < out->span_count; i++) {
        if (waits_for_slot(out->spans[i].span)) {
            (*uses_out)[(*count_out)++] = (slot_use){out->spans[i].span, out->spans[i].start_us, i};
        }
    }
    for (size_t i = 0; i < span_count; i++) {
        if (waits_for_slot(&spans[i]) && spans[i].lane != MHP_LANE_COMPUTE) {
            (*uses_out)[(*count_out)++] = (slot_use){&spans[i], at_us(b, rank, spans[i].start_ns), SIZE_MAX};
        }
    }
    qsort(*uses_out, *count_out, sizeof **uses_out, compare_uses);
    return MHP_OK;
}

/* The message that lay in the slot before must have left. */
static mhp_status join_slots(builder *b, int rank)
{
    const mhp_trace *trace = &b->set->ranks[rank];
    slot_use *uses = NULL;
    size_t count = 0;

    MHP_RETURN_IF_ERROR(find_uses(b, rank, &uses, &count));
    for (size_t i = 1, before = 0; i < count; i++) {
        if (uses[i].span->microbatch != uses[i - 1].span->microbatch || !is_same_slot(uses[i].span, uses[i - 1].span)) {
            before = i - 1;
        }
        if (uses[i].at != SIZE_MAX && is_same_slot(uses[i].span, uses[before].span) &&
            uses[i].span->microbatch != uses[before].span->microbatch) {
            b->out->ranks[rank].spans[uses[i].at].awaited[1] = find_transfer(b, made_key(trace, uses[before].span));
        }
    }
    mhp_free(uses);
    return MHP_OK;
}

static void join_inputs(builder *b, int rank)
{
    mhp_timed_rank *out = &b->out->ranks[rank];

    for (size_t i = 0; i < out->span_count; i++) {
        const mhp_trace_span *span = out->spans[i].span;
        bool message = span->cause == MHP_CAUSE_STATE || span->cause == MHP_CAUSE_GRADIENT;

        if (span->kind == MHP_TRACE_WAIT) {
            out->spans[i].awaited[0] =
                find_transfer(b, key_of((mhp_trace_cause)span->cause, span->stage, span->microbatch,
                                        message ? replica_of(&b->set->ranks[rank]) : rank));
        }
    }
}

mhp_status mhp_timeline_create(const mhp_trace_set *set, const mhp_clocks *clocks, int step, mhp_timeline *timeline_out)
{
    mhp_status status = MHP_OK;
    builder b = {.set = set, .clocks = clocks, .step = step, .out = timeline_out};

    *timeline_out = (mhp_timeline){.rank_count = set->count};
    MHP_TRY(out, find_begin(&b));
    MHP_TRY(out, mhp_calloc(&timeline_out->ranks, (size_t)set->count, sizeof *timeline_out->ranks));
    for (int rank = 0; rank < set->count; rank++) {
        MHP_TRY(out, time_rank(&b, rank));
    }
    MHP_TRY(out, find_origins(set, clocks->shift_us, step, &b.origins));
    MHP_TRY(out, add_transfers(&b));
    for (int rank = 0; rank < set->count; rank++) {
        join_inputs(&b, rank);
        MHP_TRY(out, join_slots(&b, rank));
    }
out:
    mhp_free(b.origins.items);
    mhp_free(b.keys);
    return status;
}

void mhp_timeline_release(mhp_timeline *timeline)
{
    for (int rank = 0; timeline->ranks && rank < timeline->rank_count; rank++) {
        mhp_free(timeline->ranks[rank].spans);
        mhp_free(timeline->ranks[rank].beside);
    }
    mhp_free(timeline->ranks);
    mhp_free(timeline->transfers);
    *timeline = (mhp_timeline){0};
}

mhp_timed_wait mhp_timeline_wait(const mhp_timed_rank *rank, size_t index)
{
    mhp_timed_wait wait = {0};
    size_t first = index;

    while (first > 0 && rank->spans[first - 1].span->kind == MHP_TRACE_WAIT) {
        first--;
    }
    wait.start_us = rank->spans[first].start_us;
    for (wait.end = first; wait.end < rank->span_count && rank->spans[wait.end].span->kind == MHP_TRACE_WAIT;
         wait.end++) {
        for (int i = 0; i < 2; i++) {
            if (rank->spans[wait.end].awaited[i] >= 0 && wait.awaited_count < MHP_AWAITED_MAX) {
                wait.awaited[wait.awaited_count++] = rank->spans[wait.end].awaited[i];
            }
        }
        wait.end_us = rank->spans[wait.end].end_us;
    }
    return wait;
}

double mhp_timeline_us(const mhp_trace_set *set, const mhp_clocks *clocks, const mhp_timeline *timeline, int rank,
                       int64_t local_ns)
{
    return common_us(set, clocks->shift_us, rank, local_ns) - timeline->origin_us;
}
