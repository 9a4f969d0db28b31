/* mpirun -n RANKS edges cpu|test|cuda ipc|nccl|mpi [BYTES ...]: what a message of each size costs between two ranks, all pairs at a time.
 * `alone`: half of a round trip, the time until the receiver's compute stream may read the message; `many`: one after the other, as many as
 * there are slots under way; `sum`: an all-reduction of as many bytes over all ranks. Beside them what MPI itself takes for them from host
 * memory to host memory, where a thread does nothing but wait: half of a round trip, and a sum. Medians of several rounds, on the first
 * rank. The ranks of a host take its cards in turns. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/channel.h"
#include "comm/group.h"
#include "core/environment.h"
#include "core/memory.h"

enum { RANKS_MAX = 16, SLOTS = 2, ROUNDS = 5, LARGEST_SHIFT = 28, SMALLEST_SHIFT = 10, EXIT_SKIPPED = 77 };

typedef struct bench {
    mhp_device *device;
    mhp_comm *comm;
    mhp_stream *compute, *plain;    /* `plain`: the comm thread's, which calls MPI itself */
    mhp_group *all;
    int rank, peer;                 /* an even rank and the one behind it */
    size_t bytes;
    mhp_channel *out, *in;
    char *sent, *slots;             /* [bytes], [SLOTS][bytes] */
    char *host;                     /* [bytes], of the plain calls */
    mhp_event *given[SLOTS], *taken[SLOTS], *there[SLOTS], *read[SLOTS];
} bench;

static mhp_status open_channels(bench *b)
{
    mhp_channel *channels[2];

    for (int i = 0; i < 2; i++) {
        int source = (b->rank & ~1) + i;
        mhp_channel_params params = {.name = i == 0 ? "there" : "back", .id = source, .source = source, .target = source ^ 1, .slot_bytes = b->bytes,
                                     .slot_count = SLOTS, .slot_stride = b->bytes, .slots = source == b->rank ? NULL : b->slots};

        MHP_RETURN_IF_ERROR(mhp_channel_open(b->comm, &params, source == b->rank ? &b->out : &b->in));
    }
    channels[0] = b->out;
    channels[1] = b->in;
    return mhp_channels_connect(channels, 2);
}

static mhp_status open_size(bench *b)
{
    MHP_RETURN_IF_ERROR(mhp_device_alloc(b->device, b->bytes, (void **)&b->sent));
    MHP_RETURN_IF_ERROR(mhp_calloc(&b->host, b->bytes, 1));
    MHP_RETURN_IF_ERROR(mhp_device_alloc(b->device, SLOTS * b->bytes, (void **)&b->slots));
    for (int i = 0; i < SLOTS; i++) {
        MHP_RETURN_IF_ERROR(mhp_event_create(b->device, &b->given[i]));
        MHP_RETURN_IF_ERROR(mhp_event_create(b->device, &b->taken[i]));
        MHP_RETURN_IF_ERROR(mhp_event_create(b->device, &b->there[i]));
        MHP_RETURN_IF_ERROR(mhp_event_create(b->device, &b->read[i]));
    }
    return open_channels(b);
}

static void close_size(bench *b)
{
    mhp_channel_close(b->out);
    mhp_channel_close(b->in);
    for (int i = 0; i < SLOTS; i++) {
        mhp_event_destroy(b->given[i]);
        mhp_event_destroy(b->taken[i]);
        mhp_event_destroy(b->there[i]);
        mhp_event_destroy(b->read[i]);
    }
    mhp_free(b->host);
    mhp_device_free(b->device, b->sent);
    mhp_device_free(b->device, b->slots);
}

static mhp_status submit_send(bench *b, int message)
{
    int slot = message % SLOTS;

    MHP_RETURN_IF_ERROR(mhp_event_record(b->given[slot], b->compute));
    return mhp_channel_send(b->out, b->sent, slot, b->given[slot], b->taken[slot]);
}

static mhp_status submit_receive(bench *b, int message)
{
    int slot = message % SLOTS;

    MHP_RETURN_IF_ERROR(mhp_channel_receive(b->in, slot, b->read[slot], b->there[slot]));
    MHP_RETURN_IF_ERROR(mhp_stream_wait(b->compute, b->there[slot]));
    return mhp_event_record(b->read[slot], b->compute);
}

/* Every message goes there and back before the next. */
static mhp_status run_alone(bench *b, int count)
{
    for (int m = 0; m < count; m++) {
        if (b->rank < b->peer) {
            MHP_RETURN_IF_ERROR(submit_send(b, m));
            MHP_RETURN_IF_ERROR(submit_receive(b, m));
        } else {
            MHP_RETURN_IF_ERROR(submit_receive(b, m));
            MHP_RETURN_IF_ERROR(submit_send(b, m));
        }
    }
    return MHP_OK;
}

static mhp_status run_many(bench *b, int count)
{
    for (int m = 0; m < count; m++) {
        MHP_RETURN_IF_ERROR(b->rank < b->peer ? submit_send(b, m) : submit_receive(b, m));
    }
    return MHP_OK;
}

static mhp_status run_sums(bench *b, int count)
{
    for (int m = 0; m < count; m++) {
        MHP_RETURN_IF_ERROR(mhp_event_record(b->given[0], b->compute));
        MHP_RETURN_IF_ERROR(mhp_group_all_reduce(b->all, b->sent, (int64_t)(b->bytes / sizeof(float)), MHP_DTYPE_F32, MHP_REDUCE_SUM,
                                                 b->given[0], b->there[0]));
        MHP_RETURN_IF_ERROR(mhp_stream_wait(b->compute, b->there[0]));
    }
    return MHP_OK;
}

/* ---- the same by MPI alone ---- */

typedef struct plain_call {
    const bench *bench;
    int count;
} plain_call;

static mhp_status ping(void *native, const void *argument)
{
    const plain_call *call = argument;
    const bench *b = call->bench;

    (void)native;
    for (int step = 0; step < 2 * call->count; step++) {
        if (b->rank % 2 == step % 2) {
            MPI_Send(b->host, (int)b->bytes, MPI_BYTE, b->peer, 0, MPI_COMM_WORLD);
        } else {
            MPI_Recv(b->host, (int)b->bytes, MPI_BYTE, b->peer, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        }
    }
    return MHP_OK;
}

static mhp_status sum(void *native, const void *argument)
{
    const plain_call *call = argument;
    const bench *b = call->bench;

    (void)native;
    for (int i = 0; i < call->count; i++) {
        MPI_Allreduce(MPI_IN_PLACE, b->host, (int)(b->bytes / sizeof(float)), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    }
    return MHP_OK;
}

static mhp_status run_plain(bench *b, mhp_task_fn task, int count)
{
    plain_call call = {b, count};

    MHP_RETURN_IF_ERROR(mhp_stream_host_call(b->plain, task, &call, sizeof call));
    return mhp_stream_synchronize(b->plain);
}

static mhp_status run_ping(bench *b, int count)
{
    return run_plain(b, ping, count);
}

static mhp_status run_plain_sums(bench *b, int count)
{
    return run_plain(b, sum, count);
}

/* ---- measuring ---- */

static mhp_status finish(bench *b)
{
    MHP_RETURN_IF_ERROR(mhp_stream_synchronize(b->compute));
    for (int i = 0; i < SLOTS; i++) {
        MHP_RETURN_IF_ERROR(mhp_event_synchronize(b->taken[i], 0));
    }
    return mhp_group_barrier(b->all);
}

static int compare(const void *a, const void *b)
{
    double difference = *(const double *)a - *(const double *)b;

    return (difference > 0) - (difference < 0);
}

/* The median round's time of one message; the first round warms up. */
static mhp_status measure(bench *b, mhp_status (*run)(bench *b, int count), int count, double *us_out)
{
    double rounds[ROUNDS + 1];

    for (int round = 0; round <= ROUNDS; round++) {
        uint64_t start_ns;

        MHP_RETURN_IF_ERROR(mhp_group_barrier(b->all));
        start_ns = mhp_time_ns();
        MHP_RETURN_IF_ERROR(run(b, count));
        MHP_RETURN_IF_ERROR(finish(b));
        rounds[round] = (double)(mhp_time_ns() - start_ns) / 1e3 / count;
    }
    qsort(rounds + 1, ROUNDS, sizeof *rounds, compare);
    *us_out = rounds[1 + ROUNDS / 2];
    return MHP_OK;
}

static mhp_status run_size(bench *b)
{
    int many = b->bytes >= (size_t)64 << 20 ? 8 : 64;
    double alone_us, many_us, sum_us, ping_us, plain_us;

    MHP_RETURN_IF_ERROR(open_size(b));
    MHP_RETURN_IF_ERROR(mhp_stream_zero(b->compute, b->sent, b->bytes));
    MHP_RETURN_IF_ERROR(measure(b, run_alone, many / 4, &alone_us));
    MHP_RETURN_IF_ERROR(measure(b, run_ping, many / 4, &ping_us));
    MHP_RETURN_IF_ERROR(measure(b, run_many, many, &many_us));
    MHP_RETURN_IF_ERROR(measure(b, run_sums, many / 4, &sum_us));
    MHP_RETURN_IF_ERROR(measure(b, run_plain_sums, many / 4, &plain_us));
    if (b->rank == 0) {
        printf("%10zu %12.1f %12.1f %8.2f %12.1f %12.1f %12.1f\n", b->bytes, alone_us / 2, many_us, (double)b->bytes / many_us / 1e3,
               ping_us / 2, sum_us, plain_us);
        fflush(stdout);
    }
    close_size(b);
    return MHP_OK;
}

static mhp_status join(bench *b, const char *kind, const char *transport)
{
    int members[RANKS_MAX], ranks;
    const char *local = getenv("OMPI_COMM_WORLD_LOCAL_RANK");
    mhp_device_params params = {.kind = MHP_DEVICE_CPU, .threads = 1, .seed = 1};
    mhp_transport_kind chosen = strcmp(transport, "ipc") == 0    ? MHP_TRANSPORT_IPC
                                : strcmp(transport, "nccl") == 0 ? MHP_TRANSPORT_NCCL
                                                                 : MHP_TRANSPORT_MPI;

    params.kind = strcmp(kind, "test") == 0 ? MHP_DEVICE_TEST : strcmp(kind, "cuda") == 0 ? MHP_DEVICE_CUDA : MHP_DEVICE_CPU;
    if (mhp_device_count(params.kind) == 0) {
        printf("skipped: no card\n");
        exit(EXIT_SKIPPED);
    }
    params.index = (local ? atoi(local) : 0) % mhp_device_count(params.kind);
    MHP_RETURN_IF_ERROR(mhp_device_open(&params, &b->device));
    MHP_RETURN_IF_ERROR(mhp_comm_open(b->device, &b->comm));
    b->rank = mhp_comm_rank(b->comm);
    b->peer = b->rank ^ 1;
    ranks = mhp_comm_size(b->comm);
    if (ranks % 2 != 0 || ranks > RANKS_MAX) {
        return mhp_error_set(MHP_ERR_CONFIG, "started with %d ranks: expected pairs, at most %d ranks", ranks, RANKS_MAX);
    }
    for (int i = 0; i < ranks; i++) {
        members[i] = i;
    }
    MHP_RETURN_IF_ERROR(mhp_comm_choose_transport(b->comm, chosen));
    MHP_RETURN_IF_ERROR(mhp_group_open(b->comm, "all", 0, members, ranks, &b->all));
    MHP_RETURN_IF_ERROR(mhp_stream_create(b->device, MHP_STREAM_COMM, MHP_PRIORITY_NORMAL, "plain", &b->plain));
    return mhp_stream_create(b->device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "compute", &b->compute);
}

int main(int argc, char **argv)
{
    const char *kind = argc > 1 ? argv[1] : "cpu", *transport = argc > 2 ? argv[2] : "mpi";
    bench b = {0};
    mhp_status status;

    mhp_environment_set();
    status = join(&b, kind, transport);
    if (status == MHP_OK && b.rank == 0) {
        printf("%s, %s\n%10s %12s %12s %8s %12s %12s %12s\n", kind, transport, "bytes", "alone us", "many us", "GB/s", "MPI us", "sum us",
               "MPI sum us");
    }
    for (int i = 3; status == MHP_OK && i < argc; i++) {
        b.bytes = strtoull(argv[i], NULL, 10);
        status = run_size(&b);
    }
    for (int shift = SMALLEST_SHIFT; status == MHP_OK && argc <= 3 && shift <= LARGEST_SHIFT; shift += 2) {
        b.bytes = (size_t)1 << shift;
        status = run_size(&b);
    }
    if (status < 0) {
        fprintf(stderr, "rank %d: %s\n", b.rank, mhp_error_text());
        if (b.comm) {
            mhp_comm_abort(b.comm);
        }
        return 1;
    }
    mhp_stream_destroy(b.compute);
    mhp_stream_destroy(b.plain);
    mhp_group_close(b.all);
    mhp_comm_close(b.comm);
    mhp_device_close(b.device);
    return 0;
}
