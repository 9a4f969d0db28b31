/* What a stage throws away after its forward pass and makes again before its gradient; docs/memory.md has the formulas. */
#ifndef MHP_MODEL_RECOMPUTE_H
#define MHP_MODEL_RECOMPUTE_H

#include "model/options.h"

typedef enum mhp_recompute {
    MHP_RECOMPUTE_NONE,
    MHP_RECOMPUTE_CONNECTIONS,  /* what connections and norms make: states, norm(z); never F */
    MHP_RECOMPUTE_FULL,         /* F's intermediates and output as well */
} mhp_recompute;

/* The block L_r that minimises q kept ceil(L / L_r) + made L_r for L sublayers and q micro-batches in flight; `kept` is what a block
 * keeps of a micro-batch, `made` what a rebuild makes of a sublayer, in any one unit. Of equals the longest. */
int mhp_recompute_optimum(int sublayers, int in_flight, double kept, double made);

/* That block for a stage of a model. kept is nC a token; made is (n+1)C, states and norms, and with MHP_RECOMPUTE_FULL also F's output and
 * intermediates. Residual states are no larger than what they would be rebuilt from: with MHP_RECOMPUTE_CONNECTIONS they are all kept,
 * and the block is the whole stage. */
int mhp_recompute_block(const mhp_model_params *model, mhp_recompute what, int sublayers, int in_flight);

#endif
