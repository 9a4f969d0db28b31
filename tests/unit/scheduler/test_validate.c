/* The validator against a judge: a step-by-step execution that knows nothing of the validator's
 * index. Lowered plans pass both; of plans with one random change each accepts what the other does.
 */
#include "core/random.h"
#include "tests/unit/scheduler/judge.h"

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

/* Numbers of one seed, in turn. */
typedef struct dice {
    uint64_t seed, index;
} dice;

static size_t roll(dice *d, size_t count)
{
    return (size_t)(mhp_random_u64(d->seed, 0, d->index++) % count);
}

static mhp_action take_out(mhp_action_list *list, size_t place)
{
    mhp_action action = list->items[place];

    memmove(&list->items[place], &list->items[place + 1],
            (--list->count - place) * sizeof action);
    return action;
}

static void put_in(mhp_plan *plan, int rank, size_t place, mhp_action action)
{
    mhp_action_list *list = &plan->ranks[rank].actions;

    assert_int_equal(mhp_plan_append(plan, rank, action), MHP_OK);
    memmove(&list->items[place + 1], &list->items[place],
            (list->count - 1 - place) * sizeof action);
    list->items[place] = action;
}

typedef enum change { CHANGE_SWAP, CHANGE_DROP, CHANGE_DUPLICATE, CHANGE_MOVE, CHANGE_AWAY,
                      CHANGE_COUNT } change;

static void mutate(mhp_plan *plan, change kind, dice *d)
{
    int rank = (int)roll(d, (size_t)plan->rank_count);
    int other = (int)roll(d, (size_t)plan->rank_count);
    mhp_action_list *list = &plan->ranks[rank].actions;
    size_t a = roll(d, list->count);
    size_t b = roll(d, list->count - 1);
    mhp_action action = list->items[a];

    switch (kind) {
    case CHANGE_SWAP:
        b += b >= a;
        list->items[a] = list->items[b];
        list->items[b] = action;
        break;
    case CHANGE_DROP:
        take_out(list, a);
        break;
    case CHANGE_DUPLICATE:
        put_in(plan, rank, b, action);
        break;
    case CHANGE_MOVE:
        put_in(plan, rank, b, take_out(list, a));
        break;
    default:
        take_out(list, a);
        put_in(plan, other, roll(d, plan->ranks[other].actions.count), action);
        break;
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

static void assert_mutants_judged_alike(const char *name, int ranks, int microbatches,
                                        bool forward_only, bool rebuild, int count)
{
    int verdicts[2] = {0};

    for (int i = 0; i < count; i++) {
        dice d = {.seed = (uint64_t)i, .index = 0};
        mhp_plan *plan = lowered(name, ranks, microbatches, forward_only, rebuild);
        change kind = (change)(i % CHANGE_COUNT);
        const char *wrong;
        mhp_status status;

        mutate(plan, kind, &d);
        wrong = judge(plan);
        status = mhp_plan_validate(plan);
        if ((status == MHP_OK) != (wrong == NULL)) {
            fail_msg("%s, %d ranks, %d micro-batches, change %d, seed %d: judge %s, validator %s",
                     name, ranks, microbatches, (int)kind, i, wrong ? wrong : "accepts",
                     status == MHP_OK ? "accepts" : mhp_error_text());
        }
        if (status != MHP_OK) {
            assert_int_equal(status, MHP_ERR_PLAN);
            assert_names_a_place(plan);
        }
        verdicts[status == MHP_OK]++;
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
    assert_refused("0F0,0B0,0W0\n", "rank 0, position 2, 0W0", "done already at position 1");
    assert_refused("0F0\n0B0\n", "rank 1, position 0, 0B0", "belongs to rank 0");
    assert_refused("1F0,0F1\n1F1,0F0\n", "rank 0, position 0, 1F0", "deadlock");
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
        cmocka_unit_test(wrong_compute_orders_are_named),
        cmocka_unit_test(wrong_messages_are_named),
        cmocka_unit_test(the_neighbourhood_is_shown),
        cmocka_unit_test(a_send_behind_the_next_use_of_its_slot_is_a_deadlock),
        cmocka_unit_test(shared_slots_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
