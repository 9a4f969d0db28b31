/* What only a card shows: kernels beside each other, times, work that fails after it was submitted. Exits with 77 without a card. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cuda_runtime.h>

extern "C" {
#include <cmocka.h>

#include "core/device.h"
}

enum { MILLISECOND_NS = 1000000, CLOCK_ERROR_NS = 20000, EXIT_SKIPPED = 77 };
static const uint64_t PATIENCE_NS = 10000000000ull;

static mhp_device *open_card(void)
{
    mhp_device_params params = {};
    mhp_device *device = NULL;

    params.kind = MHP_DEVICE_CUDA;
    if (mhp_device_open(&params, &device) != MHP_OK) {
        printf("skipped: %s\n", mhp_error_text());
    }
    return device;
}

static mhp_stream *make_stream(mhp_device *device, mhp_stream_kind kind)
{
    mhp_stream *stream = NULL;

    assert_int_equal(mhp_stream_create(device, kind, MHP_PRIORITY_NORMAL, "test", &stream), MHP_OK);
    return stream;
}

static mhp_event *make_event(mhp_device *device)
{
    mhp_event *event = NULL;

    assert_int_equal(mhp_event_create(device, &event), MHP_OK);
    return event;
}

/* ---- tasks ---- */

static __global__ void spin(uint64_t duration_ns)
{
    uint64_t start_ns, now_ns;

    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start_ns));
    do {
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now_ns));
    } while (now_ns - start_ns < duration_ns);
}

static __global__ void add_one(int *value)
{
    *value += 1;
}

static __global__ void write_nowhere(int **nowhere)
{
    **nowhere = 1;
}

/* Every block stays until all have had the time to begin, and says where it runs. */
static __global__ void note_processors(unsigned char *seen)
{
    unsigned processor;
    uint64_t start_ns, now_ns;

    asm volatile("mov.u32 %0, %%smid;" : "=r"(processor));
    seen[processor] = 1;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start_ns));
    do {
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now_ns));
    } while (now_ns - start_ns < 2 * MILLISECOND_NS);
}

static mhp_status run_note_processors(void *native, const void *argument)
{
    note_processors<<<4096, 32, 0, (cudaStream_t)native>>>(*(unsigned char *const *)argument);
    return cudaGetLastError() == cudaSuccess ? MHP_OK : MHP_ERR_DEVICE;
}

static mhp_status run_spin(void *native, const void *argument)
{
    spin<<<1, 1, 0, (cudaStream_t)native>>>(*(const uint64_t *)argument);
    return cudaGetLastError() == cudaSuccess ? MHP_OK : MHP_ERR_DEVICE;
}

static mhp_status run_add_one(void *native, const void *argument)
{
    add_one<<<1, 1, 0, (cudaStream_t)native>>>(*(int *const *)argument);
    return cudaGetLastError() == cudaSuccess ? MHP_OK : MHP_ERR_DEVICE;
}

static mhp_status run_write_nowhere(void *native, const void *argument)
{
    write_nowhere<<<1, 1, 0, (cudaStream_t)native>>>(*(int **const *)argument);
    return cudaGetLastError() == cudaSuccess ? MHP_OK : MHP_ERR_DEVICE;
}

static void submit_spin(mhp_stream *stream, uint64_t duration_ns)
{
    assert_int_equal(mhp_stream_submit(stream, run_spin, &duration_ns, sizeof duration_ns), MHP_OK);
}

/* That 5 ms passed between two complete events, on the host's clock, since `before_ns`. */
static void assert_spun(const mhp_event *begin, const mhp_event *end, uint64_t before_ns)
{
    uint64_t spun_ns = mhp_event_time_ns(end) - mhp_event_time_ns(begin);

    assert_in_range(spun_ns, 4900000, 7000000);
    assert_true(mhp_event_time_ns(begin) + CLOCK_ERROR_NS >= before_ns);
    assert_true(mhp_event_time_ns(end) <= mhp_time_ns() + CLOCK_ERROR_NS);
}

/* ---- cases ---- */

static void times_are_those_of_the_card_on_the_host_clock(void **state)
{
    mhp_device *device = open_card();
    mhp_stream *stream = make_stream(device, MHP_STREAM_COMPUTE);
    mhp_event *begin = make_event(device), *end = make_event(device);

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct timespec pause = {1, 100000000};     /* the clocks are compared anew */
        uint64_t before_ns = mhp_time_ns();

        assert_int_equal(mhp_event_record(begin, stream), MHP_OK);
        submit_spin(stream, 5 * MILLISECOND_NS);
        assert_int_equal(mhp_event_record(end, stream), MHP_OK);
        assert_int_equal(mhp_event_query(end), MHP_IN_PROGRESS);
        assert_int_equal(mhp_event_synchronize(end, PATIENCE_NS), MHP_OK);
        assert_spun(begin, end, before_ns);
        if (i < 2) {
            nanosleep(&pause, NULL);
        }
    }
    mhp_event_destroy(begin);
    mhp_event_destroy(end);
    mhp_device_close(device);
}

static void marks_keep_the_time_alone(void **state)
{
    mhp_device *device = open_card();
    mhp_stream *stream = make_stream(device, MHP_STREAM_COMPUTE);
    mhp_event *begin = make_event(device), *end = make_event(device);

    (void)state;
    for (int i = 0; i < 2; i++) {
        uint64_t before_ns = mhp_time_ns();

        assert_int_equal(mhp_event_mark(begin, stream), MHP_OK);
        submit_spin(stream, 5 * MILLISECOND_NS);
        assert_int_equal(mhp_event_mark(end, stream), MHP_OK);
        assert_int_equal(mhp_stream_synchronize(stream), MHP_OK);
        assert_spun(begin, end, before_ns);
    }
    mhp_event_destroy(begin);
    mhp_event_destroy(end);
    mhp_device_close(device);
}

/* The multiprocessors that a stream's kernel ran on. */
static int count_processors(mhp_device *device, mhp_stream *stream)
{
    enum { PROCESSORS_MAX = 1024 };
    unsigned char seen[PROCESSORS_MAX];
    void *on_card = NULL;
    int count = 0;

    assert_int_equal(mhp_device_alloc(device, PROCESSORS_MAX, &on_card), MHP_OK);
    assert_int_equal(mhp_stream_zero(stream, on_card, PROCESSORS_MAX), MHP_OK);
    assert_int_equal(mhp_stream_submit(stream, run_note_processors, &on_card, sizeof on_card), MHP_OK);
    assert_int_equal(mhp_stream_copy(stream, seen, on_card, PROCESSORS_MAX), MHP_OK);
    assert_int_equal(mhp_stream_synchronize(stream), MHP_OK);
    mhp_device_free(device, on_card);
    for (int i = 0; i < PROCESSORS_MAX; i++) {
        count += seen[i];
    }
    return count;
}

static void a_sparing_stream_keeps_to_its_part(void **state)
{
    mhp_device *device = open_card();
    mhp_stream *whole = make_stream(device, MHP_STREAM_COMPUTE), *sparing = NULL, *again = NULL;
    mhp_event *event = make_event(device);
    int count = count_processors(device, whole), left;

    (void)state;
    assert_true(count > 16);
    assert_int_equal(mhp_stream_create_sparing(device, 12, "sparing", &sparing), MHP_OK);
    assert_int_equal(mhp_stream_create_sparing(device, 12, "again", &again), MHP_OK);
    left = count_processors(device, sparing);
    assert_in_range(left, count - 12 - 8, count - 12);
    assert_int_equal(count_processors(device, again), left);
    assert_int_equal(count_processors(device, whole), count);
    assert_int_equal(mhp_stream_create_spared(device, 12, "spared", &again), MHP_OK);
    assert_int_equal(count_processors(device, again), count - left);

    /* Events order streams of both kinds, and keep the time. */
    submit_spin(sparing, 20 * MILLISECOND_NS);
    assert_int_equal(mhp_event_record(event, sparing), MHP_OK);
    assert_int_equal(mhp_stream_wait(whole, event), MHP_OK);
    assert_int_equal(mhp_stream_synchronize(whole), MHP_OK);
    assert_int_equal(mhp_event_query(event), MHP_OK);
    assert_true(mhp_event_time_ns(event) <= mhp_time_ns() + CLOCK_ERROR_NS);

    assert_int_equal(mhp_stream_create_sparing(device, 1000, "all", &again), MHP_ERR_INVALID);
    assert_non_null(strstr(mhp_error_text(), "1000 multiprocessors to spare"));
    mhp_event_destroy(event);
    mhp_device_close(device);
}

/* Busy time leaves out what a stream waits for the host and for copy streams. */
static void waiting_is_not_work(void **state)
{
    mhp_device *device = open_card();
    mhp_stream *stream = make_stream(device, MHP_STREAM_COMPUTE), *other = make_stream(device, MHP_STREAM_COPY);
    mhp_event *gate = make_event(device), *event = make_event(device);
    struct timespec pause = {0, 20 * MILLISECOND_NS};
    uint64_t start_ns, busy_ns, waited_ns;

    (void)state;
    submit_spin(stream, MILLISECOND_NS);            /* modules are loaded */
    submit_spin(other, MILLISECOND_NS);
    assert_int_equal(mhp_stream_synchronize(stream), MHP_OK);
    assert_int_equal(mhp_stream_synchronize(other), MHP_OK);
    busy_ns = mhp_stream_busy_ns(stream);
    start_ns = mhp_time_ns();
    assert_int_equal(mhp_event_arm(gate), MHP_OK);
    assert_int_equal(mhp_stream_wait(stream, gate), MHP_OK);
    submit_spin(other, 30 * MILLISECOND_NS);
    assert_int_equal(mhp_event_record(event, other), MHP_OK);
    assert_int_equal(mhp_stream_wait(stream, event), MHP_OK);
    submit_spin(stream, 10 * MILLISECOND_NS);
    nanosleep(&pause, NULL);
    mhp_event_signal(gate, MHP_OK);
    assert_int_equal(mhp_stream_synchronize(stream), MHP_OK);
    busy_ns = mhp_stream_busy_ns(stream) - busy_ns;
    waited_ns = mhp_time_ns() - start_ns - busy_ns;
    assert_in_range(waited_ns, 28 * MILLISECOND_NS, 33 * MILLISECOND_NS);
    assert_in_range(busy_ns, 10 * MILLISECOND_NS, 15 * MILLISECOND_NS);
    mhp_event_destroy(gate);
    mhp_event_destroy(event);
    mhp_device_close(device);
}

/* Kernels of two streams alternate on one value, by events of the card and by those of the comm thread. */
static void kernels_follow_events(void **state)
{
    enum { ROUNDS = 200 };
    mhp_device *device = open_card();
    mhp_stream *streams[] = {make_stream(device, MHP_STREAM_COMPUTE), make_stream(device, MHP_STREAM_COMM),
                             make_stream(device, MHP_STREAM_COMPUTE)};
    mhp_event *events[] = {make_event(device), make_event(device), make_event(device)};
    int *value, *host;

    (void)state;
    assert_int_equal(mhp_device_alloc(device, sizeof *value, (void **)&value), MHP_OK);
    assert_int_equal(mhp_device_alloc_host(device, sizeof *host, (void **)&host), MHP_OK);
    assert_int_equal(mhp_stream_zero(streams[0], value, sizeof *value), MHP_OK);
    for (int i = 0; i < 3 * ROUNDS; i++) {
        assert_int_equal(mhp_stream_wait(streams[i % 3], events[(i + 2) % 3]), MHP_OK);
        if (i % 3 != 1) {
            assert_int_equal(mhp_stream_submit(streams[i % 3], run_add_one, &value, sizeof value), MHP_OK);
        }
        assert_int_equal(mhp_event_record(events[i % 3], streams[i % 3]), MHP_OK);
    }
    assert_int_equal(mhp_stream_copy(streams[2], host, value, sizeof *host), MHP_OK);
    assert_int_equal(mhp_stream_synchronize(streams[2]), MHP_OK);
    assert_int_equal(*host, 2 * ROUNDS);
    for (int i = 0; i < 3; i++) {
        mhp_event_destroy(events[i]);
    }
    mhp_device_free_host(device, host);
    mhp_device_free(device, value);
    mhp_device_close(device);
}

/* More is asked for than the card has: said with what it has. */
static void a_refusal_names_what_is_free(void **state)
{
    mhp_device *device = open_card();
    size_t left, total;
    void *memory = NULL;

    (void)state;
    assert_int_equal(mhp_device_memory(device, &left, &total), MHP_OK);
    assert_int_equal(mhp_device_alloc(device, total + 1, &memory), MHP_ERR_NO_MEMORY);
    assert_non_null(strstr(mhp_error_text(), "are free"));
    assert_non_null(strstr(mhp_error_text(), "cuda:0"));
    mhp_device_close(device);
}

/* Last: the process has no card after it. Comm streams and host wake up, nothing hangs. */
static void a_kernel_that_fails_ends_every_wait(void **state)
{
    mhp_device *device = open_card();
    mhp_stream *stream = make_stream(device, MHP_STREAM_COMPUTE), *comm = make_stream(device, MHP_STREAM_COMM);
    mhp_event *event = make_event(device), *after = make_event(device);
    int **nowhere = (int **)(uintptr_t)8;
    uint64_t start_ns;

    (void)state;
    assert_int_equal(mhp_stream_submit(stream, run_write_nowhere, &nowhere, sizeof nowhere), MHP_OK);
    (void)mhp_event_record(event, stream);
    (void)mhp_stream_wait(comm, event);
    (void)mhp_event_record(after, comm);
    start_ns = mhp_time_ns();
    assert_int_equal(mhp_event_synchronize(after, PATIENCE_NS), MHP_ERR_DEVICE);
    assert_true(mhp_time_ns() - start_ns < PATIENCE_NS / 10);
    printf("%s\n", mhp_error_text());
    assert_non_null(strstr(mhp_error_text(), "cuda:0"));
    assert_non_null(strstr(mhp_error_text(), "illegal"));
    assert_int_equal(mhp_stream_check(stream), MHP_ERR_DEVICE);
    assert_int_equal(mhp_stream_synchronize(stream), MHP_ERR_DEVICE);
    assert_int_equal(mhp_stream_synchronize(comm), MHP_ERR_DEVICE);
    mhp_event_destroy(event);
    mhp_event_destroy(after);
    mhp_device_close(device);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_those_of_the_card_on_the_host_clock),
        cmocka_unit_test(marks_keep_the_time_alone),
        cmocka_unit_test(a_sparing_stream_keeps_to_its_part),
        cmocka_unit_test(waiting_is_not_work),
        cmocka_unit_test(kernels_follow_events),
        cmocka_unit_test(a_refusal_names_what_is_free),
    };
    const struct CMUnitTest fault[] = {cmocka_unit_test(a_kernel_that_fails_ends_every_wait)};
    mhp_device *device = open_card();

    if (!device) {
        return EXIT_SKIPPED;
    }
    mhp_device_close(device);
    /* A sanitizer calls the planted fault one. */
    if (argc > 1 && strcmp(argv[1], "clean") == 0) {
        return cmocka_run_group_tests(tests, NULL, NULL);
    }
    return cmocka_run_group_tests(tests, NULL, NULL) + cmocka_run_group_tests(fault, NULL, NULL);
}
