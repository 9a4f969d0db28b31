/* Sends and receives for a plan that has none. */
#ifndef MHP_SCHEDULER_MESSAGES_H
#define MHP_SCHEDULER_MESSAGES_H

#include "scheduler/plan.h"

bool mhp_plan_has_messages(const mhp_plan *plan);

/* Where neighbouring stages of a micro-batch are on different ranks, puts a send right behind the pass that makes the message, and
 * a receive so early that the message never waits for it: in the execution of the compute order with messages that take no time
 * (execute.h), the receive is posted when the message is made, and a compute action before it is needed. Receives of a channel
 * stand in the order of its sends. So no send holds a slot, every legal compute order runs under rendezvous semantics, and takes
 * no longer than without messages. The compute order must be valid. */
mhp_status mhp_plan_add_messages(mhp_plan *plan);

#endif
