/* Runs a plan's lists side by side under rendezvous semantics, in units: F, I and W take one, B two, a pair three, everything else
 * none. A message is over as soon as its send was begun and its receive posted, and takes no time; compute never waits for its own
 * send, but for the slot that its output goes to. The result depends on the plan alone, not on an order of execution. */
#ifndef MHP_SCHEDULER_EXECUTE_H
#define MHP_SCHEDULER_EXECUTE_H

#include "scheduler/index.h"

typedef struct mhp_execution {
    int **start;            /* [rank][position]: the unit in which it starts, -1 if it never does */
    size_t *next;           /* [rank]: the first action that never runs; the list's length if all do */
    int *message[MHP_MESSAGE_KINDS];    /* [source stage][microbatch]: the unit in which it is over; negative: not over, or none */
    int makespan;
    bool finished;          /* every rank reached the end of its list */
} mhp_execution;

/* Time of an action, in units. */
int mhp_action_units(const mhp_action *action);

/* The plan's cells must be complete and in order. With `slots` the plan is lowered, and outputs wait for their slots. A plan
 * without messages hands over at once. A deadlock is no error here: `finished` says so. Release with mhp_execution_destroy. */
mhp_status mhp_plan_execute(const mhp_plan *plan, const mhp_plan_index *index, bool slots, mhp_execution *execution_out);
void mhp_execution_destroy(const mhp_plan *plan, mhp_execution *execution);

#endif
