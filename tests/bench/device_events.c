/* What streams and events cost: device_events [cpu|cuda]. Prints the median of several rounds, in microseconds for one operation: as the
 * host that submits sees it, and as it takes in the stream. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/device.h"

enum { OPERATIONS = 100, ROUNDS = 9 };

typedef struct bench {
    mhp_device *device;
    mhp_stream *compute, *other, *comm;
    mhp_event *begin, *end, *first, *second, *gate;
} bench;

typedef mhp_status (*operation_fn)(bench *self);

static mhp_status nothing(void *native, const void *argument)
{
    (void)native;
    (void)argument;
    return MHP_OK;
}

static mhp_status record(bench *self)
{
    return mhp_event_record(self->first, self->compute);
}

static mhp_status mark(bench *self)
{
    return mhp_event_mark(self->first, self->compute);
}

static mhp_status call_host(bench *self)
{
    return mhp_stream_host_call(self->compute, nothing, NULL, 0);
}

static mhp_status go_round_by_compute(bench *self)
{
    MHP_RETURN_IF_ERROR(mhp_event_record(self->first, self->compute));
    MHP_RETURN_IF_ERROR(mhp_stream_wait(self->other, self->first));
    MHP_RETURN_IF_ERROR(mhp_event_record(self->second, self->other));
    return mhp_stream_wait(self->compute, self->second);
}

static mhp_status go_round_by_comm(bench *self)
{
    MHP_RETURN_IF_ERROR(mhp_event_record(self->first, self->compute));
    MHP_RETURN_IF_ERROR(mhp_stream_wait(self->comm, self->first));
    MHP_RETURN_IF_ERROR(mhp_event_record(self->second, self->comm));
    return mhp_stream_wait(self->compute, self->second);
}

static mhp_status wait_on_host(bench *self)
{
    MHP_RETURN_IF_ERROR(mhp_event_record(self->first, self->compute));
    return mhp_event_synchronize(self->first, 0);
}

static int compare(const void *a, const void *b)
{
    double difference = *(const double *)a - *(const double *)b;

    return (difference > 0) - (difference < 0);
}

static mhp_status run_round(bench *self, operation_fn operation, double *host_us, double *stream_us)
{
    uint64_t start_ns;

    MHP_RETURN_IF_ERROR(mhp_event_arm(self->gate));             /* half is submitted before the stream begins */
    MHP_RETURN_IF_ERROR(mhp_stream_wait(self->compute, self->gate));
    if (operation == wait_on_host) {
        mhp_event_signal(self->gate, MHP_OK);
    }
    MHP_RETURN_IF_ERROR(mhp_event_record(self->begin, self->compute));
    start_ns = mhp_time_ns();
    for (int i = 0; i < OPERATIONS; i++) {
        if (i == OPERATIONS / 2 && operation != wait_on_host) {
            *host_us = (double)(mhp_time_ns() - start_ns) / 1e3 / (OPERATIONS / 2);
            mhp_event_signal(self->gate, MHP_OK);
        }
        MHP_RETURN_IF_ERROR(operation(self));
    }
    if (operation == wait_on_host) {
        *host_us = (double)(mhp_time_ns() - start_ns) / 1e3 / OPERATIONS;
    }
    MHP_RETURN_IF_ERROR(mhp_event_record(self->end, self->compute));
    MHP_RETURN_IF_ERROR(mhp_event_synchronize(self->end, 0));
    *stream_us = (double)(mhp_event_time_ns(self->end) - mhp_event_time_ns(self->begin)) / 1e3 / OPERATIONS;
    return mhp_stream_check(self->compute);
}

static mhp_status measure(bench *self, const char *name, operation_fn operation)
{
    double host_us[ROUNDS], stream_us[ROUNDS];

    for (int i = 0; i < ROUNDS; i++) {
        MHP_RETURN_IF_ERROR(run_round(self, operation, &host_us[i], &stream_us[i]));
    }
    qsort(host_us, ROUNDS, sizeof *host_us, compare);
    qsort(stream_us, ROUNDS, sizeof *stream_us, compare);
    printf("%-42s %8.2f %8.2f\n", name, host_us[ROUNDS / 2], stream_us[ROUNDS / 2]);
    return MHP_OK;
}

static mhp_status create(bench *self, mhp_device_kind kind)
{
    mhp_device_params params = {.kind = kind, .threads = 1, .queue_items = 8192};
    mhp_event **events[] = {&self->begin, &self->end, &self->first, &self->second, &self->gate};

    MHP_RETURN_IF_ERROR(mhp_device_open(&params, &self->device));
    MHP_RETURN_IF_ERROR(mhp_stream_create(self->device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "compute", &self->compute));
    MHP_RETURN_IF_ERROR(mhp_stream_create(self->device, MHP_STREAM_COMPUTE, MHP_PRIORITY_HIGH, "other", &self->other));
    MHP_RETURN_IF_ERROR(mhp_stream_create(self->device, MHP_STREAM_COMM, MHP_PRIORITY_NORMAL, "comm", &self->comm));
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        MHP_RETURN_IF_ERROR(mhp_event_create(self->device, events[i]));
    }
    return MHP_OK;
}

static mhp_status run(bench *self, mhp_device_kind kind)
{
    MHP_RETURN_IF_ERROR(create(self, kind));
    printf("%-42s %8s %8s\n", "us an operation", "host", "stream");
    MHP_RETURN_IF_ERROR(measure(self, "record", record));
    MHP_RETURN_IF_ERROR(measure(self, "mark", mark));
    MHP_RETURN_IF_ERROR(measure(self, "host call", call_host));
    MHP_RETURN_IF_ERROR(measure(self, "round by another compute stream", go_round_by_compute));
    MHP_RETURN_IF_ERROR(measure(self, "round by a comm stream", go_round_by_comm));
    return measure(self, "record, and wait for it on the host", wait_on_host);
}

int main(int argc, char **argv)
{
    bool cuda = argc > 1 && strcmp(argv[1], "cuda") == 0;
    bench self = {0};
    mhp_status status = run(&self, cuda ? MHP_DEVICE_CUDA : MHP_DEVICE_CPU);

    if (status < 0) {
        fprintf(stderr, "device_events: %s\n", mhp_error_text());
    }
    mhp_device_close(self.device);
    return status < 0;
}
