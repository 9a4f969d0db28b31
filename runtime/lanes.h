/* The streams that a rank computes on. Each runs its work in the order in which it was submitted; between them only events order.
 *
 * `compute` has everything that no other has, and waits for all of them at the end of a plan. `partner` has the backward half of a pair
 * whose halves run side by side, `leader` the forward half where both have a part of the card to themselves. The other two, of high priority, have what a message waits for: the step that fills a state, or a
 * gradient, for another rank. They are two, for a state that waits for its place must not hold up a gradient. */
#ifndef MHP_RUNTIME_LANES_H
#define MHP_RUNTIME_LANES_H

#include "core/device.h"
#include "runtime/options.h"

typedef enum mhp_lane {
    MHP_LANE_COMPUTE,
    MHP_LANE_PARTNER,
    MHP_LANE_LEADER,
    MHP_LANE_STATE,
    MHP_LANE_GRADIENT,
    MHP_LANE_COUNT,
} mhp_lane;

typedef struct mhp_lanes {
    mhp_device *device;
    mhp_stream *stream[MHP_LANE_COUNT];     /* NULL where the options ask for none */
} mhp_lanes;

/* "compute", "partner", "leader", "states", "gradients". */
const char *mhp_lane_text(mhp_lane lane);

/* What a pair's halves do on a device of this kind where the options leave it open: never MHP_PAIR_AUTO. */
mhp_pair_mode mhp_lanes_pair(const mhp_overlap_params *overlap, mhp_device_kind kind);
/* Close works also after half an open, and on zeros; it waits for what is under way. */
mhp_status mhp_lanes_open(mhp_lanes *lanes, mhp_device *device, const mhp_overlap_params *overlap);
void mhp_lanes_close(mhp_lanes *lanes);
/* Waits until nothing is under way on any of them; errors stay where they are. */
void mhp_lanes_drain(const mhp_lanes *lanes);
/* For how long they worked (mhp_stream_busy_ns): on a CPU all of them, which one thread serves; on a card compute, which works or waits
 * for the others. Host calls may ask. */
uint64_t mhp_lanes_busy_ns(const mhp_lanes *lanes);

#endif
