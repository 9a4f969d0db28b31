/* The simulator's engine. Times only ever depend on earlier ones, so a rank runs on as far as its inputs' times are
 * known, however far ahead of the others that is. Only what shares a resource with an order that depends on time -
 * messages on a link, reductions on a rank - goes through a heap, and is decided when nothing earlier can come any
 * more. */
#include "scheduler/simulate.h"

#include <string.h>

#include "core/memory.h"
#include "scheduler/occupancy.h"
#include "scheduler/simulate_internal.h"

bool mhp_action_takes_time(const mhp_action *action)
{
    return action->kind <= MHP_ACTION_WEIGHT_GRADIENT || action->kind == MHP_ACTION_REBUILD ||
           action->kind == MHP_ACTION_OVERLAP_F_B;
}

double mhp_action_us(const mhp_costs *costs, const mhp_action *action)
{
    const mhp_stage_costs *stage = mhp_costs_stage(costs, action->stage);

    switch (action->kind) {
    case MHP_ACTION_FORWARD:
        return stage->forward_us;
    case MHP_ACTION_BACKWARD:
        return stage->input_gradient_us + stage->weight_gradient_us;
    case MHP_ACTION_INPUT_GRADIENT:
        return stage->input_gradient_us;
    case MHP_ACTION_WEIGHT_GRADIENT:
        return stage->weight_gradient_us;
    case MHP_ACTION_REBUILD:
        return mhp_stage_rebuild_us(stage);
    case MHP_ACTION_OVERLAP_F_B:
        return mhp_pair_us(stage, mhp_costs_stage(costs, action->backward_stage));
    default:
        return 0;
    }
}

static double later(double a, double b)
{
    return a > b ? a : b;
}

/* ---- messages ---- */

static mhp_status launch(sim *s, int kind, int stage, int microbatch)
{
    double produced_us = sim_produced_us(s, kind, stage, microbatch);
    double posted_us = s->messages[kind][sim_cell(s, stage, microbatch)].posted_us;

    if (produced_us == SIM_NOT_YET || posted_us == SIM_NOT_YET) {
        return MHP_OK;
    }
    return mhp_heap_push(&s->events,
                         (mhp_heap_event){later(produced_us, posted_us), sim_message_id(s, kind, stage, microbatch)});
}

/* Posts the receive if its slot is free and the one before it is posted; then those behind it in the channel. */
static mhp_status post(sim *s, int kind, int stage, int microbatch)
{
    while (microbatch >= 0) {
        sim_message *message = &s->messages[kind][sim_cell(s, stage, microbatch)];
        double posted_us = 0;

        if (message->posted_us != SIM_NOT_YET) {
            return MHP_OK;
        }
        if (message->channel_before >= 0) {
            double before_us = s->messages[kind][sim_cell(s, stage, message->channel_before)].posted_us;

            if (before_us == SIM_NOT_YET) {
                return MHP_OK;
            }
            posted_us = before_us;
        }
        if (message->slot_before >= 0) {
            double release_us = sim_release_us(s, stage, message->slot_before);

            if (release_us == SIM_NOT_YET) {
                return MHP_OK;
            }
            posted_us = later(posted_us, release_us);
        }
        message->posted_us = posted_us;
        MHP_RETURN_IF_ERROR(launch(s, kind, stage, microbatch));
        microbatch = message->channel_after;
    }
    return MHP_OK;
}

/* The first receive of every channel waits for nobody in it. */
static mhp_status post_first(sim *s)
{
    for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
        for (int stage = 0; stage < s->plan->stage_count; stage++) {
            for (int m = 0; m < s->plan->microbatch_count; m++) {
                int source = sim_source(k, stage);

                if (sim_is_stage(s, source) && sim_crosses(s, stage, source, m) &&
                    s->messages[k][sim_cell(s, stage, m)].channel_before < 0) {
                    MHP_RETURN_IF_ERROR(post(s, k, stage, m));
                }
            }
        }
    }
    return MHP_OK;
}

static void wake(sim *s, int rank)
{
    if (!s->ranks[rank].queued) {
        s->ranks[rank].queued = true;
        s->work[s->work_count++] = rank;
    }
}

/* Writes when a message was under way to its SEND and RECV, if the plan has them. */
static void note_message(sim *s, int kind, int stage, int microbatch, int source_rank, int target_rank)
{
    const sim_message *message = &s->messages[kind][sim_cell(s, stage, microbatch)];
    int send = mhp_index_at(s->plan, &s->index, mhp_message_kinds[kind].send, sim_source(kind, stage), microbatch);
    int receive = mhp_index_at(s->plan, &s->index, mhp_message_kinds[kind].receive, stage, microbatch);

    if (send >= 0) {
        s->out->ranks[source_rank].spans[send] = (mhp_span){message->start_us, message->end_us};
    }
    if (receive >= 0) {
        s->out->ranks[target_rank].spans[receive] = (mhp_span){message->posted_us, message->end_us};
    }
}

static void move_message(sim *s, double ready_us, uint32_t id)
{
    size_t cells = (size_t)s->plan->stage_count * (size_t)s->plan->microbatch_count;
    int kind = id >= cells;
    int stage = (int)((id - (size_t)kind * cells) / (size_t)s->plan->microbatch_count);
    int microbatch = (int)((id - (size_t)kind * cells) % (size_t)s->plan->microbatch_count);
    int source = mhp_plan_owner(s->plan, sim_source(kind, stage), microbatch);
    int target = mhp_plan_owner(s->plan, stage, microbatch);
    size_t pair = (size_t)source * (size_t)s->plan->rank_count + (size_t)target;
    sim_link *link = &s->links[pair];
    sim_message *message = &s->messages[kind][id - (size_t)kind * cells];

    message->start_us = later(ready_us, link->free_us);
    message->queue_before = link->free_us > ready_us ? link->last : -1;
    link->free_us = message->start_us + s->link_times[pair].busy_us;
    link->last = (int)id;
    message->end_us = link->free_us + s->link_times[pair].latency_us;
    s->out->ranks[source].message_count++;
    s->out->ranks[source].message_bytes += s->costs->message_bytes;
    note_message(s, kind, stage, microbatch, source, target);
    wake(s, target);
    wake(s, source);
}

/* ---- compute ---- */

/* What an action waits for: when it could start, and when it could if messages took no time. */
typedef struct sim_wait {
    double start_us, free_messages_us;
} sim_wait;

static bool wait_until(sim_wait *wait, double time_us)
{
    wait->start_us = later(wait->start_us, time_us);
    wait->free_messages_us = later(wait->free_messages_us, time_us);
    return time_us != SIM_NOT_YET;
}

static bool wait_for_message(const sim *s, sim_wait *wait, int kind, int stage, int microbatch)
{
    const sim_message *message = &s->messages[kind][sim_cell(s, stage, microbatch)];

    if (message->end_us == SIM_NOT_YET) {
        return false;
    }
    wait->start_us = later(wait->start_us, message->end_us);
    wait->free_messages_us =
        later(wait->free_messages_us, later(sim_produced_us(s, kind, stage, microbatch), message->posted_us));
    return true;
}

/* The input of a forward or an input gradient, from the neighbour's stage. */
static bool wait_for_input(const sim *s, sim_wait *wait, int kind, int stage, int microbatch)
{
    int source = sim_source(kind, stage);

    if (!sim_is_stage(s, source)) {
        return true;
    }
    if (sim_crosses(s, stage, source, microbatch)) {
        return wait_for_message(s, wait, kind, stage, microbatch);
    }
    return wait_until(wait, sim_produced_us(s, kind, stage, microbatch));
}

/* The slot for the output: the message that lay in it must have left. */
static bool wait_for_output(const sim *s, sim_wait *wait, int kind, int stage, int microbatch)
{
    int target = sim_target(kind, stage);
    int before;

    if (!sim_is_stage(s, target)) {
        return true;
    }
    before = s->messages[kind][sim_cell(s, target, microbatch)].output_before;
    return before < 0 || wait_for_message(s, wait, kind, target, before);
}

static bool wait_for_forward(const sim *s, sim_wait *wait, int stage, int microbatch)
{
    return wait_for_input(s, wait, MHP_MESSAGE_STATE, stage, microbatch) &&
           wait_for_output(s, wait, MHP_MESSAGE_STATE, stage, microbatch);
}

static bool wait_for_gradient(const sim *s, sim_wait *wait, int stage, int microbatch)
{
    return wait_until(wait, s->forward_end_us[sim_cell(s, stage, microbatch)]) &&
           wait_for_input(s, wait, MHP_MESSAGE_GRADIENT, stage, microbatch) &&
           wait_for_output(s, wait, MHP_MESSAGE_GRADIENT, stage, microbatch);
}

/* False if something that the action needs has no time yet. */
static bool wait_for(const sim *s, sim_wait *wait, const mhp_action *action)
{
    int stage, microbatch;

    if (action->kind == MHP_ACTION_WEIGHT_GRADIENT) {
        return wait_until(wait, s->gradient_end_us[sim_cell(s, action->stage, action->microbatch)]);
    }
    if (mhp_action_does(action, MHP_DO_FORWARD, &stage, &microbatch) && !wait_for_forward(s, wait, stage, microbatch)) {
        return false;
    }
    return !mhp_action_does(action, MHP_DO_INPUT_GRADIENT, &stage, &microbatch) ||
           wait_for_gradient(s, wait, stage, microbatch);
}

static mhp_status made(sim *s, int kind, int stage, int microbatch)
{
    int target = sim_target(kind, stage);

    return sim_crosses(s, stage, target, microbatch) ? launch(s, kind, target, microbatch) : MHP_OK;
}

/* The micro-batch's input slots are free: whoever gets them next may be posted. */
static mhp_status release(sim *s, int stage, int microbatch)
{
    size_t cell = sim_cell(s, stage, microbatch);

    for (int k = 0; k < MHP_MESSAGE_KINDS; k++) {
        MHP_RETURN_IF_ERROR(post(s, k, stage, s->messages[k][cell].slot_after));
    }
    return MHP_OK;
}

static mhp_status end_forward(sim *s, int stage, int microbatch, double end_us)
{
    s->forward_end_us[sim_cell(s, stage, microbatch)] = end_us;
    MHP_RETURN_IF_ERROR(made(s, MHP_MESSAGE_STATE, stage, microbatch));
    return s->plan->forward_only ? release(s, stage, microbatch) : MHP_OK;
}

static mhp_status end_gradient(sim *s, int stage, int microbatch, double end_us)
{
    s->gradient_end_us[sim_cell(s, stage, microbatch)] = end_us;
    MHP_RETURN_IF_ERROR(made(s, MHP_MESSAGE_GRADIENT, stage, microbatch));
    return release(s, stage, microbatch);
}

static mhp_status finish(sim *s, const mhp_action *action, double start_us, double end_us)
{
    int stage, microbatch;

    if (mhp_action_does(action, MHP_DO_FORWARD, &stage, &microbatch)) {
        MHP_RETURN_IF_ERROR(end_forward(s, stage, microbatch, end_us));
    }
    if (!mhp_action_does(action, MHP_DO_INPUT_GRADIENT, &stage, &microbatch)) {
        return MHP_OK;
    }
    if (action->kind == MHP_ACTION_BACKWARD && s->early_gradient) {
        end_us = start_us + mhp_costs_stage(s->costs, stage)->input_gradient_us;
    }
    return end_gradient(s, stage, microbatch, end_us);
}

static mhp_status reach_reduction(sim *s, int rank, int stage)
{
    sim_reduction *reduction = &s->reductions[stage];
    size_t cells = (size_t)s->plan->stage_count * (size_t)s->plan->microbatch_count;

    reduction->ready_us = later(reduction->ready_us, s->ranks[rank].free_us);
    if (--reduction->waiting > 0) {
        return MHP_OK;
    }
    return mhp_heap_push(
        &s->events, (mhp_heap_event){reduction->ready_us, (uint32_t)(MHP_MESSAGE_KINDS * cells) + (uint32_t)stage});
}

static void reduce(sim *s, double ready_us, int stage)
{
    const sim_reduction *reduction = &s->reductions[stage];
    double start_us = ready_us;

    for (int i = reduction->first_holder; i >= 0; i = s->holders[i].next) {
        start_us = later(start_us, s->ranks[s->holders[i].rank].reduce_free_us);
    }
    for (int i = reduction->first_holder; i >= 0; i = s->holders[i].next) {
        const sim_holder *holder = &s->holders[i];

        s->ranks[holder->rank].reduce_free_us = start_us + s->costs->all_reduce_us;
        s->out->ranks[holder->rank].spans[holder->position] = (mhp_span){start_us, start_us + s->costs->all_reduce_us};
    }
}

/* Runs the rank's next action if the times of all that it needs are known; *ran_out says whether. */
static mhp_status step(sim *s, int rank, bool *ran_out)
{
    sim_rank *at = &s->ranks[rank];
    mhp_rank_simulation *out = &s->out->ranks[rank];
    const mhp_action *action = &s->plan->ranks[rank].actions.items[at->next];
    sim_wait wait = {at->free_us, at->free_us};
    double time_us;

    *ran_out = true;
    if (action->kind == MHP_ACTION_REDUCE_GRAD) {
        at->next++;
        return reach_reduction(s, rank, action->stage);
    }
    if (!mhp_action_takes_time(action)) {
        at->next++;
        return MHP_OK;
    }
    if (!wait_for(s, &wait, action)) {
        *ran_out = false;
        return MHP_OK;
    }
    time_us = mhp_action_us(s->costs, action);
    out->spans[at->next++] = (mhp_span){wait.start_us, wait.start_us + time_us};
    out->busy_us += time_us;
    out->exposed_us += wait.start_us - wait.free_messages_us;
    at->free_us = wait.start_us + time_us;
    return finish(s, action, wait.start_us, at->free_us);
}

static mhp_status run_ranks(sim *s)
{
    while (s->work_count > 0) {
        int rank = s->work[--s->work_count];
        bool ran = true;

        s->ranks[rank].queued = false;
        while (ran && s->ranks[rank].next < s->plan->ranks[rank].actions.count) {
            MHP_RETURN_IF_ERROR(step(s, rank, &ran));
        }
    }
    return MHP_OK;
}

static mhp_status run(sim *s)
{
    size_t message_ids = MHP_MESSAGE_KINDS * (size_t)s->plan->stage_count * (size_t)s->plan->microbatch_count;
    mhp_heap_event event;

    if (s->plan->lowered) {
        MHP_RETURN_IF_ERROR(post_first(s));
    }
    for (int r = 0; r < s->plan->rank_count; r++) {
        wake(s, r);
    }
    MHP_RETURN_IF_ERROR(run_ranks(s));
    while (mhp_heap_pop(&s->events, &event)) {
        if (event.id < message_ids) {
            move_message(s, event.time_us, event.id);
        } else {
            reduce(s, event.time_us, (int)(event.id - message_ids));
        }
        MHP_RETURN_IF_ERROR(run_ranks(s));
    }
    for (int r = 0; r < s->plan->rank_count; r++) {
        if (s->ranks[r].next < s->plan->ranks[r].actions.count) {
            return mhp_plan_error(s->plan, r, s->ranks[r].next, "can never run: rank %d never gets past position %zu",
                                  r, s->ranks[r].next);
        }
    }
    return MHP_OK;
}

/* ---- results ---- */

static void note_makespan(sim *s)
{
    double compute_end_us = 0;

    for (int r = 0; r < s->plan->rank_count; r++) {
        s->out->ranks[r].compute_end_us = s->ranks[r].free_us;
        compute_end_us = later(compute_end_us, s->ranks[r].free_us);
        s->end_us = later(s->end_us, s->ranks[r].reduce_free_us);
    }
    s->end_us = later(s->end_us, compute_end_us);
    s->out->reduce_exposed_us = s->end_us - compute_end_us;
    s->out->optimizer_us = s->plan->forward_only ? 0 : s->costs->optimizer_us;
    s->out->makespan_us = s->end_us + s->out->optimizer_us;
    for (int r = 0; r < s->plan->rank_count; r++) {
        s->out->ranks[r].busy_us += s->out->optimizer_us;
        s->out->ranks[r].bubble_us = s->out->makespan_us - s->out->ranks[r].busy_us;
    }
}

static mhp_status note_memory(sim *s)
{
    mhp_occupancy_plan whole;
    mhp_status status = MHP_OK;

    MHP_TRY(out, mhp_occupancy_plan_create(s->plan, s->costs, &whole));
    for (int r = 0; r < s->plan->rank_count; r++) {
        const mhp_action_list *list = &s->plan->ranks[r].actions;
        mhp_rank_simulation *out = &s->out->ranks[r];
        mhp_occupancy now;

        mhp_occupancy_begin(&now, &whole, r);
        for (size_t i = 0; i < list->count; i++) {
            mhp_occupancy_start(&now, &list->items[i]);
            mhp_occupancy_end(&now, &list->items[i]);
        }
        out->activations_peak = now.activations_peak;
        out->held_peak = now.held_peak;
        out->bytes_base = whole.base_bytes[r];
        out->bytes_peak = now.bytes_peak;
    }
out:
    mhp_occupancy_plan_destroy(&whole);
    return status;
}

static mhp_status create_results(const mhp_plan *plan, mhp_simulation *out)
{
    out->rank_count = plan->rank_count;
    MHP_RETURN_IF_ERROR(mhp_calloc(&out->ranks, (size_t)plan->rank_count, sizeof *out->ranks));
    for (int r = 0; r < plan->rank_count; r++) {
        MHP_RETURN_IF_ERROR(
            mhp_calloc(&out->ranks[r].spans, plan->ranks[r].actions.count, sizeof *out->ranks[r].spans));
    }
    return MHP_OK;
}

mhp_status mhp_simulate(const mhp_plan *plan, const mhp_simulate_params *params, mhp_simulation *simulation_out)
{
    mhp_status status = MHP_OK;
    sim s = {.plan = plan, .costs = params->costs, .early_gradient = params->early_gradient, .out = simulation_out};

    memset(simulation_out, 0, sizeof *simulation_out);
    MHP_TRY(out, mhp_costs_check(params->costs, plan->rank_count, plan->stage_count));
    MHP_TRY(out, create_results(plan, simulation_out));
    MHP_TRY(out, mhp_sim_setup(&s));
    MHP_TRY(out, run(&s));
    note_makespan(&s);
    MHP_TRY(out, note_memory(&s));
    MHP_TRY(out, mhp_sim_trace_path(&s));
out:
    mhp_sim_destroy(&s);
    return status;
}

void mhp_simulation_release(mhp_simulation *simulation)
{
    for (int r = 0; simulation->ranks && r < simulation->rank_count; r++) {
        mhp_free(simulation->ranks[r].spans);
    }
    mhp_free(simulation->ranks);
    mhp_free(simulation->path);
    memset(simulation, 0, sizeof *simulation);
}

double mhp_simulation_worst_bubble(const mhp_simulation *simulation)
{
    double worst_us = 0;

    for (int r = 0; r < simulation->rank_count; r++) {
        worst_us = later(worst_us, simulation->ranks[r].bubble_us);
    }
    return simulation->makespan_us > 0 ? worst_us / simulation->makespan_us : 0;
}

double mhp_simulation_mean_bubble(const mhp_simulation *simulation)
{
    double sum_us = 0;

    for (int r = 0; r < simulation->rank_count; r++) {
        sum_us += simulation->ranks[r].bubble_us;
    }
    return simulation->makespan_us > 0 ? sum_us / simulation->rank_count / simulation->makespan_us : 0;
}

int64_t mhp_simulation_peak_bytes(const mhp_simulation *simulation)
{
    int64_t peak = 0;

    for (int r = 0; r < simulation->rank_count; r++) {
        peak = simulation->ranks[r].bytes_peak > peak ? simulation->ranks[r].bytes_peak : peak;
    }
    return peak;
}
