/* The memory plan: what lives at the same time is apart, over stages and kinds; parts add up; modes and limits do what they say. */
#include "runtime/memory_table.h"
#include "scheduler/index.h"
#include "scheduler/lower.h"
#include "tests/unit/runtime/folder.h"

enum { LAYERS = 8, RANKS = 2, MICROBATCHES = 8 };

typedef struct world {
    mhp_layout layout;
    mhp_model_params model;
    mhp_parallel_params parallel;
    mhp_schedule_params schedule;
    mhp_train_params train;
    mhp_memory_params params;
} world;

static char no_file[] = "";

static void make_world(world *w, char *kind, int connections, mhp_recompute what)
{
    memset(w, 0, sizeof *w);
    w->model = (mhp_model_params){
        .hidden_size = 16, .num_hidden_layers = LAYERS, .num_attention_heads = 2, .num_key_value_heads = 1, .head_dim = 8,
        .intermediate_size = 24, .vocab_size = 40, .rms_norm_eps = 1e-6, .rope_theta = 1e4, .dtype = MHP_DTYPE_F32,
        .connections = {.kind = connections, .streams = connections == MHP_CONNECTION_RESIDUAL ? 1 : 4, .sinkhorn_iterations = 4,
                        .eps = 1e-6, .init_pre_gain = 1}};
    w->parallel = (mhp_parallel_params){.pipeline = RANKS, .data = 1, .device = MHP_DEVICE_CPU, .threads = 1};
    w->schedule = (mhp_schedule_params){.kind = kind, .microbatches = MICROBATCHES, .chunks = 2, .file = no_file,
                                        .recompute = {what, 0}};
    w->train = (mhp_train_params){.sequence_length = 32, .micro_batch_size = 2};
    w->params = (mhp_memory_params){&w->layout, &w->model, &w->parallel, &w->schedule, &w->train};
    assert_ok(mhp_layout_create(&w->model, &w->parallel, &w->schedule, &w->layout));
}

static mhp_memory_plan *plan_of(const world *w, int rank)
{
    mhp_memory_plan *plan = NULL;

    assert_ok(mhp_memory_plan_create(&w->params, rank, &plan));
    return plan;
}

/* What a pass of a micro-batch touches, as an interval of bytes; bytes 0: nothing. */
typedef struct range {
    size_t begin, end;
} range;

/* Replays the rank's list with one owner for each piece of `page` bytes: a pass that needs memory finds it its own from the first to
 * the last pass of the lifetime. */
typedef struct replay {
    const world *w;
    const mhp_memory_plan *plan;
    int *owner;         /* of each 256 bytes: -1, or a number for (stage, lifetime, micro-batch) */
    size_t pages;
} replay;

static int name_of(const mhp_stage_memory *memory, int lifetime, int m)
{
    return (memory->stage * MHP_LIFE_COUNT + lifetime) * MICROBATCHES + m;
}

static range range_of(const mhp_stage_memory *memory, int lifetime, int m)
{
    size_t offset = memory->at[MHP_PHASE_TRAINING][lifetime] ? memory->at[MHP_PHASE_TRAINING][lifetime][m] : 0;

    return (range){offset / 256, (offset + memory->sizes.bytes[lifetime] + 255) / 256};
}

static void take(replay *r, const mhp_stage_memory *memory, int lifetime, int m)
{
    range pages = range_of(memory, lifetime, m);

    for (size_t p = pages.begin; memory->sizes.bytes[lifetime] > 0 && p < pages.end; p++) {
        assert_true(p < r->pages);
        assert_int_equal(r->owner[p], -1);
        r->owner[p] = name_of(memory, lifetime, m);
    }
}

static void give(replay *r, const mhp_stage_memory *memory, int lifetime, int m)
{
    range pages = range_of(memory, lifetime, m);

    for (size_t p = pages.begin; memory->sizes.bytes[lifetime] > 0 && p < pages.end; p++) {
        assert_int_equal(r->owner[p], name_of(memory, lifetime, m));
        r->owner[p] = -1;
    }
}

typedef struct passes {
    int stage, microbatch;
    bool forward, rebuild, input, weight;
} passes;

static void take_passes(replay *r, const passes *p, bool rebuilds)
{
    const mhp_stage_memory *memory = mhp_memory_plan_stage(r->plan, p->stage);

    if (p->forward) {
        take(r, memory, MHP_LIFE_ACTIVATION, p->microbatch);
        take(r, memory, MHP_LIFE_PRODUCT_INPUT, p->microbatch);
        take(r, memory, MHP_LIFE_FORWARD, p->microbatch);
    }
    if (p->rebuild || (p->input && !rebuilds)) {
        take(r, memory, MHP_LIFE_BLOCK, p->microbatch);
        take(r, memory, MHP_LIFE_REBUILT_INPUT, p->microbatch);
    }
    if (p->input) {
        take(r, memory, MHP_LIFE_BACKWARD, p->microbatch);
        take(r, memory, MHP_LIFE_PRODUCT_GRADIENT, p->microbatch);
    }
}

static void give_passes(replay *r, const passes *p)
{
    const mhp_stage_memory *memory = mhp_memory_plan_stage(r->plan, p->stage);

    if (p->forward) {
        give(r, memory, MHP_LIFE_FORWARD, p->microbatch);
    }
    if (p->input) {
        give(r, memory, MHP_LIFE_ACTIVATION, p->microbatch);
        give(r, memory, MHP_LIFE_BLOCK, p->microbatch);
        give(r, memory, MHP_LIFE_BACKWARD, p->microbatch);
    }
    if (p->weight) {
        give(r, memory, MHP_LIFE_PRODUCT_INPUT, p->microbatch);
        give(r, memory, MHP_LIFE_REBUILT_INPUT, p->microbatch);
        give(r, memory, MHP_LIFE_PRODUCT_GRADIENT, p->microbatch);
    }
}

static int passes_of(const mhp_action *a, passes out[2])
{
    switch (a->kind) {
    case MHP_ACTION_FORWARD:
        out[0] = (passes){a->stage, a->microbatch, true, false, false, false};
        return 1;
    case MHP_ACTION_REBUILD:
        out[0] = (passes){a->stage, a->microbatch, false, true, false, false};
        return 1;
    case MHP_ACTION_INPUT_GRADIENT:
        out[0] = (passes){a->stage, a->microbatch, false, false, true, false};
        return 1;
    case MHP_ACTION_WEIGHT_GRADIENT:
        out[0] = (passes){a->stage, a->microbatch, false, false, false, true};
        return 1;
    case MHP_ACTION_BACKWARD:
        out[0] = (passes){a->stage, a->microbatch, false, false, true, true};
        return 1;
    case MHP_ACTION_OVERLAP_F_B:
        out[0] = (passes){a->stage, a->microbatch, true, false, false, false};
        out[1] = (passes){a->backward_stage, a->backward_microbatch, false, false, true, true};
        return 2;
    default:
        return 0;
    }
}

/* Memory that never comes and goes belongs to nobody else. */
static void take_lasting(replay *r)
{
    for (int i = 0; i < r->plan->stage_count; i++) {
        const mhp_stage_memory *memory = &r->plan->stages[i];
        size_t bytes = (size_t)memory->chunk * (size_t)memory->holders * 4;
        const size_t offsets[] = {memory->parameters, memory->gradients, memory->moment1, memory->moment2};
        const size_t sizes[] = {bytes, bytes, (size_t)memory->chunk * 4, (size_t)memory->chunk * 4};

        for (size_t k = 0; k < sizeof offsets / sizeof *offsets; k++) {
            for (size_t p = offsets[k] / 256; p < (offsets[k] + sizes[k] + 255) / 256; p++) {
                assert_int_equal(r->owner[p], -1);
                r->owner[p] = -2;
            }
        }
        for (int c = 0; c < MHP_SLOT_CLASS_COUNT; c++) {
            const mhp_stage_slots *slots = mhp_plan_stage_slots(r->w->layout.plan, r->plan->rank, memory->stage);
            size_t first = memory->slots[MHP_PHASE_TRAINING][c] / 256;
            bool message = c == MHP_SLOT_INPUT || c == MHP_SLOT_OUTPUT || c == MHP_SLOT_GRADIENT_INPUT || c == MHP_SLOT_GRADIENT_OUTPUT;
            size_t pages = message ? (size_t)slots->count[c] * mhp_slot_stride(&memory->sizes, (mhp_slot_class)c) / 256 : 0;

            for (size_t p = first; p < first + pages; p++) {
                assert_int_equal(r->owner[p], -1);
                r->owner[p] = -2;
            }
        }
    }
}

static void replay_rank(const world *w, int rank)
{
    mhp_memory_plan *plan = plan_of(w, rank);
    replay r = {.w = w, .plan = plan, .pages = plan->bytes / 256};
    const mhp_action_list *actions = &w->layout.plan->ranks[rank].actions;
    size_t sum = plan->gaps;

    r.owner = malloc(r.pages * sizeof *r.owner);
    assert_non_null(r.owner);
    memset(r.owner, 0xff, r.pages * sizeof *r.owner);
    take_lasting(&r);
    for (size_t i = 0; i < actions->count; i++) {
        passes list[2];
        int count = passes_of(&actions->items[i], list);

        for (int k = 0; k < count; k++) {
            take_passes(&r, &list[k], w->schedule.recompute.what != MHP_RECOMPUTE_NONE);
        }
        for (int k = 0; k < count; k++) {
            give_passes(&r, &list[k]);
        }
    }
    for (size_t p = 0; p < r.pages; p++) {
        assert_true(r.owner[p] < 0);
    }
    for (int k = 0; k < MHP_MEMORY_KIND_COUNT; k++) {
        sum += plan->fullest[k];
    }
    assert_int_equal(sum, plan->bytes);
    assert_true(plan->gaps * 10 <= plan->bytes);
    free(r.owner);
    mhp_memory_plan_destroy(plan);
}

static void nothing_alive_overlaps(void **state)
{
    char kinds[][12] = {"gpipe", "1f1b", "dualpipe", "dualpipev", "zb-v"};

    (void)state;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        for (int connections = MHP_CONNECTION_RESIDUAL; connections <= MHP_CONNECTION_MHC; connections++) {
            for (int what = MHP_RECOMPUTE_NONE; what <= MHP_RECOMPUTE_FULL; what++) {
                world w;

                make_world(&w, kinds[k], connections, (mhp_recompute)what);
                for (int rank = 0; rank < RANKS; rank++) {
                    replay_rank(&w, rank);
                }
                mhp_layout_release(&w.layout);
            }
        }
    }
}

static size_t bytes_of(char *kind, mhp_recompute what)
{
    world w;
    mhp_memory_plan *plan;
    size_t bytes;

    make_world(&w, kind, MHP_CONNECTION_MHC, what);
    plan = plan_of(&w, 0);
    bytes = plan->bytes;
    mhp_memory_plan_destroy(plan);
    mhp_layout_release(&w.layout);
    return bytes;
}

static void recompute_saves(void **state)
{
    char gpipe[] = "gpipe", one[] = "1f1b";

    (void)state;
    assert_true(bytes_of(gpipe, MHP_RECOMPUTE_CONNECTIONS) < bytes_of(gpipe, MHP_RECOMPUTE_NONE));
    assert_true(bytes_of(gpipe, MHP_RECOMPUTE_FULL) < bytes_of(gpipe, MHP_RECOMPUTE_CONNECTIONS));
    assert_true(bytes_of(one, MHP_RECOMPUTE_NONE) < bytes_of(gpipe, MHP_RECOMPUTE_NONE));
}

/* A plan of very many micro-batches takes no more than the same with few in flight, and no long time. */
static void many_microbatches_share_places(void **state)
{
    char one[] = "1f1b";
    mhp_memory_plan *few, *many;
    world w;

    (void)state;
    make_world(&w, one, MHP_CONNECTION_MHC, MHP_RECOMPUTE_CONNECTIONS);
    few = plan_of(&w, 0);
    mhp_layout_release(&w.layout);
    w.schedule.microbatches = 4096;
    assert_ok(mhp_layout_create(&w.model, &w.parallel, &w.schedule, &w.layout));
    many = plan_of(&w, 0);
    assert_int_equal(many->most[MHP_MEMORY_ACTIVATIONS], few->most[MHP_MEMORY_ACTIVATIONS]);
    assert_int_equal(many->most[MHP_MEMORY_HELD], few->most[MHP_MEMORY_HELD]);
    assert_true(many->gaps * 10 <= many->bytes);
    mhp_memory_plan_destroy(few);
    mhp_memory_plan_destroy(many);
    mhp_layout_release(&w.layout);
}

static void replicas_share_the_optimizer(void **state)
{
    char gpipe[] = "gpipe";
    mhp_memory_plan *one, *two;
    world w;

    (void)state;
    make_world(&w, gpipe, MHP_CONNECTION_MHC, MHP_RECOMPUTE_NONE);
    one = plan_of(&w, 0);
    w.parallel.data = 2;
    two = plan_of(&w, 0);
    assert_int_equal(two->stages[0].chunk, (one->stages[0].elements + 1) / 2);
    assert_true(two->most[MHP_MEMORY_OPTIMIZER] <= one->most[MHP_MEMORY_OPTIMIZER] / 2 + 512);
    assert_int_equal(two->most[MHP_MEMORY_ACTIVATIONS], one->most[MHP_MEMORY_ACTIVATIONS]);
    mhp_memory_plan_destroy(one);
    mhp_memory_plan_destroy(two);
    mhp_layout_release(&w.layout);
}

static void a_limit_refuses_with_advice(void **state)
{
    char gpipe[] = "gpipe";
    world w;

    (void)state;
    make_world(&w, gpipe, MHP_CONNECTION_MHC, MHP_RECOMPUTE_NONE);
    w.parallel.memory_limit = (int64_t)bytes_of(gpipe, MHP_RECOMPUTE_NONE) * 2;
    assert_ok(mhp_memory_check(&w.params));
    w.parallel.memory_limit = (int64_t)bytes_of(gpipe, MHP_RECOMPUTE_CONNECTIONS) * 11 / 10;
    assert_error(mhp_memory_check(&w.params), MHP_ERR_LIMIT, "--set schedule.recompute.what=connections would take");
    w.parallel.memory_limit = 4096;
    assert_error(mhp_memory_check(&w.params), MHP_ERR_LIMIT, "would fit");
    mhp_layout_release(&w.layout);
}

static void the_table_has_a_line_for_each_rank(void **state)
{
    char kind[] = "dualpipev";
    char line[512];
    FILE *file = tmpfile();
    int lines = 0;
    world w;

    (void)state;
    assert_non_null(file);
    make_world(&w, kind, MHP_CONNECTION_MHC, MHP_RECOMPUTE_CONNECTIONS);
    assert_ok(mhp_memory_print(&w.params, file));
    rewind(file);
    while (fgets(line, sizeof line, file)) {
        lines++;
    }
    assert_int_equal(lines, 2 + RANKS + 3 + 2 * RANKS);
    fclose(file);
    mhp_layout_release(&w.layout);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_alive_overlaps),         cmocka_unit_test(recompute_saves),
        cmocka_unit_test(many_microbatches_share_places), cmocka_unit_test(replicas_share_the_optimizer),
        cmocka_unit_test(a_limit_refuses_with_advice),    cmocka_unit_test(the_table_has_a_line_for_each_rank),
    };

    return cmocka_run_group_tests_name("memory_plan", tests, NULL, NULL);
}
