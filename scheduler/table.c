#include "scheduler/table.h"

#include <errno.h>
#include <string.h>

#include "core/memory.h"

enum { CELL_BYTES_MAX = 96, NOT_DONE = -1 };

/* When things end, in units; a rank's next action and the time at which the rank is free. */
typedef struct timeline {
    const mhp_plan *plan;
    int *forward, *input_gradient; /* [stage][microbatch] */
    size_t *next; /* [rank] */
    int *free_at; /* [rank] */
    int **start;  /* [rank][action]; NOT_DONE for what takes no time */
} timeline;

static int duration(const mhp_action *action)
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

static int *cell(const timeline *t, int *times, int stage, int microbatch)
{
    return &times[(size_t)stage * (size_t)t->plan->microbatch_count + (size_t)microbatch];
}

/* Raises *at to the end of what the forward needs; false if that has not run. */
static bool forward_ready(const timeline *t, int stage, int microbatch, int *at)
{
    int before = stage > 0 ? *cell(t, t->forward, stage - 1, microbatch) : 0;

    *at = before > *at ? before : *at;
    return before != NOT_DONE;
}

static bool gradient_ready(const timeline *t, int stage, int microbatch, int *at)
{
    bool last = stage + 1 == t->plan->stage_count;
    int own = *cell(t, t->forward, stage, microbatch);
    int after = last ? own : *cell(t, t->input_gradient, stage + 1, microbatch);

    *at = own > *at ? own : *at;
    *at = after > *at ? after : *at;
    return own != NOT_DONE && after != NOT_DONE;
}

static bool weight_ready(const timeline *t, int stage, int microbatch, int *at)
{
    int own = *cell(t, t->input_gradient, stage, microbatch);

    *at = own > *at ? own : *at;
    return own != NOT_DONE;
}

static bool is_ready(const timeline *t, const mhp_action *action, int *at)
{
    switch (action->kind) {
    case MHP_ACTION_FORWARD:
        return forward_ready(t, action->stage, action->microbatch, at);
    case MHP_ACTION_BACKWARD:
    case MHP_ACTION_INPUT_GRADIENT:
        return gradient_ready(t, action->stage, action->microbatch, at);
    case MHP_ACTION_WEIGHT_GRADIENT:
        return weight_ready(t, action->stage, action->microbatch, at);
    case MHP_ACTION_OVERLAP_F_B:
        return forward_ready(t, action->stage, action->microbatch, at) &&
               gradient_ready(t, action->backward_stage, action->backward_microbatch, at);
    default:
        return true;
    }
}

static void finish(const timeline *t, const mhp_action *action, int start)
{
    int end = start + duration(action);

    switch (action->kind) {
    case MHP_ACTION_FORWARD:
        *cell(t, t->forward, action->stage, action->microbatch) = end;
        break;
    case MHP_ACTION_BACKWARD:
    case MHP_ACTION_INPUT_GRADIENT:
        *cell(t, t->input_gradient, action->stage, action->microbatch) = end;
        break;
    case MHP_ACTION_OVERLAP_F_B:
        *cell(t, t->forward, action->stage, action->microbatch) = end;
        *cell(t, t->input_gradient, action->backward_stage, action->backward_microbatch) = end;
        break;
    default:
        break;
    }
}

/* Runs what a rank can run now; whether that was anything. */
static bool advance(timeline *t, int rank)
{
    const mhp_action_list *list = &t->plan->ranks[rank].actions;
    size_t before = t->next[rank];

    while (t->next[rank] < list->count) {
        const mhp_action *action = &list->items[t->next[rank]];
        int at = t->free_at[rank];

        if (duration(action) > 0) {
            if (!is_ready(t, action, &at)) {
                break;
            }
            t->start[rank][t->next[rank]] = at;
            t->free_at[rank] = at + duration(action);
            finish(t, action, at);
        }
        t->next[rank]++;
    }
    return t->next[rank] > before;
}

static void destroy_timeline(timeline *t)
{
    for (int r = 0; t->start && r < t->plan->rank_count; r++) {
        mhp_free(t->start[r]);
    }
    mhp_free(t->start);
    mhp_free(t->free_at);
    mhp_free(t->next);
    mhp_free(t->input_gradient);
    mhp_free(t->forward);
}

static mhp_status create_timeline(timeline *t)
{
    const mhp_plan *plan = t->plan;
    size_t ranks = (size_t)plan->rank_count;
    size_t cells = (size_t)plan->stage_count * (size_t)plan->microbatch_count;

    MHP_RETURN_IF_ERROR(mhp_calloc(&t->forward, cells, sizeof(int)));
    MHP_RETURN_IF_ERROR(mhp_calloc(&t->input_gradient, cells, sizeof(int)));
    memset(t->forward, NOT_DONE, cells * sizeof(int));
    memset(t->input_gradient, NOT_DONE, cells * sizeof(int));
    MHP_RETURN_IF_ERROR(mhp_calloc(&t->next, ranks, sizeof *t->next));
    MHP_RETURN_IF_ERROR(mhp_calloc(&t->free_at, ranks, sizeof *t->free_at));
    MHP_RETURN_IF_ERROR(mhp_calloc(&t->start, ranks, sizeof *t->start));
    for (int r = 0; r < plan->rank_count; r++) {
        size_t count = plan->ranks[r].actions.count;

        MHP_RETURN_IF_ERROR(mhp_calloc(&t->start[r], count, sizeof(int)));
        memset(t->start[r], NOT_DONE, count * sizeof(int));
    }
    return MHP_OK;
}

static mhp_status run_timeline(timeline *t)
{
    bool moved = true;

    while (moved) {
        moved = false;
        for (int r = 0; r < t->plan->rank_count; r++) {
            moved = advance(t, r) || moved;
        }
    }
    for (int r = 0; r < t->plan->rank_count; r++) {
        if (t->next[r] < t->plan->ranks[r].actions.count) {
            return mhp_error_set(MHP_ERR_PLAN, "rank %d never gets past position %zu", r, t->next[r]);
        }
    }
    return MHP_OK;
}

/* "0F3", and "3F0+0B4" for a pair. */
static void short_text(const mhp_action *action, char text[CELL_BYTES_MAX])
{
    if (action->kind == MHP_ACTION_OVERLAP_F_B) {
        snprintf(text, CELL_BYTES_MAX, "%dF%d+%dB%d", action->stage, action->microbatch,
                 action->backward_stage, action->backward_microbatch);
    } else {
        mhp_action_format(action, text, CELL_BYTES_MAX);
    }
}

/* A unit is so wide that every action fits into its time, with a space behind it. */
static int unit_width(const mhp_plan *plan)
{
    int width = 1;

    for (int r = 0; r < plan->rank_count; r++) {
        for (size_t i = 0; i < plan->ranks[r].actions.count; i++) {
            const mhp_action *action = &plan->ranks[r].actions.items[i];
            int units = duration(action);
            char text[CELL_BYTES_MAX];
            int needed;

            short_text(action, text);
            needed = units > 0 ? ((int)strlen(text) + units) / units : 0;
            width = needed > width ? needed : width;
        }
    }
    return width;
}

static void write_row(const timeline *t, int rank, int width, FILE *stream)
{
    const mhp_action_list *list = &t->plan->ranks[rank].actions;
    int at = 0;

    fprintf(stream, "rank %-3d ", rank);
    for (size_t i = 0; i < list->count; i++) {
        int start = t->start[rank][i];
        char text[CELL_BYTES_MAX];

        if (start == NOT_DONE) {
            continue;
        }
        for (; at < start; at++) {
            fprintf(stream, "%-*s", width, ".");
        }
        short_text(&list->items[i], text);
        at += duration(&list->items[i]);
        fprintf(stream, "%-*s", width * duration(&list->items[i]), text);
    }
    fputc('\n', stream);
}

static int slots_of(const mhp_plan *plan, int rank, mhp_slot_class class)
{
    int count = 0;

    for (int i = 0; i < plan->ranks[rank].stage_count; i++) {
        count += plan->ranks[rank].stages[i].count[class];
    }
    return count;
}

static void write_summary(const timeline *t, int rank, int makespan, FILE *stream)
{
    const mhp_action_list *list = &t->plan->ranks[rank].actions;
    int busy = 0, messages = 0;

    for (size_t i = 0; i < list->count; i++) {
        busy += duration(&list->items[i]);
        messages += list->items[i].kind == MHP_ACTION_SEND_F || list->items[i].kind == MHP_ACTION_SEND_B;
    }
    fprintf(stream, "%5d %7.1f %%", rank, makespan > 0 ? 100.0 * (makespan - busy) / makespan : 0.0);
    if (t->plan->lowered) {
        fprintf(stream, " %7d %12d %10d %10d", messages, slots_of(t->plan, rank, MHP_SLOT_ACTIVATION),
                slots_of(t->plan, rank, MHP_SLOT_INPUT), slots_of(t->plan, rank, MHP_SLOT_GRADIENT_INPUT));
    }
    fputc('\n', stream);
}

mhp_status mhp_plan_write_table(const mhp_plan *plan, FILE *stream)
{
    mhp_status status = MHP_OK;
    timeline t = {.plan = plan};
    int makespan = 0;
    int width = unit_width(plan);

    MHP_TRY(out, create_timeline(&t));
    MHP_TRY(out, run_timeline(&t));
    fprintf(stream, "%s: %d ranks, %d stages, %d micro-batches; a column is a unit: F, I, W 1, B 2, pair 3\n\n", plan->name,
            plan->rank_count, plan->stage_count, plan->microbatch_count);
    for (int r = 0; r < plan->rank_count; r++) {
        write_row(&t, r, width, stream);
        makespan = t.free_at[r] > makespan ? t.free_at[r] : makespan;
    }
    fprintf(stream, "\n%5s %9s%s\n", "rank", "bubble", plan->lowered ? "   sends  activations     states  gradients" : "");
    for (int r = 0; r < plan->rank_count; r++) {
        write_summary(&t, r, makespan, stream);
    }
    if (plan->lowered) {
        fprintf(stream, "activations, states and gradients: slots that the rank keeps, a micro-batch each\n");
    }
    if (ferror(stream)) {
        MHP_RAISE(out, MHP_ERR_IO, "cannot write the plan: %s", strerror(errno));
    }
out:
    destroy_timeline(&t);
    return status;
}
