/* What carries messages between ranks, for worlds that no machine here is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "comm/topology.h"

enum { RANKS_MAX = 8 };

typedef struct sample {
    mhp_rank_facts ranks[RANKS_MAX];
    unsigned char reaches[RANKS_MAX * RANKS_MAX];
    mhp_topology topology;
} sample;

/* hosts x cards x sharers: `sharers` ranks on each card; all of a host reach each other. */
static void make(sample *s, int hosts, int cards, int sharers)
{
    int size = hosts * cards * sharers;

    memset(s, 0, sizeof *s);
    s->topology = (mhp_topology){size, s->ranks, s->reaches};
    for (int rank = 0; rank < size; rank++) {
        mhp_rank_facts *facts = &s->ranks[rank];
        int host = rank / (cards * sharers);

        snprintf(facts->host, sizeof facts->host, "host%d", host);
        facts->boot[0] = (unsigned char)(host + 1);
        facts->card[3] = (unsigned char)(rank / sharers % cards + 1);       /* the same on every host */
        facts->has_card = facts->can_share = facts->has_nccl = 1;
    }
    for (int a = 0; a < size; a++) {
        for (int b = 0; b < size; b++) {
            s->reaches[a * size + b] = a != b && a / (cards * sharers) == b / (cards * sharers);
        }
    }
}

static void assert_refused(const sample *s, mhp_transport_kind kind, const char *const *words)
{
    assert_int_equal(mhp_topology_check(&s->topology, kind), MHP_ERR_CONFIG);
    for (; *words; words++) {
        if (!strstr(mhp_error_text(), *words)) {
            print_error("no \"%s\" in \"%s\"\n", *words, mhp_error_text());
            fail();
        }
    }
}

static mhp_transport_kind choose(const sample *s, int source, int target)
{
    return mhp_topology_choose(&s->topology, MHP_TRANSPORT_AUTO, source, target);
}

static void within_a_host_it_is_ipc(void **state)
{
    sample s;

    (void)state;
    make(&s, 1, 2, 2);
    assert_int_equal(mhp_topology_check(&s.topology, MHP_TRANSPORT_AUTO), MHP_OK);
    assert_int_equal(mhp_topology_check(&s.topology, MHP_TRANSPORT_IPC), MHP_OK);
    assert_int_equal(choose(&s, 0, 1), MHP_TRANSPORT_IPC);      /* one card */
    assert_int_equal(choose(&s, 0, 3), MHP_TRANSPORT_IPC);      /* two */
}

static void between_hosts_it_is_nccl_or_mpi(void **state)
{
    sample s;

    (void)state;
    make(&s, 2, 4, 1);
    assert_int_equal(choose(&s, 0, 3), MHP_TRANSPORT_IPC);
    assert_int_equal(choose(&s, 3, 4), MHP_TRANSPORT_NCCL);
    s.ranks[5].has_nccl = 0;
    assert_int_equal(choose(&s, 3, 4), MHP_TRANSPORT_MPI);
    make(&s, 2, 1, 2);                                          /* two ranks a card */
    assert_int_equal(choose(&s, 0, 1), MHP_TRANSPORT_IPC);
    assert_int_equal(choose(&s, 1, 2), MHP_TRANSPORT_MPI);
}

static void what_does_not_reach_falls_back(void **state)
{
    sample s;

    (void)state;
    make(&s, 1, 2, 1);
    s.reaches[1] = 0;
    assert_int_equal(choose(&s, 0, 1), MHP_TRANSPORT_NCCL);
    assert_int_equal(choose(&s, 1, 0), MHP_TRANSPORT_IPC);
    s.ranks[0].has_card = 0;
    assert_int_equal(choose(&s, 0, 1), MHP_TRANSPORT_MPI);
}

static void a_group_takes_what_all_its_edges_can(void **state)
{
    const int near[] = {0, 1}, far[] = {1, 0, 2}, all[] = {0, 1, 2, 3};
    sample s;

    (void)state;
    make(&s, 2, 2, 1);
    assert_int_equal(mhp_topology_choose_group(&s.topology, MHP_TRANSPORT_AUTO, near, 2), MHP_TRANSPORT_IPC);
    assert_int_equal(mhp_topology_choose_group(&s.topology, MHP_TRANSPORT_AUTO, far, 3), MHP_TRANSPORT_NCCL);
    assert_int_equal(mhp_topology_choose_group(&s.topology, MHP_TRANSPORT_AUTO, all, 4), MHP_TRANSPORT_NCCL);
    assert_int_equal(mhp_topology_choose_group(&s.topology, MHP_TRANSPORT_MPI, near, 2), MHP_TRANSPORT_MPI);
    s.ranks[3].has_nccl = 0;
    assert_int_equal(mhp_topology_choose_group(&s.topology, MHP_TRANSPORT_AUTO, all, 4), MHP_TRANSPORT_MPI);
    assert_int_equal(mhp_topology_choose_group(&s.topology, MHP_TRANSPORT_AUTO, near, 2), MHP_TRANSPORT_IPC);
}

static void the_named_one_is_taken(void **state)
{
    sample s;

    (void)state;
    make(&s, 1, 2, 1);
    assert_int_equal(mhp_topology_choose(&s.topology, MHP_TRANSPORT_MPI, 0, 1), MHP_TRANSPORT_MPI);
    assert_int_equal(mhp_topology_choose(&s.topology, MHP_TRANSPORT_NCCL, 0, 1), MHP_TRANSPORT_NCCL);
}

static void more_ranks_than_cards_are_refused_by_nccl(void **state)
{
    sample s;
    int other = -1;

    (void)state;
    make(&s, 2, 2, 1);
    assert_int_equal(mhp_topology_check(&s.topology, MHP_TRANSPORT_NCCL), MHP_OK);
    assert_int_equal(mhp_topology_shared_card(&s.topology, &other), -1);
    make(&s, 1, 2, 2);
    assert_int_equal(mhp_topology_shared_card(&s.topology, &other), 1);
    assert_int_equal(other, 0);
    assert_refused(&s, MHP_TRANSPORT_NCCL, (const char *const[]){"ranks 0 and 1", "host0", "ipc can", NULL});
    s.ranks[2].has_nccl = 0;
    assert_refused(&s, MHP_TRANSPORT_NCCL, (const char *const[]){"rank 2", "without NCCL", NULL});
}

static void two_hosts_are_refused_by_ipc(void **state)
{
    sample s;

    (void)state;
    make(&s, 2, 1, 2);
    assert_refused(&s, MHP_TRANSPORT_IPC, (const char *const[]){"host0", "rank 2", "host1", "expected auto", NULL});
    snprintf(s.ranks[2].host, sizeof s.ranks[2].host, "host0");                 /* another machine of that name */
    assert_refused(&s, MHP_TRANSPORT_IPC, (const char *const[]){"rank 2", NULL});
    make(&s, 1, 1, 2);
    s.ranks[1].can_share = 0;
    assert_refused(&s, MHP_TRANSPORT_IPC, (const char *const[]){"rank 1", "expected auto or mpi", NULL});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(within_a_host_it_is_ipc),
        cmocka_unit_test(between_hosts_it_is_nccl_or_mpi),
        cmocka_unit_test(what_does_not_reach_falls_back),
        cmocka_unit_test(a_group_takes_what_all_its_edges_can),
        cmocka_unit_test(the_named_one_is_taken),
        cmocka_unit_test(more_ranks_than_cards_are_refused_by_nccl),
        cmocka_unit_test(two_hosts_are_refused_by_ipc),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
