/* Generators: golden compute orders, refused shapes, counts, activations in flight, evaluation. */
#include <dirent.h>

#include "core/file.h"
#include "core/memory.h"
#include "tests/unit/scheduler/support.h"

static const char golden_folder[] = MHP_SOURCE_DIR "/tests/golden/schedules";

static void assert_golden(const char *file, const char *name, int ranks, int microbatches,
                          int chunks)
{
    char path[1024];
    char *expected = NULL;
    char *actual = NULL;
    size_t expected_size = 0;
    size_t actual_size = 0;
    mhp_plan *plan = generate_chunks(name, ranks, microbatches, chunks);
    FILE *stream = open_memstream(&actual, &actual_size);

    assert_non_null(stream);
    assert_int_equal(mhp_plan_write_csv(plan, stream), MHP_OK);
    assert_int_equal(fclose(stream), 0);
    snprintf(path, sizeof path, "%s/%s", golden_folder, file);
    assert_int_equal(mhp_file_read_all(path, MHP_CSV_BYTES_MAX, &expected, &expected_size), MHP_OK);
    if (actual_size != expected_size || memcmp(actual, expected, actual_size) != 0) {
        fail_msg("%s differs; generated:\n%s", file, actual);
    }
    mhp_free(expected);
    free(actual);
    mhp_plan_destroy(plan);
}

static void generated_orders_equal_golden_files(void **state)
{
    DIR *folder = opendir(golden_folder);
    int found = 0;

    (void)state;
    assert_non_null(folder);
    for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
        char name[64];
        int ranks, microbatches;
        int chunks = 1;

        if (sscanf(entry->d_name, "%63[a-z0-9-]_p%d_m%d_c%d.csv", name, &ranks, &microbatches,
                   &chunks) >= 3) {
            assert_golden(entry->d_name, name, ranks, microbatches, chunks);
            found++;
        }
    }
    closedir(folder);
    assert_int_equal(found, 12);
}

static void assert_refused(const char *name, int ranks, int microbatches, const char *const *words)
{
    mhp_schedule_shape shape = {.ranks = ranks, .microbatches = microbatches, .chunks = 1};
    mhp_plan *plan = NULL;

    assert_int_equal(mhp_schedule_generate(name, &shape, &plan), MHP_ERR_PLAN);
    assert_null(plan);
    for (int i = 0; words[i]; i++) {
        if (!strstr(mhp_error_text(), words[i])) {
            fail_msg("\"%s\" lacks \"%s\"", mhp_error_text(), words[i]);
        }
    }
}

static void odd_ranks_are_refused_with_their_neighbours(void **state)
{
    (void)state;
    assert_refused("dualpipe", 3, 12, (const char *[]){"on 3 ranks", "even", "2 and 4", NULL});
    assert_refused("dualpipe", 7, 20, (const char *[]){"on 7 ranks", "even", "6 and 8", NULL});
    assert_refused("dualpipe", 1, 4, (const char *[]){"on 1 ranks", "even", " 2", NULL});
}

static void odd_microbatches_are_refused_with_their_neighbours(void **state)
{
    (void)state;
    assert_refused("dualpipe", 2, 5, (const char *[]){"5 micro-b", "even", "4 and 6", NULL});
    assert_refused("dualpipe", 4, 13, (const char *[]){"13 micro-b", "even", "12 and 14", NULL});
}

static void too_few_microbatches_are_refused_with_the_least(void **state)
{
    (void)state;
    assert_refused("dualpipe", 4, 6, (const char *[]){"6 micro-b", "at least", "8", NULL});
    assert_refused("dualpipe", 4, 7, (const char *[]){"7 micro-b", "at least", "8", NULL});
    assert_refused("dualpipev", 3, 5, (const char *[]){"5 micro-b", "at least", "6", NULL});
    assert_refused("dualpipev", 1, 1, (const char *[]){"1 micro-b", "at least", "2", NULL});
}

static void shapes_without_ranks_or_microbatches_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; mhp_generator_at(i); i++) {
        const char *name = mhp_generator_at(i)->name;

        assert_refused(name, 0, 4, (const char *[]){name, "0 ranks", "at least 1", NULL});
        assert_refused(name, -2, 4, (const char *[]){name, "-2 ranks", "at least 1", NULL});
        assert_refused(name, 2, 0, (const char *[]){name, "0 micro-b", "at least 1", NULL});
    }
}

static void a_size_beyond_the_limits_is_refused(void **state)
{
    mhp_schedule_shape shape = {.ranks = MHP_RANKS_MAX + 1, .microbatches = 4};
    mhp_plan *plan = NULL;

    (void)state;
    assert_int_equal(mhp_schedule_generate("gpipe", &shape, &plan), MHP_ERR_LIMIT);
    assert_null(plan);
    assert_non_null(strstr(mhp_error_text(), "1024"));
    shape = (mhp_schedule_shape){.ranks = 2, .microbatches = MHP_MICROBATCHES_MAX + 2};
    assert_int_equal(mhp_schedule_generate("dualpipe", &shape, &plan), MHP_ERR_LIMIT);
    assert_null(plan);
    assert_non_null(strstr(mhp_error_text(), "65536"));
}

static void an_unknown_name_lists_the_known_ones(void **state)
{
    mhp_schedule_shape shape = {.ranks = 2, .microbatches = 4};
    mhp_plan *plan = NULL;
    size_t count = 0;

    (void)state;
    assert_int_equal(mhp_schedule_generate("pipedream", &shape, &plan), MHP_ERR_NOT_FOUND);
    assert_null(plan);
    assert_non_null(strstr(mhp_error_text(), "pipedream"));
    for (; mhp_generator_at(count); count++) {
        assert_non_null(strstr(mhp_error_text(), mhp_generator_at(count)->name));
        assert_ptr_equal(mhp_generator_find(mhp_generator_at(count)->name),
                         mhp_generator_at(count));
    }
    assert_true(count >= 4);
    assert_null(mhp_generator_find("pipedream"));
    assert_null(mhp_generator_at(SIZE_MAX));
}

/* Halves of F, I and W that a rank runs: 1 for each of them. */
static void add_counts(const mhp_action_list *list, int counts[3])
{
    for (size_t i = 0; i < list->count; i++) {
        mhp_action_kind kind = list->items[i].kind;
        bool pair = kind == MHP_ACTION_OVERLAP_F_B;
        bool both = kind == MHP_ACTION_BACKWARD || pair;

        counts[0] += kind == MHP_ACTION_FORWARD || pair;
        counts[1] += kind == MHP_ACTION_INPUT_GRADIENT || both;
        counts[2] += kind == MHP_ACTION_WEIGHT_GRADIENT || both;
    }
}

static void assert_shares(const mhp_generator *generator, int p, int m, int chunks)
{
    mhp_schedule_shape shape = {.ranks = p, .microbatches = m, .chunks = chunks};
    mhp_plan *plan = generate_chunks(generator->name, p, m, chunks);
    int share = plan->stage_count * m / p;

    assert_string_equal(plan->name, generator->name);
    assert_int_equal(plan->rank_count, p);
    assert_int_equal(plan->stage_count, generator->stage_count(&shape));
    assert_int_equal(plan->microbatch_count, m);
    assert_false(plan->lowered || plan->forward_only);
    assert_int_equal(mhp_plan_validate(plan), MHP_OK);
    for (int r = 0; r < plan->rank_count; r++) {
        int counts[3] = {0};

        add_counts(&plan->ranks[r].actions, counts);
        assert_int_equal(counts[0], share);
        assert_int_equal(counts[1], share);
        assert_int_equal(counts[2], share);
    }
    mhp_plan_destroy(plan);
}

static void every_rank_does_its_share(void **state)
{
    (void)state;
    for (size_t g = 0; mhp_generator_at(g); g++) {
        int suited = 0;

        for (int p = 1; p <= 9; p++) {
            for (int m = 1; m <= 24; m++) {
                for (int chunks = 1; chunks <= 3; chunks++) {
                    if (takes_shape(mhp_generator_at(g)->name, p, m, chunks)) {
                        assert_shares(mhp_generator_at(g), p, m, chunks);
                        suited++;
                    }
                }
            }
        }
        assert_true(suited > 50);
    }
}

/* The most micro-batches between F and the end of their backward on the rank. */
static int most_in_flight(const mhp_action_list *list)
{
    int now = 0;
    int most = 0;

    for (size_t i = 0; i < list->count; i++) {
        mhp_action_kind kind = list->items[i].kind;

        now += kind == MHP_ACTION_FORWARD || kind == MHP_ACTION_OVERLAP_F_B;
        most = now > most ? now : most;
        now -= kind == MHP_ACTION_BACKWARD || kind == MHP_ACTION_INPUT_GRADIENT ||
               kind == MHP_ACTION_OVERLAP_F_B;
    }
    assert_int_equal(now, 0);
    return most;
}

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

static void activations_in_flight_are_those_of_the_schedule(void **state)
{
    (void)state;
    for (int p = 1; p <= 12; p++) {
        for (int m = 1; m <= 30; m++) {
            mhp_plan *gpipe = generate("gpipe", p, m);
            mhp_plan *in_turn = generate("1f1b", p, m);

            for (int r = 0; r < p; r++) {
                assert_int_equal(most_in_flight(&gpipe->ranks[r].actions), m);
                assert_int_equal(most_in_flight(&in_turn->ranks[r].actions), smaller(p - r, m));
            }
            mhp_plan_destroy(gpipe);
            mhp_plan_destroy(in_turn);
        }
    }
}

static void assert_same_list(const mhp_action_list *a, const mhp_action_list *b)
{
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        assert_memory_equal(&a->items[i], &b->items[i], sizeof a->items[i]);
    }
}

static void a_rank_computes_its_own_part(void **state)
{
    (void)state;
    for (size_t g = 0; mhp_generator_at(g); g++) {
        mhp_schedule_shape shape = {.ranks = 4, .microbatches = 12, .chunks = 3};
        const char *name = mhp_generator_at(g)->name;
        mhp_plan *whole = NULL;

        assert_int_equal(mhp_schedule_generate(name, &shape, &whole), MHP_OK);
        for (int r = 0; r < shape.ranks; r++) {
            mhp_plan *own = NULL;

            assert_int_equal(mhp_schedule_generate_rank(name, &shape, r, &own), MHP_OK);
            for (int other = 0; other < shape.ranks; other++) {
                if (other == r) {
                    assert_same_list(&own->ranks[r].actions, &whole->ranks[r].actions);
                } else {
                    assert_int_equal(own->ranks[other].actions.count, 0);
                }
            }
            mhp_plan_destroy(own);
        }
        assert_int_equal(mhp_schedule_generate_rank(name, &shape, shape.ranks, &whole), MHP_ERR_PLAN);
        mhp_plan_destroy(whole);
    }
}

/* The most micro-batches between F and the end of W on the rank. */
static int most_held(const mhp_action_list *list)
{
    int now = 0;
    int most = 0;

    for (size_t i = 0; i < list->count; i++) {
        now += runs_forward(&list->items[i]);
        most = now > most ? now : most;
        now -= runs_weight_gradient(&list->items[i]);
    }
    assert_int_equal(now, 0);
    return most;
}

/* As many as the first rank of 1F1B on every rank, whole models counted: a stage of ZB-V is half as long. */
static void zero_bubble_schedules_hold_as_many_as_ranks(void **state)
{
    (void)state;
    for (int p = 1; p <= 16; p++) {
        for (int m = 1; m <= 3 * p; m++) {
            mhp_plan *h1 = generate("zb-h1", p, m);
            mhp_plan *v = generate("zb-v", p, m);

            for (int r = 0; r < p; r++) {
                assert_int_equal(most_held(&h1->ranks[r].actions), smaller(p, m));
                assert_in_range(most_held(&v->ranks[r].actions), 1, 2 * p);
                assert_in_range(most_in_flight(&v->ranks[r].actions), 1, 2 * p);
                if (m >= 2 * p) {
                    assert_int_equal(most_held(&v->ranks[r].actions), 2 * p);
                }
            }
            mhp_plan_destroy(h1);
            mhp_plan_destroy(v);
        }
    }
}

/* (P-1)(F+B) of GPipe and 1F1B, the chunks' share of it if rounds are as long as there are ranks, (P-1)(F+B-2W) of ZB-H1. */
static void bubbles_are_those_of_the_formulas(void **state)
{
    (void)state;
    for (int p = 1; p <= 16; p++) {
        for (int m = p; m <= 4 * p; m++) {
            mhp_plan *gpipe = generate("gpipe", p, m);
            mhp_plan *in_turn = generate("1f1b", p, m);
            mhp_plan *h1 = generate("zb-h1", p, m);

            assert_int_equal(worst_bubble(gpipe), (p - 1) * 3);
            assert_int_equal(worst_bubble(in_turn), (p - 1) * 3);
            assert_int_equal(worst_bubble(h1), p - 1);
            mhp_plan_destroy(gpipe);
            mhp_plan_destroy(in_turn);
            mhp_plan_destroy(h1);
        }
        for (int chunks = 1; chunks <= 4; chunks++) {
            for (int rounds = 1; rounds <= 3; rounds++) {
                /* A unit is F of one chunk here, so that the rank's F + B is 3 chunks long. */
                mhp_plan *plan = generate_chunks("interleaved", p, rounds * p, chunks);

                assert_int_equal(worst_bubble(plan), (p - 1) * 3);
                mhp_plan_destroy(plan);
            }
        }
    }
}

static void zb_v_has_no_bubble_between_first_and_last_action(void **state)
{
    (void)state;
    for (int p = 1; p <= 16; p++) {
        for (int m = 2 * p; m <= 4 * p; m++) {
            mhp_plan *plan = generate("zb-v", p, m);
            unit_times times = run_in_units(plan);

            for (int r = 0; r < p; r++) {
                assert_int_equal(times.end[r] - times.begin[r], times.busy[r]);
                assert_int_equal(times.begin[r], r);
                assert_int_equal(times.busy[r], 6 * m);
            }
            free_times(&times);
            mhp_plan_destroy(plan);
        }
    }
}

static void crossing_directions_have_the_bubble_of_the_formula(void **state)
{
    (void)state;
    for (int p = 2; p <= 16; p += 2) {
        for (int m = 2 * p; m <= 4 * p; m += 2) {
            mhp_plan *plan = generate("dualpipe", p, m);

            assert_int_equal(worst_bubble(plan), (p / 2 - 1) * (3 + 2 - 3));
            mhp_plan_destroy(plan);
            plan = generate("dualpipev", p / 2, m);
            assert_int_equal(worst_bubble(plan), (p / 2 - 1) * (3 + 2 - 3));
            mhp_plan_destroy(plan);
        }
    }
}

static void uneven_rounds_are_refused_with_their_neighbours(void **state)
{
    (void)state;
    assert_refused("interleaved", 4, 9, (const char *[]){"9 micro-b", "rounds", "8 and 10", NULL});
    assert_refused("interleaved", 4, 13, (const char *[]){"13 micro-b", "rounds", "12 and 15", NULL});
    assert_true(takes_shape("interleaved", 4, 3, 2));
    assert_false(takes_shape("interleaved", 4, 8, 0));
}

static void crossing_directions_hold_one_more_than_ranks(void **state)
{
    (void)state;
    for (int p = 2; p <= 12; p += 2) {
        for (int m = 2 * p; m <= 4 * p; m += 2) {
            mhp_plan *plan = generate("dualpipe", p, m);

            for (int r = 0; r < p; r++) {
                assert_in_range(most_in_flight(&plan->ranks[r].actions), 1, p + 1);
            }
            mhp_plan_destroy(plan);
            plan = generate("dualpipev", p / 2, m);
            for (int r = 0; r < p / 2; r++) {
                assert_in_range(most_in_flight(&plan->ranks[r].actions), 1, p + 1);
            }
            mhp_plan_destroy(plan);
        }
    }
}

static void gpipe_runs_all_forwards_first(void **state)
{
    mhp_plan *plan = generate("gpipe", 3, 5);

    (void)state;
    for (int r = 0; r < 3; r++) {
        const mhp_action_list *list = &plan->ranks[r].actions;

        assert_int_equal(list->count, 10);
        for (int i = 0; i < 10; i++) {
            assert_int_equal(list->items[i].kind, i < 5 ? MHP_ACTION_FORWARD : MHP_ACTION_BACKWARD);
            assert_int_equal(list->items[i].stage, r);
            assert_int_equal(list->items[i].microbatch, i % 5);
        }
    }
    mhp_plan_destroy(plan);
}

/* Every (stage, micro-batch) once, on a rank that holds the stage in `plan`, and nothing else. */
static void assert_forward_only(const mhp_plan *plan, const mhp_plan *forward, int microbatches)
{
    int total = 0;

    assert_true(forward->forward_only);
    assert_int_equal(forward->rank_count, plan->rank_count);
    assert_int_equal(forward->stage_count, plan->stage_count);
    assert_int_equal(forward->microbatch_count, microbatches);
    for (int r = 0; r < forward->rank_count; r++) {
        for (size_t i = 0; i < forward->ranks[r].actions.count; i++) {
            const mhp_action *action = &forward->ranks[r].actions.items[i];
            bool held = false;

            for (int m = 0; m < plan->microbatch_count; m++) {
                held = held || mhp_plan_owner(plan, action->stage, m) == r;
            }
            assert_true(held);
            assert_int_equal(action->kind, MHP_ACTION_FORWARD);
            assert_int_equal(mhp_plan_owner(forward, action->stage, action->microbatch), r);
            total++;
        }
    }
    assert_int_equal(total, plan->stage_count * microbatches);
    assert_int_equal(mhp_plan_validate(forward), MHP_OK);
}

static void forward_only_keeps_the_placement(void **state)
{
    (void)state;
    for (size_t g = 0; mhp_generator_at(g); g++) {
        for (int p = 2; p <= 6; p += 2) {
            mhp_plan *plan = generate(mhp_generator_at(g)->name, p, 2 * p);

            for (int m = 1; m <= 4 * p; m++) {
                mhp_plan *forward = NULL;

                assert_int_equal(mhp_schedule_forward_only(plan, m, &forward), MHP_OK);
                assert_forward_only(plan, forward, m);
                mhp_plan_destroy(forward);
            }
            mhp_plan_destroy(plan);
        }
    }
}

/* With as many micro-batches the owners are the same; with others each end gets its half. */
static void forward_only_deals_microbatches_in_proportion(void **state)
{
    mhp_plan *plan = generate("dualpipe", 4, 8);

    (void)state;
    for (int m = 2; m <= 20; m += 2) {
        mhp_plan *forward = NULL;

        assert_int_equal(mhp_schedule_forward_only(plan, m, &forward), MHP_OK);
        for (int i = 0; i < m; i++) {
            assert_int_equal(mhp_plan_owner(forward, 0, i), i < m / 2 ? 0 : 3);
            assert_int_equal(mhp_plan_owner(forward, 2, i), i < m / 2 ? 2 : 1);
        }
        mhp_plan_destroy(forward);
    }
    mhp_plan_destroy(plan);
}

static void forward_only_refuses_no_microbatches(void **state)
{
    mhp_plan *plan = generate("1f1b", 2, 4);
    mhp_plan *forward = NULL;

    (void)state;
    assert_int_equal(mhp_schedule_forward_only(plan, 0, &forward), MHP_ERR_LIMIT);
    assert_null(forward);
    mhp_plan_destroy(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generated_orders_equal_golden_files),
        cmocka_unit_test(odd_ranks_are_refused_with_their_neighbours),
        cmocka_unit_test(odd_microbatches_are_refused_with_their_neighbours),
        cmocka_unit_test(too_few_microbatches_are_refused_with_the_least),
        cmocka_unit_test(shapes_without_ranks_or_microbatches_are_refused),
        cmocka_unit_test(a_size_beyond_the_limits_is_refused),
        cmocka_unit_test(an_unknown_name_lists_the_known_ones),
        cmocka_unit_test(every_rank_does_its_share),
        cmocka_unit_test(activations_in_flight_are_those_of_the_schedule),
        cmocka_unit_test(zero_bubble_schedules_hold_as_many_as_ranks),
        cmocka_unit_test(bubbles_are_those_of_the_formulas),
        cmocka_unit_test(zb_v_has_no_bubble_between_first_and_last_action),
        cmocka_unit_test(crossing_directions_have_the_bubble_of_the_formula),
        cmocka_unit_test(uneven_rounds_are_refused_with_their_neighbours),
        cmocka_unit_test(crossing_directions_hold_one_more_than_ranks),
        cmocka_unit_test(gpipe_runs_all_forwards_first),
        cmocka_unit_test(a_rank_computes_its_own_part),
        cmocka_unit_test(forward_only_keeps_the_placement),
        cmocka_unit_test(forward_only_deals_microbatches_in_proportion),
        cmocka_unit_test(forward_only_refuses_no_microbatches),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
