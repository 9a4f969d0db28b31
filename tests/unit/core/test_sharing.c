/* What processes of a host share: words and memory. Runs on the test backend; `test_sharing cuda` on a card, with 77 if there is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/sharing.h"

enum { PAGE = 4096, EXIT_SKIPPED = 77, VALUES = 3000, OFFSET = 1024 };

static mhp_device_kind kind_under_test = MHP_DEVICE_TEST;

static mhp_device *open_device(mhp_device_kind kind)
{
    mhp_device_params params = {.kind = kind, .threads = 1, .seed = 5};
    mhp_device *device = NULL;

    assert_int_equal(mhp_device_open(&params, &device), MHP_OK);
    return device;
}

typedef struct bench {
    mhp_device *device;
    mhp_stream *first, *second, *comm;
    mhp_event *event, *done;
    mhp_word *word;             /* its own page */
} bench;

static mhp_stream *make_stream(mhp_device *device, mhp_stream_kind kind)
{
    mhp_stream *stream = NULL;

    assert_int_equal(mhp_stream_create(device, kind, MHP_PRIORITY_NORMAL, "test", &stream), MHP_OK);
    return stream;
}

static bench set_up(void)
{
    bench b = {.device = open_device(kind_under_test)};

    b.first = make_stream(b.device, MHP_STREAM_COMPUTE);
    b.second = make_stream(b.device, MHP_STREAM_COPY);
    b.comm = make_stream(b.device, MHP_STREAM_COMM);
    assert_int_equal(mhp_event_create(b.device, &b.event), MHP_OK);
    assert_int_equal(mhp_event_create(b.device, &b.done), MHP_OK);
    b.word = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(b.word, MAP_FAILED);
    assert_int_equal(mhp_device_pin(b.device, b.word, PAGE), MHP_OK);
    return b;
}

static void tear_down(bench *b)
{
    mhp_event_destroy(b->done);
    mhp_event_destroy(b->event);
    mhp_stream_destroy(b->comm);
    mhp_stream_destroy(b->second);
    mhp_stream_destroy(b->first);
    mhp_device_unpin(b->device, b->word);
    munmap(b->word, PAGE);
    mhp_device_close(b->device);
}

/* Long enough for a thread or a card to do what it must not. */
static void wait_a_little(void)
{
    const struct timespec pause = {0, 20000000};

    nanosleep(&pause, NULL);
}

static void streams_write_and_await_words(void **state)
{
    bench b = set_up();

    (void)state;
    assert_int_equal(mhp_stream_await_word(b.first, b.word, 2), MHP_OK);
    assert_int_equal(mhp_event_record(b.done, b.first), MHP_OK);
    assert_int_equal(mhp_stream_write_word(b.second, b.word, 1), MHP_OK);
    assert_int_equal(mhp_stream_synchronize(b.second), MHP_OK);
    wait_a_little();
    assert_int_equal(atomic_load(b.word), 1);
    assert_int_equal(mhp_event_query(b.done), MHP_IN_PROGRESS);
    assert_int_equal(mhp_stream_write_word(b.second, b.word, 3), MHP_OK);
    assert_int_equal(mhp_event_synchronize(b.done, 0), MHP_OK);
    tear_down(&b);
}

static void words_wrap_around(void **state)
{
    bench b = set_up();

    (void)state;
    atomic_store(b.word, UINT32_MAX - 1);
    assert_true(mhp_word_has_reached(b.word, UINT32_MAX - 1));
    assert_false(mhp_word_has_reached(b.word, 0));
    assert_int_equal(mhp_stream_await_word(b.first, b.word, 1), MHP_OK);
    assert_int_equal(mhp_event_record(b.done, b.first), MHP_OK);
    wait_a_little();
    assert_int_equal(mhp_event_query(b.done), MHP_IN_PROGRESS);
    atomic_store(b.word, 1);
    assert_int_equal(mhp_event_synchronize(b.done, 0), MHP_OK);
    tear_down(&b);
}

/* Streams of every kind, and the host. */
static void events_follow_words(void **state)
{
    bench b = set_up();

    (void)state;
    assert_int_equal(mhp_event_follow(b.event, b.word, 1), MHP_OK);
    assert_int_equal(mhp_event_query(b.event), MHP_IN_PROGRESS);
    assert_int_equal(mhp_event_synchronize(b.event, 1000000), MHP_ERR_TIMEOUT);
    assert_int_equal(mhp_stream_wait(b.first, b.event), MHP_OK);
    assert_int_equal(mhp_event_record(b.done, b.first), MHP_OK);
    assert_int_equal(mhp_stream_wait(b.comm, b.event), MHP_OK);
    wait_a_little();
    assert_int_equal(mhp_event_query(b.done), MHP_IN_PROGRESS);
    atomic_store(b.word, 1);
    assert_int_equal(mhp_event_synchronize(b.event, 0), MHP_OK);
    assert_int_equal(mhp_event_synchronize(b.done, 0), MHP_OK);
    assert_int_equal(mhp_stream_synchronize(b.comm), MHP_OK);
    tear_down(&b);
}

/* A wait is for what the event stood for when it was asked for, also when the event goes on to something else meanwhile. */
static void waits_are_for_the_value_before_them(void **state)
{
    bench b = set_up();

    (void)state;
    assert_int_equal(mhp_event_follow(b.event, b.word, 1), MHP_OK);
    assert_int_equal(mhp_stream_wait(b.first, b.event), MHP_OK);
    assert_int_equal(mhp_stream_wait(b.comm, b.event), MHP_OK);
    assert_int_equal(mhp_event_follow(b.event, b.word, 2), MHP_OK);
    assert_int_equal(mhp_stream_wait(b.second, b.event), MHP_OK);
    assert_int_equal(mhp_event_record(b.done, b.second), MHP_OK);
    atomic_store(b.word, 1);
    assert_int_equal(mhp_stream_synchronize(b.first), MHP_OK);
    assert_int_equal(mhp_stream_synchronize(b.comm), MHP_OK);
    wait_a_little();
    assert_int_equal(mhp_event_query(b.done), MHP_IN_PROGRESS);
    assert_int_equal(mhp_event_query(b.event), MHP_IN_PROGRESS);
    atomic_store(b.word, 2);
    assert_int_equal(mhp_event_synchronize(b.done, 0), MHP_OK);
    tear_down(&b);
}

static void an_event_that_followed_is_armed_and_recorded(void **state)
{
    bench b = set_up();

    (void)state;
    for (uint32_t value = 1; value <= 3; value++) {
        assert_int_equal(mhp_event_follow(b.event, b.word, value), MHP_OK);
        atomic_store(b.word, value);
        assert_int_equal(mhp_event_query(b.event), MHP_OK);
        assert_int_equal(mhp_event_arm(b.event), MHP_OK);
        assert_int_equal(mhp_event_query(b.event), MHP_IN_PROGRESS);
        mhp_event_signal(b.event, MHP_OK);
        assert_int_equal(mhp_event_query(b.event), MHP_OK);
        assert_int_equal(mhp_event_record(b.event, b.first), MHP_OK);
        assert_int_equal(mhp_event_synchronize(b.event, 0), MHP_OK);
    }
    tear_down(&b);
}

static void poison_completes_what_follows(void **state)
{
    bench b = set_up();

    (void)state;
    assert_int_equal(mhp_event_follow(b.event, b.word, 1), MHP_OK);
    mhp_device_poison(b.device, mhp_error_set(MHP_ERR_PEER, "rank 1: gone"));
    assert_int_equal(mhp_event_synchronize(b.event, 0), MHP_ERR_PEER);
    assert_string_equal(mhp_error_text(), "rank 1: gone");
    assert_int_equal(atomic_load(b.word), 0);
    assert_int_equal(mhp_event_follow(b.event, b.word, 2), MHP_ERR_PEER);
    assert_int_equal(mhp_event_query(b.event), MHP_ERR_PEER);
    tear_down(&b);
}

/* ---- two processes ---- */

typedef struct note {
    mhp_shared_name name;
    size_t offset;
} note;

static float value_of(int i)
{
    return 0.5f * (float)i - 7;
}

/* Writes into the memory that the parent names. */
static int run_child(int from_parent)
{
    mhp_device_params params = {.kind = kind_under_test, .threads = 1};
    mhp_device *device = NULL;
    mhp_stream *stream = NULL;
    void *memory = NULL;
    float values[VALUES];
    note heard;
    bool good;

    if (read(from_parent, &heard, sizeof heard) != (ssize_t)sizeof heard) {
        return 2;
    }
    for (int i = 0; i < VALUES; i++) {
        values[i] = value_of(i);
    }
    good = mhp_device_open(&params, &device) == MHP_OK && mhp_device_attach(device, &heard.name, &memory) == MHP_OK &&
           mhp_stream_create(device, MHP_STREAM_COPY, MHP_PRIORITY_NORMAL, "test", &stream) == MHP_OK &&
           mhp_stream_copy(stream, (char *)memory + heard.offset, values, sizeof values) == MHP_OK &&
           mhp_stream_synchronize(stream) == MHP_OK;
    if (!good) {
        fprintf(stderr, "child: %s\n", mhp_error_text());
    }
    mhp_stream_destroy(stream);
    mhp_device_detach(device, memory);
    mhp_device_close(device);
    return good ? 0 : 1;
}

static void another_process_writes_into_memory(void **state)
{
    mhp_device *device;
    mhp_stream *stream;
    char *memory;
    float values[VALUES];
    note told;
    int pipes[2], status;
    pid_t child;

    (void)state;
    assert_int_equal(pipe(pipes), 0);
    child = fork();             /* before this process opens a card */
    if (child == 0) {
        _exit(run_child(pipes[0]));
    }
    device = open_device(kind_under_test);
    stream = make_stream(device, MHP_STREAM_COMPUTE);
    assert_int_equal(mhp_device_alloc(device, OFFSET + sizeof values, (void **)&memory), MHP_OK);
    memset(&told, 0, sizeof told);
    assert_int_equal(mhp_device_share(device, memory + OFFSET, &told.name, &told.offset), MHP_OK);
    assert_int_equal(told.offset, OFFSET);
    assert_int_equal(write(pipes[1], &told, sizeof told), sizeof told);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(mhp_stream_copy(stream, values, memory + OFFSET, sizeof values), MHP_OK);
    assert_int_equal(mhp_stream_synchronize(stream), MHP_OK);
    for (int i = 0; i < VALUES; i++) {
        assert_true(values[i] == value_of(i));
    }
    mhp_stream_destroy(stream);
    mhp_device_free(device, memory);
    mhp_device_close(device);
    close(pipes[0]);
    close(pipes[1]);
}

static void what_cannot_be_shared_is_refused(void **state)
{
    mhp_device *device = open_device(MHP_DEVICE_CPU);
    mhp_device *sharing = open_device(kind_under_test);
    mhp_shared_name name;
    size_t offset;
    void *memory;
    int local = 0;

    (void)state;
    assert_false(mhp_device_can_share(device));
    assert_true(mhp_device_can_share(sharing));
    assert_int_equal(mhp_device_alloc(device, 100, &memory), MHP_OK);
    assert_int_equal(mhp_device_share(device, memory, &name, &offset), MHP_ERR_UNSUPPORTED);
    assert_int_equal(mhp_device_share(sharing, &local, &name, &offset), MHP_ERR_INVALID);
    mhp_device_free(device, memory);
    mhp_device_close(sharing);
    mhp_device_close(device);
}

/* By a child, since a process that opened a card cannot fork. */
static bool has_card(void)
{
    pid_t child = fork();
    int status = 0;

    if (child == 0) {
        mhp_device_params params = {.kind = MHP_DEVICE_CUDA, .threads = 1};
        mhp_device *device = NULL;

        _exit(mhp_device_open(&params, &device) == MHP_OK ? 0 : 1);
    }
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_process_writes_into_memory),   /* the first: it forks */
        cmocka_unit_test(streams_write_and_await_words),
        cmocka_unit_test(words_wrap_around),
        cmocka_unit_test(events_follow_words),
        cmocka_unit_test(waits_are_for_the_value_before_them),
        cmocka_unit_test(an_event_that_followed_is_armed_and_recorded),
        cmocka_unit_test(poison_completes_what_follows),
        cmocka_unit_test(what_cannot_be_shared_is_refused),
    };

    if (argc > 1 && strcmp(argv[1], "cuda") == 0) {
        kind_under_test = MHP_DEVICE_CUDA;
        if (!has_card()) {
            printf("skipped: no card\n");
            return EXIT_SKIPPED;
        }
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
