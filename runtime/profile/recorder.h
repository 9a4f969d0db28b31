/* Records when this rank's streams did what, for some steps of a run, and writes the trace.
 *
 * NULL is a recorder that is off: every function takes it and returns at once. Everything is allocated before the first
 * step. Inside a step the host thread only submits marks: on a CPU a mark reads the clock on the thread that runs the
 * stream; on CUDA it is an event of the stream. They are read between steps. */
#ifndef MHP_RUNTIME_PROFILE_RECORDER_H
#define MHP_RUNTIME_PROFILE_RECORDER_H

#include "runtime/lanes.h"
#include "runtime/profile/trace.h"
#include "runtime/store.h"

typedef struct mhp_recorder mhp_recorder;
/* On a card: streams beside those of a channel or group, on which the begin and end of its transfers are awaited. On a CPU,
 * where events can be asked when they were completed, there is none: NULL. */
typedef struct mhp_watch mhp_watch;

typedef struct mhp_recorder_params {
    mhp_comm *comm;
    const mhp_lanes *lanes;
    const mhp_profile_params *profile; /* steps > 0 */
    const char *directory;             /* the run's folder: the trace goes to its subfolder `profile`; copied */
    int64_t total_steps;               /* of the run */
    int pipeline_ranks;
    int streams;       /* residual streams */
    mhp_hash identity; /* runtime/profile/identity.h */
} mhp_recorder_params;

mhp_status mhp_recorder_create(const mhp_recorder_params *params, mhp_recorder **recorder_out);
/* Before the events and streams that it recorded go. */
void mhp_recorder_destroy(mhp_recorder *recorder);

/* Before the first step: who records says how much of it there will be in one step, ... */
void mhp_recorder_reserve(mhp_recorder *recorder, size_t spans, size_t transfers);
/* The same for all actions of a list, whose stages the store holds. */
void mhp_recorder_reserve_actions(mhp_recorder *recorder, mhp_store *store, const mhp_action_list *actions);
mhp_status mhp_recorder_add_watch(mhp_recorder *recorder, const char *name, mhp_watch **watch_out);
/* ... and the room is made. MHP_ERR_LIMIT if the steps are too many for their size. Measures what a mark costs. */
mhp_status mhp_recorder_ready(mhp_recorder *recorder);

/* Around every step; every rank. The first recorded step reads the clocks before it; the last one reads them again and
 * writes the trace. `start_ns`: when the host began the step. */
mhp_status mhp_recorder_begin_step(mhp_recorder *recorder, int64_t step, uint64_t start_ns);
mhp_status mhp_recorder_end_step(mhp_recorder *recorder);

/* Whether the trace has this step, or will have it; known from the step's begin on. */
bool mhp_recorder_has_step(const mhp_recorder *recorder, int64_t step);

/* What is submitted between these two, inside a step, is not recorded; the next mark tells how long it took. */
void mhp_recorder_pause(mhp_recorder *recorder);
void mhp_recorder_resume(mhp_recorder *recorder);

/* Names the action whose work is submitted until it ends; position is its place in the rank's list. */
void mhp_recorder_begin_action(mhp_recorder *recorder, size_t position, const mhp_action *action);
void mhp_recorder_end_action(mhp_recorder *recorder);

/* Names the group whose kernels are submitted until it ends, within an action; a profiler alone sees it. */
void mhp_recorder_begin_group(mhp_recorder *recorder, const mhp_cursor *cursor, mhp_step_part part);
void mhp_recorder_end_group(mhp_recorder *recorder);

/* Names what is submitted until it ends by a word of the trace: a phase, a collective, a message. A profiler alone sees it. The end hands
 * on the status of what was submitted. */
void mhp_recorder_begin_range(mhp_recorder *recorder, const char *name);
mhp_status mhp_recorder_end_range(mhp_recorder *recorder, mhp_status status);

/* A mark behind all that is on the span's lane: what passed since the mark before it is `what`, a group, a wait or a
 * phase. Step, action and times are filled in. */
mhp_status mhp_recorder_mark(mhp_recorder *recorder, mhp_trace_span what);
/* Compute stood still before the pass that a cursor is in, until its input was there; or a lane did before the step that
 * fills `slot`, an output slot, until that was free. */
mhp_status mhp_recorder_wait(mhp_recorder *recorder, const mhp_cursor *cursor, int stage, int microbatch);
mhp_status mhp_recorder_slot(mhp_recorder *recorder, const mhp_cursor *cursor, int stage, int microbatch, int slot,
                             mhp_lane lane);
/* Compute stood still until the step that fills `slot` was done on its lane. */
mhp_status mhp_recorder_joined(mhp_recorder *recorder, mhp_pass pass, int stage, int microbatch, int slot);
/* A lane stood still until other lanes of the rank had done what its next work comes behind. Whoever makes a lane wait says so, for a
 * group begins where the lane's mark before it stands. */
mhp_status mhp_recorder_lanes(mhp_recorder *recorder, mhp_lane lane);
/* A step that a cursor was moved by, and the part that it was of. */
mhp_status mhp_recorder_group(mhp_recorder *recorder, const mhp_cursor *cursor, int stage, int microbatch,
                              mhp_step_part part, mhp_lane lane);

/* A transfer that begins with `after` and ends with `done`, as these stand now; those of one watch follow each other. */
mhp_status mhp_recorder_transfer(mhp_recorder *recorder, mhp_watch *watch, mhp_trace_span what, mhp_event *after,
                                 mhp_event *done);
/* Directly behind the compute stream's wait for the end of a transfer, which may not be a recorded one; once for each. */
mhp_status mhp_recorder_arrived(mhp_recorder *recorder, const mhp_event *done);

#endif
