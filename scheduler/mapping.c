#include "scheduler/mapping.h"

#include <string.h>

#include "core/memory.h"

enum { NO_GROUP = -1, PASSES_MAX = 100 };

typedef struct mapping {
    const mhp_plan *plan;
    int size;                   /* of the world */
    int host_count;
    int *host_of;               /* [process]: hosts numbered as they first appear */
    int *host_size;             /* [host]: its processes */
    int *group;                 /* [host]: lowest host of the group that it makes whole pipelines with */
    int *chain;                 /* [pipeline rank]: the ranks in the order in which a micro-batch visits them */
    int *placed;                /* [world rank]: its host */
    /* Neighbours of world rank r: first[r] .. first[r + 1] - 1. */
    int *first, *neighbour;
    int64_t *weight;
} mapping;

static mhp_status number_hosts(mapping *x, const char *const *hosts)
{
    int *known = NULL;          /* [host]: its first process */
    mhp_status status = MHP_OK;

    MHP_TRY(out, mhp_calloc(&known, (size_t)x->size, sizeof *known));
    for (int p = 0; p < x->size; p++) {
        int h = 0;

        while (h < x->host_count && strcmp(hosts[known[h]], hosts[p]) != 0) {
            h++;
        }
        if (h == x->host_count) {
            known[x->host_count++] = p;
        }
        x->host_of[p] = h;
        x->host_size[h]++;
    }
out:
    mhp_free(known);
    return status;
}

/* ---- groups of hosts that make whole pipelines ---- */

/* Hosts that do so alone, and pairs. Taking them first loses no group: what their members would have completed, their rests complete. */
static void group_pairs(mapping *x)
{
    int length = x->plan->rank_count;

    for (int h = 0; h < x->host_count; h++) {
        x->group[h] = x->host_size[h] % length == 0 ? h : NO_GROUP;
    }
    for (int h = 0; h < x->host_count; h++) {
        for (int other = h + 1; other < x->host_count && x->group[h] == NO_GROUP; other++) {
            if (x->group[other] == NO_GROUP && (x->host_size[h] + x->host_size[other]) % length == 0) {
                x->group[h] = x->group[other] = h;
            }
        }
    }
}

/* best[set] = most groups that the set's hosts can be put in a row for: every time the row so far makes whole pipelines. */
static void count_groups(const int *size, int count, int length, int *best)
{
    for (unsigned set = 1; set < 1u << count; set++) {
        int sum = 0;

        best[set] = 0;
        for (int i = 0; i < count; i++) {
            if (set >> i & 1) {
                sum += size[i];
                best[set] = best[set & ~(1u << i)] > best[set] ? best[set & ~(1u << i)] : best[set];
            }
        }
        best[set] += sum % length == 0;
    }
}

/* Walks such a row back from its end: whenever what is left makes whole pipelines, a group begins. */
static void mark_groups(mapping *x, const int *rest, const int *size, int count, const int *best)
{
    int sum = 0;
    unsigned set = (1u << count) - 1;

    for (int i = 0; i < count; i++) {
        sum += size[i];
    }
    while (set) {
        unsigned members = 0;

        do {
            int whole = sum % x->plan->rank_count == 0;
            int last = count - 1;

            while (!(set >> last & 1) || best[set & ~(1u << last)] + whole != best[set]) {
                last--;
            }
            members |= 1u << last;
            set &= ~(1u << last);
            sum -= size[last];
        } while (set && sum % x->plan->rank_count != 0);
        for (int i = 0; i < count; i++) {
            if (members >> i & 1) {
                x->group[rest[i]] = rest[__builtin_ctz(members)];
            }
        }
    }
}

static mhp_status group_rest(mapping *x)
{
    mhp_status status = MHP_OK;
    int *rest = NULL, *size = NULL, *best = NULL;
    int count = 0;

    MHP_TRY(out, mhp_calloc(&rest, (size_t)x->host_count, sizeof *rest));
    MHP_TRY(out, mhp_calloc(&size, (size_t)x->host_count, sizeof *size));
    for (int h = 0; h < x->host_count; h++) {
        if (x->group[h] == NO_GROUP) {
            rest[count] = h;
            size[count++] = x->host_size[h];
        }
    }
    for (int i = 0; i < count; i++) {
        x->group[rest[i]] = rest[0];
    }
    if (count <= MHP_MAPPING_EXACT_HOSTS) {
        MHP_TRY(out, mhp_calloc(&best, (size_t)1 << count, sizeof *best));
        count_groups(size, count, x->plan->rank_count, best);
        mark_groups(x, rest, size, count, best);
    }
out:
    mhp_free(best);
    mhp_free(size);
    mhp_free(rest);
    return status;
}

/* ---- the chain laid over the groups ---- */

/* By the way of the first micro-batch; ranks that it does not meet stand last. */
static mhp_status order_chain(mapping *x)
{
    mhp_status status = MHP_OK;
    const mhp_plan *plan = x->plan;
    bool *met = NULL;
    int count = 0;

    MHP_TRY(out, mhp_calloc(&met, (size_t)plan->rank_count, sizeof *met));
    for (int s = 0; s < plan->stage_count; s++) {
        int owner = mhp_plan_owner(plan, s, 0);

        if (owner >= 0 && !met[owner]) {
            met[owner] = true;
            x->chain[count++] = owner;
        }
    }
    for (int r = 0; r < plan->rank_count; r++) {
        if (!met[r]) {
            x->chain[count++] = r;
        }
    }
out:
    mhp_free(met);
    return status;
}

static void lay_chains(mapping *x)
{
    int length = x->plan->rank_count;
    int next = 0;

    for (int g = 0; g < x->host_count; g++) {
        for (int h = g; h < x->host_count; h++) {
            for (int i = 0; i < x->host_size[h] && x->group[h] == g; i++, next++) {
                x->placed[next / length * length + x->chain[next % length]] = h;
            }
        }
    }
}

/* ---- exchanges ---- */

/* Messages count before copies. */
static mhp_status list_neighbours(mapping *x, const mhp_edge_list *edges)
{
    int64_t copies = 1;

    MHP_RETURN_IF_ERROR(mhp_calloc(&x->first, (size_t)x->size + 2, sizeof *x->first));
    MHP_RETURN_IF_ERROR(mhp_calloc(&x->neighbour, 2 * edges->count, sizeof *x->neighbour));
    MHP_RETURN_IF_ERROR(mhp_calloc(&x->weight, 2 * edges->count, sizeof *x->weight));
    for (size_t i = 0; i < edges->count; i++) {
        copies += edges->items[i].copies;
        x->first[edges->items[i].a + 2]++;
        x->first[edges->items[i].b + 2]++;
    }
    for (int r = 0; r < x->size; r++) {
        x->first[r + 2] += x->first[r + 1];
    }
    for (size_t i = 0; i < edges->count; i++) {     /* first[r + 1] goes from r's first place to the end of its places */
        const mhp_edge *edge = &edges->items[i];
        int at_a = x->first[edge->a + 1]++, at_b = x->first[edge->b + 1]++;

        x->neighbour[at_a] = edge->b;
        x->neighbour[at_b] = edge->a;
        x->weight[at_a] = x->weight[at_b] = edge->messages * copies + edge->copies;
    }
    return MHP_OK;
}

/* What rank r exchanges with the ranks of a host. */
static int64_t weight_to_host(const mapping *x, int r, int host)
{
    int64_t sum = 0;

    for (int i = x->first[r]; i < x->first[r + 1]; i++) {
        sum += x->placed[x->neighbour[i]] == host ? x->weight[i] : 0;
    }
    return sum;
}

static int64_t weight_between(const mapping *x, int r, int other)
{
    for (int i = x->first[r]; i < x->first[r + 1]; i++) {
        if (x->neighbour[i] == other) {
            return x->weight[i];
        }
    }
    return 0;
}

/* How much less passes between hosts if ranks r and other change places. */
static int64_t gain_of_exchange(const mapping *x, int r, int other)
{
    int here = x->placed[r], there = x->placed[other];

    return weight_to_host(x, r, there) - weight_to_host(x, r, here) + weight_to_host(x, other, here) -
           weight_to_host(x, other, there) - 2 * weight_between(x, r, other);
}

/* The best exchange of rank r with one of a host that it talks to. */
static bool exchange(mapping *x, int r)
{
    int64_t best_gain = 0;
    int best = -1, host = x->placed[r];

    for (int i = x->first[r]; i < x->first[r + 1]; i++) {
        int there = x->placed[x->neighbour[i]];

        for (int other = 0; other < x->size && there != host; other++) {
            int64_t gain = x->placed[other] == there ? gain_of_exchange(x, r, other) : 0;

            if (gain > best_gain) {
                best_gain = gain;
                best = other;
            }
        }
    }
    if (best >= 0) {
        x->placed[r] = x->placed[best];
        x->placed[best] = host;
    }
    return best >= 0;
}

static void improve(mapping *x)
{
    bool changed = true;

    for (int pass = 0; pass < PASSES_MAX && changed; pass++) {
        changed = false;
        for (int r = 0; r < x->size; r++) {
            changed = exchange(x, r) || changed;
        }
    }
}

/* ---- result ---- */

mhp_mapping_cost mhp_mapping_cost_of(const mhp_edge_list *edges, const int *host_of_rank)
{
    mhp_mapping_cost cost = {0};

    for (size_t i = 0; i < edges->count; i++) {
        const mhp_edge *edge = &edges->items[i];

        if (host_of_rank[edge->a] != host_of_rank[edge->b]) {
            cost.edges += edge->messages > 0;
            cost.messages += edge->messages;
            cost.copies += edge->copies;
        }
    }
    return cost;
}

/* In its host, every process takes the lowest rank that is left. */
static mhp_status number_ranks(const mapping *x, int *rank_of)
{
    mhp_status status = MHP_OK;
    int *next = NULL;           /* [host]: where to look for its next rank */

    MHP_TRY(out, mhp_calloc(&next, (size_t)x->host_count, sizeof *next));
    for (int p = 0; p < x->size; p++) {
        int host = x->host_of[p];

        while (x->placed[next[host]] != host) {
            next[host]++;
        }
        rank_of[p] = next[host]++;
    }
out:
    mhp_free(next);
    return status;
}

static mhp_status place(mapping *x, const mhp_edge_list *edges)
{
    mhp_mapping_cost best, launched;

    group_pairs(x);
    MHP_RETURN_IF_ERROR(group_rest(x));
    MHP_RETURN_IF_ERROR(order_chain(x));
    lay_chains(x);
    MHP_RETURN_IF_ERROR(list_neighbours(x, edges));
    improve(x);
    best = mhp_mapping_cost_of(edges, x->placed);
    launched = mhp_mapping_cost_of(edges, x->host_of);
    if (launched.messages < best.messages || (launched.messages == best.messages && launched.copies <= best.copies)) {
        memcpy(x->placed, x->host_of, (size_t)x->size * sizeof *x->placed);
    }
    return MHP_OK;
}

mhp_status mhp_mapping_create(const mhp_plan *plan, int replica_count, const char *const *hosts, int *rank_of)
{
    mhp_status status = MHP_OK;
    mapping x = {.plan = plan, .size = replica_count * plan->rank_count};
    mhp_edge_list edges = {0};
    size_t size = (size_t)x.size;

    MHP_TRY(out, mhp_calloc(&x.host_of, size, sizeof *x.host_of));
    MHP_TRY(out, mhp_calloc(&x.host_size, size, sizeof *x.host_size));
    MHP_TRY(out, mhp_calloc(&x.group, size, sizeof *x.group));
    MHP_TRY(out, mhp_calloc(&x.placed, size, sizeof *x.placed));
    MHP_TRY(out, mhp_calloc(&x.chain, (size_t)plan->rank_count, sizeof *x.chain));
    MHP_TRY(out, number_hosts(&x, hosts));
    if (x.host_count > 1) {
        MHP_TRY(out, mhp_edges_create(plan, replica_count, &edges));
        MHP_TRY(out, place(&x, &edges));
    }
    MHP_TRY(out, number_ranks(&x, rank_of));
out:
    mhp_edges_release(&edges);
    mhp_free(x.weight);
    mhp_free(x.neighbour);
    mhp_free(x.first);
    mhp_free(x.chain);
    mhp_free(x.placed);
    mhp_free(x.group);
    mhp_free(x.host_size);
    mhp_free(x.host_of);
    return status;
}
