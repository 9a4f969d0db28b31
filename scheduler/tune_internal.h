/* What the files of the tuner share. Private to scheduler/tune*.c. */
#ifndef MHP_SCHEDULER_TUNE_INTERNAL_H
#define MHP_SCHEDULER_TUNE_INTERNAL_H

#include "scheduler/simulate.h"
#include "scheduler/tune.h"

/* A schedule with everything that was chosen for it. */
typedef struct tune_point {
    mhp_plan *order; /* compute order, not lowered */
    double *layers;  /* [order->stage_count] */
    mhp_costs costs;
    int64_t slots_bytes; /* of message slots, on the rank that has the most; known once it is measured */
    mhp_tune_row row;
} tune_point;

typedef struct tune {
    const mhp_tune_params *params;
    mhp_tune_result *out;
} tune;

void mhp_tune_point_destroy(tune_point *point);
/* A copy with an order of its own. */
mhp_status mhp_tune_point_copy(const tune_point *point, tune_point *copy_out);

/* Costs of the point's layers and micro-batches. */
mhp_status mhp_tune_cost(const tune *t, tune_point *point);

/* Lowers a copy of the order and simulates it; fills the row. Where it does not fit the memory, stages are rebuilt
 * until it does, or all are. */
mhp_status mhp_tune_measure(const tune *t, tune_point *point);

/* Simulates the order as it is, with messages but without their slots, whose bytes are taken to be those of the last
 * measurement. *fits_out is false if it cannot run or keeps too much. Release the simulation in every case. */
mhp_status mhp_tune_simulate(const tune *t, const tune_point *point, mhp_simulation *simulation_out, bool *fits_out);

/* Moves layers between stages as long as the makespan falls. */
mhp_status mhp_tune_layers(const tune *t, tune_point *point);

/* The best of the orders that list scheduling makes for the point's placement, costs and memory, if it beats the
 * point's. */
mhp_status mhp_tune_list(const tune *t, tune_point *point);

/* Local search from the point's order. */
mhp_status mhp_tune_search(const tune *t, tune_point *point);

#endif
