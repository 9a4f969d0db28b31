/* What the files of the simulator share. Private to scheduler/simulate*.c. */
#ifndef MHP_SCHEDULER_SIMULATE_INTERNAL_H
#define MHP_SCHEDULER_SIMULATE_INTERNAL_H

#include "scheduler/heap.h"
#include "scheduler/index.h"
#include "scheduler/simulate.h"

#define SIM_NOT_YET (-1.0)

/* The message that enters a (stage, micro-batch), if it comes from another rank. Micro-batches are -1 where there is
 * none. */
typedef struct sim_message {
    double posted_us, start_us, end_us;
    int channel_before, channel_after; /* its neighbours in the order of receives */
    int slot_before, slot_after;       /* who had its slot, and who gets it */
    int output_before;                 /* whose message must have left before the one for this may be made */
    int queue_before;                  /* number of the message that it waited for on its link */
} sim_message;

/* A rank's part in the reduction of a stage; a list by stage. */
typedef struct sim_holder {
    int rank, next;
    size_t position;
} sim_holder;

typedef struct sim_reduction {
    double ready_us;
    int first_holder, waiting; /* of the holders list; how many ranks have not reached it */
} sim_reduction;

typedef struct sim_link {
    double free_us;
    int last; /* number of the message that uses it until free_us */
} sim_link;

typedef struct sim_rank {
    size_t next;
    double free_us, reduce_free_us;
    bool queued;
} sim_rank;

typedef struct sim {
    const mhp_plan *plan;
    const mhp_costs *costs;
    bool early_gradient;
    mhp_simulation *out;
    mhp_plan_index index;
    double *forward_end_us, *gradient_end_us; /* [cell]; SIM_NOT_YET */
    sim_message *messages[MHP_MESSAGE_KINDS]; /* [cell of the target] */
    mhp_link_time *link_times;                /* [source rank][target rank] */
    sim_link *links;
    sim_rank *ranks;
    sim_reduction *reductions; /* [stage] */
    sim_holder *holders;
    int holder_count, holder_capacity;
    int *work; /* ranks that may go on, a stack */
    int work_count;
    mhp_heap events;
    double end_us; /* of compute and reductions */
} sim;

static inline size_t sim_cell(const sim *s, int stage, int microbatch)
{
    return (size_t)stage * (size_t)s->plan->microbatch_count + (size_t)microbatch;
}

/* The stage that a message for `stage` comes from. */
static inline int sim_source(int kind, int stage)
{
    return stage - mhp_message_kinds[kind].step;
}

static inline bool sim_is_stage(const sim *s, int stage)
{
    return stage >= 0 && stage < s->plan->stage_count;
}

/* The stage that the message made by `stage` goes to. */
static inline int sim_target(int kind, int stage)
{
    return stage + mhp_message_kinds[kind].step;
}

static inline bool sim_crosses(const sim *s, int stage, int neighbour, int microbatch)
{
    return mhp_crosses(s->plan, stage, neighbour, microbatch) && mhp_plan_owner(s->plan, stage, microbatch) >= 0 &&
           mhp_plan_owner(s->plan, neighbour, microbatch) >= 0;
}

/* When the source has made the message for (stage, microbatch). */
static inline double sim_produced_us(const sim *s, int kind, int stage, int microbatch)
{
    const double *end_us = kind == MHP_MESSAGE_STATE ? s->forward_end_us : s->gradient_end_us;

    return end_us[sim_cell(s, sim_source(kind, stage), microbatch)];
}

/* When the slots that the micro-batch's inputs lie in are free again. */
static inline double sim_release_us(const sim *s, int stage, int microbatch)
{
    return (s->plan->forward_only ? s->forward_end_us : s->gradient_end_us)[sim_cell(s, stage, microbatch)];
}

/* Number of a message among all events: states first, then gradients, then the reductions of stages. */
static inline uint32_t sim_message_id(const sim *s, int kind, int stage, int microbatch)
{
    size_t cells = (size_t)s->plan->stage_count * (size_t)s->plan->microbatch_count;

    return (uint32_t)((size_t)kind * cells + sim_cell(s, stage, microbatch));
}

/* Allocates everything, finds who follows whom in channels and slots, and the holders of every stage. */
mhp_status mhp_sim_setup(sim *s);
void mhp_sim_destroy(sim *s);

/* Walks back from the end; everything must have run. */
mhp_status mhp_sim_trace_path(const sim *s);

#endif
