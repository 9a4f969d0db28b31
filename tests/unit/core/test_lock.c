/* One process at a time in a folder. */
#include "tests/unit/core/support.h"

#include <errno.h>
#include <sys/wait.h>

#include "core/file.h"
#include "core/lock.h"
#include "core/log.h"

static char warned[512];

static void keep_warning(void *context, mhp_log_level level, const char *text)
{
    (void)context;
    (void)level;
    snprintf(warned, sizeof warned, "%s", text);
}

/* A process that holds the folder; a byte to `release` ends it. */
static pid_t start_holder(const char *folder, int *release)
{
    int held[2], told[2];
    char byte;
    pid_t child;

    assert_int_equal(pipe(held), 0);
    assert_int_equal(pipe(told), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        mhp_lock *lock = NULL;

        close(told[1]);
        byte = mhp_folder_lock(folder, 0, &lock) == MHP_OK && lock ? 'y' : 'n';
        (void)!write(held[1], &byte, 1);
        (void)!read(told[0], &byte, 1);
        _exit(0);           /* without a release: the kernel does that */
    }
    close(told[0]);
    close(held[1]);
    assert_int_equal(read(held[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    close(held[0]);
    *release = told[1];
    return child;
}

static void end_holder(pid_t child, int release)
{
    close(release);
    assert_int_equal(waitpid(child, NULL, 0), child);
}

static void test_held_by_another(void **state)
{
    const char *folder = scratch_path("run/inner");
    char pid[32];
    mhp_lock *lock = NULL;
    int release;
    pid_t child = start_holder(folder, &release);

    (void)state;
    snprintf(pid, sizeof pid, "pid %d, since 20", (int)child);
    assert_failed(mhp_folder_lock(folder, 0, &lock), MHP_ERR_TIMEOUT, "run/inner is held by another run (host ", pid, NULL);
    assert_null(lock);
    mhp_log_set_sink(keep_warning, NULL, MHP_LOG_WARN);
    assert_failed(mhp_folder_lock(folder, 1.2, &lock), MHP_ERR_TIMEOUT, pid, NULL);
    mhp_log_set_sink(NULL, NULL, MHP_LOG_WARN);
    assert_contains(warned, pid);
    end_holder(child, release);
    assert_ok(mhp_folder_lock(folder, 0, &lock));
    assert_non_null(lock);
    mhp_folder_unlock(lock);
    mhp_folder_unlock(NULL);
}

/* A holder that ends meanwhile makes room. */
static void test_waits(void **state)
{
    const char *folder = scratch_path("waits");
    mhp_lock *lock = NULL;
    int release;
    pid_t child = start_holder(folder, &release), helper = fork();

    (void)state;
    if (helper == 0) {
        usleep(300000);
        (void)!write(release, "x", 1);
        _exit(0);
    }
    assert_ok(mhp_folder_lock(folder, 10, &lock));
    assert_int_equal(waitpid(helper, NULL, 0), helper);
    end_holder(child, release);
    mhp_folder_unlock(lock);
}

/* What an earlier holder, or something else, left in the file does not matter, nor what a terminal would make of it. */
static void test_leftovers(void **state)
{
    static const char foreign[] = "\033[2Jgone";
    const char *folder = scratch_path("left"), *path = scratch_path("left/.lock");
    mhp_lock *lock = NULL, *second = NULL;

    (void)state;
    assert_ok(mhp_mkdirs(folder));
    scratch_write(path, foreign, sizeof foreign - 1);
    assert_ok(mhp_folder_lock(folder, 0, &lock));
    assert_non_null(lock);
    scratch_write(path, foreign, sizeof foreign - 1);
    assert_failed(mhp_folder_lock(folder, 0, &second), MHP_ERR_TIMEOUT, "left is held by another run (unknown host and pid)", NULL);
    mhp_folder_unlock(lock);
}

static int fail_call(void *context, mhp_file_call call, const char *path, size_t *bytes)
{
    (void)path;
    (void)bytes;
    return call == *(mhp_file_call *)context ? ENOSPC : 0;
}

static void test_failures(void **state)
{
    mhp_file_call calls[] = {MHP_FILE_OPEN, MHP_FILE_WRITE};
    mhp_lock *lock = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        mhp_file_set_fault(fail_call, &calls[i]);
        assert_failed(mhp_folder_lock(scratch_path("full"), 0, &lock), MHP_ERR_IO, "full/.lock: No space left", NULL);
        mhp_file_set_fault(NULL, NULL);
        assert_null(lock);
    }
    assert_ok(mhp_folder_lock(scratch_path("full"), 0, &lock));     /* nothing holds it still */
    mhp_folder_unlock(lock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_held_by_another),
        cmocka_unit_test(test_waits),
        cmocka_unit_test(test_leftovers),
        cmocka_unit_test(test_failures),
    };

    return cmocka_run_group_tests_name("lock", tests, scratch_open, scratch_remove);
}
