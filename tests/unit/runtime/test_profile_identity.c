/* Which run a profile belongs to: what changes its identity, and what a start leaves of it. */
#include "tests/unit/runtime/folder.h"

#include "core/file.h"
#include "core/memory.h"
#include "model/options.h"
#include "runtime/profile/identity.h"
#include "runtime/profile/trace.h"

typedef struct world {
    mhp_model_params model;
    mhp_parallel_params parallel;
    mhp_schedule_params schedule;
    mhp_train_params train;
} world;

static void make_world(world *w)
{
    memset(w, 0, sizeof *w);
    assert_ok(mhp_options_default(mhp_model_options, &w->model));
    assert_ok(mhp_options_default(mhp_parallel_options, &w->parallel));
    assert_ok(mhp_options_default(mhp_schedule_options, &w->schedule));
    assert_ok(mhp_options_default(mhp_train_options, &w->train));
    w->model.hidden_size = 16;
    w->model.num_hidden_layers = 4;
    w->model.num_attention_heads = w->model.num_key_value_heads = 2;
    w->model.intermediate_size = 32;
    w->model.vocab_size = 257;
    w->parallel.pipeline = 2;
    w->schedule.microbatches = 4;
}

static void release_world(world *w)
{
    mhp_options_release(mhp_model_options, &w->model);
    mhp_options_release(mhp_parallel_options, &w->parallel);
    mhp_options_release(mhp_schedule_options, &w->schedule);
    mhp_options_release(mhp_train_options, &w->train);
}

static mhp_hash identity_of(const world *w)
{
    mhp_layout layout;
    mhp_memory_params params = {&layout, &w->model, &w->parallel, &w->schedule, &w->train};
    mhp_hash identity = {0};

    assert_ok(mhp_layout_create(&w->model, &w->parallel, &w->schedule, &layout));
    assert_ok(mhp_profile_identity(&params, &identity));
    mhp_layout_release(&layout);
    return identity;
}

static void set_file(world *w, const char *path, const char *text)
{
    assert_ok(mhp_file_write_atomic(path, text, strlen(text)));
    mhp_free(w->schedule.file);
    assert_ok(mhp_strdup(&w->schedule.file, path));
}

static void model_layout_schedule_and_batch_make_it(void **state)
{
    world w;
    mhp_hash identity;
    int64_t *numbers[] = {&w.model.intermediate_size, &w.parallel.data, &w.schedule.microbatches, &w.train.sequence_length,
                          &w.train.micro_batch_size};

    (void)state;
    make_world(&w);
    identity = identity_of(&w);
    assert_true(mhp_hash_equal(identity_of(&w), identity));
    w.train.steps += 100;
    assert_true(mhp_hash_equal(identity_of(&w), identity));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        *numbers[i] *= 2;
        assert_false(mhp_hash_equal(identity_of(&w), identity));
        *numbers[i] /= 2;
    }
    assert_true(mhp_hash_equal(identity_of(&w), identity));
    release_world(&w);
}

/* A file counts by what is in it. */
static void a_schedule_from_a_file_is_its_actions(void **state)
{
    static const char first[] = "actions:\n  - [0F0, 0F1, 0B0, 0F2, 0B1, 0F3, 0B2, 0B3]\n  - [1F0, 1B0, 1F1, 1B1, 1F2, 1B2, 1F3, 1B3]\n";
    static const char other[] = "actions:\n  - [0F0, 0F1, 0F2, 0F3, 0B0, 0B1, 0B2, 0B3]\n  - [1F0, 1B0, 1F1, 1B1, 1F2, 1B2, 1F3, 1B3]\n";
    world w;
    mhp_hash identity;

    (void)state;
    make_world(&w);
    set_file(&w, test_path("a.yaml"), first);
    identity = identity_of(&w);
    set_file(&w, test_path("b.yaml"), first);
    assert_true(mhp_hash_equal(identity_of(&w), identity));
    set_file(&w, test_path("a.yaml"), other);
    assert_false(mhp_hash_equal(identity_of(&w), identity));
    release_world(&w);
}

/* A folder with a report, and the trace of steps 3 and 4, from 0. */
static void write_profile(mhp_hash identity)
{
    mhp_trace_span spans[] = {{.kind = MHP_TRACE_STEP, .action = -1, .stage = -1, .microbatch = -1, .slot = -1, .peer = -1, .end_ns = 9},
                              {.kind = MHP_TRACE_STEP, .step = 1, .action = -1, .stage = -1, .microbatch = -1, .slot = -1, .peer = -1}};
    mhp_trace trace = {.world_size = 1, .pipeline_ranks = 1, .streams = 1, .identity = identity, .first_step = 3, .step_count = 2,
                       .after = {.local_ns = 10, .reference_ns = 10}, .spans = spans, .span_count = 2};
    char *path;

    assert_ok(mhp_mkdirs(test_path("profile")));
    assert_ok(mhp_trace_path(test_path("profile"), 0, &path));
    assert_ok(mhp_trace_write(&trace, path));
    assert_ok(mhp_file_write_atomic(test_path("report.json"), "{}", 2));
    assert_ok(mhp_file_write_atomic(test_path("report.html"), "", 0));
    mhp_free(path);
}

static bool is_there(void)
{
    bool traces = mhp_file_exists(test_path("profile/rank-0000.trace"));

    assert_true(mhp_file_exists(test_path("profile")) == traces);
    assert_true(mhp_file_exists(test_path("report.json")) == traces);
    assert_true(mhp_file_exists(test_path("report.html")) == traces);
    return traces;
}

static void a_start_keeps_its_own_steps_alone(void **state)
{
    mhp_hash own = {1, 2}, other = {1, 3};

    (void)state;
    assert_ok(mhp_profile_begin(test_folder, own, 0)); /* nothing there */
    write_profile(own);
    assert_ok(mhp_profile_begin(test_folder, own, 5));
    assert_true(is_there());
    assert_ok(mhp_profile_begin(test_folder, own, 4)); /* it will do step 4 again */
    assert_false(is_there());
    write_profile(own);
    assert_ok(mhp_profile_begin(test_folder, other, 5));
    assert_false(is_there());
    write_profile(own);
    assert_ok(mhp_profile_begin(test_folder, own, 0));
    assert_false(is_there());
    write_profile(own);
    assert_ok(mhp_file_write_atomic(test_path("profile/rank-0000.trace"), "mhptrace", 8));
    assert_ok(mhp_profile_begin(test_folder, own, 5));
    assert_false(is_there());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_IN_FOLDER(model_layout_schedule_and_batch_make_it),
        TEST_IN_FOLDER(a_schedule_from_a_file_is_its_actions),
        TEST_IN_FOLDER(a_start_keeps_its_own_steps_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
