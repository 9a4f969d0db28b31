#include "comm/seal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "core/hash.h"
#include "core/memory.h"

enum { NAME_MAX_BYTES = 96, LABEL_TEXT_MAX = 96 };

typedef struct seal {
    mhp_hash hash;                  /* of the message's bytes */
    uint64_t label;
    char unused[MHP_SEAL_BYTES - sizeof(mhp_hash) - sizeof(uint64_t)];
} seal;

_Static_assert(sizeof(seal) == MHP_SEAL_BYTES, "a seal fills its place");

struct mhp_seals {
    mhp_seals_params params;
    char name[NAME_MAX_BYTES];
    mhp_stream *sums;               /* of the comm thread, which sums up */
    mhp_event *sealed;              /* source */
    mhp_event **landed;             /* target: [slot_count] */
    char *copy;                     /* host: the sealed message; NULL where the host reaches it itself, and then so are these */
    mhp_stream *copies;
    mhp_event *copied, *summed;     /* what passes the copy on, and back */
};

static mhp_message_fault_fn message_fault;
static void *message_fault_context;

void mhp_seals_set_fault(mhp_message_fault_fn fault, void *context)
{
    message_fault = fault;
    message_fault_context = context;
}

static size_t seal_offset(const mhp_seals *seals)
{
    return mhp_sealed_bytes(seals->params.message_bytes) - MHP_SEAL_BYTES;
}

static mhp_status create_events(mhp_seals *seals)
{
    MHP_RETURN_IF_ERROR(mhp_event_create(seals->params.device, &seals->sealed));
    MHP_RETURN_IF_ERROR(mhp_calloc(&seals->landed, (size_t)seals->params.slot_count, sizeof *seals->landed));
    for (int i = 0; i < seals->params.slot_count; i++) {
        MHP_RETURN_IF_ERROR(mhp_event_create(seals->params.device, &seals->landed[i]));
    }
    return MHP_OK;
}

static mhp_status create_copy(mhp_seals *seals)
{
    mhp_device *device = seals->params.device;

    MHP_RETURN_IF_ERROR(mhp_device_alloc_host(device, mhp_sealed_bytes(seals->params.message_bytes), (void **)&seals->copy));
    MHP_RETURN_IF_ERROR(mhp_event_create(device, &seals->copied));
    MHP_RETURN_IF_ERROR(mhp_event_create(device, &seals->summed));
    return mhp_stream_create(device, MHP_STREAM_COPY, MHP_PRIORITY_HIGH, seals->name, &seals->copies);
}

mhp_status mhp_seals_create(const mhp_seals_params *params, mhp_seals **seals_out)
{
    mhp_status status = MHP_OK;
    mhp_seals *seals = NULL;

    assert(params->slot_count > 0);
    MHP_TRY(out, mhp_calloc(&seals, 1, sizeof *seals));
    seals->params = *params;
    snprintf(seals->name, sizeof seals->name, "%s", params->name);
    seals->params.name = seals->name;
    MHP_TRY(out, create_events(seals));
    MHP_TRY(out, mhp_stream_create(params->device, MHP_STREAM_COMM, MHP_PRIORITY_NORMAL, seals->name, &seals->sums));
    if (!mhp_device_is_host_memory(params->device)) {
        MHP_TRY(out, create_copy(seals));
    }
    *seals_out = seals;
    seals = NULL;
out:
    mhp_seals_destroy(seals);
    return status;
}

void mhp_seals_destroy(mhp_seals *seals)
{
    if (!seals) {
        return;
    }
    mhp_stream_destroy(seals->copies);
    mhp_stream_destroy(seals->sums);
    for (int i = 0; seals->landed && i < seals->params.slot_count; i++) {
        mhp_event_destroy(seals->landed[i]);
    }
    mhp_event_destroy(seals->sealed);
    mhp_event_destroy(seals->summed);
    mhp_event_destroy(seals->copied);
    mhp_device_free_host(seals->params.device, seals->copy);
    mhp_free(seals->landed);
    mhp_free(seals);
}

typedef struct seal_call {
    const mhp_seals *seals;
    char *bytes;                    /* the message where the host reaches it */
    uint64_t label;
} seal_call;

static mhp_status set_seal(void *native, const void *argument)
{
    const seal_call *call = argument;
    seal made = {.hash = mhp_hash_bytes(call->bytes, call->seals->params.message_bytes), .label = call->label};

    (void)native;
    memcpy(call->bytes + seal_offset(call->seals), &made, sizeof made);
    return MHP_OK;
}

static mhp_status check_seal(void *native, const void *argument)
{
    const seal_call *call = argument;
    const mhp_seals_params *params = &call->seals->params;
    char text[LABEL_TEXT_MAX], found[MHP_HASH_TEXT_MAX], expected[MHP_HASH_TEXT_MAX];
    mhp_hash hash;
    seal came;

    (void)native;
    if (message_fault) {
        message_fault(message_fault_context, params->name, call->label, call->bytes, mhp_sealed_bytes(params->message_bytes));
    }
    memcpy(&came, call->bytes + seal_offset(call->seals), sizeof came);
    hash = mhp_hash_bytes(call->bytes, params->message_bytes);
    if (mhp_hash_equal(hash, came.hash) && came.label == call->label) {
        return MHP_OK;
    }
    params->describe(call->label, text, sizeof text);
    if (mhp_hash_equal(hash, came.hash)) {
        char other[LABEL_TEXT_MAX];

        params->describe(came.label, other, sizeof other);
        return mhp_error_set(MHP_ERR_COMM, "%s: in place of the message of %s came that of %s", params->name, text, other);
    }
    mhp_hash_print(hash, found);
    mhp_hash_print(came.hash, expected);
    return mhp_error_set(MHP_ERR_COMM, "%s: the message of %s is corrupt: its bytes have the checksum %s, it carries %s", params->name, text,
                         found, expected);
}

/* Brings the message where the comm thread reaches it once `after` is complete, and hands it over. `bytes` is what there is to copy. */
static mhp_status submit_sum(mhp_seals *seals, mhp_task_fn sum, void *message, size_t bytes, uint64_t label, mhp_event *after)
{
    seal_call call = {.seals = seals, .bytes = seals->copy ? seals->copy : message, .label = label};

    if (seals->copy) {
        MHP_RETURN_IF_ERROR(mhp_stream_wait(seals->copies, after));
        MHP_RETURN_IF_ERROR(mhp_stream_copy(seals->copies, seals->copy, message, bytes));
        MHP_RETURN_IF_ERROR(mhp_event_record(seals->copied, seals->copies));
        after = seals->copied;
    }
    MHP_RETURN_IF_ERROR(mhp_stream_wait(seals->sums, after));
    MHP_RETURN_IF_ERROR(mhp_stream_host_call(seals->sums, sum, &call, sizeof call));
    if (!seals->copy) {
        return MHP_OK;
    }
    MHP_RETURN_IF_ERROR(mhp_event_record(seals->summed, seals->sums));
    return mhp_stream_wait(seals->copies, seals->summed);       /* the copy is free again */
}

mhp_status mhp_seals_set(mhp_seals *seals, void *message, uint64_t label, mhp_event *after, mhp_event **sealed_out)
{
    size_t offset = seal_offset(seals);

    *sealed_out = seals->sealed;
    MHP_RETURN_IF_ERROR(submit_sum(seals, set_seal, message, seals->params.message_bytes, label, after));
    if (!seals->copy) {
        return mhp_event_record(seals->sealed, seals->sums);
    }
    MHP_RETURN_IF_ERROR(mhp_stream_copy(seals->copies, (char *)message + offset, seals->copy + offset, MHP_SEAL_BYTES));
    return mhp_event_record(seals->sealed, seals->copies);
}

mhp_event *mhp_seals_landed(const mhp_seals *seals, int slot)
{
    assert(slot >= 0 && slot < seals->params.slot_count);
    return seals->landed[slot];
}

mhp_status mhp_seals_check(mhp_seals *seals, void *message, int slot, uint64_t label, mhp_event *done)
{
    size_t bytes = mhp_sealed_bytes(seals->params.message_bytes);

    MHP_RETURN_IF_ERROR(submit_sum(seals, check_seal, message, bytes, label, mhp_seals_landed(seals, slot)));
    return mhp_event_record(done, seals->sums);
}
