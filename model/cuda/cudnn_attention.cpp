/* Attention by cuDNN through its C++ front end (the PyPI package nvidia-cudnn-frontend carries the headers): one graph forward, one
 * for the gradient, by shape. Built where both are found; no_cudnn_attention.c stands in elsewhere.
 *
 * The gradient uses cuDNN's deterministic algorithm, so that two runs agree to the bit. On Hopper its workspace grows with the square
 * of the length (2 bytes for every head's pair of tokens); what would need more than WORKSPACE_MAX is left to the own kernels.
 * Graphs are chosen by heuristics, not by trials, for the same reason. */
#include <cmath>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include <cudnn_frontend.h>

extern "C" {
#include "model/cuda/attention.h"
}

namespace fe = cudnn_frontend;

namespace {

constexpr int64_t WORKSPACE_MAX = (int64_t)2 << 30;
constexpr int DEVICES_MAX = 64;

enum uid : int64_t { QUERY = 1, KEY, VALUE, OUT, LOG_SUM, DOUT, DQUERY, DKEY, DVALUE };

struct shape {
    int device, sequences, length, heads, kv_heads, size;

    bool operator==(const shape &other) const
    {
        return device == other.device && sequences == other.sequences && length == other.length && heads == other.heads &&
               kv_heads == other.kv_heads && size == other.size;
    }
};

/* Graphs of a shape; NULL both where cuDNN declines. */
struct plan {
    shape of;
    std::unique_ptr<fe::graph::Graph> forward, gradient;
    size_t workspace_bytes = 0;
};

/* A handle carries a stream, so whoever executes holds the lock from setting it until the work is enqueued. */
struct {
    std::mutex lock;
    cudnnHandle_t handle[DEVICES_MAX];
    std::vector<std::unique_ptr<plan>> plans;
} library;

typedef std::shared_ptr<fe::graph::Tensor_attributes> tensor;

/* Heads [B,heads,S,D] within rows of `row` elements a token. */
fe::graph::Tensor_attributes heads_of(const shape &of, int64_t id, int heads, int64_t row)
{
    return fe::graph::Tensor_attributes()
        .set_uid(id)
        .set_dim({of.sequences, heads, of.length, of.size})
        .set_stride({of.length * row, of.size, row, 1});
}

fe::graph::Tensor_attributes log_sum_of(const shape &of)
{
    return fe::graph::Tensor_attributes()
        .set_uid(LOG_SUM)
        .set_dim({of.sequences, of.heads, of.length, 1})
        .set_stride({(int64_t)of.heads * of.length, of.length, 1, 1})
        .set_data_type(fe::DataType_t::FLOAT);
}

int64_t qkv_row(const shape &of) { return (int64_t)(of.heads + 2 * of.kv_heads) * of.size; }
int64_t out_row(const shape &of) { return (int64_t)of.heads * of.size; }
float scale_of(const shape &of) { return (float)(1 / std::sqrt((double)of.size)); }

void mark_output(const tensor &output, const fe::graph::Tensor_attributes &like)
{
    output->set_output(true).set_uid(like.get_uid()).set_dim(like.get_dim()).set_stride(like.get_stride());
}

std::unique_ptr<fe::graph::Graph> graph_create()
{
    auto graph = std::make_unique<fe::graph::Graph>();

    graph->set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    return graph;
}

bool build(fe::graph::Graph &graph, cudnnHandle_t handle, size_t *workspace_bytes)
{
    int64_t bytes = 0;

    if (graph.build(handle, {fe::HeurMode_t::A}).is_bad() || graph.get_workspace_size(bytes).is_bad() || bytes > WORKSPACE_MAX) {
        return false;
    }
    if ((size_t)bytes > *workspace_bytes) {
        *workspace_bytes = (size_t)bytes;
    }
    return true;
}

bool build_forward(plan &made, cudnnHandle_t handle)
{
    const shape &of = made.of;
    auto graph = graph_create();
    auto query = graph->tensor(heads_of(of, QUERY, of.heads, qkv_row(of)));
    auto key = graph->tensor(heads_of(of, KEY, of.kv_heads, qkv_row(of)));
    auto value = graph->tensor(heads_of(of, VALUE, of.kv_heads, qkv_row(of)));
    auto options = fe::graph::SDPA_attributes()
                       .set_name("attention")
                       .set_generate_stats(true)
                       .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
                       .set_diagonal_band_right_bound(0)
                       .set_attn_scale(scale_of(of));
    auto outputs = graph->sdpa(query, key, value, options);

    mark_output(outputs[0], heads_of(of, OUT, of.heads, out_row(of)));
    mark_output(outputs[1], log_sum_of(of));
    outputs[1]->set_data_type(fe::DataType_t::FLOAT);
    made.forward = std::move(graph);
    return build(*made.forward, handle, &made.workspace_bytes);
}

bool build_gradient(plan &made, cudnnHandle_t handle)
{
    const shape &of = made.of;
    auto graph = graph_create();
    auto query = graph->tensor(heads_of(of, QUERY, of.heads, qkv_row(of)));
    auto key = graph->tensor(heads_of(of, KEY, of.kv_heads, qkv_row(of)));
    auto value = graph->tensor(heads_of(of, VALUE, of.kv_heads, qkv_row(of)));
    auto out = graph->tensor(heads_of(of, OUT, of.heads, out_row(of)));
    auto dout = graph->tensor(heads_of(of, DOUT, of.heads, out_row(of)));
    auto log_sum = graph->tensor(log_sum_of(of));
    auto options = fe::graph::SDPA_backward_attributes()
                       .set_name("attention_gradient")
                       .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
                       .set_diagonal_band_right_bound(0)
                       .set_deterministic_algorithm(true)
                       .set_attn_scale(scale_of(of));
    auto outputs = graph->sdpa_backward(query, key, value, out, dout, log_sum, options);

    mark_output(outputs[0], heads_of(of, DQUERY, of.heads, qkv_row(of)));
    mark_output(outputs[1], heads_of(of, DKEY, of.kv_heads, qkv_row(of)));
    mark_output(outputs[2], heads_of(of, DVALUE, of.kv_heads, qkv_row(of)));
    made.gradient = std::move(graph);
    return build(*made.gradient, handle, &made.workspace_bytes);
}

/* The plan of a shape; without graphs where cuDNN declines. `library.lock` is held. */
const plan &plan_of(const shape &of)
{
    cudnnHandle_t *handle = &library.handle[of.device];

    for (const auto &known : library.plans) {
        if (known->of == of) {
            return *known;
        }
    }
    library.plans.push_back(std::make_unique<plan>());
    plan &made = *library.plans.back();
    bool served = false;

    made.of = of;
    try {
        served = of.size % 8 == 0 && (*handle || cudnnCreate(handle) == CUDNN_STATUS_SUCCESS) && build_forward(made, *handle) &&
                 build_gradient(made, *handle);
    } catch (const std::exception &) {          /* the front end's way to decline, too */
    }
    if (!served) {
        made.forward.reset();
        made.gradient.reset();
        made.workspace_bytes = 0;
    }
    return made;
}

template <typename arguments> shape shape_of(const arguments &args)
{
    int device = 0;

    (void)cudaGetDevice(&device);
    return shape{device % DEVICES_MAX, args.sequences, args.length, args.heads, args.kv_heads, args.head_size};
}

/* A head's first element within a token's row of qkv. */
void *head_at(const void *qkv, int head, int size)
{
    return const_cast<char *>(static_cast<const char *>(qkv)) + (size_t)head * (size_t)size * 2;
}

mhp_status execute(fe::graph::Graph &graph, const shape &of, cudaStream_t stream, std::unordered_map<int64_t, void *> &pointers,
                   void *workspace, const char *what)
{
    try {
        if (cudnnSetStream(library.handle[of.device], stream) != CUDNN_STATUS_SUCCESS) {
            return mhp_error_set(MHP_ERR_DEVICE, "%s: cudnnSetStream failed", what);
        }
        auto error = graph.execute(library.handle[of.device], pointers, workspace);

        return error.is_good() ? MHP_OK : mhp_error_set(MHP_ERR_DEVICE, "%s: cuDNN: %s", what, error.get_message().c_str());
    } catch (const std::exception &exception) {
        return mhp_error_set(MHP_ERR_DEVICE, "%s: cuDNN: %s", what, exception.what());
    }
}

} // namespace

bool mhp_cudnn_attention_serves(int sequences, int length, int heads, int kv_heads, int head_size, size_t *workspace_bytes_out)
{
    mhp_attention_args args = {};

    args.sequences = sequences;
    args.length = length;
    args.heads = heads;
    args.kv_heads = kv_heads;
    args.head_size = head_size;
    std::lock_guard<std::mutex> guard(library.lock);
    const plan &found = plan_of(shape_of(args));

    *workspace_bytes_out = found.workspace_bytes;
    return found.forward != nullptr;
}

mhp_status mhp_cudnn_attention(cudaStream_t stream, const mhp_attention_args *args)
{
    shape of = shape_of(*args);
    std::unordered_map<int64_t, void *> pointers = {
        {QUERY, head_at(args->qkv, 0, of.size)},
        {KEY, head_at(args->qkv, of.heads, of.size)},
        {VALUE, head_at(args->qkv, of.heads + of.kv_heads, of.size)},
        {OUT, args->out},
        {LOG_SUM, args->log_sum},
    };
    std::lock_guard<std::mutex> guard(library.lock);

    return execute(*plan_of(of).forward, of, stream, pointers, args->workspace, "attention");
}

mhp_status mhp_cudnn_attention_gradient(cudaStream_t stream, const mhp_attention_gradient_args *args)
{
    shape of = shape_of(*args);
    std::unordered_map<int64_t, void *> pointers = {
        {QUERY, head_at(args->qkv, 0, of.size)},
        {KEY, head_at(args->qkv, of.heads, of.size)},
        {VALUE, head_at(args->qkv, of.heads + of.kv_heads, of.size)},
        {OUT, const_cast<void *>(args->out)},
        {LOG_SUM, const_cast<void *>(args->log_sum)},
        {DOUT, const_cast<void *>(args->dout)},
        {DQUERY, head_at(args->dqkv, 0, of.size)},
        {DKEY, head_at(args->dqkv, of.heads, of.size)},
        {DVALUE, head_at(args->dqkv, of.heads + of.kv_heads, of.size)},
    };
    std::lock_guard<std::mutex> guard(library.lock);

    return execute(*plan_of(of).gradient, of, stream, pointers, args->workspace, "attention_gradient");
}
