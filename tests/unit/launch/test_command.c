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

static void words_of_a_shell(void **state)
{
    static const char *const cases[][2] = {
        {"model.hidden_size=32", "model.hidden_size=32"},
        {"", "''"},
        {"k/q q.yaml", "'k/q q.yaml'"},
        {"x=[1,2]", "'x=[1,2]'"},
        {"it's $HOME", "'it'\\''s $HOME'"},
        {"\u00e9", "'\u00e9'"},
        {"two\nlines' \\", "$'two\\x0alines\\' \\\\'"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = NULL;
        size_t length;
        FILE *stream = open_memstream(&text, &length);

        mhp_write_shell_word(cases[i][0], stream);
        assert_int_equal(fclose(stream), 0);
        assert_string_equal(text, cases[i][1]);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slurms_tasks_per_node),
        cmocka_unit_test(local_sizes),
        cmocka_unit_test(words_of_a_shell),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
