/* The validator against a judge: a step-by-step execution that knows nothing of the validator's
 * index. Lowered plans pass both; of plans with one random change each accepts what the other does.
 */
#include "scheduler/execute.h"
#include "tests/unit/scheduler/judge.h"
#include "tests/unit/scheduler/random_order.h"

/* With an R for every gradient if that is asked for. */
static mhp_plan *lowered(const char *name, int ranks, int microbatches, bool forward_only,
                         bool rebuild)
{
    mhp_plan *plan = generate_either(name, ranks, microbatches, forward_only);
    mhp_lower_params params = {.rebuild = rebuild};

    lower_plan(plan, &params);
    return plan;
}

static void every_lowered_plan_is_accepted(void **state)
{
    (void)state;
    for (size_t g = 0; mhp_generator_at(g); g++) {
        const char *name = mhp_generator_at(g)->name;

        for (int p = 1; p <= RANKS; p++) {
            for (int m = 1; m <= 2 * p + 6; m++) {
                for (int variant = 0; variant < 3 && takes_shape(name, p, m, 2); variant++) {
                    mhp_plan *plan = lowered(name, p, m, variant == 1, variant == 2);
                    const char *wrong = judge(plan);

                    if (wrong || mhp_plan_validate(plan) != MHP_OK) {
                        fail_msg("%s, %d ranks, %d micro-batches: %s", name, p, m,
                                 wrong ? wrong : mhp_error_text());
                    }
                    mhp_plan_destroy(plan);
                }
            }
        }
    }
}

/* The text names a rank and a place that exist and marks the cell, unless it is the list's end. */
static void assert_names_a_place(const mhp_plan *plan)
{
    const char *place = strstr(mhp_error_text(), ": rank ");
    int rank = -1;
    size_t position = 0;

    assert_non_null(place);
    assert_int_equal(sscanf(place, ": rank %d, position %zu, ", &rank, &position), 2);
    assert_in_range(rank, 0, plan->rank_count - 1);
    assert_in_range(position, 0, plan->ranks[rank].actions.count);
    if (position < plan->ranks[rank].actions.count) {
        char cell[128];

        mhp_action_format(&plan->ranks[rank].actions.items[position], cell + 2, sizeof cell - 4);
        memcpy(cell, ">>", 2);
        strcat(cell, "<<");
        assert_non_null(strstr(mhp_error_text(), cell));
    } else {
        assert_non_null(strstr(mhp_error_text(), ", end: "));
    }
}

/* Validator and judge say the same of a lowered plan; whether they accept it. */
static bool judged_alike(const mhp_plan *plan, const char *what)
{
    const char *wrong = judge(plan);
    mhp_status status = mhp_plan_validate(plan);

    if ((status == MHP_OK) != (wrong == NULL)) {
        fail_msg("%s of %s: judge %s, validator %s", what, plan->name, wrong ? wrong : "accepts",
                 status == MHP_OK ? "accepts" : mhp_error_text());
    }
    if (status != MHP_OK) {
        assert_int_equal(status, MHP_ERR_PLAN);
        assert_names_a_place(plan);
    }
    return status == MHP_OK;
}

static void assert_mutants_judged_alike(const char *name, int ranks, int microbatches,
                                        bool forward_only, bool rebuild, int count)
{
    int verdicts[2] = {0};

    for (int i = 0; i < count; i++) {
        dice d = {.seed = (uint64_t)i, .index = 0};
        mhp_plan *plan = lowered(name, ranks, microbatches, forward_only, rebuild);
        char what[64];

        snprintf(what, sizeof what, "change %d, seed %d", i % CHANGE_COUNT, i);
        mutate(plan, (change)(i % CHANGE_COUNT), &d);
        verdicts[judged_alike(plan, what)]++;
        mhp_plan_destroy(plan);
    }
    assert_true(verdicts[0] > count / 2);
    assert_true(verdicts[1] > 0);
}

static void changed_plans_are_refused_or_still_right(void **state)
{
    (void)state;
    for (size_t g = 0; mhp_generator_at(g); g++) {
        const char *name = mhp_generator_at(g)->name;

        assert_mutants_judged_alike(name, 2, 4, false, false, 1000);
        assert_mutants_judged_alike(name, 4, 10, false, false, 2000);
        assert_mutants_judged_alike(name, 4, 8, false, true, 1000);
        assert_mutants_judged_alike(name, 4, 8, true, false, 500);
    }
}

/* In units, with the rendezvous and slots of the lowered plan. */
static int executed_makespan(const mhp_plan *plan)
{
    mhp_plan_index index;
    mhp_execution execution;
    int makespan;

    assert_int_equal(mhp_plan_index_create(plan, &index), MHP_OK);
    assert_int_equal(mhp_plan_execute(plan, &index, plan->lowered, &execution), MHP_OK);
    assert_true(execution.finished);
    makespan = execution.makespan;
    mhp_execution_destroy(plan, &execution);
    mhp_plan_index_destroy(&index);
    return makespan;
}

/* Lowering costs no time: nobody waits for a slot or for a receive. Moving W forward costs none. */
static void random_legal_orders_are_accepted_and_run(void **state)
{
    (void)state;
    for (int seed = 0; seed < 4000; seed++) {
        mhp_plan *plan = random_order((uint64_t)seed, RANKS);
        mhp_lower_params params = {
            .rebuild = seed % 3 == 0,
            .weight_gradients = seed % 2 ? MHP_WEIGHTS_SHALLOW : MHP_WEIGHTS_DEEP};
        int makespan = makespan_of(plan);
        const char *wrong;

        assert_int_equal(executed_makespan(plan), makespan);
        if (mhp_plan_validate(plan) != MHP_OK || mhp_plan_lower(plan, &params) != MHP_OK) {
            fail_msg("seed %d: %s", seed, mhp_error_text());
        }
        wrong = judge(plan);
        if (wrong) {
            fail_msg("seed %d: %s", seed, wrong);
        }
        if (params.weight_gradients == MHP_WEIGHTS_DEEP) {
            assert_int_equal(executed_makespan(plan), makespan);
        } else {
            assert_in_range(executed_makespan(plan), 1, makespan);
        }
        mhp_plan_destroy(plan);
    }
}

static void changed_random_plans_are_refused_or_still_right(void **state)
{
    int verdicts[2] = {0};

    (void)state;
    for (int seed = 0; seed < 10000; seed++) {
        dice d = {.seed = (uint64_t)seed, .index = 1000000};
        mhp_plan *plan = random_order((uint64_t)seed, RANKS);
        mhp_lower_params params = {.rebuild = seed % 3 == 0};
        char what[64];

        lower_plan(plan, &params);
        snprintf(what, sizeof what, "change %d", seed % CHANGE_COUNT);
        mutate(plan, (change)(seed % CHANGE_COUNT), &d);
        verdicts[judged_alike(plan, what)]++;
        mhp_plan_destroy(plan);
    }
    assert_true(verdicts[0] > 2000 && verdicts[1] > 500);
}

/* A lowered file has its messages where they are, and is lowered again as it is. */
static void random_plans_survive_a_file(void **state)
{
    (void)state;
    for (int seed = 0; seed < 500; seed++) {
        mhp_plan *plan = random_order((uint64_t)seed, RANKS);
        mhp_plan *again = NULL;
        char *text = NULL;
        size_t size = 0;
        FILE *stream = open_memstream(&text, &size);

        lower_plan(plan, NULL);
        assert_int_equal(mhp_plan_write_csv(plan, stream), MHP_OK);
        assert_int_equal(fclose(stream), 0);
        again = parse_csv(text);
        lower_plan(again, NULL);
        assert_null(judge(again));
        for (int r = 0; r < plan->rank_count; r++) {
            assert_int_equal(plan->ranks[r].actions.count, again->ranks[r].actions.count);
            assert_memory_equal(plan->ranks[r].actions.items, again->ranks[r].actions.items,
                                plan->ranks[r].actions.count * sizeof(mhp_action));
        }
        free(text);
        mhp_plan_destroy(plan);
        mhp_plan_destroy(again);
    }
}

/* Whether every rank can run its list to the end: one action after another, each when what it
 * needs has been done, nothing twice, nothing left out, nothing on a rank that does not own it. */
static bool order_runs(const mhp_plan *plan)
{
    static order o;
    size_t next[RANKS] = {0};
    size_t done = 0, expected = 0, total = 0;
    bool moved = true;

    memset(&o, 0, sizeof o);
    o.plan = (mhp_plan *)plan;
    while (moved) {
        moved = false;
        for (int r = 0; r < plan->rank_count; r++) {
            const mhp_action_list *list = &plan->ranks[r].actions;
            const mhp_action *action = &list->items[next[r]];
            int s, m;

            if (next[r] == list->count) {
                continue;
            }
            backward_cell(action, &s, &m);
            if ((runs_forward(action) && !forward_is_ready(&o, action->stage, action->microbatch)) ||
                (runs_input_gradient(action) && !gradient_is_ready(&o, s, m)) ||
                (action->kind == MHP_ACTION_WEIGHT_GRADIENT && !weight_is_ready(&o, s, m)) ||
                mhp_plan_owner(plan, action->stage, action->microbatch) != r ||
                mhp_plan_owner(plan, s, m) != r) {
                continue;
            }
            o.forward[action->stage][action->microbatch] |= runs_forward(action);
            o.gradient[s][m] |= runs_input_gradient(action);
            o.weight[s][m] |= runs_weight_gradient(action);
            done += (size_t)units_of(action);
            next[r]++;
            moved = true;
        }
    }
    for (int r = 0; r < plan->rank_count; r++) {
        total += plan->ranks[r].actions.count - next[r];
    }
    expected = 3 * (size_t)plan->stage_count * (size_t)plan->microbatch_count;
    return total == 0 && done == expected;
}

/* What the validator accepts of changed compute orders runs, also after lowering; what it refuses
 * does not run. */
static void changed_compute_orders_are_refused_or_run(void **state)
{
    int verdicts[2] = {0};

    (void)state;
    for (int seed = 0; seed < 10000; seed++) {
        dice d = {.seed = (uint64_t)seed, .index = 1000000};
        mhp_plan *plan = random_order((uint64_t)seed, RANKS);
        mhp_status status;

        mutate(plan, (change)(seed % CHANGE_COUNT), &d);
        status = mhp_plan_validate(plan);
        if ((status == MHP_OK) != order_runs(plan)) {
            fail_msg("seed %d: it %s, validator %s", seed, order_runs(plan) ? "runs" : "does not run",
                     status == MHP_OK ? "accepts" : mhp_error_text());
        }
        if (status == MHP_OK) {
            lower_plan(plan, NULL);
            assert_null(judge(plan));
        } else {
            assert_names_a_place(plan);
        }
        verdicts[status == MHP_OK]++;
        mhp_plan_destroy(plan);
    }
    assert_true(verdicts[0] > 2000 && verdicts[1] > 500);
}

static void assert_refused(const char *text, const char *place, const char *reason)
{
    mhp_plan *plan = NULL;

    assert_int_equal(mhp_plan_parse_csv("some.csv", text, strlen(text), &plan), MHP_OK);
    assert_int_equal(mhp_plan_validate(plan), MHP_ERR_PLAN);
    assert_names_a_place(plan);
    if (!strstr(mhp_error_text(), place) || !strstr(mhp_error_text(), reason)) {
        fail_msg("\"%s\" lacks \"%s\" or \"%s\"", mhp_error_text(), place, reason);
    }
    mhp_plan_destroy(plan);
}

static void wrong_compute_orders_are_named(void **state)
{
    (void)state;
    assert_refused("0F0,0B0,0F1\n", "rank 0, position 3, end", "0I or B1 is missing");
    assert_refused("0F0,0I0\n", "rank 0, position 2, end", "0W or B0 is missing");
    assert_refused("0F0,0B0,0B1\n", "rank 0, position 2, 0B1", "belongs to nobody");
    assert_refused("0B0,0F0\n", "rank 0, position 0, 0B0", "stands before 0F0");
    assert_refused("0F0,0W0,0I0\n", "rank 0, position 1, 0W0", "stands before 0I0");
    assert_refused("0F0,0F0,0B0\n", "rank 0, position 1, 0F0", "done already at position 0");
    assert_refused("0F0,0I0,0W0,0W0\n", "rank 0, position 3, 0W0", "done already at position 2");
    assert_refused("0F0,0I0,0B0\n", "rank 0, position 2, 0B0", "done already at position 1");
    assert_refused("0F0,0B0\n0F0,0B0\n", "rank 1, position 0, 0F0", "reverse direction");
    assert_refused("0F0\n0B0\n", "rank 1, position 0, 0B0", "belongs to rank 0");
    assert_refused("1F0,0F1\n1F1,0F0\n", "rank 0, position 0, 1F0", "deadlock");
    assert_refused("1F0,0F1\n1F1,0F0\n", "waits for 0F0 of rank 1, position 1, which waits for 0F1",
                   "rank 0: >>1F0<< 0F1\n    rank 1: >>1F1<< 0F0");
    assert_refused("0F0,0R0,0B0,0F1,0B1\n", "rank 0, position 4, 0B1", "0R1 is missing");
    assert_refused("0F0,0B0,0R0\n", "rank 0, position 2, 0R0", "stands behind 0I0");
    assert_refused("0R0,0F0,0B0\n", "rank 0, position 0, 0R0", "stands before 0F0");
    assert_refused("0F0,0R0,0R0,0B0\n", "rank 0, position 2, 0R0", "done already");
    assert_refused("(0F0;0B0)OVERLAP_F_B\n", "rank 0, position 0, (0F0;0B0)", "stands before");
}

static void wrong_messages_are_named(void **state)
{
    (void)state;
    assert_refused("0F0,0SEND_F0\n1F0\n", "rank 1, position 1, end", "1RECV_F0 is missing");
    assert_refused("0F0\n1RECV_F0,1F0\n", "rank 0, position 1, end", "0SEND_F0 is missing");
    assert_refused("0SEND_F0,0F0\n1RECV_F0,1F0\n", "rank 0, position 0", "made at position 1");
    assert_refused("0F0,0SEND_F0\n1F0,1RECV_F0\n", "rank 1, position 1", "needed at position 0");
    assert_refused("0F0,0SEND_F0,1F0,1RECV_F0\n", "rank 0, position 1", "expected no message");
    assert_refused("0F0,0SEND_F0\n", "rank 0, position 1, 0SEND_F0", "no stage 1");
    assert_refused("0RECV_F0,0F0\n", "rank 0, position 0, 0RECV_F0", "no stage -1");
    assert_refused("0F0,0B0,0SEND_B0\n", "rank 0, position 2, 0SEND_B0", "no stage -1");
    assert_refused("0F0,0RECV_B0,0B0\n", "rank 0, position 1, 0RECV_B0", "no stage 1");
    assert_refused("0F0,0SEND_F0,0F1,0SEND_F1\n1RECV_F1,1RECV_F0,1F0,1F1\n",
                   "rank 1, position 0, 1RECV_F1", "rank 0 sends 0");
}

/* The last cell of a long row: what is far away is left out of the text, what is near is shown. */
static void the_neighbourhood_is_shown(void **state)
{
    (void)state;
    assert_refused("0F0,0F1,0F2,0F3,0B0,0B0,0B1,0B2,0B3\n", "rank 0, position 5, 0B0",
                   "rank 0: .. 0F2 0F3 0B0 >>0B0<< 0B1 0B2 0B3");
}

/* F2 needs the slot of F0, whose send stands behind it: nothing else can make room. */
static void a_send_behind_the_next_use_of_its_slot_is_a_deadlock(void **state)
{
    mhp_plan *plan = lowered("gpipe", 2, 4, true, false);
    mhp_action_list *list = &plan->ranks[0].actions;

    (void)state;
    /* F0 SEND0 F1 SEND1 F2 ... becomes F0 F1 F2 SEND0 SEND1 ...: the channel keeps its order. */
    put_in(plan, 0, 4, take_out(list, 1));
    put_in(plan, 0, 4, take_out(list, 2));
    for (int i = 0; i < 5; i++) {
        assert_int_equal(list->items[i].kind, i < 3 ? MHP_ACTION_FORWARD : MHP_ACTION_SEND_F);
        assert_int_equal(list->items[i].microbatch, i % 3);
    }
    assert_string_equal(judge(plan), "a rank waits for ever");
    assert_int_equal(mhp_plan_validate(plan), MHP_ERR_PLAN);
    assert_non_null(strstr(mhp_error_text(), "rank 0, position"));
    mhp_plan_destroy(plan);
}

static void shared_slots_are_refused(void **state)
{
    static const mhp_slot_class classes[] = {MHP_SLOT_INPUT, MHP_SLOT_ACTIVATION,
                                             MHP_SLOT_PRODUCT_INPUT};

    (void)state;
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        mhp_plan *plan = lowered("gpipe", 2, 4, false, false);
        int *slot = plan->ranks[1].stages[0].slot[classes[i]];

        slot[3] = slot[2];
        assert_non_null(judge(plan));
        assert_int_equal(mhp_plan_validate(plan), MHP_ERR_PLAN);
        assert_non_null(strstr(mhp_error_text(), "rank 1, position"));
        assert_non_null(strstr(mhp_error_text(), "still used by micro-batch 2 of stage 1"));
        slot[3] = plan->ranks[1].stages[0].count[classes[i]];
        assert_int_equal(mhp_plan_validate(plan), MHP_ERR_PLAN);
        assert_non_null(strstr(mhp_error_text(), "expected less than"));
        mhp_plan_destroy(plan);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_lowered_plan_is_accepted),
        cmocka_unit_test(changed_plans_are_refused_or_still_right),
        cmocka_unit_test(random_legal_orders_are_accepted_and_run),
        cmocka_unit_test(changed_random_plans_are_refused_or_still_right),
        cmocka_unit_test(changed_compute_orders_are_refused_or_run),
        cmocka_unit_test(random_plans_survive_a_file),
        cmocka_unit_test(wrong_compute_orders_are_named),
        cmocka_unit_test(wrong_messages_are_named),
        cmocka_unit_test(the_neighbourhood_is_shown),
        cmocka_unit_test(a_send_behind_the_next_use_of_its_slot_is_a_deadlock),
        cmocka_unit_test(shared_slots_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
