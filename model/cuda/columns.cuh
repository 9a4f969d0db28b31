/* What a thread does with its V columns of a token's N streams: pre mix, norm, merge. Everything that makes a state or a mix goes through
 * these, so that a rebuild has the forward pass's bits. */
#ifndef MHP_MODEL_CUDA_COLUMNS_CUH
#define MHP_MODEL_CUDA_COLUMNS_CUH

#include "model/cuda/common.cuh"

/* A token's factors, which lie 16-byte aligned where N is a multiple of 4. */
template <int N> __device__ __forceinline__ void load_factors(const float *from, float (&out)[N])
{
    if constexpr (N % 4 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            float4 value = *reinterpret_cast<const float4 *>(from + i);

            out[i] = value.x;
            out[i + 1] = value.y;
            out[i + 2] = value.z;
            out[i + 3] = value.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) {
            out[i] = from[i];
        }
    }
}

/* z = sum of pre[j] x[j]. */
template <typename T, int N, int V>
__device__ __forceinline__ void mix_chunk(const typename chunk<T, V>::type (&x)[N], const float (&pre)[N], float (&z)[V])
{
#pragma unroll
    for (int j = 0; j < N; j++) {
        float value[V];

        unpack(x[j], value);
#pragma unroll
        for (int i = 0; i < V; i++) {
            z[i] = j == 0 ? pre[0] * value[i] : fmaf(pre[j], value[i], z[i]);
        }
    }
}

/* normed = z rrms weight, in place. */
template <int V> __device__ __forceinline__ void norm_chunk(float rrms, const float *weight, float (&z)[V])
{
    float factor[V];

    load_full<V>(weight, factor);
#pragma unroll
    for (int i = 0; i < V; i++) {
        z[i] = z[i] * rrms * factor[i];
    }
}

/* next[k] = sum over j of comb[j,k] x[j] + post[k] y, rounded to T; next may be x. comb [N,N] and post [N] are the token's. */
template <typename T, int N, int V>
__device__ __forceinline__ void merge_chunk(const typename chunk<T, V>::type (&x)[N], typename chunk<T, V>::type y, const float *comb,
                                            const float *post, typename chunk<T, V>::type (&next)[N])
{
    float sum[N][V], value[V], factor[N];

    load_factors<N>(post, factor);
    unpack(y, value);
#pragma unroll
    for (int k = 0; k < N; k++) {
#pragma unroll
        for (int i = 0; i < V; i++) {
            sum[k][i] = factor[k] * value[i];
        }
    }
#pragma unroll
    for (int j = 0; j < N; j++) {
        load_factors<N>(comb + j * N, factor);
        unpack(x[j], value);
#pragma unroll
        for (int k = 0; k < N; k++) {
#pragma unroll
            for (int i = 0; i < V; i++) {
                sum[k][i] = fmaf(factor[k], value[i], sum[k][i]);
            }
        }
    }
#pragma unroll
    for (int k = 0; k < N; k++) {
        pack(sum[k], &next[k]);
    }
}

#endif
