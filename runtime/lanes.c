#include "runtime/lanes.h"

const char *mhp_lane_text(mhp_lane lane)
{
    static const char *const texts[] = {"compute", "partner", "leader", "states", "gradients"};

    return texts[lane];
}

mhp_pair_mode mhp_lanes_pair(const mhp_overlap_params *overlap, mhp_device_kind kind)
{
    if (overlap->pair == MHP_PAIR_AUTO) {
        return kind == MHP_DEVICE_CUDA ? MHP_PAIR_STREAMS : MHP_PAIR_INTERLEAVE;
    }
    return (mhp_pair_mode)overlap->pair;
}

/* What the forward half of a pair has of the card; 1 where there is none, for one number is as good as another. */
static int leading_part(const mhp_device *device, const mhp_overlap_params *overlap)
{
    int third = mhp_device_processors(device) / 3;

    return overlap->part > 0 ? (int)overlap->part : third > 0 ? third : 1;
}

static mhp_status create_stream(mhp_device *device, mhp_lane lane, const mhp_overlap_params *overlap, mhp_stream **stream_out)
{
    const char *name = mhp_lane_text(lane);

    switch (lane) {
    case MHP_LANE_STATE:
    case MHP_LANE_GRADIENT:
        return mhp_stream_create(device, MHP_STREAM_COMPUTE, MHP_PRIORITY_HIGH, name, stream_out);
    case MHP_LANE_LEADER:
        return mhp_stream_create_spared(device, leading_part(device, overlap), name, stream_out);
    case MHP_LANE_PARTNER:
        if (overlap->pair == MHP_PAIR_PARTS) {
            return mhp_stream_create_sparing(device, leading_part(device, overlap), name, stream_out);
        }
        return mhp_stream_create_sparing(device, (int)overlap->spare, name, stream_out);
    default:
        return mhp_stream_create_sparing(device, (int)overlap->spare, name, stream_out);
    }
}

mhp_status mhp_lanes_open(mhp_lanes *lanes, mhp_device *device, const mhp_overlap_params *overlap)
{
    mhp_pair_mode pair = mhp_lanes_pair(overlap, mhp_device_get_kind(device));
    const bool wanted[MHP_LANE_COUNT] = {
        [MHP_LANE_COMPUTE] = true,
        [MHP_LANE_PARTNER] = pair == MHP_PAIR_STREAMS || pair == MHP_PAIR_PARTS,
        [MHP_LANE_LEADER] = pair == MHP_PAIR_PARTS,
        [MHP_LANE_STATE] = overlap->critical_stream,
        [MHP_LANE_GRADIENT] = overlap->critical_stream,
    };

    *lanes = (mhp_lanes){.device = device};
    for (int i = 0; i < MHP_LANE_COUNT; i++) {
        if (wanted[i]) {
            MHP_RETURN_IF_ERROR(create_stream(device, (mhp_lane)i, overlap, &lanes->stream[i]));
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
