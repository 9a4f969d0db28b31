/* mpirun -n P telemetry CONFIG STEPS [KEY=VALUE ...]: what telling costs: steps with nothing, with live files, and with the energy of
 * made-up counters, in turns of some steps each within one run, so that what disturbs the machine disturbs all. Nothing stands twice:
 * the difference between the two is what this machine cannot tell. */
#include "tests/bench/support.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "core/folder.h"
#include "core/memory.h"
#include "runtime/energy.h"

enum { TURN = 20, TURNS_MAX = 1000, WARM_UP_STEPS = 5, NOTES = 500, NOTE_ROUNDS = 51 };
enum { NOTHING, LIVE, AGAIN, ENERGY, ARMS };

static const char *const arm_names[] = {"nothing", "live files", "nothing again", "energy"};

typedef struct bench {
    mhp_comm *comm;
    mhp_trainer *trainer;
    char folder[64];
    int64_t step;
    double *step_ms[ARMS];
    int count[ARMS];
} bench;

static mhp_status write_counter(const char *folder, const char *name, const char *text)
{
    mhp_status status = MHP_OK;
    char *path = NULL;

    MHP_TRY(out, mhp_asprintf(&path, "%s/intel-rapl:0", folder));
    MHP_TRY(out, mhp_mkdirs(path));
    mhp_free(path);
    MHP_TRY(out, mhp_asprintf(&path, "%s/intel-rapl:0/%s", folder, name));
    MHP_TRY(out, mhp_file_write_atomic(path, text, strlen(text)));
out:
    mhp_free(path);
    return status;
}

static mhp_status open_arm(bench *self, int arm, mhp_live **live_out, mhp_run_energy **energy_out)
{
    mhp_live_params live = {.directory = self->folder,
                            .state = {.rank = mhp_comm_rank(self->comm), .size = mhp_comm_size(self->comm), .total = 1}};
    mhp_run_energy_params energy = {.world = mhp_trainer_store(self->trainer)->world, .device = mhp_comm_device(self->comm),
                                    .packages = self->folder};

    if (arm == LIVE) {
        MHP_RETURN_IF_ERROR(mhp_live_open(&live, live_out));
    }
    mhp_trainer_watch(self->trainer, *live_out);
    if (arm == ENERGY) {
        MHP_RETURN_IF_ERROR(mhp_run_energy_open(&energy, energy_out));
    }
    mhp_trainer_meter(self->trainer, *energy_out);
    return MHP_OK;
}

/* One turn: what a run does around each of its steps. */
static mhp_status run_turn(bench *self, int arm, int steps)
{
    mhp_status status = MHP_OK;
    mhp_live *live = NULL;
    mhp_run_energy *energy = NULL;
    mhp_energy_total total;

    MHP_TRY(out, open_arm(self, arm, &live, &energy));
    for (int i = 0; i < steps; i++) {
        uint64_t start_ns = mhp_time_ns();
        mhp_step_report report;

        mhp_live_enter(live, MHP_LIVE_STEP);
        if (energy) {
            mhp_run_energy_begin(energy);
        }
        MHP_TRY(out, mhp_trainer_step(self->trainer, self->step++, &report));
        mhp_live_step(live, self->step, report.step_s, report.own_bubble, report.loss, 1);
        if (energy) {
            mhp_run_energy_add(energy, &report.energy);
        }
        if (self->count[arm] < TURNS_MAX * TURN) {
            self->step_ms[arm][self->count[arm]++] = (double)(mhp_time_ns() - start_ns) * 1e-6;
        }
    }
    if (energy) {
        MHP_TRY(out, mhp_run_energy_total(energy, &total));
        if (isnan(total.run.of[MHP_ENERGY_CPU])) {
            MHP_RAISE(out, MHP_ERR_INTERNAL, "the made-up counters were not read: %s", total.reason[MHP_ENERGY_CPU]);
        }
    }
out:
    mhp_trainer_watch(self->trainer, NULL);
    mhp_trainer_meter(self->trainer, NULL);
    mhp_live_close(live, MHP_LIVE_FINISHED);
    mhp_run_energy_close(energy);
    return status;
}

static mhp_status measure(bench *self, int turns)
{
    MHP_RETURN_IF_ERROR(run_turn(self, NOTHING, WARM_UP_STEPS));
    self->count[NOTHING] = 0;
    for (int turn = 0; turn < turns; turn++) {
        for (int arm = 0; arm < ARMS; arm++) {
            MHP_RETURN_IF_ERROR(run_turn(self, (arm + turn) % ARMS, TURN));
        }
    }
    return MHP_OK;
}

static void print_arms(bench *self)
{
    double base_ms = 0;

    printf("%-14s %8s %14s %12s %10s\n", "with", "steps", "quartile, ms", "median, ms", "of nothing");
    for (int arm = 0; arm < ARMS; arm++) {
        int count = self->count[arm];

        qsort(self->step_ms[arm], (size_t)count, sizeof *self->step_ms[arm], bench_compare);
        base_ms = arm == NOTHING ? self->step_ms[arm][count / 2] : base_ms;
        printf("%-14s %8d %14.3f %12.3f %10.4f\n", arm_names[arm], count, self->step_ms[arm][count / 4], self->step_ms[arm][count / 2],
               self->step_ms[arm][count / 2] / base_ms);
    }
}

/* Microseconds from submitting to running one action's note, the least of several rounds: of a stream that has nothing else to do. */
static mhp_status time_note(bench *self, double *note_us_out)
{
    mhp_live *live = NULL;
    mhp_run_energy *energy = NULL;
    mhp_stream *compute = mhp_trainer_compute(self->trainer);
    mhp_action action = {MHP_ACTION_FORWARD, 0, 0, -1, -1};
    mhp_status status = open_arm(self, LIVE, &live, &energy);

    *note_us_out = INFINITY;
    for (int round = 0; round < NOTE_ROUNDS && status == MHP_OK; round++) {
        uint64_t start_ns = mhp_time_ns();

        for (int i = 0; i < NOTES && status == MHP_OK; i++) {
            status = mhp_live_action(live, compute, &action);
        }
        status = status == MHP_OK ? mhp_stream_synchronize(compute) : status;
        *note_us_out = fmin(*note_us_out, (double)(mhp_time_ns() - start_ns) * 1e-3 / NOTES);
    }
    mhp_trainer_watch(self->trainer, NULL);
    mhp_live_close(live, MHP_LIVE_FINISHED);
    return status;
}

/* Every rank has a folder of its own. */
static mhp_status run(mhp_comm *comm, mhp_config *config, void *context)
{
    mhp_status status = MHP_OK;
    bench one = {.comm = comm}, *self = &one;
    int turns = *(const int *)context;
    double note_us;
    mhp_trainer_params params = bench_trainer_params(comm, config);

    config->train.steps = ARMS * turns * TURN + WARM_UP_STEPS + 1;
    snprintf(self->folder, sizeof self->folder, "/tmp/mhcpipe-bench.XXXXXX");
    if (!mkdtemp(self->folder)) {
        return mhp_error_set(MHP_ERR_IO, "cannot make a folder in /tmp");
    }
    for (int arm = 0; arm < ARMS; arm++) {
        MHP_TRY(out, mhp_calloc(&self->step_ms[arm], TURNS_MAX * TURN, sizeof *self->step_ms[arm]));
    }
    MHP_TRY(out, mhp_live_prepare(self->folder));
    MHP_TRY(out, write_counter(self->folder, "name", "package-0\n"));
    MHP_TRY(out, write_counter(self->folder, "max_energy_range_uj", "262143328850\n"));
    MHP_TRY(out, write_counter(self->folder, "energy_uj", "1000000\n"));
    MHP_TRY(out, mhp_trainer_create(&params, &self->trainer));
    MHP_TRY(out, mhp_store_initialize(mhp_trainer_store(self->trainer), 1));
    MHP_TRY(out, measure(self, turns));
    MHP_TRY(out, time_note(self, &note_us));
    if (mhp_comm_rank(self->comm) == 0) {
        print_arms(self);
        printf("an action's note: %.2f us\n", note_us);
    }
out:
    mhp_trainer_destroy(self->trainer);
    for (int arm = 0; arm < ARMS; arm++) {
        mhp_free(self->step_ms[arm]);
    }
    (void)mhp_folder_remove(self->folder);
    return status;
}

int main(int argc, char **argv)
{
    int turns = argc > 2 ? atoi(argv[2]) / TURN : 0;

    if (turns < 1 || turns > TURNS_MAX) {
        fprintf(stderr, "usage: telemetry CONFIG STEPS [KEY=VALUE ...]: of each kind, from %d to %d\n", TURN, TURN * TURNS_MAX);
        return 2;
    }
    return bench_run("telemetry", argv[1], argv + 3, argc - 3, run, &turns);
}
