/* What can be seen of NCCL on one card: a communicator of one rank begins without blocking, and sums. Exits with 77 without a card or without libnccl. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "comm/nccl/nccl_link.h"

enum { VALUES = 1000, EXIT_SKIPPED = 77 };

typedef struct bench {
    mhp_device *device;
    mhp_comm *comm;
    mhp_stream *stream;
    mhp_nccl_link link;
    float *values;
} bench;

static bench set_up(void)
{
    mhp_device_params params = {.kind = MHP_DEVICE_CUDA, .threads = 1};
    bench b = {0};

    assert_int_equal(mhp_device_open(&params, &b.device), MHP_OK);
    assert_int_equal(mhp_comm_open(b.device, &b.comm), MHP_OK);
    assert_int_equal(mhp_comm_choose_transport(b.comm, MHP_TRANSPORT_AUTO), MHP_OK);
    assert_int_equal(mhp_stream_create(b.device, MHP_STREAM_COPY, MHP_PRIORITY_NORMAL, "test", &b.stream), MHP_OK);
    assert_int_equal(mhp_device_alloc(b.device, VALUES * sizeof(float), (void **)&b.values), MHP_OK);
    return b;
}

static void begin(bench *b)
{
    const struct timespec pause = {0, 1000000};
    mhp_status status;

    b->link.size = 1;
    assert_int_equal(mhp_nccl_link_init(&b->link, b->comm, "test"), MHP_OK);
    assert_int_equal(mhp_nccl_link_make_id(&b->link), MHP_OK);
    assert_int_equal(mhp_nccl_link_begin(&b->link), MHP_OK);
    while ((status = mhp_nccl_link_poll(&b->link)) == MHP_IN_PROGRESS) {
        nanosleep(&pause, NULL);
    }
    assert_int_equal(status, MHP_OK);
}

static void tear_down(bench *b)
{
    mhp_nccl_link_close(&b->link);
    mhp_stream_destroy(b->stream);
    mhp_device_free(b->device, b->values);
    mhp_comm_close(b->comm);
    mhp_device_close(b->device);
}

static ncclResult_t sum(const mhp_nccl_link *link, cudaStream_t stream, const void *argument)
{
    void *values;

    __builtin_memcpy(&values, argument, sizeof values);
    return link->api->all_reduce(values, values, VALUES, ncclFloat32, ncclSum, link->comm, stream);
}

typedef struct sum_task {
    mhp_nccl_link *link;
    float *values;
} sum_task;

static mhp_status submit_sum(void *native, const void *argument)
{
    const sum_task *task = argument;

    return mhp_nccl_link_run(task->link, sum, native, &task->values);
}

static void one_rank_sums(void **state)
{
    bench b = set_up();
    sum_task task = {&b.link, b.values};
    float values[VALUES];

    (void)state;
    begin(&b);
    for (int i = 0; i < VALUES; i++) {
        values[i] = (float)i;
    }
    assert_int_equal(mhp_stream_copy(b.stream, b.values, values, sizeof values), MHP_OK);
    assert_int_equal(mhp_stream_submit(b.stream, submit_sum, &task, sizeof task), MHP_OK);
    assert_int_equal(mhp_stream_copy(b.stream, values, b.values, sizeof values), MHP_OK);
    assert_int_equal(mhp_stream_synchronize(b.stream), MHP_OK);
    for (int i = 0; i < VALUES; i++) {
        assert_true(values[i] == (float)i);
    }
    tear_down(&b);
}

static int run_link_tests(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_rank_sums)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    mhp_device_params params = {.kind = MHP_DEVICE_CUDA, .threads = 1};
    mhp_device *device = NULL;
    bool usable = mhp_device_open(&params, &device) == MHP_OK && mhp_nccl_find();

    mhp_device_close(device);
    if (!usable) {
        printf("skipped: no card, or no libnccl\n");
        return EXIT_SKIPPED;
    }
    return run_link_tests();
}
