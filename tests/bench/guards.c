/* mpirun -n P guards CONFIG STEPS [KEY=VALUE ...]: what parallel.verify and train.verify_replay cost: steps without them and with them
 * in turn, within one run, on made-up tokens. Also the processor time of rank 0, which other programs on the machine disturb less. */
#include "tests/bench/support.h"

#include <time.h>

#include "core/memory.h"

enum { GUARDS = 3 };

static const struct guard {
    const char *name;
    int verify;
    int64_t replay;
} guards[GUARDS] = {{"none", MHP_VERIFY_NONE, 0}, {"messages", MHP_VERIFY_MESSAGES, 0}, {"replay of every step", MHP_VERIFY_NONE, 1}};

static mhp_status create(mhp_comm *comm, mhp_config *configs, mhp_trainer **trainers)
{
    for (int g = 0; g < GUARDS; g++) {
        mhp_trainer_params params = bench_trainer_params(comm, &configs[g]);

        configs[g].parallel.verify = guards[g].verify;
        configs[g].train.verify_replay = guards[g].replay;
        MHP_RETURN_IF_ERROR(mhp_trainer_create(&params, &trainers[g]));
        MHP_RETURN_IF_ERROR(mhp_store_initialize(mhp_trainer_store(trainers[g]), 1));
    }
    return MHP_OK;
}

static double processor_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Times of the steps [guard][step], wall and processor. */
static mhp_status time_steps(mhp_trainer **trainers, int steps, double *wall_s, double *busy_s)
{
    for (int step = -1; step < steps; step++) {
        for (int g = 0; g < GUARDS; g++) {
            double start_s = processor_s();
            mhp_step_report report;

            MHP_RETURN_IF_ERROR(mhp_trainer_step(trainers[g], step + 1, &report));
            if (step >= 0) {
                wall_s[g * steps + step] = report.step_s;
                busy_s[g * steps + step] = processor_s() - start_s;
            }
        }
    }
    return MHP_OK;
}

static mhp_status bench(mhp_comm *comm, mhp_config *config, void *context)
{
    mhp_status status = MHP_OK;
    int steps = *(const int *)context;
    mhp_config configs[GUARDS] = {*config, *config, *config};
    mhp_trainer *trainers[GUARDS] = {NULL};
    double *wall_s = NULL, *busy_s = NULL;

    MHP_TRY(out, mhp_calloc(&wall_s, (size_t)(GUARDS * steps), sizeof *wall_s));
    MHP_TRY(out, mhp_calloc(&busy_s, (size_t)(GUARDS * steps), sizeof *busy_s));
    MHP_TRY(out, create(comm, configs, trainers));
    MHP_TRY(out, time_steps(trainers, steps, wall_s, busy_s));
    for (int g = 0; g < GUARDS && mhp_comm_rank(comm) == 0; g++) {
        printf("%-22s %8.1f ms a step, %8.1f ms of processor time\n", guards[g].name, bench_median(wall_s + g * steps, steps) * 1e3,
               bench_median(busy_s + g * steps, steps) * 1e3);
    }
out:
    for (int g = GUARDS - 1; g >= 0; g--) {
        mhp_trainer_destroy(trainers[g]);
    }
    mhp_free(busy_s);
    mhp_free(wall_s);
    return status;
}

int main(int argc, char **argv)
{
    int steps = argc > 2 ? atoi(argv[2]) : 0;

    if (steps < 1) {
        fprintf(stderr, "usage: guards CONFIG STEPS [KEY=VALUE ...]\n");
        return 2;
    }
    return bench_run("guards", argv[1], argv + 3, argc - 3, bench, &steps);
}
