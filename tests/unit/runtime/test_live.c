/* Live files: what a rank writes is what others read, at any moment; and what is refused. */
#include <math.h>
#include <sys/wait.h>
#include <time.h>

#include "core/file.h"
#include "runtime/live.h"
#include "tests/unit/runtime/folder.h"

enum { VERSION_AT = 8, SEQUENCE_AT = 16, STATE_AT = 24 };

static void pause_ms(int ms)
{
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000L};

    nanosleep(&pause, NULL);
}

static uint64_t unix_time_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static mhp_live *open_often(int rank, int size, int64_t period_ns)
{
    mhp_live_params params = {.directory = test_folder,
                              .state = {.rank = rank, .size = size, .total = 100, .first_step = 4, .done = 4, .schedule = "1f1b",
                                        .arena_bytes = 12345},
                              .period_ns = period_ns};
    mhp_live *live = NULL;

    assert_ok(mhp_live_prepare(test_folder));
    assert_ok(mhp_live_open(&params, &live));
    return live;
}

static mhp_live *open_rank(int rank, int size)
{
    return open_often(rank, size, 0);
}

static mhp_live_state read_rank(const char *name)
{
    mhp_live_state state;

    assert_ok(mhp_live_read(test_path(name), &state));
    return state;
}

static void what_a_rank_writes(void **state)
{
    mhp_device_params params = {.kind = MHP_DEVICE_CPU, .threads = 1};
    mhp_action send = {MHP_ACTION_SEND_F, 0, 3, -1, -1};
    mhp_action pair = {MHP_ACTION_OVERLAP_F_B, 2, 8, 5, 7}, found;
    mhp_device *device = NULL;
    mhp_stream *compute = NULL;
    mhp_live *live = open_rank(1, 3);
    mhp_live_state read = read_rank("live/rank-1");

    (void)state;
    assert_int_equal(read.rank, 1);
    assert_int_equal(read.size, 3);
    assert_int_equal(read.process, getpid());
    assert_int_equal(read.phase, MHP_LIVE_RUNNING);
    assert_int_equal(read.done, 4);
    assert_true(isnan(read.loss) && isnan(read.power_w) && read.action == 0);
    assert_ok(mhp_device_open(&params, &device));
    assert_ok(mhp_stream_create(device, MHP_STREAM_COMPUTE, 0, "compute", &compute));
    mhp_live_enter(live, MHP_LIVE_STEP);
    assert_ok(mhp_live_action(live, compute, &pair));
    assert_ok(mhp_live_action(live, compute, &send));
    assert_ok(mhp_stream_synchronize(compute));
    for (int i = 0; i < 100 && read.action == 0; i++) {
        pause_ms(MHP_LIVE_PERIOD_MS);
        read = read_rank("live/rank-1");
    }
    assert_int_equal(read.place, MHP_LIVE_STEP);
    assert_true(mhp_live_unpack(read.action, &found));
    assert_memory_equal(&found, &pair, sizeof pair);
    mhp_live_step(live, 5, 0.25, 0.125, 2.5, 400);
    mhp_live_close(live, MHP_LIVE_FINISHED);
    read = read_rank("live/rank-1");
    assert_int_equal(read.phase, MHP_LIVE_FINISHED);
    assert_int_equal(read.done, 5);
    assert_true(read.step_s == 0.25 && read.bubble == 0.125 && read.loss == 2.5 && read.tokens_per_s == 400);
    assert_true(read.action == 0 && read.arena_bytes == 12345);
    assert_string_equal(read.schedule, "1f1b");
    mhp_stream_destroy(compute);
    mhp_device_close(device);
}

static void without_a_file(void **state)
{
    mhp_action action = {MHP_ACTION_FORWARD, 0, 0, -1, -1};

    (void)state;
    assert_ok(mhp_live_action(NULL, NULL, &action));
    mhp_live_enter(NULL, MHP_LIVE_STEP);
    mhp_live_step(NULL, 1, 1, 1, 1, 1);
    mhp_live_close(NULL, MHP_LIVE_FINISHED);
}

static void actions_in_8_bytes(void **state)
{
    const int stages[] = {-1, 0, 1, 4095}, microbatches[] = {-1, 0, 65535};

    (void)state;
    for (int kind = 0; kind < MHP_ACTION_KIND_COUNT; kind++) {
        for (size_t i = 0; i < 4 * 3 * 4 * 3; i++) {
            mhp_action action = {(mhp_action_kind)kind, stages[i % 4], microbatches[i / 4 % 3], stages[i / 12 % 4], microbatches[i / 48]};
            mhp_action found;
            uint64_t packed = mhp_live_pack(&action);

            assert_int_equal(mhp_live_unpack(packed, &found), packed != 0);
            assert_memory_equal(&found, &action, sizeof action);
        }
    }
    assert_false(mhp_live_unpack(UINT64_MAX, &(mhp_action){0}));
}

/* A reader beside a rank that changes all the time: the parts of a state belong together. */
static void readers_see_no_half(void **state)
{
    mhp_live *live = open_often(0, 1, 1000);
    int seen = 0, status;
    pid_t reader;

    (void)state;
    mhp_live_step(live, 0, 0, 0, 0, 0);
    while (isnan(read_rank("live/rank-0").loss)) {
        pause_ms(1);
    }
    reader = fork();
    if (reader == 0) {      /* as fast as it can */
        uint64_t end_ns = unix_time_ns() + 1500000000u;
        double last = -1;

        while (unix_time_ns() < end_ns) {
            mhp_live_state found;

            if (mhp_live_read(test_path("live/rank-0"), &found) != MHP_OK) {
                fprintf(stderr, "%s\n", mhp_error_text());
                _exit(102);
            }
            if (found.step_s != found.loss || found.loss != found.bubble || (double)found.done != found.loss) {
                _exit(100);
            }
            seen += found.loss != last;
            last = found.loss;
        }
        _exit(seen > 100 ? 0 : 101);
    }
    assert_true(reader > 0);
    for (int i = 0; waitpid(reader, &status, WNOHANG) == 0; i++) {
        mhp_live_step(live, i, i, i, i, i);
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    mhp_live_close(live, MHP_LIVE_FINISHED);
}

/* ---- what is refused ---- */

static size_t read_bytes(const char *name, char *bytes)
{
    FILE *file = fopen(test_path(name), "rb");
    size_t count;

    assert_non_null(file);
    count = fread(bytes, 1, MHP_LIVE_BYTES + 1, file);
    fclose(file);
    return count;
}

static void foreign_files(void **state)
{
    char bytes[MHP_LIVE_BYTES + 1] = {0}, changed[MHP_LIVE_BYTES + 1];
    mhp_live_state read;

    (void)state;
    mhp_live_close(open_rank(0, 2), MHP_LIVE_FINISHED);
    assert_int_equal(read_bytes("live/rank-0", bytes), MHP_LIVE_BYTES);
    assert_error(mhp_live_read(test_path("live/rank-7"), &read), MHP_ERR_NOT_FOUND, "live/rank-7");
    for (size_t length = 0; length < MHP_LIVE_BYTES; length++) {        /* cut off anywhere */
        test_write("cut", bytes, length);
        assert_error(mhp_live_read(test_path("cut"), &read), MHP_ERR_FORMAT, length < 8 ? "is no live file" : "bytes: expected 512");
    }
    test_write("long", bytes, MHP_LIVE_BYTES + 1);
    assert_error(mhp_live_read(test_path("long"), &read), MHP_ERR_FORMAT, "at least 513 bytes: expected 512");
    memcpy(changed, bytes, sizeof changed);
    changed[0] = 'X';
    test_write("other", changed, MHP_LIVE_BYTES);
    assert_error(mhp_live_read(test_path("other"), &read), MHP_ERR_FORMAT, "is no live file of a rank");
    memcpy(changed, bytes, sizeof changed);
    changed[VERSION_AT] = MHP_LIVE_VERSION + 1;
    test_write("version", changed, MHP_LIVE_BYTES);
    assert_error(mhp_live_read(test_path("version"), &read), MHP_ERR_FORMAT, "is of version 3: expected 2");
    memcpy(changed, bytes, sizeof changed);
    changed[SEQUENCE_AT] = (char)(changed[SEQUENCE_AT] | 1);
    test_write("half", changed, MHP_LIVE_BYTES);
    assert_error(mhp_live_read(test_path("half"), &read), MHP_ERR_FORMAT, "half written");
}

/* No byte of the state can make a reader trust a rank, a phase or a text that is none. */
static void damaged_states(void **state)
{
    char bytes[MHP_LIVE_BYTES + 1] = {0};
    int refused = 0;

    (void)state;
    mhp_live_close(open_rank(0, 2), MHP_LIVE_FINISHED);
    read_bytes("live/rank-0", bytes);
    for (size_t at = STATE_AT; at < STATE_AT + sizeof(mhp_live_state); at++) {
        char before = bytes[at];
        mhp_live_state read;

        bytes[at] = (char)(before ^ 0x80);
        test_write("damaged", bytes, MHP_LIVE_BYTES);
        bytes[at] = before;
        if (mhp_live_read(test_path("damaged"), &read) != MHP_OK) {
            refused++;
            continue;
        }
        assert_in_range(read.rank, 0, read.size - 1);
        assert_in_range(read.phase, 0, MHP_LIVE_PHASE_COUNT - 1);
        assert_true(strlen(read.host) < MHP_LIVE_NAME_MAX && strlen(read.schedule) < MHP_LIVE_NAME_MAX);
    }
    assert_in_range(refused, 15, 40);
}

static void judging(void **state)
{
    mhp_live_state read;
    siginfo_t ended;
    pid_t child = fork();

    (void)state;
    if (child == 0) {
        _exit(0);
    }
    assert_int_equal(waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT), 0);
    mhp_live_close(open_rank(0, 1), MHP_LIVE_FAILED);
    read = read_rank("live/rank-0");
    assert_int_equal(mhp_live_judge(&read, read.beat_ns, 3), MHP_LIVE_ENDED);
    read.phase = MHP_LIVE_RUNNING;
    assert_int_equal(mhp_live_judge(&read, read.beat_ns + 2000000000u, 3), MHP_LIVE_ALIVE);
    assert_int_equal(mhp_live_judge(&read, read.beat_ns - 2000000000u, 3), MHP_LIVE_ALIVE);
    assert_int_equal(mhp_live_judge(&read, read.beat_ns + 4000000000u, 3), MHP_LIVE_SILENT);
    read.process = child;   /* ended: nobody has waited for it, then somebody has */
    assert_int_equal(mhp_live_judge(&read, read.beat_ns, 3), MHP_LIVE_DEAD);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(mhp_live_judge(&read, read.beat_ns, 3), MHP_LIVE_DEAD);
    read.processes++;       /* in another container nobody sees it */
    assert_int_equal(mhp_live_judge(&read, read.beat_ns + 2000000000u, 3), MHP_LIVE_ALIVE);
    read.processes--;
    read.node++;            /* of another machine nobody knows */
    assert_int_equal(mhp_live_judge(&read, read.beat_ns + 2000000000u, 3), MHP_LIVE_ALIVE);
    assert_int_equal(mhp_live_judge(&read, read.beat_ns + 4000000000u, 3), MHP_LIVE_SILENT);
}

/* Ranks of an earlier run with more of them must not stay. */
static void preparing_clears(void **state)
{
    (void)state;
    mhp_live_close(open_rank(7, 8), MHP_LIVE_FINISHED);
    assert_true(mhp_file_exists(test_path("live/rank-7")));
    mhp_live_close(open_rank(0, 1), MHP_LIVE_FINISHED);
    assert_false(mhp_file_exists(test_path("live/rank-7")));
}

static void no_folder(void **state)
{
    mhp_live_params params = {.directory = test_path("nowhere"), .state = {.rank = 0, .size = 1}};
    mhp_live *live = NULL;

    (void)state;
    assert_error(mhp_live_open(&params, &live), MHP_ERR_IO, "nowhere/live/rank-0: No such file");
    assert_null(live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_IN_FOLDER(what_a_rank_writes), TEST_IN_FOLDER(without_a_file),  cmocka_unit_test(actions_in_8_bytes),
        TEST_IN_FOLDER(readers_see_no_half), TEST_IN_FOLDER(foreign_files),  TEST_IN_FOLDER(damaged_states),
        TEST_IN_FOLDER(judging),            TEST_IN_FOLDER(preparing_clears), TEST_IN_FOLDER(no_folder),
    };

    return cmocka_run_group_tests_name("live", tests, NULL, NULL);
}
