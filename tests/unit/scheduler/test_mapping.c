#include "scheduler/mapping.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scheduler/generator.h"

enum { WORLD_MAX = 64 };

static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};

static mhp_plan *make_plan(const char *kind, int ranks, int microbatches)
{
    mhp_schedule_shape shape = {.ranks = ranks, .microbatches = microbatches, .chunks = 2};
    mhp_plan *plan = NULL;

    assert_int_equal(mhp_schedule_generate(kind, &shape, &plan), MHP_OK);
    return plan;
}

/* `hosts` has one letter for each process. */
static void split_hosts(const char *hosts, const char **host_of)
{
    for (size_t p = 0; p < strlen(hosts); p++) {
        host_of[p] = names[hosts[p] - 'a'];
    }
}

static mhp_mapping_cost cost_with(const mhp_edge_list *edges, const char *hosts, const int *rank_of)
{
    int host_of_rank[WORLD_MAX];

    for (size_t p = 0; p < strlen(hosts); p++) {
        host_of_rank[rank_of[p]] = hosts[p];
    }
    return mhp_mapping_cost_of(edges, host_of_rank);
}

static mhp_mapping_cost map(const mhp_plan *plan, int replicas, const char *hosts, int *rank_of)
{
    const char *host_of[WORLD_MAX];
    bool taken[WORLD_MAX] = {false};
    mhp_edge_list edges;
    mhp_mapping_cost cost;
    int size = replicas * plan->rank_count;

    assert_int_equal(strlen(hosts), size);
    split_hosts(hosts, host_of);
    assert_int_equal(mhp_mapping_create(plan, replicas, host_of, rank_of), MHP_OK);
    for (int p = 0; p < size; p++) {
        assert_in_range(rank_of[p], 0, size - 1);
        assert_false(taken[rank_of[p]]);
        taken[rank_of[p]] = true;
    }
    assert_int_equal(mhp_edges_create(plan, replicas, &edges), MHP_OK);
    cost = cost_with(&edges, hosts, rank_of);
    mhp_edges_release(&edges);
    return cost;
}

/* The number of cuts of a 1F1B chain. */
static int64_t cuts(int ranks, int replicas, const char *hosts)
{
    int rank_of[WORLD_MAX];
    mhp_plan *plan = make_plan("1f1b", ranks, 4);
    mhp_mapping_cost cost = map(plan, replicas, hosts, rank_of);

    assert_int_equal(cost.messages, cost.edges * 8);
    mhp_plan_destroy(plan);
    return cost.edges;
}

static void chains_are_cut_least(void **state)
{
    (void)state;
    assert_int_equal(cuts(4, 1, "aaaa"), 0);
    assert_int_equal(cuts(4, 1, "aabb"), 1);
    assert_int_equal(cuts(4, 1, "abab"), 1);        /* dealt round the hosts, as mpirun --map-by node does */
    assert_int_equal(cuts(6, 1, "abcabc"), 2);
    assert_int_equal(cuts(4, 2, "abababab"), 0);    /* a replica a host */
    assert_int_equal(cuts(4, 2, "aaabbbbb"), 1);
    assert_int_equal(cuts(4, 3, "aaabbbbbcccc"), 1);        /* c holds a whole replica, a and b two */
    assert_int_equal(cuts(4, 3, "aaabbbccccdd"), 2);        /* c; and a, b, d two replicas */
    assert_int_equal(cuts(4, 3, "aaabbbbccddd"), 2);        /* b; a + d + c */
    assert_int_equal(cuts(5, 4, "aaabbccddddeffffffff"), 3);        /* a + b and d + e; c + f */
    assert_int_equal(cuts(12, 4, "aaaaaaaabbbbbbbbccccccccddddddddeeeeeeeeffffffff"), 4);
}

/* Fewest messages between hosts over all ways to deal the processes' hosts to the ranks. */
typedef struct search {
    const mhp_edge_list *edges;
    int size, left[8], host_of_rank[WORLD_MAX];
    int64_t best;
} search;

static void try_ranks(search *x, int rank)
{
    if (rank == x->size) {
        int64_t messages = mhp_mapping_cost_of(x->edges, x->host_of_rank).messages;

        x->best = messages < x->best ? messages : x->best;
        return;
    }
    for (int h = 0; h < 8; h++) {
        if (x->left[h] > 0) {
            x->left[h]--;
            x->host_of_rank[rank] = h;
            try_ranks(x, rank + 1);
            x->left[h]++;
        }
    }
}

static int64_t fewest_messages(const mhp_plan *plan, int replicas, const char *hosts)
{
    mhp_edge_list edges;
    search x = {.size = replicas * plan->rank_count, .best = INT64_MAX};

    assert_int_equal(mhp_edges_create(plan, replicas, &edges), MHP_OK);
    x.edges = &edges;
    for (const char *host = hosts; *host; host++) {
        x.left[*host - 'a']++;
    }
    try_ranks(&x, 0);
    mhp_edges_release(&edges);
    return x.best;
}

static void compare_with_search(const char *kind, int ranks, int replicas, const char *hosts)
{
    int rank_of[WORLD_MAX], again[WORLD_MAX];
    mhp_plan *plan = make_plan(kind, ranks, 4 * ranks);
    int64_t found = map(plan, replicas, hosts, rank_of).messages, best = fewest_messages(plan, replicas, hosts);

    if (found != best) {
        fail_msg("%s, %d ranks, %d replicas, hosts %s: %lld messages between hosts, %lld would do", kind, ranks, replicas, hosts,
                 (long long)found, (long long)best);
    }
    (void)map(plan, replicas, hosts, again);
    assert_memory_equal(rank_of, again, strlen(hosts) * sizeof *rank_of);
    mhp_plan_destroy(plan);
}

/* Bidirectional, V-shaped, interleaved; several replicas; every draw of hosts up to four. */
static void every_schedule_is_as_good_as_a_search(void **state)
{
    static const char *const kinds[] = {"1f1b", "zb-v", "dualpipe", "dualpipev", "interleaved"};
    static const int shapes[][2] = {{2, 1}, {4, 1}, {6, 1}, {2, 2}, {2, 4}, {4, 2}};

    (void)state;
    srand(11);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            for (int draw = 0; draw < 12; draw++) {
                char hosts[WORLD_MAX] = "";
                int count = rand() % 3 + 2;

                for (int p = 0; p < shapes[s][0] * shapes[s][1]; p++) {
                    hosts[p] = (char)('a' + rand() % count);
                }
                compare_with_search(kinds[k], shapes[s][0], shapes[s][1], hosts);
            }
        }
    }
}

static void assert_order(const mhp_plan *plan, int replicas, const char *hosts, const int *expected)
{
    int rank_of[WORLD_MAX];

    (void)map(plan, replicas, hosts, rank_of);
    assert_memory_equal(rank_of, expected, strlen(hosts) * sizeof *rank_of);
}

static void the_order_is_the_launchers_where_it_is_as_good(void **state)
{
    mhp_plan *plan = make_plan("1f1b", 4, 4);

    (void)state;
    assert_order(plan, 1, "aaaa", (int[]){0, 1, 2, 3});
    assert_order(plan, 1, "bbaa", (int[]){0, 1, 2, 3});
    assert_order(plan, 2, "aaaabbbb", (int[]){0, 1, 2, 3, 4, 5, 6, 7});
    assert_order(plan, 2, "aabbccdd", (int[]){0, 1, 2, 3, 4, 5, 6, 7});
    assert_order(plan, 1, "abab", (int[]){0, 2, 1, 3});
    assert_order(plan, 1, "abba", (int[]){0, 2, 3, 1});
    assert_order(plan, 2, "abababab", (int[]){0, 4, 1, 5, 2, 6, 3, 7});
    mhp_plan_destroy(plan);
}

/* A plan whose chain is 0, 2, 1, 3: the ranks' numbers say nothing. */
static void a_chain_is_found_whatever_its_numbers(void **state)
{
    static const int owners[] = {0, 2, 1, 3};
    int rank_of[4];
    mhp_plan *plan = NULL;
    mhp_mapping_cost cost;

    (void)state;
    assert_int_equal(mhp_plan_create(4, 4, 2, &plan), MHP_OK);
    for (int i = 0; i < 8; i++) {
        plan->owner[i] = owners[i / 2];
    }
    cost = map(plan, 1, "aabb", rank_of);
    assert_int_equal(cost.edges, 1);
    assert_int_equal(cost.messages, 4);
    assert_memory_equal(rank_of, ((int[]){0, 2, 1, 3}), sizeof rank_of);
    mhp_plan_destroy(plan);
}

/* DualPipe on two ranks: both hold both stages. Two replicas on two hosts: no message between them, and the copies of the two stages. */
static void edges_of_copies(void **state)
{
    mhp_edge_list edges;
    mhp_plan *plan = make_plan("dualpipe", 2, 4);

    (void)state;
    assert_int_equal(mhp_edges_create(plan, 2, &edges), MHP_OK);
    assert_int_equal(edges.count, 3);               /* 0-1, 1-2, 2-3 */
    assert_int_equal(edges.items[0].messages, 8);
    assert_int_equal(edges.items[0].copies, 2);
    assert_int_equal(edges.items[1].a, 1);
    assert_int_equal(edges.items[1].b, 2);
    assert_int_equal(edges.items[1].messages, 0);
    assert_int_equal(edges.items[1].copies, 2);
    mhp_edges_release(&edges);
    mhp_plan_destroy(plan);
}

/* A thousand ranks on hosts of eight, dealt round: as many cuts as hosts less one, within a blink. */
static void large_worlds(void **state)
{
    enum { SIZE = 1024, HOSTS = SIZE / 8 };
    static char text[HOSTS][8];
    static const char *host_of[SIZE];
    static int rank_of[SIZE], host_of_rank[SIZE];
    mhp_edge_list edges;
    mhp_plan *plan = make_plan("1f1b", SIZE, 4);

    (void)state;
    for (int p = 0; p < SIZE; p++) {
        snprintf(text[p % HOSTS], sizeof text[0], "h%d", p % HOSTS);
        host_of[p] = text[p % HOSTS];
    }
    assert_int_equal(mhp_mapping_create(plan, 1, host_of, rank_of), MHP_OK);
    for (int p = 0; p < SIZE; p++) {
        host_of_rank[rank_of[p]] = p % HOSTS;
    }
    assert_int_equal(mhp_edges_create(plan, 1, &edges), MHP_OK);
    assert_int_equal(mhp_mapping_cost_of(&edges, host_of_rank).edges, HOSTS - 1);
    mhp_edges_release(&edges);
    mhp_plan_destroy(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chains_are_cut_least),
        cmocka_unit_test(every_schedule_is_as_good_as_a_search),
        cmocka_unit_test(the_order_is_the_launchers_where_it_is_as_good),
        cmocka_unit_test(a_chain_is_found_whatever_its_numbers),
        cmocka_unit_test(edges_of_copies),
        cmocka_unit_test(large_worlds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
