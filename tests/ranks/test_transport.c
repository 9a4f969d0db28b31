/* mpirun -n P test_transport cpu|test|cuda [auto|ipc|nccl|mpi] [lost|killed]: channels under load, over one transport. Without a card it
 * exits with 77; the ranks of a host take its cards in turns.
 *
 * `lost`: the last rank tells the others amid messages that it failed; these must get free and say so. `killed`: it is killed.
 * A check that fails ends its rank, and with it the whole launch. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "comm/channel.h"
#include "core/memory.h"
#include "tests/ranks/check.h"

enum { SLOTS = 2, PARTS = 5, SHORT_MESSAGES = 3000, SHORT_BYTES = 64, LONG_MESSAGES = 3, PATIENCE_S = 60, EXIT_SKIPPED = 77 };

/* Longer than any buffer of any transport, and no multiple of anything. */
static const size_t LONG_BYTES = (65u << 20) + 12;

typedef struct world {
    mhp_device *device;
    mhp_comm *comm;
    mhp_stream *compute;
    int rank, size, next, before;
    int channels;               /* ids given away */
} world;

/* One end of a channel between neighbours in the ring. */
typedef struct ring_end {
    mhp_channel *channel;
    char *memory;               /* [SLOTS][bytes] */
    mhp_event *filled[SLOTS][PARTS], *empty[SLOTS];
    size_t bytes;
    mhp_channel_params params;
} ring_end;

static void open_end(world *w, ring_end *end, bool sends, size_t bytes, int parts)
{
    mhp_channel_params params = {
        .name = "ring", .id = w->channels, .source = sends ? w->rank : w->before, .target = sends ? w->next : w->rank,
        .slot_bytes = bytes, .slot_count = SLOTS, .slot_stride = (bytes + 255) / 256 * 256,
        .parts = parts, .part_bytes = bytes / (size_t)parts};

    *end = (ring_end){.bytes = params.slot_stride, .params = params};
    CHECK_OK(mhp_device_alloc(w->device, SLOTS * params.slot_stride, (void **)&end->memory));
    params.slots = sends ? NULL : end->memory;
    CHECK_OK(mhp_channel_open(w->comm, &params, &end->channel));
    for (int i = 0; i < SLOTS; i++) {
        CHECK_OK(mhp_event_create(w->device, &end->empty[i]));
        for (int p = 0; p < parts; p++) {
            CHECK_OK(mhp_event_create(w->device, &end->filled[i][p]));
        }
    }
}

static void close_end(world *w, ring_end *end)
{
    mhp_channel_close(end->channel);
    for (int i = 0; i < SLOTS; i++) {
        mhp_event_destroy(end->empty[i]);
        for (int p = 0; p < end->params.parts; p++) {
            mhp_event_destroy(end->filled[i][p]);
        }
    }
    mhp_device_free(w->device, end->memory);
}

static void open_ring(world *w, ring_end *out, ring_end *in, size_t bytes, int parts)
{
    mhp_channel *channels[2];

    open_end(w, out, true, bytes, parts);
    open_end(w, in, false, bytes, parts);
    channels[0] = out->channel;
    channels[1] = in->channel;
    CHECK_OK(mhp_channels_connect(channels, 2));
    w->channels++;
}

/* Where a part of a message begins; of the one behind the last: the end. */
static size_t part_begin(const ring_end *end, int part)
{
    return part == end->params.parts ? end->params.slot_bytes : (size_t)part * end->params.part_bytes;
}

/* Submits one message out and one in, and waits for nothing: compute fills a slot from `given`, and empties one into `taken`, part by
 * part. */
static void pass_message(world *w, ring_end *out, ring_end *in, int message, const char *given, char *taken)
{
    int slot = message % SLOTS, parts = out->params.parts;
    char *out_slot = out->memory + (size_t)slot * out->bytes, *in_slot = in->memory + (size_t)slot * in->bytes;

    CHECK_OK(mhp_channel_receive_parts(in->channel, slot, in->empty[slot], in->filled[slot]));
    CHECK_OK(mhp_stream_wait(w->compute, out->empty[slot]));
    for (int p = 0; p < parts; p++) {
        size_t at = part_begin(out, p);

        CHECK_OK(mhp_stream_copy(w->compute, out_slot + at, given + at, part_begin(out, p + 1) - at));
        CHECK_OK(mhp_event_record(out->filled[slot][p], w->compute));
    }
    CHECK_OK(mhp_channel_send_parts(out->channel, out_slot, slot, out->filled[slot], out->empty[slot]));
    for (int p = 0; p < parts; p++) {
        size_t at = part_begin(in, p);

        CHECK_OK(mhp_stream_wait(w->compute, in->filled[slot][p]));
        CHECK_OK(mhp_stream_copy(w->compute, taken + at, in_slot + at, part_begin(in, p + 1) - at));
    }
    CHECK_OK(mhp_event_record(in->empty[slot], w->compute));
}

static void wait_for_sends(world *w, const ring_end *out)
{
    CHECK_OK(mhp_stream_synchronize(w->compute));
    for (int i = 0; i < SLOTS; i++) {
        CHECK_OK(mhp_event_synchronize(out->empty[i], PATIENCE_S * 1000000000ull));
    }
}

static unsigned char byte_of(int rank, size_t i)
{
    return (unsigned char)(i * 31 + i / 251 + (size_t)rank * 101 + 7);
}

/* Every rank sends `count` messages of its own bytes to the next and checks those from the one before. */
static void run_ring(world *w, int count, size_t bytes, int parts)
{
    size_t all = (size_t)count * bytes;
    char *given, *taken, *host;
    ring_end out, in;

    open_ring(w, &out, &in, bytes, parts);
    CHECK_OK(mhp_calloc(&host, all, 1));
    CHECK_OK(mhp_device_alloc(w->device, all, (void **)&given));
    CHECK_OK(mhp_device_alloc(w->device, all, (void **)&taken));
    for (size_t i = 0; i < all; i++) {
        host[i] = (char)byte_of(w->rank, i);
    }
    CHECK_OK(mhp_stream_copy(w->compute, given, host, all));
    CHECK_OK(mhp_stream_synchronize(w->compute));
    for (int m = 0; m < count; m++) {
        pass_message(w, &out, &in, m, given + (size_t)m * bytes, taken + (size_t)m * bytes);
    }
    wait_for_sends(w, &out);
    CHECK_OK(mhp_stream_copy(w->compute, host, taken, all));
    CHECK_OK(mhp_stream_synchronize(w->compute));
    for (size_t i = 0; i < all; i++) {
        CHECK((unsigned char)host[i] == byte_of(w->before, i));
    }
    mhp_device_free(w->device, taken);
    mhp_device_free(w->device, given);
    mhp_free(host);
    close_end(w, &in);
    close_end(w, &out);
}

static void thousands_of_messages(world *w)
{
    run_ring(w, SHORT_MESSAGES, SHORT_BYTES, 1);
}

/* Sizes of parts that no other part has. */
static void messages_in_parts(world *w)
{
    run_ring(w, SHORT_MESSAGES / 10, SHORT_BYTES + 3, PARTS);
    run_ring(w, SHORT_MESSAGES / 10, SHORT_BYTES, 3);
}

static void messages_longer_than_any_buffer(world *w)
{
    run_ring(w, LONG_MESSAGES, LONG_BYTES, PARTS);
}

/* ---- a rank is lost ---- */

static void sleep_ms(int ms)
{
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000};

    nanosleep(&pause, NULL);
}

/* The last rank stops amid the messages; the others have submitted more, so that their streams wait for it. */
static void lose_a_rank(world *w, bool killed)
{
    bool last = w->rank == w->size - 1;
    int count = last ? 4 : 12;
    char *given, *taken;
    uint64_t start_ns;
    ring_end out, in;
    mhp_status status;

    CHECK_OK(mhp_device_alloc(w->device, LONG_BYTES, (void **)&given));
    CHECK_OK(mhp_device_alloc(w->device, LONG_BYTES, (void **)&taken));
    CHECK_OK(mhp_stream_zero(w->compute, given, LONG_BYTES));
    open_ring(w, &out, &in, LONG_BYTES, PARTS);
    CHECK_OK(mhp_comm_agree(w->comm, MHP_OK, NULL));                /* all are connected */
    for (int m = 0; m < count; m++) {
        pass_message(w, &out, &in, m, given, taken);
    }
    CHECK_OK(mhp_comm_agree(w->comm, MHP_OK, NULL));                /* and wait for messages */
    if (last) {
        sleep_ms(300);                                              /* all are past the agreement */
    }
    if (last && killed) {
        printf("killed at %lld\n", (long long)time(NULL));
        fflush(stdout);
        raise(SIGKILL);
    }
    if (last) {
        mhp_comm_fail(w->comm, mhp_error_set(MHP_ERR_IO, "lost on purpose"));
        sleep_ms(4000);
        mhp_comm_abort(w->comm);
    }
    start_ns = mhp_time_ns();
    status = mhp_stream_synchronize(w->compute);
    CHECK(status == MHP_ERR_PEER && strstr(mhp_error_text(), "lost on purpose"));
    CHECK(mhp_event_query(in.filled[0][0]) != MHP_IN_PROGRESS);
    if (strcmp(mhp_channel_transport(in.channel), "mpi") != 0) {     /* MPI may still write to the slots */
        close_end(w, &in);
        close_end(w, &out);
    }
    printf("rank %d got free after %.0f ms\n", w->rank, (double)(mhp_time_ns() - start_ns) / 1e6);
    fflush(stdout);
    sleep_ms(6000);
    mhp_comm_abort(w->comm);
}

/* ---- start ---- */

static mhp_transport_kind find_transport(const char *text)
{
    for (mhp_transport_kind kind = MHP_TRANSPORT_AUTO; kind <= MHP_TRANSPORT_MPI; kind++) {
        if (strcmp(text, mhp_transport_text(kind)) == 0) {
            return kind;
        }
    }
    fprintf(stderr, "no transport %s\n", text);
    exit(2);
}

static int local_rank(void)
{
    const char *text = getenv("OMPI_COMM_WORLD_LOCAL_RANK");

    return text ? atoi(text) : 0;
}

static mhp_status join(world *w, const char *kind, const char *transport)
{
    mhp_device_params params = {.kind = MHP_DEVICE_CPU, .threads = 1, .seed = 3};

    params.kind = strcmp(kind, "test") == 0 ? MHP_DEVICE_TEST : strcmp(kind, "cuda") == 0 ? MHP_DEVICE_CUDA : MHP_DEVICE_CPU;
    if (mhp_device_count(params.kind) == 0) {
        printf("skipped: no card\n");
        exit(EXIT_SKIPPED);
    }
    params.index = local_rank() % mhp_device_count(params.kind);
    MHP_RETURN_IF_ERROR(mhp_device_open(&params, &w->device));
    MHP_RETURN_IF_ERROR(mhp_comm_open(w->device, &w->comm));
    MHP_RETURN_IF_ERROR(mhp_comm_choose_transport(w->comm, find_transport(transport)));
    w->rank = mhp_comm_rank(w->comm);
    w->size = mhp_comm_size(w->comm);
    w->next = (w->rank + 1) % w->size;
    w->before = (w->rank + w->size - 1) % w->size;
    return mhp_stream_create(w->device, MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL, "compute", &w->compute);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 3 ? argv[3] : "";
    world world_of_rank = {0}, *w = &world_of_rank;

    if (join(w, argc > 1 ? argv[1] : "cpu", argc > 2 ? argv[2] : "auto") < 0) {
        fprintf(stderr, "%s\n", mhp_error_text());
        return 1;
    }
    if (w->size < 2) {
        fprintf(stderr, "started with 1 rank: expected at least 2\n");
        return 2;
    }
    if (*mode) {
        lose_a_rank(w, strcmp(mode, "killed") == 0);
    }
    thousands_of_messages(w);
    messages_in_parts(w);
    messages_longer_than_any_buffer(w);
    mhp_stream_destroy(w->compute);
    if (w->rank == 0) {
        printf("passed on %d ranks over %s\n", w->size, mhp_transport_text(mhp_comm_transport(w->comm, 0, 1)));
    }
    mhp_comm_close(w->comm);
    mhp_device_close(w->device);
    return 0;
}
