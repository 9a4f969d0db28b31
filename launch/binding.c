#include "launch/binding.h"

typedef struct part {
    hwloc_topology_t topology;
    hwloc_bitmap_t region;          /* what is shared */
    int index, count;               /* this rank among those that share it */
} part;

/* The next NUMA node that has cores of the region not in `before`, which they are added to; false if there is none. */
static bool next_node(const part *x, int *position, hwloc_bitmap_t before, hwloc_bitmap_t cpus)
{
    hwloc_obj_t node;

    while ((node = hwloc_get_obj_by_type(x->topology, HWLOC_OBJ_NUMANODE, (unsigned)(*position)++))) {
        hwloc_bitmap_and(cpus, node->cpuset, x->region);
        hwloc_bitmap_andnot(cpus, cpus, before);
        if (!hwloc_bitmap_iszero(cpus)) {
            hwloc_bitmap_or(before, before, cpus);
            return true;
        }
    }
    return false;
}

/* Cores of `cpus`, in the topology's order; hardware threads where it knows no cores. */
static hwloc_obj_t next_core(const part *x, hwloc_const_cpuset_t cpus, hwloc_obj_t last)
{
    bool cores = hwloc_get_nbobjs_by_type(x->topology, HWLOC_OBJ_CORE) > 0;

    return hwloc_get_next_obj_covering_cpuset_by_type(x->topology, cpus, cores ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU, last);
}

/* Adds the `index`-th of `count` even runs of the cores of `cpus`. */
static void add_run(const part *x, hwloc_const_cpuset_t cpus, int index, int count, hwloc_bitmap_t share)
{
    hwloc_obj_t core = NULL;
    hwloc_bitmap_t run = hwloc_bitmap_alloc();
    int cores = 0, i = 0;

    while ((core = next_core(x, cpus, core))) {
        cores++;
    }
    while (run && (core = next_core(x, cpus, core))) {
        if (i >= index * cores / count && i < (index + 1) * cores / count) {
            hwloc_bitmap_or(run, run, core->cpuset);
        }
        i++;
    }
    if (run) {
        hwloc_bitmap_and(run, run, cpus);
        hwloc_bitmap_or(share, share, run);
    }
    hwloc_bitmap_free(run);
}

/* The cores of rank `index` of those that share the region. */
static mhp_status take_share(const part *x, int index, hwloc_bitmap_t share)
{
    mhp_status status = MHP_OK;
    hwloc_bitmap_t before = hwloc_bitmap_alloc(), node = hwloc_bitmap_alloc();
    int nodes = 0, position = 0;

    hwloc_bitmap_zero(share);
    if (!before || !node) {
        MHP_RAISE(out, MHP_ERR_NO_MEMORY, "no memory for sets of cores");
    }
    while (next_node(x, &position, before, node)) {
        nodes++;
    }
    hwloc_bitmap_zero(before);
    position = 0;
    for (int n = 0; n < nodes && next_node(x, &position, before, node); n++) {
        int first = n * x->count / nodes, end = (n + 1) * x->count / nodes;         /* the node's ranks */

        if (x->count < nodes && n >= index * nodes / x->count && n < (index + 1) * nodes / x->count) {
            hwloc_bitmap_or(share, share, node);
        } else if (x->count >= nodes && index >= first && index < end) {
            add_run(x, node, index - first, end - first, share);
        }
    }
out:
    hwloc_bitmap_free(node);
    hwloc_bitmap_free(before);
    return status;
}

static hwloc_const_cpuset_t cpus_near(const mhp_binding_params *params, int card)
{
    return card < params->card_count ? params->near_card[card] : NULL;
}

static int card_of(const mhp_binding_params *params, int local_rank)
{
    if (params->card >= 0) {
        return params->card;
    }
    return params->card_count > 0 ? local_rank % params->card_count : 0;
}

/* Ranks share the cores beside a card with those whose cards have the same. */
static void find_part(const mhp_binding_params *params, part *x)
{
    hwloc_const_cpuset_t near = cpus_near(params, card_of(params, params->local_rank));

    x->index = params->local_rank;
    x->count = params->local_size;
    hwloc_bitmap_copy(x->region, params->allowed);
    if (!near || !hwloc_bitmap_intersects(near, params->allowed)) {
        return;
    }
    hwloc_bitmap_and(x->region, near, params->allowed);
    x->index = x->count = 0;
    for (int r = 0; r < params->local_size; r++) {
        hwloc_const_cpuset_t other = cpus_near(params, card_of(params, r));

        if (other && hwloc_bitmap_isequal(other, near)) {
            x->index += r < params->local_rank;
            x->count++;
        }
    }
}

/* Whether the smallest share has room for a rank's threads. */
static mhp_status has_room(const part *x, int threads, hwloc_bitmap_t scratch, bool *enough_out)
{
    *enough_out = true;
    for (int i = 0; i < x->count && *enough_out; i++) {
        MHP_RETURN_IF_ERROR(take_share(x, i, scratch));
        *enough_out = hwloc_bitmap_weight(scratch) > threads;
    }
    return MHP_OK;
}

mhp_status mhp_binding_choose(const mhp_binding_params *params, mhp_binding *binding_out)
{
    mhp_status status = MHP_OK;
    hwloc_bitmap_t share = hwloc_bitmap_alloc();
    part x = {.topology = params->topology, .region = hwloc_bitmap_alloc()};
    hwloc_const_cpuset_t job = hwloc_topology_get_allowed_cpuset(params->topology);
    bool enough = false;

    *binding_out = (mhp_binding){.card = card_of(params, params->local_rank)};
    if (!share || !x.region) {
        MHP_RAISE(out, MHP_ERR_NO_MEMORY, "no memory for sets of cores");
    }
    if (!hwloc_bitmap_isincluded(job, params->allowed)) {       /* bound already */
        hwloc_const_cpuset_t near = cpus_near(params, binding_out->card);

        binding_out->far = near && !hwloc_bitmap_intersects(near, params->allowed);
        goto out;
    }
    if (params->local_size <= 0 || params->local_rank >= params->local_size) {
        goto out;
    }
    find_part(params, &x);
    MHP_TRY(out, has_room(&x, params->threads, share, &enough));
    if (enough) {
        MHP_TRY(out, take_share(&x, x.index, share));
        binding_out->cpus = share;
        share = NULL;
    }
out:
    hwloc_bitmap_free(x.region);
    hwloc_bitmap_free(share);
    return status;
}
