/* Tensors of the GPU's tests and benchmarks: values on the host in double, their rounded copy on the device. */
#ifndef MHP_TESTS_GPU_TENSOR_HPP
#define MHP_TESTS_GPU_TENSOR_HPP

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include <cuda_runtime_api.h>

extern "C" {
#include "model/cuda/cuda.h"
}

#define GPU_CHECK(call)                                                                                              \
    do {                                                                                                             \
        cudaError_t error_ = (call);                                                                                 \
        if (error_ != cudaSuccess) {                                                                                 \
            std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(error_));          \
            std::exit(1);                                                                                            \
        }                                                                                                            \
    } while (0)

/* splitmix64, and normal numbers from it. */
struct random_numbers {
    uint64_t state;

    uint64_t next()
    {
        uint64_t z = state += 0x9e3779b97f4a7c15u;

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    double uniform() { return (double)(next() >> 11) * 0x1p-53; }
    int below(int bound) { return (int)(next() % (uint64_t)bound); }
    double normal()             /* nearly: four 16-bit numbers of one draw, light tails, cheap */
    {
        uint64_t bits = next();
        double sum = (double)((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48)) - 131070;

        return sum * (1.7320508075688772 / 65536);
    }
};

/* A test's arguments: "clean", for small cases alone, and a seed in place of the time. false, and told, where there is no card: then the
 * test exits with 77. */
inline bool begin_test(int argc, char **argv, random_numbers *generator, bool *small_only)
{
    uint64_t seed = (uint64_t)std::time(nullptr);
    int cards = 0;

    for (int i = 1; i < argc; i++) {
        if (std::strcmp(argv[i], "clean") == 0) {
            *small_only = true;
        } else {
            seed = std::strtoull(argv[i], nullptr, 0);
        }
    }
    if (cudaGetDeviceCount(&cards) != cudaSuccess || cards == 0) {
        std::printf("skipped: no card\n");
        return false;
    }
    generator->state = seed;
    std::printf("seed %llu\n", (unsigned long long)seed);
    return true;
}

inline uint16_t bf16_bits(double value)
{
    float single = (float)value;
    uint32_t bits;

    std::memcpy(&bits, &single, sizeof bits);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline double bf16_value(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float single;

    std::memcpy(&single, &bits, sizeof bits);
    return single;
}

/* F32, F64, BF16 or I32. */
class gpu_tensor {
public:
    std::vector<double> host;   /* what an input holds, rounded to its type */

    gpu_tensor(mhp_dtype dtype, size_t count) : host(count), type_(dtype), bytes_(count * mhp_dtype_bytes(dtype))
    {
        GPU_CHECK(cudaMalloc(&device_, bytes_));
    }
    gpu_tensor(const gpu_tensor &) = delete;
    ~gpu_tensor() { (void)cudaFree(device_); }

    void *device() const { return device_; }
    size_t bytes() const { return bytes_; }

    void fill_normal(random_numbers &random, double deviation, double mean = 0)
    {
        for (double &value : host) {
            value = mean + deviation * random.normal();
        }
        upload();
    }
    /* Rounds `host` to the type and copies it to the device. */
    void upload()
    {
        std::vector<char> raw(bytes_);

        for (size_t i = 0; i < host.size(); i++) {
            encode(raw.data(), i);
        }
        GPU_CHECK(cudaMemcpy(device_, raw.data(), bytes_, cudaMemcpyHostToDevice));
        GPU_CHECK(cudaDeviceSynchronize());     /* streams of the tests do not wait for the default stream */
    }
    /* Every byte 0xff: NaN in every floating type. */
    void poison()
    {
        GPU_CHECK(cudaMemset(device_, 0xff, bytes_));
        GPU_CHECK(cudaDeviceSynchronize());
    }
    std::vector<char> raw() const
    {
        std::vector<char> raw(bytes_);

        GPU_CHECK(cudaMemcpy(raw.data(), device_, bytes_, cudaMemcpyDeviceToHost));
        return raw;
    }
    std::vector<double> values() const
    {
        std::vector<char> from = raw();
        std::vector<double> result(host.size());

        for (size_t i = 0; i < result.size(); i++) {
            result[i] = decode(from.data(), i);
        }
        return result;
    }

private:
    mhp_dtype type_;
    size_t bytes_;
    void *device_ = nullptr;

    void encode(char *raw, size_t i)
    {
        if (type_ == MHP_DTYPE_BF16) {
            reinterpret_cast<uint16_t *>(raw)[i] = bf16_bits(host[i]);
        } else if (type_ == MHP_DTYPE_F32) {
            reinterpret_cast<float *>(raw)[i] = (float)host[i];
        } else if (type_ == MHP_DTYPE_F64) {
            reinterpret_cast<double *>(raw)[i] = host[i];
        } else {
            reinterpret_cast<int32_t *>(raw)[i] = (int32_t)host[i];
        }
        host[i] = decode(raw, i);
    }
    double decode(const char *raw, size_t i) const
    {
        return type_ == MHP_DTYPE_BF16  ? bf16_value(reinterpret_cast<const uint16_t *>(raw)[i])
               : type_ == MHP_DTYPE_F32 ? reinterpret_cast<const float *>(raw)[i]
               : type_ == MHP_DTYPE_F64 ? reinterpret_cast<const double *>(raw)[i]
                                        : reinterpret_cast<const int32_t *>(raw)[i];
    }
};

#endif
