/* mpirun -n P test_comm [cpu|test|cuda] [ipc]: channels, groups, agreement and the failure notice, on the CPU device, the test device, or
 * one card for all ranks, over MPI or by ipc; without a card it exits with 77.
 *
 * A check that fails ends its rank, and with it the whole launch: the others may wait for it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "comm/channel.h"
#include "comm/clock.h"
#include "comm/group.h"
#include "core/memory.h"
#include "tests/ranks/check.h"

enum { SLOTS = 3, MESSAGES = 60, MESSAGE_VALUES = 500, LONG_BYTES = 9 << 20, PATIENCE_S = 60, EXIT_SKIPPED = 77 };

typedef struct world {
    mhp_device *device;
    mhp_comm *comm;
    mhp_stream *compute;
    int rank, size;
    bool ipc;
    int channels, groups; /* ids given away */
} world;

static mhp_event *make_event(world *w)
{
    mhp_event *event = NULL;

    CHECK_OK(mhp_event_create(w->device, &event));
    return event;
}

static void wait_for(world *w, mhp_event *event)
{
    CHECK_OK(mhp_event_synchronize(event, PATIENCE_S * 1000000000ull));
}

/* Device memory may be out of the host's reach. */
static void copy_now(world *w, void *target, const void *source, size_t bytes)
{
    CHECK_OK(mhp_stream_copy(w->compute, target, source, bytes));
    CHECK_OK(mhp_stream_synchronize(w->compute));
}

static double read_value(world *w, const double *at)
{
    double value;

    copy_now(w, &value, at, sizeof value);
    return value;
}

static void write_value(world *w, double *at, double value)
{
    copy_now(w, at, &value, sizeof value);
}

/* ---- channels ---- */

typedef struct pipe_end {
    mhp_channel *channel;
    double *memory; /* [SLOTS][MESSAGE_VALUES] */
    mhp_event *done[SLOTS];
} pipe_end;

static pipe_end open_end(world *w, int source, int target, size_t bytes, int id)
{
    pipe_end end = {0};
    mhp_channel_params params = {
        .name = "test", .id = id, .source = source, .target = target, .slot_bytes = bytes, .slot_count = SLOTS, .slot_stride = bytes};

    CHECK_OK(mhp_device_alloc(w->device, SLOTS * bytes, (void **)&end.memory));
    params.slots = w->rank == target ? end.memory : NULL;
    CHECK_OK(mhp_channel_open(w->comm, &params, &end.channel));
    CHECK(strcmp(mhp_channel_transport(end.channel), w->ipc ? "ipc" : "mpi") == 0);
    for (int i = 0; i < SLOTS; i++) {
        end.done[i] = make_event(w);
    }
    return end;
}

static void close_end(world *w, pipe_end *end)
{
    for (int i = 0; i < SLOTS; i++) {
        mhp_event_destroy(end->done[i]);
    }
    mhp_channel_close(end->channel);
    mhp_device_free(w->device, end->memory);
}

static double value_of(int message, int i)
{
    return message * 1000.0 + i;
}

static void send_all(world *w, pipe_end *end)
{
    for (int m = 0; m < MESSAGES; m++) {
        double *slot = end->memory + m % SLOTS * MESSAGE_VALUES;
        double values[MESSAGE_VALUES];

        wait_for(w, end->done[m % SLOTS]);
        for (int i = 0; i < MESSAGE_VALUES; i++) {
            values[i] = value_of(m, i);
        }
        copy_now(w, slot, values, sizeof values);
        CHECK_OK(mhp_channel_send(end->channel, slot, m % SLOTS, NULL, end->done[m % SLOTS]));
    }
    for (int i = 0; i < SLOTS; i++) {
        wait_for(w, end->done[i]);
    }
}

static void receive_all(world *w, pipe_end *end)
{
    mhp_channel_stats stats;

    for (int m = 0; m < SLOTS; m++) {
        CHECK_OK(mhp_channel_receive(end->channel, m, NULL, end->done[m]));
    }
    for (int m = 0; m < MESSAGES; m++) {
        double values[MESSAGE_VALUES];

        wait_for(w, end->done[m % SLOTS]);
        copy_now(w, values, end->memory + m % SLOTS * MESSAGE_VALUES, sizeof values);
        for (int i = 0; i < MESSAGE_VALUES; i++) {
            CHECK(values[i] == value_of(m, i));
        }
        if (m + SLOTS < MESSAGES) {
            CHECK_OK(mhp_channel_receive(end->channel, m % SLOTS, NULL, end->done[m % SLOTS]));
        }
    }
    mhp_channel_get_stats(end->channel, &stats);
    CHECK(stats.messages == MESSAGES && stats.bytes == MESSAGES * MESSAGE_VALUES * sizeof(double));
}

/* Every rank sends to the next and receives from the one before, if there is another. */
static void channels_keep_their_order(world *w)
{
    int next = (w->rank + 1) % w->size, before = (w->rank + w->size - 1) % w->size;
    pipe_end out, in;

    if (w->size == 1) {
        return;
    }
    out = open_end(w, w->rank, next, MESSAGE_VALUES * sizeof(double), w->channels + w->rank);
    in = open_end(w, before, w->rank, MESSAGE_VALUES * sizeof(double), w->channels + before);
    if (w->rank % 2 == 0) { /* the host waits in here: neighbours take turns */
        send_all(w, &out);
        receive_all(w, &in);
    } else {
        receive_all(w, &in);
        send_all(w, &out);
    }
    close_end(w, &in);
    close_end(w, &out);
}

typedef struct gate_argument {
    mhp_event *arrived;
} gate_argument;

/* Holds the compute thread until the message is there; only the comm thread can bring it. */
static mhp_status wait_at_gate(void *native, const void *argument)
{
    const gate_argument *gate = argument;
    struct timespec pause = {0, 100000};
    uint64_t until_ns = mhp_time_ns() + PATIENCE_S * 1000000000ull;

    (void)native;
    while (mhp_event_query(gate->arrived) == MHP_IN_PROGRESS) {
        if (mhp_time_ns() > until_ns) {
            return mhp_error_set(MHP_ERR_TIMEOUT, "no message came while compute ran");
        }
        nanosleep(&pause, NULL);
    }
    return mhp_event_query(gate->arrived);
}

/* All ranks compute until a long message has come: so each one travels while both of its ends compute. */
static void messages_travel_while_compute_runs(world *w)
{
    int next = (w->rank + 1) % w->size, before = (w->rank + w->size - 1) % w->size;
    pipe_end out, in;
    gate_argument gate;
    char *bytes;

    if (w->size == 1 || (w->ipc && mhp_device_is_host_memory(w->device))) {     /* of the host, the compute thread is the copy engine */
        return;
    }
    out = open_end(w, w->rank, next, LONG_BYTES, w->channels + w->rank);
    in = open_end(w, before, w->rank, LONG_BYTES, w->channels + before);
    CHECK_OK(mhp_calloc(&bytes, LONG_BYTES, 1));
    CHECK_OK(mhp_stream_zero(w->compute, in.memory, LONG_BYTES));
    memset(bytes, w->rank + 1, LONG_BYTES);
    copy_now(w, out.memory, bytes, LONG_BYTES);
    gate.arrived = in.done[0];
    CHECK_OK(mhp_channel_receive(in.channel, 0, NULL, in.done[0]));
    if (mhp_device_is_host_memory(w->device)) {
        CHECK_OK(mhp_stream_submit(w->compute, wait_at_gate, &gate, sizeof gate));
    }
    CHECK_OK(mhp_channel_send(out.channel, out.memory, 0, NULL, out.done[0]));
    if (!mhp_device_is_host_memory(w->device)) { /* this thread runs the task, and it has sent */
        CHECK_OK(mhp_stream_submit(w->compute, wait_at_gate, &gate, sizeof gate));
    }
    copy_now(w, bytes, in.memory, LONG_BYTES);
    for (size_t i = 0; i < LONG_BYTES; i++) {
        CHECK(bytes[i] == before + 1);
    }
    wait_for(w, out.done[0]);
    mhp_free(bytes);
    close_end(w, &in);
    close_end(w, &out);
}

/* A send waits for the event that says its buffer is filled. */
static void sends_wait_for_their_event(world *w)
{
    bool source = w->rank == 0, target = w->rank == 1;
    mhp_event *filled = make_event(w);
    pipe_end end;

    if (w->size > 1 && (source || target)) {
        end = open_end(w, 0, 1, sizeof(double), w->channels);
        write_value(w, end.memory, -1);
        if (target) {
            CHECK_OK(mhp_channel_receive(end.channel, 0, NULL, end.done[0]));
        } else {
            CHECK_OK(mhp_event_arm(filled));
            CHECK_OK(mhp_channel_send(end.channel, end.memory, 0, filled, end.done[0]));
            CHECK(mhp_event_query(end.done[0]) == MHP_IN_PROGRESS);
            write_value(w, end.memory, 7);
            mhp_event_signal(filled, MHP_OK);
        }
        wait_for(w, end.done[0]);
        CHECK(read_value(w, end.memory) == 7);
        close_end(w, &end);
    }
    mhp_event_destroy(filled);
}

/* The ranks that wait for a late message leave the cores alone. */
static void waiting_does_not_spin(world *w)
{
    struct timespec late = {0, 600000000}, before, after;
    double used_s;
    pipe_end end;

    if (w->size == 1 || w->rank > 1) {
        return;
    }
    end = open_end(w, 0, 1, sizeof(double), w->channels);
    if (w->rank == 0) {
        write_value(w, end.memory, 1);
        nanosleep(&late, NULL);
        CHECK_OK(mhp_channel_send(end.channel, end.memory, 0, NULL, end.done[0]));
        wait_for(w, end.done[0]);
    } else {
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
        CHECK_OK(mhp_channel_receive(end.channel, 0, NULL, end.done[0]));
        wait_for(w, end.done[0]);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
        used_s = (double)(after.tv_sec - before.tv_sec) + (double)(after.tv_nsec - before.tv_nsec) * 1e-9;
        CHECK(used_s < 0.3); /* a core that spins takes all 0.6 s */
    }
    close_end(w, &end);
}

/* ---- groups ---- */

static mhp_group *open_group(world *w, const int *members, int count)
{
    mhp_group *group = NULL;

    CHECK_OK(mhp_group_open(w->comm, "test", w->groups, members, count, &group));
    CHECK(strcmp(mhp_group_transport(group), count == 1 ? "none" : w->ipc ? "ipc" : "mpi") == 0);
    return group;
}

static mhp_group *open_world_group(world *w)
{
    int members[64];

    for (int i = 0; i < w->size; i++) {
        members[i] = i;
    }
    return open_group(w, members, w->size);
}

static void groups_reduce_every_type(world *w)
{
    mhp_group *group = open_world_group(w);
    mhp_event *done = make_event(w);
    double sum = w->size * (w->size + 1) / 2.0;
    float f[3] = {(float)w->rank + 1, -(float)w->rank, 0.5f};
    double d[2] = {w->rank + 1, 1e300 * (w->rank == 0)};
    int64_t n[2] = {w->rank + 1, (int64_t)1 << 60};

    CHECK_OK(mhp_group_all_reduce(group, f, 3, MHP_DTYPE_F32, MHP_REDUCE_SUM, NULL, done));
    wait_for(w, done);
    CHECK(f[0] == (float)sum && f[1] == (float)w->size - (float)sum && f[2] == 0.5f * (float)w->size);
    CHECK_OK(mhp_group_all_reduce(group, d, 2, MHP_DTYPE_F64, MHP_REDUCE_MAX, NULL, done));
    wait_for(w, done);
    CHECK(d[0] == w->size && d[1] == 1e300);
    CHECK_OK(mhp_group_all_reduce(group, n, 2, MHP_DTYPE_I64, MHP_REDUCE_MIN, NULL, done));
    wait_for(w, done);
    CHECK(n[0] == 1 && n[1] == (int64_t)1 << 60);
    mhp_event_destroy(done);
    mhp_group_close(group);
}

static void groups_scatter_gather_and_broadcast(world *w)
{
    enum { CHUNK = 1200000 };   /* by way of the host: more than one part */
    mhp_group *group = open_world_group(w);
    mhp_event *done = make_event(w);
    size_t bytes = (size_t)w->size * CHUNK * sizeof(double);
    double *data, *values;

    CHECK_OK(mhp_device_alloc(w->device, bytes, (void **)&data));
    CHECK_OK(mhp_calloc(&values, bytes, 1));
    for (int i = 0; i < w->size * CHUNK; i++) {
        values[i] = i * (w->rank + 1.0);
    }
    copy_now(w, data, values, bytes);
    CHECK_OK(mhp_group_reduce_scatter(group, data, CHUNK, MHP_DTYPE_F64, NULL, done));
    CHECK_OK(mhp_group_all_gather(group, data, CHUNK, MHP_DTYPE_F64, done, done));
    wait_for(w, done);
    copy_now(w, values, data, bytes);
    for (int i = 0; i < w->size * CHUNK; i++) {
        CHECK(values[i] == i * (w->size * (w->size + 1) / 2.0));
    }
    mhp_free(values);
    write_value(w, data, w->rank);
    CHECK_OK(mhp_group_broadcast(group, data, sizeof *data, w->size - 1, NULL, done));
    wait_for(w, done);
    CHECK(read_value(w, data) == w->size - 1);
    write_value(w, data, w->rank);
    CHECK_OK(mhp_group_transfer(group, data, sizeof *data, w->size - 1, 0, NULL, done));
    wait_for(w, done);
    CHECK(read_value(w, data) == (w->rank == 0 ? w->size - 1 : w->rank));
    mhp_device_free(w->device, data);
    mhp_event_destroy(done);
    mhp_group_close(group);
}

/* Sums that take many pieces, and copies between them that only two ranks take part in: submitted at once, with a barrier behind them that
 * overtakes none. */
static void groups_keep_their_order(world *w)
{
    enum { VALUES = 1500001, ROUNDS = 3 };
    mhp_group *group = open_world_group(w);
    mhp_event *done[ROUNDS];
    double *data[ROUNDS], *values;

    CHECK_OK(mhp_calloc(&values, VALUES, sizeof *values));
    for (int r = 0; r < ROUNDS; r++) {
        for (int i = 0; i < VALUES; i++) {
            values[i] = i + (double)r * w->rank;
        }
        done[r] = make_event(w);
        CHECK_OK(mhp_device_alloc(w->device, VALUES * sizeof *values, (void **)&data[r]));
        copy_now(w, data[r], values, VALUES * sizeof *values);
    }
    for (int r = 0; r < ROUNDS; r++) {
        CHECK_OK(mhp_group_all_reduce(group, data[r], VALUES, MHP_DTYPE_F64, MHP_REDUCE_SUM, NULL, done[r]));
        CHECK_OK(mhp_group_transfer(group, data[r], VALUES * sizeof *values, 0, w->size - 1, done[r], done[r]));
    }
    CHECK_OK(mhp_group_barrier(group));
    for (int r = 0; r < ROUNDS; r++) {
        wait_for(w, done[r]);
        copy_now(w, values, data[r], VALUES * sizeof *values);
        for (int i = 0; i < VALUES; i++) {
            CHECK(values[i] == (double)w->size * i + r * (w->size * (w->size - 1) / 2.0));
        }
        mhp_device_free(w->device, data[r]);
        mhp_event_destroy(done[r]);
    }
    mhp_free(values);
    mhp_group_close(group);
}

/* Even and odd ranks by themselves, at the same time. */
static void groups_of_some_ranks_do_not_meet(world *w)
{
    int members[64], count = 0;
    double value = w->rank, expected = 0;
    mhp_event *done = make_event(w);
    mhp_group *group;

    for (int i = w->rank % 2; i < w->size; i += 2) {
        members[count++] = i;
        expected += i;
    }
    w->groups += w->rank % 2;
    group = open_group(w, members, count);
    w->groups += 1 - w->rank % 2;
    CHECK(mhp_group_size(group) == count && mhp_group_index(group) == w->rank / 2);
    CHECK_OK(mhp_group_all_reduce(group, &value, 1, MHP_DTYPE_F64, MHP_REDUCE_SUM, NULL, done));
    wait_for(w, done);
    CHECK(value == expected);
    CHECK_OK(mhp_group_barrier(group));
    mhp_event_destroy(done);
    mhp_group_close(group);
}

/* ---- clocks ---- */

/* All ranks of one machine have one clock, so the two times of a reading may differ by its own error alone. */
static void clocks_are_read_within_their_error(world *w)
{
    mhp_clock_reading first, second;

    CHECK_OK(mhp_comm_read_clock(w->comm, &first));
    CHECK_OK(mhp_comm_read_clock(w->comm, &second));
    CHECK(llabs(first.local_ns - first.reference_ns) <= first.error_ns);
    CHECK(llabs(second.local_ns - second.reference_ns) <= second.error_ns);
    CHECK(first.error_ns >= 0 && (w->rank > 0 || first.error_ns == 0));
    CHECK(second.local_ns > first.local_ns && second.session_ns > first.session_ns);
}

/* ---- agreement ---- */

static void ranks_agree_on_the_worst(world *w)
{
    bool mine = w->rank == w->size - 1;
    int failed = -2;
    mhp_status status;

    CHECK_OK(mhp_comm_agree(w->comm, MHP_OK, &failed));
    CHECK(failed == -1 && !mhp_comm_agreed_failure(w->comm));
    if (w->size > 1) {
        status = mine ? mhp_error_set(MHP_ERR_FORMAT, "file x: bad") : MHP_OK;
        CHECK(mhp_comm_agree(w->comm, status, &failed) == MHP_ERR_FORMAT);
        CHECK(failed == w->size - 1 && strstr(mhp_error_text(), ": file x: bad"));
        CHECK(strncmp(mhp_error_text(), "rank ", 5) == 0);
    }
    status = mhp_error_set(MHP_ERR_CONFIG, "the same everywhere");
    CHECK(mhp_comm_agree(w->comm, status, NULL) == MHP_ERR_CONFIG);
    CHECK(strcmp(mhp_error_text(), "the same everywhere") == 0);
    CHECK(mhp_comm_agreed_failure(w->comm));
}

/* ---- failures; the last case ---- */

/* What a part of a message has to wait for ends in an error: whoever waits for the message hears of it, also where a part is gone. Nobody
 * receives. */
static void a_send_that_fails_completes_its_event(world *w)
{
    enum { PARTS = 2 };
    mhp_channel_params params = {.name = "failing", .source = 0, .target = 1, .slot_bytes = 128, .slot_count = 1, .slot_stride = 128,
                                 .parts = PARTS, .part_bytes = 64};
    mhp_event *bad = make_event(w), *done = make_event(w);
    char *memory;

    if (w->rank > 0 || w->size == 1 || w->ipc || !mhp_device_is_host_memory(w->device)) {
        return;
    }
    CHECK_OK(mhp_device_alloc(w->device, params.slot_bytes, (void **)&memory));
    for (int part = 0; part < PARTS; part++) {
        mhp_event *after[PARTS] = {NULL};
        mhp_channel *channel;

        params.id = w->channels + part;
        after[part] = bad;
        CHECK_OK(mhp_channel_open(w->comm, &params, &channel));
        CHECK_OK(mhp_event_arm(bad));
        CHECK_OK(mhp_channel_send_parts(channel, memory, 0, after, done));
        CHECK(mhp_event_query(done) == MHP_IN_PROGRESS);
        mhp_error_set(MHP_ERR_NOT_FINITE, "what was to be sent is bad");
        mhp_event_signal(bad, MHP_ERR_NOT_FINITE);
        CHECK(mhp_event_synchronize(done, PATIENCE_S * 1000000000ull) == MHP_ERR_NOT_FINITE);
        CHECK(strcmp(mhp_error_text(), "what was to be sent is bad") == 0);
        mhp_channel_close(channel);
    }
    mhp_device_free(w->device, memory);
    mhp_event_destroy(done);
    mhp_event_destroy(bad);
}

/* Every later case runs in the world that this one leaves: the processes in reverse. */
static void ranks_are_numbered_anew(world *w)
{
    int wanted = w->size - 1 - w->rank;

    if (w->size > 1) {
        CHECK(mhp_comm_renumber(w->comm, 0) == MHP_ERR_INVALID);
        CHECK(strstr(mhp_error_text(), "asked for rank 0 of") && mhp_comm_agreed_failure(w->comm));
        mhp_comm_forget_failure(w->comm);
        CHECK(mhp_comm_rank(w->comm) == w->rank);
    }
    CHECK_OK(mhp_comm_renumber(w->comm, wanted));
    CHECK(mhp_comm_rank(w->comm) == wanted && mhp_comm_size(w->comm) == w->size);
    w->rank = wanted;
}

/* After the numbers are settled. */
static void the_transport_is_chosen(world *w)
{
    mhp_transport_kind kind = w->ipc ? MHP_TRANSPORT_IPC : MHP_TRANSPORT_MPI;

    CHECK_OK(mhp_comm_choose_transport(w->comm, kind));
    CHECK(w->size == 1 || mhp_comm_transport(w->comm, 0, 1) == kind);
}

int main(int argc, char **argv)
{
    static void (*const cases[])(world *) = {
        ranks_are_numbered_anew,          the_transport_is_chosen,
        channels_keep_their_order,        messages_travel_while_compute_runs, sends_wait_for_their_event,
        waiting_does_not_spin,            groups_reduce_every_type,           groups_scatter_gather_and_broadcast,
        groups_keep_their_order,          groups_of_some_ranks_do_not_meet,   clocks_are_read_within_their_error,
        ranks_agree_on_the_worst,         a_send_that_fails_completes_its_event,
    };
    const char *kind = argc > 1 ? argv[1] : "cpu";
    mhp_device_params params = {.kind = MHP_DEVICE_CPU, .threads = 1, .seed = 3};
    world world_of_rank = {0}, *w = &world_of_rank;

    params.kind = strcmp(kind, "test") == 0 ? MHP_DEVICE_TEST : strcmp(kind, "cuda") == 0 ? MHP_DEVICE_CUDA : MHP_DEVICE_CPU;
    if (mhp_device_count(params.kind) == 0) {
        printf("skipped: no card\n");
        return EXIT_SKIPPED;
    }
    w->ipc = argc > 2;
    if (mhp_device_open(&params, &w->device) != MHP_OK || mhp_comm_open(w->device, &w->comm) != MHP_OK) {
        fprintf(stderr, "%s\n", mhp_error_text());
        return 1;
    }
    w->rank = mhp_comm_rank(w->comm);
    w->size = mhp_comm_size(w->comm);
    CHECK_OK(mhp_stream_create(w->device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "compute", &w->compute));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cases[i](w);
        w->channels += w->size;
        w->groups++;
    }
    mhp_stream_destroy(w->compute);
    if (w->rank == 0) {
        printf("%zu cases on %d ranks\n", sizeof cases / sizeof *cases, w->size);
    }
    mhp_comm_close(w->comm);
    mhp_device_close(w->device);
    return 0;
}
