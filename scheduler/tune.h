/* Looks for a faster schedule than the named ones, for given costs and memory.
 *
 * It tries every named schedule with weight gradients late and early, and with as many stages rebuilt as the memory
 * demands; moves halves of layers between stages; and then improves the order itself: list scheduling with look-ahead
 * over a grid of rules, and local search on the critical path. What it returns was lowered, proved and simulated.
 * docs/planning.md says how each part works. */
#ifndef MHP_SCHEDULER_TUNE_H
#define MHP_SCHEDULER_TUNE_H

#include <stdint.h>

#include "scheduler/cost_model.h"
#include "scheduler/plan.h"

typedef struct mhp_tune_params {
    const mhp_cost_model *model; /* of costs measured for `microbatches` */
    int layer_count;             /* of the model, cut evenly at whole layers, and at halves where they move */
    const double *layers; /* [given_stage_count]: the cut of schedules with that many stages before layers are moved;
                           * others start from an even one */
    int given_stage_count;
    int ranks, microbatches;
    int chunks_max;           /* of interleaved schedules, from 2 */
    const char *const *kinds; /* [kind_count]: generators to try; kind_count 0: all */
    int kind_count;
    int64_t memory_bytes; /* of each rank; 0: as much as they like */
    bool keep_layers;
    /* Other numbers of micro-batches for the same global batch. Times, apart from fixed_us of each action, messages and
     * activations are taken to shrink with the size of a micro-batch. They are measured against the rest, but chosen
     * only if may_choose_others. */
    const int *others;
    int other_count;
    double fixed_us;
    bool may_choose_others;
    uint64_t seed;
    int iterations; /* of each local search on a plan of 1000 actions; larger ones get fewer in proportion */
} mhp_tune_params;

typedef enum mhp_tune_phase { MHP_TUNE_NAMED, MHP_TUNE_LAYERS, MHP_TUNE_ORDER } mhp_tune_phase;

typedef struct mhp_tune_row {
    mhp_tune_phase phase;
    char name[64]; /* "zb-h1", "interleaved x 3, W early" */
    int stage_count, microbatches;
    int rebuilt_stages;
    bool fits; /* in the memory */
    double makespan_us, bound_us;
    double worst_bubble;
    int64_t peak_bytes;
} mhp_tune_row;

typedef struct mhp_tune_result {
    mhp_tune_row *rows; /* all that was tried, in the order of trying */
    size_t row_count;
    mhp_tune_row named; /* the best that fits of the named schedules as they are, layers as given */
    mhp_tune_row best;
    mhp_plan *order; /* the best one's compute order, not lowered; with R where it rebuilds */
    mhp_costs costs; /* of its stages */
    double *layers;  /* [order->stage_count], whole or half */
} mhp_tune_result;

/* MHP_ERR_CONFIG if no schedule suits ranks, micro-batches and layers, or none fits into the memory: the text says how
 * much the least would need. The same parameters give the same result. Release in every case; zeroed is allowed. */
mhp_status mhp_tune(const mhp_tune_params *params, mhp_tune_result *result_out);
void mhp_tune_result_release(mhp_tune_result *result);

#endif
