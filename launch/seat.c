#include "launch/seat.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/environment.h"
#include "core/memory.h"
#include "launch/binding.h"
#include "launch/command.h"
#include "runtime/layout.h"
#include "scheduler/mapping.h"

/* ---- cores and card ---- */

/* The cores beside a card; NULL if the topology does not know it. */
static hwloc_const_cpuset_t cpus_near(hwloc_topology_t topology, mhp_device_kind kind, int index)
{
    char address[MHP_DEVICE_ADDRESS_MAX];
    hwloc_obj_t card;

    mhp_device_address(kind, index, address);
    card = address[0] ? hwloc_get_pcidev_by_busidstring(topology, address) : NULL;
    return card ? hwloc_get_non_io_ancestor_obj(topology, card)->cpuset : NULL;
}

static mhp_status choose(hwloc_topology_t topology, const mhp_parallel_params *parallel, hwloc_const_cpuset_t allowed,
                         mhp_binding *binding_out)
{
    mhp_status status = MHP_OK;
    bool cards = parallel->device == MHP_DEVICE_CUDA;
    int card_count = cards ? mhp_device_count(MHP_DEVICE_CUDA) : 0;
    hwloc_const_cpuset_t *near = NULL;
    mhp_binding_params params = {
        .topology = topology,
        .allowed = allowed,
        .local_rank = mhp_launched_local_rank(),
        .local_size = mhp_launched_local_size(),
        .threads = (int)parallel->threads,
        .card = cards ? (int)parallel->gpu : 0,
        .card_count = card_count,
    };

    MHP_TRY(out, mhp_calloc(&near, (size_t)card_count, sizeof *near));
    for (int i = 0; i < card_count; i++) {
        near[i] = cpus_near(topology, MHP_DEVICE_CUDA, i);
    }
    params.near_card = near;
    MHP_TRY(out, mhp_binding_choose(&params, binding_out));
out:
    mhp_free(near);
    return status;
}

/* Says where the process may run, if that is not everywhere. */
static void describe(hwloc_topology_t topology, hwloc_const_cpuset_t cpus, mhp_seat *seat)
{
    if (!hwloc_bitmap_isincluded(hwloc_topology_get_complete_cpuset(topology), cpus)) {
        hwloc_bitmap_list_snprintf(seat->cpus, sizeof seat->cpus, cpus);
    }
}

static void seat_on(hwloc_topology_t topology, const mhp_parallel_params *parallel, mhp_seat *seat)
{
    hwloc_bitmap_t allowed = hwloc_bitmap_alloc();
    mhp_binding binding = {0};

    if (!allowed || hwloc_get_cpubind(topology, allowed, HWLOC_CPUBIND_PROCESS) != 0 ||
        choose(topology, parallel, allowed, &binding) != MHP_OK) {
        goto out;
    }
    seat->card = binding.card;
    seat->far = binding.far;
    if (parallel->bind == MHP_AUTO && binding.cpus) {
        (void)hwloc_set_cpubind(topology, binding.cpus, HWLOC_CPUBIND_PROCESS);
        (void)hwloc_get_cpubind(topology, allowed, HWLOC_CPUBIND_PROCESS);
    }
    describe(topology, allowed, seat);
out:
    hwloc_bitmap_free(binding.cpus);
    hwloc_bitmap_free(allowed);
}

void mhp_seat_process(const mhp_parallel_params *parallel, mhp_seat *seat_out)
{
    hwloc_topology_t topology;

    *seat_out = (mhp_seat){.card = parallel->device == MHP_DEVICE_CUDA && parallel->gpu >= 0 ? (int)parallel->gpu : 0};
    if (hwloc_topology_init(&topology) != 0) {
        return;
    }
    if (parallel->device == MHP_DEVICE_CUDA) {      /* cards are wanted, and looking for them takes time */
        mhp_environment_set();                      /* hwloc may call the driver first */
        (void)hwloc_topology_set_io_types_filter(topology, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
    }
    if (hwloc_topology_load(topology) == 0) {
        seat_on(topology, parallel, seat_out);
    }
    hwloc_topology_destroy(topology);
}

/* ---- ranks ---- */

mhp_status mhp_rank_card_fill(const mhp_config *config, mhp_rank_card *card_out)
{
    *card_out = (mhp_rank_card){.version = MHP_VERSION};
    if (gethostname(card_out->host, sizeof card_out->host - 1) != 0) {
        snprintf(card_out->host, sizeof card_out->host, "unknown");
    }
    return config ? mhp_config_checksum(config, card_out->configuration) : MHP_OK;
}

mhp_status mhp_rank_cards_check(const mhp_rank_card *cards, int size)
{
    for (int r = 1; r < size; r++) {
        if (strcmp(cards[r].version, cards[0].version) != 0) {
            return mhp_error_set(MHP_ERR_CONFIG, "rank %d on %s is mhcpipe %s and rank 0 on %s is %s: expected the same on every host", r,
                                 cards[r].host, cards[r].version, cards[0].host, cards[0].version);
        }
        if (strcmp(cards[r].configuration, cards[0].configuration) != 0) {
            return mhp_error_set(MHP_ERR_CONFIG, "the configurations of rank 0 on %s and rank %d on %s differ (checksums %.8s and %.8s): "
                                                 "expected the same on every host",
                                 cards[0].host, r, cards[r].host, cards[0].configuration, cards[r].configuration);
        }
    }
    return MHP_OK;
}

/* All ranks in the order of `rank_of`. */
static mhp_status reorder(const int *rank_of, int size, mhp_rank_card *cards)
{
    mhp_rank_card *copy = NULL;

    MHP_RETURN_IF_ERROR(mhp_calloc(&copy, (size_t)size, sizeof *copy));
    memcpy(copy, cards, (size_t)size * sizeof *copy);
    for (int p = 0; p < size; p++) {
        cards[rank_of[p]] = copy[p];
    }
    mhp_free(copy);
    return MHP_OK;
}

static bool on_one_host(const mhp_rank_card *cards, int size)
{
    for (int r = 1; r < size; r++) {
        if (strcmp(cards[r].host, cards[0].host) != 0) {
            return false;
        }
    }
    return true;
}

static mhp_status find_ranks(const mhp_config *config, const mhp_rank_card *cards, int size, int *rank_of)
{
    mhp_status status = MHP_OK;
    mhp_layout layout = {0};
    const char **hosts = NULL;

    MHP_TRY(out, mhp_layout_create(&config->model, &config->parallel, &config->schedule, &layout));
    MHP_TRY(out, mhp_calloc(&hosts, (size_t)size, sizeof *hosts));
    for (int r = 0; r < size; r++) {
        hosts[r] = cards[r].host;
    }
    MHP_TRY(out, mhp_mapping_create(layout.plan, (int)config->parallel.data, hosts, rank_of));
out:
    mhp_free(hosts);
    mhp_layout_release(&layout);
    return status;
}

mhp_status mhp_seat_ranks(mhp_comm *comm, const mhp_config *config, mhp_rank_card *cards)
{
    mhp_status status = MHP_OK;
    int size = mhp_comm_size(comm);
    int *rank_of = NULL;

    if (config->parallel.map != MHP_AUTO || on_one_host(cards, size) || config->parallel.pipeline * config->parallel.data != size) {
        return MHP_OK;
    }
    MHP_TRY(out, mhp_calloc(&rank_of, (size_t)size, sizeof *rank_of));
    MHP_TRY(out, mhp_comm_agree(comm, find_ranks(config, cards, size, rank_of), NULL));
    MHP_TRY(out, mhp_comm_renumber(comm, rank_of[mhp_comm_rank(comm)]));
    MHP_TRY(out, reorder(rank_of, size, cards));
out:
    mhp_free(rank_of);
    return status;
}
