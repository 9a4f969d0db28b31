/* How long a plan takes and what it keeps, from the costs of its parts. docs/planning.md defines every number.
 *
 * A rank's compute actions run in the order of its list, one at a time. Before an action only the arrival of its inputs
 * and a free slot for its output are awaited. Messages follow the channels' rules: a receive is posted when its slot is
 * free and the receives before it in its channel are posted; a message sets off when it is made and its receive is
 * posted; messages of one directed link follow each other in the order in which they could set off. Reductions of
 * gradients run beside compute, those of one rank one after the other; the optimizer runs behind all of it.
 *
 * A plan that is not lowered has its messages all the same, with a slot for each. */
#ifndef MHP_SCHEDULER_SIMULATE_H
#define MHP_SCHEDULER_SIMULATE_H

#include <stdint.h>

#include "scheduler/costs.h"
#include "scheduler/plan.h"

typedef struct mhp_simulate_params {
    const mhp_costs *costs;
    /* Where a full backward (B) sends its gradient: when its I is done, as the executor does, or at its end, as the
     * published formulas count. */
    bool early_gradient;
} mhp_simulate_params;

typedef struct mhp_span {
    double start_us, end_us;
} mhp_span;

typedef struct mhp_rank_simulation {
    /* [action]: of compute and REDUCE_GRAD, when it ran; of a send, when the message was under way; of a receive, from
     * its post to the arrival. The rest takes no time. */
    mhp_span *spans;
    double busy_us;    /* compute and optimizer */
    double bubble_us;  /* makespan - busy */
    double exposed_us; /* compute stood still only because messages were under way or queued on a link */
    double compute_end_us;
    size_t message_count; /* that the rank sends */
    int64_t message_bytes;
    int activations_peak; /* micro-batches, counted once for each stage */
    int held_peak;        /* the W queue at its deepest */
    int64_t bytes_base, bytes_peak;
} mhp_rank_simulation;

typedef enum mhp_path_kind { MHP_PATH_COMPUTE, MHP_PATH_MESSAGE, MHP_PATH_REDUCE, MHP_PATH_OPTIMIZER } mhp_path_kind;

/* A part of the critical path. A message stands with its sender: the SEND, or in a plan without one the action that
 * makes it. */
typedef struct mhp_path_step {
    mhp_path_kind kind;
    int rank;
    size_t position;
    double start_us, end_us;
} mhp_path_step;

typedef struct mhp_simulation {
    int rank_count;
    double makespan_us;
    double reduce_exposed_us; /* the last reduction's end behind the end of all compute */
    double optimizer_us;
    mhp_rank_simulation *ranks;
    mhp_path_step *path; /* in the order of time, from 0 to the makespan without a gap */
    size_t path_count;
} mhp_simulation;

/* The plan must be valid. MHP_ERR_CONFIG if the costs do not suit it (mhp_costs_check), MHP_ERR_PLAN if it cannot run
 * to its end. Release in every case; zeroed is allowed. Time and memory grow as the number of actions. */
mhp_status mhp_simulate(const mhp_plan *plan, const mhp_simulate_params *params, mhp_simulation *simulation_out);
void mhp_simulation_release(mhp_simulation *simulation);

/* Over all ranks: the largest bubble over the makespan; the mean; the largest of bytes_peak. */
double mhp_simulation_worst_bubble(const mhp_simulation *simulation);
double mhp_simulation_mean_bubble(const mhp_simulation *simulation);
int64_t mhp_simulation_peak_bytes(const mhp_simulation *simulation);

/* What a compute action takes; 0 for all others. */
double mhp_action_us(const mhp_costs *costs, const mhp_action *action);
bool mhp_action_takes_time(const mhp_action *action);

#endif
