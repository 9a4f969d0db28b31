/* The steps of every pass, in order. */
#include "core/memory.h"
#include "model/stage_internal.h"

static void add(step_list *list, stage_operation operation, int sublayer)
{
    list->items[list->count++] = (stage_step){operation, sublayer};
}

/* Forward, a sublayer takes two steps: its function, and its merge with the mix of the next one; the first mix stands before. */
static void list_forward(const mhp_stage *stage, step_list *list)
{
    if (stage->params.extent.first) {
        add(list, OPERATION_EMBED, 0);
    }
    for (int s = 0; s < stage->sublayer_count; s++) {
        add(list, OPERATION_JOIN, s);
        add(list, OPERATION_FUNCTION, s);
    }
    add(list, OPERATION_JOIN, stage->sublayer_count);
    if (stage->params.extent.last) {
        add(list, OPERATION_READ_OUT, stage->sublayer_count);
        add(list, OPERATION_PREDICT, stage->sublayer_count);
    }
}

/* What makes the block again that begins with sublayer `first`. */
static void list_block(const mhp_stage *stage, int first, step_list *list)
{
    bool full = stage->params.recompute == MHP_RECOMPUTE_FULL;
    int end = first + stage->block < stage->sublayer_count ? first + stage->block : stage->sublayer_count;

    if (!full && stage_has_streams(stage)) {
        add(list, OPERATION_REBUILD_BLOCK, first);
    } else {
        for (int s = first; s < end; s++) {
            add(list, OPERATION_REBUILD_MIX, s);
            if (full) {
                add(list, OPERATION_REBUILD_FUNCTION, s);
            }
        }
    }
    if (end == stage->sublayer_count && stage->params.extent.last) {
        add(list, OPERATION_REBUILD_HEAD, end);
    }
}

static int first_of_last_block(const mhp_stage *stage)
{
    return (stage->sublayer_count - 1) / stage->block * stage->block;
}

/* Whether the input gradient makes a block again before it gets to sublayer s, the block's last. */
static bool rebuilds_before(const mhp_stage *stage, int s)
{
    return stage->params.recompute != MHP_RECOMPUTE_NONE && s < first_of_last_block(stage) && (s + 1) % stage->block == 0;
}

/* Two steps a sublayer: its function, and its mix with the merge of the one in front; the last merge stands before, and where a block
 * must be made again, mix and merge stand apart. */
static void list_input_gradient(const mhp_stage *stage, step_list *list)
{
    bool merged = false;

    if (stage->params.extent.last) {
        add(list, OPERATION_HEAD_GRADIENT, stage->sublayer_count);
        add(list, OPERATION_READ_OUT_GRADIENT, stage->sublayer_count);
    }
    for (int s = stage->sublayer_count - 1; s >= 0; s--) {
        if (rebuilds_before(stage, s)) {
            list_block(stage, s + 1 - stage->block, list);
        }
        if (!merged) {
            add(list, OPERATION_MERGE_GRADIENT, s);
        }
        add(list, OPERATION_FUNCTION_GRADIENT, s);
        merged = s > 0 && !rebuilds_before(stage, s - 1);
        add(list, merged ? OPERATION_MIX_MERGE_GRADIENT : OPERATION_MIX_GRADIENT, s);
    }
    if (stage->params.extent.first) {
        add(list, OPERATION_EXPAND_GRADIENT, 0);
    }
}

static void list_weight_gradient(const mhp_stage *stage, step_list *list)
{
    if (stage->params.extent.last) {
        add(list, OPERATION_HEAD_WEIGHT, stage->sublayer_count);
    }
    for (int s = stage->sublayer_count - 1; s >= 0; s--) {
        add(list, OPERATION_SUBLAYER_WEIGHT, s);
    }
    if (stage->params.extent.first) {
        add(list, OPERATION_EMBEDDING_WEIGHT, 0);
    }
}

mhp_status stage_plan_steps(mhp_stage *stage)
{
    size_t most = 5 * (size_t)stage->sublayer_count + 4;        /* two of them rebuild; and the ends */

    for (int pass = 0; pass < MHP_PASS_COUNT; pass++) {
        MHP_RETURN_IF_ERROR(mhp_calloc(&stage->steps[pass].items, most, sizeof *stage->steps[pass].items));
    }
    list_forward(stage, &stage->steps[MHP_PASS_FORWARD]);
    if (stage->params.recompute != MHP_RECOMPUTE_NONE) {
        list_block(stage, first_of_last_block(stage), &stage->steps[MHP_PASS_REBUILD]);
    }
    list_input_gradient(stage, &stage->steps[MHP_PASS_INPUT_GRADIENT]);
    list_weight_gradient(stage, &stage->steps[MHP_PASS_WEIGHT_GRADIENT]);
    return MHP_OK;
}

mhp_step_kind stage_step_kind(const stage_step *step)
{
    switch (step->operation) {
    case OPERATION_FUNCTION:
    case OPERATION_PREDICT:
    case OPERATION_REBUILD_FUNCTION:
    case OPERATION_HEAD_GRADIENT:
    case OPERATION_FUNCTION_GRADIENT:
    case OPERATION_HEAD_WEIGHT:
    case OPERATION_SUBLAYER_WEIGHT:
    case OPERATION_EMBEDDING_WEIGHT:
        return MHP_STEP_MATH;
    default:
        return MHP_STEP_MEMORY;
    }
}

mhp_step_part stage_step_part(const mhp_stage *stage, const stage_step *step)
{
    switch (step->operation) {
    case OPERATION_EMBED:
    case OPERATION_EXPAND_GRADIENT:
    case OPERATION_EMBEDDING_WEIGHT:
        return MHP_PART_EMBEDDING;
    case OPERATION_FUNCTION:
    case OPERATION_REBUILD_FUNCTION:
    case OPERATION_FUNCTION_GRADIENT:
    case OPERATION_SUBLAYER_WEIGHT:
        return stage_is_attention(stage, step->sublayer) ? MHP_PART_ATTENTION : MHP_PART_FEED_FORWARD;
    case OPERATION_READ_OUT:
    case OPERATION_PREDICT:
    case OPERATION_REBUILD_HEAD:
    case OPERATION_HEAD_GRADIENT:
    case OPERATION_READ_OUT_GRADIENT:
    case OPERATION_HEAD_WEIGHT:
        return MHP_PART_HEAD;
    default:
        return MHP_PART_CONNECTION;
    }
}
