/* Groups over MPI's non-blocking collectives, one communicator a group; posted by the comm thread in the order of the calls. A card's
 * memory goes by way of the host in parts: while one is under way in MPI, the next is copied. */
#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "comm/collectives.h"
#include "comm/mpi/lane.h"
#include "comm/mpi/staging.h"
#include "core/memory.h"

enum { NAME_MAX_BYTES = 64, TRANSFER_TAG = 7, STAGED_PART_BYTES = 8 << 20, EVERY_MEMBER = -1 };

typedef struct mpi_group {
    mhp_comm *comm;
    char name[NAME_MAX_BYTES];
    MPI_Comm communicator;
    mhp_stream *stream;             /* of calls to MPI */
    mhp_mpi_lane lane;
    mhp_event *event;               /* of a gathering */
    bool staged;
    mhp_staging staging;            /* if staged */
    int size, index;
} mpi_group;

typedef struct group_call {
    mpi_group *group;
    mhp_collective_call what;
    int member;                     /* whose chunk it is, where there are chunks, or EVERY_MEMBER */
} group_call;

static MPI_Datatype mpi_type(mhp_dtype dtype)
{
    switch (dtype) {
    case MHP_DTYPE_F32:
        return MPI_FLOAT;
    case MHP_DTYPE_F64:
        return MPI_DOUBLE;
    case MHP_DTYPE_I64:
        return MPI_INT64_T;
    case MHP_DTYPE_BF16:            /* moved, never added */
        return MPI_UINT16_T;
    default:
        return MPI_BYTE;
    }
}

static MPI_Op mpi_op(mhp_reduce_op op)
{
    return op == MHP_REDUCE_SUM ? MPI_SUM : op == MHP_REDUCE_MAX ? MPI_MAX : MPI_MIN;
}

/* Posts one piece: `count` elements at `data`. */
static int post_piece(const mhp_mpi_job *job, char *data, int count, MPI_Request *request)
{
    const group_call *call = (const group_call *)(const void *)job->argument;
    const mpi_group *group = call->group;
    MPI_Datatype type = mpi_type(call->what.dtype);
    int member = call->member;

    switch (call->what.operation) {
    case MHP_COLLECTIVE_ALL_REDUCE:
        return MPI_Iallreduce(MPI_IN_PLACE, data, count, type, mpi_op(call->what.op), group->communicator, request);
    case MHP_COLLECTIVE_REDUCE_SCATTER:      /* a reduction to each member leaves the sum in its own chunk, in place */
        return MPI_Ireduce(member == group->index ? MPI_IN_PLACE : data, data, count, type, MPI_SUM, member, group->communicator, request);
    case MHP_COLLECTIVE_ALL_GATHER:
        return MPI_Ibcast(data, count, type, member, group->communicator, request);
    case MHP_COLLECTIVE_BROADCAST:
        return MPI_Ibcast(data, count, MPI_BYTE, call->what.from, group->communicator, request);
    case MHP_COLLECTIVE_TRANSFER:
        return group->index == call->what.from ? MPI_Isend(data, count, MPI_BYTE, call->what.to, TRANSFER_TAG, group->communicator, request)
                                          : MPI_Irecv(data, count, MPI_BYTE, call->what.from, TRANSFER_TAG, group->communicator, request);
    case MHP_COLLECTIVE_BARRIER:
        return MPI_Ibarrier(group->communicator, request);
    }
    return MPI_ERR_OP;
}

/* Pieces are all of one size but for the last, which is a little smaller: the order in which MPI sums may depend on the size. */
static mhp_status post_range(const group_call *call, mhp_mpi_operation *operation, char *data, int member)
{
    mhp_mpi_job job = {.operation = operation, .post = post_piece, .data = data, .unit_bytes = mhp_dtype_bytes(call->what.dtype),
                       .left = call->what.count};
    int64_t piece = MHP_MPI_PIECE_BYTES / (int64_t)job.unit_bytes;
    int64_t pieces = job.left > piece ? (job.left + piece - 1) / piece : 1;
    group_call of_member = *call;

    static_assert(sizeof of_member <= sizeof job.argument, "a job takes a call");
    job.piece = (job.left + pieces - 1) / pieces;
    of_member.member = member;
    memcpy(job.argument, &of_member, sizeof of_member);
    return mhp_mpi_enqueue(call->group->comm, &call->group->lane, &job);
}

static mhp_status post_group(mhp_status status, const void *argument)
{
    const group_call *call = argument;
    mpi_group *group = call->group;
    mhp_mpi_operation *operation = NULL;
    int members = call->member == EVERY_MEMBER ? group->size : 1;

    MHP_RETURN_IF_ERROR(mhp_mpi_begin(group->comm, status, group->name, call->what.done, &operation));
    for (int i = 0; i < members; i++) {
        size_t offset = (size_t)i * (size_t)call->what.count * mhp_dtype_bytes(call->what.dtype);

        MHP_TRY(out, post_range(call, operation, call->what.data + offset, call->member == EVERY_MEMBER ? i : call->member));
    }
out:
    mhp_mpi_launch(group->comm, operation, status);
    return MHP_OK;
}

/* Hands one call to MPI. */
static mhp_status post(const group_call *call, mhp_event *after)
{
    if (after) {                        /* before the arm: `after` may be the same event */
        MHP_RETURN_IF_ERROR(mhp_stream_wait(call->group->stream, after));
    }
    MHP_RETURN_IF_ERROR(mhp_event_arm(call->what.done));
    return mhp_stream_call_always(call->group->stream, post_group, call, sizeof *call);
}

/* ---- by way of the host ---- */

/* Where the part that a staging buffer holds goes back to; NULL: nowhere. */
typedef struct staged_part {
    mhp_staging_buffer *buffer;
    char *target;
    size_t bytes;
} staged_part;

/* Whether this member gives what MPI reads, and takes what it leaves. */
static bool gives(const group_call *call, int member)
{
    int own = call->group->index;

    switch (call->what.operation) {
    case MHP_COLLECTIVE_ALL_GATHER:
        return own == member;
    case MHP_COLLECTIVE_BROADCAST:
    case MHP_COLLECTIVE_TRANSFER:
        return own == call->what.from;
    default:
        return true;
    }
}

static bool takes(const group_call *call, int member)
{
    int own = call->group->index;

    switch (call->what.operation) {
    case MHP_COLLECTIVE_REDUCE_SCATTER:
        return own == member;
    case MHP_COLLECTIVE_ALL_GATHER:
        return own != member;
    case MHP_COLLECTIVE_BROADCAST:
        return own != call->what.from;
    case MHP_COLLECTIVE_TRANSFER:
        return own == call->what.to;
    default:
        return true;
    }
}

static mhp_status end_part(mhp_stream *copies, staged_part *part)
{
    if (part->target) {
        MHP_RETURN_IF_ERROR(mhp_stream_wait(copies, part->buffer->moved));
        MHP_RETURN_IF_ERROR(mhp_stream_copy(copies, part->target, part->buffer->memory, part->bytes));
    }
    part->target = NULL;
    return MHP_OK;
}

static mhp_status begin_part(const group_call *call, int member, int64_t first, int64_t count, staged_part *part)
{
    mhp_stream *copies = call->group->staging.stream;
    size_t element = mhp_dtype_bytes(call->what.dtype);
    char *data = call->what.data + (size_t)first * element;
    group_call staged = *call;

    part->bytes = (size_t)count * element;
    part->target = takes(call, member) ? data : NULL;
    staged.what.data = part->buffer->memory;
    staged.what.count = count;
    staged.member = member;
    staged.what.done = part->buffer->moved;
    MHP_RETURN_IF_ERROR(mhp_stream_wait(copies, part->buffer->moved));          /* MPI is done with what it held before */
    if (gives(call, member)) {
        MHP_RETURN_IF_ERROR(mhp_stream_copy(copies, part->buffer->memory, data, part->bytes));
    }
    MHP_RETURN_IF_ERROR(mhp_event_record(part->buffer->copied, copies));
    return post(&staged, part->buffer->copied);
}

static mhp_status post_staged(const group_call *call, mhp_event *after)
{
    mhp_staging *staging = &call->group->staging;
    int members = call->member == EVERY_MEMBER ? call->group->size : 1;
    int64_t part_count = STAGED_PART_BYTES / (int64_t)mhp_dtype_bytes(call->what.dtype);
    staged_part parts[MHP_STAGING_BUFFERS] = {0};
    unsigned turn = 0;

    if (after) {
        MHP_RETURN_IF_ERROR(mhp_stream_wait(staging->stream, after));
    }
    for (int64_t first = 0; first < call->what.count * members;) {
        int member = (int)(first / call->what.count);
        int64_t rest = call->what.count * (member + 1) - first;
        staged_part *part = &parts[turn++ % MHP_STAGING_BUFFERS];

        MHP_RETURN_IF_ERROR(end_part(staging->stream, part));
        part->buffer = mhp_staging_take(staging);
        MHP_RETURN_IF_ERROR(begin_part(call, member, first, rest < part_count ? rest : part_count, part));
        first += rest < part_count ? rest : part_count;
    }
    for (int i = 0; i < MHP_STAGING_BUFFERS; i++) {
        MHP_RETURN_IF_ERROR(end_part(staging->stream, &parts[turn++ % MHP_STAGING_BUFFERS]));
    }
    return mhp_event_record(call->what.done, staging->stream);
}

static mhp_status mpi_start(void *state, const mhp_collective_call *what, mhp_event *after)
{
    group_call call = {.group = state, .what = *what, .member = EVERY_MEMBER};

    if (what->operation != MHP_COLLECTIVE_REDUCE_SCATTER && what->operation != MHP_COLLECTIVE_ALL_GATHER) {
        call.member = 0;
    }
    return call.group->staged && what->operation != MHP_COLLECTIVE_BARRIER ? post_staged(&call, after) : post(&call, after);
}

/* ---- opening and closing ---- */

typedef struct create_call {
    mpi_group *group;
    const int *members;
    int id;
} create_call;

static mhp_status create_communicator(void *native, const void *argument)
{
    const create_call *call = argument;
    mpi_group *group = call->group;
    MPI_Group world = MPI_GROUP_NULL;
    MPI_Group members = MPI_GROUP_NULL;
    mhp_status status = MHP_OK;

    (void)native;
    MHP_TRY(out, mhp_mpi_check(MPI_Comm_group(group->comm->agreement, &world), group->name));
    MHP_TRY(out, mhp_mpi_check(MPI_Group_incl(world, group->size, call->members, &members), group->name));
    MHP_TRY(out, mhp_mpi_check(MPI_Comm_create_group(group->comm->agreement, members, call->id, &group->communicator), group->name));
    MHP_TRY(out, mhp_mpi_check(MPI_Comm_set_errhandler(group->communicator, MPI_ERRORS_RETURN), group->name));
    MPI_Comm_rank(group->communicator, &group->index);
out:
    if (members != MPI_GROUP_NULL) {
        MPI_Group_free(&members);
    }
    if (world != MPI_GROUP_NULL) {
        MPI_Group_free(&world);
    }
    return status;
}

static mhp_status free_communicator(void *native, const void *argument)
{
    mpi_group *group;

    (void)native;
    memcpy(&group, argument, sizeof group);
    if (group->communicator != MPI_COMM_NULL) {
        MPI_Comm_free(&group->communicator);
    }
    return MHP_OK;
}

static void mpi_close(void *state)
{
    mpi_group *group = state;

    if (!mhp_mpi_lane_settle(group->comm, group->stream, &group->lane)) {
        return;
    }
    if (group->stream) {
        (void)mhp_stream_host_call(group->stream, free_communicator, &group, sizeof group);
    }
    mhp_stream_destroy(group->stream);
    mhp_staging_close(&group->staging);
    mhp_event_destroy(group->event);
    mhp_free(group);
}

static mhp_status mpi_open(mhp_comm *comm, const mhp_collectives_params *params, void **state_out)
{
    mhp_status status = MHP_OK;
    mhp_device *device = mhp_comm_device(comm);
    mpi_group *group = NULL;
    create_call call = {.members = params->members, .id = params->id};

    MHP_TRY(out, mhp_calloc(&group, 1, sizeof *group));
    group->comm = comm;
    group->size = params->size;
    group->index = params->index;
    group->communicator = MPI_COMM_NULL;
    snprintf(group->name, sizeof group->name, "%s", params->name);
    MHP_TRY(out, mhp_event_create(device, &group->event));
    group->staged = mhp_staging_is_needed(device);
    if (group->staged) {
        MHP_TRY(out, mhp_staging_open(&group->staging, device, group->name, STAGED_PART_BYTES));
    }
    MHP_TRY(out, mhp_stream_create(device, MHP_STREAM_COMM, MHP_PRIORITY_NORMAL, group->name, &group->stream));
    call.group = group;
    MHP_TRY(out, mhp_stream_host_call(group->stream, create_communicator, &call, sizeof call));
    MHP_TRY(out, mhp_stream_synchronize(group->stream));
    *state_out = group;
    group = NULL;
out:
    if (group) {
        mpi_close(group);
    }
    return status;
}

typedef struct gather_call {
    mpi_group *group;
    const void *own;
    void *all;
    int bytes;
} gather_call;

static int post_gather_piece(const mhp_mpi_job *job, char *data, int count, MPI_Request *request)
{
    const gather_call *call = (const gather_call *)(const void *)job->argument;

    return MPI_Iallgather(call->own, count, MPI_BYTE, data, count, MPI_BYTE, call->group->communicator, request);
}

/* In one piece, behind what the lane holds: every member's calls must come in one order. */
static mhp_status post_gather(mhp_status status, const void *argument)
{
    const gather_call *call = argument;
    mpi_group *group = call->group;
    mhp_mpi_operation *operation = NULL;
    mhp_mpi_job job = {.post = post_gather_piece, .data = call->all, .unit_bytes = 1, .left = call->bytes, .piece = call->bytes};

    MHP_RETURN_IF_ERROR(mhp_mpi_begin(group->comm, status, group->name, group->event, &operation));
    job.operation = operation;
    memcpy(job.argument, call, sizeof *call);
    mhp_mpi_launch(group->comm, operation, mhp_mpi_enqueue(group->comm, &group->lane, &job));
    return MHP_OK;
}

mhp_status mhp_mpi_group_gather(void *state, const void *own, size_t bytes, void *all)
{
    mpi_group *group = state;
    gather_call call = {group, own, all, (int)bytes};

    MHP_RETURN_IF_ERROR(mhp_event_arm(group->event));
    MHP_RETURN_IF_ERROR(mhp_stream_call_always(group->stream, post_gather, &call, sizeof call));
    return mhp_event_synchronize(group->event, 0);
}

const mhp_collectives mhp_collectives_mpi = {
    .name = "mpi",
    .open = mpi_open,
    .close = mpi_close,
    .start = mpi_start,
};
