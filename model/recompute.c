#include "model/recompute.h"

#include <assert.h>

#include "model/kernels.h"

int mhp_recompute_optimum(int sublayers, int in_flight, double kept, double made)
{
    int best = sublayers;
    double least = 0;

    assert(sublayers > 0 && in_flight > 0);
    for (int block = sublayers; block > 0; block--) {
        int blocks = (sublayers + block - 1) / block;
        double cost = in_flight * kept * blocks + made * block;

        if (block == sublayers || cost < least) {
            least = cost;
            best = block;
        }
    }
    return best;
}

int mhp_recompute_block(const mhp_model_params *model, mhp_recompute what, int sublayers, int in_flight)
{
    bool residual = model->connections.kind == MHP_CONNECTION_RESIDUAL;
    double c = (double)model->hidden_size;
    double n = residual ? 1 : (double)model->connections.streams;
    double made = (n + 1) * c;

    if (what == MHP_RECOMPUTE_NONE || (what == MHP_RECOMPUTE_CONNECTIONS && residual)) {
        return sublayers;
    }
    if (what == MHP_RECOMPUTE_FULL) {       /* mean of the two kinds of sublayers: the output, qkv and heads, gate|up and its product */
        double heads = (double)((2 * model->num_attention_heads + 2 * model->num_key_value_heads) * model->head_dim);

        made += c + (heads + 3 * (double)model->intermediate_size) / 2;
    }
    return mhp_recompute_optimum(sublayers, in_flight, n * c, made);
}
