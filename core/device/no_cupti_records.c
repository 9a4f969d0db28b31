/* In place of cupti_records.c in a build without CUPTI's headers. */
#include "core/records.h"

#include <assert.h>

mhp_status mhp_records_open(mhp_device *device, size_t capacity, mhp_records **records_out)
{
    (void)capacity;
    *records_out = NULL;
    if (mhp_device_get_kind(device) != MHP_DEVICE_CUDA) {
        return mhp_error_set(MHP_ERR_UNSUPPORTED, "no card computes");
    }
    return mhp_error_set(MHP_ERR_UNSUPPORTED, "this program was built without CUPTI's headers");
}

void mhp_records_close(mhp_records *records)
{
    assert(!records);
}

/* None is ever open. */
static mhp_status refuse(void)
{
    return mhp_error_set(MHP_ERR_UNSUPPORTED, "this program was built without CUPTI's headers");
}

mhp_status mhp_records_stream(const mhp_records *records, mhp_stream *stream, uint32_t *number_out)
{
    (void)records;
    (void)stream;
    (void)number_out;
    return refuse();
}

mhp_status mhp_records_keep(mhp_records *records)
{
    (void)records;
    return refuse();
}

mhp_status mhp_records_finish(mhp_records *records, mhp_record_list *list_out)
{
    (void)records;
    (void)list_out;
    return refuse();
}
