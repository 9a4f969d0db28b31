/* Who is to blame for a standstill, and how it is said. */
#include "runtime/diagnosis.h"
#include "tests/unit/runtime/folder.h"

enum { RANKS = 4, LONG_CHAIN = 40 };

static char text[MHP_DIAGNOSIS_TEXT_MAX];

static mhp_rank_view view_of(int rank, mhp_mark mark, double mark_s)
{
    mhp_rank_view view = {.state = MHP_RANK_PRESENT,
                          .place = {.section = MHP_SECTION_STEP, .number = 17, .mark = mark, .section_s = 60, .mark_s = mark_s}};

    snprintf(view.name, sizeof view.name, "rank %d", rank);
    return view;
}

static mhp_rank_view waits_for_input(int rank, int work, int stage, int microbatch, int peer)
{
    return view_of(rank, (mhp_mark){MHP_MARK_INPUT, work, stage, microbatch, peer}, 50 - rank);
}

static mhp_rank_view runs(int rank, int work, int stage, int microbatch, double for_s)
{
    return view_of(rank, (mhp_mark){MHP_MARK_RUN, work, stage, microbatch, -1}, for_s);
}

static mhp_rank_view waits_for_all(int rank, int work)
{
    return view_of(rank, (mhp_mark){MHP_MARK_ALL, work, -1, -1, -1}, 30);
}

/* 0 <- 1 <- 2, which computes; 3 waits for it as well. */
static void make_chain(mhp_rank_view ranks[RANKS])
{
    ranks[0] = waits_for_input(0, MHP_WORK_INPUT_GRADIENT, 0, 5, 1);
    ranks[1] = waits_for_input(1, MHP_WORK_INPUT_GRADIENT, 1, 5, 2);
    ranks[2] = runs(2, MHP_WORK_FORWARD, 2, 7, 31.25);
    ranks[3] = waits_for_input(3, MHP_WORK_FORWARD, 3, 7, 2);
}

static void a_chain_ends_at_the_rank_that_computes(void **state)
{
    mhp_rank_view ranks[RANKS];

    (void)state;
    make_chain(ranks);
    assert_int_equal(mhp_diagnose(ranks, RANKS, text), 2);
    assert_string_equal(text, "rank 0 waits for the gradient of micro-batch 5 for stage 0 from rank 1, which waits for the gradient of "
                              "micro-batch 5 for stage 1 from rank 2, which has been in step 17 in F of stage 2, micro-batch 7 for 31.2 s");
}

static void a_silent_rank_is_the_end_whatever_it_said_last(void **state)
{
    mhp_rank_view ranks[RANKS];

    (void)state;
    make_chain(ranks);
    ranks[1].state = MHP_RANK_SILENT;
    ranks[1].silent_s = 12;
    assert_int_equal(mhp_diagnose(ranks, RANKS, text), 1);
    assert_non_null(strstr(text, "from rank 1, which has given no sign of life for 12.0 s"));
    ranks[1].state = MHP_RANK_LOST;
    assert_int_equal(mhp_diagnose(ranks, RANKS, text), 1);
    assert_non_null(strstr(text, "rank 1, which was lost in step 17 before I of stage 1, micro-batch 5"));
    ranks[1].state = MHP_RANK_UNKNOWN;
    assert_int_equal(mhp_diagnose(ranks, RANKS, text), 1);
    assert_non_null(strstr(text, "rank 1, of which nothing is known"));
}

static void a_full_slot_names_who_has_to_empty_it(void **state)
{
    mhp_rank_view ranks[] = {view_of(0, (mhp_mark){MHP_MARK_SLOT, MHP_WORK_FORWARD, 0, 3, 1}, 9),
                             runs(1, MHP_WORK_WEIGHT_GRADIENT, 1, 0, 8)};

    (void)state;
    assert_int_equal(mhp_diagnose(ranks, 2, text), 1);
    assert_string_equal(text, "rank 0 cannot begin F of stage 0, micro-batch 3 until an earlier state is taken by rank 1, which has been in "
                              "step 17 in W of stage 1, micro-batch 0 for 8.0 s");
}

static void what_all_take_part_in_waits_for_the_one_behind(void **state)
{
    mhp_rank_view ranks[] = {waits_for_all(0, MHP_WORK_NORM), runs(1, MHP_WORK_INPUT_GRADIENT, 1, 0, 3), waits_for_all(2, MHP_WORK_NORM),
                             runs(3, MHP_WORK_WEIGHT_GRADIENT, 3, 1, 20)};

    (void)state;
    assert_int_equal(mhp_diagnose(ranks, RANKS, text), 3);
    ranks[3] = waits_for_all(3, MHP_WORK_STATISTICS);       /* ahead, not behind */
    assert_int_equal(mhp_diagnose(ranks, RANKS, text), 1);
    ranks[1] = waits_for_all(1, MHP_WORK_STATISTICS);
    ranks[1].place.number = 16;                             /* still in the step before */
    assert_int_equal(mhp_diagnose(ranks, RANKS, text), -1);
    ranks[1].place.number = 17;
    ranks[0] = ranks[2] = waits_for_all(0, MHP_WORK_STATISTICS);
    assert_int_equal(mhp_diagnose(ranks, RANKS, text), -1);
    assert_non_null(strstr(text, "waits in the step's statistics for all ranks, of which none is behind"));
}

static void a_circle_is_said_to_be_one(void **state)
{
    mhp_rank_view ranks[] = {waits_for_input(0, MHP_WORK_INPUT_GRADIENT, 0, 5, 1), waits_for_input(1, MHP_WORK_FORWARD, 1, 6, 0)};

    (void)state;
    assert_int_equal(mhp_diagnose(ranks, 2, text), -1);
    assert_non_null(strstr(text, "in a circle: a message between them is lost"));
}

/* The places of ranks are not of one moment: of waits that are short none may mean anything. */
static void short_waits_are_a_run_that_moves(void **state)
{
    mhp_rank_view ranks[] = {waits_for_input(0, MHP_WORK_INPUT_GRADIENT, 0, 5, 1), waits_for_input(1, MHP_WORK_FORWARD, 1, 6, 0)};
    mhp_rank_view all[] = {waits_for_all(0, MHP_WORK_NORM), waits_for_all(1, MHP_WORK_NORM)};
    mhp_rank_view busy[] = {runs(0, MHP_WORK_FORWARD, 0, 0, 0.2)};

    (void)state;
    ranks[1].place.mark_s = all[1].place.mark_s = 0.4;
    assert_int_equal(mhp_diagnose(ranks, 2, text), -1);
    assert_string_equal(text, "rank 0 has waited for 50.0 s, but the ranks that it waits for have not waited long: the run moves");
    assert_int_equal(mhp_diagnose(all, 2, text), -1);
    assert_null(strstr(text, "none is behind"));
    ranks[0].place.mark_s = all[0].place.mark_s = 0.3;
    assert_int_equal(mhp_diagnose(ranks, 2, text), -1);
    assert_string_equal(text, "no rank has waited long: the run moves");
    assert_int_equal(mhp_diagnose(all, 2, text), -1);
    assert_string_equal(text, "no rank has waited long: the run moves");
    assert_int_equal(mhp_diagnose(busy, 1, text), -1);
    assert_string_equal(text, "no rank has waited long: the run moves");
}

static void without_waits_the_one_at_it_for_longest_is_named(void **state)
{
    mhp_rank_view ranks[] = {runs(0, MHP_WORK_FORWARD, 0, 0, 1), runs(1, MHP_WORK_FORWARD, 1, 0, 2), runs(2, MHP_WORK_OPTIMIZER, -1, -1, 1.5)};

    (void)state;
    assert_int_equal(mhp_diagnose(ranks, 3, text), 1);
    ranks[0].state = MHP_RANK_SILENT;
    assert_int_equal(mhp_diagnose(ranks, 3, text), 0);
    assert_int_equal(mhp_diagnose(ranks, 0, text), -1);
    assert_string_equal(text, "");
}

static void a_long_chain_fits_and_names_its_end(void **state)
{
    mhp_rank_view ranks[LONG_CHAIN];

    (void)state;
    for (int i = 0; i + 1 < LONG_CHAIN; i++) {
        ranks[i] = waits_for_input(i, MHP_WORK_FORWARD, i, 0, i + 1);
    }
    ranks[LONG_CHAIN - 1] = runs(LONG_CHAIN - 1, MHP_WORK_FORWARD, LONG_CHAIN - 1, 0, 1);
    assert_int_equal(mhp_diagnose(ranks, LONG_CHAIN, text), LONG_CHAIN - 1);
    assert_non_null(strstr(text, "and so on until rank 39, which has been in step 17"));
    for (int i = 0; i < LONG_CHAIN; i++) {          /* names of any length are cut, not run over */
        memset(ranks[i].name, 'x', sizeof ranks[i].name - 1);
        ranks[i].name[sizeof ranks[i].name - 1] = '\0';
    }
    assert_int_equal(mhp_diagnose(ranks, LONG_CHAIN, text), LONG_CHAIN - 1);
    assert_true(strlen(text) < MHP_DIAGNOSIS_TEXT_MAX);
}

static void a_peer_that_is_no_rank_ends_the_chain(void **state)
{
    mhp_rank_view ranks[] = {waits_for_input(0, MHP_WORK_FORWARD, 1, 0, 99), waits_for_input(1, MHP_WORK_FORWARD, 1, 0, -7)};

    (void)state;
    assert_int_equal(mhp_diagnose(ranks, 2, text), -1);
    assert_true(strlen(text) > 0);
}

static void places_read_well(void **state)
{
    mhp_place place = {.section = MHP_SECTION_START};
    char found[MHP_PLACE_TEXT_MAX];

    (void)state;
    mhp_place_format(&place, found);
    assert_string_equal(found, "the start");
    place = (mhp_place){.section = MHP_SECTION_SAVE, .number = 40};
    mhp_place_format(&place, found);
    assert_string_equal(found, "the save behind step 40");
    place = (mhp_place){.section = MHP_SECTION_STEP, .number = 3, .mark = {MHP_MARK_RUN, MHP_WORK_OPTIMIZER, -1, -1, -1}};
    mhp_place_format(&place, found);
    assert_string_equal(found, "step 3 in the optimizer");
    assert_string_equal(mhp_section_text(-1), "?");
    assert_string_equal(mhp_work_text(MHP_WORK_COUNT), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_ends_at_the_rank_that_computes),
        cmocka_unit_test(a_silent_rank_is_the_end_whatever_it_said_last),
        cmocka_unit_test(a_full_slot_names_who_has_to_empty_it),
        cmocka_unit_test(what_all_take_part_in_waits_for_the_one_behind),
        cmocka_unit_test(a_circle_is_said_to_be_one),
        cmocka_unit_test(short_waits_are_a_run_that_moves),
        cmocka_unit_test(without_waits_the_one_at_it_for_longest_is_named),
        cmocka_unit_test(a_long_chain_fits_and_names_its_end),
        cmocka_unit_test(a_peer_that_is_no_rank_ends_the_chain),
        cmocka_unit_test(places_read_well),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
