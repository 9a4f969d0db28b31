/* Groups over MPI's non-blocking collectives, one communicator a group; posted by the comm thread in the order of the calls. A card's
 * memory goes by way of the host in parts: while one is under way in MPI, the next is copied. */
#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "comm/group.h"
#include "comm/mpi/engine.h"
#include "comm/mpi/staging.h"
#include "core/memory.h"

enum { NAME_MAX_BYTES = 64, TRANSFER_TAG = 7, PART_ELEMENTS_MAX = 1 << 27, STAGED_PART_BYTES = 8 << 20, EVERY_MEMBER = -1 };

struct mhp_group {
    mhp_comm *comm;
    char name[NAME_MAX_BYTES];
    MPI_Comm communicator;
    mhp_stream *stream;             /* of calls to MPI; in a group of one, of the order of events alone */
    mhp_event *event;               /* of blocking calls */
    bool staged;
    mhp_staging staging;            /* if staged */
    int size, index;
};

typedef enum group_operation { GROUP_ALL_REDUCE, GROUP_REDUCE_SCATTER, GROUP_ALL_GATHER, GROUP_BROADCAST, GROUP_TRANSFER, GROUP_BARRIER } group_operation;

typedef struct group_call {
    mhp_group *group;
    group_operation operation;
    char *data;
    int64_t count;                  /* elements; of one chunk where there are chunks; bytes for broadcast and transfer */
    mhp_dtype dtype;
    mhp_reduce_op op;
    int from, to;
    int member;                     /* whose chunk it is, where there are chunks, or EVERY_MEMBER */
    mhp_event *done;
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

/* Posts one part: `count` elements at `data`; `member` is whose chunk it is, where there are chunks. */
static int post_collective(const group_call *call, char *data, int count, int member, MPI_Request *request)
{
    const mhp_group *group = call->group;
    MPI_Datatype type = mpi_type(call->dtype);

    switch (call->operation) {
    case GROUP_ALL_REDUCE:
        return MPI_Iallreduce(MPI_IN_PLACE, data, count, type, mpi_op(call->op), group->communicator, request);
    case GROUP_REDUCE_SCATTER:      /* a reduction to each member leaves the sum in its own chunk, in place */
        return MPI_Ireduce(member == group->index ? MPI_IN_PLACE : data, data, count, type, MPI_SUM, member, group->communicator, request);
    case GROUP_ALL_GATHER:
        return MPI_Ibcast(data, count, type, member, group->communicator, request);
    case GROUP_BROADCAST:
        return MPI_Ibcast(data, count, MPI_BYTE, call->from, group->communicator, request);
    case GROUP_TRANSFER:
        return group->index == call->from ? MPI_Isend(data, count, MPI_BYTE, call->to, TRANSFER_TAG, group->communicator, request)
                                          : MPI_Irecv(data, count, MPI_BYTE, call->from, TRANSFER_TAG, group->communicator, request);
    case GROUP_BARRIER:
        return MPI_Ibarrier(group->communicator, request);
    }
    return MPI_ERR_OP;
}

static mhp_status post_range(const group_call *call, mhp_mpi_operation *operation, char *data, int member)
{
    mhp_comm *comm = call->group->comm;
    size_t element = mhp_dtype_bytes(call->dtype);
    int64_t first = 0;

    do {
        int64_t rest = call->count - first;
        int part = (int)(rest < PART_ELEMENTS_MAX ? rest : PART_ELEMENTS_MAX);
        MPI_Request *request;

        MHP_RETURN_IF_ERROR(mhp_mpi_room(comm, operation, &request));
        MHP_RETURN_IF_ERROR(mhp_mpi_check(post_collective(call, data + (size_t)first * element, part, member, request), operation->name));
        mhp_mpi_added(comm, operation, 0);
        first += part;
    } while (first < call->count);
    return MHP_OK;
}

static mhp_status post_group(void *native, const void *argument)
{
    const group_call *call = argument;
    mhp_group *group = call->group;
    mhp_status status = MHP_OK;
    mhp_mpi_operation *operation = NULL;
    int members = call->member == EVERY_MEMBER ? group->size : 1;

    (void)native;
    MHP_RETURN_IF_ERROR(mhp_mpi_begin(group->comm, group->name, call->done, &operation));
    for (int i = 0; i < members; i++) {
        size_t offset = (size_t)i * (size_t)call->count * mhp_dtype_bytes(call->dtype);

        MHP_TRY(out, post_range(call, operation, call->data + offset, call->member == EVERY_MEMBER ? i : call->member));
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
    MHP_RETURN_IF_ERROR(mhp_event_arm(call->done));
    return mhp_stream_host_call(call->group->stream, post_group, call, sizeof *call);
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

    switch (call->operation) {
    case GROUP_ALL_GATHER:
        return own == member;
    case GROUP_BROADCAST:
    case GROUP_TRANSFER:
        return own == call->from;
    default:
        return true;
    }
}

static bool takes(const group_call *call, int member)
{
    int own = call->group->index;

    switch (call->operation) {
    case GROUP_REDUCE_SCATTER:
        return own == member;
    case GROUP_ALL_GATHER:
        return own != member;
    case GROUP_BROADCAST:
        return own != call->from;
    case GROUP_TRANSFER:
        return own == call->to;
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
    size_t element = mhp_dtype_bytes(call->dtype);
    char *data = call->data + (size_t)first * element;
    group_call staged = *call;

    part->bytes = (size_t)count * element;
    part->target = takes(call, member) ? data : NULL;
    staged.data = part->buffer->memory;
    staged.count = count;
    staged.member = member;
    staged.done = part->buffer->moved;
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
    int64_t part_count = STAGED_PART_BYTES / (int64_t)mhp_dtype_bytes(call->dtype);
    staged_part parts[MHP_STAGING_BUFFERS] = {0};
    unsigned turn = 0;

    if (after) {
        MHP_RETURN_IF_ERROR(mhp_stream_wait(staging->stream, after));
    }
    for (int64_t first = 0; first < call->count * members;) {
        int member = (int)(first / call->count);
        int64_t rest = call->count * (member + 1) - first;
        staged_part *part = &parts[turn++ % MHP_STAGING_BUFFERS];

        MHP_RETURN_IF_ERROR(end_part(staging->stream, part));
        part->buffer = mhp_staging_take(staging);
        MHP_RETURN_IF_ERROR(begin_part(call, member, first, rest < part_count ? rest : part_count, part));
        first += rest < part_count ? rest : part_count;
    }
    for (int i = 0; i < MHP_STAGING_BUFFERS; i++) {
        MHP_RETURN_IF_ERROR(end_part(staging->stream, &parts[turn++ % MHP_STAGING_BUFFERS]));
    }
    return mhp_event_record(call->done, staging->stream);
}

/* ---- operations ---- */

static mhp_status start(const group_call *call, mhp_event *after)
{
    mhp_group *group = call->group;

    if (group->size == 1) {             /* nothing to do but to keep the order */
        if (after) {
            MHP_RETURN_IF_ERROR(mhp_stream_wait(group->stream, after));
        }
        return mhp_event_record(call->done, group->stream);
    }
    return group->staged && call->operation != GROUP_BARRIER ? post_staged(call, after) : post(call, after);
}

mhp_status mhp_group_all_reduce(mhp_group *group, void *data, int64_t count, mhp_dtype dtype, mhp_reduce_op op, mhp_event *after,
                                mhp_event *done)
{
    group_call call = {.group = group, .operation = GROUP_ALL_REDUCE, .data = data, .count = count, .dtype = dtype, .op = op, .done = done};

    return start(&call, after);
}

mhp_status mhp_group_reduce_scatter(mhp_group *group, void *data, int64_t chunk, mhp_dtype dtype, mhp_event *after, mhp_event *done)
{
    group_call call = {.group = group, .operation = GROUP_REDUCE_SCATTER, .data = data, .count = chunk, .dtype = dtype,
                       .member = EVERY_MEMBER, .done = done};

    return start(&call, after);
}

mhp_status mhp_group_all_gather(mhp_group *group, void *data, int64_t chunk, mhp_dtype dtype, mhp_event *after, mhp_event *done)
{
    group_call call = {.group = group, .operation = GROUP_ALL_GATHER, .data = data, .count = chunk, .dtype = dtype,
                       .member = EVERY_MEMBER, .done = done};

    return start(&call, after);
}

mhp_status mhp_group_broadcast(mhp_group *group, void *data, size_t bytes, int root, mhp_event *after, mhp_event *done)
{
    group_call call = {.group = group, .operation = GROUP_BROADCAST, .data = data, .count = (int64_t)bytes, .dtype = MHP_DTYPE_U8,
                       .from = root, .done = done};

    return start(&call, after);
}

mhp_status mhp_group_transfer(mhp_group *group, void *data, size_t bytes, int from, int to, mhp_event *after, mhp_event *done)
{
    group_call call = {.group = group, .operation = GROUP_TRANSFER, .data = data, .count = (int64_t)bytes, .dtype = MHP_DTYPE_U8,
                       .from = from, .to = to, .done = done};

    if (from == to || (group->index != from && group->index != to)) {
        return MHP_OK;
    }
    return start(&call, after);
}

mhp_status mhp_group_barrier(mhp_group *group)
{
    group_call call = {.group = group, .operation = GROUP_BARRIER, .dtype = MHP_DTYPE_U8, .done = group->event};

    MHP_RETURN_IF_ERROR(start(&call, NULL));
    return mhp_event_synchronize(group->event, 0);
}

typedef struct create_call {
    mhp_group *group;
    const int *members;
    int id;
} create_call;

static mhp_status create_communicator(void *native, const void *argument)
{
    const create_call *call = argument;
    mhp_group *group = call->group;
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
    mhp_group *group;

    (void)native;
    memcpy(&group, argument, sizeof group);
    if (group->communicator != MPI_COMM_NULL) {
        MPI_Comm_free(&group->communicator);
    }
    return MHP_OK;
}

mhp_status mhp_group_open(mhp_comm *comm, const char *name, int id, const int *members, int member_count, mhp_group **group_out)
{
    mhp_status status = MHP_OK;
    mhp_group *group = NULL;
    create_call call = {.members = members, .id = id};

    assert(member_count > 0);
    MHP_TRY(out, mhp_calloc(&group, 1, sizeof *group));
    group->comm = comm;
    group->size = member_count;
    group->communicator = MPI_COMM_NULL;
    snprintf(group->name, sizeof group->name, "%s", name);
    MHP_TRY(out, mhp_event_create(mhp_comm_device(comm), &group->event));
    group->staged = member_count > 1 && mhp_staging_is_needed(mhp_comm_device(comm));
    if (group->staged) {
        MHP_TRY(out, mhp_staging_open(&group->staging, mhp_comm_device(comm), group->name, STAGED_PART_BYTES));
    }
    MHP_TRY(out, mhp_stream_create(mhp_comm_device(comm), member_count > 1 ? MHP_STREAM_COMM : MHP_STREAM_COMPUTE, MHP_PRIORITY_NORMAL,
                                   group->name, &group->stream));
    if (member_count > 1) {
        call.group = group;
        MHP_TRY(out, mhp_stream_host_call(group->stream, create_communicator, &call, sizeof call));
        MHP_TRY(out, mhp_stream_synchronize(group->stream));
    }
    *group_out = group;
    group = NULL;
out:
    mhp_group_close(group);
    return status;
}

void mhp_group_close(mhp_group *group)
{
    if (!group) {
        return;
    }
    if (group->stream && group->size > 1) {
        (void)mhp_stream_host_call(group->stream, free_communicator, &group, sizeof group);
    }
    mhp_stream_destroy(group->stream);
    mhp_staging_close(&group->staging);
    mhp_event_destroy(group->event);
    mhp_free(group);
}

int mhp_group_size(const mhp_group *group)
{
    return group->size;
}

int mhp_group_index(const mhp_group *group)
{
    return group->index;
}
