/* mpirun -n P checkpoint CONFIG FOLDER ROUNDS|resume [KEY=VALUE ...]: what a checkpoint costs, on made-up tokens.
 *
 * In each round, within one run: dd writes as many bytes as a checkpoint has, with one sync at the end; a checkpoint is written with
 * nothing beside it; steps run alone; as many run beside the writing of a checkpoint. With `resume`: how long it takes from the start of
 * the program to the end of the first step of a run that goes on from the newest checkpoint in FOLDER, and what is read. */
#include "tests/bench/support.h"

#include <math.h>
#include <string.h>

#include "core/memory.h"
#include "runtime/checkpoint/restore.h"
#include "runtime/checkpoint/saver.h"

enum { STEPS_BESIDE = 6, ROUNDS_MAX = 64 };

static uint64_t program_start_ns;

typedef struct settings {
    const char *folder;
    int rounds;                     /* 0: resume */
} settings;

typedef struct results {
    double dd_s[ROUNDS_MAX], alone_s[ROUNDS_MAX], beside_s[ROUNDS_MAX], copy_s[ROUNDS_MAX], plain_s[ROUNDS_MAX], cost[ROUNDS_MAX];
    double rate[ROUNDS_MAX], rate_beside[ROUNDS_MAX];       /* over dd's of the same round */
    double bytes;                   /* of a checkpoint, all ranks */
} results;

static double since_s(uint64_t start_ns)
{
    return (double)(mhp_time_ns() - start_ns) * 1e-9;
}

static mhp_status run_steps(mhp_trainer *trainer, int64_t *step, double *seconds_out)
{
    uint64_t start_ns = mhp_time_ns();

    for (int i = 0; i < STEPS_BESIDE; i++) {
        mhp_step_report report;

        MHP_RETURN_IF_ERROR(mhp_trainer_step(trainer, (*step)++, &report));
    }
    *seconds_out = since_s(start_ns);
    return MHP_OK;
}

static mhp_status begin_save(mhp_trainer *trainer, mhp_saver *saver, int64_t step)
{
    int64_t samples = mhp_trainer_batch_samples(trainer);
    mhp_checkpoint_state state = {.step = step, .next_sample = mhp_trainer_first_sample(trainer, step), .samples_per_step = samples,
                                  .best_loss = INFINITY};

    return mhp_saver_begin(saver, &state);
}

/* Rank 0; the others wait for it. */
static mhp_status run_dd(mhp_comm *comm, const char *folder, double bytes, double *seconds_out)
{
    char command[512];
    uint64_t start_ns = mhp_time_ns();
    mhp_status status = MHP_OK;

    snprintf(command, sizeof command, "dd if=/dev/zero of='%s/dd' bs=1M count=%.0f iflag=count_bytes conv=fsync status=none", folder, bytes);
    if (mhp_comm_rank(comm) == 0 && system(command) != 0) {
        status = mhp_error_set(MHP_ERR_IO, "dd failed: %s", command);
    }
    *seconds_out = since_s(start_ns);
    return mhp_comm_agree(comm, status, NULL);
}

static mhp_status run_round(mhp_comm *comm, const settings *given, mhp_trainer *trainer, mhp_saver *saver, int64_t *step, int round,
                            results *found)
{
    mhp_saver_stats alone, beside;
    double beside_s;

    MHP_RETURN_IF_ERROR(run_dd(comm, given->folder, found->bytes, &found->dd_s[round]));
    MHP_RETURN_IF_ERROR(begin_save(trainer, saver, *step));
    MHP_RETURN_IF_ERROR(mhp_saver_wait(saver));
    mhp_saver_get_stats(saver, &alone);
    MHP_RETURN_IF_ERROR(run_steps(trainer, step, &found->plain_s[round]));
    MHP_RETURN_IF_ERROR(begin_save(trainer, saver, *step));
    MHP_RETURN_IF_ERROR(run_steps(trainer, step, &beside_s));
    MHP_RETURN_IF_ERROR(mhp_saver_wait(saver));
    mhp_saver_get_stats(saver, &beside);
    found->alone_s[round] = alone.write_s;
    found->beside_s[round] = beside.write_s;
    found->copy_s[round] = beside.stage_s;
    found->rate[round] = found->dd_s[round] / alone.write_s;
    found->rate_beside[round] = found->dd_s[round] / beside.write_s;
    /* over the steps that the writing overlapped: at least one */
    found->cost[round] = (beside_s - found->plain_s[round]) / fmax(fmin(beside.write_s, beside_s), beside_s / STEPS_BESIDE);
    return MHP_OK;
}

static void print_results(results *found, int rounds)
{
    double mib = found->bytes / (1024.0 * 1024.0);

    printf("checkpoint of %.1f MiB: copied in %.1f ms; medians of %d rounds\n", mib, bench_median(found->copy_s, rounds) * 1e3, rounds);
    printf("dd %.0f MiB/s; writing alone %.0f MiB/s, %.2f of dd; beside steps %.0f MiB/s, %.2f of dd\n",
           mib / bench_median(found->dd_s, rounds), mib / bench_median(found->alone_s, rounds), bench_median(found->rate, rounds),
           mib / bench_median(found->beside_s, rounds), bench_median(found->rate_beside, rounds));
    printf("steps of %.1f ms; those that a save overlaps take %+.1f %% (%d steps a round)\n",
           bench_median(found->plain_s, rounds) * 1e3 / STEPS_BESIDE, bench_median(found->cost, rounds) * 100, STEPS_BESIDE);
}

/* Bytes of a checkpoint over all ranks, by writing one. */
static mhp_status measure_bytes(mhp_trainer *trainer, mhp_saver *saver, double *bytes_out)
{
    mhp_store *store = mhp_trainer_store(trainer);
    mhp_saver_stats stats;
    mhp_event *summed = NULL;
    mhp_status status = MHP_OK;

    MHP_TRY(out, begin_save(trainer, saver, 0));
    MHP_TRY(out, mhp_saver_wait(saver));
    mhp_saver_get_stats(saver, &stats);
    *bytes_out = (double)stats.bytes;
    MHP_TRY(out, mhp_event_create(store->device, &summed));
    MHP_TRY(out, mhp_group_all_reduce(store->world, bytes_out, 1, MHP_DTYPE_F64, MHP_REDUCE_SUM, NULL, summed));
    MHP_TRY(out, mhp_event_synchronize(summed, 0));
out:
    mhp_event_destroy(summed);
    return status;
}

static mhp_status bench_saves(mhp_comm *comm, const settings *given, mhp_trainer *trainer)
{
    mhp_status status = MHP_OK;
    mhp_saver *saver = NULL;
    mhp_saver_params params = {.store = mhp_trainer_store(trainer), .optimizer = mhp_trainer_optimizer(trainer), .run = given->folder,
                               .keep_last = 1};
    results found = {.bytes = 0};
    int64_t step = 0;
    double warm_s;

    MHP_TRY(out, mhp_store_initialize(params.store, 1));
    MHP_TRY(out, mhp_saver_create(&params, &saver));
    MHP_TRY(out, measure_bytes(trainer, saver, &found.bytes));
    MHP_TRY(out, run_steps(trainer, &step, &warm_s));
    for (int round = 0; round < given->rounds; round++) {
        MHP_TRY(out, run_round(comm, given, trainer, saver, &step, round, &found));
    }
    if (mhp_comm_rank(comm) == 0) {
        print_results(&found, given->rounds);
    }
out:
    mhp_saver_destroy(saver);
    return status;
}

/* ---- resuming ---- */

/* What storage was read for this process, and -1 where the system does not tell. */
static double bytes_read(void)
{
    FILE *file = fopen("/proc/self/io", "r");
    char line[128];
    double bytes = -1;

    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, "read_bytes:", 11) == 0) {
            bytes = strtod(line + 11, NULL);
        }
    }
    if (file) {
        fclose(file);
    }
    return bytes;
}

/* Parameters of the held stages, and this rank's part of the moments. */
static double bytes_needed(const mhp_store *store)
{
    double bytes = 0;

    for (int i = 0; i < store->held_count; i++) {
        const mhp_held_stage *held = &store->held[i];

        bytes += (double)((size_t)mhp_stage_layout(held->stage)->elements + 2 * (size_t)held->chunk) *
                 (double)mhp_dtype_bytes(store->kernels->full_dtype);
    }
    return bytes;
}

static mhp_status bench_resume(mhp_comm *comm, const settings *given, mhp_trainer *trainer)
{
    const double mib = 1024.0 * 1024.0;
    double created_s = since_s(program_start_ns), before = bytes_read(), restored_s, read;
    mhp_resume resume = {.kind = MHP_RESUME_LATEST};
    mhp_checkpoint_state state;
    mhp_step_report report;
    char *from = NULL;

    MHP_RETURN_IF_ERROR(mhp_checkpoint_restore(mhp_trainer_store(trainer), mhp_trainer_optimizer(trainer), resume, given->folder, &state, &from));
    mhp_free(from);
    restored_s = since_s(program_start_ns);
    read = bytes_read() - before;
    mhp_trainer_seek(trainer, state.step, state.next_sample);
    MHP_RETURN_IF_ERROR(mhp_trainer_step(trainer, state.step, &report));
    printf("rank %d: needs %.1f MiB, %.1f MiB read from storage; ready after %.2f s, resumed after %.2f s, first step done after %.2f s\n",
           mhp_comm_rank(comm), bytes_needed(mhp_trainer_store(trainer)) / mib, read / mib, created_s, restored_s, since_s(program_start_ns));
    return MHP_OK;
}

static mhp_status bench(mhp_comm *comm, mhp_config *config, void *context)
{
    const settings *given = context;
    mhp_trainer_params params = bench_trainer_params(comm, config);
    mhp_trainer *trainer = NULL;
    mhp_status status = MHP_OK;

    MHP_TRY(out, mhp_trainer_create(&params, &trainer));
    status = given->rounds > 0 ? bench_saves(comm, given, trainer) : bench_resume(comm, given, trainer);
out:
    mhp_trainer_destroy(trainer);
    return status;
}

int main(int argc, char **argv)
{
    settings given = {NULL, 0};

    program_start_ns = mhp_time_ns();
    if (argc > 3) {
        given.folder = argv[2];
        given.rounds = atoi(argv[3]);
    }
    if (argc < 4 || given.rounds > ROUNDS_MAX || (given.rounds < 1 && strcmp(argv[3], "resume") != 0)) {
        fprintf(stderr, "usage: checkpoint CONFIG FOLDER ROUNDS|resume [KEY=VALUE ...] (at most %d rounds)\n", ROUNDS_MAX);
        return 2;
    }
    return bench_run("checkpoint", argv[1], argv + 4, argc - 4, bench, &given);
}
