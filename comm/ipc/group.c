/* Groups within one host. Every member has an inbox of two parts for each other one. A part goes by the copy engine into an inbox, behind
 * it the word `full` is written; who takes it combines or copies it, and writes `free`. One stream of each member does all of it in the
 * order of the calls, the same order everywhere: the next part goes out before the one before is taken, so that no member waits for
 * another one's copies in a circle.
 *
 * Sums are made in the order of the members. */
#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "comm/collectives.h"
#include "comm/edges_internal.h"
#include "comm/ipc/combine.h"
#include "core/memory.h"

enum { NAME_MAX_BYTES = 64, PART_BYTES = 2 << 20, PARTS = 2, AHEAD = 1 << 30 };

_Static_assert((int)MHP_REDUCE_SUM == (int)MHP_COMBINE_SUM && (int)MHP_REDUCE_MAX == (int)MHP_COMBINE_MAX &&
                   (int)MHP_REDUCE_MIN == (int)MHP_COMBINE_MIN && (int)MHP_IPC_MEMBERS_MAX == (int)MHP_COMBINE_SOURCES_MAX,
               "the same in both headers");

/* As for channels: every run passes the place where counts wrap around. */
static const uint32_t FIRST_SEQUENCE = UINT32_MAX - 20;

/* What each other member must know: its inbox, and the words of its own pair. */
typedef struct inbox_card {
    mhp_shared_name memory;
    size_t offset;
    int full_words[MHP_IPC_MEMBERS_MAX], free_words[MHP_IPC_MEMBERS_MAX];       /* by who sends */
} inbox_card;

/* One other member. `in`: from it to here, by words of this rank; `out`: to it, by words of its. */
typedef struct peer {
    mhp_word *full_in, *free_in, *full_out, *free_out;
    char *inbox_out;                /* its inbox for this member: [PARTS][PART_BYTES] */
    void *attached;
    _Atomic uint32_t sent, taken;   /* the last part's number, either way */
} peer;

typedef struct ipc_group {
    mhp_watch watch;
    mhp_comm *comm;
    mhp_device *device;
    mhp_node *node;
    void *mpi;                      /* of barriers, and of the beginning */
    mhp_stream *stream;
    char *inbox;                    /* [size][PARTS][PART_BYTES]; the own place is scratch for data of the host */
    inbox_card card;
    peer peers[MHP_IPC_MEMBERS_MAX];
    int members[MHP_IPC_MEMBERS_MAX];
    int size, index, word_pairs;
    bool watched;
} ipc_group;

/* ---- parts ---- */

static size_t place_of(int member, uint32_t sequence)
{
    return ((size_t)member * PARTS + sequence % PARTS) * PART_BYTES;
}

static mhp_status push(ipc_group *group, int member, const void *data, size_t bytes)
{
    peer *to = &group->peers[member];
    uint32_t sequence = atomic_fetch_add(&to->sent, 1) + 1;

    MHP_RETURN_IF_ERROR(mhp_stream_await_word(group->stream, to->free_out, sequence));
    MHP_RETURN_IF_ERROR(mhp_stream_copy(group->stream, to->inbox_out + sequence % PARTS * PART_BYTES, data, bytes));
    return mhp_stream_write_word(group->stream, to->full_out, sequence);
}

/* Where the next part of a member is once what is submitted later runs. */
static mhp_status pull(ipc_group *group, int member, const char **part_out)
{
    peer *from = &group->peers[member];
    uint32_t sequence = atomic_fetch_add(&from->taken, 1) + 1;

    *part_out = group->inbox + place_of(member, sequence);
    return mhp_stream_await_word(group->stream, from->full_in, sequence);
}

/* The last part that was pulled is not needed any more. */
static mhp_status give_back(ipc_group *group, int member)
{
    peer *from = &group->peers[member];

    return mhp_stream_write_word(group->stream, from->free_in, atomic_load(&from->taken) + PARTS);
}

/* A range of the data: of one member's chunk where there are chunks. */
typedef struct part {
    int member;
    char *data;
    int64_t count;
    size_t bytes;
} part;

/* Whether `sender` gives this part to `receiver`. */
static bool goes(const mhp_collective_call *call, const part *p, int sender, int receiver)
{
    if (sender == receiver) {
        return false;
    }
    switch (call->operation) {
    case MHP_COLLECTIVE_REDUCE_SCATTER:
        return receiver == p->member;
    case MHP_COLLECTIVE_ALL_GATHER:
        return sender == p->member;
    case MHP_COLLECTIVE_BROADCAST:
        return sender == call->from;
    case MHP_COLLECTIVE_TRANSFER:
        return sender == call->from && receiver == call->to;
    default:
        return true;
    }
}

static mhp_status push_part(ipc_group *group, const mhp_collective_call *call, const part *p)
{
    for (int step = 1; step < group->size; step++) {
        int member = (group->index + step) % group->size;       /* not all to the same one at once */

        if (goes(call, p, group->index, member)) {
            MHP_RETURN_IF_ERROR(push(group, member, p->data, p->bytes));
        }
    }
    return MHP_OK;
}

/* The host's memory is out of a card's kernels' reach. */
static bool is_in_reach(const ipc_group *group, const void *data)
{
    return mhp_device_is_host_memory(group->device) || mhp_device_owns(group->device, data);
}

/* Combines what all members gave, own part included. */
static mhp_status combine_part(ipc_group *group, const mhp_collective_call *call, const part *p)
{
    char *own = is_in_reach(group, p->data) ? p->data : group->inbox + place_of(group->index, 0);
    mhp_task_fn task = mhp_device_is_host_memory(group->device) ? mhp_combine_on_host : mhp_combine_on_card();
    mhp_combine_args args = {.target = own, .source_count = group->size, .count = p->count, .dtype = call->dtype, .op = (mhp_combine_op)call->op};

    if (own != p->data) {
        MHP_RETURN_IF_ERROR(mhp_stream_copy(group->stream, own, p->data, p->bytes));
    }
    for (int member = 0; member < group->size; member++) {
        const char *given = own;

        if (member != group->index) {
            MHP_RETURN_IF_ERROR(pull(group, member, &given));
        }
        args.sources[member] = given;
    }
    MHP_RETURN_IF_ERROR(mhp_stream_submit(group->stream, task, &args, sizeof args));
    for (int member = 0; member < group->size; member++) {
        if (member != group->index) {
            MHP_RETURN_IF_ERROR(give_back(group, member));
        }
    }
    return own != p->data ? mhp_stream_copy(group->stream, p->data, own, p->bytes) : MHP_OK;
}

static mhp_status take_part(ipc_group *group, const mhp_collective_call *call, const part *p)
{
    bool combines = call->operation == MHP_COLLECTIVE_ALL_REDUCE || call->operation == MHP_COLLECTIVE_REDUCE_SCATTER;

    if (combines) {
        return call->operation == MHP_COLLECTIVE_ALL_REDUCE || p->member == group->index ? combine_part(group, call, p) : MHP_OK;
    }
    for (int member = 0; member < group->size; member++) {
        const char *given;

        if (goes(call, p, member, group->index)) {
            MHP_RETURN_IF_ERROR(pull(group, member, &given));
            MHP_RETURN_IF_ERROR(mhp_stream_copy(group->stream, p->data, given, p->bytes));
            MHP_RETURN_IF_ERROR(give_back(group, member));
        }
    }
    return MHP_OK;
}

/* ---- operations ---- */

/* The part that begins at element `first` of all chunks, one behind the other; the chunks' parts take turns, so that in a reduction or
 * gathering every member has something to do. Returns false behind the last. */
static bool next_part(const ipc_group *group, const mhp_collective_call *call, int64_t number, part *p)
{
    bool chunks = call->operation == MHP_COLLECTIVE_REDUCE_SCATTER || call->operation == MHP_COLLECTIVE_ALL_GATHER;
    int64_t element = (int64_t)mhp_dtype_bytes(call->dtype);
    int64_t most = PART_BYTES / element;
    int64_t first = (chunks ? number / group->size : number) * most;

    if (first >= call->count) {
        return false;
    }
    p->member = chunks ? (int)(number % group->size) : 0;
    p->count = call->count - first < most ? call->count - first : most;
    p->bytes = (size_t)(p->count * element);
    p->data = call->data + (p->member * call->count + first) * element;
    return true;
}

static mhp_status ipc_start(void *state, const mhp_collective_call *call, mhp_event *after)
{
    ipc_group *group = state;
    part current, before;

    if (call->operation == MHP_COLLECTIVE_BARRIER) {
        return mhp_collectives_mpi.start(group->mpi, call, after);
    }
    if (after) {
        MHP_RETURN_IF_ERROR(mhp_stream_wait(group->stream, after));
    }
    for (int64_t number = 0; next_part(group, call, number, &current); number++) {
        MHP_RETURN_IF_ERROR(push_part(group, call, &current));
        if (number > 0) {
            MHP_RETURN_IF_ERROR(take_part(group, call, &before));
        }
        before = current;
    }
    if (call->count > 0) {
        MHP_RETURN_IF_ERROR(take_part(group, call, &before));
    }
    return mhp_event_record(call->done, group->stream);
}

/* ---- opening and closing ---- */

/* Nobody may ever write what this member's stream awaits. */
static void let_go(mhp_watch *watch, bool failed)
{
    ipc_group *group = (ipc_group *)(void *)watch;

    for (int member = 0; failed && member < group->size; member++) {
        peer *other = &group->peers[member];

        if (member != group->index) {
            atomic_store(other->full_in, atomic_load(&other->taken) + AHEAD);
            atomic_store(other->free_out, atomic_load(&other->sent) + AHEAD);
        }
    }
}

static void ipc_close(void *state)
{
    ipc_group *group = state;

    if (group->stream) {
        (void)mhp_stream_synchronize(group->stream);
    }
    if (group->watched) {
        mhp_edges_unwatch(group->comm, &group->watch);
    }
    mhp_stream_destroy(group->stream);
    for (int member = 0; member < group->size; member++) {
        mhp_device_detach(group->device, group->peers[member].attached);
    }
    for (int member = 0; member < group->word_pairs; member++) {
        mhp_node_give_word(group->node, group->card.full_words[member]);
        mhp_node_give_word(group->node, group->card.free_words[member]);
    }
    if (group->mpi) {
        mhp_collectives_mpi.close(group->mpi);
    }
    mhp_device_free(group->device, group->inbox);
    mhp_free(group);
}

static mhp_status prepare_inbox(ipc_group *group)
{
    inbox_card *card = &group->card;

    MHP_RETURN_IF_ERROR(mhp_device_alloc(group->device, (size_t)group->size * PARTS * PART_BYTES, (void **)&group->inbox));
    MHP_RETURN_IF_ERROR(mhp_device_share(group->device, group->inbox, &card->memory, &card->offset));
    for (int member = 0; member < group->size; member++) {
        MHP_RETURN_IF_ERROR(mhp_node_take_word(group->node, FIRST_SEQUENCE, &card->full_words[member]));
        MHP_RETURN_IF_ERROR(mhp_node_take_word(group->node, FIRST_SEQUENCE + PARTS, &card->free_words[member]));
        group->word_pairs++;
    }
    return MHP_OK;
}

static mhp_status meet(ipc_group *group, int member, const inbox_card *card)
{
    peer *other = &group->peers[member];
    int own_rank = group->members[group->index], rank = group->members[member];

    atomic_init(&other->sent, FIRST_SEQUENCE);
    atomic_init(&other->taken, FIRST_SEQUENCE);
    other->full_in = mhp_node_word(group->node, own_rank, group->card.full_words[member]);
    other->free_in = mhp_node_word(group->node, own_rank, group->card.free_words[member]);
    other->full_out = mhp_node_word(group->node, rank, card->full_words[group->index]);
    other->free_out = mhp_node_word(group->node, rank, card->free_words[group->index]);
    MHP_RETURN_IF_ERROR(mhp_device_attach(group->device, &card->memory, &other->attached));
    other->inbox_out = (char *)other->attached + card->offset + place_of(group->index, 0);
    return MHP_OK;
}

static mhp_status meet_all(ipc_group *group)
{
    mhp_status status = MHP_OK;
    inbox_card *cards = NULL;

    MHP_RETURN_IF_ERROR(mhp_calloc(&cards, (size_t)group->size, sizeof *cards));
    MHP_TRY(out, mhp_mpi_group_gather(group->mpi, &group->card, sizeof group->card, cards));
    for (int member = 0; member < group->size; member++) {
        if (member != group->index) {
            MHP_TRY(out, meet(group, member, &cards[member]));
        }
    }
    group->watch.look = let_go;
    mhp_edges_watch(group->comm, &group->watch);
    group->watched = true;
out:
    mhp_free(cards);
    return status;
}

static mhp_status ipc_open(mhp_comm *comm, const mhp_collectives_params *params, void **state_out)
{
    mhp_status status = MHP_OK;
    ipc_group *group = NULL;

    assert(params->size <= MHP_IPC_MEMBERS_MAX);
    MHP_TRY(out, mhp_calloc(&group, 1, sizeof *group));
    group->comm = comm;
    group->device = mhp_comm_device(comm);
    group->node = mhp_comm_node(comm);
    group->size = params->size;
    group->index = params->index;
    memcpy(group->members, params->members, (size_t)params->size * sizeof *group->members);
    MHP_TRY(out, mhp_collectives_mpi.open(comm, params, &group->mpi));
    MHP_TRY(out, mhp_stream_create(group->device, MHP_STREAM_COPY, MHP_PRIORITY_NORMAL, params->name, &group->stream));
    MHP_TRY(out, prepare_inbox(group));
    MHP_TRY(out, meet_all(group));
    *state_out = group;
    group = NULL;
out:
    if (group) {
        ipc_close(group);
    }
    return mhp_error_prefix(status, "group \"%s\": ", params->name);
}

const mhp_collectives mhp_collectives_ipc = {
    .name = "ipc",
    .open = ipc_open,
    .close = ipc_close,
    .start = ipc_start,
};
