/* mpirun -n 2 test_overlap FOLDER [test]: what runs beside what, seen in the recorder's traces: a rebuild beside a gradient that is late,
 * the lanes of a pair whose states come in slices, and that no group has the time for which its lane waited.
 *
 * A check that fails ends its rank, and with it the whole launch. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/folder.h"
#include "core/memory.h"
#include "runtime/profile/analyse.h"
#include "runtime/trainer.h"
#include "tests/ranks/check.h"
#include "tests/report/lane_order.h"

enum { STEPS = 2, LENGTH = 80, SLICES = 3, VOCABULARY = 19, MICROBATCHES = 4, PATH_BYTES = 256 };

static const double late_s = 0.4;

typedef struct world {
    mhp_device *device;
    mhp_comm *comm;
    const char *folder;
    int rank, size;
} world;

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

/* Trains, and records the last step; `faults` happen in it. */
static void record(world *w, mhp_schedule_params *schedule, mhp_fault *faults, size_t fault_count)
{
    static char no_file[] = "";
    mhp_model_params model = {
        .hidden_size = 24, .num_hidden_layers = 4, .num_attention_heads = 3, .num_key_value_heads = 1, .head_dim = 8,
        .intermediate_size = 20, .vocab_size = VOCABULARY, .rms_norm_eps = 1e-6, .rope_theta = 1e4, .initializer_range = 0.1,
        .dtype = MHP_DTYPE_F32,
        .connections = {.kind = MHP_CONNECTION_MHC, .streams = 4, .sinkhorn_iterations = 8, .eps = 1e-6, .readout = MHP_READOUT_HEAD,
                        .init_scale = 0.3, .init_pre_gain = 1, .init_comb_diagonal = 2},
    };
    mhp_parallel_params parallel = {
        .pipeline = w->size, .data = 1, .device = (int)mhp_device_get_kind(w->device), .threads = 1};
    mhp_optimizer_params optimizer = {.lr = 1e-2, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .clip = 1, .decay = MHP_DECAY_CONSTANT};
    mhp_train_params train = {.steps = STEPS, .seed = 1, .sequence_length = LENGTH, .micro_batch_size = 1};
    mhp_profile_params profile = {.steps = 1, .start = STEPS - 1};
    mhp_section_list list = {.items = faults, .count = fault_count};
    mhp_trainer_params params = {.comm = w->comm, .model = &model, .parallel = &parallel, .schedule = schedule, .optimizer = &optimizer,
                                 .train = &train, .profile = &profile, .directory = w->folder, .samples = {fill, NULL}};
    mhp_trainer *trainer = NULL;
    mhp_step_report report;

    schedule->microbatches = MICROBATCHES;
    schedule->chunks = 2;
    schedule->file = no_file;
    CHECK_OK(mhp_faults_create(&list, w->rank, &params.faults));
    CHECK_OK(mhp_trainer_create(&params, &trainer));
    CHECK_OK(mhp_store_initialize(mhp_trainer_store(trainer), (uint64_t)train.seed));
    for (int step = 0; step < STEPS; step++) {
        CHECK_OK(mhp_trainer_step(trainer, step, &report));
        CHECK(report.fault == MHP_STEP_GOOD);
    }
    mhp_trainer_destroy(trainer);
    mhp_faults_destroy(params.faults);
}

static void read_traces(world *w, mhp_trace_set *set)
{
    char path[PATH_BYTES];

    snprintf(path, sizeof path, "%s/profile", w->folder);
    CHECK_OK(mhp_trace_set_read(path, set));
}

/* When the last span of a kind that belongs to a micro-batch ended. */
static int64_t end_of(const mhp_trace *trace, mhp_trace_kind kind, mhp_pass pass, mhp_trace_cause cause, int microbatch)
{
    int64_t end_ns = 0;

    for (size_t i = 0; i < trace->span_count; i++) {
        const mhp_trace_span *span = &trace->spans[i];

        if (span->kind == kind && span->microbatch == microbatch && (kind == MHP_TRACE_GROUP ? span->pass == pass : span->cause == cause)) {
            end_ns = span->end_ns > end_ns ? span->end_ns : end_ns;
        }
    }
    return end_ns;
}

/* Rank 1 is late with the first gradient: rank 0 has rebuilt what that needs long before it comes. */
static void rebuilds_wait_for_no_gradient(world *w)
{
    char kind[] = "1f1b", action[] = "1B0", no_file[] = "";
    mhp_fault late = {.kind = MHP_FAULT_SLOW, .rank = 1, .step = STEPS, .action = action, .file = no_file, .seconds = late_s};
    mhp_schedule_params schedule = {.kind = kind, .recompute = {MHP_RECOMPUTE_CONNECTIONS, 0}, .overlap = {.critical_stream = true}};
    mhp_trace_set set;
    int64_t rebuilt_ns, came_ns;

    record(w, &schedule, &late, 1);
    if (w->rank == 0) {
        read_traces(w, &set);
        rebuilt_ns = end_of(&set.ranks[0], MHP_TRACE_GROUP, MHP_PASS_REBUILD, MHP_CAUSE_COUNT, 0);
        came_ns = end_of(&set.ranks[0], MHP_TRACE_MESSAGE, MHP_PASS_COUNT, MHP_CAUSE_GRADIENT, 0);
        CHECK(rebuilt_ns > 0 && came_ns > 0);
        CHECK((double)(came_ns - rebuilt_ns) * 1e-9 > late_s / 2);
        mhp_trace_set_release(&set);
    }
    CHECK_OK(mhp_comm_agree(w->comm, MHP_OK, NULL));
}

/* Groups of a pass in one pair; `last_lane_out`: where the last one ran. */
static int count_groups(const mhp_trace *trace, mhp_pass pass, int stage, int microbatch, int *last_lane_out)
{
    int count = 0;

    for (size_t i = 0; i < trace->span_count; i++) {
        const mhp_trace_span *span = &trace->spans[i];

        if (span->kind == MHP_TRACE_GROUP && span->pass == pass && span->stage == stage && span->microbatch == microbatch) {
            *last_lane_out = span->lane;
            count++;
        }
    }
    return count;
}

static void check_figures(world *w, const mhp_trace_set *set)
{
    mhp_analysis analysis;

    CHECK_OK(mhp_analyse(set, &analysis));
    for (int rank = 0; rank < w->size; rank++) {
        const mhp_rank_figures *figures = &analysis.mean[rank];
        const mhp_timed_rank *timed = &analysis.steps[0].timeline.ranks[rank];

        CHECK(fabs(figures->compute_us + figures->exposed_us + figures->bubble_us + figures->other_us - figures->step_us) < 1);
        CHECK(timed->beside_count > 0);
        for (size_t i = 1; i < timed->span_count; i++) {
            CHECK(fabs(timed->spans[i].start_us - timed->spans[i - 1].end_us) < 1e-6);
        }
    }
    mhp_analysis_release(&analysis);
}

/* Of a DualPipeV of two ranks, rank 1 gets states of stage 1 in slices, and sends gradients of stage 1 and states of stage 2. */
static void lanes_have_what_messages_wait_for(world *w)
{
    char kind[] = "dualpipev";
    mhp_schedule_params schedule = {
        .kind = kind, .overlap = {.critical_stream = true, .slices = SLICES, .pair = MHP_PAIR_STREAMS}};
    mhp_trace_set set;
    int lane = -1;

    record(w, &schedule, NULL, 0);
    if (w->rank == 0) {
        read_traces(w, &set);
        for (int m = 0; m < MICROBATCHES; m++) {    /* a join more than functions; of states the first in slices */
            CHECK(count_groups(&set.ranks[1], MHP_PASS_FORWARD, 1, m, &lane) == 2 + 3 + SLICES - 1 && lane == MHP_LANE_COMPUTE);
            CHECK(count_groups(&set.ranks[1], MHP_PASS_FORWARD, 2, m, &lane) == 2 + 3 && lane == MHP_LANE_STATE);
            CHECK(count_groups(&set.ranks[1], MHP_PASS_INPUT_GRADIENT, 1, m, &lane) == 2 + 3 && lane == MHP_LANE_GRADIENT);
            CHECK(count_groups(&set.ranks[1], MHP_PASS_INPUT_GRADIENT, 2, m, &lane) == 2 + 3 && lane != MHP_LANE_GRADIENT);
        }
        check_figures(w, &set);
        mhp_trace_set_release(&set);
    }
    CHECK_OK(mhp_comm_agree(w->comm, MHP_OK, NULL));
}

static int64_t longest_group(const mhp_trace *trace)
{
    int64_t longest_ns = 0;

    for (size_t i = 0; i < trace->span_count; i++) {
        const mhp_trace_span *span = &trace->spans[i];

        if (span->kind == MHP_TRACE_GROUP && span->end_ns - span->start_ns > longest_ns) {
            longest_ns = span->end_ns - span->start_ns;
        }
    }
    return longest_ns;
}

/* One rank of a DualPipeV is late three times, amid forwards, backwards and pairs. The other one stands still meanwhile, and so do its
 * lanes: for inputs, further slices, each other. */
static void idle_time_is_in_no_group(world *w, mhp_pair_mode pair, int late_rank)
{
    static char *const actions[][3] = {{"0F1", "3B2", "(3F3;0B1)OVERLAP_F_B"}, {"2B0", "(1F3;2B1)OVERLAP_F_B", "1B2"}};
    char kind[] = "dualpipev", no_file[] = "";
    mhp_schedule_params schedule = {.kind = kind, .overlap = {.critical_stream = true, .slices = SLICES, .pair = pair}};
    mhp_fault late[3];
    mhp_trace_set set;
    char text[LANE_ORDER_TEXT_MAX];

    for (int i = 0; i < 3; i++) {
        late[i] = (mhp_fault){.kind = MHP_FAULT_SLOW, .rank = late_rank, .step = STEPS, .action = actions[late_rank][i],
                              .file = no_file, .seconds = late_s};
    }
    record(w, &schedule, late, 3);
    if (w->rank == 0) {
        read_traces(w, &set);
        CHECK((double)longest_group(&set.ranks[late_rank]) * 1e-9 >= late_s);
        CHECK((double)longest_group(&set.ranks[1 - late_rank]) * 1e-9 < late_s / 2);
        for (int rank = 0; rank < w->size; rank++) {
            CHECK((lane_order_check(&set.ranks[rank], text) > 0) == (pair != MHP_PAIR_INTERLEAVE));
            CHECK_OK(text[0] ? mhp_error_set(MHP_ERR_FORMAT, "%s", text) : MHP_OK);
        }
        mhp_trace_set_release(&set);
    }
    CHECK_OK(mhp_comm_agree(w->comm, MHP_OK, NULL));
}

int main(int argc, char **argv)
{
    bool test = argc > 2 && strcmp(argv[2], "test") == 0;
    mhp_device_params params = {.kind = test ? MHP_DEVICE_TEST : MHP_DEVICE_CPU, .threads = 1, .seed = 3};
    world world_of_rank = {.rank = -1}, *w = &world_of_rank;

    if (argc < 2 || mhp_device_open(&params, &w->device) != MHP_OK || mhp_comm_open(w->device, &w->comm) != MHP_OK) {
        fprintf(stderr, "usage: test_overlap FOLDER [test] (%s)\n", mhp_error_text());
        return 2;
    }
    w->rank = mhp_comm_rank(w->comm);
    w->size = mhp_comm_size(w->comm);
    w->folder = argv[1];
    rebuilds_wait_for_no_gradient(w);
    lanes_have_what_messages_wait_for(w);
    for (int late_rank = 0; late_rank < 2; late_rank++) {
        idle_time_is_in_no_group(w, MHP_PAIR_STREAMS, late_rank);
        idle_time_is_in_no_group(w, MHP_PAIR_PARTS, late_rank);
        idle_time_is_in_no_group(w, MHP_PAIR_INTERLEAVE, late_rank);
    }
    mhp_comm_close(w->comm);
    mhp_device_close(w->device);
    return 0;
}
