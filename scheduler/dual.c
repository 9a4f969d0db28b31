/* The steps that DualPipe and DualPipeV have in common: two directions of micro-batches cross on every rank, a forward of one beside
 * a backward of the other. docs/schedules.md has the table. */
#include <assert.h>
#include <stdbool.h>

#include "scheduler/generators.h"

enum { QUEUE_MAX = MHP_RANKS_MAX + 1 };

/* The emission's state: how far each direction's forwards and backwards are, and the weight gradients that wait. */
typedef struct dual_state {
    mhp_plan *plan;
    const mhp_dual_rank *dual;
    int forwards[2], backwards[2];
    struct {
        int stage, microbatch;
    } queue[QUEUE_MAX];
    int queue_first, queue_count;
} dual_state;

static mhp_status forward(dual_state *state, int d)
{
    int m = state->dual->first[d] + state->forwards[d]++;

    return mhp_emit(state->plan, state->dual->rank, MHP_ACTION_FORWARD, state->dual->stage[d], m);
}

static mhp_status backward(dual_state *state, int d)
{
    int m = state->dual->first[d] + state->backwards[d]++;

    return mhp_emit(state->plan, state->dual->rank, MHP_ACTION_BACKWARD, state->dual->stage[d], m);
}

static mhp_status input_gradient(dual_state *state, int d)
{
    int m = state->dual->first[d] + state->backwards[d]++;
    int last = (state->queue_first + state->queue_count++) % QUEUE_MAX;

    assert(state->queue_count <= state->dual->k + 2);
    state->queue[last].stage = state->dual->stage[d];
    state->queue[last].microbatch = m;
    return mhp_emit(state->plan, state->dual->rank, MHP_ACTION_INPUT_GRADIENT, state->dual->stage[d], m);
}

static mhp_status weight_gradient(dual_state *state)
{
    int first = state->queue_first;

    assert(state->queue_count > 0);
    state->queue_first = (first + 1) % QUEUE_MAX;
    state->queue_count--;
    return mhp_emit(state->plan, state->dual->rank, MHP_ACTION_WEIGHT_GRADIENT, state->queue[first].stage, state->queue[first].microbatch);
}

/* Forward of direction d beside the backward of the other. */
static mhp_status pair(dual_state *state, int d)
{
    const mhp_dual_rank *dual = state->dual;
    int m = dual->first[d] + state->forwards[d]++;
    int b = dual->first[1 - d] + state->backwards[1 - d]++;

    return mhp_emit_pair(state->plan, dual->rank, dual->stage[d], m, dual->stage[1 - d], b);
}

static mhp_status fill(dual_state *state)
{
    const mhp_dual_rank *dual = state->dual;

    for (int i = 0; i < 2 * (dual->h - dual->k - 1); i++) {             /* step 1 */
        MHP_RETURN_IF_ERROR(forward(state, 0));
    }
    for (int i = 0; i < dual->k + 1; i++) {                             /* step 2 */
        MHP_RETURN_IF_ERROR(forward(state, 0));
        MHP_RETURN_IF_ERROR(forward(state, 1));
    }
    for (int i = 0; i < dual->h - dual->k - 1; i++) {                   /* step 3 */
        MHP_RETURN_IF_ERROR(input_gradient(state, 1));
        MHP_RETURN_IF_ERROR(weight_gradient(state));
        MHP_RETURN_IF_ERROR(forward(state, 1));
    }
    return MHP_OK;
}

static mhp_status cross(dual_state *state)
{
    const mhp_dual_rank *dual = state->dual;

    for (int i = 0; i < dual->main_count; i++) {                        /* step 4 */
        if (i == 0 && dual->k == dual->h - 1) {         /* in the middle nothing has come back yet */
            MHP_RETURN_IF_ERROR(forward(state, 0));
            MHP_RETURN_IF_ERROR(backward(state, 1));
        } else {
            MHP_RETURN_IF_ERROR(pair(state, 0));
        }
        MHP_RETURN_IF_ERROR(pair(state, 1));
    }
    for (int i = 0; i < dual->h - dual->k - 1; i++) {                   /* step 5 */
        MHP_RETURN_IF_ERROR(backward(state, 1));
        MHP_RETURN_IF_ERROR(pair(state, 1));
    }
    return MHP_OK;
}

static mhp_status drain(dual_state *state)
{
    const mhp_dual_rank *dual = state->dual;
    bool split = false;

    for (int i = 0; i < dual->k + 1; i++) {                             /* step 6 */
        bool switches = i == (dual->k + 1) / 2;

        split = split || (switches && dual->k % 2 == 1);
        MHP_RETURN_IF_ERROR(split ? input_gradient(state, 1) : backward(state, 1));
        split = split || switches;
        MHP_RETURN_IF_ERROR(split ? input_gradient(state, 0) : backward(state, 0));
    }
    for (int i = 0; i < dual->h - dual->k - 1; i++) {                   /* step 7 */
        MHP_RETURN_IF_ERROR(weight_gradient(state));
        MHP_RETURN_IF_ERROR(input_gradient(state, 0));
    }
    for (int i = 0; i < dual->k + 1; i++) {                             /* step 8 */
        MHP_RETURN_IF_ERROR(weight_gradient(state));
    }
    return MHP_OK;
}

mhp_status mhp_emit_dual(mhp_plan *plan, const mhp_dual_rank *dual)
{
    dual_state state = {.plan = plan, .dual = dual};

    MHP_RETURN_IF_ERROR(fill(&state));
    MHP_RETURN_IF_ERROR(cross(&state));
    return drain(&state);
}
