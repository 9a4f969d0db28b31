/* The bubbles that papers give for named schedules, with measured times in place of their letters. */
#ifndef MHP_SCHEDULER_FORMULA_H
#define MHP_SCHEDULER_FORMULA_H

#include "scheduler/costs.h"
#include "scheduler/plan.h"

/* Microseconds that a rank stands still in a step of schedule `name` with the mean times of its stages, messages and reductions
 * free. F, B = I + W (and R where the plan has it), W and the pair F&B are those of one stage, P the ranks:
 * gpipe, 1f1b, interleaved (P - 1)(F + B); zb-h1 (P - 1)(F + B - 2W); zb-v 0; dualpipe (P/2 - 1)(F&B + B - 3W); dualpipev, whose
 * paper counts two ranks for each of ours, (P - 1)(F&B + B - 3W). At least 0. False for a schedule without a formula. */
bool mhp_formula_bubble(const char *name, const mhp_plan *plan, const mhp_costs *costs, double *bubble_us_out);

#endif
