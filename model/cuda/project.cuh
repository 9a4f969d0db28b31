/* Steps of a projection on tensor cores: what project.cu and mix_four.cu share. A thread's 16 bytes of two rows, 8 apart, are a
 * product's operand as they lie in memory; of fn, operands lie in shared memory in the order in which the rows' elements come. */
#ifndef MHP_MODEL_CUDA_PROJECT_CUH
#define MHP_MODEL_CUDA_PROJECT_CUH

#include "model/cuda/connection.cuh"

enum {
    TILE = 16,                  /* rows of a warp */
    STRIP = 32,                 /* elements of a row that a warp takes at once */
};

/* Floats of a row's partial sums. */
static inline int projection_slot(int projections)
{
    return (projections + 2) / 2 * 2;
}

/* One half strip (16 of 32 elements) of 16 rows onto all coefficients. */
template <int NT>
__device__ __forceinline__ void project_step(float (&sum)[NT][4], const uint4 *fragment, uint32_t a0, uint32_t a1, uint32_t a2,
                                             uint32_t a3)
{
#pragma unroll
    for (int i = 0; i < NT; i++) {
        uint4 b = fragment[i * WARP];

        multiply_bf16(sum[i], a0, a1, a2, a3, b.x, b.y);
        multiply_bf16(sum[i], a0, a1, a2, a3, b.z, b.w);
    }
}

/* One strip; `fragment` is this lane's. */
template <int NT>
__device__ __forceinline__ void project_strip(float (&sum)[NT][4], const uint4 *fragment, uint4 upper, uint4 lower)
{
    project_step<NT>(sum, fragment, upper.x, lower.x, upper.y, lower.y);
    project_step<NT>(sum, fragment + NT * WARP, upper.z, lower.z, upper.w, lower.w);
}

/* One lane's operand of fn, four elements of row `p` from column k on, in two parts. */
__device__ __forceinline__ uint4 split_weights(const projection &p, int row, int k, int end)
{
    float4 w = make_float4(0, 0, 0, 0);
    uint4 parts;

    if (row < p.projections && k < end) {
        w = __ldg(reinterpret_cast<const float4 *>(p.fn + (size_t)row * (size_t)p.width + k));
    }
    split_pair(w.x, w.y, &parts.x, &parts.z);
    split_pair(w.z, w.w, &parts.y, &parts.w);
    return parts;
}

/* One thread's share of the partial sums of rows row and row + 8. */
template <int NT>
__device__ __forceinline__ void write_partial_sums(const projection &p, int slice, int row, const float (&sum)[NT][4],
                                                   const float (&square)[2])
{
    int quarter = (int)threadIdx.x % 4;

#pragma unroll
    for (int half = 0; half < 2; half++) {
        int at = row + half * 8;
        float total = square[half] + __shfl_xor_sync(FULL_WARP, square[half], 1);
        float *target;

        total += __shfl_xor_sync(FULL_WARP, total, 2);
        if (at >= p.rows) {
            continue;
        }
        target = partial_sums(p, slice, at);
#pragma unroll
        for (int i = 0; i < NT; i++) {
            int column = i * 8 + quarter * 2;

            if (column < p.projections) {
                target[column] = sum[i][half * 2];
            }
            if (column + 1 < p.projections) {
                target[column + 1] = sum[i][half * 2 + 1];
            }
        }
        if (quarter == 0) {
            *partial_square(p, slice, at) = total;
        }
    }
}

__device__ __forceinline__ void add_squares(uint4 raw, float *square)
{
    float x[8];

    unpack(raw, x);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        *square = fmaf(x[i], x[i], *square);
    }
}

#endif
