/* What launchers say in the environment. */
#include "launch/command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void slurms_tasks_per_node(void **state)
{
    static const struct {
        const char *list;
        int node, tasks;
    } cases[] = {
        {"4", 0, 4},        {"4", 1, 0},        {"4(x3)", 2, 4},  {"4(x3)", 3, 0}, {"4(x2),3", 1, 4}, {"4(x2),3", 2, 3}, {"2,8(x2),1", 2, 8},
        {"2,8(x2),1", 3, 1}, {"", 0, 0},        {"x", 0, 0},      {"-1", 0, 0},    {"4(x", 0, 0},     {"4(x2", 1, 4},    {"99999999999", 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(mhp_slurm_tasks_of_node(cases[i].list, cases[i].node), cases[i].tasks);
    }
}

static void local_sizes(void **state)
{
    (void)state;
    unsetenv("OMPI_COMM_WORLD_LOCAL_SIZE");
    unsetenv("MPI_LOCALNRANKS");
    unsetenv("SLURM_STEP_TASKS_PER_NODE");
    assert_int_equal(mhp_launched_local_size(), 0);
    setenv("SLURM_STEP_TASKS_PER_NODE", "4(x2),3", 1);
    setenv("SLURM_NODEID", "2", 1);
    assert_int_equal(mhp_launched_local_size(), 3);
    setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "6", 1);
    assert_int_equal(mhp_launched_local_size(), 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slurms_tasks_per_node),
        cmocka_unit_test(local_sizes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
