/* Makes again what the forward pass threw away: block by block, in the view of the passes that come back. */
#include "model/stage_internal.h"

/* One kernel for the whole block; on the last stage the last block's makes what the readout reads as well. */
static mhp_status rebuild_block(mhp_stage *stage, const mhp_microbatch *microbatch, int first, mhp_stream *stream)
{
    const mhp_model_params *model = &stage->model;
    const sublayer_memory *memory = &stage->backward.sublayers[first];
    int end = first + stage->block < stage->sublayer_count ? first + stage->block : stage->sublayer_count;
    mhp_rebuild_args args = {
        .tokens = stage_tokens(stage),
        .hidden = (int)model->hidden_size,
        .streams = (int)model->connections.streams,
        .count = end - first,
        .weight = &stage->norm_weights[first],
        .x = stage_state(stage, &stage->backward, microbatch, first),
        .y = stage_at(microbatch, memory->branch),
        .pre = stage_at(microbatch, memory->pre),
        .post = stage_at(microbatch, memory->post),
        .comb = stage_at(microbatch, memory->comb),
        .norm_rrms = stage_at(microbatch, memory->norm_rrms),
        .normed = stage_at(microbatch, memory->normed),
        .y_stride = stage->branch_stride,
        .kept_stride = stage->kept_stride,
        .state_stride = stage->state_stride,
        .normed_stride = stage->normed_stride,
    };

    if (args.count > 1) {
        args.state = stage_state(stage, &stage->backward, microbatch, first + 1);
    }
    if (end == stage->sublayer_count && stage->params.extent.last) {
        args.last = stage_state(stage, &stage->backward, microbatch, end);
    }
    return mhp_stream_submit(stream, stage->params.kernels->rebuild, &args, sizeof args);
}

/* The readout of the last state and the final norm. That state is kept where all are, and made by the kernel of a whole block. */
static mhp_status rebuild_head(mhp_stage *stage, const mhp_microbatch *microbatch, mhp_stream *stream)
{
    if (stage->params.recompute == MHP_RECOMPUTE_FULL) {
        MHP_RETURN_IF_ERROR(stage_join(stage, &stage->backward, microbatch, stage->sublayer_count, stream));
    }
    return stage_read_out(stage, &stage->backward, microbatch, stream);
}

mhp_status stage_rebuild_step(mhp_stage *stage, const mhp_microbatch *microbatch, const stage_step *step, mhp_stream *stream)
{
    switch (step->operation) {
    case OPERATION_REBUILD_BLOCK:
        return rebuild_block(stage, microbatch, step->sublayer, stream);
    case OPERATION_REBUILD_MIX:     /* a kept state needs no merge */
        return !stage_rebuilds_states(stage) || step->sublayer % stage->block == 0
                   ? stage_mix(stage, &stage->backward, microbatch, step->sublayer, stream)
                   : stage_join(stage, &stage->backward, microbatch, step->sublayer, stream);
    case OPERATION_REBUILD_FUNCTION:
        return stage_function(stage, &stage->backward, microbatch, step->sublayer, stream);
    default:
        return rebuild_head(stage, microbatch, stream);
    }
}
