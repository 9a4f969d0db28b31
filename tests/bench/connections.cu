/* Times the connection kernels of the CUDA backend beside a large device copy in the same run.
 *
 *   connections [--tokens T] [--streams N] [--hidden C]... [--repeat R]
 *
 * A row's time is the median over batches of launches, event to event, over rotating sets of buffers larger than the L2 cache. Bytes are
 * the minimum of docs/model.md in elements of C (the norm's output, written beside z, is not counted there). */
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "model/cuda/cuda.h"

#define CUDA(call)                                                                                          \
    do {                                                                                                    \
        cudaError_t error_ = (call);                                                                        \
        if (error_ != cudaSuccess) {                                                                        \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(error_));      \
            exit(1);                                                                                        \
        }                                                                                                   \
    } while (0)

enum { BATCH = 8, SUBLAYERS = 6 };

static int tokens = 8192, streams = 4, repeat = 9;
static double copy_rate;        /* bytes a second, read and written */

__global__ void fill(void *data, size_t count, bool half, uint32_t seed, float deviation, float mean)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count; i += (size_t)gridDim.x * blockDim.x) {
        uint32_t h = (uint32_t)i * 2654435761u ^ seed;
        float sum = -2;

        for (int k = 0; k < 4; k++) {
            h ^= h >> 16;
            h *= 0x7feb352du;
            h ^= h >> 15;
            h *= 0x846ca68bu;
            sum += (float)h * 2.3283064e-10f;
        }
        sum = mean + deviation * sum * 1.7320508f;
        if (half) {
            ((__nv_bfloat16 *)data)[i] = __float2bfloat16_rn(sum);
        } else {
            ((float *)data)[i] = sum;
        }
    }
}

static std::vector<void *> owned;

static void *room(size_t count, bool half, float deviation = 0, float mean = 0)
{
    static uint32_t seed = 12345;
    void *data;

    CUDA(cudaMalloc(&data, count * (half ? 2 : 4)));
    fill<<<1024, 256>>>(data, count, half, seed += 977, deviation, mean);
    CUDA(cudaGetLastError());
    owned.push_back(data);
    return data;
}

static void release(void)
{
    CUDA(cudaDeviceSynchronize());
    for (void *data : owned) {
        CUDA(cudaFree(data));
    }
    owned.clear();
}

/* Milliseconds of one call: work(i) is call i. */
static double median_ms(const std::function<void(int)> &work)
{
    std::vector<float> times;
    cudaEvent_t begin, end;
    int call = 0;

    CUDA(cudaEventCreate(&begin));
    CUDA(cudaEventCreate(&end));
    for (int batch = 0; batch <= repeat; batch++) {
        float ms;

        CUDA(cudaEventRecord(begin));
        for (int i = 0; i < BATCH; i++) {
            work(call++);
        }
        CUDA(cudaEventRecord(end));
        CUDA(cudaEventSynchronize(end));
        CUDA(cudaEventElapsedTime(&ms, begin, end));
        if (batch > 0) {
            times.push_back(ms / BATCH);
        }
    }
    CUDA(cudaEventDestroy(begin));
    CUDA(cudaEventDestroy(end));
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

static double row(const char *kind, const char *name, int hidden, double elements, const std::function<void(int)> &work)
{
    double ms = median_ms(work);
    double bytes = elements * 2 * hidden * (double)tokens;

    printf("%-9s %-34s %5d %8.4f %6.1f %8.1f %6.3f\n", kind, name, hidden, ms, elements, bytes / 1e6, bytes / (ms * 1e-3) / copy_rate);
    fflush(stdout);
    return ms;
}

static void must(mhp_status status)
{
    if (status != MHP_OK) {
        fprintf(stderr, "%s\n", mhp_error_text());
        exit(1);
    }
}

/* One sublayer's arrays. */
struct sublayer {
    mhp_merge_mix_args forward;
    mhp_merge_gradient_args split;
    mhp_mix_gradient_args back;
};

static sublayer make(mhp_connection_kind kind, int hidden)
{
    size_t T = (size_t)tokens, C = (size_t)hidden, n = kind == MHP_CONNECTION_RESIDUAL ? 1 : (size_t)streams;
    size_t width = kind == MHP_CONNECTION_HC ? C : n * C;
    size_t rows = kind == MHP_CONNECTION_HC ? n + 2 : n * (n + 2);
    size_t workspace = (size_t)mhp_cuda_connection_workspace(kind, tokens, hidden, (int)n, 1);
    sublayer s = {};
    mhp_connection_args *c = &s.forward.mix.connection;
    void *dnormed = room(T * C, true, 1), *dz = room(T * C, true), *dx = room(T * n * C, true);

    s.forward.merge = {kind, tokens, hidden, (int)n, room(T * n * C, true, 1), room(T * C, true, 1), room(T * n, false, .3f, 1),
                       room(T * n * n, false, .1f, .25f), room(T * n * C, true, 1)};
    *c = {kind, tokens, hidden, (int)n, 20, 1e-6, 1e-6, s.forward.merge.x_next, room(rows * width, false, .02f), room(n * n + 2 * n, false, 1),
          room(3, false, .1f, 1), room(T * n, false), room(T * n, false), room(T * n * n, false), room(T * n * (n + 2), false),
          room(T * n, false), room(T * C, true)};
    s.forward.mix.weight = room(C, false, .1f, 1);
    s.forward.mix.normed = room(T * C, true);
    s.forward.mix.norm_rrms = room(T, false);
    s.split = {kind, tokens, hidden, (int)n, room(T * n * C, true, 1), s.forward.merge.x, s.forward.merge.y, s.forward.merge.post,
               s.forward.merge.comb, dz, room(T * n, false, 1), room(T * n * n, false, 1)};
    s.back.connection = {kind, tokens, hidden, (int)n, 20, 1e-6, 1e-6, s.split.g, c->x, s.split.dpost, s.split.dcomb, dz, c->pre, c->post,
                         c->comb, c->projection, c->rrms, c->fn, c->base, c->scale, dx, room(rows * width, false), room(n * n + 2 * n, false),
                         room(3, false), room(workspace, false)};
    s.back.z = kind == MHP_CONNECTION_RESIDUAL ? c->x : c->z;
    s.back.weight = s.forward.mix.weight;
    s.back.norm_rrms = s.forward.mix.norm_rrms;
    s.back.dnormed = dnormed;
    s.back.dweight = room(C, false);
    return s;
}

static void bench(mhp_connection_kind kind, int hidden)
{
    static const char *kinds[] = {"residual", "hc", "mhc"};
    bool residual = kind == MHP_CONNECTION_RESIDUAL;
    int n = residual ? 1 : streams;
    std::vector<sublayer> s;
    const char *k = kinds[kind];
    double forward, backward, mix, first;

    for (int i = 0; i < SUBLAYERS; i++) {
        s.push_back(make(kind, hidden));
        must(mhp_cuda_merge_mix_bf16(NULL, &s.back().forward));
    }
    CUDA(cudaDeviceSynchronize());
    auto at = [&](int i) -> sublayer & { return s[(size_t)i % SUBLAYERS]; };
    first = row(k, "merge", hidden, residual ? 3 : 2 * n + 1, [&](int i) { must(mhp_cuda_merge_bf16(NULL, &at(i).forward.merge)); });
    mix = row(k, "mix", hidden, residual ? 2 : n + 1, [&](int i) { must(mhp_cuda_mix_bf16(NULL, &at(i).forward.mix)); });
    if (kind == MHP_CONNECTION_MHC) {
        double without;

        for (sublayer &one : s) {
            one.forward.mix.connection.sinkhorn_iterations = 1;
        }
        without = row(k, "mix, 1 Sinkhorn iteration", hidden, n + 1, [&](int i) { must(mhp_cuda_mix_bf16(NULL, &at(i).forward.mix)); });
        for (sublayer &one : s) {
            one.forward.mix.connection.sinkhorn_iterations = 20;
        }
        printf("# 19 Sinkhorn iterations add %.1f %% to mix; merge + mix together reach %.3f of 14C\n", 100 * (mix / without - 1),
               14.0 * 2 * hidden * tokens / ((first + mix) * 1e-3) / copy_rate);
    }
    forward = row(k, "forward chain: merge_mix", hidden, residual ? 3 : 2 * n + 2,
                  [&](int i) { must(mhp_cuda_merge_mix_bf16(NULL, &at(i).forward)); });
    row(k, "merge_gradient", hidden, residual ? 2 : 2 * n + 2, [&](int i) { must(mhp_cuda_merge_gradient_bf16(NULL, &at(i).split)); });
    row(k, "mix_gradient", hidden, residual ? 4 : 4 * n + 2, [&](int i) { must(mhp_cuda_mix_gradient_bf16(NULL, &at(i).back)); });
    backward = row(k, "backward chain", hidden, residual ? 4 : 6 * n + 4, [&](int i) {
        if (!residual) {
            must(mhp_cuda_merge_gradient_bf16(NULL, &at(i).split));
        }
        must(mhp_cuda_mix_gradient_bf16(NULL, &at(i).back));
    });
    printf("# %s forward + backward of a sublayer at C %d: %.4f ms; forward counted at 14C reaches %.3f\n", k, hidden, forward + backward,
           14.0 * 2 * hidden * tokens / (forward * 1e-3) / copy_rate);
    release();
}

int main(int argc, char **argv)
{
    std::vector<int> hidden;
    cudaDeviceProp properties;
    size_t bytes = (size_t)2 << 30;
    void *from, *to;

    for (int i = 1; i + 1 < argc; i += 2) {
        int value = atoi(argv[i + 1]);

        if (!strcmp(argv[i], "--tokens")) {
            tokens = value;
        } else if (!strcmp(argv[i], "--streams")) {
            streams = value;
        } else if (!strcmp(argv[i], "--repeat")) {
            repeat = value;
        } else if (!strcmp(argv[i], "--hidden")) {
            hidden.push_back(value);
        }
    }
    if (hidden.empty()) {
        hidden = {1280, 2560, 4096, 7168};
    }
    CUDA(cudaGetDeviceProperties(&properties, 0));
    from = room(bytes / 2, true, 1);
    to = room(bytes / 2, true, 1);
    copy_rate = 2.0 * (double)bytes / (median_ms([&](int) { CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice)); }) * 1e-3);
    release();
    printf("# %s, T %d, n %d, bf16; device copy of 2 GiB %.3f TB/s read and written\n", properties.name, tokens, streams, copy_rate * 1e-12);
    printf("%-9s %-34s %5s %8s %6s %8s %6s\n", "kind", "kernel", "C", "ms", "min/C", "MB", "copy");
    for (int c : hidden) {
        bench(MHP_CONNECTION_MHC, c);
    }
    bench(MHP_CONNECTION_RESIDUAL, hidden.size() > 1 ? hidden[1] : hidden[0]);
    bench(MHP_CONNECTION_HC, hidden.size() > 1 ? hidden[1] : hidden[0]);
    return 0;
}
