/* mpirun -n P test_arena [test]: what is planned is what is held, nothing is allocated behind the first step, and what is trained does
 * not depend on what is made again: connections x schedules x modes, on the CPU device or the test device.
 *
 * A check that fails ends its rank, and with it the whole launch: the others may wait for it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/memory.h"
#include "core/random.h"
#include "runtime/model_file.h"
#include "runtime/trainer.h"
#include "scheduler/generator.h"
#include "scheduler/lower.h"

enum { LAYERS = 8, LENGTH = 12, MICROBATCHES = 8, STEPS = 3, VOCABULARY = 19, HELD_OUT = 16 };

typedef struct world {
    mhp_device *device;
    mhp_comm *comm;
    int rank, size, cases;
    char folder[64]; /* of rank 0 */
    size_t most;     /* planned, of all cases so far */
} world;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "rank %d, %s:%d, %s: %s does not hold (%s)\n", w->rank, __FILE__,      \
                    __LINE__, name, #condition, mhp_error_text());                                 \
            mhp_comm_abort(w->comm);                                                               \
        }                                                                                          \
    } while (0)

#define CHECK_OK(expression) CHECK((expression) == MHP_OK)

/* What a run came to. */
typedef struct outcome {
    double losses[STEPS], norms[STEPS], held_out;
    void *parameters; /* of the rank's stages, one behind the other */
    size_t bytes;
} outcome;

static mhp_status fill(void *context, uint64_t sample, int32_t *token, int32_t *target, int32_t *document_start)
{
    (void)context;
    for (int t = 0; t < LENGTH; t++) {
        uint64_t random = mhp_random_u64(5, sample, (uint64_t)t);

        token[t] = (int32_t)(random % VOCABULARY);
        target[t] = (int32_t)((random >> 32) % VOCABULARY);
        document_start[t] = t < LENGTH / 2 ? 0 : LENGTH / 2;
    }
    return MHP_OK;
}

static void keep_parameters(world *w, const char *name, mhp_trainer *trainer, outcome *result)
{
    mhp_store *store = mhp_trainer_store(trainer);
    mhp_stream *compute = mhp_trainer_compute(trainer);

    for (int i = 0; i < store->held_count; i++) {
        const mhp_held_stage *held = &store->held[i];
        size_t bytes = (size_t)mhp_stage_layout(held->stage)->elements * mhp_dtype_bytes(store->kernels->full_dtype);

        CHECK_OK(mhp_realloc(&result->parameters, result->bytes + bytes, 1));
        CHECK_OK(mhp_stream_copy(compute, (char *)result->parameters + result->bytes, held->parameters, bytes));
        CHECK_OK(mhp_stream_synchronize(compute));
        result->bytes += bytes;
    }
}

static void run_steps(world *w, const char *name, mhp_trainer *trainer, outcome *result)
{
    uint64_t device_allocations = 0, host_allocations = 0;

    CHECK_OK(mhp_store_initialize(mhp_trainer_store(trainer), 3));
    for (int step = 0; step < STEPS; step++) {
        mhp_step_report report;

        CHECK_OK(mhp_trainer_step(trainer, step, &report));
        result->losses[step] = report.loss;
        result->norms[step] = report.gradient_norm;
        if (step == 0) {
            device_allocations = mhp_device_allocation_count(w->device);
            host_allocations = mhp_allocation_count();
        }
    }
    CHECK_OK(mhp_trainer_evaluate(trainer, HELD_OUT, &result->held_out));
    CHECK(mhp_device_allocation_count(w->device) == device_allocations);
    CHECK(mhp_allocation_count() == host_allocations);
}

/* The arena is all device memory, and its highest place is the plan's. */
static void check_arena(world *w, const char *name, mhp_trainer *trainer)
{
    const mhp_memory_plan *plan = mhp_trainer_memory(trainer);
    const mhp_arena *arena = mhp_trainer_arena(trainer);
    size_t sum = plan->gaps;

    CHECK_OK(mhp_model_save(mhp_trainer_store(trainer), w->folder));
    w->most = plan->bytes > w->most ? plan->bytes : w->most;
    for (int k = 0; k < MHP_MEMORY_KIND_COUNT; k++) {
        CHECK(plan->fullest[k] <= plan->most[k]);
        sum += plan->fullest[k];
    }
    CHECK(sum == plan->bytes);
    CHECK(arena->bytes == plan->bytes);
    CHECK(arena->high_water == plan->bytes);
    CHECK(mhp_device_bytes(w->device) == plan->bytes);
    CHECK(mhp_device_bytes_peak(w->device) == w->most);
}

static outcome run(world *w, const char *name, mhp_trainer_params *params)
{
    outcome result = {.held_out = 0};
    mhp_trainer *trainer = NULL;

    params->comm = w->comm;
    params->samples = params->held_out = (mhp_sample_source){fill, NULL};
    CHECK_OK(mhp_trainer_create(params, &trainer));
    run_steps(w, name, trainer, &result);
    check_arena(w, name, trainer);
    keep_parameters(w, name, trainer, &result);
    mhp_trainer_destroy(trainer);
    w->cases++;
    return result;
}

static void check_same(world *w, const char *name, const outcome *a, const outcome *b)
{
    CHECK(memcmp(a->losses, b->losses, sizeof a->losses) == 0);
    CHECK(memcmp(a->norms, b->norms, sizeof a->norms) == 0);
    CHECK(a->held_out == b->held_out);
    CHECK(a->bytes == b->bytes && memcmp(a->parameters, b->parameters, a->bytes) == 0);
}

static const struct mode {
    const char *text;
    mhp_recompute_params recompute;
    int weight_gradients;
} modes[] = {
    {"none", {MHP_RECOMPUTE_NONE, 0}, MHP_WEIGHTS_DEEP},
    {"connections", {MHP_RECOMPUTE_CONNECTIONS, 0}, MHP_WEIGHTS_DEEP},
    {"connections, 1", {MHP_RECOMPUTE_CONNECTIONS, 1}, MHP_WEIGHTS_DEEP},
    {"connections, 3, shallow", {MHP_RECOMPUTE_CONNECTIONS, 3}, MHP_WEIGHTS_SHALLOW},
    {"full", {MHP_RECOMPUTE_FULL, 0}, MHP_WEIGHTS_DEEP},
    {"full, 3", {MHP_RECOMPUTE_FULL, 3}, MHP_WEIGHTS_DEEP},
};

/* All modes of one model and schedule; each must come to the same as the first. */
static void run_modes(world *w, const mhp_model_params *model, const char *connections, char *kind)
{
    char no_file[] = "";
    bool test = mhp_device_get_kind(w->device) == MHP_DEVICE_TEST;
    mhp_parallel_params parallel = {.pipeline = w->size, .data = 1, .device = test ? MHP_DEVICE_TEST : MHP_DEVICE_CPU, .threads = 1};
    mhp_schedule_params schedule = {.kind = kind, .microbatches = MICROBATCHES, .chunks = 2, .file = no_file};
    mhp_optimizer_params optimizer = {.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1, .decay = MHP_DECAY_CONSTANT};
    mhp_train_params train = {.steps = STEPS, .seed = 1, .sequence_length = LENGTH, .micro_batch_size = 1};
    mhp_trainer_params params = {
        .model = model, .parallel = &parallel, .schedule = &schedule, .optimizer = &optimizer, .train = &train};
    outcome first = {.held_out = 0};

    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        char name[96];
        outcome result;

        snprintf(name, sizeof name, "%s, %s, %s", connections, kind, modes[i].text);
        schedule.recompute = modes[i].recompute;
        schedule.weight_gradients = modes[i].weight_gradients;
        result = run(w, name, &params);
        if (i == 0) {
            first = result;
            continue;
        }
        check_same(w, name, &first, &result);
        mhp_free(result.parameters);
    }
    mhp_free(first.parameters);
}

static bool suits(const world *w, const char *kind)
{
    mhp_schedule_shape shape = {.ranks = w->size, .microbatches = MICROBATCHES, .chunks = 2};

    return mhp_generator_find(kind)->check(&shape) == MHP_OK;
}

static mhp_model_params model_of(int kind)
{
    return (mhp_model_params){
        .hidden_size = 24, .num_hidden_layers = LAYERS, .num_attention_heads = 3, .num_key_value_heads = 1, .head_dim = 8,
        .intermediate_size = 20, .vocab_size = VOCABULARY, .rms_norm_eps = 1e-6, .rope_theta = 1e4, .initializer_range = 0.1,
        .dtype = MHP_DTYPE_F32,
        .connections = {.kind = kind, .streams = kind == MHP_CONNECTION_RESIDUAL ? 1 : 4, .sinkhorn_iterations = 8, .eps = 1e-6,
                        .readout = MHP_READOUT_HEAD, .init_scale = 0.3, .init_pre_gain = 1, .init_comb_diagonal = 2},
    };
}

static void remove_folder(const world *w)
{
    char command[96];

    snprintf(command, sizeof command, "rm -r '%s'", w->folder);
    if (w->rank == 0 && system(command) != 0) {
        fprintf(stderr, "cannot remove %s\n", w->folder);
    }
}

int main(int argc, char **argv)
{
    static const char *const connections[] = {"residual", "hc", "mhc"};
    char kinds[][12] = {"gpipe", "1f1b", "dualpipe", "dualpipev", "zb-v"};
    bool test = argc > 1 && strcmp(argv[1], "test") == 0;
    mhp_device_params params = {.kind = test ? MHP_DEVICE_TEST : MHP_DEVICE_CPU, .threads = 1, .seed = 3};
    world world_of_rank = {.folder = "/tmp/mhp-memory-XXXXXX"}, *w = &world_of_rank;

    if (mhp_device_open(&params, &w->device) != MHP_OK || mhp_comm_open(w->device, &w->comm) != MHP_OK) {
        fprintf(stderr, "%s\n", mhp_error_text());
        return 1;
    }
    w->rank = mhp_comm_rank(w->comm);
    w->size = mhp_comm_size(w->comm);
    if (w->rank == 0 && !mkdtemp(w->folder)) {
        perror(w->folder);
        mhp_comm_abort(w->comm);
    }
    for (int kind = MHP_CONNECTION_RESIDUAL; kind <= MHP_CONNECTION_MHC; kind++) {
        mhp_model_params model = model_of(kind);

        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            if (suits(w, kinds[k])) {
                run_modes(w, &model, connections[kind], kinds[k]);
            }
        }
    }
    remove_folder(w);
    if (w->rank == 0) {
        printf("%d cases on %d ranks\n", w->cases, w->size);
    }
    mhp_comm_close(w->comm);
    mhp_device_close(w->device);
    return 0;
}
