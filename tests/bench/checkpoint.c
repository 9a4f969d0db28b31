/* mpirun -n P checkpoint CONFIG FOLDER ROUNDS|resume [KEY=VALUE ...]: what a checkpoint costs, on made-up tokens.
 *
 * In each round, within one run: dd writes as many bytes as a checkpoint has to a file of its own, with one sync at the end, through the
 * system's cache and past it; a checkpoint is written with nothing beside it; steps run alone and beside the writing of a checkpoint, in
 * turns. While dd or a checkpoint is timed alone, no rank computes. With `resume`: how long it takes from the start of the program to
 * the end of the first step of a run that goes on from the newest checkpoint in FOLDER, and what is read. */
#include "tests/bench/support.h"

#include <math.h>
#include <string.h>

#include "core/memory.h"
#include "runtime/checkpoint/restore.h"
#include "runtime/checkpoint/saver.h"

enum { TURNS = 4, ROUNDS_MAX = 64 };

static uint64_t program_start_ns;

typedef struct settings {
    const char *folder;
    int rounds;                     /* 0: resume */
} settings;

typedef struct results {
    int steps;                      /* that a save overlaps */
    double bytes;                   /* of a checkpoint, all ranks */
    /* by round */
    double dd_s[ROUNDS_MAX], dd_direct_s[ROUNDS_MAX], alone_s[ROUNDS_MAX], alone_cpu_s[ROUNDS_MAX];
    double rate[ROUNDS_MAX], rate_direct[ROUNDS_MAX];       /* alone, over dd's of the same round */
    double rate_removed[ROUNDS_MAX], remove_s[ROUNDS_MAX];  /* counting the removal of the checkpoint before */
    /* by turn */
    double plain_s[ROUNDS_MAX * TURNS], added_s[ROUNDS_MAX * TURNS], added[ROUNDS_MAX * TURNS];
    double beside_s[ROUNDS_MAX * TURNS], beside_cpu_s[ROUNDS_MAX * TURNS], copy_s[ROUNDS_MAX * TURNS], rate_beside[ROUNDS_MAX * TURNS];
} results;

static double since_s(uint64_t start_ns)
{
    return (double)(mhp_time_ns() - start_ns) * 1e-9;
}

static mhp_status run_steps(mhp_trainer *trainer, int count, int64_t *step, double *seconds_out)
{
    uint64_t start_ns = mhp_time_ns();

    for (int i = 0; i < count; i++) {
        mhp_step_report report;

        MHP_RETURN_IF_ERROR(mhp_trainer_step(trainer, (*step)++, &report));
    }
    *seconds_out = since_s(start_ns);
    return MHP_OK;
}

/* The sum of what the ranks give. */
static mhp_status sum_of_ranks(const mhp_store *store, double *values, int count)
{
    mhp_event *summed = NULL;
    mhp_status status = MHP_OK;

    MHP_TRY(out, mhp_event_create(store->device, &summed));
    MHP_TRY(out, mhp_group_all_reduce(store->world, values, (size_t)count, MHP_DTYPE_F64, MHP_REDUCE_SUM, NULL, summed));
    MHP_TRY(out, mhp_event_synchronize(summed, 0));
out:
    mhp_event_destroy(summed);
    return status;
}

static mhp_status begin_save(mhp_trainer *trainer, mhp_saver *saver, int64_t step)
{
    int64_t samples = mhp_trainer_batch_samples(trainer);
    mhp_checkpoint_state state = {.step = step, .next_sample = mhp_trainer_first_sample(trainer, step), .samples_per_step = samples,
                                  .best_loss = INFINITY};

    return mhp_saver_begin(saver, &state);
}

/* Waits for the save and says what it took: rank 0's seconds, which are those of the whole, and the processor time of all ranks' threads. */
static mhp_status end_save(mhp_trainer *trainer, mhp_saver *saver, mhp_saver_stats *stats_out)
{
    MHP_RETURN_IF_ERROR(mhp_saver_wait(saver));
    mhp_saver_get_stats(saver, stats_out);
    return sum_of_ranks(mhp_trainer_store(trainer), &stats_out->cpu_s, 1);
}

/* Rank 0, to a file that was not there before; the others wait for it. */
static mhp_status run_dd(mhp_comm *comm, const char *folder, double bytes, const char *options, double *seconds_out)
{
    char command[512], path[256];
    uint64_t start_ns;
    mhp_status status = MHP_OK;

    snprintf(path, sizeof path, "%s/dd", folder);
    snprintf(command, sizeof command, "dd if=/dev/zero of='%s' count=%.0f iflag=count_bytes conv=fsync status=none %s", path, bytes, options);
    start_ns = mhp_time_ns();
    if (mhp_comm_rank(comm) == 0 && system(command) != 0) {
        status = mhp_error_set(MHP_ERR_IO, "dd failed: %s", command);
    }
    *seconds_out = since_s(start_ns);
    if (mhp_comm_rank(comm) == 0) {
        remove(path);
    }
    return mhp_comm_agree(comm, status, NULL);
}

/* Steps beside a save between such without. */
static mhp_status run_turns(mhp_trainer *trainer, mhp_saver *saver, int64_t *step, int round, results *found)
{
    double before_s, after_s, beside_s;

    MHP_RETURN_IF_ERROR(run_steps(trainer, found->steps, step, &before_s));
    for (int turn = round * TURNS; turn < (round + 1) * TURNS; turn++) {
        mhp_saver_stats beside;

        MHP_RETURN_IF_ERROR(begin_save(trainer, saver, *step));
        MHP_RETURN_IF_ERROR(run_steps(trainer, found->steps, step, &beside_s));
        MHP_RETURN_IF_ERROR(end_save(trainer, saver, &beside));
        MHP_RETURN_IF_ERROR(run_steps(trainer, found->steps, step, &after_s));
        found->plain_s[turn] = (before_s + after_s) / 2;
        found->added_s[turn] = beside_s - found->plain_s[turn];
        found->added[turn] = found->added_s[turn] / found->plain_s[turn];
        found->beside_s[turn] = beside.write_s;
        found->beside_cpu_s[turn] = beside.cpu_s;
        found->copy_s[turn] = beside.stage_s;
        found->rate_beside[turn] = found->dd_s[round] / beside.write_s;
        before_s = after_s;
    }
    return MHP_OK;
}

static mhp_status run_round(mhp_comm *comm, const settings *given, mhp_trainer *trainer, mhp_saver *saver, int64_t *step, int round,
                            results *found)
{
    mhp_saver_stats alone;

    MHP_RETURN_IF_ERROR(run_dd(comm, given->folder, found->bytes, "bs=1M", &found->dd_s[round]));
    MHP_RETURN_IF_ERROR(run_dd(comm, given->folder, found->bytes, "bs=16M oflag=direct", &found->dd_direct_s[round]));
    MHP_RETURN_IF_ERROR(begin_save(trainer, saver, *step));
    MHP_RETURN_IF_ERROR(end_save(trainer, saver, &alone));
    found->alone_s[round] = alone.write_s;
    found->alone_cpu_s[round] = alone.cpu_s;
    found->remove_s[round] = alone.remove_s;
    found->rate[round] = found->dd_s[round] / alone.write_s;
    found->rate_removed[round] = found->dd_s[round] / (alone.write_s + alone.remove_s);
    found->rate_direct[round] = found->dd_direct_s[round] / alone.write_s;
    return run_turns(trainer, saver, step, round, found);
}

static void print_results(results *found, int rounds)
{
    double mib = found->bytes / (1024.0 * 1024.0), plain_s;
    int turns = rounds * TURNS;

    plain_s = bench_median(found->plain_s, turns);
    printf("checkpoint of %.1f MiB: copied in %.1f ms; medians of %d rounds, beside steps of %d turns\n", mib,
           bench_median(found->copy_s, turns) * 1e3, rounds, turns);
    printf("dd conv=fsync %.0f MiB/s, with oflag=direct %.0f MiB/s\n", mib / bench_median(found->dd_s, rounds),
           mib / bench_median(found->dd_direct_s, rounds));
    printf("writing alone: %.0f MiB/s, %.2f of dd, %.2f of it with oflag=direct; %.1f ms of processor time\n",
           mib / bench_median(found->alone_s, rounds), bench_median(found->rate, rounds), bench_median(found->rate_direct, rounds),
           bench_median(found->alone_cpu_s, rounds) * 1e3);
    printf("with %.1f ms to remove the checkpoint before: %.2f of dd\n", bench_median(found->remove_s, rounds) * 1e3,
           bench_median(found->rate_removed, rounds));
    printf("writing beside steps: %.0f MiB/s, %.2f of dd; %.1f ms of processor time\n", mib / bench_median(found->beside_s, turns),
           bench_median(found->rate_beside, turns), bench_median(found->beside_cpu_s, turns) * 1e3);
    printf("%d step(s) of %.1f ms that a save overlaps take %+.1f ms, %+.1f %%\n", found->steps, plain_s * 1e3 / found->steps,
           bench_median(found->added_s, turns) * 1e3, bench_median(found->added, turns) * 100);
}

/* Bytes of a checkpoint over all ranks, by writing one; and how many steps are as long as that takes. */
static mhp_status measure(mhp_trainer *trainer, mhp_saver *saver, int64_t *step, results *found)
{
    mhp_store *store = mhp_trainer_store(trainer);
    mhp_saver_stats stats;
    double warm_s, sums[2];

    MHP_RETURN_IF_ERROR(begin_save(trainer, saver, 0));
    MHP_RETURN_IF_ERROR(end_save(trainer, saver, &stats));
    MHP_RETURN_IF_ERROR(run_steps(trainer, 2, step, &warm_s));
    MHP_RETURN_IF_ERROR(run_steps(trainer, 2, step, &warm_s));
    sums[0] = (double)stats.bytes;
    sums[1] = store->world_rank == 0 ? stats.write_s / (warm_s / 2) : 0;
    MHP_RETURN_IF_ERROR(sum_of_ranks(store, sums, 2));
    found->bytes = sums[0];
    found->steps = 1 + (int)sums[1];
    return MHP_OK;
}

static mhp_status bench_saves(mhp_comm *comm, const settings *given, mhp_trainer *trainer)
{
    mhp_status status = MHP_OK;
    mhp_saver *saver = NULL;
    mhp_saver_params params = {.store = mhp_trainer_store(trainer), .optimizer = mhp_trainer_optimizer(trainer), .run = given->folder,
                               .keep_last = 1};
    results found = {.bytes = 0};
    int64_t step = 0;

    MHP_TRY(out, mhp_store_initialize(params.store, 1));
    MHP_TRY(out, mhp_saver_create(&params, &saver));
    MHP_TRY(out, measure(trainer, saver, &step, &found));
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
