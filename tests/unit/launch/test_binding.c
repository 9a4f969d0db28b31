/* Cores and cards on synthetic machines. */
#include "launch/binding.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CARDS_MAX = 8, TEXT_MAX = 256 };

static hwloc_topology_t make_machine(const char *description)
{
    hwloc_topology_t topology;

    assert_int_equal(hwloc_topology_init(&topology), 0);
    assert_int_equal(hwloc_topology_set_synthetic(topology, description), 0);
    assert_int_equal(hwloc_topology_load(topology), 0);
    return topology;
}

static hwloc_bitmap_t set_of(const char *list)
{
    hwloc_bitmap_t set = hwloc_bitmap_alloc();

    assert_int_equal(hwloc_bitmap_list_sscanf(set, list), 0);
    return set;
}

/* The share of every local rank as text, "-" where it stays as it is: "0-3 4-7". */
static void shares(const mhp_binding_params *given, char *text)
{
    mhp_binding_params params = *given;

    text[0] = '\0';
    for (int r = 0; r < params.local_size; r++) {
        mhp_binding binding;
        char list[64] = "-";

        params.local_rank = r;
        assert_int_equal(mhp_binding_choose(&params, &binding), MHP_OK);
        if (binding.cpus) {
            assert_true(hwloc_bitmap_isincluded(binding.cpus, params.allowed));
            hwloc_bitmap_list_snprintf(list, sizeof list, binding.cpus);
        }
        snprintf(text + strlen(text), TEXT_MAX - strlen(text), "%s%s", r > 0 ? " " : "", list);
        hwloc_bitmap_free(binding.cpus);
    }
}

static void expect_on(hwloc_topology_t topology, const char *allowed, int local_size, int threads, const char *expected)
{
    hwloc_bitmap_t set = set_of(allowed);
    mhp_binding_params params = {.topology = topology, .allowed = set, .local_size = local_size, .threads = threads, .card = -1};
    char text[TEXT_MAX];

    shares(&params, text);
    assert_string_equal(text, expected);
    hwloc_bitmap_free(set);
}

/* Two nodes of four cores of two threads. */
static void ranks_take_whole_nodes_and_cores(void **state)
{
    hwloc_topology_t machine = make_machine("numa:2 core:4 pu:2");

    (void)state;
    expect_on(machine, "0-15", 1, 1, "0-15");
    expect_on(machine, "0-15", 2, 1, "0-7 8-15");
    expect_on(machine, "0-15", 3, 1, "0-7 8-11 12-15");
    expect_on(machine, "0-15", 4, 1, "0-3 4-7 8-11 12-15");
    expect_on(machine, "0-15", 6, 1, "0-1 2-3 4-7 8-9 10-11 12-15");
    expect_on(machine, "0-15", 8, 1, "0-1 2-3 4-5 6-7 8-9 10-11 12-13 14-15");
    hwloc_topology_destroy(machine);
    machine = make_machine("numa:4 core:2 pu:1");
    expect_on(machine, "0-7", 2, 1, "0-3 4-7");
    expect_on(machine, "0-7", 3, 1, "0-1 2-3 4-7");
    hwloc_topology_destroy(machine);
}

/* Products and messages need a hardware thread each. */
static void nobody_is_bound_where_threads_are_short(void **state)
{
    hwloc_topology_t machine = make_machine("numa:2 core:4 pu:2");

    (void)state;
    expect_on(machine, "0-15", 8, 2, "- - - - - - - -");
    expect_on(machine, "0-15", 4, 3, "0-3 4-7 8-11 12-15");
    expect_on(machine, "0-15", 4, 4, "- - - -");
    expect_on(machine, "0-15", 9, 1, "- - - - - - - - -");
    hwloc_topology_destroy(machine);
    machine = make_machine("numa:1 core:2 pu:1");
    expect_on(machine, "0-1", 2, 1, "- -");
    hwloc_topology_destroy(machine);
}

static void a_binding_of_the_launcher_stays(void **state)
{
    hwloc_topology_t machine = make_machine("numa:2 core:4 pu:2");

    (void)state;
    expect_on(machine, "8-15", 2, 1, "- -");
    expect_on(machine, "0", 4, 1, "- - - -");
    expect_on(machine, "0-14", 1, 1, "-");
    hwloc_topology_destroy(machine);
}

/* A job that was given some cores of a machine, by a control group, shares those. */
static void the_cores_of_the_job_are_shared(void **state)
{
    hwloc_topology_t machine = make_machine("numa:2 core:4 pu:2");
    hwloc_bitmap_t job = set_of("4-11");

    (void)state;
    assert_int_equal(hwloc_topology_restrict(machine, job, 0), 0);
    expect_on(machine, "4-11", 2, 1, "4-7 8-11");
    expect_on(machine, "4-11", 4, 1, "4-5 6-7 8-9 10-11");
    expect_on(machine, "0-15", 4, 1, "4-5 6-7 8-9 10-11");      /* a set that names cores which are not the job's */
    expect_on(machine, "4-7", 4, 1, "- - - -");
    hwloc_bitmap_free(job);
    hwloc_topology_destroy(machine);
}

typedef struct cards {
    hwloc_bitmap_t near[CARDS_MAX];
    hwloc_const_cpuset_t list[CARDS_MAX];
    int count;
} cards;

static void add_card(cards *x, const char *near)
{
    x->near[x->count] = near ? set_of(near) : NULL;
    x->list[x->count] = x->near[x->count];
    x->count++;
}

static void release_cards(cards *x)
{
    for (int i = 0; i < x->count; i++) {
        hwloc_bitmap_free(x->near[i]);
    }
    *x = (cards){.count = 0};
}

static void expect_cards(hwloc_topology_t topology, const cards *x, int card, int local_size, const char *expected)
{
    mhp_binding_params params = {.topology = topology, .allowed = hwloc_topology_get_allowed_cpuset(topology), .local_size = local_size,
                                 .threads = 1, .card = card, .card_count = x->count, .near_card = x->list};
    char text[TEXT_MAX];

    shares(&params, text);
    assert_string_equal(text, expected);
    for (params.local_rank = 0; params.local_rank < local_size; params.local_rank++) {
        mhp_binding binding;

        assert_int_equal(mhp_binding_choose(&params, &binding), MHP_OK);
        assert_int_equal(binding.card, card >= 0 ? card : params.local_rank % x->count);
        assert_false(binding.far);
        hwloc_bitmap_free(binding.cpus);
    }
}

static void cores_are_those_beside_the_card(void **state)
{
    hwloc_topology_t machine = make_machine("numa:2 core:4 pu:2");
    cards x = {.count = 0};

    (void)state;
    add_card(&x, "8-15");               /* the cards' numbers do not follow the nodes' */
    add_card(&x, "0-7");
    add_card(&x, "0-7");
    add_card(&x, "8-15");
    expect_cards(machine, &x, -1, 4, "8-11 0-3 4-7 12-15");
    expect_cards(machine, &x, -1, 2, "8-15 0-7");
    expect_cards(machine, &x, -1, 8, "8-9 0-1 2-3 10-11 12-13 4-5 6-7 14-15");
    expect_cards(machine, &x, 1, 2, "0-3 4-7");
    release_cards(&x);
    add_card(&x, NULL);                 /* nothing is known: all cores */
    add_card(&x, NULL);
    expect_cards(machine, &x, -1, 2, "0-7 8-15");
    release_cards(&x);
    add_card(&x, "0-7");                /* one of the job's, one that it may not touch */
    add_card(&x, "16-23");
    expect_cards(machine, &x, -1, 2, "0-7 8-15");
    release_cards(&x);
    hwloc_topology_destroy(machine);
}

static void a_card_far_from_a_launchers_cores_is_told(void **state)
{
    hwloc_topology_t machine = make_machine("numa:2 core:4 pu:2");
    hwloc_bitmap_t allowed = set_of("0-7");
    cards x = {.count = 0};
    mhp_binding binding;

    (void)state;
    add_card(&x, "0-7");
    add_card(&x, "8-15");
    for (int r = 0; r < 2; r++) {
        mhp_binding_params params = {.topology = machine, .allowed = allowed, .local_rank = r, .local_size = 2, .threads = 1,
                                     .card = -1, .card_count = x.count, .near_card = x.list};

        assert_int_equal(mhp_binding_choose(&params, &binding), MHP_OK);
        assert_null(binding.cpus);
        assert_int_equal(binding.card, r);
        assert_int_equal(binding.far, r == 1);
    }
    release_cards(&x);
    hwloc_bitmap_free(allowed);
    hwloc_topology_destroy(machine);
}

/* Machines without NUMA nodes or cores to speak of, memory without cores, and an unknown number of processes. */
static void odd_machines(void **state)
{
    hwloc_topology_t machine = make_machine("pu:8");

    (void)state;
    expect_on(machine, "0-7", 4, 1, "0-1 2-3 4-5 6-7");
    expect_on(machine, "0-7", 0, 1, "");
    hwloc_topology_destroy(machine);
    machine = make_machine("[numa(memory=1GB)] pack:2 [numa(memory=1GB)] core:2 pu:2");    /* a node of the whole machine beside */
    expect_on(machine, "0-7", 2, 1, "0-3 4-7");
    hwloc_topology_destroy(machine);
}

/* Every rank's share is its own, and no draw of allowed cores is widened (shares checks that). */
static void shares_are_disjoint(void **state)
{
    static const char *const machines[] = {"numa:2 core:8 pu:2", "pack:2 numa:2 core:3 pu:2", "numa:3 core:5 pu:1", "core:7 pu:4"};

    (void)state;
    srand(5);
    for (int draw = 0; draw < 200; draw++) {
        hwloc_topology_t machine = make_machine(machines[draw % 4]);
        hwloc_bitmap_t job = hwloc_bitmap_alloc(), seen = hwloc_bitmap_alloc();
        int size = rand() % 9 + 1;

        for (int i = hwloc_bitmap_first(hwloc_topology_get_allowed_cpuset(machine)); i >= 0;
             i = hwloc_bitmap_next(hwloc_topology_get_allowed_cpuset(machine), i)) {
            if (rand() % 3 > 0) {
                hwloc_bitmap_set(job, (unsigned)i);
            }
        }
        hwloc_bitmap_set(job, 0);
        assert_int_equal(hwloc_topology_restrict(machine, job, 0), 0);
        for (int r = 0; r < size; r++) {
            mhp_binding_params params = {.topology = machine, .allowed = job, .local_rank = r, .local_size = size, .threads = 1, .card = -1};
            mhp_binding binding;

            assert_int_equal(mhp_binding_choose(&params, &binding), MHP_OK);
            assert_true(!binding.cpus || (!hwloc_bitmap_intersects(binding.cpus, seen) && hwloc_bitmap_isincluded(binding.cpus, job)));
            if (binding.cpus) {
                hwloc_bitmap_or(seen, seen, binding.cpus);
            }
            hwloc_bitmap_free(binding.cpus);
        }
        assert_true(hwloc_bitmap_iszero(seen) || hwloc_bitmap_isequal(seen, job));
        hwloc_bitmap_free(seen);
        hwloc_bitmap_free(job);
        hwloc_topology_destroy(machine);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_take_whole_nodes_and_cores),
        cmocka_unit_test(nobody_is_bound_where_threads_are_short),
        cmocka_unit_test(a_binding_of_the_launcher_stays),
        cmocka_unit_test(the_cores_of_the_job_are_shared),
        cmocka_unit_test(cores_are_those_beside_the_card),
        cmocka_unit_test(a_card_far_from_a_launchers_cores_is_told),
        cmocka_unit_test(odd_machines),
        cmocka_unit_test(shares_are_disjoint),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
