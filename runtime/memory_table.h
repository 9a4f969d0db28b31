/* The memory of all ranks as a table, and the refusal of what cannot fit. */
#ifndef MHP_RUNTIME_MEMORY_TABLE_H
#define MHP_RUNTIME_MEMORY_TABLE_H

#include "runtime/memory_plan.h"

/* A line for each pipeline rank: what it holds at the fullest moment of a step, by kind, and the most that it ever holds for weight
 * gradients; then what each stage keeps of a micro-batch. */
mhp_status mhp_memory_print(const mhp_memory_params *params, FILE *stream);

/* MHP_ERR_LIMIT if a rank needs more than parallel.memory_limit: names the rank, its largest items, and settings with which all ranks
 * would fit, the cheapest first that does: as --set arguments. */
mhp_status mhp_memory_check(const mhp_memory_params *params);

/* MHP_ERR_NO_MEMORY, with the plan's largest items and what would help, if the `bytes` of the `ranks` ranks that share the device, this
 * one included, do not fit into what is free on it. */
mhp_status mhp_memory_check_device(const mhp_memory_plan *plan, mhp_device *device, size_t bytes, int ranks);

#endif
