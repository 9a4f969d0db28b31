/* Lowering, checked edge by edge and slot by slot with code of its own: nothing here asks the index
 * or the validator what is right. */
#include "tests/unit/scheduler/support.h"

enum { STAGES = 16, MICROBATCHES = 32, NOBODY = -1 };

/* Calls `check` with each plan before and after lowering: schedules x sizes x training or not. */
static void sweep(void (*check)(const mhp_plan *compute, const mhp_plan *lowered))
{
    for (size_t g = 0; mhp_generator_at(g); g++) {
        const char *name = mhp_generator_at(g)->name;

        for (int p = 1; p <= 8; p++) {
            for (int m = 1; m <= 2 * p + 6; m++) {
                for (int either = 0; either < 2 && takes_shape(name, p, m, 2); either++) {
                    mhp_plan *compute = generate_either(name, p, m, either);
                    mhp_plan *lowered = generate_either(name, p, m, either);

                    lower_plan(lowered, NULL);
                    check(compute, lowered);
                    mhp_plan_destroy(compute);
                    mhp_plan_destroy(lowered);
                }
            }
        }
    }
}

/* The place of the only such action on the rank, -1 if there is none. */
static int place_of(const mhp_plan *plan, int rank, mhp_action_kind kind, int stage, int microbatch)
{
    const mhp_action_list *list = &plan->ranks[rank].actions;
    int place = -1;

    for (size_t i = 0; i < list->count; i++) {
        const mhp_action *action = &list->items[i];

        if (action->kind == kind && action->stage == stage && action->microbatch == microbatch) {
            assert_int_equal(place, -1);
            place = (int)i;
        }
    }
    return place;
}

/* Where the rank runs F (or I) of the stage and micro-batch. */
static int place_of_compute(const mhp_plan *plan, int rank, bool forward, int stage, int m)
{
    const mhp_action_list *list = &plan->ranks[rank].actions;

    for (size_t i = 0; i < list->count; i++) {
        const mhp_action *action = &list->items[i];
        bool pair = is_pair(action);
        bool first = action->stage == stage && action->microbatch == m;
        bool second = action->backward_stage == stage && action->backward_microbatch == m;

        if (forward ? first && (action->kind == MHP_ACTION_FORWARD || pair)
                    : (first && (action->kind == MHP_ACTION_BACKWARD ||
                                 action->kind == MHP_ACTION_INPUT_GRADIENT)) ||
                          (second && pair)) {
            return (int)i;
        }
    }
    fail_msg("rank %d does not run stage %d of micro-batch %d", rank, stage, m);
    return -1;
}

static void assert_compute_order_kept(const mhp_plan *compute, const mhp_plan *lowered)
{
    for (int r = 0; r < compute->rank_count; r++) {
        const mhp_action_list *list = &lowered->ranks[r].actions;
        size_t next = 0;

        for (size_t i = 0; i < list->count; i++) {
            if (is_compute(&list->items[i])) {
                assert_true(next < compute->ranks[r].actions.count);
                assert_memory_equal(&list->items[i], &compute->ranks[r].actions.items[next++],
                                    sizeof list->items[i]);
            }
        }
        assert_int_equal(next, compute->ranks[r].actions.count);
    }
}

static void lowering_keeps_the_compute_order(void **state)
{
    (void)state;
    sweep(assert_compute_order_kept);
}

/* One edge of the pipeline for one micro-batch; the number of messages that it has. */
static int assert_edge(const mhp_plan *plan, int source, int target, int m)
{
    bool forward = target > source;
    mhp_action_kind send = forward ? MHP_ACTION_SEND_F : MHP_ACTION_SEND_B;
    mhp_action_kind receive = forward ? MHP_ACTION_RECV_F : MHP_ACTION_RECV_B;
    int from = mhp_plan_owner(plan, source, m);
    int to = mhp_plan_owner(plan, target, m);
    int sent = place_of(plan, from, send, source, m);
    int received = place_of(plan, to, receive, target, m);

    if (from == to) {
        assert_int_equal(sent, -1);
        assert_int_equal(received, -1);
        return 0;
    }
    assert_true(sent > place_of_compute(plan, from, forward, source, m));
    assert_in_range(received, 0, place_of_compute(plan, to, forward, target, m) - 1);
    return 2;
}

static void assert_messages(const mhp_plan *compute, const mhp_plan *plan)
{
    int expected = 0;
    int found = 0;

    (void)compute;
    for (int m = 0; m < plan->microbatch_count; m++) {
        for (int s = 0; s + 1 < plan->stage_count; s++) {
            expected += assert_edge(plan, s, s + 1, m);
            expected += plan->forward_only ? 0 : assert_edge(plan, s + 1, s, m);
        }
    }
    for (int r = 0; r < plan->rank_count; r++) {
        for (size_t i = 0; i < plan->ranks[r].actions.count; i++) {
            mhp_action_kind kind = plan->ranks[r].actions.items[i].kind;

            found += kind >= MHP_ACTION_SEND_F && kind <= MHP_ACTION_RECV_B;
        }
    }
    assert_int_equal(found, expected);
}

static void every_crossing_edge_has_one_message_and_no_other_has(void **state)
{
    (void)state;
    sweep(assert_messages);
}

/* Sends of one stage to one rank, against the receives there: the same micro-batches in turn. */
static void assert_channel(const mhp_plan *plan, int source, int target, int from, int to)
{
    const mhp_action_list *sends = &plan->ranks[from].actions;
    const mhp_action_list *receives = &plan->ranks[to].actions;
    bool forward = target > source;
    size_t j = 0;

    for (size_t i = 0; i < sends->count; i++) {
        const mhp_action *send = &sends->items[i];

        if (send->kind != (forward ? MHP_ACTION_SEND_F : MHP_ACTION_SEND_B) ||
            send->stage != source || mhp_plan_owner(plan, target, send->microbatch) != to) {
            continue;
        }
        for (; j < receives->count; j++) {
            const mhp_action *receive = &receives->items[j];

            if (receive->kind == (forward ? MHP_ACTION_RECV_F : MHP_ACTION_RECV_B) &&
                receive->stage == target &&
                mhp_plan_owner(plan, source, receive->microbatch) == from) {
                break;
            }
        }
        assert_true(j < receives->count);
        assert_int_equal(receives->items[j++].microbatch, send->microbatch);
    }
}

static void assert_channels(const mhp_plan *compute, const mhp_plan *plan)
{
    (void)compute;
    for (int s = 0; s + 1 < plan->stage_count; s++) {
        for (int from = 0; from < plan->rank_count; from++) {
            for (int to = 0; to < plan->rank_count; to++) {
                if (from != to) {
                    assert_channel(plan, s, s + 1, from, to);
                    assert_channel(plan, s + 1, s, from, to);
                }
            }
        }
    }
}

static void both_ends_of_a_channel_have_one_order(void **state)
{
    (void)state;
    sweep(assert_channels);
}

/* A compute action stands between a receive and its use, unless the list begins there. */
static void assert_receives_ahead(const mhp_plan *compute, const mhp_plan *plan)
{
    for (int r = 0; r < plan->rank_count; r++) {
        const mhp_action_list *list = &plan->ranks[r].actions;
        int computed = 0;

        for (size_t i = 0; i < list->count; i++) {
            const mhp_action *action = &list->items[i];
            bool forward = action->kind == MHP_ACTION_RECV_F;

            computed += is_compute(action);
            if (forward || action->kind == MHP_ACTION_RECV_B) {
                int use =
                    place_of_compute(compute, r, forward, action->stage, action->microbatch);

                assert_true(computed == 0 || computed < use);
            }
        }
    }
}

static void receives_stand_ahead_of_their_use(void **state)
{
    (void)state;
    sweep(assert_receives_ahead);
}

static int weight_gradient_stage(const mhp_action *action)
{
    if (is_pair(action)) {
        return action->backward_stage;
    }
    return action->kind == MHP_ACTION_BACKWARD || action->kind == MHP_ACTION_WEIGHT_GRADIENT
               ? action->stage
               : NOBODY;
}

static void assert_reductions(const mhp_plan *compute, const mhp_plan *plan)
{
    (void)compute;
    for (int r = 0; r < plan->rank_count; r++) {
        const mhp_action_list *list = &plan->ranks[r].actions;
        int last[STAGES];
        int held = 0;
        int found = 0;

        memset(last, 0xff, sizeof last);
        for (size_t i = 0; i < list->count; i++) {
            int stage = weight_gradient_stage(&list->items[i]);

            if (stage != NOBODY) {
                held += last[stage] < 0;
                last[stage] = (int)i;
            }
        }
        for (size_t i = 0; i < list->count; i++) {
            if (list->items[i].kind == MHP_ACTION_REDUCE_GRAD) {
                assert_int_equal(last[list->items[i].stage], (int)i - 1);
                found++;
            }
        }
        assert_int_equal(found, held);
        assert_int_equal(found, plan->forward_only ? 0 : plan->ranks[r].stage_count);
    }
}

static void reductions_follow_the_last_weight_gradient(void **state)
{
    (void)state;
    sweep(assert_reductions);
}

/* Who has which slot while a rank's list is walked, and how many a class ever needs at once. */
typedef struct occupancy {
    const mhp_plan *plan;
    int rank;
    int holder[STAGES][MHP_SLOT_CLASS_COUNT][MICROBATCHES];
    int now[STAGES][MHP_SLOT_CLASS_COUNT], most[STAGES][MHP_SLOT_CLASS_COUNT];
} occupancy;

static int *slot_of(occupancy *o, mhp_slot_class class, int s, int m)
{
    const mhp_stage_slots *slots = mhp_plan_stage_slots(o->plan, o->rank, s);

    assert_non_null(slots);
    assert_in_range(slots->slot[class][m], 0, slots->count[class] - 1);
    return &o->holder[s][class][slots->slot[class][m]];
}

static void take(occupancy *o, mhp_slot_class class, int s, int m)
{
    int *holder = slot_of(o, class, s, m);

    if (*holder != NOBODY) {
        fail_msg("rank %d, stage %d, class %d: micro-batch %d takes the slot of %d", o->rank, s,
                 (int)class, m, *holder);
    }
    *holder = m;
    o->now[s][class]++;
    o->most[s][class] =
        o->now[s][class] > o->most[s][class] ? o->now[s][class] : o->most[s][class];
}

static void release(occupancy *o, mhp_slot_class class, int s, int m)
{
    int *holder = slot_of(o, class, s, m);

    assert_int_equal(*holder, m);
    *holder = NOBODY;
    o->now[s][class]--;
}

static bool is_here(const occupancy *o, int s, int m)
{
    return s >= 0 && s < o->plan->stage_count && mhp_plan_owner(o->plan, s, m) == o->rank;
}

static void begin_forward(occupancy *o, int s, int m)
{
    if (is_here(o, s + 1, m)) {
        take(o, MHP_SLOT_INPUT, s + 1, m);
    }
    take(o, MHP_SLOT_ACTIVATION, s, m);
    take(o, MHP_SLOT_PRODUCT_INPUT, s, m);
}

static void end_forward(occupancy *o, int s, int m)
{
    if (s > 0) {
        assert_int_equal(*slot_of(o, MHP_SLOT_INPUT, s, m), m);
    }
    if (o->plan->forward_only) {
        if (s > 0) {
            release(o, MHP_SLOT_INPUT, s, m);
        }
        release(o, MHP_SLOT_ACTIVATION, s, m);
        release(o, MHP_SLOT_PRODUCT_INPUT, s, m);
    }
}

static void begin_input_gradient(occupancy *o, int s, int m)
{
    take(o, MHP_SLOT_PRODUCT_GRADIENT, s, m);
    if (is_here(o, s - 1, m)) {
        take(o, MHP_SLOT_GRADIENT_INPUT, s - 1, m);
    }
}

static void end_input_gradient(occupancy *o, int s, int m)
{
    release(o, MHP_SLOT_ACTIVATION, s, m);
    if (s > 0) {
        release(o, MHP_SLOT_INPUT, s, m);
    }
    if (s + 1 < o->plan->stage_count) {
        release(o, MHP_SLOT_GRADIENT_INPUT, s, m);
    }
}

static void end_weight_gradient(occupancy *o, int s, int m)
{
    release(o, MHP_SLOT_PRODUCT_INPUT, s, m);
    release(o, MHP_SLOT_PRODUCT_GRADIENT, s, m);
}

/* All that an action writes is taken before anything that it reads is given back. */
static void walk(occupancy *o, const mhp_action *action)
{
    bool pair = is_pair(action);
    bool forward = pair || action->kind == MHP_ACTION_FORWARD;
    bool both = pair || action->kind == MHP_ACTION_BACKWARD;
    bool gradient = both || action->kind == MHP_ACTION_INPUT_GRADIENT;
    bool weight = both || action->kind == MHP_ACTION_WEIGHT_GRADIENT;
    int s = pair ? action->backward_stage : action->stage;
    int m = pair ? action->backward_microbatch : action->microbatch;

    if (action->kind == MHP_ACTION_RECV_F) {
        take(o, MHP_SLOT_INPUT, s, m);
    } else if (action->kind == MHP_ACTION_RECV_B) {
        take(o, MHP_SLOT_GRADIENT_INPUT, s, m);
    }
    if (forward) {
        begin_forward(o, action->stage, action->microbatch);
    }
    if (gradient) {
        begin_input_gradient(o, s, m);
    }
    if (forward) {
        end_forward(o, action->stage, action->microbatch);
    }
    if (gradient) {
        end_input_gradient(o, s, m);
    }
    if (weight) {
        end_weight_gradient(o, s, m);
    }
}

static void assert_slots(const mhp_plan *compute, const mhp_plan *plan)
{
    static occupancy o;

    (void)compute;
    for (int r = 0; r < plan->rank_count; r++) {
        memset(&o, 0, sizeof o);
        memset(o.holder, 0xff, sizeof o.holder);
        o.plan = plan;
        o.rank = r;
        for (size_t i = 0; i < plan->ranks[r].actions.count; i++) {
            walk(&o, &plan->ranks[r].actions.items[i]);
        }
        for (int i = 0; i < plan->ranks[r].stage_count; i++) {
            const mhp_stage_slots *slots = &plan->ranks[r].stages[i];

            for (int c = 0; c < MHP_SLOT_CLASS_COUNT; c++) {
                assert_int_equal(o.now[slots->stage][c], 0);
                if (c != MHP_SLOT_OUTPUT && c != MHP_SLOT_GRADIENT_OUTPUT) {
                    assert_int_equal(slots->count[c], o.most[slots->stage][c]);
                }
            }
        }
    }
}

static void slots_are_never_shared_and_never_too_many(void **state)
{
    (void)state;
    sweep(assert_slots);
}

/* What leaves for another rank takes turns between two slots; what stays needs none. */
static void assert_output_turns(const mhp_plan *plan, int rank, const mhp_stage_slots *slots,
                                bool forward)
{
    const mhp_action_list *list = &plan->ranks[rank].actions;
    mhp_slot_class class = forward ? MHP_SLOT_OUTPUT : MHP_SLOT_GRADIENT_OUTPUT;
    int before = NOBODY;
    int with_slot = 0;
    int sent = 0;

    for (size_t i = 0; i < list->count; i++) {
        const mhp_action *action = &list->items[i];

        if (action->kind == (forward ? MHP_ACTION_SEND_F : MHP_ACTION_SEND_B) &&
            action->stage == slots->stage) {
            int slot = slots->slot[class][action->microbatch];

            assert_in_range(slot, 0, slots->count[class] - 1);
            assert_int_not_equal(slot, before);
            before = slot;
            sent++;
        }
    }
    for (int m = 0; m < plan->microbatch_count; m++) {
        with_slot += slots->slot[class][m] >= 0;
    }
    assert_int_equal(with_slot, sent);
    assert_int_equal(slots->count[class], sent < 2 ? sent : 2);
}

static void assert_outputs(const mhp_plan *compute, const mhp_plan *plan)
{
    (void)compute;
    for (int r = 0; r < plan->rank_count; r++) {
        for (int i = 0; i < plan->ranks[r].stage_count; i++) {
            assert_output_turns(plan, r, &plan->ranks[r].stages[i], true);
            assert_output_turns(plan, r, &plan->ranks[r].stages[i], false);
        }
    }
}

static void outputs_take_turns(void **state)
{
    (void)state;
    sweep(assert_outputs);
}

static void stage_slots_are_those_of_the_ranks_stages(void **state)
{
    mhp_plan *plan = generate("dualpipev", 3, 6);

    (void)state;
    assert_null(mhp_plan_stage_slots(plan, 1, 1));
    lower_plan(plan, NULL);
    for (int r = 0; r < 3; r++) {
        for (int s = 0; s < 6; s++) {
            const mhp_stage_slots *slots = mhp_plan_stage_slots(plan, r, s);

            assert_true((slots != NULL) == (s == r || s == 5 - r));
            assert_true(!slots || slots->stage == s);
        }
    }
    mhp_plan_destroy(plan);
}

static void messages_that_are_there_stay(void **state)
{
    mhp_plan *plan = parse_csv("0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\n"
                            "1RECV_F0,1RECV_F1,1F0,1B0,1SEND_B0,1F1,1B1,1SEND_B1\n");
    static const mhp_action_kind first[] = {MHP_ACTION_RECV_F, MHP_ACTION_RECV_F,
                                            MHP_ACTION_FORWARD};

    (void)state;
    lower_plan(plan, NULL);
    assert_int_equal(plan->ranks[0].actions.count, 9);
    assert_int_equal(plan->ranks[1].actions.count, 9);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(plan->ranks[1].actions.items[i].kind, first[i]);
    }
    assert_int_equal(mhp_plan_stage_slots(plan, 1, 1)->count[MHP_SLOT_INPUT], 2);
    assert_int_equal(plan->ranks[0].actions.items[8].kind, MHP_ACTION_REDUCE_GRAD);
    mhp_plan_destroy(plan);
}

static bool rebuilds(const mhp_action *action)
{
    return action->kind == MHP_ACTION_REBUILD;
}

/* R right before what needs it, one each; all else as without. */
static void assert_rebuilds(const mhp_plan *without, const mhp_plan *with)
{
    for (int r = 0; r < with->rank_count; r++) {
        const mhp_action_list *list = &with->ranks[r].actions;
        const mhp_action_list *plain = &without->ranks[r].actions;
        size_t next = 0;

        for (size_t i = 0; i < list->count; i++) {
            int s, m;

            backward_cell(&list->items[i], &s, &m);
            if (runs_input_gradient(&list->items[i])) {
                assert_true(i > 0 && rebuilds(&list->items[i - 1]));
                assert_int_equal(list->items[i - 1].stage, s);
                assert_int_equal(list->items[i - 1].microbatch, m);
            }
            if (rebuilds(&list->items[i])) {
                assert_true(runs_input_gradient(&list->items[i + 1]));
            } else {
                assert_true(next < plain->count);
                assert_memory_equal(&list->items[i], &plain->items[next++], sizeof(mhp_action));
            }
        }
        assert_int_equal(next, plain->count);
    }
}

static void rebuilds_stand_right_before_their_gradient(void **state)
{
    (void)state;
    for (size_t g = 0; mhp_generator_at(g); g++) {
        const char *name = mhp_generator_at(g)->name;

        for (int p = 1; p <= 6; p++) {
            for (int m = p; m <= 2 * p + 4; m++) {
                mhp_lower_params params = {.rebuild = true};
                mhp_plan *without, *with;

                if (!takes_shape(name, p, m, 2)) {
                    continue;
                }
                without = generate(name, p, m);
                with = generate(name, p, m);
                lower_plan(without, NULL);
                lower_plan(with, &params);
                assert_rebuilds(without, with);
                mhp_plan_destroy(without);
                mhp_plan_destroy(with);
            }
        }
    }
}

static void rebuilds_that_are_there_stay(void **state)
{
    mhp_lower_params params = {.rebuild = true};
    mhp_plan *plan = parse_csv("0F0,0F1,0R0,0I0,0R1,0B1,0W0\n");

    (void)state;
    lower_plan(plan, &params);
    assert_int_equal(plan->ranks[0].actions.count, 8);
    mhp_plan_destroy(plan);
}

static void assert_rank_reads(const mhp_plan *plan, int rank, const char *expected)
{
    char text[512] = "";

    for (size_t i = 0; i < plan->ranks[rank].actions.count; i++) {
        size_t length = strlen(text);

        text[length] = ' ';
        mhp_action_format(&plan->ranks[rank].actions.items[i], text + length + (i > 0),
                          sizeof text - length - 1);
    }
    assert_string_equal(text, expected);
}

/* Rank 0 sends nothing behind F1, and rank 1 has one unit without work behind I0. */
static void shallow_weights_go_where_no_message_waits(void **state)
{
    mhp_lower_params params = {.weight_gradients = MHP_WEIGHTS_SHALLOW};
    mhp_plan *alone = parse_csv("0F0,0F1,0I0,0I1,0W1,0W0\n");
    mhp_plan *plan = parse_csv("0F0,0I0,0F1,0I1,0W0,0W1\n1F0,1I0,1F1,1I1,1W0,1W1\n");

    (void)state;
    lower_plan(alone, &params);
    assert_rank_reads(alone, 0, "0F0 0F1 0I0 0W0 0I1 0W1 0REDUCE_GRAD");
    lower_plan(plan, &params);
    assert_rank_reads(plan, 0,
                      "0RECV_B0 0F0 0SEND_F0 0I0 0F1 0SEND_F1 0RECV_B1 0W0 0I1 0W1 0REDUCE_GRAD");
    assert_rank_reads(plan, 1,
                      "1RECV_F0 1F0 1I0 1SEND_B0 1RECV_F1 1W0 1F1 1I1 1SEND_B1 1W1 1REDUCE_GRAD");
    mhp_plan_destroy(alone);
    mhp_plan_destroy(plan);
}

/* The most slots of a class that a rank has, over its stages. */
static int slots_of_class(const mhp_plan *plan, int rank, mhp_slot_class class)
{
    int count = 0;

    for (int i = 0; i < plan->ranks[rank].stage_count; i++) {
        count += plan->ranks[rank].stages[i].count[class];
    }
    return count;
}

static void shallow_weights_cost_neither_time_nor_memory(void **state)
{
    (void)state;
    for (size_t g = 0; mhp_generator_at(g); g++) {
        const char *name = mhp_generator_at(g)->name;

        for (int p = 1; p <= 8; p++) {
            for (int m = p; m <= 3 * p; m++) {
                mhp_lower_params params = {.weight_gradients = MHP_WEIGHTS_SHALLOW};
                mhp_plan *deep, *shallow;

                if (!takes_shape(name, p, m, 2)) {
                    continue;
                }
                deep = generate(name, p, m);
                shallow = generate(name, p, m);
                lower_plan(deep, NULL);
                lower_plan(shallow, &params);
                assert_in_range(makespan_of(shallow), 1, makespan_of(deep));
                for (int r = 0; r < p; r++) {
                    assert_in_range(slots_of_class(shallow, r, MHP_SLOT_PRODUCT_GRADIENT), 0,
                                    slots_of_class(deep, r, MHP_SLOT_PRODUCT_GRADIENT));
                    assert_in_range(slots_of_class(shallow, r, MHP_SLOT_PRODUCT_INPUT), 0,
                                    slots_of_class(deep, r, MHP_SLOT_PRODUCT_INPUT));
                }
                mhp_plan_destroy(deep);
                mhp_plan_destroy(shallow);
            }
        }
    }
}

/* Rank 0 makes three states before rank 1 takes one: with two slots it would wait for ever. */
static void late_receives_get_slots_to_send_from(void **state)
{
    mhp_plan *plan = parse_csv(
        "0F0,0SEND_F0,0F1,0SEND_F1,0F2,0SEND_F2,0F3,0SEND_F3,2RECV_F0,2F0,2SEND_F0,"
        "2RECV_F1,2F1,2SEND_F1,2RECV_F2,2F2,2SEND_F2,2RECV_F3,2F3,2SEND_F3\n"
        "1RECV_F0,1F0,1SEND_F0,3RECV_F0,3F0,1RECV_F1,1F1,1SEND_F1,3RECV_F1,3F1,"
        "1RECV_F2,1F2,1SEND_F2,3RECV_F2,3F2,1RECV_F3,1F3,1SEND_F3,3RECV_F3,3F3\n");

    (void)state;
    lower_plan(plan, NULL);
    assert_int_equal(mhp_plan_stage_slots(plan, 0, 0)->count[MHP_SLOT_OUTPUT], 4);
    assert_int_equal(mhp_plan_stage_slots(plan, 1, 1)->count[MHP_SLOT_OUTPUT], 2);
    mhp_plan_destroy(plan);
}

static void a_wrong_compute_order_is_not_lowered(void **state)
{
    static const char *const texts[] = {
        "0F0,0B0\n1F0\n", "0B0,0F0\n1F0,1B0\n", "0F0,0I0\n1F0,1B0\n", "1F0,0F1\n1F1,0F0\n"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        mhp_plan *plan = parse_csv(texts[i]);

        assert_int_equal(mhp_plan_lower(plan, NULL), MHP_ERR_PLAN);
        assert_false(plan->lowered);
        assert_non_null(strstr(mhp_error_text(), "position"));
        mhp_plan_destroy(plan);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lowering_keeps_the_compute_order),
        cmocka_unit_test(every_crossing_edge_has_one_message_and_no_other_has),
        cmocka_unit_test(both_ends_of_a_channel_have_one_order),
        cmocka_unit_test(receives_stand_ahead_of_their_use),
        cmocka_unit_test(reductions_follow_the_last_weight_gradient),
        cmocka_unit_test(slots_are_never_shared_and_never_too_many),
        cmocka_unit_test(outputs_take_turns),
        cmocka_unit_test(stage_slots_are_those_of_the_ranks_stages),
        cmocka_unit_test(messages_that_are_there_stay),
        cmocka_unit_test(rebuilds_stand_right_before_their_gradient),
        cmocka_unit_test(rebuilds_that_are_there_stay),
        cmocka_unit_test(shallow_weights_go_where_no_message_waits),
        cmocka_unit_test(shallow_weights_cost_neither_time_nor_memory),
        cmocka_unit_test(late_receives_get_slots_to_send_from),
        cmocka_unit_test(a_wrong_compute_order_is_not_lowered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
