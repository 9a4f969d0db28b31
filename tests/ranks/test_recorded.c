/* mpirun -n 2 test_recorded FOLDER: what is told of a recorded step beside its trace. The energy of each rank's meters; and the ranges that a profiler would see,
 * caught here in place of NVTX: phases, collectives and messages by the trace's words, all closed again, and none outside of recorded steps.
 *
 * A check that fails ends its rank, and with it the whole launch. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "core/range.h"
#include "runtime/trainer.h"
#include "tests/ranks/check.h"

enum { STEPS = 2, LENGTH = 16, VOCABULARY = 19, MICROBATCHES = 4, NAMES_MAX = 64, NAME_BYTES = 64, DEPTH_MAX = 8 };

typedef struct world {
    mhp_device *device;
    mhp_comm *comm;
    int rank;
} world;

static world world_of_rank, *const w = &world_of_rank;

typedef struct seen {
    char name[NAMES_MAX][NAME_BYTES];
    int count[NAMES_MAX], names, depth, deepest, all;
} seen;

static seen ranges;

bool mhp_range_available(void)
{
    return true;
}

void mhp_range_push(const char *name)
{
    int i = 0;

    while (i < ranges.names && strcmp(ranges.name[i], name) != 0) {
        i++;
    }
    CHECK(i < NAMES_MAX);
    if (i == ranges.names) {
        snprintf(ranges.name[ranges.names++], NAME_BYTES, "%s", name);
    }
    ranges.count[i]++;
    ranges.all++;
    ranges.depth++;
    ranges.deepest = ranges.depth > ranges.deepest ? ranges.depth : ranges.deepest;
    CHECK(ranges.depth <= DEPTH_MAX);
}

void mhp_range_pop(void)
{
    CHECK(ranges.depth > 0);
    ranges.depth--;
}

static int count_of(const char *name)
{
    for (int i = 0; i < ranges.names; i++) {
        if (strcmp(ranges.name[i], name) == 0) {
            return ranges.count[i];
        }
    }
    return 0;
}

static mhp_status fill(void *context, uint64_t sample, int32_t *token, int32_t *target, int32_t *document_start)
{
    (void)context;
    for (int t = 0; t < LENGTH; t++) {
        token[t] = (int32_t)((sample * 5 + (uint64_t)t * 3) % VOCABULARY);
        target[t] = (token[t] * 2 + 1) % VOCABULARY;
        document_start[t] = 0;
    }
    return MHP_OK;
}

/* This rank's own copy of the node's only package. */
static void set_package(const char *folder, const char *name, const char *text)
{
    char path[512];
    FILE *file;

    snprintf(path, sizeof path, "%s/packages%d/intel-rapl:0", folder, w->rank);
    CHECK_OK(mhp_mkdirs(path));
    snprintf(path, sizeof path, "%s/packages%d/intel-rapl:0/%s", folder, w->rank, name);
    file = fopen(path, "w");
    CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

static mhp_run_energy *open_energy(mhp_trainer *trainer, const char *folder)
{
    char packages[512];
    mhp_run_energy_params params = {.world = mhp_trainer_store(trainer)->world, .device = w->device, .packages = packages, .node = "node"};
    mhp_run_energy *energy = NULL;

    snprintf(packages, sizeof packages, "%s/packages%d", folder, w->rank);
    set_package(folder, "name", "package-0\n");
    set_package(folder, "max_energy_range_uj", "262143328850\n");
    set_package(folder, "energy_uj", "1000000\n");
    CHECK_OK(mhp_run_energy_open(&params, &energy));
    mhp_trainer_meter(trainer, energy);
    return energy;
}

/* Rank 0 meters the package for both. */
static void check_energy(const mhp_step_report *report, double joules)
{
    CHECK(report->world_size == 2 && report->meters);
    CHECK(fabs(report->energy.of[MHP_ENERGY_CPU] - joules) < 1e-9 && isnan(report->energy.of[MHP_ENERGY_GPU]));
    CHECK(fabs(report->rank_energy[0].of[MHP_ENERGY_CPU] - joules) < 1e-9 && report->rank_energy[1].of[MHP_ENERGY_CPU] == 0);
    CHECK(isnan(report->rank_energy[0].of[MHP_ENERGY_GPU]) && mhp_run_energy_metered_by(report->meters, 1, MHP_ENERGY_CPU) == 0);
}

/* DualPipe: both ranks hold both stages, so that gradients are reduced and parameters gathered. The second step is recorded. */
static void train(const char *folder)
{
    char kind[] = "dualpipe", no_file[] = "";
    mhp_model_params model = {
        .hidden_size = 24, .num_hidden_layers = 4, .num_attention_heads = 3, .num_key_value_heads = 1, .head_dim = 8,
        .intermediate_size = 20, .vocab_size = VOCABULARY, .rms_norm_eps = 1e-6, .rope_theta = 1e4, .initializer_range = 0.1,
        .dtype = MHP_DTYPE_F32,
        .connections = {.kind = MHP_CONNECTION_MHC, .streams = 4, .sinkhorn_iterations = 8, .eps = 1e-6, .readout = MHP_READOUT_HEAD,
                        .init_scale = 0.3, .init_pre_gain = 1, .init_comb_diagonal = 2},
    };
    mhp_parallel_params parallel = {.pipeline = mhp_comm_size(w->comm), .data = 1, .device = MHP_DEVICE_CPU, .threads = 1};
    mhp_schedule_params schedule = {.kind = kind, .microbatches = MICROBATCHES, .chunks = 2, .file = no_file};
    mhp_optimizer_params optimizer = {.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1, .decay = MHP_DECAY_CONSTANT};
    mhp_train_params params_of = {.steps = STEPS, .seed = 1, .sequence_length = LENGTH, .micro_batch_size = 1};
    mhp_profile_params profile = {.steps = 1, .start = STEPS - 1};
    mhp_trainer_params params = {.comm = w->comm, .model = &model, .parallel = &parallel, .schedule = &schedule, .optimizer = &optimizer,
                                 .train = &params_of, .profile = &profile, .directory = folder, .samples = {fill, NULL}};
    mhp_trainer *trainer = NULL;
    mhp_run_energy *energy;
    mhp_step_report report;

    CHECK_OK(mhp_trainer_create(&params, &trainer));
    CHECK_OK(mhp_store_initialize(mhp_trainer_store(trainer), 1));
    energy = open_energy(trainer, folder);
    set_package(folder, "energy_uj", "6000000\n");
    CHECK_OK(mhp_trainer_step(trainer, 0, &report));
    CHECK(ranges.all == 0 && !report.recorded);
    check_energy(&report, 5);
    set_package(folder, "energy_uj", "8500000\n");
    CHECK_OK(mhp_trainer_step(trainer, 1, &report));
    CHECK(ranges.all > 0 && report.recorded);
    check_energy(&report, 2.5);
    mhp_trainer_meter(trainer, NULL);
    mhp_run_energy_close(energy);
    mhp_trainer_destroy(trainer);
}

static void check_ranges(void)
{
    CHECK(ranges.depth == 0 && ranges.deepest == 2);
    CHECK(count_of("prepare") == 1);
    CHECK(count_of("norm") == 2);       /* the phase, and in it the sum over the world */
    CHECK(count_of("update") == 4);     /* of two stages: AdamW, and the copy behind the gathering */
    CHECK(count_of("report") == 2);
    CHECK(count_of("reduction") == 2);
    CHECK(count_of("gathering") == 2);
    CHECK(count_of("statistics") == 1);
    CHECK(count_of("state") == MICROBATCHES);       /* of each direction half: one end sends, the other receives */
    CHECK(count_of("gradient") == MICROBATCHES);
    CHECK(count_of("forward attention") > 0);
}

int main(int argc, char **argv)
{
    mhp_device_params params = {.kind = MHP_DEVICE_CPU, .threads = 1};

    if (argc != 2 || mhp_device_open(&params, &w->device) != MHP_OK || mhp_comm_open(w->device, &w->comm) != MHP_OK) {
        fprintf(stderr, "usage: test_recorded FOLDER (%s)\n", mhp_error_text());
        return 2;
    }
    w->rank = mhp_comm_rank(w->comm);
    train(argv[1]);
    check_ranges();
    mhp_comm_close(w->comm);
    mhp_device_close(w->device);
    return 0;
}
