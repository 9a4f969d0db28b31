/* What the files of the executor share. Private to runtime/executor*. */
#ifndef MHP_RUNTIME_EXECUTOR_INTERNAL_H
#define MHP_RUNTIME_EXECUTOR_INTERNAL_H

#include "comm/seal.h"
#include "runtime/executor.h"

/* One slot of a message class. Whoever fills it waits for `is_free` and then completes `is_ready`; whoever reads it the other way
 * round. Filling and reading is done by stages or, at the rank's border, by channels. */
typedef struct slot_events {
    mhp_event *is_ready, *is_free;
} slot_events;

typedef struct held_slots {
    mhp_held_stage *held;
    const mhp_stage_slots *plan;
    char *memory[MHP_SLOT_CLASS_COUNT];             /* message classes only, as are stride and events */
    size_t stride[MHP_SLOT_CLASS_COUNT];
    slot_events *events[MHP_SLOT_CLASS_COUNT];
} held_slots;

typedef enum channel_kind { CHANNEL_STATE, CHANNEL_GRADIENT } channel_kind;

typedef struct channel_entry {
    channel_kind kind;
    int source_stage, source_rank, target_rank;     /* pipeline ranks */
    mhp_channel *channel;
    mhp_watch *watch;                               /* of a recorded channel's receiver */
    mhp_seals *seals;                               /* NULL: messages carry no checksums */
} channel_entry;

struct mhp_executor {
    mhp_executor_params params;
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
