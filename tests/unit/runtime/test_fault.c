/* Which fault is due when, and what the file hook does. */
#include "core/file.h"
#include "runtime/fault.h"
#include "scheduler/generator.h"
#include "scheduler/lower.h"
#include "tests/unit/runtime/folder.h"

static mhp_fault orders[8];
static mhp_section_list list;

static mhp_fault *order(int kind, int64_t rank, int64_t step, const char *action, const char *file)
{
    mhp_fault *made = &orders[list.count++];

    *made = (mhp_fault){kind, rank, step, (char *)(uintptr_t)action, (char *)(uintptr_t)file, 0};
    list.items = orders;
    return made;
}

static int clear(void **state)
{
    (void)state;
    list = (mhp_section_list){0};
    return 0;
}

static const mhp_fault *due(mhp_faults *faults, const char *text)
{
    mhp_action action;

    assert_ok(mhp_action_parse(text, &action));
    return mhp_faults_due(faults, &action);
}

static void other_ranks_have_none(void **state)
{
    mhp_faults *faults;

    (void)state;
    order(MHP_FAULT_KILL, 1, 1, "", "");
    assert_ok(mhp_faults_create(&list, 0, &faults));
    assert_null(faults);
    assert_null(due(NULL, "0F0"));
    mhp_faults_enter(NULL, 1);
    mhp_faults_destroy(NULL);
}

static void each_is_due_once_at_its_step_and_action(void **state)
{
    mhp_faults *faults;
    const mhp_fault *first = order(MHP_FAULT_SLOW, 2, 3, "", "");
    const mhp_fault *named = order(MHP_FAULT_NAN, 2, 3, "1F4", "");
    const mhp_fault *always = order(MHP_FAULT_CORRUPT, 2, 0, "1SEND_F4", "");

    (void)state;
    assert_ok(mhp_faults_create(&list, 2, &faults));
    for (int64_t step = 1; step <= 5; step++) {
        mhp_faults_enter(faults, step);
        assert_ptr_equal(due(faults, "1RECV_F0"), step == 3 ? first : NULL);
        assert_null(due(faults, "1F0"));
        assert_ptr_equal(due(faults, "1F4"), step == 3 ? named : NULL);
        assert_null(due(faults, "1F4"));
        assert_ptr_equal(due(faults, "1SEND_F4"), always);
        assert_null(due(faults, "1SEND_F4"));
    }
    mhp_faults_destroy(faults);
}

/* A receive has nothing to spoil, a pass no message. */
static void without_an_action_the_first_that_suits_is_meant(void **state)
{
    static const char *const actions[] = {"1RECV_F0", "1F0", "1SEND_F0", "(1F1;1B0)OVERLAP_F_B", "1SEND_B0"};
    const mhp_fault *nan = order(MHP_FAULT_NAN, 1, 8, "", "");
    const mhp_fault *corrupt = order(MHP_FAULT_CORRUPT, 1, 8, "", "");
    const mhp_fault *kill = order(MHP_FAULT_KILL, 1, 8, "", "");
    const mhp_fault *expected[] = {kill, nan, corrupt, NULL, NULL};
    mhp_faults *faults;

    (void)state;
    assert_ok(mhp_faults_create(&list, 1, &faults));
    mhp_faults_enter(faults, 8);
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        assert_ptr_equal(due(faults, actions[i]), expected[i]);
    }
    mhp_faults_destroy(faults);
}

/* Of one fault, in a run of 10 steps on two replicas of two ranks of 1f1b. */
static void checked(const mhp_fault *fault, const char *error)
{
    mhp_section_list one = {.items = (void *)(uintptr_t)fault, .count = 1};
    mhp_schedule_shape shape = {.ranks = 2, .microbatches = 4, .chunks = 1};
    mhp_plan *plan;
    mhp_status status;

    assert_ok(mhp_schedule_generate("1f1b", &shape, &plan));
    assert_ok(mhp_plan_lower(plan, NULL));
    status = mhp_faults_check(&one, plan, 4, 10);
    mhp_plan_destroy(plan);
    if (!error) {
        assert_ok(status);
        return;
    }
    assert_true(status == MHP_ERR_CONFIG || status == MHP_ERR_FORMAT);
    if (!strstr(mhp_error_text(), error)) {
        fail_msg("\"%s\" is not \"%s\"", mhp_error_text(), error);
    }
}

static void what_cannot_happen_is_found(void **state)
{
    (void)state;
    checked(order(MHP_FAULT_KILL, 3, 10, "1F2", ""), NULL);
    checked(order(MHP_FAULT_NAN, 1, 0, "", ""), NULL);
    checked(order(MHP_FAULT_CORRUPT, 0, 1, "0SEND_F1", ""), NULL);
    checked(order(MHP_FAULT_DISK_FULL, 1, 99, "", "model-"), NULL);
    clear(NULL);
    checked(order(MHP_FAULT_KILL, 4, 1, "", ""), "fault, item 1: rank is 4: expected 0 to 3");
    checked(order(MHP_FAULT_KILL, 0, 11, "", ""), "fault, item 1: step is 11: expected at most train.steps, 10");
    checked(order(MHP_FAULT_KILL, 0, 1, "foo", ""), "fault, item 1: action \"foo\": expected a stage");
    checked(order(MHP_FAULT_KILL, 0, 1, "9F2", ""), "fault, item 1: action is \"9F2\", which no rank of 1f1b has");
    checked(order(MHP_FAULT_KILL, 2, 1, "1F2", ""), "action is \"1F2\" and rank 2: expected rank 1, which has it in 1f1b");
    checked(order(MHP_FAULT_NAN, 0, 1, "0SEND_F2", ""), "action is \"0SEND_F2\" and kind nan: expected it at an action that computes");
    checked(order(MHP_FAULT_CORRUPT, 0, 1, "0F2", ""), "action is \"0F2\" and kind corrupt: expected it at a SEND");
}

static void files_fail_from_their_step_on(void **state)
{
    mhp_faults *faults;

    (void)state;
    order(MHP_FAULT_DISK_FULL, 0, 2, "", "model-");
    order(MHP_FAULT_SYNC_FAILS, 0, 2, "", "manifest");
    order(MHP_FAULT_SHORT_WRITE, 0, 2, "", "latest");
    assert_ok(mhp_faults_create(&list, 0, &faults));
    mhp_faults_enter(faults, 1);
    assert_ok(mhp_file_write_atomic(test_path("model-1"), "abc", 3));
    mhp_faults_enter(faults, 2);
    assert_int_equal(mhp_file_write_atomic(test_path("model-1"), "xyz", 3), MHP_ERR_IO);
    assert_non_null(strstr(mhp_error_text(), "No space left"));
    assert_int_equal(mhp_file_write_atomic(test_path("manifest.json"), "xyz", 3), MHP_ERR_IO);
    assert_ok(mhp_file_write_atomic(test_path("latest"), "step-00000001", 13));
    assert_ok(mhp_file_write_atomic(test_path("other"), "xyz", 3));
    mhp_faults_destroy(faults);
    assert_ok(mhp_file_write_atomic(test_path("model-2"), "xyz", 3));
}

static void what_cannot_be_is_refused(void **state)
{
    mhp_faults *faults;

    (void)state;
    order(MHP_FAULT_DISK_FULL, 0, 1, "", "");
    assert_int_equal(mhp_faults_create(&list, 0, &faults), MHP_ERR_CONFIG);
    assert_non_null(strstr(mhp_error_text(), "fault, item 1: disk_full happens at files"));
    orders[0] = (mhp_fault){MHP_FAULT_NAN, 0, 1, "", "model", 0};
    assert_int_equal(mhp_faults_create(&list, 3, &faults), MHP_ERR_CONFIG);
    orders[0] = (mhp_fault){MHP_FAULT_KILL, 0, 1, "1F0", "model", 0};
    assert_int_equal(mhp_faults_create(&list, 3, &faults), MHP_ERR_CONFIG);
    orders[0] = (mhp_fault){MHP_FAULT_KILL, 0, 1, "foo", "", 0};
    assert_int_equal(mhp_faults_create(&list, 3, &faults), MHP_ERR_FORMAT);
    assert_null(faults);
}

static void spoiled_values_are_no_numbers(void **state)
{
    mhp_device_params params = {.kind = MHP_DEVICE_CPU, .threads = 1};
    mhp_device *device = NULL;
    mhp_stream *stream = NULL;
    float values[2] = {1, 2};
    double wide[2] = {1, 2};

    (void)state;
    assert_ok(mhp_device_open(&params, &device));
    assert_ok(mhp_stream_create(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "compute", &stream));
    assert_ok(mhp_fault_spoil(stream, values, MHP_DTYPE_F32));
    assert_ok(mhp_fault_spoil(stream, wide, MHP_DTYPE_F64));
    assert_ok(mhp_stream_synchronize(stream));
    assert_true(values[0] != values[0] && values[1] == 2);
    assert_true(wide[0] != wide[0] && wide[1] == 2);
    mhp_stream_destroy(stream);
    mhp_device_close(device);
}

static int clear_and_make(void **state)
{
    return clear(state) || test_folder_make(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(other_ranks_have_none, clear),
        cmocka_unit_test_setup(each_is_due_once_at_its_step_and_action, clear),
        cmocka_unit_test_setup(without_an_action_the_first_that_suits_is_meant, clear),
        cmocka_unit_test_setup(what_cannot_happen_is_found, clear),
        cmocka_unit_test_setup_teardown(files_fail_from_their_step_on, clear_and_make, test_folder_remove),
        cmocka_unit_test_setup(what_cannot_be_is_refused, clear),
        cmocka_unit_test_setup(spoiled_values_are_no_numbers, clear),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
