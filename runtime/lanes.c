#include "runtime/lanes.h"

const char *mhp_lane_text(mhp_lane lane)
{
    static const char *const texts[] = {"compute", "partner", "states", "gradients"};

    return texts[lane];
}

static mhp_status create_stream(mhp_device *device, mhp_lane lane, int spared, mhp_stream **stream_out)
{
    return lane == MHP_LANE_STATE || lane == MHP_LANE_GRADIENT
               ? mhp_stream_create(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_HIGH, mhp_lane_text(lane), stream_out)
               : mhp_stream_create_sparing(device, spared, mhp_lane_text(lane), stream_out);
}

mhp_status mhp_lanes_open(mhp_lanes *lanes, mhp_device *device, const mhp_overlap_params *overlap)
{
    const bool wanted[] = {true, overlap->pair == MHP_PAIR_STREAMS, overlap->critical_stream, overlap->critical_stream};

    *lanes = (mhp_lanes){.device = device};
    for (int i = 0; i < MHP_LANE_COUNT; i++) {
        if (wanted[i]) {
            MHP_RETURN_IF_ERROR(create_stream(device, (mhp_lane)i, (int)overlap->spare, &lanes->stream[i]));
        }
    }
    return MHP_OK;
}

void mhp_lanes_drain(const mhp_lanes *lanes)
{
    for (int i = 0; i < MHP_LANE_COUNT; i++) {
        if (lanes->stream[i]) {
            (void)mhp_stream_synchronize(lanes->stream[i]);
        }
    }
}

void mhp_lanes_close(mhp_lanes *lanes)
{
    for (int i = MHP_LANE_COUNT - 1; i >= 0; i--) {
        mhp_stream_destroy(lanes->stream[i]);
    }
    *lanes = (mhp_lanes){0};
}

uint64_t mhp_lanes_busy_ns(const mhp_lanes *lanes)
{
    int count = mhp_device_get_kind(lanes->device) == MHP_DEVICE_CUDA ? MHP_LANE_COMPUTE + 1 : MHP_LANE_COUNT;
    uint64_t sum_ns = 0;

    for (int i = 0; i < count; i++) {
        sum_ns += lanes->stream[i] ? mhp_stream_busy_ns(lanes->stream[i]) : 0;
    }
    return sum_ns;
}
