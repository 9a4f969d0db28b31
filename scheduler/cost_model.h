/* Costs for other cuts of the same model into stages.
 *
 * Costs are known for one cut. What a layer costs is taken to be even within a stage. The first stage has the embedding
 * beside its layers and the last the final norm and the head, which stay at the model's ends: their times as the costs
 * tell, or else, as always their bytes, what those stages have above the layers of the stages between them (with two
 * stages, of the cheaper one). Times, weights, activations and held gradients of another cut are then sums over its
 * layers. The same cut gives back the very same costs, and every cut the same total. */
#ifndef MHP_SCHEDULER_COST_MODEL_H
#define MHP_SCHEDULER_COST_MODEL_H

#include "scheduler/costs.h"

typedef struct mhp_cost_model mhp_cost_model;

/* `layers` [stage_count]: the length of every stage, in layers or any other unit, each above 0. The costs must suit
 * stage_count and outlive the model. */
mhp_status mhp_cost_model_create(const mhp_costs *costs, const double *layers, int stage_count,
                                 mhp_cost_model **model_out);
void mhp_cost_model_destroy(mhp_cost_model *model);

/* Puts `layers` > 0 more into the middle of the model, each at the cost of a layer that is neither first nor last. Of one stage
 * alone it is not known what its ends take: MHP_ERR_CONFIG. */
mhp_status mhp_cost_model_deepen(mhp_cost_model *model, double layers);

/* The costs of a cut into `stage_count` stages of these lengths, of the same sum; links, messages and the rest as they
 * were. Release costs_out in every case. */
mhp_status mhp_cost_model_cut(const mhp_cost_model *model, const double *layers, int stage_count, mhp_costs *costs_out);

/* An even cut of the same length. */
mhp_status mhp_cost_model_cut_evenly(const mhp_cost_model *model, int stage_count, mhp_costs *costs_out);

#endif
