/* mpirun -n P test_energy_ranks FOLDER: what a run's energy comes to on made-up nodes with made-up counters: each package and card once,
 * and what one rank cannot read is known to nobody.
 *
 * A check that fails ends its rank, and with it the whole launch: the others may wait for it. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/file.h"
#include "core/memory.h"
#include "runtime/energy.h"
#include "runtime/metrics.h"
#include "tests/ranks/check.h"

enum { STEPS = 5, NOT_SUPPORTED = 3 };

typedef struct world {
    mhp_device *device;
    mhp_comm *comm;
    mhp_group *all;
    mhp_event *summed;
    const char *folder;
    int rank, size;
} world;

/* ---- counters ---- */

/* Each rank sees its own copy of a card's counter, as it would a card that it shares. */
static unsigned long long card_mj;
static int card_code, cards_open;

static int fake_init(void)
{
    cards_open++;
    return 0;
}

static int fake_shutdown(void)
{
    cards_open--;
    return 0;
}

static const char *fake_text(int code)
{
    return code == NOT_SUPPORTED ? "Not Supported" : "?";
}

static int fake_find(const char *bus_id, void **card)
{
    (void)bus_id;
    *card = &card_mj;
    return 0;
}

static int fake_energy(void *card, unsigned long long *energy_mj)
{
    *energy_mj = *(unsigned long long *)card;
    return card_code;
}

static const mhp_nvml nvml = {fake_init, fake_shutdown, fake_text, fake_find, fake_energy};

/* A file of this rank's own copy of its node's sysfs. */
static void set_file(world *w, const char *zone, const char *name, const char *text)
{
    char path[512];

    snprintf(path, sizeof path, "%s/rank%d/%s", w->folder, w->rank, zone);
    CHECK_OK(mhp_mkdirs(path));
    snprintf(path, sizeof path, "%s/rank%d/%s/%s", w->folder, w->rank, zone, name);
    {
        FILE *file = fopen(path, "w");

        CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0);
    }
}

static void set_package(world *w, int package, double joules)
{
    char zone[32], text[64];

    snprintf(zone, sizeof zone, "intel-rapl:%d", package);
    snprintf(text, sizeof text, "package-%d\n", package);
    set_file(w, zone, "name", text);
    set_file(w, zone, "max_energy_range_uj", "262143328850\n");
    snprintf(text, sizeof text, "%.0f\n", joules * 1e6);
    set_file(w, zone, "energy_uj", text);
}

/* ---- a run ---- */

typedef struct layout {
    int ranks_per_node, ranks_per_card;         /* cards 0: none */
} layout;

static mhp_run_energy *open_energy(world *w, const layout *at, char node[32], char bus_id[32])
{
    static char packages[512];
    mhp_run_energy_params params = {.world = w->all, .device = w->device, .packages = packages, .node = node, .nvml = &nvml};
    mhp_run_energy *energy = NULL;

    snprintf(packages, sizeof packages, "%s/rank%d", w->folder, w->rank);
    snprintf(node, 32, "node %d", w->rank / at->ranks_per_node);
    if (at->ranks_per_card > 0) {       /* the same number on every node is another card */
        snprintf(bus_id, 32, "0000:%02x:00.0", w->rank % at->ranks_per_node / at->ranks_per_card);
        params.bus_id = bus_id;
    }
    CHECK_OK(mhp_run_energy_open(&params, &energy));
    return energy;
}

static int round_up(int value, int by)
{
    return (value + by - 1) / by;
}

static int card_count(const world *w, const layout *at)
{
    int count = 0;

    for (int first = 0; at->ranks_per_card > 0 && first < w->size; first += at->ranks_per_node) {
        int here = w->size - first < at->ranks_per_node ? w->size - first : at->ranks_per_node;

        count += round_up(here, at->ranks_per_card);
    }
    return count;
}

static bool is_near(double found, double expected)
{
    return fabs(found - expected) < 1e-6 * (1 + fabs(expected));
}

/* The end of a step: what all ranks' meters say of it. */
static mhp_joules end_step(world *w, mhp_run_energy *energy)
{
    mhp_joules step;

    mhp_run_energy_mark(energy, step.of);
    CHECK_OK(mhp_group_all_reduce(w->all, step.of, MHP_ENERGY_KINDS, MHP_DTYPE_F64, MHP_REDUCE_SUM, NULL, w->summed));
    CHECK_OK(mhp_event_synchronize(w->summed, 0));
    mhp_run_energy_add(energy, &step);
    return step;
}

/* The line of a recorded step has a meter for each package and card, with the ranks that share it and what the lowest of them read. */
static void check_meters(world *w, const layout *at, const mhp_run_energy *energy)
{
    mhp_joules joules[64];
    mhp_step_report report = {.step_s = 1, .energy = {{1, 1}}, .meters = energy, .rank_energy = joules, .world_size = w->size, .recorded = true};
    char path[512];
    mhp_metrics *metrics = NULL;
    json_t *root, *meters;
    int served = 0;

    for (int rank = 0; rank < w->size; rank++) {
        int first = rank / at->ranks_per_node * at->ranks_per_node;
        int card = at->ranks_per_card > 0 ? first + (rank - first) / at->ranks_per_card * at->ranks_per_card : -1;

        CHECK(mhp_run_energy_metered_by(energy, rank, MHP_ENERGY_CPU) == first);
        CHECK(mhp_run_energy_metered_by(energy, rank, MHP_ENERGY_GPU) == card);
        joules[rank] = (mhp_joules){{rank == first ? 100 + rank : 0, rank == card ? 200 + rank : 0}};
    }
    snprintf(path, sizeof path, "%s/metrics%d", w->folder, w->rank);
    CHECK_OK(mhp_mkdirs(path));
    CHECK_OK(mhp_metrics_open(path, 0, &metrics));
    CHECK_OK(mhp_metrics_write(metrics, &report, 0));
    mhp_metrics_close(metrics);
    snprintf(path, sizeof path, "%s/metrics%d/metrics.jsonl", w->folder, w->rank);
    root = json_load_file(path, 0, NULL);
    meters = json_object_get(root, "energy_meters");
    CHECK(json_array_size(meters) == (size_t)(round_up(w->size, at->ranks_per_node) + card_count(w, at)));
    for (size_t i = 0; i < json_array_size(meters); i++) {
        const json_t *meter = json_array_get(meters, i), *ranks = json_object_get(meter, "ranks");
        bool gpu = strcmp(json_string_value(json_object_get(meter, "kind")), "gpu") == 0;
        int lowest = (int)json_integer_value(json_array_get(ranks, 0));

        CHECK(is_near(json_number_value(json_object_get(meter, "j")), (gpu ? 200 : 100) + lowest));
        CHECK(json_array_size(ranks) <= (size_t)(gpu ? at->ranks_per_card : at->ranks_per_node));
        for (size_t r = 0; r < json_array_size(ranks); r++) {
            int rank = (int)json_integer_value(json_array_get(ranks, r));

            CHECK(mhp_run_energy_metered_by(energy, rank, gpu ? MHP_ENERGY_GPU : MHP_ENERGY_CPU) == lowest);
            CHECK(r == 0 || rank > json_integer_value(json_array_get(ranks, r - 1)));
            served++;
        }
    }
    CHECK(served == w->size * (at->ranks_per_card > 0 ? 2 : 1));
    json_decref(root);
    CHECK(unlink(path) == 0);
}

/* Step s costs every package 2 (s + 1) J and every card 3 (s + 1) J; opening to the first step 1 and 1. */
static void count_once(world *w, layout at)
{
    char node[32], bus_id[32];
    mhp_run_energy *energy;
    mhp_energy_total total;
    double packages = 2 * round_up(w->size, at.ranks_per_node), cards = card_count(w, &at), package_j = 100;

    set_package(w, 0, package_j);
    set_package(w, 1, package_j);
    card_mj = 5000;
    energy = open_energy(w, &at, node, bus_id);
    check_meters(w, &at, energy);
    for (int step = 0; step < STEPS; step++) {
        mhp_joules joules;
        struct timespec pause = {0, 2000000};

        nanosleep(&pause, NULL);        /* longer than what counts as no gap */
        set_package(w, 0, package_j += 0.5);
        set_package(w, 1, package_j);
        card_mj += 1000;
        mhp_run_energy_begin(energy);
        package_j += 2 * (step + 1);
        set_package(w, 0, package_j);
        set_package(w, 1, package_j);
        card_mj += 3000 * (unsigned long long)(step + 1);
        joules = end_step(w, energy);
        CHECK(is_near(joules.of[MHP_ENERGY_CPU], packages * 2 * (step + 1)));
        CHECK(cards > 0 ? is_near(joules.of[MHP_ENERGY_GPU], cards * 3 * (step + 1)) : isnan(joules.of[MHP_ENERGY_GPU]));
    }
    CHECK_OK(mhp_run_energy_total(energy, &total));
    CHECK(total.step_count == STEPS);
    CHECK(is_near(total.steps.of[MHP_ENERGY_CPU], packages * STEPS * (STEPS + 1)));
    CHECK(is_near(total.run.of[MHP_ENERGY_CPU], packages * (STEPS * (STEPS + 1) + 0.5 * STEPS)));
    CHECK(total.reason[MHP_ENERGY_CPU][0] == '\0');
    if (cards > 0) {
        CHECK(is_near(total.steps.of[MHP_ENERGY_GPU], cards * 1.5 * STEPS * (STEPS + 1)));
        CHECK(is_near(total.run.of[MHP_ENERGY_GPU], cards * (1.5 * STEPS * (STEPS + 1) + STEPS)));
        CHECK(is_near(mhp_joules_sum(&total.run), total.run.of[MHP_ENERGY_CPU] + total.run.of[MHP_ENERGY_GPU]));
    } else {
        CHECK(isnan(total.run.of[MHP_ENERGY_GPU]) && is_near(mhp_joules_sum(&total.run), total.run.of[MHP_ENERGY_CPU]));
        CHECK(strcmp(total.reason[MHP_ENERGY_GPU], "no card computes") == 0);
    }
    mhp_run_energy_close(energy);
    CHECK(cards_open == 0);
}

/* The last rank's card gives up in the middle: its sum is known to nobody, and the reason to all. */
static void lose_a_card(world *w)
{
    layout at = {1, 1};
    char node[32], bus_id[32], part[64];
    mhp_run_energy *energy;
    mhp_energy_total total;
    mhp_joules joules;

    set_package(w, 0, 1);
    energy = open_energy(w, &at, node, bus_id);
    joules = end_step(w, energy);
    CHECK(is_near(joules.of[MHP_ENERGY_GPU], 0));
    card_code = w->rank == w->size - 1 ? NOT_SUPPORTED : 0;
    joules = end_step(w, energy);
    CHECK(isnan(joules.of[MHP_ENERGY_GPU]) && is_near(joules.of[MHP_ENERGY_CPU], 0));
    CHECK_OK(mhp_run_energy_total(energy, &total));
    CHECK(isnan(total.run.of[MHP_ENERGY_GPU]) && !isnan(total.run.of[MHP_ENERGY_CPU]));
    snprintf(part, sizeof part, "rank %d: NVML's energy", w->size - 1);
    CHECK(strstr(total.reason[MHP_ENERGY_GPU], w->size > 1 ? part : "NVML's energy"));
    CHECK(strstr(total.reason[MHP_ENERGY_GPU], "Not Supported"));
    mhp_run_energy_close(energy);
    card_code = 0;
}

/* Neither counters nor cards: no sum, no zero. */
static void nothing_to_read(world *w)
{
    mhp_run_energy_params params = {.world = w->all, .device = w->device, .packages = "/nowhere"};
    mhp_run_energy *energy = NULL;
    mhp_energy_meter *meter = NULL;
    mhp_energy_total total;
    mhp_joules joules;

    CHECK_OK(mhp_run_energy_open(&params, &energy));
    mhp_run_energy_begin(energy);
    joules = end_step(w, energy);
    CHECK(isnan(joules.of[MHP_ENERGY_CPU]) && isnan(joules.of[MHP_ENERGY_GPU]) && isnan(mhp_joules_sum(&joules)));
    CHECK_OK(mhp_run_energy_total(energy, &total));
    CHECK(isnan(mhp_joules_sum(&total.run)) && isnan(mhp_joules_sum(&total.steps)));
    CHECK(strstr(total.reason[MHP_ENERGY_CPU], "/nowhere is not there"));
    CHECK(strstr(total.reason[MHP_ENERGY_GPU], "no card computes"));
    CHECK_OK(mhp_run_energy_meter(energy, MHP_ENERGY_GPU, true, &meter));
    CHECK(!meter);
    mhp_run_energy_close(energy);
}

int main(int argc, char **argv)
{
    mhp_device_params params = {.kind = MHP_DEVICE_CPU, .threads = 1};
    world world_of_rank = {0}, *w = &world_of_rank;
    int members[64];

    if (argc != 2 || mhp_device_open(&params, &w->device) != MHP_OK || mhp_comm_open(w->device, &w->comm) != MHP_OK) {
        fprintf(stderr, "usage: test_energy FOLDER (%s)\n", mhp_error_text());
        return 2;
    }
    w->folder = argv[1];
    w->rank = mhp_comm_rank(w->comm);
    w->size = mhp_comm_size(w->comm);
    CHECK(w->size <= 64);
    for (int r = 0; r < w->size; r++) {
        members[r] = r;
    }
    CHECK_OK(mhp_group_open(w->comm, "all", 0, members, w->size, &w->all));
    CHECK_OK(mhp_event_create(w->device, &w->summed));
    count_once(w, (layout){1, 0});
    count_once(w, (layout){4, 0});
    count_once(w, (layout){4, 1});
    count_once(w, (layout){4, 2});
    count_once(w, (layout){2, 2});
    lose_a_card(w);
    nothing_to_read(w);
    mhp_event_destroy(w->summed);
    mhp_group_close(w->all);
    mhp_comm_close(w->comm);
    mhp_device_close(w->device);
    return 0;
}
