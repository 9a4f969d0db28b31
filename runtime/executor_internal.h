/* What the files of the executor share. Private to runtime/executor*. */
#ifndef MHP_RUNTIME_EXECUTOR_INTERNAL_H
#define MHP_RUNTIME_EXECUTOR_INTERNAL_H

#include "comm/seal.h"
#include "runtime/executor.h"

_Static_assert((int)MHP_SLICES_MAX <= (int)MHP_CHANNEL_PARTS_MAX, "slices are parts of messages");

/* One slot of a message class. Whoever fills it waits for `is_free` and then completes `is_ready`; whoever reads it the other way
 * round. Filling and reading is done by stages or, at the rank's border, by channels. */
typedef struct slot_events {
    mhp_event *is_ready, *is_free;
    mhp_event *slices[MHP_SLICES_MAX];              /* of a state from or to another rank: each is there; the last is is_ready */
} slot_events;

typedef struct held_slots {
    mhp_held_stage *held;
    const mhp_stage_slots *plan;
    char *memory[MHP_SLOT_CLASS_COUNT];             /* message classes only, as are stride and events */
    size_t stride[MHP_SLOT_CLASS_COUNT];
    slot_events *events[MHP_SLOT_CLASS_COUNT];
} held_slots;

/* A place that a stage fills: the slot of the neighbour on this rank, or an own slot that a channel sends. NULL past the model's end. */
typedef struct message_place {
    void *memory;
    slot_events *events;
    bool leaves;                                    /* a channel sends it */
} message_place;

typedef enum channel_kind { CHANNEL_STATE, CHANNEL_GRADIENT } channel_kind;

typedef struct channel_entry {
    channel_kind kind;
    int source_stage, source_rank, target_rank;     /* pipeline ranks */
    mhp_channel *channel;
    mhp_watch *watch;                               /* of a recorded channel's receiver */
    mhp_seals *seals;                               /* NULL: messages carry no checksums */
} channel_entry;

/* One half of an action: a pass of a micro-batch with what must precede and follow it. Halves of a pair advance in turn. */
typedef struct action_half {
    const held_slots *stage;
    int microbatch;
    mhp_lane lane;                                  /* where its steps run, but for the one that fills a message */
    mhp_cursor cursor;
    message_place target;                           /* what the pass fills for a neighbour */
    bool ended;
} action_half;

typedef struct memory_range {
    const char *begin;
    size_t bytes;
} memory_range;

/* A step that runs on a lane of its own and that the compute stream has not waited for. */
typedef struct open_step {
    mhp_event *done;
    memory_range touches[MHP_LIFE_COUNT];           /* no bytes: nothing */
    mhp_mark mark;                                  /* of the place that it waits for */
    int slot;
} open_step;

/* Open steps of a lane, in its order. The compute stream waits for one when it comes to an action that takes memory which the step
 * touches for something else, when there is no room for another, and at the end. */
enum { OPEN_STEPS_MAX = 16 };
typedef struct lane_steps {
    mhp_event *gate;                                /* what the lane's next work comes behind */
    open_step items[OPEN_STEPS_MAX];                /* a ring */
    int first, count;
} lane_steps;

struct mhp_executor {
    mhp_executor_params params;
    lane_steps lanes[MHP_LANE_COUNT];
    int rank;                                       /* pipeline rank */
    const mhp_fault *fault;                         /* of the action under way */
    bool is_hit;                                    /* the stream has it already */
    held_slots *stages;
    int stage_count;
    channel_entry *channels;
    size_t channel_count, channel_capacity;
    mhp_live *live;                                 /* may be NULL */
};

/* NULL if the rank does not hold it. */
held_slots *executor_find_stage(const mhp_executor *executor, int stage);
/* NULL if it is not open. */
channel_entry *executor_find_channel(const mhp_executor *executor, channel_kind kind, int source_stage, int source_rank, int target_rank);

static inline mhp_stream *executor_stream(const mhp_executor *executor, mhp_lane lane)
{
    return executor->params.lanes->stream[lane];
}

int executor_slot_of(const held_slots *stage, mhp_slot_class class_, int microbatch);
slot_events *executor_slot_events(const held_slots *stage, mhp_slot_class class_, int microbatch);
message_place executor_place(const held_slots *stage, mhp_slot_class class_, int microbatch);
/* Lets the fault of the action happen, where it is one of the stream. */
mhp_status executor_hit(mhp_executor *executor);
static inline bool executor_is_faulty(const mhp_executor *executor, mhp_fault_kind kind)
{
    return executor->fault && executor->fault->kind == (int)kind;
}
static inline int executor_slices(const held_slots *stage)
{
    return mhp_stage_get_sizes(stage->held->stage)->slices;
}
/* World rank of the pipeline rank that holds a stage for a micro-batch; -1 past the model's ends. */
int executor_rank_of_stage(const mhp_executor *executor, int stage, int microbatch);

mhp_status executor_send(mhp_executor *executor, const mhp_action *action, channel_kind kind, const mhp_executor_inputs *inputs);
mhp_status executor_receive(mhp_executor *executor, const mhp_action *action, channel_kind kind, const mhp_executor_inputs *inputs);

mhp_status executor_create_lanes(mhp_executor *executor);
void executor_destroy_lanes(mhp_executor *executor);
/* Makes what comes next on a lane wait for what is on another now. */
mhp_status executor_order(mhp_executor *executor, mhp_lane before, mhp_lane behind);
/* Of a half that runs beside the other one; the compute stream waits for it at the pair's end. */
static inline bool executor_is_beside(mhp_lane lane)
{
    return lane == MHP_LANE_PARTNER || lane == MHP_LANE_LEADER;
}
/* What a half beside does next comes behind what compute waited for until then; compute goes on when it is done. Nothing on other lanes. */
mhp_status executor_begin_beside(mhp_executor *executor, mhp_lane lane);
mhp_status executor_end_beside(mhp_executor *executor, mhp_lane lane);
/* Notes that the last step of a half runs on a lane of its own, behind that step. */
mhp_status executor_open_step(mhp_executor *executor, mhp_lane lane, const action_half *half);
/* Whether there are any on lanes that the compute stream has not waited for. */
bool executor_has_open_steps(const mhp_executor *executor);
/* The compute stream waits for open steps that touch what a pass takes for itself; for all of a lane. */
mhp_status executor_reclaim(mhp_executor *executor, const action_half *half);
mhp_status executor_close_steps(mhp_executor *executor, mhp_lane lane);

static inline int executor_target_stage(channel_kind kind, int source_stage)
{
    return kind == CHANNEL_STATE ? source_stage + 1 : source_stage - 1;
}

static inline mhp_slot_class executor_target_class(channel_kind kind)
{
    return kind == CHANNEL_STATE ? MHP_SLOT_INPUT : MHP_SLOT_GRADIENT_INPUT;
}

/* Which message a label (executor.c) stands for, for an error. */
void executor_describe_message(uint64_t label, char *text, size_t size);

#endif
