/* mpirun -n P golden_model DIR --schedule KIND|FILE [--chunks V] [--dtype f64|f32|bf16] [--data R] [--layers-per-stage a,b,...]
 * [--micro-batch-size N] [--device cpu|test|cuda] [--transport auto|ipc|nccl|mpi] [--threads N] [--recompute none|connections|full]
 * [--block N] [--shallow] [--critical] [--slices N] [--pair interleave|streams|off]
 *
 * Trains each of DIR/model_*.safetensors for its steps on P = pipeline x R ranks and compares logits, losses, gradients, norms and
 * final parameters with the file; the micro-batch losses of step 0 must be the same bits as those of one rank without a plan. A file
 * that the ranks cannot run is skipped with the reason. Exit status 1 on every rank if anything is off, or if no file was run; 77
 * without a card, where one is asked for. */
#include <argp.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "core/memory.h"
#include "runtime/local_model.h"
#include "runtime/partition.h"
#include "runtime/trainer.h"
#include "scheduler/generator.h"
#include "scheduler/lower.h"
#include "scheduler/yaml.h"
#include "tests/golden/golden.h"

typedef struct golden_settings {
    char *folder, *schedule, *layers;
    int dtype, device, transport, recompute, weight_gradients;
    mhp_overlap_params overlap;
    int64_t block;
    int64_t data, micro_batch_size, threads, chunks;
    int run_count, off_count;       /* files that the ranks could run, and of them those that are off */
} golden_settings;

enum { LOGITS, LOSSES, NORMS, GRADIENTS, FEW_GRADIENTS, FINAL, FINAL_FIRST, BITS, SAME, COMPARED_COUNT };

/* What a training came to. */
typedef struct golden_result {
    double losses[64], norms[64];
    mhp_hash parameters;            /* of this rank's, behind the last step */
} golden_result;

/* One file on this rank. */
typedef struct golden_case {
    const golden_settings *settings;
    mhp_comm *comm;
    mhp_safetensors *file;
    const char *name;
    mhp_model_params model;
    mhp_parallel_params parallel;
    mhp_schedule_params schedule;
    mhp_optimizer_params optimizer;
    mhp_train_params train;
    int steps, batch, length;
    int64_t *tokens, *targets;      /* [steps, batch, length] */
    mhp_trainer *trainer;
    mhp_group *world;
    double worst[COMPARED_COUNT];              /* by what was compared */
    char worst_name[COMPARED_COUNT][MHP_TENSOR_NAME_MAX + 16];
    golden_result result;
    bool good;
} golden_case;

enum { NO_CARD = 77 };          /* exit status: skipped */

static const char *const compared_text[] = {"logits", "losses", "norms", "gradients", "gradients of scales and bases", "final", "final hc_attn_* of layer 0",
                                            "step 0 against one rank", "bits without overlap"};

static mhp_status fill(void *context, uint64_t sample, int32_t *token, int32_t *target, int32_t *document_start)
{
    const golden_case *c = context;
    size_t first = (size_t)sample * (size_t)c->length;

    for (int t = 0; t < c->length; t++) {
        token[t] = (int32_t)c->tokens[first + (size_t)t];
        target[t] = (int32_t)c->targets[first + (size_t)t];
        document_start[t] = 0;
    }
    return MHP_OK;
}

static void note(golden_case *c, int what, double error, const char *name)
{
    if (!(error <= c->worst[what])) {
        c->worst[what] = error;
        snprintf(c->worst_name[what], sizeof c->worst_name[what], "%s", name);
    }
}

/* ---- the case from the file ---- */

static int connection_kind(const char *text)
{
    return strcmp(text, "residual") == 0 ? MHP_CONNECTION_RESIDUAL : strcmp(text, "hc") == 0 ? MHP_CONNECTION_HC : MHP_CONNECTION_MHC;
}

static mhp_status read_model(golden_case *c)
{
    const mhp_safetensors *file = c->file;

    c->model = (mhp_model_params){
        .hidden_size = (int64_t)golden_number(file, "hidden"),
        .num_hidden_layers = (int64_t)golden_number(file, "layers"),
        .num_attention_heads = (int64_t)golden_number(file, "heads"),
        .num_key_value_heads = (int64_t)golden_number(file, "kv_heads"),
        .head_dim = (int64_t)golden_number(file, "head_dim"),
        .intermediate_size = (int64_t)golden_number(file, "intermediate"),
        .vocab_size = (int64_t)golden_number(file, "vocab"),
        .rms_norm_eps = golden_number(file, "norm_eps"),
        .rope_theta = golden_number(file, "rope_theta"),
        .initializer_range = 0.02,
        .dtype = c->settings->dtype,
        .connections = {
            .kind = connection_kind(golden_text(file, "connections")),
            .streams = (int64_t)golden_number(file, "streams"),
            .sinkhorn_iterations = (int64_t)golden_number(file, "sinkhorn_iters"),
            .eps = golden_number(file, "hc_eps"),
            .readout = strcmp(golden_text(file, "readout"), "sum") == 0 ? MHP_READOUT_SUM : MHP_READOUT_HEAD,
            .init_pre_gain = 1,
        },
    };
    return mhp_model_params_resolve(&c->model);
}

static bool is_file(const golden_settings *settings)
{
    return strchr(settings->schedule, '/') != NULL;
}

static mhp_status read_training(golden_case *c)
{
    size_t count;

    c->length = (int)golden_number(c->file, "seq");
    c->batch = (int)golden_number(c->file, "batch");
    c->tokens = golden_integers(c->file, "tokens", &count);
    c->targets = golden_integers(c->file, "targets", &count);
    c->steps = (int)(count / (size_t)(c->length * c->batch));
    c->optimizer = (mhp_optimizer_params){
        .lr = golden_number(c->file, "lr"), .beta1 = golden_number(c->file, "beta1"), .beta2 = golden_number(c->file, "beta2"),
        .eps = golden_number(c->file, "adam_eps"), .weight_decay = golden_number(c->file, "weight_decay"),
        .clip = golden_number(c->file, "clip"), .decay = MHP_DECAY_CONSTANT, .min_lr_ratio = 1,
    };
    c->train = (mhp_train_params){.steps = c->steps, .seed = 1, .sequence_length = c->length,
                                  .micro_batch_size = c->settings->micro_batch_size};
    c->parallel = (mhp_parallel_params){.pipeline = mhp_comm_size(c->comm) / c->settings->data, .data = c->settings->data,
                                        .device = c->settings->device, .threads = c->settings->threads};
    c->schedule = (mhp_schedule_params){
        .kind = is_file(c->settings) ? "custom" : c->settings->schedule,
        .file = is_file(c->settings) ? c->settings->schedule : "",
        .chunks = c->settings->chunks,
        .microbatches = c->batch / (c->settings->data * c->settings->micro_batch_size)};
    c->schedule.recompute = (mhp_recompute_params){c->settings->recompute, c->settings->block};
    c->schedule.weight_gradients = c->settings->weight_gradients;
    c->schedule.overlap = c->settings->overlap;
    return MHP_OK;
}

static mhp_status read_layers(golden_case *c)
{
    char *text = NULL, *rest = NULL;

    if (!c->settings->layers) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_strdup(&text, c->settings->layers));
    MHP_RETURN_IF_ERROR(mhp_calloc(&c->schedule.layers_per_stage.items, strlen(text) + 1, sizeof(double)));
    for (char *word = strtok_r(text, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        c->schedule.layers_per_stage.items[c->schedule.layers_per_stage.count++] = strtod(word, NULL);
    }
    mhp_free(text);
    return MHP_OK;
}

/* The number of stages of a schedule's file, if it suits. */
static mhp_status file_stages(const golden_case *c, int *stages_out)
{
    mhp_plan *plan = NULL;
    mhp_status status = mhp_plan_read(c->schedule.file, &plan);

    if (status == MHP_OK && (plan->rank_count != c->parallel.pipeline || plan->microbatch_count != c->schedule.microbatches)) {
        status = mhp_error_set(MHP_ERR_PLAN, "it is for %d ranks and %d micro-batches, not for %d and %d", plan->rank_count,
                               plan->microbatch_count, (int)c->parallel.pipeline, (int)c->schedule.microbatches);
    }
    *stages_out = status == MHP_OK ? plan->stage_count : 0;
    mhp_plan_destroy(plan);
    return status;
}

static mhp_status generator_stages(const golden_case *c, int *stages_out)
{
    const mhp_generator *generator = mhp_generator_find(c->settings->schedule);
    mhp_schedule_shape shape = {
        .ranks = (int)c->parallel.pipeline, .microbatches = (int)c->schedule.microbatches, .chunks = (int)c->schedule.chunks};

    MHP_RETURN_IF_ERROR(generator->check(&shape));
    *stages_out = generator->stage_count(&shape);
    return MHP_OK;
}

/* Why the ranks cannot run this file, in the error text; MHP_OK if they can. */
static mhp_status suits(const golden_case *c)
{
    mhp_stage_extent extents[64];
    int stages;

    MHP_RETURN_IF_ERROR(is_file(c->settings) ? file_stages(c, &stages) : generator_stages(c, &stages));
    if (stages > 64) {
        return mhp_error_set(MHP_ERR_LIMIT, "%d stages", stages);
    }
    return mhp_partition_layers(c->model.num_hidden_layers, stages, &c->schedule.layers_per_stage, extents);
}

/* ---- comparisons ---- */

static const char *plain_name(const char *name)
{
    return strncmp(name, "param/", 6) == 0 ? name + 6 : name;
}

/* A connection's scale and base are a few numbers; their gradients are sums over all tokens of what mostly cancels. */
static bool is_few(const char *name)
{
    size_t length = strlen(name);

    return (length > 6 && strcmp(name + length - 6, "_scale") == 0) || (length > 5 && strcmp(name + length - 5, "_base") == 0);
}

/* The parameters of one stage of this rank, or their gradients, against the file's `prefix` tensors; of gradients this holder's own
 * part alone. */
static mhp_status compare_stage(golden_case *c, const mhp_held_stage *held, const char *prefix, bool gradients)
{
    mhp_status status = MHP_OK;
    mhp_dtype dtype = mhp_dtype_full((mhp_dtype)c->model.dtype);
    const mhp_parameter_layout *layout = mhp_stage_layout(held->stage);
    int64_t own_begin = gradients ? held->chunk * mhp_group_index(held->group) : 0;
    int64_t own_end = gradients ? own_begin + held->chunk : layout->elements;
    size_t bytes = (size_t)layout->elements * mhp_dtype_bytes(dtype);
    mhp_stream *compute = mhp_trainer_compute(c->trainer);
    char *memory = NULL;

    MHP_TRY(out, mhp_calloc(&memory, bytes, 1));
    MHP_TRY(out, mhp_stream_copy(compute, memory, gradients ? held->gradients : held->parameters, bytes));
    MHP_TRY(out, mhp_stream_synchronize(compute));
    for (int i = 0; i < layout->count; i++) {
        const mhp_parameter *parameter = &layout->items[i];
        int64_t begin = parameter->offset > own_begin ? parameter->offset : own_begin;
        int64_t end = parameter->offset + parameter->elements < own_end ? parameter->offset + parameter->elements : own_end;
        char name[MHP_TENSOR_NAME_MAX + 16];
        bool first = strstr(parameter->info.name, "layers.0.hc_attn_") != NULL;
        double *expected, norm = 0, part = 0, error;
        size_t count;

        snprintf(name, sizeof name, "%s%s", prefix, parameter->info.name);
        if (end <= begin) {
            continue;
        }
        expected = golden_tensor(c->file, name, &count);
        for (size_t k = 0; k < count; k++) {
            norm += expected[k] * expected[k];
        }
        for (int64_t k = begin; k < end; k++) {
            part += expected[k - parameter->offset] * expected[k - parameter->offset];
        }
        /* Of a part the error is taken over the whole tensor's norm; parts of all holders together stay below twice the limit. */
        error = golden_error(memory + (size_t)begin * mhp_dtype_bytes(dtype), dtype, expected + (begin - parameter->offset),
                             (size_t)(end - begin));
        if (part > 0 && norm > 0) {
            error *= sqrt(part / norm);
        }
        note(c, gradients ? (is_few(name) ? FEW_GRADIENTS : GRADIENTS) : first ? FINAL_FIRST : FINAL, error, plain_name(name));
        mhp_free(expected);
    }
out:
    mhp_free(memory);
    return status;
}

static mhp_status compare_parameters(golden_case *c, const char *prefix, bool gradients)
{
    mhp_status status = MHP_OK;
    mhp_store *store = mhp_trainer_store(c->trainer);

    for (int s = 0; s < store->held_count; s++) {
        MHP_TRY(out, compare_stage(c, &store->held[s], prefix, gradients));
    }
out:
    return status;
}

/* A product on part of a card may take another algorithm: then the reference alone tells whether the numbers are right. */
static bool parts_card(const golden_settings *settings)
{
    return settings->device == MHP_DEVICE_CUDA && (settings->overlap.spare > 0 || settings->overlap.pair == MHP_PAIR_PARTS);
}

/* Runs the batch of step 0 on this rank alone: logits of its first sequence, and the sum of losses of each micro-batch. */
static mhp_status compare_alone(golden_case *c, const mhp_step_report *report)
{
    mhp_status status = MHP_OK;
    mhp_local_model_params params = {.device = mhp_comm_device(c->comm), .model = &c->model,
                                     .length = c->length, .threads = (int)c->parallel.threads};
    mhp_local_model *local = NULL;
    size_t count;
    double *logits = golden_tensor(c->file, "logits", &count);
    int32_t *token = NULL, *target = NULL, *start = NULL;

    MHP_TRY(out, mhp_calloc(&token, (size_t)c->length, sizeof *token));
    MHP_TRY(out, mhp_calloc(&target, (size_t)c->length, sizeof *target));
    MHP_TRY(out, mhp_calloc(&start, (size_t)c->length, sizeof *start));
    MHP_TRY(out, mhp_local_model_create(&params, &local));
    MHP_TRY(out, mhp_local_model_load(local, c->file, "param/"));
    for (int b = 0; b < c->batch; b++) {
        const void *computed;
        double sum;

        MHP_TRY(out, fill(c, (uint64_t)b, token, target, start));
        MHP_TRY(out, mhp_local_model_forward(local, token, target, &sum, &computed));
        if (b == 0) {
            note(c, LOGITS, golden_error(computed, (mhp_dtype)c->model.dtype, logits, count), "logits");
        }
        if (c->settings->micro_batch_size == 1 && !parts_card(c->settings) && memcmp(&sum, &report->losses[b], sizeof sum) != 0) {
            char name[128];

            snprintf(name, sizeof name, "micro-batch %d: %.17g, expected %.17g", b, report->losses[b], sum);
            note(c, BITS, 1, name);
        }
    }
out:
    mhp_local_model_destroy(local);
    mhp_free(token);
    mhp_free(target);
    mhp_free(start);
    mhp_free(logits);
    return status;
}

/* Of all stages of this rank together. */
static mhp_status hash_parameters(const golden_case *c, mhp_hash *hash_out)
{
    mhp_status status = MHP_OK;
    mhp_store *store = mhp_trainer_store(c->trainer);
    mhp_stream *compute = mhp_trainer_compute(c->trainer);
    mhp_hash hashes[64];
    char *memory = NULL;

    for (int s = 0; s < store->held_count && s < 64; s++) {
        size_t bytes = (size_t)mhp_stage_layout(store->held[s].stage)->elements * mhp_dtype_bytes(mhp_dtype_full((mhp_dtype)c->model.dtype));

        MHP_TRY(out, mhp_calloc(&memory, bytes, 1));
        MHP_TRY(out, mhp_stream_copy(compute, memory, store->held[s].parameters, bytes));
        MHP_TRY(out, mhp_stream_synchronize(compute));
        hashes[s] = mhp_hash_bytes(memory, bytes);
        mhp_free(memory);
        memory = NULL;
    }
    *hash_out = mhp_hash_bytes(hashes, (size_t)store->held_count * sizeof *hashes);
out:
    mhp_free(memory);
    return status;
}

static mhp_status train(golden_case *c)
{
    size_t count;
    double *losses = golden_tensor(c->file, "losses", &count);
    double *norms = golden_tensor(c->file, "grad_norms", &count);
    double *computed_losses = c->result.losses, *computed_norms = c->result.norms;
    mhp_status status = MHP_OK;

    for (int step = 0; step < c->steps && step < 64; step++) {
        mhp_step_report report;

        MHP_TRY(out, mhp_trainer_step(c->trainer, step, &report));
        computed_losses[step] = report.loss;
        computed_norms[step] = report.gradient_norm;
    }
    note(c, LOSSES, golden_error(computed_losses, MHP_DTYPE_F64, losses, count), "losses");
    note(c, NORMS, golden_error(computed_norms, MHP_DTYPE_F64, norms, count), "grad_norms");
    MHP_TRY(out, compare_parameters(c, "final/", false));
    MHP_TRY(out, hash_parameters(c, &c->result.parameters));
out:
    mhp_free(losses);
    mhp_free(norms);
    return status;
}

/* In bf16 every product's inputs are rounded to 2^-9, so that errors grow with the depth of the sums behind them; a step of AdamW then
 * turns the sign of a small gradient into a whole learning rate, and hc's gradients explode as its connections multiply: of them little
 * more is left than their size. */
static double bf16_limit(const golden_case *c, int what)
{
    static const double limits[COMPARED_COUNT] = {
        [LOGITS] = 2e-2, [LOSSES] = 5e-3, [NORMS] = 5e-2, [GRADIENTS] = 1e-1, [FEW_GRADIENTS] = 3e-1, [FINAL] = 1e-1, [FINAL_FIRST] = 2e-1};

    if (c->model.connections.kind != MHP_CONNECTION_HC) {
        return limits[what];
    }
    return (what == GRADIENTS ? 6 : 5) * limits[what];
}

static double limit_of(const golden_case *c, int what)
{
    if (what == BITS || what == SAME) {
        return 0;
    }
    if (c->model.dtype == MHP_DTYPE_BF16) {
        return bf16_limit(c, what);
    }
    if (c->model.dtype == MHP_DTYPE_F64) {
        return 1e-9;
    }
    if (what == FINAL_FIRST) {
        return 1e-2;
    }
    return what == NORMS && c->model.connections.kind == MHP_CONNECTION_HC ? 1e-3 : 1e-4;
}

/* The worst over all ranks, printed by rank 0. */
static mhp_status judge(golden_case *c)
{
    mhp_status status = MHP_OK;
    int failures = 0;

    for (int i = 0; i < COMPARED_COUNT; i++) {
        if (!(c->worst[i] <= limit_of(c, i))) {
            failures++;
            fprintf(stderr, "rank %d: %s: %s off by %.2e (%s), limit %.0e\n", mhp_comm_rank(c->comm), c->name, compared_text[i],
                    c->worst[i], c->worst_name[i], limit_of(c, i));
        }
    }
    if (failures > 0) {
        status = mhp_error_set(MHP_ERR_INTERNAL, "%s: %d comparisons failed", c->name, failures);
    }
    status = mhp_comm_agree(c->comm, status, NULL);
    if (mhp_comm_rank(c->comm) == 0) {
        printf("%-4s %-28s %s %s, rank 0: logits %.1e losses %.1e norms %.1e gradients %.1e (few %.1e) final %.1e (layer 0 attention %.1e)\n",
               status < 0 ? "FAIL" : "ok", c->name, c->settings->schedule, mhp_dtype_text((mhp_dtype)c->model.dtype), c->worst[LOGITS],
               c->worst[LOSSES], c->worst[NORMS], c->worst[GRADIENTS], c->worst[FEW_GRADIENTS], c->worst[FINAL], c->worst[FINAL_FIRST]);
        fflush(stdout);
    }
    return status;
}

/* The same training with everything one behind the other must come to the same bits. */
static mhp_status compare_without_overlap(golden_case *c, mhp_trainer_params params)
{
    mhp_status status = MHP_OK;
    golden_result with = c->result;
    mhp_schedule_params schedule = c->schedule;

    schedule.overlap = (mhp_overlap_params){.slices = 1, .pair = MHP_PAIR_OFF};
    params.schedule = &schedule;
    MHP_TRY(out, mhp_trainer_create(&params, &c->trainer));
    MHP_TRY(out, mhp_store_load(mhp_trainer_store(c->trainer), c->file, "param/"));
    MHP_TRY(out, train(c));
    note(c, SAME, memcmp(with.losses, c->result.losses, sizeof with.losses) != 0, "losses");
    note(c, SAME, memcmp(with.norms, c->result.norms, sizeof with.norms) != 0, "norms");
    note(c, SAME, !mhp_hash_equal(with.parameters, c->result.parameters), "parameters");
out:
    mhp_trainer_destroy(c->trainer);
    c->trainer = NULL;
    return status;
}

static bool overlaps(const golden_settings *settings)
{
    const mhp_overlap_params *overlap = &settings->overlap;

    return overlap->critical_stream || overlap->slices > 0 || mhp_lanes_pair(overlap, settings->device) != MHP_PAIR_INTERLEAVE;
}

static mhp_status run_trainer(golden_case *c)
{
    mhp_status status = MHP_OK;
    mhp_trainer_params params = {.comm = c->comm, .model = &c->model, .parallel = &c->parallel, .schedule = &c->schedule,
                                 .optimizer = &c->optimizer, .train = &c->train, .samples = {fill, c}, .held_out = {fill, c}};
    mhp_step_report report;

    MHP_TRY(out, mhp_trainer_create(&params, &c->trainer));
    MHP_TRY(out, mhp_store_load(mhp_trainer_store(c->trainer), c->file, "param/"));
    MHP_TRY(out, mhp_trainer_gradients(c->trainer, 0, &report));
    MHP_TRY(out, compare_parameters(c, "grad/", true));
    MHP_TRY(out, compare_alone(c, &report));
    MHP_TRY(out, train(c));
    mhp_trainer_destroy(c->trainer);
    c->trainer = NULL;
    if (overlaps(c->settings) && !parts_card(c->settings)) {
        MHP_TRY(out, compare_without_overlap(c, params));
    }
    if (judge(c) < 0) {
        c->good = false;
    }
out:
    mhp_trainer_destroy(c->trainer);
    return status;
}

static mhp_status run_file(golden_settings *settings, mhp_comm *comm, const char *path)
{
    mhp_status status = MHP_OK;
    golden_case c = {.settings = settings, .comm = comm, .name = golden_name(path), .good = true};

    MHP_TRY(out, mhp_safetensors_open(path, &c.file));
    MHP_TRY(out, read_model(&c));
    MHP_TRY(out, read_training(&c));
    MHP_TRY(out, read_layers(&c));
    if (suits(&c) < 0) {
        if (mhp_comm_rank(comm) == 0) {
            printf("skip %-28s %s: %s\n", c.name, settings->schedule, mhp_error_text());
        }
    } else {
        settings->run_count++;
        MHP_TRY(out, run_trainer(&c));
        settings->off_count += !c.good;
    }
out:
    mhp_safetensors_close(c.file);
    mhp_free(c.schedule.layers_per_stage.items);
    mhp_free(c.tokens);
    mhp_free(c.targets);
    return status;
}

/* ---- command line ---- */

static const struct argp_option options[] = {
    {"schedule", 's', "KIND|FILE", 0, "name of a schedule, or a file, which has a '/' in its name", 0},
    {"chunks", 'c', "V", 0, "stages a rank, for interleaved schedules (2)", 0},
    {"dtype", 't', "f64|f32|bf16", 0, "element type (f64)", 0},
    {"data", 'd', "R", 0, "replicas of the pipeline (1)", 0},
    {"layers-per-stage", 'l', "a,b,...", 0, "length of every stage", 0},
    {"micro-batch-size", 'm', "N", 0, "sequences of a micro-batch (1)", 0},
    {"device", 'D', "cpu|test|cuda", 0, "backend (cpu)", 0},
    {"transport", 'x', "auto|ipc|nccl|mpi", 0, "what carries messages (mpi)", 0},
    {"threads", 'T', "N", 0, "threads of a rank (1)", 0},
    {"recompute", 'r', "none|connections|full", 0, "what is made again (none)", 0},
    {"block", 'b', "N", 0, "sublayers of a block (the optimum)", 0},
    {"shallow", 'w', NULL, 0, "weight gradients as soon as possible", 0},
    {"critical", 'k', NULL, 0, "what messages wait for on streams of their own", 0},
    {"slices", 'n', "N", 0, "parts of a state on its way (by its size)", 0},
    {"spare", 'a', "N", 0, "multiprocessors that compute leaves to what messages wait for (0)", 0},
    {"pair", 'p', "auto|interleave|streams|parts|off", 0, "how the halves of a pair share the device (auto)", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state)
{
    golden_settings *s = state->input;

    switch (key) {
    case 's':
        s->schedule = argument;
        return 0;
    case 'c':
        s->chunks = atoi(argument);
        return 0;
    case 't':
        s->dtype = strcmp(argument, "bf16") == 0  ? MHP_DTYPE_BF16
                   : strcmp(argument, "f32") == 0 ? MHP_DTYPE_F32
                                                  : MHP_DTYPE_F64;
        return 0;
    case 'd':
        s->data = atoi(argument);
        return 0;
    case 'l':
        s->layers = argument;
        return 0;
    case 'm':
        s->micro_batch_size = atoi(argument);
        return 0;
    case 'D':
        s->device = strcmp(argument, "cuda") == 0   ? MHP_DEVICE_CUDA
                    : strcmp(argument, "test") == 0 ? MHP_DEVICE_TEST
                                                    : MHP_DEVICE_CPU;
        return 0;
    case 'x':
        s->transport = strcmp(argument, "ipc") == 0    ? MHP_TRANSPORT_IPC
                       : strcmp(argument, "nccl") == 0 ? MHP_TRANSPORT_NCCL
                       : strcmp(argument, "auto") == 0 ? MHP_TRANSPORT_AUTO
                                                       : MHP_TRANSPORT_MPI;
        return 0;
    case 'r':
        s->recompute = strcmp(argument, "full") == 0          ? MHP_RECOMPUTE_FULL
                       : strcmp(argument, "connections") == 0 ? MHP_RECOMPUTE_CONNECTIONS
                                                              : MHP_RECOMPUTE_NONE;
        return 0;
    case 'b':
        s->block = atoi(argument);
        return 0;
    case 'w':
        s->weight_gradients = MHP_WEIGHTS_SHALLOW;
        return 0;
    case 'k':
        s->overlap.critical_stream = true;
        return 0;
    case 'a':
        s->overlap.spare = atoi(argument);
        return 0;
    case 'n':
        s->overlap.slices = atoi(argument);
        return 0;
    case 'p':
        s->overlap.pair = strcmp(argument, "streams") == 0 ? MHP_PAIR_STREAMS
                          : strcmp(argument, "parts") == 0 ? MHP_PAIR_PARTS
                          : strcmp(argument, "off") == 0   ? MHP_PAIR_OFF
                          : strcmp(argument, "auto") == 0  ? MHP_PAIR_AUTO
                                                           : MHP_PAIR_INTERLEAVE;
        return 0;
    case 'T':
        s->threads = atoi(argument);
        return 0;
    case ARGP_KEY_ARG:
        s->folder = argument;
        return 0;
    case ARGP_KEY_END:
        if (!s->folder || (!is_file(s) && !mhp_generator_find(s->schedule)) || s->data < 1 || s->micro_batch_size < 1) {
            argp_usage(state);
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* The ranks of a host take its cards in turns. */
static int choose_card(int device)
{
    const char *local = getenv("OMPI_COMM_WORLD_LOCAL_RANK");
    int count = mhp_device_count((mhp_device_kind)device);

    return local && device == MHP_DEVICE_CUDA && count > 0 ? atoi(local) % count : 0;
}

int main(int argc, char **argv)
{
    static const struct argp argp = {options, parse, "DIR", NULL, NULL, NULL, NULL};
    static golden_files files;
    golden_settings settings = {.schedule = "1f1b", .dtype = MHP_DTYPE_F64, .device = MHP_DEVICE_CPU, .transport = MHP_TRANSPORT_MPI,
                                .data = 1, .micro_batch_size = 1, .threads = 1, .chunks = 2};
    mhp_device_params device_params = {0};
    mhp_device *device = NULL;
    mhp_comm *comm = NULL;
    mhp_status status = MHP_OK;

    argp_parse(&argp, argc, argv, 0, NULL, &settings);
    device_params = (mhp_device_params){.kind = (mhp_device_kind)settings.device, .index = choose_card(settings.device),
                                        .threads = (int)settings.threads, .seed = 1};
    if (settings.device == MHP_DEVICE_CUDA && mhp_device_count(MHP_DEVICE_CUDA) == 0) {
        printf("skipped: no card\n");
        return NO_CARD;
    }
    if (!golden_list(settings.folder, "model_", &files)) {
        return EXIT_FAILURE;
    }
    MHP_TRY(out, mhp_device_open(&device_params, &device));
    MHP_TRY(out, mhp_comm_open(device, &comm));
    MHP_TRY(out, mhp_comm_choose_transport(comm, (mhp_transport_kind)settings.transport));
    for (int i = 0; i < files.count; i++) {
        MHP_TRY(out, run_file(&settings, comm, files.paths[i]));
    }
    if (settings.off_count > 0) {
        MHP_RAISE(out, MHP_ERR_INTERNAL, "%d of %d files are off", settings.off_count, settings.run_count);
    }
    if (settings.run_count == 0) {
        MHP_RAISE(out, MHP_ERR_INVALID, "%s: none of %d files can be run", settings.schedule, files.count);
    }
out:
    if (status < 0) {
        fprintf(stderr, "rank %d: %s\n", comm ? mhp_comm_rank(comm) : -1, mhp_error_text());
        if (comm) {
            mhp_comm_fail(comm, status);
            mhp_comm_abort(comm);
        }
    }
    mhp_comm_close(comm);
    mhp_device_close(device);
    return status < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
