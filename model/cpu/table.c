/* One table of CPU kernels: everything in this folder for one element type and one instruction set. model/CMakeLists.txt compiles it
 * several times, each time with MHP_CPU_DOUBLE, MHP_CPU_VECTOR_BYTES, MHP_CPU_TABLE and MHP_CPU_NAME of its own. */
#include "model/cpu/tables.h"

#include "model/cpu/elementwise.c"
#include "model/cpu/norm.c"

#include "model/cpu/loss.c"

#include "model/cpu/attention.c"

#include "model/cpu/connection.c"

#include "model/cpu/connection_gradient.c"

#include "model/cpu/optimizer.c"

const mhp_kernels MHP_CPU_TABLE = {
    .name = MHP_CPU_NAME,
    .dtype = REAL_DTYPE,
    .full_dtype = REAL_DTYPE,
    .token_grain = TOKEN_BLOCK,
    .gemm = gemm,
    .embedding = embedding,
    .embedding_gradient = embedding_gradient,
    .stream_sum = stream_sum,
    .stream_repeat = stream_repeat,
    .rms_norm = rms_norm,
    .rms_norm_gradient = rms_norm_gradient,
    .mix = mix,
    .merge = merge,
    .merge_mix = merge_mix,
    .rebuild = rebuild,
    .merge_gradient = merge_gradient,
    .mix_gradient = mix_gradient,
    .mix_merge_gradient = mix_merge_gradient,
    .connection = connection,
    .connection_gradient = connection_gradient,
    .readout = readout,
    .readout_gradient = readout_gradient,
    .rotary = rotary,
    .attention = attention,
    .attention_gradient = attention_gradient,
    .swiglu = swiglu,
    .swiglu_gradient = swiglu_gradient,
    .cross_entropy = cross_entropy,
    .gain = gain,
    .gain_read = gain_read,
    .adamw = adamw,
    .square_sum = square_sum,
    .clip = clip,
    .cast = cast,
    .connection_workspace = connection_workspace,
    .attention_workspace = attention_workspace,
};
