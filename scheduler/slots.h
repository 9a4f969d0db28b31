/* Which slots an action takes and gives back, and who gets which: the one place that knows the lifetimes of plan.h's slot classes.
 * */
#ifndef MHP_SCHEDULER_SLOTS_H
#define MHP_SCHEDULER_SLOTS_H

#include "scheduler/execute.h"
#include "scheduler/index.h"

typedef struct mhp_slot_use {
    mhp_slot_class slot_class;
    int stage, microbatch;
    bool takes;                 /* or gives back */
} mhp_slot_use;

enum { MHP_SLOT_USES_MAX = 16 };

/* Everything that the action takes on its rank, then everything that it gives back, so that what it reads and what it writes never
 * share a slot; returns how many. OUTPUT and GRADIENT_OUTPUT are taken here and given back by the end of their send. */
int mhp_slot_uses(const mhp_plan *plan, int rank, const mhp_action *action, mhp_slot_use uses[MHP_SLOT_USES_MAX]);

/* Fills the stages and slots of all ranks. `execution` is that of the plan as it is, without slots: outputs get as many as make no
 * pass wait, and one more to fill while the other is under way. All other classes get the least number; of free slots that which
 * is free for longest is taken, so that its last reader has the most time. */
mhp_status mhp_slots_assign(mhp_plan *plan, const mhp_plan_index *index, const mhp_execution *execution);

/* Of a lowered plan with complete cells: every slot exists, within its count, and none is taken that is in use. Says nothing about
 * outputs being free, which depends on other ranks: executing shows it. */
mhp_status mhp_slots_check(const mhp_plan *plan);

const char *mhp_slot_class_text(mhp_slot_class slot_class);

#endif
